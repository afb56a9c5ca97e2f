//! Leaders that open their view wrongly: twice, over a base that is not the maximum, with claims that are no
//! quorum, with an old NEW-VIEW, or for some only (hazards VC2, VC5, VC8).
//!
//! Invariant: among the variants are NEW-VIEWs that hold, made of other claims: two valid ones of one view
//! must be harmless (rule R1).

use std::sync::Arc;

use quorate_crypto::{Bounded, Certificate, CertificateKind};
use quorate_protocol::view_change::{NewView, Rank, SignedClaim, ViewChange};
use quorate_protocol::{PeerMessage, ReplicaIndex};

use super::{Deed, Outgoing};
use crate::world::World;

const fn rank(certificate: &Certificate) -> Rank {
    Rank { view: certificate.view, height: certificate.height }
}

impl World {
    pub(super) fn misopened(
        &mut self,
        from: ReplicaIndex,
        to: ReplicaIndex,
        marked: bool,
        message: &Arc<PeerMessage>,
    ) -> Vec<Outgoing> {
        let PeerMessage::NewView(ours) = message.as_ref() else {
            return Outgoing::now(message.clone());
        };
        if !self.leads(from, ours.view) || !marked {
            return Outgoing::now(message.clone());
        }
        self.conspiracy.deeds.hit(Deed::Misopened);
        // The same lie to the same replica, however often it asks.
        let bent = match (ours.view + u64::from(to)) % 6 {
            0 | 1 => self.opened_with_others(from, ours),
            2 => self.opened_below(from, ours),
            3 => {
                let claims = ours.claims.iter().skip(1).cloned();
                let claims = Bounded::try_collect(claims).unwrap_or_default();
                Some(self.signed_new_view(from, NewView { claims, ..ours.clone() }))
            }
            4 => self.opened_before(ours),
            _ => None,
        };
        bent.map_or_else(Vec::new, |bent| Outgoing::now(Arc::new(PeerMessage::NewView(bent))))
    }

    /// Another NEW-VIEW of the same view that holds, out of the other claims that the liar has.
    fn opened_with_others(&mut self, from: ReplicaIndex, ours: &NewView) -> Option<NewView> {
        let quorum = self.genesis.members.quorum();
        let heard = self.conspiracy.claims.get(&ours.view)?;
        let mut all: Vec<ViewChange> = heard.values().cloned().collect();
        if let Some(own) = ours.claims.iter().find(|claim| claim.body.replica == from) {
            // With the least claim that it can make.
            let own = ViewChange { claim: own.clone(), certificate: ours.base.clone() };
            all.push(own);
        }
        if all.len() < quorum {
            return None;
        }
        // The lowest claims, where the leader that it pretends to be takes the highest.
        all.sort_by_key(|claim| (claim.claim.body.rank, claim.claim.body.replica));
        all.truncate(quorum);
        let highest = all.iter().map(|claim| claim.claim.body.rank).max().unwrap_or_default();
        let certificates = all.iter().filter_map(|claim| claim.certificate.clone());
        let base = certificates
            .filter(|certificate| rank(certificate) >= highest)
            .max_by_key(|certificate| (rank(certificate), certificate.kind == CertificateKind::Commit));
        all.sort_by_key(|claim| claim.claim.body.replica);
        let claims: Vec<SignedClaim> = all.into_iter().map(|claim| claim.claim).collect();
        let claims = Bounded::try_collect(claims).ok()?;
        if claims != ours.claims || base != ours.base {
            self.conspiracy.deeds.hit(Deed::OpenedTwice);
        }
        Some(self.signed_new_view(from, NewView { claims, base, ..ours.clone() }))
    }

    /// The same claims over a base that is below one of them, or none at all (hazard VC2).
    fn opened_below(&mut self, from: ReplicaIndex, ours: &NewView) -> Option<NewView> {
        let lower = self.conspiracy.claims.values().flat_map(|claims| claims.values());
        let lower = lower.filter_map(|claim| claim.certificate.clone());
        let highest = ours.base.as_ref().map_or(Rank::default(), rank);
        let base = lower.filter(|certificate| rank(certificate) < highest).max_by_key(rank);
        Some(self.signed_new_view(from, NewView { base, ..ours.clone() }))
    }

    /// A NEW-VIEW that was heard before, of another view (hazard VC8).
    fn opened_before(&self, ours: &NewView) -> Option<NewView> {
        self.conspiracy.heard.iter().rev().find_map(|message| match message.as_ref() {
            PeerMessage::NewView(old) if old.view != ours.view => Some(old.clone()),
            _ => None,
        })
    }
}
