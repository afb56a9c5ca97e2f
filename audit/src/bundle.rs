//! A bundle: the committed heights of a cluster in one file, to be checked where no cluster can be reached.
//!
//! Invariants: a bundle proves nothing that its heights do not prove themselves; it says where it ends, so that
//! one that was cut short is noticed; what is read of it takes memory in proportion to what is there. The format
//! is in `docs/SPEC/audit.md`, section 4.

use std::io::{Error, ErrorKind, Read, Write};

use quorate_crypto::{Hash, decode, encode};
use quorate_protocol::peer::CommittedBatch;

use crate::source::{Source, SourceError};

/// What a bundle begins with.
pub const BUNDLE_MAGIC: [u8; 18] = *b"quorate bundle v1\n";
/// Most bytes of one encoded height: a proposal of 4 MiB and what belongs to it.
pub const BUNDLE_HEIGHT_BYTES_MAX: u32 = 8 << 20;
/// What stands in the place of a length after the last height.
const END: [u8; 4] = [0; 4];

/// Writes a bundle; one that is dropped before [`BundleWriter::finish`] reads as cut short.
#[derive(Debug)]
pub struct BundleWriter<W> {
    to: W,
}

impl<W: Write> BundleWriter<W> {
    /// Begins a bundle of the cluster with this id.
    ///
    /// # Errors
    /// Those of the file.
    pub fn new(mut to: W, cluster: &Hash) -> Result<Self, Error> {
        to.write_all(&BUNDLE_MAGIC)?;
        to.write_all(&cluster.0)?;
        Ok(Self { to })
    }

    /// Adds the next height.
    ///
    /// # Errors
    /// Those of the file, and [`ErrorKind::InvalidInput`] for a height that no replica would have accepted.
    pub fn add(&mut self, committed: &CommittedBatch) -> Result<(), Error> {
        let bytes = encode(committed);
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= BUNDLE_HEIGHT_BYTES_MAX);
        let length = length.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "a height is too large"))?;
        self.to.write_all(&length.to_le_bytes())?;
        self.to.write_all(&bytes)
    }

    /// Says that nothing follows, and gives the file back, which the caller syncs.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(mut self) -> Result<W, Error> {
        self.to.write_all(&END)?;
        self.to.flush()?;
        Ok(self.to)
    }
}

/// Why a file is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum NoBundle {
    /// It is something else, or of a later format.
    #[error("it does not begin as a bundle of format 1 does")]
    Magic,
    /// It is of another cluster than the auditor's.
    #[error("it is of cluster {0}")]
    Cluster(Hash),
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] Error),
}

/// Reads a bundle.
#[derive(Debug)]
pub struct BundleReader<R> {
    from: R,
}

impl<R: Read> BundleReader<R> {
    /// Checks that this is a bundle of the cluster.
    ///
    /// # Errors
    /// [`NoBundle`].
    pub fn new(mut from: R, cluster: &Hash) -> Result<Self, NoBundle> {
        let (mut magic, mut found) = (BUNDLE_MAGIC, Hash::ZERO);
        let cut = |error: Error| match error.kind() {
            ErrorKind::UnexpectedEof => NoBundle::Magic,
            _ => NoBundle::Io(error),
        };
        from.read_exact(&mut magic).map_err(cut)?;
        if magic != BUNDLE_MAGIC {
            return Err(NoBundle::Magic);
        }
        from.read_exact(&mut found.0).map_err(cut)?;
        if found != *cluster {
            return Err(NoBundle::Cluster(found));
        }
        Ok(Self { from })
    }

    /// Whether the file ends here.
    fn ends(&mut self) -> Result<bool, SourceError> {
        let mut byte = Vec::new();
        self.from.by_ref().take(1).read_to_end(&mut byte).map_err(unreadable)?;
        Ok(byte.is_empty())
    }
}

impl<R: Read> Source for BundleReader<R> {
    fn next(&mut self) -> Result<Option<CommittedBatch>, SourceError> {
        let mut length = END;
        self.from.read_exact(&mut length).map_err(unreadable)?;
        if length == END {
            return if self.ends()? { Ok(None) } else { Err(damaged("something follows its end")) };
        }
        let length = u32::from_le_bytes(length);
        if length > BUNDLE_HEIGHT_BYTES_MAX {
            return Err(damaged("a height is said to be larger than any is"));
        }
        let mut bytes = Vec::new();
        let read = self.from.by_ref().take(u64::from(length)).read_to_end(&mut bytes).map_err(unreadable)?;
        if u32::try_from(read) != Ok(length) {
            return Err(unreadable(Error::from(ErrorKind::UnexpectedEof)));
        }
        decode(&bytes).map(Some).map_err(|error| damaged(&error.to_string()))
    }
}

fn damaged(text: &str) -> SourceError {
    SourceError::Damaged { height: None, text: format!("the bundle: {text}") }
}

/// A bundle that ends too early holds as far as it goes: nothing can be told of the rest.
fn unreadable(error: Error) -> SourceError {
    SourceError::Unavailable(match error.kind() {
        ErrorKind::UnexpectedEof => "the bundle is cut short".to_owned(),
        _ => format!("the bundle cannot be read: {error}"),
    })
}
