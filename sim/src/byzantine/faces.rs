//! Those who say two things: an equivocating leader with its accomplices, echoes, votes that are not signed.
//!
//! Invariant: the other chain of an equivocating leader is a chain: each of its proposals rests on the one
//! below it, and the votes for it name the headers that it really leads to, so that both faces could
//! complete if quorums were smaller (hazard A6).

use std::sync::Arc;

use quorate_crypto::{Bounded, Hash, Signature};
use quorate_protocol::view_change::{Rank, ViewChange, ViewChangeBody};
use quorate_protocol::{PeerMessage, PrePrepare, Proposal, ReplicaIndex, Vote, VoteKind};

use super::{Behaviour, Deed, Outgoing};
use crate::machine::State;
use crate::network::Address;
use crate::oracle::Verdict;
use crate::world::{Packet, World};

/// What an equivocating leader proposes to those that it deceives.
#[derive(Debug)]
pub(super) struct OtherFace {
    message: Arc<PeerMessage>,
    proposal: Proposal,
    /// Its digest, and that of the first face.
    digest: Hash,
    first: Hash,
    /// The state after it, once its parent's is known.
    state: Option<State>,
}

impl World {
    /// Its own votes under signatures that do not hold.
    pub(super) fn forged(&mut self, from: ReplicaIndex, message: &Arc<PeerMessage>) -> Arc<PeerMessage> {
        let PeerMessage::Votes(votes) = message.as_ref() else { return message.clone() };
        if votes.iter().any(|vote| vote.replica == from) {
            self.conspiracy.deeds.hit(Deed::Forged);
        }
        let bent = votes.iter().map(|vote| {
            let own = vote.replica == from;
            Vote { signature: if own { Signature::ZERO } else { vote.signature }, ..vote.clone() }
        });
        Arc::new(PeerMessage::Votes(Bounded::try_collect(bent).unwrap_or_default()))
    }

    /// Whether the leader of a view shows this replica its other face.
    fn is_deceived(&self, view: quorate_protocol::View, to: ReplicaIndex) -> bool {
        let leader = self.genesis.members.leader(view);
        matches!(self.behaviour(leader), Some(Behaviour::Equivocating(mask)) if mask >> to & 1 == 1)
    }

    /// The other proposal of an equivocating leader; votes for it, also those of its accomplices.
    pub(super) fn other_face(
        &mut self,
        from: ReplicaIndex,
        to: ReplicaIndex,
        message: &Arc<PeerMessage>,
    ) -> Arc<PeerMessage> {
        match message.as_ref() {
            PeerMessage::PrePrepare(ours)
                if self.leads(from, ours.view) && self.is_deceived(ours.view, to) =>
            {
                self.conspiracy.deeds.hit(Deed::Equivocated);
                self.face(from, ours)
            }
            PeerMessage::Votes(votes) => {
                let bent: Vec<Vote> = votes.iter().map(|vote| self.other_vote(from, to, vote)).collect();
                Arc::new(PeerMessage::Votes(Bounded::try_collect(bent).unwrap_or_default()))
            }
            _ => message.clone(),
        }
    }

    fn face(&mut self, from: ReplicaIndex, ours: &PrePrepare) -> Arc<PeerMessage> {
        let place = (from, ours.view, ours.height);
        if let Some(other) = self.conspiracy.others.get(&place) {
            return other.message.clone();
        }
        let below = self.conspiracy.others.get(&(from, ours.view, ours.height - 1));
        let below = below.filter(|below| below.first == ours.proposal.parent);
        let parent = below.map_or(ours.proposal.parent, |below| below.digest);
        let proposal = Proposal { parent, time: ours.proposal.time.plus(1), ..ours.proposal.clone() };
        let digest = proposal.digest(&self.cluster, ours.epoch, ours.height);
        let first = ours.proposal.digest(&self.cluster, ours.epoch, ours.height);
        let message = Arc::new(PeerMessage::PrePrepare(self.signed_proposal(from, ours, proposal.clone())));
        let face = OtherFace { message: message.clone(), proposal, digest, first, state: None };
        self.conspiracy.others.insert(place, face);
        message
    }

    /// An own vote, for the other chain if the leader of its view shows that to the receiver.
    fn other_vote(&mut self, from: ReplicaIndex, to: ReplicaIndex, vote: &Vote) -> Vote {
        if vote.replica != from || !self.is_deceived(vote.view, to) {
            return vote.clone();
        }
        let leader = self.genesis.members.leader(vote.view);
        match self.other_header(from, leader, vote) {
            Some(header) => {
                self.conspiracy.deeds.hit(Deed::VotedTwice);
                self.resigned(from, Vote { header, ..vote.clone() })
            }
            None => vote.clone(),
        }
    }

    /// The header of the other chain at the place of a vote, if the voter can know it.
    fn other_header(&mut self, from: ReplicaIndex, leader: ReplicaIndex, vote: &Vote) -> Option<Hash> {
        let other = self.conspiracy.others.get(&(leader, vote.view, vote.height))?;
        if other.state.is_none() {
            let (proposal, parent) = (other.proposal.clone(), other.proposal.parent);
            let below = self.conspiracy.others.get(&(leader, vote.view, vote.height - 1));
            let below = below.filter(|below| below.digest == parent).and_then(|below| below.state.clone());
            let below = below.or_else(|| self.state_of(from, &parent))?;
            let state = self.imagine(&below, vote.height, &proposal)?.state;
            self.conspiracy.others.get_mut(&(leader, vote.view, vote.height))?.state = Some(state);
        }
        let other = self.conspiracy.others.get(&(leader, vote.view, vote.height))?;
        other.state.as_ref().map(|state| state.header().hash())
    }

    /// An own VIEW-CHANGE that claims genesis.
    pub(super) fn without_claim(
        &mut self,
        from: ReplicaIndex,
        message: &Arc<PeerMessage>,
    ) -> Arc<PeerMessage> {
        let PeerMessage::ViewChange(ours) = message.as_ref() else { return message.clone() };
        if ours.claim.body.replica != from {
            return message.clone();
        }
        if ours.certificate.is_some() {
            self.conspiracy.deeds.hit(Deed::ClaimedNothing);
        }
        let header = self.genesis_header.hash();
        let body = ViewChangeBody { rank: Rank::default(), header, committed: 0, ..ours.claim.body.clone() };
        let message = ViewChange { certificate: None, ..ours.clone() };
        Arc::new(PeerMessage::ViewChange(self.signed_claim(from, body, message)))
    }

    /// A claim that is shown in every other view; no batches, and COMMITs to some only (hazard VC18).
    pub(super) fn hidden(
        &mut self,
        from: ReplicaIndex,
        marked: bool,
        message: &Arc<PeerMessage>,
    ) -> Vec<Outgoing> {
        match message.as_ref() {
            PeerMessage::ViewChange(ours) if ours.claim.body.view % 2 == 1 => {
                self.conspiracy.deeds.hit(Deed::Hid);
                Outgoing::now(self.without_claim(from, message))
            }
            PeerMessage::Batches(_) | PeerMessage::Committed(_) | PeerMessage::Certificate(_) => {
                self.conspiracy.deeds.hit(Deed::Withheld);
                Vec::new()
            }
            PeerMessage::Votes(votes) if marked => {
                let prepares = votes.iter().filter(|vote| vote.kind == VoteKind::Prepare).cloned();
                let prepares = Bounded::try_collect(prepares).unwrap_or_default();
                Outgoing::now(Arc::new(PeerMessage::Votes(prepares)))
            }
            _ => Outgoing::now(message.clone()),
        }
    }

    /// An echoing replica votes for whatever others vote for, to everybody.
    pub(super) fn echo(&mut self, index: ReplicaIndex, message: &PeerMessage) -> Verdict {
        let PeerMessage::Votes(votes) = message else { return Ok(()) };
        let mut echoes = Vec::new();
        for vote in votes {
            if self.conspiracy.echoed.insert((index, vote.view, vote.height, vote.header)) {
                self.conspiracy.deeds.hit(Deed::Echoed);
                for kind in [VoteKind::Prepare, VoteKind::Commit] {
                    echoes.push(self.resigned(index, Vote { kind, replica: index, ..vote.clone() }));
                }
            }
        }
        for vote in &echoes {
            self.oracle.vote_sent(vote)?;
        }
        if echoes.is_empty() {
            return Ok(());
        }
        let packet =
            Packet::Peer(Arc::new(PeerMessage::Votes(Bounded::try_collect(echoes).unwrap_or_default())));
        for to in self.genesis.members.indices().filter(|to| *to != index) {
            self.transmit(Address::Replica(index), Address::Replica(to), &packet);
        }
        Ok(())
    }
}
