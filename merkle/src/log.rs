//! The commit log as an incremental RFC 6962 tree: its frontier, and proofs over it.
//!
//! Invariant: a frontier holds exactly one peak for each bit set in its size, largest first, so it has one
//! encoding and grows with the logarithm of the log. Appending costs one hash on average.

mod proofs;

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::Hash;

pub use proofs::{
    LOG_PROOF_HASHES_MAX, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion,
};

use crate::rfc6962;

/// Most leaves that a log can hold: 2^48, a million in each second of eight years.
pub const LOG_SIZE_MAX: u64 = 1 << 48;

/// What is wrong with a question to the log, or with an answer about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The log holds [`LOG_SIZE_MAX`] leaves, or a size above that was named.
    #[error("the size of the log is out of bounds")]
    Size,
    /// The leaf or the older size asked for lies beyond the log: the caller's fault, or in a proof its
    /// sender's.
    #[error("the index or older size lies beyond the log")]
    OutOfRange,
    /// The proof does not have the length that index and sizes require: its sender's fault.
    #[error("the log proof has the wrong length")]
    WrongLength,
    /// The proof does not lead to the root: its sender's fault.
    #[error("the log proof does not lead to the root")]
    RootMismatch,
}

/// The state of the log that is needed to append to it and to know its root.
///
/// Encoded (borsh) as the size, u64, then the peaks, u32 count and 32 bytes each. Decoding refuses any count
/// but the number of bits set in the size.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize)]
pub struct LogFrontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl LogFrontier {
    /// The empty log.
    #[must_use]
    pub fn new() -> Self {
        LogFrontier::default()
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, largest first: one for each bit set in the size.
    #[must_use]
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Appends a leaf and returns its index.
    ///
    /// # Errors
    /// [`LogError::Size`] when the log is full.
    pub fn append(&mut self, leaf: &[u8]) -> Result<u64, LogError> {
        let index = self.size;
        if index >= LOG_SIZE_MAX {
            return Err(LogError::Size);
        }
        rfc6962::push_leaf(&mut self.peaks, index, rfc6962::leaf_hash(leaf));
        self.size = index.saturating_add(1);
        Ok(index)
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        rfc6962::fold_peaks(&self.peaks)
    }
}

impl BorshDeserialize for LogFrontier {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let size = u64::deserialize_reader(reader)?;
        let count = u32::deserialize_reader(reader)?;
        if size > LOG_SIZE_MAX || count != size.count_ones() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the peaks do not fit the size of the log",
            ));
        }
        let peaks = (0..count).map(|_| Hash::deserialize_reader(reader)).collect::<io::Result<_>>()?;
        Ok(LogFrontier { size, peaks })
    }
}
