//! What the leader's proposals hold of what waits, and what they leave out (hazard A3).
//!
//! Invariant: only a session's next envelope counts, once for each proposal, so that nobody weighs more by
//! sending more; a request can be overtaken only from when the leader surely has it, and only by what came
//! later than that.

use quorate_protocol::{Envelope, Proposal};

use super::{Pool, Session, SessionKey, key_of};
use crate::input::Monotonic;
use crate::probe::{Probe, reached};

/// Of how many requests that wait it is counted what overtakes them: those that wait longest.
const VICTIMS_MAX: usize = 64;

impl Session {
    /// Since when its next envelope has waited to be proposed, if it does.
    fn unproposed_since(&self) -> Option<Monotonic> {
        self.since.filter(|_| self.projected <= self.next)
    }
}

impl Pool {
    /// Takes a session out of the sets of what was not proposed, before it changes.
    pub(super) fn withdraw(&mut self, key: &SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        if let Some(since) = session.unproposed_since() {
            self.unproposed.remove(&(since, *key));
            if let Some(forwarded) = session.forwarded {
                self.victims.remove(&(forwarded, *key));
            }
        }
    }

    /// Puts a session into the sets of what was not proposed, if it belongs there.
    pub(super) fn watch(&mut self, key: &SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        if let Some(since) = session.unproposed_since() {
            self.unproposed.insert((since, *key));
            self.victims.extend(session.forwarded.map(|forwarded| (forwarded, *key)));
        }
    }

    /// Whether a session is in the sets in which it belongs.
    pub(super) fn is_watched_rightly(&self, key: &SessionKey, session: &Session) -> bool {
        let victim = session.unproposed_since().and(session.forwarded);
        session.unproposed_since().is_none_or(|since| self.unproposed.contains(&(since, *key)))
            && victim.is_none_or(|forwarded| self.victims.contains(&(forwarded, *key)))
    }

    /// A proposal is here: notes what it holds, and what it overtakes. A request that came `grace` after another
    /// one was forwarded overtakes it. Returns since when the leader could have proposed each request that
    /// waited: its arrival, or when it was forwarded.
    pub(crate) fn include(&mut self, proposal: &Proposal, grace: u64) -> Vec<Monotonic> {
        let mut since = Vec::new();
        let mut arrived = Vec::new();
        for envelope in &proposal.envelopes {
            let session = self.sessions.get(&key_of(envelope));
            let next = session.filter(|session| session.next == envelope.body.first);
            if let Some((session, began)) =
                next.and_then(|session| Some((session, session.unproposed_since()?)))
            {
                arrived.push(began);
                since.push(session.forwarded.map_or(began, |forwarded| began.max(forwarded)));
            }
            self.project(envelope);
        }
        arrived.sort_unstable();
        for (forwarded, key) in self.victims.iter().take(VICTIMS_MAX) {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            let surely = forwarded.plus(grace);
            let later = arrived.len().saturating_sub(arrived.partition_point(|at| *at <= surely));
            if later > 0 {
                reached(Probe::Overtaken);
            }
            session.overtaken = session.overtaken.saturating_add(u32::try_from(later).unwrap_or(u32::MAX));
        }
        since
    }

    /// Whether one of those that were forwarded first was overtaken by more than `most` requests and one of each
    /// session: a leader that takes sessions in turn never lets that happen.
    pub(crate) fn is_overtaken(&self, most: u32) -> bool {
        let limit = most.saturating_add(u32::try_from(self.sessions.len()).unwrap_or(u32::MAX));
        let victims = self.victims.iter().take(VICTIMS_MAX);
        victims.filter_map(|(_, key)| self.sessions.get(key)).any(|session| session.overtaken > limit)
    }

    /// When the first of those was forwarded that the leader has not proposed since.
    pub(crate) fn forwarded_first(&self) -> Option<Monotonic> {
        self.victims.first().map(|(forwarded, _)| *forwarded)
    }

    /// Admissible envelopes that have waited for `patience` to be proposed and were not forwarded yet, at most
    /// `max`; they count as forwarded from now on.
    pub(crate) fn take_unforwarded(&mut self, now: Monotonic, patience: u64, max: usize) -> Vec<Envelope> {
        let mut found = Vec::new();
        for (since, key) in self.unproposed.iter().take(max) {
            if now.since(*since) < patience {
                break;
            }
            let Some(session) = self.sessions.get_mut(key) else { continue };
            let Some(entry) = session.entries.get(&session.next) else { continue };
            if session.forwarded.is_none() {
                session.forwarded = Some(now);
                self.victims.insert((now, *key));
                found.push(entry.envelope.value().clone());
            }
        }
        found
    }

    /// When the first of those began to wait that were not proposed and not forwarded, among the first `max`.
    pub(crate) fn oldest_unforwarded(&self, max: usize) -> Option<Monotonic> {
        let unforwarded = |key: &SessionKey| self.sessions.get(key).is_some_and(|s| s.forwarded.is_none());
        self.unproposed.iter().take(max).find(|(_, key)| unforwarded(key)).map(|(since, _)| *since)
    }
}
