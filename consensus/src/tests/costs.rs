//! What those who lie, repeat themselves or come too late cost a replica in signatures.

use std::sync::Arc;

use quorate_crypto::{Hash, Signature};
use quorate_protocol::{PeerMessage, PrePrepare, Vote, VoteKind};

use super::harness::{Net, SECOND};
use crate::bar::{BAR_FIRST, FORGERIES_TOLERATED};

/// Signatures that each replica checked since the last call.
fn checked(net: &Net) -> Vec<usize> {
    net.verifiers.iter().map(|verifier| verifier.take()).collect()
}

/// Two badly signed votes of replica 3 for one place reach replica 2: to tell who lies it checks the first.
fn lie(net: &mut Net, kind: VoteKind, view: u64, height: u64) {
    for byte in [1, 2] {
        let mut vote: Vote = net.vote(3, kind, view, height, Hash([byte; 32]));
        vote.signature = Signature::ZERO;
        net.deliver(3, 2, PeerMessage::Votes(vec![vote].try_into().unwrap()));
    }
}

/// Lies at every place that there is, and says how many signatures that cost.
fn lie_everywhere(net: &mut Net, from: u64) -> usize {
    checked(net);
    for view in 0..4 {
        for height in from..from + 60 {
            lie(net, VoteKind::Prepare, view, height);
            lie(net, VoteKind::Commit, view, height);
        }
    }
    checked(net)[2]
}

#[test]
fn a13_a_liar_is_barred_after_a_few_bad_signatures_and_heard_again_when_it_is_needed() {
    let mut net = Net::new(4);
    let tolerated = FORGERIES_TOLERATED as usize;
    assert_eq!(lie_everywhere(&mut net, 1), tolerated + 1);
    assert_eq!(net.node(2).forged.len(), tolerated + 1);
    assert_eq!(net.replica(2).barred().collect::<Vec<_>>(), [(3, FORGERIES_TOLERATED + 1)]);
    assert_eq!(lie_everywhere(&mut net, 61), 0, "nothing of it is looked at");
    // Each time that it is heard again costs one check, and the next time is further away.
    net.advance(BAR_FIRST);
    assert_eq!(lie_everywhere(&mut net, 1), 1);
    net.advance(BAR_FIRST);
    assert_eq!(lie_everywhere(&mut net, 1), 0);
    // Others are looked at as ever, and with them all goes on.
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    assert!(net.all_at(1));
    assert!((0..2).all(|i| net.replica(i).barred().next().is_none()));
    // Replica 3 behaves again, and no quorum can be had without it: its bar ends, and it counts.
    net.crash(1);
    let envelope = net.envelope(1, 1, 1, 0);
    net.request_all(&envelope);
    net.settle();
    net.advance_until(20 * SECOND, |net| [0, 2, 3].iter().all(|i| net.height(*i) == 2));
    assert!(net.nodes.iter().all(|node| node.evidence.is_empty()));
}

/// The PRE-PREPARE that replica `i` holds for height 1.
fn held(net: &Net, i: u8) -> PrePrepare {
    PrePrepare::clone(&Arc::clone(&net.replica(i).view.pre_prepares[&1].message))
}

#[test]
fn rx2_a_proposal_that_comes_again_costs_nothing() {
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    let proposal = held(&net, 1);
    checked(&net);
    for _ in 0..10 {
        net.deliver(0, 1, PeerMessage::PrePrepare(proposal.clone()));
    }
    assert_eq!(checked(&net), [0; 4]);
    // Another one at its place is looked at once: it is evidence, or it is refused.
    let mut other = proposal.clone();
    other.proposal.time.0 += 1;
    net.deliver(0, 1, PeerMessage::PrePrepare(other));
    assert_eq!(checked(&net), [0, 1, 0, 0]);
    assert_eq!(net.rejections.len(), 1);
}

#[test]
fn rx9_a_proposal_of_a_later_view_is_a_hint_and_costs_nothing() {
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    let mut proposal = held(&net, 1);
    checked(&net);
    for view in 1..100 {
        proposal.view = view;
        net.deliver(1, 2, PeerMessage::PrePrepare(proposal.clone()));
    }
    assert_eq!(checked(&net), [0; 4]);
    assert!(net.rejections.is_empty());
    (0..4).for_each(|i| net.node(i).hold_execution = false);
    net.settle();
    assert!(net.all_at(1) && net.replica(2).status().view == 0);
}

#[test]
fn rx9_certificates_and_resignations_that_say_nothing_new_cost_nothing() {
    let mut net = Net::new(4);
    net.crash(3);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    (0..3).for_each(|i| net.node(i).hold_disk = true);
    net.settle();
    // By other signers, as a liar may put together, so that it is not the one that is held.
    let prepared = net.replica(1).view.certificates[&1].clone();
    let mut again = prepared.clone();
    again.signatures = Vec::new().try_into().unwrap();
    checked(&net);
    net.deliver(2, 1, PeerMessage::Certificate(again));
    assert_eq!(checked(&net), [0; 4]);
    (0..3).for_each(|i| net.node(i).hold_disk = false);
    net.settle();
    assert_eq!(net.height(1), 1);
    let committed = net.replica(1).committed_certificate().unwrap().clone();
    checked(&net);
    for certificate in [prepared, committed] {
        net.deliver(2, 1, PeerMessage::Certificate(certificate));
    }
    assert_eq!(checked(&net), [0; 4]);
    assert!(net.rejections.is_empty());
}

#[test]
fn rx9_an_envelope_that_the_pool_would_not_take_is_not_wanted() {
    let mut net = Net::new(4);
    net.lose = Box::new(|_, _, _| true);
    let first = net.envelope(1, 0, 1, 0);
    let replica = net.replica(1);
    assert!(replica.wants(&first, Some(0)));
    assert!(!replica.wants(&first, None), "of no session");
    assert!(!replica.wants(&first, Some(1)), "executed");
    net.request_all(&first);
    assert!(!net.replica(1).wants(&first, Some(0)), "here already");
    // Another body under its number (hazard CL2): the first one stays, and the rest costs nothing.
    let other = net.envelope(1, 0, 1, 7);
    assert!(other != first && !net.replica(1).wants(&other, Some(0)));
    let next = net.envelope(1, 1, 1, 0);
    assert!(net.replica(1).wants(&next, Some(0)));
}
