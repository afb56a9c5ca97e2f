//! What a replica asks of its driver.
//!
//! Invariant: the driver carries effects out in the order in which they come. Persists are appended to one
//! log in order; an effect that depends on a record is found only inside `then`.

use std::sync::Arc;

use quorate_crypto::{Certificate, Hash};
use quorate_protocol::record::Record;
use quorate_protocol::{Envelope, Evidence, Header, Height, PeerMessage, Proposal, ReplicaIndex, Vote};

use crate::door::Verified;
use crate::input::Monotonic;

/// Names one [`Effect::Persist`] of a run; ascending.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Why a replica stops voting for good in this run.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    /// A certified header of a proposal differs from the one that this replica computed, or a certified
    /// proposal cannot be executed here (rule R5). Its state must be rebuilt from a certified root.
    #[error("diverged at height {height}: own execution gave {ours}, certified is {certified}")]
    Diverged {
        /// Height.
        height: Height,
        /// Header hash that this replica computed; zeros if it found a static fault.
        ours: Hash,
        /// Header hash of the certificate.
        certified: Hash,
    },
    /// Two commit certificates of one height differ: more than f replicas are faulty.
    #[error("two different headers are committed at height {height}: more than f replicas are faulty")]
    Forked {
        /// Height.
        height: Height,
    },
}

/// One thing to do.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "moved once each; a box would cost an allocation per height")]
pub enum Effect {
    /// Send to one replica.
    Send {
        /// The replica.
        to: ReplicaIndex,
        /// The message.
        message: Arc<PeerMessage>,
    },
    /// Send to all other replicas.
    Broadcast {
        /// The message.
        message: Arc<PeerMessage>,
    },
    /// Show this replica's own COMMIT to the clients whose envelopes are in the batch, and the pool's
    /// driver. Only inside `then`.
    NotifyClients {
        /// The COMMIT.
        vote: Vote,
        /// Digest of the proposal that holds the envelopes.
        digest: Hash,
    },
    /// Append to the log and sync. When these records, and all appended before, are durable, carry out
    /// `then` in order and feed [`crate::Input::Persisted`]. The persists of one turn may share one sync.
    /// `then` holds [`Effect::Send`], [`Effect::Broadcast`] and [`Effect::NotifyClients`] only.
    Persist {
        /// Names it.
        token: Token,
        /// What to append, in order.
        records: Vec<Record>,
        /// What may happen afterwards.
        then: Vec<Effect>,
    },
    /// Execute a proposal on its parent's state, beside the voting loop, and feed
    /// [`crate::Input::Executed`]. The parent is the committed proposal or one that was executed without a
    /// fault and not forgotten. States are kept by proposal digest.
    Execute {
        /// Height.
        height: Height,
        /// Digest of the proposal.
        digest: Hash,
        /// Digest of the parent proposal; the genesis header's `proposal` for height 1.
        parent: Hash,
        /// The proposal.
        proposal: Arc<Proposal>,
    },
    /// This height is final. Strictly ascending by one, each once per run; the state of `digest` becomes
    /// the committed one. The driver shows the result to clients at once, and writes the state database only
    /// when the persist of `token` is synced, so that the state on disk is never ahead of the log.
    Committed {
        /// The persist that holds the height's [`Record::Committed`]: of this step, or a later one, because
        /// nothing on the path waits for it.
        token: Token,
        /// Height.
        height: Height,
        /// The header.
        header: Header,
        /// Its certificate.
        certificate: Certificate,
        /// Digest of the proposal.
        digest: Hash,
        /// The proposal.
        proposal: Arc<Proposal>,
    },
    /// The speculative state of this proposal is not needed any more; an execution under way may be
    /// cancelled, and its outcome need not be fed.
    Forget {
        /// Digest of the proposal.
        digest: Hash,
    },
    /// Envelopes of a dropped height that are not in the pool: feed each as [`crate::Input::Request`].
    Returned {
        /// The envelopes.
        envelopes: Vec<Verified<Envelope>>,
    },
    /// A peer asks for committed heights from `from` on, which is at most the committed height: send it
    /// [`PeerMessage::Committed`] out of the log, bounded by `BATCHES_PER_MESSAGE_MAX` heights and
    /// `CATCH_UP_BYTES_TARGET` bytes.
    ServeCommitted {
        /// Who asks.
        to: ReplicaIndex,
        /// First height wanted.
        from: Height,
    },
    /// Feed [`crate::Input::Tick`] at this instant. Replaces the timer asked for before.
    SetTimer {
        /// When.
        at: Monotonic,
    },
    /// This replica must not vote any more; it goes on answering fetches. Raise an alarm.
    Halt {
        /// Why.
        reason: HaltReason,
    },
    /// A replica said under its signature what no correct one says: keep it, and show it to others. Whatever
    /// was seen first stays in force (hazard AU9). At most `EVIDENCE_PER_KIND_MAX` of one kind against one
    /// replica in a run, and one for each place.
    Evidence(Box<Evidence>),
    /// A local observation, and no evidence: the signature of this vote does not hold, and the voter's own
    /// connection brought it. The voter is faulty, but others would have to take this replica's word for it.
    /// The vote is dropped (hazard A13).
    Forged(Vote),
}
