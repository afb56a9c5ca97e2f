//! Whatever a stranger, a client, a peer or a replica may send.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use quinn::{Connection, ConnectionError, Endpoint, EndpointConfig, ServerConfig};
use quorate_crypto::{Ed25519Signer, PublicKey, SecretKey};
use quorate_protocol::client::{ClientReply, ClientRequest};
use quorate_protocol::{Envelope, PeerMessage};

use super::common::*;
use crate::endpoint::HANDSHAKES_MAX;
use crate::frame::decode_body;
use crate::identity::{Exporter, prove};
use crate::peers::dial;
use crate::peers::{INBOX_BYTES_MAX, INBOX_MESSAGES_MAX, INBOX_URGENT_BYTES_MAX};
use crate::tuning::{CloseCode, Streams, bind, transport_config};
use crate::{ClientEndpoint, ClientEvent, Fault, PAUSE_MAX, PeerEvent, TransportError, tls};

const STREAMS: Streams = Streams { bidirectional: 64, unidirectional: 64 };

/// Calls without any of this room's manners.
async fn call(
    address: SocketAddr,
    pinned: PublicKey,
    secret: Option<&SecretKey>,
    protocol: &[u8],
) -> Result<Connection, TransportError> {
    let socket = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let runtime = quinn::default_runtime().unwrap();
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, runtime).unwrap();
    let mut config = quinn::ClientConfig::new(tls::client_config(pinned, secret, protocol).unwrap());
    config.transport_config(transport_config(STREAMS));
    dial(&endpoint, config, address).await
}

async fn call_as_client(cluster: &Cluster) -> Connection {
    call(cluster.address(0), cluster.target(0).key, None, tls::CLIENT_PROTOCOL).await.unwrap()
}

async fn call_as_peer(cluster: &Cluster, secret: Option<&SecretKey>) -> Result<Connection, TransportError> {
    call(cluster.address(0), cluster.target(0).key, secret, tls::PEER_PROTOCOL).await
}

async fn close_code(connection: &Connection) -> Option<CloseCode> {
    let known =
        [CloseCode::Done, CloseCode::Replaced, CloseCode::Violation, CloseCode::Busy, CloseCode::Stranger];
    match soon("the close", connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            known.into_iter().find(|code| code.code() == close.error_code)
        }
        _ => None,
    }
}

/// An honest client is served as ever.
async fn assert_alive(cluster: &Cluster, node: &mut crate::ReplicaTransport) {
    let signer = Ed25519Signer::new(principal());
    let endpoint = ClientEndpoint::new().unwrap();
    let target = cluster.target(0);
    let connecting = endpoint.connect(&target, Some(&signer));
    let (connection, _notices) = soon("a connection", connecting).await.unwrap();
    let asking = tokio::spawn(async move { connection.request(&ClientRequest::Status).await });
    loop {
        let event = soon("a request", node.client_events.recv()).await.unwrap();
        if let ClientEvent::Request { reply, request: ClientRequest::Status, .. } = event {
            reply.send(&ClientReply::Accepted);
            break;
        }
    }
    asking.await.unwrap().unwrap();
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes(), body].concat()
}

#[test]
fn bad_requests_end_the_connection_and_nothing_else() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        let good = quorate_crypto::encode(&ClientRequest::Status);
        let cases: [(&str, Vec<u8>); 8] = [
            ("nothing", vec![]),
            ("half a length", vec![1, 0]),
            ("truncated", framed(&[1, 2, 3])[..6].to_vec()),
            ("oversized", vec![255, 255, 255, 255, 1, 2, 3]),
            ("just above the bound", (16_u32 << 20).saturating_add(1).to_le_bytes().to_vec()),
            ("garbage", framed(&[0xee; 4000])),
            ("bytes after the request", [framed(&good), vec![0]].concat()),
            ("trailing bytes within", framed(&[good.clone(), vec![0]].concat())),
        ];
        for (name, bytes) in cases {
            let connection = call_as_client(&cluster).await;
            let (mut send, _receive) = connection.open_bi().await.unwrap();
            send.write_all(&bytes).await.unwrap();
            send.finish().unwrap();
            assert_eq!(close_code(&connection).await, Some(CloseCode::Violation), "{name}");
        }
        assert_alive(&cluster, &mut node).await;
    });
}

#[test]
fn bad_submissions_end_the_connection() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        for bytes in [vec![255; 64], framed(&[7; 100]), vec![9]] {
            let connection = call_as_client(&cluster).await;
            let mut send = connection.open_uni().await.unwrap();
            send.write_all(&bytes).await.unwrap();
            send.finish().unwrap();
            assert_eq!(close_code(&connection).await, Some(CloseCode::Violation));
        }
        let connection = call_as_client(&cluster).await;
        let mut first = connection.open_uni().await.unwrap();
        let mut second = connection.open_uni().await.unwrap();
        first.write_all(&[0]).await.unwrap();
        second.write_all(&[0]).await.unwrap();
        assert_eq!(close_code(&connection).await, Some(CloseCode::Violation));
        assert_alive(&cluster, &mut node).await;
    });
}

/// RX7: places that nobody uses come free.
#[test]
fn half_open_streams_and_silent_connections_keep_nobody_out() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        let mut held = Vec::new();
        for _ in 0..20 {
            let connection = call_as_client(&cluster).await;
            for _ in 0..64 {
                let (mut send, receive) = connection.open_bi().await.unwrap();
                // Claims a frame of 8 MiB and sends one byte of it.
                send.write_all(&[0, 0, 128, 0, 1]).await.unwrap();
                held.push((send, receive));
            }
        }
        assert_alive(&cluster, &mut node).await;
    });
}

#[test]
fn proofs_of_other_connections_are_refused() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        let (first, second) = (call_as_client(&cluster).await, call_as_client(&cluster).await);
        let exporter = Exporter::of(&first, &cluster.id()).unwrap();
        let request = prove(&Ed25519Signer::new(principal()), &cluster.id(), 0, &exporter);
        let frame = crate::frame::encode_frame(&request).unwrap();
        let (mut send, mut receive) = second.open_bi().await.unwrap();
        send.write_all(&frame).await.unwrap();
        send.finish().unwrap();
        let reply = soon("a reply", receive.read_to_end(1000)).await.unwrap();
        let reply: ClientReply = quorate_crypto::decode(&reply[4..]).unwrap();
        assert!(matches!(reply, ClientReply::Refused { .. }));
        drop(receive);
        assert_eq!(close_code(&second).await, Some(CloseCode::Violation));
        let (mut send, mut receive) = first.open_bi().await.unwrap();
        send.write_all(&frame).await.unwrap();
        send.finish().unwrap();
        let reply = soon("a reply", receive.read_to_end(1000)).await.unwrap();
        assert_eq!(quorate_crypto::decode::<ClientReply>(&reply[4..]).unwrap(), ClientReply::Accepted);
        assert_alive(&cluster, &mut node).await;
    });
}

#[test]
fn wrong_protocols_and_wrong_keys_do_not_get_in() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        let refused = call(cluster.address(0), cluster.target(0).key, None, b"h3").await.unwrap_err();
        assert_eq!(refused.fault(), Fault::Peer, "{refused}");
        // Nobody, with the protocol of peers.
        let connection = call_as_peer(&cluster, None).await.unwrap();
        assert_eq!(close_code(&connection).await, Some(CloseCode::Stranger));
        // Somebody else's key: the caller's TLS is done before the refusal arrives.
        let stranger = SecretKey::from_bytes(&[66; 32]);
        if let Ok(connection) = call_as_peer(&cluster, Some(&stranger)).await {
            assert_eq!(close_code(&connection).await, None, "TLS refuses");
        }
        // The replica's own key, and that of a member that should be called rather than call.
        let own = cluster.secret(0);
        let connection = call_as_peer(&cluster, Some(&own)).await.unwrap();
        assert_eq!(close_code(&connection).await, Some(CloseCode::Stranger));
        assert_alive(&cluster, &mut node).await;
        assert!(node.peers.connected().is_empty());
        assert!(node.peer_events.try_recv().is_none());
    });
}

#[test]
fn a_member_that_breaks_the_protocol_is_only_disconnected() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        let mut honest = cluster.start(2);
        until_connected(&mut node.peer_events, 2).await;
        until_connected(&mut honest.peer_events, 0).await;
        let secret = cluster.secret(1);
        // Wrong lanes: an unknown one, one twice.
        for lanes in [[0, 1, 9], [0, 1, 1]] {
            let connection = call_as_peer(&cluster, Some(&secret)).await.unwrap();
            let mut held = Vec::new();
            for lane in lanes {
                let mut stream = connection.open_uni().await.unwrap();
                stream.write_all(&[lane]).await.unwrap();
                held.push(stream);
            }
            assert_eq!(close_code(&connection).await, Some(CloseCode::Violation));
        }
        // Good lanes, then garbage, a claim above the lane's bound, or an end within a frame.
        let bad = [framed(&[0xee; 50]), vec![0, 0, 0x20, 0, 1], vec![255; 8], vec![3, 0, 0, 0, 1], vec![]];
        for bytes in bad {
            let connection = call_as_peer(&cluster, Some(&secret)).await.unwrap();
            let mut held = Vec::new();
            for lane in 0..3 {
                let mut stream = connection.open_uni().await.unwrap();
                stream.write_all(&[lane]).await.unwrap();
                held.push(stream);
            }
            until_connected(&mut node.peer_events, 1).await;
            held[0].write_all(&bytes).await.unwrap();
            held[0].finish().unwrap();
            assert_eq!(close_code(&connection).await, Some(CloseCode::Violation));
            until_disconnected(&mut node.peer_events, 1).await;
        }
        // A second connection takes the place of the first.
        let mut held = Vec::new();
        let mut connections = Vec::new();
        for _ in 0..2 {
            let connection = call_as_peer(&cluster, Some(&secret)).await.unwrap();
            for lane in 0..3 {
                let mut stream = connection.open_uni().await.unwrap();
                stream.write_all(&[lane]).await.unwrap();
                held.push(stream);
            }
            until_connected(&mut node.peer_events, 1).await;
            connections.push(connection);
        }
        assert_eq!(close_code(&connections[0]).await, Some(CloseCode::Replaced));
        assert_eq!(node.peers.connected(), [1, 2]);
        honest.peers.send(0, &small(8));
        assert_eq!(next_message(&mut node.peer_events).await, (2, small(8)));
        assert!(
            honest.peer_events.try_recv().is_none_or(|event| !matches!(event, PeerEvent::Disconnected(_)))
        );
    });
}

/// A replica with member 0's key that answers every stream with these bytes.
async fn lie(cluster: &Cluster, bytes: Vec<u8>) {
    let mut config = ServerConfig::with_crypto(tls::server_config(&cluster.secret(0), vec![]).unwrap());
    config.transport_config(transport_config(STREAMS));
    let socket = bind(cluster.address(0)).unwrap();
    let runtime = quinn::default_runtime().unwrap();
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime).unwrap();
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await.unwrap();
        let bytes = bytes.clone();
        tokio::spawn(async move {
            while let Ok((mut send, _receive)) = connection.accept_bi().await {
                let _ = send.write_all(&bytes).await;
                let _ = send.finish();
            }
        });
    }
}

#[test]
fn a_lying_replica_causes_typed_errors_at_the_client() {
    for bytes in [vec![], vec![1], vec![255; 100], framed(&[0xee; 10]), framed(&[0, 0])] {
        run(async {
            let cluster = Cluster::new();
            let liar = tokio::spawn({
                let cluster = Cluster { file: cluster.file.clone(), ..Cluster::new() };
                async move { lie(&cluster, bytes).await }
            });
            let endpoint = ClientEndpoint::new().unwrap();
            let (connection, _notices) =
                soon("a connection", endpoint.connect(&cluster.target(0), None)).await.unwrap();
            let error = soon("an error", connection.request(&ClientRequest::Status)).await.unwrap_err();
            assert_eq!(error.fault(), Fault::Peer, "{error}");
            liar.abort();
        });
    }
}

#[test]
fn packets_that_are_no_quic_change_nothing() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut state = 1_u64;
        for length in 0..1400_usize {
            let packet: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            socket.send_to(&packet, cluster.address(0)).unwrap();
            if length % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        assert_alive(&cluster, &mut node).await;
    });
}

/// Hazard RX7: whatever becomes of a handshake or of a connection, its place comes back.
#[test]
fn rx7_handshakes_and_connections_that_fail_give_their_places_back() {
    run(async {
        let mut cluster = Cluster::new();
        cluster.limits.connections = 2;
        let mut node = cluster.start(0);
        for _ in 0..HANDSHAKES_MAX + 44 {
            assert!(call(cluster.address(0), cluster.target(0).key, None, b"h3").await.is_err());
        }
        for _ in 0..20 {
            let connection = call_as_client(&cluster).await;
            let (mut send, _receive) = connection.open_bi().await.unwrap();
            send.write_all(&framed(&[0xee; 100])).await.unwrap();
            assert_eq!(close_code(&connection).await, Some(CloseCode::Violation));
            let event = soon("the end of it", node.client_events.recv()).await;
            assert!(matches!(event, Some(ClientEvent::Closed { .. })), "{event:?}");
        }
        assert_alive(&cluster, &mut node).await;
    });
}

/// Hazards A4, RX1: what a peer sends and nobody takes waits at the peer, and no other peer waits for it.
#[test]
fn a4_a_flood_of_a_peer_occupies_its_own_budget_and_nothing_else() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        let mut honest = cluster.start(2);
        until_connected(&mut node.peer_events, 2).await;
        until_connected(&mut honest.peer_events, 0).await;
        let connection = call_as_peer(&cluster, Some(&cluster.secret(1))).await.unwrap();
        let mut floods = Vec::new();
        for lane in 0..3_u8 {
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(&[lane]).await.unwrap();
            let message = if lane == 2 { large(1) } else { small(1) };
            let frame = if lane == 1 { Vec::new() } else { framed(&quorate_crypto::encode(&message)) };
            floods.push(tokio::spawn(async move {
                while !frame.is_empty() && stream.write_all(&frame).await.is_ok() {}
                // A lane that is finished would end the connection.
                std::future::pending::<()>().await;
            }));
        }
        until_connected(&mut node.peer_events, 1).await;
        // Long enough for the large messages on a busy machine as well.
        tokio::time::sleep(Duration::from_secs(4)).await;
        honest.peers.send(0, &small(8));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (mut messages, mut bytes, mut heard) = (0, 0, false);
        while let Some(event) = node.peer_events.try_recv() {
            match event {
                PeerEvent::Message { from: 1, bytes: length, .. } => {
                    messages += 1;
                    bytes += length;
                }
                PeerEvent::Message { from: 2, message, .. } => heard = message == small(8),
                _ => {}
            }
        }
        assert!(heard, "the honest peer's message stands in the queue");
        assert!((INBOX_MESSAGES_MAX..=2 * INBOX_MESSAGES_MAX).contains(&messages), "{messages}");
        assert!(bytes <= INBOX_URGENT_BYTES_MAX + INBOX_BYTES_MAX, "{bytes}");
        assert!(bytes > INBOX_BYTES_MAX / 2, "it was a flood: {bytes}");
        floods.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

/// Hazard A12: a message may come on its own lane only, so that the bound of the lane is one on the message.
#[test]
fn a12_a_message_on_a_foreign_lane_ends_the_connection() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        for (lane, message) in [(0, large(1)), (1, small(1)), (1, large(1))] {
            let connection = call_as_peer(&cluster, Some(&cluster.secret(1))).await.unwrap();
            let mut held = Vec::new();
            for number in 0..3 {
                let mut stream = connection.open_uni().await.unwrap();
                stream.write_all(&[number]).await.unwrap();
                held.push(stream);
            }
            until_connected(&mut node.peer_events, 1).await;
            // A connection that ends while this is being written is the answer as well.
            let _ = held[lane].write_all(&framed(&quorate_crypto::encode(&message))).await;
            assert_eq!(close_code(&connection).await, Some(CloseCode::Violation));
            until_disconnected(&mut node.peer_events, 1).await;
        }
        assert_alive(&cluster, &mut node).await;
    });
}

/// Hazard A12: whatever kind a message claims to be, and whatever lengths it claims to hold, it is refused at the
/// first claim that its bytes do not bear out. No type of a message contains itself, so nothing recurses.
#[test]
fn a12_claims_without_bytes_are_refused() {
    let claims = [u32::MAX, 1 << 31, 16 << 20, 1 << 20, 8192, 1024];
    for kind in 0..=u8::MAX {
        for claim in claims {
            for repeated in [1, 4, 64] {
                let mut body = vec![kind];
                (0..repeated).for_each(|_| body.extend_from_slice(&claim.to_le_bytes()));
                // What decodes all the same is a message of these few bytes.
                for decoded in [
                    decode_body::<PeerMessage>(&body).map(|message| quorate_crypto::encode(&message)),
                    decode_body::<ClientRequest>(&body).map(|request| quorate_crypto::encode(&request)),
                    decode_body::<(Envelope, bool)>(&body)
                        .map(|submitted| quorate_crypto::encode(&submitted)),
                ] {
                    assert!(decoded.is_err() || decoded.is_ok_and(|encoded| encoded == body));
                }
            }
        }
    }
}

/// Hazard A5: nothing is read of a client that is paused, and all others are served.
#[test]
fn a5_a_client_that_is_paused_waits_alone() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        let endpoint = ClientEndpoint::new().unwrap();
        let target = cluster.target(0);
        let (greedy, _notices) = soon("a connection", endpoint.connect(&target, None)).await.unwrap();
        let ask = |connection: &crate::ReplicaConnection| {
            let connection = connection.clone();
            tokio::spawn(async move { connection.request(&ClientRequest::Status).await })
        };
        let first = ask(&greedy);
        let Some(ClientEvent::Request { connection, reply, .. }) = node.client_events.recv().await else {
            panic!("no request");
        };
        reply.send(&ClientReply::Accepted);
        first.await.unwrap().unwrap();
        let paused = std::time::Instant::now();
        connection.pause(Duration::from_secs(60));
        let second = ask(&greedy);
        greedy.submit(&super::clients::envelope(1), false).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_alive(&cluster, &mut node).await;
        assert!(paused.elapsed() < PAUSE_MAX, "others are served meanwhile");
        let mut read = 0;
        while read < 2 {
            let event = soon("what was sent while it was paused", node.client_events.recv()).await;
            if let Some(ClientEvent::Request { reply, .. }) = event {
                assert!(paused.elapsed() >= PAUSE_MAX);
                reply.send(&ClientReply::Accepted);
                read += 1;
            }
        }
        second.await.unwrap().unwrap();
    });
}
