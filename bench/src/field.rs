//! A cluster of a bench's own, with clients: made in a temporary directory, gone at the end.
//!
//! Invariant: whatever ends a bench, its replicas are stopped and its directory is removed.

use crate::BenchError;
use quorate_client::{Client, ClientOptions, ClusterStatus, Observer};
use quorate_cluster::LocalCluster;
use quorate_crypto::SecretKey;
use quorate_protocol::ReplicaIndex;
use quorate_protocol::genesis::Parameters;
use quorate_transport::KeyFile;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often waits look.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running cluster.
pub(crate) struct Field {
    pub(crate) cluster: LocalCluster,
    pub(crate) key: SecretKey,
    // Removed after the replicas have stopped.
    _directory: tempfile::TempDir,
}

impl Field {
    /// Starts `n` replicas of this program; those listed are faulty.
    pub(crate) fn start(
        program: &Path,
        n: usize,
        faults: &[(ReplicaIndex, &str)],
    ) -> Result<Self, BenchError> {
        let failed = |source| BenchError::Io { what: "make a directory for a cluster", source };
        let directory = tempfile::Builder::new().prefix("quorate-bench-").tempdir().map_err(failed)?;
        let place = directory.path().join("cluster");
        let mut cluster = LocalCluster::create(&place, program, n, Parameters::default(), (0, 0))?;
        for replica in cluster.indices() {
            // What liars make the others say is measured as well, but not kept.
            let mut arguments = vec!["--log".into(), "error".into()];
            if let Some((_, kind)) = faults.iter().find(|(faulty, _)| *faulty == replica) {
                arguments.extend(["--fault".into(), (*kind).into()]);
            }
            cluster.set_arguments(replica, arguments);
        }
        let key = KeyFile::read_principal(&cluster.key_path())?;
        cluster.start_all()?;
        Ok(Self { cluster, key, _directory: directory })
    }

    /// So many clients with a session each.
    pub(crate) async fn clients(&self, count: usize) -> Result<Vec<Client>, BenchError> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            let file = self.cluster.file().clone();
            clients.push(Client::connect(file, self.key.clone(), ClientOptions::default()).await?);
        }
        Ok(clients)
    }

    /// Somebody who looks on.
    pub(crate) async fn observer(&self) -> Result<Observer, BenchError> {
        let file = self.cluster.file().clone();
        Ok(Observer::start(file, self.key.clone(), ClientOptions::default()).await?)
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        self.cluster.stop_all();
    }
}

/// Asks until the status is as wanted.
pub(crate) async fn wait_for<T>(
    observer: &Observer,
    what: &'static str,
    patience: Duration,
    wanted: impl Fn(&ClusterStatus) -> Option<T>,
) -> Result<T, BenchError> {
    let began = Instant::now();
    loop {
        if let Some(found) = wanted(&observer.status().await) {
            return Ok(found);
        }
        if began.elapsed() > patience {
            return Err(BenchError::Late { what, patience });
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The replica that leads, when all vote and are at most this many heights behind.
pub(crate) fn leader_of_all(status: &ClusterStatus, lag_max: u64) -> Option<ReplicaIndex> {
    let height = status.height()?;
    let mut leader = None;
    for state in &status.replicas {
        let replica = state.status.as_ref().ok().filter(|replica| replica.voting)?;
        if height.saturating_sub(replica.committed) > lag_max {
            return None;
        }
        if replica.leading {
            leader = Some(state.replica);
        }
    }
    leader
}
