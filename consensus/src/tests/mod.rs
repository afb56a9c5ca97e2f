//! Whole replicas in a lockstep network: the cases of the protocol's rules and of its hazards, by name.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod byzantine;
mod catching_up;
mod chaos;
mod clients;
mod costs;
mod door;
mod evidence;
mod floods;
mod forge;
mod forks;
mod harness;
mod hazards_inputs;
mod hazards_views;
mod leaders;
mod normal;
mod pool;
mod restarts;
mod signatures;
mod view_changes;
mod watch;
