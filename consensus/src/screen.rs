//! What is dropped before any signature is looked at, because it could change nothing here.
//!
//! Invariant: screening changes nothing and decides nothing: what it drops would have had no effect, or is the
//! word of a replica that was caught with bad signatures; of an answer that brings nothing new is left that it came. So a repeated, late or useless message costs no
//! signature (hazards RX2, RX4, RX9), and a PRE-PREPARE of a later view is no more than a hint that it began.

use quorate_crypto::{Bounded, Certificate, CertificateKind};
use quorate_protocol::peer::{Announcement, CommittedBatch};
use quorate_protocol::{EvidenceKind, PeerMessage, PrePrepare, ReplicaIndex, View, Vote};

use crate::mutant::{Mutant, broken};
use crate::probe::{Probe, reached};
use crate::replica::Replica;

impl Replica {
    /// What of a message that the connection of `from` brought could be worth its cost.
    #[must_use]
    pub fn screen(&self, from: ReplicaIndex, message: PeerMessage) -> Option<PeerMessage> {
        let wanted = match &message {
            PeerMessage::Votes(_) => return self.screen_votes(from, message),
            PeerMessage::PrePrepare(pre_prepare) if pre_prepare.view > self.view.number => {
                return self.hint_of(pre_prepare.view);
            }
            PeerMessage::PrePrepare(pre_prepare) => self.is_wanted_proposal(pre_prepare),
            PeerMessage::NewView(new_view) => {
                let entered = new_view.view == self.view.number && self.view.entered;
                new_view.view >= self.view.number && !entered
            }
            PeerMessage::Certificate(certificate) => self.is_wanted_certificate(certificate),
            PeerMessage::Committed(batches) if !self.are_wanted(batches) => {
                // Who was asked has answered: that there is nothing new is all that matters of it.
                return self.is_asked(from).then(|| PeerMessage::Committed(Bounded::new()));
            }
            PeerMessage::Batches(batches) => {
                let wanted = |hash| self.fetches.wants(&hash) || self.inquires(&hash);
                batches.first().is_some_and(|batch| wanted(batch.header.hash()))
            }
            PeerMessage::Resign(resign) => {
                let leader = self.configuration.leader(resign.view);
                self.resignations.get(&leader).is_none_or(|known| *known < resign.view)
            }
            PeerMessage::Proposed(statement) => self.is_contrary(statement),
            _ => true,
        };
        wanted.then_some(message)
    }

    fn screen_votes(&self, from: ReplicaIndex, message: PeerMessage) -> Option<PeerMessage> {
        let PeerMessage::Votes(votes) = message else { return None };
        let barred = self.bars.is_barred(from, self.now);
        if barred {
            reached(Probe::ScreenedBarred);
        }
        let wanted = |vote: &Vote| !(barred && vote.replica == from) && self.is_wanted_vote(vote);
        let wanted: Vec<Vote> = votes.into_iter().filter(wanted).collect();
        if wanted.is_empty() { None } else { wanted.try_into().ok().map(PeerMessage::Votes) }
    }

    fn is_wanted_vote(&self, vote: &Vote) -> bool {
        vote.replica != self.configuration.me()
            && vote.epoch == self.configuration.epoch()
            && (vote.height > self.committed.height || self.is_quiet())
            // Votes beyond the horizon say that this replica is behind, if they are genuine.
            && (vote.height > self.horizon() || self.votes.is_wanted(vote))
    }

    /// Whether the last commit is so long ago that who still votes for its height has missed it.
    pub(crate) fn is_quiet(&self) -> bool {
        self.now.since(self.timers.progress_at) >= self.configuration.timeouts().resend / 2
    }

    /// A proposal of a view that is not entered yet cannot be kept. Whether the view began only its NEW-VIEW can
    /// tell, and to ask for that the word of the peer is enough.
    fn hint_of(&self, view: View) -> Option<PeerMessage> {
        reached(Probe::ScreenedHint);
        let epoch = self.configuration.epoch();
        Some(PeerMessage::Announce(Announcement { epoch, view, entered: true, committed: 0 }))
    }

    fn is_wanted_proposal(&self, message: &PrePrepare) -> bool {
        let (view, height) = (message.view, message.height);
        let stale = view < self.view.number
            || (height <= self.committed.height && !broken(Mutant::CommittedProposalKept))
            || self.configuration.leader(view) == self.configuration.me();
        let kept = self.view.pre_prepares.get(&height);
        // Another proposal at the same place is evidence, once.
        let news = || self.is_news(self.leader(), EvidenceKind::ConflictingPrePrepare, (view, height));
        !stale && kept.is_none_or(|kept| *kept.message != *message && news())
    }

    fn is_wanted_certificate(&self, certificate: &Certificate) -> bool {
        let Certificate { kind, view, height, .. } = *certificate;
        let news_of_view =
            view > 0 && (view > self.view.number || (view == self.view.number && !self.view.entered));
        let useful = match kind {
            CertificateKind::Commit => {
                let known = self.decided.get(&height);
                known.is_none_or(|known| known.header_hash != certificate.header_hash)
            }
            CertificateKind::Prepare => {
                let current = self.view.entered && view == self.view.number;
                height > self.horizon() || (current && !self.view.certificates.contains_key(&height))
            }
        };
        news_of_view || (height > self.committed.height && useful)
    }

    /// Heights beyond the committed one: anything else would be checked for nothing, whoever was asked for it.
    fn are_wanted(&self, batches: &[CommittedBatch]) -> bool {
        batches.last().is_some_and(|entry| entry.batch.header.height > self.committed.height)
    }
}
