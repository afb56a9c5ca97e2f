//! The text of a checkpoint (C2SP tlog-checkpoint): origin, size, root.
//!
//! Invariant: three lines and no more. Extension lines, which the format allows, are signed by nobody here and
//! refused: nobody could audit them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quorate_crypto::{HASH_BYTES, Hash};
use quorate_merkle::LOG_SIZE_MAX;
use quorate_protocol::log_head::LogHead;

use super::canonical_decimal;
use super::note::NOTE_NAME_BYTES_MAX;

/// Text that is no checkpoint. The fault of whoever wrote it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not three lines, each ended by a newline.
    #[error("a checkpoint is three lines: origin, size, root")]
    Lines,
    /// The origin is empty or longer than the name of a key may be.
    #[error("the checkpoint has no usable origin")]
    Origin,
    /// Not a decimal number without leading zeros, or beyond any log.
    #[error("the checkpoint has no usable size")]
    Size,
    /// Not 32 bytes in base64.
    #[error("the checkpoint has no usable root")]
    Root,
}

/// A head of a log that says whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// Its head.
    pub head: LogHead,
}

impl Checkpoint {
    /// Reads the text of a note.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let text = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?;
        let mut lines = text.splitn(4, '\n');
        let mut line = || lines.next().ok_or(CheckpointError::Lines);
        let (origin, size, root) = (line()?, line()?, line()?);
        if lines.next().is_some() {
            return Err(CheckpointError::Lines);
        }
        if origin.is_empty() || origin.len() > NOTE_NAME_BYTES_MAX {
            return Err(CheckpointError::Origin);
        }
        let size =
            canonical_decimal(size).filter(|size| *size <= LOG_SIZE_MAX).ok_or(CheckpointError::Size)?;
        let root = decode_hash(root).ok_or(CheckpointError::Root)?;
        Ok(Self { origin: origin.to_owned(), head: LogHead { size, root } })
    }
}

/// The text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, head } = self;
        writeln!(formatter, "{origin}\n{}\n{}", head.size, encode_hash(&head.root))
    }
}

/// A hash in base64.
pub(super) fn encode_hash(hash: &Hash) -> String {
    STANDARD.encode(hash.0)
}

/// The hash of which this is the base64.
pub(super) fn decode_hash(text: &str) -> Option<Hash> {
    // Bounded before it is decoded.
    if text.len() > 2 * HASH_BYTES {
        return None;
    }
    STANDARD.decode(text).ok()?.try_into().ok().map(Hash)
}
