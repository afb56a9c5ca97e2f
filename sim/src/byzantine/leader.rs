//! Leaders that abuse their turn: slow ones, ones that ship to few, ones whose proposals cannot be executed
//! or carry impossible times.
//!
//! Invariant: a bent proposal is the same for everybody who gets it, so that it could be decided if its
//! faults were not seen.

use std::sync::Arc;

use quorate_crypto::{Bounded, Hash, Signature};
use quorate_protocol::limits::OPERATIONS_PER_ENVELOPE_MAX;
use quorate_protocol::{BatchTime, Envelope, PeerMessage, PrePrepare, Proposal, ReplicaIndex};

use super::{Deed, Outgoing};
use crate::cast::GENESIS_TIME;
use crate::world::World;

/// A slow leader holds its proposals back for this part of the request time-out.
const SLOWNESS: (u64, u64) = (3, 4);
/// One bent proposal in this many is as large as a proposal can be, which takes long to compute.
const HUGE_ONE_IN: u64 = 32;
/// Envelopes of a proposal that has more operations than any may have.
const ENVELOPES_TOO_MANY: usize = 17;

impl World {
    /// Its proposals later than they could be, and just before anybody's patience ends (hazard A2).
    pub(super) fn slowed(&mut self, from: ReplicaIndex, message: &Arc<PeerMessage>) -> Vec<Outgoing> {
        let after = match message.as_ref() {
            PeerMessage::PrePrepare(ours) if self.leads(from, ours.view) => {
                self.conspiracy.deeds.hit(Deed::Slowed);
                self.plan.parameters.timeouts.request / SLOWNESS.1 * SLOWNESS.0
            }
            _ => 0,
        };
        vec![Outgoing { after, message: message.clone() }]
    }

    /// Everything later than it could be.
    pub(super) fn dragged(&mut self, message: &Arc<PeerMessage>) -> Vec<Outgoing> {
        self.conspiracy.deeds.hit(Deed::Dragged);
        let after = self.byzantine_random.scaled(1, self.plan.parameters.timeouts.request);
        vec![Outgoing { after, message: message.clone() }]
    }

    /// Proposals, batches and views to exactly a quorum (hazard A8).
    pub(super) fn selected(
        &mut self,
        from: ReplicaIndex,
        excluded: bool,
        message: &Arc<PeerMessage>,
    ) -> Vec<Outgoing> {
        let ships = match message.as_ref() {
            PeerMessage::PrePrepare(ours) => self.leads(from, ours.view),
            PeerMessage::NewView(_)
            | PeerMessage::Certificate(_)
            | PeerMessage::Committed(_)
            | PeerMessage::Batches(_) => true,
            _ => false,
        };
        if ships && excluded {
            self.conspiracy.deeds.hit(Deed::Withheld);
            return Vec::new();
        }
        Outgoing::now(message.clone())
    }

    /// A proposal with a fault, or with what only a plotting client could have sent (hazard A14).
    pub(super) fn misproposed(&mut self, from: ReplicaIndex, message: &Arc<PeerMessage>) -> Arc<PeerMessage> {
        self.altered(from, message, Deed::Misproposed, Self::faulty)
    }

    /// A proposal at an impossible or barely possible time (hazard A15).
    pub(super) fn mistimed(&mut self, from: ReplicaIndex, message: &Arc<PeerMessage>) -> Arc<PeerMessage> {
        self.altered(from, message, Deed::Mistimed, Self::out_of_time)
    }

    /// An own proposal after `change`, the same one whenever it is sent.
    fn altered(
        &mut self,
        from: ReplicaIndex,
        message: &Arc<PeerMessage>,
        deed: Deed,
        change: fn(&mut Self, &PrePrepare) -> Option<Proposal>,
    ) -> Arc<PeerMessage> {
        let PeerMessage::PrePrepare(ours) = message.as_ref() else { return message.clone() };
        if !self.leads(from, ours.view) {
            return message.clone();
        }
        let place = (from, ours.view, ours.height);
        if let Some(known) = self.conspiracy.altered.get(&place) {
            return known.clone();
        }
        let bent = match change(self, ours) {
            None => message.clone(),
            Some(proposal) => {
                self.conspiracy.deeds.hit(deed);
                Arc::new(PeerMessage::PrePrepare(self.signed_proposal(from, ours, proposal)))
            }
        };
        self.conspiracy.altered.insert(place, bent.clone());
        bent
    }

    fn faulty(&mut self, ours: &PrePrepare) -> Option<Proposal> {
        let mut proposal = ours.proposal.clone();
        let mut envelopes = proposal.envelopes.clone().into_inner();
        match self.byzantine_random.below(9) {
            // As it should be, so that there is something to build on.
            0 | 1 => return None,
            2 => envelopes.push(Envelope { signature: Signature::ZERO, ..self.plotting_envelope(0, 1) }),
            3 => envelopes.extend(envelopes.first().cloned()),
            4 => {
                let mut body = self.plotting_envelope(0, 1).body;
                body.cluster = Hash([1; 32]);
                envelopes.push(body.sign(self.plotter().as_ref()));
            }
            5 => envelopes.push(self.plotting_envelope(0, 0)),
            // What was executed before, and what comes too early: skipped, never a fault (hazard CL1).
            6 => envelopes.extend(self.conspiracy.envelopes.front().cloned()),
            7 => envelopes.push(self.plotting_envelope(7, 1)),
            _ if self.byzantine_random.one_in(HUGE_ONE_IN) => {
                let huge = |number| self.plotting_envelope(number, OPERATIONS_PER_ENVELOPE_MAX);
                envelopes = (0..ENVELOPES_TOO_MANY as u64).map(huge).collect();
            }
            _ => envelopes.clear(),
        }
        proposal.envelopes = Bounded::try_collect(envelopes).ok()?;
        (proposal != ours.proposal).then_some(proposal)
    }

    fn out_of_time(&mut self, ours: &PrePrepare) -> Option<Proposal> {
        let window = self.plan.parameters.timeouts.clock_window;
        let wall = GENESIS_TIME.plus(self.queue.now());
        let time = match self.byzantine_random.below(9) {
            0 => wall.plus(window),
            1 => wall.plus(window + 1),
            2 => wall.plus(window - self.plan.speeds.latency.1.min(window)),
            3 => BatchTime(wall.0.saturating_sub(window)),
            4 => BatchTime(wall.0.saturating_sub(window + 1)),
            5 => GENESIS_TIME,
            6 => BatchTime(u64::MAX),
            7 => BatchTime(ours.proposal.time.0.saturating_sub(1)),
            _ => wall.plus(window * 10),
        };
        (time != ours.proposal.time).then(|| Proposal { time, ..ours.proposal.clone() })
    }
}
