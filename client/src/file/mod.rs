//! File content on top of operations, reads and blocks.
//!
//! Invariant: what is returned as file content comes from certified rows and from blocks that match their
//! identifiers; what is written is split so that every operation respects the bounds of the protocol.

mod cache;
mod fold;
mod layout;
mod reading;
mod writing;

use quorate_protocol::Ino;
use quorate_protocol::file::Attributes;
use quorate_protocol::operation::Authority;

use crate::client::Freshness;

pub(crate) use cache::BlockCache;
pub(crate) use reading::read_range;
pub(crate) use writing::{append, write_ranges};

/// Most bytes that one [`crate::Client::read_range`] returns.
pub const READ_BYTES_MAX: usize = 8 << 20;

/// What to read of a file.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FileRead {
    /// The inode.
    pub ino: Ino,
    /// First byte.
    pub offset: u64,
    /// Bytes, cut to [`READ_BYTES_MAX`].
    pub length: usize,
    /// Whether an open grant of the session stands in for the read permission.
    pub authority: Authority,
    /// How fresh.
    pub freshness: Freshness,
}

/// What was read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileData {
    /// The bytes; fewer than asked for at the end of the file.
    pub bytes: Vec<u8>,
    /// The inode at the height that was read.
    pub attributes: Attributes,
}

/// By which right, and under which lock, a file is written.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FileWrite {
    /// The inode.
    pub ino: Ino,
    /// Right to write.
    pub authority: Authority,
    /// Fencing token of a lock, if one guards the file.
    pub token: Option<u64>,
    /// Binary logarithm of the inode's block size (`Attributes::block_log2`).
    pub block_log2: u8,
}

/// A run of bytes to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtyRange {
    /// Where the first byte goes.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}
