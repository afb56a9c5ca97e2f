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
pub const REGRESSIONS: &[Regression] = &[
    Regression {
        seed: 951,
        found: "a deposed leader that caught up proposed twice at one height of its view",
    },
    Regression { seed: 2783, found: "the same, in view 0" },
    Regression { seed: 2975, found: "the same, with a window of heights in flight" },
    Regression { seed: 106, found: "a VIEW-CHANGE whose claim was of the view that it asked for" },
    Regression { seed: 137, found: "the same, by joining others" },
    Regression { seed: 2491, found: "the same, after a suspicion" },
    Regression {
        seed: 3871,
        found: "a log cut between a NEW-VIEW and its entry lost the NEW-VIEW before it",
    },
    Regression {
        seed: 3564,
        found: "a certificate of a later view for a lower height stayed the claim, below the tip",
    },
    Regression { seed: 11_360, found: "the same, with other heights" },
    Regression { seed: 13_842, found: "the same, with other heights" },
    Regression { seed: 16_881, found: "the same, with other heights" },
    Regression {
        seed: 1_035_780,
        found: "a batch far ahead was asked for anew with each message that came: questions and answers without end",
    },
    Regression {
        seed: 26_691,
        found: "a leader told a peer its NEW-VIEW before the record was synced, crashed, and opened the view with another base",
    },
    Regression { seed: 37_981, found: "the same, in a later view" },
    Regression {
        seed: 298_395,
        found: "nothing but a bound on events that was too low: thirteen replicas with 644 heights need 417,302",
    },
];
