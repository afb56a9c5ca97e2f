//! What waits for a height to be committed.
//!
//! Invariant: bounded over all connections and for each of them, so that nobody takes all places; nothing waits
//! longer than [`READ_PATIENCE`] plus the time between two looks.

use quorate_protocol::Height;
use quorate_transport::ConnectionId;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Reads that may wait for a height, over all clients.
pub const WAITING_READS_MAX: usize = 4096;
/// Reads of one connection that may wait: fewer than it may have requests, so that others still pass.
pub const WAITING_READS_PER_CONNECTION_MAX: usize = 128;
/// How long a read may wait for a height.
pub const READ_PATIENCE: Duration = Duration::from_secs(2);

struct Waiter<T> {
    connection: ConnectionId,
    height: Height,
    since: Instant,
    what: T,
}

/// The queue.
pub struct Waiting<T> {
    queue: VecDeque<Waiter<T>>,
    by_connection: BTreeMap<ConnectionId, usize>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), by_connection: BTreeMap::new() }
    }
}

impl<T> Waiting<T> {
    /// Lets something wait for a height.
    ///
    /// # Errors
    /// Gives it back when too much waits.
    pub fn push(
        &mut self,
        connection: ConnectionId,
        height: Height,
        since: Instant,
        what: T,
    ) -> Result<(), T> {
        let mine = self.by_connection.entry(connection).or_default();
        if self.queue.len() >= WAITING_READS_MAX || *mine >= WAITING_READS_PER_CONNECTION_MAX {
            return Err(what);
        }
        *mine = mine.saturating_add(1);
        self.queue.push_back(Waiter { connection, height, since, what });
        Ok(())
    }

    /// Forgets what a connection waits for.
    pub fn closed(&mut self, connection: ConnectionId) {
        if self.by_connection.remove(&connection).is_some() {
            self.queue.retain(|waiter| waiter.connection != connection);
        }
    }

    /// Takes out what waits for at most `committed`, and then what has waited too long; drops what nobody
    /// wants any more.
    pub fn take(&mut self, committed: Height, now: Instant, wanted: impl Fn(&T) -> bool) -> (Vec<T>, Vec<T>) {
        let (mut ready, mut late) = (Vec::new(), Vec::new());
        for waiter in std::mem::take(&mut self.queue) {
            let is_ready = waiter.height <= committed;
            let is_late = now.saturating_duration_since(waiter.since) > READ_PATIENCE;
            if !is_ready && !is_late && wanted(&waiter.what) {
                self.queue.push_back(waiter);
                continue;
            }
            if let Some(theirs) = self.by_connection.get_mut(&waiter.connection) {
                *theirs = theirs.saturating_sub(1);
            }
            match () {
                () if !wanted(&waiter.what) => {}
                () if is_ready => ready.push(waiter.what),
                () => late.push(waiter.what),
            }
        }
        self.by_connection.retain(|_, count| *count > 0);
        (ready, late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_wait_for_their_height_for_a_while() {
        let (mut waiting, began) = (Waiting::default(), Instant::now());
        for (height, name) in [(5, 'a'), (7, 'b'), (9, 'c'), (6, 'd')] {
            waiting.push(ConnectionId(1), height, began, name).unwrap();
        }
        let wanted = |name: &char| *name != 'd';
        assert_eq!(waiting.take(5, began, wanted), (vec!['a'], vec![]));
        assert_eq!(waiting.take(7, began, wanted), (vec!['b'], vec![]));
        // Nothing is committed any more.
        assert_eq!(waiting.take(7, began + READ_PATIENCE * 2, wanted), (vec![], vec!['c']));
        assert!(waiting.queue.is_empty() && waiting.by_connection.is_empty());
    }

    #[test]
    fn no_connection_takes_all_places() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let mut taken = 0;
        for connection in 0..100 {
            let mine =
                (0..1000).filter(|_| waiting.push(ConnectionId(connection), 1, now, ()).is_ok()).count();
            assert!(mine <= WAITING_READS_PER_CONNECTION_MAX);
            taken += mine;
        }
        assert_eq!(taken, WAITING_READS_MAX);
        waiting.closed(ConnectionId(3));
        assert!(waiting.push(ConnectionId(99), 1, now, ()).is_ok());
        assert_eq!(
            waiting.take(1, now, |()| true).0.len(),
            WAITING_READS_MAX - WAITING_READS_PER_CONNECTION_MAX + 1
        );
    }
}
