//! Evidence in the simulation: what replicas show convinces the auditor and names Byzantine replicas only, and
//! what correct replicas signed convicts none of them, however it is put together.
//!
//! Invariant: nothing here changes the course of a run.

use std::collections::BTreeMap;

use quorate_audit::Court;
use quorate_crypto::{Certificate, Hash};
use quorate_protocol::evidence::{Contradiction, ParentWitness, Proof, SignedDigest};
use quorate_protocol::view_change::SignedClaim;
use quorate_protocol::{Evidence, EvidenceKind, Header, PeerMessage, PrePrepare, ReplicaIndex, Vote};

use crate::marks::Mark;
use crate::oracle::{Verdict, broken};
use crate::world::World;

/// One run in so many is searched for a way to frame a correct replica.
const FRAMED_SHARE: u64 = 8;
/// Statements of each type that are kept of one replica, headers and certificates that are kept of all.
const KEPT_MAX: usize = 160;

/// What one correct replica signed.
#[derive(Debug, Default)]
struct Signed {
    proposals: Vec<PrePrepare>,
    votes: Vec<Vote>,
    claims: Vec<SignedClaim>,
}

/// What a slanderer has to work with.
#[derive(Debug)]
pub struct Slander {
    cluster: Hash,
    kept: bool,
    signed: BTreeMap<ReplicaIndex, Signed>,
    headers: Vec<Header>,
    certificates: Vec<Certificate>,
    /// Pieces of evidence that replicas showed, by kind.
    pub shown: BTreeMap<EvidenceKind, u64>,
    /// Ways to frame somebody that were tried.
    pub tried: u64,
}

fn keep<T: PartialEq + Clone>(all: &mut Vec<T>, one: &T) {
    if all.len() < KEPT_MAX && !all.contains(one) {
        all.push(one.clone());
    }
}

impl Slander {
    /// For the run of a seed.
    #[must_use]
    pub fn new(seed: u64, cluster: Hash) -> Self {
        Self {
            cluster,
            kept: seed.is_multiple_of(FRAMED_SHARE),
            signed: BTreeMap::new(),
            headers: Vec::new(),
            certificates: Vec::new(),
            shown: BTreeMap::new(),
            tried: 0,
        }
    }

    /// Hears a message that leaves a replica, correct or not.
    fn hear(&mut self, from: ReplicaIndex, is_correct: bool, leads: bool, message: &PeerMessage) {
        match message {
            PeerMessage::Certificate(certificate) => keep(&mut self.certificates, certificate),
            PeerMessage::NewView(new_view) => {
                new_view.base.iter().for_each(|base| keep(&mut self.certificates, base));
            }
            PeerMessage::ViewChange(message) => {
                message.certificate.iter().for_each(|known| keep(&mut self.certificates, known));
            }
            PeerMessage::Batches(batches) => {
                batches.iter().for_each(|batch| keep(&mut self.headers, &batch.header));
            }
            _ => {}
        }
        if !is_correct {
            return;
        }
        let signed = self.signed.entry(from).or_default();
        match message {
            PeerMessage::PrePrepare(proposed) if leads => keep(&mut signed.proposals, proposed),
            PeerMessage::Votes(votes) => {
                votes
                    .iter()
                    .filter(|vote| vote.replica == from)
                    .for_each(|vote| keep(&mut signed.votes, vote));
            }
            PeerMessage::ViewChange(message) if message.claim.body.replica == from => {
                keep(&mut signed.claims, &message.claim);
            }
            _ => {}
        }
    }

    /// Everything that could be said against one replica.
    fn accusations(&self, signed: &Signed) -> Vec<Proof> {
        let mut all = Vec::new();
        let by_vote = |vote: &Vote| SignedDigest { digest: vote.header, signature: vote.signature };
        for one in &signed.votes {
            for other in signed.votes.iter().filter(|other| other.height == one.height && *other != one) {
                let both = Contradiction::new(one.view, one.height, by_vote(one), by_vote(other));
                all.extend([Proof::ConflictingPrepare(both), Proof::ConflictingCommit(both)]);
                all.push(Proof::ConflictingPrePrepare(both));
            }
            for claim in &signed.claims {
                all.push(Proof::ViewChangeOmission { claim: claim.clone(), commit: one.clone() });
            }
            for certificate in self.certificates.iter().filter(|known| known.height == one.height) {
                let (commit, certificate) = (one.clone(), certificate.clone());
                all.push(Proof::UnfoundedCommit { commit, certificate: certificate.clone() });
                all.extend(self.executions(one, &certificate));
            }
        }
        for one in &signed.proposals {
            all.extend(self.proposal_accusations(one, signed));
        }
        all
    }

    fn executions(&self, vote: &Vote, certificate: &Certificate) -> Vec<Proof> {
        let at = |header: &&Header| header.height == vote.height;
        let pairs = self.headers.iter().filter(at).flat_map(|header| {
            self.headers.iter().filter(at).map(move |certified| (header.clone(), certified.clone()))
        });
        let bad = |(header, certified)| Proof::BadExecution {
            vote: vote.clone(),
            header,
            certified,
            certificate: certificate.clone(),
        };
        pairs.map(bad).collect()
    }

    fn proposal_accusations(&self, one: &PrePrepare, signed: &Signed) -> Vec<Proof> {
        let mut all = Vec::new();
        let early = |parent| Proof::TimeRegression { pre_prepare: one.clone(), parent };
        all.push(early(ParentWitness::Genesis));
        for certificate in self.certificates.iter().filter(|known| known.height + 1 == one.height) {
            for header in self.headers.iter().filter(|header| header.height + 1 == one.height) {
                let (header, certificate) = (header.clone(), certificate.clone());
                all.push(early(ParentWitness::Certified { header, certificate }));
            }
        }
        let proposals = self.signed.values().flat_map(|signed| &signed.proposals);
        for other in proposals.filter(|other| other.height + 1 == one.height) {
            all.push(early(ParentWitness::Proposed(other.proposal.clone())));
        }
        for envelope in 0..=one.proposal.envelopes.len() as u32 {
            all.push(Proof::InvalidProposal { pre_prepare: one.clone(), envelope });
        }
        for other in signed.proposals.iter().filter(|other| other.height == one.height && *other != one) {
            let side = |proposed: &PrePrepare| SignedDigest {
                digest: proposed.proposal.digest(&self.cluster, proposed.epoch, proposed.height),
                signature: proposed.signature,
            };
            let both = Contradiction::new(one.view, one.height, side(one), side(other));
            all.push(Proof::ConflictingPrePrepare(both));
        }
        all
    }
}

impl World {
    fn court(&self) -> Court<'_> {
        Court {
            cluster: self.cluster,
            members: &self.genesis.members,
            genesis: &self.genesis_header,
            verifier: self.verifier.as_ref(),
        }
    }

    /// A replica shows that another one lied.
    pub(crate) fn show_evidence(&mut self, evidence: &Evidence) -> Verdict {
        self.marks.hit(Mark::Evidence);
        *self.slander.shown.entry(evidence.kind()).or_default() += 1;
        let guilt = match self.court().judge(evidence) {
            Ok(guilt) => guilt,
            Err(refusal) => return broken("evidence convinces", format!("{refusal}: {evidence:?}")),
        };
        let quorum_of_liars = guilt.assumes_quorum && self.has_too_many_liars();
        if !self.is_faulty(guilt.culprit) && !quorum_of_liars {
            return broken("no evidence against a correct replica", format!("{evidence:?}"));
        }
        Ok(())
    }

    fn has_too_many_liars(&self) -> bool {
        self.conspiracy.behaviours.len() > self.genesis.members.f()
    }

    /// Hears what leaves a replica, for the attempt to frame one.
    pub(crate) fn overhear(&mut self, from: ReplicaIndex, message: &PeerMessage) {
        if self.slander.kept {
            let is_correct = !self.is_faulty(from);
            let leads = matches!(message, PeerMessage::PrePrepare(proposed)
                if self.genesis.members.leader(proposed.view) == from);
            self.slander.hear(from, is_correct, leads, message);
        }
    }

    /// Tries to convict correct replicas by what they signed.
    pub(crate) fn frame_correct_replicas(&mut self) -> Verdict {
        if self.has_too_many_liars() || self.plan.mutant.is_some() {
            return Ok(());
        }
        let mut tried = 0_u64;
        for (culprit, signed) in &self.slander.signed {
            for proof in self.slander.accusations(signed) {
                tried += 1;
                let epoch = self.genesis.members.epoch();
                let evidence = Evidence::new(self.cluster, epoch, *culprit, proof);
                if self.court().judge(&evidence).is_ok() {
                    return broken("no correct replica can be framed", format!("{evidence:?}"));
                }
            }
        }
        self.slander.tried = tried;
        Ok(())
    }
}
