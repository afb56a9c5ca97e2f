//! Those who never let go: view-change storms and floods of questions.
//!
//! Invariant: one liar alone moves the view at the rate of hand-overs at most, because nobody leaves a view on
//! fewer than f + 1 suspicions (hazards A7, VC22).

use std::sync::Arc;

use quorate_crypto::Bounded;
use quorate_protocol::peer::Announcement;
use quorate_protocol::view_change::{Resign, Suspect, Suspicion};
use quorate_protocol::{PeerMessage, ReplicaIndex};

use super::Deed;
use crate::oracle::Verdict;
use crate::world::World;

/// One storm in this many is for a view that nobody will ever reach.
const FAR_AHEAD_ONE_IN: u64 = 64;
/// Messages of a flood at a time.
const FLOOD: usize = 6;

impl World {
    /// A VIEW-CHANGE for a later view, a suspicion of whoever leads, and a resignation if it is itself.
    pub(super) fn storm(&mut self, index: ReplicaIndex) -> Verdict {
        let Some(memory) = &self.nodes[usize::from(index)].memory else { return Ok(()) };
        let view = memory.replica.view();
        let certificate = memory.replica.committed_certificate().cloned();
        let random = &mut self.byzantine_random;
        let ahead = if random.one_in(FAR_AHEAD_ONE_IN) { 1 << 40 } else { random.pick(&[1, 1, 1, 2, 5]) };
        let reasons = [Suspicion::Timeout, Suspicion::Restarted, Suspicion::Monitor, Suspicion::Fault];
        let reason = random.pick(&reasons);
        let (epoch, to) = (self.genesis.members.epoch(), view.saturating_add(ahead));
        self.conspiracy.deeds.hit(Deed::Stormed);
        let certificate = certificate.filter(|certificate| certificate.view < to);
        let view_change = self.view_change(index, to, certificate);
        self.tell_all(index, PeerMessage::ViewChange(view_change))?;
        self.tell_all(index, PeerMessage::Suspect(Suspect { epoch, view, reason }))?;
        if self.leads(index, view) {
            let statement = Resign::statement(self.cluster, epoch, view);
            let signature = self.signer(index).sign(&statement);
            self.tell_all(index, PeerMessage::Resign(Resign { epoch, view, signature }))?;
        }
        Ok(())
    }

    /// Questions whose answers are large, and messages that were dealt with long ago, to everybody (hazard A4).
    pub(super) fn flood(&mut self, index: ReplicaIndex) -> Verdict {
        let view = self.nodes[usize::from(index)].memory.as_ref().map_or(0, |memory| memory.replica.view());
        for _ in 0..FLOOD {
            let to = self.somebody(index);
            let choice = self.byzantine_random.below(7);
            let position = self.byzantine_random.below(self.conspiracy.heard.len() as u64) as usize;
            let old = self.conspiracy.heard.get(position).cloned();
            let epoch = self.genesis.members.epoch();
            let message = match (choice, old) {
                (0, _) => PeerMessage::FetchCommitted { from: 1 },
                (1, _) => PeerMessage::FetchNewView { view: self.byzantine_random.below(view + 2) },
                (2, _) => {
                    let header = self.oracle.decided_header(self.byzantine_random.below(8));
                    PeerMessage::FetchBatches { header, above: 0 }
                }
                (3, _) => PeerMessage::Announce(Announcement { epoch, view: 0, entered: true, committed: 0 }),
                (_, Some(old)) => Arc::unwrap_or_clone(old),
                (_, None) => PeerMessage::Votes(Bounded::new()),
            };
            self.conspiracy.deeds.hit(Deed::Flooded);
            self.tell(index, to, message)?;
        }
        Ok(())
    }
}
