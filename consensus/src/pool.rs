//! Envelopes that wait to be committed, and their inclusion timers (rule R8).
//!
//! Invariants: the pool is bounded overall and per session; a session is known by (identifier, key), so
//! nobody can occupy another's numbers; the timer of a session runs only while the envelope that its
//! committed state admits next is here, and stops when any envelope consumes that number.

mod inclusion;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_crypto::{Certificate, Hash, PublicKey};
use quorate_protocol::{BatchTime, Envelope, Proposal, SessionId};

use crate::configuration::PoolBounds;
use crate::door::{KnownEnvelopes, Verified};
use crate::input::Monotonic;
use crate::probe::{Probe, reached};
use crate::replica::Replica;

/// A session, under the key that its envelopes name.
pub(crate) type SessionKey = (SessionId, PublicKey);

fn key_of(envelope: &Envelope) -> SessionKey {
    (envelope.body.session, envelope.body.key)
}

#[derive(Clone, Debug)]
struct Entry {
    envelope: Arc<Verified<Envelope>>,
    bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct Session {
    /// Next number in committed state.
    next: u64,
    /// Number from which the leader has not proposed yet in this view; at or above `next`.
    projected: u64,
    /// Since when the envelope at `next` has been here.
    since: Option<Monotonic>,
    /// When that envelope was forwarded to the leader of the view at hand.
    forwarded: Option<Monotonic>,
    /// How many requests have overtaken it since then.
    overtaken: u32,
    entries: BTreeMap<u64, Entry>,
}

/// Where an envelope would go.
#[derive(Copy, Clone, Debug)]
enum Place {
    /// There is room.
    Free,
    /// It would take the place of its session's last envelope.
    Of(u64),
}

/// What one proposal may take.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Room {
    pub envelopes: usize,
    pub operations: usize,
    pub bytes: usize,
}

/// The pool.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    bounds: PoolBounds,
    sessions: BTreeMap<SessionKey, Session>,
    envelopes: usize,
    bytes: usize,
    /// Sessions with a running timer, by its start.
    waiting: BTreeSet<(Monotonic, SessionKey)>,
    /// Those of them whose envelope the leader of the view at hand has not proposed.
    unproposed: BTreeSet<(Monotonic, SessionKey)>,
    /// Those of these that were forwarded to that leader, by when.
    victims: BTreeSet<(Monotonic, SessionKey)>,
    /// Sessions whose next envelope to propose is here.
    ready: BTreeSet<SessionKey>,
    /// Every envelope by the end of its validity.
    expiry: BTreeSet<(BatchTime, SessionKey, u64)>,
    /// Session after which the next proposal starts to take, so that all have their turn.
    cursor: Option<SessionKey>,
}

impl Pool {
    pub(crate) const fn new(bounds: PoolBounds) -> Self {
        Self {
            bounds,
            sessions: BTreeMap::new(),
            envelopes: 0,
            bytes: 0,
            waiting: BTreeSet::new(),
            unproposed: BTreeSet::new(),
            victims: BTreeSet::new(),
            ready: BTreeSet::new(),
            expiry: BTreeSet::new(),
            cursor: None,
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
        let session = self.sessions.get(&key);
        let consumed = first < next.max(session.map_or(0, |session| session.next));
        !consumed && self.place(&key, first, bytes).is_some()
    }

    /// Adds an envelope whose session's next committed number is `next`. The first one seen under a number
    /// stays. Returns whether it was added.
    pub(crate) fn insert(&mut self, envelope: Verified<Envelope>, next: u64, now: Monotonic) -> bool {
        let (key, first) = (key_of(envelope.value()), envelope.value().body.first);
        let bytes = borsh::object_length(envelope.value()).unwrap_or(usize::MAX);
        if self.sessions.get(&key).is_some_and(|session| session.next < next) {
            self.advance(&key.0, next, now);
        }
        if first < next || self.sessions.get(&key).is_some_and(|session| first < session.next) {
            return false;
        }
        if !self.make_room(&key, first, bytes) {
            return false;
        }
        let session = self.sessions.entry(key).or_default();
        session.next = session.next.max(next);
        session.projected = session.projected.max(session.next);
        let valid_until = envelope.value().body.valid_until;
        session.entries.insert(first, Entry { envelope: Arc::new(envelope), bytes });
        self.envelopes = self.envelopes.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        self.expiry.insert((valid_until, key, first));
        self.refresh(&key, now);
        true
    }

    /// Makes room for one more envelope, if need be in place of the session's last one.
    fn make_room(&mut self, key: &SessionKey, first: u64, bytes: usize) -> bool {
        match self.place(key, first, bytes) {
            Some(Place::Free) => true,
            Some(Place::Of(last)) => {
                reached(Probe::PoolDisplaced);
                self.remove(key, last);
                true
            }
            None => {
                reached(Probe::PoolRefused);
                false
            }
        }
    }

    /// Where one more envelope would go.
    fn place(&self, key: &SessionKey, first: u64, bytes: usize) -> Option<Place> {
        let fits = |count: usize, held: usize| {
            count < self.bounds.envelopes && held.saturating_add(bytes) <= self.bounds.bytes
        };
        let entries = self.sessions.get(key).map(|session| &session.entries);
        if entries.is_some_and(|entries| entries.contains_key(&first)) {
            return None;
        }
        match entries.filter(|entries| entries.len() >= self.bounds.envelopes_per_session) {
            None => fits(self.envelopes, self.bytes).then_some(Place::Free),
            Some(entries) => {
                let (last, entry) = entries.last_key_value().filter(|(last, _)| **last > first)?;
                let (count, held) =
                    (self.envelopes.saturating_sub(1), self.bytes.saturating_sub(entry.bytes));
                fits(count, held).then_some(Place::Of(*last))
            }
        }
    }

    /// Removes one envelope; timers and readiness are refreshed by the caller.
    fn remove(&mut self, key: &SessionKey, first: u64) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(entry) = session.entries.remove(&first) else { return };
        self.envelopes = self.envelopes.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        self.expiry.remove(&(entry.envelope.value().body.valid_until, *key, first));
    }

    /// Brings a session's timer and readiness in line with its entries, and drops it when it is empty.
    fn refresh(&mut self, key: &SessionKey, now: Monotonic) {
        self.withdraw(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let admissible = session.entries.contains_key(&session.next);
        match (session.since, admissible) {
            (None, true) => {
                session.since = Some(now);
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
        if session.entries.contains_key(&session.projected) {
            self.ready.insert(*key);
        } else {
            self.ready.remove(key);
        }
        if session.entries.is_empty() {
            self.sessions.remove(key);
        }
        self.watch(key);
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
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            if next <= session.next {
                continue;
            }
            session.next = next;
            session.projected = session.projected.max(next);
            let consumed: Vec<u64> = session.entries.range(..next).map(|(first, _)| *first).collect();
            served = served.max(self.stop_timer(&key));
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

    /// Forgets what was proposed: a new view begins.
    pub(crate) fn reset_projection(&mut self) {
        self.ready.clear();
        self.unproposed.clear();
        self.victims.clear();
        for (key, session) in &mut self.sessions {
            session.projected = session.next;
            session.forwarded = None;
            session.overtaken = 0;
            self.unproposed.extend(session.since.map(|since| (since, *key)));
            if session.entries.contains_key(&session.projected) {
                self.ready.insert(*key);
            }
        }
    }

    /// Notes that an envelope is in a block of this view's chain.
    pub(crate) fn project(&mut self, envelope: &Envelope) {
        let key = key_of(envelope);
        self.withdraw(&key);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.projected = session.projected.max(envelope.next());
        if session.entries.contains_key(&session.projected) {
            self.ready.insert(key);
        } else {
            self.ready.remove(&key);
        }
        self.watch(&key);
    }

    /// Whether anything could be proposed.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Turns to another session to begin with.
    pub(crate) fn rotate(&mut self, turns: u64) {
        let count = self.ready.len() as u64;
        let turn = turns.checked_rem(count).and_then(|turn| usize::try_from(turn).ok()).unwrap_or(0);
        self.cursor = self.ready.iter().nth(turn).copied();
    }

    /// Takes envelopes for a proposal: one of each ready session in turn, in each session's order, until the
    /// room is used up. At least one is taken if any is ready.
    pub(crate) fn select(&mut self, room: Room) -> Vec<Envelope> {
        let (mut taken, mut operations, mut bytes) = (Vec::new(), 0_usize, 0_usize);
        while taken.len() < room.envelopes {
            let Some(key) = self.next_ready() else { break };
            let Some(session) = self.sessions.get(&key) else { break };
            let Some(entry) = session.entries.get(&session.projected) else { break };
            let envelope = entry.envelope.value();
            let (more_operations, more_bytes) = (
                operations.saturating_add(envelope.body.operations.len()),
                bytes.saturating_add(entry.bytes),
            );
            let fits = more_operations <= room.operations && more_bytes <= room.bytes;
            if !fits && !taken.is_empty() {
                break;
            }
            (operations, bytes) = (more_operations, more_bytes);
            let envelope = envelope.clone();
            self.project(&envelope);
            self.cursor = Some(key);
            taken.push(envelope);
        }
        taken
    }

    /// The first ready session after the cursor, around the end.
    fn next_ready(&self) -> Option<SessionKey> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.cursor.and_then(|cursor| self.ready.range((Excluded(cursor), Unbounded)).next());
        after.or_else(|| self.ready.first()).copied()
    }

    /// When the longest-running timer began.
    pub(crate) fn oldest(&self) -> Option<Monotonic> {
        self.waiting.first().map(|(since, _)| *since)
    }

    /// Checks bounds and indices.
    pub(crate) fn is_consistent(&self) -> bool {
        let count: usize = self.sessions.values().map(|session| session.entries.len()).sum();
        let timed = self.sessions.iter().all(|(key, session)| {
            let admissible = session.entries.contains_key(&session.next);
            let ready = session.entries.contains_key(&session.projected);
            admissible == session.since.is_some_and(|since| self.waiting.contains(&(since, *key)))
                && ready == self.ready.contains(key)
                && session.projected >= session.next
                && !session.entries.is_empty()
                && self.is_watched_rightly(key, session)
        });
        timed
            && count == self.envelopes
            && count == self.expiry.len()
            && count <= self.bounds.envelopes
            && self.waiting.len() <= self.sessions.len()
            && self.unproposed.len() <= self.waiting.len()
            && self.victims.len() <= self.unproposed.len()
            && self.ready.len() <= self.sessions.len()
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
