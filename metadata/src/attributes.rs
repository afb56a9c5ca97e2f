//! `chmod`, `chown`, `truncate` and `utimensat`, alone or in one operation.
//!
//! Invariant: everything is checked before anything is changed; what one operation combines happens in the
//! order owner, mode, size, times.

use quorate_protocol::file::FileKind;
use quorate_protocol::operation::Authority;
use quorate_protocol::time::SetTime;
use quorate_protocol::{Ino, OperationBody, Reply, Timestamp};

use crate::blocks::{self, Admitted};
use crate::context::{Caller, Context};
use crate::errno::Errno;
use crate::grants;
use crate::inodes;
use crate::keys;
use crate::permission::{self, WRITE, require, require_owner};
use crate::reclaim::{self, Progress};
use crate::rows::{self, Content, Inode};
use crate::splice::{self, References};
use crate::view::{Error, View};
use crate::xattr;

/// Bytes of the largest file; beyond it is EFBIG.
pub const FILE_SIZE_MAX: u64 = 1 << 60;

/// The fields of `SetAttributes`.
struct Change {
    mode: Option<u16>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: SetTime,
    mtime: SetTime,
    authority: Authority,
}

/// Applies `SetAttributes`.
pub(crate) fn apply(
    view: &mut dyn View,
    context: &Context<'_>,
    body: &OperationBody,
) -> Result<Reply, Error> {
    let OperationBody::SetAttributes { ino, mode, uid, gid, size, atime, mtime, authority, token } = body
    else {
        return Err(Errno::EOPNOTSUPP.into());
    };
    let change = Change {
        mode: *mode,
        uid: *uid,
        gid: *gid,
        size: *size,
        atime: *atime,
        mtime: *mtime,
        authority: *authority,
    };
    let mut inode = inodes::load(view, *ino)?;
    check_token(*token)?;
    check(view, context, *ino, &inode, &change)?;
    if let Some(size) = change.size.filter(|size| *size > inode.size) {
        let rows = inode.rows_of(size);
        if reclaim::expose(view, context.moment, *ino, &mut inode, rows)? == Progress::More {
            return Ok(Reply::Continue);
        }
    }
    perform(view, context, *ino, &mut inode, &change)?;
    Ok(Reply::Inode { attributes: inode.attributes(*ino), created: false })
}

/// No operation hands out fencing tokens yet, so every token is a stale one.
pub(crate) fn check_token(token: Option<u64>) -> Result<(), Errno> {
    if token.is_some() { Err(Errno::ESTALE) } else { Ok(()) }
}

fn check(
    view: &dyn View,
    context: &Context<'_>,
    ino: Ino,
    inode: &Inode,
    change: &Change,
) -> Result<(), Error> {
    let caller = context.caller;
    if let Some(size) = change.size {
        check_truncate(view, context, ino, inode, size, change.authority)?;
    }
    check_chown(caller, inode, change.uid, change.gid)?;
    if change.mode.is_some() {
        require_owner(caller, inode)?;
        if inode.kind == FileKind::Symlink {
            return Err(Errno::EOPNOTSUPP.into());
        }
    }
    Ok(check_times(caller, inode, change)?)
}

/// `truncate` needs write permission, of the owner too; `ftruncate` shows its grant instead.
fn check_truncate(
    view: &dyn View,
    context: &Context<'_>,
    ino: Ino,
    inode: &Inode,
    size: u64,
    authority: Authority,
) -> Result<(), Error> {
    match inode.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    match authority {
        Authority::Check => require(context.caller, inode, WRITE)?,
        Authority::Grant => grants::authorize_write(view, context, ino, inode, authority)?,
    }
    if size > FILE_SIZE_MAX { Err(Errno::EFBIG.into()) } else { Ok(()) }
}

/// Only root gives files away; an owner may choose among his groups.
fn check_chown(caller: &Caller, inode: &Inode, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::EINVAL);
    }
    if caller.is_root() {
        return Ok(());
    }
    let owner = caller.uid == inode.uid;
    let uid_allowed = uid.is_none_or(|uid| owner && uid == inode.uid);
    let gid_allowed = gid.is_none_or(|gid| owner && (gid == inode.gid || caller.in_group(gid)));
    if uid_allowed && gid_allowed { Ok(()) } else { Err(Errno::EPERM) }
}

/// Setting both times to now needs write permission; anything else needs ownership. A truncation sets the
/// modification time by itself, and asking for that besides costs nothing.
fn check_times(caller: &Caller, inode: &Inode, change: &Change) -> Result<(), Errno> {
    let explicit = |time: SetTime| matches!(time, SetTime::To(_));
    match (change.atime, change.mtime) {
        (SetTime::Omit, SetTime::Omit) => Ok(()),
        (atime, mtime) if explicit(atime) || explicit(mtime) => require_owner(caller, inode),
        _ if change.size.is_some() => Ok(()),
        (SetTime::Now, SetTime::Now) if permission::owns(caller, inode) => Ok(()),
        (SetTime::Now, SetTime::Now) => require(caller, inode, WRITE),
        _ => require_owner(caller, inode),
    }
}

fn perform(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    inode: &mut Inode,
    change: &Change,
) -> Result<(), Error> {
    let Change { mode, uid, gid, size, atime, mtime, authority: _ } = change;
    let times = *atime != SetTime::Omit || *mtime != SetTime::Omit;
    if mode.is_none() && uid.is_none() && gid.is_none() && size.is_none() && !times {
        return Ok(());
    }
    if uid.is_some() || gid.is_some() {
        inode.mode = permission::mode_after_chown(context.caller, inode);
        inode.uid = uid.unwrap_or(inode.uid);
        inode.gid = gid.unwrap_or(inode.gid);
        if !inode.is_directory() {
            xattr::drop_capability(view, ino, inode)?;
        }
    }
    if let Some(mode) = mode {
        inode.mode = permission::mode_for_chmod(context.caller, *mode, inode.gid);
    }
    if let Some(size) = size {
        truncate(view, context, ino, inode, *size)?;
    }
    set_time(&mut inode.atime, *atime, context.time);
    set_time(&mut inode.mtime, *mtime, context.time);
    inodes::touch_attributes(inode, context);
    inodes::store(view, ino, inode);
    Ok(())
}

fn set_time(target: &mut Timestamp, time: SetTime, now: Timestamp) {
    match time {
        SetTime::Omit => {}
        SetTime::Now => *target = now,
        SetTime::To(explicit) => *target = explicit,
    }
}

/// Gives a regular file another size. The caller has exposed the rows of a larger one, and stores the inode.
pub(crate) fn truncate(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    inode: &mut Inode,
    size: u64,
) -> Result<(), Error> {
    if size < inode.size {
        clip(view, context, ino, inode, size)?;
        let (before, after) = (inode.rows_of(inode.size), inode.rows_of(size));
        if after < before {
            reclaim::hide(view, context.moment, ino, inode, after)?;
        }
    }
    inode.size = size;
    changed(view, context, ino, inode)
}

/// What every change of content does to the inode: times, version, setuid, setgid, capabilities.
pub(crate) fn changed(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    inode: &mut Inode,
) -> Result<(), Error> {
    inode.mode = permission::mode_after_change(context.caller, inode);
    inodes::touch_content(inode, context);
    xattr::drop_capability(view, ino, inode)
}

/// Cuts off what the row that holds the new end has beyond it, so that extending reads zeros.
fn clip(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    inode: &mut Inode,
    size: u64,
) -> Result<(), Error> {
    let offset = u32::try_from(inode.offset_in_row(size)).map_err(|_| Error::Corrupt("a row is too long"))?;
    let key = keys::content(ino, inode.row_of(size));
    if offset == 0 {
        return Ok(());
    }
    let Some(old) = rows::get::<Content>(view, &key)? else { return Ok(()) };
    let kept = splice::cut(&old.segments, offset, u32::MAX)?;
    inodes::reallocate(view, inode, splice::covered(&old.segments), splice::covered(&kept))?;
    let mut references = References::default();
    references.remove(&old.segments);
    references.add(&kept);
    blocks::adjust(view, context.moment, &references, &Admitted::new())?;
    crate::content::put(view, key, &old.entropy, kept)
}
