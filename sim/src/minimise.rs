//! A failing plan made small: whatever the failure does not need is taken away.
//!
//! Invariant: plans are changed as data, never drawn anew, and what is taken away leaves the streams of chance
//! of the rest as they are as far as possible: clients fall silent and keep their links. A change stays only
//! if the same rule is broken with it.

use std::time::{Duration, Instant};

use crate::byzantine::Behaviour;
use crate::cast::Scheme;
use crate::machine::Execution;
use crate::network::Weather;
use crate::oracle::Violation;
use crate::plan::{Clock, Plan};
use crate::run::{Outcome, run_plan};
use crate::story::tell;
use crate::trace::Story;

/// Most runs of one minimisation.
pub const RUNS_MAX: u32 = 3000;
/// A run is not made shorter than this, in nanoseconds of virtual time.
const SHORTEST: u64 = 1_000_000;

/// What was left of a failing plan.
#[derive(Debug)]
pub struct Minimised {
    /// The plan.
    pub plan: Plan,
    /// The broken rule.
    pub failure: Violation,
    /// What was taken away, in order.
    pub steps: Vec<String>,
    /// Runs that it took.
    pub runs: u32,
    /// What happened, in words.
    pub story: Vec<String>,
}

/// Takes away from a plan what its failure does not need; `None` if it does not fail.
#[must_use]
pub fn minimise(plan: Plan, limit: Duration) -> Option<Minimised> {
    let failure = run_plan(plan.clone(), Story::Silent).failure?;
    let mut search = Search { plan, failure, steps: Vec::new(), runs: 1, end: Instant::now() + limit };
    while search.pass() {}
    let Outcome { story, .. } = run_plan(search.plan.clone(), Story::Kept);
    let Search { plan, failure, steps, runs, .. } = search;
    Some(Minimised { plan, failure, steps, runs, story: tell(&story) })
}

/// One thing to take away: its name, and the plan without it if there is anything to take.
type Cut = (&'static str, fn(&Plan) -> Option<Plan>);

/// What is tried after faults and actors, the largest first.
const CUTS: [Cut; 17] = [
    ("replicas beyond four", |plan| four(plan)),
    ("the weather", |plan| changed(plan, |plan| plan.weather = Weather::CALM)),
    ("losses", |plan| changed(plan, |plan| plan.weather.loss = 0)),
    ("duplicates", |plan| changed(plan, |plan| plan.weather.duplication = 0)),
    ("reordering", |plan| changed(plan, |plan| plan.weather.reordering = 0)),
    ("what is wrong with clocks", |plan| {
        changed(plan, |plan| plan.clocks.iter_mut().for_each(|clock| *clock = Clock::default()))
    }),
    ("real execution", |plan| changed(plan, |plan| plan.execution = Execution::Fake)),
    ("real signatures", |plan| changed(plan, |plan| plan.scheme = Scheme::KeyedHash)),
    ("encodings", |plan| changed(plan, |plan| plan.encoded = false)),
    ("jitter", |plan| changed(plan, |plan| plan.speeds.jitter = 0)),
    ("links out of order", |plan| changed(plan, |plan| plan.in_order = true)),
    ("the window", |plan| changed(plan, |plan| plan.window = 1)),
    ("half of the window", |plan| changed(plan, |plan| plan.window = plan.window.div_ceil(2))),
    ("restarts and reconnections of clients", |plan| {
        changed(plan, |plan| {
            plan.clients.iter_mut().for_each(|client| (client.restarts, client.reconnects) = (None, None));
        })
    }),
    ("pipelines", |plan| changed(plan, |plan| plan.clients.iter_mut().for_each(|client| client.window = 1))),
    ("operations beyond the first", |plan| {
        changed(plan, |plan| plan.clients.iter_mut().for_each(|client| client.operations = 1))
    }),
    ("half of the time", |plan| half(plan)),
];

/// A changed copy, if the change changes anything that shows.
fn changed(plan: &Plan, change: impl FnOnce(&mut Plan)) -> Option<Plan> {
    let mut copy = plan.clone();
    change(&mut copy);
    (format!("{copy:?}") != format!("{plan:?}")).then_some(copy)
}

/// Four replicas, if nothing in the plan names another one.
fn four(plan: &Plan) -> Option<Plan> {
    let fits = plan.byzantine.len() + plan.frail.len() <= 1
        && plan.byzantine.keys().chain(&plan.frail).all(|index| *index < 4);
    (plan.n > 4 && fits).then(|| {
        let mut copy = plan.clone();
        copy.n = 4;
        copy.clocks.truncate(4);
        copy.faults.retain(|scheduled| scheduled.fault.fits(4));
        copy
    })
}

/// The calm comes in half of the time.
fn half(plan: &Plan) -> Option<Plan> {
    (plan.calm_at > SHORTEST).then(|| {
        let mut copy = plan.clone();
        copy.calm_at /= 2;
        copy.faults.retain(|scheduled| scheduled.at < copy.calm_at);
        copy
    })
}

struct Search {
    plan: Plan,
    failure: Violation,
    steps: Vec<String>,
    runs: u32,
    end: Instant,
}

impl Search {
    fn is_over(&self) -> bool {
        self.runs >= RUNS_MAX || Instant::now() >= self.end
    }

    /// Keeps a plan if the same rule is broken with it.
    fn attempt(&mut self, plan: Plan, step: impl FnOnce() -> String) -> bool {
        if self.is_over() {
            return false;
        }
        self.runs += 1;
        match run_plan(plan.clone(), Story::Silent).failure {
            Some(failure) if failure.rule == self.failure.rule => {
                (self.plan, self.failure) = (plan, failure);
                self.steps.push(step());
                true
            }
            _ => false,
        }
    }

    /// Tries everything once; whether anything could be taken away.
    fn pass(&mut self) -> bool {
        let before = self.steps.len();
        self.faults();
        self.actors();
        for (name, cut) in CUTS {
            while let Some(plan) = cut(&self.plan) {
                if !self.attempt(plan, || name.to_owned()) {
                    break;
                }
            }
        }
        self.fewer_envelopes();
        self.steps.len() > before && !self.is_over()
    }

    /// Faults: half of them at once, then quarters, and at last one by one.
    fn faults(&mut self) {
        let mut size = self.plan.faults.len().div_ceil(2);
        while size > 0 {
            let mut start = 0;
            while start < self.plan.faults.len() {
                let mut plan = self.plan.clone();
                let end = (start + size).min(plan.faults.len());
                let gone: Vec<_> = plan.faults.drain(start..end).collect();
                let words = || {
                    let words = gone.iter().map(|scheduled| scheduled.fault.words());
                    format!("fault {}", words.collect::<Vec<_>>().join(", "))
                };
                if !self.attempt(plan, words) {
                    start += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    /// Byzantine replicas, hostile clients, readers and clients, one by one.
    fn actors(&mut self) {
        let liars: Vec<(u8, Behaviour)> =
            self.plan.byzantine.iter().map(|(index, behaviour)| (*index, *behaviour)).collect();
        for (index, behaviour) in liars {
            let mut plan = self.plan.clone();
            plan.byzantine.remove(&index);
            self.attempt(plan, || format!("that replica {index} is Byzantine: {behaviour:?}"));
        }
        for index in 0..self.plan.hostile.len() {
            let mut plan = self.plan.clone();
            if !std::mem::take(&mut plan.hostile[index].kinds).is_empty() {
                self.attempt(plan, || format!("hostile client {index}"));
            }
        }
        for index in 0..self.plan.readers.len() {
            let mut plan = self.plan.clone();
            if !std::mem::replace(&mut plan.readers[index].is_mute, true) {
                self.attempt(plan, || format!("reader {index}"));
            }
        }
        for index in 0..self.plan.clients.len() {
            let mut plan = self.plan.clone();
            if std::mem::take(&mut plan.clients[index].envelopes) > 0 {
                self.attempt(plan, || format!("client {index}"));
            }
        }
    }

    fn fewer_envelopes(&mut self) {
        for index in 0..self.plan.clients.len() {
            while self.plan.clients[index].envelopes > 1 {
                let mut plan = self.plan.clone();
                plan.clients[index].envelopes /= 2;
                if !self.attempt(plan, || format!("half of the envelopes of client {index}")) {
                    break;
                }
            }
        }
    }
}
