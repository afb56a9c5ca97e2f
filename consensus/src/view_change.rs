//! Leaving a view: suspicion, hand-over, VIEW-CHANGE.
//!
//! Invariants: a replica leaves a view on f + 1 suspicions, on its leader's RESIGN, on f + 1 VIEW-CHANGEs for
//! later views, or on its own time-out that runs only once a quorum wants that view or a later one; once its
//! VIEW-CHANGE is staged it issues no vote in any earlier view; the claim that it signs is durable before
//! it (rule R1).

use quorate_crypto::Signature;
use quorate_protocol::record::Record;
use quorate_protocol::view_change::{
    Rank, Resign, SignedClaim, Suspect, Suspicion, ViewChange, ViewChangeBody,
};
use quorate_protocol::{PeerMessage, ReplicaIndex, View};

use std::sync::Arc;

use crate::door::rank;
use crate::effect::Effect;
use crate::mutant::{Mutant, broken};
use crate::probe::{Probe, reached};
use crate::replica::{Dependent, Replica, ViewState};

/// Why a view is left.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// It failed: waits become longer.
    Failure,
    /// It was given up in good order.
    HandOver,
}

impl Replica {
    /// Suspects the leader of the view at hand. A reason that lasts as long as the view takes the place of one
    /// that may be taken back.
    pub(crate) fn suspect(&mut self, reason: Suspicion) {
        let lasts = matches!(reason, Suspicion::Fault | Suspicion::Restarted);
        let news = match self.suspicion {
            None => true,
            Some(Suspicion::Fault | Suspicion::Restarted) => false,
            Some(_) => lasts,
        };
        if self.view.entered && news {
            if self.suspicion.is_some() {
                reached(Probe::SuspicionHardened);
            }
            self.suspicion = Some(reason);
            self.tell_suspicion(reason);
            self.changed = true;
        } else if self.view.entered
            && !matches!(self.suspicion, Some(Suspicion::Fault | Suspicion::Restarted))
        {
            self.suspicion = Some(reason);
        }
    }

    /// Takes its suspicion back.
    pub(crate) fn revoke(&mut self) {
        if broken(Mutant::SuspicionKept) {
            return;
        }
        if self.suspicion.take().is_some() {
            reached(Probe::SuspicionRevoked);
            self.tell_suspicion(Suspicion::Revoked);
        }
    }

    pub(crate) fn tell_suspicion(&mut self, reason: Suspicion) {
        let (epoch, view) = (self.configuration.epoch(), self.view.number);
        self.broadcast(PeerMessage::Suspect(Suspect { epoch, view, reason }));
    }

    pub(crate) fn on_suspect(&mut self, from: ReplicaIndex, suspect: Suspect) {
        if self.suspects.get(&from).is_some_and(|known| known.view > suspect.view) {
            reached(Probe::SuspicionStale);
            return;
        }
        self.suspects.insert(from, suspect);
        if suspect.view == self.view.number && suspect.reason == Suspicion::Restarted {
            self.consider_hand_over();
        }
    }

    /// A peer takes no part in this view any more: hand over, but not too often, so that it can take part in
    /// the next one (rule R2).
    fn consider_hand_over(&mut self) {
        let rested = self.now.since(self.view.entered_at) >= self.configuration.timeouts().hand_over;
        if rested && self.is_active() && self.is_leader() && self.view.retiring.is_none() {
            reached(Probe::HandedOverForPeer);
            self.retire(self.haste());
        }
    }

    /// Gives up the view at hand, if this replica leads it.
    pub(crate) fn hand_over(&mut self) {
        if !self.view.entered || !self.is_leader() || self.view.resigned {
            return;
        }
        self.view.resigned = true;
        let (epoch, view) = (self.configuration.epoch(), self.view.number);
        let statement = Resign::statement(*self.configuration.cluster(), epoch, view);
        let resign = Resign { epoch, view, signature: self.signer.sign(&statement) };
        self.resignations.insert(self.configuration.me(), view);
        self.own_resign = Some(resign.clone());
        self.broadcast(PeerMessage::Resign(resign));
        self.changed = true;
    }

    pub(crate) fn on_resign(&mut self, resign: &Resign) {
        let leader = self.configuration.leader(resign.view);
        let known = self.resignations.entry(leader).or_insert(resign.view);
        *known = resign.view.max(*known);
    }

    /// Whether the leader of the view at hand has given it up.
    fn is_resigned(&self) -> bool {
        self.resignations.get(&self.leader()) == Some(&self.view.number)
    }

    /// Replicas that want to leave the view at hand, this one included.
    fn suspecting(&self) -> usize {
        let view = self.view.number;
        let others = self.configuration.members().indices().filter(|replica| {
            let suspect = self.suspects.get(replica);
            let suspects =
                suspect.is_some_and(|known| known.view == view && known.reason != Suspicion::Revoked);
            // Whoever has left for a later view does not vote in this one.
            let left = self.view_changes.get(replica).is_some_and(|known| known.claim.body.view > view);
            *replica != self.configuration.me() && (suspects || left)
        });
        others.count().saturating_add(usize::from(self.suspicion.is_some()))
    }

    /// The (f + 1)-th highest view among the latest VIEW-CHANGEs of the others: at least one correct replica
    /// wants it or a later one.
    fn joinable_view(&self) -> Option<View> {
        let me = self.configuration.me();
        let others = self.view_changes.iter().filter(|(replica, _)| **replica != me);
        let mut views: Vec<View> = others.map(|(_, known)| known.claim.body.view).collect();
        views.sort_unstable_by(|a, b| b.cmp(a));
        let place = if broken(Mutant::JoinAlone) { 0 } else { self.configuration.members().f() };
        views.get(place).copied()
    }

    /// Leaves the view at hand if there is a reason to.
    pub(crate) fn check_views(&mut self) {
        // Only more than f liars can bring views to the last number that there is; it is left for no other.
        let Some(next) = self.view.number.checked_add(1) else { return };
        let claimed = self.claim_rank().view;
        if let Some(view) = self.joinable_view().filter(|view| *view >= next && *view > claimed) {
            reached(Probe::Joined);
            self.start_view_change(view, Cause::Failure);
        } else if self.is_superseded() {
            // A claim precedes the view that it is made for; the later view has begun and is fetched.
            reached(Probe::Superseded);
        } else if self.is_resigned() {
            reached(Probe::LeftResigned);
            self.start_view_change(next, Cause::HandOver);
        } else if self.view.entered && self.suspecting() >= self.suspicions_wanted() {
            reached(Probe::LeftSuspected);
            self.start_view_change(next, Cause::Failure);
        } else if self.has_stray() {
            self.consider_hand_over();
        }
    }

    /// Suspicions, its own included, that end a view.
    fn suspicions_wanted(&self) -> usize {
        if broken(Mutant::SuspicionAlone) { 1 } else { self.configuration.weak_quorum() }
    }

    /// Whether a peer has left for a later view alone.
    fn has_stray(&self) -> bool {
        self.view.entered && self.view_changes.values().any(|known| known.claim.body.view > self.view.number)
    }

    /// Once a quorum wants the view at hand or later ones, NEW-VIEW must come in time.
    pub(crate) fn check_new_view_timer(&mut self) {
        let view = self.view.number;
        match self.timers.new_view_at {
            None => {
                let wanting = self.view_changes.values().filter(|known| known.claim.body.view >= view);
                if wanting.count() >= self.configuration.quorum() && !broken(Mutant::NewViewTimerOff) {
                    let patience = self.new_view_patience();
                    self.timers.new_view_at = Some(self.now.plus(patience));
                }
            }
            Some(at) if at <= self.now => {
                reached(Probe::NewViewOverdue);
                self.timers.new_view_at = None;
                if let Some(next) = view.checked_add(1).filter(|_| !self.is_superseded()) {
                    self.start_view_change(next, Cause::Failure);
                }
            }
            Some(_) => {}
        }
    }

    /// Stops voting in every view below `view` and claims the highest certificate for it.
    fn start_view_change(&mut self, view: View, cause: Cause) {
        assert!(view > self.view.number, "views never fall");
        let claim = self.claim.clone().filter(|_| !broken(Mutant::CertificateDropped));
        let body = ViewChangeBody {
            epoch: self.configuration.epoch(),
            view,
            rank: claim.as_ref().map_or(Rank::default(), rank),
            header: claim.as_ref().map_or(self.configuration.genesis_hash(), |claim| claim.header_hash),
            committed: self.committed.height,
            replica: self.configuration.me(),
        };
        let signature: Signature = self.signer.sign(&body.statement(*self.configuration.cluster()));
        let message = ViewChange { claim: SignedClaim { body, signature }, certificate: claim };
        self.monitor.view_left(self.now, self.suspicion == Some(Suspicion::Monitor));
        if cause == Cause::Failure {
            self.failed_views = self.failed_views.saturating_add(1);
        }
        self.view = ViewState::new(view, self.now);
        self.suspicion = None;
        self.timers.view_changed(self.now, self.configuration.timeouts());
        self.staged.records.push(Record::ViewChange(message.clone()));
        self.staged.pending.view_change = Some(message.clone());
        let effect = Effect::Broadcast { message: Arc::new(PeerMessage::ViewChange(message)) };
        self.staged.then.push(Dependent::Effect(effect));
        self.changed = true;
    }

    /// Sends its VIEW-CHANGE, suspicion or resignation again, as long as no newer view has begun.
    pub(crate) fn repeat_view_change(&mut self) {
        if !self.view.entered {
            let own = self.view_changes.get(&self.configuration.me()).cloned();
            if let Some(own) = own.filter(|own| own.claim.body.view == self.view.number) {
                self.broadcast(PeerMessage::ViewChange(own));
            }
            if let Some(resign) = self.own_resign.clone() {
                self.broadcast(PeerMessage::Resign(resign));
            }
        } else if let Some(reason) = self.suspicion {
            self.tell_suspicion(reason);
        }
    }
}
