//! What each principal has uploaded here and nothing refers to yet.
//!
//! Invariant: the bytes of disk and the number of blocks that a principal's uploads occupy without a reference
//! are bounded (rule S5). Uploads count from the moment they are let in, and until the committed state has a row
//! of the block, or its bytes are gone.
//!
//! Counted from the start of the process: what an earlier run stored is forgotten, and goes with its promise.

use quorate_crypto::{Hash, PublicKey};
use std::collections::BTreeMap;

/// Bytes of disk that the unreferenced uploads of one principal may take: what several mounts may have dirty.
pub const OUTSTANDING_BYTES_MAX: u64 = 1 << 30;
/// Unreferenced blocks of one principal.
pub const OUTSTANDING_BLOCKS_MAX: u64 = 65_536;

/// Something that counts against a principal.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of disk.
    pub bytes: u64,
}

impl Amount {
    /// Of contents with these lengths.
    pub fn of(lengths: impl IntoIterator<Item = usize>) -> Self {
        lengths.into_iter().fold(Self::default(), |sum, length| {
            let bytes = quorate_store::blocks::disk_bytes(u32::try_from(length).unwrap_or(u32::MAX));
            sum.plus(Self { blocks: 1, bytes })
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_add(other.blocks),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_sub(other.blocks),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// The accounts.
#[derive(Debug, Default)]
pub struct Outstanding {
    principals: BTreeMap<PublicKey, Amount>,
    blocks: BTreeMap<Hash, (PublicKey, Amount)>,
}

impl Outstanding {
    /// Lets an upload in if its principal has room for it.
    pub fn reserve(&mut self, principal: &PublicKey, amount: Amount) -> bool {
        let held = self.principals.get(principal).copied().unwrap_or_default().plus(amount);
        let fits = held.bytes <= OUTSTANDING_BYTES_MAX && held.blocks <= OUTSTANDING_BLOCKS_MAX;
        if fits {
            self.principals.insert(*principal, held);
        }
        fits
    }

    /// An upload is over: instead of what was reserved, those of its blocks count that are stored and that
    /// nothing refers to. A block that waits for its reference already counts once, for who brought it first.
    pub fn settle(
        &mut self,
        principal: &PublicKey,
        reserved: Amount,
        unreferenced: impl IntoIterator<Item = (Hash, Amount)>,
    ) {
        self.give_back(principal, reserved);
        for (id, amount) in unreferenced {
            if let std::collections::btree_map::Entry::Vacant(place) = self.blocks.entry(id) {
                place.insert((*principal, amount));
                let held = self.principals.entry(*principal).or_default();
                *held = held.plus(amount);
            }
        }
    }

    /// The state has a row of the block, or its bytes are gone.
    pub fn done(&mut self, id: &Hash) {
        if let Some((principal, amount)) = self.blocks.remove(id) {
            self.give_back(&principal, amount);
        }
    }

    fn give_back(&mut self, principal: &PublicKey, amount: Amount) {
        if let Some(held) = self.principals.get_mut(principal) {
            *held = held.minus(amount);
            if *held == Amount::default() {
                self.principals.remove(principal);
            }
        }
    }

    /// What a principal has outstanding.
    #[cfg(test)]
    pub fn of(&self, principal: &PublicKey) -> Amount {
        self.principals.get(principal).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn id(number: u64) -> Hash {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Hash(bytes)
    }

    /// Rule S5: one who uploads for ever and refers to nothing is stopped, and nobody else is.
    #[test]
    fn what_nothing_refers_to_is_bounded_for_each_principal() {
        let (mut outstanding, greedy, other) =
            (Outstanding::default(), PublicKey([1; 32]), PublicKey([2; 32]));
        let mut stored = 0;
        loop {
            let amount = Amount::of([MIB; 8]);
            if !outstanding.reserve(&greedy, amount) {
                break;
            }
            let blocks = (stored..stored + 8).map(|number| (id(number), Amount::of([MIB])));
            outstanding.settle(&greedy, amount, blocks);
            stored += 8;
        }
        let held = outstanding.of(&greedy);
        assert!(held.bytes <= OUTSTANDING_BYTES_MAX && held.bytes > OUTSTANDING_BYTES_MAX - (9 << 20));
        assert!(outstanding.reserve(&other, Amount::of([MIB; 8])));
        // A reference, or the end of the promise, makes room again.
        for number in 0..stored {
            outstanding.done(&id(number));
        }
        assert_eq!(outstanding.of(&greedy), Amount::default());
        assert!(outstanding.blocks.is_empty());
        outstanding.settle(&other, Amount::of([MIB; 8]), []);
        assert!(outstanding.principals.is_empty());
    }

    #[test]
    fn small_blocks_are_bounded_in_number_and_count_by_the_page() {
        let (mut outstanding, principal) = (Outstanding::default(), PublicKey([1; 32]));
        let amount = Amount::of([1; 64]);
        assert_eq!(amount, Amount { blocks: 64, bytes: 64 * 4096 });
        let uploads = (0..10_000).filter(|_| outstanding.reserve(&principal, amount)).count();
        assert_eq!(uploads as u64, OUTSTANDING_BLOCKS_MAX / 64);
    }

    #[test]
    fn a_block_counts_once_and_a_failed_upload_does_not() {
        let (mut outstanding, first, second) =
            (Outstanding::default(), PublicKey([1; 32]), PublicKey([2; 32]));
        let amount = Amount::of([100]);
        for principal in [first, second, first] {
            assert!(outstanding.reserve(&principal, amount));
            outstanding.settle(&principal, amount, [(id(1), amount)]);
        }
        assert!(outstanding.reserve(&second, amount));
        outstanding.settle(&second, amount, []);
        assert_eq!((outstanding.of(&first), outstanding.of(&second)), (amount, Amount::default()));
        outstanding.done(&id(1));
        outstanding.done(&id(1));
        assert_eq!(outstanding.of(&first), Amount::default());
    }
}
