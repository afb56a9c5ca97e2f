//! The states of heights that are past, for clients that ask for exactly one of them, and their headers.
//!
//! Invariant: what is answered from leads to the state root of that height's certified header; heights below the
//! horizon are refused. Nothing of it waits in the loop or makes it wait: threads of their own do the work, for all
//! who ask in turn; one height is prepared at a time, for no more than half of the time and for each principal in
//! turn (`turns`), and the heights that are held are bounded in number and memory, whatever is asked for.

mod turns;

use self::turns::Turns;
use crate::blocks::BlockGetter;
use crate::clients::{No, refused};
use crate::jobs::{Asker, Jobs};
use crate::requests::{BlockWish, read_reply, wished_block};
use quorate_crypto::{Certificate, PublicKey};
use quorate_execution::{Executed, PastState, State};
use quorate_protocol::client::{CertifiedHeader, ClientReply, Refusal};
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Header, Height};
use quorate_store::log::Archive;
use quorate_store::state::{REWOUND_ROW_BYTES, State as Database, StateError};
use quorate_transport::{ConnectionId, ReplyHandle};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Heights that are held at a time; the one that nobody has asked for longest gives way.
pub const HEIGHTS_MAX: usize = 16;
/// Bytes of memory for them all, unless the operator says otherwise.
pub const MEMORY_DEFAULT: u64 = 256 << 20;
/// Threads: while one prepares a height, another answers from those that are held.
const THREADS: usize = 2;
/// How long a height is held that nobody asks for.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How often it is looked for those.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);
/// How long the database may take to be as far as the state that is taken back.
const SAVE_PATIENCE: Duration = Duration::from_secs(2);
/// How often that is looked at.
const SAVE_LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// What somebody wants to know of a height.
pub struct Question {
    /// The height.
    pub height: Height,
    /// Who asks.
    pub key: PublicKey,
    /// What.
    pub wanted: Wanted,
    /// Where the answer goes.
    pub reply: ReplyHandle,
}

/// What is asked for.
pub enum Wanted {
    /// Rows, with proof.
    Rows(Credential, Query),
    /// A block.
    Block(ConnectionId, BlockWish),
}

enum Job {
    Answer(Box<Question>),
    Header(Height, ReplyHandle),
    Tidy,
}

/// A height that is held.
struct Held {
    state: Arc<PastState>,
    certificate: Option<Certificate>,
    /// Bytes that it took besides the state which it was made from.
    bytes: u64,
    /// Rows that had been changed by then, since the start of the process. What was changed later, the present
    /// state does not share with it any more.
    changed: u64,
    used: Instant,
}

impl Held {
    fn bytes(&self, changed: u64) -> u64 {
        let since = changed.saturating_sub(self.changed);
        self.bytes.saturating_add(since.saturating_mul(REWOUND_ROW_BYTES))
    }
}

/// The state that was committed last, and the number of rows that were changed since the start of the process.
struct Newest {
    state: State,
    changed: u64,
}

/// What the threads share.
struct Works {
    database: Arc<Database>,
    archive: Archive,
    genesis: Header,
    blocks: BlockGetter,
    memory: u64,
    newest: Mutex<Newest>,
    held: Mutex<Vec<Held>>,
    /// Held by who prepares a height.
    preparing: Mutex<()>,
    turns: Mutex<Turns>,
    over: AtomicBool,
}

/// The threads' handle.
pub struct PastStates {
    jobs: Arc<Jobs<Job>>,
    works: Arc<Works>,
    threads: Vec<std::thread::JoinHandle<()>>,
    tidied: Instant,
}

impl PastStates {
    /// Starts the threads, at the committed state.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn start(
        (database, archive): (Arc<Database>, Archive),
        (genesis, state): (Header, State),
        blocks: BlockGetter,
        memory: u64,
    ) -> std::io::Result<Self> {
        let works = Arc::new(Works {
            database,
            archive,
            genesis,
            blocks,
            memory,
            newest: Mutex::new(Newest { state, changed: 0 }),
            held: Mutex::default(),
            preparing: Mutex::default(),
            turns: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let jobs = Arc::new(Jobs::new());
        let threads = (0..THREADS)
            .map(|_| {
                let (works, jobs) = (Arc::clone(&works), Arc::clone(&jobs));
                std::thread::Builder::new().name("past".to_owned()).spawn(move || work(&works, &jobs))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { jobs, works, threads, tidied: Instant::now() })
    }

    /// A height was committed.
    pub fn committed(&self, executed: &Executed) {
        let mut newest = lock(&self.works.newest);
        newest.state = executed.state.clone();
        newest.changed = newest.changed.saturating_add(executed.changes.len() as u64);
    }

    /// The lowest height that can be read.
    pub fn horizon(&self) -> Height {
        self.works.database.horizon()
    }

    /// Answers a question, or refuses it when too many wait.
    pub fn ask(&self, connection: ConnectionId, question: Question) {
        self.push(connection, Job::Answer(Box::new(question)));
    }

    /// Gives the certified header of a committed height out of the log.
    pub fn header(&self, connection: ConnectionId, height: Height, reply: ReplyHandle) {
        self.push(connection, Job::Header(height, reply));
    }

    fn push(&self, connection: ConnectionId, job: Job) {
        let reply = match self.jobs.push(Asker::Client(connection), job) {
            Err(Job::Answer(question)) => question.reply,
            Err(Job::Header(_, reply)) => reply,
            Err(Job::Tidy) | Ok(()) => return,
        };
        reply.send(&refused(Refusal::Busy, "too many questions about the past wait"));
    }

    /// Has what nobody asks for any more dropped, now and then.
    pub fn look_after(&mut self) {
        if self.tidied.elapsed() > TIDY_INTERVAL && !lock(&self.works.held).is_empty() {
            self.tidied = Instant::now();
            // When there is no place, a later one does it.
            let _ = self.jobs.push(Asker::Own, Job::Tidy);
        }
    }
}

impl Drop for PastStates {
    fn drop(&mut self) {
        self.works.over.store(true, Ordering::Relaxed);
        self.jobs.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(works: &Works, jobs: &Jobs<Job>) {
    while let Some(job) = jobs.take() {
        match job {
            // Who does not wait any more has asked another replica.
            Job::Answer(question) if question.reply.wanted() => works.answer(*question),
            Job::Header(height, reply) if reply.wanted() => {
                reply.send(&match works.header(height) {
                    Ok((header, certificate)) => ClientReply::Header(CertifiedHeader { header, certificate }),
                    Err(no) => no.reply(),
                });
            }
            Job::Answer(_) | Job::Header(..) => {}
            Job::Tidy => works.tidy(Instant::now()),
        }
    }
}

/// No code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Works {
    fn answer(&self, question: Question) {
        let Question { height, key, wanted, reply } = question;
        let (state, certificate) = match self.at(height, &key) {
            Ok(found) => found,
            Err(no) => return reply.send(&no.reply()),
        };
        match wanted {
            Wanted::Rows(credential, query) => {
                let answered = state.answer(&key, &credential, &query);
                reply.send(&read_reply(answered, state.header(), certificate.as_ref()));
            }
            Wanted::Block(connection, wish) => {
                match wished_block(&wish, |credential, query| state.answer(&key, credential, query)) {
                    Ok(id) => self.blocks.get(connection, id, reply),
                    Err(no) => reply.send(&no.reply()),
                }
            }
        }
    }

    /// The state at a height, or why there is none.
    fn at(&self, height: Height, key: &PublicKey) -> Result<(Arc<PastState>, Option<Certificate>), No> {
        let (horizon, applied) = (self.database.horizon(), lock(&self.newest).state.height());
        if height < horizon || height > applied {
            return Err(not_retained(height, horizon, applied));
        }
        if let Some(found) = self.find(height) {
            lock(&self.turns).answered(key, height);
            return Ok(found);
        }
        let _preparing = match self.preparing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                lock(&self.turns).wants(key, height, Instant::now());
                return Err(No::new(Refusal::Busy, "another height is being prepared"));
            }
        };
        // It may have been this one.
        if let Some(found) = self.find(height) {
            lock(&self.turns).answered(key, height);
            return Ok(found);
        }
        let began = Instant::now();
        if !lock(&self.turns).is_due(key, height, began) {
            return Err(No::new(Refusal::Busy, "a height was prepared a moment ago, or others come first"));
        }
        let prepared = self.prepare(height);
        let now = Instant::now();
        lock(&self.turns).rest(began, now);
        let held = prepared?;
        tracing::debug!(height, bytes = held.bytes, took = ?now.saturating_duration_since(began), "a past height");
        let found = (Arc::clone(&held.state), held.certificate.clone());
        lock(&self.held).push(held);
        lock(&self.turns).held(height);
        self.tidy(now);
        Ok(found)
    }

    fn find(&self, height: Height) -> Option<(Arc<PastState>, Option<Certificate>)> {
        let mut held = lock(&self.held);
        let found = held.iter_mut().find(|held| held.state.header().height == height)?;
        found.used = Instant::now();
        Some((Arc::clone(&found.state), found.certificate.clone()))
    }

    /// Takes the newest state back to a height.
    fn prepare(&self, height: Height) -> Result<Held, No> {
        let (newest, changed) = {
            let newest = lock(&self.newest);
            (newest.state.clone(), newest.changed)
        };
        let until = Instant::now() + SAVE_PATIENCE;
        while self.database.applied_height() < Some(newest.height()) {
            if Instant::now() > until || self.over.load(Ordering::Relaxed) {
                return Err(No::new(Refusal::Busy, "the database is behind"));
            }
            std::thread::sleep(SAVE_LOOK_INTERVAL);
        }
        let (header, certificate) = self.header(height)?;
        let rows = self.database.rewind(newest.height(), height, self.memory);
        let rows = rows.map_err(|error| refusal_of(&error))?;
        let values = rows.values().flatten().map(|value| value.len() as u64);
        let values = values.fold(0, u64::saturating_add);
        let bytes = (rows.len() as u64).saturating_mul(REWOUND_ROW_BYTES).saturating_add(values);
        let state = newest.rewound(header, &rows).map_err(|error| {
            tracing::error!(height, %error, "the rows of a past height are not those that were certified");
            No::new(Refusal::Storage, error)
        })?;
        Ok(Held { state: Arc::new(state), certificate, bytes, changed, used: Instant::now() })
    }

    fn header(&self, height: Height) -> Result<(Header, Option<Certificate>), No> {
        if height == 0 {
            return Ok((self.genesis.clone(), None));
        }
        match self.archive.committed_batch(height) {
            Ok(Some(committed)) => Ok((committed.batch.header, Some(committed.certificate))),
            Ok(None) => Err(No::new(Refusal::NotFound, "that height is not in the log")),
            Err(error) => {
                tracing::error!(height, %error, "a committed height cannot be read from the log");
                Err(No::new(Refusal::Storage, "that height cannot be read from the log"))
            }
        }
    }

    /// Drops what is behind the horizon, what nobody asks for, and what is too much.
    fn tidy(&self, now: Instant) {
        let horizon = self.database.horizon();
        let changed = lock(&self.newest).changed;
        let mut held = lock(&self.held);
        // Dropped only when the lock is free again: a state may have many nodes that nobody else holds.
        let mut gone: Vec<Held> = Vec::new();
        held.sort_by_key(|held| std::cmp::Reverse(held.used));
        let (mut heights, mut bytes) = (0_usize, 0_u64);
        for one in std::mem::take(&mut *held) {
            let mine = one.bytes(changed);
            let idle = now.saturating_duration_since(one.used) > IDLE_MAX;
            let fits = heights < HEIGHTS_MAX && bytes.saturating_add(mine) <= self.memory;
            if one.state.header().height < horizon || idle || !fits {
                gone.push(one);
            } else {
                heights = heights.saturating_add(1);
                bytes = bytes.saturating_add(mine);
                held.push(one);
            }
        }
        drop(held);
        drop(gone);
    }
}

/// The refusal of a height that cannot be read.
fn not_retained(height: Height, horizon: Height, applied: Height) -> No {
    let text = format!("height {height} cannot be read here: heights {horizon} to {applied} can");
    No::new(Refusal::NotRetained { horizon, applied }, text)
}

fn refusal_of(error: &StateError) -> No {
    match error {
        StateError::NotRetained { height, horizon, applied } => not_retained(*height, *horizon, *applied),
        StateError::TooFar { .. } => No::new(Refusal::Invalid, error),
        _ => {
            tracing::error!(%error, "a past height cannot be read");
            No::new(Refusal::Storage, error)
        }
    }
}

#[cfg(test)]
mod tests;
