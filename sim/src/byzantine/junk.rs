//! Bytes that were a message once: cut off, flipped, lengthened, with lengths that nothing could hold
//! (hazards A12, AU4, CR4).
//!
//! Invariant: whatever decodes goes through the door as from its sender; nothing else happens.

use quorate_crypto::{decode, encode};
use quorate_protocol::{PeerMessage, ReplicaIndex};

use super::Deed;
use crate::oracle::Verdict;
use crate::world::World;

/// Most bytes that one throw changes or adds.
const CHANGES_MAX: u64 = 8;
/// Size of what has no meaning at all.
const NOISE_BYTES: usize = 96;

impl World {
    /// Throws a broken message at somebody.
    pub(super) fn throw_junk(&mut self, index: ReplicaIndex) -> Verdict {
        let to = self.somebody(index);
        let position = self.byzantine_random.below(self.conspiracy.heard.len() as u64) as usize;
        let mut bytes = self.conspiracy.heard.get(position).map(|message| encode(message.as_ref()));
        let bytes = bytes.get_or_insert_default();
        self.spoil(bytes);
        self.throw(index, to, std::mem::take(bytes));
        Ok(())
    }

    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        let random = &mut self.byzantine_random;
        let place = random.below(bytes.len() as u64) as usize;
        match random.below(7) {
            0 => bytes.truncate(place),
            1 => {
                for _ in 0..random.between(1, CHANGES_MAX) {
                    let place = random.below(bytes.len() as u64) as usize;
                    if let Some(byte) = bytes.get_mut(place) {
                        *byte ^= 1 << random.below(8);
                    }
                }
            }
            // A length that nothing could hold.
            2 => bytes.iter_mut().skip(place).take(4).for_each(|byte| *byte = u8::MAX),
            3 => bytes.extend((0..random.between(1, CHANGES_MAX)).map(|number| number as u8)),
            // The body of one type under the number of another (hazard AU4).
            4 => bytes.iter_mut().take(1).for_each(|kind| *kind = random.below(20) as u8),
            5 => *bytes = random.bytes::<NOISE_BYTES>().to_vec(),
            _ => bytes.clear(),
        }
    }

    /// Bytes reach a replica.
    pub(crate) fn bytes_arrive(&mut self, from: ReplicaIndex, to: ReplicaIndex, bytes: &[u8]) -> Verdict {
        match decode::<PeerMessage>(bytes) {
            Ok(message) => {
                self.conspiracy.deeds.hit(Deed::Decodable);
                self.peer_hears(from, to, &message)
            }
            Err(_) => {
                self.conspiracy.deeds.hit(Deed::Undecodable);
                Ok(())
            }
        }
    }
}
