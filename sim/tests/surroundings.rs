//! What the world around the replicas does: disks, clients, links; that failures are made small; and that a
//! seed is the same run everywhere.
//!
//! Invariant: nothing here depends on the machine; a failure names its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_sim::disk::Damage;
use quorate_sim::faults::{Fault, Scheduled, Target};
use quorate_sim::hostile::{HostilePlan, Hostility};
use quorate_sim::marks::Mark;
use quorate_sim::minimise::minimise;
use quorate_sim::mutant::Mutant;
use quorate_sim::plan::Plan;
use quorate_sim::run::{Outcome, run_plan, run_seeds};
use quorate_sim::trace::Story;

/// A plan without other troubles in which this strikes in the middle.
fn struck(seed: u64, fault: impl FnOnce(&Plan) -> Fault) -> Plan {
    let mut plan = Plan { hostile: Vec::new(), ..Plan::untroubled(seed) };
    let fault = fault(&plan);
    plan.frail = match &fault {
        Fault::DiskDamage { replica, .. } => vec![*replica],
        _ => Vec::new(),
    };
    plan.faults = vec![Scheduled { at: plan.calm_at / 2, fault }];
    plan
}

fn run(plan: Plan) -> Outcome {
    let seed = plan.seed;
    let outcome = run_plan(plan, Story::Silent);
    assert_eq!(outcome.failure, None, "seed {seed}");
    outcome
}

/// PR6, R2: a replica whose log is damaged in the middle, lost, or behind its state never votes again, and
/// the others go on without it.
#[test]
fn pr6_a_damaged_log_is_refused_and_the_others_go_on() {
    let mut refused = BTreeMap::new();
    for damage in [Damage::Rot(300), Damage::Lost, Damage::RolledBack(100)] {
        for seed in 0..10 {
            let fault = |plan: &Plan| {
                let down = plan.parameters.timeouts.resend;
                Fault::DiskDamage { replica: 0, damage, down }
            };
            let outcome = run(struck(seed, fault));
            *refused.entry(format!("{damage:?}")).or_insert(0) += outcome.marks.count(Mark::Refused);
        }
    }
    // A log of which nothing was kept but its first records may be one of which the state has nothing either.
    assert!(refused.values().all(|times| *times >= 5), "{refused:?}");
}

/// What a disk has lost without a trace makes its replica one of the f: it may contradict itself, and no
/// correct one does.
#[test]
fn a_log_rolled_back_unnoticed_counts_among_the_f() {
    let mut forgot = 0;
    for seed in 0..20 {
        let fault = |plan: &Plan| {
            let down = plan.parameters.timeouts.resend;
            Fault::DiskDamage { replica: 1, damage: Damage::AllRolledBack(400), down }
        };
        forgot += run(struck(seed, fault)).marks.count(Mark::Forgot);
    }
    assert!(forgot >= 10, "{forgot}");
}

/// PR7: a failed sync or append ends the process, which comes back with what was synced.
#[test]
fn pr7_full_and_failing_disks_stop_a_replica_and_no_more() {
    let mut marks = BTreeSet::new();
    for seed in 0..10 {
        let full = struck(seed, |plan| {
            let lasts = plan.parameters.timeouts.request;
            Fault::DiskFull { target: Target::Leader, lasts }
        });
        let failing = struck(seed, |plan| {
            let down = plan.parameters.timeouts.resend;
            Fault::SyncFails { target: Target::Replica(1), down }
        });
        for (plan, mark) in [(full, Mark::DiskFull), (failing, Mark::SyncFailed)] {
            let outcome = run(plan);
            if outcome.marks.count(mark) > 0 {
                assert!(outcome.marks.count(Mark::Restart) > 0, "seed {seed}: {mark:?}");
                marks.insert(mark);
            }
        }
    }
    assert_eq!(marks.len(), 2);
}

/// A1, A5, CL2: whatever hostile clients send, no view changes because of it, and correct clients are served.
#[test]
fn a1_a5_cl2_hostile_clients_cause_no_view_change() {
    for (kind, seed) in Hostility::ALL.into_iter().flat_map(|kind| (0..6).map(move |seed| (kind, seed))) {
        let mut plan = Plan::untroubled(seed);
        let pause = plan.calm_at / 16;
        let is_principal = kind != Hostility::ForeignSessions && seed % 2 == 0;
        plan.hostile = vec![HostilePlan { kinds: vec![kind], pause, is_principal }];
        let outcome = run(plan);
        assert_eq!(outcome.marks.count(Mark::ViewChange), 0, "{kind:?} seed {seed}");
        assert!(outcome.marks.count(Mark::Acknowledged) > 0, "{kind:?} seed {seed}");
    }
}

/// CL6: clients that restart under new sessions, and lose their connections, find what they did executed once.
#[test]
fn cl6_restless_clients_are_served() {
    for seed in 0..20 {
        let mut plan = Plan::untroubled(seed);
        for client in &mut plan.clients {
            (client.restarts, client.reconnects) = (Some(plan.calm_at / 3), Some(plan.calm_at / 5));
        }
        run(plan);
    }
}

/// A16: after a partition that ends before a time-out, commits go on within a resend and some rounds.
#[test]
fn a16_a_blip_has_a_short_hangover() {
    let mut measured = 0;
    for seed in 0..40 {
        let plan = struck(seed, |plan| {
            let lasts = plan.parameters.timeouts.request / 4;
            Fault::Blips { side: 0b11, count: 3, lasts, gap: 4 * lasts }
        });
        let timeouts = plan.parameters.timeouts;
        let outcome = run(plan);
        assert!(
            outcome.hangover <= timeouts.request,
            "seed {seed}: {} ns after the links were mended, the time-out being {}",
            outcome.hangover,
            timeouts.request
        );
        measured += u64::from(outcome.hangover > 0);
    }
    assert!(measured >= 10, "{measured}");
}

/// All sizes are run, and large ones hold.
#[test]
fn every_size_is_run() {
    let sizes: BTreeSet<usize> = (0..1000).map(|seed| Plan::new(seed).n).collect();
    assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [4, 5, 6, 7, 10, 13]);
    for seed in (0..1000).filter(|seed| Plan::new(*seed).n >= 10).take(4) {
        run(Plan::new(seed));
    }
}

/// Byzantine replicas and those whose disks may be damaged are at most f together.
#[test]
fn the_faulty_are_at_most_f() {
    for seed in 0..2000 {
        let plan = Plan::new(seed);
        assert!(plan.frail.iter().all(|index| !plan.byzantine.contains_key(index)), "seed {seed}");
        assert!(plan.byzantine.len() + plan.frail.len() <= (plan.n - 1) / 3, "seed {seed}");
        for Scheduled { fault, .. } in &plan.faults {
            if let Fault::DiskDamage { replica, .. } = fault {
                assert!(plan.frail.contains(replica), "seed {seed}");
            }
        }
    }
}

/// Equal seeds give equal traces: in another process, and with any number of threads. Another build is
/// compared by the hash over all traces that a run prints.
#[test]
fn equal_seeds_give_equal_traces_in_another_process() {
    let program = env!("CARGO_BIN_EXE_quorate-sim");
    let traces = |jobs: &str| {
        let arguments = ["run", "--seeds", "0..40", "--jobs", jobs];
        let output = std::process::Command::new(program).args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.split_once("traces ").map(|(_, hash)| hash.to_owned()));
        line.unwrap_or_else(|| panic!("no traces in {text}"))
    };
    let here = run_seeds(0..40, 1, None, Plan::new, |_, _| {}).traces.to_string();
    assert_eq!((traces("1"), traces("3")), (here.clone(), here));
}

/// A failing seed is made small: the same rule is broken by less, in the same way again and again.
#[test]
fn failures_are_made_small() {
    for mutant in [Mutant::SyncSkipped, Mutant::VotesForgotten, Mutant::ExecutionDiverges] {
        let failing = (0..1000).map(|seed| Plan { mutant: Some(mutant), ..Plan::new(seed) });
        let mut failing = failing
            .filter(|plan| plan.faults.len() > 3 && run_plan(plan.clone(), Story::Silent).failure.is_some());
        let plan = failing.next().unwrap_or_else(|| panic!("{mutant:?} survives"));
        let seed = plan.seed;
        let rule = run_plan(plan.clone(), Story::Silent).failure.map(|failure| failure.rule);
        let small = minimise(plan.clone(), Duration::from_secs(60));
        let small = small.unwrap_or_else(|| panic!("{mutant:?} seed {seed} does not fail twice"));
        assert_eq!(Some(small.failure.rule), rule, "{mutant:?} seed {seed}");
        assert!(small.plan.faults.len() < plan.faults.len(), "{mutant:?} seed {seed}: {:?}", small.steps);
        assert!(!small.story.is_empty() && small.story.len() < 400, "{mutant:?} seed {seed}");
        let again = run_plan(small.plan, Story::Silent).failure;
        assert_eq!(again, Some(small.failure), "{mutant:?} seed {seed}");
    }
}

#[test]
fn what_breaks_no_rule_is_not_made_small() {
    assert!(minimise(Plan::untroubled(1), Duration::from_secs(10)).is_none());
}
