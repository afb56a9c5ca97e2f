//! The errors of this crate, each of which says whose fault it is.

use crate::key::Key;

/// What was asked for lies behind a stub or under a pruned value, so this copy of the trie cannot answer.
///
/// Never an absence. A full trie never returns it. On a copy that a peer sent it is the peer's fault if the
/// question was the one that was sent; otherwise the caller asks for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pruned copy does not hold what key {0} needs")]
pub struct Missing(
    /// The key, or in a scan the lowest key from which on it cannot be told what follows.
    pub Key,
);

/// Why a pruned copy could not be made: the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProveError {
    /// The trie is itself a pruned copy and lacks what the question touches.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The answer would have more nodes than [`PROOF_NODES_MAX`](crate::PROOF_NODES_MAX).
    #[error("the pruned copy would exceed the bound on nodes")]
    TooManyNodes,
    /// The answer would have more bytes than [`PROOF_BYTES_MAX`](crate::PROOF_BYTES_MAX).
    #[error("the pruned copy would exceed the bound on bytes")]
    TooManyBytes,
}

/// Why the bytes of a pruned copy were refused: the fault of the peer (or disk) that they came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// More bytes than [`PROOF_BYTES_MAX`](crate::PROOF_BYTES_MAX).
    #[error("the proof exceeds the bound on bytes")]
    TooManyBytes,
    /// More nodes than [`PROOF_NODES_MAX`](crate::PROOF_NODES_MAX).
    #[error("the proof exceeds the bound on nodes")]
    TooManyNodes,
    /// The bytes end inside a node, or before the last node.
    #[error("the proof is truncated")]
    Truncated,
    /// Bytes follow the last node.
    #[error("the proof has trailing bytes")]
    Trailing,
    /// The first byte names a format that this build does not know.
    #[error("unknown proof format {0}")]
    UnknownFormat(u8),
    /// A node begins with an unknown tag, or the empty trie is the child of a node.
    #[error("unknown node tag {0}")]
    UnknownTag(u8),
    /// An inner node's bit is not above that of its parent.
    #[error("bits do not rise along a path")]
    BitNotRising,
    /// A leaf's key contradicts the bit or the prefix of an ancestor, or the order of the leaves.
    #[error("a leaf is at the wrong place")]
    LeafMisplaced,
    /// An inner node of two stubs: not the canonical form, which is one stub.
    #[error("an inner node reveals nothing")]
    PairOfStubs,
    /// The root is a stub: nothing is revealed.
    #[error("the root is a stub")]
    LoneStub,
    /// The root of the copy is not the certified one.
    #[error("the proof does not lead to the certified root")]
    RootMismatch,
}
