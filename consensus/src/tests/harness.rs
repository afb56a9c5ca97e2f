//! A network of replicas in lockstep: messages in order, disks and executions under the test's control.
//!
//! Invariants checked at every step: each replica's own, one header per committed height everywhere, heights
//! delivered one by one, no two different votes of a replica at one (view, height, kind) on the wire, and no
//! new vote below a view that it has asked for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quorate_audit::Court;
use quorate_crypto::{
    Address, Certificate, CertificateKind, Hash, KeyedHashSigner, KeyedHashVerifier, Member, MemberSet,
    NodeSeed, Role, SecretKey, Signer, derive_hash,
};
use quorate_protocol::record::Record;
use quorate_protocol::{
    BatchTime, Envelope, EnvelopeBody, Evidence, Header, Height, Operation, OperationBody, PeerMessage,
    Proposal, ReplicaIndex, SessionId, View, Vote, VoteKind,
};

use super::signatures::CountingVerifier;
use crate::{
    Configuration, Effect, ExecutedHeader, HaltReason, Input, Monotonic, Parameters, Rejection, Replica,
    Token, door,
};

pub const MILLISECOND: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MILLISECOND;
/// Batch time when the network starts.
pub const START: u64 = 1_700_000_000 * SECOND;

#[derive(Clone, Debug)]
pub struct State {
    pub header: Header,
    pub sessions: BTreeMap<SessionId, u64>,
    /// (session, sequence, digest of its envelope) in order of execution.
    pub executed: Vec<(SessionId, u64, Hash)>,
}

type Filter = Box<dyn FnMut(ReplicaIndex, ReplicaIndex, &PeerMessage) -> bool>;

#[derive(Default)]
pub struct Node {
    pub replica: Option<Replica>,
    pub log: Vec<Record>,
    pub unsynced: VecDeque<(Token, Vec<Record>, Vec<Effect>)>,
    pub executions: VecDeque<(Height, Hash, Hash, Arc<Proposal>)>,
    pub states: BTreeMap<Hash, State>,
    pub committed: Option<State>,
    pub timer: Option<u64>,
    pub notified: Vec<Vote>,
    pub halted: Option<HaltReason>,
    pub evidence: Vec<Evidence>,
    pub forged: Vec<Vote>,
    pub hold_disk: bool,
    pub hold_execution: bool,
    /// From this height on its execution is wrong.
    pub diverges_at: Option<Height>,
    /// Its execution is wrong for batches of this session.
    pub diverges_on: Option<SessionId>,
    pub wake_at: Option<u64>,
    pub clock_offset: i64,
    /// How often it has synced.
    pub syncs: usize,
    /// Crash at this sync, before (false) or after (true) it, and before what depends on it is sent.
    pub crash_at: Option<(usize, bool)>,
}

pub struct Net {
    pub nodes: Vec<Node>,
    pub wire: VecDeque<(ReplicaIndex, ReplicaIndex, PeerMessage)>,
    pub now: u64,
    pub configuration: Configuration,
    pub parameters: Parameters,
    /// Messages for which this is true are lost.
    pub lose: Filter,
    pub headers: BTreeMap<Height, Header>,
    pub rejections: Vec<Rejection>,
    pub sent: BTreeMap<&'static str, usize>,
    secrets: Vec<SecretKey>,
    members: MemberSet,
    window: u64,
    pub verifiers: Vec<Arc<CountingVerifier>>,
    pub votes: BTreeMap<(ReplicaIndex, View, Height, VoteKind), Hash>,
}

fn seed(kind: u8, index: u8) -> NodeSeed {
    let mut bytes = [kind; 32];
    bytes[31] = index;
    NodeSeed::from_bytes(bytes)
}

pub fn client_key(client: u8) -> SecretKey {
    seed(200, client).derive(Role::Principal)
}

pub fn session_of(client: u8) -> SessionId {
    derive_hash("quorate test session", &[&[client]])
}

impl Net {
    pub fn new(n: usize) -> Self {
        Self::with(n, 4, Parameters::default())
    }

    pub fn with(n: usize, window: u64, parameters: Parameters) -> Self {
        let n = u8::try_from(n).unwrap();
        let members: Vec<Member> =
            (0..n).map(|i| Member::from_seed(&seed(1, i), Address::try_from("test:1").unwrap())).collect();
        let members = MemberSet::new_unchecked_keys(0, members).unwrap();
        let cluster = derive_hash("quorate test cluster", &[&[n]]);
        let secrets: Vec<SecretKey> = (0..n).map(|i| seed(1, i).derive(Role::Consensus)).collect();
        let clients: Vec<SecretKey> = (0..32).map(client_key).collect();
        let verifier = KeyedHashVerifier::new(secrets.iter().chain(&clients));
        let verifiers = (0..n).map(|_| Arc::new(CountingVerifier::new(verifier.clone()))).collect();
        let genesis = Header {
            version: 1,
            cluster: Hash::ZERO,
            epoch: 0,
            height: 0,
            time: BatchTime(START - SECOND),
            previous: Hash::ZERO,
            proposal: cluster,
            state_root: Hash::ZERO,
            receipts_root: Hash::ZERO,
            first_operation: 0,
            operation_count: 0,
            log_root: Hash::ZERO,
            members: members.digest(),
            touched_root: Hash::ZERO,
            touched_count: 0,
        };
        let configuration =
            Configuration::new(cluster, members.clone(), 0, genesis, window, parameters).unwrap();
        let mut net = Self {
            nodes: (0..n).map(|_| Node::default()).collect(),
            wire: VecDeque::new(),
            now: 0,
            configuration,
            parameters,
            lose: Box::new(|_, _, _| false),
            headers: BTreeMap::new(),
            rejections: Vec::new(),
            sent: BTreeMap::new(),
            secrets,
            members,
            window,
            verifiers,
            votes: BTreeMap::new(),
        };
        for i in 0..n {
            net.restart(i);
        }
        net.settle();
        net
    }

    pub fn n(&self) -> u8 {
        u8::try_from(self.nodes.len()).unwrap()
    }

    pub fn wall(&self, i: ReplicaIndex) -> BatchTime {
        BatchTime((START + self.now).saturating_add_signed(self.nodes[usize::from(i)].clock_offset))
    }

    pub fn configuration_of(&self, i: ReplicaIndex) -> Configuration {
        let genesis = self.configuration.genesis().clone();
        let cluster = *self.configuration.cluster();
        Configuration::new(cluster, self.members.clone(), i, genesis, self.window, self.parameters).unwrap()
    }

    pub fn signer(&self, i: ReplicaIndex) -> KeyedHashSigner {
        KeyedHashSigner::new(&self.secrets[usize::from(i)])
    }

    pub fn node(&mut self, i: ReplicaIndex) -> &mut Node {
        &mut self.nodes[usize::from(i)]
    }

    pub fn replica(&self, i: ReplicaIndex) -> &Replica {
        self.nodes[usize::from(i)].replica.as_ref().expect("replica is up")
    }

    pub fn height(&self, i: ReplicaIndex) -> Height {
        self.replica(i).committed_height()
    }

    /// Takes a replica down; what was not synced is lost.
    pub fn crash(&mut self, i: ReplicaIndex) {
        let node = self.node(i);
        node.replica = None;
        node.unsynced.clear();
        node.executions.clear();
        node.timer = None;
    }

    /// Starts a replica out of its log.
    pub fn restart(&mut self, i: ReplicaIndex) {
        self.crash(i);
        let genesis = State {
            header: self.configuration.genesis().clone(),
            sessions: BTreeMap::new(),
            executed: Vec::new(),
        };
        let cluster = *self.configuration.cluster();
        let mut batches = BTreeMap::new();
        let mut state = genesis;
        for record in &self.node(i).log {
            match record {
                Record::Proposed { batch, .. } => {
                    batches.insert(batch.header.hash(), batch.proposal.clone());
                }
                Record::Committed(certificate) => {
                    let proposal = &batches[&certificate.header_hash];
                    let digest = proposal.digest(&cluster, 0, certificate.height);
                    state = execute(&state, certificate.height, digest, proposal, false);
                    assert_eq!(state.header.hash(), certificate.header_hash, "replay reproduces headers");
                }
                _ => {}
            }
        }
        let (configuration, signer) = (self.configuration_of(i), Arc::new(self.signer(i)));
        let (now, wall) = (Monotonic(self.now), self.wall(i));
        let log = self.node(i).log.clone();
        let (replica, effects) =
            Replica::recover(configuration, signer, self.verifiers[usize::from(i)].clone(), log, now, wall)
                .expect("the log is sound");
        assert_eq!(replica.committed_header(), &state.header, "log and state agree on what is committed");
        let node = self.node(i);
        node.replica = Some(replica);
        node.states = BTreeMap::from([(state.header.proposal, state.clone())]);
        node.committed = Some(state);
        self.handle(i, effects);
    }

    pub fn step(&mut self, i: ReplicaIndex, input: Input) {
        let (now, wall) = (Monotonic(self.now), self.wall(i));
        let Some(replica) = self.node(i).replica.as_mut() else { return };
        let effects = replica.step(now, wall, input);
        replica.invariants();
        self.handle(i, effects);
    }

    fn handle(&mut self, i: ReplicaIndex, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.transmit(i, to, &message),
                Effect::Broadcast { message } => {
                    for to in (0..self.n()).filter(|to| *to != i) {
                        self.transmit(i, to, &message);
                    }
                }
                Effect::NotifyClients { vote, .. } => self.node(i).notified.push(vote),
                Effect::Persist { token, records, then } => {
                    self.node(i).unsynced.push_back((token, records, then));
                }
                Effect::Execute { height, digest, parent, proposal } => {
                    assert!(self.node(i).states.contains_key(&parent), "the parent's state is there");
                    self.node(i).executions.push_back((height, digest, parent, proposal));
                }
                Effect::Committed { height, header, certificate, digest, proposal, .. } => {
                    self.committed(i, height, &header, &certificate, digest, &proposal);
                }
                Effect::Forget { digest } => {
                    self.node(i).states.remove(&digest);
                    self.node(i).executions.retain(|(_, known, _, _)| *known != digest);
                }
                Effect::Returned { envelopes } => {
                    for envelope in envelopes {
                        let next = self.next_of(i, envelope.value());
                        self.step(i, Input::Request { envelope, next });
                    }
                }
                Effect::ServeCommitted { to, from } => self.serve(i, to, from),
                Effect::SetTimer { at } => self.node(i).timer = Some(at.0),
                Effect::Halt { reason } => self.node(i).halted = Some(reason),
                Effect::Evidence(evidence) => self.convicts(i, *evidence),
                Effect::Forged(vote) => self.node(i).forged.push(vote),
            }
        }
    }

    /// Whatever a replica reports convinces anybody.
    fn convicts(&mut self, i: ReplicaIndex, evidence: Evidence) {
        let court = Court {
            cluster: *self.configuration.cluster(),
            members: &self.members,
            genesis: self.configuration.genesis(),
            verifier: &self.verifiers[usize::from(i)].inner,
        };
        let guilt = court.judge(&evidence).unwrap_or_else(|refusal| panic!("{refusal}: {evidence:?}"));
        assert_eq!(guilt.culprit, evidence.culprit);
        self.node(i).evidence.push(evidence);
    }

    fn committed(
        &mut self,
        i: ReplicaIndex,
        height: Height,
        header: &Header,
        certificate: &Certificate,
        digest: Hash,
        proposal: &Proposal,
    ) {
        let cluster = *self.configuration.cluster();
        assert_eq!(
            certificate.verify(&cluster, &self.members, &self.verifiers[usize::from(i)].inner),
            Ok(())
        );
        assert_eq!((certificate.kind, certificate.height), (CertificateKind::Commit, height));
        assert_eq!(certificate.header_hash, header.hash());
        assert_eq!(proposal.digest(&cluster, 0, height), digest);
        let node = self.node(i);
        assert_eq!(node.committed.as_ref().unwrap().header.height + 1, height, "heights come one by one");
        let state = node.states[&digest].clone();
        assert_eq!(&state.header, header);
        let before = node.committed.replace(state).unwrap();
        node.states.remove(&before.header.proposal);
        let agreed = self.headers.entry(height).or_insert_with(|| header.clone());
        assert_eq!(agreed, header, "fork at height {height}");
    }

    fn serve(&mut self, i: ReplicaIndex, to: ReplicaIndex, from: Height) {
        let mut batches = BTreeMap::new();
        let mut served = Vec::new();
        for record in &self.node(i).log {
            match record {
                Record::Proposed { batch, .. } => {
                    batches.insert(batch.header.hash(), batch.clone());
                }
                Record::Committed(certificate) if certificate.height >= from && served.len() < 64 => {
                    served.push(quorate_protocol::peer::CommittedBatch {
                        batch: batches[&certificate.header_hash].clone(),
                        certificate: certificate.clone(),
                    });
                }
                _ => {}
            }
        }
        let message = PeerMessage::Committed(served.try_into().unwrap());
        self.transmit(i, to, &message);
    }

    fn transmit(&mut self, from: ReplicaIndex, to: ReplicaIndex, message: &PeerMessage) {
        self.watch(from, message);
        *self.sent.entry(kind_of(message)).or_default() += 1;
        if !(self.lose)(from, to, message) {
            self.wire.push_back((from, to, message.clone()));
        }
    }

    pub fn next_of(&self, i: ReplicaIndex, envelope: &Envelope) -> Option<u64> {
        let state = self.nodes[usize::from(i)].committed.as_ref()?;
        Some(state.sessions.get(&envelope.body.session).copied().unwrap_or(0))
    }

    /// Brings a message through the door of a replica.
    pub fn deliver(&mut self, from: ReplicaIndex, to: ReplicaIndex, message: PeerMessage) {
        let Some(replica) = self.nodes[usize::from(to)].replica.as_ref() else { return };
        let Some(message) = replica.screen(from, message) else { return };
        let verifier = self.verifiers[usize::from(to)].as_ref();
        match door::verify(replica.configuration(), verifier, replica, from, message) {
            Ok(message) => {
                if let PeerMessage::Forward(envelope) = message.value() {
                    self.request(to, &envelope.clone());
                } else {
                    self.step(to, Input::Message { from, message });
                }
            }
            Err(refused) => {
                self.rejections.push(refused.rejection.clone());
                if let Some(evidence) = refused.into_evidence(&self.configuration) {
                    self.convicts(to, evidence);
                }
            }
        }
    }

    pub fn request(&mut self, to: ReplicaIndex, envelope: &Envelope) {
        if self.nodes[usize::from(to)].replica.is_none() {
            return;
        }
        let next = self.next_of(to, envelope);
        let envelope = door::verify_envelope(
            &self.configuration_of(to),
            self.verifiers[usize::from(to)].as_ref(),
            self.replica(to),
            envelope.clone(),
        )
        .unwrap();
        self.step(to, Input::Request { envelope, next });
    }

    pub fn request_all(&mut self, envelope: &Envelope) {
        for to in 0..self.n() {
            self.request(to, envelope);
        }
    }

    /// Syncs everything a replica has appended.
    pub fn sync(&mut self, i: ReplicaIndex) -> bool {
        let mut any = false;
        while self.sync_one(i) {
            any = true;
        }
        any
    }

    /// Syncs the oldest persist of a replica, unless it is to crash there.
    pub fn sync_one(&mut self, i: ReplicaIndex) -> bool {
        let Some((token, records, then)) = self.node(i).unsynced.pop_front() else { return false };
        let node = self.node(i);
        node.syncs += 1;
        let crash = node.crash_at.filter(|(at, _)| *at == node.syncs).map(|(_, after_sync)| after_sync);
        if crash != Some(false) {
            node.log.extend(records);
        }
        if crash.is_some() {
            self.crash(i);
            return true;
        }
        self.handle(i, then);
        self.step(i, Input::Persisted(token));
        true
    }

    pub fn execute_one(&mut self, i: ReplicaIndex) -> bool {
        let Some((height, digest, parent, proposal)) = self.node(i).executions.pop_front() else {
            return false;
        };
        let poison = self.node(i).diverges_on;
        let poisoned = proposal.envelopes.iter().any(|envelope| Some(envelope.body.session) == poison);
        let wrong = poisoned || self.node(i).diverges_at.is_some_and(|at| at <= height);
        let wake_at = self.node(i).wake_at.map(BatchTime);
        let before = self.node(i).states[&parent].clone();
        let state = execute(&before, height, digest, &proposal, wrong);
        let advanced = state.sessions.iter().filter(|(id, next)| before.sessions.get(*id) != Some(*next));
        let advanced = advanced.map(|(id, next)| (*id, *next)).collect();
        let header = state.header.clone();
        self.node(i).states.insert(digest, state);
        let outcome = Ok(ExecutedHeader { header, advanced, wake_at });
        self.step(i, Input::Executed { height, digest, outcome });
        true
    }

    /// Runs until nothing is left to do without time passing.
    pub fn settle(&mut self) {
        for _ in 0..200_000 {
            let mut any = false;
            for i in 0..self.n() {
                if !self.node(i).hold_disk {
                    any |= self.sync(i);
                }
                if !self.node(i).hold_execution {
                    any |= self.execute_one(i);
                }
            }
            if let Some((from, to, message)) = self.wire.pop_front() {
                any = true;
                self.deliver(from, to, message);
            }
            if !any {
                return;
            }
        }
        panic!("the network does not come to rest");
    }

    /// Has a leader hand over, and passes the time that what is in flight is waited for.
    pub fn hand_over(&mut self, leader: ReplicaIndex) {
        self.step(leader, Input::Resign);
        let haste = self.replica(leader).haste();
        self.advance(haste);
    }

    /// Lets time pass, timer by timer.
    pub fn advance(&mut self, nanoseconds: u64) {
        let end = self.now + nanoseconds;
        self.settle();
        loop {
            let next = self.nodes.iter().filter_map(|node| node.timer).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = next.max(self.now);
            for i in 0..self.n() {
                if self.node(i).timer.is_some_and(|at| at <= self.now) {
                    self.node(i).timer = None;
                    self.step(i, Input::Tick);
                }
            }
            self.settle();
        }
        self.now = end;
    }

    /// Lets time pass until a condition holds, at most `nanoseconds`.
    pub fn advance_until(&mut self, nanoseconds: u64, condition: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now;
        while self.now < start + nanoseconds {
            if condition(self) {
                return self.now - start;
            }
            self.advance(10 * MILLISECOND);
        }
        assert!(condition(self), "not within {} ms:\n{:#?}", nanoseconds / MILLISECOND, self.replicas());
        self.now - start
    }

    pub fn replicas(&self) -> Vec<&Replica> {
        self.nodes.iter().filter_map(|node| node.replica.as_ref()).collect()
    }

    pub fn all_at(&self, height: Height) -> bool {
        self.replicas().iter().all(|replica| replica.committed_height() >= height)
    }

    /// An envelope of null operations; `variant` makes another one under the same number.
    pub fn envelope(&self, client: u8, first: u64, operations: usize, variant: u64) -> Envelope {
        let signer = KeyedHashSigner::new(&client_key(client));
        let operation = Operation { credential: 0, requires: 0, at: None, body: OperationBody::Null };
        EnvelopeBody {
            cluster: *self.configuration.cluster(),
            session: session_of(client),
            key: signer.public(),
            first,
            valid_until: BatchTime(START + 1_000_000 * SECOND + variant),
            credentials: Vec::new().try_into().unwrap(),
            operations: vec![operation; operations].try_into().unwrap(),
        }
        .sign(&signer)
    }

    /// How often (session, sequence) was executed in the state that replica `i` committed.
    pub fn times_executed(&self, i: ReplicaIndex, client: u8, sequence: u64) -> usize {
        let executed = &self.nodes[usize::from(i)].committed.as_ref().unwrap().executed;
        executed.iter().filter(|(id, number, _)| *id == session_of(client) && *number == sequence).count()
    }
}

pub fn kind_of(message: &PeerMessage) -> &'static str {
    match message {
        PeerMessage::PrePrepare(_) => "PRE-PREPARE",
        PeerMessage::Votes(_) => "votes",
        PeerMessage::Suspect(_) => "SUSPECT",
        PeerMessage::Resign(_) => "RESIGN",
        PeerMessage::ViewChange(_) => "VIEW-CHANGE",
        PeerMessage::NewView(_) => "NEW-VIEW",
        PeerMessage::Certificate(_) => "certificate",
        PeerMessage::Announce(_) => "announcement",
        PeerMessage::FetchCommitted { .. } => "fetch committed",
        PeerMessage::Committed(_) => "committed",
        PeerMessage::FetchBatches { .. } => "fetch batches",
        PeerMessage::Batches(_) => "batches",
        PeerMessage::FetchNewView { .. } => "fetch new view",
        PeerMessage::Proposed(_) => "proposed",
        _ => "other",
    }
}

/// Stands in for execution: envelopes in order of their session consume numbers, all others are skipped.
pub fn execute(parent: &State, height: Height, digest: Hash, proposal: &Proposal, wrong: bool) -> State {
    let mut state = parent.clone();
    for envelope in &proposal.envelopes {
        let next = state.sessions.entry(envelope.body.session).or_insert(0);
        if *next == envelope.body.first && envelope.body.valid_until >= proposal.time {
            *next = envelope.next();
            let digest = envelope.body.digest();
            let numbers = envelope.body.first..envelope.next();
            state.executed.extend(numbers.map(|number| (envelope.body.session, number, digest)));
        }
    }
    let operations = u32::try_from(proposal.operation_count()).unwrap();
    // The genesis header names no cluster; its `proposal` is the cluster here.
    let cluster = if parent.header.height == 0 { parent.header.proposal } else { parent.header.cluster };
    let fault: &[u8] = if wrong { b"wrong" } else { b"" };
    state.header = Header {
        height,
        time: proposal.time,
        cluster,
        previous: parent.header.hash(),
        proposal: digest,
        state_root: derive_hash("quorate test state", &[&parent.header.state_root.0, &digest.0, fault]),
        first_operation: parent.header.first_operation + u64::from(parent.header.operation_count),
        operation_count: operations,
        ..parent.header.clone()
    };
    state
}
