//! The state after a height: rows under their root, header, log, and what is cached of them.
//!
//! Invariants: a state never changes, and cloning it shares everything; its trie is full and has the root
//! that its header names; its log covers the headers below its own and has the root that the header names.

use std::fmt;
use std::sync::Arc;

use quorate_crypto::{Hash, PublicKey};
use quorate_merkle::{LogFrontier, Trie};
use quorate_metadata::keys;
use quorate_metadata::rows::{ParametersRow, Totals, get};
use quorate_metadata::{Error, Key, View};
use quorate_protocol::genesis::Parameters;
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::{BatchTime, Envelope, Header, Height, SessionId, SessionNumber, SkipReason};

use crate::rows::{find_principal, find_session};
use crate::sessions::{Admission, admit};
use crate::static_check::minimum_time;
use crate::view::{Overlay, Value};

/// The state after a height. Immutable; cloning it is cheap.
#[derive(Clone)]
pub struct State {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    hash: Hash,
    wake_at: Option<BatchTime>,
}

/// What a state is made of.
pub(crate) struct Parts {
    pub(crate) cluster: Hash,
    pub(crate) trie: Trie,
    pub(crate) header: Header,
    pub(crate) log: LogFrontier,
    pub(crate) parameters: Parameters,
    pub(crate) row_count: u64,
}

/// Why stored rows are not the state that a header certifies: the disk's fault, or that of the peer that sent
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The header belongs to another cluster.
    #[error("the state belongs to another cluster")]
    ForeignCluster,
    /// The frontier does not cover exactly the headers below, or has another root than the header says.
    #[error("the log frontier is not the one that the header names")]
    Log,
    /// A row occurs twice.
    #[error("the state has a row twice")]
    RepeatedRow(Key),
    /// The rows have another root than the header says.
    #[error("the rows have root {computed}, the header says {certified}")]
    Root {
        /// Root of the rows.
        computed: Hash,
        /// Root in the header.
        certified: Hash,
    },
    /// The rows are those that were certified, but this program cannot read the parameters among them.
    #[error("the replicated parameters cannot be read")]
    Parameters,
}

impl State {
    pub(crate) fn from_parts(parts: Parts) -> Self {
        let hash = parts.header.hash();
        let wake_at = wake_at(&parts);
        State { inner: Arc::new(Inner { parts, hash, wake_at }) }
    }

    /// The state that `header` certifies, from its rows in any order and the frontier of the log below it.
    ///
    /// # Errors
    /// [`RestoreError`]: what was stored or sent is not that state.
    pub fn restore(
        cluster: Hash,
        header: Header,
        log: LogFrontier,
        rows: impl IntoIterator<Item = (Key, Arc<[u8]>)>,
    ) -> Result<Self, RestoreError> {
        let named = if header.height == 0 { header.proposal } else { header.cluster };
        if named != cluster {
            return Err(RestoreError::ForeignCluster);
        }
        if log.size() != header.height || log.root() != header.log_root {
            return Err(RestoreError::Log);
        }
        let mut trie = Trie::new();
        let mut row_count = 0_u64;
        for (key, value) in rows {
            let trie_key = quorate_merkle::Key(key);
            // A full trie always answers.
            if trie.contains(&trie_key) != Ok(false) || trie.insert(trie_key, value).is_err() {
                return Err(RestoreError::RepeatedRow(key));
            }
            row_count = row_count.saturating_add(1);
        }
        let computed = trie.root();
        if computed != header.state_root {
            return Err(RestoreError::Root { computed, certified: header.state_root });
        }
        let row = get::<ParametersRow>(&Overlay::new(&trie), &keys::parameters());
        let parameters = row.ok().flatten().ok_or(RestoreError::Parameters)?.parameters;
        Ok(Self::from_parts(Parts { cluster, trie, header, log, parameters, row_count }))
    }

    /// The header of the height.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.inner.parts.header
    }

    /// The hash of the header.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.inner.hash
    }

    /// The height.
    #[must_use]
    pub fn height(&self) -> Height {
        self.header().height
    }

    /// The cluster's identifier.
    #[must_use]
    pub fn cluster(&self) -> Hash {
        self.inner.parts.cluster
    }

    /// The replicated parameters.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.inner.parts.parameters
    }

    /// The frontier of the log over the headers below this one, whose leaves are their encodings.
    #[must_use]
    pub fn log(&self) -> &LogFrontier {
        &self.inner.parts.log
    }

    /// The rows under their root.
    #[must_use]
    pub fn trie(&self) -> &Trie {
        &self.inner.parts.trie
    }

    /// Number of rows.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.inner.parts.row_count
    }

    /// What the filesystem holds in all; nothing if the row is damaged, which no operation survives.
    #[must_use]
    pub fn totals(&self) -> Totals {
        get(&self.view(), &keys::totals()).ok().flatten().unwrap_or_default()
    }

    /// All rows, ascending by key.
    pub fn rows(&self) -> impl Iterator<Item = (Key, Arc<[u8]>)> + '_ {
        // A full trie lacks nothing.
        self.trie()
            .scan(&quorate_merkle::Key::MIN, None)
            .filter_map(Result::ok)
            .map(|(key, value)| (key.0, value))
    }

    /// When the leader should propose an empty batch if nothing else comes: something is due then. At or
    /// before [`State::minimum_time`] when work is left that every further batch carries on.
    #[must_use]
    pub fn wake_at(&self) -> Option<BatchTime> {
        self.inner.wake_at
    }

    /// The lowest time that the next proposal may carry, and always may (rule S8).
    #[must_use]
    pub fn minimum_time(&self) -> BatchTime {
        minimum_time(self.header())
    }

    /// Global number of the next operation.
    #[must_use]
    pub fn next_operation(&self) -> u64 {
        let header = self.header();
        header.first_operation.saturating_add(u64::from(header.operation_count))
    }

    /// The next sequence number of an open session; `None` for an unknown or ended one.
    #[must_use]
    pub fn session_next(&self, id: &SessionId) -> Option<u64> {
        let (_, session) = find_session(&self.view(), id).ok()??;
        session.is_open().then_some(session.next)
    }

    /// The key of a session's principal, also of one that has ended, as long as its row is there.
    #[must_use]
    pub fn session_key(&self, id: &SessionId) -> Option<PublicKey> {
        let (_, session) = find_session(&self.view(), id).ok()??;
        Some(session.key)
    }

    /// The number of an open session.
    #[must_use]
    pub fn session_number(&self, id: &SessionId) -> Option<SessionNumber> {
        let (number, session) = find_session(&self.view(), id).ok()??;
        session.is_open().then_some(number)
    }

    /// Where the envelope was executed that consumed this number of a session: height, and index of its first
    /// operation in that batch. `None` when it was not, or is not remembered any more.
    #[must_use]
    pub fn session_executed(&self, id: &SessionId, sequence: u64) -> Option<(Height, u32)> {
        let (_, session) = find_session(&self.view(), id).ok()??;
        session.executed(sequence)
    }

    /// What the principal with this key may do; `None` when there is none.
    #[must_use]
    pub fn principal_rights(&self, key: &PublicKey) -> Option<PrincipalRights> {
        let (_, principal) = find_principal(&self.view(), key).ok()??;
        Some(principal.rights)
    }

    /// What would become of an envelope if it were the first of the next batch, at the lowest time allowed.
    #[must_use]
    pub fn admission(&self, envelope: &Envelope) -> Admission {
        match admit(&self.view(), self.minimum_time(), envelope) {
            Ok(Ok(_)) => Admission::Executes,
            Ok(Err(reason)) => Admission::Skipped(reason),
            Err(_) => Admission::Skipped(SkipReason::UnknownSession),
        }
    }

    /// The value of a row; `None` when it is absent.
    #[must_use]
    pub fn row(&self, key: &Key) -> Option<Value> {
        // A full trie lacks nothing.
        self.view().get(key).unwrap_or(None)
    }

    /// The rows as `quorate_metadata` reads them, for auditors.
    pub fn as_view(&self) -> impl View + '_ {
        self.view()
    }

    fn view(&self) -> Overlay<'_, Trie> {
        Overlay::new(self.trie())
    }
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "State(height {}, {})", self.height(), self.hash())
    }
}

/// When something is due in the state that these parts make.
fn wake_at(parts: &Parts) -> Option<BatchTime> {
    let view = Overlay::new(&parts.trie);
    let first = |table: u8| -> Result<Option<Key>, Error> {
        let (start, end) = (keys::table_start(table), keys::table_end(table));
        Ok(view.next(&start, Some(&end))?.map(|(key, _)| key))
    };
    let reclaim = first(keys::TABLE_RECLAIM).ok().flatten().map(|_| minimum_time(&parts.header));
    let deadline = first(keys::TABLE_DEADLINES).ok().flatten().map(|key| keys::deadline_of(&key).0);
    let released = first(keys::TABLE_RELEASED).ok().flatten();
    let released = released.map(|key| keys::released_time(&key).plus(parts.parameters.block_grace));
    [reclaim, deadline, released].into_iter().flatten().min()
}
