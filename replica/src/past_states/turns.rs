//! When a height of the past may be prepared, and for whom.
//!
//! Invariant: heights are prepared for no more than half of the time, and principals who want one have their turn in the
//! order in which they first asked: whoever is at place k may come from k times [`GRACE`] on after a rest. So one who
//! never stops asking keeps nobody out (hazard A5), and one who does not come when it is its turn keeps each of the
//! others waiting for that long, and for [`KEPT`] in all.

use quorate_crypto::PublicKey;
use quorate_protocol::Height;
use std::time::{Duration, Instant};

/// Principals who may wait for their turn: as many as have budgets.
const WAITING_MAX: usize = crate::budgets::clients::PRINCIPALS_MAX;
/// How long a place is kept for who does not ask again, and the first one for who does not come: a client may wait 5 s
/// for another replica in between.
const KEPT: Duration = Duration::from_secs(12);
/// How long a turn is nobody else's once it has come: clients that are told to wait ask again after half a second.
const GRACE: Duration = Duration::from_millis(700);

/// Somebody who was refused.
#[derive(Debug)]
struct Waiting {
    key: PublicKey,
    height: Height,
    asked: Instant,
}

/// The turns.
#[derive(Debug, Default)]
pub struct Turns {
    /// Nothing is prepared before that.
    pub(super) rest_until: Option<Instant>,
    /// How long the last rest is.
    rest: Duration,
    /// Who was refused, in order.
    waiting: Vec<Waiting>,
    /// Since when the first one of them is.
    first_since: Option<(PublicKey, Instant)>,
}

impl Turns {
    /// Whether a height may be prepared for this principal now. Who is refused waits in line.
    pub fn is_due(&mut self, key: &PublicKey, height: Height, now: Instant) -> bool {
        self.tidy(now);
        let place = self.waiting.iter().position(|waiting| waiting.key == *key);
        let place = u32::try_from(place.unwrap_or(self.waiting.len())).unwrap_or(u32::MAX);
        let rests = self.rest_until.is_some_and(|until| until > now);
        let rested = self.rest_until.map_or(Duration::MAX, |until| now.saturating_duration_since(until));
        if rests || rested < GRACE.saturating_mul(place) {
            self.wants(key, height, now);
            return false;
        }
        self.waiting.retain(|waiting| waiting.key != *key);
        true
    }

    /// Forgets who does not ask any more, and who was first for long and did not come when it might.
    fn tidy(&mut self, now: Instant) {
        let is_old = |since: Instant| now.saturating_duration_since(since) >= KEPT;
        self.waiting.retain(|waiting| !is_old(waiting.asked));
        // Nobody can come while a height is prepared and while it rests.
        let is_over = |since: Instant| is_old(since.checked_add(self.rest.saturating_mul(2)).unwrap_or(now));
        if self.first_since.is_some_and(|(_, since)| is_over(since))
            && self.waiting.first().map(|first| first.key) == self.first_since.map(|(key, _)| key)
        {
            self.waiting.remove(0);
        }
        let first = self.waiting.first().map(|first| first.key);
        if first != self.first_since.map(|(key, _)| key) {
            self.first_since = first.map(|key| (key, now));
        }
    }

    /// Somebody has to wait, for whatever reason.
    pub fn wants(&mut self, key: &PublicKey, height: Height, asked: Instant) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.key == *key) {
            (waiting.height, waiting.asked) = (height, asked);
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.push(Waiting { key: *key, height, asked });
        }
    }

    /// A principal has its answer from a height that is held.
    pub fn answered(&mut self, key: &PublicKey, height: Height) {
        self.waiting.retain(|waiting| waiting.key != *key || waiting.height != height);
    }

    /// A height was prepared, or could not be: the next one waits as long.
    pub fn rest(&mut self, began: Instant, now: Instant) {
        self.rest = now.saturating_duration_since(began);
        self.rest_until = now.checked_add(self.rest);
    }

    /// A height is held: nobody waits for it any more.
    pub fn held(&mut self, height: Height) {
        self.waiting.retain(|waiting| waiting.height != height);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(100);

    fn key(number: usize) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        PublicKey(bytes)
    }

    /// How often each of these is served in half a minute: who asks anew after so many milliseconds, and only while
    /// nothing is prepared, or only then.
    fn served(pollers: &[(u64, bool)]) -> Vec<usize> {
        let (mut turns, start) = (Turns::default(), Instant::now());
        let mut served = vec![0; pollers.len()];
        for step in 0..30_000 {
            let now = start + Duration::from_millis(step);
            for (number, (interval, in_rests)) in pollers.iter().enumerate() {
                let rests = turns.rest_until.is_some_and(|until| until > now);
                let height = step * 10 + number as u64;
                let asks = step % interval == 0 && (rests || !in_rests);
                if asks && turns.is_due(&key(number), height, now) {
                    served[number] += 1;
                    turns.rest(now, now + TOOK);
                    turns.held(height);
                }
            }
        }
        served
    }

    #[test]
    fn a5_one_who_never_stops_asking_keeps_nobody_out() {
        // Each has its turn while the greedy one polls without pause, also who asks every 5 s, for a replica is silent.
        let counts = served(&[(1, false), (500, false), (500, false), (5_003, false)]);
        assert!(counts[1] >= 12 && counts[2] >= 12, "{counts:?}");
        assert!(counts[3] >= 1, "{counts:?}");
        // One who takes the first place and does not come helps the greedy one little.
        let counts = served(&[(1, false), (1, true), (500, false)]);
        assert!(counts[1] == 0 && counts[2] * 2 >= counts[0], "{counts:?}");
        assert!(counts[2] >= 8, "{counts:?}");
        // Alone it has half of the time.
        assert!(served(&[(1, false)])[0] >= 140);
    }

    #[test]
    fn who_is_gone_or_answered_keeps_nobody_waiting_for_long() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.wants(&key(1), 7, now);
        turns.rest(now, now + TOOK);
        let rested = now + TOOK + TOOK;
        assert!(!turns.is_due(&key(2), 8, rested), "another one comes first");
        assert!(turns.is_due(&key(2), 8, rested + GRACE + TOOK), "who did not come");
        turns.rest(now, now + TOOK);
        turns.answered(&key(1), 5);
        assert!(!turns.is_due(&key(2), 8, rested));
        turns.answered(&key(1), 7);
        turns.held(8);
        assert!(turns.is_due(&key(3), 9, rested));
    }

    #[test]
    fn the_line_is_bounded() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        (0..2 * WAITING_MAX).for_each(|number| turns.wants(&key(number), number as u64, now));
        assert_eq!(turns.waiting.len(), WAITING_MAX);
        turns.is_due(&key(WAITING_MAX), 0, now + KEPT);
        assert!(turns.waiting.is_empty());
    }
}
