//! Genesis: what a cluster starts from, and whose hash is its identifier.
//!
//! Invariant: two clusters never share an identifier, because genesis holds a random nonce (rule R8).

use crate::operation::PrincipalRights;
use crate::{BatchTime, file::Entropy};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Hash, MemberSet, PublicKey, derive_hash, encode};

/// Version of the genesis format.
pub const GENESIS_VERSION: u8 = 1;

/// Replicated parameters; changed by logged operations only.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Parameters {
    /// Version of the execution rules (rule S10).
    pub rules_version: u32,
    /// Heights that may be in flight beyond the last committed one (W).
    pub window: u16,
    /// Binary logarithm of the block size of new files.
    pub block_log2: u8,
    /// Inline bytes that one content row may hold.
    pub inline_bytes_max: u32,
    /// Nanoseconds of batch time that a session lives without renewal.
    pub session_lifetime: u64,
    /// Nanoseconds of batch time that a released block is kept.
    pub block_grace: u64,
    /// Rows of truncated or unlinked files that one batch reclaims at most.
    pub reclaim_rows_per_batch: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            rules_version: 1,
            window: 4,
            block_log2: 20,
            inline_bytes_max: 16_384,
            session_lifetime: 60_000_000_000,
            block_grace: 600_000_000_000,
            reclaim_rows_per_batch: 256,
        }
    }
}

/// The beginning of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Genesis {
    /// [`GENESIS_VERSION`].
    pub version: u8,
    /// Random.
    pub nonce: [u8; 32],
    /// Batch time of the genesis header.
    pub time: BatchTime,
    /// Members of epoch 0.
    pub members: MemberSet,
    /// Key of the first principal.
    pub principal: PublicKey,
    /// Its rights.
    pub rights: PrincipalRights,
    /// Parameters.
    pub parameters: Parameters,
    /// Owner, group and mode of the root directory.
    pub root: (u32, u32, u16),
    /// Source of the root directory's key (rule S3).
    pub entropy: Entropy,
}

impl Genesis {
    /// The cluster's identifier.
    #[must_use]
    pub fn cluster(&self) -> Hash {
        derive_hash("quorate genesis v1", &[&encode(self)])
    }
}
