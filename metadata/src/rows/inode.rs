//! The inode row: everything that `stat` shows, and what the filesystem keeps beside it.
//!
//! Invariant: a directory's parent and name hash are those of its only entry; a file with exactly one link
//! keeps them here too, any other file has zeros and its links in rows of their own (rule S1).

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_protocol::file::{Attributes, FileKind};
use quorate_protocol::{Ino, Timestamp};

use super::Row;
use crate::keys::{INO_END, KEY_HASH_BYTES, KeyHash};

/// The inode has an ACL (rule S6) *(later)*.
pub const FLAG_HAS_ACL: u32 = 1;
/// The inode has neither links nor grants any more and waits to be reclaimed: nobody can reach it.
pub const FLAG_REMOVED: u32 = 2;
/// Flags that this format knows.
const FLAGS_KNOWN: u32 = FLAG_HAS_ACL | FLAG_REMOVED;
/// The largest binary logarithm of a block size: that of the largest block.
pub const BLOCK_LOG2_MAX: u8 = 20;
/// Bytes in the unit of `st_blocks`.
const STAT_BLOCK_BYTES: u64 = 512;

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Inode {
    /// Kind.
    pub kind: FileKind,
    /// The low 12 bits of `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links; for a directory 2 plus its subdirectories; 0 when unlinked.
    pub nlink: u32,
    /// Device number of a device node, otherwise 0.
    pub rdev: u32,
    /// Bytes of a regular file or of a symbolic link's target; entries of a directory.
    pub size: u64,
    /// Bytes that segments of its content rows cover, rows that wait to be reclaimed included.
    pub allocated: u64,
    /// Last access, as set by creation or `utimensat`.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of attributes.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// [`FLAG_HAS_ACL`], [`FLAG_REMOVED`].
    pub flags: u32,
    /// Realm, inherited at creation (rule S6).
    pub realm: u32,
    /// Directory of the only entry; the root's is the root; 0 when there are several or none.
    pub parent: Ino,
    /// Name hash of the only entry under its directory's key; zeros for the root, or as `parent`.
    pub name: KeyHash,
    /// Global number of the operation that changed it last (rule S8).
    pub version: u64,
    /// Binary logarithm of the block size of its content rows.
    pub block_log2: u8,
    /// Content rows from this index on are invisible and wait to be reclaimed (rule S4).
    pub reclaim_from: Option<u64>,
    /// Extended attributes.
    pub xattr_count: u16,
    /// Bytes of their names and values.
    pub xattr_bytes: u32,
}

impl Row for Inode {
    const DAMAGED: &'static str = "an inode row does not decode";

    fn valid(&self) -> bool {
        self.mode <= 0o7777
            && self.flags & !FLAGS_KNOWN == 0
            && self.parent < INO_END
            && (self.parent != 0 || self.name == [0; KEY_HASH_BYTES])
            && self.block_log2 <= BLOCK_LOG2_MAX
            && (self.reclaim_from.is_none() || self.kind == FileKind::Regular)
    }
}

impl Inode {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether nobody can reach it any more.
    #[must_use]
    pub const fn is_removed(&self) -> bool {
        self.flags & FLAG_REMOVED != 0
    }

    /// The content rows that `size` bytes span.
    #[must_use]
    pub fn rows_of(&self, size: u64) -> u64 {
        let whole = size.checked_shr(u32::from(self.block_log2)).unwrap_or(0);
        if self.offset_in_row(size) == 0 { whole } else { whole.saturating_add(1) }
    }

    /// The content row that holds the byte at `offset`.
    #[must_use]
    pub fn row_of(&self, offset: u64) -> u64 {
        offset.checked_shr(u32::from(self.block_log2)).unwrap_or(0)
    }

    /// Where in its content row the byte at `offset` lies.
    #[must_use]
    pub fn offset_in_row(&self, offset: u64) -> u64 {
        offset & self.block_bytes().saturating_sub(1)
    }

    /// Bytes of a content row.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        1_u64.checked_shl(u32::from(self.block_log2)).unwrap_or(u64::MAX)
    }

    /// What `stat` shows of it.
    #[must_use]
    pub fn attributes(&self, ino: Ino) -> Attributes {
        Attributes {
            ino,
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            rdev: self.rdev,
            size: self.size,
            blocks: self.allocated.div_ceil(STAT_BLOCK_BYTES),
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            version: self.version,
            block_log2: self.block_log2,
        }
    }
}
