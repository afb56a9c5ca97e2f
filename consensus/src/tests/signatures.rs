//! How many signatures a height costs each replica, and which of them are checked at all.

use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_crypto::{KeyedHashVerifier, PublicKey, Signature, SignatureError, Statement, Verifier};
use quorate_protocol::{PeerMessage, Vote, VoteKind};

use super::harness::{Net, SECOND};

/// Counts what is asked of it.
pub struct CountingVerifier {
    pub inner: KeyedHashVerifier,
    count: AtomicUsize,
}

impl CountingVerifier {
    pub const fn new(inner: KeyedHashVerifier) -> Self {
        Self { inner, count: AtomicUsize::new(0) }
    }

    /// How many signatures were checked since the last call.
    pub fn take(&self) -> usize {
        self.count.swap(0, Ordering::Relaxed)
    }
}

impl Verifier for CountingVerifier {
    fn verify(
        &self,
        key: &PublicKey,
        statement: &Statement,
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.inner.verify(key, statement, signature)
    }
}

/// Signatures that each replica checked.
fn checked(net: &Net) -> Vec<usize> {
    net.verifiers.iter().map(|verifier| verifier.take()).collect()
}

/// A message of one vote.
fn message(vote: &Vote) -> PeerMessage {
    PeerMessage::Votes(vec![vote.clone()].try_into().unwrap())
}

#[test]
fn a_height_costs_two_quorums_less_the_own_votes_and_a_proposal_and_an_envelope() {
    // Checking every vote at the door took 6 (leader) and 7 of four replicas, 11 and 12 of seven.
    for (n, quorum) in [(4, 3), (7, 5)] {
        let mut net = Net::new(n);
        checked(&net);
        for first in 0..20 {
            let envelope = net.envelope(1, first, 1, 0);
            net.request_all(&envelope);
            net.settle();
        }
        assert!(net.all_at(20));
        let votes = 2 * (quorum - 1);
        let mut expected = vec![20 * (1 + 1 + votes); n];
        expected[0] = 20 * (1 + votes);
        assert_eq!(checked(&net), expected);
        assert_eq!(net.sent.get("other"), None, "nothing is forwarded before it has waited");
    }
}

#[test]
fn a_vote_for_a_height_that_has_its_certificate_costs_nothing() {
    let mut net = Net::new(4);
    net.crash(3);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    (0..3).for_each(|i| net.node(i).hold_disk = true);
    net.settle();
    let header = net.replica(1).view.certificates[&1].header_hash;
    checked(&net);
    net.deliver(3, 1, message(&net.vote(3, VoteKind::Prepare, 0, 1, header)));
    assert_eq!(checked(&net), [0; 4]);
    (0..3).for_each(|i| net.node(i).hold_disk = false);
    net.settle();
    assert_eq!(net.height(1), 1);
    checked(&net);
    for quiet in [false, true] {
        if quiet {
            net.advance(SECOND);
        }
        net.deliver(3, 1, message(&net.vote(3, VoteKind::Commit, 0, 1, header)));
        assert_eq!(checked(&net), [0; 4]);
    }
}

#[test]
fn a13_a_vote_that_is_not_signed_is_dropped_named_and_costs_one_check() {
    let mut net = Net::new(4);
    net.crash(3);
    (0..3).for_each(|i| net.node(i).hold_execution = true);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    let parent = net.nodes[1].committed.clone().unwrap();
    let proposal = (*net.nodes[1].executions[0].3).clone();
    let (state, _) = net.imagine(&parent, &proposal);
    let mut forged = net.vote(3, VoteKind::Prepare, 0, 1, state.header.hash());
    forged.signature = Signature::ZERO;
    for _ in 0..5 {
        net.deliver(3, 2, message(&forged));
    }
    // Two PREPAREs of others and the forged one: a quorum that is none.
    net.lose = Box::new(|from, to, _| from == 1 && to == 2);
    checked(&net);
    (0..3).for_each(|i| net.node(i).hold_execution = false);
    net.settle();
    assert!(net.replica(2).view.certificates.is_empty());
    assert_eq!(net.node(2).forged, [forged.clone()]);
    net.deliver(3, 2, message(&forged));
    net.lose = Box::new(|_, _, _| false);
    net.advance_until(SECOND, |net| net.all_at(1));
    assert_eq!(net.node(2).forged, [forged], "said once");
    let certificate = net.replica(2).committed_certificate().unwrap();
    assert_eq!(certificate.signers.iter().collect::<Vec<u8>>(), [0, 1, 2]);
    assert!(net.nodes.iter().all(|node| node.evidence.is_empty()));
}

#[test]
fn nobody_votes_in_anothers_name() {
    let mut net = Net::new(4);
    let header = *net.configuration.cluster();
    let mut forged = net.vote(2, VoteKind::Prepare, 0, 1, header);
    forged.signature = Signature::ZERO;
    net.deliver(3, 1, message(&forged));
    assert_eq!(net.rejections.len(), 1, "what others bring is checked at the door");
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    assert!(net.all_at(1) && net.node(1).evidence.is_empty());
}

#[test]
fn a_contradiction_is_evidence_only_if_both_signatures_hold() {
    let mut net = Net::new(4);
    let (one, other) = (*net.configuration.cluster(), net.configuration.genesis_hash());
    let first = net.vote(3, VoteKind::Commit, 0, 1, one);
    let mut second = net.vote(3, VoteKind::Commit, 0, 1, other);
    second.signature = Signature::ZERO;
    net.deliver(3, 1, message(&first));
    checked(&net);
    for _ in 0..3 {
        net.deliver(3, 1, message(&second));
    }
    assert_eq!(checked(&net), [0, 2, 0, 0]);
    assert!(net.node(1).evidence.is_empty());
    assert_eq!(net.node(1).forged, [second]);
}

#[test]
fn a13_a_leader_that_signs_its_votes_badly_is_replaced_at_once() {
    let mut net = Net::new(4);
    net.crash(0);
    let (one, other) = (*net.configuration.cluster(), net.configuration.genesis_hash());
    let first = net.vote(0, VoteKind::Commit, 0, 1, one);
    let mut second = net.vote(0, VoteKind::Commit, 0, 1, other);
    second.signature = Signature::ZERO;
    for to in 1..4 {
        net.deliver(0, to, message(&first));
        net.deliver(0, to, message(&second));
    }
    net.settle();
    assert!((1..4).all(|replica| net.replica(replica).view() == 1), "without a time-out");
}

/// RX2, RX9: what is known already is recognised before its signature is looked at.
#[test]
fn a_retry_of_a_waiting_envelope_costs_nothing() {
    let mut net = Net::new(4);
    net.lose = Box::new(|_, _, _| true);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    checked(&net);
    net.request_all(&envelope);
    assert_eq!(checked(&net), [0; 4]);
    // The same number under another signature is another envelope.
    let other = net.envelope(1, 0, 1, 7);
    net.request_all(&other);
    assert_eq!(checked(&net), [1; 4]);
}
