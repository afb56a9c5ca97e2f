//! What must hold of a replica between any two steps.
//!
//! Invariant: a replica on which these assertions fail has a defect of its own; no peer, client or disk can
//! make one fail. A simulator calls them after each event.

use quorate_protocol::view_change::{Rank, Suspicion};

use crate::block::Path;
use crate::door::rank;
use crate::replica::Replica;

impl Replica {
    /// Asserts internal consistency.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn invariants(&self) {
        assert!(self.effects.is_empty() && self.staged.prepares.is_empty(), "effects were handed out");
        assert!(self.staged.then.is_empty(), "what depends on records was handed out with them");
        assert!(self.staged.records.is_empty() || self.staged.since.is_some(), "what waits has a timer");
        assert!(self.blocks.is_consistent(), "blocks are indexed by digest and header alike");
        assert!(self.pool.is_consistent(), "the pool's timers and counts match its envelopes");
        let committed = self.committed.height;
        assert!(self.committed.header.height == committed, "the tip is its header's");
        assert!(self.committed.certificate.is_some() == (committed > 0), "only genesis has no certificate");
        assert!(self.blocks.iter().all(|block| block.height > committed), "blocks are above the tip");
        assert!(self.decided.keys().all(|height| *height > committed), "decided heights are above the tip");
        if self.halted.is_none() {
            self.claim_invariants();
            self.view_invariants();
        }
    }

    fn claim_invariants(&self) {
        let last = self.committed.certificate.as_ref().map_or(Rank::default(), rank);
        assert!(self.claim_rank() >= last, "the claim covers the last commit certificate");
        let Some(claim) = &self.claim else {
            assert!(self.committed.height == 0, "a committed height is claimed");
            return;
        };
        let path = self.blocks.path(claim.header_hash, claim.height, self.floor());
        assert!(matches!(path, Path::Complete(_)), "the claim's batches are held: {path:?}");
    }

    fn view_invariants(&self) {
        let view = &self.view;
        let committed = self.committed.height;
        let revocable = [Suspicion::Timeout, Suspicion::Monitor, Suspicion::Disconnected];
        if self.suspicion.is_some_and(|suspicion| revocable.contains(&suspicion)) {
            assert!(self.reason_to_suspect().is_some(), "a suspicion is taken back with its reason");
        }
        if view.entered {
            let opened = view.new_view.as_ref().map_or(0, |new_view| new_view.view);
            assert!(opened == view.number, "a view above 0 is entered by its NEW-VIEW");
            assert!(
                !self.view_changes.contains_key(&self.configuration.me()),
                "no claim is kept for a view that has begun"
            );
        } else {
            assert!(view.chain.is_empty() && view.prepared.is_empty() && view.commits.is_empty());
        }
        let mut parent = self.committed.header.proposal;
        for (expected, (height, digest)) in (committed.saturating_add(1)..).zip(&view.chain) {
            assert!(*height == expected, "the chain has no gap above the tip");
            let block = self.blocks.get(digest);
            assert!(
                block.is_some_and(|block| block.height == *height && block.proposal.parent == parent),
                "the chain at height {height} is held and rests on what is below"
            );
            parent = *digest;
        }
        assert!(
            view.pre_prepares.keys().all(|height| *height > committed),
            "proposals are kept above the tip"
        );
        let certificates = view.certificates.values().chain(view.committed_on.iter());
        for certificate in certificates {
            assert!(certificate.view == view.number, "certificates of another view are no votes' ground");
        }
        assert!(view.last_prepared <= self.window_end(), "PREPAREs stay in the window");
        assert!(
            view.committed_on.as_ref().is_none_or(|on| self.claim_rank() >= rank(on)),
            "the claim covers every COMMIT of the view"
        );
    }
}
