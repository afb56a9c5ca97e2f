//! A trust anchor: a head that an auditor or client has seen, or is given, to hold what follows against.
//!
//! Invariant: an anchor is believed only if its head is certified by the members of the trusted genesis, and the log
//! below it only if it has the root that the head names. The format of a file is in `docs/SPEC/audit.md`, section 8.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{DecodeError, Hash, Verifier, decode, derive_hash, encode};
use quorate_merkle::LogFrontier;
use quorate_protocol::{Genesis, Height};

use crate::head::{Head, NoHead};

/// What a file with an anchor begins with.
pub const ANCHOR_MAGIC: [u8; 18] = *b"quorate anchor v1\n";
/// Most bytes of such a file: a header, a certificate of 32 signatures, and 48 peaks of the log.
pub const ANCHOR_BYTES_MAX: usize = 16 << 10;
/// Domain of the checksum.
const CHECKSUM: &str = "quorate anchor file v1";
/// Bytes of the checksum.
const CHECKSUM_BYTES: usize = 32;

/// A head, and the log below it if whoever wrote it knew that.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Anchor {
    /// The cluster.
    pub cluster: Hash,
    /// The head.
    pub head: Head,
    /// The frontier of the log over the headers below it: with it an audit can start here.
    pub log: Option<LogFrontier>,
}

/// Why a file is no anchor. The fault of whoever made it, or of the disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnchor {
    /// It is something else, or of a later format.
    #[error("it does not begin as an anchor of format 1 does")]
    Magic,
    /// It was cut or changed, or has more than [`ANCHOR_BYTES_MAX`] bytes.
    #[error("it is damaged: the checksum does not fit")]
    Damaged,
    /// It does not decode.
    #[error("it does not decode: {0}")]
    Encoding(#[from] DecodeError),
    /// It is of another cluster.
    #[error("it is of cluster {0}")]
    Cluster(Hash),
    /// Nothing vouches for the head.
    #[error(transparent)]
    Head(#[from] NoHead),
    /// The log is not the one below the head.
    #[error("the log that it holds is not the one that the header of height {0} names")]
    Log(Height),
    /// An audit cannot start at it.
    #[error(
        "it does not hold the log below its head, so an audit cannot start there; `audit verify --keep` writes one that does"
    )]
    NoLog,
    /// Batches cannot be executed again from it on.
    #[error(
        "an audit that executes all batches again starts at the genesis, because an anchor holds no state"
    )]
    NoState,
}

impl Anchor {
    /// As a file.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        let body = encode(self);
        let checksum = derive_hash(CHECKSUM, &[&body]);
        [ANCHOR_MAGIC.as_slice(), &body, &checksum.0].concat()
    }

    /// Reads a file; nothing of it is believed yet.
    ///
    /// # Errors
    /// [`NoAnchor::Magic`], [`NoAnchor::Damaged`] and [`NoAnchor::Encoding`].
    pub fn from_file(bytes: &[u8]) -> Result<Self, NoAnchor> {
        let rest = bytes.strip_prefix(ANCHOR_MAGIC.as_slice()).ok_or(NoAnchor::Magic)?;
        let length = rest.len().checked_sub(CHECKSUM_BYTES).filter(|length| *length <= ANCHOR_BYTES_MAX);
        let parts = length.and_then(|length| rest.split_at_checked(length));
        let (body, checksum) = parts.ok_or(NoAnchor::Damaged)?;
        if derive_hash(CHECKSUM, &[body]).0.as_slice() != checksum {
            return Err(NoAnchor::Damaged);
        }
        Ok(decode(body)?)
    }

    /// Checks that the head is one of the genesis' cluster, and the log the one below it.
    ///
    /// # Errors
    /// [`NoAnchor`], the first thing that does not hold.
    pub fn check(&self, genesis: &Genesis, verifier: &dyn Verifier) -> Result<(), NoAnchor> {
        if self.cluster != genesis.cluster() {
            return Err(NoAnchor::Cluster(self.cluster));
        }
        self.head.check(genesis, verifier)?;
        let header = &self.head.header;
        match &self.log {
            Some(log) if log.size() != header.height || log.root() != header.log_root => {
                Err(NoAnchor::Log(header.height))
            }
            _ => Ok(()),
        }
    }
}
