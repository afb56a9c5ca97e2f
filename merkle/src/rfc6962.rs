//! The hashes and the tree shape of RFC 6962, section 2.1: SHA-256, 0x00 before a leaf, 0x01 before two
//! children, the hash of nothing for the empty tree.
//!
//! Invariant: receipts, the commit log, and whatever else is an append-only list under a root take their
//! hashes from here, so any RFC 6962 verifier can check them.

use quorate_crypto::Hash;
use sha2::{Digest, Sha256};

const LEAF_PREFIX: [u8; 1] = [0];
const NODE_PREFIX: [u8; 1] = [1];

/// The root of the empty tree: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Hash(Sha256::digest([]).into())
}

/// The hash of a leaf.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update(LEAF_PREFIX).chain_update(leaf).finalize().into())
}

/// The hash of an inner node.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new().chain_update(NODE_PREFIX).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The root over leaf hashes in order. Linear in time; the memory is one hash for each level.
#[must_use]
pub fn root(leaf_hashes: &[Hash]) -> Hash {
    let mut peaks = Vec::new();
    for (index, hash) in (0_u64..).zip(leaf_hashes) {
        push_leaf(&mut peaks, index, *hash);
    }
    fold_peaks(&peaks)
}

/// Adds the leaf of number `size` to the peaks of a tree of `size` leaves: the roots of its complete
/// subtrees, largest first, one for each bit of `size` that is set.
pub(crate) fn push_leaf(peaks: &mut Vec<Hash>, size: u64, leaf_hash: Hash) {
    let mut hash = leaf_hash;
    for _ in 0..size.trailing_ones() {
        let Some(left) = peaks.pop() else { break };
        hash = node_hash(&left, &hash);
    }
    peaks.push(hash);
}

/// The root of the tree with these peaks.
pub(crate) fn fold_peaks(peaks: &[Hash]) -> Hash {
    peaks.iter().rev().copied().reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
}
