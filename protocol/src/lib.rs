//! Canonical encodings of all that is signed, hashed, stored or sent.
//!
//! Holds the types and their digests, and nothing that acts on them. Invariants: every collection is
//! bounded by a constant of [`limits`]; every type is encoded with borsh, so that equal values have
//! equal bytes and `decode` refuses trailing or non-canonical bytes; what is signed is always a
//! [`quorate_crypto::Statement`] over a digest defined here.

pub mod blocks;
pub mod client;
pub mod envelope;
pub mod evidence;
pub mod file;
pub mod genesis;
pub mod header;
pub mod limits;
pub mod log_head;
pub mod operation;
pub mod peer;
pub mod proposal;
pub mod query;
pub mod receipt;
pub mod record;
pub mod time;
pub mod view_change;
pub mod vote;

pub use envelope::{Credential, Envelope, EnvelopeBody, Groups};
pub use evidence::{Evidence, EvidenceKind};
pub use genesis::Genesis;
pub use header::Header;
pub use operation::{Operation, OperationBody};
pub use peer::PeerMessage;
pub use proposal::Proposal;
pub use receipt::{OperationResult, ReceiptLeaf, Reply, SkipReason};
pub use time::{BatchTime, Timestamp};
pub use vote::{PrePrepare, Vote, VoteKind};

/// A height of the chain: 0 is genesis, each committed batch adds one.
pub type Height = u64;
/// A view within an epoch, from 0.
pub type View = u64;
/// An epoch of membership, from 0.
pub type Epoch = u64;
/// The position of a replica in its epoch's member set.
pub type ReplicaIndex = u8;
/// An inode number: 0 is invalid, 1 is the root, below 2^53, never reused.
pub type Ino = u64;
/// A session's identifier: hash(cluster, key, nonce), never reused (rule R8).
pub type SessionId = quorate_crypto::Hash;
/// A session's dense number, given at registration, never reused (rule S1).
pub type SessionNumber = u64;
/// A principal's dense number, given at registration, never reused (rule S1).
pub type PrincipalNumber = u32;
