//! Headers: what a commit certificate certifies.
//!
//! Invariant: a header is a pure function of its parent state and its proposal: no view, no signature.

use crate::{BatchTime, Epoch, Height};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Hash, derive_hash, encode};

/// Version of the header format.
pub const HEADER_VERSION: u8 = 1;

/// The certified summary of a height.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// [`HEADER_VERSION`].
    pub version: u8,
    /// The cluster's identifier; zeros in the genesis header, whose hash it depends on.
    pub cluster: Hash,
    /// Epoch.
    pub epoch: Epoch,
    /// Height.
    pub height: Height,
    /// Batch time.
    pub time: BatchTime,
    /// Hash of the header below; zeros in the genesis header.
    pub previous: Hash,
    /// Digest of the proposal; of the genesis in the genesis header.
    pub proposal: Hash,
    /// Root of the state trie after the batch (rule S2).
    pub state_root: Hash,
    /// RFC 6962 root of the receipts, one leaf per operation, skipped ones included.
    pub receipts_root: Hash,
    /// Global number of the batch's first operation (rule S8).
    pub first_operation: u64,
    /// Operations of the batch, and leaves of the receipts tree.
    pub operation_count: u32,
    /// RFC 6962 root over the headers 0 to height - 1 (rule R6).
    pub log_root: Hash,
    /// Digest of the member set that votes at height + 1 (rule R7).
    pub members: Hash,
    /// RFC 6962 root of what the batch touched, by realm (rule S9).
    pub touched_root: Hash,
    /// Leaves of the touched tree.
    pub touched_count: u32,
}

impl Header {
    /// The hash that PREPARE and COMMIT sign.
    #[must_use]
    pub fn hash(&self) -> Hash {
        derive_hash("quorate header v1", &[&encode(self)])
    }
}
