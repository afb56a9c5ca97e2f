//! The mutator: small changes to well-formed messages, drawn anew for each receiver (as ByzzFuzz does).
//!
//! Invariant: a change is one step away from what a correct replica would have sent: one field, one
//! element, one signature, or an old message in place of a new one. It is signed anew where the liar's key
//! allows that, except where the change is the signature itself.

use std::sync::Arc;

use quorate_crypto::{Bounded, Hash, Signature};
use quorate_protocol::view_change::{NewView, Resign, SignedClaim, Suspect, Suspicion, ViewChange};
use quorate_protocol::{Envelope, Height, PeerMessage, PrePrepare, ReplicaIndex, Vote, VoteKind};

use super::{Deed, Outgoing};
use crate::random::MILLION;
use crate::world::World;

/// Chance in millionths that a message is changed.
const MUTATION: u32 = MILLION / 4;
/// One change in this many is that an old message goes out instead, or as well.
const REPLAY_ONE_IN: u64 = 8;

/// A number one step away, or far away.
fn near(number: u64, choice: u64) -> u64 {
    match choice % 4 {
        0 => number.wrapping_add(1),
        1 => number.saturating_sub(1),
        2 => number.wrapping_add(7),
        _ => u64::MAX,
    }
}

impl World {
    /// What goes out in place of a message: it, a changed one, an old one, or it twice.
    pub(super) fn mutated(&mut self, from: ReplicaIndex, message: &Arc<PeerMessage>) -> Vec<Outgoing> {
        if !self.byzantine_random.chance(MUTATION) {
            return Outgoing::now(message.clone());
        }
        if self.byzantine_random.one_in(REPLAY_ONE_IN) {
            self.conspiracy.deeds.hit(Deed::Replayed);
            let position = self.byzantine_random.below(self.conspiracy.heard.len() as u64) as usize;
            let old = self.conspiracy.heard.get(position).cloned().unwrap_or_else(|| message.clone());
            let mut outgoing = Outgoing::now(old);
            if self.byzantine_random.one_in(2) {
                outgoing.extend(Outgoing::now(message.clone()));
            }
            return outgoing;
        }
        self.conspiracy.deeds.hit(Deed::Mutated);
        Outgoing::now(Arc::new(self.mutation(from, message)))
    }

    fn mutation(&mut self, from: ReplicaIndex, message: &PeerMessage) -> PeerMessage {
        let choice = self.byzantine_random.number();
        match message {
            PeerMessage::Votes(votes) => {
                let votes = self.mutated_votes(from, votes.to_vec());
                PeerMessage::Votes(Bounded::try_collect(votes).unwrap_or_default())
            }
            PeerMessage::PrePrepare(ours) => PeerMessage::PrePrepare(self.mutated_proposal(from, ours)),
            PeerMessage::ViewChange(ours) => PeerMessage::ViewChange(self.mutated_view_change(from, ours)),
            PeerMessage::NewView(ours) => PeerMessage::NewView(self.mutated_new_view(from, ours)),
            PeerMessage::Certificate(ours) => PeerMessage::Certificate(self.malformed_certificate(ours)),
            PeerMessage::Committed(_) | PeerMessage::Batches(_) => {
                Arc::unwrap_or_clone(self.misled(&Arc::new(message.clone())))
            }
            PeerMessage::Suspect(ours) => {
                let reasons = [Suspicion::Timeout, Suspicion::Restarted, Suspicion::Revoked];
                let reason = reasons[(choice % 3) as usize];
                let view = if choice & 8 == 0 { ours.view } else { near(ours.view, choice >> 4) };
                PeerMessage::Suspect(Suspect { view, reason, ..*ours })
            }
            PeerMessage::Resign(ours) => {
                PeerMessage::Resign(Resign { view: near(ours.view, choice), ..ours.clone() })
            }
            PeerMessage::Announce(ours) => {
                let mut bent = ours.clone();
                match choice >> 8 & 3 {
                    0 => bent.view = near(bent.view, choice),
                    1 => bent.entered = !bent.entered,
                    2 => bent.epoch = near(bent.epoch, choice),
                    _ => bent.committed = near(bent.committed, choice),
                }
                PeerMessage::Announce(bent)
            }
            PeerMessage::FetchCommitted { from } => PeerMessage::FetchCommitted { from: near(*from, choice) },
            PeerMessage::FetchBatches { header, above } if choice & 256 == 0 => {
                PeerMessage::FetchBatches { header: *header, above: near(*above, choice) }
            }
            PeerMessage::FetchBatches { above, .. } => {
                PeerMessage::FetchBatches { header: Hash([7; 32]), above: *above }
            }
            PeerMessage::FetchNewView { view } => PeerMessage::FetchNewView { view: near(*view, choice) },
            PeerMessage::Forward(ours) => {
                let mut bent: Envelope = ours.clone();
                match choice >> 8 & 1 {
                    0 => bent.signature = Signature::ZERO,
                    _ => bent.body.first = near(bent.body.first, choice),
                }
                PeerMessage::Forward(bent)
            }
            PeerMessage::Proposed(ours) => {
                let mut bent = *ours;
                match choice >> 8 & 3 {
                    0 => bent.height = near(bent.height, choice),
                    1 => bent.view = near(bent.view, choice),
                    2 => bent.signed.digest = Hash([3; 32]),
                    _ => bent.signed.signature = Signature::ZERO,
                }
                PeerMessage::Proposed(bent)
            }
            PeerMessage::FetchBlock { .. }
            | PeerMessage::Block { .. }
            | PeerMessage::OfferEvidence(_)
            | PeerMessage::FetchEvidence { .. }
            | PeerMessage::Evidence(_) => message.clone(),
        }
    }

    /// One change to the own votes of a message; those of others cannot be signed.
    fn mutated_votes(&mut self, from: ReplicaIndex, mut votes: Vec<Vote>) -> Vec<Vote> {
        let choice = self.byzantine_random.number();
        let Some(first) = votes.iter().position(|vote| vote.replica == from) else { return votes };
        let other = self.byzantine_random.below(self.genesis.members.n() as u64) as ReplicaIndex;
        let mut vote = votes[first].clone();
        match choice >> 8 & 15 {
            0 | 1 => vote.height = near(vote.height, choice),
            2 | 3 => vote.view = near(vote.view, choice),
            4 => vote.epoch = near(vote.epoch, choice),
            5 | 6 => vote.header = self.oracle.decided_header(vote.height.saturating_sub(1)),
            7 => vote.header = Hash([8; 32]),
            // Signed as one kind, sent as the other (hazard AU4), or signed as the other as well.
            8 | 9 => {
                vote.kind = match vote.kind {
                    VoteKind::Prepare => VoteKind::Commit,
                    VoteKind::Commit => VoteKind::Prepare,
                };
                if choice & 1 == 0 {
                    votes[first] = vote;
                    return votes;
                }
            }
            // In the name of another (hazard AU3), or of nobody.
            10 => {
                vote.replica = if choice & 1 == 0 { other } else { ReplicaIndex::MAX };
                votes[first] = vote;
                return votes;
            }
            // The signature of another vote.
            11 => {
                vote.signature = votes.last().map_or(Signature::ZERO, |last| last.signature);
                votes[first] = vote;
                return votes;
            }
            12 => {
                votes.push(vote);
                return votes;
            }
            13 => {
                votes.remove(first);
                return votes;
            }
            14 => vote.height = Height::MAX,
            _ => {
                vote.height = 0;
            }
        }
        votes[first] = self.resigned(from, vote);
        votes
    }

    fn mutated_proposal(&mut self, from: ReplicaIndex, ours: &PrePrepare) -> PrePrepare {
        let choice = self.byzantine_random.number();
        let mut bent = ours.clone();
        let mut envelopes = bent.proposal.envelopes.to_vec();
        match choice >> 8 & 15 {
            0 => bent.proposal.time = bent.proposal.time.plus(choice & 3),
            1 => bent.proposal.time = crate::cast::GENESIS_TIME,
            2 => bent.proposal.parent = Hash([choice as u8; 32]),
            3 => envelopes.clear(),
            4 => drop(envelopes.pop()),
            5 => envelopes.reverse(),
            6 => envelopes.extend(envelopes.last().cloned()),
            7 => envelopes.iter_mut().for_each(|envelope| envelope.signature = Signature::ZERO),
            8 => bent.height = near(bent.height, choice),
            9 => bent.view = near(bent.view, choice),
            10 => bent.epoch = near(bent.epoch, choice),
            11 => bent.height = bent.height.saturating_add(64),
            // Not signed anew.
            12 => return PrePrepare { height: near(bent.height, choice), ..bent },
            13 => return PrePrepare { view: near(bent.view, choice), ..bent },
            _ => return PrePrepare { signature: Signature::ZERO, ..bent },
        }
        bent.proposal.envelopes = Bounded::try_collect(envelopes).unwrap_or_default();
        self.signed_pre_prepare(from, bent)
    }

    fn mutated_view_change(&mut self, from: ReplicaIndex, ours: &ViewChange) -> ViewChange {
        let choice = self.byzantine_random.number();
        let mut bent = ours.clone();
        let mut body = ours.claim.body.clone();
        match choice >> 8 & 15 {
            0 => body.view = near(body.view, choice),
            1 => body.rank.height = near(body.rank.height, choice),
            2 => body.rank.view = near(body.rank.view, choice),
            3 => body.committed = near(body.committed, choice),
            4 => body.header = Hash([4; 32]),
            5 => body.epoch = near(body.epoch, choice),
            6 => body.replica = ReplicaIndex::MAX,
            7 => bent.certificate = None,
            // A certificate of another height, with the claim that goes with it.
            8 | 9 => {
                let older = self.conspiracy.claims.values().flat_map(|claims| claims.values());
                let older = older.filter_map(|known| known.certificate.clone()).next();
                let view = if choice & 1 == 0 { body.view } else { near(body.view, choice >> 1) };
                return self.view_change(from, view, older);
            }
            // A certificate that does not hold, claimed as it is (hazard VC3).
            10..=14 => {
                let Some(certificate) = &ours.certificate else { return bent };
                let certificate = self.malformed_certificate(certificate);
                return self.view_change(from, body.view, Some(certificate));
            }
            _ => {
                let claim = SignedClaim { signature: Signature::ZERO, ..bent.claim };
                return ViewChange { claim, ..bent };
            }
        }
        self.signed_claim(from, body, bent)
    }

    fn mutated_new_view(&mut self, from: ReplicaIndex, ours: &NewView) -> NewView {
        let choice = self.byzantine_random.number();
        let mut bent = ours.clone();
        let mut claims = ours.claims.to_vec();
        match choice >> 8 & 15 {
            0 => drop(claims.pop()),
            1 => claims.extend(claims.last().cloned()),
            2 => claims.reverse(),
            3 => {
                let first = claims[0].clone();
                claims.iter_mut().for_each(|claim| *claim = first.clone());
            }
            4 => bent.base = None,
            5 => {
                let older = self.conspiracy.claims.values().flat_map(|claims| claims.values());
                bent.base = older.filter_map(|known| known.certificate.clone()).next();
            }
            6 | 7 => {
                bent.base = ours.base.as_ref().map(|base| self.malformed_certificate(base));
            }
            8 => bent.view = near(bent.view, choice),
            9 => bent.epoch = near(bent.epoch, choice),
            10 => claims.iter_mut().for_each(|claim| claim.body.rank.height = 0),
            11 => claims.iter_mut().for_each(|claim| claim.body.view = near(claim.body.view, choice)),
            12 => claims[0].signature = Signature::ZERO,
            13 => return NewView { view: near(bent.view, choice), ..bent },
            _ => return NewView { signature: Signature::ZERO, ..bent },
        }
        bent.claims = Bounded::try_collect(claims).unwrap_or_default();
        // Only the leader of the view can sign it; in a relayed one the signature tells.
        if self.leads(from, bent.view) { self.signed_new_view(from, bent) } else { bent }
    }
}
