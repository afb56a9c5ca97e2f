//! A connection with one replica that heals itself.
//!
//! Invariant: at most one connection exists at a time, calls are spaced by a capped back-off, and whoever
//! uses the link learns of every loss, because what was under way then may be lost with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use quorate_crypto::{DecodeError, Signer};
use quorate_protocol::client::{ClientReply, ClientRequest, Notice};
use quorate_protocol::{Envelope, ReplicaIndex};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::client::{ClientEndpoint, Notices, ReplicaConnection, ReplicaTarget};
use crate::error::TransportError;
use crate::tuning::{BACKOFF_MAX, BACKOFF_MIN, STEADY_AFTER};

/// What a link reports.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all events are of the large kind")]
pub enum LinkEvent {
    /// The replica answers, and accepts the principal.
    Connected,
    /// The connection is lost; requests under way fail, submissions under way may be lost.
    Disconnected,
    /// The replica pushed something, decoded but not verified.
    Notice(Notice),
    /// The replica pushed what does not decode: its fault.
    Garbled(DecodeError),
}

/// A link to one replica; clones share it, and it ends with the last of them.
#[derive(Clone, Debug)]
pub struct ReplicaLink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    replica: ReplicaIndex,
    current: watch::Receiver<Option<ReplicaConnection>>,
    last_error: Arc<Mutex<Option<String>>>,
    task: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ReplicaLink {
    /// Starts to call, and to call again for ever. Events of many links may share one channel; while it
    /// is full, notices wait at the replica. Must run within the runtime of the end point.
    #[must_use]
    pub fn start(
        endpoint: ClientEndpoint,
        target: ReplicaTarget,
        signer: Option<Arc<dyn Signer>>,
        events: mpsc::Sender<(ReplicaIndex, LinkEvent)>,
    ) -> Self {
        let (publish, current) = watch::channel(None);
        let last_error = Arc::new(Mutex::new(None));
        let replica = target.replica;
        let caller = Caller { endpoint, target, signer, events, publish, last_error: last_error.clone() };
        let task = tokio::spawn(caller.run()).abort_handle();
        Self(Arc::new(Inner { replica, current, last_error, task }))
    }

    /// Index of the replica.
    #[must_use]
    pub fn replica(&self) -> ReplicaIndex {
        self.0.replica
    }

    /// Whether there is a connection at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.current.borrow().is_some()
    }

    /// Why there is no connection, in words, if a call failed since the last success.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.0.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until there is a connection.
    pub async fn connected(&self) {
        // Fails only when the task ended, which it does with the link.
        let _ = self.0.current.clone().wait_for(Option::is_some).await;
    }

    /// As [`ReplicaConnection::request`], on the connection of this moment.
    ///
    /// # Errors
    /// [`TransportError::NotConnected`] at once if there is none; else as the connection says.
    pub async fn request(&self, request: &ClientRequest) -> Result<ClientReply, TransportError> {
        let connection = self.connection()?;
        connection.request(request).await
    }

    /// As [`ReplicaConnection::submit`], on the connection of this moment.
    ///
    /// # Errors
    /// [`TransportError::NotConnected`] if there is none; else as the connection says.
    pub fn submit(&self, envelope: &Envelope, results: bool) -> Result<(), TransportError> {
        self.connection()?.submit(envelope, results)
    }

    fn connection(&self) -> Result<ReplicaConnection, TransportError> {
        self.0.current.borrow().clone().ok_or(TransportError::NotConnected)
    }
}

/// The task behind a link.
struct Caller {
    endpoint: ClientEndpoint,
    target: ReplicaTarget,
    signer: Option<Arc<dyn Signer>>,
    events: mpsc::Sender<(ReplicaIndex, LinkEvent)>,
    publish: watch::Sender<Option<ReplicaConnection>>,
    last_error: Arc<Mutex<Option<String>>>,
}

impl Caller {
    async fn run(self) {
        let mut pause = BACKOFF_MIN;
        loop {
            match self.endpoint.connect(&self.target, self.signer.as_deref()).await {
                Ok((connection, notices)) => {
                    let since = Instant::now();
                    self.remember(None);
                    self.publish.send_replace(Some(connection.clone()));
                    self.report(LinkEvent::Connected).await;
                    self.forward(&connection, notices).await;
                    self.publish.send_replace(None);
                    self.report(LinkEvent::Disconnected).await;
                    if since.elapsed() >= STEADY_AFTER {
                        pause = BACKOFF_MIN;
                    }
                }
                Err(error) => self.failed(&error),
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(BACKOFF_MAX);
        }
    }

    /// Passes notices on until the connection ends.
    async fn forward(&self, connection: &ReplicaConnection, mut notices: Notices) {
        while let Some(notice) = notices.recv().await {
            self.report(notice.map_or_else(LinkEvent::Garbled, LinkEvent::Notice)).await;
        }
        let error = connection.closed().await;
        tracing::info!(replica = self.target.replica, %error, "connection with a replica ended");
        self.remember(Some(error.to_string()));
    }

    async fn report(&self, event: LinkEvent) {
        // Fails only when nobody listens any more.
        let _ = self.events.send((self.target.replica, event)).await;
    }

    /// Logs a failure when it is news.
    fn failed(&self, error: &TransportError) {
        let text = error.to_string();
        let replica = self.target.replica;
        if self.remember(Some(text.clone())) {
            tracing::warn!(replica, address = %self.target.address, error = text, "cannot reach a replica");
        }
    }

    /// Replaces the last error and says whether it is another one.
    fn remember(&self, text: Option<String>) -> bool {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *last != text;
        *last = text;
        news
    }
}
