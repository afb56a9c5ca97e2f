//! PBFT as a state machine without I/O.
//!
//! [`Replica::step`] takes one [`Input`] with the time and returns [`Effect`]s; a driver does the rest:
//! it sends, syncs, executes and keeps time. `docs/SPEC/consensus.md` states the rules that the files of
//! this room implement, phase by phase. Invariants: the room knows no clock, randomness, thread or disk;
//! nothing signed leaves before the record that forbids its opposite is synced, because every dependent
//! effect sits in [`Effect::Persist`]; what a peer or a client sends enters only as [`Verified`].

mod accept;
mod bar;
mod block;
mod catch_up;
mod commit;
pub mod configuration;
pub mod door;
pub mod effect;
mod fetch;
pub mod input;
mod invariants;
mod monitor;
pub mod mutant;
mod new_view;
mod pool;
pub mod probe;
mod propose;
pub mod read_index;
mod recovery;
pub mod replica;
mod screen;
mod tally;
mod terms;
mod timers;
mod view_change;
mod vote;
mod witness;

pub use configuration::{
    Configuration, ConfigurationError, MonitorBounds, Parameters, PoolBounds, ProposalBounds, Timeouts,
};
pub use door::{KnownEnvelopes, NoEnvelopes, Refused, Rejection, Verified};
pub use effect::{Effect, HaltReason, Token};
pub use input::{ExecutedHeader, Input, Monotonic, StaticFault};
pub use read_index::ReadIndex;
pub use recovery::RecoveryError;
pub use replica::{Replica, Status};

#[cfg(test)]
mod tests;
