//! The values of all rows that this crate writes.
//!
//! Invariant: a value is a version byte and then the borsh encoding of one type; a value has exactly one
//! encoding, and whatever is not it, or breaks a rule of its type, is refused. Golden bytes of every row are
//! in `tests/filesystem/golden.rs`, the layout is in `docs/SPEC/state.md`.

mod block;
mod content;
mod directory;
mod grants;
mod inode;
mod system;
mod xattr;

pub use block::{Block, Occasion, Placement};
pub(crate) use content::well_formed;
pub use content::{Content, value_hash};
pub use directory::{DirectoryKey, Entry, Link};
pub use grants::{GRANTS_PER_ROW_MAX, Grant, Grants};
pub use inode::{BLOCK_LOG2_MAX, FLAG_HAS_ACL, FLAG_REMOVED, Inode};
pub use system::{CounterRow, ParametersRow, Presence, Released, Totals};
pub use xattr::{SymlinkTarget, Xattr};

use borsh::{BorshDeserialize, BorshSerialize};

use crate::view::{Error, Key, Value, View};

/// The version byte of every row of this format.
pub const ROW_VERSION: u8 = 1;

/// A type that is stored as the value of a row.
pub trait Row: BorshSerialize + BorshDeserialize {
    /// What to say when bytes are not such a row.
    const DAMAGED: &'static str;

    /// Whether the rules hold that the encoding alone does not express.
    fn valid(&self) -> bool {
        true
    }

    /// The value's bytes: [`ROW_VERSION`], then borsh.
    fn to_value(&self) -> Value {
        quorate_crypto::encode(&(ROW_VERSION, self)).into()
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for an unknown version, a non-canonical encoding or a broken rule.
    fn from_value(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = Error::Corrupt(Self::DAMAGED);
        let (version, rest) = bytes.split_first().ok_or(damaged)?;
        if *version != ROW_VERSION {
            return Err(damaged);
        }
        let row: Self = quorate_crypto::decode(rest).map_err(|_| damaged)?;
        if row.valid() { Ok(row) } else { Err(damaged) }
    }
}

/// The row under `key`; `None` when it is absent.
///
/// # Errors
/// [`Error::Missing`] when the view does not hold it, [`Error::Corrupt`] when it does not decode.
pub fn get<T: Row>(view: &dyn View, key: &Key) -> Result<Option<T>, Error> {
    view.get(key)?.map(|value| T::from_value(&value)).transpose()
}

/// Writes a row.
pub fn put<T: Row>(view: &mut dyn View, key: Key, row: &T) {
    debug_assert!(row.valid(), "an invalid row must not be written: {}", T::DAMAGED);
    view.put(key, row.to_value());
}
