//! The rows of extended attributes and of symbolic links' targets.
//!
//! Invariant: both begin with the entropy of the operation that wrote them, so that their hashes say nothing
//! about what they hold (rule S3).

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::BoundedBytes;
use quorate_protocol::file::Entropy;
use quorate_protocol::limits::{SYMLINK_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};

use super::Row;

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Xattr {
    /// Hides the rest.
    pub entropy: Entropy,
    /// Full name with its namespace.
    pub name: BoundedBytes<XATTR_NAME_BYTES_MAX>,
    /// Value.
    pub value: BoundedBytes<XATTR_VALUE_BYTES_MAX>,
}

impl Row for Xattr {
    const DAMAGED: &'static str = "an extended attribute does not decode";
}

/// The target of a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SymlinkTarget {
    /// Hides the rest.
    pub entropy: Entropy,
    /// The target.
    pub target: BoundedBytes<SYMLINK_BYTES_MAX>,
}

impl Row for SymlinkTarget {
    const DAMAGED: &'static str = "a symbolic link's target does not decode";

    fn valid(&self) -> bool {
        !self.target.is_empty() && !self.target.contains(&0)
    }
}
