//! The life of one client connection: its streams, their time limits, and what ends it.
//!
//! Invariant: every task of a connection ends with it, and `Closed` is the last event that it causes.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quinn::{Connection, RecvStream, SendStream, VarInt};
use quorate_protocol::Envelope;
use quorate_protocol::client::{ClientReply, ClientRequest, Refusal};
use quorate_protocol::limits::FRAME_BYTES_MAX;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};

use super::{
    Answer, ClientConnection, ClientEvent, Clients, ConnectionId, Held, ReplyHandle, SMALL_BYTES_MAX, Share,
    refusal,
};
use crate::error::{Fault, FrameError};
use crate::frame::{FrameReader, decode_body, encode_frame};
use crate::tuning::{CloseCode, PRIORITY_PUSHED, priority};

/// A request must have arrived whole so long after its first bytes.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A reply must have been taken by QUIC so long after it was given.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Code of a stream that is given up.
const STREAM_ABANDONED: VarInt = VarInt::from_u32(1);

/// Serves a client until its connection ends.
pub(crate) async fn serve(clients: Clients, connection: Connection) {
    let id = ConnectionId(clients.0.connections.fetch_add(1, Ordering::Relaxed));
    let (from, leaving) = (connection.remote_address().ip(), connection.clone());
    let close = move || leaving.close(CloseCode::Busy.code(), b"too many clients of no principal");
    let Some(place) = clients.0.places.enter(id, from, Instant::now(), close) else {
        connection.close(CloseCode::Busy.code(), b"too many clients");
        return;
    };
    let client = ClientConnection::new(&clients, id, connection);
    if let Err(error) = serve_streams(&clients, &client).await {
        if error.fault() == Fault::Peer {
            tracing::warn!(remote = %client.remote(), %error, "a client breaks the protocol");
        }
        client.0.connection.close(CloseCode::Violation.code(), error.to_string().as_bytes());
    }
    let closed = ClientEvent::Closed { connection: client.id() };
    clients.0.events.send(client.id().0, (closed, Held::Place { _place: place }));
}

/// Accepts streams until one of them breaks the protocol or the connection ends. Dropping the task sets
/// ends the tasks.
async fn serve_streams(clients: &Clients, client: &ClientConnection) -> Result<(), FrameError> {
    let connection = &client.0.connection;
    let mut requests = JoinSet::new();
    let mut submissions = JoinSet::new();
    let mut notices = JoinSet::new();
    notices.spawn(write_notices(client.clone()));
    loop {
        tokio::select! {
            opened = connection.accept_bi() => {
                let (send, receive) = opened.map_err(io::Error::from)?;
                requests.spawn(serve_request(clients.clone(), client.clone(), send, receive));
            }
            opened = connection.accept_uni() => {
                let receive = opened.map_err(io::Error::from)?;
                if !submissions.is_empty() {
                    return Err(FrameError::Protocol("a second stream of submissions"));
                }
                submissions.spawn(serve_submissions(clients.clone(), client.clone(), receive));
            }
            Some(ended) = requests.join_next() => outcome(ended)?,
            Some(ended) = submissions.join_next() => outcome(ended)?,
            Some(ended) = notices.join_next() => outcome(ended)?,
        }
    }
}

/// A stream that the client gives up is its right; one that breaks the protocol ends the connection.
fn outcome(ended: Result<Result<(), FrameError>, JoinError>) -> Result<(), FrameError> {
    match ended {
        Ok(Err(error)) if error.fault() == Fault::Peer => Err(error),
        Ok(_) => Ok(()),
        Err(error) => {
            // The task panicked, which is our defect; the client may go on with other streams.
            tracing::error!(%error, "the task of a client's stream failed");
            Ok(())
        }
    }
}

/// One request and its reply.
async fn serve_request(
    clients: Clients,
    client: ClientConnection,
    mut send: SendStream,
    receive: RecvStream,
) -> Result<(), FrameError> {
    let arrived = tokio::time::timeout(REQUEST_TIMEOUT, read_request(&client, receive)).await;
    let Ok(arrived) = arrived else {
        let _ = send.reset(STREAM_ABANDONED);
        return Ok(());
    };
    let (request, bytes, share) = arrived?;
    let answer = match request {
        ClientRequest::Prove { key, signature } => match client.prove(&clients, key, &signature) {
            Ok(()) => encode_frame(&ClientReply::Accepted).ok().map(|frame| Answer { frame, _share: None }),
            // A client cannot make us check one bad signature after the other on one connection.
            Err(reason) => {
                tracing::warn!(remote = %client.remote(), reason, "a client's proof is refused");
                let answer = refusal(Refusal::Denied, reason);
                let _ = write_answer(&mut send, answer).await;
                let _ = tokio::time::timeout(Duration::from_secs(1), send.stopped()).await;
                return Err(FrameError::Protocol("the proof of a principal does not hold"));
            }
        },
        request => {
            let (sender, receiver) = oneshot::channel();
            let replies = client.0.replies.clone();
            let reply = ReplyHandle { sender: Some(sender), replies, _request: Some(share) };
            let event = ClientEvent::Request { connection: client.clone(), request, bytes, reply };
            // When nobody listens any more the reply handle is dropped.
            clients.0.events.send(client.id().0, (event, Held::ByReply));
            wait_for_answer(&mut send, receiver).await
        }
    };
    write_answer(&mut send, answer).await
}

/// The answer; `None` if none will come, or if the client has lost interest.
async fn wait_for_answer(send: &mut SendStream, receiver: oneshot::Receiver<Answer>) -> Option<Answer> {
    tokio::select! {
        answer = receiver => answer.ok(),
        _ = send.stopped() => None,
    }
}

/// Reads the only frame of a request's stream, with its bytes and the share of the budget that it occupies.
async fn read_request(
    client: &ClientConnection,
    receive: RecvStream,
) -> Result<(ClientRequest, usize, Share), FrameError> {
    client.0.pause.wait().await;
    let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
    let length = reader.length().await?.ok_or(FrameError::Truncated)?;
    let (body, share) = client.0.requests.read(&mut reader, length).await?;
    let request = decode_body(&body)?;
    reader.end().await?;
    Ok((request, length, share))
}

async fn write_answer(send: &mut SendStream, answer: Option<Answer>) -> Result<(), FrameError> {
    let Some(answer) = answer else {
        let _ = send.reset(STREAM_ABANDONED);
        return Ok(());
    };
    let _ = send.set_priority(priority(answer.frame.len() > SMALL_BYTES_MAX));
    match tokio::time::timeout(REPLY_TIMEOUT, send.write_chunk(answer.frame)).await {
        Ok(written) => {
            written.map_err(io::Error::from)?;
            // Fails only on a stream that the client has given up.
            let _ = send.finish();
        }
        Err(_) => {
            let _ = send.reset(STREAM_ABANDONED);
        }
    }
    Ok(())
}

/// The long-lived stream on which a client submits without waiting for replies.
async fn serve_submissions(
    clients: Clients,
    client: ClientConnection,
    receive: RecvStream,
) -> Result<(), FrameError> {
    let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
    loop {
        client.0.pause.wait().await;
        let Some(length) = reader.length().await? else { return Ok(()) };
        let reading = client.0.submissions.read(&mut reader, length);
        // Giving the stream up makes the client call anew.
        let read = tokio::time::timeout(REQUEST_TIMEOUT, reading).await;
        let (body, share) = read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let (envelope, results): (Envelope, bool) = decode_body(&body)?;
        let request = ClientRequest::Submit { envelope, results };
        let reply = ReplyHandle { sender: None, replies: client.0.replies.clone(), _request: None };
        let bytes = length;
        let event = ClientEvent::Request { connection: client.clone(), request, bytes, reply };
        clients.0.events.send(client.id().0, (event, Held::Submission { _share: share }));
    }
}

/// Pushes notices on one stream, which is opened with the first of them.
async fn write_notices(client: ClientConnection) -> Result<(), FrameError> {
    let mut frames = client.0.notices.take().await;
    let mut stream = client.0.connection.open_uni().await.map_err(io::Error::from)?;
    let _ = stream.set_priority(PRIORITY_PUSHED);
    loop {
        stream.write_all_chunks(&mut frames).await.map_err(io::Error::from)?;
        frames = client.0.notices.take().await;
    }
}
