//! Runs that are made for one kind of attack: who attacks, beside which troubles, what must show that the
//! attack took place, and what clients are promised while it goes on.
//!
//! Invariant: as many replicas attack as may, f of n; a plan depends on kind and seed alone.

use std::collections::BTreeMap;

use quorate_crypto::faults;
use quorate_protocol::ReplicaIndex;

use crate::byzantine::{Attack, Behaviour, Deed};
use crate::faults::{Direction, Fault, Scheduled, Target};
use crate::marks::Mark;
use crate::plan::{Plan, RECOVERY_BACK_OFFS, RECOVERY_HAND_OVERS};
use crate::random::{Random, Stream};

/// Sizes of clusters under attack: one, two and three liars.
pub const SIZES: [usize; 10] = [4, 4, 4, 4, 5, 6, 7, 7, 7, 10];
/// How much longer a steady run takes than its plan says, because its time-outs are longer.
const STEADY_STRETCH: u64 = 4;
/// Blips of the network in one run.
const BLIPS: u64 = 4;
/// Hand-overs in a run whose liars abuse them.
const HAND_OVERS: u64 = 8;
/// Rounds that impatient replicas wait at most.
const IMPATIENT_BACK_OFF: u64 = 16;
/// Crashes of a liar that forgets.
const CRASHES: u64 = 3;

/// What the runs of a test must show, so that it can fail.
#[derive(Copy, Clone, Debug)]
pub struct Proof {
    /// What was done, each of it at least once.
    pub deeds: &'static [Deed],
    /// What came of it, each at least once.
    pub marks: &'static [Mark],
}

impl Attack {
    /// What shows that an attack of this kind took place and was met.
    #[must_use]
    pub const fn proof(self) -> Proof {
        let (deeds, marks): (&[Deed], &[Mark]) = match self {
            Self::Withhold => (&[Deed::Withheld], &[Mark::ViewChange, Mark::CaughtUp]),
            Self::Select => (
                &[Deed::Withheld, Deed::Misanswered],
                &[Mark::BatchesFetched, Mark::CaughtUp, Mark::ReadAnswered],
            ),
            Self::Equivocate => {
                (&[Deed::Equivocated, Deed::VotedTwice], &[Mark::ViewChange, Mark::BatchesFetched])
            }
            Self::Echo => (&[Deed::Echoed], &[Mark::Evidence]),
            Self::Forget => (&[Deed::Forgot], &[Mark::Restart]),
            Self::ClaimNothing => (&[Deed::ClaimedNothing], &[Mark::PreparedBase]),
            Self::Mutate => (
                &[Deed::Mutated, Deed::Replayed],
                &[Mark::Rejected, Mark::Evidence, Mark::Forged, Mark::ViewChange],
            ),
            Self::Forge => (&[Deed::Forged], &[Mark::Forged]),
            Self::Twins => (&[Deed::Parted, Deed::Contradicted, Deed::Restored], &[Mark::Evidence]),
            Self::Hide => (&[Deed::Hid, Deed::Withheld], &[Mark::PreparedBase, Mark::BatchesFetched]),
            Self::Drag => (&[Deed::Dragged], &[Mark::SuspectTimeout, Mark::SuspectRevoked]),
            Self::Shift => (&[Deed::Shifted], &[Mark::ViewChange, Mark::Rejected]),
            Self::SlowLeader => (&[Deed::Slowed], &[]),
            Self::Unfair => (&[Deed::Delayed], &[]),
            Self::Censor => (&[Deed::Censored], &[Mark::SuspectTimeout, Mark::ViewChange]),
            Self::Storm => (&[Deed::Stormed], &[Mark::Resign, Mark::ViewChange]),
            Self::Flood => (&[Deed::Flooded], &[Mark::CaughtUp]),
            Self::StaleReads => (&[Deed::Misanswered], &[Mark::ReadAnswered]),
            Self::Mislead => (&[Deed::Boasted, Deed::Misled], &[Mark::Rejected, Mark::CaughtUp]),
            Self::Junk => (&[Deed::Undecodable, Deed::Decodable], &[Mark::Rejected]),
            Self::Mispropose => (&[Deed::Misproposed], &[Mark::Rejected, Mark::Skipped, Mark::ViewChange]),
            Self::Mistime => (&[Deed::Mistimed], &[Mark::ViewChange]),
            Self::Misopen => (&[Deed::Misopened, Deed::OpenedTwice], &[Mark::Rejected, Mark::NewViewRelayed]),
            Self::Misforward => (&[Deed::Misforwarded, Deed::Doubled], &[Mark::Rejected, Mark::Skipped]),
        };
        Proof { deeds, marks }
    }

    /// The plan of a seed with this attack in the midst of its other troubles.
    #[must_use]
    pub fn plan(self, seed: u64) -> Plan {
        let random = &mut Random::new(seed, Stream::Attack);
        let mut plan = Plan::sized(seed, Some(random.pick(&SIZES)));
        self.join(random, &mut plan);
        if self == Self::Mislead {
            isolate(random, &mut plan);
        }
        let liars = std::mem::take(&mut plan.byzantine);
        plan.with_liars(liars)
    }

    /// The plan of a seed in which nothing but this attack goes on, and never ends; requests are answered
    /// within a bound.
    #[must_use]
    pub fn steady_plan(self, seed: u64) -> Plan {
        let random = &mut Random::new(seed, Stream::Attack);
        let mut plan = Plan::sized(seed, Some(random.pick(&SIZES))).without_troubles();
        plan.frail.clear();
        plan.hostile.clear();
        plan.calm_at *= STEADY_STRETCH;
        plan.clients.iter_mut().for_each(|client| client.think *= STEADY_STRETCH);
        let longest = longest_timeout(&plan);
        plan.patience =
            RECOVERY_BACK_OFFS * longest + RECOVERY_HAND_OVERS * plan.parameters.timeouts.hand_over;
        self.join(random, &mut plan);
        plan.promise = Some(promise(&plan));
        plan
    }

    /// Makes f replicas attack in this way, or one of them in this way and the others in any.
    fn join(self, random: &mut Random, plan: &mut Plan) {
        let leader = self.behaviour(random, plan.n);
        let (alike, adjacent) = (random.one_in(2), random.one_in(2));
        let mut liars = BTreeMap::new();
        // Often the first leader, and those that follow it.
        let first = if random.one_in(2) { 0 } else { random.below(plan.n as u64) };
        while liars.len() < faults(plan.n) {
            let next = (first + liars.len() as u64) % plan.n as u64;
            let index = if adjacent { next } else { random.below(plan.n as u64) } as ReplicaIndex;
            let behaviour = if alike || liars.is_empty() { leader } else { Behaviour::draw(random, plan.n) };
            liars.entry(index).or_insert(behaviour);
        }
        let correct: Vec<u8> = (0..plan.n as u8).filter(|index| !liars.contains_key(index)).collect();
        for behaviour in liars.values_mut() {
            if let Behaviour::Selecting(mask) = behaviour {
                // Exactly a quorum is left, the liars included.
                let start = random.below(correct.len() as u64) as usize;
                let excluded = correct.iter().cycle().skip(start).take(faults(plan.n));
                *mask = excluded.fold(0, |mask, index| mask | 1 << index);
            }
        }
        match self {
            Self::Forget => crash(random, plan, &liars),
            Self::Misopen | Self::ClaimNothing | Self::Hide | Self::Mutate | Self::Shift => {
                hand_over(random, plan);
            }
            _ => {}
        }
        plan.byzantine = liars;
    }
}

/// The longest of the time-outs that move a view.
fn longest_timeout(plan: &Plan) -> u64 {
    let timeouts = &plan.parameters.timeouts;
    timeouts.back_off_max.max(timeouts.request).max(timeouts.new_view)
}

/// Within which time a correct client is answered while f liars go on and nothing else goes wrong: its
/// retry to everybody, then a time-out to suspect and one to open a view for each leader that may be a
/// liar, and once for its own.
fn promise(plan: &Plan) -> u64 {
    let timeouts = &plan.parameters.timeouts;
    retry(plan) + (timeouts.request + timeouts.new_view) * (faults(plan.n) as u64 + 1)
}

/// When a client's request reaches everybody at the latest.
fn retry(plan: &Plan) -> u64 {
    plan.clients.iter().map(|client| client.patience / 4 * 5).max().unwrap_or(0)
}

/// Liars that forget must crash to do so.
fn crash(random: &mut Random, plan: &mut Plan, liars: &BTreeMap<ReplicaIndex, Behaviour>) {
    for index in liars.keys() {
        for _ in 0..CRASHES {
            let down = random.between(1, plan.parameters.timeouts.request);
            let fault = Fault::Crash { target: Target::Replica(*index), down };
            plan.faults.push(Scheduled { at: random.below(plan.calm_at), fault });
        }
    }
    plan.faults.sort_by_key(|scheduled| scheduled.at);
}

/// Views must change for a liar to abuse that: operators ask leaders to hand over, which costs no time-out.
fn hand_over(random: &mut Random, plan: &mut Plan) {
    for _ in 0..HAND_OVERS {
        let fault = Fault::Resign { target: Target::Leader };
        plan.faults.push(Scheduled { at: random.below(plan.calm_at), fault });
    }
    plan.faults.sort_by_key(|scheduled| scheduled.at);
}

/// Somebody must fall behind for a liar to mislead it.
fn isolate(random: &mut Random, plan: &mut Plan) {
    let target = Target::Replica(random.below(plan.n as u64) as ReplicaIndex);
    let lasts = plan.calm_at / 2;
    plan.faults.push(Scheduled {
        at: random.below(lasts + 1),
        fault: Fault::Isolate { target, direction: Direction::Both, lasts },
    });
    plan.faults.sort_by_key(|scheduled| scheduled.at);
}

/// Short splits of the network, one after the other, and no other trouble: a request is answered within the
/// blip and a hangover (hazard A16).
#[must_use]
pub fn blips(seed: u64) -> Plan {
    let random = &mut Random::new(seed, Stream::Attack);
    let mut plan = Plan::sized(seed, Some(random.pick(&SIZES))).without_troubles();
    plan.calm_at *= STEADY_STRETCH;
    plan.clients.iter_mut().for_each(|client| client.think *= STEADY_STRETCH);
    let timeouts = &plan.parameters.timeouts;
    let lasts = random.between(1, timeouts.request / 2);
    let hangover = 2 * timeouts.resend + timeouts.announce;
    for blip in 0..BLIPS {
        let side = random.between(1, (1 << plan.n) - 2);
        let at = plan.calm_at / BLIPS * blip
            + random.below(plan.calm_at / BLIPS - lasts.min(plan.calm_at / BLIPS));
        plan.faults.push(Scheduled { at, fault: Fault::Split { side, lasts } });
    }
    plan.promise = Some(2 * lasts + hangover + retry(&plan));
    plan
}

/// Time-outs that are shorter than a round: only views for which longer is waited commit anything (hazard VC13).
#[must_use]
pub fn impatient(seed: u64) -> Plan {
    let random = &mut Random::new(seed, Stream::Attack);
    let mut plan = Plan::sized(seed, Some(random.pick(&SIZES))).without_troubles();
    plan.hostile.clear();
    plan.readers.clear();
    plan.frail.clear();
    let round =
        4 * (plan.speeds.latency.1 + plan.speeds.jitter) + 2 * plan.speeds.sync.1 + plan.speeds.execution.1;
    let short = (round / random.pick(&[2, 4, 8])).max(1);
    let timeouts = &mut plan.parameters.timeouts;
    (timeouts.request, timeouts.request_min, timeouts.new_view) = (short, short, short);
    timeouts.back_off_max = round * IMPATIENT_BACK_OFF;
    timeouts.resend = timeouts.resend.min(round);
    plan.patience = RECOVERY_BACK_OFFS * timeouts.back_off_max + RECOVERY_HAND_OVERS * timeouts.hand_over;
    plan
}
