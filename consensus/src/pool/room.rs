//! Who has to make room when the pool is full (hazards A5, RX1).
//!
//! Invariants: the pool is bounded in bytes, where an envelope counts for its share of the number of envelopes
//! at least, so that one measure bounds both; a key has a bound of its own. Beyond it, or in a full pool, what
//! waits for a gap gives way to what the committed state admits next, of the same key; and the key that takes
//! up most gives way to one that takes up less. So nobody is refused by what others pile up, whatever they sign.

use quorate_crypto::PublicKey;
use quorate_protocol::limits::ENVELOPE_BYTES_MAX;

use super::{Pool, SessionKey};

impl Pool {
    /// What an envelope of so many bytes takes up.
    pub(super) fn charge_of(&self, bytes: usize) -> usize {
        bytes.max(self.unit())
    }

    /// What the smallest envelope takes up.
    fn unit(&self) -> usize {
        self.bounds.bytes.checked_div(self.bounds.envelopes).unwrap_or(self.bounds.bytes).max(1)
    }

    /// What one key may take up.
    pub(super) fn bound_of_owner(&self) -> usize {
        self.bounds.envelopes_per_principal.saturating_mul(self.unit()).max(ENVELOPE_BYTES_MAX)
    }

    /// Whether a key takes up so much that replicas may have refused different envelopes of it.
    pub(super) fn is_crowded(&self, key: &PublicKey) -> bool {
        self.owners.get(key).is_some_and(|owner| owner.charge > self.bound_of_owner() / 2)
    }

    /// What has to leave for one more envelope of a session; `None` if it cannot come in. `next` is the
    /// session's next committed number.
    pub(super) fn place(
        &self,
        key: &SessionKey,
        (first, next): (u64, u64),
        bytes: usize,
    ) -> Option<Vec<(SessionKey, u64)>> {
        let session = self.sessions.get(key);
        if session.is_some_and(|session| session.entries.contains_key(&first)) {
            return None;
        }
        let (mut leaving, mut freed) = (Vec::new(), 0);
        if let Some(full) = session.filter(|it| it.entries.len() >= self.bounds.envelopes_per_session) {
            let (last, entry) = full.entries.last_key_value().filter(|(last, _)| **last > first)?;
            leaving.push((*key, *last));
            freed = entry.charge;
        }
        let charge = self.charge_of(bytes);
        let held = self.owners.get(&key.1).map_or(0, |owner| owner.charge);
        let beyond = |held: usize, bound: usize| {
            held.saturating_add(charge).saturating_sub(freed).saturating_sub(bound)
        };
        let (own, all) = (beyond(held, self.bound_of_owner()), beyond(self.charge, self.bounds.bytes));
        if own == 0 && all == 0 {
            return Some(leaving);
        }
        let (load, heaviest) = self.loads.last()?;
        let apart = held.saturating_add(charge).saturating_add(all) <= *load;
        let more = if own == 0 && apart && *heaviest != key.1 {
            self.last_of(heaviest, all, true, &leaving)
        } else if first == next {
            self.last_of(&key.1, own.max(all), false, &leaving)
        } else {
            None
        };
        leaving.extend(more?);
        Some(leaving)
    }

    /// Envelopes of a key that take up at least `wanted`, none of them proposed: those that wait for a gap, and
    /// if `any` those whose turn comes last. As many as [`ENVELOPE_BYTES_MAX`] has units, and one more, at most.
    fn last_of(
        &self,
        key: &PublicKey,
        wanted: usize,
        any: bool,
        leaving: &[(SessionKey, u64)],
    ) -> Option<Vec<(SessionKey, u64)>> {
        let owner = self.owners.get(key)?;
        let session = |id| self.sessions.get_key_value(&(id, *key));
        let gapped = owner.gapped.iter().rev().filter_map(|id| session(*id));
        let gapped = gapped.flat_map(|(key, it)| {
            it.entries.range(it.reach.max(it.projected)..).rev().map(|(first, entry)| (*key, *first, entry))
        });
        let queued = owner.queue.values().rev().filter(|_| any).filter_map(|id| session(*id));
        let queued = queued.flat_map(|(key, it)| {
            let (low, high) = (it.projected, it.reach.max(it.projected));
            it.entries.range(low..high).rev().map(|(first, entry)| (*key, *first, entry))
        });
        let (mut found, mut freed) = (Vec::new(), 0_usize);
        for (key, first, entry) in gapped.chain(queued) {
            if leaving.contains(&(key, first)) {
                continue;
            }
            found.push((key, first));
            freed = freed.saturating_add(entry.charge);
            if freed >= wanted {
                return Some(found);
            }
        }
        None
    }
}
