//! When a height of the past may be prepared, and for whom.
//!
//! Invariant: heights are prepared for no more than half of the time, and principals who want one have their turn in the
//! order in which they first asked: one who never stops asking keeps nobody out (hazard A5).

use quorate_crypto::PublicKey;
use std::time::{Duration, Instant};

/// Principals who may wait for their turn; others ask again later.
const WAITING_MAX: usize = 16;
/// How long a turn is kept for who does not ask again. Clients that are told to wait do within a second.
const KEPT: Duration = Duration::from_secs(2);

/// The turns.
#[derive(Default)]
pub struct Turns {
    /// Nothing is prepared before that.
    rest_until: Option<Instant>,
    /// Who was refused, in order, and when they asked last.
    waiting: Vec<(PublicKey, Instant)>,
}

impl Turns {
    /// Whether a height may be prepared for this principal now. Who is refused waits in line.
    pub fn is_due(&mut self, key: &PublicKey, now: Instant) -> bool {
        self.waiting.retain(|(_, asked)| now.saturating_duration_since(*asked) < KEPT);
        let rests = self.rest_until.is_some_and(|until| until > now);
        let is_first = self.waiting.first().is_none_or(|(first, _)| first == key);
        if rests || !is_first {
            self.wants(key, now);
            return false;
        }
        self.waiting.retain(|(waiting, _)| waiting != key);
        true
    }

    /// Somebody has to wait, for whatever reason.
    pub fn wants(&mut self, key: &PublicKey, now: Instant) {
        if let Some((_, asked)) = self.waiting.iter_mut().find(|(waiting, _)| waiting == key) {
            *asked = now;
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.push((*key, now));
        }
    }

    /// A height was prepared in this time: the next one waits as long.
    pub fn had(&mut self, began: Instant, now: Instant) {
        self.rest_until = now.checked_add(now.saturating_duration_since(began));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_crypto::SecretKey;

    fn key(byte: u8) -> PublicKey {
        SecretKey::from_bytes(&[byte; 32]).public()
    }

    #[test]
    fn a5_one_who_never_stops_asking_keeps_nobody_out() {
        let (mut turns, mut now) = (Turns::default(), Instant::now());
        let (greedy, other, third) = (key(1), key(2), key(3));
        let took = Duration::from_millis(100);
        assert!(turns.is_due(&greedy, now));
        turns.wants(&other, now);
        turns.had(now, now + took);
        // It asks all the time, the others now and then.
        let mut served = Vec::new();
        for step in 0..200_u32 {
            now += Duration::from_millis(10);
            let asks: &[&PublicKey] =
                if step.is_multiple_of(20) { &[&greedy, &third, &other] } else { &[&greedy] };
            for asker in asks {
                if turns.is_due(asker, now) {
                    served.push((*asker).to_owned());
                    turns.had(now, now + took);
                }
            }
        }
        for patient in [&other, &third] {
            let turns = served.iter().filter(|key| *key == patient).count();
            assert!(turns >= 3, "{turns} of {}", served.len());
        }
        assert_eq!(served.first(), Some(&other), "in the order in which they came");
    }

    #[test]
    fn a_turn_of_who_is_gone_lapses_and_the_line_is_bounded() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        for byte in 0..40 {
            turns.wants(&key(byte), now);
        }
        assert_eq!(turns.waiting.len(), WAITING_MAX);
        assert!(!turns.is_due(&key(99), now));
        assert!(turns.is_due(&key(99), now + KEPT));
    }
}
