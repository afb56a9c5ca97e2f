//! A replica that is faulty on purpose: what it sends, answers and does is bent, under its own key alone.
//!
//! Invariant: exists only with the feature `faults`, which no production build has; the code that is bent is
//! the correct one, so that whoever stands a fault here stands it from a replica that knows the protocol.

mod answers;
mod crash;
mod deeds;
mod equivocation;
mod junk;
mod kind;
mod liar;
mod storm;
#[cfg(test)]
mod tests;
mod traffic;

pub use kind::{Fault, FaultError, KINDS, help};

pub(crate) use deeds::Faults;
pub(crate) use liar::Liar;

/// Stands in a program that can be faulty on purpose, and in no other: a test looks for it.
pub const MARKER: &str = "this program can be faulty on purpose";
