//! The view through which the filesystem sees the state, and the errors that come of using it.
//!
//! Invariant: a row that a view does not hold is [`Missing`], never absent. So one implementation of every
//! operation runs on a replica's full state, on a client's pruned copy and on an auditor's.

use std::sync::Arc;

use crate::errno::Errno;

/// A key of the state: 32 bytes, ordered as bytes (rule S1).
pub type Key = [u8; 32];

/// The encoded value of a row.
pub type Value = Arc<[u8]>;

/// A view does not hold what this key needs. On a full state it never happens; on a copy that a peer sent
/// it is the peer's fault.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the view does not hold what key {} needs", hexadecimal(.0))]
pub struct Missing(
    /// The key, or in a scan the lowest key from which on it cannot be told what follows.
    pub Key,
);

fn hexadecimal(key: &Key) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The state, or a part of it.
pub trait View {
    /// The value under `key`; `None` when it is known to be absent.
    ///
    /// # Errors
    /// [`Missing`] when this view cannot tell.
    fn get(&self, key: &Key) -> Result<Option<Value>, Missing>;

    /// The first row at or after `from` and below `end`; `None` as `end` means no upper end.
    ///
    /// # Errors
    /// [`Missing`] when this view cannot tell.
    fn next(&self, from: &Key, end: Option<&Key>) -> Result<Option<(Key, Value)>, Missing>;

    /// Sets a row.
    fn put(&mut self, key: Key, value: Value);

    /// Removes a row; nothing happens when it is absent.
    fn delete(&mut self, key: Key);
}

/// Why an operation or a query has no answer.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The operation fails, deterministically: the caller's doing. The state is unchanged.
    #[error(transparent)]
    Errno(#[from] Errno),
    /// The view is a part of the state and lacks a row: whoever made the part is at fault.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A row does not decode or contradicts another: the state itself is damaged, which is our fault.
    #[error("the state is damaged: {0}")]
    Corrupt(&'static str),
}
