//! Committed batches by height, out of the log, for peers that catch up and for restarts.
//!
//! Invariant: only what is synced is found here, and what is handed out is checked again: its checksum,
//! and that the certificate names the header that lies beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use quorate_crypto::{Hash, decode};
use quorate_protocol::Height;
use quorate_protocol::peer::{Batch, CommittedBatch};
use quorate_protocol::record::Record;

use super::{Damage, LogError, Position, files};
use crate::error::{At, FileError};
use crate::segment::{
    FRAME_HEADER_BYTES, FrameKind, SEGMENT_HEADER_BYTES, SegmentHeader, decode_frame_header, verify_payload,
};

/// Proposals above the highest committed height that are remembered; beyond it the lowest are forgotten,
/// and a height whose proposal was forgotten is served by other replicas.
pub const PENDING_BATCHES_MAX: usize = 4096;

/// Where the parts of a committed height lie: 16 bytes, beside its height of 8.
#[derive(Copy, Clone)]
struct Entry {
    batch: Position,
    certificate: Position,
}

/// Heights and where they lie; some 32 bytes for each height of the log.
#[derive(Default)]
pub(crate) struct Index {
    committed: BTreeMap<Height, Entry>,
    proposed: BTreeMap<(Height, Hash), Position>,
}

/// What the index must know of a record.
pub(crate) enum Note {
    Proposed(Height, Hash),
    Committed(Height, Hash),
}

impl Note {
    /// The note of a record, if the index cares for it.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        match record {
            Record::Proposed { height, batch } => Some(Self::Proposed(*height, batch.header.hash())),
            Record::Committed(certificate) => {
                Some(Self::Committed(certificate.height, certificate.header_hash))
            }
            _ => None,
        }
    }
}

impl Index {
    pub(crate) fn add(&mut self, position: Position, note: Note) {
        match note {
            Note::Proposed(height, header) => {
                if !self.committed.contains_key(&height) {
                    self.proposed.entry((height, header)).or_insert(position);
                }
                if self.proposed.len() > PENDING_BATCHES_MAX {
                    self.proposed.pop_first();
                }
            }
            Note::Committed(height, header) => {
                match self.proposed.get(&(height, header)) {
                    Some(batch) => {
                        let entry = Entry { batch: *batch, certificate: position };
                        self.committed.entry(height).or_insert(entry);
                    }
                    None if self.committed.contains_key(&height) => {}
                    None => tracing::warn!(height, %position, "a certificate without its batch in the log"),
                }
                // What was proposed at or below a committed height never commits any more.
                self.proposed = self.proposed.split_off(&(height.saturating_add(1), Hash::ZERO));
            }
        }
    }
}

/// Reads committed batches while the log is being written. Clones share one index.
#[derive(Clone)]
pub struct Archive {
    directory: PathBuf,
    index: Arc<RwLock<Index>>,
    // The segment read last: who catches up reads one after the other.
    last: Arc<Mutex<Option<Segment>>>,
}

#[derive(Clone)]
struct Segment {
    file: Arc<File>,
    path: PathBuf,
    header: SegmentHeader,
}

impl Archive {
    pub(crate) fn new(directory: &Path, index: Index) -> Self {
        Self {
            directory: directory.to_owned(),
            index: Arc::new(RwLock::new(index)),
            last: Arc::new(Mutex::new(None)),
        }
    }

    pub(crate) fn add(&self, notes: impl IntoIterator<Item = (Position, Note)>) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        for (position, note) in notes {
            index.add(position, note);
        }
    }

    /// The highest height whose batch and certificate are in the log; 0 if there is none.
    #[must_use]
    pub fn committed_height(&self) -> Height {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.committed.last_key_value().map_or(0, |(height, _)| *height)
    }

    /// The batch and certificate of a height; `None` if they are not in the log.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if what lies there is not what was written, or a disk error.
    pub fn committed_batch(&self, height: Height) -> Result<Option<CommittedBatch>, LogError> {
        let entry = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.committed.get(&height).copied()
        };
        let Some(entry) = entry else { return Ok(None) };
        let batch = match self.record(entry.batch)? {
            Record::Proposed { height: found, batch } if found == height => batch,
            _ => return Err(self.damaged(entry.batch, Damage::Content)),
        };
        let certificate = match self.record(entry.certificate)? {
            Record::Committed(certificate) if certificate.height == height => certificate,
            _ => return Err(self.damaged(entry.certificate, Damage::Content)),
        };
        let Batch { header, .. } = &batch;
        if header.hash() != certificate.header_hash || header.height != height {
            return Err(self.damaged(entry.batch, Damage::Content));
        }
        Ok(Some(CommittedBatch { batch, certificate }))
    }

    /// Reads the record at a position that a reader of this log gave.
    ///
    /// # Errors
    /// [`LogError::Damaged`], [`LogError::Undecodable`] or a disk error.
    pub fn record(&self, position: Position) -> Result<Record, LogError> {
        let segment = self.segment(position)?;
        let salt = segment.header.salt();
        let mut fixed = [0; FRAME_HEADER_BYTES as usize];
        let offset = u64::from(position.offset);
        files::read_up_to(&segment.file, &segment.path, &mut fixed, offset)?;
        let header = decode_frame_header(salt, &fixed)
            .filter(|header| header.kind == FrameKind::Record)
            .ok_or_else(|| self.damaged(position, Damage::Record))?;
        let mut frame = vec![0; header.frame_bytes() as usize];
        files::read_up_to(&segment.file, &segment.path, &mut frame, offset)?;
        if !verify_payload(salt, &header, &frame) {
            return Err(self.damaged(position, Damage::Record));
        }
        let from = FRAME_HEADER_BYTES as usize;
        let payload = frame.get(from..from + header.length as usize).unwrap_or_default();
        decode(payload).map_err(|source| LogError::Undecodable { position, source })
    }

    fn segment(&self, position: Position) -> Result<Segment, LogError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(segment) = last.as_ref().filter(|segment| segment.header.segment == position.segment) {
            return Ok(segment.clone());
        }
        let path = files::segment_path(&self.directory, position.segment);
        let file = File::open(&path).at("open", &path)?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        file.read_exact_at(&mut bytes, 0).map_err(|source| FileError::new("read", &path, source))?;
        let header = SegmentHeader::decode(&bytes)
            .ok()
            .filter(|header| header.segment == position.segment)
            .ok_or_else(|| self.damaged(Position { offset: 0, ..position }, Damage::Header))?;
        let segment = Segment { file: Arc::new(file), path, header };
        *last = Some(segment.clone());
        Ok(segment)
    }

    fn damaged(&self, position: Position, what: Damage) -> LogError {
        LogError::Damaged { path: files::segment_path(&self.directory, position.segment), position, what }
    }
}
