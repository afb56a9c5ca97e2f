//! The row of a session's open grants on an inode (rule S6).
//!
//! Invariant: grants ascend strictly by (read, write, uid, gid), none has a count of zero, and a row without
//! grants is not stored.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::Bounded;

use super::Row;

/// Grants of different mode or credential that a session can have on one inode.
pub const GRANTS_PER_ROW_MAX: usize = 64;

/// Opens of one mode by one credential.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Grant {
    /// May read.
    pub read: bool,
    /// May write.
    pub write: bool,
    /// User at the open.
    pub uid: u32,
    /// Group at the open.
    pub gid: u32,
    /// How many opens.
    pub count: u32,
}

impl Grant {
    /// By what grants are ordered and told apart.
    #[must_use]
    pub const fn identity(&self) -> (bool, bool, u32, u32) {
        (self.read, self.write, self.uid, self.gid)
    }
}

/// All opens of one session on one inode.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Grants {
    /// In order.
    pub grants: Bounded<Grant, GRANTS_PER_ROW_MAX>,
}

impl Row for Grants {
    const DAMAGED: &'static str = "a row of open grants does not decode";

    fn valid(&self) -> bool {
        !self.grants.is_empty()
            && self.grants.iter().all(|grant| grant.count > 0)
            && self.grants.iter().zip(self.grants.iter().skip(1)).all(|(a, b)| a.identity() < b.identity())
    }
}
