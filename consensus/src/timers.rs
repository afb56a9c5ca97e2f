//! Time: when the leader is suspected, what is sent again, and the one timer that the driver keeps.
//!
//! Invariants: a time-out only ever makes a replica suspect, ask or repeat; every wait is doubled at most up
//! to a cap (hazard VC13); whenever something is unfinished, a timer is set.

use quorate_protocol::view_change::Suspicion;
use quorate_protocol::{Envelope, PeerMessage, PrePrepare};

use crate::configuration::Timeouts;
use crate::effect::Effect;
use crate::input::Monotonic;
use crate::mutant::{Mutant, broken};
use crate::probe::{Probe, reached};
use crate::replica::Replica;
use crate::vote::vote_messages;

/// Envelopes forwarded to the leader in one step.
const FORWARDS_MAX: usize = 16;
/// What waits for a proposal is forwarded to the leader after this part of the request time-out.
const FORWARD_DIVISOR: u64 = 4;
/// A replica that runs later than it asked for by this part of the shortest time-out has stood still itself.
const STALL_DIVISOR: u64 = 4;
/// A NEW-VIEW of a leader that cannot be reached is waited for during this part of the usual time.
const UNREACHABLE_DIVISOR: u64 = 8;
/// Doublings after which every cap is reached.
const DOUBLINGS_MAX: u32 = 16;
/// Nanoseconds by which a timer for batch time is set late, so that it finds the time reached.
const TICK_SLACK: u64 = 1;
/// Records of committed heights wait for another persist for this part of the retry time at most.
const FLUSH_DIVISOR: u64 = 8;

/// Instants that the timer depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    /// What the driver was asked for.
    set: Option<Monotonic>,
    /// When unfinished work is sent again.
    resend_at: Option<Monotonic>,
    announce_at: Monotonic,
    /// When a height was committed or a view entered.
    pub progress_at: Monotonic,
    /// When this replica last noticed that it had stood still: what it did not do meanwhile nobody else owes.
    stalled_at: Monotonic,
    /// Since when heights are in flight without a commit.
    in_flight_since: Option<Monotonic>,
    /// When NEW-VIEW is overdue; set once a quorum of VIEW-CHANGEs is known.
    pub new_view_at: Option<Monotonic>,
}

impl Timers {
    /// A step begins: notes if it is so late that the machine must have stood still.
    pub(crate) fn wake(&mut self, now: Monotonic, timeouts: &Timeouts) {
        let stall = timeouts.request_min.checked_div(STALL_DIVISOR).unwrap_or(0);
        if self.set.is_some_and(|at| now.since(at) > stall) {
            reached(Probe::StoodStill);
            self.stalled_at = now;
        }
    }

    /// The driver's timer fired, perhaps a little early: it is asked for again in any case.
    pub(crate) const fn fired(&mut self) {
        self.set = None;
    }

    /// A height was committed.
    pub(crate) fn progress(&mut self, now: Monotonic, timeouts: &Timeouts) {
        self.progress_at = now;
        self.in_flight_since = None;
        self.resend_at = self.resend_at.map(|_| now.plus(timeouts.resend));
    }

    /// A view was entered, or a VIEW-CHANGE issued.
    pub(crate) fn view_changed(&mut self, now: Monotonic, timeouts: &Timeouts) {
        self.progress(now, timeouts);
        self.new_view_at = None;
    }

    /// Everything is to be repeated in this step.
    pub(crate) const fn repeat_now(&mut self, now: Monotonic) {
        self.resend_at = Some(now);
        self.announce_at = now;
    }
}

impl Replica {
    /// A time-out, doubled for each view that failed since back-off was last not needed, but not for the first f: so
    /// many leaders in a row may be dead, and each costs the same (hazard VC21).
    pub(crate) fn back_off(&self, base: u64) -> u64 {
        let dead = u32::try_from(self.configuration.members().f()).unwrap_or(DOUBLINGS_MAX);
        let doublings = self.failed_views.saturating_sub(dead).min(DOUBLINGS_MAX);
        if broken(Mutant::BackOffOff) {
            return base;
        }
        if doublings > 0 {
            reached(Probe::BackedOff);
        }
        let doubled = base.saturating_mul(1_u64 << doublings);
        doubled.min(self.configuration.timeouts().back_off_max.max(base))
    }

    /// How long a request may wait: from what requests took lately, without back-off.
    pub(crate) fn patience(&self) -> u64 {
        let Timeouts { request_min, request, .. } = *self.configuration.timeouts();
        self.monitor.patience(request_min, request)
    }

    /// How long a NEW-VIEW may take.
    pub(crate) fn new_view_patience(&self) -> u64 {
        let Timeouts { request_min, new_view, .. } = *self.configuration.timeouts();
        let patience = self.back_off(self.monitor.patience(request_min, new_view));
        if !self.is_leader_gone() {
            return patience;
        }
        reached(Probe::LessPatience);
        patience.checked_div(UNREACHABLE_DIVISOR).unwrap_or(patience)
    }

    /// When the leader of the view at hand has kept something waiting too long. What waits while its proposals
    /// have no room is for the monitor to judge.
    fn suspicion_at(&self) -> Option<Monotonic> {
        let awaited = self.awaited.map(|(_, since)| since);
        let oldest =
            [self.pool.oldest(), awaited, self.timers.in_flight_since].into_iter().flatten().min()?;
        Some(self.waits_since(oldest).plus(self.back_off(self.patience())))
    }

    /// Since when the leader of the view at hand owes what waits since then.
    pub(crate) fn waits_since(&self, since: Monotonic) -> Monotonic {
        since.max(self.view.entered_at).max(self.timers.stalled_at).max(self.monitor.saturated_at())
    }

    /// Why the leader of the view at hand is suspected at this moment, beyond what stays a reason for the
    /// whole view.
    pub(crate) fn reason_to_suspect(&self) -> Option<Suspicion> {
        if self.suspicion_at().is_some_and(|at| at <= self.now) {
            Some(Suspicion::Timeout)
        } else if self.monitor.suspects() || self.is_term_exceeded() {
            Some(Suspicion::Monitor)
        } else if self.is_leader_gone() {
            reached(Probe::LeaderGone);
            Some(Suspicion::Disconnected)
        } else {
            None
        }
    }

    /// Suspicion while a view runs, patience while one is being prepared.
    pub(crate) fn check_timers(&mut self) {
        if self.view.chain.is_empty() && self.view.settled {
            self.timers.in_flight_since = None;
        } else if self.timers.in_flight_since.is_none() {
            self.timers.in_flight_since = Some(self.now);
        }
        if self.view.entered {
            self.judge_leader();
            match (self.suspicion, self.reason_to_suspect()) {
                // These last as long as the view.
                (Some(Suspicion::Restarted | Suspicion::Fault), _) => {}
                (Some(_), None) => self.revoke(),
                (_, Some(reason)) => self.suspect(reason),
                (None, None) => {}
            }
        } else {
            self.check_new_view_timer();
        }
    }

    /// Repeats what is due and sets the timer. Runs once, at the end of a step.
    pub(crate) fn run_timers(&mut self) {
        if self.flush_at().is_some_and(|at| at <= self.now) {
            reached(Probe::FlushedAlone);
            self.staged.flush = true;
        }
        if self.halted.is_some() {
            return;
        }
        let timeouts = *self.configuration.timeouts();
        if self.timers.announce_at <= self.now {
            self.timers.announce_at = self.now.plus(timeouts.announce);
            let announcement = self.announcement();
            self.broadcast(announcement);
            // Not with what is sent again, which waits while heights are committed: the leader that has to give up
            // its view for this replica may not be allowed to yet (rule R2).
            if let Some(reason) = self.suspicion.filter(|_| self.view.entered) {
                self.tell_suspicion(reason);
            }
        }
        if self.is_unfinished() {
            let due = *self.timers.resend_at.get_or_insert(self.now.plus(timeouts.resend));
            if due <= self.now {
                self.timers.resend_at = Some(self.now.plus(timeouts.resend));
                if !broken(Mutant::RetriesOff) {
                    self.repeat();
                }
            }
        } else {
            self.timers.resend_at = None;
        }
        self.forward();
        self.set_timer();
    }

    fn is_unfinished(&self) -> bool {
        !self.view.entered
            || self.suspicion.is_some()
            || !self.view.chain.is_empty()
            || !self.decided.is_empty()
            || !self.view.settled
    }

    /// Sends again what others may have missed: VIEW-CHANGE or suspicion, proposals, votes.
    fn repeat(&mut self) {
        self.repeat_view_change();
        for message in vote_messages(self.votes_to_repeat()) {
            self.broadcast(message);
        }
        for message in self.proposals_to_repeat() {
            self.broadcast(message);
        }
    }

    /// Own PRE-PREPAREs of the view at hand above the committed height.
    pub(crate) fn proposals_to_repeat(&self) -> Vec<PeerMessage> {
        if !self.is_active() || !self.is_leader() || self.view.mute || self.view.resigned {
            return Vec::new();
        }
        let kept = self.view.pre_prepares.values();
        kept.map(|kept| PeerMessage::PrePrepare(PrePrepare::clone(&kept.message))).collect()
    }

    /// Passes on to the leader what has waited for a part of its time to be proposed.
    fn forward(&mut self) {
        if !self.is_active() || self.is_leader() {
            return;
        }
        let patience = self.forward_patience();
        let envelopes = self.pool.take_unforwarded(self.now, patience, FORWARDS_MAX);
        self.forward_to_leader(envelopes);
    }

    /// The leader has room again: a pool that was full may have refused what was forwarded.
    pub(crate) fn forward_again(&mut self) {
        let envelopes = self.pool.forward_again(self.now, FORWARDS_MAX);
        self.forward_to_leader(envelopes);
    }

    fn forward_to_leader(&mut self, envelopes: Vec<Envelope>) {
        let leader = self.leader();
        for envelope in envelopes.into_iter().filter(|_| !broken(Mutant::ForwardOff)) {
            self.send(leader, PeerMessage::Forward(envelope));
        }
    }

    /// When an envelope is next due to be forwarded.
    fn forward_at(&self) -> Option<Monotonic> {
        if !self.is_active() || self.is_leader() {
            return None;
        }
        let oldest = self.pool.oldest_unforwarded()?;
        Some(oldest.plus(self.forward_patience()))
    }

    fn forward_patience(&self) -> u64 {
        self.patience().checked_div(FORWARD_DIVISOR).unwrap_or(0)
    }

    /// When batch time reaches what the state waits for, on the monotonic clock.
    fn tick_at(&self) -> Option<Monotonic> {
        // One that is due and was not proposed waits for a commit, not for time.
        let at = self.wake_at().filter(|at| self.watches_ticks() && *at > self.wall)?;
        Some(self.now.plus(at.0.saturating_sub(self.wall.0).saturating_add(TICK_SLACK)))
    }

    /// When records that wait for another persist go to the disk without one.
    fn flush_at(&self) -> Option<Monotonic> {
        let patience = self.configuration.timeouts().resend.checked_div(FLUSH_DIVISOR).unwrap_or(0);
        self.staged.since.map(|since| since.plus(patience))
    }

    fn set_timer(&mut self) {
        let view = if self.view.entered {
            let lasts = matches!(self.suspicion, Some(Suspicion::Restarted | Suspicion::Fault));
            self.suspicion_at().filter(|at| !lasts && *at > self.now)
        } else {
            self.timers.new_view_at
        };
        let next = [
            view,
            Some(self.timers.announce_at),
            self.timers.resend_at,
            self.fetches.next_at(),
            self.catch_up_at(),
            self.dropped_at(),
            self.forward_at(),
            self.judge_at(),
            self.tick_at(),
            self.retire_at(),
            self.flush_at().filter(|_| !self.staged.is_due()),
        ]
        .into_iter()
        .flatten()
        .min();
        // Never in the past, or the driver would spin (hazard RX3).
        let next = next.map(|at| at.max(self.now.plus(1)));
        if let Some(at) = next
            && self.timers.set != Some(at)
        {
            self.timers.set = Some(at);
            self.effects.push(Effect::SetTimer { at });
        }
    }
}
