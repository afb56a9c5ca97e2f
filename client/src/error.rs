//! What goes wrong for a caller of the client.
//!
//! Invariant: an `Errno` is the certified verdict of the cluster; every other error says that there is no
//! verdict, and whose fault that is. A lie of a replica is never an error by itself: the request goes on to
//! another replica, and only when none is left does the caller see `NoQuorum`.

use quorate_protocol::ReplicaIndex;
use quorate_protocol::client::Refusal;

/// Linux `EIO`: what is shown for everything that is no verdict of the cluster.
pub const EIO: u16 = 5;
/// Linux `EACCES`.
pub const EACCES: u16 = 13;
/// Linux `ENOSPC`.
pub const ENOSPC: u16 = 28;
/// Linux `ECANCELED`: an operation that this one `requires` did not succeed.
pub const ECANCELED: u16 = 125;

/// Why a call has no good answer. Cloneable, because one envelope's failure is that of all its operations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The cluster's certified verdict: a Linux errno. The state is unchanged by the operation.
    #[error("the operation failed with errno {0}")]
    Errno(u16),
    /// The soft deadline passed without an answer.
    ///
    /// For an operation with `sent` the outcome is **unknown**: its envelope was on its way and may still
    /// be executed, until a committed batch time beyond the envelope's `valid_until` has been seen
    /// (rule R8); the client keeps following it, gives back the grant that it may have taken, and no later operation of the
    /// session overtakes it. With
    /// `sent` false, and for a read, nothing happened and nothing will.
    #[error("no answer within the deadline")]
    Deadline {
        /// Whether the operation may still be executed.
        sent: bool,
    },
    /// Too few replicas answer, or tell the truth, to decide anything.
    #[error("{reachable} replicas answer where {needed} are needed")]
    NoQuorum {
        /// Replicas that answered usefully.
        reachable: usize,
        /// Q, or 1 for what a single replica can prove.
        needed: usize,
    },
    /// The session ended (expired or closed) before a verdict: grants and locks are gone. The client has a fresh
    /// session by now or is getting one.
    ///
    /// For an operation with `sent` the outcome is **unknown**. With `sent` false it was not executed and never
    /// will be: it may be called again.
    #[error("the session was lost")]
    SessionLost {
        /// Whether the operation may have been executed.
        sent: bool,
    },
    /// Replicas decline the request itself; repeating it is pointless.
    #[error("refused ({refusal:?}): {text}")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// In the words of the last replica that refused; proves nothing.
        text: String,
    },
    /// The last replica that was left to ask gave an answer that does not verify.
    #[error("replica {replica} lies: {reason}")]
    PeerLies {
        /// Which one.
        replica: ReplicaIndex,
        /// Which check failed.
        reason: String,
    },
    /// The request itself breaks a bound of the protocol: the caller's fault.
    #[error("invalid request: {0}")]
    Invalid(&'static str),
    /// The client was closed, or its runtime is shutting down.
    #[error("the client is closed")]
    Closed,
    /// The local system failed (randomness, sockets).
    #[error("local failure: {0}")]
    Local(String),
}

impl ClientError {
    /// The errno for a filesystem call that ends with this error.
    #[must_use]
    pub fn errno(&self) -> u16 {
        match self {
            Self::Errno(errno) => *errno,
            Self::Refused { refusal: Refusal::Denied, .. } => EACCES,
            Self::Refused { refusal: Refusal::Storage, .. } => ENOSPC,
            _ => EIO,
        }
    }

    /// Whether the operation may have been, or may still be, executed although the call failed.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Deadline { sent: true } | Self::SessionLost { sent: true } | Self::Closed)
    }
}
