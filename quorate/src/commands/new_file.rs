//! A file that is whole or not there.
//!
//! Invariant: until [`NewFile::put_in_place`] nothing has the file's name, and nothing that had it is written over.

use std::fs::File;
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file in the making, under another name in its directory; dropped, it is gone.
#[derive(Debug)]
pub struct NewFile {
    partial: NamedTempFile,
    path: PathBuf,
    directory: PathBuf,
}

impl NewFile {
    /// Begins the file of this name.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path)?;
        if path.symlink_metadata().is_ok() {
            return Err(Error::new(ErrorKind::AlreadyExists, "it exists; remove it or name another one"));
        }
        let directory = path.parent().ok_or_else(|| Error::from(ErrorKind::IsADirectory))?.to_owned();
        let partial = NamedTempFile::new_in(&directory)?;
        Ok(Self { partial, path, directory })
    }

    /// Syncs it and gives it its name.
    pub fn put_in_place(self) -> Result<(), Error> {
        self.partial.as_file().sync_all()?;
        self.partial.persist_noclobber(&self.path).map_err(|failed| failed.error)?;
        File::open(&self.directory)?.sync_all()
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        self.partial.write(bytes)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.partial.flush()
    }
}
