//! A bounded model of the protocol: chained heights, PREPARE and COMMIT, view change, durability, for four
//! replicas of which one is Byzantine. Every state within the bounds is visited.
//!
//! Invariant: a configuration without a mutant holds if no two headers ever get commit certificates at one
//! height in any state within its bounds; a mutant is found if there is such a state (docs/MODEL.md).
#![forbid(unsafe_code)]

pub mod checks;
pub mod header;
pub mod rules;
pub mod search;
pub mod state;
pub mod step;
pub mod story;
