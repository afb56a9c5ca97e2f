//! Inclusion and consistency proofs of the commit log, as in RFC 6962 sections 2.1.1 and 2.1.2.
//!
//! Invariant: a verifier consumes exactly the hashes that index and sizes require; a proof that is shorter or
//! longer is refused, whatever root it leads to.

use quorate_crypto::Hash;

use super::{LOG_SIZE_MAX, LogError};
use crate::rfc6962::{empty_root, node_hash, root};

/// Most hashes in any proof: one for each level of a log of [`LOG_SIZE_MAX`] leaves, and one to start from.
pub const LOG_PROOF_HASHES_MAX: usize = 49;

/// The larger complete part, on the left, of a tree with `count` >= 2 leaves.
fn split<T>(leaves: &[T]) -> (&[T], &[T]) {
    let left = leaves.len().next_power_of_two() >> 1;
    leaves.split_at_checked(left).unwrap_or((leaves, &[]))
}

/// The proof that leaf `index` is in the tree over these leaf hashes, from the leaf upward. Linear in time.
///
/// # Errors
/// [`LogError::OutOfRange`], [`LogError::Size`].
pub fn inclusion_proof(leaf_hashes: &[Hash], index: u64) -> Result<Vec<Hash>, LogError> {
    let mut index = bounded_index(leaf_hashes, index)?;
    if index >= leaf_hashes.len() {
        return Err(LogError::OutOfRange);
    }
    let mut leaves = leaf_hashes;
    let mut path = Vec::new();
    while leaves.len() > 1 {
        let (left, right) = split(leaves);
        match index.checked_sub(left.len()) {
            None => {
                path.push(root(right));
                leaves = left;
            }
            Some(rest) => {
                path.push(root(left));
                leaves = right;
                index = rest;
            }
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree over the first `old_size` of these leaf hashes is a prefix of the tree over all.
/// Empty when the sizes are equal or the older is zero. Linear in time.
///
/// # Errors
/// [`LogError::OutOfRange`], [`LogError::Size`].
pub fn consistency_proof(leaf_hashes: &[Hash], old_size: u64) -> Result<Vec<Hash>, LogError> {
    let mut old_size = bounded_index(leaf_hashes, old_size)?;
    let mut path = Vec::new();
    if old_size > leaf_hashes.len() {
        return Err(LogError::OutOfRange);
    }
    if old_size == 0 {
        return Ok(path);
    }
    let mut leaves = leaf_hashes;
    // Whether the older root itself is what is left: the verifier knows it.
    let mut known = true;
    while old_size != leaves.len() {
        let (left, right) = split(leaves);
        match old_size.checked_sub(left.len()) {
            Some(rest) if rest > 0 => {
                path.push(root(left));
                leaves = right;
                old_size = rest;
                known = false;
            }
            _ => {
                path.push(root(right));
                leaves = left;
            }
        }
    }
    if !known {
        path.push(root(leaves));
    }
    path.reverse();
    Ok(path)
}

fn bounded_index(leaf_hashes: &[Hash], index: u64) -> Result<usize, LogError> {
    if u64::try_from(leaf_hashes.len()).map_or(true, |size| size > LOG_SIZE_MAX) {
        return Err(LogError::Size);
    }
    usize::try_from(index).map_err(|_| LogError::OutOfRange)
}

/// Climbs from a node to the root, level by level, along the path of the last leaf of an older tree.
struct Climb {
    /// The number of the node within its level.
    node: u64,
    /// The number of the last node of that level.
    last: u64,
}

impl Climb {
    fn up(&mut self) {
        self.node >>= 1;
        self.last >>= 1;
    }

    /// Goes up one hash; whether that hash stands on the left. Levels on which the node has no sibling are
    /// passed without one.
    fn step(&mut self) -> Result<bool, LogError> {
        if self.last == 0 {
            return Err(LogError::WrongLength);
        }
        let on_the_left = self.node & 1 == 1 || self.node == self.last;
        if on_the_left {
            while self.node & 1 == 0 && self.node != 0 {
                self.up();
            }
        }
        self.up();
        Ok(on_the_left)
    }

    fn finish(&self) -> Result<(), LogError> {
        if self.last == 0 { Ok(()) } else { Err(LogError::WrongLength) }
    }
}

/// Checks that the leaf with this hash stands at `index` in the log of `size` leaves under `log_root`.
///
/// # Errors
/// [`LogError`]; all but [`LogError::Size`] are the fault of the proof's sender.
pub fn verify_inclusion(
    log_root: &Hash,
    size: u64,
    index: u64,
    leaf_hash: &Hash,
    proof: &[Hash],
) -> Result<(), LogError> {
    if size > LOG_SIZE_MAX {
        return Err(LogError::Size);
    }
    let last = size.checked_sub(1).filter(|last| index <= *last).ok_or(LogError::OutOfRange)?;
    if proof.len() > LOG_PROOF_HASHES_MAX {
        return Err(LogError::WrongLength);
    }
    let mut climb = Climb { node: index, last };
    let mut hash = *leaf_hash;
    for other in proof {
        hash = if climb.step()? { node_hash(other, &hash) } else { node_hash(&hash, other) };
    }
    climb.finish()?;
    if hash == *log_root { Ok(()) } else { Err(LogError::RootMismatch) }
}

/// Checks that the log of `old_size` leaves under `old_root` is a prefix of the log of `new_size` leaves
/// under `new_root`.
///
/// # Errors
/// [`LogError`]; all but [`LogError::Size`] are the fault of the proof's sender.
pub fn verify_consistency(
    old_root: &Hash,
    old_size: u64,
    new_root: &Hash,
    new_size: u64,
    proof: &[Hash],
) -> Result<(), LogError> {
    if new_size > LOG_SIZE_MAX {
        return Err(LogError::Size);
    }
    if old_size > new_size {
        return Err(LogError::OutOfRange);
    }
    if proof.len() > LOG_PROOF_HASHES_MAX {
        return Err(LogError::WrongLength);
    }
    if old_size == 0 || old_size == new_size {
        let expected = if old_size == 0 { empty_root() } else { *new_root };
        // Two empty logs have one root.
        let equal = *old_root == expected && (new_size > 0 || *new_root == expected);
        return match (proof, equal) {
            ([], true) => Ok(()),
            ([], false) => Err(LogError::RootMismatch),
            _ => Err(LogError::WrongLength),
        };
    }
    // Start at the largest complete subtree that ends the older log: the older root itself, or the first
    // hash.
    let mut climb = Climb { node: old_size.wrapping_sub(1), last: new_size.wrapping_sub(1) };
    while climb.node & 1 == 1 {
        climb.up();
    }
    let (start, path) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(LogError::WrongLength)?
    };
    let (mut old_hash, mut new_hash) = (*start, *start);
    for other in path {
        if climb.step()? {
            old_hash = node_hash(other, &old_hash);
            new_hash = node_hash(other, &new_hash);
        } else {
            new_hash = node_hash(&new_hash, other);
        }
    }
    climb.finish()?;
    if old_hash == *old_root && new_hash == *new_root { Ok(()) } else { Err(LogError::RootMismatch) }
}
