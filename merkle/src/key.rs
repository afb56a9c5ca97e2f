//! Keys of the state: 32 bytes, compared as bytes, and the bits by which the trie branches.
//!
//! Invariant: bit 0 is the most significant bit of byte 0, so that the order of keys and the order of the
//! trie's leaves are the same.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// A key of the state. Its layout (inode number, kind, rest) is rule S1; the trie knows only its bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Key(pub [u8; KEY_BYTES]);

impl Key {
    /// The lowest key: all bits zero.
    pub const MIN: Key = Key([0; KEY_BYTES]);
    /// The highest key: all bits one.
    pub const MAX: Key = Key([0xff; KEY_BYTES]);

    /// The bit at `position`; position 0 is the most significant bit of byte 0.
    #[must_use]
    pub fn bit(&self, position: u8) -> bool {
        let byte = self.0.get(usize::from(position >> 3)).copied().unwrap_or(0);
        byte.wrapping_shl(u32::from(position & 7)) & 0x80 != 0
    }

    /// The first position at which two keys differ, or `None` when they are equal.
    #[must_use]
    pub fn critical_bit(&self, other: &Key) -> Option<u8> {
        let (ours, _) = self.0.as_chunks::<8>();
        let (theirs, _) = other.0.as_chunks::<8>();
        let mut base = 0_u32;
        for (a, b) in ours.iter().zip(theirs) {
            let difference = u64::from_be_bytes(*a) ^ u64::from_be_bytes(*b);
            if difference != 0 {
                // At most 192 + 63.
                return u8::try_from(base.saturating_add(difference.leading_zeros())).ok();
            }
            base = base.saturating_add(64);
        }
        None
    }

    /// The next key in order, or `None` after [`Key::MAX`]. `[lo, last.successor())` is the range that ends
    /// with `last` included.
    #[must_use]
    pub fn successor(&self) -> Option<Key> {
        let mut next = self.0;
        for byte in next.iter_mut().rev() {
            let (sum, carried) = byte.overflowing_add(1);
            *byte = sum;
            if !carried {
                return Some(Key(next));
            }
        }
        None
    }

    /// The bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl From<[u8; KEY_BYTES]> for Key {
    fn from(bytes: [u8; KEY_BYTES]) -> Self {
        Key(bytes)
    }
}

impl From<Key> for [u8; KEY_BYTES] {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_bit(position: u8) -> Key {
        let mut bytes = [0_u8; KEY_BYTES];
        bytes[usize::from(position / 8)] = 0x80 >> (position % 8);
        Key(bytes)
    }

    #[test]
    fn bit_zero_is_the_most_significant() {
        for position in 0..=255_u8 {
            let key = with_bit(position);
            for other in 0..=255_u8 {
                assert_eq!(key.bit(other), other == position);
            }
            assert_eq!(key.critical_bit(&Key::MIN), Some(position));
            assert_eq!(Key::MIN.critical_bit(&key), Some(position));
            assert_eq!(key.critical_bit(&key), None);
        }
    }

    #[test]
    fn successor_is_the_next_key() {
        assert_eq!(Key::MAX.successor(), None);
        assert_eq!(Key::MIN.successor(), Some(with_bit(255)));
        let mut low = [0_u8; KEY_BYTES];
        low[30] = 7;
        low[31] = 0xff;
        let mut high = [0_u8; KEY_BYTES];
        high[30] = 8;
        assert_eq!(Key(low).successor(), Some(Key(high)));
    }
}
