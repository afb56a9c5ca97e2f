//! Leaders that are slow, unfair, censoring, gone, or at the end of their term.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use quorate_protocol::view_change::{Suspect, Suspicion};
use quorate_protocol::{PeerMessage, ReplicaIndex};

use super::harness::{MILLISECOND, Net, SECOND, kind_of, session_of};
use crate::{Input, MonitorBounds, Parameters, ProposalBounds, Timeouts};

/// A stronger floor than the default of a noisy machine.
const LAN: MonitorBounds = MonitorBounds {
    delay_min: 2 * MILLISECOND,
    wait_min: 50 * MILLISECOND,
    overtaken_max: 16,
    term_heights: u64::MAX,
};

fn lan(n: usize) -> Net {
    Net::with(n, 4, Parameters { monitor: LAN, ..Parameters::default() })
}

type Held = Rc<RefCell<VecDeque<(u64, ReplicaIndex, ReplicaIndex, PeerMessage)>>>;

/// Clients that each send their next envelope to all when the one before it is executed, and a network that
/// holds proposals of some leaders back.
struct Load {
    clients: Vec<u8>,
    next: Vec<u64>,
    held: Held,
    clock: Rc<Cell<u64>>,
    /// How often clients look for their answers.
    step: u64,
}

impl Load {
    /// Proposals of `slow` leaders arrive so much later.
    fn new(net: &mut Net, clients: u8, slow: &'static [ReplicaIndex], delay: u64) -> Self {
        let (held, clock) = (Held::default(), Rc::new(Cell::new(net.now)));
        let (sink, now) = (Rc::clone(&held), Rc::clone(&clock));
        net.lose = Box::new(move |from, to, message| {
            let caught = slow.contains(&from) && kind_of(message) == "PRE-PREPARE";
            if caught {
                sink.borrow_mut().push_back((now.get() + delay, from, to, message.clone()));
            }
            caught
        });
        Self {
            clients: (1..=clients).collect(),
            next: vec![0; usize::from(clients)],
            held,
            clock,
            step: 5 * MILLISECOND,
        }
    }

    /// Runs the load for so long; returns how many envelopes were executed.
    fn run(&mut self, net: &mut Net, time: u64) -> u64 {
        let (before, end) = (self.next.iter().sum::<u64>(), net.now + time);
        while net.now < end {
            for (client, next) in self.clients.iter().zip(&mut self.next) {
                let executed = |net: &Net| {
                    let state = net.nodes[1].committed.as_ref().unwrap();
                    state.sessions.get(&session_of(*client)).copied().unwrap_or(0)
                };
                if *next == executed(net) {
                    let envelope = net.envelope(*client, *next, 1, 0);
                    *next += 1;
                    net.request_all(&envelope);
                }
            }
            net.advance(self.step);
            self.clock.set(net.now);
            loop {
                let due = self.held.borrow().front().is_some_and(|(at, ..)| *at <= net.now);
                let Some((_, from, to, message)) = due.then(|| self.held.borrow_mut().pop_front()).flatten()
                else {
                    break;
                };
                net.deliver(from, to, message);
            }
            net.settle();
        }
        self.next.iter().sum::<u64>() - before
    }
}

fn views(net: &Net) -> Vec<u64> {
    net.replicas().iter().map(|replica| replica.view()).collect()
}

#[test]
fn a2_a_slow_leader_is_replaced_and_one_at_the_floor_is_not() {
    for (delay, replaced) in [(1, false), (10, true), (100, true)] {
        for n in [4, 7] {
            let mut net = lan(n);
            let mut load = Load::new(&mut net, 3, &[0], delay * MILLISECOND);
            load.step = load.step.min(delay * MILLISECOND);
            load.run(&mut net, SECOND * (1 + delay / 100));
            let expected = u64::from(replaced);
            assert!(
                views(&net).iter().all(|view| *view == expected),
                "{delay} ms, n = {n}: {:?}",
                views(&net)
            );
            assert_eq!(net.sent.contains_key("SUSPECT"), replaced);
            // The next one leads at full speed, and stays.
            let done = load.run(&mut net, SECOND / 2);
            assert!(views(&net).iter().all(|view| *view == expected));
            assert!(done >= 290, "{done} in half a second");
        }
    }
}

#[test]
fn a7_a_network_that_is_slow_under_every_leader_comes_to_rest() {
    let mut net = lan(4);
    let mut load = Load::new(&mut net, 3, &[0, 1, 2, 3], 30 * MILLISECOND);
    load.run(&mut net, 4 * SECOND);
    let settled = net.replica(1).view();
    assert!(settled <= 3, "{settled} views are left");
    load.run(&mut net, 4 * SECOND);
    assert_eq!(net.replica(1).view(), settled);
}

#[test]
fn a7_f_liars_alone_move_no_view() {
    let mut net = lan(7);
    let mut load = Load::new(&mut net, 2, &[], 0);
    for _ in 0..20 {
        for liar in [5, 6] {
            for reason in [Suspicion::Monitor, Suspicion::Timeout, Suspicion::Disconnected] {
                let lie = PeerMessage::Suspect(Suspect { epoch: 0, view: 0, reason });
                (0..5).for_each(|to| net.deliver(liar, to, lie.clone()));
            }
        }
        load.run(&mut net, 100 * MILLISECOND);
    }
    assert!(views(&net).iter().all(|view| *view == 0));
}

#[test]
fn a2_a_leader_that_waits_for_slow_heights_is_not_blamed() {
    // Every height takes 60 ms everywhere, because execution does: the load, not the leader.
    let mut net = lan(4);
    let mut load = Load::new(&mut net, 8, &[], 0);
    for _ in 0..60 {
        (0..4).for_each(|i| net.node(i).hold_execution = true);
        load.run(&mut net, 60 * MILLISECOND);
        (0..4).for_each(|i| net.node(i).hold_execution = false);
        net.settle();
    }
    assert!(views(&net).iter().all(|view| *view == 0), "{:?}", views(&net));
    assert!(net.height(1) > 30);
}

#[test]
fn a_machine_that_stands_still_for_a_while_is_no_fault_of_the_leader() {
    let mut net = Net::new(4);
    let mut load = Load::new(&mut net, 4, &[], 0);
    load.run(&mut net, SECOND);
    for _ in 0..20 {
        // Requests are here, and then nobody runs for 100 ms, or for half a second.
        for stall in [100, 500] {
            load.run(&mut net, 100 * MILLISECOND);
            let envelope = net.envelope(20, net.height(1), 1, 0);
            net.request_all(&envelope);
            net.now += stall * MILLISECOND;
        }
    }
    assert!(views(&net).iter().all(|view| *view == 0));
}

/// The leader never gets the envelopes of one client, neither from the client nor forwarded, as if it threw
/// them away.
fn starve(net: &mut Net, victim: u8) {
    net.lose = Box::new(move |_, to, message| match message {
        PeerMessage::Forward(envelope) => to == 0 && envelope.body.session == session_of(victim),
        _ => false,
    });
    let envelope = net.envelope(victim, 0, 1, 0);
    (1..net.n()).for_each(|i| net.request(i, &envelope));
}

#[test]
fn a3_a_leader_that_starves_one_client_is_replaced() {
    for n in [4, 7] {
        let mut net = Net::new(n);
        let mut load = Load::new(&mut net, 4, &[], 0);
        load.run(&mut net, SECOND);
        starve(&mut net, 30);
        let began = net.now;
        while net.times_executed(1, 30, 0) == 0 {
            load.run(&mut net, 10 * MILLISECOND);
            assert!(net.now - began < SECOND, "{:?}", views(&net));
        }
        assert!(views(&net).iter().all(|view| *view == 1));
    }
}

/// A3: every other proposal is full, which neither excuses that one client is never in any of them nor makes
/// anybody forget it.
#[test]
fn a3_a_leader_with_full_proposals_now_and_then_starves_nobody_unseen() {
    let parameters = Parameters {
        monitor: LAN,
        proposal: ProposalBounds { envelopes: 2, ..ProposalBounds::default() },
        ..Parameters::default()
    };
    let mut net = Net::with(4, 1, parameters);
    starve(&mut net, 30);
    for round in 0.. {
        (0..4).for_each(|i| net.node(i).hold_execution = true);
        for client in 1..=3 {
            net.request_all(&net.envelope(client, round, 1, 0));
        }
        net.advance(5 * MILLISECOND);
        (0..4).for_each(|i| net.node(i).hold_execution = false);
        net.settle();
        if net.times_executed(1, 30, 0) > 0 {
            break;
        }
        assert!(net.now < 5 * SECOND, "{:?}", views(&net));
    }
    assert!(views(&net).iter().all(|view| *view == 1));
}

#[test]
fn a3_overtaking_is_counted_from_when_the_leader_has_the_request() {
    // The time-out and the bound on waiting are far away: only the overtaking counts.
    let monitor = MonitorBounds { overtaken_max: 16, ..MonitorBounds::default() };
    let timeouts = Timeouts { request_min: SECOND, ..Timeouts::default() };
    let mut net = Net::with(4, 4, Parameters { monitor, timeouts, ..Parameters::default() });
    let mut load = Load::new(&mut net, 4, &[], 0);
    load.run(&mut net, SECOND);
    starve(&mut net, 30);
    load.run(&mut net, 200 * MILLISECOND);
    assert!(views(&net).iter().all(|view| *view == 0), "it is not forwarded yet");
    load.run(&mut net, 600 * MILLISECOND);
    assert!(views(&net).iter().all(|view| *view == 1), "{:?}", views(&net));
}

#[test]
fn a_verdict_is_taken_back_when_the_leader_does_better() {
    let mut net = lan(4);
    let mut load = Load::new(&mut net, 3, &[], 0);
    // Everybody measures it, and nobody hears of the others' suspicion.
    let (held, clock) = (Rc::clone(&load.held), Rc::clone(&load.clock));
    net.lose = Box::new(move |from, to, message| {
        let caught = from == 0 && kind_of(message) == "PRE-PREPARE";
        if caught {
            held.borrow_mut().push_back((clock.get() + 20 * MILLISECOND, from, to, message.clone()));
        }
        caught || kind_of(message) == "SUSPECT"
    });
    load.run(&mut net, SECOND);
    assert!((1..4).all(|i| net.replica(i).status().suspects == Some(Suspicion::Monitor)));
    net.lose = Box::new(|_, _, _| false);
    load.run(&mut net, SECOND);
    assert!((1..4).all(|i| net.replica(i).status().suspects.is_none()));
    assert!(views(&net).iter().all(|view| *view == 0));
}

#[test]
fn a_killed_leader_costs_a_few_usual_latencies_and_not_the_longest_time_out() {
    for n in [4, 7] {
        let mut net = Net::new(n);
        let mut load = Load::new(&mut net, 4, &[], 0);
        load.run(&mut net, SECOND);
        net.crash(0);
        let (began, before) = (net.now, net.height(1));
        while net.height(1) <= before + 1 {
            load.run(&mut net, 10 * MILLISECOND);
        }
        let took = net.now - began;
        assert!(took <= net.parameters.timeouts.request_min + 20 * MILLISECOND, "{} ms", took / MILLISECOND);
        net.restart(0);
        load.run(&mut net, SECOND);
        assert!(views(&net).iter().all(|view| *view == 1));
    }
}

#[test]
fn a_lost_connection_with_the_leader_is_a_revocable_hint() {
    let mut net = Net::new(4);
    // One replica alone, which takes it back.
    net.step(3, Input::Disconnected(0));
    net.settle();
    assert_eq!(net.replica(3).status().suspects, Some(Suspicion::Disconnected));
    net.step(3, Input::Connected(0));
    net.settle();
    assert_eq!(net.replica(3).status().suspects, None);
    assert!(views(&net).iter().all(|view| *view == 0));
    // Two of four, and no time passes.
    net.crash(0);
    net.step(3, Input::Disconnected(0));
    net.step(2, Input::Disconnected(0));
    net.settle();
    assert_eq!((net.now, views(&net)), (0, vec![1, 1, 1]));
    // Nobody is moved by lost connections for ever: beyond f views in a row they count for nothing.
    for gone in 0..4 {
        (1..4).for_each(|i| net.step(i, Input::Disconnected(gone)));
    }
    net.settle();
    assert!(net.replica(1).view() <= 3, "{:?}", views(&net));
    (1..4).for_each(|i| (0..4).for_each(|back| net.step(i, Input::Connected(back))));
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    net.advance_until(5 * SECOND, |net| net.all_at(1));
}

#[test]
fn a_term_ends_in_good_order_without_a_time_out() {
    let monitor = MonitorBounds { term_heights: 20, ..MonitorBounds::default() };
    let mut net = Net::with(4, 4, Parameters { monitor, ..Parameters::default() });
    let mut load = Load::new(&mut net, 3, &[], 0);
    load.run(&mut net, SECOND);
    let (view, height) = (net.replica(1).view(), net.height(1));
    assert!(view >= height / 24 && view <= height / 20, "{view} views, {height} heights");
    assert!(!net.sent.contains_key("SUSPECT"), "nobody had to be suspected");
    // Time ends a term as well, while there is work.
    let timeouts = Timeouts { term: 500 * MILLISECOND, ..Timeouts::default() };
    let mut net = Net::with(4, 4, Parameters { timeouts, ..Parameters::default() });
    let mut load = Load::new(&mut net, 3, &[], 0);
    load.run(&mut net, 5 * SECOND / 4);
    assert!(views(&net).iter().all(|view| *view == 2), "{:?}", views(&net));
    net.advance(60 * SECOND);
    assert!(net.replica(1).view() <= 3, "an idle cluster has one leader");
}

/// At the end of a term as well, but then for a retry time.
#[test]
fn a_term_ends_also_when_what_is_in_flight_is_stuck() {
    let timeouts = Timeouts { term: 500 * MILLISECOND, request_min: SECOND, ..Timeouts::default() };
    let mut net = Net::with(4, 4, Parameters { timeouts, ..Parameters::default() });
    (0..4).for_each(|i| net.node(i).hold_execution = true);
    let envelope = net.envelope(1, 0, 1, 0);
    net.request_all(&envelope);
    let took = net.advance_until(SECOND, |net| net.sent.contains_key("RESIGN"));
    let wanted = 500 * MILLISECOND + timeouts.resend;
    assert!(took >= wanted && took < wanted + 5 * MILLISECOND, "{took} ns");
}

/// What is in flight when a leader is told to stop is committed first, so that nothing of it has to be proposed again;
/// where that cannot be soon it is not waited for.
#[test]
fn a_leader_that_is_told_to_stop_ends_what_it_has_begun() {
    for stuck in [false, true] {
        let mut net = Net::new(4);
        (0..4).for_each(|i| net.node(i).hold_execution = true);
        let envelope = net.envelope(1, 0, 1, 0);
        net.request_all(&envelope);
        net.settle();
        net.step(0, Input::Resign);
        net.settle();
        assert!(!net.sent.contains_key("RESIGN"));
        let (proposed, later) = (net.sent["PRE-PREPARE"], net.envelope(1, 1, 1, 0));
        net.request_all(&later);
        net.settle();
        assert_eq!(net.sent["PRE-PREPARE"], proposed, "nothing more is proposed");
        (0..4).for_each(|i| net.node(i).hold_execution = stuck);
        let entered = |net: &Net| (0..4).all(|i| net.replica(i).view() == 1 && net.replica(i).has_entered());
        let took = net.advance_until(SECOND, entered);
        let haste = net.replica(0).haste();
        assert!(if stuck { took >= haste && took < 2 * haste } else { took < haste }, "{took} ns");
        (0..4).for_each(|i| net.node(i).hold_execution = false);
        net.advance_until(SECOND, |net| (0..4).all(|i| net.times_executed(i, 1, 1) == 1));
    }
}

#[test]
fn a_leader_that_stays_beyond_its_term_is_suspected() {
    let monitor = MonitorBounds { term_heights: 20, ..MonitorBounds::default() };
    let mut net = Net::with(4, 4, Parameters { monitor, ..Parameters::default() });
    // Replica 0 was told of a longer term.
    net.parameters.monitor.term_heights = u64::MAX;
    net.node(0).log.clear();
    net.restart(0);
    let mut load = Load::new(&mut net, 3, &[], 0);
    load.run(&mut net, SECOND);
    assert!(net.replica(1).view() >= 1);
    assert!(net.sent["SUSPECT"] > 0);
}

#[test]
fn a_hand_over_waits_for_a_next_leader_that_can_be_reached() {
    let monitor = MonitorBounds { term_heights: 20, ..MonitorBounds::default() };
    let mut net = Net::with(4, 4, Parameters { monitor, ..Parameters::default() });
    let mut load = Load::new(&mut net, 3, &[], 0);
    net.crash(1);
    [0, 2, 3].into_iter().for_each(|i| net.step(i, Input::Disconnected(1)));
    for client in 1..=3 {
        for first in 0..20 {
            let envelope = net.envelope(client, first, 1, 0);
            net.request_all(&envelope);
            net.settle();
        }
    }
    assert_eq!((net.height(0), net.replica(0).view()), (60, 0));
    net.restart(1);
    [0, 2, 3].into_iter().for_each(|i| net.step(i, Input::Connected(1)));
    load.next = vec![20; 3];
    load.run(&mut net, SECOND);
    assert!(net.replica(0).view() >= 1);
}
