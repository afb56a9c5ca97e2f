//! Block content: stored for clients, given to readers, fetched from peers, collected.
//!
//! Invariant: a receipt leaves only when its blocks and its promise are synced; a block is deleted only when
//! the committed state has no row of it, no height that can be read refers to it, and every receipt that this
//! replica signed for it has expired (rule S5); one that the state refers to and that is lacking or damaged here is fetched from a peer, however often
//! it takes. What a principal uploads and refers to by nothing is bounded. Reading and storing go on in threads
//! of their own, which serve all who ask in turn.

mod lacking;
mod outstanding;

use self::lacking::Lacking;
pub use self::lacking::UNDER_WAY_MAX;
use self::outstanding::{Amount, Outstanding};
use crate::clients::refused;
use crate::jobs::{Asker, Jobs};
use quorate_crypto::{Ed25519Signer, Hash, PublicKey, Signer as _};
use quorate_execution::{Executed, State};
use quorate_merkle::ReceiptsTree;
use quorate_metadata::rows::{Block, Row as _};
use quorate_protocol::blocks::{BlockDescriptor, BlockReceipt, BlockReceiptBody, receipt_leaf};
use quorate_protocol::client::{ClientReply, Refusal};
use quorate_protocol::{BatchTime, Epoch, Height, PeerMessage, ReplicaIndex, SessionId};
use quorate_store::blocks::{BlockError, BlockOptions, Blocks, Upload, Usage};
use quorate_store::directory::Directory;
use quorate_store::state::State as Database;
use quorate_transport::{ConnectionId, PeerNetwork, ReplyHandle};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Threads that store and read blocks: one may sync while another reads.
const THREADS: usize = 2;
/// What the threads have to report and the loop has not taken; then they wait.
const REPORTS_MAX: usize = 4096;
/// How often unreferenced blocks are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest and longest promise, in nanoseconds of batch time.
const PROMISE_MIN: u64 = 30_000_000_000;
const PROMISE_MAX: u64 = 600_000_000_000;
/// A promise lasts this many times the grace period, within the bounds above.
const PROMISE_PER_GRACE: u64 = 5;
/// First byte of the keys of block rows (rule S1).
const BLOCK_TABLE: u8 = 0xFE;
/// Least time between two lines about a disk without room.
const NO_SPACE_LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Blocks that a client wants stored.
pub struct StoreRequest {
    /// Whose bytes they are until something refers to them.
    pub principal: PublicKey,
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
    Put(StoreRequest, Amount, ReplyHandle),
    Get(Hash, ReplyHandle),
    Serve(ReplicaIndex, Hash),
    Keep(Fetched),
    Sweep(State),
}

/// A block that a peer sent.
struct Fetched {
    from: ReplicaIndex,
    descriptor: BlockDescriptor,
    content: Vec<u8>,
    /// Until when it is kept although no sweep has seen what refers to it.
    expires: BatchTime,
}

/// What the threads found out about a block.
enum Report {
    /// An upload is over, and these of its blocks are stored, with the promise.
    Uploaded { principal: PublicKey, reserved: Amount, stored: Vec<(Hash, Amount)> },
    /// One that was fetched is stored.
    Kept(Hash),
    /// What a peer sent is not the block.
    Refused(Hash),
    /// It cannot be stored.
    Failed(Hash),
    /// No longer stored: the sweep's state had no row of it. A newer one may.
    Swept(Hash),
    /// What is stored is no longer the block.
    Damaged(Hash),
}

/// What the threads share.
struct Works {
    reports: SyncSender<Report>,
    blocks: Blocks,
    signer: Ed25519Signer,
    cluster: Hash,
    me: ReplicaIndex,
    peers: PeerNetwork,
    grace: u64,
    /// What earlier heights refer to.
    database: Arc<Database>,
    /// Blocks that no row names any more, and the highest height that refers to each: looked up once, and again
    /// when the horizon has passed it. No more than there are blocks.
    retained: Mutex<BTreeMap<Hash, Height>>,
    /// Until when no further line is written about a disk without room.
    quiet_until: Mutex<Option<Instant>>,
}

/// The block store with its threads.
pub struct BlockKeeper {
    jobs: Arc<Jobs<Job>>,
    works: Arc<Works>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// Taken away before the threads end, so that none of them waits for room in it.
    reports: Option<Receiver<Report>>,
    lacking: Lacking,
    outstanding: Outstanding,
    /// Batch time of the committed state.
    now: BatchTime,
    swept: Instant,
    /// A state whose sweep waits for the database to be as far.
    sweep: Option<State>,
}

impl BlockKeeper {
    /// Opens the store, looks for blocks that the state refers to and that are lacking, starts the threads.
    ///
    /// # Errors
    /// A disk error, or the system's when it has no thread to give.
    pub fn start(
        directory: &Directory,
        (state, database): (&State, Arc<Database>),
        peers: PeerNetwork,
        (me, replicas): (ReplicaIndex, usize),
        signer: Ed25519Signer,
        options: BlockOptions,
    ) -> Result<Self, crate::ReplicaError> {
        let (blocks, report) = Blocks::open(directory, options)?;
        tracing::debug!(?report, "block store is open");
        let grace = state.parameters().block_grace;
        let (sender, reports) = sync_channel(REPORTS_MAX);
        let cluster = state.cluster();
        let works = Arc::new(Works {
            reports: sender,
            blocks,
            signer,
            cluster,
            me,
            peers,
            grace,
            database,
            retained: Mutex::default(),
            quiet_until: Mutex::default(),
        });
        let jobs = Arc::new(Jobs::new());
        let threads = (0..THREADS)
            .map(|_| {
                let (works, jobs) = (Arc::clone(&works), Arc::clone(&jobs));
                std::thread::Builder::new().name("blocks".to_owned()).spawn(move || work(&works, &jobs))
            })
            .collect::<Result<_, _>>()
            .map_err(|source| crate::ReplicaError::Io { what: "no thread", source })?;
        let mut keeper = Self {
            jobs,
            works,
            threads,
            reports: Some(reports),
            lacking: Lacking::new(me, replicas),
            outstanding: Outstanding::default(),
            now: state.header().time,
            swept: Instant::now(),
            sweep: None,
        };
        let rows = state.rows().filter(|(key, _)| key.first() == Some(&BLOCK_TABLE));
        rows.filter_map(|(_, value)| Block::from_value(&value).ok()).for_each(|row| keeper.need(&row));
        Ok(keeper)
    }

    /// Stores blocks for a client and answers with a receipt.
    pub fn put(&mut self, connection: ConnectionId, request: StoreRequest, reply: ReplyHandle) {
        let (principal, amount) = (request.principal, Amount::of(request.contents.iter().map(Vec::len)));
        if !self.outstanding.reserve(&principal, amount) {
            let text = "too many bytes of this principal are stored without a reference";
            return reply.send(&refused(Refusal::Busy, text));
        }
        if let Err(job) = self.jobs.push(Asker::Client(connection), Job::Put(request, amount, reply)) {
            self.outstanding.settle(&principal, amount, []);
            job.refuse();
        }
    }

    /// What gives blocks to clients, for other threads.
    pub fn getter(&self) -> BlockGetter {
        BlockGetter(Arc::clone(&self.jobs))
    }

    /// Gives a block to a client that may have it.
    pub fn get(&self, connection: ConnectionId, id: Hash, reply: ReplyHandle) {
        self.getter().get(connection, id, reply);
    }

    /// Gives a block to a peer, which holds the state that refers to it.
    pub fn serve(&self, peer: ReplicaIndex, id: Hash) {
        // A peer that gets nothing asks the next one.
        let _ = self.jobs.push(Asker::Peer(peer), Job::Serve(peer, id));
    }

    /// A block from a peer: kept if it is one that was asked for, which is what comes back.
    pub fn arrived(&mut self, from: ReplicaIndex, descriptor: BlockDescriptor, content: Vec<u8>) -> bool {
        let wanted = self.lacking.arrived(&descriptor.id(), Instant::now());
        if wanted {
            // A sweep of an older state that has no row of it may be waiting behind this.
            let expires = self.now.plus(PROMISE_MIN);
            // When the threads are too busy, it is asked for again.
            let fetched = Fetched { from, descriptor, content, expires };
            let _ = self.jobs.push(Asker::Own, Job::Keep(fetched));
        }
        wanted
    }

    /// Notes what a committed batch refers to and this replica lacks; asks peers; sweeps now and then.
    pub fn committed(&mut self, executed: &Executed) {
        self.now = executed.state.header().time;
        for (key, value) in &executed.changes {
            if key.first() == Some(&BLOCK_TABLE)
                && let Some(value) = value
                && let Ok(row) = Block::from_value(value)
            {
                self.outstanding.done(&row.id);
                self.need(&row);
            }
        }
        self.look_after(&executed.state);
        // One that still waits for the database is not replaced: while that lags, none would ever be done.
        if self.sweep.is_none() && self.swept.elapsed() > SWEEP_INTERVAL {
            self.swept = Instant::now();
            self.sweep = Some(executed.state.clone());
        }
    }

    /// Takes what the threads report and asks peers for what is lacking. Called now and then, also when
    /// nothing is committed.
    pub fn look_after(&mut self, state: &State) {
        let now = Instant::now();
        for _ in 0..REPORTS_MAX {
            let report = self.reports.as_ref().and_then(|reports| reports.try_recv().ok());
            let Some(report) = report else { break };
            match report {
                Report::Uploaded { principal, reserved, stored } => {
                    let unreferenced = stored.into_iter().filter(|(id, _)| row_of(state, id).is_none());
                    self.outstanding.settle(&principal, reserved, unreferenced);
                }
                Report::Kept(id) => self.lacking.kept(&id),
                Report::Refused(id) => self.lacking.refused(&id, now),
                Report::Failed(id) => self.lacking.failed(&id, now),
                Report::Swept(id) => {
                    self.outstanding.done(&id);
                    if refers_to(state, &id) {
                        self.lacking.need(id, false, now);
                    }
                }
                Report::Damaged(id) if refers_to(state, &id) => self.lacking.need(id, true, now),
                Report::Damaged(_) => {}
            }
        }
        // Not before: what the last heights refer to would be unknown to it.
        let applied = self.works.database.applied_height();
        if let Some(state) = self.sweep.take_if(|state| Some(state.height()) <= applied) {
            // When there is no place, the next one does its work.
            let _ = self.jobs.push(Asker::Own, Job::Sweep(state));
        }
        let blocks = &self.works.blocks;
        for (peer, id) in self.lacking.ask(now, |id| blocks.contains(id)) {
            self.works.peers.send(peer, &PeerMessage::FetchBlock { id });
        }
    }

    /// Notes a block of a row if it is lacking.
    fn need(&mut self, row: &Block) {
        if row.count > 0 && !self.works.blocks.contains(&row.id) {
            self.lacking.need(row.id, false, Instant::now());
        }
    }

    /// How much is stored.
    pub fn usage(&self) -> Usage {
        self.works.blocks.usage()
    }
}

impl Drop for BlockKeeper {
    fn drop(&mut self) {
        self.jobs.close();
        self.reports = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Gives blocks to clients that may have them.
#[derive(Clone)]
pub struct BlockGetter(Arc<Jobs<Job>>);

impl BlockGetter {
    /// One whose questions nobody answers.
    #[cfg(test)]
    pub fn idle() -> Self {
        Self(Arc::new(Jobs::new()))
    }

    /// Gives a block.
    pub fn get(&self, connection: ConnectionId, id: Hash, reply: ReplyHandle) {
        if let Err(job) = self.0.push(Asker::Client(connection), Job::Get(id, reply)) {
            job.refuse();
        }
    }
}

impl Job {
    /// Tells a client that its job finds no place.
    fn refuse(self) {
        if let Self::Put(_, _, reply) | Self::Get(_, reply) = self {
            reply.send(&refused(Refusal::Busy, "too many block requests wait"));
        }
    }
}

fn work(works: &Works, jobs: &Jobs<Job>) {
    while let Some(job) = jobs.take() {
        match job {
            Job::Put(request, reserved, reply) => {
                let (answer, stored) = works.put(&request);
                reply.send(&answer);
                works.report(Report::Uploaded { principal: request.principal, reserved, stored });
            }
            Job::Get(id, reply) => reply.send(&works.get(&id)),
            Job::Serve(peer, id) => works.serve(peer, &id),
            Job::Keep(fetched) => works.keep(&fetched),
            Job::Sweep(state) => works.sweep(&state),
        }
    }
}

impl Works {
    /// The reply, and what is stored because of it.
    fn put(&self, request: &StoreRequest) -> (ClientReply, Vec<(Hash, Amount)>) {
        let promise = self.grace.saturating_mul(PROMISE_PER_GRACE).clamp(PROMISE_MIN, PROMISE_MAX);
        let expires = request.batch_time.plus(promise);
        let descriptors: Vec<BlockDescriptor> =
            request.contents.iter().map(|content| BlockDescriptor::copies(content)).collect();
        let uploads: Vec<Upload<'_>> = descriptors
            .iter()
            .zip(&request.contents)
            .map(|(descriptor, content)| Upload { descriptor, content })
            .collect();
        let result = self.blocks.put(&uploads, expires);
        // Also of an upload that failed in the middle: what is there takes its place until it is swept.
        let stored = descriptors.iter().zip(&request.contents);
        let stored = stored.map(|(descriptor, content)| (descriptor.id(), Amount::of([content.len()])));
        let stored = stored.filter(|(id, _)| self.blocks.contains(id)).collect();
        let reply = match result {
            Ok(ids) => self.receipt(request, descriptors, &ids, expires),
            Err(error) => self.storage_refusal(&error),
        };
        (reply, stored)
    }

    fn receipt(
        &self,
        request: &StoreRequest,
        descriptors: Vec<BlockDescriptor>,
        ids: &[Hash],
        expires: BatchTime,
    ) -> ClientReply {
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
                self.cannot_read(id, &error);
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
            Err(error) => self.cannot_read(id, &error),
        }
    }

    fn cannot_read(&self, id: &Hash, error: &BlockError) {
        tracing::error!(%id, %error, "a block cannot be read");
        if matches!(error, BlockError::Damaged { .. }) {
            self.report(Report::Damaged(*id));
        }
    }

    /// A refusal that says what is wrong with the disk.
    fn storage_refusal(&self, error: &BlockError) -> ClientReply {
        give_up_on_sync_failure(error);
        if error.is_no_space() {
            self.say_no_space(error);
        } else {
            tracing::error!(%error, "the block store failed");
        }
        refused(Refusal::Storage, &error.to_string())
    }

    /// A line now and then, however many uploads are refused.
    fn say_no_space(&self, error: &BlockError) {
        let now = Instant::now();
        let mut quiet_until = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet_until.is_none_or(|until| until <= now) {
            *quiet_until = Some(now + NO_SPACE_LINE_INTERVAL);
            tracing::error!(%error, "uploads are refused until the disk has room again");
        }
    }

    fn report(&self, report: Report) {
        // Fails only at the end, when nobody wants to know any more.
        let _ = self.reports.send(report);
    }

    fn keep(&self, fetched: &Fetched) {
        let Fetched { from, descriptor, content, expires } = fetched;
        let id = descriptor.id();
        self.report(match self.blocks.put(&[Upload { descriptor, content }], *expires) {
            Ok(_) => Report::Kept(id),
            Err(BlockError::Mismatch(_)) => {
                tracing::warn!(from, %id, "a peer sent another block than it said");
                Report::Refused(id)
            }
            Err(error) => {
                give_up_on_sync_failure(&error);
                if error.is_no_space() {
                    self.say_no_space(&error);
                } else {
                    tracing::error!(%id, %error, "a block that was fetched cannot be stored");
                }
                Report::Failed(id)
            }
        });
    }

    /// Whether a height that can be read refers to a block. If that cannot be told, it may.
    fn is_retained(&self, id: &Hash) -> bool {
        let mut retained = self.retained.lock().unwrap_or_else(PoisonError::into_inner);
        let horizon = self.database.horizon();
        if retained.get(id).is_some_and(|last| *last >= horizon) {
            return true;
        }
        let refers = |value: &[u8]| Block::from_value(value).is_ok_and(|row| row.id == *id && row.count > 0);
        match self.database.last_with(&quorate_metadata::keys::block(id), refers) {
            Ok(Some(last)) => {
                retained.insert(*id, last);
                true
            }
            Ok(None) => {
                retained.remove(id);
                false
            }
            Err(error) => {
                tracing::warn!(%id, %error, "whether a past height refers to a block cannot be told");
                true
            }
        }
    }

    /// Deletes blocks that no row names, no height that can be read refers to, and no receipt protects. The database
    /// is at least as far as the state.
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
                    let named = state.row(&quorate_metadata::keys::block(id)).is_some();
                    !promised && !named && !self.is_retained(id)
                })
                .collect();
            if let Err(error) = self.blocks.delete(&dead, now) {
                give_up_on_sync_failure(&error);
                tracing::warn!(%error, "blocks cannot be deleted");
            }
            dead.into_iter().for_each(|id| self.report(Report::Swept(id)));
            after = Some(last);
        }
    }
}

/// The row of a block.
fn row_of(state: &State, id: &Hash) -> Option<Block> {
    let value = state.row(&quorate_metadata::keys::block(id));
    value.and_then(|value| Block::from_value(&value).ok()).filter(|row| row.id == *id)
}

/// Whether the state needs the block.
fn refers_to(state: &State, id: &Hash) -> bool {
    row_of(state, id).is_some_and(|row| row.count > 0)
}

/// After a failed sync nobody knows what is on the disk (PR7).
fn give_up_on_sync_failure(error: &BlockError) {
    if matches!(error, BlockError::File(_) | BlockError::Poisoned) {
        tracing::error!(%error, "blocks cannot be synced; this replica stops and must be started again when the disk is well");
        std::process::exit(crate::EXIT_DISK);
    }
}

#[cfg(test)]
mod tests;
