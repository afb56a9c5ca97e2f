//! The replicas over QUIC: one self-healing link for each.
//!
//! Invariant: a link talks only to the holder of the transport key that the cluster file pins; the channel
//! of events is bounded, and while it is full, notices wait at the replicas.

use std::sync::{Arc, Mutex, PoisonError};

use quorate_crypto::{Ed25519Signer, SecretKey, Signer};
use quorate_protocol::client::{ClientReply, ClientRequest};
use quorate_protocol::{Envelope, ReplicaIndex};
use quorate_transport::{ClientEndpoint, ClusterFile, Fault, LinkEvent, ReplicaLink, TransportError};
use tokio::sync::mpsc;

use crate::error::ClientError;
use crate::replicas::{Boxed, EVENTS_MAX, Event, Replicas, Unreachable};

/// Links to all replicas of a cluster. They end when it is dropped.
pub struct Network {
    links: Vec<ReplicaLink>,
    events: Mutex<Option<mpsc::Receiver<(ReplicaIndex, LinkEvent)>>>,
}

impl Network {
    /// Starts to call every replica of the cluster.
    ///
    /// # Errors
    /// [`ClientError::Local`] when no UDP port can be had, or outside a tokio runtime.
    pub fn start(cluster: &ClusterFile, principal: &SecretKey) -> Result<Self, ClientError> {
        let endpoint = ClientEndpoint::new().map_err(|error| ClientError::Local(error.to_string()))?;
        let signer: Arc<dyn Signer> = Arc::new(Ed25519Signer::new(principal.clone()));
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let targets = cluster.members().indices().filter_map(|replica| cluster.target(replica));
        let start =
            |target| ReplicaLink::start(endpoint.clone(), target, Some(Arc::clone(&signer)), sender.clone());
        let links = targets.map(start).collect();
        Ok(Self { links, events: Mutex::new(Some(receiver)) })
    }

    fn link(&self, replica: ReplicaIndex) -> Option<&ReplicaLink> {
        self.links.get(usize::from(replica))
    }
}

impl Replicas for Network {
    fn connected(&self, replica: ReplicaIndex) -> bool {
        self.link(replica).is_some_and(ReplicaLink::is_connected)
    }

    fn last_error(&self, replica: ReplicaIndex) -> Option<String> {
        self.link(replica).and_then(ReplicaLink::last_error)
    }

    fn request(
        &self,
        replica: ReplicaIndex,
        request: Arc<ClientRequest>,
    ) -> Boxed<Result<ClientReply, Unreachable>> {
        let link = self.link(replica).cloned();
        Box::pin(async move {
            let link = link.ok_or_else(|| Unreachable::NotConnected("no such replica".to_owned()))?;
            link.request(&request).await.map_err(unreachable_because)
        })
    }

    fn submit(&self, replica: ReplicaIndex, envelope: &Envelope, results: bool) -> Result<(), Unreachable> {
        let link =
            self.link(replica).ok_or_else(|| Unreachable::NotConnected("no such replica".to_owned()))?;
        link.submit(envelope, results).map_err(unreachable_because)
    }

    fn events(&self) -> Option<mpsc::Receiver<Event>> {
        let mut taken = self.events.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some((replica, event)) = taken.recv().await {
                let event = match event {
                    LinkEvent::Connected => Event::Connected(replica),
                    LinkEvent::Disconnected => Event::Disconnected(replica),
                    LinkEvent::Notice(notice) => Event::Notice(replica, Box::new(notice)),
                    LinkEvent::Garbled(error) => Event::Garbled(replica, error.to_string()),
                };
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        Some(receiver)
    }
}

fn unreachable_because(error: TransportError) -> Unreachable {
    let text = error.to_string();
    match (&error, error.fault()) {
        (TransportError::NotConnected, _) => Unreachable::NotConnected(text),
        (_, Fault::Caller) => Unreachable::TooLarge(text),
        (TransportError::Frame(_), Fault::Peer) => Unreachable::Broken(text),
        _ => Unreachable::NoReply(text),
    }
}
