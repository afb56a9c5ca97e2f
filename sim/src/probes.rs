//! Probes of consensus: which of its rare branches the runs of this program took.
//!
//! Invariant: counts are those of one run of one thread, and change nothing in it. A program that was built
//! without the feature `probes` has none.

use std::fmt;

use quorate_consensus::probe::Probe;

/// How often each probe was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes(Vec<u64>);

impl Probes {
    /// Whether this program counts.
    pub const COUNTED: bool = cfg!(feature = "probes");

    /// How many there are to reach in this program.
    #[must_use]
    pub const fn total() -> usize {
        if Self::COUNTED { Probe::ALL.len() } else { 0 }
    }

    /// What this thread reached since the last call.
    #[must_use]
    pub fn take() -> Self {
        #[cfg(feature = "probes")]
        return Self(quorate_consensus::probe::take());
        #[cfg(not(feature = "probes"))]
        Self::default()
    }

    /// How often a probe was reached.
    #[must_use]
    pub fn count(&self, probe: Probe) -> u64 {
        self.0.get(probe as usize).copied().unwrap_or(0)
    }

    /// Adds the counts of another run.
    pub fn merge(&mut self, other: &Self) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    /// The probes that were never reached; none in a program that does not count.
    #[must_use]
    pub fn missed(&self) -> Vec<Probe> {
        let all = &Probe::ALL[..Self::total()];
        all.iter().copied().filter(|probe| self.count(*probe) == 0).collect()
    }
}

impl fmt::Display for Probes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !Self::COUNTED {
            return formatter.write_str("not counted");
        }
        for (position, probe) in Probe::ALL.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(formatter, "{separator}{probe:?} {}", self.count(*probe))?;
        }
        Ok(())
    }
}
