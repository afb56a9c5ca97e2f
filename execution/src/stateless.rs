//! Execution without the state: a batch on the pruned copy of the state before it, as an auditor does it who has
//! nothing else.
//!
//! Invariant: what a pruned copy gives is the header that the full state gives, or nothing: one row that the
//! execution asks for and that the copy lacks makes the whole outcome void. The copy leads to the state root of
//! the header below, so whoever voted for a header on top of that one has executed on the same rows.

use quorate_crypto::Hash;
use quorate_merkle::{LogFrontier, PartialTrie, ProofError, ProveError};
use quorate_metadata::rows::{ParametersRow, get};
use quorate_metadata::{Error, Missing, keys};
use quorate_protocol::{Header, Height, Proposal};

use crate::batch::{Environment, Executed, Unwatched};
use crate::state::{Parts, State};
use crate::static_check::StaticFault;
use crate::view::{Base as _, Overlay, Pruned, Recorder};

/// Why a batch cannot be executed on a pruned copy. The fault of whoever made that copy, but for the proposal's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatelessFault {
    /// The frontier does not cover exactly the headers below, or has another root than the header says.
    #[error("the log frontier is not the one that the header below names")]
    Log,
    /// The copy does not parse, or does not lead to the state root of the header below.
    #[error("the copy of the state is refused: {0}")]
    Copy(#[from] ProofError),
    /// The copy lacks a row that the execution asks for.
    #[error("the copy of the state is incomplete: {0}")]
    Incomplete(Missing),
    /// The parameters in the copy do not decode.
    #[error("the replicated parameters cannot be read")]
    Parameters,
    /// No correct replica votes for this proposal.
    #[error("the proposal is refused: {0}")]
    Proposal(#[from] StaticFault),
}

/// Why there is no pruned copy for a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// No correct replica votes for this proposal.
    #[error("the proposal is refused: {0}")]
    Proposal(#[from] StaticFault),
    /// It would be too large.
    #[error("the copy of the state is too large: {0}")]
    TooLarge(#[from] ProveError),
}

impl State {
    /// The pruned copy of this state that suffices to execute a proposal on top of it, and what came of it.
    ///
    /// # Errors
    /// [`WitnessError`]; none for a proposal that [`State::execute`] takes, unless it touches more than a proof
    /// may hold.
    pub fn witness(
        &self,
        environment: &Environment<'_>,
        height: Height,
        proposal: &Proposal,
        digest: Hash,
    ) -> Result<(Vec<u8>, Executed), WitnessError> {
        let recorder = Recorder::new(self.trie());
        // The parameters are read before the batch begins.
        let _held = recorder.get(&keys::parameters());
        let executed = self.execute_on(&recorder, environment, height, proposal, digest, &mut Unwatched)?;
        let copy = self.trie().prove(&recorder.into_touched())?;
        Ok((copy, executed))
    }
}

/// Executes a proposal on top of `below`, of whose state only the pruned copy is known, and gives the header that
/// comes of it. `log` is the frontier over the headers below that one. The signatures of the envelopes were checked
/// by the caller, and `digest` is the proposal's.
///
/// # Errors
/// [`StatelessFault`]: nothing is known of what a replica has to vote for then.
pub fn execute_stateless(
    environment: &Environment<'_>,
    below: &Header,
    log: &LogFrontier,
    copy: &[u8],
    proposal: &Proposal,
    digest: Hash,
) -> Result<Header, StatelessFault> {
    if log.size() != below.height || log.root() != below.log_root {
        return Err(StatelessFault::Log);
    }
    let trie = PartialTrie::verify(copy, &below.state_root)?;
    let parameters = match get::<ParametersRow>(&Overlay::new(&trie), &keys::parameters()) {
        Ok(Some(row)) => row.parameters,
        Err(Error::Missing(missing)) => return Err(StatelessFault::Incomplete(missing)),
        Ok(None) | Err(_) => return Err(StatelessFault::Parameters),
    };
    let before = State::from_parts(Parts {
        cluster: environment.cluster,
        trie: trie.clone(),
        header: below.clone(),
        log: log.clone(),
        parameters,
        // In no header.
        row_count: 0,
    });
    let pruned = Pruned::new(&trie);
    let height = below.height.saturating_add(1);
    let executed = before.execute_on(&pruned, environment, height, proposal, digest, &mut Unwatched)?;
    match pruned.lacks() {
        Some(missing) => Err(StatelessFault::Incomplete(missing)),
        None => Ok(executed.state.header().clone()),
    }
}
