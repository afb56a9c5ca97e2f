//! The 32-byte hash and the domain-separated way to compute one.
//!
//! Invariant: a hash is always taken in BLAKE3's derive-key mode under a context string of its own, and
//! every part is preceded by its length, so neither two domains nor two lists of parts can collide.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};

/// Bytes in a hash.
pub const HASH_BYTES: usize = 32;

/// A BLAKE3 hash, or any other 32-byte digest that is compared and ordered as bytes.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Hash(pub [u8; HASH_BYTES]);

/// Text that is not the hexadecimal form of the wanted number of bytes. The caller's fault.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits")]
pub struct HexError {
    /// How many digits were wanted.
    pub expected: usize,
}

impl Hash {
    /// All zeros: stands for "none" where a format says so; no known input hashes to it.
    pub const ZERO: Self = Self([0; HASH_BYTES]);

    /// Reads 64 hexadecimal digits of either case.
    ///
    /// # Errors
    /// [`HexError`] for any other length or character.
    pub fn from_hex(text: &str) -> Result<Self, HexError> {
        array_from_hex(text).map(Self)
    }

    /// The bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl AsRef<[u8]> for Hash {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<[u8; HASH_BYTES]> for Hash {
    fn from(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }
}

/// Reads exactly `N` bytes written as hexadecimal digits of either case.
pub(crate) fn array_from_hex<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| HexError { expected: N.saturating_mul(2) })?;
    Ok(bytes)
}

/// Streams the parts of one domain-separated hash; `derive_hash` for parts that are not all at hand.
#[derive(Clone)]
pub struct DomainHasher(blake3::Hasher);

impl DomainHasher {
    /// Starts a hash in the domain that `context` names. The string must be a constant of the program,
    /// used for one purpose only.
    pub fn new(context: &'static str) -> Self {
        Self(blake3::Hasher::new_derive_key(context))
    }

    /// Adds one part: its length as u64 little-endian, then its bytes.
    pub fn part(&mut self, bytes: &[u8]) -> &mut Self {
        // usize is at most 64 bits wide on every supported target, so nothing is cut off.
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// The hash of the parts so far.
    pub fn finish(&self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for DomainHasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DomainHasher")
    }
}

/// BLAKE3 in derive-key mode under `context`, over every part preceded by its u64 little-endian length.
pub fn derive_hash(context: &'static str, parts: &[&[u8]]) -> Hash {
    let mut hasher = DomainHasher::new(context);
    for part in parts {
        hasher.part(part);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cr5_contexts_separate_equal_parts() {
        let parts: [&[u8]; 2] = [b"left", b"right"];
        assert_ne!(derive_hash("quorate test leaf", &parts), derive_hash("quorate test node", &parts));
    }

    #[test]
    fn cr5_part_boundaries_are_bound() {
        let context = "quorate test parts";
        let whole = derive_hash(context, &[b"abc"]);
        assert_ne!(whole, derive_hash(context, &[b"a", b"bc"]));
        assert_ne!(whole, derive_hash(context, &[b"ab", b"c"]));
        assert_ne!(whole, derive_hash(context, &[b"abc", b""]));
        assert_ne!(derive_hash(context, &[]), derive_hash(context, &[b""]));
        // A part that spells out the length prefix of two others does not stand in for them.
        let mut forged = b"a".to_vec();
        forged.extend_from_slice(&1u64.to_le_bytes());
        forged.extend_from_slice(b"b");
        assert_ne!(derive_hash(context, &[b"a", b"b"]), derive_hash(context, &[&forged]));
    }

    #[test]
    fn streaming_equals_the_one_call() {
        let mut hasher = DomainHasher::new("quorate test stream");
        hasher.part(b"one").part(b"").part(&[7; 5000]);
        assert_eq!(hasher.finish(), derive_hash("quorate test stream", &[b"one", b"", &[7; 5000]]));
    }

    #[test]
    fn hexadecimal_round_trip_and_refusals() {
        let hash = derive_hash("quorate test hex", &[b"x"]);
        assert_eq!(Hash::from_hex(&hash.to_string()), Ok(hash));
        assert_eq!(Hash::from_hex(&hash.to_string().to_uppercase()), Ok(hash));
        assert_eq!(format!("{hash:?}"), hash.to_string());
        let refused = Err(HexError { expected: 64 });
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
            assert_eq!(Hash::from_hex(text), refused);
        }
    }
}
