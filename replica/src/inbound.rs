//! What peers send, through the door.
//!
//! Invariant: nothing of a peer reaches consensus unverified; a message that is refused costs its sender time
//! in which nothing of it is read, and nothing else here.

use crate::evidence::Kept;
use crate::node::Node;
use crate::refusals::Sender;
use quorate_audit::Court;
use quorate_consensus::{Configuration, Input, Verified, door};
use quorate_crypto::Ed25519Verifier;
use quorate_execution::{Admission, check_envelope};
use quorate_protocol::limits::{BATCHES_PER_MESSAGE_MAX, CATCH_UP_BYTES_TARGET};
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Envelope, Evidence, Height, PeerMessage, ReplicaIndex, SkipReason};
use quorate_transport::PeerEvent;
use std::time::{Duration, Instant};

/// How long nothing more is read of a peer for each of its messages that is refused: some hundred times of
/// what refusing it costs.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

impl Node {
    pub(crate) fn on_peer_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Connected(peer) => {
                tracing::info!(peer, "connected");
                self.evidence.offers().iter().for_each(|offers| self.peers.send(peer, offers));
            }
            PeerEvent::Disconnected(peer) => tracing::info!(peer, "disconnected"),
            PeerEvent::Message { from, message } => self.on_peer_message(from, message),
        }
    }

    fn on_peer_message(&mut self, from: ReplicaIndex, message: PeerMessage) {
        match message {
            PeerMessage::FetchBlock { id } => self.blocks.serve(from, id),
            PeerMessage::Block { descriptor, content } => {
                self.blocks.arrived(from, descriptor, content.into_inner());
            }
            PeerMessage::Forward(envelope) => self.on_envelope(envelope),
            PeerMessage::OfferEvidence(offers) => {
                let question = self.evidence.offered(from, &offers, Instant::now());
                question.iter().for_each(|question| self.peers.send(from, question));
            }
            PeerMessage::FetchEvidence { digest } => {
                let answer = self.evidence.fetched(from, &digest);
                answer.iter().for_each(|answer| self.peers.send(from, answer));
            }
            PeerMessage::Evidence(evidence) => self.on_evidence(from, *evidence),
            message => {
                // Votes that can decide nothing any more are dropped before their signatures are checked.
                let Some(message) = self.consensus.screen(message) else { return };
                let configuration = self.consensus.configuration();
                match door::verify(configuration, self.verifier.as_ref(), &self.consensus, from, message) {
                    Ok(message) => self.step(Input::Message { from, message }),
                    Err(refused) => {
                        // To refuse it may have cost several signatures, and it cost the peer none.
                        self.peers.pause(from, REFUSED_PAUSE);
                        if let Some(unmentioned) = self.refusals.mention(Sender::Peer(from), Instant::now()) {
                            let rejection = &refused.rejection;
                            tracing::warn!(from, unmentioned, %rejection, "a peer's message is refused");
                        }
                        if let Some(evidence) = refused.into_evidence(self.consensus.configuration()) {
                            self.keep_evidence(evidence);
                        }
                    }
                }
            }
        }
    }

    /// Evidence that this replica found itself.
    pub(crate) fn keep_evidence(&mut self, evidence: Evidence) {
        let court = court(self.consensus.configuration(), self.verifier.as_ref());
        let kept = self.evidence.keep(evidence, &court);
        self.tell_of_evidence(&kept, None);
    }

    /// Evidence that a peer sends.
    fn on_evidence(&mut self, from: ReplicaIndex, evidence: Evidence) {
        let court = court(self.consensus.configuration(), self.verifier.as_ref());
        let (kept, question) = self.evidence.arrived(from, evidence, &court, Instant::now());
        question.iter().for_each(|question| self.peers.send(from, question));
        if let Some(kept) = kept {
            self.tell_of_evidence(&kept, Some(from));
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
    fn on_envelope(&mut self, envelope: Envelope) {
        if let Some(envelope) = self.verified_envelope(envelope) {
            self.request(envelope);
        }
    }

    /// An envelope that its key has signed and that a correct replica could execute.
    pub(crate) fn verified_envelope(&mut self, envelope: Envelope) -> Option<Verified<Envelope>> {
        // What no correct replica would execute must not get into the pool, from where a leader proposes.
        if let Err(fault) = check_envelope(self.consensus.configuration().cluster(), &envelope) {
            self.refuse_envelope(&fault);
            return None;
        }
        // A client's retry of what waits here costs no second check.
        let configuration = self.consensus.configuration();
        let verified =
            door::verify_envelope(configuration, self.verifier.as_ref(), &self.consensus, envelope);
        verified.map_err(|rejection| self.refuse_envelope(&rejection)).ok()
    }

    fn refuse_envelope(&mut self, reason: &dyn std::fmt::Display) {
        if let Some(unmentioned) = self.refusals.mention(Sender::Clients, Instant::now()) {
            tracing::warn!(unmentioned, %reason, "an envelope is refused");
        }
    }

    /// Gives an envelope to consensus, with what the committed state says of its session.
    pub(crate) fn request(&mut self, envelope: Verified<Envelope>) {
        let body = &envelope.value().body;
        let next = match self.state.admission(envelope.value()) {
            Admission::Executes => Some(body.first),
            Admission::Skipped(SkipReason::Gap { next } | SkipReason::Overlap { next }) => Some(next),
            Admission::Skipped(SkipReason::Duplicate { .. }) => self.state.session_next(&body.session),
            Admission::Skipped(_) => None,
        };
        self.inputs.push_back(Input::Request { envelope, next });
    }

    /// Sends committed heights out of the log.
    pub(crate) fn serve_committed(&self, to: ReplicaIndex, from: Height) {
        let peers = self.peers.clone();
        self.history.committed_from(from, move |batches| {
            if !batches.is_empty()
                && let Ok(batches) = batches.try_into()
            {
                peers.send(to, &PeerMessage::Committed(batches));
            }
        });
    }
}

/// Who judges evidence here.
pub(crate) fn court<'a>(configuration: &'a Configuration, verifier: &'a Ed25519Verifier) -> Court<'a> {
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
