//! What liars sign: each with its own key, over statements that no correct replica would make.
//!
//! Invariant: nothing here signs for anybody but the liar itself.

use std::sync::Arc;

use quorate_crypto::{Certificate, Hash, Signer};
use quorate_execution::Environment;
use quorate_protocol::view_change::{NewView, Rank, SignedClaim, ViewChange, ViewChangeBody};
use quorate_protocol::{Height, PrePrepare, Proposal, ReplicaIndex, View, Vote};

use crate::machine::{Executed, State};
use crate::world::World;

impl World {
    pub(super) fn signer(&self, index: ReplicaIndex) -> Arc<dyn Signer> {
        self.signers[usize::from(index)].clone()
    }

    /// Whether a vote's signature is the voter's.
    pub(crate) fn is_signed(&self, vote: &Vote) -> bool {
        let member = self.genesis.members.get(vote.replica);
        let statement = vote.statement(self.cluster);
        member.is_some_and(|member| {
            self.verifier.verify(&member.consensus, &statement, &vote.signature).is_ok()
        })
    }

    /// Whether this replica leads the view.
    pub(super) fn leads(&self, index: ReplicaIndex, view: View) -> bool {
        self.genesis.members.leader(view) == index
    }

    pub(super) fn signed_proposal(
        &self,
        from: ReplicaIndex,
        ours: &PrePrepare,
        proposal: Proposal,
    ) -> PrePrepare {
        self.signed_pre_prepare(from, PrePrepare { proposal, ..ours.clone() })
    }

    /// A PRE-PREPARE under the liar's signature, whatever it says.
    pub(super) fn signed_pre_prepare(&self, from: ReplicaIndex, message: PrePrepare) -> PrePrepare {
        let PrePrepare { epoch, view, height, .. } = message;
        let digest = message.proposal.digest(&self.cluster, epoch, height);
        let statement = PrePrepare::statement(self.cluster, epoch, view, height, digest);
        PrePrepare { signature: self.signer(from).sign(&statement), ..message }
    }

    /// An own vote signed anew; one of another replica as it is.
    pub(super) fn resigned(&self, from: ReplicaIndex, mut vote: Vote) -> Vote {
        if vote.replica == from {
            vote.signature = self.signer(from).sign(&vote.statement(self.cluster));
        }
        vote
    }

    pub(super) fn signed_claim(
        &self,
        from: ReplicaIndex,
        body: ViewChangeBody,
        message: ViewChange,
    ) -> ViewChange {
        let signature = self.signer(from).sign(&body.statement(self.cluster));
        ViewChange { claim: SignedClaim { body, signature }, ..message }
    }

    /// A VIEW-CHANGE for any view with any claim.
    pub(super) fn view_change(
        &self,
        from: ReplicaIndex,
        view: View,
        certificate: Option<Certificate>,
    ) -> ViewChange {
        let genesis = (Rank::default(), self.genesis_header.hash());
        let (rank, header) = certificate
            .as_ref()
            .map_or(genesis, |known| (Rank { view: known.view, height: known.height }, known.header_hash));
        let epoch = self.genesis.members.epoch();
        let body = ViewChangeBody { epoch, view, rank, header, committed: rank.height, replica: from };
        let signature = self.signer(from).sign(&body.statement(self.cluster));
        ViewChange { claim: SignedClaim { body, signature }, certificate }
    }

    /// A NEW-VIEW under the liar's signature, whatever it says.
    pub(super) fn signed_new_view(&self, from: ReplicaIndex, message: NewView) -> NewView {
        let NewView { epoch, view, ref claims, ref base, .. } = message;
        let statement = NewView::statement(self.cluster, epoch, view, claims, base);
        NewView { signature: self.signer(from).sign(&statement), ..message }
    }

    /// What a proposal leads to on a state; `None` if it has a static fault.
    pub(super) fn imagine(&self, state: &State, height: Height, proposal: &Proposal) -> Option<Executed> {
        let environment = Environment {
            cluster: self.cluster,
            members: &self.genesis.members,
            verifier: self.verifier.as_ref(),
        };
        let digest = proposal.digest(&self.cluster, self.genesis.members.epoch(), height);
        state.execute(&environment, height, proposal, digest).ok()
    }

    /// The state on which a proposal with this parent stands, if this replica has it.
    pub(super) fn state_of(&self, index: ReplicaIndex, parent: &Hash) -> Option<State> {
        self.nodes[usize::from(index)].memory.as_ref()?.parent_state(parent).cloned()
    }
}
