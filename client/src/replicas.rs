//! The seam between the client's logic and the network.
//!
//! Invariant: nothing above this trait knows QUIC, and nothing below it judges what a replica says: it
//! brings requests out and replies and notices in, decoded but not verified.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use quorate_protocol::client::{ClientReply, ClientRequest, Notice};
use quorate_protocol::{Envelope, ReplicaIndex};
use tokio::sync::mpsc;

/// Events that wait for the client at most; then reading from the replicas pauses.
pub const EVENTS_MAX: usize = 1024;

/// A future on the heap, as the trait must be object safe.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Why a replica gave no reply. Nobody's proven fault, except where it says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// There is no connection at this moment.
    #[error("not connected: {0}")]
    NotConnected(String),
    /// The connection broke, or no reply came in time.
    #[error("no reply: {0}")]
    NoReply(String),
    /// What came breaks the framing or does not decode: the replica's fault.
    #[error("broken reply: {0}")]
    Broken(String),
    /// The request is too large to be sent: our fault.
    #[error("cannot be sent: {0}")]
    TooLarge(String),
}

/// What happens on the links by itself.
#[derive(Clone, Debug)]
pub enum Event {
    /// A replica can be asked (again); what was submitted to it before may be forgotten.
    Connected(ReplicaIndex),
    /// A replica cannot be asked for now.
    Disconnected(ReplicaIndex),
    /// A replica pushed something.
    Notice(ReplicaIndex, Box<Notice>),
    /// A replica pushed what does not decode, and why it does not.
    Garbled(ReplicaIndex, String),
}

/// All replicas of one cluster, with links that heal themselves.
pub trait Replicas: Send + Sync + 'static {
    /// Whether the replica is linked at this moment.
    fn connected(&self, replica: ReplicaIndex) -> bool;

    /// Why the replica is not linked, in words, if that is known.
    fn last_error(&self, replica: ReplicaIndex) -> Option<String>;

    /// Queues an envelope for the replica and returns at once; COMMITs, and with `results` the results as
    /// well, come as notices.
    ///
    /// # Errors
    /// [`Unreachable`] when it is certain that it was not queued.
    fn submit(&self, replica: ReplicaIndex, envelope: &Envelope, results: bool) -> Result<(), Unreachable>;

    /// Sends one request and gives its reply. The future may be dropped at any time; the client applies
    /// its own time-outs.
    fn request(
        &self,
        replica: ReplicaIndex,
        request: Arc<ClientRequest>,
    ) -> Boxed<Result<ClientReply, Unreachable>>;

    /// The stream of events; can be taken once.
    fn events(&self) -> Option<mpsc::Receiver<Event>>;
}
