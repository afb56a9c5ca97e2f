//! What all errors of this room share: whose fault it is, and a failed system call with its file.
//!
//! Invariant: "no space left" is told apart from every other failure of the disk, because the replica
//! survives it where it would not survive the others.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// Whose fault an error is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk or the file system: damaged, full, or failing.
    Disk,
    /// Whoever called: a wrong path, a second process, a request out of range.
    Caller,
    /// A peer or client that sent what is being stored.
    Peer,
    /// This program: a broken invariant of its own.
    Ours,
}

/// A system call that failed on a file.
#[derive(Debug)]
pub struct FileError {
    /// What was attempted, as a verb phrase.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }

    /// Whether the disk, the quota or the file size limit is exhausted.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        let exhausted = [Errno::ENOSPC, Errno::EDQUOT, Errno::EFBIG];
        self.source.raw_os_error().is_some_and(|number| exhausted.iter().any(|errno| *errno as i32 == number))
    }

    /// Whether the file does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {} {}: {}", self.action, self.path.display(), self.source)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Names the action and the file of a failed call.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError::new(action, path, source))
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), FileError> {
    let directory = std::fs::File::open(path).at("open", path)?;
    directory.sync_all().at("sync", path)
}
