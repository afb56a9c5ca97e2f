//! Token buckets.
//!
//! Invariant: over any time t no more than `burst + per_second * t` is within the budget; time is the caller's.
//! What is charged may exceed the budget, because what a message cost is known only afterwards: then the bucket
//! is empty for as long as that takes to be made good.

use std::time::{Duration, Instant};

/// Longest time that a single charge may empty a bucket for.
const CHARGE_TIME_MAX: Duration = Duration::from_secs(3600);

/// What may be spent.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u64,
    /// In the long run; not 0.
    pub per_second: u64,
}

impl Rate {
    /// How long it takes to earn so much.
    fn time_of(self, amount: u64) -> Duration {
        let nanoseconds = u128::from(amount).saturating_mul(1_000_000_000);
        let nanoseconds = nanoseconds.checked_div(u128::from(self.per_second)).unwrap_or(u128::MAX);
        u64::try_from(nanoseconds).map_or(CHARGE_TIME_MAX, Duration::from_nanos).min(CHARGE_TIME_MAX)
    }
}

/// A bucket, full at first.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    /// When everything that was charged will have been earned: the bucket is full from then on.
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    pub const fn new(rate: Rate) -> Self {
        Self { rate, full_at: None }
    }

    /// Spends so much, and says how long it is until the budget allows more: no time at all while it does.
    pub fn charge(&mut self, amount: u64, now: Instant) -> Duration {
        if amount > 0 {
            let from = self.full_at.map_or(now, |at| at.max(now));
            self.full_at = from.checked_add(self.rate.time_of(amount));
        }
        self.wait(now)
    }

    /// How long it is until the budget allows more.
    pub fn wait(&self, now: Instant) -> Duration {
        let owed = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        owed.saturating_sub(self.rate.time_of(self.rate.burst))
    }

    /// Whether nothing is owed any more.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 100, per_second: 10 };

    #[test]
    fn a_burst_and_then_the_rate() {
        let (mut bucket, began) = (Bucket::new(RATE), Instant::now());
        let mut spent = 0;
        for millisecond in 0..60_000 {
            let now = began + Duration::from_millis(millisecond);
            while bucket.wait(now).is_zero() {
                bucket.charge(1, now);
                spent += 1;
            }
        }
        assert!((690..=702).contains(&spent), "100 and 10 in each of 60 seconds: {spent}");
        assert!(!bucket.is_full(began + Duration::from_secs(60)));
        assert!(bucket.is_full(began + Duration::from_secs(71)));
    }

    #[test]
    fn what_was_spent_too_much_is_made_good() {
        let (mut bucket, began) = (Bucket::new(RATE), Instant::now());
        assert_eq!(bucket.charge(0, began), Duration::ZERO);
        assert_eq!(bucket.charge(150, began), Duration::from_secs(5));
        assert_eq!(bucket.wait(began + Duration::from_secs(4)), Duration::from_secs(1));
        assert_eq!(bucket.wait(began + Duration::from_secs(5)), Duration::ZERO);
        // However much it was, it ends, and nothing runs over.
        assert!(bucket.charge(u64::MAX, began) <= CHARGE_TIME_MAX + Duration::from_secs(15));
        let never = Rate { burst: u64::MAX, per_second: 1 };
        assert_eq!(Bucket::new(never).charge(u64::MAX, began), Duration::ZERO);
    }
}
