//! Heads of the log of headers, as replicas sign and serve them.
//!
//! Invariant: what is here is a claim until its signatures were checked over the text that `quorate-audit`
//! makes of it; a head of size s is the RFC 6962 root over the headers 0 to s - 1 (rule R6).

use crate::limits::LOG_HEADS_MAX;
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, Hash, Signature};

/// How much of the log there is, and the root over it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct LogHead {
    /// Number of headers: the height of the last one, and one.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Hash,
}

/// A head under both signatures of a replica.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedLogHead {
    /// The head.
    pub head: LogHead,
    /// Note signature (type 0x01) under the replica's `log_note` key.
    pub note: Signature,
    /// When the cosignature was made, in seconds since 1970 by the replica's clock.
    pub time: u64,
    /// Cosignature (type 0x04) under the replica's `log_cosignature` key; covers the time.
    pub cosignature: Signature,
}

/// The last heads that a replica signed, ascending by size.
pub type SignedLogHeads = Bounded<SignedLogHead, LOG_HEADS_MAX>;
