//! Workloads and their figures.
//!
//! Invariant: a bench measures and prints; it never asserts a time. One run gives one [`Report`], which is
//! one JSON line with the rate, the latency percentiles and what the machine was.

#[cfg(feature = "faults")]
pub mod attacks;
pub mod consensus;
pub mod crash;
mod field;
pub mod history;
#[cfg(feature = "faults")]
mod hostile;
pub mod listing;
pub mod meta;
pub mod report;
#[cfg(feature = "faults")]
mod usage;

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
    /// The cluster to be measured cannot be run.
    #[error(transparent)]
    Cluster(#[from] quorate_cluster::ClusterError),
    /// Its administrator's key cannot be read.
    #[error(transparent)]
    Key(#[from] quorate_transport::KeyFileError),
    /// The network cannot be used.
    #[error(transparent)]
    Transport(#[from] quorate_transport::TransportError),
    /// Something did not happen in time.
    #[error("not within {} s: {what}", .patience.as_secs())]
    Late {
        /// What.
        what: &'static str,
        /// How long it was waited for.
        patience: std::time::Duration,
    },
    /// The workload's parameters make no sense.
    #[error("{0}")]
    Parameters(&'static str),
    /// A thread of the workload panicked. Ours.
    #[error("a worker of the bench panicked")]
    Worker,
}
