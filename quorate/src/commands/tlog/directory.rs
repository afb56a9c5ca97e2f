//! An exported log as a directory: `checkpoint`, `policy`, `tile/...`.
//!
//! Invariants: a file that is there is never written over with other bytes but the checkpoint, which only grows and
//! is put in its place whole, after everything that it needs is on the disk; what is read is bounded.

use crate::failure::Failure;
use quorate_audit::tlog::{
    ENTRY_BYTES_MAX, LogKeys, NOTE_BYTES_MAX, Resource, SignedNote, TILE_HASHES, TilePath, TileRow,
};
use std::fs::{self, File, Permissions};
use std::io::{Error, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Name of the checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
/// Name of the policy.
pub const POLICY: &str = "policy";
/// Any web server may read what is published.
const MODE: u32 = 0o644;

/// What became of a file.
pub enum Added {
    /// It is new.
    Written,
    /// It was there with the same bytes.
    Kept,
    /// It was there with other bytes.
    Differs,
}

/// The directory.
pub struct LogDirectory {
    path: PathBuf,
}

impl LogDirectory {
    /// One that is to be read.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Makes the directory of a log, or opens that of an earlier export of the same one. Others are refused.
    pub fn prepare(path: &Path, keys: &LogKeys) -> Result<Self, Failure> {
        let of = |text: String| Failure::new(format!("{}: {text}", path.display()));
        fs::create_dir_all(path).map_err(|error| of(format!("cannot be made: {error}")))?;
        let this = Self::new(path);
        let policy = keys.policy().to_string();
        match this.read(POLICY, policy.len()) {
            Ok(found) if found == policy.as_bytes() => Ok(this),
            Ok(_) => Err(of("it holds the log of another cluster".to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut entries = fs::read_dir(path).map_err(|error| of(error.to_string()))?;
                if entries.next().is_some() {
                    return Err(of("it is neither empty nor an exported log".to_owned()));
                }
                this.write(POLICY, policy.as_bytes()).map_err(|error| of(error.to_string()))?;
                Ok(this)
            }
            Err(error) => Err(of(format!("its policy cannot be read: {error}"))),
        }
    }

    /// Reads a file that has no more bytes than any of its kind; a longer one reads as cut.
    fn read(&self, name: &str, bytes_max: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        File::open(self.path.join(name))?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The bytes of a tile or bundle.
    pub fn read_tile(&self, path: &TilePath) -> Result<Vec<u8>, Error> {
        let each = match path.row() {
            TileRow::Entries => ENTRY_BYTES_MAX + 2,
            TileRow::Level(_) => quorate_crypto::HASH_BYTES,
        };
        self.read_tile_up_to(path, each * TILE_HASHES)
    }

    /// The same; one with more bytes than these reads as one byte longer.
    pub fn read_tile_up_to(&self, path: &TilePath, bytes_max: usize) -> Result<Vec<u8>, Error> {
        self.read(&path.to_string(), bytes_max)
    }

    /// The bytes of the policy.
    pub fn read_policy(&self) -> Result<Vec<u8>, Error> {
        self.read(POLICY, quorate_audit::tlog::POLICY_BYTES_MAX)
    }

    /// The bytes of the checkpoint; nothing if there is none yet.
    pub fn read_checkpoint(&self) -> Result<Option<Vec<u8>>, Error> {
        match self.read(CHECKPOINT, NOTE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a file of the log.
    pub fn add(&self, file: &Resource) -> Result<Added, Error> {
        match self.read_tile(&file.path) {
            Ok(found) if found == file.bytes => Ok(Added::Kept),
            Ok(_) => Ok(Added::Differs),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.write(&file.path.to_string(), &file.bytes)?;
                Ok(Added::Written)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a checkpoint in the place of the one before, once all that was added is on the disk.
    pub fn publish(&self, checkpoint: &SignedNote) -> Result<(), Error> {
        let directory = File::open(&self.path)?;
        nix::unistd::syncfs(&directory)?;
        self.write(CHECKPOINT, checkpoint.to_string().as_bytes())?;
        nix::unistd::syncfs(&directory)?;
        Ok(())
    }

    /// Writes a file aside and gives it its name.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path.join(name);
        let parent = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(parent)?;
        let mut partial =
            tempfile::Builder::new().permissions(Permissions::from_mode(MODE)).tempfile_in(parent)?;
        partial.write_all(bytes)?;
        partial.persist(&path).map_err(|failed| failed.error)?;
        Ok(())
    }
}
