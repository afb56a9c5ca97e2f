//! Budgets in bytes and messages for what has arrived and is not yet worked off.
//!
//! Invariant: a permit is taken before the bytes it stands for are read, and given back when whoever
//! consumes them takes them over; so a queue behind permits needs no bound of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes and messages that one sender may have under way at once.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    messages: Arc<Semaphore>,
}

/// Longest time for which nothing of one sender is read because of what it sent.
pub const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Until when nothing more of one sender is read. What it sends meanwhile stays with it, by flow control.
#[derive(Debug, Default)]
pub(crate) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    /// Reads nothing more for `time`, on top of what is to pass already, up to [`PAUSE_MAX`].
    pub(crate) fn extend(&self, time: Duration) {
        let now = Instant::now();
        let mut paused = self.lock();
        let until = paused.unwrap_or(now).max(now).checked_add(time);
        // Neither is beyond what the clock can count.
        let longest = now.checked_add(PAUSE_MAX);
        *paused = match (until, longest) {
            (Some(until), Some(longest)) => Some(until.min(longest)),
            (_, longest) => longest,
        };
    }

    /// Waits until the sender may be read from.
    pub(crate) async fn wait(&self) {
        loop {
            let until = *self.lock();
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until.into()).await,
                _ => return,
            }
        }
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A share of a budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _bytes: OwnedSemaphorePermit,
    _messages: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of this size; `bytes` is at least the largest message, or that one waits for ever.
    pub(crate) fn new(bytes: usize, messages: usize) -> Self {
        Self { bytes: Arc::new(Semaphore::new(bytes)), messages: Arc::new(Semaphore::new(messages)) }
    }

    /// Waits for room for one message of this size. `None` only after the budget was closed, which no
    /// one does.
    pub(crate) async fn take(&self, bytes: usize) -> Option<Permit> {
        let count = u32::try_from(bytes).ok()?;
        let messages = self.messages.clone().acquire_owned().await.ok()?;
        let bytes = self.bytes.clone().acquire_many_owned(count).await.ok()?;
        Some(Permit { _bytes: bytes, _messages: messages })
    }

    /// Room for one message of this size, if there is any now.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Permit> {
        let count = u32::try_from(bytes).ok()?;
        let messages = self.messages.clone().try_acquire_owned().ok()?;
        let bytes = self.bytes.clone().try_acquire_many_owned(count).ok()?;
        Some(Permit { _bytes: bytes, _messages: messages })
    }
}
