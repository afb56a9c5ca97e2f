//! The tree over the receipts of one batch: built by rs_merkle, checked behind a strict wrapper.
//!
//! Invariant: a path is accepted only for indices that ascend strictly below the leaf count of the signed
//! header, and only at the exact length that these require. rs_merkle alone accepts duplicate indices,
//! ignores surplus hashes and believes any leaf count; `tests/receipts.rs` keeps these forgeries. It promotes
//! a node without a sibling unchanged, which is the shape of RFC 6962.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, Hash};
use rs_merkle::{Hasher, MerkleProof, MerkleTree};

use crate::rfc6962;

/// Most receipts of one batch.
pub const RECEIPTS_MAX: u32 = 1 << 20;
/// Most receipts that one path can prove together.
pub const PATH_INDICES_MAX: usize = 1024;
/// Most hashes in a path: 1024 scattered indices share the upper ten levels of twenty.
pub const PATH_HASHES_MAX: usize = 10 * 1024;

/// Why a receipts tree was not built, or a path was not made or not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptsError {
    /// More leaves than [`RECEIPTS_MAX`]: the caller's fault.
    #[error("too many receipts in one batch")]
    TooManyLeaves,
    /// No index, or more than [`PATH_INDICES_MAX`], or not one leaf for each: the caller's fault.
    #[error("the number of indices is out of bounds")]
    IndexCount,
    /// Indices are unsorted or occur twice.
    #[error("the indices do not ascend strictly")]
    NotAscending,
    /// An index is not below the leaf count.
    #[error("an index lies beyond the batch")]
    OutOfRange,
    /// The path does not have the length that indices and leaf count require: its sender's fault.
    #[error("the path has the wrong length")]
    WrongLength,
    /// The path does not lead to the root: its sender's fault.
    #[error("the path does not lead to the root")]
    RootMismatch,
}

/// RFC 6962's hashes as rs_merkle wants them.
#[derive(Clone)]
struct Rfc6962;

impl Hasher for Rfc6962 {
    type Hash = [u8; 32];

    fn hash(data: &[u8]) -> [u8; 32] {
        rfc6962::leaf_hash(data).0
    }

    fn concat_and_hash(left: &[u8; 32], right: Option<&[u8; 32]>) -> [u8; 32] {
        right.map_or(*left, |right| rfc6962::node_hash(&Hash(*left), &Hash(*right)).0)
    }
}

/// The hashes that lead from receipts to the root: level by level from the leaves, left to right.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct InclusionPath {
    /// The hashes of the siblings that the receipts themselves do not give.
    pub hashes: Bounded<Hash, PATH_HASHES_MAX>,
}

/// The receipts of one batch under their root.
#[derive(Clone)]
pub struct ReceiptsTree {
    tree: MerkleTree<Rfc6962>,
    count: u32,
}

impl ReceiptsTree {
    /// Builds the tree over leaf hashes, as [`rfc6962::leaf_hash`] makes them.
    ///
    /// # Errors
    /// [`ReceiptsError::TooManyLeaves`].
    pub fn new(leaf_hashes: Vec<Hash>) -> Result<Self, ReceiptsError> {
        let count = u32::try_from(leaf_hashes.len()).ok().filter(|count| *count <= RECEIPTS_MAX);
        let count = count.ok_or(ReceiptsError::TooManyLeaves)?;
        let leaves: Vec<[u8; 32]> = leaf_hashes.into_iter().map(|hash| hash.0).collect();
        Ok(ReceiptsTree { tree: MerkleTree::from_leaves(&leaves), count })
    }

    /// Builds the tree over the encodings of receipts.
    ///
    /// # Errors
    /// [`ReceiptsError::TooManyLeaves`].
    pub fn from_leaves<L: AsRef<[u8]>>(leaves: impl IntoIterator<Item = L>) -> Result<Self, ReceiptsError> {
        Self::new(leaves.into_iter().map(|leaf| rfc6962::leaf_hash(leaf.as_ref())).collect())
    }

    /// The root, SHA-256 of nothing when there is no receipt.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.tree.root().map_or_else(rfc6962::empty_root, Hash)
    }

    /// The number of leaves, which belongs into the signed header.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The path of one receipt.
    ///
    /// # Errors
    /// [`ReceiptsError::OutOfRange`].
    pub fn prove(&self, index: u32) -> Result<InclusionPath, ReceiptsError> {
        self.prove_many(&[index])
    }

    /// The one path of several receipts, whose indices ascend strictly.
    ///
    /// # Errors
    /// [`ReceiptsError`] when the indices are not as they should be.
    pub fn prove_many(&self, indices: &[u32]) -> Result<InclusionPath, ReceiptsError> {
        let indices = checked_indices(indices, self.count)?;
        let hashes =
            self.tree.proof(&indices).proof_hashes().iter().map(|hash| Hash(*hash)).collect::<Vec<_>>();
        let hashes = Bounded::try_from(hashes).map_err(|_| ReceiptsError::WrongLength)?;
        Ok(InclusionPath { hashes })
    }
}

/// Checks that `leaf` is the receipt number `index` among `count`, where `root` and `count` are those of a
/// certified header.
///
/// # Errors
/// [`ReceiptsError`], the fault of the path's sender.
pub fn verify_inclusion(
    root: &Hash,
    index: u32,
    count: u32,
    leaf: &[u8],
    path: &InclusionPath,
) -> Result<(), ReceiptsError> {
    verify_inclusion_of_many(root, count, &[(index, leaf)], path)
}

/// Checks that the leaves are the receipts of these numbers, which ascend strictly, among `count`.
///
/// # Errors
/// [`ReceiptsError`], the fault of the path's sender.
pub fn verify_inclusion_of_many(
    root: &Hash,
    count: u32,
    leaves: &[(u32, &[u8])],
    path: &InclusionPath,
) -> Result<(), ReceiptsError> {
    if count > RECEIPTS_MAX {
        return Err(ReceiptsError::TooManyLeaves);
    }
    if leaves.len() > PATH_INDICES_MAX {
        return Err(ReceiptsError::IndexCount);
    }
    let indices: Vec<u32> = leaves.iter().map(|(index, _)| *index).collect();
    let indices = checked_indices(&indices, count)?;
    if path.hashes.len() != required_hashes(&indices, count) {
        return Err(ReceiptsError::WrongLength);
    }
    let leaf_hashes: Vec<[u8; 32]> = leaves.iter().map(|(_, leaf)| rfc6962::leaf_hash(leaf).0).collect();
    let proof = MerkleProof::<Rfc6962>::new(path.hashes.iter().map(|hash| hash.0).collect());
    let count = usize::try_from(count).map_err(|_| ReceiptsError::TooManyLeaves)?;
    match proof.root(&indices, &leaf_hashes, count) {
        Ok(computed) if computed == root.0 => Ok(()),
        Ok(_) => Err(ReceiptsError::RootMismatch),
        Err(_) => Err(ReceiptsError::WrongLength),
    }
}

/// The indices as rs_merkle takes them, once they ascend strictly below `count`.
fn checked_indices(indices: &[u32], count: u32) -> Result<Vec<usize>, ReceiptsError> {
    if indices.is_empty() || indices.len() > PATH_INDICES_MAX {
        return Err(ReceiptsError::IndexCount);
    }
    if !indices.iter().is_sorted_by(|a, b| a < b) {
        return Err(ReceiptsError::NotAscending);
    }
    if indices.last().is_none_or(|last| *last >= count) {
        return Err(ReceiptsError::OutOfRange);
    }
    indices.iter().map(|index| usize::try_from(*index).map_err(|_| ReceiptsError::OutOfRange)).collect()
}

/// How many hashes a path of these checked indices has: on each level the siblings that exist and are neither
/// leaves of the question nor computed from them.
fn required_hashes(indices: &[usize], count: u32) -> usize {
    let mut nodes = indices.to_vec();
    let mut width = usize::try_from(count).unwrap_or(usize::MAX);
    let mut required = 0_usize;
    while width > 1 {
        let missing = |node: &&usize| {
            let sibling = **node ^ 1;
            sibling < width && nodes.binary_search(&sibling).is_err()
        };
        required = required.saturating_add(nodes.iter().filter(missing).count());
        nodes.iter_mut().for_each(|node| *node >>= 1);
        nodes.dedup();
        width = width.div_ceil(2);
    }
    required
}
