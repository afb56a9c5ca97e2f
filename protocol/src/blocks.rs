//! Blocks of file content outside consensus: identifiers, descriptors, receipts (rule S5).
//!
//! Invariant: a block's identifier is a hash of its descriptor, and the descriptor holds the hash of
//! the content, so whoever holds a certified reference can check the bytes alone.

use crate::limits::{BLOCKS_PER_RECEIPT_MAX, PATH_HASHES_MAX};
use crate::{BatchTime, Epoch, ReplicaIndex, SessionId};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, Hash, Signature, Statement, StatementKind, derive_hash, encode};

/// How a block is spread over the replicas.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Coding {
    /// Every replica holds the whole block.
    Copies,
}

/// What a block's identifier names (rule S5).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockDescriptor {
    /// Coding.
    pub coding: Coding,
    /// Transformation of the content before coding: 0 none.
    pub transform: u8,
    /// Shards that suffice; 1 for copies.
    pub k: u16,
    /// Shards in all; for copies 1, whatever the number of replicas.
    pub n: u16,
    /// Bytes of the original content, at most `BLOCK_BYTES_MAX`.
    pub length: u32,
    /// Plain BLAKE3 of the original content, so that ranges verify.
    pub content_root: Hash,
    /// Root over the shards; zeros for copies.
    pub shard_root: Hash,
}

impl BlockDescriptor {
    /// The descriptor of whole copies of `content`.
    #[must_use]
    pub fn copies(content: &[u8]) -> Self {
        Self {
            coding: Coding::Copies,
            transform: 0,
            k: 1,
            n: 1,
            length: u32::try_from(content.len()).unwrap_or(u32::MAX),
            content_root: Hash(*blake3::hash(content).as_bytes()),
            shard_root: Hash::ZERO,
        }
    }

    /// The block's identifier.
    #[must_use]
    pub fn id(&self) -> Hash {
        derive_hash("quorate block v1", &[&encode(self)])
    }
}

/// What a replica promises when it has synced blocks: one signature for many.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockReceiptBody {
    /// The session that may use the receipt.
    pub session: SessionId,
    /// Batch time until which the promise holds.
    pub expires: BatchTime,
    /// Number of blocks.
    pub count: u32,
    /// RFC 6962 root over (id, length) of each block.
    pub root: Hash,
}

/// A signed block receipt. The blocks are named beside it, in the order of its tree.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockReceipt {
    /// Epoch of the signer.
    pub epoch: Epoch,
    /// The signer.
    pub replica: ReplicaIndex,
    /// The promise.
    pub body: BlockReceiptBody,
    /// Under the signer's block key.
    pub signature: Signature,
}

impl BlockReceipt {
    /// What the signature covers.
    #[must_use]
    pub fn statement(cluster: Hash, epoch: Epoch, body: &BlockReceiptBody) -> Statement {
        Statement {
            cluster,
            epoch,
            kind: StatementKind::BlockReceipt,
            view: 0,
            height: 0,
            digest: derive_hash("quorate block receipt v1", &[&encode(body)]),
        }
    }
}

/// A block that an operation refers to, with the proof that a quorum holds it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockGrant {
    /// The block.
    pub descriptor: BlockDescriptor,
    /// Its position in the receipts' trees.
    pub index: u32,
    /// The path from it to the receipts' root.
    pub path: Bounded<Hash, PATH_HASHES_MAX>,
}

/// The blocks and receipts that one write brings.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockEvidence {
    /// The blocks, each with its path.
    pub blocks: Bounded<BlockGrant, BLOCKS_PER_RECEIPT_MAX>,
    /// Receipts of distinct replicas, all over one root.
    pub receipts: Bounded<BlockReceipt, { crate::limits::REPLICAS_MAX }>,
}

/// The leaf of a block in a receipt's tree.
#[must_use]
pub fn receipt_leaf(id: &Hash, length: u32) -> Vec<u8> {
    let mut leaf = Vec::with_capacity(36);
    leaf.extend_from_slice(&id.0);
    leaf.extend_from_slice(&length.to_le_bytes());
    leaf
}
