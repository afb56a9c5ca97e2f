//! A policy: what an auditor trusts of a cluster, in a file of its own, to be checked against where no cluster is.
//!
//! Invariant: all that is trusted is the genesis, whose hash is the cluster's id; whatever else the file says is what
//! the genesis says, so that people and other programs need not decode it. No addresses: nothing can be reached by
//! it. The format is in `docs/SPEC/audit.md`, section 7.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use quorate_crypto::{DecodeError, Hash, decode, encode};
use quorate_protocol::Genesis;

/// Value of the key `format`.
pub const POLICY_FILE_FORMAT: &str = "quorate-policy";
/// Version that this program writes, and the newest that it reads.
pub const POLICY_FILE_VERSION: i64 = 1;
/// Most bytes that a policy may have.
pub const POLICY_FILE_BYTES_MAX: u64 = 1 << 20;

/// What is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    genesis: Genesis,
}

/// Why a policy is refused. The fault of whoever made or damaged the file.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// The file cannot be read.
    #[error("policy {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No TOML, or TOML that is no policy.
    #[error("this is not a Quorate policy: {0}")]
    NotAPolicy(String),
    /// Written by a newer program.
    #[error("the policy has version {0}; this program reads up to {POLICY_FILE_VERSION}: upgrade it")]
    Newer(i64),
    /// The genesis bytes do not decode.
    #[error("the policy is damaged: its genesis does not decode: {0}")]
    Genesis(#[from] DecodeError),
    /// It says more or something else than its genesis does.
    #[error("the policy is damaged: it does not say what its genesis, of cluster {0}, says")]
    Contradiction(Hash),
}

impl PolicyFile {
    /// The policy that trusts this genesis.
    #[must_use]
    pub const fn new(genesis: Genesis) -> Self {
        Self { genesis }
    }

    /// What is trusted.
    #[must_use]
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The text of the file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let (genesis, members) = (&self.genesis, &self.genesis.members);
        let mut text = format!(
            "# What is trusted of a Quorate cluster. Holds no secrets: give it to auditors, by a way that they trust.\n\
             # The genesis is all of it; what follows below is what it says.\n\
             format = \"{POLICY_FILE_FORMAT}\"\n\
             version = {POLICY_FILE_VERSION}\n\
             cluster = \"{}\"\n\
             genesis = \"{}\"\n\
             epoch = {}\n\
             quorum = {}\n",
            genesis.cluster(),
            hex::encode(encode(genesis)),
            members.epoch(),
            members.quorum(),
        );
        for (index, member) in members.members().iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n[[replica]]\nindex = {index}\nconsensus = \"{}\"\n", member.consensus);
        }
        text
    }

    /// Reads the text of a policy.
    ///
    /// # Errors
    /// [`PolicyFileError`], but never [`PolicyFileError::Io`].
    pub fn parse(text: &str) -> Result<Self, PolicyFileError> {
        let table = |text: &str| text.parse::<toml::Table>();
        let found = table(text).map_err(|error| not_ours(error.message()))?;
        if found.get("format").and_then(toml::Value::as_str) != Some(POLICY_FILE_FORMAT) {
            return Err(not_ours(&format!("`format` is not {POLICY_FILE_FORMAT:?}")));
        }
        match found.get("version").and_then(toml::Value::as_integer) {
            Some(POLICY_FILE_VERSION) => {}
            Some(version) if version > POLICY_FILE_VERSION => return Err(PolicyFileError::Newer(version)),
            _ => return Err(not_ours("`version` is no known number")),
        }
        let genesis = found.get("genesis").and_then(toml::Value::as_str);
        let bytes = genesis.and_then(|genesis| hex::decode(genesis).ok());
        let bytes = bytes.ok_or_else(|| not_ours("`genesis` is missing or not hexadecimal"))?;
        let policy = Self::new(decode(&bytes)?);
        if table(&policy.to_toml()).ok().as_ref() == Some(&found) {
            Ok(policy)
        } else {
            Err(PolicyFileError::Contradiction(policy.genesis.cluster()))
        }
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// [`PolicyFileError`].
    pub fn read(path: &Path) -> Result<Self, PolicyFileError> {
        let failed = |source| PolicyFileError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(POLICY_FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > POLICY_FILE_BYTES_MAX {
            return Err(not_ours("it is too large"));
        }
        Self::parse(std::str::from_utf8(&bytes).map_err(|_| not_ours("it is not text"))?)
    }
}

fn not_ours(reason: &str) -> PolicyFileError {
    PolicyFileError::NotAPolicy(reason.to_owned())
}

#[cfg(test)]
mod tests;
