//! Replicas that fall behind, and readers that ask how far the cluster is.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use quorate_protocol::peer::{Announcement, CommittedBatch};
use quorate_protocol::record::Record;
use quorate_protocol::{PeerMessage, VoteKind};

use super::harness::{MILLISECOND, Net, SECOND};
use crate::{HaltReason, Input, Rejection, door};

fn load(net: &mut Net, client: u8, numbers: std::ops::Range<u64>) {
    for first in numbers {
        let envelope = net.envelope(client, first, 1, 0);
        net.request_all(&envelope);
        net.settle();
    }
}

/// Four replicas of which the last one saw neither so many heights nor the hand-over after them.
fn without_the_last(heights: u64) -> Net {
    let mut net = Net::new(4);
    net.lose = Box::new(|from, to, _| from == 3 || to == 3);
    load(&mut net, 1, 0..heights);
    net.step(0, Input::Resign);
    net.settle();
    net
}

/// What a replica that has committed these heights would answer.
fn served(net: &Net, by: u8, heights: std::ops::RangeInclusive<u64>) -> PeerMessage {
    let mut batches = BTreeMap::new();
    let mut committed = Vec::new();
    for record in &net.nodes[usize::from(by)].log {
        match record {
            Record::Proposed { batch, .. } => {
                batches.insert(batch.header.hash(), batch.clone());
            }
            Record::Committed(certificate) if heights.contains(&certificate.height) => {
                let batch = batches[&certificate.header_hash].clone();
                committed.push(CommittedBatch { batch, certificate: certificate.clone() });
            }
            _ => {}
        }
    }
    PeerMessage::Committed(committed.try_into().unwrap())
}

#[test]
fn st1_a_replica_beyond_every_window_pulls_what_it_missed() {
    let mut net = Net::new(4);
    net.lose = Box::new(|from, to, _| from == 3 || to == 3);
    load(&mut net, 1, 0..300);
    assert_eq!((net.height(0), net.height(3)), (300, 0));
    net.lose = Box::new(|_, _, _| false);
    net.advance_until(10 * SECOND, |net| net.all_at(300));
    // And it takes part again: another one may fail.
    net.crash(2);
    load(&mut net, 2, 0..3);
    net.advance_until(5 * SECOND, |net| net.all_at(303));
}

#[test]
fn st4_catching_up_converges_under_load() {
    let mut net = Net::new(4);
    net.lose = Box::new(|from, to, _| from == 3 || to == 3);
    load(&mut net, 1, 0..200);
    net.lose = Box::new(|_, _, _| false);
    for first in 200..600 {
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
        net.advance(5 * MILLISECOND);
    }
    assert!(net.height(3) > 550, "at {} of {}", net.height(3), net.height(0));
}

#[test]
fn st5_st6_absurd_announcements_hold_nobody_up() {
    let mut net = Net::new(4);
    net.crash(2);
    let lie = Announcement { epoch: 0, view: u64::MAX, entered: true, committed: u64::MAX };
    for to in [0, 1, 3] {
        net.deliver(2, to, PeerMessage::Announce(lie.clone()));
    }
    net.lose = Box::new(|from, to, _| from == 3 || to == 3);
    for first in 0..50 {
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
        net.advance(MILLISECOND);
    }
    // Two of four are no quorum; nothing may have been committed, and nobody left its view for the lie.
    assert_eq!(net.height(0), 0);
    net.lose = Box::new(|_, _, _| false);
    net.advance_until(10 * SECOND, |net| net.all_at(net.height(0)) && net.times_executed(0, 1, 49) == 1);
    net.deliver(2, 3, PeerMessage::Announce(lie.clone()));
    load(&mut net, 2, 0..20);
    net.advance_until(5 * SECOND, |net| net.times_executed(3, 2, 19) == 1);
}

#[test]
fn st5_committed_heights_without_a_certificate_are_refused() {
    let mut net = Net::new(4);
    load(&mut net, 1, 0..2);
    let parent = net.nodes[0].committed.clone().unwrap();
    let proposal = net.proposal(&parent, Vec::new());
    let (state, _) = net.imagine(&parent, &proposal);
    let batch = quorate_protocol::peer::Batch { header: state.header.clone(), proposal };
    let wrong = net.certificate(VoteKind::Prepare, 0, 3, state.header.hash(), &[0, 1, 2]);
    let mut forged = net.certificate(VoteKind::Commit, 0, 3, state.header.hash(), &[0, 1, 2]);
    forged.header_hash = *net.configuration.cluster();
    for certificate in [wrong, forged] {
        let entry = quorate_protocol::peer::CommittedBatch { batch: batch.clone(), certificate };
        net.deliver(0, 3, PeerMessage::Committed(vec![entry].try_into().unwrap()));
    }
    assert_eq!(net.rejections.len(), 2);
    assert!(net.rejections.iter().all(|rejection| matches!(rejection, Rejection::Malformed { .. })));
    assert_eq!(net.height(3), 2);
}

#[test]
fn a_replica_that_was_down_for_long_restarts_and_follows_through_views() {
    let mut net = Net::new(4);
    load(&mut net, 1, 0..10);
    net.crash(3);
    for round in 0..3 {
        let leader = net.replica(0).leader();
        net.step(leader, Input::Resign);
        net.advance_until(5 * SECOND, |net| net.replicas().iter().all(|replica| replica.has_entered()));
        load(&mut net, 2, round * 50..(round + 1) * 50);
    }
    net.advance(3 * SECOND);
    net.restart(3);
    net.advance_until(10 * SECOND, |net| net.all_at(160));
    let view = net.replica(0).view();
    net.advance_until(10 * SECOND, |net| net.replica(3).view() >= view && net.replica(3).has_entered());
}

#[test]
fn r4_the_answer_is_never_below_what_a_client_has_seen() {
    let mut net = Net::new(4);
    assert_eq!(net.replica(0).read_index().height, 0);
    load(&mut net, 1, 0..2);
    for i in 0..4 {
        let answer = net.replica(i).read_index();
        assert_eq!((answer.height, answer.certificate.unwrap().kind as u8), (2, 3));
    }
    // A client sees height 3 committed by COMMITs of 0, 1 and 2, of which no replica knows the others'.
    net.lose = Box::new(
        |_, _, message| matches!(message, PeerMessage::Votes(votes) if votes.iter().any(|v| v.kind == VoteKind::Commit)),
    );
    load(&mut net, 1, 2..3);
    for i in 0..4 {
        let answer = net.replica(i).read_index();
        assert_eq!(answer.height, 3, "the certificate that it COMMITted on");
        let certificate = answer.certificate.unwrap();
        assert_eq!((certificate.height, certificate.view), (3, 0));
    }
    // During a view change it is the claim that answers, and afterwards the base.
    net.lose = Box::new(|_, _, message| {
        matches!(message, PeerMessage::NewView(_))
            || matches!(message, PeerMessage::Votes(votes) if votes.iter().any(|v| v.view == 0))
    });
    net.hand_over(0);
    assert!(!net.replica(3).has_entered());
    assert_eq!(net.replica(3).read_index().height, 3);
    assert!(net.replica(1).has_entered());
    assert!(net.replica(1).read_index().height >= 3);
    // A restart forgets nothing of it.
    net.restart(2);
    assert_eq!(net.replica(2).read_index().height, 3);
}

#[test]
fn r4_a_reader_that_waits_for_a_dropped_height_is_served_by_empty_batches() {
    let mut net = Net::new(4);
    // Replica 3 alone learns of the prepare certificate at height 1, and tells a reader of it.
    net.lose = Box::new(|_, to, message| {
        matches!(message, PeerMessage::Votes(votes)
            if votes.iter().any(|vote| to != 3 || vote.kind == VoteKind::Commit))
    });
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    let certificate = net.replica(3).read_index().certificate.expect("it COMMITted on it");
    assert_eq!((certificate.height, certificate.view), (1, 0));
    assert!((0..3).all(|i| net.replica(i).read_index().height == 0));
    // It is gone when the next view begins, and the height with it.
    net.crash(3);
    net.lose = Box::new(
        |_, _, message| matches!(message, PeerMessage::Votes(votes) if votes.iter().any(|vote| vote.view == 0)),
    );
    for i in 0..3 {
        net.node(i).hold_disk = true;
    }
    net.crash(0);
    net.crash(1);
    net.crash(2);
    (0..3).for_each(|i| net.node(i).log.truncate(1));
    (0..3).for_each(|i| net.node(i).hold_disk = false);
    net.lose = Box::new(|_, _, _| false);
    (0..3).for_each(|i| net.restart(i));
    net.settle();
    net.advance(2 * SECOND);
    assert!((0..3).all(|i| net.height(i) == 0), "idle: nothing is proposed");
    // The reader shows the certificate to all.
    for i in 0..3 {
        let configuration = net.configuration_of(i);
        let verifier = quorate_crypto::KeyedHashVerifier::from_signers(
            (0..4).map(|s| net.signer(s)).collect::<Vec<_>>().iter(),
        );
        let waiting = door::verify_certificate(&configuration, &verifier, certificate.clone()).unwrap();
        net.step(i, Input::Await(waiting));
    }
    net.settle();
    assert!((0..3).all(|i| net.height(i) == 1));
    assert_eq!(net.headers[&1].operation_count, 0, "an empty batch");
    net.advance(10 * SECOND);
    assert!((0..3).all(|i| net.height(i) == 1), "once");
}

#[test]
fn r4_a_leader_that_ignores_a_waiting_reader_is_replaced() {
    let mut net = Net::new(4);
    let header = *net.configuration.cluster();
    // R is within the window of what is committed; nobody holds the batch any more.
    let certificate = net.certificate(VoteKind::Prepare, 0, 2, header, &[0, 1, 2]);
    net.crash(0);
    let verifier = quorate_crypto::KeyedHashVerifier::from_signers(
        (0..4).map(|s| net.signer(s)).collect::<Vec<_>>().iter(),
    );
    net.step(1, Input::Resign);
    for i in 1..4 {
        // Shown after the view has moved on, so that nobody COMMITs on it.
        let configuration = net.configuration_of(i);
        let mut late = certificate.clone();
        late.view = 0;
        let waiting = door::verify_certificate(&configuration, &verifier, late).unwrap();
        net.step(i, Input::Await(waiting));
    }
    net.advance_until(5 * SECOND, |net| net.all_at(2));
    assert!(net.replica(1).view() >= 1);
}

/// RX9: what is missing is asked for once in a retry time, however much arrives meanwhile. (Simulator, seed
/// 1035780: each answer was a step, and each step another question.)
#[test]
fn rx9_a_missing_batch_is_asked_for_once_in_a_retry_time() {
    let mut net = without_the_last(70);
    // Replica 3 gets the NEW-VIEW and no answer to what it asks then.
    net.lose =
        Box::new(|from, to, message| from == 3 || (to == 3 && !matches!(message, PeerMessage::NewView(_))));
    net.deliver(3, 1, PeerMessage::FetchNewView { view: 1 });
    net.settle();
    assert_eq!((net.replica(3).view(), net.replica(3).has_entered()), (1, true));
    let asked = net.sent["fetch batches"];
    assert!(asked >= 1, "the base is missing");
    for _ in 0..50 {
        let announcement = Announcement { epoch: 0, view: 1, entered: true, committed: 70 };
        net.deliver(1, 3, PeerMessage::Announce(announcement));
    }
    assert_eq!(net.sent["fetch batches"], asked);
    net.lose = Box::new(|_, _, _| false);
    net.advance_until(10 * SECOND, |net| net.all_at(70));
}

/// Who is gone is not asked, and what it was asked is asked of another at once.
#[test]
fn st6_nobody_waits_for_an_answer_of_who_is_gone() {
    let mut net = without_the_last(60);
    net.crash(0);
    // Replica 3 gets the NEW-VIEW and misses the base; only one of the three others is there to be asked.
    net.lose = Box::new(|from, to, _| to == 0 || (from, to) == (3, 2));
    for gone in [0, 2] {
        net.step(3, Input::Disconnected(gone));
    }
    net.deliver(3, 1, PeerMessage::FetchNewView { view: 1 });
    let before = net.now;
    net.settle();
    assert_eq!((net.replica(3).has_entered(), net.height(3), net.now), (true, 60, before));

    // One that was asked, and is lost before it answers.
    let mut net = Net::new(4);
    net.lose = Box::new(|from, to, _| from == 3 || to == 3);
    load(&mut net, 1, 0..70);
    let asked = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&asked);
    net.lose = Box::new(move |from, to, message| {
        let question = from == 3 && matches!(message, PeerMessage::FetchCommitted { .. });
        if question {
            seen.borrow_mut().push(to);
        }
        question && seen.borrow().len() == 1
    });
    for from in 0..3 {
        net.deliver(
            from,
            3,
            PeerMessage::Announce(Announcement { epoch: 0, view: 0, entered: true, committed: 70 }),
        );
    }
    net.settle();
    let first = asked.borrow()[0];
    assert_eq!((asked.borrow().len(), net.height(3)), (1, 0));
    net.step(3, Input::Disconnected(first));
    net.settle();
    assert_eq!(net.height(3), 70);
    assert!(asked.borrow().iter().skip(1).all(|peer| *peer != first));
}

/// A height that is committed, and whose record waits for the next persist, is served all the same.
#[test]
fn what_is_served_from_the_log_is_in_it() {
    let mut net = Net::new(4);
    net.lose = Box::new(|from, to, _| from == 3 || to == 3);
    load(&mut net, 1, 0..3);
    let waiting = !net.replica(0).staged.records.is_empty();
    assert!(waiting, "the last height's record waits for the next one's");
    net.lose = Box::new(|from, to, message| {
        // Nothing but the answer, so that nothing else brings the last height.
        to == 3 && (from != 0 || !matches!(message, PeerMessage::Committed(_)))
    });
    net.deliver(3, 0, PeerMessage::FetchCommitted { from: 1 });
    net.settle();
    assert_eq!((net.height(0), net.height(3)), (3, 3), "no time has passed");
}

/// A liar that speaks of heights that there are not is asked once in a retry time, however it answers.
#[test]
fn st5_who_answers_with_what_is_here_is_not_asked_again_at_once() {
    let mut net = Net::new(4);
    load(&mut net, 1, 0..8);
    let absurd = Announcement { epoch: 0, view: 0, entered: true, committed: u64::MAX };
    net.lose = Box::new(|from, _, _| from == 3);
    net.deliver(3, 0, PeerMessage::Announce(absurd));
    net.settle();
    let asked = net.sent["fetch committed"];
    assert_eq!(asked, 1);
    let answer = served(&net, 1, 1..=8);
    net.verifiers[0].take();
    for _ in 0..50 {
        net.deliver(3, 0, answer.clone());
        net.settle();
    }
    assert_eq!((net.sent["fetch committed"], net.verifiers[0].take()), (asked, 0));
}

/// ST1: what was asked for has come by itself meanwhile, and others have gone on: whoever lags asks another at once, and does
/// not stay behind for a retry time.
#[test]
fn an_answer_that_came_too_late_keeps_nobody_behind() {
    let mut net = Net::new(4);
    net.lose = Box::new(|from, to, _| from == 3 || to == 3);
    load(&mut net, 1, 0..60);
    // It asks replica 0, whose answer is under way.
    net.lose = Box::new(|from, to, _| (from, to) == (3, 0));
    let announcement = Announcement { epoch: 0, view: 0, entered: true, committed: 60 };
    for peer in [0, 1] {
        net.deliver(peer, 3, PeerMessage::Announce(announcement.clone()));
    }
    assert_eq!(net.sent["fetch committed"], 1);
    let answer = served(&net, 1, 1..=30);
    net.deliver(1, 3, answer.clone());
    net.settle();
    assert_eq!(net.height(3), 30);
    net.deliver(0, 3, answer);
    let took = net.advance_until(SECOND, |net| net.height(3) >= 59);
    assert!(took < 50 * MILLISECOND, "{} ms", took / MILLISECOND);
}

/// ST1: others have committed within the window a height whose proposal was dropped: it is asked for at once, because nothing
/// of it will come by itself.
#[test]
fn a_height_whose_proposal_was_dropped_is_asked_for_at_once() {
    let mut net = Net::new(4);
    net.lose = Box::new(|from, to, _| from == 3 || to == 3);
    load(&mut net, 1, 0..17);
    // Three proposals come while there is no room for them.
    net.lose = Box::new(|from, to, message| {
        from == 3 || (to == 3 && !matches!(message, PeerMessage::PrePrepare(_)))
    });
    load(&mut net, 1, 17..20);
    for peer in 0..3 {
        let answer = served(&net, peer, 1..=17);
        net.deliver(peer, 3, answer);
    }
    net.settle();
    assert_eq!((net.height(0), net.height(3)), (20, 17));
    net.lose = Box::new(|_, _, _| false);
    for peer in 0..3 {
        let announcement = Announcement { epoch: 0, view: 0, entered: true, committed: 20 };
        net.deliver(peer, 3, PeerMessage::Announce(announcement));
    }
    let took = net.advance_until(SECOND, |net| net.height(3) == 20);
    assert!(took < 50 * MILLISECOND, "{} ms", took / MILLISECOND);
}

/// A NEW-VIEW with its proposals is sent again and again to a peer that asks for it, but not more often than eight times in
/// a retry time; and not to one because somebody else repeats its VIEW-CHANGE.
#[test]
fn a4_a_new_view_is_sent_to_who_asks_at_times() {
    let mut net = Net::new(4);
    net.lose = Box::new(|from, _, message| from == 2 && !matches!(message, PeerMessage::ViewChange(_)));
    net.hand_over(0);
    let resend = net.configuration_of(1).timeouts().resend;
    let records = net.nodes[2].log.iter();
    let mut asked = records.filter_map(|record| match record {
        Record::ViewChange(message) => Some(message.clone()),
        _ => None,
    });
    let repeated = asked.next().unwrap();
    net.lose = Box::new(|_, _, _| true);
    net.advance(resend);
    let mut more = [2, 3].map(|from| {
        let before = net.sent["NEW-VIEW"];
        for _ in 0..80 {
            let question = PeerMessage::FetchNewView { view: 1 };
            let message = if from == 3 { question } else { PeerMessage::ViewChange(repeated.clone()) };
            net.deliver(from, 1, message);
            net.advance(resend / 40);
        }
        net.sent["NEW-VIEW"] - before
    });
    assert!((12..=17).contains(&more[1]), "{more:?} in two retry times");
    assert!((2..=5).contains(&more[0]), "{more:?}: its signer repeats it");
    more[0] = net.sent["NEW-VIEW"];
    for _ in 0..80 {
        net.deliver(3, 1, PeerMessage::ViewChange(repeated.clone()));
        net.advance(resend / 40);
    }
    assert_eq!(net.sent["NEW-VIEW"], more[0], "somebody else repeats it");
}

/// RX3: one that was asked is gone and the only other one had nothing new: nobody is asked until that one may be, and no
/// timer is set for a time that has passed.
#[test]
fn st6_who_has_nothing_new_is_waited_for_and_who_is_gone_is_not_asked() {
    let mut net = Net::new(4);
    net.lose = Box::new(|from, to, _| from == 3 || to == 3);
    load(&mut net, 1, 0..60);
    let announcement = |committed| Announcement { epoch: 0, view: 0, entered: true, committed };
    let answer = served(&net, 1, 1..=30);
    net.deliver(2, 3, answer.clone());
    net.settle();
    net.deliver(1, 3, PeerMessage::Announce(announcement(60)));
    net.deliver(1, 3, answer);
    net.settle();
    assert_eq!((net.height(3), net.sent["fetch committed"]), (30, 1));
    net.deliver(0, 3, PeerMessage::Announce(announcement(60)));
    assert_eq!(net.sent["fetch committed"], 2);
    net.step(3, Input::Disconnected(0));
    net.settle();
    assert_eq!(net.sent["fetch committed"], 2);
    let timer = net.node(3).timer.expect("the announcement is due some time");
    assert!(timer > net.now + MILLISECOND, "{} ns", timer - net.now);
    net.lose = Box::new(|_, _, _| false);
    let took = net.advance_until(SECOND, |net| net.height(3) >= 59);
    assert!(took <= net.configuration_of(3).timeouts().resend + 5 * MILLISECOND, "{took} ns");
}

/// ADR 11: a batch that was fetched by a certificate of others gets no COMMIT before own execution agrees, and none at
/// all when it does not.
#[test]
fn a_height_of_others_is_committed_only_once_it_is_executed() {
    for diverges in [false, true] {
        let mut net = Net::new(4);
        // Replica 3 misses the proposal and every COMMIT, so that it has the prepare certificate alone.
        net.lose = Box::new(|_, to, message| match message {
            PeerMessage::PrePrepare(_) => to == 3,
            PeerMessage::Votes(votes) => to == 3 && votes.iter().any(|vote| vote.kind == VoteKind::Commit),
            _ => false,
        });
        net.node(3).hold_execution = true;
        net.node(3).diverges_at = diverges.then_some(1);
        let envelope = net.envelope(1, 0, 1, 0);
        net.request_all(&envelope);
        net.advance_until(SECOND, |net| !net.nodes[3].executions.is_empty());
        assert_eq!((net.height(0), net.height(3)), (1, 0));
        assert!(net.replica(3).view.certificates.contains_key(&1), "it has the certificate and the batch");
        assert!(net.node(3).notified.is_empty());
        assert!(!net.votes.contains_key(&(3, 0, 1, VoteKind::Commit)));
        net.node(3).hold_execution = false;
        net.settle();
        let halted = matches!(net.node(3).halted, Some(HaltReason::Diverged { height: 1, .. }));
        let voted = net.votes.contains_key(&(3, 0, 1, VoteKind::Commit));
        assert_eq!(
            (halted, voted, net.node(3).notified.len()),
            (diverges, !diverges, usize::from(!diverges))
        );
    }
}

/// Where one that is far behind is needed for a quorum, what it had no room for is asked for as soon as it has caught up,
/// and not sent only after the retry time, by which the view would have failed.
#[test]
fn hand_over_to_one_that_is_far_behind_needs_no_time_out() {
    for behind in [30, 150] {
        let mut net = Net::new(4);
        net.lose = Box::new(|_, to, _| to == 3);
        load(&mut net, 1, 0..behind);
        // The leader leaves, so that all others are needed.
        net.lose = Box::new(|from, _, message| from == 0 && !matches!(message, PeerMessage::Resign(_)));
        net.step(0, Input::Resign);
        (1..4).for_each(|i| net.step(i, Input::Disconnected(0)));
        net.settle();
        // What is sent to it because it seems to be behind does not count as an answer.
        for peer in [1, 2] {
            let announcement = Announcement { epoch: 0, view: 1, entered: false, committed: 0 };
            net.deliver(3, peer, PeerMessage::Announce(announcement));
        }
        for first in behind..behind + 20 {
            let envelope = net.envelope(1, first, 1, 0);
            net.request_all(&envelope);
        }
        let last = |net: &Net, i: u8| net.times_executed(i, 1, behind + 19) == 1;
        let took = net.advance_until(2 * SECOND, |net| (1..4).all(|i| last(net, i)));
        assert!(took < 100 * MILLISECOND, "{behind} behind: {} ms", took / MILLISECOND);
        assert!((1..4).all(|i| net.replica(i).view() == 1));
    }
}
