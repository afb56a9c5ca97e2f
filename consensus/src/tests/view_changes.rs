//! View changes: what survives them, when they begin and when they end.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use quorate_protocol::peer::Announcement;
use quorate_protocol::view_change::{Suspect, Suspicion};
use quorate_protocol::{PeerMessage, VoteKind};

use super::harness::{MILLISECOND, Net, SECOND, kind_of};
use crate::{Input, Parameters, Timeouts};

/// A message with COMMITs of view 0, whenever it is sent.
fn is_early_commit(message: &PeerMessage) -> bool {
    let early = |vote: &quorate_protocol::Vote| vote.kind == VoteKind::Commit && vote.view == 0;
    matches!(message, PeerMessage::Votes(votes) if votes.iter().any(early))
}

fn is_vote(message: &PeerMessage, kind: VoteKind) -> bool {
    matches!(message, PeerMessage::Votes(votes) if votes.iter().any(|vote| vote.kind == kind))
}

/// Loses everything between these replicas and the others.
fn cut_off(net: &mut Net, part: &[u8]) {
    let part: BTreeSet<u8> = part.iter().copied().collect();
    net.lose = Box::new(move |from, to, _| part.contains(&from) != part.contains(&to));
}

fn heal(net: &mut Net) {
    net.lose = Box::new(|_, _, _| false);
}

#[test]
fn a_crashed_leader_is_replaced_and_the_request_committed() {
    for n in [4, 5, 6, 7] {
        let mut net = Net::new(n);
        net.crash(0);
        let envelope = net.envelope(1, 0, 1, 0);
        net.request_all(&envelope);
        let timeouts = net.parameters.timeouts;
        // Recovery after a leader's crash within twice the time-out.
        net.advance_until(2 * timeouts.request, |net| net.all_at(1));
        assert!(net.replicas().iter().all(|replica| replica.view() == 1 && replica.has_entered()));
        // VC5: one NEW-VIEW of the leader to each, relayed by each of the others once.
        let (n, up) = (usize::from(net.n()), usize::from(net.n()) - 1);
        assert_eq!(net.sent["NEW-VIEW"], up * (n - 1), "n = {n}");
        net.restart(0);
        net.advance_until(5 * SECOND, |net| net.all_at(1));
    }
}

#[test]
fn vc1_what_a_quorum_prepared_survives_the_leader() {
    let mut net = Net::new(4);
    net.lose = Box::new(|_, _, message| is_early_commit(message));
    let first = net.envelope(1, 0, 1, 0);
    net.request_all(&first);
    net.settle();
    let prepared = net.replica(1).view.certificates[&1].header_hash;
    assert!(!net.replicas().iter().any(|replica| replica.committed_height() > 0));
    net.crash(0);
    net.advance_until(3 * SECOND, |net| net.all_at(1));
    assert_eq!(net.headers[&1].hash(), prepared, "the same header at the same height");
    assert_eq!(net.replica(1).committed_certificate().unwrap().view, 1, "by votes of the new view alone");
}

#[test]
fn one_certificate_of_the_base_releases_every_height_below_it() {
    let mut net = Net::new(4);
    net.lose = Box::new(|_, _, message| is_early_commit(message));
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    for first in 0..4 {
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
    }
    net.settle();
    (0..4).for_each(|i| net.node(i).hold_execution = false);
    net.settle();
    assert_eq!(net.replica(1).view.certificates.len(), 4);
    net.crash(0);
    let seen = Rc::new(RefCell::new(BTreeSet::new()));
    let sink = Rc::clone(&seen);
    net.lose = Box::new(move |_, _, message| {
        if let PeerMessage::Votes(votes) = message {
            let prepares = votes.iter().filter(|vote| vote.kind == VoteKind::Prepare && vote.view == 1);
            sink.borrow_mut().extend(prepares.map(|vote| vote.height));
        }
        is_early_commit(message)
    });
    net.advance_until(3 * SECOND, |net| net.all_at(4));
    assert_eq!(seen.borrow().first(), Some(&4), "heights below the base are never PREPAREd in its view");
    for height in 1..=4 {
        assert!(net.headers.contains_key(&height));
    }
}

#[test]
fn vc6_the_timer_does_not_run_before_a_quorum_wants_the_view() {
    // Two of four want view 1 and cannot get further by themselves, however long it takes.
    let mut net = Net::new(4);
    cut_off(&mut net, &[2, 3]);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.advance(120 * SECOND);
    assert!(net.replicas().iter().all(|replica| replica.view() <= 1), "{:#?}", net.replicas());
    heal(&mut net);
    net.advance_until(10 * SECOND, |net| net.all_at(1));
}

#[test]
fn vc7_a_commit_certificate_pulls_a_replica_out_of_its_view_change() {
    let mut net = Net::new(4);
    // Replica 3 wants view 1, alone with a suspicion that the others took back.
    cut_off(&mut net, &[3]);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    let suspicion = Suspect { epoch: 0, view: 0, reason: Suspicion::Timeout };
    net.advance(1_100 * MILLISECOND);
    net.deliver(0, 3, PeerMessage::Suspect(suspicion));
    net.settle();
    assert_eq!((net.replica(3).view(), net.replica(3).has_entered()), (1, false));
    heal(&mut net);
    // It follows what the others commit in view 0, without voting there.
    let envelope = net.envelope(1, 1, 1, 0);
    net.request_all(&envelope);
    net.advance_until(3 * SECOND, |net| net.all_at(2));
    // The next view takes it in again: the leader hands over for its sake, and it votes again.
    net.advance_until(20 * SECOND, |net| net.replica(3).has_entered());
    net.crash(1);
    let envelope = net.envelope(1, 2, 1, 0);
    net.request_all(&envelope);
    net.advance_until(5 * SECOND, |net| net.all_at(3));
}

#[test]
fn vc8_old_and_repeated_new_views_change_nothing() {
    let mut net = Net::new(4);
    net.step(0, Input::Resign);
    net.settle();
    assert!(net.replicas().iter().all(|replica| replica.view() == 1 && replica.has_entered()));
    let old = net.replica(2).last_new_view.clone().unwrap();
    net.step(1, Input::Resign);
    net.settle();
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    let before: Vec<_> = net.replicas().iter().map(|replica| replica.status()).collect();
    for to in 0..4 {
        let from = (to + 1) % 4;
        net.deliver(from, to, PeerMessage::NewView((*old).clone()));
        let current = net.replica(to).last_new_view.clone().unwrap();
        assert_eq!(current.view, 2);
        net.deliver(from, to, PeerMessage::NewView((*current).clone()));
    }
    net.settle();
    let after: Vec<_> = net.replicas().iter().map(|replica| replica.status()).collect();
    assert_eq!(before, after);
}

#[test]
fn vc13_back_off_is_capped_so_that_healing_helps_soon() {
    let mut net = Net::new(4);
    // Nobody hears of a NEW-VIEW for a long time.
    net.lose = Box::new(|_, _, message| matches!(message, PeerMessage::NewView(_)));
    net.crash(0);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.advance(120 * SECOND);
    let views = net.replica(1).view();
    assert!((8..40).contains(&views), "{views} views in two minutes");
    heal(&mut net);
    net.advance_until(10 * SECOND, |net| net.all_at(1));
}

#[test]
fn vc14_honest_replicas_in_different_views_meet() {
    let mut net = Net::new(4);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    let phases: [&[u8]; 6] = [&[0], &[0, 1], &[1], &[2, 3], &[3], &[0, 2]];
    for (round, part) in phases.iter().cycle().take(24).enumerate() {
        cut_off(&mut net, part);
        net.advance((300 + 250 * (round as u64 % 5)) * MILLISECOND);
    }
    heal(&mut net);
    net.advance_until(20 * SECOND, |net| net.all_at(1));
}

#[test]
fn vc18_a_lock_known_to_one_becomes_known_to_all() {
    let mut net = Net::new(4);
    // Only replica 2 gets the PREPAREs, so only it holds the certificate.
    net.lose = Box::new(|_, to, message| to != 2 && is_vote(message, VoteKind::Prepare));
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    let locked = net.replica(2).view.certificates[&1].header_hash;
    assert!(net.replica(1).view.certificates.is_empty());
    // Its claim goes to the leaders of the next views, whatever they saw themselves.
    net.crash(0);
    heal(&mut net);
    net.advance_until(5 * SECOND, |net| net.all_at(1));
    assert_eq!(net.headers[&1].hash(), locked);
}

#[test]
fn vc21_dead_leaders_in_a_row_cost_one_time_out_each() {
    let wait = 100 * MILLISECOND;
    let timeouts = Timeouts { request: wait, request_min: wait, new_view: wait, ..Timeouts::default() };
    for (n, dead) in [(4, 1), (7, 2), (10, 3)] {
        let mut net = Net::with(n, 4, Parameters { timeouts, ..Parameters::default() });
        (0..dead).for_each(|i| net.crash(i));
        let envelope = net.envelope(1, 0, 1, 0);
        net.request_all(&envelope);
        // One time-out in view 0, one for each NEW-VIEW that does not come.
        let took = net.advance_until(1000 * MILLISECOND, |net| net.all_at(1));
        assert!(took <= u64::from(dead) * wait + 10 * MILLISECOND, "n = {n}: {took}");
        assert_eq!(net.replica(dead).view(), u64::from(dead));
    }
}

#[test]
fn vc9_a_view_change_while_executing_keeps_its_phase() {
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.settle();
    net.hand_over(0);
    assert!((0..4).all(|i| net.replica(i).view() == 1), "what is in flight is not committed");
    (0..4).for_each(|i| net.node(i).hold_execution = false);
    net.advance_until(3 * SECOND, |net| net.all_at(1));
    assert_eq!(net.times_executed(2, 1, 0), 1);
    assert!(net.replicas().iter().all(|replica| replica.view() == 1 && replica.has_entered()));
}

#[test]
fn vc4_claims_of_different_heights_make_one_base() {
    let mut net = Net::new(4);
    // Replica 3 misses some heights altogether, replica 2 the last commit.
    for first in 0..3 {
        net.lose = Box::new(move |_, to, message| {
            to == 3 || (first == 2 && to == 2 && is_vote(message, VoteKind::Commit))
        });
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
        net.settle();
    }
    assert_eq!((net.height(1), net.height(2), net.height(3)), (3, 2, 0));
    net.crash(0);
    heal(&mut net);
    let envelope = net.envelope(1, 3, 1, 0);
    net.request_all(&envelope);
    net.advance_until(5 * SECOND, |net| net.all_at(4));
}

#[test]
fn suspicion_is_revocable_and_voting_goes_on() {
    let mut net = Net::new(4);
    // Only replica 1 has the request; it suspects, forwards, and takes it back when it is served.
    let envelope = net.envelope(1, 0, 1, 0);
    net.lose = Box::new(|_, _, message| matches!(message, PeerMessage::Forward(_)));
    net.request(1, &envelope);
    net.advance(1_100 * MILLISECOND);
    assert_eq!(net.replica(1).status().suspects, Some(Suspicion::Timeout));
    let other = net.envelope(2, 0, 1, 0);
    net.request(0, &other);
    net.settle();
    assert!(net.all_at(1), "a suspecting replica votes");
    heal(&mut net);
    net.request(0, &envelope);
    net.settle();
    assert!(net.all_at(2));
    assert_eq!(net.replica(1).status().suspects, None);
    net.advance(5 * SECOND);
    assert!(net.replicas().iter().all(|replica| replica.view() == 0));
}

#[test]
fn a_request_that_only_one_has_is_forwarded_to_the_leader() {
    let mut net = Net::new(4);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request(3, &envelope);
    net.advance(600 * MILLISECOND);
    assert!(net.all_at(1));
    assert!(net.replicas().iter().all(|replica| replica.view() == 0));
}

#[test]
fn hand_over_needs_no_time_out() {
    let mut net = Net::new(4);
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    for first in 0..3 {
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
    }
    net.settle();
    net.step(0, Input::Resign);
    (0..4).for_each(|i| net.node(i).hold_execution = false);
    net.settle();
    assert_eq!(net.now, 0);
    assert!((0..4).all(|i| (0..3).all(|number| net.times_executed(i, 1, number) == 1)));
    assert!(net.replicas().iter().all(|replica| replica.view() == 1));
}

#[test]
fn a_new_view_that_reached_one_only_is_relayed() {
    let mut net = Net::new(4);
    net.lose = Box::new(|from, to, message| kind_of(message) == "NEW-VIEW" && from == 1 && to != 2);
    net.step(0, Input::Resign);
    net.settle();
    assert!(net.replicas().iter().all(|replica| replica.view() == 1 && replica.has_entered()));
}

#[test]
fn a_claim_of_a_later_view_silences_the_earlier_one_until_its_new_view_comes() {
    let mut net = Net::new(4);
    net.lose = Box::new(|_, _, _| true);
    let genesis = net.nodes[3].committed.clone().unwrap();
    let proposal = net.proposal(&genesis, vec![net.envelope(1, 0, 1, 0)]);
    let (state, _) = net.imagine(&genesis, &proposal);
    let certificate = net.certificate(VoteKind::Commit, 2, 1, state.header.hash(), &[0, 1, 2]);
    let batch = quorate_protocol::peer::Batch { header: state.header.clone(), proposal };
    let entry = quorate_protocol::peer::CommittedBatch { batch, certificate };
    net.deliver(0, 3, PeerMessage::Committed(vec![entry].try_into().unwrap()));
    net.settle();
    assert_eq!((net.height(3), net.replica(3).view()), (1, 0));
    assert!(net.sent["fetch new view"] > 0);
    // Neither a vote in view 0, nor a claim for a view that its own certificate is not below.
    let next = net.proposal(&state, vec![net.envelope(1, 1, 1, 0)]);
    net.deliver(0, 3, PeerMessage::PrePrepare(net.pre_prepare(0, 2, next.clone())));
    for from in 0..2 {
        let suspect = Suspect { epoch: 0, view: 0, reason: Suspicion::Timeout };
        net.deliver(from, 3, PeerMessage::Suspect(suspect));
        let early = net.view_change(from, 2, None);
        net.deliver(from, 3, PeerMessage::ViewChange(early));
    }
    net.settle();
    assert_eq!((net.replica(3).view(), net.replica(3).view.last_prepared), (0, 0));
    assert!(!net.replica(3).status().may_prepare);
    // In view 2 it goes on, on top of what that view committed.
    let claims = (0..3).map(|i| net.view_change(i, 2, None).claim).collect();
    net.deliver(1, 3, PeerMessage::NewView(net.new_view(2, claims, None)));
    net.deliver(2, 3, PeerMessage::PrePrepare(net.pre_prepare(2, 2, next)));
    net.settle();
    assert_eq!((net.replica(3).view(), net.replica(3).view.last_prepared), (2, 2));
}

#[test]
fn a_claim_below_the_committed_height_is_a_claim() {
    // The base of view 1 is height 2, and its certificate releases COMMITs of height 1 as well. So the commit
    // certificate (1, 1) exists, and outranks (0, 2), which is all that replica 3 learns of height 2.
    let mut net = Net::new(4);
    net.lose = Box::new(|_, _, _| true);
    let genesis = net.nodes[3].committed.clone().unwrap();
    let first = net.proposal(&genesis, vec![net.envelope(1, 0, 1, 0)]);
    let (low, _) = net.imagine(&genesis, &first);
    let second = net.proposal(&low, vec![net.envelope(1, 1, 1, 0)]);
    let (high, _) = net.imagine(&low, &second);
    for (view, state, proposal) in [(1, &low, first), (0, &high, second)] {
        let (header, height) = (state.header.clone(), state.header.height);
        let certificate = net.certificate(VoteKind::Commit, view, height, header.hash(), &[0, 1, 2]);
        let batch = quorate_protocol::peer::Batch { header, proposal };
        let entry = quorate_protocol::peer::CommittedBatch { batch, certificate };
        net.deliver(0, 3, PeerMessage::Committed(vec![entry].try_into().unwrap()));
        net.settle();
    }
    let claim = net.replica(3).claim();
    assert_eq!((net.height(3), claim.view, claim.height), (2, 1, 1));
    let base = net.certificate(VoteKind::Prepare, 0, 2, high.header.hash(), &[0, 1, 2]);
    let claims = (0..3).map(|i| net.view_change(i, 1, Some(base.clone())).claim).collect();
    net.deliver(1, 3, PeerMessage::NewView(net.new_view(1, claims, Some(base))));
    for from in 0..2 {
        let later = net.view_change(from, 2, None);
        net.deliver(from, 3, PeerMessage::ViewChange(later));
    }
    net.settle();
    assert_eq!((net.replica(3).view(), net.replica(3).has_entered()), (2, false));
    // The others take its claim, and it is the same after a restart.
    let own = net.replica(3).view_changes[&3].clone();
    assert_eq!((own.claim.body.committed, own.claim.body.rank), (2, claim));
    net.deliver(3, 2, PeerMessage::ViewChange(own));
    assert_eq!(net.rejections, []);
    net.restart(3);
    assert_eq!(net.replica(3).claim(), claim);
}

/// VC5, R2: who is behind and says so gets no NEW-VIEW that its leader could forget: it would open the view again
/// with other claims.
#[test]
fn vc5_a_new_view_is_told_to_nobody_before_its_leader_has_synced_it() {
    let mut net = Net::new(4);
    net.node(1).hold_disk = true;
    net.step(0, Input::Resign);
    net.settle();
    // Its own VIEW-CHANGE completes the quorum of claims.
    assert!(net.sync_one(1));
    net.settle();
    assert!(net.replica(1).has_entered() && net.replica(1).view() == 1);
    let behind = Announcement { epoch: 0, view: 1, entered: false, committed: 0 };
    net.deliver(2, 1, PeerMessage::Announce(behind));
    net.deliver(2, 1, PeerMessage::FetchNewView { view: 1 });
    net.settle();
    assert!(!net.sent.contains_key("NEW-VIEW"), "{:?}", net.sent);
    net.node(1).hold_disk = false;
    net.settle();
    assert!(net.replicas().iter().all(|replica| replica.has_entered() && replica.view() == 1));
}

/// Found by `bench leader-crash`: both replicas that could have PREPAREd the base with its leader committed it just
/// after they had entered, and the leader stood still until another view.
#[test]
fn whoever_commits_the_base_before_it_prepares_it_tells_the_others() {
    let mut net = Net::new(4);
    let held = Rc::new(RefCell::new(Vec::new()));
    let sink = Rc::clone(&held);
    net.lose = Box::new(move |_, to, message| {
        let early = is_early_commit(message);
        if early && to >= 2 {
            sink.borrow_mut().push((to, message.clone()));
        }
        early
    });
    for first in 0..3 {
        let envelope = net.envelope(1, first, 1, 0);
        net.request_all(&envelope);
        net.settle();
    }
    assert_eq!(net.replica(1).view.certificates.len(), 3);
    net.crash(0);
    net.lose = Box::new(|_, to, _| to == 0);
    (2..4).for_each(|i| net.node(i).hold_disk = true);
    (1..4).for_each(|i| net.step(i, Input::Disconnected(0)));
    net.settle();
    // Their VIEW-CHANGEs are synced, and not the records of entering the view.
    (2..4).for_each(|i| assert!(net.sync_one(i)));
    net.settle();
    assert!((1..4).all(|i| net.replica(i).view() == 1 && net.replica(i).has_entered()));
    assert!((1..4).all(|i| net.height(i) == 0));
    for (to, message) in held.take() {
        let from = match &message {
            PeerMessage::Votes(votes) => votes.first().unwrap().replica,
            _ => unreachable!("only votes are held"),
        };
        net.deliver(from, to, message);
    }
    assert_eq!((net.height(2), net.height(3)), (3, 3), "by COMMITs of the view before");
    (2..4).for_each(|i| net.node(i).hold_disk = false);
    net.settle();
    assert_eq!(net.height(1), 3, "no time has passed");
    let envelope = net.envelope(1, 3, 1, 0);
    net.request_all(&envelope);
    net.settle();
    assert!(net.all_at(4));
}
