//! One replica process: drives consensus and execution with store and transport.
//!
//! Invariant: this room decides nothing. Consensus says what may be sent after which sync, execution says
//! what a batch does; the driver carries that out in order, and ends the process rather than go on when the
//! disk or the program is not what it should be.

mod blocks;
mod budgets;
mod clients;
mod disk;
mod effects;
mod error;
mod evidence;
mod executor;
mod fairness;
#[cfg(feature = "faults")]
pub mod faults;
mod heads;
mod history;
mod inbound;
mod jobs;
mod keeper;
pub mod layout;
mod node;
pub mod past_states;
pub mod provision;
mod refusals;
mod requests;
pub mod retention;
mod start;
mod verifier;
mod waiting;

pub use error::ReplicaError;
pub use quorate_store::blocks::RESERVE_BYTES_DEFAULT as DISK_RESERVE_DEFAULT;
pub use retention::Retention;
pub use start::{ReplicaOptions, run_replica};

/// Exit status when the disk failed: a restart, on a disk that is well, is the remedy.
pub const EXIT_DISK: i32 = 3;
/// Exit status when the program contradicts itself: a defect of ours.
pub const EXIT_DEFECT: i32 = 4;
