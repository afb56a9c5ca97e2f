//! The state machine under consensus: the fast stand-in, or real execution.
//!
//! Invariant: a state is never changed; executing a proposal on it gives a new one, so speculative states
//! of competing proposals live beside each other.

use std::sync::Arc;

use quorate_crypto::{Certificate, Hash};
use quorate_execution::{Admission, Environment, StaticFault, check_static, verify_results};
use quorate_protocol::client::EnvelopeResults;
use quorate_protocol::{
    BatchTime, Envelope, Genesis, Header, Height, OperationResult, Proposal, ReceiptLeaf, SessionId,
    SkipReason,
};

use crate::fake::{FakeState, receipts_root};
use crate::mutant::Mutant;
use crate::oracle::Violation;
use crate::workload::Workload;

/// Which state machine a run uses.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Execution {
    /// The stand-in: sessions and a hash chain.
    Fake,
    /// The filesystem.
    Real,
}

impl Execution {
    /// What clients do on it.
    #[must_use]
    pub const fn workload(self) -> Workload {
        match self {
            Self::Fake => Workload::Names,
            Self::Real => Workload::Files,
        }
    }
}

/// The state after a height.
#[derive(Clone, Debug)]
pub enum State {
    /// Of the stand-in.
    Fake(Arc<FakeState>),
    /// Of the filesystem.
    Real(quorate_execution::State),
}

/// What came of a batch.
#[derive(Clone, Debug)]
pub struct Executed {
    /// The state after it.
    pub state: State,
    /// The results.
    pub receipts: Receipts,
    /// Sessions that moved, with their next numbers.
    pub advanced: Vec<(SessionId, u64)>,
    /// When the leader should propose an empty batch.
    pub wake_at: Option<BatchTime>,
}

/// The results of a batch.
#[derive(Clone, Debug)]
pub enum Receipts {
    /// Of the stand-in.
    Fake(Arc<Vec<ReceiptLeaf>>),
    /// With their tree.
    Real(Arc<quorate_execution::Receipts>),
}

impl State {
    /// The state at height 0.
    ///
    /// # Errors
    /// A [`Violation`] if execution refuses the genesis.
    pub fn genesis(
        execution: Execution,
        genesis: &Genesis,
        mutant: Option<Mutant>,
    ) -> Result<Self, Violation> {
        match execution {
            Execution::Fake => {
                let repeats = mutant == Some(Mutant::DuplicatesExecuted);
                Ok(Self::Fake(Arc::new(FakeState::genesis(genesis, repeats))))
            }
            Execution::Real => quorate_execution::State::genesis(genesis)
                .map(Self::Real)
                .map_err(|error| Violation { rule: "the genesis is usable", detail: error.to_string() }),
        }
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &Header {
        match self {
            Self::Fake(state) => state.header(),
            Self::Real(state) => state.header(),
        }
    }

    /// The next sequence number of a session; `None` if there is no such session.
    #[must_use]
    pub fn session_next(&self, session: &SessionId) -> Option<u64> {
        match self {
            Self::Fake(state) => state.session_next(session),
            Self::Real(state) => state.session_next(session),
        }
    }

    /// What consensus is told of an envelope's session, as the replica does it: see
    /// [`quorate_consensus::Input::Request`].
    #[must_use]
    pub fn next_for(&self, envelope: &Envelope) -> Option<u64> {
        let admission = match self {
            Self::Fake(state) => state.admission(envelope).map_or(Admission::Executes, Admission::Skipped),
            Self::Real(state) => state.admission(envelope),
        };
        match admission {
            Admission::Executes => Some(envelope.body.first),
            Admission::Skipped(SkipReason::Gap { next } | SkipReason::Overlap { next }) => Some(next),
            Admission::Skipped(SkipReason::Duplicate { .. }) => self.session_next(&envelope.body.session),
            Admission::Skipped(_) => None,
        }
    }

    /// When the leader should propose an empty batch.
    #[must_use]
    pub fn wake_at(&self) -> Option<BatchTime> {
        match self {
            Self::Fake(_) => None,
            Self::Real(state) => state.wake_at(),
        }
    }

    /// Executes a proposal on top of this state.
    ///
    /// # Errors
    /// [`StaticFault`] if no replica ever executes it.
    pub fn execute(
        &self,
        environment: &Environment<'_>,
        height: Height,
        proposal: &Proposal,
        digest: Hash,
    ) -> Result<Executed, StaticFault> {
        match self {
            Self::Fake(state) => {
                check_static(&environment.cluster, self.header(), height, proposal)?;
                let executed = state.execute(height, proposal, digest);
                Ok(Executed {
                    state: Self::Fake(Arc::new(executed.state)),
                    receipts: Receipts::Fake(Arc::new(executed.leaves)),
                    advanced: executed.advanced,
                    wake_at: None,
                })
            }
            Self::Real(state) => {
                let executed = state.execute(environment, height, proposal, digest)?;
                Ok(Executed {
                    state: Self::Real(executed.state),
                    receipts: Receipts::Real(Arc::new(executed.receipts)),
                    advanced: executed.advanced,
                    wake_at: executed.wake_at,
                })
            }
        }
    }
}

impl Executed {
    /// The outcome of a machine that computes wrongly (mutant); real execution is left as it is.
    #[must_use]
    pub fn diverged(self) -> Self {
        match &self.state {
            State::Fake(state) => Self { state: State::Fake(Arc::new(state.diverged())), ..self },
            State::Real(_) => self,
        }
    }
}

impl Receipts {
    /// The receipts of all operations, in order.
    #[must_use]
    pub fn leaves(&self) -> &[ReceiptLeaf] {
        match self {
            Self::Fake(leaves) => leaves,
            Self::Real(receipts) => receipts.leaves(),
        }
    }

    /// The receipts of operations that were executed, not skipped.
    pub fn executed(&self) -> impl Iterator<Item = &ReceiptLeaf> {
        self.leaves().iter().filter(|leaf| !matches!(leaf.result, OperationResult::Skipped(_)))
    }
}

/// What a replica tells a client of its envelope.
#[derive(Clone, Debug)]
pub struct Results {
    /// First sequence number of the envelope.
    pub first: u64,
    /// The header under which the results stand.
    pub header: Header,
    /// The commit certificate.
    pub certificate: Certificate,
    proof: Proof,
}

/// How results are bound to the header.
#[derive(Clone, Debug)]
enum Proof {
    /// All leaves of the batch.
    Leaves(Arc<Vec<ReceiptLeaf>>),
    /// Those of the envelope, with paths.
    Paths(Box<EnvelopeResults>),
}

impl Results {
    /// The results of the envelope of a session that starts with `first`; `None` if the batch has none.
    #[must_use]
    pub fn new(
        session: &SessionId,
        first: u64,
        header: &Header,
        certificate: &Certificate,
        receipts: &Receipts,
    ) -> Option<Self> {
        let proof = match receipts {
            Receipts::Fake(leaves) => Proof::Leaves(leaves.clone()),
            Receipts::Real(receipts) => {
                let index = receipts.find(session, first)?;
                Proof::Paths(Box::new(receipts.results(header, index, Some(certificate.clone()))?))
            }
        };
        Some(Self { first, header: header.clone(), certificate: certificate.clone(), proof })
    }

    /// What they prove of this envelope, operation by operation, provided that the header is certified;
    /// `None` if they do not prove that it was executed.
    #[must_use]
    pub fn answer(&self, envelope: &Envelope, digest: &Hash) -> Option<Vec<OperationResult>> {
        let results: Vec<OperationResult> = match &self.proof {
            Proof::Leaves(leaves) => {
                let own = leaves.iter().filter(|leaf| leaf.envelope == *digest);
                let own: Vec<&ReceiptLeaf> = own.collect();
                let first = own.first().is_some_and(|leaf| leaf.sequence == envelope.body.first);
                if !first || receipts_root(leaves) != self.header.receipts_root {
                    return None;
                }
                own.into_iter().map(|leaf| leaf.result.clone()).collect()
            }
            Proof::Paths(results) => {
                if results.header != self.header || verify_results(results, envelope).is_err() {
                    return None;
                }
                results.results.to_vec()
            }
        };
        let skipped = |result: &OperationResult| matches!(result, OperationResult::Skipped(_));
        (!results.iter().any(skipped)).then_some(results)
    }
}
