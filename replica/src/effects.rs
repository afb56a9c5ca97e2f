//! What consensus asks for, done.
//!
//! Invariant: a send never overtakes a vote of the same turn that came before it, except that votes of one
//! turn share a message; the state database is written only after the log that it follows from is synced.

use crate::executor::{Job, Outcome};
use crate::node::{Due, Held, Node};
use quorate_consensus::{Effect, ExecutedHeader, HaltReason, Input, StaticFault, Token};
use quorate_crypto::{Certificate, Hash};
use quorate_protocol::{Header, Height, PeerMessage, Proposal};
use std::sync::Arc;
use std::time::Instant;

/// Operations of a batch that is executed on the loop's own thread: some hundred microseconds at most.
const INLINE_OPERATIONS_MAX: u64 = 4;

impl Node {
    /// Carries out one effect.
    pub(crate) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                self.flush_votes();
                // Proposals are sent to one alone only as a part of such an answer.
                let of_view = matches!(*message, PeerMessage::NewView(_) | PeerMessage::PrePrepare(_));
                if of_view && !self.peer_budgets.may_have_view(to, Instant::now()) {
                    return;
                }
                let bytes = self.peers.send(to, &message);
                if of_view || matches!(*message, PeerMessage::Batches(_)) {
                    self.peer_budgets.answered(to, bytes, Instant::now());
                }
            }
            Effect::Broadcast { message } => self.broadcast(&message),
            Effect::NotifyClients { vote, digest } => {
                self.clients.committing(&vote, digest, self.speculative.get(&digest));
            }
            Effect::Persist { token, records, then } => {
                self.turn_records.extend(records);
                self.turn_token = Some(token);
                self.held.push_back(Held { token, then });
            }
            Effect::Execute { height, digest, parent, proposal } => {
                self.execute(height, digest, parent, proposal);
            }
            Effect::Committed { token, height, header, certificate, digest, proposal: _ } => {
                self.committed(token, height, &header, certificate, digest);
            }
            Effect::Forget { digest } => {
                self.executor.cancel(digest);
                self.speculative.remove(&digest);
                self.clients.forget(&digest);
            }
            Effect::Returned { envelopes } => {
                for envelope in envelopes {
                    self.inputs.push_back(Due::Request(envelope));
                }
            }
            Effect::ServeCommitted { to, from } => self.serve_committed(to, from),
            Effect::SetTimer { at } => self.timer = Some(at),
            Effect::Halt { reason } => Self::halted(reason),
            Effect::Evidence(evidence) => self.keep_evidence(*evidence),
            // A local observation: nobody else can be shown it, so it is no evidence.
            Effect::Forged(vote) => {
                let barred = self.consensus.barred().any(|(replica, _)| replica == vote.replica);
                tracing::error!(
                    ?vote,
                    barred,
                    "a replica sent a vote whose signature does not hold: it is faulty"
                );
            }
        }
    }

    /// Collects votes of this turn; everything else leaves at once, after them.
    fn broadcast(&mut self, message: &PeerMessage) {
        if let PeerMessage::Votes(votes) = message {
            self.turn_votes.extend(votes.iter().cloned());
        } else {
            self.flush_votes();
            self.peers.broadcast(message);
        }
    }

    fn execute(&mut self, height: Height, digest: Hash, parent: Hash, proposal: Arc<Proposal>) {
        self.clients.proposed(digest, &proposal);
        let state = match self.speculative.get(&parent) {
            Some(executed) => executed.state.clone(),
            None if self.state.header().proposal == parent => self.state.clone(),
            None => {
                // Consensus asks only for children of what it was given; anything else is our defect, and
                // going on would vote on a state that nobody has.
                tracing::error!(height, %parent, "no state for the parent of a proposal");
                std::process::exit(crate::EXIT_DEFECT);
            }
        };
        #[cfg(feature = "faults")]
        self.executing(height, &state);
        let job = Job { height, digest, parent: state, proposal };
        if job.proposal.operation_count() <= INLINE_OPERATIONS_MAX {
            // Cheaper than waking the thread and being woken by it.
            let outcome = self.executor.execute_here(job);
            self.on_executed(outcome);
        } else {
            self.executor.execute(job);
        }
    }

    pub(crate) fn on_executed(&mut self, outcome: Outcome) {
        let Outcome { height, digest, executed } = outcome;
        let outcome = match executed {
            Ok(executed) => {
                let header = ExecutedHeader {
                    header: executed.state.header().clone(),
                    advanced: executed.advanced.clone(),
                    wake_at: executed.wake_at,
                };
                self.speculative.insert(digest, executed);
                Ok(header)
            }
            Err(fault) => {
                tracing::warn!(height, %fault, "a proposal has a static fault");
                Err(StaticFault)
            }
        };
        self.inputs.push_back(Due::Input(Input::Executed { height, digest, outcome }));
    }

    fn committed(
        &mut self,
        token: Token,
        height: Height,
        header: &Header,
        certificate: Certificate,
        digest: Hash,
    ) {
        let Some(executed) = self.speculative.remove(&digest) else {
            tracing::error!(height, "a committed proposal was never executed here");
            std::process::exit(crate::EXIT_DEFECT);
        };
        assert_eq!(executed.state.header().hash(), header.hash(), "consensus committed another header");
        self.state = executed.state.clone();
        self.certificate = Some(certificate.clone());
        self.blocks.committed(&executed);
        self.past.committed(&executed);
        self.keeper.committed(token, Arc::clone(&executed));
        self.heads.committed(token, header.clone());
        self.clients.committed(&digest, &executed, &certificate, self.consensus.view());
        self.history.committed(&executed, certificate);
        self.answer_waiting_reads();
    }

    fn halted(reason: HaltReason) {
        tracing::error!(
            %reason,
            "this replica does not vote any more: keep its directory for examination and bring it back as a new member"
        );
    }
}
