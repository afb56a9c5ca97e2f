//! Opening a log: reads all of it, cuts a torn tail off, and leaves the writer at its end.
//!
//! Invariant: nothing that a sync had promised is cut off, and what is handed to the caller as recovered
//! is on the disk, not only in the system's cache, also when the process before this one ended because a
//! sync had failed (hazard PR7).

use std::fs::{self, File};
use std::path::Path;

use quorate_crypto::decode;
use quorate_protocol::record::Record;

use super::archive::{Archive, Index, Note};
use super::prepare::Preparation;
use super::walk::{Step, Tail, Walk};
use super::{
    Active, Buffer, Damage, Log, LogError, LogOptions, Place, Position, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    files,
};
use crate::directory::{Directory, Marker};
use crate::error::{At, sync_directory};
use crate::segment::first_chain;

impl Log {
    /// Opens the log of a locked directory for writing. [`Log::records`] then reads what it holds.
    ///
    /// # Errors
    /// [`LogError::Damaged`]: something that had been synced is gone, and the replica must not vote;
    /// [`LogError::Foreign`], [`LogError::Newer`], [`LogError::Undecodable`], or a disk error.
    pub fn open(directory: &Directory, options: LogOptions) -> Result<Self, LogError> {
        Self::open_segments(&directory.log_path(), *directory.marker(), options)
    }

    fn open_segments(path: &Path, marker: Marker, options: LogOptions) -> Result<Self, LogError> {
        let segments = files::list(path)?;
        check_contiguous(path, &segments)?;
        let mut walk = Walk::new(path, Some(first_chain(&marker)));
        let (tail, index) = read_all(&mut walk)?;
        let segment_bytes = options.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let unused_from = tail.position.map_or(0, |position| position.segment + 1);
        let preparation = clear_unused(path, &segments, unused_from, tail.torn_next, segment_bytes)?;
        let (active, place) = match (tail.position, walk.header()) {
            (Some(position), Some(header)) => {
                let active = open_active(path, position, header.bytes)?;
                (Some(active), Some(Place { position, end: header.bytes, salt: header.salt() }))
            }
            _ => (None, None),
        };
        let mut log = Self {
            directory: path.to_owned(),
            marker,
            segment_bytes,
            active,
            preparation: Some(preparation),
            buffer: Buffer {
                next: walk.next(),
                chain: walk.chain(),
                place,
                chunks: Vec::new(),
                bytes: 0,
                notes: Vec::new(),
            },
            archive: Archive::new(path, index),
            durable: walk.next(),
            poisoned: false,
        };
        log.write_mark()?;
        Ok(log)
    }
}

/// Every segment from the first to the last is there.
fn check_contiguous(path: &Path, segments: &[u32]) -> Result<(), LogError> {
    let mut expected = 0;
    for segment in segments {
        if *segment != expected {
            break;
        }
        expected += 1;
    }
    if expected as usize == segments.len() && expected > 0 {
        return Ok(());
    }
    let position = Position { segment: expected, offset: 0 };
    Err(LogError::Damaged { path: files::segment_path(path, expected), position, what: Damage::Missing })
}

/// Walks to the tail and indexes what lies on the way.
fn read_all(walk: &mut Walk) -> Result<(Tail, Index), LogError> {
    let mut index = Index::default();
    loop {
        match walk.step()? {
            Step::Tail(tail) => return Ok((tail, index)),
            Step::Record { position, payload } => {
                let record: Record =
                    decode(&payload).map_err(|source| LogError::Undecodable { position, source })?;
                if let Some(note) = Note::of(&record) {
                    index.add(position, note);
                }
            }
        }
    }
}

/// Removes the segments beyond the tail, the torn beginnings of the next one included, and prepares that
/// one anew unless it is ready.
fn clear_unused(
    path: &Path,
    segments: &[u32],
    from: u32,
    torn: bool,
    segment_bytes: u32,
) -> Result<Preparation, LogError> {
    for segment in segments.iter().rev().filter(|segment| **segment >= from) {
        let file_path = files::segment_path(path, *segment);
        let file = File::options().read(true).write(true).open(&file_path).at("open", &file_path)?;
        let zeros = files::first_nonzero(&file, &file_path, 0)?.is_none();
        if *segment == from && zeros && files::length(&file, &file_path)? == segment_bytes {
            sync_directory(path)?;
            return Ok(Preparation::ready(path, from, segment_bytes, file));
        }
        // Without a first segment the first batch of the log may be torn in segment 0 itself.
        let may_hold_bytes = *segment == from && (torn || from == 0);
        if !zeros && !may_hold_bytes {
            let position = Position { segment: *segment, offset: 0 };
            return Err(LogError::Damaged { path: file_path, position, what: Damage::Sequence });
        }
        // Segment 0 stays, to be filled in place: a log without it counts as lost.
        if *segment > 0 {
            fs::remove_file(&file_path).at("remove", &file_path)?;
        }
    }
    sync_directory(path)?;
    Ok(Preparation::begin(path, from, segment_bytes))
}

/// Opens the last segment for writing with nothing but zeros from the tail on.
fn open_active(path: &Path, tail: Position, end: u32) -> Result<Active, LogError> {
    let file_path = files::segment_path(path, tail.segment);
    let file = File::options().read(true).write(true).open(&file_path).at("open", &file_path)?;
    let mut from = u64::from(tail.offset);
    let torn = files::first_nonzero(&file, &file_path, from)?;
    if let Some(first) = torn {
        tracing::debug!(position = %tail, first, "clearing what follows the log's last record");
    }
    while let Some(found) = files::first_nonzero(&file, &file_path, from)? {
        let page_end = (found + CLEAR_BYTES).min(u64::from(end).max(found + 1));
        files::write_zeros(&file, &file_path, found, page_end)?;
        from = page_end;
    }
    // What was read may so far be in the system's cache alone. A sync is not enough to bring it to the disk: one
    // that failed before may have left its pages marked as clean, and no later one writes those. Every segment
    // before this one was synced before this one was begun.
    files::rewrite(&file, &file_path, u64::from(tail.offset))?;
    file.sync_all().at("sync", &file_path)?;
    Ok(Active { segment: tail.segment, file, path: file_path, tail: tail.offset })
}

/// Bytes cleared at once.
const CLEAR_BYTES: u64 = 64 << 10;
