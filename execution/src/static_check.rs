//! What is wrong with a proposal or an envelope whatever the state is: the only reasons to refuse a vote.
//!
//! Invariant (rule R5): a fault found here depends on the bytes and on the parent's header alone, so every
//! correct replica finds the same one. Whatever depends on the state is skipped with a receipt instead. The
//! door applies [`check_envelope`] before an envelope reaches the pool, so an honest leader never proposes
//! one that [`check_static`] refuses.

use std::collections::BTreeSet;

use quorate_crypto::Hash;
use quorate_protocol::limits::{ENVELOPE_BYTES_MAX, OPERATIONS_PER_PROPOSAL_MAX, PROPOSAL_BYTES_MAX};
use quorate_protocol::{BatchTime, Envelope, Header, Height, Proposal};

/// Encoded bytes of a proposal without its envelopes: parent, time, count.
const PROPOSAL_FRAME_BYTES: usize = 32 + 8 + 4;

/// Why a proposal or an envelope is refused: the fault of whoever made it, a leader or a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaticFault {
    /// Not the height above the parent.
    #[error("a proposal for height {proposed} on top of height {parent}")]
    Height {
        /// Height of the parent.
        parent: Height,
        /// Height asked for.
        proposed: Height,
    },
    /// It names another parent.
    #[error("the proposal names another parent")]
    Parent,
    /// Below the parent's time plus one nanosecond for each of its operations (rule S8).
    #[error("batch time {} is below the minimum {}", .proposed.0, .minimum.0)]
    TimeTooEarly {
        /// Lowest time allowed.
        minimum: BatchTime,
        /// Time of the proposal.
        proposed: BatchTime,
    },
    /// The times of its operations, or of what comes after, would leave the range of batch time.
    #[error("batch time {} leaves the range", .0.0)]
    TimeTooLate(BatchTime),
    /// The log of headers has no room for the parent; a cluster does not live that long.
    #[error("the log of headers is full")]
    LogFull,
    /// More encoded bytes than [`PROPOSAL_BYTES_MAX`].
    #[error("the proposal has {0} bytes")]
    ProposalBytes(usize),
    /// More operations than [`OPERATIONS_PER_PROPOSAL_MAX`].
    #[error("the proposal has {0} operations")]
    ProposalOperations(usize),
    /// The same envelope twice.
    #[error("envelope {0} stands in the proposal twice")]
    RepeatedEnvelope(usize),
    /// An envelope of another cluster.
    #[error("envelope of another cluster")]
    ForeignCluster,
    /// An envelope without operations.
    #[error("envelope without operations")]
    EmptyEnvelope,
    /// More encoded bytes than [`ENVELOPE_BYTES_MAX`].
    #[error("the envelope has {0} bytes")]
    EnvelopeBytes(usize),
    /// Its sequence numbers run over the end.
    #[error("the sequence numbers from {0} on run over")]
    SequenceOverflow(u64),
}

/// Latest batch time: what can be added to it in one batch still fits.
pub const BATCH_TIME_MAX: BatchTime = BatchTime(u64::MAX >> 1);

/// The lowest time that a proposal on top of `parent` may carry, and always may (rule S8).
#[must_use]
pub fn minimum_time(parent: &Header) -> BatchTime {
    parent.time.plus(u64::from(parent.operation_count).max(1))
}

/// Checks an envelope by itself. Its signature is another matter: [`Envelope::verify`].
///
/// # Errors
/// [`StaticFault`], the client's.
pub fn check_envelope(cluster: &Hash, envelope: &Envelope) -> Result<(), StaticFault> {
    envelope_bytes(cluster, envelope).map(drop)
}

/// Checks a proposal for `height` on top of the height that `parent` certifies.
///
/// # Errors
/// [`StaticFault`], the leader's.
pub fn check_static(
    cluster: &Hash,
    parent: &Header,
    height: Height,
    proposal: &Proposal,
) -> Result<(), StaticFault> {
    checked_digests(cluster, parent, height, proposal).map(drop)
}

/// As [`check_static`], with the digests of the envelopes, which execution needs.
pub(crate) fn checked_digests(
    cluster: &Hash,
    parent: &Header,
    height: Height,
    proposal: &Proposal,
) -> Result<Vec<Hash>, StaticFault> {
    if parent.height.checked_add(1) != Some(height) {
        return Err(StaticFault::Height { parent: parent.height, proposed: height });
    }
    if proposal.parent != parent.proposal {
        return Err(StaticFault::Parent);
    }
    let minimum = minimum_time(parent);
    if proposal.time < minimum {
        return Err(StaticFault::TimeTooEarly { minimum, proposed: proposal.time });
    }
    if proposal.time > BATCH_TIME_MAX {
        return Err(StaticFault::TimeTooLate(proposal.time));
    }
    check_sizes(cluster, proposal)?;
    let digests: Vec<Hash> = proposal.envelopes.iter().map(|envelope| envelope.body.digest()).collect();
    let mut seen = BTreeSet::new();
    match digests.iter().position(|digest| !seen.insert(digest)) {
        Some(repeated) => Err(StaticFault::RepeatedEnvelope(repeated)),
        None => Ok(digests),
    }
}

/// The bounds on bytes and operations of the proposal and of each envelope.
fn check_sizes(cluster: &Hash, proposal: &Proposal) -> Result<(), StaticFault> {
    let mut bytes = PROPOSAL_FRAME_BYTES;
    let mut operations = 0_usize;
    for envelope in &proposal.envelopes {
        bytes = bytes.saturating_add(envelope_bytes(cluster, envelope)?);
        operations = operations.saturating_add(envelope.body.operations.len());
    }
    if bytes > PROPOSAL_BYTES_MAX {
        return Err(StaticFault::ProposalBytes(bytes));
    }
    if operations > OPERATIONS_PER_PROPOSAL_MAX {
        return Err(StaticFault::ProposalOperations(operations));
    }
    Ok(())
}

/// The encoded bytes of an envelope that is well formed.
fn envelope_bytes(cluster: &Hash, envelope: &Envelope) -> Result<usize, StaticFault> {
    let body = &envelope.body;
    if body.cluster != *cluster {
        return Err(StaticFault::ForeignCluster);
    }
    if body.operations.is_empty() {
        return Err(StaticFault::EmptyEnvelope);
    }
    // The bound on operations is in their type.
    if body.first.checked_add(body.operations.len() as u64).is_none() {
        return Err(StaticFault::SequenceOverflow(body.first));
    }
    let bytes = borsh::object_length(envelope).unwrap_or(usize::MAX);
    if bytes > ENVELOPE_BYTES_MAX { Err(StaticFault::EnvelopeBytes(bytes)) } else { Ok(bytes) }
}
