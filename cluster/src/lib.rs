//! Starts, stops, kills and pauses whole clusters of real processes on this machine: for `quorate dev`,
//! benches and tests.
//!
//! Invariant: a replica's process is known by its pid file alone, so that any program may act on a
//! cluster that another one started; and nobody restarts a replica but whoever is asked to.

pub mod local;
#[cfg(feature = "faults")]
pub mod network;
pub mod ports;
pub mod process;

pub use local::{ClusterError, LocalCluster};
