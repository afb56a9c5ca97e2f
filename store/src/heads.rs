//! The last heads of the log that a replica signed: two slots of one file, written in turn and in place.
//!
//! Invariant: when [`HeadStore::save`] has returned, what it saved is found again after any crash; a save that
//! was cut short leaves the one before it. So the last size that was ever signed is never forgotten (rule R6).

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use quorate_crypto::{DecodeError, Hash, decode, derive_hash, encode};
use quorate_protocol::log_head::{SignedLogHead, SignedLogHeads};

use crate::directory::Directory;
use crate::error::{At, FileError, sync_directory};
use crate::fields::{array, is_zero, u32_at, u64_at};

/// Bytes of a slot: no write of one touches the other's page.
const SLOT_BYTES: usize = 4096;
/// First bytes of a slot, readable by people.
const MAGIC: &[u8; 16] = b"quorate log head";
const VERSION: u32 = 1;
const CONTEXT: &str = "quorate log heads v1";
const SEQUENCE_AT: usize = 24;
const CLUSTER_AT: usize = 32;
const BODY_AT: usize = 64;
const CHECKSUM_BYTES: usize = 32;
const NAME: &str = "heads";

/// A file of heads that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HeadStoreError {
    /// The disk failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Neither slot is one that was written here, and no crash leaves that: the last size signed is lost.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A later release wrote it.
    #[error("{path} has format {found}, this program knows format {VERSION}: use a newer release")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// What one slot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Saved {
    sequence: u64,
    heads: SignedLogHeads,
}

/// A slot as it was found.
enum Slot {
    /// Never written.
    Empty,
    /// Written whole.
    Good(Saved),
    /// Of a later format.
    Newer(u32),
    /// Torn, damaged, or of another cluster.
    Bad,
}

/// Where a replica's signed heads lie.
#[derive(Debug)]
pub struct HeadStore {
    file: File,
    path: PathBuf,
    cluster: Hash,
    sequence: u64,
}

impl HeadStore {
    /// Opens the file, which earlier releases did not make, and reads what was saved last.
    ///
    /// # Errors
    /// [`HeadStoreError`].
    pub fn open(directory: &Directory) -> Result<(Self, Vec<SignedLogHead>), HeadStoreError> {
        let path = heads_path(directory.path());
        if !path.try_exists().at("examine", &path)? {
            create(&path)?;
        }
        let cluster = directory.identity().cluster;
        let file = File::options().write(true).open(&path).at("open", &path)?;
        // A process that died while it saved may have left what is in memory alone: whatever is read from here on is
        // durable before it is shown.
        file.sync_all().at("sync", &path)?;
        let saved = read(&path, &cluster)?;
        Ok((Self { file, path, cluster, sequence: saved.sequence }, saved.heads.into_inner()))
    }

    /// Keeps these heads in the place of those before: they are durable when this returns.
    ///
    /// # Errors
    /// The disk's. What a later start finds is then either these or those before; nothing of these may be shown.
    pub fn save(&mut self, heads: &SignedLogHeads) -> Result<(), FileError> {
        self.sequence = self.sequence.saturating_add(1);
        let slot = encode_slot(&self.cluster, self.sequence, heads);
        let offset = if self.sequence.is_multiple_of(2) { SLOT_BYTES as u64 } else { 0 };
        self.file.write_all_at(&slot, offset).at("write", &self.path)?;
        self.file.sync_data().at("sync", &self.path)
    }
}

/// Where the heads of the replica directory `path` lie.
#[must_use]
pub fn heads_path(path: &Path) -> PathBuf {
    path.join(NAME)
}

/// The heads that the replica with this directory signed, running or not; none if it never signed any.
///
/// # Errors
/// [`HeadStoreError`].
pub fn read_heads(path: &Path, cluster: &Hash) -> Result<Vec<SignedLogHead>, HeadStoreError> {
    let path = heads_path(path);
    if !path.try_exists().at("examine", &path)? {
        return Ok(Vec::new());
    }
    Ok(read(&path, cluster)?.heads.into_inner())
}

/// Made at its full size, so that saving allocates nothing, also on a disk that is full.
fn create(path: &Path) -> Result<(), FileError> {
    let temporary = path.with_extension("new");
    let file = File::create(&temporary).at("create", &temporary)?;
    file.write_all_at(&[0; 2 * SLOT_BYTES], 0).at("write", &temporary)?;
    file.sync_all().at("sync", &temporary)?;
    fs::rename(&temporary, path).at("rename", &temporary)?;
    path.parent().map_or(Ok(()), sync_directory)
}

fn read(path: &Path, cluster: &Hash) -> Result<Saved, HeadStoreError> {
    let mut bytes = Vec::new();
    let bound = 2 * SLOT_BYTES as u64 + 1;
    File::open(path).at("open", path)?.take(bound).read_to_end(&mut bytes).at("read", path)?;
    let damaged = |what| HeadStoreError::Damaged { path: path.to_owned(), what };
    let (slots, rest) = bytes.as_chunks::<SLOT_BYTES>();
    let ([first, second], []) = (slots, rest) else { return Err(damaged("it has the wrong size")) };
    match (decode_slot(first, cluster), decode_slot(second, cluster)) {
        (Slot::Newer(found), _) | (_, Slot::Newer(found)) => {
            Err(HeadStoreError::Newer { path: path.to_owned(), found })
        }
        (Slot::Good(one), Slot::Good(other)) => Ok(if one.sequence > other.sequence { one } else { other }),
        (Slot::Good(one), _) | (_, Slot::Good(one)) => Ok(one),
        // The first save ever was cut short.
        (_, Slot::Empty) => Ok(Saved::default()),
        _ => Err(damaged("neither of its two slots is whole")),
    }
}

fn encode_slot(cluster: &Hash, sequence: u64, heads: &SignedLogHeads) -> Vec<u8> {
    let body = encode(heads);
    let mut slot = Vec::with_capacity(SLOT_BYTES);
    slot.extend_from_slice(MAGIC);
    slot.extend_from_slice(&VERSION.to_le_bytes());
    // A bounded number of heads is far shorter than a slot.
    slot.extend_from_slice(&u32::try_from(body.len()).unwrap_or_default().to_le_bytes());
    slot.extend_from_slice(&sequence.to_le_bytes());
    slot.extend_from_slice(&cluster.0);
    slot.extend_from_slice(&body);
    let checksum = derive_hash(CONTEXT, &[&slot]);
    slot.extend_from_slice(&checksum.0);
    slot.resize(SLOT_BYTES, 0);
    slot
}

fn decode_slot(slot: &[u8; SLOT_BYTES], cluster: &Hash) -> Slot {
    if is_zero(slot) {
        return Slot::Empty;
    }
    // Magic, version and length keep their places in all later versions.
    let version = u32_at(slot, MAGIC.len());
    let length = usize::try_from(u32_at(slot, MAGIC.len() + 4)).unwrap_or(usize::MAX);
    let Some(end) = BODY_AT.checked_add(length).filter(|end| *end <= SLOT_BYTES - CHECKSUM_BYTES) else {
        return Slot::Bad;
    };
    let (Some(checked), Some(body)) = (slot.get(..end), slot.get(BODY_AT..end)) else { return Slot::Bad };
    let whole = slot.starts_with(MAGIC) && derive_hash(CONTEXT, &[checked]).0 == array(slot, end);
    if !whole {
        return Slot::Bad;
    }
    if version > VERSION {
        return Slot::Newer(version);
    }
    let heads: Result<SignedLogHeads, DecodeError> = decode(body);
    match heads {
        Ok(heads) if version == VERSION && array(slot, CLUSTER_AT) == cluster.0 && ascending(&heads) => {
            Slot::Good(Saved { sequence: u64_at(slot, SEQUENCE_AT), heads })
        }
        _ => Slot::Bad,
    }
}

fn ascending(heads: &SignedLogHeads) -> bool {
    heads.is_sorted_by(|one, next| one.head.size < next.head.size)
}
