//! The execution thread: runs one proposal at a time on its parent's state, beside the voting loop.
//!
//! Invariant: it holds nothing between jobs; states are immutable, so the loop alone decides which one is
//! committed. At most [`JOBS_MAX`] proposals wait, which consensus' window keeps far away.

use quorate_crypto::{Hash, MemberSet, Verifier};
use quorate_execution::{Environment, Executed, State, StaticFault};
use quorate_protocol::{Height, Proposal};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Proposals that may wait for execution.
pub const JOBS_MAX: usize = 256;

/// Proposals that wait for the thread, and whether they are still wanted.
type Waiting = Mutex<BTreeMap<Hash, bool>>;

/// A proposal to execute.
pub struct Job {
    /// Its height.
    pub height: Height,
    /// Its digest.
    pub digest: Hash,
    /// The state that it changes.
    pub parent: State,
    /// The proposal.
    pub proposal: Arc<Proposal>,
}

/// What came of it.
pub struct Outcome {
    /// Its height.
    pub height: Height,
    /// Its digest.
    pub digest: Hash,
    /// The new state with all that belongs to it, or why there can be none.
    pub executed: Result<Arc<Executed>, StaticFault>,
}

/// The thread's handle.
pub struct Executor {
    surroundings: Surroundings,
    jobs: Option<SyncSender<Job>>,
    /// What waits, and whether it is still wanted.
    waiting: Arc<Waiting>,
    thread: Option<JoinHandle<()>>,
}

/// What execution needs besides state and proposal.
#[derive(Clone)]
pub struct Surroundings {
    /// The cluster's identifier.
    pub cluster: Hash,
    /// The members of the epoch.
    pub members: MemberSet,
    /// Checks the signatures of block receipts.
    pub verifier: Arc<dyn Verifier>,
}

impl Surroundings {
    /// As execution takes it.
    #[must_use]
    pub fn environment(&self) -> Environment<'_> {
        Environment { cluster: self.cluster, members: &self.members, verifier: self.verifier.as_ref() }
    }
}

impl Executor {
    /// Starts the thread; `deliver` is called on it with each outcome.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn start(
        surroundings: Surroundings,
        deliver: impl Fn(Outcome) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(JOBS_MAX);
        let marks = Arc::new(Waiting::default());
        let skip = Arc::clone(&marks);
        let own = surroundings.clone();
        let thread = std::thread::Builder::new()
            .name("execution".to_owned())
            .spawn(move || work(&surroundings, &waiting, &skip, deliver))?;
        Ok(Self { surroundings: own, jobs: Some(jobs), waiting: marks, thread: Some(thread) })
    }

    /// Executes a small proposal on the caller's thread.
    pub fn execute_here(&self, job: Job) -> Outcome {
        run(&self.surroundings, job)
    }

    /// Gives a proposal to the thread.
    pub fn execute(&self, job: Job) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(job.digest, true);
        if let Some(jobs) = &self.jobs {
            // Fails only when the thread has ended, which a panic in it reports on its own.
            let _ = jobs.send(job);
        }
    }

    /// Drops a proposal that still waits.
    pub fn cancel(&self, digest: Hash) {
        if let Some(wanted) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&digest) {
            *wanted = false;
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(surroundings: &Surroundings, jobs: &Receiver<Job>, marks: &Waiting, deliver: impl Fn(Outcome)) {
    for job in jobs.iter() {
        let wanted = marks.lock().unwrap_or_else(PoisonError::into_inner).remove(&job.digest);
        if wanted == Some(true) {
            deliver(run(surroundings, job));
        }
    }
}

fn run(surroundings: &Surroundings, job: Job) -> Outcome {
    let Job { height, digest, parent, proposal } = job;
    let executed = parent.execute(&surroundings.environment(), height, &proposal, digest).map(Arc::new);
    Outcome { height, digest, executed }
}
