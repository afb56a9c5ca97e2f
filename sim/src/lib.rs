//! The deterministic simulator: whole clusters, virtual network, disk and clock.
//!
//! [`plan::Plan`] draws a configuration from a seed, [`world::World`] runs it, [`oracle::Oracle`] judges
//! it, and [`run`] does so for many seeds. `docs/SIMULATOR.md` says what is simulated and what is checked.
//! Invariant: a run is a function of its plan; the same plan gives byte-identical traces anywhere.
#![forbid(unsafe_code)]

mod ailing;
pub mod attack;
pub mod byzantine;
pub mod cast;
pub mod client;
mod describe;
pub mod disk;
mod drive;
mod durable;
pub mod evidence;
pub mod fake;
pub mod faults;
pub mod hostile;
mod hours;
pub mod hunt;
pub mod latency;
pub mod ledger;
pub mod machine;
pub mod marks;
pub mod minimise;
pub mod mutant;
pub mod network;
pub mod node;
pub mod oracle;
pub mod plan;
pub mod probes;
mod provoke;
pub mod queue;
pub mod random;
pub mod reader;
pub mod regressions;
pub mod run;
pub mod runs;
pub mod scribe;
mod serve;
pub mod story;
mod strike;
pub mod trace;
pub mod workload;
pub mod world;
