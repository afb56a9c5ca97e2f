//! The only source of chance: one ChaCha generator per seed, split into independent streams.
//!
//! Invariant: what is drawn depends on the seed, the stream and the order of the draws within that stream
//! alone, so that a change in how clients behave does not move the faults.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Draws in `chance` are made per this many.
pub const MILLION: u32 = 1_000_000;

/// What a stream of chance is used for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The configuration of the run.
    Plan,
    /// Delays, losses and duplicates.
    Network,
    /// Sync latencies and what survives a crash.
    Disk,
    /// What clients do and when.
    Clients,
    /// Delays of execution and other small jitter of the drivers.
    Drivers,
    /// What Byzantine replicas do.
    Byzantine,
    /// What is expected of leaders, and when lost connections are noticed.
    Leaders,
    /// What hostile clients do.
    Hostile,
    /// Parts of the configuration that came later: frail disks, hostile and restless clients.
    Surroundings,
    /// Who they are in a run that is made for one kind of attack.
    Attack,
    /// How much the pool holds of a session.
    Pool,
}

/// One stream of chance.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The stream of this seed for this use.
    #[must_use]
    pub fn new(seed: u64, stream: Stream) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream as u64);
        Self(generator)
    }

    /// A stream of its own, seeded from this one.
    pub fn fork(&mut self) -> Self {
        Self(ChaCha8Rng::from_seed(self.bytes()))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product is uniform but for a bias of bound / 2^64.
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True with this probability in millionths.
    pub fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(u64::from(MILLION)) < u64::from(per_million)
    }

    /// True once in `times` on average.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of the choices, which are not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A number from `low` to `high` whose logarithm is about uniform: small ones are as likely as large ones.
    pub fn scaled(&mut self, low: u64, high: u64) -> u64 {
        let low = low.max(1);
        let doublings = (high / low).max(1).ilog2();
        let scale = low << self.between(0, u64::from(doublings));
        self.between(scale, (scale * 2).min(high).max(scale))
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
