//! Looking at a cluster without a session: works without a quorum, and changes nothing.
//!
//! Invariant: what is shown of replicas is their word, except headers, which are verified.

use std::sync::Arc;
use std::time::Duration;

use quorate_crypto::SecretKey;
use quorate_protocol::client::ReadAnswer;
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::query::Query;
use quorate_protocol::{BatchTime, Credential, Header, Height, ReplicaIndex};
use quorate_transport::ClusterFile;

use crate::core::Core;
use crate::error::ClientError;
use crate::evidence::ShownEvidence;
use crate::heads::ShownHeads;
use crate::network::Network;
use crate::options::ClientOptions;
use crate::status::ClusterStatus;

/// How long replicas have to accept a connection before they count as unreachable.
pub const LINK_PATIENCE: Duration = Duration::from_secs(2);
/// How often the links are looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A connection to all replicas without a session.
pub struct Observer {
    core: Arc<Core>,
}

impl Observer {
    /// Links to all replicas that can be reached within [`LINK_PATIENCE`].
    ///
    /// # Errors
    /// [`ClientError`] of this side; replicas that cannot be reached are no error.
    pub async fn start(
        cluster: ClusterFile,
        principal: SecretKey,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let network = Network::start(&cluster, &principal)?;
        let core = Core::new(cluster, principal, options, Arc::new(network))?;
        let until = tokio::time::Instant::now() + LINK_PATIENCE;
        while core.connected() < core.members.n() && tokio::time::Instant::now() < until {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(Self { core })
    }

    pub(crate) fn over(core: &Arc<Core>) -> Self {
        Self { core: Arc::clone(core) }
    }

    /// As [`crate::Client::status`].
    pub async fn status(&self) -> ClusterStatus {
        crate::status::status(&self.core).await
    }

    /// As [`crate::Client::history`].
    ///
    /// # Errors
    /// As there.
    pub async fn history(&self, from: Height) -> Result<Vec<CommittedBatch>, ClientError> {
        crate::status::history(&self.core, from).await
    }

    /// As [`crate::Client::prove`].
    ///
    /// # Errors
    /// As there.
    pub async fn prove(
        &self,
        credential: &Credential,
        query: Query,
        at: Option<Height>,
    ) -> Result<ReadAnswer, ClientError> {
        crate::read::prove(&self.core, credential, query, at).await
    }

    /// As [`crate::Client::refresh`].
    ///
    /// # Errors
    /// As there.
    pub async fn refresh(&self) -> Result<Height, ClientError> {
        crate::read::refresh(&self.core).await
    }

    /// The header of a committed height, verified, as one replica gives it.
    ///
    /// # Errors
    /// [`ClientError`] when no replica gives it.
    pub async fn header(&self, height: Height) -> Result<Header, ClientError> {
        crate::heights::header(&self.core, height).await
    }

    /// The header of the highest height whose batch time is not above `time`, verified, among those up to the
    /// highest height that this side knows to be committed.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for a time before the genesis; as [`Observer::header`].
    pub async fn height_at(&self, time: BatchTime) -> Result<Header, ClientError> {
        crate::heights::height_at(&self.core, time).await
    }

    /// Asks one replica for committed heights from this one on. Nothing of it is judged here, not even whether it
    /// contradicts what is known.
    ///
    /// # Errors
    /// Why the replica shows nothing, in words.
    pub async fn history_of(
        &self,
        replica: ReplicaIndex,
        from: Height,
    ) -> Result<Vec<CommittedBatch>, String> {
        crate::status::history_of(&self.core, replica, from).await
    }

    /// Asks every replica whether it has sent a COMMIT for this height or a higher one (rule R4). Who does not answer
    /// is left out; the answers are words.
    pub async fn have_voted_for(&self, height: Height) -> Vec<(ReplicaIndex, bool)> {
        crate::status::have_voted_for(&self.core, height).await
    }

    /// Asks every replica for the heads of the log that it signed. No signature is checked here.
    pub async fn log_heads(&self) -> Vec<ShownHeads> {
        crate::heads::heads(&self.core).await
    }

    /// Asks every replica for the evidence that it holds. Nothing of it is judged here.
    pub async fn evidence(&self) -> Vec<ShownEvidence> {
        crate::evidence::evidence(&self.core).await
    }
}
