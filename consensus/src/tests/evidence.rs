//! Lies under a signature become evidence at every correct replica, and nothing else does. The network judges
//! every piece with the auditor's verifier as it comes.

use quorate_crypto::Signature;
use quorate_protocol::evidence::{ParentWitness, Proof};
use quorate_protocol::limits::EVIDENCE_PER_KIND_MAX;
use quorate_protocol::{BatchTime, Evidence, EvidenceKind, PeerMessage, Vote, VoteKind};

use super::harness::{MILLISECOND, Net, SECOND};
use crate::{HaltReason, Input, Rejection};

fn votes(votes: Vec<Vote>) -> PeerMessage {
    PeerMessage::Votes(votes.try_into().unwrap())
}

/// What replica `i` holds against others, by kind.
fn kinds(net: &Net, i: u8) -> Vec<(u8, EvidenceKind)> {
    net.nodes[usize::from(i)].evidence.iter().map(|evidence| (evidence.culprit, evidence.kind())).collect()
}

fn only(net: &Net, i: u8) -> &Evidence {
    let [evidence] = &net.nodes[usize::from(i)].evidence[..] else {
        panic!("{} pieces of evidence at {i}", net.nodes[usize::from(i)].evidence.len())
    };
    evidence
}

/// Brings one committed height about.
fn commit_one(net: &mut Net, first: u64) {
    let envelope = net.envelope(1, first, 1, 0);
    net.request_all(&envelope);
    net.settle();
}

#[test]
fn a6_a_leader_that_tells_each_something_else_is_named_by_all_of_them() {
    let mut net = Net::new(4);
    let parent = net.nodes[1].committed.clone().unwrap();
    let faces: Vec<_> = (0..2)
        .map(|face| net.pre_prepare(0, 1, net.proposal(&parent, vec![net.envelope(1, 0, 1, face)])))
        .collect();
    net.crash(0);
    // Nobody sees both: only the votes of the others show that something is wrong.
    net.deliver(0, 1, PeerMessage::PrePrepare(faces[0].clone()));
    net.deliver(0, 2, PeerMessage::PrePrepare(faces[0].clone()));
    net.deliver(0, 3, PeerMessage::PrePrepare(faces[1].clone()));
    net.settle();
    for i in 1..4 {
        assert_eq!(kinds(&net, i), [(0, EvidenceKind::ConflictingPrePrepare)]);
        assert!(net.replica(i).view() >= 1, "it is replaced without a time-out");
    }
    assert!(net.sent["proposed"] <= 6, "each pair tells each other once");
    net.advance_until(5 * SECOND, |net| net.all_at(1));
}

#[test]
fn a6_a_face_that_comes_after_its_height_was_committed_is_evidence_as_well() {
    let mut net = Net::new(4);
    net.crash(3);
    let parent = net.nodes[1].committed.clone().unwrap();
    commit_one(&mut net, 0);
    assert!((0..3).all(|i| net.height(i) == 1));
    let other = net.pre_prepare(0, 1, net.proposal(&parent, vec![net.envelope(2, 0, 1, 0)]));
    let digest = other.proposal.digest(net.configuration.cluster(), 0, 1);
    let signed = quorate_protocol::evidence::SignedDigest { digest, signature: other.signature };
    let statement = quorate_protocol::evidence::ProposalStatement { epoch: 0, view: 0, height: 1, signed };
    let forged = quorate_protocol::evidence::SignedDigest { signature: Signature::ZERO, ..signed };
    let forged = quorate_protocol::evidence::ProposalStatement { signed: forged, ..statement };
    net.deliver(3, 1, PeerMessage::Proposed(forged));
    assert!(matches!(net.rejections[..], [Rejection::Signature { replica: 0, .. }]));
    for _ in 0..2 {
        net.deliver(3, 1, PeerMessage::Proposed(statement));
    }
    assert_eq!(kinds(&net, 1), [(0, EvidenceKind::ConflictingPrePrepare)]);
    // What was proposed here says nothing about places of which this replica has seen no proposal.
    net.deliver(
        3,
        2,
        PeerMessage::Proposed(quorate_protocol::evidence::ProposalStatement { height: 2, ..statement }),
    );
    assert!(net.nodes[2].evidence.is_empty());
}

#[test]
fn au11_a_restart_forgets_what_the_leader_said_and_the_others_do_not() {
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    let parent = net.nodes[1].committed.clone().unwrap();
    let faces: Vec<_> = (0..2)
        .map(|face| net.pre_prepare(0, 1, net.proposal(&parent, vec![net.envelope(1, 0, 1, face)])))
        .collect();
    for to in 1..4 {
        net.deliver(0, to, PeerMessage::PrePrepare(faces[0].clone()));
    }
    // What is in memory only is gone with it (rule R2): it votes for neither, and can show nothing.
    net.lose = Box::new(|_, _, _| true);
    net.restart(1);
    for to in 1..4 {
        net.deliver(0, to, PeerMessage::PrePrepare(faces[1].clone()));
    }
    assert!(net.nodes[1].evidence.is_empty());
    assert!(!net.replica(1).status().may_prepare);
    for i in 2..4 {
        assert_eq!(kinds(&net, i), [(0, EvidenceKind::ConflictingPrePrepare)]);
    }
}

#[test]
fn vc3_a_claim_below_an_own_commit_is_evidence_whichever_comes_first() {
    let mut net = Net::new(4);
    commit_one(&mut net, 0);
    let lie = net.view_change(3, 1, None);
    let honest = net.view_change(3, 1, net.replica(1).committed_certificate().cloned());
    net.lose = Box::new(|_, _, _| true);
    net.deliver(3, 1, PeerMessage::ViewChange(honest));
    assert!(net.nodes[1].evidence.is_empty(), "a claim that covers what it signed");
    // The commit certificate holds the COMMIT of whoever signed it.
    let signers: Vec<u8> = net.replica(1).committed_certificate().unwrap().signers.iter().collect();
    for replica in signers.iter().copied().filter(|signer| *signer != 1) {
        let lie = net.view_change(replica, 1, None);
        net.deliver(replica, 1, PeerMessage::ViewChange(lie.clone()));
        net.deliver(replica, 1, PeerMessage::ViewChange(lie));
    }
    let named: Vec<_> = kinds(&net, 1);
    assert_eq!(named.len(), signers.len() - 1);
    assert!(named.iter().all(|(_, kind)| *kind == EvidenceKind::ViewChangeOmission));
    // First the claim, then the COMMIT, at a replica that has not committed.
    let (header, mut late) = (*net.configuration.cluster(), Net::new(4));
    late.lose = Box::new(|_, _, _| true);
    late.deliver(3, 2, PeerMessage::ViewChange(lie));
    let mut commit = late.vote(3, VoteKind::Commit, 0, 1, header);
    late.deliver(3, 2, votes(vec![commit.clone()]));
    assert_eq!(kinds(&late, 2), [(3, EvidenceKind::ViewChangeOmission)]);
    // A COMMIT of the view that it asks for is none of the claim's business, nor is one that is not signed.
    commit = late.vote(3, VoteKind::Commit, 1, 2, header);
    late.deliver(3, 2, votes(vec![commit.clone()]));
    commit = Vote { signature: Signature::ZERO, height: 3, view: 0, ..commit };
    late.deliver(3, 2, votes(vec![commit]));
    assert_eq!(late.nodes[2].evidence.len(), 1);
}

#[test]
fn a_proposal_earlier_than_its_parent_is_evidence_with_the_parent_as_witness() {
    let too_early = |net: &Net, height: u64| {
        let parent = net.nodes[1].committed.clone().unwrap();
        let mut proposal = net.proposal(&parent, vec![net.envelope(1, height - 1, 1, 0)]);
        proposal.time = parent.header.time;
        net.pre_prepare(0, height, proposal)
    };
    let mut net = Net::new(4);
    let message = too_early(&net, 1);
    for _ in 0..3 {
        net.deliver(0, 1, PeerMessage::PrePrepare(message.clone()));
    }
    assert!(matches!(&only(&net, 1).proof, Proof::TimeRegression { parent: ParentWitness::Genesis, .. }));
    let mut net = Net::new(4);
    commit_one(&mut net, 0);
    net.deliver(0, 1, PeerMessage::PrePrepare(too_early(&net, 2)));
    let proof = &only(&net, 1).proof;
    assert!(matches!(proof, Proof::TimeRegression { parent: ParentWitness::Certified { .. }, .. }));
    // On a parent that is not committed.
    let mut net = Net::new(4);
    net.node(2).hold_execution = true;
    let parent = net.nodes[1].committed.clone().unwrap();
    let first = net.proposal(&parent, vec![net.envelope(1, 0, 3, 0)]);
    let (state, _) = net.imagine(&parent, &first);
    let mut second = net.proposal(&state, vec![]);
    second.time = first.time.plus(2);
    net.deliver(0, 2, PeerMessage::PrePrepare(net.pre_prepare(0, 1, first)));
    net.deliver(0, 2, PeerMessage::PrePrepare(net.pre_prepare(0, 2, second)));
    let proof = &only(&net, 2).proof;
    assert!(matches!(proof, Proof::TimeRegression { parent: ParentWitness::Proposed(_), .. }));
}

#[test]
fn a_time_outside_the_clock_window_proves_nothing() {
    let mut net = Net::new(4);
    let parent = net.nodes[1].committed.clone().unwrap();
    let mut proposal = net.proposal(&parent, vec![]);
    proposal.time = BatchTime(proposal.time.0 + 3600 * SECOND);
    net.deliver(0, 1, PeerMessage::PrePrepare(net.pre_prepare(0, 1, proposal)));
    net.settle();
    assert!(net.nodes[1].evidence.is_empty());
}

#[test]
fn a14_a_proposal_with_an_unsigned_envelope_is_evidence_although_the_door_refuses_it() {
    let mut net = Net::new(4);
    let parent = net.nodes[1].committed.clone().unwrap();
    let mut bad = net.envelope(1, 0, 1, 0);
    bad.signature = Signature::ZERO;
    let proposal = net.proposal(&parent, vec![net.envelope(2, 0, 1, 0), bad]);
    let message = net.pre_prepare(0, 1, proposal);
    net.deliver(0, 1, PeerMessage::PrePrepare(message.clone()));
    assert!(matches!(&only(&net, 1).proof, Proof::InvalidProposal { envelope: 1, .. }));
    // Not signed by the leader, it is nobody's.
    let mut forged = message;
    forged.signature = Signature::ZERO;
    net.deliver(0, 2, PeerMessage::PrePrepare(forged));
    assert!(net.nodes[2].evidence.is_empty());
}

#[test]
fn a_commit_against_a_certificate_of_its_height_is_evidence() {
    let mut net = Net::new(4);
    net.lose = Box::new(|_, to, _| to == 3);
    let other = net.configuration.genesis_hash();
    // It comes before the certificate is known.
    let lie = net.vote(3, VoteKind::Commit, 0, 1, other);
    net.deliver(3, 1, votes(vec![lie]));
    assert!(net.nodes[1].evidence.is_empty(), "alone it contradicts nothing");
    commit_one(&mut net, 0);
    assert_eq!(kinds(&net, 1), [(3, EvidenceKind::UnfoundedCommit)]);
    // And after.
    (0..3).for_each(|i| net.node(i).hold_disk = true);
    let envelope = net.envelope(1, 1, 1, 0);
    net.request_all(&envelope);
    net.settle();
    assert!(net.replica(2).view.certificates.contains_key(&2), "prepared, and not committed");
    let lie = net.vote(3, VoteKind::Commit, 0, 2, other);
    net.deliver(3, 2, votes(vec![lie]));
    assert_eq!(kinds(&net, 2).last(), Some(&(3, EvidenceKind::UnfoundedCommit)));
    // In another view it may have been right.
    let lie = net.vote(3, VoteKind::Commit, 5, 2, other);
    net.deliver(3, 0, votes(vec![lie]));
    assert!(net.nodes[0].evidence.is_empty());
}

#[test]
fn r5_a_replica_that_computes_another_header_convicts_itself_when_asked() {
    let mut net = Net::new(4);
    net.node(3).diverges_at = Some(1);
    // Its vote is there before the height is committed.
    net.node(1).hold_disk = true;
    net.node(2).hold_disk = true;
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    net.node(1).hold_disk = false;
    net.node(2).hold_disk = false;
    net.settle();
    net.advance(300 * MILLISECOND);
    assert!(matches!(net.nodes[3].halted, Some(HaltReason::Diverged { height: 1, .. })));
    for i in 0..3 {
        assert!(kinds(&net, i).contains(&(3, EvidenceKind::BadExecution)), "{:?}", kinds(&net, i));
    }
    assert!(net.nodes[3].evidence.is_empty());
}

#[test]
fn a12_evidence_is_bounded_for_each_kind_and_replica() {
    let mut net = Net::new(4);
    let (one, other) = (*net.configuration.cluster(), net.configuration.genesis_hash());
    for height in 1..=8 {
        for view in 0..4 {
            for header in [one, other, one] {
                let lie = net.vote(3, VoteKind::Prepare, view, height, header);
                net.deliver(3, 1, votes(vec![lie]));
            }
        }
    }
    assert_eq!(net.nodes[1].evidence.len(), EVIDENCE_PER_KIND_MAX);
    let lie = net.vote(2, VoteKind::Prepare, 0, 1, one);
    let second = net.vote(2, VoteKind::Prepare, 0, 1, other);
    net.deliver(2, 1, votes(vec![lie]));
    net.deliver(2, 1, votes(vec![second]));
    assert_eq!(net.nodes[1].evidence.len(), EVIDENCE_PER_KIND_MAX + 1, "one liar hides no other");
    net.step(1, Input::Tick);
}
