//! Clients that are hostile: what the replicas must refuse, as fast as it can be sent.
//!
//! Invariant: they are a principal of their own with the rights of an ordinary client, and speak the protocol;
//! nothing here is signed by anybody else.
//! They run on a thread of their own, which is all of it that honest clients share with them besides the machine.

use crate::field::Field;
use crate::{BenchError, usage};
use quorate_client::Client;
use quorate_crypto::{Bounded, Ed25519Signer, Hash, NodeSeed, Role, Signature, Signer as _};
use quorate_protocol::client::ClientRequest;
use quorate_protocol::envelope::session_id;
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::{
    BatchTime, Credential, Envelope, EnvelopeBody, Groups, Operation, OperationBody, ReplicaIndex,
};
use quorate_transport::{ClientEndpoint, ReplicaConnection, ReplicaTarget, TransportError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What their key is made of.
const KEY_SEED: [u8; 32] = [66; 32];
/// Operations in one of their envelopes.
const OPERATIONS: usize = 64;
/// Questions under way at one replica.
const QUESTIONS: usize = 16;
/// Pause when a replica takes no more.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// How often they count what they use.
const COUNT_INTERVAL: Duration = Duration::from_millis(20);

/// How a client is hostile.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hostility {
    /// Its envelopes have signatures that do not hold, or differ from replica to replica under one number.
    Bad,
    /// It sends and asks as much as the network takes.
    Flooding,
}

/// Hostile clients at work until they are dropped.
pub(crate) struct Hostile {
    over: Arc<AtomicBool>,
    /// Milliseconds of processor time.
    used: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It says why itself if it panics.
            let _ = thread.join();
        }
    }
}

impl Hostile {
    /// Has `administrator` make them a principal, and starts one at each replica.
    pub(crate) async fn start(
        field: &Field,
        administrator: &Client,
        hostility: Hostility,
    ) -> Result<Self, BenchError> {
        let key = NodeSeed::from_bytes(KEY_SEED).derive(Role::Principal);
        let rights = PrincipalRights {
            anyone: true,
            administrator: false,
            auditor: false,
            uids: Bounded::new(),
            gids: Bounded::new(),
            squash_root: None,
            realms: Bounded::new(),
        };
        let credential = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
        administrator.execute(&credential, OperationBody::PutPrincipal { key: key.public(), rights }).await?;
        let failed = |source| BenchError::Io { what: "start hostile clients", source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let targets: Option<Vec<ReplicaTarget>> =
            field.cluster.indices().map(|replica| field.cluster.file().target(replica)).collect();
        let targets = targets.ok_or(BenchError::Parameters("a replica without an address"))?;
        let (over, used) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let party = Party {
            cluster: field.cluster.file().cluster(),
            signer: Arc::new(Ed25519Signer::new(key)),
            hostility,
            over: Arc::clone(&over),
        };
        let counter = Arc::clone(&used);
        let work = move || {
            // Dropping the runtime ends what is still under way.
            runtime.block_on(async {
                if let Err(error) = party.begin(targets).await {
                    tracing::warn!(%error, "hostile clients do not get in");
                }
                while !party.over.load(Ordering::Relaxed) {
                    tokio::time::sleep(COUNT_INTERVAL).await;
                    let time = u64::try_from(usage::of_this_thread().as_millis()).unwrap_or(u64::MAX);
                    counter.store(time, Ordering::Relaxed);
                }
            });
        };
        let thread = std::thread::Builder::new().name("hostile".to_owned()).spawn(work).map_err(failed)?;
        Ok(Self { over, used, thread: Some(thread) })
    }

    /// Processor time that they have used.
    pub(crate) fn used(&self) -> Duration {
        Duration::from_millis(self.used.load(Ordering::Relaxed))
    }
}

/// What all of them have in common.
struct Party {
    cluster: Hash,
    signer: Arc<Ed25519Signer>,
    hostility: Hostility,
    over: Arc<AtomicBool>,
}

impl Party {
    async fn begin(&self, targets: Vec<ReplicaTarget>) -> Result<(), BenchError> {
        let endpoint = ClientEndpoint::new()?;
        for target in targets {
            let (connection, mut notices) = endpoint.connect(&target, Some(self.signer.as_ref())).await?;
            tokio::spawn(async move { while notices.recv().await.is_some() {} });
            let client = Arc::new(One {
                connection,
                signer: Arc::clone(&self.signer),
                cluster: self.cluster,
                replica: target.replica,
                turn: AtomicU64::new(0),
            });
            tokio::spawn(submit(Arc::clone(&client), Arc::clone(&self.over)));
            if self.hostility == Hostility::Flooding {
                for _ in 0..QUESTIONS {
                    tokio::spawn(ask(Arc::clone(&client), Arc::clone(&self.over)));
                }
            }
        }
        Ok(())
    }
}

/// Its connection with one replica.
struct One {
    connection: ReplicaConnection,
    signer: Arc<Ed25519Signer>,
    cluster: Hash,
    replica: ReplicaIndex,
    turn: AtomicU64,
}

impl One {
    /// By turns: a signature that does not hold, and an envelope under the same number as others at the other
    /// replicas, of a session that nobody has.
    fn envelope(&self) -> Envelope {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let operation = Operation { credential: 0, requires: 0, at: None, body: OperationBody::Null };
        let key = self.signer.public();
        let body = EnvelopeBody {
            cluster: self.cluster,
            session: session_id(&self.cluster, &key, &[1; 32]),
            key,
            // Differs from replica to replica.
            first: 1 + turn / 2,
            valid_until: BatchTime((u64::MAX >> 2) + u64::from(self.replica)),
            credentials: Bounded::try_collect([Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal }])
                .unwrap_or_default(),
            operations: Bounded::try_collect(std::iter::repeat_n(operation, OPERATIONS)).unwrap_or_default(),
        };
        if turn.is_multiple_of(2) {
            Envelope { body, signature: Signature([7; 64]) }
        } else {
            body.sign(self.signer.as_ref())
        }
    }
}

async fn submit(client: Arc<One>, over: Arc<AtomicBool>) {
    let mut envelope = client.envelope();
    while !over.load(Ordering::Relaxed) {
        match client.connection.submit(&envelope, true) {
            Ok(()) => {
                envelope = client.envelope();
                tokio::task::yield_now().await;
            }
            Err(TransportError::Lost(_) | TransportError::NotConnected) => return,
            // The same once more: to sign another one would cost the attacker alone, on the machine that all share here.
            Err(_) => tokio::time::sleep(FULL_PAUSE).await,
        }
    }
}

/// Questions whose answers are large or costly.
async fn ask(client: Arc<One>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let turn = client.turn.fetch_add(1, Ordering::Relaxed);
        let request = match turn % 3 {
            0 => ClientRequest::History { from: 1 },
            1 => ClientRequest::Submit { envelope: client.envelope(), results: true },
            _ => ClientRequest::Highest { known: 0 },
        };
        if client.connection.request(&request).await.is_err() {
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }
}
