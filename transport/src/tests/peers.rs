//! Replicas among themselves.

use std::time::{Duration, Instant};

use quorate_crypto::{Address, NodeSeed};
use quorate_protocol::PeerMessage;

use super::common::*;
use crate::PAUSE_MAX;
use crate::peers::{INBOX_BYTES_MAX, OUTBOX_BYTES_MAX, OUTBOX_MESSAGES_MAX};
use crate::tuning::{CONNECTION_WINDOW_BYTES, IDLE_TIMEOUT};
use crate::{PeerEvent, ReplicaTransport, TransportError};

#[test]
fn all_pairs_connect_and_talk_both_ways() {
    run(async {
        let cluster = Cluster::new();
        let mut nodes: Vec<ReplicaTransport> = (0..4).map(|index| cluster.start(index)).collect();
        for (me, node) in nodes.iter_mut().enumerate() {
            let mut missing: Vec<u8> = (0..4).filter(|index| usize::from(*index) != me).collect();
            while !missing.is_empty() {
                let event = soon("connections", node.peer_events.recv()).await.unwrap();
                missing.retain(|index| !matches!(event, PeerEvent::Connected(peer) if peer == *index));
            }
            assert_eq!(node.peers.connected().len(), 3);
        }
        for node in &nodes {
            for view in 0..100 {
                node.peers.broadcast(&small(view));
            }
        }
        for node in &mut nodes {
            let mut next = [0; 4];
            for _ in 0..300 {
                let (from, message) = next_message(&mut node.peer_events).await;
                assert_eq!(message, small(next[usize::from(from)]), "in order");
                next[usize::from(from)] += 1;
            }
        }
    });
}

#[test]
fn nothing_is_read_of_a_peer_that_is_paused() {
    run(async {
        let cluster = Cluster::new();
        let (first, mut second) = (cluster.start(0), cluster.start(1));
        until_connected(&mut second.peer_events, 0).await;
        let start = Instant::now();
        for _ in 0..3 {
            second.peers.pause(0, Duration::from_millis(100));
        }
        // Its lane waits for one message already.
        first.peers.send(1, &small(1));
        first.peers.send(1, &small(2));
        assert_eq!(next_message(&mut second.peer_events).await, (0, small(1)));
        assert_eq!(next_message(&mut second.peer_events).await, (0, small(2)));
        assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
        // However much it is paused for, it comes back.
        for _ in 0..100 {
            second.peers.pause(0, PAUSE_MAX);
        }
        first.peers.send(1, &small(3));
        first.peers.send(1, &small(4));
        next_message(&mut second.peer_events).await;
        assert_eq!(next_message(&mut second.peer_events).await, (0, small(4)));
        assert!(start.elapsed() < PAUSE_MAX * 3, "{:?}", start.elapsed());
        // Whoever is faulty is paused for longer, and what it sends more does not shorten that.
        let start = Instant::now();
        second.peers.pause_faulty(0, PAUSE_MAX * 2);
        second.peers.pause(0, Duration::from_millis(1));
        first.peers.send(1, &small(5));
        first.peers.send(1, &small(6));
        next_message(&mut second.peer_events).await;
        assert_eq!(next_message(&mut second.peer_events).await, (0, small(6)));
        assert!(start.elapsed() >= PAUSE_MAX * 2, "{:?}", start.elapsed());
    });
}

#[test]
fn what_was_sent_just_before_the_connection_arrives() {
    run(async {
        let cluster = Cluster::new();
        let (first, mut second) = (cluster.start(0), cluster.start(1));
        first.peers.send(1, &small(7));
        assert_eq!(next_message(&mut second.peer_events).await, (0, small(7)));
    });
}

#[test]
fn a_peer_that_takes_leave_is_missed_at_once_and_found_again() {
    run(async {
        let cluster = Cluster::new();
        let (mut first, mut second) = (cluster.start(0), cluster.start(1));
        for round in 0..3 {
            until_connected(&mut second.peer_events, 0).await;
            until_connected(&mut first.peer_events, 1).await;
            let start = Instant::now();
            first.close().await;
            until_disconnected(&mut second.peer_events, 0).await;
            assert!(start.elapsed() < IDLE_TIMEOUT / 2);
            assert!(second.peers.connected().is_empty());
            first = cluster.start(0);
            second.peers.send(0, &small(round));
        }
        assert_eq!(next_message(&mut first.peer_events).await, (1, small(2)));
    });
}

/// Ends a node as kill -9 does: nothing is sent any more, and the port is free again.
fn kill(runtime: tokio::runtime::Runtime, node: ReplicaTransport) {
    drop(runtime);
    drop(node);
}

#[test]
fn a_killed_peer_that_restarts_is_found_before_the_time_out() {
    let cluster = Cluster::new();
    let doomed = runtime();
    let mut victim = doomed.block_on(async { cluster.start(0) });
    let (ready, when_ready) = std::sync::mpsc::channel();
    let survivor = std::thread::spawn({
        let configuration = cluster.configuration(1);
        move || {
            run(async {
                let mut node = ReplicaTransport::start(configuration).unwrap();
                until_connected(&mut node.peer_events, 0).await;
                ready.send(()).unwrap();
                let start = Instant::now();
                until_connected(&mut node.peer_events, 0).await;
                start.elapsed()
            })
        }
    });
    doomed.block_on(until_connected(&mut victim.peer_events, 1));
    when_ready.recv_timeout(PATIENCE).unwrap();
    kill(doomed, victim);
    let reborn = runtime();
    let mut node = reborn.block_on(async { cluster.start(0) });
    reborn.block_on(until_connected(&mut node.peer_events, 1));
    // Lets the other side finish its part.
    reborn.block_on(async { tokio::time::sleep(Duration::from_millis(300)).await });
    let elapsed = survivor.join().unwrap();
    assert!(elapsed < IDLE_TIMEOUT, "a reset tells sooner than the time-out, not after {elapsed:?}");
}

#[test]
fn a_killed_caller_replaces_its_old_connection() {
    let cluster = Cluster::new();
    let doomed = runtime();
    let caller = doomed.block_on(async { cluster.start(1) });
    run(async {
        let mut node = cluster.start(0);
        // Drives both until they are connected.
        let driver = std::thread::spawn(move || {
            doomed.block_on(async move {
                let mut caller = caller;
                until_connected(&mut caller.peer_events, 0).await;
                caller
            });
        });
        until_connected(&mut node.peer_events, 1).await;
        driver.join().unwrap();
        let mut again = cluster.start(1);
        until_connected(&mut again.peer_events, 0).await;
        until_connected(&mut node.peer_events, 1).await;
        again.peers.send(0, &small(5));
        assert_eq!(next_message(&mut node.peer_events).await, (1, small(5)));
        assert_eq!(node.peers.connected(), [1]);
    });
}

#[test]
fn a_peer_that_falls_silent_is_missed_within_the_time_out() {
    let cluster = Cluster::new();
    let paused = runtime();
    let mut silent = paused.block_on(async { cluster.start(1) });
    run(async {
        let mut node = cluster.start(0);
        let driver = std::thread::spawn(move || {
            paused.block_on(until_connected(&mut silent.peer_events, 0));
            // Still there, but nothing drives it any more.
            (paused, silent)
        });
        until_connected(&mut node.peer_events, 1).await;
        let start = Instant::now();
        until_disconnected(&mut node.peer_events, 1).await;
        assert!(start.elapsed() < IDLE_TIMEOUT + Duration::from_secs(2));
        assert!(node.peers.connected().is_empty());
        let (paused, silent) = driver.join().unwrap();
        drop(silent);
        paused.shutdown_background();
    });
}

#[test]
fn small_messages_overtake_large_ones() {
    run(async {
        let cluster = Cluster::new();
        let (mut first, mut second) = (cluster.start(0), cluster.start(1));
        until_connected(&mut first.peer_events, 1).await;
        until_connected(&mut second.peer_events, 0).await;
        for byte in 0..20 {
            first.peers.send(1, &large(byte));
        }
        // The large ones are on their way when the small one follows.
        assert_eq!(next_message(&mut second.peer_events).await, (0, large(0)));
        first.peers.send(1, &small(1));
        let mut before = 1;
        loop {
            match next_message(&mut second.peer_events).await.1 {
                PeerMessage::Block { .. } => before += 1,
                message => break assert_eq!(message, small(1)),
            }
        }
        assert!(before < 15, "{before} of 20 large messages came before the small one");
        for byte in before..20 {
            assert_eq!(next_message(&mut second.peer_events).await, (0, large(byte)));
        }
    });
}

#[test]
fn a_peer_that_does_not_read_costs_bounded_memory_and_stays_reachable() {
    run(async {
        let cluster = Cluster::new();
        let (mut first, mut second) = (cluster.start(0), cluster.start(1));
        until_connected(&mut first.peer_events, 1).await;
        until_connected(&mut second.peer_events, 0).await;
        let block = large(1);
        let sent = 200;
        for _ in 0..sent {
            first.peers.send(1, &block);
            tokio::time::sleep(Duration::from_millis(1)).await;
            let counters = first.peers.counters();
            assert!(counters.waiting_bytes <= OUTBOX_BYTES_MAX);
            assert!(counters.waiting_messages <= OUTBOX_MESSAGES_MAX);
        }
        let dropped = first.peers.counters().dropped;
        let held = (INBOX_BYTES_MAX + OUTBOX_BYTES_MAX + 2 * CONNECTION_WINDOW_BYTES as usize) >> 20;
        assert!(dropped + held as u64 >= sent, "{dropped} dropped");
        // Its other lanes are open: the small message waits behind what was read before, not behind all.
        first.peers.send(1, &small(3));
        let mut blocks = 0;
        while next_message(&mut second.peer_events).await.1 != small(3) {
            blocks += 1;
        }
        assert!(blocks < sent - dropped, "{blocks}");
        assert_eq!(first.peers.connected(), [1]);
    });
}

#[test]
fn contradictions_and_taken_ports_are_refused() {
    run(async {
        let cluster = Cluster::new();
        let mut wrong = cluster.configuration(0);
        wrong.secret = cluster.secret(1);
        assert!(matches!(ReplicaTransport::start(wrong), Err(TransportError::Configuration(_))));
        let mut wrong = cluster.configuration(0);
        wrong.me = 4;
        assert!(matches!(ReplicaTransport::start(wrong), Err(TransportError::Configuration(_))));
        let mut wrong = cluster.configuration(0);
        wrong.addresses.pop();
        assert!(matches!(ReplicaTransport::start(wrong), Err(TransportError::Configuration(_))));
        let _first = cluster.start(0);
        let taken = ReplicaTransport::start(cluster.configuration(0));
        assert!(matches!(taken, Err(TransportError::Bind { address, .. }) if address == cluster.address(0)));
    });
}

#[test]
fn neither_impostors_that_listen_nor_strangers_that_call_are_taken_for_peers() {
    run(async {
        let cluster = Cluster::new();
        let mut other = Cluster::new();
        other.seeds = (101..=104).map(|byte| NodeSeed::from_bytes([byte; 32])).collect();
        // The stranger listens where member 0 should, and calls member 1 as if it were member 2.
        let addresses: Vec<String> = cluster.file.addresses().iter().map(Address::to_string).collect();
        other.file = crate::ClusterFile::new(genesis(&other.seeds, &addresses));
        let mut impostor = other.start(0);
        let mut member = cluster.start(1);
        let mut stranger = other.start(2);
        let mut colleague = cluster.start(3);
        until_connected(&mut member.peer_events, 3).await;
        until_connected(&mut colleague.peer_events, 1).await;
        until_connected(&mut impostor.peer_events, 2).await;
        until_connected(&mut stranger.peer_events, 0).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(member.peers.connected(), [3]);
        assert_eq!(colleague.peers.connected(), [1]);
        assert_eq!(impostor.peers.connected(), [2]);
        assert_eq!(stranger.peers.connected(), [0]);
    });
}
