//! When a height of the past may be prepared, and for whom.
//!
//! Invariant: heights are prepared for no more than half of the time, and principals who want one have their turn in the
//! order in which they first asked: one who never stops asking keeps nobody out (hazard A5), and one who does not come
//! when it is its turn keeps the others waiting for [`GRACE`] at most.

use quorate_crypto::PublicKey;
use quorate_protocol::Height;
use std::time::{Duration, Instant};

/// Principals who may wait for their turn: as many as have budgets.
const WAITING_MAX: usize = crate::budgets::clients::PRINCIPALS_MAX;
/// How long a place is kept for who does not ask again: a client may wait 5 s for another replica in between.
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
    /// Who was refused, in order.
    waiting: Vec<Waiting>,
}

impl Turns {
    /// Whether a height may be prepared for this principal now. Who is refused waits in line.
    pub fn is_due(&mut self, key: &PublicKey, height: Height, now: Instant) -> bool {
        self.waiting.retain(|waiting| now.saturating_duration_since(waiting.asked) < KEPT);
        let rests = self.rest_until.is_some_and(|until| until > now);
        let is_first = self.waiting.first().is_none_or(|first| first.key == *key);
        let is_free = self.rest_until.is_none_or(|until| now.saturating_duration_since(until) > GRACE);
        if rests || !(is_first || is_free) {
            self.wants(key, height, now);
            return false;
        }
        self.waiting.retain(|waiting| waiting.key != *key);
        true
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

    /// A height was prepared, or could not be: the next one waits as long, and nobody waits for this one any more.
    pub fn had(&mut self, height: Height, began: Instant, now: Instant) {
        self.rest_until = now.checked_add(now.saturating_duration_since(began));
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

    /// How often each of these, who asks anew after so many milliseconds, is served in half a minute.
    fn served(pollers: &[u64]) -> Vec<usize> {
        let (mut turns, start) = (Turns::default(), Instant::now());
        let mut served = vec![0; pollers.len()];
        for step in 0..30_000 {
            for (number, interval) in pollers.iter().enumerate() {
                let now = start + Duration::from_millis(step);
                let height = step * 10 + number as u64;
                if step % interval == 0 && turns.is_due(&key(number), height, now) {
                    served[number] += 1;
                    turns.had(height, now, now + TOOK);
                }
            }
        }
        served
    }

    #[test]
    fn a5_one_who_never_stops_asking_keeps_nobody_out() {
        // Each has its turn while the greedy one polls without pause, also who asks every 5 s, for a replica is silent.
        let counts = served(&[1, 500, 500, 5_003]);
        assert!(counts[1] >= 10 && counts[2] >= 10, "{counts:?}");
        assert!(counts[3] >= 2, "{counts:?}");
        // Alone it has half of the time.
        assert!(served(&[1])[0] >= 140);
    }

    #[test]
    fn who_is_gone_or_answered_keeps_nobody_waiting_for_long() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.wants(&key(1), 7, now);
        turns.had(9, now, now + TOOK);
        let rested = now + TOOK + TOOK;
        assert!(!turns.is_due(&key(2), 8, rested), "another one comes first");
        assert!(turns.is_due(&key(2), 8, rested + GRACE + TOOK), "who did not come");
        turns.wants(&key(1), 7, now);
        turns.had(6, now, now + TOOK);
        turns.answered(&key(1), 5);
        assert!(!turns.is_due(&key(2), 8, rested));
        turns.answered(&key(1), 7);
        turns.answered(&key(2), 8);
        assert!(turns.is_due(&key(3), 8, rested));
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
