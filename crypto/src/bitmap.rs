//! The signer bitmap of a certificate: which members of a set signed.
//!
//! Invariant: a bitmap for n members has exactly ceil(n / 8) bytes, and no bit at or above n is set, so
//! a set of signers has one encoding (hazards CR4, CR6).

use borsh::{BorshDeserialize, BorshSerialize};

use crate::bounded::BoundedBytes;
use crate::quorum::MEMBERS_MAX;

/// Most bytes in a bitmap.
pub const BITMAP_BYTES_MAX: usize = MEMBERS_MAX.div_ceil(8);

/// One bit per member: member i is bit i % 8 (bit 0 the least significant) of byte i / 8.
///
/// What was decoded need not fit the member set at hand; [`Bitmap::fits`] tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Bitmap(BoundedBytes<BITMAP_BYTES_MAX>);

impl Bitmap {
    /// No signer among `n` members; `n` is cut to [`MEMBERS_MAX`].
    pub fn empty(n: usize) -> Self {
        let bytes = vec![0; n.min(MEMBERS_MAX).div_ceil(8)];
        Self(BoundedBytes::try_from(bytes).unwrap_or_default())
    }

    /// Any bytes, as a peer might send them.
    ///
    /// # Errors
    /// [`crate::TooLong`] above [`BITMAP_BYTES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, crate::bounded::TooLong> {
        BoundedBytes::try_from(bytes).map(Self)
    }

    /// The bytes of the bitmap.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Sets the bit of a member. Returns whether it was clear and inside the bitmap.
    #[must_use]
    pub fn insert(&mut self, index: u8) -> bool {
        let (byte, mask) = position(index);
        match self.0.as_mut_slice().get_mut(byte) {
            Some(bits) if *bits & mask == 0 => {
                *bits |= mask;
                true
            }
            _ => false,
        }
    }

    /// Whether the bit of a member is set.
    pub fn contains(&self, index: u8) -> bool {
        let (byte, mask) = position(index);
        self.0.get(byte).is_some_and(|bits| bits & mask != 0)
    }

    /// How many bits are set.
    pub fn count(&self) -> usize {
        self.0.iter().fold(0, |sum: usize, bits| sum.saturating_add(bits.count_ones() as usize))
    }

    /// The members whose bits are set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).take(MEMBERS_MAX).filter(|index| self.contains(*index))
    }

    /// Whether the length is exactly that for `n` members and no spare bit is set.
    pub fn fits(&self, n: usize) -> bool {
        let inside = self.iter().filter(|index| usize::from(*index) < n).count();
        self.0.len() == n.div_ceil(8) && inside == self.count()
    }
}

/// Byte and mask of a member's bit.
fn position(index: u8) -> (usize, u8) {
    (usize::from(index / 8), 1u8.rotate_left(u32::from(index % 8)))
}
