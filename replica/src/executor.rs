//! The execution thread: runs one proposal at a time on its parent's state, beside the voting loop.
//!
//! Invariant: it holds nothing between jobs; states are immutable, so the loop alone decides which one is
//! committed, and takes an outcome once for each proposal that it still wants. At most [`JOBS_MAX`] proposals
//! wait, which consensus' window keeps far away.

use quorate_crypto::{Hash, MemberSet, Verifier};
use quorate_execution::{Environment, Executed, State, StaticFault};
use quorate_protocol::{Height, Proposal};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Proposals whose outcome has not been taken and is still wanted.
    expected: BTreeSet<Hash>,
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
        let expected = BTreeSet::new();
        Ok(Self { surroundings: own, jobs: Some(jobs), waiting: marks, expected, thread: Some(thread) })
    }

    /// Executes a small proposal on the caller's thread.
    pub fn execute_here(&self, job: Job) -> Outcome {
        run(&self.surroundings, job)
    }

    /// Gives a proposal to the thread.
    pub fn execute(&mut self, job: Job) {
        self.expected.insert(job.digest);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(job.digest, true);
        if let Some(jobs) = &self.jobs {
            // Fails only when the thread has ended, which a panic in it reports on its own.
            let _ = jobs.send(job);
        }
    }

    /// Whether an outcome that the thread delivers is still wanted; says so once. A proposal that was dropped
    /// may have been at work, and one that was dropped and given again may be executed twice.
    pub fn take(&mut self, digest: &Hash) -> bool {
        self.expected.remove(digest)
    }

    /// Drops a proposal that still waits, or its outcome.
    pub fn cancel(&mut self, digest: Hash) {
        self.expected.remove(&digest);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::{Plan, provision};
    use quorate_crypto::{Bounded, Ed25519Verifier};
    use quorate_protocol::genesis::Parameters;
    use std::sync::mpsc::channel;

    /// RX5: an execution that is no longer wanted ends like any other, and nothing waits for it.
    #[test]
    fn what_was_dropped_while_it_was_at_work_is_not_wanted() {
        let place = tempfile::tempdir().unwrap();
        let addresses = (1..=4).map(|port| format!("127.0.0.1:{port}")).collect();
        let plan = Plan { addresses, parameters: Parameters::default(), owner: (0, 0) };
        let cluster = provision(place.path(), &plan).unwrap();
        let parent = State::genesis(cluster.genesis()).unwrap();
        let time = parent.minimum_time();
        let proposal = Proposal { parent: parent.header().proposal, time, envelopes: Bounded::new() };
        let digest = proposal.digest(&cluster.cluster(), 0, 1);
        let surroundings = Surroundings {
            cluster: cluster.cluster(),
            members: cluster.members().clone(),
            verifier: Arc::new(Ed25519Verifier::new()),
        };
        let (deliver, outcomes) = channel();
        let mut executor =
            Executor::start(surroundings, move |outcome| deliver.send(outcome).unwrap()).unwrap();
        let execute = |executor: &mut Executor| {
            let proposal = Arc::new(proposal.clone());
            executor.execute(Job { height: 1, digest, parent: parent.clone(), proposal });
            outcomes.recv().unwrap()
        };
        assert!(execute(&mut executor).executed.is_ok());
        assert!(executor.take(&digest));
        assert!(!executor.take(&digest), "once");
        // Delivered, and dropped before it is taken.
        assert!(execute(&mut executor).executed.is_ok());
        executor.cancel(digest);
        assert!(!executor.take(&digest));
        // Given again: the first of the two outcomes counts.
        execute(&mut executor);
        execute(&mut executor);
        assert!(executor.take(&digest) && !executor.take(&digest));
    }
}
