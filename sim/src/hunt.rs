//! Where each mutant is looked for, and how many seeds that takes.
//!
//! Invariant: a mutant is caught by a broken rule only in a plan in which correct replicas break none, or by an
//! attack that is not met as [`Attack::proof`] demands and as correct replicas meet it.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::attack;
use crate::byzantine::Attack;
use crate::marks::{Mark, Marks};
use crate::mutant::Mutant;
use crate::oracle::Violation;
use crate::plan::Plan;
use crate::run::run_plan;
use crate::trace::Story;

/// Seeds over which an attack must have been met.
const PROOF_SEEDS: u64 = 60;
/// Characters of an assertion that are shown.
const SHOWN_MAX: usize = 90;

/// Which runs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Ordinary seeds.
    Seeds,
    /// An attack beside other troubles.
    Attack(Attack),
    /// Nothing but an attack, every request timed.
    Steady(Attack),
    /// An attack, which must have been met once in so many seeds.
    Met(Attack, Mark),
    /// The same of nothing but the attack.
    MetSteady(Attack, Mark),
    /// Time-outs shorter than a round.
    Impatient,
}

/// How a mutant was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
    /// After how many seeds.
    pub seeds: u64,
    /// By which rule.
    pub rule: String,
}

impl Ground {
    /// Where a mutant is looked for: where the rule that it breaks is put to the test.
    #[must_use]
    pub fn of(mutant: Mutant) -> Self {
        #[cfg(feature = "mutants")]
        if let Mutant::Protocol(mutant) = mutant {
            return of_protocol(mutant);
        }
        let _ = mutant;
        Self::Seeds
    }

    /// The plan of a seed there.
    #[must_use]
    pub fn plan(self, seed: u64) -> Plan {
        match self {
            Self::Seeds => Plan::new(seed),
            Self::Attack(attack) | Self::Met(attack, _) => attack.plan(seed),
            Self::Steady(attack) | Self::MetSteady(attack, _) => attack.steady_plan(seed),
            Self::Impatient => attack::impatient(seed),
        }
    }
}

#[cfg(feature = "mutants")]
const fn of_protocol(mutant: quorate_consensus::mutant::Mutant) -> Ground {
    use quorate_consensus::mutant::Mutant as Protocol;
    match mutant {
        Protocol::VotesUnchecked => Ground::Attack(Attack::Forge),
        Protocol::BaseUnchecked | Protocol::ClaimsUnchecked => Ground::Attack(Attack::Misopen),
        Protocol::ClaimUncertified | Protocol::BatchUnchecked => Ground::Attack(Attack::Mutate),
        Protocol::CommittedUnchecked => Ground::Attack(Attack::Mislead),
        Protocol::SuspicionAlone | Protocol::JoinAlone => Ground::Steady(Attack::Storm),
        Protocol::TimeUnchecked => Ground::Attack(Attack::Mistime),
        Protocol::EnvelopesUnchecked => Ground::Attack(Attack::Mispropose),
        Protocol::MonitorOff => Ground::MetSteady(Attack::SlowLeader, Mark::SuspectMonitor),
        Protocol::ForwardOff => Ground::Met(Attack::Withhold, Mark::Forwarded),
        Protocol::EvidenceOff => Ground::Met(Attack::Echo, Mark::Evidence),
        Protocol::BackOffOff => Ground::Impatient,
        _ => Ground::Seeds,
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seeds => formatter.write_str("ordinary seeds"),
            Self::Attack(attack) => write!(formatter, "attack {attack:?}"),
            Self::Steady(attack) => write!(formatter, "attack {attack:?}, steady"),
            Self::Met(attack, mark) => write!(formatter, "attack {attack:?}, which leads to {mark:?}"),
            Self::MetSteady(attack, mark) => {
                write!(formatter, "attack {attack:?}, steady, which leads to {mark:?}")
            }
            Self::Impatient => formatter.write_str("time-outs shorter than a round"),
        }
    }
}

/// Looks for a mutant in at most so many seeds.
#[must_use]
pub fn hunt(mutant: Mutant, most: u64) -> Option<Caught> {
    let ground = Ground::of(mutant);
    let mut marks = Marks::default();
    for seed in 0..most {
        let outcome = run_plan(Plan { mutant: Some(mutant), ..ground.plan(seed) }, Story::Silent);
        if let Some(failure) = outcome.failure {
            if run_plan(ground.plan(seed), Story::Silent).failure.is_some() {
                continue;
            }
            return Some(Caught { seeds: seed + 1, rule: rule(&failure) });
        }
        marks.merge(&outcome.marks);
        if let Ground::Met(attack, mark) | Ground::MetSteady(attack, mark) = ground
            && seed + 1 == PROOF_SEEDS
        {
            let unmet = marks.count(mark) == 0 && is_met(ground, mark);
            return unmet
                .then(|| Caught { seeds: PROOF_SEEDS, rule: format!("{attack:?} leads to {mark:?}") });
        }
    }
    None
}

/// Whether an attack leads to a mark where replicas are correct.
fn is_met(ground: Ground, mark: Mark) -> bool {
    (0..PROOF_SEEDS).any(|seed| run_plan(ground.plan(seed), Story::Silent).marks.count(mark) > 0)
}

/// The rule in words; of an assertion its text.
fn rule(failure: &Violation) -> String {
    let Violation { rule, detail } = failure;
    if *rule != "no panic" {
        return (*rule).to_owned();
    }
    let text: String = detail.lines().next().unwrap_or_default().chars().take(SHOWN_MAX).collect();
    format!("assertion: {text}")
}

/// Looks for mutants, on several threads.
#[must_use]
pub fn hunt_all(mutants: &[Mutant], most: u64, jobs: usize) -> Vec<(Mutant, Option<Caught>)> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let work = || {
        while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
            let caught = hunt(*mutant, most);
            eprintln!("{}: {caught:?}", mutant.name());
            found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((*mutant, caught));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    found.sort_by_key(|(mutant, _)| *mutant);
    found
}
