//! The execution thread: runs one proposal at a time on its parent's state, beside the voting loop.
//!
//! Invariant: it holds nothing between jobs; states are immutable, so the loop alone decides which one is
//! committed. At most [`JOBS_MAX`] proposals wait, which consensus' window keeps far away.

use quorate_crypto::{Hash, MemberSet, Verifier};
use quorate_execution::{Environment, Executed, State, StaticFault};
use quorate_protocol::{Height, Proposal};
use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Proposals that may wait for execution.
pub const JOBS_MAX: usize = 256;

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
    jobs: Option<SyncSender<Job>>,
    cancelled: Arc<Mutex<BTreeSet<Hash>>>,
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
        let cancelled = Arc::new(Mutex::new(BTreeSet::new()));
        let skip = Arc::clone(&cancelled);
        let thread = std::thread::Builder::new()
            .name("execution".to_owned())
            .spawn(move || work(&surroundings, &waiting, &skip, deliver))?;
        Ok(Self { jobs: Some(jobs), cancelled, thread: Some(thread) })
    }

    /// Gives a proposal to the thread.
    pub fn execute(&self, job: Job) {
        // The set only grows by digests that are still under way; one that comes again is wanted again.
        self.cancelled.lock().unwrap_or_else(PoisonError::into_inner).remove(&job.digest);
        if let Some(jobs) = &self.jobs {
            // Fails only when the thread has ended, which a panic in it reports on its own.
            let _ = jobs.send(job);
        }
    }

    /// Drops a proposal that still waits.
    pub fn cancel(&self, digest: Hash) {
        self.cancelled.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
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

fn work(
    surroundings: &Surroundings,
    jobs: &Receiver<Job>,
    cancelled: &Mutex<BTreeSet<Hash>>,
    deliver: impl Fn(Outcome),
) {
    for Job { height, digest, parent, proposal } in jobs.iter() {
        if cancelled.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest) {
            continue;
        }
        let executed = parent.execute(&surroundings.environment(), height, &proposal, digest).map(Arc::new);
        deliver(Outcome { height, digest, executed });
    }
}
