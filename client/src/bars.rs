//! Who was caught lying, and until when it is asked last.
//!
//! Invariant: only a check that failed bars a replica, never slowness or silence, so an honest one keeps its
//! place by speed; each time that a replica lies anew its bar lasts twice as long, up to [`BAR_MAX`]; and a
//! barred one is still asked when the others are not enough.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quorate_protocol::ReplicaIndex;
use tokio::time::Instant;

/// How long the first lie counts.
pub(crate) const BAR_FIRST: Duration = Duration::from_secs(2);
/// Longest bar.
pub(crate) const BAR_MAX: Duration = Duration::from_secs(600);

/// One replica's record.
#[derive(Copy, Clone, Debug, Default)]
struct Record {
    /// Bars that began.
    times: u32,
    until: Option<Instant>,
}

/// The records of all replicas.
#[derive(Debug)]
pub(crate) struct Bars(Mutex<Vec<Record>>);

impl Bars {
    pub(crate) fn new(n: usize) -> Self {
        Self(Mutex::new(vec![Record::default(); n]))
    }

    /// A check of what this replica sent has failed. Whatever else fails while it is barred changes nothing: a
    /// lie is often noticed several times.
    pub(crate) fn caught(&self, replica: ReplicaIndex, now: Instant) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = records.get_mut(usize::from(replica)) else { return };
        if record.until.is_some_and(|until| now < until) {
            return;
        }
        let factor = 1_u32.checked_shl(record.times).unwrap_or(u32::MAX);
        record.times = record.times.saturating_add(1).min(u32::BITS);
        record.until = now.checked_add(BAR_FIRST.saturating_mul(factor).min(BAR_MAX));
    }

    /// Whether this replica is asked last.
    pub(crate) fn is_barred(&self, replica: ReplicaIndex, now: Instant) -> bool {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = records.get(usize::from(replica)).and_then(|record| record.until);
        until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_liar_is_barred_for_ever_longer_and_nobody_else_is() {
        let (bars, mut now) = (Bars::new(4), Instant::now());
        for doublings in 0..40_u32 {
            bars.caught(2, now);
            bars.caught(2, now + Duration::from_secs(1));
            let lasts =
                BAR_FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(BAR_MAX);
            assert!(bars.is_barred(2, now + lasts - Duration::from_millis(1)), "{doublings}");
            now += lasts;
            assert!(!bars.is_barred(2, now), "{doublings}");
            assert!([0, 1, 3].into_iter().all(|honest| !bars.is_barred(honest, now)));
        }
        bars.caught(77, now);
        assert!(!bars.is_barred(77, now));
    }
}
