//! Names, creation and listing of segment files.
//!
//! Invariant: a segment file is complete, zero-filled, and its name durable, before its first byte is
//! used; so a sync on the path never has to allocate blocks or to commit a changed size.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{At, FileError, sync_directory};
use crate::fields::is_zero;

/// Bytes of a segment, unless one record needs more.
pub const SEGMENT_BYTES_DEFAULT: u32 = 16 << 20;
/// Most bytes of any segment; positions in it fit 32 bits.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;

const CHUNK_BYTES: usize = 256 << 10;
const EXTENSION: &str = "log";

/// The path of a segment.
pub(crate) fn segment_path(directory: &Path, segment: u32) -> PathBuf {
    directory.join(format!("{segment:010}.{EXTENSION}"))
}

/// The numbers of all segment files, ascending. Files of other names are not ours to judge.
pub(crate) fn list(directory: &Path) -> Result<Vec<u32>, FileError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).at("list", directory)? {
        let name = entry.at("list", directory)?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|stem| stem.parse().ok());
        if let Some(number) =
            number.filter(|number| segment_path(directory, *number) == directory.join(&name))
        {
            segments.push(number);
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Makes a segment file full of zeros, or makes one that was left unfinished complete, and syncs it and
/// its name. Whatever the file held is gone. If it fails, no part of it keeps the disk full.
pub(crate) fn prepare(directory: &Path, segment: u32, bytes: u32) -> Result<File, FileError> {
    let path = segment_path(directory, segment);
    let options = File::options().read(true).write(true).create(true).truncate(true).clone();
    let file = options.open(&path).at("create", &path)?;
    let filled = write_zeros(&file, &path, 0, u64::from(bytes));
    let synced = filled.and_then(|()| file.sync_all().at("sync", &path));
    if let Err(error) = synced.and_then(|()| sync_directory(directory)) {
        // An empty file counts as one that is still to be prepared.
        if let Err(cut) = file.set_len(0) {
            tracing::warn!(error = %cut, path = %path.display(), "cannot empty a segment");
        }
        return Err(error);
    }
    Ok(file)
}

/// Writes zeros from `from` up to `end`, which may lie beyond the end of the file.
pub(crate) fn write_zeros(file: &File, path: &Path, from: u64, end: u64) -> Result<(), FileError> {
    let zeros = vec![0; CHUNK_BYTES];
    let mut at = from;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.write_all_at(zeros.get(..length).unwrap_or_default(), at).at("write", path)?;
        at += length as u64;
    }
    Ok(())
}

/// Writes what a file holds below `end` once more in its place, so that a sync takes it to the disk whatever the
/// system believes of it.
pub(crate) fn rewrite(file: &File, path: &Path, end: u64) -> Result<(), FileError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let part = chunk.get_mut(..length).unwrap_or_default();
        let read = read_up_to(file, path, part, at)?;
        if read == 0 {
            return Ok(());
        }
        file.write_all_at(part.get(..read).unwrap_or_default(), at).at("write", path)?;
        at += read as u64;
    }
    Ok(())
}

/// The first byte at or after `from` that is not zero.
pub(crate) fn first_nonzero(file: &File, path: &Path, from: u64) -> Result<Option<u64>, FileError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = from;
    loop {
        let read = read_up_to(file, path, &mut chunk, at)?;
        let found = chunk.get(..read).unwrap_or_default();
        if read == 0 {
            return Ok(None);
        }
        if !is_zero(found) {
            let inside = found.iter().position(|byte| *byte != 0).unwrap_or(0);
            return Ok(Some(at + inside as u64));
        }
        at += read as u64;
    }
}

/// Fills `target` from `at`, or as much of it as the file holds, and says how much that was.
pub(crate) fn read_up_to(file: &File, path: &Path, target: &mut [u8], at: u64) -> Result<usize, FileError> {
    let mut filled = 0;
    while let Some(rest) = target.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FileError::new("read", path, error)),
        }
    }
    Ok(filled)
}

/// Bytes of a file, as far as positions reach.
pub(crate) fn length(file: &File, path: &Path) -> Result<u32, FileError> {
    let bytes = file.metadata().at("examine", path)?.len();
    Ok(u32::try_from(bytes).unwrap_or(u32::MAX).min(SEGMENT_BYTES_MAX))
}

/// Whether a log directory is as [`create`] leaves it, or less: nothing was ever recorded in it.
///
/// # Errors
/// A disk error.
pub(crate) fn is_unused(directory: &Path) -> Result<bool, FileError> {
    for segment in list(directory)? {
        let path = segment_path(directory, segment);
        let file = File::open(&path).at("open", &path)?;
        if segment > 0 || first_nonzero(&file, &path, 0)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the first segment of a new log, of [`SEGMENT_BYTES_DEFAULT`].
///
/// # Errors
/// A disk error.
pub(crate) fn create(directory: &Path) -> Result<(), FileError> {
    prepare(directory, 0, SEGMENT_BYTES_DEFAULT).map(drop)
}
