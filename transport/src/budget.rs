//! Budgets in bytes and messages for what has arrived and is not yet worked off.
//!
//! Invariant: a permit is taken before the bytes it stands for are read, and given back when whoever
//! consumes them takes them over; so a queue behind permits needs no bound of its own.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes and messages that one sender may have under way at once.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    messages: Arc<Semaphore>,
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
