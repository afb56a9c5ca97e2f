//! Tests of the whole product with real processes: replicas, mounts and the command line, as people use
//! them. Each starts a cluster of its own on free loopback ports and leaves nothing behind.
//!
//! Invariant: every wait is bounded, and a test that takes too long ends with its mounts and replicas
//! killed instead of hanging in the kernel. Nothing is skipped: a machine without FUSE fails.
#![allow(missing_docs)]

mod anchors;
#[cfg(feature = "faults")]
mod attacks;
mod audit;
mod bad_input;
mod benches;
mod by_hand;
mod dev;
mod evidence;
mod faults;
mod files;
mod harness;
mod heads;
mod leader_crash;
#[cfg(feature = "faults")]
mod linearizable;
mod open_files;
mod past;
mod past_mounts;
mod posix;
mod readme;
mod receipts;
mod strangers;
mod stuck;
mod tlog;
mod trees;
mod two_mounts;
mod user;
mod watch;
