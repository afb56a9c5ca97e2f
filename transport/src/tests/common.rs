//! A cluster of four on free ports, and the waiting that tests share.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use quorate_crypto::{Address, Bounded, BoundedBytes, Hash, Member, MemberSet, NodeSeed, Role, SecretKey};
use quorate_protocol::blocks::BlockDescriptor;
use quorate_protocol::genesis::{GENESIS_VERSION, Genesis, Parameters};
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::peer::Announcement;
use quorate_protocol::{BatchTime, PeerMessage, ReplicaIndex};

use crate::{
    ClientLimits, ClusterFile, PeerEvent, PeerEvents, ReplicaTarget, ReplicaTransport,
    ReplicaTransportConfiguration,
};

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    pub(crate) file: ClusterFile,
    pub(crate) seeds: Vec<NodeSeed>,
    pub(crate) limits: ClientLimits,
}

pub(crate) fn principal() -> SecretKey {
    SecretKey::from_bytes(&[99; 32])
}

pub(crate) fn genesis(seeds: &[NodeSeed], addresses: &[String]) -> Genesis {
    let members = seeds
        .iter()
        .zip(addresses)
        .map(|(seed, address)| Member::from_seed(seed, Address::try_from(address.as_str()).unwrap()))
        .collect();
    Genesis {
        version: GENESIS_VERSION,
        nonce: [3; 32],
        time: BatchTime(1),
        members: MemberSet::new(0, members).unwrap(),
        principal: principal().public(),
        rights: PrincipalRights {
            anyone: true,
            administrator: true,
            auditor: true,
            uids: Bounded::new(),
            gids: Bounded::new(),
            squash_root: None,
            realms: Bounded::new(),
        },
        parameters: Parameters::default(),
        root: (0, 0, 0o755),
        entropy: [4; 16],
    }
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let seeds: Vec<NodeSeed> = (1..=4).map(|byte| NodeSeed::from_bytes([byte; 32])).collect();
        // Held together, so that no port is given twice.
        let sockets: Vec<UdpSocket> =
            seeds.iter().map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        let addresses: Vec<String> =
            sockets.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect();
        let file = ClusterFile::new(genesis(&seeds, &addresses));
        Self { file, seeds, limits: ClientLimits::default() }
    }

    pub(crate) fn id(&self) -> Hash {
        self.file.cluster()
    }

    pub(crate) fn secret(&self, index: ReplicaIndex) -> SecretKey {
        self.seeds[usize::from(index)].derive(Role::Transport)
    }

    pub(crate) fn address(&self, index: ReplicaIndex) -> SocketAddr {
        self.file.addresses()[usize::from(index)].parse().unwrap()
    }

    pub(crate) fn target(&self, index: ReplicaIndex) -> ReplicaTarget {
        self.file.target(index).unwrap()
    }

    pub(crate) fn configuration(&self, index: ReplicaIndex) -> ReplicaTransportConfiguration {
        ReplicaTransportConfiguration {
            cluster: self.id(),
            members: self.file.members().clone(),
            me: index,
            secret: self.secret(index),
            listen: self.address(index),
            addresses: self.file.addresses().to_vec(),
            limits: self.limits.clone(),
        }
    }

    pub(crate) fn start(&self, index: ReplicaIndex) -> ReplicaTransport {
        ReplicaTransport::start(self.configuration(index)).unwrap()
    }
}

/// Runs a test in a runtime like a replica's, and fails it when it hangs.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    runtime().block_on(async { tokio::time::timeout(PATIENCE * 2, test).await.expect("the test hangs") })
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

pub(crate) async fn until_connected(events: &mut PeerEvents, wanted: ReplicaIndex) {
    soon("a connection", async {
        loop {
            if let PeerEvent::Connected(index) = events.recv().await.unwrap()
                && index == wanted
            {
                return;
            }
        }
    })
    .await;
}

pub(crate) async fn until_disconnected(events: &mut PeerEvents, wanted: ReplicaIndex) {
    soon("the end of a connection", async {
        loop {
            if let PeerEvent::Disconnected(index) = events.recv().await.unwrap()
                && index == wanted
            {
                return;
            }
        }
    })
    .await;
}

pub(crate) async fn next_message(events: &mut PeerEvents) -> (ReplicaIndex, PeerMessage) {
    soon("a message", async {
        loop {
            if let PeerEvent::Message { from, message, .. } = events.recv().await.unwrap() {
                return (from, message);
            }
        }
    })
    .await
}

/// A small message that waits for nothing.
pub(crate) fn small(view: u64) -> PeerMessage {
    PeerMessage::Announce(Announcement { epoch: 0, view, entered: true, committed: 0 })
}

/// A message of 1 MiB on the bulk lane.
pub(crate) fn large(byte: u8) -> PeerMessage {
    let content = vec![byte; 1 << 20];
    let descriptor = BlockDescriptor::copies(&content);
    PeerMessage::Block { descriptor, content: BoundedBytes::try_from(content).unwrap() }
}
