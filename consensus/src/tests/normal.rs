//! The normal case: votes, certificates, pipelining, batches, null batches.

use quorate_protocol::record::Record;
use quorate_protocol::{PeerMessage, VoteKind};

use super::harness::{MILLISECOND, Net, SECOND, State, kind_of};
use crate::{Input, Parameters, Timeouts};

#[test]
fn an_idle_cluster_commits_nothing() {
    let mut net = Net::new(4);
    net.advance(30 * SECOND);
    assert!(net.replicas().iter().all(|replica| replica.committed_height() == 0 && replica.view() == 0));
    assert_eq!(net.sent.get("VIEW-CHANGE"), None);
}

#[test]
fn a_request_is_committed_by_all_without_time_passing() {
    for n in [4, 5, 6, 7] {
        let mut net = Net::new(n);
        let envelope = net.envelope(1, 0, 3, 0);
        net.request_all(&envelope);
        net.settle();
        assert!(net.all_at(1), "n = {n}: {:#?}", net.replicas());
        for i in 0..net.n() {
            assert_eq!(net.times_executed(i, 1, 2), 1);
            assert_eq!(net.replica(i).pool_len(), 0);
            let notified = &net.node(i).notified;
            assert!(notified.iter().any(|vote| vote.kind == VoteKind::Commit && vote.height == 1));
        }
        assert_eq!(net.replica(0).status().suspects, None);
        net.advance(5 * SECOND);
        assert!(net.replicas().iter().all(|replica| replica.view() == 0 && replica.committed_height() == 1));
    }
}

#[test]
fn au2_the_leaders_pre_prepare_is_no_vote() {
    // Of four, the leader and one follower work: two PREPAREs are no quorum.
    let mut net = Net::new(4);
    net.crash(2);
    net.crash(3);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    assert!(net.replica(0).view.certificates.is_empty() && net.replica(1).view.certificates.is_empty());
    assert!(net.replica(0).view.prepared.contains_key(&1), "the leader PREPAREs like the others");
}

#[test]
fn heights_are_pipelined_within_the_window_and_batches_grow_behind_it() {
    let mut net = Net::with(4, 3, Parameters::default());
    (0..4).for_each(|i| net.node(i).hold_disk = true);
    for client in 0..10 {
        let envelope = net.envelope(client, 0, 1, 0);
        net.request_all(&envelope);
    }
    net.settle();
    let proposed = net.replica(0).view.chain.len();
    assert_eq!(proposed, 3, "as many heights as the window holds are proposed without a batch timer");
    (0..4).for_each(|i| net.node(i).hold_disk = false);
    net.settle();
    assert!(net.all_at(4));
    let operations: Vec<u32> = net.headers.values().map(|header| header.operation_count).collect();
    assert_eq!(operations, [1, 1, 1, 7], "what waited for the window shares a batch");
}

#[test]
fn a_sessions_envelopes_are_pipelined_in_order() {
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    for first in [2, 1, 0, 3] {
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
    }
    net.settle();
    (0..4).for_each(|i| net.node(i).hold_execution = false);
    net.settle();
    for number in 0..4 {
        assert_eq!(net.times_executed(0, 1, number), 1);
    }
    // Nothing was proposed twice.
    assert_eq!(net.headers.values().map(|header| header.operation_count).sum::<u32>(), 4);
}

#[test]
fn pr1_r2_a_commit_leaves_only_after_its_record_and_a_prepare_needs_none() {
    // The harness checks each vote on the wire against the log; here nothing is synced but the view.
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_disk = true);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    assert_eq!(net.sent.get("PRE-PREPARE"), Some(&3), "the leader waits neither for disk nor execution");
    for i in 0..4 {
        assert_eq!(net.votes_sent(i, 0, VoteKind::Prepare), 1, "a PREPARE waits for no disk");
        assert_eq!(net.votes_sent(i, 0, VoteKind::Commit), 0);
        assert_eq!(net.node(i).unsynced.len(), 1, "batch, certificate and COMMIT share one persist");
        let records = &net.node(i).unsynced[0].1;
        assert!(matches!(&records[..], [Record::Proposed { .. }, Record::Prepared(_), Record::Voted(_)]));
    }
    // With the one sync come the COMMITs.
    for i in 0..4 {
        net.sync(i);
    }
    net.settle();
    assert!(net.all_at(1));
}

#[test]
fn r2_no_vote_leaves_before_the_view_is_durable() {
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_disk = true);
    for i in 0..4 {
        net.node(i).log.clear();
        net.restart(i);
    }
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    // The leader alone has entered its view durably.
    net.sync(0);
    net.settle();
    assert_eq!(net.sent.get("PRE-PREPARE"), Some(&3));
    assert_eq!(net.votes_sent(0, 0, VoteKind::Prepare), 1);
    assert!((1..4).all(|i| net.votes_sent(i, 0, VoteKind::Prepare) == 0));
    (0..4).for_each(|i| net.node(i).hold_disk = false);
    net.settle();
    assert!(net.all_at(1));
}

#[test]
fn r2_a_height_costs_each_replica_one_persist() {
    for n in [4, 7] {
        let mut net = Net::new(n);
        let before: Vec<usize> = net.nodes.iter().map(|node| node.syncs).collect();
        for first in 0..20 {
            let envelope = net.envelope(1, first, 1, 0);
            net.request_all(&envelope);
            net.settle();
        }
        assert!(net.all_at(20));
        let persists = |net: &Net| {
            let pairs = net.nodes.iter().zip(&before);
            pairs.map(|(node, before)| node.syncs - before).collect::<Vec<usize>>()
        };
        assert_eq!(persists(&net), vec![20; n], "what is committed is recorded with the next height");
        // What the last height left over is written when nothing follows, and then there is silence.
        net.advance(SECOND);
        assert_eq!(persists(&net), vec![21; n]);
        net.advance(10 * SECOND);
        assert_eq!(persists(&net), vec![21; n]);
        for i in 0..net.n() {
            net.restart(i);
            assert_eq!(net.height(i), 20);
        }
    }
}

#[test]
fn an_orderly_stop_leaves_nothing_unwritten() {
    let mut net = Net::new(4);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    for i in 0..4 {
        net.step(i, Input::Resign);
        net.sync(i);
        let committed = |record: &Record| matches!(record, Record::Committed(_));
        assert!(net.node(i).log.iter().any(committed));
    }
}

#[test]
fn lost_messages_are_repeated() {
    for lost in ["PRE-PREPARE", "votes"] {
        let mut net = Net::new(4);
        let mut remaining = 7;
        net.lose = Box::new(move |_, _, message| {
            let lose = kind_of(message) == lost && remaining > 0;
            remaining -= usize::from(lose);
            lose
        });
        let envelope = net.envelope(1, 0, 1, 0);
        net.request_all(&envelope);
        net.advance_until(SECOND, |net| net.all_at(1));
        assert!(net.replicas().iter().all(|replica| replica.view() == 0), "no view change for {lost}");
    }
}

#[test]
fn batch_times_rise_by_the_operations_of_the_parent() {
    // S8: the minimum is always allowed, whatever the clocks say.
    let mut net = Net::new(4);
    net.node(0).clock_offset = -3_600 * i64::try_from(SECOND).unwrap();
    for first in 0..3 {
        let envelope = net.envelope(1, first * 5, 5, 0);
        net.request_all(&envelope);
        net.settle();
    }
    assert!(net.all_at(3), "the minimum passes the clock window of the others");
    let times: Vec<u64> = net.headers.values().map(|header| header.time.0).collect();
    assert_eq!((times[1] - times[0], times[2] - times[1]), (5, 5));
}

#[test]
fn a15_a_leader_with_a_fast_clock_is_not_followed_and_replaced() {
    let mut net = Net::new(4);
    net.node(0).clock_offset = 3_600 * i64::try_from(SECOND).unwrap();
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    assert!(!net.all_at(1));
    net.advance_until(5 * SECOND, |net| net.all_at(1));
    assert!(net.replica(1).view() > 0);
    assert!(net.headers[&1].time <= net.wall(1));
}

#[test]
fn the_leader_proposes_a_tick_when_batch_time_reaches_a_deadline() {
    let mut net = Net::new(4);
    let envelope = net.envelope(1, 0, 1, 0);
    let at = net.wall(0).0 + 2 * SECOND;
    (0..4).for_each(|i| net.node(i).wake_at = Some(at));
    net.request_all(&envelope);
    net.settle();
    net.advance(1_900 * MILLISECOND);
    assert_eq!(net.height(0), 1);
    (0..4).for_each(|i| net.node(i).wake_at = None);
    net.advance(200 * MILLISECOND);
    assert!(net.all_at(2));
    net.advance(10 * SECOND);
    assert_eq!(net.height(0), 2, "one tick, no more");
    assert_eq!(net.headers[&2].operation_count, 0);
}

/// A8, RD1: who is left out fetches what a certificate names.
#[test]
fn rd1_a_leader_that_leaves_one_out_still_serves_it() {
    // A8 and RD1: proposals reach a bare quorum only; the others fetch by the certificate's header.
    let mut net = Net::new(4);
    net.lose =
        Box::new(|from, to, message| from == 0 && to == 3 && matches!(message, PeerMessage::PrePrepare(_)));
    for first in 0..6 {
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
        net.advance_until(SECOND, |net| net.all_at(first + 1));
    }
    assert_eq!(net.replica(3).view(), 0);
}

#[test]
fn a_long_run_under_load_keeps_everything_bounded() {
    let timeouts = Timeouts { request: 300 * MILLISECOND, ..Timeouts::default() };
    let mut net = Net::with(4, 4, Parameters { timeouts, ..Parameters::default() });
    for round in 0..200 {
        for client in 0..4 {
            let envelope = net.envelope(client, round, 1, 0);
            net.request_all(&envelope);
        }
        net.advance(MILLISECOND);
    }
    net.settle();
    let last = net.height(0);
    assert!(net.all_at(last));
    for i in 0..4 {
        for client in 0..4 {
            assert!((0..200).all(|number| net.times_executed(i, client, number) == 1));
        }
        let replica = net.replica(i);
        assert_eq!((replica.blocks.len(), replica.pool_len(), replica.decided.len()), (0, 0, 0));
        assert!(replica.votes.of(i).next().is_none());
        let node = net.node(i);
        assert_eq!(node.states.len(), 1, "states of committed and dropped heights are forgotten");
        let State { header, .. } = node.committed.as_ref().unwrap();
        assert_eq!(header.height, last);
    }
}
