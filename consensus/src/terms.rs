//! How long a leader leads: bounded terms, planned hand-over, and leaders that are gone.
//!
//! Invariants: a leader whose term is over proposes nothing more, lets what is in flight be committed, and
//! resigns, so that the next view begins on a committed base and needs no time-out; one that goes on is
//! suspected. A lost connection is a hint: it makes a replica suspect, and wait for less, in at most as many
//! views in a row as leaders may be dead at once.

use quorate_protocol::ReplicaIndex;

use crate::input::Monotonic;
use crate::probe::{Probe, reached};
use crate::replica::Replica;

/// A leader that has not handed over is suspected after this part of its term more.
const EXCESS_DIVISOR: u64 = 4;
/// A leader that hands over before its term is over waits for what is in flight during this part of the retry time.
const HASTE_DIVISOR: u64 = 8;

impl Replica {
    /// As leader, ends the term in good order when it is over.
    pub(crate) fn check_term(&mut self) {
        if !self.is_active() || !self.is_leader() || self.view.mute || self.view.resigned {
            return;
        }
        let next = self.configuration.leader(self.view.number.saturating_add(1));
        if self.view.retiring.is_none() && self.is_term_over(0) && !self.gone.contains(&next) {
            reached(Probe::TermOver);
            self.retire(self.configuration.timeouts().resend);
        }
        let Some(until) = self.view.retiring else { return };
        // What cannot be committed soon is for the next view.
        let late = until <= self.now;
        if self.view.chain.is_empty() || late {
            if !self.view.chain.is_empty() {
                reached(Probe::TermCutShort);
            }
            self.hand_over();
        }
    }

    /// As leader, proposes nothing more in the view at hand and gives it up once it has committed what is in flight, in
    /// this time at most, so that little of it has to be proposed again.
    pub(crate) fn retire(&mut self, patience: u64) {
        if !self.is_active() || self.view.mute {
            // It cannot get anything committed.
            return self.hand_over();
        }
        let until = self.now.plus(patience);
        if self.is_leader() && self.view.retiring.is_none_or(|known| until < known) {
            self.view.retiring = Some(until);
            self.changed = true;
        }
    }

    /// How long that takes where the next view is wanted soon.
    pub(crate) fn haste(&self) -> u64 {
        self.configuration.timeouts().resend.checked_div(HASTE_DIVISOR).unwrap_or(0)
    }

    /// When a leader that has something in flight gives up its view nevertheless.
    pub(crate) fn retire_at(&self) -> Option<Monotonic> {
        self.view.retiring.filter(|_| self.is_active() && self.is_leader() && !self.view.resigned)
    }

    /// Whether the term of the view at hand was over some time ago: heights and time from the view's base on,
    /// plus this part of both if it is not 0. Time counts only while there is work.
    fn is_term_over(&self, excess_divisor: u64) -> bool {
        let with_excess = |term: u64| term.saturating_add(term.checked_div(excess_divisor).unwrap_or(0));
        // Those who do not lead see a height later than the leader, by up to the window.
        let lag = if excess_divisor == 0 { 0 } else { self.configuration.window().saturating_mul(2) };
        let heights = with_excess(self.configuration.parameters().monitor.term_heights).saturating_add(lag);
        let led = self.committed.height.saturating_sub(self.view.base.0);
        let busy = !self.view.chain.is_empty() || self.pool.oldest().is_some();
        let time = with_excess(self.configuration.timeouts().term);
        led >= heights || (busy && self.now.since(self.view.entered_at) >= time)
    }

    /// Whether another leader should have handed over by now.
    pub(crate) fn is_term_exceeded(&self) -> bool {
        let next = self.configuration.leader(self.view.number.saturating_add(1));
        let exceeded = !self.is_leader() && self.is_term_over(EXCESS_DIVISOR) && !self.gone.contains(&next);
        if exceeded {
            reached(Probe::TermExceeded);
        }
        exceeded
    }

    /// The connection with a peer is lost.
    pub(crate) fn on_disconnected(&mut self, peer: ReplicaIndex) {
        if peer != self.configuration.me() && self.configuration.members().get(peer).is_some() {
            self.gone.insert(peer);
            self.fetches.lost(peer, self.now);
            self.catch_up.lost(peer, self.now);
        }
    }

    /// Whether the leader of the view at hand cannot be reached, as far as that may count.
    pub(crate) fn is_leader_gone(&self) -> bool {
        let f = u32::try_from(self.configuration.members().f()).unwrap_or(0);
        self.gone.contains(&self.leader()) && self.failed_views < f
    }
}
