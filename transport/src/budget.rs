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

/// Longest time for which nothing of one sender is read because of how much it sent, which a correct one may have as well.
pub const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The same for a sender that is known to be faulty: in the time that its largest frame takes within its budget.
pub const FAULTY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Until when nothing more of one sender is read. What it sends meanwhile stays with it, by flow control.
#[derive(Debug, Default)]
pub(crate) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    /// Reads nothing more for `time`, on top of what is to pass already, up to `longest` from now; what is to pass
    /// already does not become less.
    pub(crate) fn extend(&self, time: Duration, longest: Duration) {
        let now = Instant::now();
        let mut paused = self.lock();
        let before = paused.unwrap_or(now).max(now);
        // Neither is beyond what the clock can count.
        let (Some(until), Some(longest)) = (before.checked_add(time.min(longest)), now.checked_add(longest))
        else {
            return;
        };
        *paused = Some(until.min(longest).max(before));
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
    turn: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// The same, which also holds its sender's turn.
    pub(crate) fn with_turn(self, turn: Option<OwnedSemaphorePermit>) -> Self {
        Self { turn, ..self }
    }

    /// Whether it holds one.
    pub(crate) const fn has_turn(&self) -> bool {
        self.turn.is_some()
    }
}

/// One message at a time of a sender for some time, whichever of its lanes brings it: the next one is read when that one
/// has been taken over.
#[derive(Debug)]
pub(crate) struct OneByOne {
    until: Mutex<Option<Instant>>,
    turn: Arc<Semaphore>,
}

impl OneByOne {
    /// Not at the moment.
    pub(crate) fn new() -> Self {
        Self { until: Mutex::new(None), turn: Arc::new(Semaphore::new(1)) }
    }

    /// From now on, for `time`.
    pub(crate) fn extend(&self, time: Duration) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(time);
    }

    /// Waits for the turn; none is needed while all may be read at once.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_none_or(|until| until < Instant::now()) {
            return None;
        }
        // Never closed.
        self.turn.clone().acquire_owned().await.ok()
    }
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
        Some(Permit { _bytes: bytes, _messages: messages, turn: None })
    }

    /// Room for one message of this size, if there is any now.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Permit> {
        let count = u32::try_from(bytes).ok()?;
        let messages = self.messages.clone().try_acquire_owned().ok()?;
        let bytes = self.bytes.clone().try_acquire_many_owned(count).ok()?;
        Some(Permit { _bytes: bytes, _messages: messages, turn: None })
    }
}
