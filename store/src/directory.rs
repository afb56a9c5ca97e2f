//! The directory of one replica: its marker, its lock, and where log, state and blocks lie.
//!
//! Invariant: whoever holds a [`Directory`] is the only process that does, and the directory belongs to
//! the cluster and replica that its marker names. Nothing below it is touched before that is known.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use quorate_crypto::{Hash, derive_hash};
use quorate_protocol::ReplicaIndex;

use crate::error::{At, Fault, FileError, sync_directory};
use crate::fields::array;
use crate::log::{self, LogError};

/// Version of the directory's format, of everything below it together.
pub const DIRECTORY_VERSION: u32 = 1;
/// Bytes of the marker file.
pub const MARKER_BYTES: usize = 128;
/// First bytes of the marker, readable by people.
pub const MARKER_MAGIC: &[u8; 16] = b"quorate replica\n";
/// Name of the marker file.
pub const MARKER_NAME: &str = "FORMAT";
/// Name of the file that is locked.
pub const LOCK_NAME: &str = "LOCK";

const MARKER_CONTEXT: &str = "quorate directory marker v1";
const CHECKSUM_AT: usize = 96;

/// Who a directory belongs to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: Hash,
    /// The replica's index in the member set.
    pub replica: ReplicaIndex,
}

/// What the marker holds.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Owner.
    pub identity: Identity,
    /// Random, chosen when the directory is made and never shown outside: keys the checks by which log
    /// and blocks find their place again after damage, so that stored content cannot pose as structure.
    pub seed: [u8; 32],
}

/// Why a directory is refused.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The disk failed, or the path is not accessible.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no marker: no replica was ever initialised here.
    #[error("{0} holds no replica: run `quorate init` first, or name the right directory")]
    Missing(PathBuf),
    /// The directory to create holds a replica already, or parts of one.
    #[error("{0} holds a replica, or the remains of one: choose an empty directory")]
    Occupied(PathBuf),
    /// The marker is not ours at all.
    #[error("{0} is not a replica's directory: its marker was not written by quorate")]
    NotOurs(PathBuf),
    /// The directory is another replica's, or of another cluster.
    #[error(
        "{path} belongs to replica {} of cluster {}, not to replica {} of cluster {}",
        found.replica, found.cluster, expected.replica, expected.cluster
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What the marker says.
        found: Identity,
        /// What was asked for.
        expected: Identity,
    },
    /// A later release wrote the directory.
    #[error("{path} has format {found}, this program knows formats up to {supported}: use a newer release")]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// [`DIRECTORY_VERSION`].
        supported: u32,
    },
    /// The marker, or one of the three sub-directories, is damaged or gone.
    #[error("{path} is damaged ({what}): this replica must come back as a new member with a new key")]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Another process runs on the directory.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// The system has no source of randomness.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    /// The first log segment cannot be made.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl DirectoryError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::File(error) if error.is_missing() => Fault::Caller,
            Self::File(_) | Self::Damaged { .. } | Self::Random(_) => Fault::Disk,
            Self::Log(error) => error.fault(),
            Self::Missing(_)
            | Self::Occupied(_)
            | Self::NotOurs(_)
            | Self::Foreign { .. }
            | Self::Newer { .. }
            | Self::Locked(_) => Fault::Caller,
        }
    }
}

/// A replica's directory, locked for this process until it is dropped.
pub struct Directory {
    path: PathBuf,
    marker: Marker,
    // Held for the lock alone; the kernel releases it when the process ends, however it ends.
    _lock: File,
}

impl Directory {
    /// Makes the directory of a new replica and locks it. The path may exist and hold other files (a key,
    /// a cluster file), but no part of a replica, except what a creation that was cut short left behind.
    ///
    /// # Errors
    /// [`DirectoryError::Occupied`] or [`DirectoryError::Locked`] (caller); a disk error.
    pub fn create(path: &Path, identity: Identity) -> Result<Self, DirectoryError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(DirectoryError::Random)?;
        Self::create_with_seed(path, identity, seed)
    }

    /// [`Directory::create`] with a seed of the caller's, for tests that need equal bytes each time.
    ///
    /// # Errors
    /// As [`Directory::create`].
    pub fn create_with_seed(path: &Path, identity: Identity, seed: [u8; 32]) -> Result<Self, DirectoryError> {
        fs::create_dir_all(path).at("create directory", path)?;
        let lock = lock(path)?;
        let marker_path = path.join(MARKER_NAME);
        if marker_path.try_exists().at("examine", &marker_path)? {
            return Err(DirectoryError::Occupied(path.to_owned()));
        }
        let directory = Self { path: path.to_owned(), marker: Marker { identity, seed }, _lock: lock };
        for part in [directory.log_path(), directory.state_path(), directory.blocks_path()] {
            fs::create_dir_all(&part).at("create directory", &part)?;
        }
        for part in [directory.state_path(), directory.blocks_path()] {
            if fs::read_dir(&part).at("list", &part)?.next().is_some() {
                return Err(DirectoryError::Occupied(path.to_owned()));
            }
        }
        if !log::is_unused(&directory.log_path())? {
            return Err(DirectoryError::Occupied(path.to_owned()));
        }
        log::create(&directory.log_path())?;
        // The marker comes last: with it the directory is complete, without it nothing has run here.
        write_marker(path, &directory.marker)?;
        Ok(directory)
    }

    /// Opens and locks the directory of an existing replica.
    ///
    /// # Errors
    /// [`DirectoryError`] tells a missing, foreign, newer, damaged and locked directory apart.
    pub fn open(path: &Path, expected: Identity) -> Result<Self, DirectoryError> {
        let marker = read_marker(path)?;
        if marker.identity != expected {
            return Err(DirectoryError::Foreign { path: path.to_owned(), found: marker.identity, expected });
        }
        let lock = lock(path)?;
        let directory = Self { path: path.to_owned(), marker, _lock: lock };
        let parts = [
            (directory.log_path(), "the log directory is gone"),
            (directory.blocks_path(), "the block directory is gone"),
        ];
        for (part, what) in parts {
            if !part.is_dir() {
                return Err(DirectoryError::Damaged { path: path.to_owned(), what });
            }
        }
        // The state alone may be lost without harm: it is rebuilt from the log.
        let state = directory.state_path();
        fs::create_dir_all(&state).at("create directory", &state)?;
        Ok(directory)
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.marker.identity
    }

    /// What its marker holds.
    #[must_use]
    pub const fn marker(&self) -> &Marker {
        &self.marker
    }

    /// Where the log's segments lie.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        log_path(&self.path)
    }

    /// Where RocksDB lies.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Where the packs of blocks lie.
    #[must_use]
    pub fn blocks_path(&self) -> PathBuf {
        self.path.join("blocks")
    }
}

/// Where the log of the replica directory `path` lies, for readers that do not lock it.
#[must_use]
pub fn log_path(path: &Path) -> PathBuf {
    path.join("log")
}

/// Reads and checks the marker of a directory without locking it, as an auditor does.
///
/// # Errors
/// [`DirectoryError::Missing`], [`DirectoryError::NotOurs`], [`DirectoryError::Damaged`],
/// [`DirectoryError::Newer`], or a disk error.
pub fn read_marker(path: &Path) -> Result<Marker, DirectoryError> {
    let marker_path = path.join(MARKER_NAME);
    let file = match File::open(&marker_path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(missing_marker(path));
        }
        Err(error) => return Err(FileError::new("open", &marker_path, error).into()),
    };
    let mut bytes = Vec::with_capacity(MARKER_BYTES);
    file.take(MARKER_BYTES as u64 + 1).read_to_end(&mut bytes).at("read", &marker_path)?;
    decode_marker(path, &bytes)
}

/// A directory that holds a log but no marker has lost it; one without either was never a replica's.
fn missing_marker(path: &Path) -> DirectoryError {
    if log_path(path).is_dir() && !log::is_unused(&log_path(path)).unwrap_or(false) {
        return DirectoryError::Damaged { path: path.to_owned(), what: "the marker is gone" };
    }
    DirectoryError::Missing(path.to_owned())
}

fn encode_marker(marker: &Marker) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MARKER_BYTES);
    bytes.extend_from_slice(MARKER_MAGIC);
    bytes.extend_from_slice(&DIRECTORY_VERSION.to_le_bytes());
    bytes.push(marker.identity.replica);
    bytes.extend_from_slice(&[0; 11]);
    bytes.extend_from_slice(&marker.identity.cluster.0);
    bytes.extend_from_slice(&marker.seed);
    let checksum = derive_hash(MARKER_CONTEXT, &[&bytes]);
    bytes.extend_from_slice(&checksum.0);
    bytes
}

fn decode_marker(path: &Path, bytes: &[u8]) -> Result<Marker, DirectoryError> {
    let damaged = |what| DirectoryError::Damaged { path: path.to_owned(), what };
    if !bytes.starts_with(MARKER_MAGIC) {
        return Err(DirectoryError::NotOurs(path.to_owned()));
    }
    // Size, magic, version and checksum stay where they are in every later version, so that a newer
    // directory is never mistaken for a damaged one, nor the other way round.
    if bytes.len() != MARKER_BYTES {
        return Err(damaged("the marker has the wrong size"));
    }
    let Some((body, checksum)) = bytes.split_at_checked(CHECKSUM_AT) else {
        return Err(damaged("the marker has the wrong size"));
    };
    if derive_hash(MARKER_CONTEXT, &[body]).0.as_slice() != checksum {
        return Err(damaged("the marker's checksum is wrong"));
    }
    let found = u32::from_le_bytes(array(body, 16));
    if found > DIRECTORY_VERSION {
        return Err(DirectoryError::Newer { path: path.to_owned(), found, supported: DIRECTORY_VERSION });
    }
    let [replica] = array(body, 20);
    let marker =
        Marker { identity: Identity { cluster: Hash(array(body, 32)), replica }, seed: array(body, 64) };
    if encode_marker(&marker) != bytes {
        return Err(damaged("the marker is not canonical"));
    }
    Ok(marker)
}

fn write_marker(path: &Path, marker: &Marker) -> Result<(), FileError> {
    let target = path.join(MARKER_NAME);
    let temporary = path.join("FORMAT.new");
    let mut file = File::create(&temporary).at("create", &temporary)?;
    file.write_all(&encode_marker(marker)).at("write", &temporary)?;
    file.sync_all().at("sync", &temporary)?;
    fs::rename(&temporary, &target).at("rename", &temporary)?;
    sync_directory(path)
}

fn lock(path: &Path) -> Result<File, DirectoryError> {
    let lock_path = path.join(LOCK_NAME);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .at("open", &lock_path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(FileError::new("lock", &lock_path, error).into()),
    }
}
