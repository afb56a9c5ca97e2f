//! Crashes and restarts at every point: nothing said is contradicted, and the cluster goes on.

use quorate_protocol::record::Record;
use quorate_protocol::{PeerMessage, VoteKind};

use super::harness::{MILLISECOND, Net, SECOND, kind_of};
use crate::{Input, RecoveryError, Replica};

#[test]
fn vc16_a_crash_at_any_persist_point_is_survived() {
    // The leader of view 0 crashes for good in the middle of the load, and each of the others in turn at
    // each of its syncs, before and after it, and comes back.
    for victim in 1..4 {
        for at in 1..24 {
            for after_sync in [false, true] {
                let mut net = Net::new(4);
                net.node(victim).syncs = 0;
                net.node(victim).crash_at = Some((at, after_sync));
                for first in 0..3 {
                    let envelope = net.envelope(1, first, 1, 0);
                    net.request_all(&envelope);
                    net.settle();
                }
                net.step(0, Input::Resign);
                net.settle();
                net.advance(500 * MILLISECOND);
                let envelope = net.envelope(1, 3, 1, 0);
                net.request_all(&envelope);
                net.advance(100 * MILLISECOND);
                net.node(victim).crash_at = None;
                if net.node(victim).replica.is_none() {
                    net.restart(victim);
                }
                for first in 0..4 {
                    let envelope = net.envelope(1, first, 1, 0);
                    net.request_all(&envelope);
                }
                net.advance_until(10 * SECOND, |net| {
                    (0..4).all(|i| (0..4).all(|number| net.times_executed(i, 1, number) == 1))
                });
            }
        }
    }
}

#[test]
fn pr3_votes_that_were_synced_are_sent_again_after_a_restart() {
    let mut net = Net::new(4);
    // Every COMMIT is durable and lost; then all lose power at once.
    net.lose = Box::new(
        |_, _, message| matches!(message, PeerMessage::Votes(votes) if votes.iter().any(|v| v.kind == VoteKind::Commit)),
    );
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    assert!(!net.all_at(1));
    // Whoever comes back may say nothing new in view 0: what completes the certificate is what it repeats.
    net.lose = Box::new(|_, _, message| {
        matches!(kind_of(message), "SUSPECT" | "RESIGN" | "VIEW-CHANGE" | "NEW-VIEW")
    });
    (1..4).for_each(|i| net.restart(i));
    net.settle();
    assert!((1..4).all(|i| net.height(i) == 1 && net.replica(i).view() == 0));
}

/// PR2: a restarted replica makes no vote that differs from one before; the network compares all of them.
#[test]
fn r2_after_a_restart_no_prepare_in_the_same_view_but_commits() {
    let mut net = Net::new(4);
    net.lose = Box::new(|_, _, message| matches!(kind_of(message), "SUSPECT"));
    net.restart(3);
    net.settle();
    for first in 0..3 {
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
        net.settle();
    }
    assert!(net.all_at(3));
    assert_eq!(net.votes_sent(3, 0, VoteKind::Prepare), 0);
    assert!(!net.replica(3).status().may_prepare);
    let commits = |record: &&Record| matches!(record, Record::Voted(vote) if vote.kind == VoteKind::Commit);
    assert!(net.nodes[3].log.iter().filter(commits).count() > 0, "it COMMITs on certificates of the others");
}

#[test]
fn r2_the_leader_hands_over_for_a_restarted_replica_at_a_limited_rate() {
    let mut net = Net::new(4);
    net.advance(11 * SECOND);
    net.restart(3);
    net.settle();
    assert!(net.replicas().iter().all(|replica| replica.view() == 1 && replica.status().may_prepare));
    // Again at once: not before the interval is over.
    net.restart(3);
    net.advance(5 * SECOND);
    assert!(net.replicas().iter().all(|replica| replica.view() == 1));
    net.advance(6 * SECOND);
    assert!(net.replicas().iter().all(|replica| replica.view() == 2 && replica.status().may_prepare));
}

#[test]
fn r2_two_of_four_restart_one_after_the_other_in_one_view() {
    let mut net = Net::new(4);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    net.restart(2);
    net.settle();
    assert!(net.replicas().iter().all(|replica| replica.view() == 0), "the interval is not over");
    net.restart(3);
    net.settle();
    // Two cannot PREPARE any more: f + 1 SUSPECTs move the view without any time-out.
    assert_eq!(net.now, 0);
    assert!(net.replicas().iter().all(|replica| replica.view() == 1 && replica.status().may_prepare));
    let envelope = net.envelope(1, 1, 1, 0);
    net.request_all(&envelope);
    net.settle();
    assert!(net.all_at(2));
}

#[test]
fn r2_a_restarted_leader_resigns() {
    let mut net = Net::new(4);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    net.restart(0);
    net.settle();
    assert_eq!(net.now, 0);
    assert!(net.replicas().iter().all(|replica| replica.view() == 1 && replica.status().may_prepare));
}

#[test]
fn all_lose_power_at_once_again_and_again() {
    let mut net = Net::new(4);
    for round in 0..6 {
        let envelope = net.envelope(1, round, 1, 0);
        net.request_all(&envelope);
        for _ in 0..(7 * round % 11) {
            (0..4).for_each(|i| {
                net.sync_one(i);
                net.execute_one(i);
            });
            if let Some((from, to, message)) = net.wire.pop_front() {
                net.deliver(from, to, message);
            }
        }
        net.wire.clear();
        (0..4).for_each(|i| net.restart(i));
        net.request_all(&envelope);
        net.advance_until(10 * SECOND, |net| (0..4).all(|i| net.times_executed(i, 1, round) == 1));
    }
}

/// PR4: the highest view of the log counts, not the last record, and its timer runs.
#[test]
fn a_view_asked_for_and_not_entered_is_entered_after_a_restart() {
    let mut net = Net::new(4);
    net.lose = Box::new(|_, _, message| kind_of(message) == "NEW-VIEW");
    net.step(0, Input::Resign);
    net.settle();
    // The leader of view 1 is in it; the others have asked for it, and one of them restarts.
    assert!((2..4).all(|i| net.replica(i).view() == 1 && !net.replica(i).has_entered()));
    net.restart(2);
    net.lose = Box::new(|_, _, _| false);
    net.advance_until(2 * SECOND, |net| (0..4).all(|i| net.replica(i).has_entered()));
    assert!(net.replica(2).view() > 1 || net.replica(2).status().may_prepare);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.advance_until(5 * SECOND, |net| net.all_at(1));
}

#[test]
fn pr9_a_commit_that_was_not_synced_is_delivered_again() {
    let mut net = Net::new(4);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    // Replica 3 commits height 1 in memory, and loses the record of it.
    for _ in 0..10_000 {
        if net.height(3) == 1 {
            break;
        }
        for i in 0..4 {
            net.sync_one(i);
            net.execute_one(i);
        }
        if let Some((from, to, message)) = net.wire.pop_front() {
            net.deliver(from, to, message);
        }
    }
    assert_eq!(net.height(3), 1);
    assert!(!net.nodes[3].log.iter().any(|record| matches!(record, Record::Committed(_))));
    net.restart(3);
    assert_eq!(net.height(3), 0);
    net.advance_until(5 * SECOND, |net| net.all_at(1));
}

#[test]
fn pr6_logs_that_contradict_themselves_are_refused() {
    let mut net = Net::new(4);
    for first in 0..2 {
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
        net.settle();
    }
    let log = net.nodes[2].log.clone();
    let recover = |net: &Net, i: u8, log: Vec<Record>| {
        let signer = std::sync::Arc::new(net.signer(i));
        let wall = net.wall(i);
        let verifier = net.verifiers[usize::from(i)].clone();
        Replica::recover(net.configuration_of(i), signer, verifier, log, crate::Monotonic(0), wall)
            .map(|_| ())
    };
    assert_eq!(recover(&net, 2, log.clone()), Ok(()));
    assert_eq!(recover(&net, 1, log.clone()), Err(RecoveryError::Foreign));
    // A second vote, another header.
    let mut twice = log.clone();
    let other = net.vote(2, VoteKind::Prepare, 0, 7, quorate_crypto::Hash::ZERO);
    let contradiction = net.vote(2, VoteKind::Prepare, 0, 7, *net.configuration.cluster());
    twice.extend([Record::Voted(other), Record::Voted(contradiction)]);
    assert_eq!(recover(&net, 2, twice), Err(RecoveryError::Contradiction { view: 0, height: 7 }));
    // A hole in the middle.
    let hole: Vec<Record> =
        log.iter().filter(|record| !matches!(record, Record::Proposed { height: 1, .. })).cloned().collect();
    assert!(recover(&net, 2, hole).is_err());
    let headless: Vec<Record> = log.iter().skip(1).cloned().collect();
    assert!(recover(&net, 2, headless).is_err());
    let mut backwards = log;
    backwards.push(Record::Entered { epoch: 0, view: 0 });
    assert!(recover(&net, 2, backwards).is_err());
}

#[test]
fn pr6_every_torn_tail_is_recovered_and_a_certificate_without_its_batch_is_refused() {
    let mut net = Net::new(4);
    for first in 0..3 {
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
        net.settle();
        net.step(u8::try_from(first).unwrap(), Input::Resign);
        net.settle();
    }
    let log = net.nodes[3].log.clone();
    let (configuration, wall) = (net.configuration_of(3), net.wall(3));
    let recover = |log: &[Record]| {
        let (signer, verifier) = (std::sync::Arc::new(net.signer(3)), net.verifiers[3].clone());
        let log = log.to_vec();
        Replica::recover(configuration.clone(), signer, verifier, log, crate::Monotonic(0), wall).map(|_| ())
    };
    for end in 0..=log.len() {
        assert_eq!(recover(&log[..end]), Ok(()), "cut after {end} records");
    }
    let prepared = log.iter().position(|record| matches!(record, Record::Prepared(_))).unwrap();
    let proposed = log.iter().position(|record| matches!(record, Record::Proposed { .. })).unwrap();
    assert!(proposed < prepared);
    let mut damaged = log[..=prepared].to_vec();
    damaged.remove(proposed);
    assert_eq!(recover(&damaged), Err(RecoveryError::MissingBatch(1)));
}

#[test]
fn r2_a_certificate_that_is_not_synced_is_synced_with_the_view_change_that_claims_it() {
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_disk = true);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    net.hand_over(0);
    assert_eq!(net.sent.get("VIEW-CHANGE"), None, "it waits for its claim");
    for i in 0..4 {
        let node = net.node(i);
        let records: Vec<&Record> = node.unsynced.iter().flat_map(|(_, records, _)| records).collect();
        let at = |wanted: fn(&Record) -> bool| records.iter().position(|record| wanted(record));
        let prepared = at(|record| matches!(record, Record::Prepared(_))).expect("its claim");
        let asked = at(|record| matches!(record, Record::ViewChange(_))).expect("its VIEW-CHANGE");
        assert!(prepared < asked);
    }
    (0..4).for_each(|i| net.node(i).hold_disk = false);
    net.settle();
    assert!(net.all_at(1) && net.replica(0).view() == 1);
}

#[test]
fn pr6_every_defect_of_a_log_has_its_refusal() {
    let mut net = Net::new(4);
    for first in 0..2 {
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
        net.settle();
    }
    let log = net.nodes[2].log.clone();
    let recover = |signer: u8, log: Vec<Record>| {
        let (configuration, verifier) = (net.configuration_of(2), net.verifiers[2].clone());
        let signer = std::sync::Arc::new(net.signer(signer));
        Replica::recover(configuration, signer, verifier, log, crate::Monotonic(0), net.wall(2)).map(|_| ())
    };
    let refused = |last: Record| recover(2, log.iter().cloned().chain([last]).collect());
    let batch = log.iter().find_map(|record| match record {
        Record::Proposed { height: 1, batch } => Some(batch.clone()),
        _ => None,
    });
    let committed = log.iter().find_map(|record| match record {
        Record::Committed(certificate) => Some(certificate.clone()),
        _ => None,
    });
    assert_eq!(recover(1, log.clone()), Err(RecoveryError::Key));
    assert_eq!(refused(Record::Entered { epoch: 1, view: 0 }), Err(RecoveryError::Foreign));
    assert_eq!(
        refused(Record::Entered { epoch: 0, view: 5 }),
        Err(RecoveryError::Order("a view entered without its NEW-VIEW"))
    );
    assert_eq!(
        refused(Record::Voted(net.vote(2, VoteKind::Commit, 3, 7, quorate_crypto::Hash::ZERO))),
        Err(RecoveryError::Order("a vote in a view that was not entered"))
    );
    let misplaced = Record::Proposed { height: 9, batch: batch.unwrap() };
    assert_eq!(refused(misplaced), Err(RecoveryError::Batch(9)));
    assert_eq!(
        refused(Record::Committed(committed.unwrap())),
        Err(RecoveryError::Order("committed heights are not consecutive"))
    );
    let claim = |replica, view| Record::ViewChange(net.view_change(replica, view, None));
    assert_eq!(refused(claim(1, 3)), Err(RecoveryError::Foreign));
    assert_eq!(refused(claim(2, 3)), Ok(()));
    assert_eq!(refused(claim(2, 0)), Err(RecoveryError::Order("a VIEW-CHANGE for an earlier view")));
    let twice = log.iter().cloned().chain([claim(2, 3), Record::Entered { epoch: 0, view: 2 }]).collect();
    assert_eq!(recover(2, twice), Err(RecoveryError::Order("a view entered after a later one")));
}

/// Rule R2: the leader may not hand over when it first hears of the restart, and heights that go on without a pause
/// keep it from nothing later.
#[test]
fn a_replica_that_restarted_votes_again_although_heights_go_on() {
    let mut net = Net::new(4);
    net.advance(SECOND);
    net.crash(3);
    net.restart(3);
    let mut first = 0;
    let mut seconds = 0;
    while net.replica(3).view() == 0 {
        for _ in 0..20 {
            net.request_all(&net.envelope(1, first, 1, 0));
            net.advance(50 * MILLISECOND);
            first += 1;
        }
        seconds += 1;
        assert!(seconds < 15, "it is still mute at height {}", net.height(0));
    }
    assert!(seconds > 5, "the leader was not yet to hand over");
    net.advance(SECOND);
    assert!(net.replicas().iter().all(|replica| replica.view() == 1 && replica.has_entered()));
}
