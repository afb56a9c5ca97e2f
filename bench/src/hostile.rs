//! Clients that are hostile: what the replicas must refuse, as fast as it can be sent.
//!
//! Invariant: they hold a key like any client, and speak the protocol; nothing here is signed by anybody else.

use crate::BenchError;
use crate::field::Field;
use quorate_crypto::{Bounded, Ed25519Signer, Hash, Signature, Signer as _};
use quorate_protocol::client::ClientRequest;
use quorate_protocol::envelope::session_id;
use quorate_protocol::{
    BatchTime, Credential, Envelope, EnvelopeBody, Groups, Operation, OperationBody, ReplicaIndex,
};
use quorate_transport::{ClientEndpoint, ReplicaConnection, TransportError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Operations in one of their envelopes.
const OPERATIONS: usize = 64;
/// Questions under way at one replica.
const QUESTIONS: usize = 16;
/// Pause when a replica takes no more.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// How a client is hostile.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hostility {
    /// Its envelopes have signatures that do not hold, or differ from replica to replica under one number.
    Bad,
    /// It sends and asks as much as the network takes.
    Flooding,
}

/// Hostile clients at work until they are dropped.
pub(crate) struct Hostile(Arc<AtomicBool>);

impl Drop for Hostile {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Hostile {
    /// Starts one at each replica, in the runtime of the caller.
    pub(crate) async fn start(field: &Field, hostility: Hostility) -> Result<Self, BenchError> {
        let over = Arc::new(AtomicBool::new(false));
        let endpoint = ClientEndpoint::new()?;
        let signer = Arc::new(Ed25519Signer::new(field.key.clone()));
        for replica in field.cluster.indices() {
            let target = field.cluster.file().target(replica);
            let target = target.ok_or(BenchError::Parameters("a replica without an address"))?;
            let (connection, mut notices) = endpoint.connect(&target, Some(signer.as_ref())).await?;
            tokio::spawn(async move { while notices.recv().await.is_some() {} });
            let cluster = field.cluster.file().cluster();
            let client =
                One { connection, signer: Arc::clone(&signer), cluster, replica, turn: AtomicU64::new(0) };
            let client = Arc::new(client);
            tokio::spawn(submit(Arc::clone(&client), Arc::clone(&over)));
            if hostility == Hostility::Flooding {
                for _ in 0..QUESTIONS {
                    tokio::spawn(ask(Arc::clone(&client), Arc::clone(&over)));
                }
            }
        }
        Ok(Self(over))
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
    while !over.load(Ordering::Relaxed) {
        match client.connection.submit(&client.envelope(), true) {
            Ok(()) => tokio::task::yield_now().await,
            Err(TransportError::Lost(_) | TransportError::NotConnected) => return,
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
