//! Reads: a replica's answer as a pruned copy of the trie, and the client's evaluation of it.
//!
//! Invariants: replica and client run one evaluation, on the full trie and on the pruned copy; the copy holds
//! what the evaluation touched and nothing else, so a row that the reader may not see is not in it; whatever
//! does not lead to the certified root, or lacks a row, is the answering replica's fault and never an
//! absence. An identity that the principal's table maps or denies is proven with the table's rows; where
//! those rows are left out, the credential stands for itself.

use quorate_crypto::PublicKey;
use quorate_merkle::{PartialTrie, ProofError, ProveError, Trie};
use quorate_metadata::{Answer, Caller, Errno, Error, Key, Missing, Reader, View};
use quorate_protocol::limits::PROOF_BYTES_MAX;
use quorate_protocol::query::Query;
use quorate_protocol::{BatchTime, Credential, Header, SessionId, SessionNumber};

use crate::principals::{plain, resolve};
use crate::rows::{Phase, find_principal, find_session};
use crate::state::State;
use crate::view::{Base, Overlay, Recorder};

/// A replica's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The pruned copy that proves it.
    pub proof: Vec<u8>,
    /// The answer, or the errno that the proof shows.
    pub outcome: Result<Answer, Errno>,
}

/// Why a replica has no answer. Not the fault of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The proof would be too large: the caller asks for less.
    #[error("the answer is too large: {0}")]
    TooLarge(ProveError),
    /// More bytes than a message may hold: the caller asks for less.
    #[error("the answer has {0} bytes")]
    TooManyBytes(usize),
    /// The state is damaged: our fault.
    #[error("the state is damaged: {0}")]
    Damaged(Error),
}

/// Why an answer is refused: the fault of the replica that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// The proof does not parse, or does not lead to the certified root.
    #[error("the proof is refused: {0}")]
    Proof(#[from] ProofError),
    /// The proof lacks what the question needs.
    #[error("the proof is incomplete: {0}")]
    Incomplete(Missing),
    /// A row that is under the certified root does not decode: the fault of a quorum, or of this program.
    #[error("the certified state is damaged: {0}")]
    Damaged(&'static str),
}

/// What a session's rows say.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SessionSummary {
    /// Its number.
    pub number: SessionNumber,
    /// The next sequence number.
    pub next: u64,
    /// Where it stands.
    pub phase: Phase,
    /// When it will be looked at again unless an envelope renews it.
    pub due: BatchTime,
}

impl State {
    /// Answers a query of the principal with this key, acting as `credential`, with a proof.
    ///
    /// # Errors
    /// [`AnswerError`] when there is no proof to send. A denial or an absence is an outcome, not an error.
    pub fn answer(
        &self,
        key: &PublicKey,
        credential: &Credential,
        query: &Query,
    ) -> Result<Answered, AnswerError> {
        answer(self.trie(), key, credential, query)
    }

    /// Evaluates a query for root, whom nothing is kept from, and proves nothing: for who holds the whole state and
    /// has checked it, such as an auditor.
    ///
    /// # Errors
    /// [`AnswerError::Damaged`]. An absence is an outcome, not an error.
    pub fn inspect(&self, query: &Query) -> Result<Result<Answer, Errno>, AnswerError> {
        let reader = Reader { caller: &Caller::root(), session: None };
        match quorate_metadata::read(&Overlay::new(self.trie()), &reader, query) {
            Ok(answer) => Ok(Ok(answer)),
            Err(Error::Errno(errno)) => Ok(Err(errno)),
            Err(error) => Err(AnswerError::Damaged(error)),
        }
    }
}

/// Answers a query from a full trie.
pub(crate) fn answer(
    trie: &Trie,
    key: &PublicKey,
    credential: &Credential,
    query: &Query,
) -> Result<Answered, AnswerError> {
    let recorder = Recorder::new(trie);
    let outcome = match caller_with_proof(trie, &recorder, key, credential) {
        Ok(Ok(caller)) => evaluate(&Overlay::new(&recorder), &caller, key, query),
        Ok(Err(errno)) => Err(Error::Errno(errno)),
        Err(error) => Err(error),
    };
    let outcome = match outcome {
        Ok(answer) => Ok(answer),
        Err(Error::Errno(errno)) => Err(errno),
        Err(error) => return Err(AnswerError::Damaged(error)),
    };
    let proof = trie.prove(&recorder.into_touched()).map_err(AnswerError::TooLarge)?;
    if proof.len() > PROOF_BYTES_MAX {
        return Err(AnswerError::TooManyBytes(proof.len()));
    }
    Ok(Answered { proof, outcome })
}

/// Who acts. The rows that say so are noted for the proof only if the credential does not stand for itself, which
/// is rare; then the client must see them.
fn caller_with_proof(
    trie: &Trie,
    recorder: &Recorder<'_>,
    key: &PublicKey,
    credential: &Credential,
) -> Result<Result<Caller, Errno>, Error> {
    let found = caller(&Overlay::new(trie), key, credential)?;
    if found.is_err() || found.as_ref().ok() != plain(credential).as_ref() {
        return caller(&Overlay::new(recorder), key, credential);
    }
    Ok(found)
}

/// Who acts, by the principal's rows.
fn caller(view: &dyn View, key: &PublicKey, credential: &Credential) -> Result<Result<Caller, Errno>, Error> {
    Ok(match find_principal(view, key)? {
        Some((_, principal)) => resolve(&principal.rights, credential),
        None => Err(Errno::EPERM),
    })
}

/// Evaluates a query on a full or a partial view.
fn evaluate<B: Base>(
    view: &Overlay<'_, B>,
    caller: &Caller,
    key: &PublicKey,
    query: &Query,
) -> Result<Answer, Error> {
    let session = match query {
        Query::Content { session: Some(id), .. } | Query::Session { session: id } => {
            let found =
                find_session(view, id)?.filter(|(_, session)| session.key == *key && session.is_open());
            found.map(|(number, _)| number)
        }
        _ => None,
    };
    quorate_metadata::read(view, &Reader { caller, session }, query)
}

/// The state as far as a proof shows it, checked against a certified root.
#[derive(Clone, Debug)]
pub struct PartialState {
    trie: Trie,
}

impl PartialState {
    /// Checks a proof against a header, whose commit certificate the caller has checked.
    ///
    /// # Errors
    /// [`AnswerFault::Proof`].
    pub fn verify(header: &Header, proof: &[u8]) -> Result<Self, AnswerFault> {
        Ok(PartialState { trie: PartialTrie::verify(proof, &header.state_root)? })
    }

    /// Evaluates a query of the principal with this key, acting as `credential`.
    ///
    /// # Errors
    /// [`AnswerFault`] when the proof does not hold the answer. The inner error is the proven errno.
    pub fn read(
        &self,
        key: &PublicKey,
        credential: &Credential,
        query: &Query,
    ) -> Result<Result<Answer, Errno>, AnswerFault> {
        let view = Overlay::new(&self.trie);
        let caller = match (caller(&view, key, credential), plain(credential)) {
            (Err(Error::Missing(_)), Some(plain)) => Ok(Ok(plain)),
            (caller, _) => caller,
        };
        let outcome = match caller {
            Ok(Ok(caller)) => evaluate(&view, &caller, key, query),
            Ok(Err(errno)) => Err(Error::Errno(errno)),
            Err(error) => Err(error),
        };
        proven(outcome)
    }

    /// What the proof says of a session, which is the answer to [`Query::Session`]: `None` when it does not
    /// exist or is forgotten.
    ///
    /// # Errors
    /// [`AnswerFault`] when the proof does not hold the answer.
    pub fn session(&self, id: &SessionId) -> Result<Option<SessionSummary>, AnswerFault> {
        let found = find_session(&Overlay::new(&self.trie), id).map_err(fault)?;
        Ok(found.map(|(number, row)| SessionSummary {
            number,
            next: row.next,
            phase: row.phase,
            due: row.due,
        }))
    }

    /// The value of a row; `None` when the proof shows that it is absent.
    ///
    /// # Errors
    /// [`AnswerFault::Incomplete`] when the proof does not hold it.
    pub fn row(&self, key: &Key) -> Result<Option<std::sync::Arc<[u8]>>, AnswerFault> {
        Overlay::new(&self.trie).get(key).map_err(AnswerFault::Incomplete)
    }
}

fn proven(outcome: Result<Answer, Error>) -> Result<Result<Answer, Errno>, AnswerFault> {
    match outcome {
        Ok(answer) => Ok(Ok(answer)),
        Err(Error::Errno(errno)) => Ok(Err(errno)),
        Err(error) => Err(fault(error)),
    }
}

/// The fault of an evaluation that came to no outcome.
fn fault(error: Error) -> AnswerFault {
    match error {
        Error::Missing(missing) => AnswerFault::Incomplete(missing),
        Error::Corrupt(text) => AnswerFault::Damaged(text),
        Error::Errno(errno) => AnswerFault::Damaged(errno.symbol()),
    }
}

/// Checks a replica's answer to a query against a header, whose commit certificate the caller has checked.
///
/// # Errors
/// [`AnswerFault`], that of the replica that answered. The inner error is the proven errno.
pub fn check_answer(
    header: &Header,
    proof: &[u8],
    key: &PublicKey,
    credential: &Credential,
    query: &Query,
) -> Result<Result<Answer, Errno>, AnswerFault> {
    PartialState::verify(header, proof)?.read(key, credential, query)
}
