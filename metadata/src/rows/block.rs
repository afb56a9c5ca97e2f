//! The row of a block: what it is, where it lies, how often it is referred to (rule S5).
//!
//! Invariant: it is released exactly when no segment names it.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::Hash;
use quorate_protocol::blocks::BlockDescriptor;
use quorate_protocol::{BatchTime, Height};

use super::Row;
use crate::context::Moment;

/// When something happened to a block.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Occasion {
    /// The height.
    pub height: Height,
    /// Its batch time.
    pub time: BatchTime,
}

impl From<Moment> for Occasion {
    fn from(moment: Moment) -> Self {
        Self { height: moment.height, time: moment.time }
    }
}

/// Where a block's shards lie. Recoding changes it *(later)*.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Placement {
    /// A whole copy on every replica.
    EveryReplica,
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Block {
    /// The full identifier; the key holds 31 bytes of it.
    pub id: Hash,
    /// What the identifier names.
    pub descriptor: BlockDescriptor,
    /// Where it lies.
    pub placement: Placement,
    /// Segments that name it.
    pub count: u64,
    /// When it was first referred to.
    pub born: Occasion,
    /// Since when nothing refers to it.
    pub released: Option<Occasion>,
}

impl Row for Block {
    const DAMAGED: &'static str = "a block's row does not decode";

    fn valid(&self) -> bool {
        (self.count == 0) == self.released.is_some()
    }
}
