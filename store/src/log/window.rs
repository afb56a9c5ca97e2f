//! A read window over one segment file.
//!
//! Invariant: memory is bounded by the longest frame plus one read-ahead, however long the segment is.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::files;
use crate::error::{At, FileError};
use crate::segment::{FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, decode_frame_header};

/// Bytes read at once.
const READ_AHEAD_BYTES: usize = 256 << 10;

/// Bytes of a segment file around the place that is being read.
pub(crate) struct Window {
    file: File,
    path: PathBuf,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(crate) fn new(file: File, path: PathBuf) -> Self {
        Self { file, path, start: 0, bytes: Vec::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub(crate) fn length(&self) -> Result<u64, FileError> {
        Ok(self.file.metadata().at("examine", &self.path)?.len())
    }

    /// Forgets what was read, because a writer may have changed it since.
    pub(crate) fn refresh(&mut self) {
        self.bytes.clear();
    }

    /// Up to `length` bytes at `offset`; fewer only at the end of the file.
    pub(crate) fn get(&mut self, offset: u32, length: u32) -> Result<&[u8], FileError> {
        let (offset, length) = (u64::from(offset), length as usize);
        let held = self.start..self.start + self.bytes.len() as u64;
        if !held.contains(&offset) || held.end - offset < length as u64 {
            let rest = usize::try_from(self.length()?.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.bytes.resize(length.max(READ_AHEAD_BYTES).min(rest), 0);
            let read = files::read_up_to(&self.file, &self.path, &mut self.bytes, offset)?;
            self.bytes.truncate(read);
            self.start = offset;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let rest = self.bytes.get(from..).unwrap_or_default();
        Ok(rest.get(..length).unwrap_or(rest))
    }

    /// The first frame at or after `from` that this log wrote and that says that more than `number`
    /// records were synced. None of what lies between is trusted to say where frames begin.
    pub(crate) fn find_synced_beyond(
        &mut self,
        from: u32,
        salt: u32,
        number: u64,
    ) -> Result<Option<(u32, FrameHeader)>, FileError> {
        let mut offset = from;
        loop {
            let chunk = self.get(offset, READ_AHEAD_BYTES as u32)?;
            if chunk.len() < FRAME_HEADER_BYTES as usize {
                return Ok(None);
            }
            let mut inside = 0;
            while let Some(bytes) =
                chunk.get(inside..).filter(|rest| rest.len() >= FRAME_HEADER_BYTES as usize)
            {
                if let Some(header) = decode_frame_header(salt, bytes).filter(|header| header.synced > number)
                {
                    return Ok(Some((offset + inside as u32, header)));
                }
                inside += FRAME_ALIGNMENT as usize;
            }
            offset += inside as u32;
        }
    }
}
