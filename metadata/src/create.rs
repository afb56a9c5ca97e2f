//! New inodes: `open(O_CREAT)`, `mkdir`, `symlink`, `mknod`.
//!
//! Invariant: an existing name is EEXIST before anything about write permission is said, as on Linux; a new
//! inode's group, setgid bit and realm come from its directory.

use quorate_protocol::file::{Entropy, FileKind, Name};
use quorate_protocol::operation::{OpenMode, SpecialFile};
use quorate_protocol::{Ino, OperationBody, Reply};

use crate::context::{Caller, Context};
use crate::directory::{self, NameHash, Slot};
use crate::errno::Errno;
use crate::grants;
use crate::inodes;
use crate::keys;
use crate::permission::{self, EXECUTE, MODE_MASK, STICKY, WRITE, require};
use crate::rows::{self, Inode, SymlinkTarget};
use crate::view::{Error, View};

/// Links that an inode may have, and subdirectories that a directory may have, plus 2.
pub const LINK_MAX: u32 = 0x7FFF_FFFF;
/// Permission bits that `mkdir` takes; setuid and setgid are not for the caller to give.
const MKDIR_MODE_MASK: u16 = 0o0777 | STICKY;
/// Permission bits of a symbolic link.
const SYMLINK_MODE: u16 = 0o0777;

/// What is to be created.
struct Node<'a> {
    kind: FileKind,
    mode: u16,
    rdev: u32,
    target: Option<&'a SymlinkTarget>,
    ino: Option<Ino>,
    entropy: &'a Entropy,
}

impl<'a> Node<'a> {
    fn new(kind: FileKind, mode: u16, ino: Option<Ino>, entropy: &'a Entropy) -> Self {
        Self { kind, mode: mode & MODE_MASK, rdev: 0, target: None, ino, entropy }
    }
}

/// Where a new entry goes: a directory in which the caller may make it, and the name's hash there.
pub(crate) struct Place<'a> {
    pub parent: Ino,
    pub directory: Inode,
    pub name: &'a Name,
    pub hash: NameHash,
}

/// Applies an operation of this family.
pub(crate) fn apply(
    view: &mut dyn View,
    context: &Context<'_>,
    body: &OperationBody,
) -> Result<Reply, Error> {
    match body {
        OperationBody::Create { parent, name, mode, umask: _, exclusive, open, ino, entropy } => {
            let node = Node::new(FileKind::Regular, *mode, *ino, entropy);
            create(view, context, (*parent, name), &node, *exclusive, *open)
        }
        OperationBody::Mkdir { parent, name, mode, umask: _, ino, entropy } => {
            let node = Node::new(FileKind::Directory, mode & MKDIR_MODE_MASK, *ino, entropy);
            make(view, context, *parent, name, &node)
        }
        OperationBody::Symlink { parent, name, target, ino, entropy } => {
            if target.is_empty() {
                return Err(Errno::ENOENT.into());
            }
            if target.contains(&0) {
                return Err(Errno::EINVAL.into());
            }
            let target = SymlinkTarget { entropy: *entropy, target: target.clone() };
            let mut node = Node::new(FileKind::Symlink, SYMLINK_MODE, *ino, entropy);
            node.target = Some(&target);
            make(view, context, *parent, name, &node)
        }
        OperationBody::Mknod { parent, name, node, mode, umask: _, ino, entropy } => {
            let (kind, rdev) = match node {
                SpecialFile::Regular => (FileKind::Regular, 0),
                SpecialFile::Fifo => (FileKind::Fifo, 0),
                SpecialFile::Socket => (FileKind::Socket, 0),
                SpecialFile::CharacterDevice(number) => (FileKind::CharacterDevice, *number),
                SpecialFile::BlockDevice(number) => (FileKind::BlockDevice, *number),
            };
            let mut node = Node::new(kind, *mode, *ino, entropy);
            node.rdev = rdev;
            make(view, context, *parent, name, &node)
        }
        _ => Err(Errno::EOPNOTSUPP.into()),
    }
}

/// `open(O_CREAT)`: creates a file, or opens the one that is there.
fn create(
    view: &mut dyn View,
    context: &Context<'_>,
    (parent, name): (Ino, &Name),
    node: &Node<'_>,
    exclusive: bool,
    open: Option<OpenMode>,
) -> Result<Reply, Error> {
    if open.is_some_and(|mode| !mode.read && !mode.write) {
        return Err(Errno::EINVAL.into());
    }
    let directory = inodes::searchable(view, context.caller, parent)?;
    let (hash, slot) = directory::probe(view, parent, name, None)?;
    if let (Slot::Found(entry), false) = (&slot, exclusive) {
        return open_existing(view, context, entry.ino, open);
    }
    require_free(context.caller, &directory, &slot)?;
    let place = Place { parent, directory, name, hash };
    let (ino, inode) = insert(view, context, place, node)?;
    if let Some(mode) = open {
        grants::take(view, context, ino, mode)?;
    }
    Ok(Reply::Inode { attributes: inode.attributes(ino), created: true })
}

/// `open(O_CREAT)` of a name that exists. The kernel has followed symbolic links before.
fn open_existing(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    open: Option<OpenMode>,
) -> Result<Reply, Error> {
    let inode = inodes::named(view, ino)?;
    match (inode.kind, open) {
        (FileKind::Directory, _) => Err(Errno::EISDIR.into()),
        (FileKind::Symlink, _) => Err(Errno::ELOOP.into()),
        (_, Some(mode)) => grants::open(view, context, ino, mode),
        (_, None) => Ok(Reply::Inode { attributes: inode.attributes(ino), created: false }),
    }
}

/// Creates an inode under a name that must be free.
fn make(
    view: &mut dyn View,
    context: &Context<'_>,
    parent: Ino,
    name: &Name,
    node: &Node<'_>,
) -> Result<Reply, Error> {
    let place = place(view, context.caller, parent, name)?;
    let device = matches!(node.kind, FileKind::CharacterDevice | FileKind::BlockDevice);
    if device && !context.caller.is_root() {
        return Err(Errno::EPERM.into());
    }
    let (ino, inode) = insert(view, context, place, node)?;
    Ok(Reply::Inode { attributes: inode.attributes(ino), created: true })
}

/// A place for a new entry: ENOTDIR, EACCES for searching, EEXIST, then what [`require_free`] says.
pub(crate) fn place<'a>(
    view: &dyn View,
    caller: &Caller,
    parent: Ino,
    name: &'a Name,
) -> Result<Place<'a>, Error> {
    let directory = inodes::searchable(view, caller, parent)?;
    let (hash, slot) = directory::probe(view, parent, name, None)?;
    require_free(caller, &directory, &slot)?;
    Ok(Place { parent, directory, name, hash })
}

/// Requires that an entry may be made in a slot: EEXIST, ENOENT in a removed directory, EACCES, ENOSPC.
pub(crate) fn require_free(caller: &Caller, directory: &Inode, slot: &Slot) -> Result<(), Errno> {
    if let Slot::Found(_) = slot {
        return Err(Errno::EEXIST);
    }
    if directory.nlink == 0 {
        return Err(Errno::ENOENT);
    }
    require(caller, directory, WRITE | EXECUTE)?;
    if *slot == Slot::Taken { Err(Errno::ENOSPC) } else { Ok(()) }
}

/// Writes the new inode, its rows, its entry and the changed directory.
fn insert(
    view: &mut dyn View,
    context: &Context<'_>,
    mut place: Place<'_>,
    node: &Node<'_>,
) -> Result<(Ino, Inode), Error> {
    if node.ino.is_some() {
        // Numbers of one's own come from a range row (rule S8), and no operation hands out ranges yet.
        return Err(Errno::EINVAL.into());
    }
    if node.kind == FileKind::Directory && place.directory.nlink >= LINK_MAX {
        return Err(Errno::EMLINK.into());
    }
    let inode = new_inode(context, &place, node);
    let ino = inodes::allocate(view)?;
    directory::insert(view, place.parent, &place.hash, place.name, ino, node.kind);
    directory::grow(&mut place.directory, node.kind)?;
    inodes::touch_content(&mut place.directory, context);
    inodes::store(view, place.parent, &place.directory);
    inodes::store(view, ino, &inode);
    if node.kind == FileKind::Directory {
        rows::put(view, keys::directory_key(ino), &directory::new_key(node.entropy, ino));
    }
    if let Some(target) = node.target {
        rows::put(view, keys::symlink(ino), target);
    }
    inodes::count(view, |totals| {
        totals.inodes = totals.inodes.checked_add(1)?;
        Some(())
    })?;
    Ok((ino, inode))
}

/// The row of a new inode with one entry at `place`.
fn new_inode(context: &Context<'_>, place: &Place<'_>, node: &Node<'_>) -> Inode {
    let (gid, mode) = permission::inherit(context.caller, &place.directory, node.kind, node.mode);
    let directory = node.kind == FileKind::Directory;
    Inode {
        kind: node.kind,
        mode,
        uid: context.caller.uid,
        gid,
        nlink: if directory { 2 } else { 1 },
        rdev: node.rdev,
        size: node.target.map_or(0, |target| target.target.len() as u64),
        allocated: 0,
        atime: context.time,
        mtime: context.time,
        ctime: context.time,
        btime: context.time,
        flags: 0,
        realm: place.directory.realm,
        parent: place.parent,
        name: place.hash.key,
        version: context.operation,
        block_log2: context.parameters.block_log2.min(rows::BLOCK_LOG2_MAX),
        reclaim_from: None,
        xattr_count: 0,
        xattr_bytes: 0,
    }
}
