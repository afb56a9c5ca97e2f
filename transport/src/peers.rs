//! The network of replicas: one connection for each pair, three ordered lanes in each direction.
//!
//! Invariant: sending never blocks and never queues without bound; when a lane is full its oldest frame
//! gives way and is counted, because consensus sends again and catches up. Lanes are streams of their
//! own with priorities, so that a large proposal or catch-up never stands before a vote. What arrives is
//! bounded for each peer and lane, and peers are served in turn, so that none can crowd out another one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use quorate_crypto::{Address, PublicKey};
use quorate_protocol::limits::{FRAME_BYTES_MAX, PROPOSAL_BYTES_MAX};
use quorate_protocol::{PeerMessage, ReplicaIndex};
use tokio::task::{JoinHandle, JoinSet};

use crate::address::resolve;
use crate::budget::{Budget, FAULTY_PAUSE_MAX, OneByOne, PAUSE_MAX, Pause, Permit};
use crate::endpoint::ReplicaTransportConfiguration;
use crate::error::{FrameError, TransportError};
use crate::fair;
use crate::frame::{FrameReader, decode_body, encode_frame};
use crate::outbox::Outbox;
use crate::tls;
use crate::tuning::{
    BACKOFF_MAX, BACKOFF_MIN, CONNECT_TIMEOUT, CloseCode, STEADY_AFTER, Streams, transport_config,
};

mod lane;

use lane::Lane;

/// Lanes towards one peer.
pub const LANES: usize = 3;
/// Bytes of one frame on the urgent lane; a larger message takes the bulk lane.
pub const URGENT_FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of one frame on the lane of proposals: the largest proposal and what stands around it.
pub const PROPOSAL_FRAME_BYTES_MAX: usize = PROPOSAL_BYTES_MAX + 1024;
/// Frames that wait for one peer on one lane.
pub const OUTBOX_MESSAGES_MAX: usize = 4096;
/// Bytes that wait for one peer on the urgent lane.
pub const OUTBOX_URGENT_BYTES_MAX: usize = 4 << 20;
/// Bytes that wait for one peer on each other lane.
pub const OUTBOX_BYTES_MAX: usize = 32 << 20;
/// Messages of one peer and lane that have arrived and are not yet taken.
pub const INBOX_MESSAGES_MAX: usize = 256;
/// Bytes of one peer on the urgent lane that have arrived and are not yet taken.
pub const INBOX_URGENT_BYTES_MAX: usize = 2 << 20;
/// Bytes of one peer on each other lane that have arrived and are not yet taken.
pub const INBOX_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// What waited longer than this for a connection is not worth sending any more.
pub const STALE_AFTER: Duration = Duration::from_secs(2);

/// What the network of replicas reports. Messages come in order on each lane, and only between a
/// `Connected` and the following `Disconnected` of their sender. A second `Connected` without a
/// `Disconnected` means that the peer called anew: what was under way may be lost.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all events are of the large kind")]
pub enum PeerEvent {
    /// A connection with this peer is up in both directions.
    Connected(ReplicaIndex),
    /// It is lost.
    Disconnected(ReplicaIndex),
    /// A message, decoded but not verified.
    Message {
        /// Whose connection brought it.
        from: ReplicaIndex,
        /// The message.
        message: PeerMessage,
        /// Bytes of its encoding.
        bytes: usize,
    },
}

/// The receiving end of the network of replicas.
#[derive(Debug)]
pub struct PeerEvents {
    receiver: fair::Receiver<(PeerEvent, Permit)>,
    /// Of the last event, if it holds its sender's turn: the next message of that sender is read when this one has been
    /// worked off, and what it cost is known.
    turn: Option<Permit>,
}

impl PeerEvents {
    /// The next event; `None` after the transport ended. Cancelling it loses nothing.
    pub async fn recv(&mut self) -> Option<PeerEvent> {
        self.turn = None;
        let (event, permit) = self.receiver.recv().await?;
        self.turn = Some(permit).filter(Permit::has_turn);
        Some(event)
    }

    /// The next event, if one is there.
    pub fn try_recv(&mut self) -> Option<PeerEvent> {
        self.turn = None;
        let (event, permit) = self.receiver.try_recv()?;
        self.turn = Some(permit).filter(Permit::has_turn);
        Some(event)
    }
}

/// Counts since the start, for metrics.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Frames that gave way in full or stale queues.
    pub dropped: u64,
    /// Frames that wait at this moment.
    pub waiting_messages: usize,
    /// Bytes that wait at this moment.
    pub waiting_bytes: usize,
}

/// The sending end of the network of replicas; clones share it.
#[derive(Clone, Debug)]
pub struct PeerNetwork(Arc<Network>);

#[derive(Debug)]
struct Network {
    me: ReplicaIndex,
    peers: Vec<Peer>,
    events: fair::Sender<(PeerEvent, Permit)>,
}

/// One peer; the entry of this replica itself stays unused.
#[derive(Debug)]
struct Peer {
    lanes: [LaneState; LANES],
    current: Mutex<Option<Connection>>,
    pause: Pause,
    one_by_one: OneByOne,
}

#[derive(Debug)]
struct LaneState {
    lane: Lane,
    outbox: Outbox,
    inbox: Budget,
}

impl Peer {
    fn new() -> Self {
        let lanes = Lane::ALL.map(|lane| LaneState { lane, outbox: lane.outbox(), inbox: lane.inbox() });
        Self { lanes, current: Mutex::new(None), pause: Pause::default(), one_by_one: OneByOne::new() }
    }

    fn lane(&self, wanted: Lane) -> Option<&LaneState> {
        self.lanes.iter().find(|state| state.lane == wanted)
    }

    /// Puts a connection in the place of the one before it, which is closed.
    fn replace(&self, connection: &Connection) {
        let before = self.current().replace(connection.clone());
        if let Some(before) = before {
            before.close(CloseCode::Replaced.code(), b"replaced by a newer connection");
        }
    }

    /// Clears the place if it still holds this connection, and says so.
    fn clear(&self, connection: &Connection) -> bool {
        let mut current = self.current();
        let same = current.as_ref().is_some_and(|held| held.stable_id() == connection.stable_id());
        if same {
            *current = None;
        }
        same
    }

    /// No code panics while it holds the lock.
    fn current(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeerNetwork {
    pub(crate) fn new(me: ReplicaIndex, n: usize) -> (Self, PeerEvents) {
        // Permits bound what is in this channel; see `budget`.
        let (events, receiver) = fair::channel();
        let peers = (0..n).map(|_| Peer::new()).collect();
        (Self(Arc::new(Network { me, peers, events })), PeerEvents { receiver, turn: None })
    }

    /// This replica's index.
    #[must_use]
    pub fn me(&self) -> ReplicaIndex {
        self.0.me
    }

    /// Queues a message for one peer and returns at once, with the bytes of its frame. A message to this replica
    /// itself, to nobody, or above the frame bound is dropped with a log line; that is a defect of the caller.
    pub fn send(&self, to: ReplicaIndex, message: &PeerMessage) -> usize {
        #[cfg(feature = "faults")]
        if let Some(tamper) = crate::faults::tamper() {
            let mut bytes = 0_usize;
            tamper.to_peer(to, message, &mut |message| {
                bytes = bytes.saturating_add(self.send_unbent(to, message));
            });
            return bytes;
        }
        self.send_unbent(to, message)
    }

    /// As [`PeerNetwork::send`], whatever is tampered with.
    pub(crate) fn send_unbent(&self, to: ReplicaIndex, message: &PeerMessage) -> usize {
        let Some((lane, frame)) = encoded(message) else { return 0 };
        let bytes = frame.len();
        match self.peer(to) {
            Some(peer) => push(peer, lane, frame),
            None => tracing::error!(to, "message to a peer that does not exist"),
        }
        bytes
    }

    /// Queues a message for all other replicas, encoded once.
    pub fn broadcast(&self, message: &PeerMessage) {
        #[cfg(feature = "faults")]
        if crate::faults::tamper().is_some() {
            self.others().for_each(|(to, _)| _ = self.send(to, message));
            return;
        }
        let Some((lane, frame)) = encoded(message) else { return };
        for (_, peer) in self.others() {
            push(peer, lane, frame.clone());
        }
    }

    /// Reads nothing more of a peer for `time`, on top of what it was paused for already, up to
    /// [`crate::PAUSE_MAX`]. What has arrived is not affected.
    pub fn pause(&self, peer: ReplicaIndex, time: Duration) {
        self.pause_up_to(peer, time, PAUSE_MAX);
    }

    /// The same of a peer that is known to be faulty, up to [`crate::FAULTY_PAUSE_MAX`].
    pub fn pause_faulty(&self, peer: ReplicaIndex, time: Duration) {
        self.pause_up_to(peer, time, FAULTY_PAUSE_MAX);
    }

    fn pause_up_to(&self, peer: ReplicaIndex, time: Duration, longest: Duration) {
        if let Some(peer) = self.peer(peer) {
            peer.pause.extend(time, longest);
        }
    }

    /// Reads one message of a peer at a time, over all its lanes, for `time` from now on: otherwise as much as its inboxes
    /// hold is read and decoded after each pause, before the first of it can be held against it.
    pub fn read_one_by_one(&self, peer: ReplicaIndex, time: Duration) {
        if let Some(peer) = self.peer(peer) {
            peer.one_by_one.extend(time);
        }
    }

    /// The peers with a connection, ascending.
    #[must_use]
    pub fn connected(&self) -> Vec<ReplicaIndex> {
        self.others().filter(|(_, peer)| peer.current().is_some()).map(|(index, _)| index).collect()
    }

    /// Counts over all peers.
    #[must_use]
    pub fn counters(&self) -> PeerCounters {
        let mut counters = PeerCounters::default();
        for outbox in self.others().flat_map(|(_, peer)| &peer.lanes).map(|state| &state.outbox) {
            let (messages, bytes) = outbox.waiting();
            counters.dropped = counters.dropped.saturating_add(outbox.dropped());
            counters.waiting_messages = counters.waiting_messages.saturating_add(messages);
            counters.waiting_bytes = counters.waiting_bytes.saturating_add(bytes);
        }
        counters
    }

    /// Lets go of every connection when the transport ends.
    pub(crate) fn forget(&self) {
        for (_, peer) in self.others() {
            *peer.current() = None;
        }
    }

    fn others(&self) -> impl Iterator<Item = (ReplicaIndex, &Peer)> {
        (0..=ReplicaIndex::MAX).zip(&self.0.peers).filter(|(index, _)| *index != self.0.me)
    }

    #[cfg(feature = "faults")]
    pub(crate) fn outbox(&self, to: ReplicaIndex, lane: u8) -> Option<&Outbox> {
        Some(&self.peer(to)?.lane(Lane::from_number(lane)?)?.outbox)
    }

    fn peer(&self, index: ReplicaIndex) -> Option<&Peer> {
        if index == self.0.me { None } else { self.0.peers.get(usize::from(index)) }
    }
}

fn encoded(message: &PeerMessage) -> Option<(Lane, Bytes)> {
    match encode_frame(message) {
        Ok(frame) if frame.len() > URGENT_FRAME_BYTES_MAX && Lane::of(message) == Lane::Urgent => {
            Some((Lane::Bulk, frame))
        }
        Ok(frame) => Some((Lane::of(message), frame)),
        Err(error) => {
            tracing::error!(%error, "message to a peer cannot be sent");
            None
        }
    }
}

fn push(peer: &Peer, lane: Lane, frame: Bytes) {
    let Some(state) = peer.lane(lane) else { return };
    if peer.current().is_none() {
        // A dead peer must not cost the memory of a full queue.
        state.outbox.discard_older_than(STALE_AFTER);
    }
    state.outbox.push(frame);
}

/// Starts to call every peer with a lower index, and to call again whenever the connection is lost.
pub(crate) fn dial_all(
    network: &PeerNetwork,
    endpoint: &Endpoint,
    configuration: &ReplicaTransportConfiguration,
) -> Result<Vec<JoinHandle<()>>, TransportError> {
    let streams = Streams { bidirectional: 0, unidirectional: LANES as u32 };
    let transport = transport_config(streams);
    let members = configuration.members.members().iter();
    let mut tasks = Vec::new();
    for ((index, member), address) in (0..network.me()).zip(members).zip(&configuration.addresses) {
        let key: PublicKey = member.transport;
        let crypto = tls::client_config(key, Some(&configuration.secret), tls::PEER_PROTOCOL)?;
        let mut config = quinn::ClientConfig::new(crypto);
        config.transport_config(transport.clone());
        let dialer = Dialer { network: network.clone(), endpoint: endpoint.clone(), index, config };
        tasks.push(tokio::spawn(dialer.run(address.clone())));
    }
    Ok(tasks)
}

/// Calls one peer for ever.
struct Dialer {
    network: PeerNetwork,
    endpoint: Endpoint,
    index: ReplicaIndex,
    config: quinn::ClientConfig,
}

impl Dialer {
    async fn run(self, address: Address) {
        let mut pause = BACKOFF_MIN;
        let mut reported = false;
        loop {
            match self.dial(&address).await {
                Ok(connection) => {
                    reported = false;
                    let since = Instant::now();
                    serve(&self.network, self.index, connection).await;
                    if since.elapsed() >= STEADY_AFTER {
                        pause = BACKOFF_MIN;
                    }
                }
                // Once in a row: a peer that is down for an hour is not news twice a second.
                Err(error) if !reported => {
                    reported = true;
                    tracing::warn!(peer = self.index, address = %address, %error, "cannot reach a peer");
                }
                Err(error) => tracing::trace!(peer = self.index, %error, "cannot reach a peer"),
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(BACKOFF_MAX);
        }
    }

    async fn dial(&self, address: &Address) -> Result<Connection, TransportError> {
        let remote = resolve(address).await?;
        dial(&self.endpoint, self.config.clone(), remote).await
    }
}

/// Calls an address, with a time limit.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    config: quinn::ClientConfig,
    remote: std::net::SocketAddr,
) -> Result<Connection, TransportError> {
    let connecting = endpoint
        .connect_with(config, remote, tls::SERVER_NAME)
        .map_err(|error| TransportError::Lost(error.to_string()))?;
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(TransportError::of_handshake(remote, &error)),
        Err(_) => Err(TransportError::Timeout),
    }
}

/// Serves one connection until it ends.
pub(crate) async fn serve(network: &PeerNetwork, index: ReplicaIndex, connection: Connection) {
    let Some(peer) = network.peer(index) else { return };
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, open_lanes(&connection)).await;
    let (outgoing, incoming) = match opened {
        Ok(Ok(lanes)) => lanes,
        Ok(Err(error)) => {
            tracing::debug!(peer = index, %error, "connection with a peer ended early");
            connection.close(CloseCode::Violation.code(), b"lanes");
            return;
        }
        Err(_) => {
            connection.close(CloseCode::Violation.code(), b"lanes were not opened in time");
            return;
        }
    };
    peer.replace(&connection);
    report(network, index, PeerEvent::Connected(index)).await;
    tracing::info!(peer = index, remote = %connection.remote_address(), "connected with a peer");
    let reason = run_lanes(network, index, &connection, outgoing, incoming).await;
    connection.close(CloseCode::Violation.code(), b"lane ended");
    if peer.clear(&connection) {
        tracing::info!(peer = index, %reason, "connection with a peer ended");
        report(network, index, PeerEvent::Disconnected(index)).await;
    }
}

/// Queues an event that is no message; it takes its place in the urgent lane's budget.
async fn report(network: &PeerNetwork, index: ReplicaIndex, event: PeerEvent) {
    let Some(state) = network.peer(index).and_then(|peer| peer.lane(Lane::Urgent)) else { return };
    if let Some(permit) = state.inbox.take(0).await {
        network.0.events.send(u64::from(index), (event, permit));
    }
}

type Outgoing = Vec<(Lane, SendStream)>;
type Incoming = Vec<(Lane, RecvStream)>;

/// Opens our lanes and waits for the peer's. Seeing them also tells a caller that TLS on the other side
/// has accepted its key.
async fn open_lanes(connection: &Connection) -> Result<(Outgoing, Incoming), FrameError> {
    let mut outgoing = Vec::with_capacity(LANES);
    for lane in Lane::ALL {
        let mut stream = connection.open_uni().await.map_err(std::io::Error::from)?;
        // Fails only on a stream that is closed, which the write reports as well.
        let _ = stream.set_priority(lane.priority());
        stream.write_all(&[lane.number()]).await.map_err(std::io::Error::from)?;
        outgoing.push((lane, stream));
    }
    let mut incoming: Incoming = Vec::with_capacity(LANES);
    while incoming.len() < LANES {
        let mut stream = connection.accept_uni().await.map_err(std::io::Error::from)?;
        let mut number = [0];
        stream.read_exact(&mut number).await.map_err(|_| FrameError::Truncated)?;
        let [number] = number;
        let lane = Lane::from_number(number).ok_or(FrameError::Protocol("unknown lane"))?;
        if incoming.iter().any(|(taken, _)| *taken == lane) {
            return Err(FrameError::Protocol("a lane was opened twice"));
        }
        incoming.push((lane, stream));
    }
    Ok((outgoing, incoming))
}

/// Moves frames in both directions until the first lane fails or the connection ends; says why.
async fn run_lanes(
    network: &PeerNetwork,
    index: ReplicaIndex,
    connection: &Connection,
    outgoing: Outgoing,
    incoming: Incoming,
) -> FrameError {
    let mut tasks = JoinSet::new();
    for (lane, stream) in outgoing {
        tasks.spawn(write_lane(network.clone(), index, lane, stream));
    }
    for (lane, stream) in incoming {
        tasks.spawn(read_lane(network.clone(), index, lane, stream));
    }
    tokio::select! {
        error = connection.closed() => std::io::Error::from(error).into(),
        () = crate::pulse::refused(connection) => {
            std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "nobody listens on its port").into()
        }
        ended = tasks.join_next() => match ended {
            Some(Ok(error)) => {
                if error.fault() == crate::error::Fault::Peer {
                    tracing::warn!(peer = index, %error, "a peer breaks the protocol");
                }
                error
            }
            _ => FrameError::Protocol("a lane's task ended"),
        },
    }
}

async fn write_lane(
    network: PeerNetwork,
    index: ReplicaIndex,
    lane: Lane,
    mut stream: SendStream,
) -> FrameError {
    let Some(state) = network.peer(index).and_then(|peer| peer.lane(lane)) else {
        return FrameError::Protocol("no such peer");
    };
    state.outbox.discard_older_than(STALE_AFTER);
    loop {
        let mut frames = state.outbox.take().await;
        if let Err(error) = stream.write_all_chunks(&mut frames).await {
            return std::io::Error::from(error).into();
        }
    }
}

async fn read_lane(network: PeerNetwork, from: ReplicaIndex, lane: Lane, stream: RecvStream) -> FrameError {
    let mut reader = FrameReader::new(stream, lane.frame_bytes_max());
    loop {
        if let Err(error) = read_message(&network, from, lane, &mut reader).await {
            return error;
        }
    }
}

async fn read_message(
    network: &PeerNetwork,
    from: ReplicaIndex,
    lane: Lane,
    reader: &mut FrameReader<RecvStream>,
) -> Result<(), FrameError> {
    let peer = network.peer(from).ok_or(FrameError::Protocol("no such peer"))?;
    let state = peer.lane(lane).ok_or(FrameError::Protocol("no such peer"))?;
    peer.pause.wait().await;
    let length = reader.length().await?.ok_or(FrameError::Protocol("a lane was finished"))?;
    let turn = peer.one_by_one.turn().await;
    if turn.is_some() {
        // What the message before it has cost.
        peer.pause.wait().await;
    }
    let permit = state.inbox.take(length).await.ok_or(FrameError::Protocol("no budget"))?.with_turn(turn);
    let message = decode_body(&reader.body(length).await?)?;
    if !lane.carries(&message) {
        return Err(FrameError::Protocol("a message on a lane that is not its own"));
    }
    network.0.events.send(u64::from(from), (PeerEvent::Message { from, message, bytes: length }, permit));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_protocol::peer::Announcement;

    fn announcement(view: u64) -> PeerMessage {
        PeerMessage::Announce(Announcement { epoch: 0, view, entered: true, committed: 0 })
    }

    #[test]
    fn queues_to_absent_peers_are_bounded_and_counted() {
        let (network, _events) = PeerNetwork::new(0, 4);
        for view in 0..5000 {
            network.broadcast(&announcement(view));
        }
        let counters = network.counters();
        assert_eq!(counters.waiting_messages, 3 * OUTBOX_MESSAGES_MAX);
        assert_eq!(counters.dropped, 3 * (5000 - OUTBOX_MESSAGES_MAX as u64));
        network.send(0, &announcement(0));
        network.send(9, &announcement(0));
        assert_eq!(network.counters(), counters);
        assert!(network.connected().is_empty());
    }
}
