//! Group commit: many uploads, one sync.
//!
//! Invariant: a ticket counts as synced only when every write made before it was given has been synced,
//! and after one failed sync no ticket ever does (hazard PR7).

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::BlockError;
use crate::error::{At, FileError};

/// A pack's file and its path.
#[derive(Clone)]
pub(crate) struct PackFile {
    pub file: Arc<File>,
    pub path: PathBuf,
}

/// What is written and what is synced.
pub(crate) struct Commit {
    queue: Mutex<Queue>,
    done: Condvar,
}

#[derive(Default)]
struct Queue {
    written: u64,
    synced: u64,
    syncing: bool,
    failed: bool,
    dirty: Dirty,
    // The highest pack that was synced, and how many of its pages had been written by then.
    tail: (u32, u32),
}

/// The packs that were written since their last sync, and how many pages each had then.
pub(crate) type Dirty = BTreeMap<u32, (PackFile, u32)>;

impl Commit {
    /// Starts with everything synced up to `tail`: a pack and its pages.
    pub(crate) fn new(tail: (u32, u32)) -> Self {
        Self { queue: Mutex::new(Queue { tail, ..Queue::default() }), done: Condvar::new() }
    }

    /// Notes that these packs were written, and gives the ticket to wait for. Called under the
    /// lock of the packs, so that the numbers of pages never go back.
    pub(crate) fn written(&self, packs: Dirty) -> u64 {
        let mut queue = self.lock();
        queue.dirty.extend(packs);
        queue.written += 1;
        queue.written
    }

    /// Waits until everything written before `ticket` is synced; whoever comes first syncs for all.
    pub(crate) fn wait(&self, ticket: u64) -> Result<(), BlockError> {
        let mut queue = self.lock();
        loop {
            if queue.failed {
                return Err(BlockError::Poisoned);
            }
            if queue.synced >= ticket {
                return Ok(());
            }
            if queue.syncing {
                queue = self.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.syncing = true;
            let upto = queue.written;
            let dirty = std::mem::take(&mut queue.dirty);
            drop(queue);
            let result = sync(&dirty);
            queue = self.lock();
            queue.syncing = false;
            match &result {
                Ok(()) => {
                    queue.synced = upto;
                    let last = dirty.last_key_value().map(|(pack, (_, pages))| (*pack, *pages));
                    queue.tail = last.map_or(queue.tail, |last| last.max(queue.tail));
                }
                Err(_) => queue.failed = true,
            }
            self.done.notify_all();
            result?;
        }
    }

    /// How many pages of a pack are known to be synced, its header at least.
    pub(crate) fn synced_pages(&self, pack: u32) -> u32 {
        let (synced, pages) = self.lock().tail;
        if synced == pack { pages } else { 1 }
    }

    /// Syncs a file that is left behind, and fails for good if that fails.
    pub(crate) fn finish(&self, pack: &PackFile) -> Result<(), BlockError> {
        let result = pack.file.sync_data().at("sync", &pack.path);
        if result.is_err() {
            self.lock().failed = true;
        }
        Ok(result?)
    }

    /// Whether a sync failed.
    pub(crate) fn failed(&self) -> bool {
        self.lock().failed
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sync(dirty: &Dirty) -> Result<(), FileError> {
    for (pack, _) in dirty.values() {
        pack.file.sync_data().at("sync", &pack.path)?;
    }
    Ok(())
}
