//! Clients and replicas.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_crypto::{Bounded, BoundedBytes, Ed25519Signer, Hash, SecretKey, Signature};
use quorate_protocol::client::{ClientReply, ClientRequest, Notice};
use quorate_protocol::{BatchTime, Envelope, EnvelopeBody};
use tokio::sync::mpsc;

use super::common::*;
use crate::server::{NOTICE_BYTES_MAX, NOTICES_MAX};
use crate::{
    ClientConnection, ClientEndpoint, ClientEvent, ClientEvents, Fault, LinkEvent, ReplicaLink,
    TransportError,
};

fn signer() -> Ed25519Signer {
    Ed25519Signer::new(principal())
}

/// Answers `Highest { known }` with known + 1 and blocks with themselves.
async fn serve(mut events: ClientEvents) {
    while let Some(event) = events.recv().await {
        let ClientEvent::Request { request, reply, .. } = event else { continue };
        match request {
            ClientRequest::Highest { known } => {
                reply.send(&ClientReply::Highest { height: known + 1, certificate: None });
            }
            ClientRequest::PutBlocks { blocks, .. } => {
                reply.send(&ClientReply::Block(blocks.into_inner().swap_remove(0)));
            }
            _ => reply.send(&ClientReply::Accepted),
        }
    }
}

fn put(bytes: usize) -> ClientRequest {
    let block = BoundedBytes::try_from(vec![5; bytes]).unwrap();
    ClientRequest::PutBlocks { session: Hash::ZERO, blocks: Bounded::try_from(vec![block]).unwrap() }
}

pub(super) fn envelope(first: u64) -> Envelope {
    let body = EnvelopeBody {
        cluster: Hash::ZERO,
        session: Hash::ZERO,
        key: principal().public(),
        first,
        valid_until: BatchTime(0),
        credentials: Bounded::new(),
        operations: Bounded::new(),
    };
    Envelope { body, signature: Signature::ZERO }
}

async fn next(events: &mut ClientEvents) -> ClientEvent {
    soon("a client's event", events.recv()).await.unwrap()
}

async fn next_request(events: &mut ClientEvents) -> (ClientConnection, ClientRequest, crate::ReplyHandle) {
    match next(events).await {
        ClientEvent::Request { connection, request, reply, .. } => (connection, request, reply),
        ClientEvent::Closed { .. } => panic!("closed"),
    }
}

#[test]
fn many_requests_at_once_each_get_their_reply() {
    run(async {
        let mut cluster = Cluster::new();
        cluster.limits.streams = 4;
        let node = cluster.start(0);
        let server = tokio::spawn(serve(node.client_events));
        let endpoint = ClientEndpoint::new().unwrap();
        let (connection, _notices) = endpoint.connect(&cluster.target(0), Some(&signer())).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for known in 0..300 {
            let connection = connection.clone();
            tasks.spawn(async move {
                let reply = connection.request(&ClientRequest::Highest { known }).await.unwrap();
                assert_eq!(reply, ClientReply::Highest { height: known + 1, certificate: None });
            });
        }
        for _ in 0..8 {
            let connection = connection.clone();
            tasks.spawn(async move {
                let ClientReply::Block(bytes) = connection.request(&put(1 << 20)).await.unwrap() else {
                    panic!("another reply");
                };
                assert_eq!(bytes.len(), 1 << 20);
            });
        }
        soon("replies", async { while tasks.join_next().await.transpose().unwrap().is_some() {} }).await;
        assert!(!server.is_finished());
    });
}

#[test]
fn a_principal_is_known_by_its_proof_only() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        let endpoint = ClientEndpoint::new().unwrap();
        let (anonymous, _notices) = endpoint.connect(&cluster.target(0), None).await.unwrap();
        let asking = tokio::spawn(async move { anonymous.request(&ClientRequest::Status).await });
        let (connection, _, reply) = next_request(&mut node.client_events).await;
        assert_eq!(connection.principal(), None);
        assert!(reply.wanted());
        reply.send(&ClientReply::Accepted);
        assert_eq!(asking.await.unwrap().unwrap(), ClientReply::Accepted);
        assert!(matches!(next(&mut node.client_events).await,
            ClientEvent::Closed { connection: id } if id == connection.id()));

        let (proven, _notices) = endpoint.connect(&cluster.target(0), Some(&signer())).await.unwrap();
        let asking = tokio::spawn(async move { proven.request(&ClientRequest::Status).await });
        let (connection, _, reply) = next_request(&mut node.client_events).await;
        assert_eq!(connection.principal(), Some(principal().public()));
        reply.send(&ClientReply::Accepted);
        asking.await.unwrap().unwrap();
    });
}

#[test]
fn a_proof_for_another_cluster_and_another_key_are_refused() {
    run(async {
        let cluster = Cluster::new();
        let _node = cluster.start(0);
        let endpoint = ClientEndpoint::new().unwrap();
        let mut target = cluster.target(0);
        target.cluster = Hash([9; 32]);
        let refused = endpoint.connect(&target, Some(&signer())).await.unwrap_err();
        assert!(matches!(refused, TransportError::Refused(_)), "{refused}");
        let mut target = cluster.target(0);
        target.replica = 1;
        let refused = endpoint.connect(&target, Some(&signer())).await.unwrap_err();
        assert!(matches!(refused, TransportError::Refused(_)), "{refused}");

        let mut target = cluster.target(0);
        target.key = cluster.target(1).key;
        let wrong = endpoint.connect(&target, Some(&signer())).await.unwrap_err();
        assert!(matches!(wrong, TransportError::WrongIdentity { .. }), "{wrong}");
        assert_eq!(wrong.fault(), Fault::Peer);

        let start = Instant::now();
        let nobody = endpoint.connect(&cluster.target(2), None).await.unwrap_err();
        assert_eq!(nobody.fault(), Fault::Network, "{nobody}");
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn submissions_flow_in_order_and_notices_come_back() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        let endpoint = ClientEndpoint::new().unwrap();
        let (connection, mut notices) = endpoint.connect(&cluster.target(0), Some(&signer())).await.unwrap();
        for first in 0..500 {
            connection.submit(&envelope(first), first % 2 == 0).unwrap();
        }
        for first in 0..500 {
            let (client, request, reply) = next_request(&mut node.client_events).await;
            assert_eq!(request, ClientRequest::Submit { envelope: envelope(first), results: first % 2 == 0 });
            assert!(!reply.wanted());
            reply.send(&ClientReply::Accepted);
            client.notify(&Notice::Commits(Bounded::new()));
        }
        for _ in 0..500 {
            let notice = soon("a notice", notices.recv()).await.unwrap();
            assert_eq!(notice, Ok(Notice::Commits(Bounded::new())));
        }
        node.running.close().await;
        assert!(soon("the end", notices.recv()).await.is_none());
        assert!(connection.submit(&envelope(0), false).is_err());
        assert_eq!(soon("the end", connection.closed()).await.fault(), Fault::Network);
    });
}

#[test]
fn nobody_hangs_when_an_answer_never_comes_or_is_not_wanted() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        let endpoint = ClientEndpoint::new().unwrap();
        let (connection, _notices) = endpoint.connect(&cluster.target(0), None).await.unwrap();
        let asking = tokio::spawn({
            let connection = connection.clone();
            async move { connection.request(&ClientRequest::Status).await }
        });
        drop(next_request(&mut node.client_events).await.2);
        assert!(soon("an error", asking).await.unwrap().is_err());

        let asking = tokio::spawn({
            let connection = connection.clone();
            async move { connection.request(&ClientRequest::Status).await }
        });
        let (_, _, reply) = next_request(&mut node.client_events).await;
        asking.abort();
        soon("the news that nobody waits", async {
            while reply.wanted() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        reply.send(&ClientReply::Accepted);

        let asking = tokio::spawn(async move { connection.request(&ClientRequest::Status).await });
        next_request(&mut node.client_events).await.2.send(&ClientReply::Accepted);
        asking.await.unwrap().unwrap();
    });
}

#[test]
fn small_requests_overtake_uploads_that_the_replica_is_slow_to_answer() {
    run(async {
        let cluster = Cluster::new();
        let mut node = cluster.start(0);
        let endpoint = ClientEndpoint::new().unwrap();
        let (connection, _notices) = endpoint.connect(&cluster.target(0), None).await.unwrap();
        let mut uploads = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let connection = connection.clone();
            uploads.spawn(async move { connection.request(&put(1 << 20)).await });
        }
        // All uploads that are let in lie unanswered; a small request comes through all the same.
        let mut unanswered = Vec::new();
        for _ in 0..crate::client::LARGE_REQUESTS_MAX {
            unanswered.push(next_request(&mut node.client_events).await.2);
        }
        let asking = tokio::spawn(async move { connection.request(&ClientRequest::Status).await });
        let (_, request, reply) = next_request(&mut node.client_events).await;
        assert_eq!(request, ClientRequest::Status);
        reply.send(&ClientReply::Accepted);
        soon("the small reply", asking).await.unwrap().unwrap();
        for reply in unanswered {
            reply.send(&ClientReply::Accepted);
        }
        tokio::spawn(serve(node.client_events));
        soon("uploads", async {
            while let Some(reply) = uploads.join_next().await {
                reply.unwrap().unwrap();
            }
        })
        .await;
    });
}

#[test]
fn connections_beyond_the_limit_are_refused_and_places_come_free() {
    run(async {
        let mut cluster = Cluster::new();
        cluster.limits.connections = 1;
        let node = cluster.start(0);
        tokio::spawn(serve(node.client_events));
        let endpoint = ClientEndpoint::new().unwrap();
        let (first, _notices) = endpoint.connect(&cluster.target(0), Some(&signer())).await.unwrap();
        let refused = endpoint.connect(&cluster.target(0), Some(&signer())).await.unwrap_err();
        assert!(matches!(refused, TransportError::Refused(_)), "{refused}");
        first.close();
        soon("a free place", async {
            while endpoint.connect(&cluster.target(0), Some(&signer())).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    });
}

#[test]
fn replies_and_notices_that_are_not_read_cost_bounded_memory() {
    run(async {
        let mut cluster = Cluster::new();
        cluster.limits.bytes = 1;
        let mut node = cluster.start(0);
        let endpoint = ClientEndpoint::new().unwrap();
        let (connection, notices) = endpoint.connect(&cluster.target(0), None).await.unwrap();
        let asking = tokio::spawn({
            let connection = connection.clone();
            async move { connection.request(&ClientRequest::Status).await }
        });
        let (client, _, reply) = next_request(&mut node.client_events).await;
        reply.send(&ClientReply::Accepted);
        asking.await.unwrap().unwrap();
        for _ in 0..20 * NOTICES_MAX {
            client.notify(&Notice::Commits(Bounded::new()));
            tokio::task::yield_now().await;
        }
        let (messages, bytes) = client.waiting_notices();
        assert!(messages <= NOTICES_MAX && bytes <= NOTICE_BYTES_MAX);
        drop(notices);

        // A budget of one frame (16 MiB) holds sixteen of these replies, and no request waits for ever.
        let content = BoundedBytes::try_from(vec![1; 1 << 20]).unwrap();
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let connection = connection.clone();
            asking.spawn(async move { connection.request(&ClientRequest::Status).await });
        }
        let mut replies = Vec::new();
        for _ in 0..40 {
            replies.push(next_request(&mut node.client_events).await.2);
        }
        for reply in replies {
            reply.send(&ClientReply::Block(content.clone()));
        }
        let (mut served, mut refused) = (0, 0);
        while let Some(reply) = soon("replies", asking.join_next()).await {
            match reply.unwrap().unwrap() {
                ClientReply::Block(_) => served += 1,
                ClientReply::Refused { .. } => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((served, refused), (15, 25));
    });
}

#[test]
fn a_link_heals_itself() {
    run(async {
        let cluster = Cluster::new();
        let (sender, mut events) = mpsc::channel(16);
        let endpoint = ClientEndpoint::new().unwrap();
        let link = ReplicaLink::start(endpoint, cluster.target(0), Some(Arc::new(signer())), sender);
        assert!(matches!(link.request(&ClientRequest::Status).await, Err(TransportError::NotConnected)));
        for _ in 0..2 {
            let node = cluster.start(0);
            soon("the link", link.connected()).await;
            assert!(matches!(soon("news", events.recv()).await, Some((0, LinkEvent::Connected))));
            let server = tokio::spawn(serve(node.client_events));
            assert_eq!(link.request(&ClientRequest::Status).await.unwrap(), ClientReply::Accepted);
            node.running.close().await;
            assert!(matches!(soon("news", events.recv()).await, Some((0, LinkEvent::Disconnected))));
            assert!(!link.is_connected());
            server.abort();
        }
        assert!(link.last_error().is_some());
        drop(link);
        assert!(soon("the end", events.recv()).await.is_none());
    });
}

#[test]
fn a_link_with_a_wrong_principal_key_says_why() {
    run(async {
        let cluster = Cluster::new();
        let _node = cluster.start(0);
        let mut target = cluster.target(0);
        target.key = SecretKey::from_bytes(&[77; 32]).public();
        let (sender, _events) = mpsc::channel(16);
        let link = ReplicaLink::start(ClientEndpoint::new().unwrap(), target, None, sender);
        soon("an error", async {
            while link.last_error().is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert!(link.last_error().unwrap().contains("not the replica"), "{:?}", link.last_error());
    });
}
