//! Envelopes that wait to be committed, and their inclusion timers (rule R8).
//!
//! Invariants: the pool is bounded overall, per principal's key and per session, and whoever holds less than
//! others finds room (`room`); keys take turns, and in each key's turn its sessions do (`turns`); a session is
//! known by (identifier, key), so nobody can occupy another's numbers; the timer of a session runs only while
//! the envelope that its committed state admits next is here, and stops when any envelope consumes that number.

mod inclusion;
mod room;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_crypto::{Certificate, Hash, PublicKey};
use quorate_protocol::{BatchTime, Envelope, Proposal, SessionId};

use crate::configuration::PoolBounds;
use crate::door::{KnownEnvelopes, Verified};
use crate::input::Monotonic;
use crate::probe::{Probe, reached};
use crate::replica::Replica;

pub(crate) use turns::Room;

/// A session, under the key that its envelopes name.
pub(crate) type SessionKey = (SessionId, PublicKey);

fn key_of(envelope: &Envelope) -> SessionKey {
    (envelope.body.session, envelope.body.key)
}

#[derive(Clone, Debug)]
struct Entry {
    envelope: Arc<Verified<Envelope>>,
    /// What it takes up of the pool's bytes (`room`).
    charge: usize,
}

#[derive(Clone, Debug, Default)]
struct Session {
    /// Next number in committed state.
    next: u64,
    /// Number from which the leader has not proposed yet in this view; at or above `next`.
    projected: u64,
    /// The first number from `next` on that no envelope here follows up to: what is above waits for a gap.
    reach: u64,
    /// Its place in the queue of its key, while the envelope at `projected` is here.
    ticket: Option<u64>,
    /// Since when the envelope at `next` has been here.
    since: Option<Monotonic>,
    /// Since when that envelope is due to be forwarded: from `since`, or later if it has to be once more.
    pending: Monotonic,
    /// When that envelope was forwarded to the leader of the view at hand.
    forwarded: Option<Monotonic>,
    /// How many requests of its own key have overtaken it since then.
    overtaken: u32,
    entries: BTreeMap<u64, Entry>,
}

impl Session {
    /// Follows up the envelopes from `next` on.
    fn extend(&mut self) {
        self.reach = self.reach.max(self.next);
        while let Some(entry) = self.entries.get(&self.reach) {
            self.reach = entry.envelope.value().next();
        }
    }

    fn is_ready(&self) -> bool {
        self.entries.contains_key(&self.projected)
    }

    /// Whether anything here waits for a number that is not here.
    fn is_gapped(&self) -> bool {
        self.entries.last_key_value().is_some_and(|(last, _)| *last >= self.reach)
    }
}

/// What is here under one key.
#[derive(Clone, Debug, Default)]
struct Owner {
    /// Sessions with envelopes here.
    sessions: usize,
    /// What these take up together.
    charge: usize,
    /// Its place in the queue of keys, while any of its sessions is ready.
    ticket: Option<u64>,
    /// Sessions whose next envelope to propose is here, in the order of their turns.
    queue: BTreeMap<u64, SessionId>,
    /// Sessions with envelopes that wait for a gap.
    gapped: BTreeSet<SessionId>,
    /// Sessions whose next envelope the leader has not proposed and that was not forwarded, by since when.
    unforwarded: BTreeSet<(Monotonic, SessionId)>,
    /// Those whose was forwarded, by when.
    victims: BTreeSet<(Monotonic, SessionId)>,
    /// How many requests of other keys have overtaken the first of these, beyond their turns.
    overtaken: u32,
}

/// The pool.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    bounds: PoolBounds,
    sessions: BTreeMap<SessionKey, Session>,
    owners: BTreeMap<PublicKey, Owner>,
    envelopes: usize,
    /// What all envelopes take up.
    charge: usize,
    /// Sessions with a running timer, by its start.
    waiting: BTreeSet<(Monotonic, SessionKey)>,
    /// Keys by what they take up.
    loads: BTreeSet<(usize, PublicKey)>,
    /// Keys by the first of their sessions that may be forwarded, and by the first of their victims.
    unforwarded: BTreeSet<(Monotonic, PublicKey)>,
    victims: BTreeSet<(Monotonic, PublicKey)>,
    /// Keys with ready sessions, in the order of their turns.
    turns: BTreeMap<u64, PublicKey>,
    /// Tickets handed out.
    tickets: u64,
    /// Every envelope by the end of its validity.
    expiry: BTreeSet<(BatchTime, SessionKey, u64)>,
}

impl Pool {
    pub(crate) const fn new(bounds: PoolBounds) -> Self {
        Self {
            bounds,
            sessions: BTreeMap::new(),
            owners: BTreeMap::new(),
            envelopes: 0,
            charge: 0,
            waiting: BTreeSet::new(),
            loads: BTreeSet::new(),
            unforwarded: BTreeSet::new(),
            victims: BTreeSet::new(),
            turns: BTreeMap::new(),
            tickets: 0,
            expiry: BTreeSet::new(),
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.envelopes
    }

    fn entry(&self, envelope: &Envelope) -> Option<&Entry> {
        self.sessions.get(&key_of(envelope))?.entries.get(&envelope.body.first)
    }

    /// Whether exactly this envelope is here; it is told by its signature.
    pub(crate) fn contains(&self, envelope: &Envelope) -> bool {
        self.entry(envelope).is_some_and(|entry| entry.envelope.value().signature == envelope.signature)
    }

    /// Whether an envelope would be added, which is known before its signature is: the caller knows its
    /// session's next committed number.
    pub(crate) fn would_take(&self, envelope: &Envelope, next: u64) -> bool {
        let (key, first) = (key_of(envelope), envelope.body.first);
        let bytes = borsh::object_length(envelope).unwrap_or(usize::MAX);
        let next = next.max(self.sessions.get(&key).map_or(0, |session| session.next));
        first >= next && self.place(&key, (first, next), bytes).is_some()
    }

    /// Adds an envelope whose session's next committed number is `next`. The first one seen under a number
    /// stays. Returns whether it was added.
    pub(crate) fn insert(&mut self, envelope: Verified<Envelope>, next: u64, now: Monotonic) -> bool {
        let (key, first) = (key_of(envelope.value()), envelope.value().body.first);
        let bytes = borsh::object_length(envelope.value()).unwrap_or(usize::MAX);
        if self.sessions.get(&key).is_some_and(|session| session.next < next) {
            self.advance(&key.0, next, now);
        }
        let next = next.max(self.sessions.get(&key).map_or(0, |session| session.next));
        if first < next {
            return false;
        }
        let Some(leaving) = self.place(&key, (first, next), bytes) else {
            reached(Probe::PoolRefused);
            return false;
        };
        for (other, number) in leaving {
            reached(Probe::PoolDisplaced);
            self.remove(&other, number);
            self.refresh(&other, now);
        }
        let charge = self.charge_of(bytes);
        if !self.sessions.contains_key(&key) {
            self.amend(&key.1, |owner| owner.sessions = owner.sessions.saturating_add(1));
        }
        let session = self.sessions.entry(key).or_default();
        session.next = next;
        session.projected = session.projected.max(next);
        let valid_until = envelope.value().body.valid_until;
        session.entries.insert(first, Entry { envelope: Arc::new(envelope), charge });
        self.envelopes = self.envelopes.saturating_add(1);
        self.charge = self.charge.saturating_add(charge);
        self.amend(&key.1, |owner| owner.charge = owner.charge.saturating_add(charge));
        self.expiry.insert((valid_until, key, first));
        self.refresh(&key, now);
        true
    }

    /// Removes one envelope; the caller refreshes its session.
    fn remove(&mut self, key: &SessionKey, first: u64) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(entry) = session.entries.remove(&first) else { return };
        if first >= session.next {
            session.reach = session.reach.min(first);
        }
        self.envelopes = self.envelopes.saturating_sub(1);
        self.charge = self.charge.saturating_sub(entry.charge);
        self.amend(&key.1, |owner| owner.charge = owner.charge.saturating_sub(entry.charge));
        self.expiry.remove(&(entry.envelope.value().body.valid_until, *key, first));
    }

    /// Changes what is known of a key, and keeps the indices over keys in line.
    fn amend<T>(&mut self, key: &PublicKey, change: impl FnOnce(&mut Owner) -> T) {
        let owner = self.owners.entry(*key).or_default();
        self.loads.remove(&(owner.charge, *key));
        let before = (owner.forwards_next(), owner.forwarded_first());
        change(owner);
        let after = (owner.forwards_next(), owner.forwarded_first());
        if after.0 != before.0 {
            before.0.map(|at| self.unforwarded.remove(&(at, *key)));
            self.unforwarded.extend(after.0.map(|at| (at, *key)));
        }
        if after.1 != before.1 {
            before.1.map(|at| self.victims.remove(&(at, *key)));
            self.victims.extend(after.1.map(|at| (at, *key)));
        }
        if owner.victims.is_empty() {
            owner.overtaken = 0;
        }
        if owner.sessions > 0 {
            self.loads.insert((owner.charge, *key));
        } else {
            self.owners.remove(key);
        }
    }

    /// Brings a session's timer and indices in line with its entries, and drops it when it is empty.
    fn refresh(&mut self, key: &SessionKey, now: Monotonic) {
        self.withdraw(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.extend();
        let admissible = session.entries.contains_key(&session.next);
        match (session.since, admissible) {
            (None, true) => {
                session.since = Some(now);
                session.pending = now;
                session.forwarded = None;
                session.overtaken = 0;
                self.waiting.insert((now, *key));
            }
            (Some(since), false) => {
                session.since = None;
                self.waiting.remove(&(since, *key));
            }
            _ => {}
        }
        let (is_gapped, is_empty) = (session.is_gapped(), session.entries.is_empty());
        let known = self.owners.get(&key.1).is_some_and(|owner| owner.gapped.contains(&key.0));
        if known != is_gapped {
            self.amend(&key.1, |owner| {
                if is_gapped { owner.gapped.insert(key.0) } else { owner.gapped.remove(&key.0) }
            });
        }
        self.queue(key);
        self.watch(key);
        if is_empty {
            self.sessions.remove(key);
            self.amend(&key.1, |owner| owner.sessions = owner.sessions.saturating_sub(1));
        }
    }

    /// Stops the session's timer, whatever it waits for now; says when it began.
    fn stop_timer(&mut self, key: &SessionKey) -> Option<Monotonic> {
        self.withdraw(key);
        let since = self.sessions.get_mut(key)?.since.take()?;
        self.waiting.remove(&(since, *key));
        Some(since)
    }

    /// Takes note of a committed batch: what it holds is out, what it consumed is out, what can never be
    /// executed at a later time is out. Returns since when what it consumed had waited.
    pub(crate) fn commit(
        &mut self,
        proposal: &Proposal,
        advanced: &[(SessionId, u64)],
        time: BatchTime,
        now: Monotonic,
    ) -> Vec<Monotonic> {
        let mut served = Vec::new();
        for (id, next) in advanced {
            served.extend(self.advance(id, *next, now));
        }
        for envelope in &proposal.envelopes {
            let key = key_of(envelope);
            if self.contains(envelope) {
                self.remove(&key, envelope.body.first);
            }
            // If it consumed nothing, what was projected on top of it must be proposed again.
            self.withdraw(&key);
            if let Some(session) = self.sessions.get_mut(&key)
                && session.next <= envelope.body.first
            {
                session.projected = session.next;
            }
            self.refresh(&key, now);
        }
        self.expire(time, now);
        served
    }

    /// A session's next committed number has risen. Returns since when what it consumed had waited.
    fn advance(&mut self, id: &SessionId, next: u64, now: Monotonic) -> Option<Monotonic> {
        let first = (*id, PublicKey([0; quorate_crypto::HASH_BYTES]));
        let last = (*id, PublicKey([u8::MAX; quorate_crypto::HASH_BYTES]));
        let keys: Vec<SessionKey> = self.sessions.range(first..=last).map(|(key, _)| *key).collect();
        let mut served = None;
        for key in keys {
            if self.sessions.get(&key).is_none_or(|session| next <= session.next) {
                continue;
            }
            served = served.max(self.stop_timer(&key));
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            session.next = next;
            session.projected = session.projected.max(next);
            let consumed: Vec<u64> = session.entries.range(..next).map(|(first, _)| *first).collect();
            consumed.iter().for_each(|first| self.remove(&key, *first));
            self.refresh(&key, now);
        }
        served
    }

    /// Drops what every later batch would skip as expired.
    fn expire(&mut self, time: BatchTime, now: Monotonic) {
        while let Some((valid_until, key, first)) = self.expiry.first().copied() {
            if valid_until >= time {
                break;
            }
            reached(Probe::PoolExpired);
            self.remove(&key, first);
            self.expiry.remove(&(valid_until, key, first));
            self.refresh(&key, now);
        }
    }

    /// When the longest-running timer began.
    pub(crate) fn oldest(&self) -> Option<Monotonic> {
        self.waiting.first().map(|(since, _)| *since)
    }

    /// Checks bounds and indices.
    pub(crate) fn is_consistent(&self) -> bool {
        let count: usize = self.sessions.values().map(|session| session.entries.len()).sum();
        let charge: usize = self.owners.values().map(|owner| owner.charge).sum();
        let sessions: usize = self.owners.values().map(|owner| owner.sessions).sum();
        let queued: usize = self.owners.values().map(|owner| owner.queue.len()).sum();
        let watched: usize = self
            .owners
            .values()
            .map(|owner| owner.unforwarded.len().saturating_add(owner.victims.len()))
            .sum();
        let timed = self.sessions.iter().all(|(key, session)| {
            let admissible = session.entries.contains_key(&session.next);
            admissible == session.since.is_some_and(|since| self.waiting.contains(&(since, *key)))
                && session.projected >= session.next
                && !session.entries.is_empty()
                && self.is_watched_rightly(key, session)
                && self.is_queued_rightly(key, session)
        });
        timed
            && count == self.envelopes
            && count == self.expiry.len()
            && count <= self.bounds.envelopes
            && charge == self.charge
            && charge <= self.bounds.bytes
            && sessions == self.sessions.len()
            && queued <= sessions
            && watched <= self.waiting.len()
            && self.waiting.len() <= sessions
            && self.loads.len() == self.owners.len()
            && self.turns.len() <= self.owners.len()
            && self.owners.values().all(|owner| owner.charge <= self.bound_of_owner())
    }
}

impl KnownEnvelopes for Replica {
    fn digest_of_known(&self, envelope: &Envelope) -> Option<Hash> {
        let known = &self.pool.entry(envelope)?.envelope;
        (known.value() == envelope).then(|| known.digest())
    }

    fn is_known_certificate(&self, certificate: &Certificate) -> bool {
        let height = &certificate.height;
        let held = [self.claim.as_ref(), self.committed.certificate.as_ref(), self.view.base_certificate()];
        let held = held.into_iter().chain([self.decided.get(height), self.view.certificates.get(height)]);
        held.flatten().any(|known| known == certificate)
    }
}

impl Replica {
    /// Whether a request with this envelope could have any effect; `next` as in [`crate::Input::Request`].
    /// Costs no signature, so whoever has one to check asks first (hazard RX9).
    #[must_use]
    pub fn wants(&self, envelope: &Envelope, next: Option<u64>) -> bool {
        let expired = envelope.body.valid_until < self.committed.header.time;
        let Some(next) = next else { return false };
        !expired && self.halted.is_none() && self.pool.would_take(envelope, next)
    }

    /// An envelope of a client.
    pub(crate) fn on_request(&mut self, envelope: Verified<Envelope>, next: Option<u64>) {
        let expired = envelope.value().body.valid_until < self.committed.header.time;
        if let Some(next) = next
            && !expired
            && self.halted.is_none()
        {
            self.changed |= self.pool.insert(envelope, next, self.now);
        }
    }
}
