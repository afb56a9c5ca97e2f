//! A proven answer: what the tree says at a height, in one file that is checked offline.
//!
//! Invariant: what a file says is computed from the pruned copy of the state that it holds, under the root of a
//! header that its certificate, or the genesis, vouches for; nothing that is written beside these is believed.
//! The format is in `docs/SPEC/audit.md`, section 5.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{DecodeError, Hash, PublicKey, Verifier, decode, encode};
use quorate_execution::{Answer, AnswerFault, Errno, check_answer};
use quorate_protocol::client::ReadAnswer;
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Genesis, Header};

use crate::head::{NoHead, check_head};

/// What a file with a proven answer begins with.
pub const PROVEN_MAGIC: [u8; 17] = *b"quorate proof v1\n";

/// A question, who asks, and a replica's answer with all that proves it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProvenAnswer {
    /// The cluster.
    pub cluster: Hash,
    /// The principal that asked.
    pub key: PublicKey,
    /// As whom.
    pub credential: Credential,
    /// What.
    pub query: Query,
    /// Header, certificate, pruned copy of the state.
    pub answer: ReadAnswer,
}

/// Why a file proves nothing. The fault of whoever made it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It is something else, or of a later format.
    #[error("it does not begin as a proof of format 1 does")]
    Magic,
    /// It does not decode.
    #[error("it does not decode: {0}")]
    Encoding(#[from] DecodeError),
    /// It is of another cluster.
    #[error("it is of cluster {0}")]
    Cluster(Hash),
    /// Nothing vouches for the header.
    #[error(transparent)]
    Header(#[from] NoHead),
    /// The pruned copy is not of the certified state, or does not hold the answer.
    #[error("{0}")]
    Answer(#[from] AnswerFault),
}

impl ProvenAnswer {
    /// As a file.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        [PROVEN_MAGIC.as_slice(), &encode(self)].concat()
    }

    /// Reads a file; proves nothing yet.
    ///
    /// # Errors
    /// [`NoAnswer::Magic`] and [`NoAnswer::Encoding`].
    pub fn from_file(bytes: &[u8]) -> Result<Self, NoAnswer> {
        Ok(decode(bytes.strip_prefix(PROVEN_MAGIC.as_slice()).ok_or(NoAnswer::Magic)?)?)
    }

    /// What is proven: the answer, or the errno that the state answers with, at the height of the header.
    ///
    /// # Errors
    /// [`NoAnswer`], the first thing that does not hold.
    pub fn check(
        &self,
        genesis: &Genesis,
        verifier: &dyn Verifier,
    ) -> Result<Result<Answer, Errno>, NoAnswer> {
        let ReadAnswer { header, certificate, proof } = &self.answer;
        if self.cluster != genesis.cluster() {
            return Err(NoAnswer::Cluster(self.cluster));
        }
        check_head(header, certificate.as_ref(), genesis, verifier)?;
        Ok(check_answer(header, proof, &self.key, &self.credential, &self.query)?)
    }

    /// The header whose state is shown.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.answer.header
    }
}
