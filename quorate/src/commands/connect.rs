//! Connecting to a cluster as the command line names it.

use crate::args::ClusterArgs;
use crate::failure::Failure;
use quorate_client::{Client, ClientOptions, Observer};
use quorate_transport::{ClusterFile, KeyFile};
use std::path::Path;

/// Connects and registers a session.
pub async fn connect(args: &ClusterArgs, options: ClientOptions) -> Result<Client, Failure> {
    let cluster = ClusterFile::read(&args.cluster)?;
    let key = KeyFile::read_principal(&args.key)?;
    Ok(Client::connect(cluster, key, options).await?)
}

/// Connects without a session: works without a quorum, too.
pub async fn observe(cluster: &Path, key: &Path) -> Result<Observer, Failure> {
    let cluster = ClusterFile::read(cluster)?;
    let key = KeyFile::read_principal(key)?;
    Ok(Observer::start(cluster, key, ClientOptions::default()).await?)
}
