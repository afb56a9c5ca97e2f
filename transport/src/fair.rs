//! A queue of what many sources have sent, from which each source is served in turn.
//!
//! In one queue for all, whoever sends most would stand before everybody else: with the room that a peer has, a
//! vote would wait behind hundreds of messages of a flood.
//!
//! Invariant: what one source has sent stays in order; between two pieces of one source, each other source that has
//! something is served. The queue is bounded by permits that its pieces hold, not by itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Names a source.
pub(crate) type Source = u64;

#[derive(Debug)]
struct State<T> {
    /// Only those that are not empty.
    queues: BTreeMap<Source, VecDeque<T>>,
    /// Who was served last.
    last: Source,
    senders: usize,
    closed: bool,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

impl<T> Shared<T> {
    /// No code panics while it holds the lock, and the state is sound after every statement.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending end; clones share it.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// An empty queue.
pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { queues: BTreeMap::new(), last: 0, senders: 1, closed: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Puts a piece at the end of its source's queue; drops it when nobody listens any more.
    pub(crate) fn send(&self, source: Source, piece: T) {
        let mut state = self.0.state();
        if !state.closed {
            state.queues.entry(source).or_default().push_back(piece);
            drop(state);
            self.0.changed.notify_one();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        let mut state = self.0.state();
        state.senders = state.senders.saturating_add(1);
        drop(state);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.senders = state.senders.saturating_sub(1);
        drop(state);
        self.0.changed.notify_one();
    }
}

impl<T> Receiver<T> {
    /// The next piece; `None` when all senders are gone and nothing is left. Cancelling it loses nothing.
    pub(crate) async fn recv(&mut self) -> Option<T> {
        loop {
            if let Some(piece) = self.try_recv() {
                return Some(piece);
            }
            if self.0.state().senders == 0 {
                // What came in between.
                return self.try_recv();
            }
            // A change since then is remembered: this is the only one who waits.
            self.0.changed.notified().await;
        }
    }

    /// The next piece, if one is there.
    pub(crate) fn try_recv(&mut self) -> Option<T> {
        let mut state = self.0.state();
        let after = state.last.checked_add(1);
        let next = after.and_then(|after| state.queues.range(after..).next());
        let source = *next.or_else(|| state.queues.first_key_value()).map(|(source, _)| source)?;
        let queue = state.queues.get_mut(&source)?;
        let piece = queue.pop_front();
        if queue.is_empty() {
            state.queues.remove(&source);
        }
        state.last = source;
        piece
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        let left = std::mem::take(&mut state.queues);
        drop(state);
        // Not under the lock: a piece may hold whatever it likes.
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazards A4, A5: who sends much waits for itself alone.
    #[tokio::test]
    async fn a4_each_source_is_served_in_turn_and_stays_in_order() {
        let (sender, mut receiver) = channel();
        for number in 0..1000 {
            sender.send(7, (7, number));
        }
        for number in 0..3 {
            sender.send(9, (9, number));
            sender.send(2, (2, number));
        }
        let mut taken = Vec::new();
        for _ in 0..9 {
            taken.push(receiver.recv().await.expect("there is more"));
        }
        let of =
            |source| taken.iter().filter(|(from, _)| *from == source).map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!([of(2), of(7), of(9)], [[0, 1, 2], [0, 1, 2], [0, 1, 2]], "{taken:?}");
        drop(sender);
        let mut left = 0;
        while let Some((source, number)) = receiver.recv().await {
            assert_eq!((source, number), (7, 3 + left));
            left += 1;
        }
        assert_eq!(left, 997);
    }

    #[tokio::test]
    async fn a_receiver_is_woken_and_the_end_is_heard() {
        let (sender, mut receiver) = channel();
        let other = sender.clone();
        let receiving = tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(piece) = receiver.recv().await {
                taken.push(piece);
            }
            taken
        });
        for number in 0..100 {
            other.send(number % 3, number);
            tokio::task::yield_now().await;
        }
        drop((sender, other));
        assert_eq!(receiving.await.expect("it ends").len(), 100);
        let (sender, receiver) = channel();
        let held = Arc::new(());
        sender.send(1, Arc::clone(&held));
        drop(receiver);
        sender.send(1, Arc::clone(&held));
        assert_eq!(Arc::strong_count(&held), 1, "nothing is kept for nobody");
    }
}
