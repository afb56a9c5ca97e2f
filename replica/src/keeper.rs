//! The state database: written by a thread of its own, after the log is durable; read at the start.
//!
//! Invariant: the database is never ahead of the synced log, and what is loaded from it must hash to the
//! state root of its header, or it is rebuilt from the log (rule S10).

use crate::error::ReplicaError;
use crate::executor::Surroundings;
use quorate_consensus::Token;
use quorate_crypto::{Certificate, decode, encode};
use quorate_execution::{Executed, State};
use quorate_merkle::LogFrontier;
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Genesis, Header, Height, ReceiptLeaf};
use quorate_store::directory::Directory;
use quorate_store::log::Archive;
use quorate_store::state::{State as Database, StateError, StateOptions};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Committed heights that may wait for the database; beyond this the loop waits.
const SAVES_MAX: usize = 1024;

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
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn start(database: Arc<Database>) -> std::io::Result<Self> {
        let (saves, queue) = sync_channel(SAVES_MAX);
        let thread =
            std::thread::Builder::new().name("state".to_owned()).spawn(move || work(&database, &queue))?;
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

fn work(database: &Database, queue: &Receiver<Arc<Executed>>) {
    for executed in queue.iter() {
        if let Err(error) = save(database, &executed) {
            tracing::error!(%error, "the state cannot be saved; this replica stops and must be started again when the disk is well");
            std::process::exit(crate::EXIT_DISK);
        }
    }
    if let Err(error) = database.sync() {
        tracing::warn!(%error, "the state was not flushed; the next start replays the log");
    }
}

fn save(database: &Database, executed: &Executed) -> Result<(), StateError> {
    let state = &executed.state;
    let receipts = encode(&executed.receipts.leaves().to_vec());
    database.commit_with_receipts(
        state.height(),
        &executed.changes,
        &encode(state.header()),
        &encode(state.log()),
        &receipts,
    )
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
        save(&database, &executed)?;
        state = executed.state;
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
