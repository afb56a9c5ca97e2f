//! A replica's end point: one UDP port on which peers and clients call, and from which peers are called.
//!
//! Invariant: a connection becomes a peer's only if TLS proved a member's transport key and the protocol
//! is that of peers; whatever else arrives is a client or is closed. Handshakes under way are bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, Incoming, ServerConfig, VarInt};
use quorate_crypto::{Address, Hash, MemberSet, PublicKey, SecretKey};
use quorate_protocol::ReplicaIndex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

use crate::error::TransportError;
use crate::peers::{self, LANES, PeerEvents, PeerNetwork};
use crate::server::{self, ClientEvents, ClientLimits, Clients};
use crate::tls;
use crate::tuning::{
    CLIENT_WINDOW_BYTES, CONNECT_TIMEOUT, CloseCode, Streams, bind, transport_config, tune_endpoint,
};

/// Handshakes of callers under way at once.
pub const HANDSHAKES_MAX: usize = 256;
/// From so many on, a caller must first show that packets reach its address.
pub const HANDSHAKES_UNCHECKED_MAX: usize = 64;
/// Connection attempts that wait to be looked at.
const INCOMING_MAX: usize = 1024;
/// Bytes that QUIC keeps of one attempt, and of all, before it is looked at.
const INCOMING_BYTES_MAX: u64 = 64 << 10;
const INCOMING_BYTES_TOTAL_MAX: u64 = 16 << 20;
/// How long closing waits for the other ends to hear of it.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long closing then leaves to the socket's task.
const SOCKET_RELEASE: Duration = Duration::from_millis(2);

/// What a replica's transport needs to know.
#[derive(Clone, Debug)]
pub struct ReplicaTransportConfiguration {
    /// The cluster's identifier.
    pub cluster: Hash,
    /// The members, whose transport keys are pinned.
    pub members: MemberSet,
    /// Which of them this is.
    pub me: ReplicaIndex,
    /// Its transport secret; must be that of the member.
    pub secret: SecretKey,
    /// Where to listen. Port 0 picks one.
    pub listen: SocketAddr,
    /// Where the members listen, by index.
    pub addresses: Vec<Address>,
    /// Budgets of clients.
    pub limits: ClientLimits,
}

/// A running end point.
#[derive(Debug)]
pub struct ReplicaTransport {
    /// Sends to the other replicas.
    pub peers: PeerNetwork,
    /// What they send.
    pub peer_events: PeerEvents,
    /// What clients ask.
    pub client_events: ClientEvents,
    /// Keeps it running.
    pub running: Running,
}

/// Keeps an end point running. Dropping it closes every connection, but waits for nobody to hear of it.
#[derive(Debug)]
pub struct Running {
    endpoint: Endpoint,
    local_address: SocketAddr,
    peers: PeerNetwork,
    tasks: Vec<JoinHandle<()>>,
}

impl ReplicaTransport {
    /// Opens the port, starts to listen, and calls the peers with a lower index; those with a higher one
    /// call us. Must run within a tokio runtime, which then drives it.
    ///
    /// # Errors
    /// [`TransportError::Configuration`], [`TransportError::Bind`], [`TransportError::Tls`].
    pub fn start(configuration: ReplicaTransportConfiguration) -> Result<Self, TransportError> {
        check(&configuration)?;
        let endpoint = open(&configuration)?;
        let local_address = endpoint
            .local_addr()
            .map_err(|source| TransportError::Bind { address: configuration.listen, source })?;
        let (peers, peer_events) = PeerNetwork::new(configuration.me, configuration.members.n());
        let (clients, client_events) =
            Clients::new(configuration.cluster, configuration.me, configuration.limits.clone());
        let mut tasks = peers::dial_all(&peers, &endpoint, &configuration)?;
        let door = Door { members: configuration.members, peers: peers.clone(), clients };
        tasks.push(tokio::spawn(accept(endpoint.clone(), Arc::new(door))));
        let running = Running { endpoint, local_address, peers: peers.clone(), tasks };
        Ok(Self { peers, peer_events, client_events, running })
    }

    /// Where it listens, with the port that was picked.
    #[must_use]
    pub const fn local_address(&self) -> SocketAddr {
        self.running.local_address
    }

    /// As [`Running::close`].
    pub async fn close(self) {
        self.running.close().await;
    }
}

impl Running {
    /// Where the end point listens, with the port that was picked.
    #[must_use]
    pub const fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Takes leave of every peer and client, so that they need no time-out to notice. Afterwards the port
    /// is free, unless somebody still holds a [`crate::ClientConnection`].
    pub async fn close(mut self) {
        self.endpoint.close(CloseCode::Done.code(), b"stopping");
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
        for task in self.tasks.drain(..) {
            task.abort();
            // It was cancelled, or it panicked and said so; either way it is gone.
            let _ = task.await;
        }
        drop(self);
        // The task that holds the socket ends when it finds that nobody else is left.
        tokio::time::sleep(SOCKET_RELEASE).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.endpoint.close(CloseCode::Done.code(), b"stopping");
        self.peers.forget();
    }
}

fn check(configuration: &ReplicaTransportConfiguration) -> Result<(), TransportError> {
    let member = configuration.members.get(configuration.me);
    let member = member.ok_or(TransportError::Configuration("no member has this replica's index"))?;
    if member.transport != configuration.secret.public() {
        return Err(TransportError::Configuration("the node key is not that of the member with this index"));
    }
    if configuration.addresses.len() != configuration.members.n() {
        return Err(TransportError::Configuration("not one address for each member"));
    }
    Ok(())
}

fn open(configuration: &ReplicaTransportConfiguration) -> Result<Endpoint, TransportError> {
    let members = configuration.members.members().iter().map(|member| member.transport).collect();
    let mut server = ServerConfig::with_crypto(tls::server_config(&configuration.secret, members)?);
    server
        .transport_config(transport_config(Streams {
            bidirectional: configuration.limits.streams,
            unidirectional: LANES_AND_SPARE,
        }))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    let socket = bind(configuration.listen)?;
    let runtime =
        quinn::default_runtime().ok_or(TransportError::Configuration("not within a tokio runtime"))?;
    let config = tune_endpoint(tls::endpoint_config(&configuration.secret));
    Endpoint::new(config, Some(server), socket, runtime)
        .map_err(|source| TransportError::Bind { address: configuration.listen, source })
}

/// A peer opens one stream for each lane, a client one for submissions; the lanes are the larger number,
/// and a client's limit is lowered when its protocol is known.
const LANES_AND_SPARE: u32 = LANES as u32;

/// Who may come in, and where they are led to.
struct Door {
    members: MemberSet,
    peers: PeerNetwork,
    clients: Clients,
}

/// Accepts callers for ever. Every task that it starts ends with it.
async fn accept(endpoint: Endpoint, door: Arc<Door>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(incoming, &handshakes, &door, &mut connections),
                None => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

fn admit(incoming: Incoming, handshakes: &Arc<Semaphore>, door: &Arc<Door>, connections: &mut JoinSet<()>) {
    let under_way = HANDSHAKES_MAX.saturating_sub(handshakes.available_permits());
    if under_way >= HANDSHAKES_UNCHECKED_MAX && !incoming.remote_address_validated() {
        // Fails only for callers that were told before; those may try again later.
        let _ = incoming.retry();
        return;
    }
    match handshakes.clone().try_acquire_owned() {
        Ok(permit) => {
            connections.spawn(greet(incoming, permit, door.clone()));
        }
        Err(_) => incoming.refuse(),
    }
}

/// Finishes the handshake and leads the caller to its place.
async fn greet(incoming: Incoming, permit: OwnedSemaphorePermit, door: Arc<Door>) {
    let remote = incoming.remote_address();
    let Ok(connecting) = incoming.accept() else { return };
    let connection = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%remote, %error, "handshake of a caller failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%remote, "handshake of a caller timed out");
            return;
        }
    };
    drop(permit);
    if tls::protocol(&connection).as_deref() == Some(tls::PEER_PROTOCOL) {
        greet_peer(&door, connection).await;
    } else {
        // TLS lets no third protocol through.
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(1));
        connection.set_receive_window(VarInt::from_u32(CLIENT_WINDOW_BYTES));
        server::serve(door.clients.clone(), connection).await;
    }
}

async fn greet_peer(door: &Door, connection: Connection) {
    let caller =
        tls::proven_key(&connection).and_then(|key: PublicKey| door.members.index_of_transport(&key));
    // We call those below us ourselves, so that two replicas have one connection.
    match caller.filter(|index| *index > door.peers.me()) {
        Some(index) => {
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(0));
            peers::serve(&door.peers, index, connection).await;
        }
        None => {
            tracing::warn!(remote = %connection.remote_address(), ?caller, "a stranger calls itself a peer");
            connection.close(CloseCode::Stranger.code(), b"not a member that calls this replica");
        }
    }
}
