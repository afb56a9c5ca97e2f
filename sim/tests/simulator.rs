//! What the simulator promises: determinism, that correct clusters hold, and that broken ones are caught.
//!
//! Invariant: nothing here depends on the machine; a failure names its seed.

use std::collections::BTreeSet;

use quorate_sim::byzantine::Behaviour;
use quorate_sim::cast::Scheme;
use quorate_sim::machine::Execution;
use quorate_sim::marks::Mark;
use quorate_sim::mutant::Mutant;
use quorate_sim::plan::Plan;
use quorate_sim::regressions::REGRESSIONS;
use quorate_sim::run::{run_crashes, run_plan, run_seed, run_seeds};
use quorate_sim::trace::Story;

/// Seeds that run in this test; CI runs many more with the binary.
const SEEDS: u64 = 400;
/// Every mutant is caught within this many seeds.
const MUTANT_SEEDS: u64 = 1000;

fn silent(_: u64, _: std::time::Duration) {}

#[test]
fn equal_seeds_give_identical_traces() {
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let (first, second) = (run_seed(seed, Story::Kept), run_seed(seed, Story::Kept));
        let untold = run_seed(seed, Story::Silent);
        assert_eq!(first.story, second.story, "seed {seed}");
        assert_eq!((first.trace, first.events), (second.trace, second.events), "seed {seed}");
        assert_eq!(first.trace, untold.trace, "seed {seed}: telling the story changes nothing");
        assert!(seen.insert(first.trace), "seed {seed} repeats another one");
    }
}

#[test]
fn the_number_of_jobs_changes_nothing() {
    let run = |jobs| {
        let summary = run_seeds(0..60, jobs, None, Plan::new, silent);
        (summary.seeds, summary.events, summary.heights, summary.marks, summary.traces, summary.failures)
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn seeds_hold() {
    let summary = run_seeds(0..SEEDS, 2, None, Plan::new, silent);
    assert_eq!(summary.seeds, SEEDS);
    assert_eq!(summary.failures, Vec::new());
    assert_eq!(summary.marks.missed(), Vec::new(), "every path is taken within {SEEDS} seeds");
}

#[test]
fn real_execution_and_real_signatures_hold() {
    for seed in 0..12 {
        let plan = Plan { execution: Execution::Real, scheme: Scheme::Ed25519, ..Plan::new(seed) };
        let outcome = run_plan(plan, Story::Silent);
        assert_eq!(outcome.failure, None, "seed {seed}");
        assert_eq!(outcome.marks.count(Mark::RealExecution), 1);
        assert_eq!(outcome.marks.count(Mark::RealSignatures), 1);
    }
}

#[test]
fn an_untroubled_cluster_stays_in_its_first_view() {
    for seed in 0..60 {
        let outcome = run_plan(Plan::untroubled(seed), Story::Silent);
        assert_eq!(outcome.failure, None, "seed {seed}");
        assert_eq!(outcome.marks.count(Mark::ViewChange), 0, "seed {seed}");
        assert!(outcome.height > 0 && outcome.marks.count(Mark::Acknowledged) > 0, "seed {seed}");
    }
}

#[test]
fn a_crash_at_every_effect_is_survived() {
    // One leader and one follower of a small, fast cluster.
    for (seed, replica) in [(3, 0), (5, 1)] {
        let summary = run_crashes(seed, replica, 1, silent);
        assert!(summary.seeds > 200, "seed {seed}: {} effects", summary.seeds);
        assert_eq!(summary.failures, Vec::new(), "seed {seed} replica {replica}: number of the effect, rule");
    }
}

#[test]
fn every_mutant_is_caught() {
    for mutant in Mutant::DRIVERS {
        let broken = |seed| Plan { mutant: Some(mutant), ..Plan::new(seed) };
        let caught = (0..MUTANT_SEEDS).find(|seed| run_plan(broken(*seed), Story::Silent).failure.is_some());
        assert!(caught.is_some(), "{mutant:?} survives {MUTANT_SEEDS} seeds");
    }
}

#[test]
fn more_than_f_liars_fork_and_the_fork_is_seen() {
    let liars = |seed| {
        let plan = Plan::new(seed);
        let byzantine = (0..plan.n as u8 - 1).map(|index| (index, Behaviour::Equivocating(0b1010_1010)));
        let byzantine = byzantine.chain([(0, Behaviour::Echoing)]).collect();
        Plan { byzantine, ..plan }
    };
    // Two certificates of one view come before two headers of one height.
    let forks = ["one prepare certificate per view and height", "one header per height"];
    let seen = (0..60).filter_map(|seed| run_plan(liars(seed), Story::Silent).failure);
    assert!(seen.filter(|failure| forks.contains(&failure.rule)).count() > 10);
}

#[test]
fn what_once_failed_holds() {
    for regression in REGRESSIONS {
        let outcome = run_seed(regression.seed, Story::Silent);
        assert_eq!(outcome.failure, None, "seed {}: {}", regression.seed, regression.found);
    }
}
