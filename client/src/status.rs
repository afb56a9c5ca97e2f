//! How the cluster is, and its history.
//!
//! Invariant: a status proves nothing and is never answered to a filesystem call; of a history every header
//! stands under a certificate that was checked, except where one replica is asked for its own: whoever asks judges that
//! himself, also when it contradicts what this client knows.

use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::client::{ClientReply, ClientRequest, ReplicaStatus};
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Height, ReplicaIndex};

use crate::core::Core;
use crate::error::ClientError;
use crate::race::Race;

/// How long a status waits for a replica.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// What is known of one replica.
#[derive(Clone, Debug)]
pub struct ReplicaState {
    /// Its index.
    pub replica: ReplicaIndex,
    /// Where it is called.
    pub address: String,
    /// What it says of itself, or why it says nothing.
    pub status: Result<ReplicaStatus, String>,
    /// Time from question to answer, when there was one.
    pub round_trip: Option<Duration>,
    /// Whether the header that it shows is certified.
    pub certified: bool,
}

/// What is known of all replicas, by index.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// One for each member.
    pub replicas: Vec<ReplicaState>,
    /// Q.
    pub quorum: usize,
    /// f.
    pub faults: usize,
}

impl ClusterStatus {
    /// Replicas that answer and vote.
    #[must_use]
    pub fn voting(&self) -> usize {
        let voting = |state: &&ReplicaState| state.status.as_ref().is_ok_and(|status| status.voting);
        self.replicas.iter().filter(voting).count()
    }

    /// How many more replicas may stop before nothing can be decided; `None` when that is so already.
    #[must_use]
    pub fn spare(&self) -> Option<usize> {
        self.voting().checked_sub(self.quorum)
    }

    /// The highest certified height among the answers.
    #[must_use]
    pub fn height(&self) -> Option<Height> {
        let certified = self.replicas.iter().filter(|state| state.certified);
        certified.filter_map(|state| state.status.as_ref().ok()).map(|status| status.committed).max()
    }
}

/// Asks all replicas.
pub(crate) async fn status(core: &Arc<Core>) -> ClusterStatus {
    let request = Arc::new(ClientRequest::Status);
    let mut race = Race::new();
    for replica in core.members.indices() {
        let request = Arc::clone(&request);
        race.push(replica, async move {
            let asked = tokio::time::Instant::now();
            let reply = tokio::time::timeout(STATUS_TIMEOUT, core.request(replica, request)).await;
            (reply, asked.elapsed())
        });
    }
    let mut replicas = Vec::with_capacity(core.members.n());
    while let Some((replica, (reply, elapsed))) = race.next().await {
        let status = match reply {
            Ok(Ok(ClientReply::Status(status))) if status.replica == replica => Ok(status),
            Ok(Ok(ClientReply::Refused { text, .. })) => Err(String::from_utf8_lossy(&text).into_owned()),
            Ok(Ok(_)) => Err("it answers something else".to_owned()),
            Ok(Err(error)) => Err(core.replicas.last_error(replica).unwrap_or_else(|| error.to_string())),
            Err(_) => {
                Err(core.replicas.last_error(replica).unwrap_or_else(|| "no answer in time".to_owned()))
            }
        };
        replicas.push(state(core, replica, status, elapsed));
    }
    replicas.sort_by_key(|state| state.replica);
    ClusterStatus { replicas, quorum: core.members.quorum(), faults: core.members.f() }
}

fn state(
    core: &Core,
    replica: ReplicaIndex,
    status: Result<ReplicaStatus, String>,
    elapsed: Duration,
) -> ReplicaState {
    let certified = match &status {
        Ok(status) if status.header.height == status.committed => {
            let verified = core.trust.verify_header(&status.header, status.certificate.as_ref());
            if let Err(fault) = &verified {
                core.accuse(replica, fault);
            }
            verified.is_ok()
        }
        _ => false,
    };
    let address = core.cluster.addresses().get(usize::from(replica));
    ReplicaState {
        replica,
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        round_trip: status.is_ok().then_some(elapsed),
        status,
        certified,
    }
}

/// Asks replicas for committed heights until one sends what verifies.
pub(crate) async fn history(core: &Arc<Core>, from: Height) -> Result<Vec<CommittedBatch>, ClientError> {
    core.first_verified(ClientRequest::History { from }, "a history", |reply| match reply {
        ClientReply::History(batches) => {
            Some(check_history(core, from, &batches).map(|()| batches.into_inner()))
        }
        _ => None,
    })
    .await
}

/// Consecutive heights from `from` on, each header under its certificate and over its proposal.
fn check_history(core: &Core, from: Height, batches: &[CommittedBatch]) -> Result<(), String> {
    let mut height = from;
    for committed in batches {
        let header = &committed.batch.header;
        if header.height != height {
            return Err(format!("height {} where {height} should follow", header.height));
        }
        let verified = core.trust.verify_header(header, Some(&committed.certificate));
        verified.map_err(|fault| fault.to_string())?;
        let proposal = &committed.batch.proposal;
        if proposal.digest(&core.cluster_id, header.epoch, header.height) != header.proposal {
            return Err(format!("another proposal than the header of height {height} names"));
        }
        height = height.saturating_add(1);
    }
    Ok(())
}

/// Asks one replica for committed heights from this one on.
pub(crate) async fn history_of(
    core: &Core,
    replica: ReplicaIndex,
    from: Height,
) -> Result<Vec<CommittedBatch>, String> {
    match core.request(replica, Arc::new(ClientRequest::History { from })).await {
        Ok(ClientReply::History(batches)) => Ok(batches.into_inner()),
        Ok(ClientReply::Refused { text, .. }) => Err(String::from_utf8_lossy(&text).into_owned()),
        Ok(_) => Err("it answers something else".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Asks all replicas whether they have sent a COMMIT for this height or a higher one; who does not answer is left out.
pub(crate) async fn have_voted_for(core: &Core, height: Height) -> Vec<(ReplicaIndex, bool)> {
    let request = Arc::new(ClientRequest::Highest { known: height.saturating_sub(1) });
    let mut race = Race::new();
    for replica in core.members.indices() {
        race.push(replica, core.request(replica, Arc::clone(&request)));
    }
    let mut answers = Vec::with_capacity(core.members.n());
    while let Some((replica, reply)) = race.next().await {
        if let Ok(ClientReply::Highest { height: highest, .. }) = reply {
            answers.push((replica, highest >= height));
        }
    }
    answers
}
