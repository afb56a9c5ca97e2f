//! Byzantine replicas: correct code whose messages are bent on the way out, with its own key.
//!
//! Invariant: at most f replicas of a run are Byzantine; they sign only under their own keys; what they
//! relay for others is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_crypto::{Bounded, Hash, Signature, Signer};
use quorate_execution::Environment;
use quorate_protocol::view_change::{Rank, SignedClaim, ViewChange, ViewChangeBody};
use quorate_protocol::{Height, PeerMessage, PrePrepare, Proposal, ReplicaIndex, View, Vote, VoteKind};

use crate::network::Address;
use crate::oracle::Verdict;
use crate::random::{MILLION, Random};
use crate::world::{Packet, World};

/// Chance in millionths that a [`Behaviour::Mutating`] replica bends a message.
pub const MUTATION: u32 = MILLION / 4;

/// What a Byzantine replica does. A mask has a bit for each replica that is treated differently.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Sends nothing to some (hazard A8).
    Withholding(u64),
    /// As a leader proposes something else to some, and votes for it before them (hazard A6).
    Equivocating(u64),
    /// Votes for every header that anybody votes for.
    Echoing,
    /// Forgets everything in a crash, its log included (hazard A10).
    Forgetting,
    /// Claims to hold no certificate.
    ClaimingNothing,
    /// Makes small changes to what it signs.
    Mutating,
    /// Signs its votes to some wrongly (hazard A13).
    Forging(u64),
}

impl Behaviour {
    /// One of them, for a cluster of `n`.
    pub fn draw(random: &mut Random, n: usize) -> Self {
        let mask = random.between(1, (1 << n) - 2);
        match random.below(7) {
            0 => Self::Withholding(mask),
            1 => Self::Equivocating(mask),
            2 => Self::Echoing,
            3 => Self::Forgetting,
            4 => Self::ClaimingNothing,
            5 => Self::Mutating,
            _ => Self::Forging(mask),
        }
    }
}

impl Conspiracy {
    /// Nothing was bent yet.
    #[must_use]
    pub fn new(behaviours: BTreeMap<ReplicaIndex, Behaviour>) -> Self {
        Self { behaviours, ..Self::default() }
    }
}

/// What an equivocating leader proposes to those that it deceives.
#[derive(Debug)]
struct OtherFace {
    message: Arc<PeerMessage>,
    /// The header that it leads to, if that could be computed.
    header: Option<Hash>,
}

/// What the Byzantine replicas of a run remember.
#[derive(Debug, Default)]
pub struct Conspiracy {
    /// Who is Byzantine, and how.
    pub behaviours: BTreeMap<ReplicaIndex, Behaviour>,
    others: BTreeMap<(ReplicaIndex, View, Height), OtherFace>,
    /// Votes that were echoed.
    echoed: BTreeSet<(ReplicaIndex, View, Height, Hash)>,
}

impl World {
    /// How this replica misbehaves, if it does.
    pub(crate) fn behaviour(&self, index: ReplicaIndex) -> Option<Behaviour> {
        self.conspiracy.behaviours.get(&index).copied()
    }

    /// What a Byzantine replica sends to `to` in place of a message; nothing if it withholds it.
    pub(crate) fn bend(
        &mut self,
        behaviour: Behaviour,
        from: ReplicaIndex,
        to: ReplicaIndex,
        message: &Arc<PeerMessage>,
    ) -> Option<Arc<PeerMessage>> {
        let marked = |mask: u64| mask >> to & 1 == 1;
        match behaviour {
            Behaviour::Withholding(mask) => (!marked(mask)).then(|| message.clone()),
            Behaviour::Equivocating(mask) if marked(mask) => Some(self.other_face(from, message)),
            Behaviour::ClaimingNothing => Some(self.without_claim(from, message)),
            Behaviour::Mutating if self.byzantine_random.chance(MUTATION) => {
                Some(self.mutated(from, message))
            }
            Behaviour::Forging(mask) if marked(mask) => Some(Self::forged(from, message)),
            Behaviour::Equivocating(_)
            | Behaviour::Forging(_)
            | Behaviour::Mutating
            | Behaviour::Echoing
            | Behaviour::Forgetting => Some(message.clone()),
        }
    }

    /// Its own votes under signatures that do not hold.
    fn forged(from: ReplicaIndex, message: &Arc<PeerMessage>) -> Arc<PeerMessage> {
        let PeerMessage::Votes(votes) = message.as_ref() else { return message.clone() };
        let bent = votes.iter().map(|vote| {
            let own = vote.replica == from;
            Vote { signature: if own { Signature::ZERO } else { vote.signature }, ..vote.clone() }
        });
        Arc::new(PeerMessage::Votes(Bounded::try_collect(bent).unwrap_or_default()))
    }

    fn signer(&self, index: ReplicaIndex) -> Arc<dyn Signer> {
        self.signers[usize::from(index)].clone()
    }

    /// The other proposal of an equivocating leader, and votes for it.
    fn other_face(&mut self, from: ReplicaIndex, message: &Arc<PeerMessage>) -> Arc<PeerMessage> {
        match message.as_ref() {
            PeerMessage::PrePrepare(ours) if self.genesis.members.leader(ours.view) == from => {
                let place = (from, ours.view, ours.height);
                if let Some(other) = self.conspiracy.others.get(&place) {
                    return other.message.clone();
                }
                let proposal = Proposal { time: ours.proposal.time.plus(1), ..ours.proposal.clone() };
                let header = self.header_of(from, ours.height, &proposal);
                let message = Arc::new(PeerMessage::PrePrepare(self.signed_proposal(from, ours, proposal)));
                self.conspiracy.others.insert(place, OtherFace { message: message.clone(), header });
                message
            }
            PeerMessage::Votes(votes) => {
                let others = &self.conspiracy.others;
                let bent = votes.iter().map(|vote| {
                    let other = others.get(&(from, vote.view, vote.height)).and_then(|other| other.header);
                    let header = other.filter(|_| vote.replica == from).unwrap_or(vote.header);
                    self.resigned(from, Vote { header, ..vote.clone() })
                });
                Arc::new(PeerMessage::Votes(Bounded::try_collect(bent).unwrap_or_default()))
            }
            _ => message.clone(),
        }
    }

    fn signed_proposal(&self, from: ReplicaIndex, ours: &PrePrepare, proposal: Proposal) -> PrePrepare {
        let digest = proposal.digest(&self.cluster, ours.epoch, ours.height);
        let statement = PrePrepare::statement(self.cluster, ours.epoch, ours.view, ours.height, digest);
        let signature = self.signer(from).sign(&statement);
        PrePrepare { epoch: ours.epoch, view: ours.view, height: ours.height, proposal, signature }
    }

    /// The header that a proposal leads to, if this replica has executed its parent.
    fn header_of(&self, index: ReplicaIndex, height: Height, proposal: &Proposal) -> Option<Hash> {
        let memory = self.nodes[usize::from(index)].memory.as_ref()?;
        let environment = Environment {
            cluster: self.cluster,
            members: &self.genesis.members,
            verifier: self.verifier.as_ref(),
        };
        let digest = proposal.digest(&self.cluster, self.genesis.members.epoch(), height);
        let executed = memory.parent_state(&proposal.parent)?.execute(&environment, height, proposal, digest);
        executed.ok().map(|executed| executed.state.header().hash())
    }

    /// An own vote signed anew; one of another replica as it is.
    fn resigned(&self, from: ReplicaIndex, mut vote: Vote) -> Vote {
        if vote.replica == from {
            vote.signature = self.signer(from).sign(&vote.statement(self.cluster));
        }
        vote
    }

    /// An own VIEW-CHANGE that claims genesis.
    fn without_claim(&self, from: ReplicaIndex, message: &Arc<PeerMessage>) -> Arc<PeerMessage> {
        let PeerMessage::ViewChange(ours) = message.as_ref() else { return message.clone() };
        if ours.claim.body.replica != from {
            return message.clone();
        }
        let header = self.genesis_header.hash();
        let body = ViewChangeBody { rank: Rank::default(), header, committed: 0, ..ours.claim.body.clone() };
        Arc::new(PeerMessage::ViewChange(self.signed_claim(
            from,
            body,
            ViewChange { certificate: None, ..ours.clone() },
        )))
    }

    fn signed_claim(&self, from: ReplicaIndex, body: ViewChangeBody, message: ViewChange) -> ViewChange {
        let signature = self.signer(from).sign(&body.statement(self.cluster));
        ViewChange { claim: SignedClaim { body, signature }, ..message }
    }

    /// The message with one small change, signed anew.
    fn mutated(&mut self, from: ReplicaIndex, message: &Arc<PeerMessage>) -> Arc<PeerMessage> {
        let random = &mut self.byzantine_random;
        let (choice, change) = (random.below(4), random.between(1, 3));
        let bent = match message.as_ref() {
            PeerMessage::Votes(votes) => {
                let mutate = |vote: &Vote| {
                    let mut vote = vote.clone();
                    match choice {
                        0 => vote.height = vote.height.saturating_sub(change).max(1),
                        1 => vote.height += change,
                        2 => vote.view += change,
                        _ => vote.header = Hash([change as u8; 32]),
                    }
                    vote
                };
                let bent = votes.iter().map(|vote| {
                    if vote.replica == from { self.resigned(from, mutate(vote)) } else { vote.clone() }
                });
                PeerMessage::Votes(Bounded::try_collect(bent).unwrap_or_default())
            }
            PeerMessage::PrePrepare(ours) if self.genesis.members.leader(ours.view) == from => {
                let mut proposal = ours.proposal.clone();
                match choice {
                    0 => proposal.time = proposal.time.plus(change),
                    1 => proposal.time = crate::cast::GENESIS_TIME,
                    2 => proposal.parent = Hash([change as u8; 32]),
                    _ => proposal.envelopes = Bounded::new(),
                }
                PeerMessage::PrePrepare(self.signed_proposal(from, ours, proposal))
            }
            PeerMessage::ViewChange(ours) if ours.claim.body.replica == from => {
                let mut body = ours.claim.body.clone();
                match choice {
                    0 => body.view += change,
                    1 => body.rank.height += change,
                    2 => body.rank.view += change,
                    _ => body.committed += change,
                }
                PeerMessage::ViewChange(self.signed_claim(from, body, ours.clone()))
            }
            PeerMessage::Announce(ours) => {
                let mut announcement = ours.clone();
                match choice {
                    0 => announcement.view += change,
                    1 => announcement.entered = !announcement.entered,
                    2 => announcement.committed += change,
                    _ => announcement.committed = Height::MAX,
                }
                PeerMessage::Announce(announcement)
            }
            PeerMessage::FetchCommitted { from } => {
                PeerMessage::FetchCommitted { from: from.wrapping_sub(change) }
            }
            other => other.clone(),
        };
        Arc::new(bent)
    }

    /// An echoing replica votes for whatever others vote for, to everybody.
    pub(crate) fn echo(&mut self, index: ReplicaIndex, message: &PeerMessage) -> Verdict {
        let PeerMessage::Votes(votes) = message else { return Ok(()) };
        let mut echoes = Vec::new();
        for vote in votes {
            if self.conspiracy.echoed.insert((index, vote.view, vote.height, vote.header)) {
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
