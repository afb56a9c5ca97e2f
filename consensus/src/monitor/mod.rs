//! The leader under measurement: what is slow, what is unfair, what is censored (hazards A2, A3).
//!
//! Each replica measures with its own clock and with requests that it saw itself. A request is delayed by the
//! time between its arrival here, or its being forwarded, and the arrival of a proposal that holds it. What is
//! allowed follows from what is measured: how long heights take from proposal to commit, which grows with the
//! load and not with the leader's delay; and which delays the other leaders reached, which grows with the
//! network. The leader's own answers serve for nothing here: it would be its own witness.
//!
//! Invariants: a verdict only makes a replica suspect, and is taken back when the leader does better; it takes
//! [`STRIKES`] windows in a row, so that one stall of the machine is none; each view that is left for it
//! doubles what is allowed, up to a cap, so that a network that is slow under every leader comes to rest (A7).

mod samples;

use std::collections::BTreeMap;

use quorate_protocol::{Height, PrePrepare, ReplicaIndex};

pub(crate) use samples::Samples;

use crate::input::Monotonic;
use crate::mutant::{Mutant, broken};
use crate::probe::{Probe, reached};
use crate::propose::{BARREN_VIEWS_MAX, fills};
use crate::replica::Replica;

/// A window without enough to judge by ends after this many of them; then nothing is held against the leader.
const IDLE_WINDOWS: u64 = 16;
/// Windows in a row in which a leader did badly, for a suspicion.
pub(crate) const STRIKES: u32 = 2;
/// A request may wait for its proposal for so many times what a height takes from proposal to commit: one
/// for the window of heights to move, one for the network.
const COMMITS: u64 = 2;
/// A leader may be so many times as slow as others were.
const RATIO: u64 = 2;
/// Doublings of what is allowed, at most.
const LENIENCY_MAX: u32 = 6;
/// Nanoseconds without a view left because of a verdict, after which one doubling is undone.
const RELAXED_AFTER: u64 = 60_000_000_000;
/// A request waits in ordinary times at most so many times as long as seven of eight did lately.
const PATIENCE: u64 = 4;

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Monitor {
    /// How long requests took from their arrival to their commit.
    latencies: Samples,
    /// How long heights took from their proposal's arrival to their commit.
    commits: Samples,
    /// When the proposals of heights in flight arrived.
    arrivals: BTreeMap<Height, Monotonic>,
    /// How long requests waited for their proposal, in this window.
    delays: Samples,
    /// The median of the last window under each leader.
    reached: BTreeMap<ReplicaIndex, u64>,
    /// When the last proposal arrived that had no room for more: what waited until then waited for others.
    saturated_at: Monotonic,
    /// Whether the last proposal had no room for more.
    is_saturated: bool,
    window_start: Monotonic,
    strikes: u32,
    leniency: u32,
    relaxed_at: Monotonic,
}

impl Monitor {
    /// Another view: what was seen in this one counts for the record alone. `verdict` says whether it is left
    /// because of a verdict.
    pub(crate) fn view_left(&mut self, now: Monotonic, verdict: bool) {
        self.arrivals.clear();
        self.delays.clear();
        self.strikes = 0;
        self.window_start = now;
        self.saturated_at = Monotonic::default();
        self.is_saturated = false;
        if verdict {
            reached(Probe::LeniencyRaised);
            self.leniency = self.leniency.saturating_add(1).min(LENIENCY_MAX);
            self.relaxed_at = now;
        }
    }

    /// A request was committed so long after its arrival.
    pub(crate) fn served(&mut self, latency: u64) {
        self.latencies.add(latency);
    }

    /// A height was committed. Says when its proposal arrived, if it did in this view.
    pub(crate) fn committed(&mut self, height: Height, now: Monotonic) -> Option<Monotonic> {
        let arrival = self.arrivals.remove(&height);
        if let Some(at) = arrival {
            self.commits.add(now.since(at));
        }
        self.arrivals.retain(|known, _| *known > height);
        arrival
    }

    /// A proposal of this height has arrived, or was made here.
    pub(crate) fn proposed(&mut self, height: Height, now: Monotonic) {
        self.arrivals.insert(height, now);
    }

    /// How long a request may take: from what requests took lately, within these limits; the upper one while
    /// nothing is known.
    pub(crate) fn patience(&self, least: u64, most: u64) -> u64 {
        match self.latencies.eighths(7) {
            None => most,
            Some(usual) => usual.saturating_mul(PATIENCE).clamp(least.min(most), most),
        }
    }

    /// When the last proposal without room arrived; what waits has waited for the leader only since then.
    pub(crate) const fn saturated_at(&self) -> Monotonic {
        self.saturated_at
    }

    /// Whether the leader did badly in enough windows.
    pub(crate) const fn suspects(&self) -> bool {
        self.strikes >= STRIKES
    }

    /// The delay that the other leaders reached: the (f+1)-th highest, so that one of those who were as slow is correct.
    /// While fewer have led nothing excuses a leader, or the f liars that lead first would excuse each other.
    fn reference(&self, leader: ReplicaIndex, f: usize) -> Option<u64> {
        let others = self.reached.iter().filter(|(replica, _)| **replica != leader);
        let mut delays: Vec<u64> = others.map(|(_, delay)| *delay).collect();
        delays.sort_unstable_by(|a, b| b.cmp(a));
        delays.get(f).copied()
    }

    /// The delay that is allowed.
    pub(crate) fn allowed(&self, leader: ReplicaIndex, f: usize, least: u64, most: u64) -> u64 {
        let commit = self.commits.median().unwrap_or(0);
        let by_load = least.saturating_add(commit.saturating_mul(COMMITS));
        let by_others = self.reference(leader, f).unwrap_or(0).saturating_mul(RATIO);
        by_load.max(by_others).saturating_mul(1 << self.leniency.min(LENIENCY_MAX)).min(most)
    }

    /// Ends the window if there is something to judge by.
    fn judge(&mut self, now: Monotonic, window: u64, (leader, allowed): (ReplicaIndex, u64), victim: bool) {
        let age = now.since(self.window_start);
        if age < window {
            return;
        }
        let median = self.delays.median();
        let idle = age >= window.saturating_mul(IDLE_WINDOWS);
        if median.is_none() && !victim {
            if !idle {
                return;
            }
            reached(Probe::IdleWindow);
        }
        if victim || median.is_some_and(|median| median > allowed) {
            reached(Probe::Strike);
            self.strikes = self.strikes.saturating_add(1).min(STRIKES);
        } else {
            self.strikes = 0;
        }
        if let Some(median) = median {
            self.reached.insert(leader, median);
        }
        self.delays.clear();
        self.window_start = now;
        if self.leniency > 0 && now.since(self.relaxed_at) >= RELAXED_AFTER {
            self.leniency = self.leniency.saturating_sub(1);
            self.relaxed_at = now;
        }
    }
}

impl Replica {
    /// A fresh proposal of the leader of the view at hand has arrived.
    pub(crate) fn watch_proposal(&mut self, message: &PrePrepare) {
        let now = self.now;
        self.monitor.proposed(message.height, now);
        let grace = self.allowed_delay();
        let waited_since = self.pool.include(&message.proposal, grace);
        if !self.is_watching() {
            return;
        }
        // Nothing can wait for a leader before its view, or while its proposals had no room.
        let began = self.view.entered_at.max(self.monitor.saturated_at);
        for since in waited_since {
            self.monitor.delays.add(now.since(since.max(began)));
        }
        let is_full = fills(&message.proposal, self.configuration.parameters().proposal);
        if is_full {
            reached(Probe::Saturated);
            self.monitor.saturated_at = now;
        } else if self.monitor.is_saturated {
            self.forward_again();
        }
        self.monitor.is_saturated = is_full;
    }

    /// Whether the leader is another one, and may do as well as it can.
    fn is_watching(&self) -> bool {
        self.is_active()
            && !self.is_leader()
            && self.barren_views < BARREN_VIEWS_MAX
            && !broken(Mutant::MonitorOff)
    }

    /// How long a request may wait for its proposal under the leader at hand.
    fn allowed_delay(&self) -> u64 {
        let Self { configuration, monitor, .. } = self;
        let least = configuration.parameters().monitor.delay_min;
        monitor.allowed(self.leader(), configuration.members().f(), least, configuration.timeouts().request)
    }

    /// How long a request that the leader surely has may stay out of its proposals.
    fn allowed_wait(&self) -> u64 {
        self.configuration.parameters().monitor.wait_min.saturating_add(self.allowed_delay())
    }

    /// When the request that was forwarded first may count as censored, if nothing changes.
    fn censored_at(&self) -> Option<Monotonic> {
        let forwarded = self.pool.forwarded_first()?;
        // Without commits it is for the time-out to decide.
        let others_pass = self.timers.progress_at > forwarded.max(self.view.entered_at);
        let since = forwarded.max(self.view.entered_at).max(self.monitor.saturated_at);
        others_pass.then(|| since.plus(self.allowed_wait()))
    }

    /// For how long a leader is watched before it is judged, at least.
    const fn watch_window(&self) -> u64 {
        self.configuration.parameters().monitor.wait_min
    }

    /// Judges the leader when a window is over.
    pub(crate) fn judge_leader(&mut self) {
        let window = self.watch_window();
        if !self.is_watching() || self.now.since(self.monitor.window_start) < window {
            return;
        }
        let censored = self.censored_at().is_some_and(|at| at <= self.now);
        if censored {
            reached(Probe::Censored);
        }
        let unfair = self.pool.is_overtaken(self.configuration.parameters().monitor.overtaken_max);
        let (leader, allowed) = (self.leader(), self.allowed_delay());
        self.monitor.judge(self.now, window, (leader, allowed), censored || unfair);
    }

    /// When a verdict may be due without anything arriving.
    pub(crate) fn judge_at(&self) -> Option<Monotonic> {
        if !self.is_watching() || self.monitor.suspects() {
            return None;
        }
        Some(self.censored_at()?.max(self.monitor.window_start.plus(self.watch_window())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;
    const WINDOW: u64 = 100 * MILLISECOND;
    const F: usize = 1;

    fn window(monitor: &mut Monitor, at: u64, leader: ReplicaIndex, delay: u64) {
        (0..4).for_each(|_| monitor.delays.add(delay));
        let allowed = monitor.allowed(leader, F, 5 * MILLISECOND, 1000 * MILLISECOND);
        monitor.judge(Monotonic(at.saturating_mul(WINDOW)), WINDOW, (leader, allowed), false);
    }

    #[test]
    fn a2_two_windows_in_a_row_are_a_suspicion_and_a_good_one_takes_it_back() {
        let mut monitor = Monitor::default();
        window(&mut monitor, 1, 0, 20 * MILLISECOND);
        assert!(!monitor.suspects());
        window(&mut monitor, 2, 0, MILLISECOND);
        window(&mut monitor, 3, 0, 20 * MILLISECOND);
        assert!(!monitor.suspects(), "not in a row");
        window(&mut monitor, 4, 0, 20 * MILLISECOND);
        assert!(monitor.suspects());
        window(&mut monitor, 5, 0, MILLISECOND);
        assert!(!monitor.suspects());
    }

    #[test]
    fn a2_load_is_no_fault_of_the_leader() {
        let mut monitor = Monitor::default();
        for height in 1..=8 {
            monitor.proposed(height, Monotonic(0));
            monitor.committed(height, Monotonic(30 * MILLISECOND));
        }
        for at in 1..=4 {
            window(&mut monitor, at, 0, 60 * MILLISECOND);
        }
        assert!(!monitor.suspects());
    }

    #[test]
    fn a7_what_every_leader_needs_is_allowed() {
        let mut monitor = Monitor::default();
        let mut at = 0;
        let mut left = 0;
        for leader in [0, 1, 2, 3, 0, 1, 2, 3] {
            for _ in 0..4 {
                at += 1;
                window(&mut monitor, at, leader, 100 * MILLISECOND);
                if monitor.suspects() {
                    monitor.view_left(Monotonic(at.saturating_mul(WINDOW)), true);
                    left += 1;
                    break;
                }
            }
        }
        assert!(left <= 2, "{left} views are left");
        // One that is far beyond the others still is none of them.
        let slow = monitor.allowed(0, F, 5 * MILLISECOND, 10_000 * MILLISECOND);
        assert!(slow <= 800 * MILLISECOND, "{slow}");
    }

    #[test]
    fn a2_liars_who_lead_first_do_not_excuse_each_other() {
        let mut monitor = Monitor::default();
        for leader in 0..2 {
            let before = u64::from(leader) * 10;
            for at in 1..=2 {
                (0..4).for_each(|_| monitor.delays.add(300 * MILLISECOND));
                let allowed = monitor.allowed(leader, 2, 5 * MILLISECOND, 1000 * MILLISECOND);
                let now = Monotonic((before + at).saturating_mul(WINDOW));
                monitor.judge(now, WINDOW, (leader, allowed), false);
            }
            assert!(monitor.suspects(), "leader {leader}");
            monitor.view_left(Monotonic((before + 3).saturating_mul(WINDOW)), true);
        }
    }

    #[test]
    fn patience_follows_what_requests_take_within_its_limits() {
        let mut monitor = Monitor::default();
        assert_eq!(monitor.patience(150, 1000), 1000);
        (0..8).for_each(|_| monitor.served(10));
        assert_eq!(monitor.patience(150, 1000), 150);
        (0..8).for_each(|_| monitor.served(100));
        assert_eq!(monitor.patience(150, 1000), 400);
        (0..32).for_each(|_| monitor.served(500));
        assert_eq!(monitor.patience(150, 1000), 1000);
    }
}
