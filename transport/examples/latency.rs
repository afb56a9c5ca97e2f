//! Prints latencies over loopback: a request of 200 bytes and its reply, and one small message between
//! two replicas and back, alone and beside a stream of blocks of 1 MiB. Everything runs in one thread.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use quorate_crypto::{Address, Bounded, BoundedBytes, Hash, Member, MemberSet, NodeSeed, Role};
use quorate_protocol::PeerMessage;
use quorate_protocol::blocks::BlockDescriptor;
use quorate_protocol::client::{ClientReply, ClientRequest};
use quorate_protocol::peer::Announcement;
use quorate_transport::{
    ClientEndpoint, ClientEvent, ClientEvents, ClientLimits, PeerEvent, PeerEvents, PeerNetwork,
    ReplicaTarget, ReplicaTransport, ReplicaTransportConfiguration,
};

/// Samples of each measurement.
const ROUNDS: usize = 20_000;
/// Bytes of a large message.
const LARGE: usize = 1 << 20;
/// Large messages under way at once.
const LARGE_UNDER_WAY: u64 = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::new()?;
    let first = cluster.start(0)?;
    let mut second = cluster.start(1)?;
    while !matches!(second.peer_events.recv().await, Some(PeerEvent::Connected(_))) {}

    tokio::spawn(echo(first.peers.clone(), first.peer_events));
    let samples = ping(&second.peers, &mut second.peer_events, 0).await;
    report("peer message and back", samples);
    let start = Instant::now();
    let samples = ping(&second.peers, &mut second.peer_events, LARGE_UNDER_WAY).await;
    report("the same beside blocks of 1 MiB", samples);
    println!("  with both measured for {:?}, dropped {}", start.elapsed(), second.peers.counters().dropped);

    tokio::spawn(answer(first.client_events));
    let target = cluster.target(0)?;
    let (connection, _notices) = ClientEndpoint::new()?.connect(&target, None).await?;
    let block = BoundedBytes::try_from(vec![7; 160])?;
    let blocks = Bounded::try_from(vec![block])?;
    let request = ClientRequest::PutBlocks { session: Hash::ZERO, blocks };
    let mut samples = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        connection.request(&request).await?;
        samples.push(start.elapsed());
    }
    report("client request and reply", samples);
    Ok(())
}

/// The members' secrets and the ports that were free a moment ago.
struct Cluster {
    members: MemberSet,
    seeds: Vec<NodeSeed>,
    addresses: Vec<SocketAddr>,
}

impl Cluster {
    fn new() -> Result<Self, Box<dyn Error>> {
        let seeds: Vec<NodeSeed> = (1..=4).map(|byte| NodeSeed::from_bytes([byte; 32])).collect();
        let sockets: Vec<UdpSocket> =
            seeds.iter().map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
        let addresses: Vec<SocketAddr> =
            sockets.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?;
        let members = seeds
            .iter()
            .zip(&addresses)
            .map(|(seed, address)| Ok(Member::from_seed(seed, Address::try_from(address.to_string())?)))
            .collect::<Result<_, Box<dyn Error>>>()?;
        Ok(Self { members: MemberSet::new(0, members)?, seeds, addresses })
    }

    fn start(&self, index: u8) -> Result<ReplicaTransport, Box<dyn Error>> {
        let seed = self.seeds.get(usize::from(index)).ok_or("no such replica")?;
        Ok(ReplicaTransport::start(ReplicaTransportConfiguration {
            cluster: Hash::ZERO,
            members: self.members.clone(),
            me: index,
            secret: seed.derive(Role::Transport),
            listen: *self.addresses.get(usize::from(index)).ok_or("no such replica")?,
            addresses: self.members.members().iter().map(|member| member.address.clone()).collect(),
            limits: ClientLimits::default(),
        })?)
    }

    fn target(&self, index: u8) -> Result<ReplicaTarget, Box<dyn Error>> {
        let member = self.members.get(index).ok_or("no such replica")?;
        let (address, key) = (member.address.clone(), member.transport);
        Ok(ReplicaTarget { cluster: Hash::ZERO, replica: index, address, key })
    }
}

/// Sends small messages back, and an empty fetch for each large one.
async fn echo(peers: PeerNetwork, mut events: PeerEvents) {
    while let Some(event) = events.recv().await {
        match event {
            PeerEvent::Message { from, message: PeerMessage::Block { .. }, .. } => {
                peers.send(from, &PeerMessage::FetchBlock { id: Hash::ZERO });
            }
            PeerEvent::Message { from, message, .. } => {
                peers.send(from, &message);
            }
            PeerEvent::Connected(_) | PeerEvent::Disconnected(_) => {}
        }
    }
}

/// One small message at a time, beside so many large ones.
async fn ping(peers: &PeerNetwork, events: &mut PeerEvents, large: u64) -> Vec<Duration> {
    let mut samples = Vec::with_capacity(ROUNDS);
    let content = vec![7; LARGE];
    let descriptor = BlockDescriptor::copies(&content);
    let Ok(content) = BoundedBytes::try_from(content) else { return samples };
    let block = PeerMessage::Block { descriptor, content };
    let small = PeerMessage::Announce(Announcement { epoch: 0, view: 1, entered: true, committed: 2 });
    for _ in 0..large {
        peers.send(0, &block);
    }
    let rounds = if large == 0 { ROUNDS } else { ROUNDS.div_ceil(10) };
    let (mut start, mut blocks, begun) = (Instant::now(), 0_u32, Instant::now());
    peers.send(0, &small);
    while samples.len() < rounds {
        match events.recv().await {
            Some(PeerEvent::Message { message: PeerMessage::FetchBlock { .. }, .. }) => {
                blocks = blocks.saturating_add(1);
                peers.send(0, &block);
            }
            Some(PeerEvent::Message { .. }) => {
                samples.push(start.elapsed());
                start = Instant::now();
                peers.send(0, &small);
            }
            Some(_) => {}
            None => break,
        }
    }
    if large > 0 {
        println!("  {:.0} MiB/s", f64::from(blocks) / begun.elapsed().as_secs_f64());
    }
    samples
}

/// Answers every request with 200 bytes.
async fn answer(mut events: ClientEvents) {
    while let Some(event) = events.recv().await {
        if let ClientEvent::Request { reply, .. } = event
            && let Ok(content) = BoundedBytes::try_from(vec![7; 200])
        {
            reply.send(&ClientReply::Block(content));
        }
    }
}

fn report(what: &str, mut samples: Vec<Duration>) {
    samples.sort_unstable();
    let at = |part: usize| {
        let index = samples.len().saturating_mul(part) / 1000;
        samples.get(index).or(samples.last()).copied().unwrap_or_default()
    };
    println!("{what}: median {:?}, p99 {:?}, p99.9 {:?}", at(500), at(990), at(999));
}
