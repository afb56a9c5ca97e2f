//! Evidence: statements of one replica, under its own signature, that no correct replica ever makes.
//!
//! Invariant: what is here is a claim; only `quorate-audit` says whether it proves anything. A fact has one
//! encoding but for signatures that a liar may choose: the statements of a contradiction stand in ascending
//! order. Silence, lateness and signatures that do not hold are no evidence and have no place here.

use crate::limits::{EVIDENCE_BYTES_MAX, EVIDENCE_PER_PAGE_MAX};
use crate::view_change::SignedClaim;
use crate::{Epoch, Header, Height, PrePrepare, Proposal, ReplicaIndex, View, Vote};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, Certificate, DecodeError, Hash, Signature, decode, derive_hash, encode};

/// Version of the format.
pub const EVIDENCE_VERSION: u8 = 1;
/// First bytes of an evidence file, readable by people.
pub const EVIDENCE_FILE_MAGIC: &[u8; 16] = b"quorate evidence";

const FILE_CONTEXT: &str = "quorate evidence file v1";
/// Bytes of the checksum at the end of a file.
const CHECKSUM_BYTES: usize = 32;

/// What kind of lie it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum EvidenceKind {
    /// Two proposals of a leader at one (epoch, view, height).
    ConflictingPrePrepare = 1,
    /// Two PREPAREs at one (epoch, view, height) for different headers.
    ConflictingPrepare = 2,
    /// Two COMMITs at one (epoch, view, height) for different headers.
    ConflictingCommit = 3,
    /// A VIEW-CHANGE whose claim is lower than a COMMIT of an earlier view.
    ViewChangeOmission = 4,
    /// A proposal whose time is below the minimum over its parent.
    TimeRegression = 5,
    /// A proposal with an envelope that nobody may propose.
    InvalidProposal = 6,
    /// A vote for another header of a proposal than the certified one.
    BadExecution = 7,
    /// Two heads of the log of one size with different roots.
    ConflictingHead = 8,
    /// A COMMIT against a certificate that rules it out.
    UnfoundedCommit = 9,
}

impl EvidenceKind {
    /// All of them, ascending.
    pub const ALL: [Self; 9] = [
        Self::ConflictingPrePrepare,
        Self::ConflictingPrepare,
        Self::ConflictingCommit,
        Self::ViewChangeOmission,
        Self::TimeRegression,
        Self::InvalidProposal,
        Self::BadExecution,
        Self::ConflictingHead,
        Self::UnfoundedCommit,
    ];

    /// Its name, as reports print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConflictingPrePrepare => "ConflictingPrePrepare",
            Self::ConflictingPrepare => "ConflictingPrepare",
            Self::ConflictingCommit => "ConflictingCommit",
            Self::ViewChangeOmission => "ViewChangeOmission",
            Self::TimeRegression => "TimeRegression",
            Self::InvalidProposal => "InvalidProposal",
            Self::BadExecution => "BadExecution",
            Self::ConflictingHead => "ConflictingHead",
            Self::UnfoundedCommit => "UnfoundedCommit",
        }
    }
}

impl std::fmt::Display for EvidenceKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One side of a contradiction: what was signed at its place.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedDigest {
    /// Digest of the proposal, or hash of the header.
    pub digest: Hash,
    /// Under the signer's consensus key.
    pub signature: Signature,
}

/// Two statements of one type at one place.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Contradiction {
    /// View of both.
    pub view: View,
    /// Height of both.
    pub height: Height,
    /// The one of the lower digest.
    pub low: SignedDigest,
    /// The one of the higher digest.
    pub high: SignedDigest,
}

impl Contradiction {
    /// Both statements in their order, whichever was seen first.
    #[must_use]
    pub fn new(view: View, height: Height, one: SignedDigest, other: SignedDigest) -> Self {
        let (low, high) = if one.digest <= other.digest { (one, other) } else { (other, one) };
        Self { view, height, low, high }
    }
}

/// What shows the time and the number of operations of a proposal's parent.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[allow(clippy::large_enum_variant, reason = "rare, and moved once")]
pub enum ParentWitness {
    /// The genesis header, which whoever trusts the cluster knows.
    Genesis,
    /// The parent's header, under a certificate.
    Certified {
        /// The header; it names the digest that the proposal names as its parent.
        header: Header,
        /// Of either kind.
        certificate: Certificate,
    },
    /// The parent itself; its digest is what the proposal names.
    Proposed(Proposal),
}

/// The statements, and what is needed to see that they break a rule.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[allow(clippy::large_enum_variant, reason = "rare, and moved once")]
pub enum Proof {
    /// Two proposals of the view's leader.
    ConflictingPrePrepare(Contradiction) = 1,
    /// Two PREPAREs.
    ConflictingPrepare(Contradiction) = 2,
    /// Two COMMITs.
    ConflictingCommit(Contradiction) = 3,
    /// A COMMIT in a view below the VIEW-CHANGE's, of a rank above the claim's.
    ViewChangeOmission {
        /// The signed claim.
        claim: SignedClaim,
        /// The COMMIT that it should have covered.
        commit: Vote,
    } = 4,
    /// A proposal that is too early.
    TimeRegression {
        /// The proposal, as its leader signed it.
        pre_prepare: PrePrepare,
        /// Its parent.
        parent: ParentWitness,
    } = 5,
    /// A proposal with an envelope whose signature does not hold, or that breaks a static rule.
    InvalidProposal {
        /// The proposal, as its leader signed it.
        pre_prepare: PrePrepare,
        /// Index of the envelope.
        envelope: u32,
    } = 6,
    /// A vote for a header that execution of its proposal does not give.
    BadExecution {
        /// The vote.
        vote: Vote,
        /// What it is for.
        header: Header,
        /// The header of the same proposal that a quorum certified.
        certified: Header,
        /// Its certificate.
        certificate: Certificate,
    } = 7,
    /// Two heads of the log of one size, under note signatures of the culprit (`log.md`).
    ConflictingHead {
        /// Size of both.
        size: u64,
        /// The one of the lower root, which is its digest; signed with the culprit's `log_note` key.
        low: SignedDigest,
        /// The one of the higher root.
        high: SignedDigest,
    } = 8,
    /// A COMMIT for another header than a certificate of its height allows.
    UnfoundedCommit {
        /// The COMMIT.
        commit: Vote,
        /// A prepare certificate of the same view, or a commit certificate of the same or an earlier one.
        certificate: Certificate,
    } = 9,
}

impl Proof {
    /// Two heads of one size in their order, whichever was seen first.
    #[must_use]
    pub fn conflicting_head(size: u64, one: SignedDigest, other: SignedDigest) -> Self {
        let Contradiction { low, high, .. } = Contradiction::new(0, 0, one, other);
        Self::ConflictingHead { size, low, high }
    }
}

/// A piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Evidence {
    /// [`EVIDENCE_VERSION`].
    pub version: u8,
    /// The cluster's identifier.
    pub cluster: Hash,
    /// Epoch of all that is in it.
    pub epoch: Epoch,
    /// Whom it is about.
    pub culprit: ReplicaIndex,
    /// The statements.
    pub proof: Proof,
}

/// Where a replica lied; two pieces of evidence with one place say the same.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Who.
    pub culprit: ReplicaIndex,
    /// How.
    pub kind: EvidenceKind,
    /// Epoch.
    pub epoch: Epoch,
    /// View of the statement, of the COMMIT where there are two.
    pub view: View,
    /// Height of the same.
    pub height: Height,
}

impl Evidence {
    /// A piece of the present version.
    #[must_use]
    pub const fn new(cluster: Hash, epoch: Epoch, culprit: ReplicaIndex, proof: Proof) -> Self {
        Self { version: EVIDENCE_VERSION, cluster, epoch, culprit, proof }
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> EvidenceKind {
        match &self.proof {
            Proof::ConflictingPrePrepare(_) => EvidenceKind::ConflictingPrePrepare,
            Proof::ConflictingPrepare(_) => EvidenceKind::ConflictingPrepare,
            Proof::ConflictingCommit(_) => EvidenceKind::ConflictingCommit,
            Proof::ViewChangeOmission { .. } => EvidenceKind::ViewChangeOmission,
            Proof::TimeRegression { .. } => EvidenceKind::TimeRegression,
            Proof::InvalidProposal { .. } => EvidenceKind::InvalidProposal,
            Proof::BadExecution { .. } => EvidenceKind::BadExecution,
            Proof::ConflictingHead { .. } => EvidenceKind::ConflictingHead,
            Proof::UnfoundedCommit { .. } => EvidenceKind::UnfoundedCommit,
        }
    }

    /// Where the lie is.
    #[must_use]
    pub const fn place(&self) -> Place {
        let (view, height) = match &self.proof {
            Proof::ConflictingPrePrepare(both)
            | Proof::ConflictingPrepare(both)
            | Proof::ConflictingCommit(both) => (both.view, both.height),
            Proof::ViewChangeOmission { commit, .. } | Proof::UnfoundedCommit { commit, .. } => {
                (commit.view, commit.height)
            }
            Proof::TimeRegression { pre_prepare, .. } | Proof::InvalidProposal { pre_prepare, .. } => {
                (pre_prepare.view, pre_prepare.height)
            }
            Proof::BadExecution { vote, .. } => (vote.view, vote.height),
            // The height of the last header under both heads; no view is in them.
            Proof::ConflictingHead { size, .. } => (0, size.saturating_sub(1)),
        };
        Place { culprit: self.culprit, kind: self.kind(), epoch: self.epoch, view, height }
    }

    /// What names it.
    #[must_use]
    pub fn digest(&self) -> Hash {
        derive_hash("quorate evidence v1", &[&encode(self)])
    }

    /// The bytes of a file that holds it.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        let body = encode(self);
        let mut bytes = EVIDENCE_FILE_MAGIC.to_vec();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&derive_hash(FILE_CONTEXT, &[&body]).0);
        bytes
    }

    /// What a file holds.
    ///
    /// # Errors
    /// [`EvidenceFileError`]: the fault of whoever wrote or changed it, or of the disk.
    pub fn from_file(bytes: &[u8]) -> Result<Self, EvidenceFileError> {
        let rest = bytes.strip_prefix(EVIDENCE_FILE_MAGIC.as_slice()).ok_or(EvidenceFileError::NotOurs)?;
        let length = rest.len().checked_sub(CHECKSUM_BYTES).ok_or(EvidenceFileError::Damaged)?;
        if length > EVIDENCE_BYTES_MAX {
            return Err(EvidenceFileError::TooLarge(length));
        }
        let (body, checksum) = rest.split_at_checked(length).ok_or(EvidenceFileError::Damaged)?;
        if derive_hash(FILE_CONTEXT, &[body]).0.as_slice() != checksum {
            return Err(EvidenceFileError::Damaged);
        }
        Ok(decode(body)?)
    }
}

/// Bytes that are no evidence file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceFileError {
    /// It does not begin as one.
    #[error("not an evidence file")]
    NotOurs,
    /// More than [`EVIDENCE_BYTES_MAX`].
    #[error("{0} bytes of evidence where {EVIDENCE_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// It was cut or changed.
    #[error("damaged: the checksum does not fit")]
    Damaged,
    /// It is not the encoding of evidence of a known kind.
    #[error(transparent)]
    Encoding(#[from] DecodeError),
}

/// A leader's signed proposal by its digest: what is left of a PRE-PREPARE when the batch is taken away.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProposalStatement {
    /// Epoch.
    pub epoch: Epoch,
    /// View; its leader signs.
    pub view: View,
    /// Height.
    pub height: Height,
    /// Digest of the proposal, with the signature of the PRE-PREPARE.
    pub signed: SignedDigest,
}

/// Evidence that a replica has for others.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EvidenceOffer {
    /// Names it.
    pub digest: Hash,
    /// Whom it is about.
    pub culprit: ReplicaIndex,
    /// Its kind.
    pub kind: EvidenceKind,
}

/// A page of the evidence that a replica holds, ascending by digest.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EvidencePage {
    /// The pieces.
    pub pieces: Bounded<Evidence, EVIDENCE_PER_PAGE_MAX>,
    /// Whether more follow after the last of them.
    pub more: bool,
}
