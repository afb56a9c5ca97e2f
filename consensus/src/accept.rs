//! PRE-PREPAREs of others: what is kept, what is accepted, what is executed.
//!
//! Invariants: the first proposal seen at (view, height) stays (hazard AU9); what is accepted continues
//! this view's chain by one height, on a parent that is held; a refusal rests on static faults alone (rule
//! R5). A replica executes only on top of what it has executed or committed.

use std::sync::Arc;

use quorate_crypto::Hash;
use quorate_protocol::evidence::SignedDigest;
use quorate_protocol::view_change::Suspicion;
use quorate_protocol::{BatchTime, Height, PrePrepare, Proposal, ReplicaIndex};

use crate::block::{Block, Execution};
use crate::effect::{Effect, HaltReason};
use crate::input::{ExecutedHeader, StaticFault};
use crate::mutant::{Mutant, broken};
use crate::probe::{Probe, reached};
use crate::replica::{Kept, Replica};

/// What the checks of a proposal say.
enum Verdict {
    Accept,
    /// Not now, perhaps later: the parent differs, or the time is out of the clock window.
    Wait,
    /// Never.
    Fault,
}

impl Replica {
    pub(crate) fn on_pre_prepare(&mut self, from: ReplicaIndex, message: PrePrepare, digest: Hash) {
        let (view, height) = (message.view, message.height);
        if view < self.view.number || self.configuration.leader(view) == self.configuration.me() {
            return;
        }
        if view > self.view.number {
            // Whether that view began only its NEW-VIEW can tell.
            self.ask_new_view(from, view);
            return;
        }
        self.hear(from, height.saturating_sub(self.configuration.window()));
        // A leader whose committed height is higher than ours may be ahead by another window.
        let highest = self.window_end().saturating_add(self.configuration.window());
        if height > highest {
            reached(Probe::ProposalTooHigh);
            self.view.too_high = self.view.too_high.max(height);
        }
        let late = height <= self.committed.height && !broken(Mutant::CommittedProposalKept);
        if late || height > highest {
            return;
        }
        let signed = SignedDigest { digest, signature: message.signature };
        if !self.view.pre_prepares.contains_key(&height) {
            self.watch_proposal(&message);
            self.view.pre_prepares.insert(height, Kept { digest, message: Arc::new(message) });
        }
        self.note_proposal(view, height, signed);
    }

    /// Accepts kept proposals in order of height.
    pub(crate) fn accept_next(&mut self) {
        if !self.is_active() || !self.view.settled {
            return;
        }
        loop {
            let height = self.chain_top().saturating_add(1);
            if height > self.window_end() {
                return;
            }
            let Some(kept) = self.view.pre_prepares.get(&height) else { return self.ask_for_dropped() };
            let (digest, proposal) = (kept.digest, &kept.message.proposal);
            match self.judge(height, &digest, proposal) {
                Verdict::Accept => {
                    let proposal = Arc::new(proposal.clone());
                    self.accept(height, digest, proposal);
                }
                Verdict::Wait => return,
                Verdict::Fault => {
                    self.report_time(height);
                    return self.suspect(Suspicion::Fault);
                }
            }
        }
    }

    /// Puts a proposal at the top of this view's chain.
    pub(crate) fn accept(&mut self, height: Height, digest: Hash, proposal: Arc<Proposal>) {
        self.blocks.insert(Block::new(height, digest, proposal));
        self.view.chain.insert(height, digest);
        self.changed = true;
    }

    /// Height of the last block of this view's chain, or of what the chain will stand on.
    pub(crate) fn chain_top(&self) -> Height {
        let top = self.view.chain.last_key_value().map_or(0, |(height, _)| *height);
        top.max(self.view.base.0).max(self.committed.height)
    }

    /// Digest, time and operation count of the block on which a proposal at `height` must rest.
    pub(crate) fn parent_of(&self, height: Height) -> Option<(Hash, BatchTime, u64)> {
        let parent = height.checked_sub(1)?;
        if parent == self.committed.height {
            let header = &self.committed.header;
            return Some((header.proposal, header.time, self.committed.operations));
        }
        let block = self.view.chain.get(&parent).and_then(|digest| self.blocks.get(digest))?;
        Some((block.digest, block.proposal.time, block.operations))
    }

    fn judge(&self, height: Height, digest: &Hash, proposal: &Proposal) -> Verdict {
        let Some((parent, time, operations)) = self.parent_of(height) else { return Verdict::Wait };
        if proposal.parent != parent && !broken(Mutant::ParentUnchecked) {
            reached(Probe::ProposalOnOtherParent);
            return Verdict::Wait;
        }
        let least = least_time(time, operations);
        if broken(Mutant::TimeUnchecked) {
            return Verdict::Accept;
        }
        if proposal.time < least {
            reached(Probe::ProposalTooEarly);
            return Verdict::Fault;
        }
        // What was held already, with its time, was judged when it was fresh (rule R1).
        if proposal.time == least || self.blocks.get(digest).is_some() {
            reached(Probe::ProposalHeldBefore);
            return Verdict::Accept;
        }
        let window = self.configuration.timeouts().clock_window;
        let (earliest, latest) = (self.wall.0.saturating_sub(window), self.wall.0.saturating_add(window));
        if (earliest..=latest).contains(&proposal.time.0) {
            return Verdict::Accept;
        }
        reached(Probe::ProposalOutOfTime);
        Verdict::Wait
    }

    /// Asks for the execution of what this view's chain and the decided heights need.
    pub(crate) fn execute_next(&mut self) {
        let decided = self.decided.values().filter_map(|certificate| {
            self.blocks.by_header(&certificate.header_hash).map(|block| block.digest)
        });
        let mut due: Vec<(Height, Hash)> = self
            .view
            .chain
            .values()
            .copied()
            .chain(decided)
            .filter_map(|digest| self.blocks.get(&digest))
            .filter(|block| block.execution == Execution::Idle && self.is_executable(block))
            .map(|block| (block.height, block.digest))
            .collect();
        due.sort_unstable();
        due.dedup();
        for (height, digest) in due {
            let Some(block) = self.blocks.get_mut(&digest) else { continue };
            block.execution = Execution::Running;
            let proposal = Arc::clone(&block.proposal);
            self.effects.push(Effect::Execute { height, digest, parent: proposal.parent, proposal });
        }
    }

    fn is_executable(&self, block: &Block) -> bool {
        let parent = &block.proposal.parent;
        *parent == self.committed.header.proposal
            || self.blocks.get(parent).is_some_and(Block::is_executed)
            || broken(Mutant::ExecutedAhead)
    }

    fn liars_max(&self) -> u32 {
        u32::try_from(self.configuration.members().f()).unwrap_or(u32::MAX)
    }

    pub(crate) fn on_executed(
        &mut self,
        height: Height,
        digest: Hash,
        outcome: Result<ExecutedHeader, StaticFault>,
    ) {
        let Some(block) = self.blocks.get_mut(&digest) else { return };
        if block.execution != Execution::Running {
            return;
        }
        let certified = block.header.as_ref().map(|(hash, _)| *hash);
        let ours = match outcome {
            Ok(ExecutedHeader { header, advanced, wake_at }) => {
                block.execution = Execution::Done { advanced, wake_at };
                let hash = header.hash();
                // Fails only against a certified header, which is compared below.
                let _ = self.blocks.set_header(&digest, hash, header);
                hash
            }
            Err(StaticFault) => {
                reached(Probe::StaticFault);
                block.execution = Execution::Failed;
                Hash::ZERO
            }
        };
        match certified {
            Some(certified) if certified != ours => {
                self.halt(HaltReason::Diverged { height, ours, certified });
            }
            // Liars lead at most f views in a row. Beyond that the cause is not the leader, and views must not
            // change as fast as proposals fail (hazard RX4): the usual time-out decides.
            None if ours == Hash::ZERO && self.failed_views <= self.liars_max() => {
                self.suspect(Suspicion::Fault);
            }
            _ => {}
        }
        self.changed = true;
    }
}

/// The earliest time of a batch on a parent with this time and number of operations (rule S8).
pub(crate) fn least_time(parent: BatchTime, operations: u64) -> BatchTime {
    parent.plus(operations.max(1))
}
