//! QUIC with pinned member identities, frames and budgets.
//!
//! Invariants: whoever is at the other end of a peer connection has proved a member's transport key, and
//! a client talks only to the replica whose key it pinned; nothing that arrives may panic or allocate
//! beyond a named bound; sending never blocks the caller and never queues without bound. What arrives is
//! decoded but not verified: votes, proposals and envelopes are checked at the door of their own rooms.
//!
//! Outline, all within one tokio runtime (a current-thread one has the lowest latency):
//!
//! ```text
//! replica   ReplicaTransport::start(configuration)
//!             -> ReplicaTransport { peers: PeerNetwork, peer_events: PeerEvents, client_events: ClientEvents }
//!           PeerNetwork::send / broadcast(&PeerMessage)            never blocks
//!           PeerEvents::recv() -> PeerEvent::{Connected, Disconnected, Message}
//!           ClientEvents::recv() -> ClientEvent::{Request { connection, request, .. }, Closed}
//!           ClientConnection::{principal, notify}, ReplyHandle::send(ClientReply)
//! client    ClientEndpoint::new().connect(&ReplicaTarget, signer) -> (ReplicaConnection, Notices)
//!           ReplicaConnection::{request, submit}; ReplicaLink reconnects by itself
//! files     ClusterFile (cluster.toml), PolicyFile (its genesis alone), KeyFile (node and principal keys)
//! ```
#![forbid(unsafe_code)]

mod address;
mod budget;
pub mod client;
pub mod cluster_file;
pub mod endpoint;
pub mod error;
mod fair;
#[cfg(feature = "faults")]
pub mod faults;
pub mod frame;
pub mod identity;
pub mod key_file;
pub mod link;
mod outbox;
pub mod peers;
pub mod policy_file;
mod pulse;
pub mod server;
mod tls;
pub mod tuning;

pub use budget::{FAULTY_PAUSE_MAX, PAUSE_MAX};
pub use client::{ClientEndpoint, Notices, ReplicaConnection, ReplicaTarget};
pub use cluster_file::{ClusterFile, ClusterFileError};
pub use endpoint::{ReplicaTransport, ReplicaTransportConfiguration, Running};
pub use error::{Fault, TransportError};
pub use key_file::{KeyFile, KeyFileError, KeyKind};
pub use link::{LinkEvent, ReplicaLink};
pub use peers::{PeerCounters, PeerEvent, PeerEvents, PeerNetwork};
pub use policy_file::{PolicyFile, PolicyFileError};
pub use server::{ClientConnection, ClientEvent, ClientEvents, ClientLimits, ConnectionId, ReplyHandle};

#[cfg(test)]
mod tests;
