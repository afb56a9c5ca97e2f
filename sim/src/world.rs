//! The simulated world: replicas, clients, network, and the loop that moves virtual time.
//!
//! Invariant: everything that happens comes out of the queue or follows from what did, in an order that the
//! seed alone decides; the oracle has seen every message before the network does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_consensus::{Configuration, ExecutedHeader, Input, ReadIndex, StaticFault, Token};
use quorate_crypto::{Hash, Signer, Verifier};
use quorate_protocol::{BatchTime, Envelope, Genesis, Header, Height, PeerMessage, ReplicaIndex, Vote};

use crate::byzantine::{Conspiracy, Twins};
use crate::cast;
use crate::client::Client;
use crate::evidence::Slander;
use crate::faults::Fault;
use crate::hostile::{Hostile, HostilePlan};
use crate::latency::Promise;
use crate::machine::{Results, State};
use crate::marks::{Mark, Marks};
use crate::network::{Address, Network, Weather};
use crate::node::Node;
use crate::oracle::{Oracle, Verdict, Violation, broken};
use crate::plan::Plan;
use crate::queue::Queue;
use crate::random::{Random, Stream};
use crate::reader::{Question, Reader, ReaderPlan, Shown};
use crate::scribe::Scribe;
use crate::trace::{Story, Trace, short, word};

/// Most events of a run: one that has more goes round in circles. Ordinary seeds have some 5,000.
pub const EVENTS_MAX: u64 = 1_000_000;

/// Something under way between two end points.
#[derive(Clone, Debug)]
pub enum Packet {
    /// Between replicas.
    Peer(Arc<PeerMessage>),
    /// Between replicas, from a Byzantine one: bytes that need not be a message.
    Bytes(Arc<[u8]>),
    /// From a client: order this envelope.
    Submit(Arc<Envelope>),
    /// To a client: a COMMIT.
    Commit(Vote),
    /// To a client: results.
    Results(Arc<Results>),
    /// From a reader.
    Question(Question),
    /// To a reader: the answer to the question of this number.
    Answer(u64, ReadIndex),
    /// To a reader: a state, to the question of this number.
    Shown(u64, Box<Shown>),
}

/// What is due at a time. Events of a replica name the life that they belong to.
#[derive(Debug)]
pub enum Event {
    /// A packet arrives.
    Arrival(Address, Address, Packet),
    /// The timer of a replica is due.
    Timer(ReplicaIndex, u64, u64),
    /// A sync ends.
    Synced(ReplicaIndex, u64),
    /// Records that were never waited for count as synced (mutant).
    Persisted(ReplicaIndex, u64, Token),
    /// An execution ends.
    Executed(ReplicaIndex, u64, Height, Hash),
    /// A client wants to be woken.
    Wake(u8),
    /// A reader wants to be woken.
    WakeReader(u8),
    /// A hostile client wants to be woken.
    WakeHostile(u8),
    /// A fault of the plan strikes.
    Strike(usize),
    /// A Byzantine replica does something unasked.
    Plot(ReplicaIndex),
    /// What a Byzantine replica held back leaves it.
    Departure(Address, Address, Packet),
    /// A crash of a rolling restart.
    Roll(ReplicaIndex, u64),
    /// A replica restarts.
    Restart(ReplicaIndex, u64),
    /// A replica notices that its connection with another one is up, or lost.
    Linked(ReplicaIndex, ReplicaIndex, bool),
    /// A cut of this number is mended.
    Mend(u64),
    /// A short partition (hazard A16).
    Blip {
        /// A bit for each replica on one side.
        side: u64,
        /// For how long.
        lasts: u64,
    },
    /// The weather of the plan is back.
    Clear,
    /// Everything is repaired for good.
    Calm,
    /// The end, if the cluster has not done what it must.
    Deadline,
}

/// A run in progress.
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) cluster: Hash,
    pub(crate) genesis: Genesis,
    pub(crate) genesis_header: Header,
    pub(crate) genesis_state: State,
    pub(crate) configurations: Vec<Configuration>,
    pub(crate) signers: Vec<Arc<dyn Signer>>,
    pub(crate) verifier: Arc<dyn Verifier>,
    pub(crate) queue: Queue<Event>,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<Client>,
    pub(crate) readers: Vec<Reader>,
    pub(crate) hostile: Vec<Hostile>,
    /// Envelopes that clients sent lately, the last one last.
    pub(crate) sent: Vec<Arc<Envelope>>,
    /// What clients did and saw.
    pub(crate) scribe: Scribe,
    /// The highest height that a client was told of.
    pub(crate) acknowledged: Height,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) marks: Marks,
    pub(crate) disk_random: Random,
    pub(crate) driver_random: Random,
    pub(crate) leaders_random: Random,
    pub(crate) byzantine_random: Random,
    pub(crate) conspiracy: Conspiracy,
    pub(crate) promise: Promise,
    pub(crate) slander: Slander,
    /// Replicas that count among the f because of their disks.
    pub(crate) damaged: BTreeSet<ReplicaIndex>,
    /// Cuts so far.
    pub(crate) cuts: u64,
    /// The latest time that a clock of a correct replica has shown.
    pub(crate) fastest_clock: BatchTime,
    /// When links were mended while somebody waited, if nothing was committed since.
    pub(crate) mended_at: Option<u64>,
    /// The longest time from mended links to the next commit.
    pub(crate) hangover: u64,
    pub(crate) is_calm: bool,
    pub(crate) views_asked: BTreeSet<(ReplicaIndex, u64)>,
    /// The lowest view in which each proposal was seen.
    pub(crate) first_views: BTreeMap<Hash, u64>,
}

impl World {
    /// The world of a plan, in which nothing has happened.
    ///
    /// # Errors
    /// A [`Violation`] if consensus refuses the configuration.
    pub fn new(plan: Plan, story: Story) -> Result<Self, Violation> {
        let n = plan.n;
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&plan.seed.to_le_bytes());
        let genesis = cast::genesis(n, nonce);
        let cluster = genesis.cluster();
        let genesis_state = State::genesis(plan.execution, &genesis, plan.mutant)?;
        let genesis_header = genesis_state.header().clone();
        let configuration = |me| {
            let members = genesis.members.clone();
            Configuration::new(cluster, members, me, genesis_header.clone(), plan.window, plan.parameters)
                .map_err(|error| Violation { rule: "the configuration is usable", detail: error.to_string() })
        };
        let twins = Twins::new(&plan);
        // Every member, and the second copies of those that run twice.
        let members: Vec<_> = genesis.members.indices().chain(twins.members().iter().copied()).collect();
        let configurations = members.iter().copied().map(configuration).collect::<Result<_, _>>()?;
        let replicas = (0..members.len() as ReplicaIndex).map(Address::Replica);
        let clients = (0..plan.clients.len() as u8).map(Address::Client);
        let readers = (0..plan.readers.len() as u8).map(Address::Reader);
        let hostile = (0..plan.hostile.len() as u8).map(Address::Hostile);
        let addresses: Vec<_> = replicas.chain(clients).chain(readers).chain(hostile).collect();
        let network = Network::new(
            Random::new(plan.seed, Stream::Network),
            &addresses,
            plan.speeds.latency,
            plan.speeds.jitter,
            plan.in_order,
            plan.weather,
        );
        let mut client_random = Random::new(plan.seed, Stream::Clients);
        let client = |client_plan: &crate::client::ClientPlan| {
            let workload = plan.execution.workload();
            let signer = cast::client_signer(plan.scheme);
            let verifier = cast::verifier(plan.scheme);
            let random = client_random.fork();
            Client::new(client_plan.clone(), cluster, genesis.members.clone(), signer, verifier, random)
                .working(workload)
        };
        let clients = plan.clients.iter().map(client).collect();
        let reader = |reader_plan: &ReaderPlan| {
            let verifier = cast::verifier(plan.scheme);
            Reader::new(reader_plan.clone(), cluster, genesis.members.clone(), verifier, client_random.fork())
        };
        let readers = plan.readers.iter().map(reader).collect();
        let mut hostile_random = Random::new(plan.seed, Stream::Hostile);
        let hostile = |hostile_plan: &HostilePlan| {
            let workload = plan.execution.workload();
            Hostile::new(hostile_plan.clone(), cluster, plan.scheme, workload, hostile_random.fork())
        };
        let hostile = plan.hostile.iter().map(hostile).collect();
        let node = |(index, member): (usize, &ReplicaIndex)| {
            Node::new(index as ReplicaIndex, plan.clocks[usize::from(*member)])
        };
        let nodes = members.iter().enumerate().map(node).collect();
        let signers = cast::replica_signers(plan.scheme, n);
        let signers = members.iter().map(|member| signers[usize::from(*member)].clone()).collect();
        Ok(Self {
            oracle: Oracle::new(
                genesis.members.quorum(),
                &genesis_header,
                plan.byzantine.keys().copied().collect(),
            ),
            signers,
            verifier: cast::verifier(plan.scheme),
            queue: Queue::default(),
            trace: Trace::new(story),
            marks: Marks::default(),
            disk_random: Random::new(plan.seed, Stream::Disk),
            driver_random: Random::new(plan.seed, Stream::Drivers),
            leaders_random: Random::new(plan.seed ^ u64::MAX, Stream::Leaders),
            byzantine_random: Random::new(plan.seed, Stream::Byzantine),
            conspiracy: Conspiracy::new(plan.byzantine.clone(), twins),
            promise: Promise::new(plan.promise),
            slander: Slander::new(plan.seed, cluster),
            damaged: BTreeSet::new(),
            cuts: 0,
            fastest_clock: BatchTime::default(),
            mended_at: None,
            hangover: 0,
            is_calm: false,
            views_asked: BTreeSet::new(),
            first_views: BTreeMap::new(),
            scribe: Scribe::new(plan.execution),
            hostile,
            sent: Vec::new(),
            plan,
            cluster,
            genesis,
            genesis_header,
            genesis_state,
            configurations,
            network,
            nodes,
            clients,
            readers,
            acknowledged: 0,
        })
    }

    /// Now, in nanoseconds of virtual time.
    pub(crate) const fn now(&self) -> u64 {
        self.queue.now()
    }

    /// Lets everything happen until the cluster has done what it must after the calm.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn run(&mut self) -> Verdict {
        for index in 0..self.nodes.len() as ReplicaIndex {
            self.restart(index)?;
        }
        for client in 0..self.clients.len() as u8 {
            self.wake_later(client);
        }
        for reader in 0..self.readers.len() as u8 {
            self.queue.push(self.readers[usize::from(reader)].wake_at(), Event::WakeReader(reader));
        }
        for hostile in 0..self.hostile.len() as u8 {
            self.wake_hostile_later(hostile);
        }
        self.begin_plots();
        for (position, scheduled) in self.plan.faults.clone().iter().enumerate() {
            self.queue.push(scheduled.at, Event::Strike(position));
        }
        self.queue.push(self.plan.calm_at, Event::Calm);
        self.queue.push(self.plan.calm_at + self.plan.patience, Event::Deadline);
        while let Some(event) = self.queue.pop() {
            self.handle(event)?;
            if self.is_calm && self.is_finished() {
                return self.finish();
            }
            if self.trace.events() > self.plan.events_max {
                return broken("a run ends", format!("{} events", self.plan.events_max));
            }
        }
        broken("a run ends", "the queue is empty".to_owned())
    }

    /// The highest view that a correct replica has entered.
    pub(crate) fn highest_view(&self) -> u64 {
        let entered = |node: &Node| node.memory.as_ref().map(|memory| memory.replica.status());
        let entered = self.correct().filter_map(entered).filter(|status| status.entered);
        entered.map(|status| status.view).max().unwrap_or(0)
    }

    /// All clients are done and all replicas at the same height, which is that of the last decision.
    fn is_finished(&self) -> bool {
        let height = self.oracle.decided_height();
        let reached = |node: &Node| {
            node.memory.as_ref().is_some_and(|memory| memory.replica.committed_height() == height)
        };
        self.is_served() && self.correct().all(reached)
    }

    /// All that clients and readers wanted is done.
    pub(crate) fn is_served(&self) -> bool {
        self.clients.iter().all(Client::is_done) && self.readers.iter().all(Reader::is_done)
    }

    /// The last checks, over the whole history.
    fn finish(&mut self) -> Verdict {
        self.oracle.ledger().check()?;
        let next = self.oracle.ledger().next().clone();
        for node in self.correct() {
            let Some(memory) = &node.memory else { continue };
            for (session, expected) in &next {
                let found = memory.committed.0.session_next(session);
                if found != Some(*expected) {
                    let detail = format!("replica {}: {found:?}, expected {expected}", node.index);
                    return broken("results exactly once", detail);
                }
            }
        }
        for client in &self.clients {
            if next.get(&client.session()).copied().unwrap_or(0) != client.next() {
                return broken("results exactly once", format!("session {}", short(&client.session())));
            }
        }
        let foreign = self.scribe.close(self.oracle.ledger())?;
        self.marks.add(Mark::HostileExecuted, foreign);
        let skipped = self.oracle.ledger().skipped();
        self.marks.add(Mark::Skipped, skipped);
        self.frame_correct_replicas()
    }

    fn handle(&mut self, event: Event) -> Verdict {
        match event {
            Event::Arrival(from, to, packet) => self.arrive(from, to, packet),
            Event::Timer(index, life, timer) => {
                let Some(node) = self.live(index, life) else { return Ok(()) };
                if node.memory.as_ref().is_none_or(|memory| memory.timer != timer) {
                    return Ok(());
                }
                if self.defer(index, Event::Timer(index, life, timer)) {
                    return Ok(());
                }
                self.trace
                    .note(self.queue.now(), 1, [u64::from(index), 0, 0, 0], || format!("{index}: timer"));
                self.feed(index, Input::Tick)
            }
            Event::Synced(index, life) => self.synced(index, life),
            Event::Persisted(index, life, token) => {
                if self.live(index, life).is_none() {
                    return Ok(());
                }
                self.feed(index, Input::Persisted(token))
            }
            Event::Executed(index, life, height, digest) => self.executed(index, life, height, digest),
            Event::Wake(client) => self.wake(client),
            Event::WakeReader(reader) => self.wake_reader(reader),
            Event::WakeHostile(hostile) => {
                self.wake_hostile(hostile);
                Ok(())
            }
            Event::Strike(position) => {
                let fault = self.plan.faults[position].fault.clone();
                if self.is_calm { Ok(()) } else { self.strike(&fault) }
            }
            Event::Plot(index) => self.plot(index),
            Event::Departure(from, to, packet) => {
                self.transmit(from, to, &packet);
                Ok(())
            }
            Event::Roll(index, down) => {
                if self.is_calm {
                    Ok(())
                } else {
                    self.strike(&Fault::Crash { target: crate::faults::Target::Replica(index), down })
                }
            }
            Event::Restart(index, life) => {
                if self.nodes[usize::from(index)].life == life && !self.nodes[usize::from(index)].is_up() {
                    self.restart(index)?;
                }
                Ok(())
            }
            Event::Linked(index, peer, up) => {
                let stale = up != self.nodes[usize::from(peer)].is_up();
                if stale || self.defer(index, Event::Linked(index, peer, up)) {
                    return Ok(());
                }
                self.feed(index, if up { Input::Connected(peer) } else { Input::Disconnected(peer) })
            }
            Event::Mend(number) => {
                self.trace.note(self.queue.now(), 2, [number, 0, 0, 0], || "links are mended".to_owned());
                self.network.mend(number);
                self.mended();
                Ok(())
            }
            Event::Blip { side, lasts } => {
                self.blip(side, lasts);
                Ok(())
            }
            Event::Clear => {
                let weather = if self.is_calm { Weather::CALM } else { self.plan.weather };
                self.network.set_weather(weather);
                Ok(())
            }
            Event::Calm => self.calm(),
            Event::Deadline => self.not_finished(),
        }
    }

    /// The replica, if it is still in that life.
    pub(crate) fn live(&self, index: ReplicaIndex, life: u64) -> Option<&Node> {
        self.nodes.get(usize::from(index)).filter(|node| node.life == life && node.is_up())
    }

    /// Puts the event off if the replica stands still.
    pub(crate) fn defer(&mut self, index: ReplicaIndex, event: Event) -> bool {
        let until = self.nodes[usize::from(index)].paused_until;
        let paused = until > self.queue.now();
        if paused {
            self.queue.push(until, event);
        }
        paused
    }

    fn arrive(&mut self, from: Address, to: Address, packet: Packet) -> Verdict {
        if self.plan.cuts_lose && self.network.is_cut(from, to) {
            return Ok(());
        }
        match (from, to, packet) {
            (_, Address::Client(client), packet) => self.client_hears(client, packet),
            (Address::Replica(from), Address::Reader(reader), Packet::Answer(number, answer)) => {
                self.reader_hears(reader, self.member(from), number, &answer)
            }
            (_, Address::Reader(reader), Packet::Shown(number, shown)) => {
                self.reader_sees(reader, number, &shown)
            }
            (_, Address::Replica(index), _) if !self.nodes[usize::from(index)].is_up() => Ok(()),
            (_, Address::Replica(index), packet)
                if self.nodes[usize::from(index)].paused_until > self.queue.now() =>
            {
                let until = self.nodes[usize::from(index)].paused_until;
                self.queue.push(until, Event::Arrival(from, to, packet));
                Ok(())
            }
            (Address::Replica(from), Address::Replica(to), Packet::Peer(message)) => {
                self.peer_hears(from, to, &message)
            }
            (Address::Replica(from), Address::Replica(to), Packet::Bytes(bytes)) => {
                self.bytes_arrive(from, to, &bytes)
            }
            (Address::Client(client), Address::Replica(to), Packet::Submit(envelope)) => {
                self.request(to, client, &envelope)
            }
            (from @ Address::Hostile(_), Address::Replica(to), Packet::Submit(envelope)) => {
                self.submitted(to, from, &envelope)
            }
            (Address::Reader(reader), Address::Replica(to), Packet::Question(question)) => {
                self.question(to, reader, question)
            }
            _ => Ok(()),
        }
    }

    fn executed(&mut self, index: ReplicaIndex, life: u64, height: Height, digest: Hash) -> Verdict {
        if self.live(index, life).is_none() || self.defer(index, Event::Executed(index, life, height, digest))
        {
            return Ok(());
        }
        let Some(memory) = &mut self.nodes[usize::from(index)].memory else { return Ok(()) };
        let Some(outcome) = memory.running.remove(&digest) else { return Ok(()) };
        let header = outcome.as_ref().ok().map(|executed| executed.state.header().hash());
        let operands = [u64::from(index), height, word(&digest), header.as_ref().map_or(0, word)];
        self.trace.note(self.queue.now(), 3, operands, || {
            let header = header.as_ref().map_or("a fault".to_owned(), short);
            format!("{index}: executed h{height} proposal {} to header {header}", short(&digest))
        });
        let outcome = match outcome {
            Ok(executed) => {
                let header = executed.state.header().clone();
                let advanced = executed.advanced.clone();
                let wake_at = executed.wake_at;
                memory.speculative.insert(digest, executed);
                Ok(ExecutedHeader { header, advanced, wake_at })
            }
            Err(_) => Err(StaticFault),
        };
        if let Some(header) = header {
            self.oracle.executed(index, digest, header)?;
        }
        self.feed(index, Input::Executed { height, digest, outcome })
    }

    fn not_finished(&self) -> Verdict {
        let mut detail = format!("height {} is decided", self.oracle.decided_height());
        for node in &self.nodes {
            let status = node.memory.as_ref().map(|memory| memory.replica.status());
            detail.push_str(&format!("\n  replica {}: {status:?}", node.index));
        }
        for (index, client) in self.clients.iter().enumerate() {
            let missing = client.missing();
            detail.push_str(&format!("\n  client {index}: done {}, misses {missing:?}", client.is_done()));
        }
        for (index, reader) in self.readers.iter().enumerate() {
            detail.push_str(&format!("\n  reader {index}: done {}", reader.is_done()));
        }
        broken("all is done after the calm", detail)
    }
}
