//! Proposals: what a leader orders at a height.
//!
//! Invariant: a proposal's digest names cluster, epoch and height but no view, so a later view
//! proposes the same bytes again under the same digest (rule R1). Operations are counted while they are read, so
//! that small ones in large numbers never take up many times their bytes (hazard A12).

use std::io::{self, Read};

use crate::limits::{ENVELOPES_PER_PROPOSAL_MAX, OPERATIONS_PER_PROPOSAL_MAX};
use crate::{BatchTime, Envelope, Epoch, Height};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, Hash, derive_hash, encode};

/// A batch of envelopes on top of a parent.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct Proposal {
    /// Digest of the parent proposal; of the genesis for height 1.
    pub parent: Hash,
    /// Batch time (rule S8).
    pub time: BatchTime,
    /// The envelopes, in order of execution; empty in a null batch.
    pub envelopes: Bounded<Envelope, ENVELOPES_PER_PROPOSAL_MAX>,
}

impl BorshDeserialize for Proposal {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        let parent = Hash::deserialize_reader(reader)?;
        let time = BatchTime::deserialize_reader(reader)?;
        let length = u32::deserialize_reader(reader)?;
        if usize::try_from(length).unwrap_or(usize::MAX) > ENVELOPES_PER_PROPOSAL_MAX {
            return Err(malformed("more envelopes than a proposal may have"));
        }
        let mut envelopes = Bounded::new();
        let mut operations = 0_usize;
        for _ in 0..length {
            let envelope = Envelope::deserialize_reader(reader)?;
            operations = operations.saturating_add(envelope.body.operations.len());
            if operations > OPERATIONS_PER_PROPOSAL_MAX {
                return Err(malformed("more operations than a proposal may have"));
            }
            envelopes.push(envelope).map_err(malformed)?;
        }
        Ok(Self { parent, time, envelopes })
    }
}

fn malformed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
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
