//! Evidence against replicas on disk: one file for each piece, named after its digest.
//!
//! Invariant: a file that has its name was written and synced whole; one that is damaged is reported, never
//! believed, and stops nobody. Whoever reads judges what a piece proves and how many are kept.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use quorate_crypto::Hash;
use quorate_protocol::Evidence;
use quorate_protocol::evidence::EvidenceFileError;
use quorate_protocol::limits::EVIDENCE_BYTES_MAX;

use crate::directory::Directory;
use crate::error::{At, FileError, sync_directory};

/// Files that are looked at; many more than a replica ever writes.
pub const EVIDENCE_FILES_MAX: usize = 4096;

/// Bytes of a file beside the evidence: more than its first bytes and its checksum.
const FRAME_BYTES_MAX: usize = 64;
const EXTENSION: &str = "evidence";
const TEMPORARY: &str = "new";

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoredEvidenceError {
    /// The disk failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is damaged.
    #[error("{path}: {error}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: EvidenceFileError,
    },
    /// The file holds other evidence than its name says.
    #[error("{path} holds evidence {found}")]
    Name {
        /// The file.
        path: PathBuf,
        /// Digest of what it holds.
        found: Hash,
    },
}

/// Where a replica's evidence lies.
#[derive(Clone, Debug)]
pub struct EvidenceStore {
    path: PathBuf,
}

impl EvidenceStore {
    /// Opens the place, which earlier releases did not make, and removes what a crash left unfinished.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(directory: &Directory) -> Result<Self, FileError> {
        let path = evidence_path(directory.path());
        fs::create_dir_all(&path).at("create directory", &path)?;
        sync_directory(directory.path())?;
        for name in names(&path, TEMPORARY)? {
            fs::remove_file(&name).at("remove", &name)?;
        }
        Ok(Self { path })
    }

    /// Keeps a piece: it is durable when this returns.
    ///
    /// # Errors
    /// The disk's; nothing of the piece counts then.
    pub fn save(&self, evidence: &Evidence) -> Result<(), FileError> {
        let digest = evidence.digest();
        let target = self.path.join(format!("{digest}.{EXTENSION}"));
        let temporary = self.path.join(format!("{digest}.{TEMPORARY}"));
        let mut file = File::create(&temporary).at("create", &temporary)?;
        file.write_all(&evidence.to_file()).at("write", &temporary)?;
        file.sync_all().at("sync", &temporary)?;
        fs::rename(&temporary, &target).at("rename", &temporary)?;
        sync_directory(&self.path)
    }
}

/// Where the evidence of the replica directory `path` lies.
#[must_use]
pub fn evidence_path(path: &Path) -> PathBuf {
    path.join("evidence")
}

/// The evidence in a replica's directory, running or not, in the order of the files' names; at most
/// [`EVIDENCE_FILES_MAX`] files are read, one at a time.
///
/// # Errors
/// The disk's, when the files cannot be listed. A directory without any evidence is no error.
pub fn read_evidence(
    path: &Path,
) -> Result<impl Iterator<Item = Result<Evidence, StoredEvidenceError>>, FileError> {
    let path = evidence_path(path);
    let files = match names(&path, EXTENSION) {
        Err(error) if error.is_missing() => Vec::new(),
        files => files?,
    };
    Ok(files.into_iter().map(|file| read_one(&file)))
}

/// A piece of evidence in a file of any name.
///
/// # Errors
/// [`StoredEvidenceError`]: the disk's, or what is wrong with the content.
pub fn read_evidence_file(path: &Path) -> Result<Evidence, StoredEvidenceError> {
    let file = File::open(path).at("open", path)?;
    let bound = EVIDENCE_BYTES_MAX.saturating_add(FRAME_BYTES_MAX);
    let mut bytes = Vec::new();
    file.take(bound as u64).read_to_end(&mut bytes).at("read", path)?;
    Evidence::from_file(&bytes).map_err(|error| StoredEvidenceError::Content { path: path.to_owned(), error })
}

fn read_one(path: &Path) -> Result<Evidence, StoredEvidenceError> {
    let evidence = read_evidence_file(path)?;
    let found = evidence.digest();
    let named = path.file_stem().is_some_and(|stem| stem.to_str() == Some(found.to_string().as_str()));
    if named { Ok(evidence) } else { Err(StoredEvidenceError::Name { path: path.to_owned(), found }) }
}

/// The first files with this extension, ascending by name. Others are not ours to judge.
fn names(path: &Path, extension: &str) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).at("list", path)?.take(EVIDENCE_FILES_MAX) {
        let file = entry.at("list", path)?.path();
        if file.extension().is_some_and(|known| known == extension) {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}
