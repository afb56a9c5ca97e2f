//! Workloads and their figures.
//!
//! Invariant: a bench measures and prints; it never asserts a time. One run gives one [`Report`], which is
//! one JSON line with the rate, the latency percentiles and what the machine was.

pub mod consensus;
pub mod meta;
pub mod report;

pub use report::Report;

/// Why a bench could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A file operation of the workload failed.
    #[error("{what}: {source}")]
    Io {
        /// Which operation.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The client failed.
    #[error(transparent)]
    Client(#[from] quorate_client::ClientError),
    /// The workload's parameters make no sense.
    #[error("{0}")]
    Parameters(&'static str),
    /// A thread of the workload panicked. Ours.
    #[error("a worker of the bench panicked")]
    Worker,
}
