//! Connecting to a cluster as the command line names it.

use crate::args::ClusterArgs;
use crate::failure::Failure;
use quorate_client::{Client, ClientOptions, Observer};
use quorate_transport::{ClusterFile, ClusterFileError, KeyFile};
use std::path::Path;

/// Reads a cluster file; an error says which one.
pub fn read_cluster(path: &Path) -> Result<ClusterFile, Failure> {
    ClusterFile::read(path).map_err(|error| match error {
        ClusterFileError::Io { .. } => Failure::new(error),
        other => Failure::new(format!("{}: {other}", path.display())),
    })
}

/// Connects and registers a session.
pub async fn connect(args: &ClusterArgs, options: ClientOptions) -> Result<Client, Failure> {
    let cluster = read_cluster(&args.cluster)?;
    let key = KeyFile::read_principal(&args.key)?;
    Ok(Client::connect(cluster, key, options).await?)
}

/// Connects without a session: works without a quorum, too.
pub async fn observe(cluster: &Path, key: &Path) -> Result<Observer, Failure> {
    let cluster = read_cluster(cluster)?;
    let key = KeyFile::read_principal(key)?;
    Ok(Observer::start(cluster, key, ClientOptions::default()).await?)
}
