//! Principals that pile up sessions and envelopes: nobody else is refused, and no correct leader looks bad.

use quorate_crypto::{Hash, KeyedHashSigner, Signer, derive_hash};
use quorate_protocol::operation::{Operation, OperationBody};
use quorate_protocol::{Envelope, EnvelopeBody, SessionId};

use super::harness::{MILLISECOND, Net, SECOND, client_key, session_of};
use crate::door::Verified;
use crate::pool::{Pool, Room};
use crate::{MonitorBounds, Monotonic, Parameters, PoolBounds, ProposalBounds};

/// The client that floods.
const FLOODER: u8 = 9;

fn session(number: u64) -> SessionId {
    derive_hash("quorate test session of a flood", &[&number.to_le_bytes()])
}

/// An envelope of one operation in any of the flooder's sessions.
fn flood(net: &Net, number: u64, first: u64) -> Envelope {
    let signer = KeyedHashSigner::new(&client_key(FLOODER));
    let operation = Operation { credential: 0, requires: 0, at: None, body: OperationBody::Null };
    let template = net.envelope(FLOODER, first, 1, 0).body;
    let operations = vec![operation].try_into().unwrap();
    EnvelopeBody { session: session(number), key: signer.public(), operations, ..template }.sign(&signer)
}

fn insert(pool: &mut Pool, envelope: &Envelope) -> bool {
    let wanted = pool.would_take(envelope, 0);
    let taken = pool.insert(Verified::new(envelope.clone(), Hash::ZERO), 0, Monotonic(1));
    assert_eq!(wanted, taken);
    assert!(pool.is_consistent());
    taken
}

const TIGHT: PoolBounds =
    PoolBounds { envelopes: 16, bytes: 16 << 20, envelopes_per_principal: 12, envelopes_per_session: 8 };

#[test]
fn a3_keys_take_turns_whatever_sessions_they_open() {
    let net = Net::new(4);
    let mut pool = Pool::new(PoolBounds::default());
    for number in 0..100 {
        assert!(insert(&mut pool, &flood(&net, number, 0)));
    }
    for client in [1, 2] {
        assert!(insert(&mut pool, &net.envelope(client, 0, 1, 0)));
        assert!(insert(&mut pool, &net.envelope(client, 1, 1, 0)));
    }
    let taken = pool.select(Room { envelopes: 6, operations: 100, bytes: 1 << 20 });
    let of = |client: u8| taken.iter().filter(|it| it.body.session == session_of(client)).count();
    assert_eq!((of(1), of(2)), (2, 2), "two turns each");
    assert!(pool.is_consistent());
    // Its own sessions have their turns in the order in which they came.
    let rest = pool.select(Room { envelopes: 50, operations: 100, bytes: 1 << 20 });
    let expected: Vec<SessionId> = (2..52).map(session).collect();
    assert_eq!(rest.iter().map(|it| it.body.session).collect::<Vec<_>>(), expected);
}

/// RX1: what waits for gaps gives way to what can be executed.
#[test]
fn a5_envelopes_that_wait_for_gaps_keep_nobody_out() {
    let net = Net::new(4);
    let mut pool = Pool::new(TIGHT);
    // Two keys fill it with what never can be executed.
    for first in 0..8 {
        assert!(insert(&mut pool, &net.envelope(7, 100 + first, 1, 0)));
        assert!(insert(&mut pool, &net.envelope(8, 100 + first, 1, 0)));
    }
    assert_eq!(pool.len(), 16);
    assert!(!insert(&mut pool, &flood(&net, 3, 5)) || pool.len() == 16);
    for client in 1..=3 {
        assert!(insert(&mut pool, &net.envelope(client, 0, 1, 0)), "client {client}");
    }
    assert_eq!(pool.len(), 16);
    // They go too when their own key has something better.
    for number in 0..8 {
        assert!(insert(&mut pool, &flood(&net, number, 1)) || number > 1);
    }
    assert!(insert(&mut pool, &flood(&net, 20, 0)));
    assert_eq!(pool.select(Room { envelopes: 100, operations: 100, bytes: 1 << 20 }).len(), 4);
}

#[test]
fn a5_one_key_fills_its_share_of_the_pool_and_gives_way_in_a_full_one() {
    let net = Net::new(4);
    let mut pool = Pool::new(TIGHT);
    let taken = (0..20).filter(|number| insert(&mut pool, &flood(&net, *number, 0))).count();
    assert_eq!((taken, pool.len()), (12, 12), "the bound of a key");
    for client in 1..=3 {
        assert!((0..4).all(|first| insert(&mut pool, &net.envelope(client, first, 1, 0))), "client {client}");
        assert!(pool.len() <= 16);
    }
    // Who came last in turn is out, and nobody of those who hold less.
    let held = |number| pool.contains(&flood(&net, number, 0));
    assert!((0..4).all(held) && !(4..20).any(held));
    assert!(!insert(&mut pool, &flood(&net, 30, 0)), "equal shares");
}

/// A5: one envelope for each height, and a client that opens and fills sessions faster than that.
#[test]
fn a3_a5_a_flood_of_sessions_moves_no_view_and_starves_nobody() {
    let monitor = MonitorBounds { overtaken_max: 4, ..MonitorBounds::default() };
    for (envelopes, fresh) in [(1, true), (1, false), (8, true), (8, false)] {
        let proposal = ProposalBounds { envelopes, ..ProposalBounds::default() };
        let mut net = Net::with(4, 1, Parameters { proposal, monitor, ..Parameters::default() });
        let (mut number, mut served) = (0, 0);
        let mut sent_at = net.now;
        for round in 0..150 {
            // Each height takes two milliseconds, and twice as much is sent as fits.
            (0..4).for_each(|i| net.node(i).hold_execution = true);
            for _ in 0..2 * envelopes {
                let envelope =
                    if fresh { flood(&net, number, 0) } else { flood(&net, number % 64, number / 64) };
                net.request_all(&envelope);
                number += 1;
            }
            // One replica alone knows of the client, and passes it on.
            if net.times_executed(1, 1, served) > 0 {
                served += 1;
                sent_at = net.now;
            }
            let envelope = net.envelope(1, served, 1, 0);
            net.request(2, &envelope);
            net.advance(2 * MILLISECOND);
            (0..4).for_each(|i| net.node(i).hold_execution = false);
            net.settle();
            assert!(net.now - sent_at < SECOND / 4, "{envelopes} {fresh}: not served in round {round}");
        }
        assert!(net.replicas().iter().all(|replica| replica.view() == 0), "{envelopes} {fresh}");
        assert!(!net.sent.contains_key("SUSPECT"), "{envelopes} {fresh}");
        assert!(served >= 3, "{envelopes} {fresh}: {served}");
        // When it ends, all that waits is served without a suspicion.
        net.advance(10 * SECOND);
        let left = |net: &Net| net.replicas().iter().map(|it| (it.view(), it.pool_len())).collect::<Vec<_>>();
        assert_eq!(left(&net), [(0, 0); 4], "{envelopes} {fresh}");
        assert!(!net.sent.contains_key("SUSPECT"), "{envelopes} {fresh}");
    }
}
