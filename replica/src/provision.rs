//! Making a cluster: keys, genesis, `cluster.toml`, one directory per replica, the first principal's key.
//!
//! Invariant: nothing that exists is overwritten, and every secret is written with mode 0600 before
//! anything refers to it.

use crate::layout::{ADMIN_KEY, CLUSTER_FILE, NODE_KEY, replica_directory};
use quorate_crypto::{Address, Bounded, MEMBERS_MAX, MEMBERS_MIN, Member, MemberSet, NodeSeed, SecretKey};
use quorate_protocol::genesis::{GENESIS_VERSION, Genesis, Parameters};
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::{BatchTime, ReplicaIndex};
use quorate_store::directory::{Directory, DirectoryError, Identity};
use quorate_transport::{ClusterFile, ClusterFileError, KeyFile, KeyFileError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a cluster cannot be made. The caller's fault, or the disk's.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// Too few or too many replicas.
    #[error("{0} replicas: a cluster has {MEMBERS_MIN} to {MEMBERS_MAX} (3f+1 of them survive f faults)")]
    Count(usize),
    /// An address is not HOST:PORT.
    #[error("`{0}` is not HOST:PORT")]
    Address(String),
    /// The directory holds a cluster already.
    #[error("{0} holds a cluster already: choose another directory, or start it with `quorate dev --dir`")]
    Exists(PathBuf),
    /// A file or directory cannot be made.
    #[error("{path}: {source}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A key file cannot be written.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The cluster file cannot be written.
    #[error(transparent)]
    Cluster(#[from] ClusterFileError),
    /// A replica's directory cannot be made.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The member set is not usable.
    #[error("the member set is refused: {0}")]
    Members(#[from] quorate_crypto::MemberSetError),
    /// The system has no source of randomness.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

/// What a new cluster is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// HOST:PORT of each replica, by index.
    pub addresses: Vec<String>,
    /// Replicated parameters.
    pub parameters: Parameters,
    /// Owner and group of the root directory.
    pub owner: (u32, u32),
}

/// Makes a cluster under `out`: `cluster.toml`, `admin.key`, and `replica-N` with a copy of the cluster
/// file and its own key, so that each of them can be carried to its host as it is.
///
/// # Errors
/// [`ProvisionError`]; what was made before an error stays and must be removed by hand.
pub fn provision(out: &Path, plan: &Plan) -> Result<ClusterFile, ProvisionError> {
    if !(MEMBERS_MIN..=MEMBERS_MAX).contains(&plan.addresses.len()) {
        return Err(ProvisionError::Count(plan.addresses.len()));
    }
    let cluster_path = out.join(CLUSTER_FILE);
    if cluster_path.exists() {
        return Err(ProvisionError::Exists(out.to_owned()));
    }
    make_directory(out)?;
    let mut seeds = Vec::with_capacity(plan.addresses.len());
    let mut members = Vec::with_capacity(plan.addresses.len());
    for address in &plan.addresses {
        let seed = NodeSeed::from_bytes(random()?);
        members.push(Member::from_seed(&seed, checked_address(address)?));
        seeds.push(seed);
    }
    let principal = SecretKey::from_bytes(&random()?);
    let genesis = Genesis {
        version: GENESIS_VERSION,
        nonce: random()?,
        time: now(),
        members: MemberSet::new(0, members)?,
        principal: principal.public(),
        rights: PrincipalRights {
            anyone: true,
            administrator: true,
            auditor: true,
            uids: Bounded::default(),
            gids: Bounded::default(),
            squash_root: None,
            realms: Bounded::default(),
        },
        parameters: plan.parameters.clone(),
        root: (plan.owner.0, plan.owner.1, 0o755),
        entropy: random()?,
    };
    let cluster = ClusterFile::new(genesis);
    KeyFile::Principal(principal).write(&out.join(ADMIN_KEY))?;
    for (index, seed) in seeds.into_iter().enumerate() {
        let index = ReplicaIndex::try_from(index).map_err(|_| ProvisionError::Count(plan.addresses.len()))?;
        let directory = replica_directory(out, index);
        make_directory(&directory)?;
        KeyFile::Node(seed).write(&directory.join(NODE_KEY))?;
        cluster.write(&directory.join(CLUSTER_FILE))?;
        Directory::create(&directory, Identity { cluster: cluster.cluster(), replica: index })?;
    }
    // Last: a directory with a cluster file is a whole cluster.
    cluster.write(&cluster_path)?;
    Ok(cluster)
}

/// Writes a new principal's key.
///
/// # Errors
/// [`ProvisionError`] when there is no randomness or the file exists or cannot be written.
pub fn new_principal(path: &Path) -> Result<SecretKey, ProvisionError> {
    let secret = SecretKey::from_bytes(&random()?);
    KeyFile::Principal(secret.clone()).write(path)?;
    Ok(secret)
}

fn make_directory(path: &Path) -> Result<(), ProvisionError> {
    std::fs::create_dir_all(path).map_err(|source| ProvisionError::Io { path: path.to_owned(), source })
}

fn checked_address(text: &str) -> Result<Address, ProvisionError> {
    let bad = || ProvisionError::Address(text.to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    if host.is_empty() || port == 0 {
        return Err(bad());
    }
    Address::try_from(text.to_owned()).map_err(|_| bad())
}

fn random<const N: usize>() -> Result<[u8; N], ProvisionError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(ProvisionError::Random)?;
    Ok(bytes)
}

/// The wall clock as batch time.
#[must_use]
pub fn now() -> BatchTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    BatchTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
