//! The segment after the current one, made ready on a thread of its own.
//!
//! Invariant: at most one thread runs, it touches no file but the segment that it makes, and it has
//! ended before that segment is used.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::files;
use crate::error::FileError;

/// A segment that is being prepared, or is ready, or must be made when it is needed.
pub(crate) struct Preparation {
    directory: PathBuf,
    segment: u32,
    bytes: u32,
    work: Work,
}

enum Work {
    /// Made earlier: complete and full of zeros.
    Ready(File),
    Running(JoinHandle<Result<File, FileError>>),
    /// Left to [`Preparation::take`].
    Nothing,
}

impl Preparation {
    /// Begins to make `segment` with `bytes` zeros.
    pub(crate) fn begin(directory: &Path, segment: u32, bytes: u32) -> Self {
        let path = directory.to_owned();
        let worker = std::thread::Builder::new()
            .name("log-prepare".to_owned())
            .spawn(move || files::prepare(&path, segment, bytes));
        let work = worker.map_or_else(
            |error| {
                tracing::warn!(%error, segment, "cannot start a thread to prepare a log segment");
                Work::Nothing
            },
            Work::Running,
        );
        Self { directory: directory.to_owned(), segment, bytes, work }
    }

    /// A segment that was prepared before this process began.
    pub(crate) fn ready(directory: &Path, segment: u32, bytes: u32, file: File) -> Self {
        Self { directory: directory.to_owned(), segment, bytes, work: Work::Ready(file) }
    }

    /// A segment that is made only when it is taken.
    pub(crate) fn nothing(directory: &Path, segment: u32, bytes: u32) -> Self {
        Self { directory: directory.to_owned(), segment, bytes, work: Work::Nothing }
    }

    /// The segment's number.
    pub(crate) fn segment(&self) -> u32 {
        self.segment
    }

    /// The segment's file with at least `needed` zero bytes, synced.
    ///
    /// # Errors
    /// A disk error; what made the thread fail is tried once more, because space may have come free.
    pub(crate) fn take(mut self, needed: u32) -> Result<File, FileError> {
        let bytes = self.bytes.max(needed);
        let file = match std::mem::replace(&mut self.work, Work::Nothing) {
            Work::Ready(file) => Some(file),
            Work::Running(worker) => worker.join().ok().and_then(Result::ok),
            Work::Nothing => None,
        };
        let file = match file {
            Some(file) => file,
            None => return files::prepare(&self.directory, self.segment, bytes),
        };
        if bytes > self.bytes {
            let path = files::segment_path(&self.directory, self.segment);
            files::write_zeros(&file, &path, u64::from(self.bytes), u64::from(bytes))?;
            file.sync_all().map_err(|source| FileError::new("sync", &path, source))?;
        }
        Ok(file)
    }
}

impl Drop for Preparation {
    fn drop(&mut self) {
        if let Work::Running(worker) = std::mem::replace(&mut self.work, Work::Nothing) {
            match worker.join() {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "a log segment could not be prepared"),
                Err(_) => tracing::warn!(segment = self.segment, "preparing a log segment panicked"),
            }
        }
    }
}
