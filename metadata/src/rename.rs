//! `renameat2`: replacing, not replacing, exchanging.
//!
//! Invariant: no directory becomes its own ancestor; links, entry counts and times of both directories, of
//! what moved and of what was replaced are those that Linux leaves. Checks come in Linux's order.

use quorate_protocol::file::Name;
use quorate_protocol::operation::RenameMode;
use quorate_protocol::{Ino, Reply};

use crate::context::Context;
use crate::create::LINK_MAX;
use crate::directory::{self, NameHash, Slot};
use crate::errno::Errno;
use crate::inodes;
use crate::link;
use crate::permission::{EXECUTE, WRITE, require, require_removal};
use crate::rows::Inode;
use crate::view::{Error, View};

/// One end of a rename: a name in a directory, and what it names.
struct End<'a> {
    parent: Ino,
    name: &'a Name,
    hash: NameHash,
    ino: Ino,
    inode: Inode,
}

/// The two directories, which may be one.
struct Directories {
    old: Inode,
    /// `None` when both ends lie in one directory.
    new: Option<Inode>,
}

impl Directories {
    fn target(&self) -> &Inode {
        self.new.as_ref().unwrap_or(&self.old)
    }

    fn target_mut(&mut self) -> &mut Inode {
        self.new.as_mut().unwrap_or(&mut self.old)
    }

    fn differ(&self) -> bool {
        self.new.is_some()
    }
}

/// `renameat2`.
pub(crate) fn rename(
    view: &mut dyn View,
    context: &Context<'_>,
    (parent, name): (Ino, &Name),
    (new_parent, new_name): (Ino, &Name),
    mode: RenameMode,
) -> Result<Reply, Error> {
    let old = inodes::searchable(view, context.caller, parent)?;
    let new =
        (parent != new_parent).then(|| inodes::searchable(view, context.caller, new_parent)).transpose()?;
    let directories = Directories { old, new };
    if directories.old.realm != directories.target().realm {
        return Err(Errno::EXDEV.into());
    }
    let (hash, entry) = directory::find(view, parent, name)?.ok_or(Errno::ENOENT)?;
    let inode = inodes::named(view, entry.ino)?;
    let source = End { parent, name, hash, ino: entry.ino, inode };
    let leaving = (parent == new_parent).then_some(&source.hash.key);
    let (new_hash, slot) = directory::probe(view, new_parent, new_name, leaving)?;
    let target = match &slot {
        Slot::Found(entry) => {
            let inode = inodes::named(view, entry.ino)?;
            Some(End { parent: new_parent, name: new_name, hash: new_hash.clone(), ino: entry.ino, inode })
        }
        Slot::Free | Slot::Taken => None,
    };
    match (mode, &target) {
        (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST.into()),
        (RenameMode::Exchange, None) => return Err(Errno::ENOENT.into()),
        _ => {}
    }
    if directories.target().nlink > 0 {
        check_nesting(view, &source, new_parent, target.as_ref(), mode)?;
    }
    if target.as_ref().is_some_and(|target| target.ino == source.ino) {
        // Two links of one inode: POSIX says that nothing happens, and says so successfully.
        return Ok(Reply::Empty);
    }
    check_permissions(context, &directories, &source, target.as_ref(), mode)?;
    if slot == Slot::Taken {
        return Err(Errno::ENOSPC.into());
    }
    match (mode, target) {
        (RenameMode::Exchange, Some(target)) => exchange(view, context, directories, source, target)?,
        (_, target) => {
            let place = (new_parent, new_name, new_hash);
            replace(view, context, directories, source, place, target)?;
        }
    }
    Ok(Reply::Empty)
}

/// Requires that neither end lies below the other: EINVAL, or ENOTEMPTY for a target above the source.
fn check_nesting(
    view: &dyn View,
    source: &End<'_>,
    new_parent: Ino,
    target: Option<&End<'_>>,
    mode: RenameMode,
) -> Result<(), Error> {
    if source.parent == new_parent {
        return Ok(());
    }
    if source.inode.is_directory() && directory::is_ancestor(view, source.ino, new_parent)? {
        return Err(Errno::EINVAL.into());
    }
    let Some(target) = target else { return Ok(()) };
    if target.inode.is_directory() && directory::is_ancestor(view, target.ino, source.parent)? {
        let exchange = mode == RenameMode::Exchange;
        return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY }.into());
    }
    Ok(())
}

/// Everything that Linux's `vfs_rename` and the filesystem below it refuse.
fn check_permissions(
    context: &Context<'_>,
    directories: &Directories,
    source: &End<'_>,
    target: Option<&End<'_>>,
    mode: RenameMode,
) -> Result<(), Error> {
    let caller = context.caller;
    let exchange = mode == RenameMode::Exchange;
    require_removal(caller, &directories.old, &source.inode)?;
    match target {
        None => {
            if directories.target().nlink == 0 {
                return Err(Errno::ENOENT.into());
            }
            require(caller, directories.target(), WRITE | EXECUTE)?;
        }
        Some(target) => {
            require_removal(caller, directories.target(), &target.inode)?;
            match (source.inode.is_directory(), target.inode.is_directory()) {
                (true, false) if !exchange => return Err(Errno::ENOTDIR.into()),
                (false, true) if !exchange => return Err(Errno::EISDIR.into()),
                _ => {}
            }
        }
    }
    check_move(context, directories, &source.inode, target.map(|target| &target.inode), exchange)?;
    let full = target.is_some_and(|target| target.inode.is_directory() && target.inode.size != 0);
    if full && !exchange { Err(Errno::ENOTEMPTY.into()) } else { Ok(()) }
}

/// A directory that gets another parent must be writable itself, and counts there.
fn check_move(
    context: &Context<'_>,
    directories: &Directories,
    source: &Inode,
    target: Option<&Inode>,
    exchange: bool,
) -> Result<(), Errno> {
    if !directories.differ() {
        return Ok(());
    }
    let comes = source.is_directory();
    let target_is_directory = target.is_some_and(Inode::is_directory);
    let goes = exchange && target_is_directory;
    if comes {
        require(context.caller, source, WRITE)?;
    }
    if let (true, Some(target)) = (goes, target) {
        require(context.caller, target, WRITE)?;
    }
    if comes && !target_is_directory && directories.target().nlink >= LINK_MAX {
        return Err(Errno::EMLINK);
    }
    if goes && !comes && directories.old.nlink >= LINK_MAX {
        return Err(Errno::EMLINK);
    }
    Ok(())
}

/// Moves `source` to `place`, over `target` if there is one.
fn replace(
    view: &mut dyn View,
    context: &Context<'_>,
    mut directories: Directories,
    mut source: End<'_>,
    (new_parent, new_name, new_hash): (Ino, &Name, NameHash),
    target: Option<End<'_>>,
) -> Result<(), Error> {
    let kind = source.inode.kind;
    directory::remove(view, source.parent, &source.hash);
    directory::shrink(&mut directories.old, kind)?;
    if let Some(target) = &target {
        directory::shrink(directories.target_mut(), target.inode.kind)?;
    }
    directory::insert(view, new_parent, &new_hash, new_name, source.ino, kind);
    directory::grow(directories.target_mut(), kind)?;
    store_directories(view, context, directories, source.parent, new_parent);
    let (old, new) = ((source.parent, &source.hash.key), (new_parent, &new_hash.key));
    link::relink(view, source.ino, &mut source.inode, old, new);
    inodes::touch_attributes(&mut source.inode, context);
    inodes::store(view, source.ino, &source.inode);
    match target {
        None => Ok(()),
        Some(End { ino, inode, .. }) => link::drop_link(view, context, ino, inode, new_parent, &new_hash.key),
    }
}

/// Swaps what two names name.
fn exchange<'a>(
    view: &mut dyn View,
    context: &Context<'_>,
    mut directories: Directories,
    mut source: End<'a>,
    mut target: End<'a>,
) -> Result<(), Error> {
    let (came, went) = (source.inode.kind, target.inode.kind);
    if directories.differ() && came != went {
        directory::shrink(&mut directories.old, came)?;
        directory::shrink(directories.target_mut(), went)?;
        directory::grow(&mut directories.old, went)?;
        directory::grow(directories.target_mut(), came)?;
    }
    directory::insert(view, source.parent, &source.hash, source.name, target.ino, went);
    directory::insert(view, target.parent, &target.hash, target.name, source.ino, came);
    store_directories(view, context, directories, source.parent, target.parent);
    let here = (source.parent, &source.hash.key);
    let there = (target.parent, &target.hash.key);
    link::relink(view, source.ino, &mut source.inode, here, there);
    link::relink(view, target.ino, &mut target.inode, there, here);
    inodes::touch_attributes(&mut source.inode, context);
    inodes::store(view, source.ino, &source.inode);
    inodes::touch_attributes(&mut target.inode, context);
    inodes::store(view, target.ino, &target.inode);
    Ok(())
}

fn store_directories(
    view: &mut dyn View,
    context: &Context<'_>,
    mut directories: Directories,
    old: Ino,
    new: Ino,
) {
    inodes::touch_content(&mut directories.old, context);
    inodes::store(view, old, &directories.old);
    if let Some(mut directory) = directories.new {
        inodes::touch_content(&mut directory, context);
        inodes::store(view, new, &directory);
    }
}
