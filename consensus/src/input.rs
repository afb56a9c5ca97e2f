//! What a driver feeds to a replica.
//!
//! Invariant: whatever comes from a peer or a client is [`Verified`]; time is passed with every input.

use crate::door::Verified;
use crate::effect::Token;
use quorate_crypto::{Certificate, Hash};
use quorate_protocol::{BatchTime, Envelope, Header, Height, PeerMessage, ReplicaIndex, SessionId};

/// Nanoseconds of the driver's monotonic clock, from any origin that stays fixed while it runs.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// This instant plus `nanoseconds`, clamped at the end of representable time.
    #[must_use]
    pub const fn plus(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }

    /// Nanoseconds from `earlier` to this instant; 0 if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What executing a proposal on its parent's state gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutedHeader {
    /// The header, a pure function of parent state and proposal.
    pub header: Header,
    /// The sessions that the batch advanced, with their next sequence number after it.
    pub advanced: Vec<(SessionId, u64)>,
    /// Batch time from which the leader should propose an empty batch if nothing else is there: the
    /// earliest deadline after this batch, or its own time if reclaiming is left over.
    pub wake_at: Option<BatchTime>,
}

/// The proposal has a static fault (rule R5), by execution's own check: it can never be executed. What
/// depends on state is skipped inside the batch and is no fault.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StaticFault;

/// One event.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message of another replica, through the door. `from` is whose connection brought it. A driver
    /// turns [`PeerMessage::Forward`] into [`Input::Request`] itself, because only it knows `next`.
    Message {
        /// Whose connection brought it.
        from: ReplicaIndex,
        /// The message.
        message: Verified<PeerMessage>,
    },
    /// An envelope of a client, or forwarded by a replica, or given back by
    /// [`crate::Effect::Returned`].
    Request {
        /// The envelope.
        envelope: Verified<Envelope>,
        /// The session's next sequence number in the state of [`crate::Replica::committed_height`]:
        /// `Some(0)` for an envelope that registers its own session, `None` for an unknown session or one
        /// that belongs to another key. What is not admissible is dropped.
        next: Option<u64>,
    },
    /// A reader waits for the height of this certificate to be committed (rule R4).
    Await(Verified<Certificate>),
    /// The records of this [`crate::Effect::Persist`] and of all before it are synced, and its `then` was
    /// released.
    Persisted(Token),
    /// An [`crate::Effect::Execute`] is done.
    Executed {
        /// Height of the proposal.
        height: Height,
        /// Digest of the proposal.
        digest: Hash,
        /// The header, or that there can be none.
        outcome: Result<ExecutedHeader, StaticFault>,
    },
    /// The connection with a peer was lost: a hint, of which nothing but a suspicion comes.
    Disconnected(ReplicaIndex),
    /// The connection with a peer is up, or up again.
    Connected(ReplicaIndex),
    /// The timer that was asked for is due. Spurious ones are harmless.
    Tick,
    /// The operator wants this replica to stop or to give up leading: it hands over if it leads.
    Resign,
}
