//! The rows of a height that is past, under its header.
//!
//! Invariant: they have the root that the header names; nothing of it ever changes.

use std::fmt;

use quorate_crypto::PublicKey;
use quorate_merkle::Trie;
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Header};

use crate::read::{AnswerError, Answered, answer};
use crate::seal::applied;
use crate::state::{RestoreError, State};
use crate::view::Changes;

/// What questions need of the state at an earlier height. Shares with the later one whatever is the same.
pub struct PastState {
    trie: Trie,
    header: Header,
}

impl State {
    /// The rows that `header` certifies, from these, by taking back what was changed since: `rows` are the rows of
    /// then, `None` for those that were not there, of all that differ.
    ///
    /// # Errors
    /// [`RestoreError::Root`]: these are not the rows of then, the disk's fault; [`RestoreError::ForeignCluster`].
    pub fn rewound(&self, header: Header, rows: &Changes) -> Result<PastState, RestoreError> {
        let named = if header.height == 0 { header.proposal } else { header.cluster };
        if named != self.cluster() {
            return Err(RestoreError::ForeignCluster);
        }
        let trie = applied(self.trie(), rows);
        let (computed, certified) = (trie.root(), header.state_root);
        if computed != certified {
            return Err(RestoreError::Root { computed, certified });
        }
        Ok(PastState { trie, header })
    }
}

impl PastState {
    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// As [`State::answer`].
    ///
    /// # Errors
    /// As there.
    pub fn answer(
        &self,
        key: &PublicKey,
        credential: &Credential,
        query: &Query,
    ) -> Result<Answered, AnswerError> {
        answer(&self.trie, key, credential, query)
    }
}

impl fmt::Debug for PastState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PastState(height {}, {})", self.header.height, self.header.state_root)
    }
}
