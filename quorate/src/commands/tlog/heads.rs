//! Heads that replicas signed, put together to those that a quorum signed.
//!
//! Invariant: only signatures that hold are gathered, each for the head that it is of and the replica whose key
//! made it.

use crate::commands::connect;
use crate::failure::Failure;
use quorate_audit::tlog::{LogKeys, conflict};
use quorate_client::heads::ShownHeads;
use quorate_crypto::Signature;
use quorate_protocol::ReplicaIndex;
use quorate_protocol::evidence::Proof;
use quorate_protocol::log_head::{LogHead, SignedLogHead};
use quorate_store::{read_heads, read_marker};
use quorate_transport::ClusterFile;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a live cluster has until a quorum of it signed one head: those of a cluster at rest do within two seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked meanwhile.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// A head under the signatures of a quorum.
pub struct QuorumHead {
    /// The head.
    pub head: LogHead,
    /// Who signed it, with both signatures, ascending.
    pub signed: Vec<(ReplicaIndex, SignedLogHead)>,
}

/// What was found.
pub struct Found {
    /// The heads of a quorum, largest first.
    pub heads: Vec<QuorumHead>,
    /// What proves that a replica signed two heads of one size.
    pub conflicts: BTreeMap<ReplicaIndex, Proof>,
}

/// Signatures by head and replica.
#[derive(Default)]
struct Gathered {
    heads: BTreeMap<LogHead, BTreeMap<ReplicaIndex, SignedLogHead>>,
    /// Of each replica the first head of each size.
    of_replica: BTreeMap<ReplicaIndex, BTreeMap<u64, (LogHead, Signature)>>,
    /// What proves that a replica signed two heads of one size.
    conflicts: BTreeMap<ReplicaIndex, Proof>,
}

impl Gathered {
    /// Takes what a replica shows; complains of what does not hold.
    fn add(&mut self, keys: &LogKeys, replica: ReplicaIndex, shown: Vec<SignedLogHead>) {
        for signed in shown {
            if keys.holds(replica, &signed) {
                self.heads.entry(signed.head).or_default().insert(replica, signed);
                let mine = self.of_replica.entry(replica).or_default();
                let before = mine.entry(signed.head.size).or_insert((signed.head, signed.note));
                if let Some(proof) = conflict(*before, (signed.head, signed.note)) {
                    self.conflicts.entry(replica).or_insert(proof);
                }
            } else {
                eprintln!(
                    "quorate: replica {replica} shows a head of size {} that it did not sign",
                    signed.head.size
                );
            }
        }
    }

    /// Those that a quorum signed, largest first, and who signed two of one size.
    fn of_a_quorum(self, keys: &LogKeys) -> Found {
        let enough = self.heads.into_iter().rev().filter(|(_, signed)| signed.len() >= keys.quorum());
        let heads =
            enough.map(|(head, signed)| QuorumHead { head, signed: signed.into_iter().collect() }).collect();
        Found { heads, conflicts: self.conflicts }
    }
}

/// The heads that a quorum of a live cluster signed, or of these replica directories, largest first. Waits for a live
/// cluster until there is one.
pub fn gather(
    (cluster, keys): (&ClusterFile, &LogKeys),
    directories: &[PathBuf],
    (file, key): (&Path, Option<&Path>),
) -> Result<Found, Failure> {
    if !directories.is_empty() {
        return stored(cluster, keys, directories);
    }
    let key = key.ok_or_else(|| {
        Failure::new(
            "the replicas' signatures come from the live cluster, with --key (or QUORATE_KEY), or from \
                      their directories, each with --heads DIRECTORY",
        )
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let observer = connect::observe(file, key).await?;
        let until = Instant::now() + PATIENCE;
        loop {
            let mut gathered = Gathered::default();
            let mut silent = Vec::new();
            for ShownHeads { replica, heads } in observer.log_heads().await {
                match heads {
                    Ok(heads) => gathered.add(keys, replica, heads),
                    Err(error) => silent.push(format!("replica {replica}: {error}")),
                }
            }
            let found = gathered.of_a_quorum(keys);
            if !found.heads.is_empty() || !found.conflicts.is_empty() {
                return Ok(found);
            }
            if Instant::now() >= until {
                silent.iter().for_each(|line| eprintln!("quorate: {line}"));
                return Ok(found);
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    })
}

fn stored(cluster: &ClusterFile, keys: &LogKeys, directories: &[PathBuf]) -> Result<Found, Failure> {
    let mut gathered = Gathered::default();
    for directory in directories {
        let identity = read_marker(directory)?.identity;
        if identity.cluster != cluster.cluster() {
            let (found, ours) = (identity.cluster, cluster.cluster());
            return Err(Failure::new(format!(
                "{} is of cluster {found}, not of {ours}",
                directory.display()
            )));
        }
        gathered.add(keys, identity.replica, read_heads(directory, &identity.cluster)?);
    }
    Ok(gathered.of_a_quorum(keys))
}
