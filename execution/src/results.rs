//! Receipts of a batch: their tree, the results of one envelope with paths, and how a client checks them.
//!
//! Invariant: what [`verify_results`] accepts is exactly what the batch of that header answered to that
//! envelope: each leaf binds session, sequence number, envelope, index and result, and each path is checked
//! for index, leaf count and length against the header.

use quorate_crypto::{Bounded, Certificate, Hash, encode};
use quorate_merkle::{InclusionPath, ReceiptsError, ReceiptsTree, verify_inclusion};
use quorate_protocol::client::EnvelopeResults;
use quorate_protocol::limits::PATH_HASHES_MAX;
use quorate_protocol::{Envelope, Header, OperationResult, ReceiptLeaf, SessionId};

/// Why the results of an envelope are refused: the fault of the replica that sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResultsFault {
    /// They are said to be of another envelope.
    #[error("the results belong to another envelope")]
    OtherEnvelope,
    /// Not one result and one path for each operation.
    #[error("{results} results and {paths} paths for {operations} operations")]
    Count {
        /// Operations of the envelope.
        operations: usize,
        /// Results given.
        results: usize,
        /// Paths given.
        paths: usize,
    },
    /// A path does not show its result under the receipts root of the header.
    #[error("the path of result {index}: {error}")]
    Path {
        /// Which result, within the envelope.
        index: u32,
        /// What is wrong.
        error: ReceiptsError,
    },
}

/// The receipts of one batch, in order, under their root.
#[derive(Clone)]
pub struct Receipts {
    leaves: Vec<ReceiptLeaf>,
    tree: ReceiptsTree,
}

impl Receipts {
    /// Builds the tree over the receipts of a batch.
    ///
    /// # Errors
    /// [`ReceiptsError::TooManyLeaves`] beyond the bound on operations of a proposal: the caller's fault.
    pub fn new(leaves: Vec<ReceiptLeaf>) -> Result<Self, ReceiptsError> {
        let tree = ReceiptsTree::from_leaves(leaves.iter().map(encode))?;
        Ok(Receipts { leaves, tree })
    }

    /// The receipts, one for each operation of the batch.
    #[must_use]
    pub fn leaves(&self) -> &[ReceiptLeaf] {
        &self.leaves
    }

    /// The root that the header carries.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// The index in the batch of the first operation of the session's envelope that starts at `first`; if
    /// the batch holds several, that of the one that was executed.
    #[must_use]
    pub fn find(&self, session: &SessionId, first: u64) -> Option<u32> {
        let starts =
            |leaf: &ReceiptLeaf| leaf.index == 0 && leaf.sequence == first && leaf.session == *session;
        let executed = |leaf: &ReceiptLeaf| !matches!(leaf.result, OperationResult::Skipped(_));
        let position = self.leaves.iter().position(|leaf| starts(leaf) && executed(leaf));
        let position = position.or_else(|| self.leaves.iter().position(starts))?;
        u32::try_from(position).ok()
    }

    /// The path of the receipt with this index in the batch; `None` when there is none.
    #[must_use]
    pub fn path(&self, position: u32) -> Option<Bounded<Hash, PATH_HASHES_MAX>> {
        let path = self.tree.prove(position).ok()?;
        Bounded::try_collect(path.hashes.iter().copied()).ok()
    }

    /// The results, with paths, of the envelope whose first operation is number `first_index` of the batch.
    /// `None` when no envelope starts there.
    #[must_use]
    pub fn results(
        &self,
        header: &Header,
        first_index: u32,
        certificate: Option<Certificate>,
    ) -> Option<EnvelopeResults> {
        let start = usize::try_from(first_index).ok()?;
        let first = self.leaves.get(start).filter(|leaf| leaf.index == 0)?;
        let same = |pair: &(u32, &ReceiptLeaf)| pair.1.envelope == first.envelope && pair.1.index == pair.0;
        let mut results = Bounded::new();
        let mut paths = Bounded::new();
        let mut index = first_index;
        for (_, leaf) in (0_u32..).zip(self.leaves.iter().skip(start)).take_while(same) {
            results.push(leaf.result.clone()).ok()?;
            paths.push(self.path(index)?).ok()?;
            index = index.checked_add(1)?;
        }
        let header = header.clone();
        Some(EnvelopeResults { header, first_index, results, envelope: first.envelope, paths, certificate })
    }
}

impl std::fmt::Debug for Receipts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Receipts({} under {})", self.leaves.len(), self.root())
    }
}

/// Checks that `results` are what the batch of `results.header` answered to `envelope`. Whoever calls then
/// checks the commit certificate of `results.header.hash()`: until then nothing is proven.
///
/// # Errors
/// [`ResultsFault`], that of the replica that sent them.
pub fn verify_results(results: &EnvelopeResults, envelope: &Envelope) -> Result<(), ResultsFault> {
    let body = &envelope.body;
    verify_results_of(results, &body.session, body.first, body.operations.len(), &body.digest())
}

/// As [`verify_results`], for whoever kept of the envelope only its digest.
///
/// # Errors
/// [`ResultsFault`], that of the replica that sent them.
pub fn verify_results_of(
    results: &EnvelopeResults,
    session: &SessionId,
    first: u64,
    operations: usize,
    digest: &Hash,
) -> Result<(), ResultsFault> {
    if results.envelope != *digest {
        return Err(ResultsFault::OtherEnvelope);
    }
    let (given, paths) = (results.results.len(), results.paths.len());
    if given != operations || paths != operations {
        return Err(ResultsFault::Count { operations, results: given, paths });
    }
    for (index, (result, path)) in (0_u32..).zip(results.results.iter().zip(&results.paths)) {
        let beyond = ResultsFault::Path { index, error: ReceiptsError::OutOfRange };
        let sequence = first.checked_add(u64::from(index)).ok_or(beyond)?;
        let position = results.first_index.checked_add(index).ok_or(beyond)?;
        let leaf =
            ReceiptLeaf { session: *session, sequence, envelope: *digest, index, result: result.clone() };
        verify_path(&results.header, position, &leaf, path)
            .map_err(|error| ResultsFault::Path { index, error })?;
    }
    Ok(())
}

/// Checks the path of one receipt of a batch.
///
/// # Errors
/// [`ReceiptsError`], the fault of the path's sender.
pub fn verify_path(
    header: &Header,
    position: u32,
    leaf: &ReceiptLeaf,
    path: &[Hash],
) -> Result<(), ReceiptsError> {
    let hashes = Bounded::try_from(path.to_vec()).map_err(|_| ReceiptsError::WrongLength)?;
    let path = InclusionPath { hashes };
    verify_inclusion(&header.receipts_root, position, header.operation_count, &encode(leaf), &path)
}
