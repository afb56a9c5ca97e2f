//! Proposals: what a leader orders at a height.
//!
//! Invariant: a proposal's digest names cluster, epoch and height but no view, so a later view
//! proposes the same bytes again under the same digest (rule R1).

use crate::limits::ENVELOPES_PER_PROPOSAL_MAX;
use crate::{BatchTime, Envelope, Epoch, Height};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, Hash, derive_hash, encode};

/// A batch of envelopes on top of a parent.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    /// Digest of the parent proposal; of the genesis for height 1.
    pub parent: Hash,
    /// Batch time (rule S8).
    pub time: BatchTime,
    /// The envelopes, in order of execution; empty in a null batch.
    pub envelopes: Bounded<Envelope, ENVELOPES_PER_PROPOSAL_MAX>,
}

impl Proposal {
    /// The digest that PRE-PREPARE signs and the header names.
    #[must_use]
    pub fn digest(&self, cluster: &Hash, epoch: Epoch, height: Height) -> Hash {
        derive_hash(
            "quorate proposal v1",
            &[&cluster.0, &epoch.to_le_bytes(), &height.to_le_bytes(), &encode(self)],
        )
    }

    /// Operations over all envelopes.
    #[must_use]
    pub fn operation_count(&self) -> u64 {
        self.envelopes
            .iter()
            .map(|envelope| envelope.body.operations.len() as u64)
            .fold(0, u64::saturating_add)
    }
}
