//! What peers send, through the door.
//!
//! Invariant: nothing of a peer reaches consensus unverified; a message that is refused costs its sender time
//! in which nothing of it is read, and nothing else here.

use crate::node::Node;
use crate::refusals::Sender;
use quorate_consensus::{Input, Verified, door};
use quorate_execution::{Admission, check_envelope};
use quorate_protocol::limits::{BATCHES_PER_MESSAGE_MAX, CATCH_UP_BYTES_TARGET};
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Envelope, Height, PeerMessage, ReplicaIndex, SkipReason};
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
                self.step(Input::Connected(peer));
            }
            PeerEvent::Disconnected(peer) => {
                tracing::info!(peer, "disconnected");
                self.step(Input::Disconnected(peer));
            }
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
            message => {
                // Votes that can decide nothing any more are dropped before their signatures are checked.
                let Some(message) = self.consensus.screen(message) else { return };
                let configuration = self.consensus.configuration();
                match door::verify(configuration, self.verifier.as_ref(), &self.consensus, from, message) {
                    Ok(message) => self.step(Input::Message { from, message }),
                    Err(rejection) => {
                        // To refuse it may have cost several signatures, and it cost the peer none.
                        self.peers.pause(from, REFUSED_PAUSE);
                        if let Some(unmentioned) = self.refusals.mention(Sender::Peer(from), Instant::now()) {
                            tracing::warn!(from, unmentioned, %rejection, "a peer's message is refused");
                        }
                    }
                }
            }
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
