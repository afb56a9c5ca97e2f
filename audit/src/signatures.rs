//! The checks of a height that depend on no other one: its signatures, which are nearly all of the work.
//!
//! Invariant: a height is handed to the auditor together with what was found of it, so that these checks may be done
//! ahead and several at a time, and cannot be left out.

use quorate_crypto::{CertificateError, CertificateKind, Hash, MemberSet, Verifier};
use quorate_protocol::ReplicaIndex;
use quorate_protocol::peer::CommittedBatch;

use crate::chain::Policy;
use crate::report::Rule;

/// What does not hold at a height, and the replica that it is about.
pub(crate) struct Finding(pub(crate) Rule, pub(crate) Option<ReplicaIndex>, pub(crate) String);

/// Refuses unless something holds.
pub(crate) fn ensure(holds: bool, rule: Rule, text: impl FnOnce() -> String) -> Result<(), Finding> {
    if holds { Ok(()) } else { Err(Finding(rule, None, text())) }
}

/// Checks signatures of one cluster, as an audit with this policy wants them.
pub struct Signatures<'a> {
    cluster: Hash,
    members: &'a MemberSet,
    verifier: &'a dyn Verifier,
    envelopes: bool,
}

/// A height whose signatures were checked, whatever came of it.
pub struct Signed {
    pub(crate) committed: CommittedBatch,
    pub(crate) found: Found,
}

impl Signed {
    /// The height, whatever was found of it.
    #[must_use]
    pub fn into_height(self) -> CommittedBatch {
        self.committed
    }
}

/// What was found of a height by itself.
pub(crate) struct Found {
    /// The hash of its header.
    pub(crate) hash: Hash,
    pub(crate) signatures: Result<(), Finding>,
}

impl<'a> Signatures<'a> {
    /// For the heights that these members sign.
    #[must_use]
    pub fn new(cluster: Hash, members: &'a MemberSet, verifier: &'a dyn Verifier, policy: Policy) -> Self {
        Signatures { cluster, members, verifier, envelopes: policy.envelopes }
    }

    /// Checks a height.
    #[must_use]
    pub fn check(&self, committed: CommittedBatch) -> Signed {
        let found = self.find(&committed);
        Signed { committed, found }
    }

    pub(crate) fn find(&self, committed: &CommittedBatch) -> Found {
        let hash = committed.batch.header.hash();
        let certificate = self.check_certificate(hash, committed);
        Found { hash, signatures: certificate.and_then(|()| self.check_envelopes(committed)) }
    }

    /// That a quorum signed COMMIT for this very header.
    fn check_certificate(&self, hash: Hash, committed: &CommittedBatch) -> Result<(), Finding> {
        let (header, certificate) = (&committed.batch.header, &committed.certificate);
        ensure(certificate.kind == CertificateKind::Commit, Rule::Certificate, || {
            "a prepare certificate stands for a commit certificate".to_owned()
        })?;
        let same = certificate.height == header.height && certificate.header_hash == hash;
        ensure(same, Rule::Certificate, || {
            let (height, named) = (certificate.height, certificate.header_hash);
            format!("the certificate is of height {height} and header {named}, the header stored has {hash}")
        })?;
        certificate.verify(&self.cluster, self.members, self.verifier).map_err(|error| {
            let replica = match error {
                CertificateError::Signature { index, .. } => Some(index),
                _ => None,
            };
            Finding(Rule::Certificate, replica, error.to_string())
        })
    }

    fn check_envelopes(&self, committed: &CommittedBatch) -> Result<(), Finding> {
        if !self.envelopes {
            return Ok(());
        }
        for (index, envelope) in committed.batch.proposal.envelopes.iter().enumerate() {
            envelope.verify(self.verifier).map_err(|error| {
                Finding(Rule::EnvelopeSignature, None, format!("envelope {index}: {error}"))
            })?;
        }
        Ok(())
    }
}
