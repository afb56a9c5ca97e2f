//! What can go wrong with the log, and where.
//!
//! Invariant: damage of what had been synced is never reported as anything else, and never repaired.

use std::fmt;
use std::path::PathBuf;

use quorate_crypto::DecodeError;

use crate::error::{Fault, FileError};

/// A place in the log.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of the segment, from 0.
    pub segment: u32,
    /// Bytes from the beginning of the segment.
    pub offset: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "segment {} offset {}", self.segment, self.offset)
    }
}

/// What is damaged.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The header of a segment.
    Header,
    /// A record that had been synced.
    Record,
    /// A record or segment that is whole, and not the one that belongs here.
    Sequence,
    /// A segment is missing.
    Missing,
    /// A segment is shorter than it was when it was first used.
    Cut,
    /// A record whose checksums hold and whose content does not fit: a header that its certificate does
    /// not name.
    Content,
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Header => "the segment's header",
            Self::Record => "a record that had been synced",
            Self::Sequence => "the sequence of records",
            Self::Missing => "a missing segment",
            Self::Cut => "the end of the segment is missing",
            Self::Content => "a record's content",
        })
    }
}

/// Why the log is refused, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed. From a sync this is final: the process must end (hazard PR7).
    #[error(transparent)]
    File(#[from] FileError),
    /// Something that had been synced is gone or changed. The replica must not vote, nor answer a read,
    /// under its key ever again (rule R2).
    #[error("the log is damaged at {position} ({}): {what}", path.display())]
    Damaged {
        /// The segment's file.
        path: PathBuf,
        /// The place.
        position: Position,
        /// What is damaged there.
        what: Damage,
    },
    /// The segment is of another replica's log, or of another cluster's.
    #[error("{} belongs to another log", path.display())]
    Foreign {
        /// The segment's file.
        path: PathBuf,
    },
    /// A later release wrote the segment.
    #[error("{} has format {version}: use a newer release", path.display())]
    Newer {
        /// The segment's file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The checksums hold, but this program cannot read the record.
    #[error("the record at {position} cannot be decoded: {source}")]
    Undecodable {
        /// The place.
        position: Position,
        /// Why.
        source: DecodeError,
    },
    /// A record longer than [`crate::segment::RECORD_BYTES_MAX`].
    #[error("a record of {bytes} bytes is too long")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// More was appended without a sync than [`super::BUFFERED_BYTES_MAX`].
    #[error("too much is buffered: sync first")]
    BufferFull,
    /// An earlier write or sync failed, so nobody knows what is on the disk (hazard PR7).
    #[error("an earlier write to the log failed: the process must end")]
    Poisoned,
}

impl LogError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::File(_) | Self::Damaged { .. } => Fault::Disk,
            Self::Foreign { .. } | Self::Newer { .. } => Fault::Caller,
            Self::Undecodable { .. } | Self::TooLong { .. } | Self::BufferFull | Self::Poisoned => {
                Fault::Ours
            }
        }
    }

    /// Whether the disk is full.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::File(error) if error.is_no_space())
    }
}
