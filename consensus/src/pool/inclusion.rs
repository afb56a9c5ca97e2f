//! What the leader's proposals hold of what waits, and what they leave out (hazard A3).
//!
//! Invariant: only a session's next envelope counts, once for each proposal, so that nobody weighs more by
//! sending more; a request can be overtaken only from when the leader surely has it, and only by what came
//! later than that. Other keys overtake it only as far as they are served beyond their turns, and its own key's
//! sessions only while its key does not crowd the pool: a flood of any key makes no correct leader look unfair,
//! and no more than a few requests of a key are forwarded at a time.

use std::collections::BTreeMap;

use quorate_crypto::PublicKey;
use quorate_protocol::{Envelope, Proposal};

use super::{Owner, Pool, Session, SessionKey, key_of};
use crate::input::Monotonic;
use crate::probe::{Probe, reached};

/// Of how many keys it is counted what overtakes them: those with the request that was forwarded first.
const VICTIMS_MAX: usize = 64;
/// Requests of one key that are forwarded and not proposed yet; others wait until one of them is.
const FORWARDED_PER_KEY_MAX: usize = 16;

impl Session {
    /// Since when its next envelope has waited to be proposed, if it does.
    fn unproposed_since(&self) -> Option<Monotonic> {
        self.since.filter(|_| self.projected <= self.next)
    }
}

impl Owner {
    /// Since when the next of its requests has waited that may be forwarded.
    pub(super) fn forwards_next(&self) -> Option<Monotonic> {
        let may = self.victims.len() < FORWARDED_PER_KEY_MAX;
        self.unforwarded.first().filter(|_| may).map(|(pending, _)| *pending)
    }

    /// When the first of its requests was forwarded that the leader has not proposed since.
    pub(super) fn forwarded_first(&self) -> Option<Monotonic> {
        self.victims.first().map(|(forwarded, _)| *forwarded)
    }
}

/// How many values of an ascending list are above this one.
fn above(values: &[Monotonic], least: Monotonic) -> usize {
    values.len().saturating_sub(values.partition_point(|value| *value <= least))
}

impl Pool {
    /// Takes a session out of the sets of what was not proposed, before it changes.
    pub(super) fn withdraw(&mut self, key: &SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.unproposed_since().is_none() {
            return;
        }
        let (pending, forwarded) = (session.pending, session.forwarded);
        self.amend(&key.1, |owner| match forwarded {
            Some(forwarded) => owner.victims.remove(&(forwarded, key.0)),
            None => owner.unforwarded.remove(&(pending, key.0)),
        });
    }

    /// Puts a session into the sets of what was not proposed, if it belongs there.
    pub(super) fn watch(&mut self, key: &SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.unproposed_since().is_none() {
            return;
        }
        let (pending, forwarded) = (session.pending, session.forwarded);
        self.amend(&key.1, |owner| match forwarded {
            Some(forwarded) => owner.victims.insert((forwarded, key.0)),
            None => owner.unforwarded.insert((pending, key.0)),
        });
    }

    /// Whether a session is in the sets in which it belongs.
    pub(super) fn is_watched_rightly(&self, key: &SessionKey, session: &Session) -> bool {
        let Some(owner) = self.owners.get(&key.1) else { return false };
        match (session.unproposed_since(), session.forwarded) {
            (None, _) => true,
            (Some(_), Some(forwarded)) => owner.victims.contains(&(forwarded, key.0)),
            (Some(_), None) => owner.unforwarded.contains(&(session.pending, key.0)),
        }
    }

    /// A proposal is here: notes what it holds, and what it overtakes. A request that came `grace` after another
    /// one was forwarded overtakes it. Returns since when the leader could have proposed each request that
    /// waited: its arrival, or when it was forwarded.
    pub(crate) fn include(&mut self, proposal: &Proposal, grace: u64) -> Vec<Monotonic> {
        let (mut since, mut arrived) = (Vec::new(), Vec::new());
        let mut by_key: BTreeMap<PublicKey, Vec<Monotonic>> = BTreeMap::new();
        for envelope in &proposal.envelopes {
            let session = self.sessions.get(&key_of(envelope));
            let next = session.filter(|session| session.next == envelope.body.first);
            let of_key = by_key.entry(envelope.body.key).or_default();
            if let Some((session, began)) =
                next.and_then(|session| Some((session, session.unproposed_since()?)))
            {
                arrived.push(began);
                of_key.push(began);
                since.push(session.forwarded.map_or(began, |forwarded| began.max(forwarded)));
            }
            self.project(envelope);
        }
        arrived.sort_unstable();
        by_key.values_mut().for_each(|times| times.sort_unstable());
        self.count_overtaking(&arrived, &by_key, grace);
        since
    }

    fn count_overtaking(
        &mut self,
        arrived: &[Monotonic],
        by_key: &BTreeMap<PublicKey, Vec<Monotonic>>,
        grace: u64,
    ) {
        let keys = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let victims: Vec<(Monotonic, PublicKey)> = self.victims.iter().take(VICTIMS_MAX).copied().collect();
        for (forwarded, key) in victims {
            let surely = forwarded.plus(grace);
            let own = by_key.get(&key).map_or(0, |times| above(times, surely));
            let others = above(arrived, surely).saturating_sub(own);
            if own.saturating_add(others) > 0 {
                reached(Probe::Overtaken);
            }
            // For each turn of its own key the others have had theirs.
            let turns = count(by_key.get(&key).map_or(0, Vec::len)).saturating_mul(keys);
            let Some(owner) = self.owners.get_mut(&key) else { continue };
            owner.overtaken = owner.overtaken.saturating_add(count(others)).saturating_sub(turns);
            let Some((_, id)) = owner.victims.first().copied() else { continue };
            if let Some(session) = self.sessions.get_mut(&(id, key)) {
                session.overtaken = session.overtaken.saturating_add(count(own));
            }
        }
    }

    /// Whether one of those that were forwarded first was overtaken by more than `most` requests and one of each
    /// other key, or of each session of its own one: a leader that takes turns never lets that happen.
    pub(crate) fn is_overtaken(&self, most: u32) -> bool {
        let limit = |turns: usize| most.saturating_add(u32::try_from(turns).unwrap_or(u32::MAX));
        self.victims.iter().take(VICTIMS_MAX).any(|(_, key)| {
            let Some(owner) = self.owners.get(key) else { return false };
            let first = owner.victims.first().and_then(|(_, id)| self.sessions.get(&(*id, *key)));
            owner.overtaken > limit(self.owners.len())
                || (!self.is_crowded(key)
                    && first.is_some_and(|session| session.overtaken > limit(owner.sessions)))
        })
    }

    /// When the first of those was forwarded that the leader has not proposed since.
    pub(crate) fn forwarded_first(&self) -> Option<Monotonic> {
        self.victims.first().map(|(forwarded, _)| *forwarded)
    }

    /// The leader has room again, and may have refused meanwhile what was forwarded. Returns what is forwarded once
    /// more at once, at most `max`; how long that has waited and what has overtaken it stays counted, or a leader
    /// could have it forgotten by a full proposal now and then. Only the keys that crowd the pool begin anew, since
    /// a correct leader refuses theirs.
    pub(crate) fn forward_again(&mut self, now: Monotonic, max: usize) -> Vec<Envelope> {
        let (crowded, others): (Vec<SessionKey>, Vec<SessionKey>) =
            self.forwarded_sessions().partition(|key| self.is_crowded(&key.1));
        for key in crowded {
            self.withdraw(&key);
            if let Some(session) = self.sessions.get_mut(&key) {
                (session.pending, session.forwarded, session.overtaken) = (now, None, 0);
            }
            self.watch(&key);
        }
        let entry = |key: &SessionKey| {
            let session = self.sessions.get(key)?;
            session.entries.get(&session.next)
        };
        others.iter().filter_map(entry).take(max).map(|entry| entry.envelope.value().clone()).collect()
    }

    /// Sessions whose envelope was forwarded and not proposed since, by key.
    fn forwarded_sessions(&self) -> impl Iterator<Item = SessionKey> {
        let owners = self.victims.iter().filter_map(|(_, key)| Some((*key, self.owners.get(key)?)));
        owners.flat_map(|(key, owner)| owner.victims.iter().map(move |(_, id)| (*id, key)))
    }

    /// Admissible envelopes that have waited for `patience` to be proposed and were not forwarded yet, at most
    /// `max`, of each key in turn; they count as forwarded from now on.
    pub(crate) fn take_unforwarded(&mut self, now: Monotonic, patience: u64, max: usize) -> Vec<Envelope> {
        let mut found = Vec::new();
        loop {
            let due = self.unforwarded.iter().take_while(|(pending, _)| now.since(*pending) >= patience);
            let keys: Vec<PublicKey> =
                due.take(max.saturating_sub(found.len())).map(|(_, key)| *key).collect();
            if keys.is_empty() {
                return found;
            }
            for owner in keys {
                let first = self.owners.get(&owner).and_then(|owner| owner.unforwarded.first());
                let Some(key) = first.map(|(_, id)| (*id, owner)) else { continue };
                self.withdraw(&key);
                if let Some(session) = self.sessions.get_mut(&key) {
                    session.forwarded = Some(now);
                    let entry = session.entries.get(&session.next);
                    found.extend(entry.map(|entry| entry.envelope.value().clone()));
                }
                self.watch(&key);
            }
        }
    }

    /// When the first of those began to wait that were not proposed and may be forwarded.
    pub(crate) fn oldest_unforwarded(&self) -> Option<Monotonic> {
        self.unforwarded.first().map(|(pending, _)| *pending)
    }
}
