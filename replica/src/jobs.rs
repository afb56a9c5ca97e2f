//! Jobs that wait for threads, and whose turn it is: those of the block store, and of past states.
//!
//! Invariant: whoever asks has places that nobody else can take, up to bounds of its own, and all who wait are
//! served in turn: neither a peer nor a client that asks for ever delays another one by more than one job for
//! each that waits (hazards A4, A5).

use quorate_protocol::ReplicaIndex;
use quorate_transport::ConnectionId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Jobs of all clients that may wait.
pub const CLIENT_JOBS_MAX: usize = 256;
/// Jobs of one connection that may wait: fewer than all may, so that others still pass.
pub const JOBS_PER_CLIENT_MAX: usize = 128;
/// Jobs of one peer that may wait: as many blocks as a correct replica asks for at a time.
pub const JOBS_PER_PEER_MAX: usize = crate::blocks::UNDER_WAY_MAX;
/// Jobs of this replica's own that may wait: blocks that it has fetched, and a sweep.
pub const OWN_JOBS_MAX: usize = crate::blocks::UNDER_WAY_MAX + 1;

/// Whose job it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    /// This replica's.
    Own,
    /// A peer's.
    Peer(ReplicaIndex),
    /// A client's.
    Client(ConnectionId),
}

struct Waiting<T> {
    /// No queue is empty.
    queues: BTreeMap<Asker, VecDeque<T>>,
    /// Jobs of clients in them.
    of_clients: usize,
    /// Who was served last.
    served: Option<Asker>,
    closed: bool,
}

/// The queue.
pub struct Jobs<T> {
    waiting: Mutex<Waiting<T>>,
    filled: Condvar,
}

impl<T> Jobs<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let waiting = Waiting { queues: BTreeMap::new(), of_clients: 0, served: None, closed: false };
        Self { waiting: Mutex::new(waiting), filled: Condvar::new() }
    }

    /// Puts a job in; never waits.
    ///
    /// # Errors
    /// Gives it back when too many of the same asker wait, or the queue is closed.
    pub fn push(&self, asker: Asker, job: T) -> Result<(), T> {
        let mut waiting = self.lock();
        let mine = waiting.queues.get(&asker).map_or(0, VecDeque::len);
        let fits = match asker {
            Asker::Own => mine < OWN_JOBS_MAX,
            Asker::Peer(_) => mine < JOBS_PER_PEER_MAX,
            Asker::Client(_) => mine < JOBS_PER_CLIENT_MAX && waiting.of_clients < CLIENT_JOBS_MAX,
        };
        if !fits || waiting.closed {
            return Err(job);
        }
        if matches!(asker, Asker::Client(_)) {
            waiting.of_clients = waiting.of_clients.saturating_add(1);
        }
        waiting.queues.entry(asker).or_default().push_back(job);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for a job and takes the one whose turn it is; `None` once the queue is closed.
    pub fn take(&self) -> Option<T> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(job) = waiting.take() {
                return Some(job);
            }
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets nobody in any more, drops what waits and ends the wait of all who take.
    pub fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.queues.clear();
        waiting.of_clients = 0;
        drop(waiting);
        self.filled.notify_all();
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    /// The first job of who comes after the one that was served last, around the end.
    fn take(&mut self) -> Option<T> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.served.and_then(|last| self.queues.range((Excluded(last), Unbounded)).next());
        let asker = *after.or_else(|| self.queues.first_key_value())?.0;
        let queue = self.queues.get_mut(&asker)?;
        let job = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&asker);
        }
        if matches!(asker, Asker::Client(_)) {
            self.of_clients = self.of_clients.saturating_sub(1);
        }
        self.served = Some(asker);
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u64) -> Asker {
        Asker::Client(ConnectionId(number))
    }

    fn fill(jobs: &Jobs<Asker>, asker: Asker) -> usize {
        (0..10_000).filter(|_| jobs.push(asker, asker).is_ok()).count()
    }

    /// Hazards A4, A5: a flood of one takes no place of another.
    #[test]
    fn every_asker_has_places_of_its_own() {
        let jobs = Jobs::new();
        for peer in 0..3 {
            assert_eq!(fill(&jobs, Asker::Peer(peer)), JOBS_PER_PEER_MAX);
        }
        assert_eq!(fill(&jobs, client(1)), JOBS_PER_CLIENT_MAX);
        assert_eq!(fill(&jobs, client(2)), CLIENT_JOBS_MAX - JOBS_PER_CLIENT_MAX);
        assert_eq!(fill(&jobs, client(3)), 0, "all clients together are bounded as well");
        assert_eq!(fill(&jobs, Asker::Own), OWN_JOBS_MAX);
        // Every place comes back.
        let held = 3 * JOBS_PER_PEER_MAX + CLIENT_JOBS_MAX + OWN_JOBS_MAX;
        for _ in 0..held {
            assert!(jobs.take().is_some());
        }
        assert_eq!(fill(&jobs, client(3)), JOBS_PER_CLIENT_MAX);
        jobs.close();
        assert!(jobs.take().is_none() && jobs.push(client(1), client(1)).is_err());
    }

    /// Hazard A4: a peer that asks for ever gets one turn in two beside one client.
    #[test]
    fn all_are_served_in_turn() {
        let jobs = Jobs::new();
        for _ in 0..8 {
            jobs.push(Asker::Peer(2), Asker::Peer(2)).unwrap();
        }
        for number in [7, 5] {
            jobs.push(client(number), client(number)).unwrap();
            jobs.push(client(number), client(number)).unwrap();
        }
        jobs.push(Asker::Own, Asker::Own).unwrap();
        let order: Vec<Asker> = (0..8).filter_map(|_| jobs.take()).collect();
        let peer = Asker::Peer(2);
        assert_eq!(order, [Asker::Own, peer, client(5), client(7), peer, client(5), client(7), peer]);
    }

    #[test]
    fn who_waits_is_woken() {
        let jobs = Jobs::new();
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| (jobs.take(), jobs.take()));
            jobs.push(client(1), 'a').unwrap();
            while !jobs.lock().queues.is_empty() {
                std::thread::yield_now();
            }
            jobs.close();
            assert_eq!(taker.join().unwrap(), (Some('a'), None));
        });
    }
}
