//! Proofs that an entry is in the log (C2SP tlog-proof): index, path and checkpoint in one file.
//!
//! Invariant: a proof that parses is written again to the same bytes, and proves nothing before it was verified
//! against the keys of a log and a leaf. The extra data is signed by nobody.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quorate_crypto::Hash;
use quorate_merkle::log::{LOG_PROOF_HASHES_MAX, LogError, verify_inclusion};

use super::canonical_decimal;
use super::checkpoint::{decode_hash, encode_hash};
use super::heads::{CheckedHead, HeadError, LogKeys};
use super::note::{NOTE_BYTES_MAX, NoteError, SignedNote};

/// Most bytes of extra data: a header is far smaller.
pub const PROOF_EXTRA_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a file with a proof: the extra data in base64, the path, the checkpoint.
pub const PROOF_FILE_BYTES_MAX: usize = 2 * PROOF_EXTRA_BYTES_MAX + (8 << 10) + NOTE_BYTES_MAX;

/// What a proof begins with.
pub const LOG_PROOF_MAGIC: &str = "c2sp.org/tlog-proof@v1\n";

/// Why a file is no proof, or proves nothing. The fault of whoever made it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogProofError {
    /// More than any proof has.
    #[error("the proof is too large")]
    TooLarge,
    /// It does not begin as one, or a line is malformed.
    #[error("malformed proof")]
    Malformed,
    /// Its checkpoint is no note.
    #[error("its checkpoint: {0}")]
    Note(#[from] NoteError),
    /// Its checkpoint is none of this log, or too few signed it.
    #[error("its checkpoint: {0}")]
    Head(#[from] HeadError),
    /// Its path does not lead from the leaf to the checkpoint's root.
    #[error("its path: {0}")]
    Path(#[from] LogError),
}

/// A proof that an entry is in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogProof {
    /// Data beside the proof, believed by nobody; `quorate audit tlog prove` puts the entry itself here.
    pub extra: Option<Vec<u8>>,
    /// Number of the entry: the height of the header.
    pub index: u64,
    /// From the leaf's sibling to the children of the root.
    pub path: Vec<Hash>,
    /// The signed head.
    pub checkpoint: SignedNote,
}

impl LogProof {
    /// Reads a proof.
    ///
    /// # Errors
    /// [`LogProofError`] of size and form.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogProofError> {
        if bytes.len() > PROOF_FILE_BYTES_MAX {
            return Err(LogProofError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| LogProofError::Malformed)?;
        let rest = text.strip_prefix(LOG_PROOF_MAGIC).ok_or(LogProofError::Malformed)?;
        // No line before the checkpoint is empty, so the first empty line ends them.
        let (lines, checkpoint) = rest.split_once("\n\n").ok_or(LogProofError::Malformed)?;
        let mut lines = lines.split('\n').peekable();
        let extra = match lines.next_if(|line| line.starts_with("extra ")) {
            Some(line) => Some(extra_data(line)?),
            None => None,
        };
        let index = lines.next().and_then(|line| canonical_decimal(line.strip_prefix("index ")?));
        let index = index.ok_or(LogProofError::Malformed)?;
        let mut path = Vec::new();
        for line in lines {
            if path.len() >= LOG_PROOF_HASHES_MAX {
                return Err(LogProofError::TooLarge);
            }
            path.push(decode_hash(line).ok_or(LogProofError::Malformed)?);
        }
        Ok(Self { extra, index, path, checkpoint: SignedNote::parse(checkpoint.as_bytes())? })
    }

    /// Checks that a quorum stands for the head and that the entry of this leaf hash is under it.
    ///
    /// # Errors
    /// [`LogProofError`].
    pub fn verify(&self, keys: &LogKeys, leaf_hash: &Hash) -> Result<CheckedHead, LogProofError> {
        let checked = keys.check(&self.checkpoint)?;
        verify_inclusion(&checked.head.root, checked.head.size, self.index, leaf_hash, &self.path)?;
        Ok(checked)
    }
}

fn extra_data(line: &str) -> Result<Vec<u8>, LogProofError> {
    let encoded = line.strip_prefix("extra ").ok_or(LogProofError::Malformed)?;
    let bytes = STANDARD.decode(encoded).map_err(|_| LogProofError::Malformed)?;
    match bytes.len() {
        0 => Err(LogProofError::Malformed),
        1..=PROOF_EXTRA_BYTES_MAX => Ok(bytes),
        _ => Err(LogProofError::TooLarge),
    }
}

impl fmt::Display for LogProof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(LOG_PROOF_MAGIC)?;
        if let Some(extra) = &self.extra {
            writeln!(formatter, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(formatter, "index {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(formatter, "{}", encode_hash(hash)))?;
        write!(formatter, "\n{}", self.checkpoint)
    }
}
