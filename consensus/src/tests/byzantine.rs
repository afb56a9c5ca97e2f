//! One of the replicas lies. The others keep what they saw first, name it, and go on.

use quorate_protocol::evidence::{Contradiction, Proof, SignedDigest};
use quorate_protocol::view_change::{Suspect, Suspicion};
use quorate_protocol::{PeerMessage, Vote, VoteKind};

use super::harness::{MILLISECOND, Net, SECOND, session_of};
use crate::{HaltReason, Input, Rejection, StaticFault};

fn votes(votes: Vec<quorate_protocol::Vote>) -> PeerMessage {
    PeerMessage::Votes(votes.try_into().unwrap())
}

#[test]
fn a6_au11_an_equivocating_leader_forks_nothing_and_is_replaced() {
    let mut net = Net::new(4);
    let parent = net.nodes[1].committed.clone().unwrap();
    let (left, right) = (net.envelope(1, 0, 1, 0), net.envelope(1, 0, 1, 1));
    let first = net.proposal(&parent, vec![left.clone()]);
    let second = net.proposal(&parent, vec![right.clone()]);
    net.crash(0);
    let (first, second) = (net.pre_prepare(0, 1, first), net.pre_prepare(0, 1, second));
    // Nobody learns from the others what they were told.
    net.lose = Box::new(|_, _, message| matches!(message, PeerMessage::Proposed(_)));
    net.deliver(0, 1, PeerMessage::PrePrepare(first.clone()));
    net.deliver(0, 2, PeerMessage::PrePrepare(first.clone()));
    net.deliver(0, 3, PeerMessage::PrePrepare(second.clone()));
    net.settle();
    assert!((1..4).all(|i| net.height(i) == 0), "two PREPAREs for each are no quorum");
    for to in 1..4 {
        net.deliver(0, to, PeerMessage::PrePrepare(second.clone()));
        net.deliver(0, to, PeerMessage::PrePrepare(first.clone()));
        net.deliver(0, to, PeerMessage::PrePrepare(second.clone()));
    }
    for i in 1..4 {
        assert_eq!(net.node(i).evidence.len(), 1, "reported once");
        let evidence = &net.node(i).evidence[0];
        assert!(matches!(&evidence.proof, Proof::ConflictingPrePrepare(_)));
        assert_eq!((evidence.culprit, evidence.place().height), (0, 1));
    }
    // Signed evidence in hand, nobody waits for a time-out.
    net.settle();
    assert!((1..4).all(|i| net.replica(i).view() == 1));
    net.request_all(&left);
    net.advance_until(5 * SECOND, |net| net.all_at(1));
    assert_eq!(net.times_executed(1, 1, 0), 1);
}

#[test]
fn au9_a_second_vote_neither_erases_nor_replaces_the_first() {
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    net.crash(3);
    let parent = net.nodes[1].committed.clone().unwrap();
    let proposal = (*net.nodes[1].executions[0].3).clone();
    let (state, _) = net.imagine(&parent, &proposal);
    let good = net.vote(3, VoteKind::Prepare, 0, 1, state.header.hash());
    let bad = net.vote(3, VoteKind::Prepare, 0, 1, *net.configuration.cluster());
    for to in 0..3 {
        for vote in [&good, &bad, &bad, &good] {
            net.deliver(3, to, votes(vec![vote.clone()]));
        }
        let signed = |vote: &Vote| SignedDigest { digest: vote.header, signature: vote.signature };
        let both = Contradiction::new(0, 1, signed(&good), signed(&bad));
        let [evidence] = &net.node(to).evidence[..] else { panic!("one piece of evidence") };
        assert_eq!(evidence.proof, Proof::ConflictingPrepare(both));
        assert_eq!(evidence.culprit, 3);
    }
    // Replica 2 stays behind: the equivocator's first vote is needed and there.
    net.node(0).hold_execution = false;
    net.node(1).hold_execution = false;
    net.settle();
    assert_eq!(net.replica(0).view.certificates[&1].header_hash, state.header.hash());
}

#[test]
fn au1_au8_votes_count_once_each_and_by_header() {
    let mut net = Net::new(4);
    net.lose = Box::new(|_, _, _| true);
    let (one, other) = (*net.configuration.cluster(), net.configuration.genesis_hash());
    for _ in 0..5 {
        let vote = net.vote(1, VoteKind::Commit, 0, 1, one);
        net.deliver(1, 3, votes(vec![vote.clone(), vote]));
        let vote = net.vote(2, VoteKind::Commit, 0, 1, other);
        net.deliver(2, 3, votes(vec![vote]));
        let vote = net.vote(0, VoteKind::Prepare, 0, 1, one);
        net.deliver(0, 3, votes(vec![vote]));
    }
    assert!(net.replica(3).decided.is_empty());
    // The third distinct voter completes it, whoever brings the vote.
    let more = vec![net.vote(0, VoteKind::Commit, 0, 1, one)];
    net.deliver(2, 3, votes(more));
    assert!(net.replica(3).decided.is_empty(), "two for one header, one for another");
    let equivocation = vec![net.vote(2, VoteKind::Commit, 0, 1, one)];
    net.deliver(2, 3, votes(equivocation));
    assert!(net.replica(3).decided.is_empty(), "its first vote was for another header");
}

#[test]
fn a_flood_of_views_crowds_out_nobody() {
    let mut net = Net::new(4);
    let header = *net.configuration.cluster();
    for view in (0..200).rev().chain(0..200) {
        let vote = net.vote(3, VoteKind::Prepare, view, 1, header);
        net.deliver(3, 1, votes(vec![vote]));
    }
    assert!(net.replica(1).votes.of(3).count() <= crate::tally::VIEWS_PER_REPLICA_MAX);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    assert!(net.all_at(1));
}

#[test]
fn vc3_a_view_change_with_an_invalid_certificate_masks_nothing() {
    let mut net = Net::new(4);
    net.lose = Box::new(|_, _, message| {
        matches!(message, PeerMessage::Votes(votes)
            if votes.iter().any(|vote| vote.kind == VoteKind::Commit && vote.view == 0))
    });
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    let prepared = net.replica(1).view.certificates[&1].header_hash;
    net.crash(0);
    // The liar claims the highest rank of all, under signatures that do not hold.
    let header = *net.configuration.cluster();
    let mut certificate = net.certificate(VoteKind::Prepare, 0, 3, header, &[0, 1, 2]);
    certificate.signatures = vec![certificate.signatures[0]; 3].try_into().unwrap();
    let lie = net.view_change(0, 1, Some(certificate));
    for to in 1..4 {
        net.deliver(0, to, PeerMessage::ViewChange(lie.clone()));
    }
    assert_eq!(net.rejections.len(), 3);
    assert!(matches!(net.rejections[0], Rejection::Certificate(_)));
    net.advance_until(5 * SECOND, |net| net.all_at(1));
    assert_eq!(net.headers[&1].hash(), prepared);
}

#[test]
fn vc2_a_base_below_a_claim_is_refused() {
    let mut net = Net::new(4);
    net.lose = Box::new(
        |_, _, message| matches!(message, PeerMessage::Votes(votes) if votes.iter().any(|v| v.kind == VoteKind::Commit)),
    );
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    let certificate = net.replica(2).view.certificates[&1].clone();
    let claims = vec![
        net.view_change(0, 1, None).claim,
        net.view_change(2, 1, Some(certificate.clone())).claim,
        net.view_change(3, 1, Some(certificate.clone())).claim,
    ];
    let drops = net.new_view(1, claims.clone(), None);
    net.deliver(1, 2, PeerMessage::NewView(drops));
    assert!(matches!(net.rejections[..], [Rejection::Malformed { what: "NEW-VIEW", .. }]));
    assert_eq!(net.replica(2).view(), 0);
    let keeps = net.new_view(1, claims, Some(certificate));
    net.deliver(1, 2, PeerMessage::NewView(keeps));
    assert_eq!((net.replica(2).view(), net.replica(2).view.base.0), (1, 1));
}

#[test]
fn a7_one_replica_that_cries_restarted_does_not_turn_the_views() {
    let mut net = Net::new(4);
    net.crash(3);
    for _ in 0..300 {
        for to in 0..3 {
            let view = net.replica(to).view();
            let suspect = Suspect { epoch: 0, view, reason: Suspicion::Restarted };
            net.deliver(3, to, PeerMessage::Suspect(suspect));
            let lie = net.view_change(3, view + 1, None);
            net.deliver(3, to, PeerMessage::ViewChange(lie));
        }
        net.advance(100 * MILLISECOND);
    }
    assert!(net.replica(0).view() <= 3, "at most one hand-over in ten seconds");
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    // The liar itself may lead at the moment, and does nothing.
    net.advance_until(3 * SECOND, |net| net.all_at(1));
}

#[test]
fn a_view_change_storm_of_one_moves_nobody() {
    let mut net = Net::new(4);
    net.crash(3);
    for view in 1..100 {
        let lie = net.view_change(3, view * 1000, None);
        for to in 0..3 {
            net.deliver(3, to, PeerMessage::ViewChange(lie.clone()));
        }
    }
    net.advance(5 * SECOND);
    assert!(net.replicas().iter().all(|replica| replica.view() == 0 && replica.has_entered()));
}

/// DT3: whoever computes another root than a quorum stops, and says so.
#[test]
fn r5_a_replica_that_computes_another_header_halts_and_the_others_go_on() {
    let mut net = Net::new(4);
    net.node(3).diverges_at = Some(2);
    for first in 0..4 {
        let envelope = net.envelope(1, first, 1, 0);
        for to in 0..3 {
            net.request(to, &envelope);
        }
        net.advance(300 * MILLISECOND);
    }
    assert!((0..3).all(|i| net.height(i) == 4));
    let halted = net.nodes[3].halted.expect("it counts itself faulty");
    let certified = net.headers[&2].hash();
    assert!(matches!(halted, HaltReason::Diverged { height: 2, certified: known, ours }
        if known == certified && ours != certified));
    assert_eq!(net.height(3), 1);
    assert_eq!(net.replica(0).view(), 0);
}

#[test]
fn r5_a_batch_on_which_replicas_diverge_does_not_halt_the_cluster() {
    // Two and two: no header of a batch with an operation of client 9 ever gets a quorum.
    let mut net = Net::new(4);
    net.node(0).diverges_on = Some(session_of(9));
    net.node(1).diverges_on = Some(session_of(9));
    let poison = net.envelope(9, 0, 1, 0);
    net.request_all(&poison);
    for client in 1..4 {
        let envelope = net.envelope(client, 0, 1, 0);
        net.request_all(&envelope);
    }
    net.advance_until(240 * SECOND, |net| {
        (0..4).all(|i| (1..4).all(|client| net.times_executed(i, client, 0) == 1))
    });
    assert_eq!(net.times_executed(0, 9, 0), 0);
    assert!(net.headers.values().any(|header| header.operation_count == 0), "an empty batch came first");
}

#[test]
fn r5_a_static_fault_is_never_voted_for() {
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    for i in 0..4 {
        let (height, digest, _, _) = net.node(i).executions.pop_front().unwrap();
        net.step(i, Input::Executed { height, digest, outcome: Err(StaticFault) });
    }
    net.settle();
    assert_eq!(net.sent.get("votes"), None);
    assert!(net.replicas().iter().all(|replica| replica.view() == 1), "its leader is replaced at once");
}

#[test]
fn a_leader_that_skips_time_backwards_is_faulty() {
    let mut net = Net::new(4);
    let parent = net.nodes[1].committed.clone().unwrap();
    net.crash(0);
    let mut proposal = net.proposal(&parent, vec![net.envelope(1, 0, 1, 0)]);
    proposal.time = parent.header.time;
    let message = net.pre_prepare(0, 1, proposal);
    for to in 1..4 {
        net.deliver(0, to, PeerMessage::PrePrepare(message.clone()));
    }
    net.settle();
    assert!((1..4).all(|i| net.replica(i).view() == 1 && net.replica(i).view.last_prepared == 0));
}

#[test]
fn vc11_a_proposal_of_a_later_view_is_not_handled_in_this_one() {
    let mut net = Net::new(4);
    let parent = net.nodes[2].committed.clone().unwrap();
    let proposal = net.proposal(&parent, vec![net.envelope(1, 0, 1, 0)]);
    net.deliver(1, 2, PeerMessage::PrePrepare(net.pre_prepare(1, 1, proposal)));
    net.settle();
    assert!(net.replica(2).view.pre_prepares.is_empty() && net.replica(2).view.chain.is_empty());
    assert_eq!(net.sent.get("votes"), None);
    assert_eq!(net.sent["fetch new view"], 1, "whether that view began only its NEW-VIEW can tell");
}
