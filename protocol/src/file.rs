//! What names and describes files: names, kinds, attributes, content segments.
//!
//! Invariant: a [`Name`] that decodes is one that POSIX allows as a directory entry: 1 to 255 bytes,
//! neither `/` nor NUL, and not `.` or `..`.

use crate::limits::{INLINE_PIECE_BYTES_MAX, NAME_BYTES_MAX};
use crate::{Ino, Timestamp};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{BoundedBytes, Hash};

/// Sixteen random bytes that an operation brings for what it creates (rule S3).
pub type Entropy = [u8; 16];

/// A directory entry's name: bytes, not text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
pub struct Name(Vec<u8>);

/// Why bytes are not a name.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// POSIX ENAMETOOLONG.
    #[error("a name has more than {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// Empty, `.`, `..`, or with a slash or NUL.
    #[error("a name is empty, `.`, `..`, or holds a slash or a NUL byte")]
    Invalid,
}

impl Name {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] when the bytes cannot name a directory entry.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|&b| b == b'/' || b == 0) {
            return Err(NameError::Invalid);
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The name's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl BorshDeserialize for Name {
    fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<Self> {
        let bytes = BoundedBytes::<NAME_BYTES_MAX>::deserialize_reader(reader)?;
        Self::new(&bytes).map_err(|error| borsh::io::Error::new(borsh::io::ErrorKind::InvalidData, error))
    }
}

/// The kind of an inode.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character device with its number.
    CharacterDevice,
    /// A block device with its number.
    BlockDevice,
}

/// What `stat` shows.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Attributes {
    /// The inode number.
    pub ino: Ino,
    /// The kind.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: the low 12 bits of `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links; for a directory 2 plus its subdirectories.
    pub nlink: u32,
    /// Device number of a device node, otherwise 0.
    pub rdev: u32,
    /// Bytes; for a directory its number of entries.
    pub size: u64,
    /// Allocated bytes divided by 512, rounded up.
    pub blocks: u64,
    /// Last access, as set by `utimensat` or creation (atime is not kept by default).
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of attributes.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// The global operation number of the last change (rule S8).
    pub version: u64,
    /// Binary logarithm of the block size of its content rows.
    pub block_log2: u8,
}

/// Where a segment's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SegmentSource {
    /// In the state itself.
    Inline(BoundedBytes<INLINE_PIECE_BYTES_MAX>),
    /// In a block, from `offset`.
    Block {
        /// The block's identifier (rule S5).
        id: Hash,
        /// First byte within the block's original content.
        offset: u32,
    },
}

/// A covered range of a content row (rule S4).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Segment {
    /// First byte within the row.
    pub start: u32,
    /// Bytes; for an inline segment the length of its bytes.
    pub length: u32,
    /// The bytes' place.
    pub source: SegmentSource,
}
