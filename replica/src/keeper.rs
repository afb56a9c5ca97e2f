//! The state database: written by a thread of its own, after the log is durable; read at the start.
//!
//! Invariant: the database is never ahead of the synced log, and what is loaded from it must hash to the
//! state root of its header, or it is rebuilt from the log (rule S10). The same thread removes versions that
//! need not be kept, a little after each save.

use crate::error::ReplicaError;
use crate::executor::Surroundings;
use crate::retention::{Pruner, Retention};
use quorate_consensus::Token;
use quorate_crypto::{Certificate, decode, encode};
use quorate_execution::{Executed, State};
use quorate_merkle::LogFrontier;
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Genesis, Header, Height, ReceiptLeaf};
use quorate_store::directory::Directory;
use quorate_store::log::Archive;
use quorate_store::state::{Commit, State as Database, StateError, StateOptions};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Committed heights that may wait for the database; beyond this the loop waits.
const SAVES_MAX: usize = 1024;

/// How long the thread lets heights gather; far less than [`SAVES_MAX`] heights take.
const GATHER_TIME: Duration = Duration::from_millis(20);
/// Heights that are written in one batch.
const GROUP_HEIGHTS_MAX: usize = 128;

struct Save {
    token: Token,
    executed: Arc<Executed>,
}

/// The thread's handle.
pub struct StateKeeper {
    saves: Option<SyncSender<Arc<Executed>>>,
    waiting: VecDeque<Save>,
    thread: Option<JoinHandle<()>>,
}

impl StateKeeper {
    /// Starts the thread on a database that holds `state`.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn start(database: Arc<Database>, state: &State, retention: Retention) -> std::io::Result<Self> {
        let (saves, queue) = sync_channel(SAVES_MAX);
        let pruner = Pruner::new(retention, state.height(), state.header().time);
        let thread = std::thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || work(&database, &queue, pruner))?;
        Ok(Self { saves: Some(saves), waiting: VecDeque::new(), thread: Some(thread) })
    }

    /// Takes a committed height; it is saved when the records up to `token` are durable.
    pub fn committed(&mut self, token: Token, executed: Arc<Executed>) {
        self.waiting.push_back(Save { token, executed });
    }

    /// The log is durable up to `token`.
    pub fn durable(&mut self, token: Token) {
        while self.waiting.front().is_some_and(|save| save.token <= token) {
            let Some(save) = self.waiting.pop_front() else { return };
            if let Some(saves) = &self.saves {
                // Fails only when the thread has ended, and it ends the process before that.
                let _ = saves.send(save.executed);
            }
        }
    }
}

impl Drop for StateKeeper {
    fn drop(&mut self) {
        self.saves = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(database: &Database, queue: &Receiver<Arc<Executed>>, mut pruner: Pruner) {
    let mut more = false;
    loop {
        // What is to be removed waits for nobody either, but a little, so that it takes no thread for itself.
        let patience = if more { GATHER_TIME } else { Duration::MAX };
        let done = match queue.recv_timeout(patience) {
            Ok(first) => {
                // Nothing waits for it: many heights in one batch cost little more than one.
                std::thread::sleep(GATHER_TIME);
                let group: Vec<_> =
                    std::iter::once(first).chain(queue.try_iter().take(GROUP_HEIGHTS_MAX)).collect();
                let headers = group.iter().map(|executed| executed.state.header());
                headers.for_each(|header| pruner.committed(header.height, header.time));
                save(database, &group)
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        match done.and_then(|()| pruner.turn(database)) {
            Ok(left) => more = left,
            Err(error) => give_up(&error),
        }
    }
    if let Err(error) = database.sync() {
        tracing::warn!(%error, "the state was not flushed; the next start replays the log");
    }
}

fn give_up(error: &StateError) -> ! {
    tracing::error!(%error, "the state cannot be saved; this replica stops and must be started again when the disk is well");
    std::process::exit(crate::EXIT_DISK);
}

/// Writes consecutive heights in one batch.
fn save(database: &Database, group: &[Arc<Executed>]) -> Result<(), StateError> {
    let encoded: Vec<_> = group
        .iter()
        .map(|executed| {
            let state = &executed.state;
            (encode(state.header()), encode(state.log()), encode(&executed.receipts.leaves().to_vec()))
        })
        .collect();
    let commits: Vec<_> = group
        .iter()
        .zip(&encoded)
        .map(|(executed, (header, frontier, receipts))| Commit {
            height: executed.state.height(),
            changes: &executed.changes,
            header,
            frontier,
            receipts,
        })
        .collect();
    database.commit_all(&commits)
}

/// The receipts of an older height, out of the database.
pub fn stored_receipts(database: &Database, height: Height) -> Option<Vec<ReceiptLeaf>> {
    let bytes = database.receipts(height).ok()??;
    decode(&bytes).ok()
}

/// The state at the log's committed height: from the database, then by executing what the log has beyond.
/// A database that is damaged is made anew from the log.
///
/// # Errors
/// [`ReplicaError::Recovery`] when the log does not give what it certifies, or the disk fails.
pub fn recover_state(
    directory: &Directory,
    genesis: &Genesis,
    archive: &Archive,
    surroundings: &Surroundings,
) -> Result<(State, Arc<Database>), ReplicaError> {
    let options = StateOptions::default();
    refuse_lost_log(directory, &options, archive)?;
    match load(directory, &options, genesis, archive) {
        Ok((state, database)) => replay(state, database, archive, surroundings),
        Err(error) => {
            tracing::warn!(%error, "the state database is unusable and is rebuilt from the log");
            Database::destroy(directory)?;
            let (state, database) = load(directory, &options, genesis, archive)?;
            replay(state, database, archive, surroundings)
        }
    }
}

/// The database is written after the log is synced: if it is ahead, the log has lost its end, and with it
/// what forbids a second, different vote (rule R2). Such a replica must not vote again.
fn refuse_lost_log(
    directory: &Directory,
    options: &StateOptions,
    archive: &Archive,
) -> Result<(), ReplicaError> {
    let applied = Database::open(directory, options).ok().and_then(|database| database.applied_height());
    let committed = archive.committed_height();
    match applied {
        Some(height) if height > committed => {
            let what = format!("the state was saved there, but the log ends at {committed}: its end is lost");
            Err(ReplicaError::Recovery { height, what })
        }
        _ => Ok(()),
    }
}

/// What the database holds; genesis if it is empty.
fn load(
    directory: &Directory,
    options: &StateOptions,
    genesis: &Genesis,
    archive: &Archive,
) -> Result<(State, Database), ReplicaError> {
    let database = Database::open(directory, options)?;
    let Some(applied) = database.load()? else {
        let state = State::genesis(genesis).map_err(|error| ReplicaError::Genesis(error.to_string()))?;
        let rows: BTreeMap<_, _> = state.rows().map(|(key, value)| (key, Some(value))).collect();
        database.commit(0, &rows, &encode(state.header()), &encode(state.log()))?;
        return Ok((state, database));
    };
    let height = applied.height;
    let broken = |what: String| ReplicaError::Recovery { height, what };
    let header: Header = decode(&applied.header).map_err(|error| broken(error.to_string()))?;
    let frontier: LogFrontier = decode(&applied.frontier).map_err(|error| broken(error.to_string()))?;
    if height > 0 {
        let batch = archive.committed_batch(height)?;
        let certified = batch.is_some_and(|batch| batch.certificate.header_hash == header.hash());
        if !certified {
            return Err(broken("the saved state is not one that the log certifies".to_owned()));
        }
    }
    let mut failure = None;
    let rows = database.rows()?.map_while(|row| row.map_err(|error| failure = Some(error)).ok());
    let restored = State::restore(genesis.cluster(), header, frontier, rows);
    if let Some(error) = failure {
        return Err(error.into());
    }
    Ok((restored.map_err(|error| broken(error.to_string()))?, database))
}

/// Executes the committed heights of the log above the state, each of which must give its certified header.
fn replay(
    mut state: State,
    database: Database,
    archive: &Archive,
    surroundings: &Surroundings,
) -> Result<(State, Arc<Database>), ReplicaError> {
    let committed = archive.committed_height();
    while state.height() < committed {
        let height = state.height().saturating_add(1);
        let broken = |what: String| ReplicaError::Recovery { height, what };
        let batch =
            archive.committed_batch(height)?.ok_or_else(|| broken("it is not in the log".to_owned()))?;
        let executed = execute_again(&state, surroundings, height, &batch).map_err(broken)?;
        state = executed.state.clone();
        save(&database, &[Arc::new(executed)])?;
    }
    Ok((state, Arc::new(database)))
}

fn execute_again(
    state: &State,
    surroundings: &Surroundings,
    height: Height,
    committed: &CommittedBatch,
) -> Result<Executed, String> {
    let CommittedBatch { batch, certificate } = committed;
    let digest = batch.proposal.digest(&surroundings.cluster, batch.header.epoch, height);
    let executed = state
        .execute(&surroundings.environment(), height, &batch.proposal, digest)
        .map_err(|fault| fault.to_string())?;
    check_certified(&executed, certificate)?;
    Ok(executed)
}

fn check_certified(executed: &Executed, certificate: &Certificate) -> Result<(), String> {
    let ours = executed.state.hash();
    if ours == certificate.header_hash {
        Ok(())
    } else {
        Err(format!("executing it gives {ours}, certified is {}", certificate.header_hash))
    }
}
