//! Why a replica does not start, and whose fault that is.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The cluster file is missing or unusable.
    #[error(transparent)]
    Cluster(#[from] quorate_transport::ClusterFileError),
    /// The node's key is missing or unusable.
    #[error(transparent)]
    Key(#[from] quorate_transport::KeyFileError),
    /// The key is not that of any member.
    #[error(
        "{0} is not the key of a replica of this cluster: put the node.key there that `quorate init` made with this cluster.toml"
    )]
    NotAMember(PathBuf),
    /// The directory is foreign, damaged, newer, or in use.
    #[error(transparent)]
    Directory(#[from] quorate_store::directory::DirectoryError),
    /// The log is damaged or cannot be read.
    #[error(
        "{0}; this replica does not vote with it: keep the directory for examination and bring the replica back as a new member"
    )]
    Log(#[from] quorate_store::log::LogError),
    /// The state database cannot be opened or written.
    #[error("the state database: {0}")]
    State(#[from] quorate_store::state::StateError),
    /// The block store cannot be opened.
    #[error("the block store: {0}")]
    Blocks(#[from] quorate_store::blocks::BlockError),
    /// What was stored does not give what was certified.
    #[error(
        "recovery failed at height {height}: {what}; keep the directory for examination and bring the replica back as a new member"
    )]
    Recovery {
        /// Where.
        height: u64,
        /// In words.
        what: String,
    },
    /// Consensus refuses the log.
    #[error("the log contradicts itself: {0}")]
    Consensus(#[from] quorate_consensus::RecoveryError),
    /// Genesis does not fit this program.
    #[error("this cluster cannot be run by this program: {0}")]
    Configuration(#[from] quorate_consensus::ConfigurationError),
    /// Genesis cannot be executed.
    #[error("genesis of this cluster is refused: {0}")]
    Genesis(String),
    /// The address is in use, or not one of this machine.
    #[error(
        "cannot listen on {address}: {source}; stop the program that uses it, or name another with --listen"
    )]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The address of this replica in the cluster file means nothing here.
    #[error(
        "the address `{0}` of this replica in cluster.toml cannot be resolved: correct it, or use --listen"
    )]
    Address(String),
    /// The network cannot be started.
    #[error(transparent)]
    Transport(#[from] quorate_transport::TransportError),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}
