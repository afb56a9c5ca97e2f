//! Who may do what: mode bits, ownership, sticky directories, and what a change does to setuid and setgid.
//!
//! Invariant: the answers are those of Linux, with uid 0 holding all capabilities; they depend on nothing
//! but the inode's row and the caller.

use quorate_protocol::file::{Attributes, FileKind};

use crate::context::Caller;
use crate::errno::Errno;
use crate::rows::Inode;

/// Permission to read, as a mask.
pub const READ: u16 = 4;
/// Permission to write.
pub const WRITE: u16 = 2;
/// Permission to execute, or to search a directory.
pub const EXECUTE: u16 = 1;

/// `S_ISUID`.
pub const SET_UID: u16 = 0o4000;
/// `S_ISGID`.
pub const SET_GID: u16 = 0o2000;
/// `S_ISVTX`.
pub const STICKY: u16 = 0o1000;
/// `S_IXGRP`.
const GROUP_EXECUTE: u16 = 0o0010;
/// Execute bits of all classes.
const ANY_EXECUTE: u16 = 0o0111;
/// All bits that an inode's mode may hold.
pub const MODE_MASK: u16 = 0o7777;

/// Whether a caller has all permissions of `mask` on an inode of this kind, mode and ownership.
#[must_use]
pub fn permits(caller: &Caller, kind: FileKind, mode: u16, owner: (u32, u32), mask: u16) -> bool {
    if caller.is_root() {
        return mask & EXECUTE == 0 || kind == FileKind::Directory || mode & ANY_EXECUTE != 0;
    }
    let (uid, gid) = owner;
    let class = if caller.uid == uid {
        mode >> 6
    } else if caller.in_group(gid) {
        mode >> 3
    } else {
        mode
    };
    class & mask == mask
}

/// The same question for attributes that a client holds, as `access(2)` asks it.
#[must_use]
pub fn permits_attributes(caller: &Caller, attributes: &Attributes, mask: u16) -> bool {
    permits(caller, attributes.kind, attributes.mode, (attributes.uid, attributes.gid), mask)
}

/// Whether a caller has all permissions of `mask` on an inode.
pub(crate) fn may(caller: &Caller, inode: &Inode, mask: u16) -> bool {
    permits(caller, inode.kind, inode.mode, (inode.uid, inode.gid), mask)
}

/// Requires all permissions of `mask`, else EACCES.
pub(crate) fn require(caller: &Caller, inode: &Inode, mask: u16) -> Result<(), Errno> {
    if may(caller, inode, mask) { Ok(()) } else { Err(Errno::EACCES) }
}

/// Whether the caller owns the inode, or may act as its owner.
pub(crate) fn owns(caller: &Caller, inode: &Inode) -> bool {
    caller.is_root() || caller.uid == inode.uid
}

/// Requires ownership, else EPERM.
pub(crate) fn require_owner(caller: &Caller, inode: &Inode) -> Result<(), Errno> {
    if owns(caller, inode) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Requires that `victim` may be removed from `directory`: write and search, then the sticky rule.
pub(crate) fn require_removal(caller: &Caller, directory: &Inode, victim: &Inode) -> Result<(), Errno> {
    require(caller, directory, WRITE | EXECUTE)?;
    let sticky = directory.mode & STICKY != 0;
    if sticky && !owns(caller, victim) && !owns(caller, directory) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// Whether the caller may keep the setgid bit on an inode of group `gid`.
fn keeps_set_gid(caller: &Caller, gid: u32) -> bool {
    caller.is_root() || caller.in_group(gid)
}

/// The mode that `chmod` really sets on an inode of group `gid`.
pub(crate) fn mode_for_chmod(caller: &Caller, mode: u16, gid: u32) -> u16 {
    let mode = mode & MODE_MASK;
    if keeps_set_gid(caller, gid) { mode } else { mode & !SET_GID }
}

/// The setgid bit as Linux drops it when a file's content or owner changes.
fn dropped_set_gid(caller: &Caller, inode: &Inode) -> u16 {
    let executable = inode.mode & GROUP_EXECUTE != 0;
    if executable || !keeps_set_gid(caller, inode.gid) { SET_GID } else { 0 }
}

/// The mode after a write or truncation by this caller: root's keep setuid and setgid.
pub(crate) fn mode_after_change(caller: &Caller, inode: &Inode) -> u16 {
    if caller.is_root() || inode.kind != FileKind::Regular {
        return inode.mode;
    }
    inode.mode & !(SET_UID | dropped_set_gid(caller, inode))
}

/// The mode after a change of owner or group, which drops setuid and setgid even for root.
pub(crate) fn mode_after_chown(caller: &Caller, inode: &Inode) -> u16 {
    if inode.is_directory() {
        return inode.mode;
    }
    inode.mode & !(SET_UID | dropped_set_gid(caller, inode))
}

/// Group and mode of a new inode in `parent`: a setgid directory hands down its group, and to directories
/// the bit; it takes the bit from executables of callers outside its group.
pub(crate) fn inherit(caller: &Caller, parent: &Inode, kind: FileKind, mode: u16) -> (u32, u16) {
    if parent.mode & SET_GID == 0 {
        return (caller.gid, mode);
    }
    let executable_set_gid = SET_GID | GROUP_EXECUTE;
    let mode = match kind {
        FileKind::Directory => mode | SET_GID,
        _ if mode & executable_set_gid == executable_set_gid && !keeps_set_gid(caller, parent.gid) => {
            mode & !SET_GID
        }
        _ => mode,
    };
    (parent.gid, mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        Caller { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn the_first_matching_class_decides() {
        let regular = FileKind::Regular;
        assert!(!permits(&caller(5, 6, &[]), regular, 0o077, (5, 6), READ), "the owner's bits are empty");
        assert!(!permits(&caller(7, 6, &[]), regular, 0o707, (5, 6), READ), "the group's bits are empty");
        assert!(!permits(&caller(7, 1, &[2, 6]), regular, 0o707, (5, 6), READ), "supplementary group");
        assert!(permits(&caller(7, 1, &[]), regular, 0o704, (5, 6), READ));
        assert!(!permits(&caller(7, 1, &[]), regular, 0o704, (5, 6), READ | WRITE));
    }

    #[test]
    fn root_reads_and_writes_all_and_executes_what_anyone_may() {
        let root = Caller::root();
        assert!(permits(&root, FileKind::Regular, 0, (5, 6), READ | WRITE));
        assert!(!permits(&root, FileKind::Regular, 0o666, (5, 6), EXECUTE));
        assert!(permits(&root, FileKind::Regular, 0o010, (5, 6), EXECUTE));
        assert!(permits(&root, FileKind::Directory, 0, (5, 6), READ | WRITE | EXECUTE));
    }
}
