//! What clients ask of a replica: connections, requests with replies, submissions, notices.
//!
//! Invariant: a client can occupy one place among a bounded number, a bounded number of streams and
//! bytes of its own, and a bounded share of all clients' bytes; whoever breaks the protocol loses its
//! connection and nothing else happens. A principal is known only after its proof held here.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quinn::Connection;
use quorate_crypto::{BoundedBytes, Ed25519Verifier, Hash, PublicKey, Signature};
use quorate_protocol::ReplicaIndex;
use quorate_protocol::client::{ClientReply, ClientRequest, Notice, Refusal};
use quorate_protocol::limits::{ERROR_TEXT_BYTES_MAX, FRAME_BYTES_MAX};
use tokio::sync::oneshot;

use crate::budget::{Budget, PAUSE_MAX, Pause};
use crate::fair;
use crate::frame::encode_frame;
use crate::identity::{Exporter, check};
use crate::outbox::Outbox;
use crate::tuning::CloseCode;

mod account;
mod connection;
mod places;

use account::{Account, Share};
pub use account::{GUARANTEED_BYTES, LARGE_MESSAGES_MAX, SMALL_BYTES_MAX};
pub(crate) use connection::serve;
use places::{Place, Places};

/// Notices that wait for one client.
pub const NOTICES_MAX: usize = 1024;
/// Bytes of notices that wait for one client.
pub const NOTICE_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;
/// Submissions of one client that have arrived and are not yet taken.
pub const SUBMISSIONS_MAX: usize = 256;

/// Pieces of large messages of all clients; more than the bytes of any configuration hold.
const PIECES_TOTAL_MAX: usize = 1 << 20;

/// Budgets of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections at once; half of them at most are those of strangers, see [`ClientConnection::admit`].
    pub connections: usize,
    /// Requests at once on one connection.
    pub streams: u32,
    /// Bytes of large requests under way on one connection, as many of large submissions, and as many of
    /// large replies; at least one frame. Small ones have [`GUARANTEED_BYTES`].
    pub bytes: usize,
    /// Bytes of large requests and submissions under way on all connections, and as many of large replies;
    /// at least one frame.
    pub bytes_total: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            streams: 256,
            bytes: 4 * FRAME_BYTES_MAX,
            bytes_total: 32 * FRAME_BYTES_MAX,
        }
    }
}

/// Names a client connection for the life of the process; never used twice.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What clients want.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all events are of the large kind")]
pub enum ClientEvent {
    /// A request. `Prove` is answered before it gets here; `Submit` may come without a wanted reply.
    Request {
        /// Who asks.
        connection: ClientConnection,
        /// What, decoded but not verified.
        request: ClientRequest,
        /// Bytes of its encoding.
        bytes: usize,
        /// Where the answer goes.
        reply: ReplyHandle,
    },
    /// A connection ended; nothing more comes from it.
    Closed {
        /// Which one.
        connection: ConnectionId,
    },
}

/// What an event in the queue occupies until it is taken.
#[derive(Debug)]
enum Held {
    /// The reply handle holds the request's share.
    ByReply,
    /// A submission's share.
    Submission { _share: Share },
    /// A connection's place.
    Place { _place: Place },
}

/// The receiving end of what clients want.
#[derive(Debug)]
pub struct ClientEvents(fair::Receiver<(ClientEvent, Held)>);

impl ClientEvents {
    /// The next event; `None` after the transport ended. Cancelling it loses nothing.
    pub async fn recv(&mut self) -> Option<ClientEvent> {
        self.0.recv().await.map(|(event, _)| event)
    }

    /// The next event, if one is there.
    pub fn try_recv(&mut self) -> Option<ClientEvent> {
        self.0.try_recv().map(|(event, _)| event)
    }
}

/// What all client connections share.
#[derive(Clone, Debug)]
pub(crate) struct Clients(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    cluster: Hash,
    me: ReplicaIndex,
    limits: ClientLimits,
    places: Places,
    requests: Budget,
    replies: Budget,
    events: fair::Sender<(ClientEvent, Held)>,
    connections: AtomicU64,
}

impl Clients {
    pub(crate) fn new(cluster: Hash, me: ReplicaIndex, limits: ClientLimits) -> (Self, ClientEvents) {
        // Permits bound what is in this channel; see `budget`.
        let (events, receiver) = fair::channel();
        let bytes_total = limits.bytes_total.max(FRAME_BYTES_MAX);
        let shared = Shared {
            cluster,
            me,
            places: Places::new(limits.connections),
            requests: Budget::new(bytes_total, PIECES_TOTAL_MAX),
            replies: Budget::new(bytes_total, PIECES_TOTAL_MAX),
            limits,
            events,
            connections: AtomicU64::new(0),
        };
        (Self(Arc::new(shared)), ClientEvents(receiver))
    }
}

/// A client's connection; clones share it.
#[derive(Clone, Debug)]
pub struct ClientConnection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: ConnectionId,
    connection: Connection,
    principal: OnceLock<PublicKey>,
    places: Places,
    /// Whether its place is its own.
    is_admitted: AtomicBool,
    pause: Pause,
    notices: Outbox,
    requests: Account,
    submissions: Account,
    replies: Account,
}

impl ClientConnection {
    fn new(clients: &Clients, id: ConnectionId, connection: Connection) -> Self {
        let Shared { limits, requests, replies, .. } = &*clients.0;
        let streams = usize::try_from(limits.streams).unwrap_or(PIECES_TOTAL_MAX);
        let bytes = limits.bytes;
        Self(Arc::new(Inner {
            id,
            connection,
            principal: OnceLock::new(),
            places: clients.0.places.clone(),
            is_admitted: AtomicBool::new(false),
            pause: Pause::default(),
            notices: Outbox::new(NOTICES_MAX, NOTICE_BYTES_MAX),
            requests: Account::new(streams, LARGE_MESSAGES_MAX, bytes, requests),
            submissions: Account::new(SUBMISSIONS_MAX, LARGE_MESSAGES_MAX, bytes, requests),
            replies: Account::new(streams, streams, bytes, replies),
        }))
    }

    /// The connection's name.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.0.id
    }

    /// The principal that it proved, if it did. Whether the cluster knows that key is not asked here.
    #[must_use]
    pub fn principal(&self) -> Option<PublicKey> {
        self.0.principal.get().copied()
    }

    /// The cluster knows the principal that it proved: its place is no stranger's any more.
    pub fn admit(&self) {
        if !self.0.is_admitted.swap(true, Ordering::Relaxed) {
            self.0.places.admit(self.0.id);
        }
    }

    /// Where the client calls from.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.0.connection.remote_address()
    }

    /// Queues a notice and returns at once. If the client does not read, the oldest notices give way: it
    /// can ask for results.
    pub fn notify(&self, notice: &Notice) {
        let encoded = encode_frame(notice);
        #[cfg(feature = "faults")]
        let Some(encoded) = crate::faults::notice(notice, encoded) else { return };
        match encoded {
            Ok(frame) => self.0.notices.push(frame),
            Err(error) => tracing::error!(%error, "notice cannot be sent"),
        }
    }

    /// Messages and bytes of notices that wait for the client.
    #[must_use]
    pub fn waiting_notices(&self) -> (usize, usize) {
        self.0.notices.waiting()
    }

    /// Reads nothing more of the client for `time`, on top of what it was paused for already, up to
    /// [`crate::PAUSE_MAX`]. What has arrived is not affected.
    pub fn pause(&self, time: std::time::Duration) {
        self.0.pause.extend(time, PAUSE_MAX);
    }

    /// Closes the connection because the client broke a rule.
    pub fn close(&self, reason: &'static str) {
        self.0.connection.close(CloseCode::Violation.code(), reason.as_bytes());
    }

    /// Remembers a principal whose proof holds. A connection belongs to one principal for its life.
    fn prove(&self, clients: &Clients, key: PublicKey, signature: &Signature) -> Result<(), &'static str> {
        // One that is proved already costs no further check (hazard RX9).
        if let Some(proved) = self.principal() {
            return if proved == key { Ok(()) } else { Err("the connection belongs to another principal") };
        }
        let exporter = Exporter::of(&self.0.connection, &clients.0.cluster).ok_or("no exporter")?;
        check(&Ed25519Verifier::new(), &key, signature, &clients.0.cluster, clients.0.me, &exporter)
            .map_err(|_| "the proof does not hold for this connection")?;
        let first = self.0.principal.get_or_init(|| key);
        if *first == key { Ok(()) } else { Err("the connection belongs to another principal") }
    }
}

/// Where the answer to one request goes. Dropped without an answer, the client sees its stream reset.
#[derive(Debug)]
pub struct ReplyHandle {
    sender: Option<oneshot::Sender<Answer>>,
    replies: Account,
    _request: Option<Share>,
}

/// An encoded reply with its share of the budget; small refusals have none.
#[derive(Debug)]
struct Answer {
    frame: Bytes,
    _share: Option<Share>,
}

impl ReplyHandle {
    /// Whether anybody waits for the answer: not for submissions on the long-lived stream, and not after
    /// the client went away.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Sends the answer; never blocks. If the client leaves too many replies unread, it gets `Busy`.
    pub fn send(self, reply: &ClientReply) {
        let Some(sender) = self.sender else { return };
        let encoded = encode_frame(reply);
        #[cfg(feature = "faults")]
        let Some(encoded) = crate::faults::reply(reply, encoded) else {
            return crate::faults::keep_waiting(Box::new(sender));
        };
        match encoded {
            Ok(frame) => {
                let share = self.replies.try_take(frame.len());
                let answer = match share {
                    Some(share) => Some(Answer { frame, _share: Some(share) }),
                    None => refusal(Refusal::Busy, "too many replies are unread"),
                };
                if let Some(answer) = answer {
                    // Fails only when the client went away.
                    let _ = sender.send(answer);
                }
            }
            Err(error) => tracing::error!(%error, "reply cannot be sent"),
        }
    }
}

/// The frame that refuses a request.
fn refusal(refusal: Refusal, text: &str) -> Option<Answer> {
    let text = text.as_bytes().get(..text.len().min(ERROR_TEXT_BYTES_MAX)).unwrap_or_default();
    let text = BoundedBytes::try_from(text).ok()?;
    let frame = encode_frame(&ClientReply::Refused { refusal, text }).ok()?;
    Some(Answer { frame, _share: None })
}
