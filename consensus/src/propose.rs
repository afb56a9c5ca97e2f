//! The leader: when it proposes, and what.
//!
//! Invariants: at most W heights are in flight; a leader that entered its view in an earlier run, or has
//! resigned, proposes nothing (rule R2); the record of entering the view is synced before its first
//! PRE-PREPARE, so that a leader that restarts knows that it must be mute. No record goes before the
//! PRE-PREPARE itself.

use std::sync::Arc;

use quorate_protocol::limits::{ENVELOPE_BYTES_MAX, OPERATIONS_PER_ENVELOPE_MAX};
use quorate_protocol::{BatchTime, Envelope, Height, PeerMessage, PrePrepare, Proposal};

use crate::accept::least_time;
use crate::configuration::ProposalBounds;
use crate::effect::Effect;
use crate::pool::Room;
use crate::probe::{Probe, reached};
use crate::replica::{Kept, Replica};

/// Views without a committed batch of operations after which a leader first proposes an empty batch, then
/// halves (rule R5).
pub(crate) const BARREN_VIEWS_MAX: u32 = 3;
/// Bytes of an encoded proposal beside its envelopes: parent, time, count.
const PROPOSAL_FRAME_BYTES: usize = 64;

impl Replica {
    /// Proposes as long as there is something to propose and room in the window.
    pub(crate) fn propose(&mut self) {
        while self.may_propose() {
            let height = self.chain_top().saturating_add(1);
            if height > self.window_end() {
                return;
            }
            let Some(envelopes) = self.contents(height) else { return };
            if !self.propose_at(height, envelopes) {
                return;
            }
        }
    }

    fn may_propose(&self) -> bool {
        self.is_active()
            && self.is_leader()
            && self.is_entry_durable()
            && self.view.settled
            && !self.view.mute
            && self.view.retiring.is_none()
            && !self.view.resigned
    }

    /// The envelopes of the next proposal; `None` if there is no reason for one.
    fn contents(&mut self, height: Height) -> Option<Vec<Envelope>> {
        let caution = self.barren_views.saturating_add(1).saturating_sub(BARREN_VIEWS_MAX);
        let awaited = self.awaited.is_some_and(|(awaited, _)| awaited >= height);
        if caution > 0 && self.pool.has_ready() {
            if self.chain_top() > self.view.base.0.max(self.committed.height) && !awaited {
                // One at a time, until one has passed.
                reached(Probe::CautiousOne);
                return None;
            }
            if self.committed.height <= self.view.committed_at_entry {
                reached(Probe::CautiousEmpty);
                return Some(Vec::new());
            }
        }
        let bounds = self.configuration.parameters().proposal;
        let envelopes = self.pool.select(Room {
            envelopes: bounds.envelopes,
            operations: bounds.operations.checked_shr(caution).unwrap_or(0).max(1),
            bytes: bounds.bytes.saturating_sub(PROPOSAL_FRAME_BYTES),
        });
        let empty = envelopes.is_empty();
        if empty && awaited {
            reached(Probe::EmptyForReader);
        }
        let reason = !empty || awaited || self.tick_is_due();
        reason.then_some(envelopes)
    }

    /// When the state at the top of the chain asks for an empty batch; `None` while it is being executed.
    pub(crate) fn wake_at(&self) -> Option<BatchTime> {
        match self.view.chain.last_key_value() {
            None => self.committed.wake_at,
            Some((_, digest)) => match self.blocks.get(digest).map(|block| &block.execution) {
                Some(crate::block::Execution::Done { wake_at, .. }) => *wake_at,
                _ => None,
            },
        }
    }

    fn tick_is_due(&self) -> bool {
        self.wake_at().is_some_and(|at| at <= self.wall)
    }

    /// Whether this replica has to watch the wall clock for the next tick.
    pub(crate) fn watches_ticks(&self) -> bool {
        self.may_propose() && self.chain_top() < self.window_end()
    }

    fn propose_at(&mut self, height: Height, envelopes: Vec<Envelope>) -> bool {
        let Some((parent, time, operations)) = self.parent_of(height) else { return false };
        let Ok(envelopes) = envelopes.try_into() else { return false };
        let time = self.wall.max(least_time(time, operations));
        let proposal = Proposal { parent, time, envelopes };
        let (cluster, epoch, view) =
            (*self.configuration.cluster(), self.configuration.epoch(), self.view.number);
        let digest = proposal.digest(&cluster, epoch, height);
        let statement = PrePrepare::statement(cluster, epoch, view, height, digest);
        let signature = self.signer.sign(&statement);
        let message = PrePrepare { epoch, view, height, proposal: proposal.clone(), signature };
        let kept = Kept { digest, message: Arc::new(message.clone()) };
        self.view.pre_prepares.insert(height, kept);
        self.monitor.proposed(height, self.now);
        self.effects.push(Effect::Broadcast { message: Arc::new(PeerMessage::PrePrepare(message)) });
        self.accept(height, digest, Arc::new(proposal));
        true
    }

    /// Notes which pooled envelopes are in the chain that the view builds on, and in proposals that came early.
    pub(crate) fn project_chain(&mut self) {
        self.pool.reset_projection();
        self.pool.rotate(self.view.number);
        for digest in self.view.chain.values() {
            let Some(block) = self.blocks.get(digest) else { continue };
            let proposal = Arc::clone(&block.proposal);
            proposal.envelopes.iter().for_each(|envelope| self.pool.project(envelope));
        }
        for kept in self.view.pre_prepares.values() {
            kept.message.proposal.envelopes.iter().for_each(|envelope| self.pool.project(envelope));
        }
    }
}

/// Whether a proposal may have been too full for one envelope more.
pub(crate) fn fills(proposal: &Proposal, bounds: ProposalBounds) -> bool {
    let operations = usize::try_from(proposal.operation_count()).unwrap_or(usize::MAX);
    let bytes = borsh::object_length(proposal).unwrap_or(usize::MAX);
    proposal.envelopes.len() >= bounds.envelopes
        || operations.saturating_add(OPERATIONS_PER_ENVELOPE_MAX) > bounds.operations
        || bytes.saturating_add(ENVELOPE_BYTES_MAX) > bounds.bytes
}
