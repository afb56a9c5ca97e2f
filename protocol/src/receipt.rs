//! Results of operations and the leaves of the receipts tree.
//!
//! Invariant: every operation of a batch has exactly one leaf, in order, skipped ones included.

use crate::file::Attributes;
use crate::{Height, Ino, SessionId, SessionNumber};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::Hash;

/// Why an envelope was skipped, deterministically and without an effect (rules R5 and R8).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SkipReason {
    /// Its sequence numbers were used before; the first one's result is there, if it is still known.
    Duplicate {
        /// Where the envelope that consumed the number was executed.
        executed: Option<(Height, u32)>,
    },
    /// It starts above the session's next number. Never final: what is missing may still come.
    Gap {
        /// The session's next number.
        next: u64,
    },
    /// It starts below and ends above the session's next number.
    Overlap {
        /// The session's next number.
        next: u64,
    },
    /// No such session, or an ended one.
    UnknownSession,
    /// Its validity ended before this batch's time.
    Expired,
    /// The key is not that of a principal, or was revoked.
    UnknownPrincipal,
    /// The session belongs to another key.
    WrongKey,
    /// A registration whose session exists already, or whose nonce is not its own.
    BadRegistration,
    /// The batch's execution budget was used up before it.
    Budget,
}

/// What a successful operation answers.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Reply {
    /// Nothing to say.
    Empty,
    /// The session's number, and the deadline until which it lives without renewal.
    Registered {
        /// The number.
        session: SessionNumber,
    },
    /// The inode made, changed or opened, as it is after the operation.
    Inode {
        /// Its attributes.
        attributes: Attributes,
        /// Whether this operation created it.
        created: bool,
    },
    /// Bytes were written.
    Written {
        /// Where the first one landed.
        offset: u64,
        /// The inode after the write.
        attributes: Attributes,
    },
    /// A row would exceed its segments: nothing was applied; fold this row and retry (rule S4).
    NeedsFold {
        /// The inode.
        ino: Ino,
        /// The row.
        index: u64,
    },
    /// Rows of an earlier truncation are in the way and were reclaimed in part: retry (rule S4).
    Continue,
}

/// The result of one operation.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum OperationResult {
    /// It was applied.
    Done(Reply),
    /// It failed with a Linux errno; its number is consumed and the state unchanged.
    Failed(u16),
    /// Its envelope was skipped.
    Skipped(SkipReason),
}

/// A leaf of the receipts tree.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReceiptLeaf {
    /// The session.
    pub session: SessionId,
    /// The operation's sequence number.
    pub sequence: u64,
    /// Digest of the envelope that held it.
    pub envelope: Hash,
    /// The operation's index in the envelope.
    pub index: u32,
    /// What came of it.
    pub result: OperationResult,
}
