//! Where committed heights come from.
//!
//! Invariant: a source only delivers; whether what it delivers holds is the verifier's to say.

use quorate_protocol::Height;
use quorate_protocol::peer::CommittedBatch;

/// Why a source cannot deliver the next height.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It is there, but damaged: a checksum fails, or it does not decode. The fault of the disk or of
    /// whoever changed it.
    #[error("damaged: {text}")]
    Damaged {
        /// The height, if the source knows it; otherwise the one that would be next.
        height: Option<Height>,
        /// What is wrong, and where.
        text: String,
    },
    /// It cannot be had now: no connection, no permission, an error of the system.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// The committed heights of a cluster from height 1 on, ascending without a gap.
pub trait Source {
    /// The next height; `None` after the last one.
    ///
    /// # Errors
    /// [`SourceError`]; the verifier asks no more after it.
    fn next(&mut self) -> Result<Option<CommittedBatch>, SourceError>;
}

/// Any iterator is a source.
impl<I: Iterator<Item = Result<CommittedBatch, SourceError>>> Source for I {
    fn next(&mut self) -> Result<Option<CommittedBatch>, SourceError> {
        Iterator::next(self).transpose()
    }
}
