//! The state in RocksDB: rows versioned by height, and the applied height with its header.
//!
//! Invariant: one batch over all column families takes the state from one height to the next, so after
//! any crash it is exactly the state of some height that was applied, if an old one: batches are not
//! synced, and what is lost is rebuilt from the log. A state that is damaged is destroyed and rebuilt as
//! well; nothing in it is needed to be safe.

pub mod format;
mod past;
mod prune;
mod retention;
mod rows;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use quorate_protocol::Height;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    ErrorKind, Options, ReadOptions, SliceTransform, WriteBatch,
};

use crate::directory::{Directory, Identity};
use crate::error::{At, Fault, FileError};
use format::receipts_key;
pub use format::{CHANGES, META, META_APPLIED, META_IDENTITY, META_RETAINED, ROWS, STATE_VERSION};
use format::{
    change_key, decode_applied, decode_retained, decode_value, encode_applied, encode_identity,
    encode_retained, encode_value, split_version_key, version_key,
};
pub use past::REWOUND_ROW_BYTES;
pub use prune::{PRUNE_CHANGES_MAX, PruneCursor, Pruned};
pub use retention::Pin;
use retention::Retention;
pub use rows::Rows;

/// The key of a row (rule S1).
pub type Key = [u8; 32];
/// The value of a row.
pub type Row = Arc<[u8]>;

/// Heights whose receipts are kept, for clients that ask for their results again.
pub const RECEIPT_HEIGHTS: u64 = 65_536;

/// How much memory and how many threads RocksDB may take.
#[derive(Copy, Clone, Debug)]
pub struct StateOptions {
    /// Bytes of the block cache, indexes and filters included.
    pub cache_bytes: usize,
    /// Bytes of all write buffers together.
    pub write_buffer_bytes: usize,
    /// Threads for flushes and compactions.
    pub background_jobs: i32,
    /// Files that are kept open.
    pub open_files: i32,
}

impl Default for StateOptions {
    fn default() -> Self {
        // Small, because the replicas of a whole cluster may share one machine.
        Self { cache_bytes: 32 << 20, write_buffer_bytes: 16 << 20, background_jobs: 2, open_files: 256 }
    }
}

/// Why the state is refused, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The disk is full.
    #[error("no space for the state: {0}")]
    DiskFull(String),
    /// RocksDB failed.
    #[error("the state database failed: {0}")]
    Database(String),
    /// RocksDB found damage. Destroy the state and rebuild it from the log.
    #[error("the state is damaged: {0}")]
    Corrupt(String),
    /// What RocksDB gave is not what was put in. Destroy the state and rebuild it from the log.
    #[error("the state is damaged: {0} makes no sense")]
    Damaged(&'static str),
    /// The state is of another replica or cluster, or of another version of this program. Destroy it and
    /// rebuild it from the log.
    #[error("the state was written by another replica or another release")]
    Foreign,
    /// Nothing was committed yet.
    #[error("the state is empty")]
    Empty,
    /// A height that does not follow the applied one.
    #[error("height {given} does not follow the applied height {applied}")]
    Gap {
        /// The applied height.
        applied: Height,
        /// The height that was to be committed.
        given: Height,
    },
    /// A height that is not applied yet, or no longer kept.
    #[error("height {height} cannot be read: from {horizon} to {applied} can")]
    NotRetained {
        /// The height.
        height: Height,
        /// The lowest readable height that is no snapshot.
        horizon: Height,
        /// The applied height.
        applied: Height,
    },
    /// So much was changed since that height that it does not fit into the memory that is given for it.
    #[error(
        "height {height} lies too far back: what was changed since takes more than {bytes_max} bytes of memory"
    )]
    TooFar {
        /// The height.
        height: Height,
        /// Bytes that are given.
        bytes_max: u64,
    },
}

impl StateError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::File(_) | Self::DiskFull(_) | Self::Database(_) | Self::Corrupt(_) | Self::Damaged(_) => {
                Fault::Disk
            }
            Self::Foreign | Self::NotRetained { .. } | Self::TooFar { .. } => Fault::Caller,
            Self::Empty | Self::Gap { .. } => Fault::Ours,
        }
    }

    /// Whether destroying the state and rebuilding it from the log is the remedy.
    #[must_use]
    pub fn calls_for_rebuilding(&self) -> bool {
        matches!(self, Self::Corrupt(_) | Self::Damaged(_) | Self::Foreign)
    }

    /// Whether the disk is full.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::DiskFull(_)) || matches!(self, Self::File(error) if error.is_no_space())
    }
}

impl From<rocksdb::Error> for StateError {
    fn from(error: rocksdb::Error) -> Self {
        let message = error.to_string();
        match error.kind() {
            ErrorKind::Corruption => Self::Corrupt(message),
            // RocksDB passes the system's own words on, and nothing else to tell them apart by.
            _ if message.contains("No space left on device") => Self::DiskFull(message),
            _ => Self::Database(message),
        }
    }
}

/// The applied height and what belongs to it, as it was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The height.
    pub height: Height,
    /// Its header's canonical encoding.
    pub header: Vec<u8>,
    /// The frontier of the commit log after it.
    pub frontier: Vec<u8>,
}

/// One height, to be committed.
#[derive(Copy, Clone, Debug)]
pub struct Commit<'a> {
    /// The height.
    pub height: Height,
    /// Its changed rows; `None` for those that are gone.
    pub changes: &'a BTreeMap<Key, Option<Row>>,
    /// Its header's canonical encoding.
    pub header: &'a [u8],
    /// The frontier of the commit log after it.
    pub frontier: &'a [u8],
    /// The receipts of its batch, which are kept for [`RECEIPT_HEIGHTS`] heights.
    pub receipts: &'a [u8],
}

/// The state of one replica. One thread commits; any may read.
pub struct State {
    db: DB,
    retention: Retention,
}

impl State {
    /// Opens the state of a locked directory, or makes an empty one.
    ///
    /// # Errors
    /// See [`StateError::calls_for_rebuilding`]; [`StateError::DiskFull`] or another disk error.
    pub fn open(directory: &Directory, options: &StateOptions) -> Result<Self, StateError> {
        Self::open_at(&directory.state_path(), directory.identity(), options)
    }

    fn open_at(path: &Path, identity: Identity, options: &StateOptions) -> Result<Self, StateError> {
        let cache = Cache::new_lru_cache(options.cache_bytes);
        let families = [ROWS, CHANGES, META]
            .map(|name| ColumnFamilyDescriptor::new(name, family_options(name, &cache, options)));
        let opened = DB::open_cf_descriptors(&database_options(options), path, families);
        let db = opened.map_err(refused)?;
        let mut state = Self { db, retention: Retention::new(None, 0, Vec::new()) };
        state.claim(identity)?;
        let applied = state.load()?.map(|applied| applied.height);
        let retained = state.db.get_cf(state.family(META)?, META_RETAINED)?;
        let (horizon, snapshots) = match retained {
            Some(bytes) => decode_retained(&bytes).ok_or(StateError::Damaged("the retention row"))?,
            None => (0, Vec::new()),
        };
        state.retention = Retention::new(applied, horizon, snapshots);
        Ok(state)
    }

    /// Removes everything that a state left in a locked directory, whatever its condition.
    ///
    /// # Errors
    /// A disk error.
    pub fn destroy(directory: &Directory) -> Result<(), StateError> {
        let path = directory.state_path();
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FileError::new("remove", &path, error).into());
            }
            _ => {}
        }
        fs::create_dir_all(&path).at("create directory", &path)?;
        Ok(crate::error::sync_directory(directory.path())?)
    }

    /// The applied height; `None` in an empty state.
    #[must_use]
    pub fn applied_height(&self) -> Option<Height> {
        self.retention.applied()
    }

    /// The lowest height that can be read, snapshots apart.
    #[must_use]
    pub fn horizon(&self) -> Height {
        self.retention.horizon()
    }

    /// What was committed last; `None` in an empty state. [`State::rows`] gives the rows to it.
    ///
    /// # Errors
    /// [`StateError::Damaged`], or an error of the database.
    pub fn load(&self) -> Result<Option<Applied>, StateError> {
        let Some(bytes) = self.db.get_cf(self.family(META)?, META_APPLIED)? else { return Ok(None) };
        let (height, header, frontier) =
            decode_applied(&bytes).ok_or(StateError::Damaged("the row of the applied height"))?;
        Ok(Some(Applied { height, header, frontier }))
    }

    /// Takes the state to `height` in one atomic batch, which is not synced. An empty state accepts any
    /// height, with all its rows; otherwise it must be the one after the applied height.
    ///
    /// # Errors
    /// [`StateError::Gap`] with nothing changed; [`StateError::DiskFull`] or another disk error.
    pub fn commit(
        &self,
        height: Height,
        changes: &BTreeMap<Key, Option<Row>>,
        header: &[u8],
        frontier: &[u8],
    ) -> Result<(), StateError> {
        self.commit_all(&[Commit { height, changes, header, frontier, receipts: &[] }])
    }

    /// Takes the state over consecutive heights in one atomic batch, as [`State::commit`] does for one.
    ///
    /// # Errors
    /// As [`State::commit`].
    pub fn commit_all(&self, commits: &[Commit<'_>]) -> Result<(), StateError> {
        let Some(last) = commits.last() else { return Ok(()) };
        let mut applied = self.retention.applied();
        let (rows, changed, meta) = (self.family(ROWS)?, self.family(CHANGES)?, self.family(META)?);
        let mut batch = WriteBatch::default();
        for Commit { height, changes, receipts, .. } in commits {
            let height = *height;
            if let Some(applied) = applied.filter(|applied| applied.checked_add(1) != Some(height)) {
                return Err(StateError::Gap { applied, given: height });
            }
            for (key, value) in *changes {
                batch.put_cf(rows, version_key(key, height), encode_value(value.as_deref()));
                batch.put_cf(changed, change_key(height, key), []);
            }
            batch.put_cf(meta, receipts_key(height), receipts);
            if let Some(old) = height.checked_sub(RECEIPT_HEIGHTS) {
                batch.delete_cf(meta, receipts_key(old));
            }
            if applied.is_none() {
                batch.put_cf(meta, META_RETAINED, encode_retained(height, []));
            }
            applied = Some(height);
        }
        batch.put_cf(meta, META_APPLIED, encode_applied(last.height, last.header, last.frontier));
        self.db.write(batch)?;
        commits.iter().for_each(|commit| self.retention.publish(commit.height));
        Ok(())
    }

    /// The receipts of one of the last [`RECEIPT_HEIGHTS`] heights, as they were committed.
    ///
    /// # Errors
    /// An error of the database.
    pub fn receipts(&self, height: Height) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.db.get_cf(self.family(META)?, receipts_key(height))?)
    }

    /// Keeps a height readable while the pin lives.
    ///
    /// # Errors
    /// [`StateError::NotRetained`] or [`StateError::Empty`].
    pub fn pin(&self, height: Height) -> Result<Pin, StateError> {
        self.retention.pin(height)
    }

    /// A row at a height; `None` if it was absent.
    ///
    /// # Errors
    /// [`StateError::NotRetained`], or an error of the database.
    pub fn get_at(&self, key: &Key, height: Height) -> Result<Option<Row>, StateError> {
        let _pin = self.pin(height)?;
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(ROWS)?, options);
        iterator.seek(version_key(key, height));
        match iterator.item() {
            Some((found, value)) if split_version_key(found).is_some_and(|(row, _)| row == *key) => {
                decode_value(value).ok_or(StateError::Damaged("a row's value"))
            }
            _ => {
                iterator.status()?;
                Ok(None)
            }
        }
    }

    /// The rows from `from` up to `end` (exclusive; `None` is no upper end) at a height, ascending.
    ///
    /// # Errors
    /// [`StateError::NotRetained`]; the iterator yields errors of the database.
    pub fn scan_at(&self, from: &Key, end: Option<Key>, height: Height) -> Result<Rows<'_>, StateError> {
        let pin = self.pin(height)?;
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        let iterator = self.db.raw_iterator_cf_opt(self.family(ROWS)?, options);
        Ok(Rows::new(iterator, pin, from, end))
    }

    /// All rows at the applied height, ascending.
    ///
    /// # Errors
    /// [`StateError::Empty`]; the iterator yields errors of the database.
    pub fn rows(&self) -> Result<Rows<'_>, StateError> {
        let applied = self.applied_height().ok_or(StateError::Empty)?;
        self.scan_at(&[0; 32], None, applied)
    }

    /// Makes what was committed durable, as before a graceful stop: the next start then has nothing to
    /// rebuild, even if power fails meanwhile.
    ///
    /// # Errors
    /// An error of the database.
    pub fn sync(&self) -> Result<(), StateError> {
        Ok(self.db.flush_wal(true)?)
    }

    /// Checks whose state it is, or says so in a new one.
    fn claim(&self, identity: Identity) -> Result<(), StateError> {
        let expected = encode_identity(identity);
        match self.db.get_cf(self.family(META)?, META_IDENTITY)? {
            Some(found) if found == expected => Ok(()),
            Some(_) => Err(StateError::Foreign),
            None if self.load()?.is_some() => Err(StateError::Damaged("a state without an identity")),
            None => Ok(self.db.put_cf(self.family(META)?, META_IDENTITY, expected)?),
        }
    }

    fn family(&self, name: &'static str) -> Result<&ColumnFamily, StateError> {
        self.db.cf_handle(name).ok_or(StateError::Damaged("the list of column families"))
    }
}

/// Why a database does not open. A file of it that is gone, or options that its files contradict, are
/// damage as much as a wrong checksum.
fn refused(error: rocksdb::Error) -> StateError {
    let gone = error.to_string().contains("No such file or directory");
    match error.kind() {
        ErrorKind::InvalidArgument | ErrorKind::NotSupported | ErrorKind::NotFound => {
            StateError::Corrupt(error.to_string())
        }
        _ if gone => StateError::Corrupt(error.to_string()),
        _ => error.into(),
    }
}

fn database_options(options: &StateOptions) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.create_missing_column_families(true);
    database.set_max_background_jobs(options.background_jobs);
    database.set_max_open_files(options.open_files);
    database.set_db_write_buffer_size(options.write_buffer_bytes);
    database.set_max_total_wal_size(options.write_buffer_bytes as u64 * 2);
    // All families are flushed together, so that none is ahead of the others when the unsynced end of
    // the write-ahead log is lost; what is left of that log is used up to its first damage.
    database.set_atomic_flush(true);
    database.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    database.set_bytes_per_sync(1 << 20);
    database.set_keep_log_file_num(2);
    database.set_max_log_file_size(1 << 20);
    database.set_stats_dump_period_sec(0);
    database.set_stats_persist_period_sec(0);
    database
}

fn family_options(name: &str, cache: &Cache, options: &StateOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_block_size(8 << 10);
    let mut family = Options::default();
    family.set_write_buffer_size(options.write_buffer_bytes);
    family.set_max_write_buffer_number(2);
    family.set_compression_type(DBCompressionType::Lz4);
    if name == ROWS {
        table.set_bloom_filter(10.0, false);
        table.set_whole_key_filtering(false);
        family.set_prefix_extractor(SliceTransform::create_fixed_prefix(size_of::<Key>()));
        family.set_memtable_prefix_bloom_ratio(0.05);
    }
    family.set_block_based_table_factory(&table);
    family
}
