//! Liars towards those who are behind: absurd heights, empty and broken ranges, certificates of other
//! heights, other batches (hazards A11, ST5, ST6).
//!
//! Invariant: certificates in what is sent were all made by a quorum once; the lie is in what they are put
//! beside.

use std::sync::Arc;

use quorate_crypto::{Bounded, Hash};
use quorate_protocol::peer::{Announcement, Batch, CommittedBatch};
use quorate_protocol::{Height, PeerMessage, ReplicaIndex, Vote, VoteKind};

use super::Deed;
use crate::oracle::Verdict;
use crate::world::World;

impl World {
    /// What goes out, with lies about how far things are.
    pub(super) fn misled(&mut self, message: &Arc<PeerMessage>) -> Arc<PeerMessage> {
        let bent = match message.as_ref() {
            PeerMessage::Announce(ours) => self.boasting(ours),
            PeerMessage::Committed(batches) => {
                self.conspiracy.deeds.hit(Deed::Misled);
                let batches = self.broken_range(batches.to_vec());
                PeerMessage::Committed(Bounded::try_collect(batches).unwrap_or_default())
            }
            PeerMessage::Batches(batches) => {
                self.conspiracy.deeds.hit(Deed::Misled);
                let batches = self.broken_batches(batches.to_vec());
                PeerMessage::Batches(Bounded::try_collect(batches).unwrap_or_default())
            }
            PeerMessage::Certificate(certificate) => {
                self.conspiracy.deeds.hit(Deed::Misled);
                PeerMessage::Certificate(self.malformed_certificate(certificate))
            }
            _ => return message.clone(),
        };
        Arc::new(bent)
    }

    fn boasting(&mut self, ours: &Announcement) -> PeerMessage {
        self.conspiracy.deeds.hit(Deed::Boasted);
        let ahead = self.byzantine_random.pick(&[0, 1, 4, 1000, 1 << 40, Height::MAX]);
        let committed = ours.committed.saturating_add(ahead);
        PeerMessage::Announce(Announcement { committed, ..ours.clone() })
    }

    fn broken_range(&mut self, mut batches: Vec<CommittedBatch>) -> Vec<CommittedBatch> {
        let random = &mut self.byzantine_random;
        let place = random.below(batches.len() as u64) as usize;
        match random.below(10) {
            // The truth now and then, so that it is asked again.
            0 => {}
            1 => batches.clear(),
            2 => batches.reverse(),
            3 => drop(batches.remove(place)),
            4 => {
                let other = batches[0].certificate.clone();
                batches[place].certificate = other;
            }
            5 => batches.insert(place, batches[place].clone()),
            6 => batches[place].batch.header.state_root = Hash([6; 32]),
            7 => batches[place].batch.proposal.envelopes = Bounded::new(),
            8 => {
                let certificate = batches[place].certificate.clone();
                batches[place].certificate = self.malformed_certificate(&certificate);
            }
            _ => batches[place].certificate.kind = quorate_crypto::CertificateKind::Prepare,
        }
        batches
    }

    fn broken_batches(&mut self, mut batches: Vec<Batch>) -> Vec<Batch> {
        let random = &mut self.byzantine_random;
        let place = random.below(batches.len() as u64) as usize;
        match random.below(7) {
            0 => {}
            1 => batches.clear(),
            2 => batches.reverse(),
            3 => drop(batches.remove(place)),
            4 => batches[place].header.height += 1,
            5 => batches[place].header.state_root = Hash([6; 32]),
            _ => batches[place].proposal.envelopes = Bounded::new(),
        }
        batches
    }

    /// Unasked: heights that everybody knows, and votes for heights that nobody will ever see.
    pub(super) fn mislead(&mut self, index: ReplicaIndex) -> Verdict {
        let Some(memory) = &self.nodes[usize::from(index)].memory else { return Ok(()) };
        let (view, committed) = (memory.replica.view(), memory.replica.committed_height());
        let to = self.somebody(index);
        let from = self.byzantine_random.between(1, committed.max(1));
        if self.byzantine_random.one_in(2) {
            let memory = self.nodes[usize::from(index)].memory.as_ref();
            let Some(message) = memory.and_then(|memory| memory.committed_from(from)) else {
                return Ok(());
            };
            let message = self.misled(&Arc::new(message));
            return self.depart(index, to, &message, 0);
        }
        let ahead = self.byzantine_random.pick(&[1, 100, 1 << 40]);
        let vote = Vote {
            kind: VoteKind::Commit,
            epoch: self.genesis.members.epoch(),
            view,
            height: committed.saturating_add(ahead),
            header: Hash([9; 32]),
            replica: index,
            signature: quorate_crypto::Signature::ZERO,
        };
        self.conspiracy.deeds.hit(Deed::Boasted);
        let vote = self.resigned(index, vote);
        self.tell(index, to, PeerMessage::Votes(Bounded::try_collect([vote]).unwrap_or_default()))
    }
}
