//! Names of the files of a cluster's and a replica's directory (design section 11).
//!
//! Invariant: every program that looks for one of these files takes its name from here.

use quorate_protocol::ReplicaIndex;
use std::path::{Path, PathBuf};

/// The cluster file, in the cluster's directory and in each replica's.
pub const CLUSTER_FILE: &str = "cluster.toml";
/// Key of the first principal.
pub const ADMIN_KEY: &str = "admin.key";
/// Seed of a replica.
pub const NODE_KEY: &str = "node.key";
/// Process number of a running replica.
pub const PID_FILE: &str = "replica.pid";
/// What a replica that runs in the background says.
pub const LOG_FILE: &str = "replica.log";

/// The directory of replica `index` in the directory of a cluster.
#[must_use]
pub fn replica_directory(cluster: &Path, index: ReplicaIndex) -> PathBuf {
    cluster.join(format!("replica-{index}"))
}
