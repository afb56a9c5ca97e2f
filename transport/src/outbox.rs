//! The queue of encoded frames towards one stream.
//!
//! Invariant: it never holds more than its bounds in messages and bytes, and putting a frame in never
//! waits; what gives way is the oldest frame, or the new one, as the caller chooses.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

/// Frames that one `take` hands to the stream at most.
const FRAMES_PER_TAKE_MAX: usize = 64;
/// Bytes that one `take` aims at; at least one frame is always taken.
const BYTES_PER_TAKE_TARGET: usize = 256 << 10;

/// A bounded queue of frames with one taker.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
    messages_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    dropped: u64,
}

impl State {
    fn pop(&mut self) -> Option<Bytes> {
        let (_, frame) = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(frame.len());
        Some(frame)
    }

    fn push(&mut self, frame: Bytes) {
        self.bytes = self.bytes.saturating_add(frame.len());
        self.queue.push_back((Instant::now(), frame));
    }
}

impl Outbox {
    /// An empty queue with these bounds; `bytes_max` is at least the largest frame.
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self { state: Mutex::default(), filled: Notify::new(), messages_max, bytes_max }
    }

    /// Queues a frame; the oldest ones give way and are counted as dropped.
    pub(crate) fn push(&self, frame: Bytes) {
        let mut state = self.state();
        while !state.queue.is_empty() && !self.fits(&state, &frame) {
            state.pop();
            state.dropped = state.dropped.saturating_add(1);
        }
        if self.fits(&state, &frame) {
            state.push(frame);
        } else {
            state.dropped = state.dropped.saturating_add(1);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Queues a frame if there is room, and says so.
    pub(crate) fn try_push(&self, frame: Bytes) -> bool {
        let mut state = self.state();
        let fits = self.fits(&state, &frame);
        if fits {
            state.push(frame);
        }
        drop(state);
        self.filled.notify_one();
        fits
    }

    /// Waits for frames and takes some, oldest first. Cancelling it loses nothing.
    pub(crate) async fn take(&self) -> Vec<Bytes> {
        loop {
            let frames = self.take_now();
            if !frames.is_empty() {
                return frames;
            }
            self.filled.notified().await;
        }
    }

    /// Drops what has been waiting for longer than `age`.
    pub(crate) fn discard_older_than(&self, age: Duration) {
        let mut state = self.state();
        while state.queue.front().is_some_and(|(since, _)| since.elapsed() > age) {
            state.pop();
            state.dropped = state.dropped.saturating_add(1);
        }
    }

    /// Frames that gave way so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// Messages and bytes that are waiting.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.state();
        (state.queue.len(), state.bytes)
    }

    fn take_now(&self) -> Vec<Bytes> {
        let mut state = self.state();
        let mut frames = Vec::new();
        let mut bytes = 0_usize;
        while frames.len() < FRAMES_PER_TAKE_MAX && bytes < BYTES_PER_TAKE_TARGET {
            let Some(frame) = state.pop() else { break };
            bytes = bytes.saturating_add(frame.len());
            frames.push(frame);
        }
        frames
    }

    fn fits(&self, state: &State, frame: &Bytes) -> bool {
        state.queue.len() < self.messages_max && state.bytes.saturating_add(frame.len()) <= self.bytes_max
    }

    /// No code panics while it holds the lock, and the state is sound after every statement.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(byte: u8, length: usize) -> Bytes {
        Bytes::from(vec![byte; length])
    }

    #[test]
    fn the_oldest_give_way_and_are_counted() {
        let outbox = Outbox::new(3, 100);
        for byte in 0..5 {
            outbox.push(frame(byte, 10));
        }
        assert_eq!(outbox.waiting(), (3, 30));
        assert_eq!(outbox.dropped(), 2);
        outbox.push(frame(9, 95));
        assert_eq!(outbox.waiting(), (1, 95));
        assert_eq!(outbox.dropped(), 5);
        outbox.push(frame(9, 101));
        assert_eq!(outbox.waiting(), (0, 0));
        assert_eq!(outbox.dropped(), 7);
    }

    #[test]
    fn a_full_queue_refuses_politely() {
        let outbox = Outbox::new(2, 100);
        assert!(outbox.try_push(frame(1, 60)));
        assert!(!outbox.try_push(frame(2, 60)));
        assert!(outbox.try_push(frame(3, 40)));
        assert!(!outbox.try_push(frame(4, 0)));
        assert_eq!(outbox.take_now(), vec![frame(1, 60), frame(3, 40)]);
        assert_eq!(outbox.waiting(), (0, 0));
    }

    #[test]
    fn old_frames_are_discarded() {
        let outbox = Outbox::new(8, 100);
        outbox.push(frame(1, 1));
        outbox.discard_older_than(Duration::from_secs(3600));
        assert_eq!(outbox.waiting().0, 1);
        outbox.discard_older_than(Duration::ZERO);
        assert_eq!(outbox.waiting().0, 0);
    }
}
