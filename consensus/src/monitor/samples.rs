//! The latest values of something that is measured, and their quantiles.
//!
//! Invariant: at most [`SAMPLES_MAX`] values are kept; quantiles are by rank, in integers.

use std::collections::VecDeque;

/// Values that are kept.
pub(crate) const SAMPLES_MAX: usize = 32;
/// With fewer values nothing is concluded.
pub(crate) const SAMPLES_MIN: usize = 4;

/// The latest values, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(VecDeque<u64>);

impl Samples {
    /// Adds a value, in the place of the oldest one if need be.
    pub(crate) fn add(&mut self, value: u64) {
        if self.0.len() >= SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The value that at most this many eighths of all lie below; `None` while there are too few.
    pub(crate) fn eighths(&self, eighths: usize) -> Option<u64> {
        if self.0.len() < SAMPLES_MIN {
            return None;
        }
        let mut values: Vec<u64> = self.0.iter().copied().collect();
        let rank = values.len().saturating_mul(eighths).checked_div(8)?;
        let rank = rank.min(values.len().saturating_sub(1));
        Some(*values.select_nth_unstable(rank).1)
    }

    /// The value in the middle; `None` while there are too few.
    pub(crate) fn median(&self) -> Option<u64> {
        self.eighths(4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_rank_and_want_some_values() {
        let mut samples = Samples::default();
        (1..=3).for_each(|value| samples.add(value));
        assert_eq!(samples.median(), None);
        samples.add(1000);
        assert_eq!(
            (samples.median(), samples.eighths(7), samples.eighths(8)),
            (Some(3), Some(1000), Some(1000))
        );
        assert_eq!(samples.eighths(0), Some(1));
        // Only the latest count.
        (0..SAMPLES_MAX).for_each(|_| samples.add(7));
        assert_eq!((samples.eighths(0), samples.eighths(8)), (Some(7), Some(7)));
        samples.clear();
        assert_eq!(samples.median(), None);
    }
}
