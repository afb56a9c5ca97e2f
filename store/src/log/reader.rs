//! Reads a log from its first record on: after a restart, beside a running writer, or from a copy.
//!
//! Invariant: it only reads, takes no lock, needs no RocksDB, and holds one record and one window of the
//! file at a time. It ends at the tail, and whoever asks again goes on where the writer has gone on.

use std::fs::File;
use std::path::Path;

use quorate_crypto::decode;
use quorate_protocol::Height;
use quorate_protocol::record::Record;

use super::walk::{Step, Walk};
use super::{LogError, Position, files};
use crate::directory::{DirectoryError, Identity, log_path, read_marker};
use crate::fields::u64_at;
use crate::segment::{FRAME_HEADER_BYTES, first_chain};

/// Bytes of a record in which its height lies, whatever kind of record it is.
const CLAIM_BYTES: usize = 26;

/// A reader of one log. As an iterator it yields every record up to the tail, then `None`; later calls
/// may yield more. After an error it yields the error again.
pub struct LogReader {
    walk: Walk,
}

impl LogReader {
    /// Reads the log of a replica's directory, and checks that it begins as the marker says.
    ///
    /// # Errors
    /// A missing, foreign, newer or damaged directory.
    pub fn open(directory: &Path) -> Result<Self, DirectoryError> {
        let marker = read_marker(directory)?;
        Ok(Self { walk: Walk::new(&log_path(directory), Some(first_chain(&marker))) })
    }

    /// Reads segments that lie alone in a directory, as an export holds them.
    ///
    /// # Errors
    /// A disk error if the directory cannot be listed or holds no first segment.
    pub fn open_segments(segments: &Path) -> Result<Self, LogError> {
        files::list(segments)?;
        Ok(Self { walk: Walk::new(segments, None) })
    }

    pub(crate) fn of(segments: &Path, first: quorate_crypto::Hash) -> Self {
        Self { walk: Walk::new(segments, Some(first)) }
    }

    /// Whose log it is, as its segments say; `None` before the first record was read.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.walk.header().map(|header| header.identity)
    }

    /// How many records were read.
    #[must_use]
    pub fn records_read(&self) -> u64 {
        self.walk.next()
    }

    /// The height that the record at `position` says it belongs to, whether or not it is damaged: for a
    /// report that names the height. `None` if it names none, or cannot be read. Never rely on it.
    #[must_use]
    pub fn claimed_height(&self, position: Position) -> Option<Height> {
        let path = files::segment_path(self.walk.directory(), position.segment);
        let file = File::open(&path).ok()?;
        let mut payload = [0; CLAIM_BYTES];
        let at = u64::from(position.offset) + u64::from(FRAME_HEADER_BYTES);
        files::read_up_to(&file, &path, &mut payload, at).ok()?;
        let at = match payload.first()? {
            // Proposed: the height follows the tag.
            1 => 1,
            // Voted, Prepared, Committed: kind, epoch and view come before.
            2..=4 => 18,
            _ => return None,
        };
        Some(u64_at(&payload, at))
    }

    /// The next record and where it lies; `None` at the tail.
    ///
    /// # Errors
    /// [`LogError::Damaged`] where a record that had been synced is missing or changed; other errors of
    /// the log or the disk.
    pub fn next_record(&mut self) -> Result<Option<(Position, Record)>, LogError> {
        match self.walk.step()? {
            Step::Tail(_) => Ok(None),
            Step::Record { position, payload } => {
                let record = decode(&payload).map_err(|source| LogError::Undecodable { position, source })?;
                Ok(Some((position, record)))
            }
        }
    }
}

impl Iterator for LogReader {
    type Item = Result<(Position, Record), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}
