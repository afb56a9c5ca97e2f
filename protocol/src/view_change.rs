//! The messages that move a view: SUSPECT, RESIGN, VIEW-CHANGE, NEW-VIEW (rules R1 and R2).
//!
//! Invariant: a claim without a certificate is the genesis claim and nothing else; the certificate
//! that NEW-VIEW carries alone decides the base.

use crate::limits::REPLICAS_MAX;
use crate::{Epoch, Height, ReplicaIndex, View};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, Certificate, Hash, Signature, Statement, StatementKind, derive_hash, encode};

/// The order of claims within an epoch: by view, then height (rule R1).
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Rank {
    /// View of the certificate.
    pub view: View,
    /// Height of the certificate.
    pub height: Height,
}

/// Why a replica suspects its leader.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Suspicion {
    /// A request waited too long.
    Timeout,
    /// The suspecting replica restarted in this view and may not PREPARE in it (rule R2).
    Restarted,
    /// The leader is slow, unfair or censors, by measurement.
    Monitor,
    /// The leader equivocated or broke a rule.
    Fault,
    /// Taken back: the sender no longer suspects the leader.
    Revoked,
    /// The connection with the leader is lost.
    Disconnected,
}

/// A revocable suspicion of the leader of `view`. Unsigned: the connection authenticates its sender.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Suspect {
    /// Epoch.
    pub epoch: Epoch,
    /// The view whose leader is suspected.
    pub view: View,
    /// Why.
    pub reason: Suspicion,
}

/// A leader gives its view up; counts as f + 1 suspicions (rule R2).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Resign {
    /// Epoch.
    pub epoch: Epoch,
    /// The view that ends; its leader signs.
    pub view: View,
    /// Under the leader's consensus key.
    pub signature: Signature,
}

impl Resign {
    /// What the signature covers.
    #[must_use]
    pub const fn statement(cluster: Hash, epoch: Epoch, view: View) -> Statement {
        Statement { cluster, epoch, kind: StatementKind::Resign, view, height: 0, digest: Hash::ZERO }
    }
}

/// What VIEW-CHANGE signs.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ViewChangeBody {
    /// Epoch.
    pub epoch: Epoch,
    /// The view to enter.
    pub view: View,
    /// Rank of the claim.
    pub rank: Rank,
    /// Header hash of the claim; the genesis header's at height 0.
    pub header: Hash,
    /// Last committed height of the sender.
    pub committed: Height,
    /// The sender.
    pub replica: ReplicaIndex,
}

impl ViewChangeBody {
    /// What the signature covers.
    #[must_use]
    pub fn statement(&self, cluster: Hash) -> Statement {
        Statement {
            cluster,
            epoch: self.epoch,
            kind: StatementKind::ViewChange,
            view: self.view,
            height: self.rank.height,
            digest: derive_hash("quorate view change v1", &[&encode(self)]),
        }
    }
}

/// A signed claim, as NEW-VIEW carries it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedClaim {
    /// What is signed.
    pub body: ViewChangeBody,
    /// Under the sender's consensus key.
    pub signature: Signature,
}

/// A VIEW-CHANGE: a signed claim with its certificate attached.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ViewChange {
    /// The signed claim.
    pub claim: SignedClaim,
    /// The claim's PC or CC; `None` only for the genesis claim.
    pub certificate: Option<Certificate>,
}

/// A NEW-VIEW: Q claims and the one certificate of the maximum.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NewView {
    /// Epoch.
    pub epoch: Epoch,
    /// The view; its leader signs.
    pub view: View,
    /// Q claims of distinct replicas, in ascending order of replica.
    pub claims: Bounded<SignedClaim, REPLICAS_MAX>,
    /// The base: a certificate of rank at least that of every claim; `None` is genesis.
    pub base: Option<Certificate>,
    /// Under the leader's consensus key.
    pub signature: Signature,
}

impl NewView {
    /// What the signature covers.
    #[must_use]
    pub fn statement(
        cluster: Hash,
        epoch: Epoch,
        view: View,
        claims: &Bounded<SignedClaim, REPLICAS_MAX>,
        base: &Option<Certificate>,
    ) -> Statement {
        Statement {
            cluster,
            epoch,
            kind: StatementKind::NewView,
            view,
            height: base.as_ref().map_or(0, |certificate| certificate.height),
            digest: derive_hash("quorate new view v1", &[&encode(claims), &encode(base)]),
        }
    }
}
