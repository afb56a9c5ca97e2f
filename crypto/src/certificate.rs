//! Quorum certificates: one header hash and the signatures of at least Q members on it.
//!
//! Invariant: a certificate that verifies holds one valid signature of each of Q to n distinct members of
//! its epoch's set, all on one statement, hence of one view; and it has no second encoding of the same
//! signers and signatures.

use std::collections::BTreeMap;
use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::bitmap::Bitmap;
use crate::bounded::Bounded;
use crate::hash::Hash;
use crate::keys::Signature;
use crate::members::MemberSet;
use crate::quorum::MEMBERS_MAX;
use crate::scheme::{SignatureError, Verifier};
use crate::statement::{Statement, StatementKind};

/// Which votes a certificate holds. The numbers are those of the statements.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum CertificateKind {
    /// PREPAREs: nothing else can be prepared at this height of this view.
    Prepare = 2,
    /// COMMITs: the header is final.
    Commit = 3,
}

impl CertificateKind {
    /// The type of the votes.
    pub const fn statement_kind(self) -> StatementKind {
        match self {
            Self::Prepare => StatementKind::Prepare,
            Self::Commit => StatementKind::Commit,
        }
    }
}

/// Why a certificate is refused, or cannot be assembled. The fault of whoever made it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The member set at hand is that of another epoch.
    #[error("certificate of epoch {certificate} under the members of epoch {members}")]
    Epoch {
        /// Epoch of the certificate.
        certificate: u64,
        /// Epoch of the member set.
        members: u64,
    },
    /// The bitmap has another length than the set demands, or a bit beyond its last member.
    #[error("signer bitmap does not fit the member set")]
    Bitmap,
    /// There are not as many signatures as bits.
    #[error("{signatures} signatures of {signers} signers")]
    Count {
        /// Bits set.
        signers: usize,
        /// Signatures present.
        signatures: usize,
    },
    /// Fewer signers than a quorum.
    #[error("{signers} signers where {quorum} are a quorum")]
    NoQuorum {
        /// Bits set, or votes given.
        signers: usize,
        /// How many the set demands.
        quorum: usize,
    },
    /// A signature does not hold.
    #[error("signature of member {index}: {error}")]
    Signature {
        /// Index of the member it is said to be of.
        index: u8,
        /// What is wrong with it.
        error: SignatureError,
    },
    /// A vote names a member that the set does not have.
    #[error("no member {0}")]
    UnknownMember(u8),
    /// Two votes of one member.
    #[error("two votes of member {0}")]
    DuplicateVote(u8),
}

/// Signatures of a quorum on one vote. Fields are public: only [`Certificate::verify`] says it holds.
///
/// Two certificates of one statement may hold different signers; no decision may depend on which.
#[derive(Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// Which votes these are.
    pub kind: CertificateKind,
    /// Epoch of the members.
    pub epoch: u64,
    /// The one view in which all of them voted.
    pub view: u64,
    /// Height of the header.
    pub height: u64,
    /// Hash of the header.
    pub header_hash: Hash,
    /// Who signed.
    pub signers: Bitmap,
    /// The signatures, in ascending order of the signers' indices.
    pub signatures: Bounded<Signature, MEMBERS_MAX>,
}

impl Certificate {
    /// Puts votes together whose signatures the caller has verified, in any order. All are kept.
    ///
    /// # Errors
    /// [`CertificateError::UnknownMember`], [`CertificateError::DuplicateVote`] or
    /// [`CertificateError::NoQuorum`].
    pub fn assemble(
        kind: CertificateKind,
        members: &MemberSet,
        view: u64,
        height: u64,
        header_hash: Hash,
        votes: impl IntoIterator<Item = (u8, Signature)>,
    ) -> Result<Self, CertificateError> {
        let mut builder = CertificateBuilder::new(kind, members.epoch(), view, height, header_hash);
        for (index, signature) in votes {
            builder.add(members, index, signature)?;
        }
        builder.build(members)
    }

    /// The statement that every signature of this certificate covers.
    pub const fn statement(&self, cluster: &Hash) -> Statement {
        Statement {
            cluster: *cluster,
            epoch: self.epoch,
            kind: self.kind.statement_kind(),
            view: self.view,
            height: self.height,
            digest: self.header_hash,
        }
    }

    /// Rank of the certificate within its epoch: by view, then height.
    pub const fn rank(&self) -> (u64, u64) {
        (self.view, self.height)
    }

    /// The signers with their signatures, ascending.
    pub fn votes(&self) -> impl Iterator<Item = (u8, &Signature)> + '_ {
        self.signers.iter().zip(self.signatures.iter())
    }

    /// Checks everything: epoch, exact bitmap, one signature per bit, Q to n of them, each one valid.
    ///
    /// # Errors
    /// [`CertificateError`] names the first thing that is wrong; a single bad signature is enough, even
    /// beyond the quorum.
    pub fn verify(
        &self,
        cluster: &Hash,
        members: &MemberSet,
        verifier: &dyn Verifier,
    ) -> Result<(), CertificateError> {
        self.verify_shape(members)?;
        let statement = self.statement(cluster);
        for (index, signature) in self.votes() {
            let member = members.get(index).ok_or(CertificateError::UnknownMember(index))?;
            verifier
                .verify(&member.consensus, &statement, signature)
                .map_err(|error| CertificateError::Signature { index, error })?;
        }
        Ok(())
    }

    /// Everything but the signatures.
    fn verify_shape(&self, members: &MemberSet) -> Result<(), CertificateError> {
        if self.epoch != members.epoch() {
            return Err(CertificateError::Epoch { certificate: self.epoch, members: members.epoch() });
        }
        if !self.signers.fits(members.n()) {
            return Err(CertificateError::Bitmap);
        }
        let (signers, signatures, quorum) = (self.signers.count(), self.signatures.len(), members.quorum());
        if signers != signatures {
            return Err(CertificateError::Count { signers, signatures });
        }
        if signers < quorum {
            return Err(CertificateError::NoQuorum { signers, quorum });
        }
        Ok(())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, epoch, view, height, header_hash, .. } = self;
        let signers: Vec<u8> = self.signers.iter().collect();
        write!(
            formatter,
            "{kind:?}Certificate(epoch {epoch}, view {view}, height {height}, {header_hash} by {signers:?})"
        )
    }
}

/// Collects the votes of one kind, epoch, view, height and header hash until they are a certificate.
#[derive(Clone, Debug)]
pub struct CertificateBuilder {
    kind: CertificateKind,
    epoch: u64,
    view: u64,
    height: u64,
    header_hash: Hash,
    votes: BTreeMap<u8, Signature>,
}

impl CertificateBuilder {
    /// No votes yet.
    pub const fn new(kind: CertificateKind, epoch: u64, view: u64, height: u64, header_hash: Hash) -> Self {
        Self { kind, epoch, view, height, header_hash, votes: BTreeMap::new() }
    }

    /// Adds a vote whose signature the caller has verified. A member's first vote stays.
    ///
    /// # Errors
    /// [`CertificateError::UnknownMember`] or [`CertificateError::DuplicateVote`]; nothing is changed.
    pub fn add(
        &mut self,
        members: &MemberSet,
        index: u8,
        signature: Signature,
    ) -> Result<(), CertificateError> {
        if members.get(index).is_none() {
            return Err(CertificateError::UnknownMember(index));
        }
        if self.votes.contains_key(&index) {
            return Err(CertificateError::DuplicateVote(index));
        }
        self.votes.insert(index, signature);
        Ok(())
    }

    /// How many members have voted.
    pub fn count(&self) -> usize {
        self.votes.len()
    }

    /// Whether a member has voted.
    pub fn contains(&self, index: u8) -> bool {
        self.votes.contains_key(&index)
    }

    /// The certificate of all votes so far.
    ///
    /// # Errors
    /// [`CertificateError::Epoch`] if the set is that of another epoch, [`CertificateError::NoQuorum`]
    /// while there are fewer than Q votes.
    pub fn build(&self, members: &MemberSet) -> Result<Certificate, CertificateError> {
        let mut signers = Bitmap::empty(members.n());
        let mut signatures = Bounded::new();
        for (index, signature) in &self.votes {
            if !signers.insert(*index) || signatures.push(*signature).is_err() {
                return Err(CertificateError::UnknownMember(*index));
            }
        }
        let certificate = Certificate {
            kind: self.kind,
            epoch: self.epoch,
            view: self.view,
            height: self.height,
            header_hash: self.header_hash,
            signers,
            signatures,
        };
        certificate.verify_shape(members)?;
        Ok(certificate)
    }
}
