//! The loop of a replica: what arrives goes through the door into consensus, what consensus asks for is
//! done.
//!
//! Invariant: one thread owns consensus, the states and the tables of clients; disk, execution, blocks and
//! the state database work on threads of their own and answer through one bounded queue. Effects are carried
//! out in order; a dependent send leaves only after the sync that it depends on.

use crate::blocks::BlockKeeper;
use crate::budgets::clients::ClientBudgets;
use crate::budgets::peers::PeerBudgets;
use crate::clients::Clients;
use crate::disk::{Disk, Write};
use crate::evidence::EvidenceKeeper;
use crate::executor::{Executor, Outcome};
use crate::fairness::Fairness;
use crate::heads::HeadKeeper;
use crate::history::History;
use crate::keeper::StateKeeper;
use crate::past_states::PastStates;
use crate::refusals::Refusals;
use crate::verifier::RememberingVerifier;
use quorate_consensus::{Effect, Input, Monotonic, Replica, Status, Token, Verified};
use quorate_crypto::{Certificate, Hash};
use quorate_execution::{Executed, State};
use quorate_protocol::record::Record;
use quorate_protocol::{Envelope, PeerMessage, ReplicaIndex, View, Vote};
use quorate_transport::{ClientEvent, PeerEvent, PeerNetwork, ReplicaTransport};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Answers of the other threads that may wait for the loop.
pub const INTERNAL_MAX: usize = 4096;
/// Events that one turn of the loop takes before it writes and sends what they caused.
pub const TURN_EVENTS_MAX: usize = 64;
/// How often what waits for something is looked after, also when nothing happens.
const CARE_INTERVAL: Duration = Duration::from_millis(500);

/// What the other threads say.
pub enum Internal {
    /// Records are durable up to this token.
    Durable(Token),
    /// A proposal was executed.
    Executed(Outcome),
}

/// What came from the network.
enum Arrived {
    OfPeer(PeerEvent),
    OfClient(ClientEvent),
}

/// Dependent effects of a persist that is not durable yet.
pub(crate) struct Held {
    pub(crate) token: Token,
    pub(crate) then: Vec<Effect>,
}

/// What is stepped at the end of the turn, in order.
pub(crate) enum Due {
    Input(Input),
    /// An envelope that was verified; see [`Node::step_request`].
    Request(Verified<Envelope>),
}

/// One replica at work.
pub struct Node {
    pub(crate) consensus: Replica,
    pub(crate) verifier: Arc<RememberingVerifier>,
    pub(crate) disk: Disk,
    pub(crate) executor: Executor,
    pub(crate) keeper: StateKeeper,
    pub(crate) blocks: BlockKeeper,
    pub(crate) history: History,
    pub(crate) past: PastStates,
    pub(crate) evidence: EvidenceKeeper,
    pub(crate) heads: HeadKeeper,
    pub(crate) peers: PeerNetwork,
    pub(crate) clients: Clients,
    /// The committed state, and the certificate of its header; consensus may be some heights ahead of both
    /// while the effects of one step are carried out.
    pub(crate) state: State,
    pub(crate) certificate: Option<Certificate>,
    /// Executed proposals above the committed height, by digest.
    pub(crate) speculative: BTreeMap<Hash, Arc<Executed>>,
    pub(crate) held: VecDeque<Held>,
    /// Records of this turn, not handed to the disk yet.
    pub(crate) turn_records: Vec<Record>,
    pub(crate) turn_token: Option<Token>,
    /// Votes of this turn for all peers: one message carries them.
    pub(crate) turn_votes: Vec<Vote>,
    pub(crate) inputs: VecDeque<Due>,
    pub(crate) fairness: Fairness,
    pub(crate) refusals: Refusals,
    pub(crate) peer_budgets: PeerBudgets,
    pub(crate) client_budgets: ClientBudgets,
    /// Until when replicas led a view that is over.
    pub(crate) led_until: BTreeMap<ReplicaIndex, Instant>,
    pub(crate) timer: Option<Monotonic>,
    /// When what waits is looked after next.
    pub(crate) care_due: Instant,
    pub(crate) epoch_start: Instant,
    #[cfg(feature = "faults")]
    pub(crate) faults: crate::faults::Faults,
}

/// Where a node's events come from.
pub struct Sources {
    /// The network.
    pub transport: ReplicaTransport,
    /// Answers of the other threads.
    pub internal: mpsc::Receiver<Internal>,
    /// Becomes true when the replica shall stop.
    pub stop: watch::Receiver<bool>,
}

impl Node {
    /// Runs until it is told to stop; a leader hands over before it does.
    pub async fn run(&mut self, sources: &mut Sources) {
        self.settle();
        loop {
            tokio::select! {
                biased;
                changed = sources.stop.changed() => {
                    if changed.is_err() || *sources.stop.borrow() {
                        break;
                    }
                }
                () = self.turn(&mut sources.transport, &mut sources.internal) => {}
            }
        }
        self.leave(sources).await;
    }

    /// Waits for what comes next, and does that and all that has come with it. Nothing is lost when it is cancelled: it
    /// waits only before it begins.
    async fn turn(&mut self, transport: &mut ReplicaTransport, internal: &mut mpsc::Receiver<Internal>) {
        let due = self.timer.map(|at| self.epoch_start + Duration::from_nanos(at.0));
        tokio::select! {
            biased;
            Some(event) = internal.recv() => self.on_internal(event),
            Some(event) = transport.peer_events.recv() => self.on_peer_event(event),
            Some(event) = transport.client_events.recv() => self.on_client_event(event),
            () = sleep_until(due) => {}
            () = sleep_until(Some(self.care_due)) => {}
        }
        self.drain(transport, internal);
        // Each turn, whatever woke us: events that never end must not keep the time from passing.
        self.on_time();
        self.settle();
    }

    /// Takes what has arrived meanwhile, so that one sync and one message serve many events.
    fn drain(&mut self, transport: &mut ReplicaTransport, internal: &mut mpsc::Receiver<Internal>) {
        for _ in 0..TURN_EVENTS_MAX {
            if let Ok(event) = internal.try_recv() {
                self.on_internal(event);
                continue;
            }
            let ReplicaTransport { peer_events, client_events, .. } = &mut *transport;
            let event = self.fairness.next(
                || peer_events.try_recv().map(Arrived::OfPeer),
                || client_events.try_recv().map(Arrived::OfClient),
            );
            match event {
                Some(Arrived::OfPeer(event)) => self.on_peer_event(event),
                Some(Arrived::OfClient(event)) => self.on_client_event(event),
                None => break,
            }
        }
    }

    /// Does what is due now.
    fn on_time(&mut self) {
        let now = Instant::now();
        if self.timer.is_some_and(|at| self.epoch_start + Duration::from_nanos(at.0) <= now) {
            self.timer = None;
            self.step(Input::Tick);
        }
        #[cfg(feature = "faults")]
        self.misbehave();
        if self.care_due <= now {
            self.care_due = now + CARE_INTERVAL;
            self.blocks.look_after(&self.state);
            self.past.look_after();
            self.answer_waiting_reads();
            self.offer_evidence(now);
            self.heads.look_after(now);
        }
    }

    /// Carries out what the turn caused: further inputs, then one write and one message of votes.
    fn settle(&mut self) {
        while let Some(due) = self.inputs.pop_front() {
            match due {
                Due::Input(input) => self.step(input),
                Due::Request(envelope) => self.step_request(envelope),
            }
        }
        self.flush_votes();
        if let Some(token) = self.turn_token.take() {
            let records = std::mem::take(&mut self.turn_records);
            self.disk.write(Write { token, records });
        }
    }

    /// Hands leadership over, when what is in flight is committed, and gives the others a moment to hear of it, in which
    /// this replica is like any other: one that lags may have asked this one for what it lacks, and be needed next.
    async fn leave(&mut self, sources: &mut Sources) {
        const HAND_OVER_MAX: Duration = Duration::from_millis(200);
        // Closing a connection drops what has not left: the others would have to find out by themselves that nobody
        // leads, and take ten times as long for it.
        const FAREWELL: Duration = Duration::from_millis(50);
        tracing::info!(leads = self.leads(), "stopping");
        self.resign();
        let last = self.held.back().map(|held| held.token);
        let (end, mut farewell) = (Instant::now() + HAND_OVER_MAX, None);
        loop {
            // It may be made the leader of a later view meanwhile.
            if self.leads() {
                self.resign();
            }
            let busy = self.leads() || self.held.front().is_some_and(|held| Some(held.token) <= last);
            let until = if busy {
                farewell = None;
                end
            } else {
                (*farewell.get_or_insert_with(|| Instant::now() + FAREWELL)).min(end + FAREWELL)
            };
            if !self.turn_until(sources, until).await {
                break;
            }
        }
        // Heights that wait for another record are written, so that a restart finds them in the log.
        self.resign();
    }

    /// Gives up leading, if it does, and writes what waits for another record.
    fn resign(&mut self) {
        self.step(Input::Resign);
        self.settle();
    }

    /// One turn, if it begins in time.
    async fn turn_until(&mut self, sources: &mut Sources, until: Instant) -> bool {
        let turn = self.turn(&mut sources.transport, &mut sources.internal);
        Instant::now() < until && tokio::time::timeout_at(until.into(), turn).await.is_ok()
    }

    fn leads(&self) -> bool {
        let status = self.consensus.status();
        status.entered && status.leader == self.peers.me()
    }

    pub(crate) fn now(&self) -> Monotonic {
        let nanoseconds = self.epoch_start.elapsed().as_nanos();
        Monotonic(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// The wall clock; a replica that is faulty on purpose may have another one.
    #[cfg(not(feature = "faults"))]
    fn wall(&self) -> quorate_protocol::BatchTime {
        crate::provision::now()
    }

    pub(crate) fn step(&mut self, input: Input) {
        #[cfg(feature = "faults")]
        let Some(input) = self.noticed(input) else { return };
        self.take_in(input);
    }

    /// Looks up the session's next number only now: an input before this one in the queue may have committed what
    /// the envelope follows. With a number from before that, a leader's pool would wait for what is over, and the
    /// others would suspect it.
    fn step_request(&mut self, envelope: Verified<Envelope>) {
        let next = self.next_of(envelope.value());
        self.step(Input::Request { envelope, next });
    }

    pub(crate) fn take_in(&mut self, input: Input) {
        let wall = self.wall();
        let standing = |status: &Status| (status.view, status.entered, status.suspects);
        let before = self.consensus.status();
        let effects = self.consensus.step(self.now(), wall, input);
        let status = self.consensus.status();
        if standing(&status) != standing(&before) {
            tell_view(&status);
        }
        self.note_leaders(before.view..status.view);
        for effect in effects {
            self.perform(effect);
        }
    }

    /// These views are over; of each replica is known only when the last one that it led was.
    fn note_leaders(&mut self, over: std::ops::Range<View>) {
        let configuration = self.consensus.configuration();
        let now = Instant::now();
        let leaders =
            over.rev().take(configuration.members().n()).map(|view| (configuration.leader(view), now));
        self.led_until.extend(leaders);
    }

    fn on_internal(&mut self, internal: Internal) {
        match internal {
            Internal::Durable(token) => self.on_durable(token),
            // Kept for nobody, it would stay for ever.
            Internal::Executed(outcome) if self.executor.take(&outcome.digest) => self.on_executed(outcome),
            Internal::Executed(_) => {}
        }
    }

    /// Releases what waited for this token and all before it.
    fn on_durable(&mut self, token: Token) {
        self.keeper.durable(token);
        self.heads.durable(token, Instant::now());
        while self.held.front().is_some_and(|held| held.token <= token) {
            let Some(held) = self.held.pop_front() else { break };
            for effect in held.then {
                self.perform(effect);
            }
            self.inputs.push_back(Due::Input(Input::Persisted(held.token)));
        }
        // What was held is as urgent as it gets: nothing of the turn may delay it.
        self.flush_votes();
    }

    pub(crate) fn flush_votes(&mut self) {
        while !self.turn_votes.is_empty() {
            let count = self.turn_votes.len().min(quorate_protocol::limits::VOTES_PER_MESSAGE_MAX);
            let votes: Vec<Vote> = self.turn_votes.drain(..count).collect();
            if let Ok(votes) = votes.try_into() {
                self.peers.broadcast(&PeerMessage::Votes(votes));
            }
        }
    }
}

/// Says who leads now, and why the leader is suspected: rare, and what an operator looks for first.
fn tell_view(status: &Status) {
    let Status { view, entered, leader, committed, suspects, .. } = *status;
    match suspects {
        Some(reason) => tracing::info!(view, leader, committed, ?reason, "the leader is suspected"),
        None => tracing::info!(view, entered, leader, committed, "a view"),
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
