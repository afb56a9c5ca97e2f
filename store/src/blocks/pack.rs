//! The bytes of a pack: its header and the fixed part of each block in it.
//!
//! Invariant: every check is keyed with a secret of the directory and bound to the place where it lies,
//! so that a block's content, which a client chose, cannot pose as structure. `docs/SPEC/store.md` gives
//! every offset.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use quorate_crypto::{Hash, decode, derive_hash, encode};
use quorate_protocol::BatchTime;
use quorate_protocol::blocks::BlockDescriptor;

use crate::directory::{Identity, Marker};
use crate::error::{At, FileError};
use crate::fields::{array, is_zero, u32_at, u64_at};

/// Version of the pack format.
pub const PACK_VERSION: u32 = 1;
/// First bytes of a pack.
pub const PACK_MAGIC: &[u8; 8] = b"qrt-blk\n";
/// First bytes of a block's fixed part.
pub const BLOCK_MAGIC: &[u8; 4] = b"qblk";
/// First bytes of a run of pages that a crash left without a block.
pub const GAP_MAGIC: &[u8; 4] = b"qgap";
/// Blocks begin at multiples of this, and a deleted block's other pages are given back.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of a block before its content: one sector, because parts of it are written again in place.
pub const BLOCK_HEADER_BYTES: usize = 512;

const PACK_HEADER_BYTES: usize = 112;
const PACK_CONTEXT: &str = "quorate block pack v1";
const KEY_CONTEXT: &str = "quorate block pack key v1";
const DESCRIPTOR_AT: usize = 48;
const DESCRIPTOR_BYTES_MAX: usize = 112;
const CHECK_AT: usize = 160;
const PROMISE_AT: [usize; 2] = [256, 288];
const DEAD_AT: usize = 320;
const SLOT_BYTES: usize = 32;

/// Where a block lies.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the pack.
    pub pack: u32,
    /// In pages from the beginning of the pack.
    pub page: u32,
}

impl Place {
    /// In bytes from the beginning of the pack.
    pub(crate) fn offset(self) -> u64 {
        u64::from(self.page) * PAGE_BYTES
    }
}

/// Pages that a block with `length` bytes of content takes.
pub(crate) fn pages(length: u32) -> u32 {
    let bytes = u64::from(length) + BLOCK_HEADER_BYTES as u64;
    // At most 2^20 + 1 for any u32.
    u32::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX)
}

/// The path of a pack.
pub(crate) fn path(directory: &Path, pack: u32) -> PathBuf {
    directory.join(format!("{pack:010}.pack"))
}

/// The numbers of all packs, ascending.
pub(crate) fn list(directory: &Path) -> Result<Vec<u32>, FileError> {
    let mut packs = Vec::new();
    for entry in std::fs::read_dir(directory).at("list", directory)? {
        let name = entry.at("list", directory)?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_suffix(".pack")).and_then(|stem| stem.parse().ok());
        if let Some(number) = number.filter(|number| path(directory, *number) == directory.join(&name)) {
            packs.push(number);
        }
    }
    packs.sort_unstable();
    Ok(packs)
}

/// The fixed part of a block, as read from disk.
pub struct Fixed {
    /// The block's identifier.
    pub id: Hash,
    /// What the identifier names.
    pub descriptor: BlockDescriptor,
    /// Pages of this pack that were synced when this block was written.
    pub synced: u32,
    /// Until when it was promised to be kept.
    pub expires: BatchTime,
    /// The promise slot to be written next, which is not the one that holds.
    pub slot: usize,
    /// Whether it was deleted.
    pub dead: bool,
}

/// Computes the keyed checks of one directory.
#[derive(Clone)]
pub struct Checker {
    key: [u8; 32],
    identity: Identity,
}

impl Checker {
    /// The checks of the directory with this marker.
    pub fn new(marker: &Marker) -> Self {
        Self { key: derive_hash(KEY_CONTEXT, &[&marker.seed]).0, identity: marker.identity }
    }

    fn check(&self, purpose: u8, place: Place, bytes: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[purpose]);
        hasher.update(&place.pack.to_le_bytes());
        hasher.update(&place.page.to_le_bytes());
        hasher.update(bytes);
        *hasher.finalize().as_bytes()
    }

    /// The first page of a pack.
    pub fn pack_header(&self, pack: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PAGE_BYTES as usize);
        bytes.extend_from_slice(PACK_MAGIC);
        bytes.extend_from_slice(&PACK_VERSION.to_le_bytes());
        bytes.extend_from_slice(&pack.to_le_bytes());
        bytes.push(self.identity.replica);
        bytes.extend_from_slice(&[0; 31]);
        bytes.extend_from_slice(&self.identity.cluster.0);
        let checksum = derive_hash(PACK_CONTEXT, &[&bytes]);
        bytes.extend_from_slice(&checksum.0);
        bytes.resize(PAGE_BYTES as usize, 0);
        bytes
    }

    /// The fixed part of a block.
    pub fn encode(
        &self,
        place: Place,
        descriptor: &BlockDescriptor,
        synced: u32,
        expires: BatchTime,
    ) -> Vec<u8> {
        let encoded = encode(descriptor);
        assert!(encoded.len() <= DESCRIPTOR_BYTES_MAX, "a descriptor has a fixed width");
        let mut bytes = Vec::with_capacity(BLOCK_HEADER_BYTES);
        bytes.extend_from_slice(BLOCK_MAGIC);
        bytes.extend_from_slice(&u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&u64::from(synced).to_le_bytes());
        bytes.extend_from_slice(&descriptor.id().0);
        bytes.extend_from_slice(&encoded);
        bytes.resize(CHECK_AT, 0);
        let check = self.check(0, place, &bytes);
        bytes.extend_from_slice(&check);
        bytes.resize(PROMISE_AT[0], 0);
        bytes.extend_from_slice(&self.promise(place, 0, expires));
        bytes.resize(BLOCK_HEADER_BYTES, 0);
        bytes
    }

    /// Reads the fixed part of a block; `None` if there is none, or it is damaged.
    pub fn decode(&self, place: Place, bytes: &[u8]) -> Option<Fixed> {
        let body = bytes.get(..CHECK_AT).filter(|body| body.starts_with(BLOCK_MAGIC))?;
        if bytes.len() != BLOCK_HEADER_BYTES || self.check(0, place, body) != array(bytes, CHECK_AT) {
            return None;
        }
        let length = u32_at(body, 4) as usize;
        let encoded = body.get(DESCRIPTOR_AT..DESCRIPTOR_AT.checked_add(length)?)?;
        let descriptor: BlockDescriptor = decode(encoded).ok()?;
        let promises = PROMISE_AT.map(|at| {
            let expires = BatchTime(u64_at(bytes, at));
            (at, expires)
        });
        let mut held: Option<(usize, BatchTime)> = None;
        for (slot, (at, expires)) in promises.into_iter().enumerate() {
            let valid = array::<SLOT_BYTES>(bytes, at) == self.promise(place, slot, expires);
            if valid && held.is_none_or(|(_, other)| other < expires) {
                held = Some((slot, expires));
            }
        }
        let dead = array::<SLOT_BYTES>(bytes, DEAD_AT) == self.dead(place);
        let (slot, expires) = held?;
        Some(Fixed {
            id: Hash(array(body, 16)),
            descriptor,
            synced: u32::try_from(u64_at(body, 8)).ok()?,
            expires,
            slot: 1 - slot,
            dead,
        })
    }

    /// What is written at the beginning of pages that a crash left without a block, so that they are not
    /// taken for damage later.
    pub fn encode_gap(&self, place: Place, pages: u32) -> Vec<u8> {
        let mut bytes = GAP_MAGIC.to_vec();
        bytes.extend_from_slice(&pages.to_le_bytes());
        let check = self.check(4, place, &bytes);
        bytes.extend_from_slice(&check);
        bytes
    }

    /// How many pages hold no block here, if that was written; at least 1.
    pub fn decode_gap(&self, place: Place, bytes: &[u8]) -> Option<u32> {
        let pages = u32_at(bytes, 4);
        (pages > 0 && bytes.starts_with(&self.encode_gap(place, pages))).then_some(pages)
    }

    /// The bytes of a promise slot.
    fn promise(&self, place: Place, slot: usize, expires: BatchTime) -> [u8; SLOT_BYTES] {
        let purpose = if slot == 0 { 1 } else { 2 };
        let check = self.check(purpose, place, &expires.0.to_le_bytes());
        let mut bytes = [0; SLOT_BYTES];
        let (to_time, to_check) = bytes.split_at_mut(8);
        to_time.copy_from_slice(&expires.0.to_le_bytes());
        for (to, from) in to_check.iter_mut().zip(check) {
            *to = from;
        }
        bytes
    }

    fn dead(&self, place: Place) -> [u8; SLOT_BYTES] {
        self.check(3, place, &[])
    }

    /// Writes a promise in place, into the slot that does not hold the present one.
    pub(crate) fn write_promise(
        &self,
        file: &File,
        place: Place,
        slot: usize,
        expires: BatchTime,
    ) -> std::io::Result<()> {
        let at = PROMISE_AT.get(slot).copied().unwrap_or(PROMISE_AT[0]);
        file.write_all_at(&self.promise(place, slot, expires), place.offset() + at as u64)
    }

    /// Writes in place that a block is deleted.
    pub(crate) fn write_dead(&self, file: &File, place: Place) -> std::io::Result<()> {
        file.write_all_at(&self.dead(place), place.offset() + DEAD_AT as u64)
    }

    /// Reads a pack's header.
    pub fn check_pack(&self, pack: u32, bytes: &[u8]) -> PackHeader {
        let fixed = bytes.get(..PACK_HEADER_BYTES).unwrap_or(bytes);
        if is_zero(fixed) {
            return PackHeader::Unused;
        }
        let (body, checksum) = fixed.split_at(fixed.len().saturating_sub(SLOT_BYTES));
        if !body.starts_with(PACK_MAGIC) || derive_hash(PACK_CONTEXT, &[body]).0.as_slice() != checksum {
            return PackHeader::Invalid;
        }
        let version = u32_at(body, 8);
        if version > PACK_VERSION {
            return PackHeader::Newer(version);
        }
        if self.pack_header(pack).starts_with(fixed) { PackHeader::Ours } else { PackHeader::Foreign }
    }
}

/// What a pack's first page says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PackHeader {
    /// A pack of this directory, under its own number.
    Ours,
    /// Nothing: the pack was being made when the process or the power ended.
    Unused,
    /// Nothing that was ever written by this program.
    Invalid,
    /// A pack of another directory, or under another number.
    Foreign,
    /// Of a later version.
    Newer(u32),
}
