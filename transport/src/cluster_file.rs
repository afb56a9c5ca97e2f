//! `cluster.toml`: what a replica, a client or an operator must know of a cluster before the first packet.
//!
//! Invariant: a parsed file is consistent: its cluster id is the hash of its genesis, and its table of
//! replicas names exactly the genesis members and their keys. Only addresses may differ from genesis, so
//! that a host can move; an address proves nothing, the pinned key does.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use quorate_crypto::{Address, DecodeError, Hash, Member, MemberSet, PublicKey, Role, decode, encode};
use quorate_protocol::{Genesis, ReplicaIndex};

use crate::address::split_address;
use crate::client::ReplicaTarget;

/// Value of the key `format`.
pub const CLUSTER_FILE_FORMAT: &str = "quorate-cluster";
/// Version that this program writes, and the newest that it reads.
pub const CLUSTER_FILE_VERSION: i64 = 1;
/// Most bytes that a cluster file may have.
pub const CLUSTER_FILE_BYTES_MAX: u64 = 1 << 20;

/// A cluster as its file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFile {
    genesis: Genesis,
    addresses: Vec<Address>,
}

/// Why a cluster file is refused. The fault of whoever made or damaged the file.
#[derive(Debug, thiserror::Error)]
pub enum ClusterFileError {
    /// The file cannot be read or written.
    #[error("cluster file {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No TOML, or TOML that says nothing of a Quorate cluster.
    #[error("this is not a Quorate cluster file: {0}")]
    NotAClusterFile(String),
    /// Written by a newer program.
    #[error("cluster file has version {0}; this program reads up to {CLUSTER_FILE_VERSION}: upgrade it")]
    Newer(i64),
    /// A key is missing, of the wrong type, or not readable.
    #[error("cluster file is damaged: {0}")]
    Damaged(String),
    /// The genesis bytes do not decode.
    #[error("cluster file is damaged: its genesis does not decode: {0}")]
    Genesis(#[from] DecodeError),
    /// The genesis is another cluster's.
    #[error("cluster file is damaged: it names cluster {named}, but its genesis is that of {actual}")]
    OtherGenesis {
        /// The id that the file states.
        named: Hash,
        /// The hash of its genesis.
        actual: Hash,
    },
    /// The table of replicas contradicts genesis.
    #[error("cluster file is damaged: the table of replica {index} disagrees with genesis on its {key} key")]
    OtherKey {
        /// Which replica.
        index: ReplicaIndex,
        /// Name of the key.
        key: &'static str,
    },
}

impl ClusterFile {
    /// The file of a cluster whose replicas listen where genesis says.
    #[must_use]
    pub fn new(genesis: Genesis) -> Self {
        let addresses = genesis.members.members().iter().map(|member| member.address.clone()).collect();
        Self { genesis, addresses }
    }

    /// The same with one replica elsewhere; unchanged if there is no such replica.
    #[must_use]
    pub fn with_address(mut self, index: ReplicaIndex, address: Address) -> Self {
        if let Some(place) = self.addresses.get_mut(usize::from(index)) {
            *place = address;
        }
        self
    }

    /// The cluster's identifier.
    #[must_use]
    pub fn cluster(&self) -> Hash {
        self.genesis.cluster()
    }

    /// What the cluster started from.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The members of epoch 0.
    #[must_use]
    pub fn members(&self) -> &MemberSet {
        &self.genesis.members
    }

    /// Where each replica listens, as HOST:PORT, by index.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Whom a client calls to reach a replica.
    #[must_use]
    pub fn target(&self, index: ReplicaIndex) -> Option<ReplicaTarget> {
        Some(ReplicaTarget {
            cluster: self.cluster(),
            replica: index,
            address: self.addresses.get(usize::from(index))?.clone(),
            key: self.members().get(index)?.transport,
        })
    }

    /// The text of the file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        text.push_str("# A Quorate cluster. Holds no secrets: give it to replicas, clients and auditors.\n");
        text.push_str(
            "# Whoever replaces it chooses the cluster that they trust. Only addresses may be edited.\n",
        );
        line(&mut text, "format", CLUSTER_FILE_FORMAT);
        text.push_str("version = 1\n");
        line(&mut text, "cluster", &self.cluster().to_string());
        line(&mut text, "genesis", &hex::encode(encode(&self.genesis)));
        for (index, (member, address)) in self.members().members().iter().zip(&self.addresses).enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n[[replica]]\nindex = {index}\n");
            line(&mut text, "address", address);
            for (name, key) in named_keys(member) {
                line(&mut text, name, &key.to_string());
            }
        }
        text
    }

    /// Reads the text of a cluster file and checks that it agrees with itself.
    ///
    /// # Errors
    /// [`ClusterFileError`], but never [`ClusterFileError::Io`].
    pub fn parse(text: &str) -> Result<Self, ClusterFileError> {
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| not_ours(error.message().to_owned()))?;
        check_format(&table)?;
        let named = hash(&table, "cluster")?;
        let bytes = hex::decode(string(&table, "genesis")?)
            .map_err(|_| damaged("`genesis` is not hexadecimal".to_owned()))?;
        let genesis: Genesis = decode(&bytes)?;
        let actual = genesis.cluster();
        if named != actual {
            return Err(ClusterFileError::OtherGenesis { named, actual });
        }
        let addresses = replicas(&table, &genesis.members)?;
        Ok(Self { genesis, addresses })
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// [`ClusterFileError`].
    pub fn read(path: &Path) -> Result<Self, ClusterFileError> {
        let failed = |source| ClusterFileError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(CLUSTER_FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > CLUSTER_FILE_BYTES_MAX {
            return Err(not_ours("it is too large".to_owned()));
        }
        let text = String::from_utf8(bytes).map_err(|_| not_ours("it is not text".to_owned()))?;
        Self::parse(&text)
    }

    /// Writes the file anew: first beside its place, synced, then renamed over it.
    ///
    /// # Errors
    /// [`ClusterFileError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), ClusterFileError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let beside = PathBuf::from(name);
        let written = write_synced(&beside, self.to_toml().as_bytes())
            .and_then(|()| std::fs::rename(&beside, path))
            .and_then(|()| sync_directory(path));
        written.map_err(|source| ClusterFileError::Io { path: path.to_owned(), source })
    }
}

/// Keys of a member by the names that they have in the file.
fn named_keys(member: &Member) -> [(&'static str, PublicKey); 5] {
    member.keys().map(|(role, key)| (name_of(role), key))
}

fn name_of(role: Role) -> &'static str {
    match role {
        Role::Consensus => "consensus",
        Role::Transport => "transport",
        Role::Blocks => "blocks",
        Role::LogNote => "log_note",
        Role::LogCosignature => "log_cosignature",
        Role::Principal => "principal",
        Role::Session => "session",
    }
}

/// One `key = "value"` line, escaped as TOML wants it.
fn line(text: &mut String, key: &str, value: &str) {
    let value = toml::Value::String(value.to_owned());
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{key} = {value}");
}

fn not_ours(reason: String) -> ClusterFileError {
    ClusterFileError::NotAClusterFile(reason)
}

fn damaged(reason: String) -> ClusterFileError {
    ClusterFileError::Damaged(reason)
}

/// Tells a foreign file and a newer one from a damaged one.
fn check_format(table: &toml::Table) -> Result<(), ClusterFileError> {
    match table.get("format").and_then(toml::Value::as_str) {
        Some(CLUSTER_FILE_FORMAT) => {}
        _ => return Err(not_ours(format!("`format` is not {CLUSTER_FILE_FORMAT:?}"))),
    }
    match table.get("version").and_then(toml::Value::as_integer) {
        Some(CLUSTER_FILE_VERSION) => Ok(()),
        Some(version) if version > CLUSTER_FILE_VERSION => Err(ClusterFileError::Newer(version)),
        _ => Err(damaged("`version` is no known number".to_owned())),
    }
}

fn string<'a>(table: &'a toml::Table, key: &str) -> Result<&'a str, ClusterFileError> {
    let value = table.get(key).and_then(toml::Value::as_str);
    value.ok_or_else(|| damaged(format!("`{key}` is missing or no text")))
}

fn hash(table: &toml::Table, key: &str) -> Result<Hash, ClusterFileError> {
    Hash::from_hex(string(table, key)?).map_err(|error| damaged(format!("`{key}`: {error}")))
}

/// The addresses from the tables of replicas, which must be those of the members, in order.
fn replicas(table: &toml::Table, members: &MemberSet) -> Result<Vec<Address>, ClusterFileError> {
    let tables = table.get("replica").and_then(toml::Value::as_array);
    let tables = tables.ok_or_else(|| damaged("no table of replicas".to_owned()))?;
    if tables.len() != members.n() {
        return Err(damaged(format!("{} tables of replicas for {} members", tables.len(), members.n())));
    }
    let mut addresses = Vec::with_capacity(members.n());
    for ((index, member), value) in members.indices().zip(members.members()).zip(tables) {
        let table = value.as_table().ok_or_else(|| damaged("`replica` is no table".to_owned()))?;
        addresses.push(replica(table, index, member)?);
    }
    Ok(addresses)
}

/// The address from one replica's table.
fn replica(table: &toml::Table, index: ReplicaIndex, member: &Member) -> Result<Address, ClusterFileError> {
    if table.get("index").and_then(toml::Value::as_integer) != Some(i64::from(index)) {
        return Err(damaged(format!("the tables of replicas are not in order at index {index}")));
    }
    for (name, key) in named_keys(member) {
        if hash(table, name)?.0 != key.0 {
            return Err(ClusterFileError::OtherKey { index, key: name });
        }
    }
    let text = string(table, "address")?;
    split_address(text).map_err(|reason| damaged(format!("address of replica {index}: {reason}")))?;
    Address::try_from(text.to_owned())
        .map_err(|error| damaged(format!("address of replica {index}: {error}")))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

/// Makes the name of a new file durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests;
