//! What this replica can show about others: statements that no correct replica signs.
//!
//! Invariants: whatever is reported holds under signatures that were checked, here or at the door; one piece
//! for each place, a bounded number of each kind against each replica; nothing here decides a vote. What a
//! leader tells one replica and another replica its own followers is compared by telling each other the signed
//! digest alone (hazard A6). Signatures that do not hold, silence and lateness prove nothing to others.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crypto::{Certificate, CertificateKind, Hash};
use quorate_protocol::evidence::{
    Contradiction, ParentWitness, Place, Proof, ProposalStatement, SignedDigest,
};
use quorate_protocol::limits::EVIDENCE_PER_KIND_MAX;
use quorate_protocol::peer::Batch;
use quorate_protocol::view_change::{Rank, SignedClaim, Suspicion};
use quorate_protocol::{
    Evidence, EvidenceKind, Header, Height, PeerMessage, PrePrepare, ReplicaIndex, View, Vote, VoteKind,
};

use crate::effect::Effect;
use crate::mutant::{Mutant, broken};
use crate::probe::{Probe, reached};
use crate::replica::Replica;
use crate::vote::holds;

/// Signed digests of proposals that are remembered; those of the lowest views and heights give way. They
/// outlive the commit of their height, because whoever was told something else may say so late.
const SEEN_PROPOSALS_MAX: usize = 256;
/// Votes for unknown headers whose voters are asked what they voted for, at one time.
const INQUIRIES_MAX: usize = 8;

/// A leader's proposal, seen first at its place.
#[derive(Clone, Debug)]
struct Seen {
    signed: SignedDigest,
    /// Replicas that were told of it, a bit for each.
    told: u32,
}

/// A vote for another header than the one that was committed.
#[derive(Clone, Debug)]
struct Inquiry {
    vote: Vote,
    certified: Header,
    certificate: Certificate,
}

/// What is remembered in order to notice contradictions. Bounded by the number of replicas and the constants
/// of this file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witness {
    reported: BTreeMap<(ReplicaIndex, EvidenceKind), BTreeSet<(View, Height)>>,
    seen: BTreeMap<(View, Height), Seen>,
    /// The claim of each replica for the latest view.
    claims: BTreeMap<ReplicaIndex, SignedClaim>,
    /// The COMMIT of the highest rank of each replica in a commit certificate of a committed height.
    commits: BTreeMap<ReplicaIndex, Vote>,
    /// By the header that was voted for.
    inquiries: BTreeMap<Hash, Inquiry>,
}

impl Replica {
    /// Reports, unless this place or enough of the kind was reported.
    fn report(&mut self, culprit: ReplicaIndex, proof: Proof) {
        let evidence =
            Evidence::new(*self.configuration.cluster(), self.configuration.epoch(), culprit, proof);
        let Place { kind, view, height, .. } = evidence.place();
        if self.is_news(culprit, kind, (view, height)) && !broken(Mutant::EvidenceOff) {
            self.witness.reported.entry((culprit, kind)).or_default().insert((view, height));
            self.effects.push(Effect::Evidence(Box::new(evidence)));
        }
    }

    /// Whether evidence of this kind against this replica would be reported.
    pub(crate) fn is_news(&self, culprit: ReplicaIndex, kind: EvidenceKind, place: (View, Height)) -> bool {
        let known = self.witness.reported.get(&(culprit, kind));
        known.is_none_or(|places| places.len() < EVIDENCE_PER_KIND_MAX && !places.contains(&place))
    }

    /// Whether somebody was asked what it voted for with this header.
    pub(crate) fn inquires(&self, header: &Hash) -> bool {
        self.witness.inquiries.contains_key(header)
    }

    fn vote_holds(&self, vote: &Vote) -> bool {
        holds(&self.configuration, self.verifier.as_ref())(vote)
    }

    /// Two votes of one replica at one place, both of which hold.
    pub(crate) fn report_votes(&mut self, first: &Vote, second: &Vote) {
        let signed = |vote: &Vote| SignedDigest { digest: vote.header, signature: vote.signature };
        let both = Contradiction::new(first.view, first.height, signed(first), signed(second));
        let proof = match first.kind {
            VoteKind::Prepare => {
                reached(Probe::TwoPrepares);
                Proof::ConflictingPrepare(both)
            }
            VoteKind::Commit => {
                reached(Probe::TwoCommits);
                Proof::ConflictingCommit(both)
            }
        };
        self.report(first.replica, proof);
    }

    /// Remembers the first proposal of a place; another one is evidence (hazards AU9, AU11).
    pub(crate) fn note_proposal(&mut self, view: View, height: Height, signed: SignedDigest) {
        match self.witness.seen.get(&(view, height)).map(|seen| seen.signed) {
            None => {
                self.witness.seen.insert((view, height), Seen { signed, told: 0 });
                if self.witness.seen.len() > SEEN_PROPOSALS_MAX {
                    self.witness.seen.pop_first();
                }
            }
            Some(first) if first.digest == signed.digest => {}
            Some(first) => {
                reached(Probe::TwoProposals);
                let both = Contradiction::new(view, height, first, signed);
                self.report(self.configuration.leader(view), Proof::ConflictingPrePrepare(both));
                if view == self.view.number {
                    self.suspect(Suspicion::Fault);
                }
            }
        }
    }

    /// What a peer was proposed, which votes for something else here. Means nothing alone.
    pub(crate) fn on_proposed(&mut self, statement: &ProposalStatement) {
        let place = (statement.view, statement.height);
        if self.witness.seen.contains_key(&place) {
            self.note_proposal(statement.view, statement.height, statement.signed);
        }
    }

    /// Whether the signature of this statement is worth a check.
    pub(crate) fn is_contrary(&self, statement: &ProposalStatement) -> bool {
        let (view, height) = (statement.view, statement.height);
        let leader = self.configuration.leader(view);
        self.witness
            .seen
            .get(&(view, height))
            .is_some_and(|seen| seen.signed.digest != statement.signed.digest)
            && self.is_news(leader, EvidenceKind::ConflictingPrePrepare, (view, height))
    }

    /// Looks at a vote that has just been stored.
    pub(crate) fn watch_vote(&mut self, vote: &Vote) {
        if vote.replica == self.configuration.me() {
            return;
        }
        self.tell_proposal(vote);
        if vote.kind == VoteKind::Commit {
            self.compare_with_claim(vote);
            let decided = self.decided.get(&vote.height);
            let mut known = decided.into_iter().chain(self.view.certificates.get(&vote.height));
            if let Some(certificate) = known.find(|known| rules_out(known, vote)).cloned() {
                self.report_unfounded(vote.clone(), certificate);
            }
        }
    }

    /// An own PREPARE was issued: whoever voted for something else is told what was proposed here.
    pub(crate) fn watch_own_prepare(&mut self, height: Height, header: &Hash) {
        for vote in self.votes.contrary(height, header) {
            self.tell_proposal(&vote);
        }
    }

    /// Tells a peer that votes for another header, once, which proposal this replica was sent: together with
    /// what it was sent itself that may be evidence against their leader.
    fn tell_proposal(&mut self, vote: &Vote) {
        let Vote { view, height, replica, .. } = *vote;
        let differs = self.view.prepared.get(&height).is_some_and(|ours| *ours != vote.header);
        let (me, leader) = (self.configuration.me(), self.configuration.leader(view));
        if view != self.view.number || !differs || replica == me || replica == leader {
            return;
        }
        let Some(seen) = self.witness.seen.get_mut(&(view, height)) else { return };
        let bit = 1_u32.checked_shl(u32::from(replica)).unwrap_or(0);
        if seen.told & bit == 0 {
            reached(Probe::ProposalTold);
            seen.told |= bit;
            let (epoch, signed) = (vote.epoch, seen.signed);
            self.send(replica, PeerMessage::Proposed(ProposalStatement { epoch, view, height, signed }));
        }
    }

    /// A certificate was learned: COMMITs that it rules out are evidence.
    pub(crate) fn watch_certificate(&mut self, certificate: &Certificate) {
        for vote in self.votes.contrary(certificate.height, &certificate.header_hash) {
            if rules_out(certificate, &vote) {
                self.report_unfounded(vote, certificate.clone());
            }
        }
    }

    fn report_unfounded(&mut self, commit: Vote, certificate: Certificate) {
        let (culprit, place) = (commit.replica, (commit.view, commit.height));
        let news =
            culprit != self.configuration.me() && self.is_news(culprit, EvidenceKind::UnfoundedCommit, place);
        if news && self.vote_holds(&commit) {
            reached(Probe::CommitUnfounded);
            self.report(culprit, Proof::UnfoundedCommit { commit, certificate });
        }
    }

    /// A claim, whose signature the door has checked: it must cover every COMMIT of an earlier view (R1).
    pub(crate) fn watch_claim(&mut self, claim: &SignedClaim) {
        let replica = claim.body.replica;
        if replica == self.configuration.me() {
            return;
        }
        let certified = self.witness.commits.get(&replica);
        let omitted = self.votes.of(replica).chain(certified).filter(|vote| omits(claim, vote));
        if let Some(commit) = omitted.max_by_key(|vote| (vote.view, vote.height)).cloned() {
            self.report_omission(claim.clone(), commit);
        }
        let known = self.witness.claims.get(&replica);
        if known.is_none_or(|known| known.body.view < claim.body.view) {
            self.witness.claims.insert(replica, claim.clone());
        }
    }

    fn compare_with_claim(&mut self, commit: &Vote) {
        let claim = self.witness.claims.get(&commit.replica);
        if let Some(claim) = claim.filter(|claim| omits(claim, commit)).cloned() {
            self.report_omission(claim, commit.clone());
        }
    }

    fn report_omission(&mut self, claim: SignedClaim, commit: Vote) {
        let (culprit, place) = (commit.replica, (commit.view, commit.height));
        if self.is_news(culprit, EvidenceKind::ViewChangeOmission, place) && self.vote_holds(&commit) {
            reached(Probe::ClaimOmits);
            self.report(culprit, Proof::ViewChangeOmission { claim, commit });
        }
    }

    /// A height was committed: remembers who signed that, and asks whoever voted for an unknown header what
    /// it is, because a broken replica says so, and its answer proves it broken.
    pub(crate) fn watch_commit(&mut self, header: &Header, certificate: &Certificate) {
        for (replica, signature) in certificate.votes() {
            let vote = Vote {
                kind: VoteKind::Commit,
                epoch: certificate.epoch,
                view: certificate.view,
                height: certificate.height,
                header: certificate.header_hash,
                replica,
                signature: *signature,
            };
            let rank = |vote: &Vote| (vote.view, vote.height);
            let higher = self.witness.commits.get(&replica).is_none_or(|known| rank(known) < rank(&vote));
            if higher && replica != self.configuration.me() {
                self.compare_with_claim(&vote);
                self.witness.commits.insert(replica, vote);
            }
        }
        for vote in self.votes.contrary(certificate.height, &certificate.header_hash) {
            self.inquire(vote, header, certificate);
        }
    }

    fn inquire(&mut self, vote: Vote, certified: &Header, certificate: &Certificate) {
        let place = (vote.view, vote.height);
        let unknown = self.blocks.by_header(&vote.header).is_none()
            && !self.witness.inquiries.contains_key(&vote.header)
            && vote.replica != self.configuration.me();
        if !unknown || !self.is_news(vote.replica, EvidenceKind::BadExecution, place) {
            return;
        }
        let above = vote.height.saturating_sub(1);
        reached(Probe::Inquired);
        self.send(vote.replica, PeerMessage::FetchBatches { header: vote.header, above });
        if self.witness.inquiries.len() >= INQUIRIES_MAX {
            self.witness.inquiries.pop_first();
        }
        let inquiry = Inquiry { vote, certified: certified.clone(), certificate: certificate.clone() };
        self.witness.inquiries.insert(inquiry.vote.header, inquiry);
    }

    /// Batches have come; the first one may be what somebody voted for.
    pub(crate) fn watch_batches(&mut self, batches: &[Batch]) {
        let Some(header) = batches.first().map(|batch| &batch.header) else { return };
        let Some(inquiry) = self.witness.inquiries.remove(&header.hash()) else { return };
        let Inquiry { vote, certified, certificate } = inquiry;
        // One proposal has one header; another proposal was the leader's lie, or lost in a view change.
        if header.proposal == certified.proposal && self.vote_holds(&vote) {
            let header = header.clone();
            self.report(vote.replica, Proof::BadExecution { vote, header, certified, certificate });
        }
    }

    /// The proposal kept at this height is earlier than its parent allows (rule S8).
    pub(crate) fn report_time(&mut self, height: Height) {
        let (view, leader) = (self.view.number, self.configuration.leader(self.view.number));
        if !self.is_news(leader, EvidenceKind::TimeRegression, (view, height)) {
            return;
        }
        let kept = self.view.pre_prepares.get(&height).map(|kept| PrePrepare::clone(&kept.message));
        if let (Some(pre_prepare), Some(parent)) = (kept, self.parent_witness(height)) {
            reached(Probe::TimeWitnessed);
            self.report(leader, Proof::TimeRegression { pre_prepare, parent });
        }
    }

    /// What shows the time of the block on which a proposal at `height` rests.
    fn parent_witness(&self, height: Height) -> Option<ParentWitness> {
        let below = height.checked_sub(1)?;
        if below == self.committed.height {
            let header = self.committed.header.clone();
            let certificate = self.committed.certificate.clone();
            return Some(certificate.map_or(ParentWitness::Genesis, |certificate| {
                ParentWitness::Certified { header, certificate }
            }));
        }
        let block = self.view.chain.get(&below).and_then(|digest| self.blocks.get(digest))?;
        Some(ParentWitness::Proposed((*block.proposal).clone()))
    }
}

/// Whether a claim is lower than a COMMIT of an earlier view, which it should cover (rule R1).
fn omits(claim: &SignedClaim, vote: &Vote) -> bool {
    let rank = Rank { view: vote.view, height: vote.height };
    vote.kind == VoteKind::Commit
        && vote.epoch == claim.body.epoch
        && vote.view < claim.body.view
        && rank > claim.body.rank
}

/// Whether a certificate shows that this COMMIT rests on no prepare certificate: those of one view never
/// differ at a height, and those of later views continue what is committed (rule R1).
fn rules_out(certificate: &Certificate, vote: &Vote) -> bool {
    let in_force = match certificate.kind {
        CertificateKind::Prepare => certificate.view == vote.view,
        CertificateKind::Commit => certificate.view <= vote.view,
    };
    vote.kind == VoteKind::Commit
        && in_force
        && vote.epoch == certificate.epoch
        && vote.height == certificate.height
        && vote.header != certificate.header_hash
}
