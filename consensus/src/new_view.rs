//! Beginning a view: the leader's choice of the base, NEW-VIEW, entering.
//!
//! Invariants: the base is a certificate of rank at least that of every claim in NEW-VIEW, and it alone
//! decides what stands (rule R1); a leader uses only claims whose batches it holds; a view above 0 is
//! entered only by its NEW-VIEW, and never a lower one than wanted; heights above the base are dropped.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_crypto::{Bounded, Certificate, CertificateKind, Hash};
use quorate_protocol::limits::REPLICAS_MAX;
use quorate_protocol::record::Record;
use quorate_protocol::view_change::{NewView, SignedClaim, ViewChange};
use quorate_protocol::{PeerMessage, ReplicaIndex, VoteKind};

use crate::block::Path;
use crate::catch_up::Served;
use crate::door::rank;
use crate::effect::Effect;
use crate::mutant::{Mutant, broken, less};
use crate::probe::{Probe, reached};
use crate::replica::{Dependent, Replica, ViewState};

impl Replica {
    pub(crate) fn on_view_change(&mut self, from: ReplicaIndex, message: ViewChange) {
        let (replica, view) = (message.claim.body.replica, message.claim.body.view);
        if replica == self.configuration.me() {
            return;
        }
        self.watch_claim(&message.claim);
        if let Some(certificate) = message.certificate.clone() {
            self.learn(certificate);
        }
        if self.view.entered && view <= self.view.number {
            // Fresh ones cross the NEW-VIEW that answers them; a repeated one has missed it.
            let grace = self.configuration.timeouts().resend / 2;
            let missed = view < self.view.number || self.now.since(self.view.entered_at) >= grace;
            // What another one repeats says nothing of what its signer has missed.
            if missed && from == replica {
                reached(Probe::ViewChangeAnswered);
                self.serve_new_view(replica, self.view.number, Served::Unasked);
            }
            return;
        }
        let newer = self.view_changes.get(&replica).is_none_or(|known| known.claim.body.view < view);
        if newer {
            self.view_changes.insert(replica, message);
        }
    }

    /// As leader of the view at hand, opens it as soon as Q claims can be supported.
    pub(crate) fn build_new_view(&mut self) {
        if self.view.entered || !self.is_leader() || self.halted.is_some() {
            return;
        }
        let view = self.view.number;
        if self.claim.as_ref().is_some_and(|claim| claim.view >= view) {
            // This view or a later one has begun already.
            reached(Probe::LeaderTooLate);
            return;
        }
        let candidates: Vec<ViewChange> =
            self.view_changes.values().filter(|known| known.claim.body.view == view).cloned().collect();
        let quorum = less(Mutant::NewViewQuorumLess, self.configuration.quorum());
        if candidates.len() < quorum {
            return;
        }
        let mut supported: Vec<ViewChange> =
            candidates.into_iter().filter(|candidate| self.supports(candidate)).collect();
        if supported.len() < quorum {
            return;
        }
        // The highest claims, so that as little as possible of what was prepared is dropped.
        supported.sort_by_key(|candidate| std::cmp::Reverse(candidate.claim.body.rank));
        supported.truncate(quorum);
        let certificates = supported.iter().filter_map(|candidate| candidate.certificate.as_ref());
        let base = certificates
            .chain(self.claim.as_ref())
            .max_by_key(|certificate| (rank(certificate), certificate.kind == CertificateKind::Commit));
        let mut base = base.cloned();
        if broken(Mutant::BaseLowest) {
            base = supported.last().and_then(|candidate| candidate.certificate.clone());
        }
        supported.sort_by_key(|candidate| candidate.claim.body.replica);
        self.open_view(supported.into_iter().map(|candidate| candidate.claim), base);
    }

    /// Whether all batches of a claim are here; fetches what is missing, from the claimant first.
    fn supports(&mut self, candidate: &ViewChange) -> bool {
        let body = &candidate.claim.body;
        match self.blocks.path(body.header, body.rank.height, self.floor()) {
            Path::Complete(_) => true,
            Path::Contradicts => false,
            Path::Missing { header, height } => {
                reached(Probe::ClaimWithoutBatches);
                let signers = candidate.certificate.iter().flat_map(|known| known.signers.iter());
                let holders: Vec<ReplicaIndex> = std::iter::once(body.replica).chain(signers).collect();
                self.want_batch_of(header, height, holders, 0);
                false
            }
        }
    }

    fn open_view(&mut self, claims: impl Iterator<Item = SignedClaim>, base: Option<Certificate>) {
        let (epoch, view) = (self.configuration.epoch(), self.view.number);
        let Ok(claims) = Bounded::<SignedClaim, REPLICAS_MAX>::try_collect(claims) else { return };
        let statement = NewView::statement(*self.configuration.cluster(), epoch, view, &claims, &base);
        let signature = self.signer.sign(&statement);
        let new_view = Arc::new(NewView { epoch, view, claims, base, signature });
        self.enter(Arc::clone(&new_view));
        let message = Arc::new(PeerMessage::NewView((*new_view).clone()));
        self.staged.then.push(Dependent::Effect(Effect::Broadcast { message }));
    }

    pub(crate) fn on_new_view(&mut self, new_view: Arc<NewView>) {
        let ours = self.view.number;
        let stale = new_view.view < ours || (new_view.view == ours && self.view.entered);
        if stale || new_view.epoch != self.configuration.epoch() || self.halted.is_some() {
            return;
        }
        new_view.claims.iter().for_each(|claim| self.watch_claim(claim));
        // Relayed, because its leader may have sent it to some only.
        self.broadcast(PeerMessage::NewView((*new_view).clone()));
        self.enter(new_view);
    }

    fn enter(&mut self, new_view: Arc<NewView>) {
        let view = new_view.view;
        assert!(view > self.view.number || !self.view.entered, "a view is entered once");
        assert!(view >= self.view.number, "views never fall");
        if view > self.view.number {
            reached(Probe::EnteredUnasked);
        }
        match &new_view.base {
            Some(base) if base.kind == CertificateKind::Commit => reached(Probe::BaseCommitted),
            Some(_) => reached(Probe::BasePrepared),
            None => {}
        }
        let mut state = ViewState::new(view, self.now);
        if view == self.view.number {
            state.pre_prepares = std::mem::take(&mut self.view.pre_prepares);
            state.too_high = self.view.too_high;
        }
        state.entered = true;
        state.committed_at_entry = self.committed.height;
        state.base = new_view
            .base
            .as_ref()
            .map_or((0, self.configuration.genesis_hash()), |base| (base.height, base.header_hash));
        state.new_view = Some(Arc::clone(&new_view));
        self.view = state;
        self.suspicion = None;
        self.monitor.view_left(self.now, false);
        self.barren_views = self.barren_views.saturating_add(1);
        self.timers.view_changed(self.now, self.configuration.timeouts());
        self.view_changes.retain(|_, known| known.claim.body.view > view);
        self.suspects.retain(|_, known| known.view >= view);
        self.own_resign = None;
        self.staged.records.push(Record::NewView((*new_view).clone()));
        self.staged.records.push(Record::Entered { epoch: new_view.epoch, view });
        self.staged.pending.entered = Some(view);
        self.last_new_view = Some(Arc::clone(&new_view));
        self.changed = true;
        if let Some(base) = new_view.base.clone() {
            self.learn(base);
        }
        if self.view.base.0 <= self.committed.height {
            self.tell_committed_base();
        }
        for height in self.votes.heights(view, VoteKind::Prepare) {
            self.try_certificate(VoteKind::Prepare, view, height);
        }
    }

    /// Whoever knows that the base is committed, when it enters or before it has PREPAREd it, does not PREPARE it,
    /// so it owes the others the certificate.
    pub(crate) fn tell_committed_base(&mut self) {
        let prepared = self.view.base_certificate().is_some_and(|c| c.kind == CertificateKind::Prepare);
        if prepared && let Some(certificate) = self.committed.certificate.clone() {
            reached(Probe::BaseKnownCommitted);
            self.broadcast(PeerMessage::Certificate(certificate));
        }
    }

    /// Finds the blocks of the base; then drops what is neither below it nor below the claim.
    pub(crate) fn settle_base(&mut self) {
        if !self.view.entered || self.view.settled {
            return;
        }
        let (height, header) = self.view.base;
        match self.blocks.path(header, height, self.floor()) {
            Path::Complete(path) => {
                for digest in path {
                    if let Some(block) = self.blocks.get(&digest) {
                        self.view.chain.insert(block.height, digest);
                    }
                }
                self.view.settled = true;
                self.changed = true;
                let kept = self.blocks_in_use();
                self.retain_blocks(&kept);
                self.project_chain();
            }
            Path::Missing { header, height } => {
                reached(Probe::BaseWithoutBatches);
                let Some(new_view) = self.view.new_view.clone() else { return };
                let leader = self.configuration.leader(new_view.view);
                let signers = new_view.base.iter().flat_map(|base| base.signers.iter());
                let holders = std::iter::once(leader).chain(signers).collect();
                self.want_batch_of(header, height, holders, 0);
            }
            // More than f replicas are faulty, or this one has lost its own claim: it takes no part.
            Path::Contradicts => {}
        }
    }

    /// Digests of the blocks on the paths of the claim, of this view's chain and of what is decided.
    pub(crate) fn blocks_in_use(&self) -> BTreeSet<Hash> {
        let certified = self.claim.iter().chain(self.decided.values()).chain(self.view.certificates.values());
        let tops = certified.filter_map(|certificate| self.blocks.by_header(&certificate.header_hash));
        let tops = tops.map(|block| block.digest).chain(self.view.chain.values().copied());
        tops.flat_map(|digest| self.blocks.ancestry(digest)).collect()
    }
}
