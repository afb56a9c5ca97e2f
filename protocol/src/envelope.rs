//! Envelopes: operations of one session under one signature of a principal (rule R8).
//!
//! Invariant: the signature covers cluster, session, key, sequence, validity, credentials and every
//! operation; retries are byte-identical. No epoch: an envelope outlives a change of members.

use crate::limits::{CREDENTIALS_MAX, GROUPS_MAX, OPERATIONS_PER_ENVELOPE_MAX};
use crate::{BatchTime, Operation, SessionId};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{
    Bounded, Hash, PublicKey, Signature, SignatureError, Signer, Statement, StatementKind, Verifier,
    derive_hash, encode,
};

/// The supplementary groups of a credential.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Groups {
    /// These, strictly ascending.
    Listed(Bounded<u32, GROUPS_MAX>),
    /// Those of the principal's row.
    OfPrincipal,
}

/// Who an operation acts as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Credential {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Groups,
}

/// What an envelope's signature covers.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EnvelopeBody {
    /// The cluster's identifier.
    pub cluster: Hash,
    /// The session.
    pub session: SessionId,
    /// The principal's key, which signs.
    pub key: PublicKey,
    /// Sequence number of the first operation.
    pub first: u64,
    /// Batch time after which it is skipped.
    pub valid_until: BatchTime,
    /// Identities that the operations name by index.
    pub credentials: Bounded<Credential, CREDENTIALS_MAX>,
    /// The operations, with consecutive sequence numbers.
    pub operations: Bounded<Operation, OPERATIONS_PER_ENVELOPE_MAX>,
}

impl EnvelopeBody {
    /// Digest of all that is signed.
    #[must_use]
    pub fn digest(&self) -> Hash {
        derive_hash("quorate envelope v1", &[&encode(self)])
    }

    /// What the signature covers.
    #[must_use]
    pub fn statement(&self) -> Statement {
        self.statement_of(self.digest())
    }

    /// [`EnvelopeBody::statement`] for who has computed the digest already.
    #[must_use]
    pub const fn statement_of(&self, digest: Hash) -> Statement {
        Statement {
            cluster: self.cluster,
            epoch: 0,
            kind: StatementKind::Envelope,
            view: 0,
            height: self.first,
            digest,
        }
    }

    /// Signs it.
    #[must_use]
    pub fn sign(self, signer: &dyn Signer) -> Envelope {
        let signature = signer.sign(&self.statement());
        Envelope { body: self, signature }
    }
}

/// A signed envelope.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Envelope {
    /// What is signed.
    pub body: EnvelopeBody,
    /// Under `body.key`.
    pub signature: Signature,
}

impl Envelope {
    /// Checks the signature, under the key that the envelope names.
    ///
    /// # Errors
    /// [`SignatureError`] when it is not that key's signature of this body.
    pub fn verify(&self, verifier: &dyn Verifier) -> Result<(), SignatureError> {
        verifier.verify(&self.body.key, &self.body.statement(), &self.signature)
    }

    /// The sequence number after its last operation.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.body.first.saturating_add(self.body.operations.len() as u64)
    }
}

/// The identifier of a session (rule R8).
#[must_use]
pub fn session_id(cluster: &Hash, key: &PublicKey, nonce: &[u8; 32]) -> SessionId {
    derive_hash("quorate session v1", &[&cluster.0, &key.0, nonce])
}
