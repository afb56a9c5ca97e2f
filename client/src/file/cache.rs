//! Blocks in memory, by identifier.
//!
//! Invariant: the bytes kept never exceed the capacity, and they match their identifiers; a block that
//! several readers want at once is fetched once. Whoever asks by identifier has it from a certified row
//! that he may read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_crypto::Hash;
use quorate_protocol::{Credential, Ino, SessionId};

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
        (ino, index, id): (Ino, u64, Hash),
        session: Option<SessionId>,
    ) -> Result<Arc<[u8]>, ClientError> {
        let lock = {
            let mut kept = self.kept();
            if let Some(block) = kept.find(&id) {
                return Ok(block);
            }
            Arc::clone(kept.loading.entry(id).or_default())
        };
        let guard = lock.lock().await;
        let found = self.kept().find(&id);
        let fetched = match found {
            Some(block) => Ok(block),
            None => crate::blocks::get_block(core, credential, (ino, index, id), session).await,
        };
        drop(guard);
        let mut kept = self.kept();
        // Nobody else holds the lock: the map and this call do.
        if Arc::strong_count(&lock) <= 2 {
            kept.loading.remove(&id);
        }
        if let Ok(block) = &fetched {
            kept.keep(id, block, self.capacity);
        }
        fetched
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

    #[test]
    fn what_is_larger_than_the_cache_is_not_kept() {
        let mut kept = Kept::default();
        let (id, bytes) = block(1);
        kept.keep(id, &bytes, 9);
        assert_eq!((kept.bytes, kept.blocks.len()), (0, 0));
    }
}
