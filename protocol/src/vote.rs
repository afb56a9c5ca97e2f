//! The signed messages of the normal case: PRE-PREPARE, PREPARE, COMMIT.
//!
//! Invariant: votes bind epoch, view, height, type and header hash into the signed statement, so that
//! none can be read as another (hazards AU1, AU4).

use crate::{Epoch, Height, Proposal, ReplicaIndex, View};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{CertificateKind, Hash, Signature, Statement, StatementKind};

/// A leader's proposal at a height of its view. It is no vote (hazard AU2).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PrePrepare {
    /// Epoch.
    pub epoch: Epoch,
    /// View; its leader signs.
    pub view: View,
    /// Height.
    pub height: Height,
    /// The batch.
    pub proposal: Proposal,
    /// Under the leader's consensus key.
    pub signature: Signature,
}

impl PrePrepare {
    /// What the signature covers; `digest` is the proposal's.
    #[must_use]
    pub const fn statement(
        cluster: Hash,
        epoch: Epoch,
        view: View,
        height: Height,
        digest: Hash,
    ) -> Statement {
        Statement { cluster, epoch, kind: StatementKind::PrePrepare, view, height, digest }
    }
}

/// Which phase a vote belongs to.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum VoteKind {
    /// PREPARE.
    Prepare,
    /// COMMIT.
    Commit,
}

impl VoteKind {
    /// The type that its statement names.
    #[must_use]
    pub const fn statement_kind(self) -> StatementKind {
        match self {
            Self::Prepare => StatementKind::Prepare,
            Self::Commit => StatementKind::Commit,
        }
    }

    /// The certificate that Q of its votes make.
    #[must_use]
    pub const fn certificate_kind(self) -> CertificateKind {
        match self {
            Self::Prepare => CertificateKind::Prepare,
            Self::Commit => CertificateKind::Commit,
        }
    }
}

/// A PREPARE or COMMIT.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// Phase.
    pub kind: VoteKind,
    /// Epoch.
    pub epoch: Epoch,
    /// View.
    pub view: View,
    /// Height.
    pub height: Height,
    /// Hash of the header voted for.
    pub header: Hash,
    /// The voter.
    pub replica: ReplicaIndex,
    /// Under the voter's consensus key.
    pub signature: Signature,
}

impl Vote {
    /// What the signature covers.
    #[must_use]
    pub const fn statement(&self, cluster: Hash) -> Statement {
        Statement {
            cluster,
            epoch: self.epoch,
            kind: self.kind.statement_kind(),
            view: self.view,
            height: self.height,
            digest: self.header,
        }
    }
}
