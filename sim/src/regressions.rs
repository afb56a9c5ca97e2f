//! Seeds that once failed, and what they found. Each stays green for ever.
//!
//! Invariant: a change of the plan's draws makes a seed another run, so seeds are kept together with the
//! version of the draws; old ones stay as ordinary seeds.

/// A seed that found something.
#[derive(Copy, Clone, Debug)]
pub struct Regression {
    /// The seed.
    pub seed: u64,
    /// What it found.
    pub found: &'static str,
}

/// All of them.
pub const REGRESSIONS: &[Regression] = &[];
