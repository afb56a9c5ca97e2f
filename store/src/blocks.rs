//! Whole copies of blocks of file content, packed into few files (rule S5).
//!
//! Invariant: when [`Blocks::put`] returns, the blocks and the promise to keep them are durable and the
//! bytes are those that the descriptors name; what is read is checked again, and is never anything else.
//! A block is deleted only when its promise has expired.
//!
//! Packs, because one sync makes a whole upload durable: on the disk at hand 32 blocks of 64 KiB take
//! 1.8 ms in a pack, 4.7 ms as files with one syncfs, 18.9 ms as files synced one by one. A deleted
//! block's pages are given back by punching a hole, a pack's last page with the pack.

mod commit;
mod open;
pub mod pack;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nix::fcntl::{FallocateFlags, fallocate};
use quorate_crypto::Hash;
use quorate_protocol::BatchTime;
use quorate_protocol::blocks::{BlockDescriptor, Coding};
use quorate_protocol::limits::BLOCK_BYTES_MAX;

use crate::error::{At, Fault, FileError, sync_directory};
use commit::{Commit, Dirty, PackFile};
pub use open::OpenReport;
use pack::{BLOCK_HEADER_BYTES, Checker, PAGE_BYTES, Place, pages};

/// Bytes of a pack beyond which a new one is begun.
pub const PACK_BYTES_TARGET: u64 = 256 << 20;
/// Bytes of the disk that blocks leave to log and state, unless the operator says otherwise: two log segments
/// that are made in advance, what the state database needs to merge its files, and room to delete files in.
pub const RESERVE_BYTES_DEFAULT: u64 = 256 << 20;
/// Identifiers that one call of [`Blocks::ids`] gives at most.
pub const IDS_PER_CALL_MAX: usize = 4096;

/// How blocks are kept.
#[derive(Copy, Clone, Debug)]
pub struct BlockOptions {
    /// Bytes of disk that the blocks may take, with all that is spent on keeping them.
    pub bytes_max: u64,
    /// Bytes of a pack beyond which a new one is begun; at most [`PACK_BYTES_TARGET`] makes sense.
    pub pack_bytes: u64,
    /// Bytes of the disk that no block takes, so that log and state can go on beside it.
    pub reserve_bytes: u64,
}

impl Default for BlockOptions {
    fn default() -> Self {
        Self { bytes_max: u64::MAX, pack_bytes: PACK_BYTES_TARGET, reserve_bytes: RESERVE_BYTES_DEFAULT }
    }
}

/// Why a block is not stored or not given.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The disk failed. From a sync this is final: the process must end (hazard PR7).
    #[error(transparent)]
    File(#[from] FileError),
    /// The disk is full.
    #[error("no space for blocks: {0}")]
    DiskFull(FileError),
    /// What is left of the disk is for log and state.
    #[error(
        "no space for blocks: {free} bytes of the disk are free, of which {reserve} are kept for log and state"
    )]
    ReserveReached {
        /// Bytes that the file system would give.
        free: u64,
        /// Bytes that blocks leave.
        reserve: u64,
    },
    /// The configured limit is reached.
    #[error("no space for blocks: {used} bytes of {limit} are used, {needed} more are needed")]
    LimitReached {
        /// Bytes in use.
        used: u64,
        /// Bytes allowed.
        limit: u64,
        /// Bytes wanted.
        needed: u64,
    },
    /// The content is not what its descriptor names, or the descriptor is none that this store keeps.
    #[error("the content of block {0} is not what its descriptor names")]
    Mismatch(Hash),
    /// A stored block is no longer what was stored. It can be fetched from another replica.
    #[error("block {id} is damaged on disk ({}, offset {offset})", path.display())]
    Damaged {
        /// The block.
        id: Hash,
        /// Its pack.
        path: PathBuf,
        /// Where it lies there, in bytes.
        offset: u64,
    },
    /// A pack is of another replica or cluster.
    #[error("{} belongs to another replica", .0.display())]
    Foreign(PathBuf),
    /// A later release wrote a pack.
    #[error("{} has format {version}: use a newer release", path.display())]
    Newer {
        /// The pack.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// An earlier sync failed, so nobody knows what is on the disk (hazard PR7).
    #[error("an earlier sync of blocks failed: the process must end")]
    Poisoned,
}

impl BlockError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::File(_) | Self::DiskFull(_) | Self::ReserveReached { .. } | Self::Damaged { .. } => {
                Fault::Disk
            }
            Self::Mismatch(_) => Fault::Peer,
            Self::LimitReached { .. } | Self::Foreign(_) | Self::Newer { .. } => Fault::Caller,
            Self::Poisoned => Fault::Ours,
        }
    }

    /// Whether the disk or the configured limit is exhausted: the replica goes on without this upload.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::DiskFull(_) | Self::ReserveReached { .. } | Self::LimitReached { .. })
    }
}

/// A block to be stored.
#[derive(Copy, Clone, Debug)]
pub struct Upload<'a> {
    /// What its identifier names.
    pub descriptor: &'a BlockDescriptor,
    /// Its bytes.
    pub content: &'a [u8],
}

/// How much is stored.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of their content.
    pub content_bytes: u64,
    /// Bytes of disk, with all that is spent on keeping them.
    pub disk_bytes: u64,
}

/// What became of a request to delete.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Blocks that are gone.
    pub deleted: u64,
    /// Blocks that stay because a receipt promises them.
    pub promised: u64,
}

/// The block store of a replica; shared by all threads that upload, read or delete.
pub struct Blocks {
    directory: PathBuf,
    checker: Checker,
    options: BlockOptions,
    // Held while files are written, and over the sync of a full pack.
    packs: Mutex<Packs>,
    // Held for moments only; changed only by who holds the lock of the packs.
    known: RwLock<Known>,
    commit: Commit,
}

/// What blocks are stored. Some 64 bytes for each.
struct Known {
    blocks: BTreeMap<Hash, Entry>,
    usage: Usage,
}

/// The files.
struct Packs {
    packs: BTreeMap<u32, Pack>,
    // The pack that is being written; `None` before the first block.
    active: Option<u32>,
}

#[derive(Copy, Clone)]
struct Entry {
    place: Place,
    length: u32,
    expires: BatchTime,
    slot: usize,
}

struct Pack {
    handle: PackFile,
    // Pages in the file, the header's included.
    pages: u32,
    // Blocks in use.
    live: u32,
    // Pages that are held by nothing in use.
    dead: u32,
}

impl Pack {
    fn written(&self) -> (PackFile, u32) {
        (self.handle.clone(), self.pages)
    }
}

impl Blocks {
    /// Stores blocks and the promise to keep them until `expires`, and returns their identifiers when
    /// both are durable. A block that is there already is read and compared, and its promise extended if
    /// that makes it longer. Calls of several threads share syncs. If it fails, blocks of the same call
    /// may have been stored; without a promise that anybody saw they are collected later.
    ///
    /// # Errors
    /// [`BlockError::Mismatch`] (peer); [`BlockError::LimitReached`], [`BlockError::ReserveReached`],
    /// [`BlockError::DiskFull`]; a disk error, final if it came from a sync.
    pub fn put(&self, uploads: &[Upload<'_>], expires: BatchTime) -> Result<Vec<Hash>, BlockError> {
        let mut ids = Vec::with_capacity(uploads.len());
        let mut spoiled = BTreeMap::new();
        for upload in uploads {
            let id = check(upload.descriptor, upload.content)?;
            ids.push(id);
            // Whoever promises a block again must not rely on a copy that has decayed meanwhile.
            if let (Err(BlockError::Damaged { .. }), Some(entry)) = (self.get(&id), self.entry(&id)) {
                tracing::error!(%id, "a stored block was damaged; replacing it");
                spoiled.insert(id, entry.place);
            }
        }
        if self.commit.failed() {
            return Err(BlockError::Poisoned);
        }
        let mut packs = self.lock();
        let mut dirty = BTreeMap::new();
        let mut result = Ok(());
        for (id, upload) in ids.iter().zip(uploads) {
            let known = self.entry(id);
            result = match known.filter(|entry| spoiled.get(id) != Some(&entry.place)) {
                Some(entry) => self.promise(&packs, id, entry, expires, &mut dirty),
                None => self.write(&mut packs, id, upload, expires, &mut dirty),
            };
            if result.is_err() {
                break;
            }
        }
        let ticket = self.commit.written(dirty);
        drop(packs);
        result?;
        self.commit.wait(ticket)?;
        Ok(ids)
    }

    /// The content of a block, checked against its identifier; `None` if it is not stored.
    ///
    /// # Errors
    /// [`BlockError::Damaged`] or a disk error.
    pub fn get(&self, id: &Hash) -> Result<Option<(BlockDescriptor, Vec<u8>)>, BlockError> {
        let Some((mut entry, mut handle)) = self.locate(id) else { return Ok(None) };
        loop {
            let mut bytes = vec![0; BLOCK_HEADER_BYTES + entry.length as usize];
            let read = handle.file.read_exact_at(&mut bytes, entry.place.offset());
            let content = bytes.split_off(BLOCK_HEADER_BYTES);
            if let (Ok(()), Some(fixed)) = (&read, self.checker.decode(entry.place, &bytes))
                && check(&fixed.descriptor, &content).is_ok_and(|found| found == *id)
            {
                return Ok(Some((fixed.descriptor, content)));
            }
            // It may have been deleted, or replaced, while it was being read. Replacing goes to ever
            // higher places, so this ends.
            match self.locate(id) {
                None => return Ok(None),
                Some((now, file)) if now.place > entry.place => (entry, handle) = (now, file),
                Some(_) => {
                    let offset = entry.place.offset();
                    return Err(BlockError::Damaged { id: *id, path: handle.path, offset });
                }
            }
        }
    }

    /// Whether a block is stored. Its content is not checked. Never waits for the disk.
    #[must_use]
    pub fn contains(&self, id: &Hash) -> bool {
        self.entry(id).is_some()
    }

    /// Until when a block is promised; `None` if it is not stored.
    #[must_use]
    pub fn promised_until(&self, id: &Hash) -> Option<BatchTime> {
        self.entry(id).map(|entry| entry.expires)
    }

    /// At most [`IDS_PER_CALL_MAX`] identifiers above `after`, ascending.
    #[must_use]
    pub fn ids(&self, after: Option<&Hash>) -> Vec<Hash> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |id| Excluded(*id));
        self.known().blocks.range((from, Unbounded)).map(|(id, _)| *id).take(IDS_PER_CALL_MAX).collect()
    }

    /// How much is stored. Never waits for the disk.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.known().usage
    }

    /// Deletes those of the blocks whose promise has expired at `now`. The caller has made sure that no
    /// state refers to them. Unknown blocks are passed over.
    ///
    /// # Errors
    /// A disk error, final if it came from a sync. A deletion that fails, or that a crash undoes, leaves
    /// the block stored.
    pub fn delete(&self, ids: &[Hash], now: BatchTime) -> Result<Deletion, BlockError> {
        let mut deletion = Deletion::default();
        let mut gone = Vec::new();
        let mut dirty = BTreeMap::new();
        let mut packs = self.lock();
        for id in ids {
            match self.entry(id) {
                Some(entry) if entry.expires >= now => deletion.promised += 1,
                Some(entry) => {
                    let (handle, pages) = self.forget(&mut packs, id, entry)?;
                    dirty.insert(entry.place.pack, (handle.clone(), pages));
                    gone.push((entry, handle));
                    deletion.deleted += 1;
                }
                None => {}
            }
        }
        let ticket = self.commit.written(dirty);
        drop(packs);
        // Only a block that is durably dead may lose its content: otherwise it could come back empty.
        self.commit.wait(ticket)?;
        for (entry, handle) in &gone {
            release(entry.place, entry.length, handle);
        }
        self.remove_empty_packs()?;
        Ok(deletion)
    }

    /// Removes a block from what is known and writes that it is dead.
    fn forget(&self, packs: &mut Packs, id: &Hash, entry: Entry) -> Result<(PackFile, u32), BlockError> {
        let Some(pack) = packs.packs.get_mut(&entry.place.pack) else {
            return Err(BlockError::Poisoned);
        };
        self.checker.write_dead(&pack.handle.file, entry.place).at("write", &pack.handle.path)?;
        pack.live = pack.live.saturating_sub(1);
        pack.dead = pack.dead.saturating_add(1);
        let written = pack.written();
        let mut known = self.known_mut();
        known.blocks.remove(id);
        known.usage.blocks = known.usage.blocks.saturating_sub(1);
        known.usage.content_bytes = known.usage.content_bytes.saturating_sub(u64::from(entry.length));
        // Its first page stays until the pack goes.
        let freed = u64::from(pages(entry.length).saturating_sub(1)) * PAGE_BYTES;
        known.usage.disk_bytes = known.usage.disk_bytes.saturating_sub(freed);
        Ok(written)
    }

    fn remove_empty_packs(&self) -> Result<(), BlockError> {
        let mut packs = self.lock();
        let active = packs.active;
        let empty: Vec<u32> = packs
            .packs
            .iter()
            .filter(|(number, pack)| pack.live == 0 && Some(**number) != active)
            .map(|(number, _)| *number)
            .collect();
        for number in &empty {
            if let Some(pack) = packs.packs.remove(number) {
                fs::remove_file(&pack.handle.path).at("remove", &pack.handle.path)?;
                let held = u64::from(pack.dead.saturating_add(1)) * PAGE_BYTES;
                let mut known = self.known_mut();
                known.usage.disk_bytes = known.usage.disk_bytes.saturating_sub(held);
            }
        }
        if !empty.is_empty() {
            sync_directory(&self.directory)?;
        }
        Ok(())
    }

    fn promise(
        &self,
        packs: &Packs,
        id: &Hash,
        entry: Entry,
        expires: BatchTime,
        dirty: &mut Dirty,
    ) -> Result<(), BlockError> {
        let Some(pack) = packs.packs.get(&entry.place.pack) else {
            return Err(BlockError::Poisoned);
        };
        // Even if nothing is written the block may be waiting for another thread's sync.
        dirty.insert(entry.place.pack, pack.written());
        if expires <= entry.expires {
            return Ok(());
        }
        let written = self.checker.write_promise(&pack.handle.file, entry.place, entry.slot, expires);
        written.at("write", &pack.handle.path)?;
        self.known_mut().blocks.insert(*id, Entry { expires, slot: 1 - entry.slot, ..entry });
        Ok(())
    }

    fn write(
        &self,
        packs: &mut Packs,
        id: &Hash,
        upload: &Upload<'_>,
        expires: BatchTime,
        dirty: &mut Dirty,
    ) -> Result<(), BlockError> {
        let length = upload.descriptor.length;
        let needed = disk_bytes(length);
        let used = self.usage().disk_bytes;
        if needed > self.options.bytes_max.saturating_sub(used) {
            return Err(BlockError::LimitReached { used, limit: self.options.bytes_max, needed });
        }
        let (free, reserve) = (free_bytes(&self.directory)?, self.options.reserve_bytes);
        if needed > free.saturating_sub(reserve) {
            return Err(BlockError::ReserveReached { free, reserve });
        }
        if let Some(entry) = self.entry(id) {
            let written = self.forget(packs, id, entry)?;
            dirty.insert(entry.place.pack, written);
        }
        let number = self.pack_for(packs, pages(length))?;
        let Some(pack) = packs.packs.get_mut(&number) else { return Err(BlockError::Poisoned) };
        let place = Place { pack: number, page: pack.pages };
        let synced = self.commit.synced_pages(number);
        let mut bytes = self.checker.encode(place, upload.descriptor, synced, expires);
        bytes.extend_from_slice(upload.content);
        bytes.resize(usize::try_from(needed).unwrap_or(usize::MAX), 0);
        let handle = pack.handle.clone();
        if let Err(error) = handle.file.write_all_at(&bytes, place.offset()) {
            // What was written of it is cut off, so that the pack ends with a whole block.
            let cut = handle.file.set_len(place.offset());
            if let Err(cut) = cut {
                tracing::warn!(error = %cut, path = %handle.path.display(), "cannot cut a pack");
            }
            return Err(full_or_failed(FileError::new("write", &handle.path, error)));
        }
        pack.pages += pages(length);
        pack.live += 1;
        dirty.insert(number, pack.written());
        let mut known = self.known_mut();
        known.blocks.insert(*id, Entry { place, length, expires, slot: 1 });
        known.usage.blocks += 1;
        known.usage.content_bytes += u64::from(length);
        known.usage.disk_bytes += needed;
        Ok(())
    }

    /// The pack that the next block goes to, with its number; a new one if the present one is full.
    fn pack_for(&self, packs: &mut Packs, needed: u32) -> Result<u32, BlockError> {
        let bytes_max = self.options.pack_bytes.clamp(PAGE_BYTES, PACK_BYTES_TARGET);
        if let Some((number, pack)) =
            packs.active.and_then(|number| Some((number, packs.packs.get(&number)?)))
        {
            if pack.pages == 1 || u64::from(pack.pages.saturating_add(needed)) * PAGE_BYTES <= bytes_max {
                return Ok(number);
            }
            // Recovery examines the last pack only, so the others must be whole.
            self.commit.finish(&pack.handle)?;
        }
        let number = packs.packs.last_key_value().map_or(0, |(number, _)| number.saturating_add(1));
        let path = pack::path(&self.directory, number);
        let made = create_pack(&self.directory, &path, &self.checker.pack_header(number));
        let file = made.map_err(full_or_failed)?;
        let handle = PackFile { file: Arc::new(file), path };
        packs.packs.insert(number, Pack { handle, pages: 1, live: 0, dead: 0 });
        packs.active = Some(number);
        self.known_mut().usage.disk_bytes += PAGE_BYTES;
        Ok(number)
    }

    fn entry(&self, id: &Hash) -> Option<Entry> {
        self.known().blocks.get(id).copied()
    }

    fn locate(&self, id: &Hash) -> Option<(Entry, PackFile)> {
        let packs = self.lock();
        let entry = self.entry(id)?;
        let pack = packs.packs.get(&entry.place.pack)?;
        Some((entry, pack.handle.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Packs> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only for who holds the lock of the packs.
    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The identifier of a block whose content is what its descriptor names, and which this store keeps.
fn check(descriptor: &BlockDescriptor, content: &[u8]) -> Result<Hash, BlockError> {
    let id = descriptor.id();
    let BlockDescriptor { coding: Coding::Copies, transform: _, k, n, length, content_root, shard_root } =
        descriptor;
    let whole = *k == 1 && *n == 1 && *shard_root == Hash::ZERO && content.len() <= BLOCK_BYTES_MAX;
    let same = content.len() == *length as usize && *blake3::hash(content).as_bytes() == content_root.0;
    if whole && same { Ok(id) } else { Err(BlockError::Mismatch(id)) }
}

/// Bytes of disk that a block with so much content takes.
#[must_use]
pub fn disk_bytes(length: u32) -> u64 {
    u64::from(pages(length)) * PAGE_BYTES
}

/// Bytes that the file system of a directory would give to this process.
fn free_bytes(directory: &Path) -> Result<u64, FileError> {
    let found = nix::sys::statvfs::statvfs(directory).map_err(std::io::Error::from);
    let found = found.at("examine the file system of", directory)?;
    Ok(found.blocks_available().saturating_mul(found.fragment_size()))
}

fn full_or_failed(error: FileError) -> BlockError {
    if error.is_no_space() { BlockError::DiskFull(error) } else { BlockError::File(error) }
}

/// Makes a pack with its header page, and its name durable.
fn create_pack(directory: &Path, path: &Path, header: &[u8]) -> Result<File, FileError> {
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open(path).at("create", path)?;
    let written = file.write_all_at(header, 0).and_then(|()| file.sync_all()).at("write", path);
    if let Err(error) = written {
        // A pack without its header must not stay; if it cannot be removed either, opening does it.
        if let Err(removal) = fs::remove_file(path) {
            tracing::warn!(error = %removal, path = %path.display(), "cannot remove a pack");
        }
        return Err(error);
    }
    sync_directory(directory)?;
    Ok(file)
}

/// Gives the pages of a dead block back, except the first, which says that it is dead.
fn release(place: Place, length: u32, handle: &PackFile) {
    let bytes = u64::from(pages(length).saturating_sub(1)) * PAGE_BYTES;
    if bytes == 0 {
        return;
    }
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let from = i64::try_from(place.offset() + PAGE_BYTES);
    let (Ok(from), Ok(bytes)) = (from, i64::try_from(bytes)) else { return };
    if let Err(error) = fallocate(&*handle.file, flags, from, bytes) {
        // The space then comes back with the whole pack.
        tracing::debug!(%error, path = %handle.path.display(), "cannot punch a hole into a pack");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{Directory, Identity};

    #[test]
    fn who_asks_what_is_stored_does_not_wait_for_the_disk() {
        let place = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: Hash([1; 32]), replica: 0 };
        let directory = Directory::create(place.path(), identity).unwrap();
        let (blocks, _) = Blocks::open(&directory, BlockOptions::default()).unwrap();
        // As an upload does while it writes, and while it syncs a pack that is full.
        let writing = blocks.lock();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| (blocks.contains(&Hash([7; 32])), blocks.usage()));
            let began = std::time::Instant::now();
            while !asked.is_finished() && began.elapsed() < std::time::Duration::from_secs(10) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            let answered = asked.is_finished();
            drop(writing);
            assert!(answered && !asked.join().unwrap().0);
        });
    }
}
