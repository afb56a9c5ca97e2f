//! A client's connection with one replica.
//!
//! Invariant: the other end has proved the pinned key before anything is sent, and what it sends is
//! bounded in count and bytes; whether it tells the truth is for the caller to check.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, EndpointConfig, RecvStream, SendStream};
use quorate_crypto::{Address, DecodeError, Hash, PublicKey, Signer};
use quorate_protocol::client::{ClientReply, ClientRequest, Notice};
use quorate_protocol::limits::{ENVELOPE_BYTES_MAX, FRAME_BYTES_MAX};
use quorate_protocol::{Envelope, ReplicaIndex};
use tokio::sync::mpsc;

use crate::address::resolve;
use crate::budget::{Budget, Permit};
use crate::error::{FrameError, TransportError};
use crate::frame::{FrameReader, decode_body, encode_frame};
use crate::identity::{Exporter, prove};
use crate::outbox::Outbox;
use crate::peers::dial;
use crate::server::{LARGE_MESSAGES_MAX, SMALL_BYTES_MAX};
use crate::tls;
use crate::tuning::{
    CONNECT_TIMEOUT, CloseCode, PRIORITY_PUSHED, Streams, bind, priority, transport_config, tune_endpoint,
};

/// Longest wait for the reply to one request; callers set shorter limits of their own by cancelling.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Submissions that wait for one replica.
pub const SUBMISSIONS_MAX: usize = 1024;
/// Bytes of submissions that wait for one replica.
pub const SUBMISSION_BYTES_MAX: usize = 16 * ENVELOPE_BYTES_MAX;
/// Large requests to one replica under way at once; fewer than a replica takes, so that none of them lies
/// unread there and holds up small ones.
pub const LARGE_REQUESTS_MAX: usize = LARGE_MESSAGES_MAX / 2;
/// Bytes of large requests to one replica under way at once.
pub const LARGE_REQUEST_BYTES_MAX: usize = 3 * FRAME_BYTES_MAX;
/// Notices of one replica that have arrived and are not yet taken.
pub const NOTICES_MAX: usize = 1024;
/// Bytes of notices of one replica that have arrived and are not yet taken.
pub const NOTICE_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// Which replica to call: where it should be, and the key that it must prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaTarget {
    /// The cluster's identifier.
    pub cluster: Hash,
    /// The replica's index.
    pub replica: ReplicaIndex,
    /// Where it listens.
    pub address: Address,
    /// Its transport key.
    pub key: PublicKey,
}

/// The UDP port from which a client calls; clones share it.
#[derive(Clone, Debug)]
pub struct ClientEndpoint {
    endpoint: Endpoint,
    transport: Arc<quinn::TransportConfig>,
}

impl ClientEndpoint {
    /// Opens a port that the system picks. Must run within a tokio runtime, which then drives it.
    ///
    /// # Errors
    /// [`TransportError::Bind`], [`TransportError::Configuration`] outside a runtime.
    pub fn new() -> Result<Self, TransportError> {
        // A dual-stack socket reaches everything; a system without IPv6 refuses it.
        let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let socket = bind(any_v6).or_else(|_| bind(any_v4))?;
        let runtime =
            quinn::default_runtime().ok_or(TransportError::Configuration("not within a tokio runtime"))?;
        let endpoint = Endpoint::new(tune_endpoint(EndpointConfig::default()), None, socket, runtime)
            .map_err(|source| TransportError::Bind { address: any_v4, source })?;
        // Replicas open one stream, for notices.
        let transport = transport_config(Streams { bidirectional: 0, unidirectional: 1 });
        Ok(Self { endpoint, transport })
    }

    /// Calls a replica, checks its key and, given a signer, proves its principal.
    ///
    /// # Errors
    /// [`TransportError`]: no address, no answer in time, another key, or a refusal.
    pub async fn connect(
        &self,
        target: &ReplicaTarget,
        signer: Option<&dyn Signer>,
    ) -> Result<(ReplicaConnection, Notices), TransportError> {
        let remote = resolve(&target.address).await?;
        let mut config =
            quinn::ClientConfig::new(tls::client_config(target.key, None, tls::CLIENT_PROTOCOL)?);
        config.transport_config(self.transport.clone());
        let connection = dial(&self.endpoint, config, remote).await?;
        let (replica, notices) = ReplicaConnection::start(target.replica, connection);
        if let Some(signer) = signer {
            let proving = replica.prove(target, signer);
            tokio::time::timeout(CONNECT_TIMEOUT, proving).await.map_err(|_| TransportError::Timeout)??;
        }
        Ok((replica, notices))
    }

    /// Takes leave of every replica, and waits a moment for the packets to go out.
    pub async fn close(&self) {
        self.endpoint.close(CloseCode::Done.code(), b"client stops");
        let _ = tokio::time::timeout(Duration::from_millis(200), self.endpoint.wait_idle()).await;
    }
}

/// A connection with one replica; clones share it, and it is closed with the last of them.
#[derive(Clone, Debug)]
pub struct ReplicaConnection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    replica: ReplicaIndex,
    connection: Connection,
    submissions: Arc<Outbox>,
    large: Budget,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.connection.close(CloseCode::Done.code(), b"client is done");
    }
}

impl ReplicaConnection {
    fn start(replica: ReplicaIndex, connection: Connection) -> (Self, Notices) {
        let submissions = Arc::new(Outbox::new(SUBMISSIONS_MAX, SUBMISSION_BYTES_MAX));
        // The two tasks end with the connection. Permits bound what is in the channel; see `budget`.
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(closing_on_failure(
            connection.clone(),
            write_submissions(connection.clone(), submissions.clone()),
        ));
        tokio::spawn(closing_on_failure(connection.clone(), read_notices(connection.clone(), sender)));
        let large = Budget::new(LARGE_REQUEST_BYTES_MAX, LARGE_REQUESTS_MAX);
        (Self(Arc::new(Inner { replica, connection, submissions, large })), Notices(receiver))
    }

    /// Index of the replica.
    #[must_use]
    pub fn replica(&self) -> ReplicaIndex {
        self.0.replica
    }

    /// The smoothed round trip time of the connection.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.0.connection.rtt()
    }

    /// Asks and waits for the reply, at most [`REQUEST_TIMEOUT`]. Any number run side by side; beyond
    /// the replica's limits, and [`LARGE_REQUESTS_MAX`] of large ones, they wait for one another. Cancelling tells the replica to forget it.
    ///
    /// # Errors
    /// [`TransportError::Timeout`], [`TransportError::Lost`], [`TransportError::Frame`].
    pub async fn request(&self, request: &ClientRequest) -> Result<ClientReply, TransportError> {
        let frame = encode_frame(request)?;
        match tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(frame)).await {
            Ok(reply) => reply,
            Err(_) => Err(TransportError::Timeout),
        }
    }

    async fn exchange(&self, frame: bytes::Bytes) -> Result<ClientReply, TransportError> {
        let is_large = frame.len() > SMALL_BYTES_MAX;
        // `None` only for what exceeds the budget, which no frame does.
        let _permit = if is_large { self.0.large.take(frame.len()).await } else { None };
        let (mut send, receive) = self.0.connection.open_bi().await.map_err(|error| lost(&error))?;
        // Fails only on a stream that is closed, which the write reports as well.
        let _ = send.set_priority(priority(is_large));
        // A refusal may come while we still write; then the reply says more than the failed write.
        let written = write_only_frame(&mut send, frame).await;
        match read_only_frame(receive).await {
            Ok(reply) => Ok(reply),
            Err(FrameError::Lost(_) | FrameError::Truncated) if written.is_err() => {
                written.and(Err(self.lost()))
            }
            Err(FrameError::Lost(_)) if self.0.connection.close_reason().is_some() => Err(self.lost()),
            Err(error) => Err(error.into()),
        }
    }

    /// Queues an envelope on the long-lived stream and returns at once. COMMITs come as notices, and the
    /// results as well if they are wanted from this replica.
    ///
    /// # Errors
    /// [`TransportError::Congested`] if the replica does not keep up, [`TransportError::Lost`],
    /// [`TransportError::Frame`] if the envelope is too large.
    pub fn submit(&self, envelope: &Envelope, results: bool) -> Result<(), TransportError> {
        if self.0.connection.close_reason().is_some() {
            return Err(self.lost());
        }
        let frame = encode_frame(&(envelope, results))?;
        if self.0.submissions.try_push(frame) { Ok(()) } else { Err(TransportError::Congested) }
    }

    /// Waits until the connection is lost, and says why.
    pub async fn closed(&self) -> TransportError {
        lost(&self.0.connection.closed().await)
    }

    /// Closes the connection.
    pub fn close(&self) {
        self.0.connection.close(CloseCode::Done.code(), b"client is done");
    }

    fn lost(&self) -> TransportError {
        self.0.connection.close_reason().as_ref().map_or(TransportError::NotConnected, lost)
    }

    async fn prove(&self, target: &ReplicaTarget, signer: &dyn Signer) -> Result<(), TransportError> {
        let exporter = Exporter::of(&self.0.connection, &target.cluster)
            .ok_or_else(|| TransportError::Tls("no keying material".to_owned()))?;
        let request = prove(signer, &target.cluster, target.replica, &exporter);
        match self.request(&request).await? {
            ClientReply::Accepted => Ok(()),
            ClientReply::Refused { refusal, text } => {
                Err(TransportError::Refused(format!("{refusal:?}: {}", String::from_utf8_lossy(&text))))
            }
            _ => Err(FrameError::Protocol("the answer to a proof is something else").into()),
        }
    }
}

/// What a replica pushes. Ends with the connection.
#[derive(Debug)]
pub struct Notices(mpsc::UnboundedReceiver<(Result<Notice, DecodeError>, Permit)>);

impl Notices {
    /// The next notice, decoded but not verified; `None` when the connection has ended. One that does not decode
    /// ends nothing: what is submitted must reach a liar as well, who may lead. Cancelling it loses nothing.
    pub async fn recv(&mut self) -> Option<Result<Notice, DecodeError>> {
        self.0.recv().await.map(|(notice, _)| notice)
    }
}

fn lost(error: &quinn::ConnectionError) -> TransportError {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) if close.error_code != CloseCode::Done.code() => {
            TransportError::Refused(String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => TransportError::Lost(other.to_string()),
    }
}

async fn write_only_frame(send: &mut SendStream, frame: bytes::Bytes) -> Result<(), TransportError> {
    send.write_chunk(frame).await.map_err(|error| TransportError::Lost(error.to_string()))?;
    // Fails only on a stream that was stopped, of which the reply tells.
    let _ = send.finish();
    Ok(())
}

async fn read_only_frame(receive: RecvStream) -> Result<ClientReply, FrameError> {
    let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
    let length = reader.length().await?.ok_or(FrameError::Truncated)?;
    let reply = decode_body(&reader.body(length).await?)?;
    reader.end().await?;
    Ok(reply)
}

/// Runs beside the connection; a failure before its end is the replica's, and closes it.
async fn closing_on_failure(connection: Connection, work: impl Future<Output = Result<(), FrameError>>) {
    // Closing a connection that has ended already would hide why.
    if let Err(error) = work.await
        && connection.close_reason().is_none()
    {
        tracing::debug!(remote = %connection.remote_address(), %error, "a replica's connection failed");
        connection.close(CloseCode::Violation.code(), error.to_string().as_bytes());
    }
}

/// Moves submissions to one stream, which is opened with the first of them.
async fn write_submissions(connection: Connection, submissions: Arc<Outbox>) -> Result<(), FrameError> {
    let write = async {
        let mut frames = submissions.take().await;
        let mut stream = connection.open_uni().await.map_err(io::Error::from)?;
        let _ = stream.set_priority(PRIORITY_PUSHED);
        loop {
            stream.write_all_chunks(&mut frames).await.map_err(io::Error::from)?;
            frames = submissions.take().await;
        }
    };
    // While nothing is submitted, only these tell of the end.
    tokio::select! {
        error = connection.closed() => Err(io::Error::from(error).into()),
        () = crate::pulse::refused(&connection) => {
            Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens on its port").into())
        }
        ended = write => ended,
    }
}

/// Reads the one stream of notices.
async fn read_notices(
    connection: Connection,
    sender: mpsc::UnboundedSender<(Result<Notice, DecodeError>, Permit)>,
) -> Result<(), FrameError> {
    let budget = Budget::new(NOTICE_BYTES_MAX, NOTICES_MAX);
    let stream = connection.accept_uni().await.map_err(io::Error::from)?;
    let mut reader = FrameReader::new(stream, FRAME_BYTES_MAX);
    while let Some(length) = reader.length().await? {
        let permit = budget.take(length).await.ok_or(FrameError::Protocol("no budget"))?;
        let notice = match decode_body(&reader.body(length).await?) {
            Ok(notice) => Ok(notice),
            // The frame was whole: the next one is where it should be.
            Err(FrameError::Decode(error)) => Err(error),
            Err(error) => return Err(error),
        };
        if sender.send((notice, permit)).is_err() {
            // The caller does not want notices; let them be dropped at the other end.
            return Ok(());
        }
    }
    Err(FrameError::Protocol("the stream of notices was finished"))
}
