//! Hazards of messages, requests and resources, one test for each that no story elsewhere covers.

use quorate_protocol::peer::{Batch, CommittedBatch};
use quorate_protocol::view_change::Resign;
use quorate_protocol::{PeerMessage, VoteKind};

use super::harness::{Net, SECOND};
use crate::{Input, Rejection, StaticFault, door};

/// A1: an envelope is good for every replica or for none, whoever brings it: by a client's connection, forwarded
/// by a peer, or inside a proposal.
#[test]
fn a1_an_envelope_is_good_for_all_replicas_or_for_none() {
    let mut net = Net::new(4);
    let parent = net.nodes[1].committed.clone().unwrap();
    let mut bad = net.envelope(1, 0, 1, 0);
    bad.signature.0[0] ^= 1;
    for to in 0..4 {
        let known = net.replica(to);
        let verifier = net.verifiers[usize::from(to)].as_ref();
        let verdict = door::verify_envelope(&net.configuration_of(to), verifier, known, bad.clone());
        assert!(matches!(verdict, Err(Rejection::Envelope { index: 0, .. })));
    }
    let proposal = net.proposal(&parent, vec![net.envelope(2, 0, 1, 0), bad.clone()]);
    let proposed = PeerMessage::PrePrepare(net.pre_prepare(0, 1, proposal));
    for to in 1..4 {
        net.deliver(0, to, PeerMessage::Forward(bad.clone()));
        assert!(matches!(net.rejections.pop(), Some(Rejection::Envelope { index: 0, .. })));
        net.deliver(0, to, proposed.clone());
        assert!(matches!(net.rejections.pop(), Some(Rejection::Envelope { index: 1, .. })));
    }
    assert!(net.replicas().iter().all(|replica| replica.pool_len() == 0));
    assert_eq!(net.sent.get("votes"), None);
}

/// AU6: a message whose signature does not hold changes nothing, says nothing and costs no room.
#[test]
fn au6_what_the_door_rejects_changes_nothing() {
    let mut net = Net::new(4);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    let committed = net.nodes[2].committed.clone().unwrap();
    let header = committed.header.hash();
    let proposal = net.proposal(&committed, vec![]);
    let (state, _) = net.imagine(&committed, &proposal);
    let mut pre_prepare = net.pre_prepare(0, 2, proposal.clone());
    pre_prepare.signature.0[9] ^= 1;
    let mut vote = net.vote(1, VoteKind::Commit, 0, 2, state.header.hash());
    vote.signature.0[9] ^= 1;
    let mut certificate = net.certificate(VoteKind::Commit, 0, 2, state.header.hash(), &[0, 1, 3]);
    certificate.signatures.as_mut_slice()[1].0[9] ^= 1;
    let mut view_change = net.view_change(3, 1, None);
    view_change.claim.signature.0[9] ^= 1;
    let good = net.certificate(VoteKind::Prepare, 0, 1, header, &[0, 1, 3]);
    let claims = [0, 1, 3].map(|i| net.view_change(i, 1, Some(good.clone())).claim);
    let mut new_view = net.new_view(1, claims.to_vec(), Some(good));
    new_view.signature.0[9] ^= 1;
    let batch = Batch { header: state.header.clone(), proposal };
    let entry = CommittedBatch { batch, certificate: certificate.clone() };
    let resign = Resign { epoch: 0, view: 0, signature: vote.signature };
    let messages = [
        PeerMessage::PrePrepare(pre_prepare),
        PeerMessage::Votes(vec![vote].try_into().unwrap()),
        PeerMessage::Certificate(certificate),
        PeerMessage::ViewChange(view_change),
        PeerMessage::NewView(new_view),
        PeerMessage::Committed(vec![entry].try_into().unwrap()),
        PeerMessage::Resign(resign),
    ];
    let glance = |net: &Net| (format!("{:?}", net.replica(2)), net.replica(2).status(), net.sent.clone());
    let before = glance(&net);
    for (number, message) in messages.into_iter().enumerate() {
        // By the connection of a peer that is not the vote's.
        net.deliver(3, 2, message);
        assert_eq!(net.rejections.len(), number + 1, "message {number} is let in");
        assert_eq!(glance(&net), before, "message {number}");
    }
}

/// RX3: a replica that has stopped for good does not turn in circles: it sets no timer and says nothing.
#[test]
fn rx3_a_replica_that_halted_is_at_rest() {
    let mut net = Net::new(4);
    net.node(3).diverges_at = Some(1);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.advance(5 * SECOND);
    assert!(net.nodes[3].halted.is_some());
    net.node(3).timer = None;
    for _ in 0..1_000 {
        let (now, wall) = (crate::Monotonic(net.now), net.wall(3));
        let effects = net.node(3).replica.as_mut().unwrap().step(now, wall, Input::Tick);
        assert!(effects.is_empty(), "{effects:?}");
    }
}

/// RX4: proposals that all fail are not made again and again: at most a window of them for each view.
#[test]
fn rx4_proposals_that_fail_cause_no_storm() {
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    for client in 0..8 {
        let envelope = net.envelope(client, 0, 1, 0);
        net.request_all(&envelope);
    }
    for _ in 0..3_000 {
        for i in 0..4 {
            while let Some((height, digest, _, _)) = net.node(i).executions.pop_front() {
                net.step(i, Input::Executed { height, digest, outcome: Err(StaticFault) });
            }
        }
        net.advance(10 * super::harness::MILLISECOND);
    }
    let views = usize::try_from(net.replica(0).view()).unwrap() + 1;
    let window = usize::try_from(net.configuration.window()).unwrap();
    assert!((2..=60).contains(&views), "{views} views in half a minute");
    // Each is sent to three, and again at the pace of resending while its view lasts.
    let resent = usize::try_from(30 * SECOND / net.parameters.timeouts.resend).unwrap();
    let proposals = net.sent["PRE-PREPARE"];
    let bound = 3 * window * (views + resent);
    assert!(proposals <= bound, "{proposals} proposals in {views} views");
}
