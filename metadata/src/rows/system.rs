//! The rows of the system tables that the filesystem itself keeps.
//!
//! Invariant: totals equal what a scan of the state would count, after every operation. Rows of sessions,
//! principals and members belong to the executor.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::Hash;
use quorate_protocol::genesis::Parameters;

use super::Row;

/// What the filesystem holds in all.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Totals {
    /// Inodes, those that wait to be reclaimed included.
    pub inodes: u64,
    /// Bytes that segments cover, over all files.
    pub bytes: u64,
    /// Blocks, released ones within their grace included.
    pub blocks: u64,
    /// Bytes of those blocks, each counted once.
    pub block_bytes: u64,
}

impl Row for Totals {
    const DAMAGED: &'static str = "the totals do not decode";
}

/// A counter.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CounterRow {
    /// The number that is given out next.
    pub next: u64,
}

impl Row for CounterRow {
    const DAMAGED: &'static str = "a counter does not decode";
}

/// The replicated parameters.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ParametersRow {
    /// They.
    pub parameters: Parameters,
}

impl Row for ParametersRow {
    const DAMAGED: &'static str = "the parameters do not decode";
}

/// A row whose key says everything.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Presence;

impl Row for Presence {
    const DAMAGED: &'static str = "a row that should be empty is not";
}

/// A block that nothing refers to.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Released {
    /// Its full identifier.
    pub id: Hash,
}

impl Row for Released {
    const DAMAGED: &'static str = "a released block's row does not decode";
}
