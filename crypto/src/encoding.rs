//! Encode and decode: one value, one encoding.
//!
//! Invariant: whatever [`decode`] accepts, [`encode`] turns back into the same bytes; nothing is left
//! over and nothing is normalised on the way in (hazard CR4).

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};

pub use crate::bounded::{Bounded, BoundedBytes, BoundedString, TooLong};

/// Bytes that are not the encoding of a value. The fault of whoever sent or stored them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Too short, out of a bound, or against a rule of the type.
    #[error("malformed encoding: {0}")]
    Malformed(String),
    /// A value was read and bytes remain.
    #[error("{0} bytes left over after the value")]
    TrailingBytes(usize),
    /// The value reads well but has another, canonical encoding.
    #[error("encoding is not canonical")]
    NotCanonical,
}

/// Room that an encoding is begun with: for votes, headers and small envelopes, which most are.
const ENCODED_BYTES_USUAL: usize = 512;

/// The canonical encoding of `value` (borsh).
///
/// # Panics
/// If a collection in `value` has more than `u32::MAX` elements, which no bounded type can hold.
pub fn encode<T: BorshSerialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENCODED_BYTES_USUAL);
    let written = value.serialize(&mut bytes);
    assert!(written.is_ok(), "writing to memory fails only for a collection beyond u32::MAX elements");
    bytes
}

/// The value whose canonical encoding is exactly `bytes`.
///
/// # Errors
/// [`DecodeError`] if the bytes do not decode, are longer than the value, or differ from `encode(value)`.
pub fn decode<T: BorshDeserialize + BorshSerialize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut rest = bytes;
    let value = T::deserialize(&mut rest).map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(DecodeError::TrailingBytes(rest.len()));
    }
    let mut expected = Expected(bytes);
    if value.serialize(&mut expected).is_err() || !expected.0.is_empty() {
        return Err(DecodeError::NotCanonical);
    }
    Ok(value)
}

/// A writer that accepts only the bytes it expects, so that comparing needs no second buffer.
struct Expected<'a>(&'a [u8]);

impl io::Write for Expected<'_> {
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(written).ok_or(io::ErrorKind::InvalidData)?;
        Ok(written.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
