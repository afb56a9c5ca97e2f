//! A transition: one certified height with the pruned copy of the state before it, which whoever has nothing else
//! executes again.
//!
//! Invariant: a verdict rests on the certificate's signatures and on what execution gives, and on nothing that the
//! file's maker says: a copy that is wrong or lacks a row gives no verdict. A correct replica PREPAREs a header only when
//! execution on top of the header below gave it, and COMMITs only what its own execution gave (ADR 11), so a quorum for
//! another header is of liars alone. The format is in `docs/SPEC/past.md`, section 1.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{
    BoundedBytes, CertificateError, CertificateKind, DecodeError, Hash, Verifier, decode, encode,
};
use quorate_execution::{Environment, StatelessFault, WitnessError, check_static, execute_stateless};
use quorate_merkle::{LogFrontier, PROOF_BYTES_MAX};
use quorate_protocol::header::HEADER_VERSION;
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Genesis, Header, ReplicaIndex};

use crate::bundle::BUNDLE_HEIGHT_BYTES_MAX;
use crate::chain::{Auditor, difference};
use crate::report::{Breach, Rule};

/// What a file with a transition begins with.
pub const TRANSITION_MAGIC: [u8; 22] = *b"quorate transition v1\n";

/// Most bytes of such a file.
pub const TRANSITION_BYTES_MAX: usize = PROOF_BYTES_MAX + BUNDLE_HEIGHT_BYTES_MAX as usize + (1 << 16);

/// A height, and what its execution needs of the one below.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Transition {
    /// The cluster.
    pub cluster: Hash,
    /// The header of the height below.
    pub below: Header,
    /// The frontier of the log over the headers below that one.
    pub log: LogFrontier,
    /// The pruned copy of the state of the height below.
    pub copy: BoundedBytes<PROOF_BYTES_MAX>,
    /// The height: header, proposal, certificate.
    pub committed: CommittedBatch,
}

/// What a transition shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Executing the proposal on the state below gives the certified header.
    Holds,
    /// It does not, or no correct replica votes for the proposal: at least Q replicas are faulty.
    Broken {
        /// The rule, and what was found.
        breach: Breach,
        /// Who signed the certificate.
        signers: Vec<ReplicaIndex>,
        /// How many of these are faulty at least. All of them, because a correct replica signs only what its own
        /// execution gave (ADR 11); but signatures of envelopes are looked at before PREPARE only, so of a proposal
        /// with a bad one those who are not among the Q that PREPAREd may be correct.
        faulty: usize,
    },
}

/// Why a file with a transition shows nothing. The fault of whoever made it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTransition {
    /// It is something else, or of a later format.
    #[error("it does not begin as a transition of format 1 does")]
    Magic,
    /// It does not decode.
    #[error("it does not decode: {0}")]
    Encoding(#[from] DecodeError),
    /// It is of another cluster or epoch.
    #[error("it is of cluster {0}, epoch {1}")]
    Foreign(Hash, u64),
    /// The certificate is of another header, or only says that it was prepared.
    #[error("the certificate is not a commit certificate of this header")]
    OtherHeader,
    /// The certificate does not hold.
    #[error("the certificate does not hold: {0}")]
    Certificate(#[from] CertificateError),
    /// The header below is not the one that the certified header names.
    #[error("the header below is not the one that the certified header follows")]
    Below,
    /// The proposal is not the one that the certified header names.
    #[error("the proposal is not the one that the certified header names")]
    OtherProposal,
    /// The copy of the state, or the frontier of the log, is not that of the header below, or lacks something.
    #[error("{0}")]
    Copy(StatelessFault),
}

impl Transition {
    /// The transition to the next height of an audit that executes every batch again; nothing if it does not.
    ///
    /// # Errors
    /// [`WitnessError`].
    pub fn make(auditor: &Auditor<'_>, committed: CommittedBatch) -> Result<Option<Self>, WitnessError> {
        let Some(state) = auditor.state() else { return Ok(None) };
        let (header, proposal) = (&committed.batch.header, &committed.batch.proposal);
        let height = auditor.next_height();
        let digest = proposal.digest(&state.cluster(), header.epoch, height);
        let (copy, _) = state.witness(&auditor.environment(), height, proposal, digest)?;
        let copy = BoundedBytes::try_from(copy);
        let copy = copy.map_err(|_| WitnessError::TooLarge(quorate_merkle::ProveError::TooManyBytes))?;
        Ok(Some(Transition {
            cluster: state.cluster(),
            below: state.header().clone(),
            log: state.log().clone(),
            copy,
            committed,
        }))
    }

    /// As a file.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        [TRANSITION_MAGIC.as_slice(), &encode(self)].concat()
    }

    /// Reads a file; shows nothing yet.
    ///
    /// # Errors
    /// [`NoTransition::Magic`] and [`NoTransition::Encoding`].
    pub fn from_file(bytes: &[u8]) -> Result<Self, NoTransition> {
        Ok(decode(bytes.strip_prefix(TRANSITION_MAGIC.as_slice()).ok_or(NoTransition::Magic)?)?)
    }

    /// What the transition shows under this genesis.
    ///
    /// # Errors
    /// [`NoTransition`], the first thing for which it shows nothing.
    pub fn judge(&self, genesis: &Genesis, verifier: &dyn Verifier) -> Result<Judgement, NoTransition> {
        self.check_statements(genesis, verifier)?;
        match self.execute(genesis, verifier)? {
            None => Ok(Judgement::Holds),
            Some((rule, text)) => {
                let height = self.committed.batch.header.height;
                let signers: Vec<_> =
                    self.committed.certificate.votes().map(|(replica, _)| replica).collect();
                let members = &genesis.members;
                let unchecked = rule == Rule::EnvelopeSignature;
                let spared = if unchecked { members.n().saturating_sub(members.quorum()) } else { 0 };
                let faulty = signers.len().saturating_sub(spared);
                Ok(Judgement::Broken {
                    breach: Breach { height, replica: None, rule, text },
                    signers,
                    faulty,
                })
            }
        }
    }

    /// That a quorum of this cluster signed this header, which names this proposal and the header below.
    fn check_statements(&self, genesis: &Genesis, verifier: &dyn Verifier) -> Result<(), NoTransition> {
        let CommittedBatch { batch, certificate } = &self.committed;
        let header = &batch.header;
        let members = &genesis.members;
        let named = if self.below.height == 0 { self.below.proposal } else { self.below.cluster };
        let known = [self.cluster, header.cluster, named].iter().all(|cluster| *cluster == genesis.cluster());
        if !known || header.epoch != members.epoch() {
            return Err(NoTransition::Foreign(self.cluster, header.epoch));
        }
        let of = (certificate.kind, certificate.height, certificate.header_hash);
        if of != (CertificateKind::Commit, header.height, header.hash()) {
            return Err(NoTransition::OtherHeader);
        }
        certificate.verify(&self.cluster, members, verifier)?;
        let follows = self.below.height.checked_add(1) == Some(header.height);
        if !follows || self.below.hash() != header.previous {
            return Err(NoTransition::Below);
        }
        let digest = batch.proposal.digest(&self.cluster, header.epoch, header.height);
        if digest != header.proposal { Err(NoTransition::OtherProposal) } else { Ok(()) }
    }

    /// The rule that the certified header breaks, and how.
    fn execute(
        &self,
        genesis: &Genesis,
        verifier: &dyn Verifier,
    ) -> Result<Option<(Rule, String)>, NoTransition> {
        let batch = &self.committed.batch;
        let (header, proposal) = (&batch.header, &batch.proposal);
        if header.version != HEADER_VERSION {
            return Ok(Some((Rule::Version, format!("the header has version {}", header.version))));
        }
        if let Err(fault) = check_static(&self.cluster, &self.below, header.height, proposal) {
            return Ok(Some((Rule::Proposal, fault.to_string())));
        }
        for (index, envelope) in proposal.envelopes.iter().enumerate() {
            if let Err(error) = envelope.verify(verifier) {
                return Ok(Some((Rule::EnvelopeSignature, format!("envelope {index}: {error}"))));
            }
        }
        let environment = Environment { cluster: self.cluster, members: &genesis.members, verifier };
        let executed =
            execute_stateless(&environment, &self.below, &self.log, &self.copy, proposal, header.proposal)
                .map_err(NoTransition::Copy)?;
        Ok((executed != *header).then(|| (Rule::Execution, difference(header, &executed))))
    }
}
