//! What every part of the client shares: the cluster, the links, what is trusted, and who answers fast.
//!
//! Invariant: the order in which replicas are asked depends on their speed, their failures and their lies alone:
//! who was caught comes last for a while (`bars`). Every replica is tried before a request fails.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_crypto::{Ed25519Signer, Ed25519Verifier, Hash, MemberSet, SecretKey, Signer};
use quorate_execution::State;
use quorate_protocol::client::{ClientReply, ClientRequest};
use quorate_protocol::{BatchTime, Height, ReplicaIndex, View};
use quorate_transport::ClusterFile;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::bars::Bars;
use crate::error::ClientError;
use crate::options::{ClientOptions, HEDGE_DELAY, REQUEST_TIMEOUT, UPLOAD_BYTES_MAX};
use crate::question::Question;
use crate::replicas::{Replicas, Unreachable};
use crate::trust::Trust;

/// Nanoseconds in the smoothed round trip of a replica that was never asked: tried soon, not first.
const UNKNOWN_ROUND_TRIP: u64 = 5_000_000;

/// When a call gives up: never, for a hard client.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) fn after(time: Option<Duration>) -> Self {
        Self(time.and_then(|time| Instant::now().checked_add(time)))
    }

    pub(crate) const fn instant(self) -> Option<Instant> {
        self.0
    }

    pub(crate) fn passed(self) -> bool {
        self.0.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Runs `future` until the deadline.
    pub(crate) async fn run<T>(self, future: impl Future<Output = T>) -> Option<T> {
        match self.0 {
            Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
            None => Some(future.await),
        }
    }
}

/// Shared by all parts of a client.
pub(crate) struct Core {
    pub(crate) cluster: ClusterFile,
    pub(crate) cluster_id: Hash,
    pub(crate) members: MemberSet,
    pub(crate) options: ClientOptions,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) replicas: Arc<dyn Replicas>,
    pub(crate) trust: Trust,
    pub(crate) question: Question,
    /// Whether anything was read since the last background question.
    pub(crate) reading: AtomicBool,
    /// Room for uploads to each replica, in bytes.
    pub(crate) uploads: Vec<Arc<Semaphore>>,
    /// Nanoseconds of the smoothed round trip of each replica.
    speed: Mutex<Vec<u64>>,
    bars: Bars,
    /// Nanoseconds by which batch time runs ahead of this machine's clock, as far as is known.
    ahead: AtomicU64,
    /// The highest view that a commit certificate named.
    view: AtomicU64,
}

impl Core {
    pub(crate) fn new(
        cluster: ClusterFile,
        principal: SecretKey,
        options: ClientOptions,
        replicas: Arc<dyn Replicas>,
    ) -> Result<Arc<Self>, ClientError> {
        let members = cluster.members().clone();
        let cluster_id = cluster.cluster();
        let genesis =
            State::genesis(cluster.genesis()).map_err(|error| ClientError::Local(error.to_string()))?;
        let keys = members.members().iter().flat_map(|member| [member.consensus, member.blocks]);
        let verifier = Box::new(Ed25519Verifier::with_keys(keys));
        let trust = Trust::new(cluster_id, members.clone(), genesis.header(), verifier);
        let speed = Mutex::new(vec![UNKNOWN_ROUND_TRIP; members.n()]);
        let bars = Bars::new(members.n());
        let uploads = members.indices().map(|_| Arc::new(Semaphore::new(UPLOAD_BYTES_MAX))).collect();
        let core = Arc::new(Self {
            cluster,
            cluster_id,
            members,
            options,
            signer: Arc::new(Ed25519Signer::new(principal)),
            replicas,
            trust,
            question: Question::default(),
            reading: AtomicBool::new(false),
            uploads,
            speed,
            bars,
            ahead: AtomicU64::new(0),
            view: AtomicU64::new(0),
        });
        crate::question::follow(&core);
        Ok(core)
    }

    /// When a call that starts now gives up.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.options.deadline)
    }

    /// Replicas that are linked.
    pub(crate) fn connected(&self) -> usize {
        self.members.indices().filter(|replica| self.replicas.connected(*replica)).count()
    }

    /// All replicas, the one to ask first in front: linked ones by round trip, then those that were caught
    /// lately, then the others.
    pub(crate) fn order(&self) -> Vec<ReplicaIndex> {
        let speed = self.speed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = Instant::now();
        let mut order: Vec<ReplicaIndex> = self.members.indices().collect();
        order.sort_by_cached_key(|replica| {
            let round_trip = speed.get(usize::from(*replica)).copied().unwrap_or(u64::MAX);
            (!self.replicas.connected(*replica), self.bars.is_barred(*replica, now), round_trip)
        });
        order
    }

    /// Whether this replica was caught lately.
    pub(crate) fn is_barred(&self, replica: ReplicaIndex) -> bool {
        self.bars.is_barred(replica, Instant::now())
    }

    /// Takes a measured round trip into account; also called with a long one for who fails.
    pub(crate) fn measured(&self, replica: ReplicaIndex, round_trip: Duration) {
        let sample = u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX / 16);
        let mut speed = self.speed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(smoothed) = speed.get_mut(usize::from(replica)) {
            *smoothed = smoothed.saturating_mul(7).saturating_add(sample) / 8;
        }
    }

    /// Puts a replica behind the others for a while.
    pub(crate) fn demote(&self, replica: ReplicaIndex) {
        self.measured(replica, HEDGE_DELAY.saturating_mul(8));
    }

    /// Names a replica whose answer failed a check, and asks it last for a while.
    pub(crate) fn accuse(&self, replica: ReplicaIndex, reason: &dyn std::fmt::Display) {
        self.trust.accuse(replica, reason);
        self.bars.caught(replica, Instant::now());
    }

    /// Asks replicas one after the other until one answers with what verifies. `take` gives nothing for a reply of
    /// another kind than `wanted`, and says why what does not verify is refused.
    pub(crate) async fn first_verified<T>(
        &self,
        request: ClientRequest,
        wanted: &str,
        take: impl Fn(ClientReply) -> Option<Result<T, String>>,
    ) -> Result<T, ClientError> {
        let request = Arc::new(request);
        let mut last = None;
        for replica in self.order() {
            match self.request(replica, Arc::clone(&request)).await {
                Ok(ClientReply::Refused { refusal, text }) => {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    last = Some(ClientError::Refused { refusal, text });
                }
                Ok(reply) => match take(reply) {
                    Some(Ok(verified)) => return Ok(verified),
                    Some(Err(reason)) => {
                        self.accuse(replica, &reason);
                        last = Some(ClientError::PeerLies { replica, reason });
                    }
                    None => self.accuse(replica, &format!("another kind of reply than {wanted}")),
                },
                Err(_) => {}
            }
        }
        Err(last.unwrap_or(ClientError::NoQuorum { reachable: 0, needed: 1 }))
    }

    /// A small request to one replica, limited in time; its round trip counts for the order.
    pub(crate) async fn request(
        &self,
        replica: ReplicaIndex,
        request: Arc<ClientRequest>,
    ) -> Result<ClientReply, Unreachable> {
        let asked = Instant::now();
        let reply = self.request_within(replica, request, REQUEST_TIMEOUT).await;
        if reply.is_ok() {
            self.measured(replica, asked.elapsed());
        }
        reply
    }

    /// A request to one replica that may take as long as `limit`.
    pub(crate) async fn request_within(
        &self,
        replica: ReplicaIndex,
        request: Arc<ClientRequest>,
        limit: Duration,
    ) -> Result<ClientReply, Unreachable> {
        let reply = tokio::time::timeout(limit, self.replicas.request(replica, request)).await;
        let reply = reply.unwrap_or_else(|_| Err(Unreachable::NoReply("time-out".to_owned())));
        if let Err(error) = &reply {
            if matches!(error, Unreachable::Broken(_)) {
                self.accuse(replica, error);
            } else {
                self.demote(replica);
            }
        }
        reply
    }

    /// An estimate of the present batch time: this machine's clock, moved forward if certified headers are
    /// ahead of it. Nothing safe depends on it.
    pub(crate) fn batch_now(&self) -> BatchTime {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX / 2);
        let seen = self.trust.time().0;
        let ahead = seen.saturating_sub(wall);
        let ahead = self.ahead.fetch_max(ahead, Ordering::Relaxed).max(ahead);
        BatchTime(wall.saturating_add(ahead))
    }

    /// The verdict of a read that got no good answer before its deadline.
    pub(crate) fn unanswered(&self) -> ClientError {
        let reachable = self.connected();
        let needed = self.members.quorum();
        if reachable < needed {
            ClientError::NoQuorum { reachable, needed }
        } else {
            ClientError::Deadline { sent: false }
        }
    }

    /// Takes note of the view of a commit certificate.
    pub(crate) fn led_by(&self, view: View) {
        self.view.fetch_max(view, Ordering::Relaxed);
    }

    /// Who leads, as far as certificates tell.
    pub(crate) fn leader(&self) -> ReplicaIndex {
        self.members.leader(self.view.load(Ordering::Relaxed))
    }

    /// What the client knows to be committed.
    pub(crate) fn floor(&self) -> Height {
        self.trust.floor()
    }
}
