//! Further names and fewer names: `link`, `unlink`, `rmdir`, and the records of where an inode is named.
//!
//! Invariant: the inode row knows the only entry of an inode that has one; from two links on each has a row
//! of its own, and the inode row knows none (rule S1).

use quorate_protocol::file::{FileKind, Name};
use quorate_protocol::{Ino, Reply};

use crate::context::Context;
use crate::create::{LINK_MAX, place};
use crate::directory::{self, NameHash};
use crate::errno::Errno;
use crate::grants;
use crate::inodes;
use crate::keys::{self, KEY_HASH_BYTES, KIND_LINK, KeyHash};
use crate::permission::require_removal;
use crate::rows::{self, Entry, Inode, Link, Row};
use crate::view::{Error, View};

/// `link`.
pub(crate) fn link(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    parent: Ino,
    name: &Name,
) -> Result<Reply, Error> {
    let mut inode = inodes::load(view, ino)?;
    let mut place = place(view, context.caller, parent, name)?;
    if inode.realm != place.directory.realm {
        return Err(Errno::EXDEV.into());
    }
    if inode.is_directory() {
        return Err(Errno::EPERM.into());
    }
    if inode.nlink == 0 {
        return Err(Errno::ENOENT.into());
    }
    if inode.nlink >= LINK_MAX {
        return Err(Errno::EMLINK.into());
    }
    directory::insert(view, parent, &place.hash, name, ino, inode.kind);
    directory::grow(&mut place.directory, inode.kind)?;
    inodes::touch_content(&mut place.directory, context);
    inodes::store(view, parent, &place.directory);
    add_link(view, ino, &mut inode, parent, &place.hash.key)?;
    inodes::touch_attributes(&mut inode, context);
    inodes::store(view, ino, &inode);
    Ok(Reply::Inode { attributes: inode.attributes(ino), created: false })
}

/// An entry about to be removed: its directory, itself and its inode, with permission checked.
struct Victim {
    directory: Inode,
    hash: NameHash,
    entry: Entry,
    inode: Inode,
}

fn victim(view: &dyn View, context: &Context<'_>, parent: Ino, name: &Name) -> Result<Victim, Error> {
    let directory = inodes::searchable(view, context.caller, parent)?;
    let (hash, entry) = directory::find(view, parent, name)?.ok_or(Errno::ENOENT)?;
    let inode = inodes::named(view, entry.ino)?;
    require_removal(context.caller, &directory, &inode)?;
    Ok(Victim { directory, hash, entry, inode })
}

/// `unlink`.
pub(crate) fn unlink(
    view: &mut dyn View,
    context: &Context<'_>,
    parent: Ino,
    name: &Name,
) -> Result<Reply, Error> {
    let victim = victim(view, context, parent, name)?;
    if victim.inode.is_directory() {
        return Err(Errno::EISDIR.into());
    }
    remove(view, context, parent, victim)
}

/// `rmdir`.
pub(crate) fn rmdir(
    view: &mut dyn View,
    context: &Context<'_>,
    parent: Ino,
    name: &Name,
) -> Result<Reply, Error> {
    let victim = victim(view, context, parent, name)?;
    if !victim.inode.is_directory() {
        return Err(Errno::ENOTDIR.into());
    }
    if victim.inode.size != 0 {
        return Err(Errno::ENOTEMPTY.into());
    }
    remove(view, context, parent, victim)
}

fn remove(
    view: &mut dyn View,
    context: &Context<'_>,
    parent: Ino,
    mut victim: Victim,
) -> Result<Reply, Error> {
    directory::remove(view, parent, &victim.hash);
    directory::shrink(&mut victim.directory, victim.inode.kind)?;
    inodes::touch_content(&mut victim.directory, context);
    inodes::store(view, parent, &victim.directory);
    drop_link(view, context, victim.entry.ino, victim.inode, parent, &victim.hash.key)?;
    Ok(Reply::Empty)
}

/// Takes one entry from an inode, which goes when that was the last one and nobody has it open.
pub(crate) fn drop_link(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    mut inode: Inode,
    parent: Ino,
    name: &KeyHash,
) -> Result<(), Error> {
    forget(view, ino, &mut inode, parent, name)?;
    inodes::touch_attributes(&mut inode, context);
    grants::store_or_dispose(view, context.moment, ino, inode)
}

/// Records one more entry of a file.
fn add_link(
    view: &mut dyn View,
    ino: Ino,
    inode: &mut Inode,
    parent: Ino,
    name: &KeyHash,
) -> Result<(), Error> {
    if inode.nlink == 1 {
        put(view, ino, inode.parent, &inode.name);
        inode.parent = 0;
        inode.name = [0; KEY_HASH_BYTES];
    }
    put(view, ino, parent, name);
    inode.nlink = inode.nlink.checked_add(1).ok_or(Errno::EMLINK)?;
    Ok(())
}

/// Records that an entry of an inode is gone. A directory has only one.
fn forget(
    view: &mut dyn View,
    ino: Ino,
    inode: &mut Inode,
    parent: Ino,
    name: &KeyHash,
) -> Result<(), Error> {
    if inode.kind == FileKind::Directory || inode.nlink == 1 {
        inode.nlink = 0;
        inode.parent = 0;
        inode.name = [0; KEY_HASH_BYTES];
        return Ok(());
    }
    view.delete(keys::link(ino, parent, name));
    inode.nlink = inode.nlink.checked_sub(1).ok_or(Error::Corrupt("an inode without links has an entry"))?;
    if inode.nlink == 1 {
        let damaged = Error::Corrupt("a link row is missing");
        let from = keys::kind_start(ino, KIND_LINK);
        let (key, value) = view.next(&from, Some(&keys::kind_end(ino, KIND_LINK)))?.ok_or(damaged)?;
        let last = Link::from_value(&value)?;
        inode.parent = last.parent;
        inode.name = last.name;
        view.delete(key);
    }
    Ok(())
}

/// Records that an entry of an inode was replaced by another.
pub(crate) fn relink(
    view: &mut dyn View,
    ino: Ino,
    inode: &mut Inode,
    old: (Ino, &KeyHash),
    new: (Ino, &KeyHash),
) {
    if inode.kind == FileKind::Directory || inode.nlink == 1 {
        inode.parent = new.0;
        inode.name = *new.1;
    } else {
        view.delete(keys::link(ino, old.0, old.1));
        put(view, ino, new.0, new.1);
    }
}

fn put(view: &mut dyn View, ino: Ino, parent: Ino, name: &KeyHash) {
    rows::put(view, keys::link(ino, parent, name), &Link { parent, name: *name });
}
