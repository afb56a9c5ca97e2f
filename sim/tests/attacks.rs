//! Every attack by itself: that it really takes place, that no rule breaks beside other troubles, and that
//! correct clients are answered within a stated time while it goes on.
//!
//! Invariant: nothing here depends on the machine; a failure names its seed and how to replay it.

use quorate_protocol::ReplicaIndex;
use quorate_sim::attack::{self, blips};
use quorate_sim::byzantine::{Attack, Behaviour, Deed, Deeds};
use quorate_sim::client::Addressing;
use quorate_sim::machine::Execution;
use quorate_sim::marks::{Mark, Marks};
use quorate_sim::plan::Plan;
use quorate_sim::run::{Outcome, run_plan};
use quorate_sim::trace::Story;

/// Seeds of an attack in the midst of other troubles.
const SEEDS: u64 = 60;
/// Seeds of an attack by itself.
const STEADY_SEEDS: u64 = 40;
/// Seeds of replicas with too little patience.
const IMPATIENT_SEEDS: u64 = 60;
/// Requests under a leader that the monitor must judge.
const REQUESTS: u32 = 60;

fn held(plan: Plan, what: &str) -> Outcome {
    let outcome = run_plan(plan, Story::Silent);
    assert_eq!(outcome.failure, None, "seed {} {what}", outcome.seed);
    outcome
}

/// Runs an attack both ways and returns the outcomes without other troubles.
fn holds(attack: Attack) -> Vec<Outcome> {
    let (mut marks, mut deeds) = (Marks::default(), Deeds::default());
    let mut add = |outcome: &Outcome| {
        marks.merge(&outcome.marks);
        deeds.merge(&outcome.deeds);
    };
    (0..SEEDS).for_each(|seed| add(&held(attack.plan(seed), &format!("{attack:?}"))));
    let steady: Vec<Outcome> =
        (0..STEADY_SEEDS).map(|seed| held(attack.steady_plan(seed), &format!("{attack:?} steady"))).collect();
    steady.iter().for_each(&mut add);
    let proof = attack.proof();
    for deed in proof.deeds {
        assert!(deeds.count(*deed) > 0, "{attack:?}: {deed:?} never happened: {deeds}");
    }
    for mark in proof.marks {
        assert!(marks.count(*mark) > 0, "{attack:?}: never led to {mark:?}: {marks}");
    }
    steady
}

/// The seeds of an attack by itself in which all liars do the same.
fn alike(attack: Attack) -> impl Iterator<Item = Plan> {
    (0..STEADY_SEEDS).map(move |seed| attack.steady_plan(seed)).filter(|plan| {
        let mut behaviours = plan.byzantine.values();
        let first = behaviours.next();
        behaviours.all(|behaviour| Some(behaviour) == first)
    })
}

macro_rules! attacks {
    ($($(#[$doc:meta])* $name:ident: $attack:ident,)*) => {
        $($(#[$doc])* #[test] fn $name() { holds(Attack::$attack); })*
    };
}

attacks! {
    a1_cl2_requests_that_hold_at_some_replicas_only: Misforward,
    a3_a_client_that_is_let_wait: Unfair,
    a3_a_client_that_is_censored: Censor,
    a4_rx9_a_flood_of_questions: Flood,
    a6_vc1_an_equivocating_leader_and_its_accomplices: Equivocate,
    a7_vc22_a_storm_of_view_changes: Storm,
    a8_rd1_proposals_to_exactly_a_quorum: Select,
    a8_nothing_to_some: Withhold,
    a9_rd2_rd3_old_and_inflated_answers_to_readers: StaleReads,
    a10_pr10_amnesia: Forget,
    a11_st5_st6_lies_to_those_who_are_behind: Mislead,
    a12_au4_cr4_bytes_that_are_no_message: Junk,
    a13_votes_under_bad_signatures: Forge,
    a14_rx4_proposals_with_static_faults: Mispropose,
    a15_impossible_times: Mistime,
    au8_au9_votes_for_everything: Echo,
    au1_au3_au4_vc3_vc15_cr6_small_mutations: Mutate,
    pr11_two_copies_of_one_key: Twins,
    vc1_claims_of_nothing: ClaimNothing,
    vc2_vc5_vc8_views_opened_wrongly_and_twice: Misopen,
    vc18_a_hidden_lock: Hide,
    a2_everything_late: Drag,
    a2_proposals_just_under_the_time_out: SlowLeader,
    one_liar_after_the_other: Shift,
}

#[test]
fn a7_a_storm_moves_the_view_no_oftener_than_hand_overs_may() {
    let mut moved = 0;
    for plan in alike(Attack::Storm) {
        let (hand_over, f) = (plan.parameters.timeouts.hand_over, plan.byzantine.len() as u64);
        let outcome = held(plan, "Storm steady");
        // Between two hand-overs at most f liars lead and resign at once.
        let most = (f + 1) * (outcome.duration / hand_over + 2);
        assert!(outcome.view <= most, "seed {}: view {} of at most {most}", outcome.seed, outcome.view);
        moved += outcome.view;
    }
    assert!(moved > 0, "the storm moves something");
}

#[test]
fn cl2_other_envelopes_under_one_number_cause_no_view_change() {
    let mut doubled = 0;
    for plan in alike(Attack::Misforward) {
        let outcome = held(plan, "Misforward steady");
        assert_eq!(outcome.marks.count(Mark::ViewChange), 0, "seed {}", outcome.seed);
        doubled += outcome.deeds.count(Deed::Doubled);
    }
    assert!(doubled > 0);
}

/// Without a monitor a leader that is slow, or unfair to a client, within the time-out leads for ever.
#[test]
fn a2_a3_slow_and_unfair_leaders_are_replaced_by_the_monitor() {
    for attack in [Attack::SlowLeader, Attack::Unfair] {
        let (mut led, mut moved) = (0, 0);
        for mut plan in alike(attack).filter(|plan| plan.byzantine.contains_key(&0)) {
            // One request after the other, so that none waits for another one, and enough of them for two strikes.
            plan.clients.truncate(1);
            plan.clients[0].addressing = Addressing::Everybody;
            plan.clients[0].window = 1;
            plan.clients[0].envelopes = REQUESTS;
            plan.clients[0].think = plan.parameters.timeouts.request / 8;
            plan.readers.clear();
            // A proposal that is held back beyond the clock window is refused as too old in any case.
            let timeouts = &mut plan.parameters.timeouts;
            timeouts.clock_window = timeouts.clock_window.max(2 * timeouts.request);
            plan.execution = Execution::Fake;
            plan.calm_at = u64::from(REQUESTS) * plan.parameters.timeouts.request;
            if let Some(Behaviour::Delaying(victim)) = plan.byzantine.get_mut(&0) {
                *victim = 0;
            }
            plan.promise = None;
            let outcome = held(plan, "steady with one client");
            led += 1;
            moved += u64::from(outcome.view > 0);
        }
        assert!(led > 3, "{attack:?}: {led} seeds");
        assert_eq!(moved, led, "{attack:?}: leaders replaced");
    }
}

#[test]
fn a16_requests_are_answered_soon_after_each_blip() {
    for seed in 0..STEADY_SEEDS {
        held(blips(seed), "blips");
    }
}

#[test]
fn more_than_f_twins_fork_and_the_fork_is_seen() {
    let forks = ["one prepare certificate per view and height", "one header per height"];
    let forked = |seed| {
        let mut plan = Attack::Twins.plan(seed);
        let pairs = 0..plan.n as ReplicaIndex / 2 + 1;
        plan.byzantine = pairs.map(|index| (index, Behaviour::Twinned { restored: false })).collect();
        run_plan(plan, Story::Silent).failure.filter(|failure| forks.contains(&failure.rule))
    };
    assert!((0..SEEDS).filter_map(forked).count() > 3);
}

#[test]
fn equal_seeds_of_an_attack_give_identical_traces() {
    for attack in Attack::ALL {
        for seed in 0..4 {
            let run = |story| run_plan(attack.plan(seed), story);
            let (first, second) = (run(Story::Kept), run(Story::Kept));
            assert_eq!(first.story, second.story, "{attack:?} seed {seed}");
            assert_eq!(first.trace, second.trace, "{attack:?} seed {seed}");
            assert_eq!(first.trace, run(Story::Silent).trace, "{attack:?} seed {seed}");
        }
    }
}

/// VC13: with time-outs shorter than a round, whoever waits longer for each view that fails gets on all the same.
#[test]
fn vc13_replicas_with_too_little_patience_get_on() {
    let mut marks = Marks::default();
    for seed in 0..IMPATIENT_SEEDS {
        marks.merge(&held(attack::impatient(seed), "impatient").marks);
    }
    assert!(marks.count(Mark::SuspectTimeout) > 0 && marks.count(Mark::ViewChange) > 0, "{marks}");
}
