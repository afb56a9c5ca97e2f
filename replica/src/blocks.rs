//! Block content: stored for clients, given to readers, fetched from peers, collected.
//!
//! Invariant: a receipt leaves only when its blocks and its promise are synced; a block is deleted only when
//! the committed state has no row of it and every receipt that this replica signed for it has expired (rule
//! S5). Reading and storing go on in threads of their own.

use crate::clients::refused;
use quorate_crypto::{Ed25519Signer, Hash, Signer as _};
use quorate_execution::{Executed, State};
use quorate_merkle::ReceiptsTree;
use quorate_metadata::rows::{Block, Row as _};
use quorate_protocol::blocks::{BlockDescriptor, BlockReceipt, BlockReceiptBody, receipt_leaf};
use quorate_protocol::client::{ClientReply, Refusal};
use quorate_protocol::{BatchTime, Epoch, PeerMessage, ReplicaIndex, SessionId};
use quorate_store::blocks::{BlockError, BlockOptions, Blocks, Upload};
use quorate_store::directory::Directory;
use quorate_transport::{PeerNetwork, ReplyHandle};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Threads that store and read blocks: one may sync while another reads.
const THREADS: usize = 2;
/// Requests that may wait for them.
const JOBS_MAX: usize = 256;
/// Blocks that are known to be lacking here; more are found at the next start.
const LACKING_MAX: usize = 65_536;
/// Blocks that are asked for at a time.
const ASKED_MAX: usize = 8;
/// How long a peer may take to send a block before the next one is asked.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How often unreferenced blocks are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest and longest promise, in nanoseconds of batch time.
const PROMISE_MIN: u64 = 30_000_000_000;
const PROMISE_MAX: u64 = 600_000_000_000;
/// A promise lasts this many times the grace period, within the bounds above.
const PROMISE_PER_GRACE: u64 = 5;
/// First byte of the keys of block rows (rule S1).
const BLOCK_TABLE: u8 = 0xFE;

/// Blocks that a client wants stored.
pub struct StoreRequest {
    /// Who may refer to them.
    pub session: SessionId,
    /// Their contents.
    pub contents: Vec<Vec<u8>>,
    /// Batch time of the committed state.
    pub batch_time: BatchTime,
    /// Epoch of the signer.
    pub epoch: Epoch,
}

enum Job {
    Put(StoreRequest, ReplyHandle),
    Get(Hash, ReplyHandle),
    Serve(ReplicaIndex, Hash),
    Keep(Hash, BlockDescriptor, Vec<u8>),
    Sweep(State),
}

/// What the threads share.
struct Works {
    blocks: Blocks,
    signer: Ed25519Signer,
    cluster: Hash,
    me: ReplicaIndex,
    peers: PeerNetwork,
    grace: u64,
}

/// A block that is lacking here.
struct Lacking {
    next: ReplicaIndex,
    asked: Option<Instant>,
}

/// The block store with its threads.
pub struct BlockKeeper {
    jobs: Option<SyncSender<Job>>,
    works: Arc<Works>,
    threads: Vec<std::thread::JoinHandle<()>>,
    lacking: BTreeMap<Hash, Lacking>,
    replicas: ReplicaIndex,
    swept: Instant,
}

impl BlockKeeper {
    /// Opens the store, looks for blocks that the state refers to and that are lacking, starts the threads.
    ///
    /// # Errors
    /// A disk error, or the system's when it has no thread to give.
    pub fn start(
        directory: &Directory,
        state: &State,
        peers: PeerNetwork,
        (me, replicas): (ReplicaIndex, usize),
        signer: Ed25519Signer,
    ) -> Result<Self, crate::ReplicaError> {
        let (blocks, report) = Blocks::open(directory, BlockOptions::default())?;
        tracing::debug!(?report, "block store is open");
        let grace = state.parameters().block_grace;
        let works = Arc::new(Works { blocks, signer, cluster: state.cluster(), me, peers, grace });
        let (jobs, waiting) = sync_channel(JOBS_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let threads = (0..THREADS)
            .map(|_| {
                let (works, waiting) = (Arc::clone(&works), Arc::clone(&waiting));
                std::thread::Builder::new().name("blocks".to_owned()).spawn(move || work(&works, &waiting))
            })
            .collect::<Result<_, _>>()
            .map_err(|source| crate::ReplicaError::Io { what: "no thread", source })?;
        let mut keeper = Self {
            jobs: Some(jobs),
            works,
            threads,
            lacking: BTreeMap::new(),
            replicas: ReplicaIndex::try_from(replicas).unwrap_or(ReplicaIndex::MAX),
            swept: Instant::now(),
        };
        let rows = state.rows().filter(|(key, _)| key.first() == Some(&BLOCK_TABLE));
        rows.for_each(|(_, value)| keeper.need(&value));
        Ok(keeper)
    }

    /// Hands a job to the threads; gives it back when too many wait.
    fn job(&self, job: Job) -> Option<Job> {
        match &self.jobs {
            None => Some(job),
            Some(jobs) => match jobs.try_send(job) {
                Ok(()) => None,
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Some(job),
            },
        }
    }

    /// Stores blocks for a client and answers with a receipt.
    pub fn put(&self, request: StoreRequest, reply: ReplyHandle) {
        if let Some(Job::Put(_, reply)) = self.job(Job::Put(request, reply)) {
            reply.send(&refused(Refusal::Busy, "too many block requests wait"));
        }
    }

    /// Gives a block to a client that may have it.
    pub fn get(&self, id: Hash, reply: ReplyHandle) {
        if let Some(Job::Get(_, reply)) = self.job(Job::Get(id, reply)) {
            reply.send(&refused(Refusal::Busy, "too many block requests wait"));
        }
    }

    /// Gives a block to a peer, which holds the state that refers to it.
    pub fn serve(&self, peer: ReplicaIndex, id: Hash) {
        // A peer that gets nothing asks the next one.
        let _ = self.job(Job::Serve(peer, id));
    }

    /// A block from a peer: kept if it is one that is lacking here.
    pub fn arrived(&mut self, from: ReplicaIndex, descriptor: &BlockDescriptor, content: Vec<u8>) {
        let id = descriptor.id();
        if self.lacking.remove(&id).is_none() {
            return;
        }
        if BlockDescriptor::copies(&content) != *descriptor {
            tracing::warn!(from, %id, "a peer sent another block than it said");
            self.lacking.insert(id, Lacking { next: from.wrapping_add(1), asked: None });
            return;
        }
        // When the threads are too busy the block is still lacking at the next start.
        let _ = self.job(Job::Keep(id, descriptor.clone(), content));
    }

    /// Notes what a committed batch refers to and this replica lacks; asks peers; sweeps now and then.
    pub fn committed(&mut self, executed: &Executed) {
        for (key, value) in &executed.changes {
            if key.first() == Some(&BLOCK_TABLE)
                && let Some(value) = value
            {
                self.need(value);
            }
        }
        self.ask();
        if self.swept.elapsed() > SWEEP_INTERVAL {
            self.swept = Instant::now();
            let _ = self.job(Job::Sweep(executed.state.clone()));
        }
    }

    /// Notes a block of a row if it is lacking.
    fn need(&mut self, value: &[u8]) {
        let Ok(row) = Block::from_value(value) else { return };
        if row.count > 0 && self.lacking.len() < LACKING_MAX && !self.works.blocks.contains(&row.id) {
            let next = self.works.me.wrapping_add(1);
            self.lacking.entry(row.id).or_insert(Lacking { next, asked: None });
        }
    }

    /// Asks peers, one after the other, for blocks that are lacking.
    fn ask(&mut self) {
        let due = |lacking: &Lacking| lacking.asked.is_none_or(|asked| asked.elapsed() > ASK_AGAIN);
        // An upload to this replica may still be under way, or may have overtaken the commit.
        let blocks = &self.works.blocks;
        self.lacking.retain(|id, _| !blocks.contains(id));
        for (id, lacking) in self.lacking.iter_mut().filter(|(_, lacking)| due(lacking)).take(ASKED_MAX) {
            let mut peer = lacking.next.checked_rem(self.replicas).unwrap_or(0);
            if peer == self.works.me {
                peer = peer.wrapping_add(1).checked_rem(self.replicas).unwrap_or(0);
            }
            self.works.peers.send(peer, &PeerMessage::FetchBlock { id: *id });
            lacking.next = peer.wrapping_add(1);
            lacking.asked = Some(Instant::now());
        }
    }

    /// Bytes of block content that are stored.
    pub fn bytes(&self) -> u64 {
        self.works.blocks.usage().content_bytes
    }
}

impl Drop for BlockKeeper {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(works: &Works, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Err(_) => return,
            Ok(Job::Put(request, reply)) => reply.send(&works.put(request)),
            Ok(Job::Get(id, reply)) => reply.send(&works.get(&id)),
            Ok(Job::Serve(peer, id)) => works.serve(peer, &id),
            Ok(Job::Keep(id, descriptor, content)) => works.keep(&id, descriptor, &content),
            Ok(Job::Sweep(state)) => works.sweep(&state),
        }
    }
}

impl Works {
    fn put(&self, request: StoreRequest) -> ClientReply {
        let promise = self.grace.saturating_mul(PROMISE_PER_GRACE).clamp(PROMISE_MIN, PROMISE_MAX);
        let expires = request.batch_time.plus(promise);
        let descriptors: Vec<BlockDescriptor> =
            request.contents.iter().map(|content| BlockDescriptor::copies(content)).collect();
        let uploads: Vec<Upload<'_>> = descriptors
            .iter()
            .zip(&request.contents)
            .map(|(descriptor, content)| Upload { descriptor, content })
            .collect();
        let ids = match self.blocks.put(&uploads, expires) {
            Ok(ids) => ids,
            Err(error) => return storage_refusal(&error),
        };
        let leaves = ids.iter().zip(&descriptors).map(|(id, descriptor)| receipt_leaf(id, descriptor.length));
        let Ok(tree) = ReceiptsTree::from_leaves(leaves) else {
            return refused(Refusal::Invalid, "too many blocks for one receipt");
        };
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let body = BlockReceiptBody { session: request.session, expires, count, root: tree.root() };
        let signature = self.signer.sign(&BlockReceipt::statement(self.cluster, request.epoch, &body));
        let receipt = BlockReceipt { epoch: request.epoch, replica: self.me, body, signature };
        match descriptors.try_into() {
            Ok(descriptors) => ClientReply::Stored { descriptors, receipt },
            Err(_) => refused(Refusal::Invalid, "too many blocks for one receipt"),
        }
    }

    fn get(&self, id: &Hash) -> ClientReply {
        match self.blocks.get(id) {
            Ok(Some((_, content))) => match content.try_into() {
                Ok(content) => ClientReply::Block(content),
                Err(_) => refused(Refusal::Storage, "a stored block is too large"),
            },
            Ok(None) => refused(Refusal::NotFound, "this replica does not have the block yet"),
            Err(error) => {
                tracing::error!(%id, %error, "a block cannot be read");
                refused(Refusal::Storage, &error.to_string())
            }
        }
    }

    fn serve(&self, peer: ReplicaIndex, id: &Hash) {
        match self.blocks.get(id) {
            Ok(Some((descriptor, content))) => {
                if let Ok(content) = content.try_into() {
                    self.peers.send(peer, &PeerMessage::Block { descriptor, content });
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%id, %error, "a block cannot be read"),
        }
    }

    fn keep(&self, id: &Hash, descriptor: BlockDescriptor, content: &[u8]) {
        // No promise: the state refers to it.
        if let Err(error) = self.blocks.put(&[Upload { descriptor: &descriptor, content }], BatchTime(0)) {
            give_up_on_sync_failure(&error);
            tracing::error!(%id, %error, "a block that was fetched cannot be stored");
        }
    }

    /// Deletes blocks that no row names and no receipt protects.
    fn sweep(&self, state: &State) {
        let now = state.header().time;
        let mut after = None;
        loop {
            let ids = self.blocks.ids(after.as_ref());
            let Some(last) = ids.last().copied() else { return };
            let dead: Vec<Hash> = ids
                .into_iter()
                .filter(|id| {
                    let promised = self.blocks.promised_until(id).is_some_and(|until| until >= now);
                    !promised && state.row(&quorate_metadata::keys::block(id)).is_none()
                })
                .collect();
            if let Err(error) = self.blocks.delete(&dead, now) {
                give_up_on_sync_failure(&error);
                tracing::warn!(%error, "blocks cannot be deleted");
            }
            after = Some(last);
        }
    }
}

/// A refusal that says what is wrong with the disk.
fn storage_refusal(error: &BlockError) -> ClientReply {
    give_up_on_sync_failure(error);
    if !error.is_no_space() {
        tracing::error!(%error, "the block store failed");
    }
    refused(Refusal::Storage, &error.to_string())
}

/// After a failed sync nobody knows what is on the disk (PR7).
fn give_up_on_sync_failure(error: &BlockError) {
    if matches!(error, BlockError::File(_) | BlockError::Poisoned) {
        tracing::error!(%error, "blocks cannot be synced; this replica stops and must be started again when the disk is well");
        std::process::exit(crate::EXIT_DISK);
    }
}
