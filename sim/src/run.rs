//! Running one seed, and many.
//!
//! Invariant: what a seed does depends on nothing outside it: not on other seeds, not on the number of jobs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_crypto::{Hash, derive_hash};
use quorate_protocol::{EvidenceKind, Height, ReplicaIndex, View};

use crate::byzantine::Deeds;
use crate::cast::Scheme;
use crate::faults::{Fault, Scheduled, Target};
use crate::machine::Execution;
use crate::marks::{Mark, Marks};
use crate::mutant::Mutant;
use crate::oracle::Violation;
use crate::plan::Plan;
use crate::probes::Probes;
use crate::trace::{Entry, Story};
use crate::world::World;

/// Most failures that a long run collects before it stops.
pub const FAILURES_MAX: usize = 20;

/// What a seed did.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Hash over every event.
    pub trace: Hash,
    /// Events.
    pub events: u64,
    /// The highest decided height.
    pub height: Height,
    /// The highest view that a correct replica has entered.
    pub view: View,
    /// Virtual nanoseconds.
    pub duration: u64,
    /// Share of the time allowed after the calm that was needed until all was done, in thousandths.
    pub recovery: u64,
    /// The longest time from mended links to the next commit, while somebody waited, in virtual nanoseconds.
    pub hangover: u64,
    /// Longest wait of a request, in thousandths of what was promised; 0 if nothing was.
    pub wait: u64,
    /// Paths taken.
    pub marks: Marks,
    /// Branches of consensus taken.
    pub probes: Probes,
    /// What Byzantine replicas did.
    pub deeds: Deeds,
    /// Pieces of evidence that replicas showed, by kind.
    pub evidence: BTreeMap<EvidenceKind, u64>,
    /// Ways to frame a correct replica that were tried.
    pub framings: u64,
    /// The broken rule, if one was.
    pub failure: Option<Violation>,
    /// The story, if it was to be told.
    pub story: Vec<Entry>,
}

/// Runs a plan to its end.
#[must_use]
pub fn run_plan(plan: Plan, story: Story) -> Outcome {
    let seed = plan.seed;
    let (scheme, execution) = (plan.scheme, plan.execution);
    let byzantine = !plan.byzantine.is_empty();
    let (calm_at, patience) = (plan.calm_at, plan.patience);
    Mutant::choose(plan.mutant);
    // What another run left behind when it panicked.
    let _ = Probes::take();
    let mut world = match World::new(plan, story) {
        Ok(world) => world,
        Err(failure) => return Outcome::failed(seed, failure),
    };
    if scheme == Scheme::Ed25519 {
        world.marks.hit(Mark::RealSignatures);
    }
    if byzantine {
        world.marks.hit(Mark::Byzantine);
    }
    if execution == Execution::Real {
        world.marks.hit(Mark::RealExecution);
    }
    // A panic in a deterministic room is a finding like any other; the world is only read afterwards.
    let verdict = catch_unwind(AssertUnwindSafe(|| world.run()));
    let failure = match verdict {
        Ok(verdict) => verdict.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(Violation { rule: "no panic", detail: text.unwrap_or_default() })
        }
    };
    Outcome {
        seed,
        trace: world.trace.hash(),
        events: world.trace.events(),
        height: world.oracle.decided_height(),
        view: world.highest_view(),
        duration: world.now(),
        recovery: world.now().saturating_sub(calm_at) * 1000 / patience.max(1),
        hangover: world.hangover,
        wait: world.promise.longest(),
        marks: world.marks,
        probes: Probes::take(),
        deeds: world.conspiracy.deeds,
        evidence: world.slander.shown,
        framings: world.slander.tried,
        failure,
        story: world.trace.into_entries(),
    }
}

/// Runs the plan of a seed.
#[must_use]
pub fn run_seed(seed: u64, story: Story) -> Outcome {
    run_plan(Plan::new(seed), story)
}

impl Outcome {
    fn failed(seed: u64, failure: Violation) -> Self {
        Self {
            seed,
            trace: Hash::ZERO,
            events: 0,
            height: 0,
            view: 0,
            duration: 0,
            recovery: 0,
            hangover: 0,
            wait: 0,
            marks: Marks::default(),
            probes: Probes::default(),
            deeds: Deeds::default(),
            evidence: BTreeMap::new(),
            framings: 0,
            failure: Some(failure),
            story: Vec::new(),
        }
    }
}

/// What many seeds did.
#[derive(Debug)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Events of all.
    pub events: u64,
    /// Decided heights of all.
    pub heights: u64,
    /// Paths taken by all.
    pub marks: Marks,
    /// Branches of consensus taken by all.
    pub probes: Probes,
    /// Over all traces, in whatever order the seeds ended: equal for equal seeds.
    pub traces: Hash,
    /// What Byzantine replicas did in all.
    pub deeds: Deeds,
    /// The longest wait of a request, in thousandths of what was promised, and its seed.
    pub longest: (u64, u64),
    /// The longest recovery, in thousandths of the time allowed, and its seed.
    pub slowest: (u64, u64),
    /// Seeds that failed, ascending, with the broken rule.
    pub failures: Vec<(u64, Violation)>,
    /// Seconds on the wall.
    pub elapsed: Duration,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            seeds: 0,
            events: 0,
            heights: 0,
            marks: Marks::default(),
            probes: Probes::default(),
            traces: Hash::ZERO,
            deeds: Deeds::default(),
            longest: (0, 0),
            slowest: (0, 0),
            failures: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }
}

impl Summary {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.heights += outcome.height;
        self.marks.merge(&outcome.marks);
        self.probes.merge(&outcome.probes);
        let trace =
            derive_hash("quorate simulated traces v1", &[&outcome.seed.to_le_bytes(), &outcome.trace.0]);
        for (sum, byte) in self.traces.0.iter_mut().zip(trace.0) {
            *sum ^= byte;
        }
        self.deeds.merge(&outcome.deeds);
        self.longest = self.longest.max((outcome.wait, outcome.seed));
        self.slowest = self.slowest.max((outcome.recovery, outcome.seed));
        if let Some(failure) = outcome.failure {
            self.failures.push((outcome.seed, failure));
        }
    }
}

/// Runs seeds on several threads, until all are done, time is up, or [`FAILURES_MAX`] failed. `progress` is
/// called now and then with the number of seeds done.
pub fn run_seeds(
    seeds: std::ops::Range<u64>,
    jobs: usize,
    limit: Option<Duration>,
    plan: impl Fn(u64) -> Plan + Sync,
    progress: impl Fn(u64, Duration) + Sync,
) -> Summary {
    let started = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let outcome = run_plan(plan(seed), Story::Silent);
            let mut summary = summary.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            summary.add(outcome);
            let late = limit.is_some_and(|limit| started.elapsed() >= limit);
            if summary.failures.len() >= FAILURES_MAX || late {
                stop.store(true, Ordering::Relaxed);
            }
            if summary.seeds % 1000 == 0 {
                progress(summary.seeds, started.elapsed());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    summary.failures.sort_by_key(|(seed, _)| *seed);
    summary.elapsed = started.elapsed();
    summary
}

/// Runs the untroubled plan of a seed, with fast signatures and execution, again and again; the n-th time the replica crashes before its n-th
/// effect, until a run has fewer. The failures of the summary name the number of the effect.
pub fn run_crashes(
    seed: u64,
    replica: ReplicaIndex,
    jobs: usize,
    progress: impl Fn(u64, Duration) + Sync,
) -> Summary {
    let plan = |effects| {
        let plan = Plan::untroubled(seed);
        let down = plan.parameters.timeouts.request;
        let target = Target::Replica(replica);
        let fault = Fault::Arm { target, effects, down };
        let (scheme, execution) = (Scheme::KeyedHash, Execution::Fake);
        Plan { faults: vec![Scheduled { at: 0, fault }], scheme, execution, ..plan }
    };
    // A binary search for the number of effects would need monotony; a run that is longer only costs time.
    let crashes = |effects| run_plan(plan(effects), Story::Silent).marks.count(Mark::Crash) > 0;
    let mut end = 64;
    while crashes(end) {
        end *= 2;
    }
    run_seeds(0..end, jobs, None, plan, progress)
}
