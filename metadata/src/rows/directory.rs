//! The rows of names: a directory's key, its entries, and the links of files that have several.
//!
//! Invariant: to who does not know a directory's key, neither keys nor hashes of values say anything about
//! its names: an entry's value begins with 16 bytes that are derived from that key (rule S3).

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_protocol::Ino;
use quorate_protocol::file::{Entropy, FileKind, Name};

use super::Row;
use crate::keys::{INO_END, KeyHash};

/// The key under which a directory's names are hashed.
#[derive(Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DirectoryKey {
    /// K_dir.
    pub key: [u8; 32],
}

impl std::fmt::Debug for DirectoryKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DirectoryKey")
    }
}

impl Row for DirectoryKey {
    const DAMAGED: &'static str = "a directory's key does not decode";
}

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Entry {
    /// Derived from the directory's key and the name; hides the rest of the value.
    pub salt: Entropy,
    /// The full name.
    pub name: Name,
    /// What it names.
    pub ino: Ino,
    /// Its kind, for `d_type`.
    pub kind: FileKind,
}

impl Row for Entry {
    const DAMAGED: &'static str = "a directory entry does not decode";

    fn valid(&self) -> bool {
        (1..INO_END).contains(&self.ino)
    }
}

/// One of several hard links of a file.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Link {
    /// The directory.
    pub parent: Ino,
    /// The name's hash under the directory's key: the rest of the entry's key.
    pub name: KeyHash,
}

impl Row for Link {
    const DAMAGED: &'static str = "a link row does not decode";

    fn valid(&self) -> bool {
        (1..INO_END).contains(&self.parent)
    }
}
