//! Requests of clients: exactly once, in order, bounded, and no view change for what is not admissible.

use quorate_protocol::{BatchTime, EnvelopeBody};

use super::harness::{MILLISECOND, Net, SECOND};
use crate::{Input, Parameters, PoolBounds};

#[test]
fn cl1_retries_across_a_view_change_are_executed_once() {
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    let envelope = net.envelope(1, 0, 2, 0);
    net.request_all(&envelope);
    net.settle();
    net.hand_over(0);
    assert!((0..4).all(|i| net.replica(i).view() == 1), "what is in flight is not committed");
    net.request_all(&envelope);
    (0..4).for_each(|i| net.node(i).hold_execution = false);
    net.settle();
    net.request_all(&envelope);
    net.advance(10 * SECOND);
    assert!((0..4).all(|i| net.times_executed(i, 1, 0) == 1 && net.times_executed(i, 1, 1) == 1));
    assert!(net.replicas().iter().all(|replica| replica.pool_len() == 0));
}

/// RX6: a change of leader strands nothing that waited.
#[test]
fn r3_envelopes_of_a_dropped_height_return_to_the_pools() {
    let mut net = Net::new(4);
    // Only the leader was given the envelope; the others know it from its proposal alone.
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request(0, &envelope);
    net.settle();
    assert_eq!(net.replica(2).pool_len(), 0);
    net.crash(0);
    net.step(1, Input::Resign);
    // No leader of view 0 any more: others have something in flight and time out.
    net.advance_until(3 * SECOND, |net| net.replica(1).view() == 1 && net.replica(1).has_entered());
    (0..4).for_each(|i| net.node(i).hold_execution = false);
    net.advance_until(3 * SECOND, |net| net.all_at(1));
    assert!((1..4).all(|i| net.times_executed(i, 1, 0) == 1));
}

#[test]
fn cl2_different_bodies_under_one_number_stall_nobody() {
    let mut net = Net::new(4);
    for to in 0..4 {
        let envelope = net.envelope(1, 0, 1, u64::from(to));
        net.request(to, &envelope);
    }
    net.advance(20 * SECOND);
    assert!(net.replicas().iter().all(|replica| replica.view() == 0), "no view change");
    assert!((0..4).all(|i| net.times_executed(i, 1, 0) == 1));
    assert!(net.replicas().iter().all(|replica| replica.pool_len() == 0), "the losers are gone");
}

#[test]
fn cl3_gaps_wait_without_a_timer() {
    let mut net = Net::new(4);
    let late = net.envelope(1, 1, 1, 0);
    net.request_all(&late);
    net.advance(30 * SECOND);
    assert!(net.replicas().iter().all(|replica| replica.view() == 0 && replica.pool_len() == 1));
    assert_eq!(net.height(0), 0, "a gap is not proposed");
    let first = net.envelope(1, 0, 1, 0);
    net.request_all(&first);
    net.settle();
    assert!((0..4).all(|i| net.times_executed(i, 1, 1) == 1));
}

#[test]
fn another_key_cannot_occupy_a_sessions_numbers() {
    let mut net = Net::new(4);
    let signer = quorate_crypto::KeyedHashSigner::new(&super::harness::client_key(2));
    let victim = net.envelope(1, 0, 1, 0);
    let squatter = EnvelopeBody { key: quorate_crypto::Signer::public(&signer), ..victim.body.clone() };
    let squatter = squatter.sign(&signer);
    let verifier = quorate_crypto::KeyedHashVerifier::new([&super::harness::client_key(2)]);
    for to in 0..4 {
        // The driver knows the session's key and passes no number for another one.
        let verified = crate::door::verify_envelope(
            &net.configuration_of(to),
            &verifier,
            &crate::NoEnvelopes,
            squatter.clone(),
        )
        .unwrap();
        net.step(to, Input::Request { envelope: verified.clone(), next: None });
        assert_eq!(net.replica(to).pool_len(), 0);
        // Even if it did, the victim's envelope has a place of its own.
        net.step(to, Input::Request { envelope: verified, next: Some(0) });
    }
    net.request_all(&victim);
    assert!(net.replica(1).pool.contains(&victim) || net.height(1) > 0);
    net.settle();
    assert!((0..4).all(|i| net.times_executed(i, 1, 0) == 1));
}

#[test]
fn expired_envelopes_leave_the_pool() {
    let mut net = Net::new(4);
    let signer = quorate_crypto::KeyedHashSigner::new(&super::harness::client_key(1));
    let body = net.envelope(1, 5, 1, 0).body;
    let valid_until = BatchTime(net.wall(0).0 + 50 * MILLISECOND);
    let short = EnvelopeBody { valid_until, ..body }.sign(&signer);
    net.request_all(&short);
    assert_eq!(net.replica(2).pool_len(), 1);
    net.advance(100 * MILLISECOND);
    let other = net.envelope(2, 0, 1, 0);
    net.request_all(&other);
    net.settle();
    assert_eq!(net.replica(2).pool_len(), 0);
    net.request_all(&short);
    assert_eq!(net.replica(2).pool_len(), 0, "it does not come back either");
}

/// RX1: what clients send is bounded wherever it waits.
#[test]
fn the_pool_is_bounded_overall_and_per_session() {
    let pool = PoolBounds { envelopes: 8, envelopes_per_session: 3, ..PoolBounds::default() };
    let mut net = Net::with(4, 4, Parameters { pool, ..Parameters::default() });
    net.lose = Box::new(|_, _, _| true);
    for first in (1..10).rev() {
        let envelope = net.envelope(1, first, 1, 0);
        net.request(3, &envelope);
    }
    let held = |net: &Net, first| net.replica(3).pool.contains(&net.envelope(1, first, 1, 0));
    assert!((1..4).all(|first| held(&net, first)), "the lowest numbers stay");
    assert_eq!(net.replica(3).pool_len(), 3);
    for client in 2..12 {
        let envelope = net.envelope(client, 0, 1, 0);
        net.request(3, &envelope);
    }
    assert_eq!(net.replica(3).pool_len(), 8);
}

#[test]
fn a3_sessions_take_turns() {
    let mut net = Net::with(4, 1, Parameters::default());
    (0..4).for_each(|i| net.node(i).hold_disk = true);
    for first in 0..100 {
        let envelope = net.envelope(1, first, 20, 0);
        net.request_all(&net.envelope(1, first * 20, 20, 0));
        drop(envelope);
    }
    let other = net.envelope(2, 0, 1, 0);
    net.request_all(&other);
    (0..4).for_each(|i| net.node(i).hold_disk = false);
    net.settle();
    // The one envelope of client 2 came with the first batch after its arrival, among those of client 1.
    let position = net.nodes[0].committed.as_ref().unwrap().executed.iter();
    let position = position.take_while(|(id, _, _)| *id != super::harness::session_of(2)).count();
    assert!(position <= 40, "after {position} operations of the other client");
}
