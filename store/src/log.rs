//! The durable log: records in segment files, appended by one writer, synced in batches.
//!
//! Invariant: [`Log::sync`] returns only when every record appended before it is durable, and a log that
//! opens holds every record whose sync had returned, in order. What cannot be so is an error, never a
//! shorter log (rule R2, hazards PR6 and PR7).
//!
//! Segments are filled with zeros ahead of use and written in place: a sync that overwrites written
//! blocks costs half of one that appends. That a write of some bytes leaves the other bytes of their
//! sectors alone, even when power fails, is assumed of the disk.

mod archive;
mod error;
mod files;
mod prepare;
mod reader;
mod recover;
mod walk;
mod window;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use quorate_crypto::{Hash, encode};
use quorate_protocol::record::Record;

pub use archive::{Archive, PENDING_BATCHES_MAX};
pub use error::{Damage, LogError, Position};
pub use files::{SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX};
pub(crate) use files::{create, is_unused, read_up_to};
pub use reader::LogReader;

use crate::directory::Marker;
use crate::error::{At, FileError};
use crate::segment::{
    FRAME_HEADER_BYTES, FrameKind, RECORD_BYTES_MAX, SEGMENT_HEADER_BYTES, SegmentHeader, encode_frame,
    frame_bytes,
};
use archive::Note;
use prepare::Preparation;

/// Bytes that may be appended between two syncs.
pub const BUFFERED_BYTES_MAX: usize = 64 << 20;
/// Fewest bytes of a segment that can be asked for.
pub const SEGMENT_BYTES_MIN: u32 = 4096;

/// How a log is kept.
#[derive(Copy, Clone, Debug)]
pub struct LogOptions {
    /// Bytes of each new segment, from [`SEGMENT_BYTES_MIN`] to [`SEGMENT_BYTES_MAX`]; a segment is
    /// longer when one record needs it.
    pub segment_bytes: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES_DEFAULT }
    }
}

/// The writer of a log. There is one, because a [`crate::directory::Directory`] is locked.
pub struct Log {
    directory: PathBuf,
    marker: Marker,
    segment_bytes: u32,
    active: Option<Active>,
    preparation: Option<Preparation>,
    buffer: Buffer,
    archive: Archive,
    durable: u64,
    poisoned: bool,
}

/// The segment that is being written.
struct Active {
    segment: u32,
    file: File,
    path: PathBuf,
    tail: u32,
}

/// What was appended and is not yet written.
struct Buffer {
    next: u64,
    chain: Hash,
    // Where the next frame goes; `None` before the first segment is in use.
    place: Option<Place>,
    chunks: Vec<Chunk>,
    bytes: usize,
    notes: Vec<(Position, Note)>,
}

#[derive(Copy, Clone)]
struct Place {
    position: Position,
    end: u32,
    salt: u32,
}

/// Consecutive bytes of one segment.
struct Chunk {
    position: Position,
    bytes: Vec<u8>,
}

impl Log {
    /// How many records the log holds, those not yet synced included.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buffer.next
    }

    /// How many records are durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Bytes that were appended since the last sync; [`BUFFERED_BYTES_MAX`] at most.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.bytes
    }

    /// Access to committed batches, for other threads.
    #[must_use]
    pub fn archive(&self) -> Archive {
        self.archive.clone()
    }

    /// Reads the log from its first record on. What is appended meanwhile may be read as well.
    #[must_use]
    pub fn records(&self) -> LogReader {
        LogReader::of(&self.directory, crate::segment::first_chain(&self.marker))
    }

    /// Adds records in memory; [`Log::sync`] makes them durable.
    ///
    /// # Errors
    /// [`LogError::TooLong`] or [`LogError::BufferFull`], with nothing added; [`LogError::Poisoned`].
    pub fn append(&mut self, records: &[Record]) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        let mut encoded = Vec::with_capacity(records.len());
        let mut bytes = self.buffer.bytes;
        for record in records {
            let payload = encode(record);
            if payload.len() > RECORD_BYTES_MAX as usize {
                return Err(LogError::TooLong { bytes: payload.len() });
            }
            bytes = bytes.saturating_add(payload.len());
            encoded.push((payload, Note::of(record)));
        }
        if bytes > BUFFERED_BYTES_MAX {
            return Err(LogError::BufferFull);
        }
        self.buffer.bytes = bytes;
        for (payload, note) in encoded {
            self.push(&payload, note);
        }
        Ok(())
    }

    /// Makes everything appended so far durable: one write and one fdatasync, or one of each per segment
    /// if a segment ends here.
    ///
    /// # Errors
    /// Any error is final: nobody knows what is on the disk, and the process must end (hazard PR7).
    pub fn sync(&mut self) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        if self.buffer.chunks.is_empty() {
            return Ok(());
        }
        // Until the end is reached, nothing else may be written.
        self.poisoned = true;
        for chunk in std::mem::take(&mut self.buffer.chunks) {
            self.write(&chunk)?;
        }
        self.durable = self.buffer.next;
        self.buffer.bytes = 0;
        self.archive.add(self.buffer.notes.drain(..));
        self.write_mark()?;
        self.poisoned = false;
        Ok(())
    }

    /// Syncs what is left, and the mark that says so: after this, any damage to any record is found.
    ///
    /// # Errors
    /// As [`Log::sync`].
    pub fn close(mut self) -> Result<(), LogError> {
        self.sync()?;
        self.sync_mark()
    }

    /// Places one frame in the buffer, in a new segment if this one is full.
    fn push(&mut self, payload: &[u8], note: Option<Note>) {
        let bytes = frame_bytes(u32::try_from(payload.len()).unwrap_or(RECORD_BYTES_MAX));
        let buffer = &mut self.buffer;
        let place = match buffer.place {
            Some(place) if bytes <= place.end.saturating_sub(place.position.offset) => place,
            full => {
                let segment = full.map_or(0, |place| place.position.segment.saturating_add(1));
                let end = self.segment_bytes.max(SEGMENT_HEADER_BYTES + bytes);
                let (identity, first, chain) = (self.marker.identity, buffer.next, buffer.chain);
                let header = SegmentHeader { identity, segment, first, bytes: end, chain };
                let position = Position { segment, offset: 0 };
                buffer.chunks.push(Chunk { position, bytes: header.encode() });
                Place {
                    position: Position { segment, offset: SEGMENT_HEADER_BYTES },
                    end,
                    salt: header.salt(),
                }
            }
        };
        let position = place.position;
        if buffer.chunks.last().is_none_or(|chunk| chunk.position.segment != position.segment) {
            buffer.chunks.push(Chunk { position, bytes: Vec::new() });
        }
        if let Some(chunk) = buffer.chunks.last_mut() {
            let numbers = (buffer.next, self.durable);
            let keys = (place.salt, &buffer.chain);
            buffer.chain = encode_frame(&mut chunk.bytes, FrameKind::Record, numbers, keys, payload);
        }
        buffer.next += 1;
        buffer.place =
            Some(Place { position: Position { offset: position.offset + bytes, ..position }, ..place });
        buffer.notes.extend(note.map(|note| (position, note)));
    }

    /// Writes and syncs one chunk, which begins a new segment if it is at offset 0.
    fn write(&mut self, chunk: &Chunk) -> Result<(), LogError> {
        let position = chunk.position;
        let length = u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX);
        let begins = position.offset == 0;
        if begins {
            self.active = Some(self.begin_segment(position.segment, length)?);
        }
        let Some(active) = self.active.as_mut().filter(|active| active.segment == position.segment) else {
            return Err(LogError::Poisoned);
        };
        active.file.write_all_at(&chunk.bytes, u64::from(position.offset)).at("write", &active.path)?;
        active.file.sync_data().at("sync", &active.path)?;
        active.tail = position.offset + length;
        if begins {
            let next = position.segment.saturating_add(1);
            self.preparation = Some(Preparation::begin(&self.directory, next, self.segment_bytes));
        }
        Ok(())
    }

    fn begin_segment(&mut self, segment: u32, needed: u32) -> Result<Active, FileError> {
        let prepared = self.preparation.take().filter(|prepared| prepared.segment() == segment);
        let prepared =
            prepared.unwrap_or_else(|| Preparation::nothing(&self.directory, segment, self.segment_bytes));
        let file = prepared.take(needed)?;
        Ok(Active { segment, file, path: files::segment_path(&self.directory, segment), tail: 0 })
    }

    /// Leaves a synced mark at the tail, without a sync: the next frame is written over it. If the
    /// process is killed, or the system writes the page back before power fails, it proves that the last
    /// batch had been synced. It costs one small write to the page cache.
    fn write_mark(&mut self) -> Result<(), LogError> {
        let (Some(active), Some(place)) = (&self.active, self.buffer.place) else {
            return Ok(());
        };
        if place.end.saturating_sub(active.tail) < FRAME_HEADER_BYTES {
            return Ok(());
        }
        let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES as usize);
        let numbers = (self.durable, self.durable);
        encode_frame(&mut frame, FrameKind::Mark, numbers, (place.salt, &self.buffer.chain), &[]);
        active.file.write_all_at(&frame, u64::from(active.tail)).at("write", &active.path)?;
        Ok(())
    }

    fn sync_mark(&mut self) -> Result<(), LogError> {
        if let Some(active) = &self.active {
            active.file.sync_data().at("sync", &active.path)?;
        }
        Ok(())
    }
}
