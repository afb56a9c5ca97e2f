//! One replica of four, the other three being whatever the input makes of them.
//!
//! An input is a program: time passes, disks and executions complete, clients ask, the others send messages that
//! carry valid signatures and say anything, and the replica restarts out of its log. Properties, after each
//! instruction: no panic; `Replica::invariants`; no two different votes of the replica at one (view, height,
//! kind), over restarts as well (PR1, AU11); whatever it broadcasts passes the door of the others; what it calls
//! evidence is evidence and never names itself (AU9); committed heights are consecutive and certified; its log
//! can be recovered; pool and memory stay within their bounds (RX1, A12).

mod liar;
mod stand_in;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quorate_audit::Court;
use quorate_consensus::{
    Configuration, Effect, ExecutedHeader, Input, Monotonic, NoEnvelopes, Parameters, PoolBounds, Replica,
    StaticFault, Token, door,
};
use quorate_crypto::{Hash, KeyedHashSigner};
use quorate_protocol::record::Record;
use quorate_protocol::{
    BatchTime, Envelope, Evidence, Height, PeerMessage, Proposal, ReplicaIndex, View, Vote, VoteKind,
};

use crate::memory::bounded;
use crate::samples::{self, members};
use crate::source::Source;
use stand_in::State;

const SECOND: u64 = 1_000_000_000;
/// Batch time of the genesis.
const START: u64 = 1_700_000_000 * SECOND;
/// Instructions of one program, repetitions included.
const INSTRUCTIONS_MAX: usize = 600;
/// Blocks that the liars know.
const BLOCKS_MAX: usize = 48;
const POOL_ENVELOPES: usize = 8;
/// What replica, driver and liars may hold together, whatever the program does and however often.
const BYTES_MAX: usize = 24 << 20;

/// A block that somebody made, with what an honest replica computes from it.
#[derive(Clone)]
pub struct Known {
    pub proposal: Proposal,
    pub state: State,
}

/// Where a persist waits for the disk.
type Unsynced = (Token, Vec<Record>, Vec<Effect>);

pub struct Driver {
    me: ReplicaIndex,
    configuration: Configuration,
    replica: Replica,
    now: u64,
    wall_offset: i64,
    log: Vec<Record>,
    unsynced: VecDeque<Unsynced>,
    executions: VecDeque<(Height, Hash, Hash, Arc<Proposal>)>,
    /// By digest of the proposal.
    states: BTreeMap<Hash, State>,
    /// What the liars build on; genesis first.
    blocks: Vec<Known>,
    committed: Hash,
    height: Height,
    votes: BTreeMap<(View, Height, VoteKind), Hash>,
}

fn configuration(me: ReplicaIndex) -> Configuration {
    let pool = PoolBounds {
        envelopes: POOL_ENVELOPES,
        bytes: 2 << 20,
        envelopes_per_principal: POOL_ENVELOPES / 2,
        envelopes_per_session: 4,
    };
    let parameters = Parameters { pool, ..Parameters::default() };
    let cluster = samples::cluster();
    let genesis = cluster.configuration.genesis().clone();
    Configuration::new(cluster.id, members(4).members.clone(), me, genesis, 2, parameters)
        .expect("a usable configuration")
}

pub fn step(data: &[u8]) {
    bounded(BYTES_MAX, || run(data));
}

fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let mut driver = Driver::new(ReplicaIndex::try_from(source.below(4)).expect("one of four"));
    let rounds = 1 + source.below(4);
    let program = source.rest();
    let mut left = INSTRUCTIONS_MAX;
    for _ in 0..rounds {
        let mut source = Source::new(program);
        while !source.is_empty() && left > 0 {
            left -= 1;
            driver.instruction(&mut source);
            driver.replica.invariants();
            assert!(driver.replica.pool_len() <= POOL_ENVELOPES, "the pool is bounded (RX1)");
        }
    }
}

impl Driver {
    fn new(me: ReplicaIndex) -> Self {
        let configuration = configuration(me);
        let genesis = State::genesis(configuration.genesis().clone());
        let (replica, effects) = recover(&configuration, Vec::new(), 0);
        let empty = Proposal {
            parent: Hash::ZERO,
            time: BatchTime(START),
            envelopes: Vec::new().try_into().expect("none"),
        };
        let digest = genesis.header.proposal;
        let mut driver = Self {
            me,
            configuration,
            replica,
            now: 0,
            wall_offset: 0,
            log: Vec::new(),
            unsynced: VecDeque::new(),
            executions: VecDeque::new(),
            states: BTreeMap::from([(digest, genesis.clone())]),
            blocks: vec![Known { proposal: empty, state: genesis }],
            committed: digest,
            height: 0,
            votes: BTreeMap::new(),
        };
        driver.carry_out(effects);
        driver.sync_one();
        driver
    }

    fn wall(&self) -> BatchTime {
        BatchTime((START + self.now).saturating_add_signed(self.wall_offset))
    }

    fn instruction(&mut self, source: &mut Source<'_>) {
        match source.below(32) {
            0 => self.pass(source),
            1..=3 => drop(self.sync_one()),
            4..=6 => self.execute_one(source),
            7 => self.request(source),
            8 => self.input(Input::Resign),
            9 => self.restart(),
            10 => while self.sync_one() {},
            11 => self.await_certificate(source),
            12 => {
                let peer = self.other(source);
                self.input(if source.flag() { Input::Connected(peer) } else { Input::Disconnected(peer) });
            }
            _ => {
                let (from, message) = self.lie(source);
                self.deliver(from, message);
            }
        }
    }

    fn pass(&mut self, source: &mut Source<'_>) {
        let passed = source.choose(&[0, 1, SECOND / 100, SECOND / 4, SECOND, 3 * SECOND, 10 * SECOND]);
        self.now = self.now.saturating_add(passed);
        if source.below(8) == 0 {
            self.wall_offset = source.choose(&[0, 3_600_000_000_000, -3_600_000_000_000, i64::MAX, i64::MIN]);
        }
        self.input(Input::Tick);
    }

    fn input(&mut self, input: Input) {
        let (now, wall) = (Monotonic(self.now), self.wall());
        let effects = self.replica.step(now, wall, input);
        self.carry_out(effects);
    }

    fn sync_one(&mut self) -> bool {
        let Some((token, records, then)) = self.unsynced.pop_front() else { return false };
        self.log.extend(records);
        self.carry_out(then);
        self.input(Input::Persisted(token));
        true
    }

    fn execute_one(&mut self, source: &mut Source<'_>) {
        let Some((height, digest, parent, proposal)) = self.executions.pop_front() else { return };
        let fault = source.below(16);
        let mut outcome = Err(StaticFault);
        if fault != 1 {
            let before = self.states.get(&parent).expect("the state of an executed parent").clone();
            let state = before.execute(digest, &proposal, fault == 2);
            let advanced = state.advanced_since(&before);
            let wake_at = (fault == 3).then_some(BatchTime(START));
            outcome = Ok(ExecutedHeader { header: state.header.clone(), advanced, wake_at });
            self.states.insert(digest, state);
        }
        self.input(Input::Executed { height, digest, outcome });
    }

    fn request(&mut self, source: &mut Source<'_>) {
        let envelope = self.envelope(source);
        let next = self.next_of(&envelope);
        let verifier = &members(4).verifier;
        match door::verify_envelope(&self.configuration, verifier, &self.replica, envelope) {
            Ok(envelope) => self.input(Input::Request { envelope, next }),
            Err(rejection) => panic!("an honest client is turned away: {rejection}"),
        }
    }

    fn next_of(&self, envelope: &Envelope) -> Option<u64> {
        let state = self.states.get(&self.committed)?;
        Some(state.sessions.get(&envelope.body.session).copied().unwrap_or(0))
    }

    fn await_certificate(&mut self, source: &mut Source<'_>) {
        let certificate = self.some_certificate(source);
        let verifier = &members(4).verifier;
        if let Ok(certificate) = door::verify_certificate(&self.configuration, verifier, certificate) {
            self.input(Input::Await(certificate));
        }
    }

    fn deliver(&mut self, from: ReplicaIndex, message: PeerMessage) {
        let Some(message) = self.replica.screen(from, message) else { return };
        let verifier = &members(4).verifier;
        let verified = door::verify(&self.configuration, verifier, &self.replica, from, message);
        let message = match verified {
            Ok(message) => message,
            Err(refused) => {
                if let Some(evidence) = refused.into_evidence(&self.configuration) {
                    self.judge(&evidence);
                }
                return;
            }
        };
        if let PeerMessage::Forward(envelope) = message.value() {
            let next = self.next_of(envelope);
            let known = &self.replica;
            if let Ok(envelope) =
                door::verify_envelope(&self.configuration, verifier, known, envelope.clone())
            {
                self.input(Input::Request { envelope, next });
            }
        } else {
            self.input(Input::Message { from, message });
        }
    }

    /// Stops the replica, loses what was not synced, and starts it out of its log.
    fn restart(&mut self) {
        self.unsynced.clear();
        self.executions.clear();
        let halted = self.replica.halted().is_some();
        let log = self.log.clone();
        let (replica, effects) = recover(&self.configuration, log, self.now);
        assert!(halted || replica.committed_height() <= self.height, "more was recovered than committed");
        self.replica = replica;
        self.committed = self.replica.committed_header().proposal;
        self.height = self.replica.committed_height();
        self.replica.set_wake_at(None);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut waiting: VecDeque<Effect> = effects.into();
        while let Some(effect) = waiting.pop_front() {
            match effect {
                Effect::Send { message, .. } | Effect::Broadcast { message } => self.watch(&message),
                Effect::NotifyClients { vote, .. } => self.watch_vote(&vote),
                Effect::Persist { token, records, then } => self.unsynced.push_back((token, records, then)),
                Effect::Execute { height, digest, parent, proposal } => {
                    self.learn(digest, parent, &proposal);
                    self.executions.push_back((height, digest, parent, proposal));
                }
                Effect::Committed { height, header, certificate, digest, .. } => {
                    let set = members(4);
                    let cluster = samples::cluster().id;
                    assert_eq!(certificate.verify(&cluster, &set.members, &set.verifier), Ok(()));
                    assert_eq!((certificate.height, certificate.header_hash), (height, header.hash()));
                    assert_eq!(height, self.height + 1, "committed heights are consecutive");
                    assert_eq!(self.states.get(&digest).map(|state| &state.header), Some(&header));
                    (self.height, self.committed) = (height, digest);
                }
                Effect::Forget { digest } => {
                    self.executions.retain(|(_, known, _, _)| *known != digest);
                }
                Effect::Returned { envelopes } => {
                    for envelope in envelopes {
                        let next = self.next_of(envelope.value());
                        let (now, wall) = (Monotonic(self.now), self.wall());
                        waiting.extend(self.replica.step(now, wall, Input::Request { envelope, next }));
                    }
                }
                Effect::Evidence(evidence) => self.judge(&evidence),
                Effect::Forged(vote) => {
                    let key = members(4).members.get(vote.replica).expect("a member").consensus;
                    let statement = vote.statement(samples::cluster().id);
                    let verdict = quorate_crypto::Verifier::verify(
                        &members(4).verifier,
                        &key,
                        &statement,
                        &vote.signature,
                    );
                    assert!(
                        verdict.is_err() && vote.replica != self.me,
                        "a good vote is called forged (A13)"
                    );
                }
                Effect::ServeCommitted { .. } | Effect::SetTimer { .. } | Effect::Halt { .. } => {}
            }
        }
    }

    /// Keeps what the replica itself proposed, so that the others can vote on it.
    fn learn(&mut self, digest: Hash, parent: Hash, proposal: &Proposal) {
        let known = self.blocks.iter().any(|known| known.state.header.proposal == digest);
        let Some(parent) = self.states.get(&parent).filter(|_| !known && self.blocks.len() < BLOCKS_MAX)
        else {
            return;
        };
        let state = parent.execute(digest, proposal, false);
        self.blocks.push(Known { proposal: proposal.clone(), state });
    }

    /// What an honest replica sends, its peers let in; and it never contradicts itself.
    fn watch(&mut self, message: &PeerMessage) {
        let other = (self.me + 1) % 4;
        let verdict = door::verify(peer(other), &members(4).verifier, &NoEnvelopes, self.me, message.clone());
        assert!(verdict.is_ok(), "a message that the others refuse: {verdict:?}");
        if let PeerMessage::Votes(votes) = message {
            votes.iter().for_each(|vote| self.watch_vote(vote));
        }
    }

    fn watch_vote(&mut self, vote: &Vote) {
        if vote.replica == self.me {
            let first = *self.votes.entry((vote.view, vote.height, vote.kind)).or_insert(vote.header);
            assert_eq!(first, vote.header, "two different votes: {vote:?}");
        }
    }

    /// Whatever the replica calls evidence convinces a court, and is not against itself.
    fn judge(&self, evidence: &Evidence) {
        let set = members(4);
        let court = Court {
            cluster: samples::cluster().id,
            members: &set.members,
            genesis: self.configuration.genesis(),
            verifier: &set.verifier,
        };
        let verdict = court.judge(evidence);
        assert!(verdict.is_ok(), "no evidence: {verdict:?} {evidence:?}");
        assert_ne!(evidence.culprit, self.me, "it accuses itself");
    }
}

/// The configurations of the replicas, as their peers need them.
fn peer(index: ReplicaIndex) -> &'static Configuration {
    static PEERS: std::sync::OnceLock<Vec<Configuration>> = std::sync::OnceLock::new();
    &PEERS.get_or_init(|| (0..4).map(configuration).collect())[usize::from(index)]
}

fn recover(configuration: &Configuration, log: Vec<Record>, now: u64) -> (Replica, Vec<Effect>) {
    let secret = &members(4).secrets[usize::from(configuration.me())];
    let signer = Arc::new(KeyedHashSigner::new(secret));
    let verifier = Arc::new(members(4).verifier.clone());
    let wall = BatchTime(START + now);
    Replica::recover(configuration.clone(), signer, verifier, log, Monotonic(now), wall)
        .expect("a replica can start out of what it wrote itself")
}

/// Programs that walk the usual paths, so that a fuzzer need not find them first: each of the four replicas
/// alone with the noise, a proposal that is voted on up to its commit, and a change of view.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples::noise();
    seeds.extend(
        (0..4)
            .map(|me| [vec![me, 0], liar::a_commit(me), liar::a_view_change(), liar::a_commit(me)].concat()),
    );
    seeds
}
