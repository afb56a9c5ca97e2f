//! Blocks in memory, by identifier.
//!
//! Invariant: the bytes kept never exceed the capacity, and they match their identifiers; a block that
//! several readers want at once is fetched once. Whoever asks by identifier has it from a certified row
//! that he may read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_crypto::Hash;
use quorate_protocol::Credential;

use crate::blocks::WantedBlock;
use crate::core::Core;
use crate::error::ClientError;

/// The cache of one client.
pub(crate) struct BlockCache {
    capacity: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    blocks: HashMap<Hash, (u64, Arc<[u8]>)>,
    /// Identifiers by time of last use.
    uses: BTreeMap<u64, Hash>,
    clock: u64,
    bytes: usize,
    /// Locks of the blocks that are being fetched.
    loading: HashMap<Hash, Arc<tokio::sync::Mutex<()>>>,
}

impl BlockCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, kept: Mutex::default() }
    }

    /// From memory, or from a replica.
    pub(crate) async fn get(
        &self,
        core: &Core,
        credential: &Credential,
        wanted: WantedBlock,
    ) -> Result<Arc<[u8]>, ClientError> {
        let id = wanted.id;
        let loading = {
            let mut kept = self.kept();
            if let Some(block) = kept.find(&id) {
                return Ok(block);
            }
            self.load(&mut kept, id)
        };
        let _one = loading.lock.lock().await;
        let found = self.kept().find(&id);
        if let Some(block) = found {
            return Ok(block);
        }
        let block = crate::blocks::get_block(core, credential, wanted).await?;
        self.kept().keep(id, &block, self.capacity);
        Ok(block)
    }

    /// Takes part in fetching a block.
    fn load(&self, kept: &mut Kept, id: Hash) -> Loading<'_> {
        Loading { cache: self, id, lock: Arc::clone(kept.loading.entry(id).or_default()) }
    }

    /// Keeps what was just written.
    pub(crate) fn put(&self, id: Hash, block: &[u8]) {
        if block.len() <= self.capacity {
            self.kept().keep(id, &Arc::from(block), self.capacity);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who wants a block that is not in memory; also when he gives up, the last one clears away.
struct Loading<'a> {
    cache: &'a BlockCache,
    id: Hash,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let mut kept = self.cache.kept();
        // Nobody else holds the lock: the map and this one do.
        if Arc::strong_count(&self.lock) <= 2 {
            kept.loading.remove(&self.id);
        }
    }
}

impl Kept {
    fn find(&mut self, id: &Hash) -> Option<Arc<[u8]>> {
        let (used, block) = self.blocks.get_mut(id)?;
        self.uses.remove(used);
        self.clock = self.clock.saturating_add(1);
        *used = self.clock;
        self.uses.insert(self.clock, *id);
        Some(Arc::clone(block))
    }

    fn keep(&mut self, id: Hash, block: &Arc<[u8]>, capacity: usize) {
        if block.len() > capacity || self.blocks.contains_key(&id) {
            return;
        }
        self.clock = self.clock.saturating_add(1);
        self.bytes = self.bytes.saturating_add(block.len());
        self.blocks.insert(id, (self.clock, Arc::clone(block)));
        self.uses.insert(self.clock, id);
        while self.bytes > capacity {
            let Some((_, oldest)) = self.uses.pop_first() else { return };
            if let Some((_, dropped)) = self.blocks.remove(&oldest) {
                self.bytes = self.bytes.saturating_sub(dropped.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(byte: u8) -> (Hash, Arc<[u8]>) {
        (Hash([byte; 32]), vec![byte; 10].into())
    }

    #[test]
    fn the_least_recently_used_block_gives_way() {
        let mut kept = Kept::default();
        for byte in 1..=3 {
            let (id, bytes) = block(byte);
            kept.keep(id, &bytes, 30);
        }
        assert!(kept.find(&Hash([1; 32])).is_some());
        let (id, bytes) = block(4);
        kept.keep(id, &bytes, 30);
        assert!(kept.find(&Hash([2; 32])).is_none(), "the one that was not used longest");
        assert!(kept.find(&Hash([1; 32])).is_some() && kept.find(&Hash([4; 32])).is_some());
        assert_eq!((kept.bytes, kept.blocks.len(), kept.uses.len()), (30, 3, 3));
    }

    #[tokio::test]
    async fn nothing_is_left_of_who_gave_up_waiting() {
        let cache = BlockCache::new(100);
        let id = Hash([1; 32]);
        let join = || cache.load(&mut cache.kept(), id);
        let (first, second) = (join(), join());
        let held = first.lock.lock().await;
        let waiting = async move {
            let _one = second.lock.lock().await;
        };
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), waiting).await.is_err());
        assert_eq!(cache.kept().loading.len(), 1, "the first one still loads");
        drop(held);
        drop(first);
        assert!(cache.kept().loading.is_empty());
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_kept() {
        let mut kept = Kept::default();
        let (id, bytes) = block(1);
        kept.keep(id, &bytes, 9);
        assert_eq!((kept.bytes, kept.blocks.len()), (0, 0));
    }
}
