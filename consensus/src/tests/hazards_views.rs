//! Hazards of the view change, one test for each that no story elsewhere covers.

use std::collections::BTreeSet;

use quorate_crypto::{KeyedHashSigner, Signer};
use quorate_protocol::view_change::{Suspect, Suspicion};
use quorate_protocol::{PeerMessage, View};

use super::harness::{MILLISECOND, Net, SECOND, client_key};
use crate::{Input, Rejection};

/// Loses everything between these replicas and the others.
fn cut_off(net: &mut Net, part: &[u8]) {
    let part: BTreeSet<u8> = part.iter().copied().collect();
    net.lose = Box::new(move |from, to, _| part.contains(&from) != part.contains(&to));
}

fn heal(net: &mut Net) {
    net.lose = Box::new(|_, _, _| false);
}

/// VC5: whatever n is, one NEW-VIEW is made of exactly a quorum of claims, and each replica has it once of its
/// leader and once of each of the others.
#[test]
fn vc5_every_size_opens_a_view_once_with_a_quorum_of_claims() {
    for n in 4..=10_u8 {
        let mut net = Net::new(n.into());
        net.step(0, Input::Resign);
        net.settle();
        assert!(net.replicas().iter().all(|replica| replica.view() == 1 && replica.has_entered()), "n = {n}");
        let n = usize::from(n);
        assert_eq!(net.sent["NEW-VIEW"], n * (n - 1), "n = {n}");
        let opened = net.replica(2).view.new_view.clone().unwrap();
        assert_eq!(opened.claims.len(), net.configuration.quorum(), "n = {n}");
    }
}

/// VC10: a leader that comes back into office builds on what was committed without it.
#[test]
fn vc10_a_leader_that_returns_proposes_on_the_last_commit() {
    let mut net = Net::new(4);
    cut_off(&mut net, &[0]);
    for first in 0..3 {
        let envelope = net.envelope(1, first, 1, 0);
        net.request(0, &envelope);
    }
    net.settle();
    assert_eq!(net.replica(0).view.chain.len(), 3, "half-built, and nobody else has it");
    for client in 2..5 {
        let envelope = net.envelope(client, 0, 1, 0);
        (1..4).for_each(|to| net.request(to, &envelope));
    }
    net.advance_until(10 * SECOND, |net| (1..4).all(|i| net.height(i) >= 1));
    heal(&mut net);
    net.advance_until(10 * SECOND, |net| net.all_at(net.height(1)));
    while net.configuration.leader(net.replica(1).view()) != 0 {
        let leader = net.configuration.leader(net.replica(1).view());
        net.step(leader, Input::Resign);
        net.advance(10 * MILLISECOND);
    }
    let envelope = net.envelope(9, 0, 1, 0);
    net.request(0, &envelope);
    net.advance_until(10 * SECOND, |net| (0..4).all(|i| net.times_executed(i, 9, 0) == 1));
    for i in 0..4 {
        assert!((0..3).all(|number| net.times_executed(i, 1, number) == 1), "what was dropped came again");
    }
}

/// VC12: when no view can be entered each one costs a time-out of its own, without recursion and without a
/// storm; and when it is over the cluster goes on.
#[test]
fn vc12_views_that_fail_one_after_the_other_cost_a_time_out_each() {
    let mut net = Net::new(4);
    let envelope = net.envelope(1, 0, 1, 0);
    net.lose =
        Box::new(|_, _, message| matches!(message, PeerMessage::NewView(_) | PeerMessage::PrePrepare(_)));
    net.request_all(&envelope);
    net.advance(120 * SECOND);
    let view = net.replica(0).view();
    assert!((4..=24).contains(&view), "view {view} after two minutes");
    heal(&mut net);
    net.advance_until(10 * SECOND, |net| net.all_at(1));
}

/// VC15: who is no member changes no view, be it by a VIEW-CHANGE or as one of the claims of a NEW-VIEW.
#[test]
fn vc15_claims_of_strangers_are_refused() {
    let mut net = Net::new(4);
    let stranger = KeyedHashSigner::new(&client_key(1));
    let of = |net: &Net, replica| {
        let mut message = net.view_change(3, 1, None);
        message.claim.body.replica = replica;
        let statement = message.claim.body.statement(*net.configuration.cluster());
        message.claim.signature = stranger.sign(&statement);
        message
    };
    for replica in [4, 7, 255] {
        let message = of(&net, replica);
        net.deliver(3, 2, PeerMessage::ViewChange(message.clone()));
        assert_eq!(net.rejections.pop(), Some(Rejection::UnknownReplica(replica)));
        let claims =
            vec![net.view_change(0, 1, None).claim, net.view_change(1, 1, None).claim, message.claim];
        let opened = net.new_view(1, claims, None);
        net.deliver(1, 2, PeerMessage::NewView(opened));
        assert_eq!(net.rejections.pop(), Some(Rejection::UnknownReplica(replica)));
    }
    let message = of(&net, 3);
    net.deliver(3, 2, PeerMessage::ViewChange(message));
    assert!(matches!(net.rejections.pop(), Some(Rejection::Signature { replica: 3, .. })));
    assert_eq!((net.replica(2).view(), net.replica(2).view_changes.len()), (0, 0));
}

/// VC17: votes go to all and not to the next leader alone, so that its being dead costs nothing.
#[test]
fn vc17_a_dead_next_leader_costs_no_time_out() {
    for n in [4, 7] {
        let mut net = Net::new(n);
        net.crash(1);
        for first in 0..4 {
            let envelope = net.envelope(1, first, 1, 0);
            net.request_all(&envelope);
            net.settle();
            assert!(net.all_at(first + 1), "n = {n}");
        }
        assert_eq!((net.now, net.replica(0).view()), (0, 0));
    }
}

/// VC22: the same VIEW-CHANGE again and again moves nobody, is answered by nobody and takes no room.
#[test]
fn vc22_a_repeated_view_change_is_kept_once_and_answered_never() {
    let mut net = Net::new(4);
    net.advance(20 * SECOND);
    let lie = net.view_change(3, 9, None);
    net.deliver(3, 2, PeerMessage::ViewChange(lie.clone()));
    net.settle();
    let sent = net.sent.clone();
    for _ in 0..1_000 {
        net.deliver(3, 2, PeerMessage::ViewChange(lie.clone()));
    }
    net.settle();
    assert_eq!(net.sent, sent);
    assert_eq!(net.replica(2).view_changes.len(), 1);
    assert_eq!((net.replica(2).view(), net.replica(2).has_entered()), (0, true));
}

/// A16: after a short loss of all links requests are committed again within two time-outs.
#[test]
fn a16_after_a_blip_the_cluster_goes_on_at_once() {
    for blip in [100 * MILLISECOND, 700 * MILLISECOND, 3 * SECOND] {
        let mut net = Net::new(4);
        let before = net.envelope(1, 0, 1, 0);
        net.request_all(&before);
        net.settle();
        net.lose = Box::new(|_, _, _| true);
        for first in 1..4 {
            let envelope = net.envelope(1, first, 1, 0);
            net.request_all(&envelope);
        }
        net.advance(blip);
        assert!(!net.all_at(2));
        heal(&mut net);
        let request = net.parameters.timeouts.request;
        net.advance_until(2 * request, |net| (0..4).all(|i| net.times_executed(i, 1, 3) == 1));
        let after = net.envelope(1, 4, 1, 0);
        net.request_all(&after);
        net.advance_until(request, |net| (0..4).all(|i| net.times_executed(i, 1, 4) == 1));
    }
}

/// A7: more than f liars. What they say may stop a replica, but must not end it (found by fuzzing).
#[test]
fn a7_the_last_view_that_there_is_can_be_asked_for_and_is_left_for_no_other() {
    let mut net = Net::new(4);
    for liar in [1, 2, 3] {
        net.crash(liar);
        let lie = net.view_change(liar, View::MAX, None);
        net.deliver(liar, 0, PeerMessage::ViewChange(lie));
    }
    assert_eq!((net.replica(0).view(), net.replica(0).has_entered()), (View::MAX, false));
    for liar in [1, 2, 3] {
        let suspect = Suspect { epoch: 0, view: View::MAX, reason: Suspicion::Fault };
        net.deliver(liar, 0, PeerMessage::Suspect(suspect));
    }
    net.advance(60 * SECOND);
    assert_eq!((net.replica(0).view(), net.replica(0).has_entered()), (View::MAX, false));
}
