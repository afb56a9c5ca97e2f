//! A receipt: one operation and what came of it, in one file that is checked offline.
//!
//! Invariant: what a file says is bound by signatures alone: the operation by the envelope that its principal
//! signed, the envelope, the result and the place by the leaf of the receipts tree, the tree by the header, and the
//! header by its certificate. The format is in `docs/SPEC/audit.md`, section 6.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, Certificate, DecodeError, Hash, SignatureError, Verifier, decode, encode};
use quorate_execution::{Receipts, verify_path};
use quorate_merkle::ReceiptsError;
use quorate_protocol::limits::PATH_HASHES_MAX;
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{
    BatchTime, Credential, Envelope, Genesis, Header, Operation, OperationResult, ReceiptLeaf,
};

use crate::head::{NoHead, check_head};

/// What a receipt begins with.
pub const RECEIPT_MAGIC: [u8; 19] = *b"quorate receipt v1\n";

/// An operation, what came of it, and all that proves both.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Receipt {
    /// The header of the height that executed it.
    pub header: Header,
    /// Its commit certificate.
    pub certificate: Certificate,
    /// The envelope, whole: the leaf names the digest of all of it.
    pub envelope: Envelope,
    /// The operation's index in the envelope.
    pub index: u32,
    /// What came of it.
    pub result: OperationResult,
    /// Its index in the batch.
    pub position: u32,
    /// From its leaf to the root of the receipts.
    pub path: Bounded<Hash, PATH_HASHES_MAX>,
}

/// Why a file proves nothing. The fault of whoever made it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReceipt {
    /// It is something else, or of a later format.
    #[error("it does not begin as a receipt of format 1 does")]
    Magic,
    /// It does not decode.
    #[error("it does not decode: {0}")]
    Encoding(#[from] DecodeError),
    /// It is of another cluster.
    #[error("it is of cluster {0}")]
    Cluster(Hash),
    /// Nothing vouches for the header.
    #[error(transparent)]
    Header(#[from] NoHead),
    /// The envelope is for another cluster than the header is of.
    #[error("the envelope is for another cluster")]
    ForeignEnvelope,
    /// The principal did not sign the envelope.
    #[error("the envelope is not signed by the key that it names: {0}")]
    Envelope(#[from] SignatureError),
    /// The envelope has no operation of that index.
    #[error("the envelope has no operation number {0}")]
    Index(u32),
    /// The batch of the header did not answer this to this operation at this place.
    #[error("the result is not among those of the header: {0}")]
    Path(#[from] ReceiptsError),
}

impl Receipt {
    /// The receipt of the operation that is number `position` of a batch. `receipts` are what executing the batch
    /// gave. `None` if there is no such operation, or these are the receipts of another batch.
    #[must_use]
    pub fn of(committed: &CommittedBatch, receipts: &Receipts, position: u32) -> Option<Self> {
        let leaf = receipts.leaves().get(usize::try_from(position).ok()?)?;
        let mut before = 0_u64;
        let envelope = committed.batch.proposal.envelopes.iter().find(|envelope| {
            before = before.saturating_add(envelope.body.operations.len() as u64);
            before > u64::from(position)
        })?;
        let receipt = Self {
            header: committed.batch.header.clone(),
            certificate: committed.certificate.clone(),
            envelope: envelope.clone(),
            index: leaf.index,
            result: leaf.result.clone(),
            position,
            path: receipts.path(position)?,
        };
        receipt.check_path().is_ok().then_some(receipt)
    }

    /// As a file.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        [RECEIPT_MAGIC.as_slice(), &encode(self)].concat()
    }

    /// Reads a file; proves nothing yet.
    ///
    /// # Errors
    /// [`NoReceipt::Magic`] and [`NoReceipt::Encoding`].
    pub fn from_file(bytes: &[u8]) -> Result<Self, NoReceipt> {
        Ok(decode(bytes.strip_prefix(RECEIPT_MAGIC.as_slice()).ok_or(NoReceipt::Magic)?)?)
    }

    /// Checks that all of it holds, and returns the operation: its principal signed it, and this came of it.
    ///
    /// # Errors
    /// [`NoReceipt`], the first thing that does not hold.
    pub fn check(&self, genesis: &Genesis, verifier: &dyn Verifier) -> Result<&Operation, NoReceipt> {
        if self.header.cluster != genesis.cluster() {
            return Err(NoReceipt::Cluster(self.header.cluster));
        }
        check_head(&self.header, Some(&self.certificate), genesis, verifier)?;
        if self.envelope.body.cluster != self.header.cluster {
            return Err(NoReceipt::ForeignEnvelope);
        }
        self.envelope.verify(verifier)?;
        self.check_path()?;
        self.operation().ok_or(NoReceipt::Index(self.index))
    }

    fn check_path(&self) -> Result<(), NoReceipt> {
        let body = &self.envelope.body;
        if self.operation().is_none() {
            return Err(NoReceipt::Index(self.index));
        }
        let sequence = self.sequence().ok_or(NoReceipt::Index(self.index))?;
        let leaf = ReceiptLeaf {
            session: body.session,
            sequence,
            envelope: body.digest(),
            index: self.index,
            result: self.result.clone(),
        };
        Ok(verify_path(&self.header, self.position, &leaf, &self.path)?)
    }

    /// The operation, if the envelope has one of that index.
    #[must_use]
    pub fn operation(&self) -> Option<&Operation> {
        self.envelope.body.operations.get(usize::try_from(self.index).ok()?)
    }

    /// As whom it was to act; `None` if the envelope has no such credential, which fails the operation.
    #[must_use]
    pub fn credential(&self) -> Option<&Credential> {
        self.envelope.body.credentials.get(usize::from(self.operation()?.credential))
    }

    /// Its number in its session; `None` if there is none so high.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.envelope.body.first.checked_add(u64::from(self.index))
    }

    /// Its number among all operations of the cluster, which the `version` of what it changed names.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.header.first_operation.saturating_add(u64::from(self.position))
    }

    /// When it was executed (rule S8).
    #[must_use]
    pub fn time(&self) -> BatchTime {
        self.header.time.plus(u64::from(self.position))
    }
}
