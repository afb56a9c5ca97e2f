//! What peers send, through the door.
//!
//! Invariant: nothing of a peer reaches consensus unverified, and checks come in the order of their cost: budget,
//! whether the message could matter, signatures. A message that is refused costs its sender time in which nothing
//! of it is read; one that sends such messages again and again is barred from all that needs a signature,
//! and whatever else it sends is read slowly.

use crate::budgets::peers::Checked;
use crate::evidence::Kept;
use crate::node::{Due, Node};
use crate::refusals::Sender;
use quorate_audit::Court;
use quorate_consensus::{Configuration, Input, Verified, door};
use quorate_crypto::Verifier;
use quorate_execution::{Admission, check_envelope};
use quorate_protocol::limits::{BATCHES_PER_MESSAGE_MAX, CATCH_UP_BYTES_TARGET};
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Envelope, Evidence, Height, PeerMessage, ReplicaIndex, SkipReason};
use quorate_transport::{FAULTY_PAUSE_MAX, PeerEvent};
use std::time::{Duration, Instant};

/// How long nothing more is read of a peer for each of its messages that is refused: some hundred times of
/// what refusing it costs.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

/// How long messages of a peer that is barred, or sends much that is useless, are read one by one: for longer than it is
/// paused, or all its lanes would be read at once after that.
const ONE_BY_ONE: Duration = FAULTY_PAUSE_MAX.saturating_add(Duration::from_secs(4));

/// How long after a leader was replaced its proposals may still come, which change nothing then: the largest window of the
/// largest ones within the budget of bytes.
const LATE_PROPOSALS: Duration = Duration::from_secs(4);

/// Why an envelope does not get in.
pub(crate) enum Refused {
    /// It can have no effect at the committed height, which may be a matter of time; no signature was checked.
    Useless,
    /// A correct client does not send it. So many signatures were checked to see that.
    Faulty { checks: u64 },
}

impl Node {
    pub(crate) fn on_peer_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Connected(peer) => {
                tracing::info!(peer, "connected");
                self.step(Input::Connected(peer));
                self.send_all(peer, self.evidence.offers());
            }
            PeerEvent::Disconnected(peer) => {
                tracing::info!(peer, "disconnected");
                self.step(Input::Disconnected(peer));
            }
            PeerEvent::Message { from, message, bytes } => self.on_peer_message(from, message, bytes),
        }
    }

    fn on_peer_message(&mut self, from: ReplicaIndex, message: PeerMessage, bytes: usize) {
        let now = Instant::now();
        let forges = self.forges(from);
        let wait = self.peer_budgets.arrived(from, bytes, forges, now);
        self.slow_down(from, wait);
        if forges || self.peer_budgets.is_barred(from, now) {
            self.peers.read_one_by_one(from, ONE_BY_ONE);
            if asks(&message) {
                return;
            }
        }
        match message {
            PeerMessage::FetchBlock { id } => self.blocks.serve(from, id),
            PeerMessage::Block { descriptor, content } => {
                if !self.blocks.arrived(from, descriptor, content.into_inner()) {
                    self.useless(from, bytes, now);
                }
            }
            message if !self.peer_budgets.may_ask(from, &message, now) => {
                tracing::debug!(from, "a peer asks too often");
            }
            PeerMessage::OfferEvidence(offers) => {
                let question = self.evidence.offered(from, &offers, now);
                self.send_all(from, question);
            }
            PeerMessage::FetchEvidence { digest } => {
                let answer = self.evidence.fetched(from, &digest);
                let bytes = self.send_all(from, answer);
                self.peer_budgets.answered(from, bytes, now);
            }
            PeerMessage::Evidence(evidence) => self.on_evidence(from, *evidence, now),
            PeerMessage::Forward(envelope) => self.on_forwarded(from, envelope, bytes, now),
            message => self.on_consensus_message(from, message, bytes, now),
        }
    }

    fn on_consensus_message(&mut self, from: ReplicaIndex, message: PeerMessage, bytes: usize, now: Instant) {
        // A leader repeats its proposals, which may be large, for those who miss some; and some are under way when it is
        // replaced.
        let repeats = matches!(message, PeerMessage::PrePrepare(_)) && self.leads_or_led(from, now);
        // What can decide nothing any more is dropped before its signatures are checked.
        let Some(message) = self.consensus.screen(from, message) else {
            if !repeats {
                self.useless(from, bytes, now);
            }
            return;
        };
        if matches!(&message, PeerMessage::Committed(batches) if batches.is_empty()) {
            self.useless(from, bytes, now);
        }
        if self.peer_budgets.is_barred(from, now) && needs_checks(from, &message) {
            return;
        }
        let (kind, before) = (Checked::of(&message), self.verifier.checks());
        let configuration = self.consensus.configuration();
        let verified = door::verify(configuration, self.verifier.as_ref(), &self.consensus, from, message);
        let checks = self.verifier.checks().saturating_sub(before);
        let wait = self.peer_budgets.checked(from, kind, checks, now);
        self.slow_down(from, wait);
        match verified {
            Ok(message) => self.step(Input::Message { from, message }),
            Err(refused) => {
                self.refuse(from, checks, &refused.rejection, now);
                if let Some(evidence) = refused.into_evidence(self.consensus.configuration()) {
                    self.keep_evidence(evidence);
                }
            }
        }
    }

    /// Whether a peer leads, or did a moment ago.
    fn leads_or_led(&self, peer: ReplicaIndex, now: Instant) -> bool {
        let led = |until: &Instant| now.saturating_duration_since(*until) < LATE_PROPOSALS;
        self.consensus.status().leader == peer || self.led_until.get(&peer).is_some_and(led)
    }

    /// A message of a peer changed nothing.
    fn useless(&mut self, from: ReplicaIndex, bytes: usize, now: Instant) {
        let wait = self.peer_budgets.useless(from, bytes, now);
        self.hold_back(from, wait);
    }

    /// Slows a peer down that sends too much of what changes nothing.
    fn hold_back(&self, peer: ReplicaIndex, wait: Duration) {
        if !wait.is_zero() {
            self.slow_down(peer, wait);
            self.peers.read_one_by_one(peer, ONE_BY_ONE);
        }
    }

    /// Whether a peer was caught with votes that are badly signed.
    fn forges(&self, peer: ReplicaIndex) -> bool {
        self.consensus.barred().any(|(replica, _)| replica == peer)
    }

    /// Reads nothing more of a peer for a while.
    fn slow_down(&self, peer: ReplicaIndex, time: Duration) {
        let faulty = || self.forges(peer) || self.peer_budgets.is_barred(peer, Instant::now());
        if !time.is_zero() && faulty() {
            self.peers.pause_faulty(peer, time);
        } else if !time.is_zero() {
            self.peers.pause(peer, time);
        }
    }

    /// What a peer sent does not hold. It cost the peer nothing, and some signature checks here.
    fn refuse(&mut self, from: ReplicaIndex, checks: u64, reason: &dyn std::fmt::Display, now: Instant) {
        self.peers.pause(from, REFUSED_PAUSE);
        self.peer_budgets.wasted(from, checks, now);
        if let Some(unmentioned) = self.refusals.mention(Sender::Peer(from), now) {
            let barred = self.peer_budgets.is_barred(from, now);
            tracing::warn!(from, unmentioned, barred, %reason, "a peer's message is refused");
        }
    }

    /// Sends messages to a peer; how many bytes they have.
    fn send_all(&self, to: ReplicaIndex, messages: impl IntoIterator<Item = PeerMessage>) -> usize {
        messages.into_iter().map(|message| self.peers.send(to, &message)).fold(0, usize::saturating_add)
    }

    /// Evidence that this replica found itself.
    pub(crate) fn keep_evidence(&mut self, evidence: Evidence) {
        let court = court(self.consensus.configuration(), self.verifier.as_ref());
        let kept = self.evidence.keep(evidence, &court);
        self.tell_of_evidence(&kept, None);
    }

    /// Evidence that a peer sends.
    fn on_evidence(&mut self, from: ReplicaIndex, evidence: Evidence, now: Instant) {
        let before = self.verifier.checks();
        let court = court(self.consensus.configuration(), self.verifier.as_ref());
        let (kept, question) = self.evidence.arrived(from, evidence, &court, now);
        let checks = self.verifier.checks().saturating_sub(before);
        let wait = self.peer_budgets.checked(from, Checked::Other, checks, now);
        self.slow_down(from, wait);
        self.send_all(from, question);
        match kept {
            // A correct replica has judged what it shows.
            Some(Kept::Refused(refusal)) => self.refuse(from, checks, &refusal, now),
            Some(kept) => self.tell_of_evidence(&kept, Some(from)),
            None => {}
        }
    }

    fn tell_of_evidence(&self, kept: &Kept, from: Option<ReplicaIndex>) {
        match kept {
            Kept::New(guilt) => {
                let (culprit, kind, rule) = (guilt.culprit, guilt.kind, guilt.rule);
                tracing::error!(culprit, %kind, rule, ?from, "a replica is proven faulty");
                if culprit == self.peers.me() {
                    tracing::error!("it is this one: does another process run with its key?");
                }
                self.evidence.offers().iter().for_each(|offers| self.peers.broadcast(offers));
            }
            Kept::Enough => {}
            Kept::Refused(refusal) => {
                tracing::warn!(?from, %refusal, "what is shown as evidence proves nothing")
            }
        }
    }

    /// Tells peers now and then what is held, because nothing that is sent must arrive.
    pub(crate) fn offer_evidence(&mut self, now: Instant) {
        if self.evidence.offers_are_due(now) {
            self.evidence.offers().iter().for_each(|offers| self.peers.broadcast(offers));
        }
    }

    /// An envelope of a client that a peer forwards.
    fn on_forwarded(&mut self, from: ReplicaIndex, envelope: Envelope, bytes: usize, now: Instant) {
        if self.peer_budgets.is_barred(from, now) {
            return;
        }
        let before = self.verifier.checks();
        let admitted = self.admit(envelope);
        let checks = self.verifier.checks().saturating_sub(before);
        let wait = self.peer_budgets.checked(from, Checked::Forward, checks, now);
        self.slow_down(from, wait);
        match admitted {
            Ok(envelope) => self.inputs.push_back(Due::Request(envelope)),
            Err(Refused::Useless) => {
                let wait = self.peer_budgets.forwarded(from, bytes, now);
                self.hold_back(from, wait);
            }
            // A correct replica has checked what it forwards.
            Err(Refused::Faulty { checks }) => {
                self.refuse(from, checks, &"an envelope that no correct replica forwards", now);
            }
        }
    }

    /// An envelope that its key has signed, that a correct replica could execute, and that matters here. The rule is
    /// the same whoever brings it (hazard A1), and the order that of cost: form, session, sequence, whether it is
    /// here already, signature (hazard A5).
    pub(crate) fn admit(&mut self, envelope: Envelope) -> Result<Verified<Envelope>, Refused> {
        // What no correct replica would execute must not get into the pool, from where a leader proposes.
        if let Err(fault) = check_envelope(self.consensus.configuration().cluster(), &envelope) {
            self.refuse_envelope(&fault);
            return Err(Refused::Faulty { checks: 0 });
        }
        let next = self.next_of(&envelope);
        if !self.consensus.wants(&envelope, next) {
            return Err(Refused::Useless);
        }
        let before = self.verifier.checks();
        let configuration = self.consensus.configuration();
        let verified =
            door::verify_envelope(configuration, self.verifier.as_ref(), &self.consensus, envelope);
        match verified {
            Ok(envelope) => Ok(envelope),
            Err(rejection) => {
                self.refuse_envelope(&rejection);
                Err(Refused::Faulty { checks: self.verifier.checks().saturating_sub(before) })
            }
        }
    }

    fn refuse_envelope(&mut self, reason: &dyn std::fmt::Display) {
        if let Some(unmentioned) = self.refusals.mention(Sender::Clients, Instant::now()) {
            tracing::warn!(unmentioned, %reason, "an envelope is refused");
        }
    }

    /// What the committed state says of an envelope's session: its next number, if the envelope could still be
    /// executed, or was.
    pub(crate) fn next_of(&self, envelope: &Envelope) -> Option<u64> {
        match self.state.admission(envelope) {
            Admission::Executes => Some(envelope.body.first),
            Admission::Skipped(SkipReason::Gap { next } | SkipReason::Overlap { next }) => Some(next),
            Admission::Skipped(SkipReason::Duplicate { .. }) => {
                self.state.session_next(&envelope.body.session)
            }
            Admission::Skipped(_) => None,
        }
    }

    /// Sends committed heights out of the log.
    pub(crate) fn serve_committed(&mut self, to: ReplicaIndex, from: Height) {
        let peers = self.peers.clone();
        let Some(reading) = self.peer_budgets.read(to) else { return };
        self.history.committed_from(from, move |batches| {
            if !batches.is_empty()
                && let Ok(batches) = batches.try_into()
            {
                let bytes = peers.send(to, &PeerMessage::Committed(batches));
                reading.answered(bytes, Instant::now());
            }
        });
    }
}

/// Whether a message asks for something that is large or lies on the disk.
const fn asks(message: &PeerMessage) -> bool {
    matches!(
        message,
        PeerMessage::FetchBlock { .. }
            | PeerMessage::FetchCommitted { .. }
            | PeerMessage::FetchBatches { .. }
            | PeerMessage::FetchNewView { .. }
            | PeerMessage::FetchEvidence { .. }
    )
}

/// Whether the door checks signatures of a message; not those of votes that the voter itself brings.
fn needs_checks(from: ReplicaIndex, message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Votes(votes) => votes.iter().any(|vote| vote.replica != from),
        PeerMessage::Suspect(_)
        | PeerMessage::Announce(_)
        | PeerMessage::Batches(_)
        | PeerMessage::FetchCommitted { .. }
        | PeerMessage::FetchBatches { .. }
        | PeerMessage::FetchNewView { .. } => false,
        _ => true,
    }
}

/// Who judges evidence here.
pub(crate) fn court<'a>(configuration: &'a Configuration, verifier: &'a dyn Verifier) -> Court<'a> {
    Court {
        cluster: *configuration.cluster(),
        members: configuration.members(),
        genesis: configuration.genesis(),
        verifier,
    }
}

/// Takes consecutive heights until the message is large enough; always at least one if there is one.
pub(crate) fn bounded(
    mut next: impl FnMut(Height) -> Option<CommittedBatch>,
    from: Height,
) -> Vec<CommittedBatch> {
    let mut batches = Vec::new();
    let mut bytes = 0_usize;
    let mut height = from;
    while batches.len() < BATCHES_PER_MESSAGE_MAX && bytes < CATCH_UP_BYTES_TARGET {
        let Some(batch) = next(height) else { break };
        bytes = bytes.saturating_add(quorate_crypto::encode(&batch).len());
        batches.push(batch);
        height = height.saturating_add(1);
    }
    batches
}
