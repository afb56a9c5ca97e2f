//! The client as its callers see it: one handle for everything.
//!
//! Invariant: a `Client` holds no lock while it waits, and dropping a call drops only the waiting: what was
//! queued stays in its place in the session's order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quorate_crypto::{Hash, SecretKey};
use quorate_metadata::Answer;
use quorate_protocol::blocks::{BlockDescriptor, BlockEvidence};
use quorate_protocol::client::ReadAnswer;
use quorate_protocol::file::Attributes;
use quorate_protocol::genesis::Parameters;
use quorate_protocol::operation::Authority;
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Header, Height, Ino, OperationBody, Reply, SessionId};
use quorate_transport::ClusterFile;
use tokio::sync::oneshot;

use crate::blocks::WantedBlock;
use crate::core::Core;
use crate::error::ClientError;
use crate::file::{BlockCache, DirtyRange, FileData, FileRead, FileWrite};
use crate::network::Network;
use crate::observer::Observer;
use crate::options::ClientOptions;
use crate::replicas::Replicas;
use crate::session::SessionHandle;
use crate::status::ClusterStatus;
use crate::trust::Misbehaviour;

/// How fresh a read's answer must be.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// At least the highest height that this client has seen committed: it reads its own writes, and is at
    /// most `question_interval` plus one round trip behind others. One round trip to one replica, unless
    /// nothing has asked for that long: then it is read like [`Freshness::Linearizable`].
    Floor,
    /// Sees every operation of any client that was answered before this call (rule R4). One round trip to
    /// a quorum when nothing else goes on.
    Linearizable,
    /// The state of this height and no other, which the caller knows to be committed, as long as a replica keeps it.
    Exactly(Height),
}

/// One of several operations that are queued together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub body: OperationBody,
    /// Position of an earlier step of the same call that must have succeeded; otherwise this one fails
    /// with ECANCELED (rule S8).
    pub requires: Option<usize>,
    /// Whether it stays queued, and is sent again, until its session ends, instead of being given up at the
    /// client's deadline.
    pub lasts: bool,
}

impl Step {
    /// A step that depends on no other.
    #[must_use]
    pub const fn new(body: OperationBody) -> Self {
        Self { body, requires: None, lasts: false }
    }

    /// A step that nobody waits for, and that must not get lost while the session lives.
    #[must_use]
    pub const fn lasting(body: OperationBody) -> Self {
        Self { body, requires: None, lasts: true }
    }

    /// A step that is done only if the step at `position` succeeded.
    #[must_use]
    pub const fn after(body: OperationBody, position: usize) -> Self {
        Self { body, requires: Some(position), lasts: false }
    }
}

/// An answer with the certified header that it was read under.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The answer.
    pub answer: Answer,
    /// The header; verified.
    pub header: Header,
}

/// The result of an operation that is queued. Dropping it does not take the operation back; a grant that it takes
/// then is given back.
#[derive(Debug)]
pub struct Pending(pub(crate) oneshot::Receiver<Result<Reply, ClientError>>);

impl Future for Pending {
    type Output = Result<Reply, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The session's task answers everything that it holds; only its end drops a sender.
        Pin::new(&mut self.0).poll(context).map(|received| received.unwrap_or(Err(ClientError::Closed)))
    }
}

/// The sessions of a client, one after the other. Keeps nothing alive.
#[derive(Debug)]
pub struct Sessions {
    pub(crate) standing: tokio::sync::watch::Receiver<crate::session::Standing>,
    pub(crate) last: Option<SessionId>,
}

impl Sessions {
    /// Waits for a session that lives and is another than the last one that was returned; `None` when the
    /// client is closed.
    pub async fn next(&mut self) -> Option<SessionId> {
        let last = self.last;
        let fresh = self.standing.wait_for(|standing| standing.session().is_some_and(|id| Some(id) != last));
        self.last = fresh.await.ok()?.session();
        self.last
    }
}

/// A verified client of one cluster. Clones share links, session, floor and caches.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
    session: SessionHandle,
    blocks: Arc<BlockCache>,
    /// The one height that is read.
    at: Option<Height>,
}

impl Client {
    /// Links to all replicas and registers a session of `principal`.
    ///
    /// # Errors
    /// [`ClientError::NoQuorum`] when no session was registered within `options.connect_timeout`;
    /// [`ClientError::Refused`] when the cluster does not know the principal.
    pub async fn connect(
        cluster: ClusterFile,
        principal: SecretKey,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let network = Network::start(&cluster, &principal)?;
        Self::with_replicas(cluster, principal, options, Arc::new(network)).await
    }

    /// As [`Client::connect`] over any way to reach the replicas: for tests and embedding.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn with_replicas(
        cluster: ClusterFile,
        principal: SecretKey,
        options: ClientOptions,
        replicas: Arc<dyn Replicas>,
    ) -> Result<Self, ClientError> {
        let blocks = Arc::new(BlockCache::new(options.block_cache_bytes));
        let core = Core::new(cluster, principal, options, replicas)?;
        let session = SessionHandle::start(&core).await?;
        Ok(Self { core, session, blocks, at: None })
    }

    /// The same client, which reads the state of this height whatever freshness is asked for. The caller knows it
    /// to be committed.
    #[must_use]
    pub fn at(&self, height: Height) -> Self {
        Self { at: Some(height), ..self.clone() }
    }

    /// How fresh a read must be that is asked for like this.
    fn freshness(&self, wanted: Freshness) -> Freshness {
        self.at.map_or(wanted, Freshness::Exactly)
    }

    /// What looks at the cluster over the same links.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer::over(&self.core)
    }

    /// Does one operation and waits for its certificate.
    ///
    /// Operations of concurrent callers share envelopes. `Reply::NeedsFold` and `Reply::Continue` are
    /// passed on; [`Client::execute_to_end`] repeats on the latter.
    ///
    /// # Errors
    /// [`ClientError`]; `Errno` is the cluster's verdict. See [`ClientError::outcome_unknown`].
    pub async fn execute(&self, credential: &Credential, body: OperationBody) -> Result<Reply, ClientError> {
        self.submit(credential, body).await?.await
    }

    /// As [`Client::execute`], and again while the answer is `Reply::Continue` (truncations over rows that
    /// are still being reclaimed, rule S4).
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn execute_to_end(
        &self,
        credential: &Credential,
        body: OperationBody,
    ) -> Result<Reply, ClientError> {
        self.session.execute_to_end(credential, body).await
    }

    /// Does several operations, queued together and in order, and waits for all.
    ///
    /// # Errors
    /// One result for each step, in order. A step whose `requires` is not an earlier step is
    /// [`ClientError::Invalid`], and then none is done.
    pub async fn execute_many(
        &self,
        credential: &Credential,
        steps: Vec<Step>,
    ) -> Vec<Result<Reply, ClientError>> {
        self.session.execute_many(credential, steps).await
    }

    /// Queues one operation and returns at once, unless the queue is full. What is submitted later by the
    /// same caller is executed later.
    ///
    /// # Errors
    /// [`ClientError::Deadline`] when there is no room in time, [`ClientError::Closed`],
    /// [`ClientError::Invalid`] for an operation that does not fit an envelope.
    pub async fn submit(&self, credential: &Credential, body: OperationBody) -> Result<Pending, ClientError> {
        self.session.submit(credential, body).await
    }

    /// Queues several operations, together and in order, and returns at once, unless the queue is full.
    ///
    /// # Errors
    /// As [`Client::submit`], and [`ClientError::Invalid`] for a step whose `requires` is not an earlier step;
    /// then none is queued.
    pub async fn submit_many(
        &self,
        credential: &Credential,
        steps: Vec<Step>,
    ) -> Result<Vec<Pending>, ClientError> {
        self.session.queue(credential, steps).await
    }

    /// Asks a question; the answer is computed here from a verified pruned copy of the state.
    ///
    /// # Errors
    /// [`ClientError::Errno`] as `quorate_metadata::read` answers it from certified rows (ENOENT, EACCES,
    /// ...); otherwise no replica gave a good answer in time.
    pub async fn read(
        &self,
        credential: &Credential,
        query: Query,
        freshness: Freshness,
    ) -> Result<Answer, ClientError> {
        self.read_certified(credential, query, freshness).await.map(|certified| certified.answer)
    }

    /// As [`Client::read`], with the header of the height that was read.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub async fn read_certified(
        &self,
        credential: &Credential,
        query: Query,
        freshness: Freshness,
    ) -> Result<Certified, ClientError> {
        crate::read::read(&self.core, credential, query, self.freshness(freshness)).await
    }

    /// Asks a quorum for the highest height (rule R4). Reads with `Freshness::Floor` that start afterwards
    /// see everything that was answered before this call.
    ///
    /// # Errors
    /// [`ClientError::NoQuorum`] or [`ClientError::Deadline`].
    pub async fn refresh(&self) -> Result<Height, ClientError> {
        crate::read::refresh(&self.core).await
    }

    /// Bytes of a file, clipped at its size; holes are zeros. Rows first, then their blocks in parallel.
    ///
    /// # Errors
    /// As [`Client::read`]; EIO when a block cannot be had from any replica.
    pub async fn read_range(&self, credential: &Credential, read: FileRead) -> Result<FileData, ClientError> {
        crate::file::read_range(self, credential, read).await
    }

    /// Writes dirty ranges of a file: long runs as blocks, short ones inline; folds and repeats where the
    /// state asks for it. Several operations; each is atomic, all are done when this returns.
    ///
    /// # Errors
    /// As [`Client::execute`] and [`Client::put_blocks`]; ranges before the failing one may be written.
    pub async fn write_ranges(
        &self,
        credential: &Credential,
        write: &FileWrite,
        ranges: Vec<DirtyRange>,
    ) -> Result<Option<Attributes>, ClientError> {
        crate::file::write_ranges(self, credential, write, ranges).await
    }

    /// Appends at the committed size and says where the first byte landed.
    ///
    /// # Errors
    /// As [`Client::write_ranges`].
    pub async fn append(
        &self,
        credential: &Credential,
        write: &FileWrite,
        bytes: Vec<u8>,
    ) -> Result<(u64, Attributes), ClientError> {
        crate::file::append(self, credential, write, bytes).await
    }

    /// Stores blocks on all replicas; returns when Q have synced and signed. At most
    /// `BLOCKS_PER_RECEIPT_MAX` blocks of at most `BLOCK_BYTES_MAX` bytes, `PUT_BLOCKS_BYTES_MAX` together.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] beyond these bounds, [`ClientError::NoQuorum`], [`ClientError::Deadline`],
    /// [`ClientError::Refused`] when too many replicas refuse (a full disk, a budget);
    /// [`ClientError::SessionLost`] when the session is gone: the next call stores them under the next one.
    pub async fn put_blocks(
        &self,
        blocks: Vec<Vec<u8>>,
    ) -> Result<(BlockEvidence, Vec<BlockDescriptor>), ClientError> {
        crate::blocks::put_blocks(&self.core, &self.session, blocks).await
    }

    /// Fetches a block that row `index` of `ino` refers to, from the cache or from any replica, and checks
    /// it against its identifier.
    ///
    /// # Errors
    /// [`ClientError`] when no replica serves it.
    pub async fn get_block(
        &self,
        credential: &Credential,
        ino: Ino,
        index: u64,
        id: Hash,
        authority: Authority,
    ) -> Result<Arc<[u8]>, ClientError> {
        let session = matches!(authority, Authority::Grant).then(|| self.session.id());
        let wanted = WantedBlock { ino, index, id, session, at: self.at };
        self.blocks.get(&self.core, credential, wanted).await
    }

    /// As [`Client::read_certified`], with the rows that prove the answer.
    pub(crate) async fn read_rows(
        &self,
        credential: &Credential,
        query: Query,
        freshness: Freshness,
    ) -> Result<crate::read::Verdict, ClientError> {
        crate::read::read_rows(&self.core, credential, query, self.freshness(freshness)).await
    }

    /// Keeps a block that was just stored, for whoever reads it next.
    pub(crate) fn remember(&self, id: Hash, block: &[u8]) {
        self.blocks.put(id, block);
    }

    /// Asks every replica how it is. Proves nothing; unreachable ones are named. Takes at most two seconds.
    pub async fn status(&self) -> ClusterStatus {
        crate::status::status(&self.core).await
    }

    /// What the highest height says, or the given one, with all that proves it to somebody who has only the genesis:
    /// the header's own certificate is checked even where the header is known already.
    ///
    /// # Errors
    /// [`ClientError`] when no replica proves an answer in time. An errno that the state answers with is none.
    pub async fn prove(
        &self,
        credential: &Credential,
        query: Query,
        at: Option<Height>,
    ) -> Result<ReadAnswer, ClientError> {
        crate::read::prove(&self.core, credential, query, at).await
    }

    /// Committed heights from `from` on, as one replica sends them: consecutive, each header under a
    /// verified certificate. Empty above the last committed height.
    ///
    /// # Errors
    /// [`ClientError`] when no replica gives a verifiable answer.
    pub async fn history(&self, from: Height) -> Result<Vec<CommittedBatch>, ClientError> {
        crate::status::history(&self.core, from).await
    }

    /// The highest height that this client knows to be committed.
    #[must_use]
    pub fn floor(&self) -> Height {
        self.core.trust.floor()
    }

    /// The cluster as its file describes it.
    #[must_use]
    pub fn cluster(&self) -> &ClusterFile {
        &self.core.cluster
    }

    /// The replicated parameters, as of genesis.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.core.cluster.genesis().parameters
    }

    /// What the client runs with.
    #[must_use]
    pub fn options(&self) -> &ClientOptions {
        &self.core.options
    }

    /// The present session; another one after a `SessionLost`. Zeros without a session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session.id()
    }

    /// Asks the cluster whether the session still is, by an operation that renews it.
    ///
    /// # Errors
    /// [`ClientError::SessionLost`] when it is not: then what is queued from now on is for the next one.
    pub async fn renew(&self) -> Result<(), ClientError> {
        self.session.renew().await
    }

    /// The sessions that follow the present one.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.session.sessions()
    }

    /// How often each replica was caught, by index.
    #[must_use]
    pub fn misbehaviour(&self) -> Vec<Misbehaviour> {
        self.core.trust.misbehaviour()
    }

    /// Whether a quorum of replicas is linked at this moment. Waits for nobody.
    #[must_use]
    pub fn has_quorum(&self) -> bool {
        self.core.connected() >= self.core.members.quorum()
    }

    /// Ends the session (grants and locks go at once instead of at expiry) and fails what is pending with
    /// [`ClientError::Closed`]. Waits at most `CLOSE_TIMEOUT`.
    pub async fn close(&self) {
        self.session.close().await;
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Client(cluster {}, floor {})", self.core.cluster_id, self.floor())
    }
}
