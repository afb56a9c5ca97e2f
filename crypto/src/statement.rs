//! The signed statement: the one shape of everything that a replica or a client signs for others.
//!
//! Invariant: the preimage has a fixed width and binds domain, cluster, epoch, type, view, height and
//! digest, so a signature can stand for exactly one statement.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::hash::Hash;

/// First bytes of every preimage, padded with zeros. Its length is part of the format.
pub const STATEMENT_DOMAIN: &[u8; 32] = b"quorate statement v1\0\0\0\0\0\0\0\0\0\0\0\0";

/// Bytes in a statement's preimage: domain 32, cluster 32, epoch 8, type 1, view 8, height 8, digest 32.
pub const STATEMENT_BYTES: usize = 121;

/// What a statement says. The number is signed, so a body cannot be passed off as another type.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum StatementKind {
    /// The leader of (epoch, view) proposes the batch with this digest at this height; no vote.
    PrePrepare = 1,
    /// First vote for the header with this hash.
    Prepare = 2,
    /// Second vote: the signer holds a durable prepare certificate for the header with this hash.
    Commit = 3,
    /// The signer has left every view below this one; the digest covers its claim.
    ViewChange = 4,
    /// The leader of this view opens it; the digest covers base and claims.
    NewView = 5,
    /// The leader of this view gives it up.
    Resign = 6,
    /// The signer asks to leave this view; may be taken back.
    Suspect = 7,
    /// A principal asks for the operations with this digest.
    Envelope = 8,
    /// A replica promises to keep the blocks under this root.
    BlockReceipt = 9,
    /// A connection belongs to the holder of the key; the digest covers the channel.
    ConnectionProof = 11,
}

impl StatementKind {
    /// The number under which the type is signed.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// What a signature covers. Fields without meaning for a type are zero.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Statement {
    /// Cluster id: the genesis hash.
    pub cluster: Hash,
    /// Epoch of the member set that the signer acts in; zero for what names no epoch.
    pub epoch: u64,
    /// What is said.
    pub kind: StatementKind,
    /// View within the epoch.
    pub view: u64,
    /// Height in the chain of headers.
    pub height: u64,
    /// Digest of what is stated.
    pub digest: Hash,
}

impl Statement {
    /// The bytes that are signed; integers are little-endian.
    pub fn preimage(&self) -> [u8; STATEMENT_BYTES] {
        let mut bytes = [0; STATEMENT_BYTES];
        let kind = [self.kind.number()];
        let epoch = self.epoch.to_le_bytes();
        let view = self.view.to_le_bytes();
        let height = self.height.to_le_bytes();
        let fields: [&[u8]; 7] =
            [STATEMENT_DOMAIN, &self.cluster.0, &epoch, &kind, &view, &height, &self.digest.0];
        // The widths of the fields add up to the array, which `preimage_fills_every_byte` tests.
        let mut rest = bytes.as_mut_slice();
        for field in fields {
            let Some((target, after)) = rest.split_at_mut_checked(field.len()) else { break };
            target.copy_from_slice(field);
            rest = after;
        }
        bytes
    }
}
