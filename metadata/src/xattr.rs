//! Extended attributes: namespaces, permissions, `XATTR_CREATE` and `XATTR_REPLACE`.
//!
//! Invariant: the inode row counts the attributes and their bytes, so that without any nothing else is
//! looked at. A name whose hash another name holds is refused (ENOSPC); a stored name is always compared.

use quorate_crypto::BoundedBytes;
use quorate_protocol::file::{Entropy, FileKind};
use quorate_protocol::limits::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use quorate_protocol::operation::SetXattrMode;
use quorate_protocol::{Ino, Reply};

use crate::context::{Caller, Context};
use crate::errno::Errno;
use crate::inodes;
use crate::keys::{self, KIND_XATTR};
use crate::permission::{self, READ, STICKY, WRITE, require};
use crate::rows::{self, Inode, Row, Xattr};
use crate::view::{Error, View};

/// Extended attributes of one inode; more is ENOSPC.
pub const XATTRS_PER_INODE_MAX: u16 = 128;
/// Bytes of names and values of one inode's extended attributes; more is ENOSPC. A list of all of them
/// fits one proof.
pub const XATTR_BYTES_PER_INODE_MAX: u32 = 256 * 1024;
/// What a change of a file's content or owner removes.
const CAPABILITY: &[u8] = b"security.capability";

type XattrName = BoundedBytes<XATTR_NAME_BYTES_MAX>;
type XattrValue = BoundedBytes<XATTR_VALUE_BYTES_MAX>;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Namespace {
    User,
    Trusted,
    Security,
}

/// The namespace of a name. `system.` holds ACLs only, which are *(later)*.
fn namespace(name: &[u8]) -> Result<Namespace, Errno> {
    if name.is_empty() {
        return Err(Errno::ERANGE);
    }
    if name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    let known: [(&[u8], Namespace); 3] =
        [(b"user.", Namespace::User), (b"trusted.", Namespace::Trusted), (b"security.", Namespace::Security)];
    for (prefix, namespace) in known {
        match name.strip_prefix(prefix) {
            Some([]) => return Err(Errno::EINVAL),
            Some(_) => return Ok(namespace),
            None => {}
        }
    }
    Err(Errno::EOPNOTSUPP)
}

/// Whether inodes of this kind have attributes of the namespace `user.`.
const fn has_user(kind: FileKind) -> bool {
    matches!(kind, FileKind::Regular | FileKind::Directory)
}

fn check_write(caller: &Caller, inode: &Inode, namespace: Namespace) -> Result<(), Errno> {
    match namespace {
        Namespace::Trusted | Namespace::Security if caller.is_root() => Ok(()),
        Namespace::Trusted | Namespace::Security => Err(Errno::EPERM),
        Namespace::User => {
            let sticky = inode.is_directory() && inode.mode & STICKY != 0;
            if !has_user(inode.kind) || (sticky && !permission::owns(caller, inode)) {
                return Err(Errno::EPERM);
            }
            require(caller, inode, WRITE)
        }
    }
}

fn check_read(caller: &Caller, inode: &Inode, namespace: Namespace) -> Result<(), Errno> {
    match namespace {
        Namespace::Security => Ok(()),
        Namespace::Trusted if caller.is_root() => Ok(()),
        Namespace::User if has_user(inode.kind) => require(caller, inode, READ),
        Namespace::Trusted | Namespace::User => Err(Errno::ENODATA),
    }
}

/// What is stored under a name's key: the attribute of this name, none, or one of another name.
fn find(view: &dyn View, ino: Ino, inode: &Inode, name: &[u8]) -> Result<Option<Xattr>, Error> {
    if inode.xattr_count == 0 { Ok(None) } else { rows::get(view, &keys::xattr(ino, name)) }
}

fn bytes_of(name: &[u8], value: &[u8]) -> Result<u32, Errno> {
    u32::try_from(name.len().saturating_add(value.len())).map_err(|_| Errno::ENOSPC)
}

/// `setxattr`.
pub(crate) fn set(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    name: &XattrName,
    value: &XattrValue,
    mode: SetXattrMode,
    entropy: &Entropy,
) -> Result<Reply, Error> {
    let mut inode = inodes::load(view, ino)?;
    let space = namespace(name)?;
    check_write(context.caller, &inode, space)?;
    let old = find(view, ino, &inode, name)?;
    match (&old, mode) {
        (Some(old), _) if old.name != *name => return Err(Errno::ENOSPC.into()),
        (Some(_), SetXattrMode::Create) => return Err(Errno::EEXIST.into()),
        (None, SetXattrMode::Replace) => return Err(Errno::ENODATA.into()),
        _ => {}
    }
    if let Some(old) = &old {
        uncount(&mut inode, old)?;
    }
    inode.xattr_count = inode.xattr_count.checked_add(1).ok_or(Errno::ENOSPC)?;
    inode.xattr_bytes = inode.xattr_bytes.checked_add(bytes_of(name, value)?).ok_or(Errno::ENOSPC)?;
    if inode.xattr_count > XATTRS_PER_INODE_MAX || inode.xattr_bytes > XATTR_BYTES_PER_INODE_MAX {
        return Err(Errno::ENOSPC.into());
    }
    let row = Xattr { entropy: *entropy, name: name.clone(), value: value.clone() };
    rows::put(view, keys::xattr(ino, name), &row);
    finish(view, context, ino, inode)
}

/// `removexattr`.
pub(crate) fn remove(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    name: &XattrName,
) -> Result<Reply, Error> {
    let mut inode = inodes::load(view, ino)?;
    let space = namespace(name)?;
    check_write(context.caller, &inode, space)?;
    let old = find(view, ino, &inode, name)?.filter(|old| old.name == *name).ok_or(Errno::ENODATA)?;
    uncount(&mut inode, &old)?;
    view.delete(keys::xattr(ino, name));
    finish(view, context, ino, inode)
}

fn uncount(inode: &mut Inode, old: &Xattr) -> Result<(), Error> {
    let damaged = Error::Corrupt("an inode's attributes do not add up");
    inode.xattr_count = inode.xattr_count.checked_sub(1).ok_or(damaged)?;
    inode.xattr_bytes = inode.xattr_bytes.checked_sub(bytes_of(&old.name, &old.value)?).ok_or(damaged)?;
    Ok(())
}

fn finish(view: &mut dyn View, context: &Context<'_>, ino: Ino, mut inode: Inode) -> Result<Reply, Error> {
    inodes::touch_attributes(&mut inode, context);
    inodes::store(view, ino, &inode);
    Ok(Reply::Inode { attributes: inode.attributes(ino), created: false })
}

/// Removes a file's capabilities, as every change of content or owner does. The caller stores the inode.
pub(crate) fn drop_capability(view: &mut dyn View, ino: Ino, inode: &mut Inode) -> Result<(), Error> {
    let Some(old) = find(view, ino, inode, CAPABILITY)? else { return Ok(()) };
    if old.name.as_slice() == CAPABILITY {
        uncount(inode, &old)?;
        view.delete(keys::xattr(ino, CAPABILITY));
    }
    Ok(())
}

/// `getxattr`.
pub(crate) fn get(view: &dyn View, caller: &Caller, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Error> {
    let inode = inodes::load(view, ino)?;
    let space = namespace(name)?;
    check_read(caller, &inode, space)?;
    let found = find(view, ino, &inode, name)?.filter(|row| row.name.as_slice() == name);
    Ok(found.ok_or(Errno::ENODATA)?.value.into_inner())
}

/// `listxattr`: all names in the order of their hashes; those of `trusted.` for root only.
pub(crate) fn list(view: &dyn View, caller: &Caller, ino: Ino) -> Result<Vec<Vec<u8>>, Error> {
    let inode = inodes::load(view, ino)?;
    let end = keys::kind_end(ino, KIND_XATTR);
    let mut from = keys::kind_start(ino, KIND_XATTR);
    let mut names = Vec::new();
    for _ in 0..inode.xattr_count {
        let damaged = Error::Corrupt("an extended attribute is missing");
        let (key, value) = view.next(&from, Some(&end))?.ok_or(damaged)?;
        let name = Xattr::from_value(&value)?.name.into_inner();
        if caller.is_root() || namespace(&name) != Ok(Namespace::Trusted) {
            names.push(name);
        }
        from = keys::successor(&key);
    }
    Ok(names)
}
