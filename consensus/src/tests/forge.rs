//! What a Byzantine replica might sign, and what an honest one would compute.

use quorate_crypto::{Certificate, Hash, Signature, Signer};
use quorate_protocol::view_change::{NewView, Rank, SignedClaim, ViewChange, ViewChangeBody};
use quorate_protocol::{
    BatchTime, Envelope, Height, PrePrepare, Proposal, ReplicaIndex, View, Vote, VoteKind,
};

use super::harness::{Net, START, State, execute};

impl Net {
    pub fn vote(
        &self,
        replica: ReplicaIndex,
        kind: VoteKind,
        view: View,
        height: Height,
        header: Hash,
    ) -> Vote {
        let signature = Signature::ZERO;
        let mut vote = Vote { kind, epoch: 0, view, height, header, replica, signature };
        vote.signature = self.signer(replica).sign(&vote.statement(*self.configuration.cluster()));
        vote
    }

    pub fn certificate(
        &self,
        kind: VoteKind,
        view: View,
        height: Height,
        header: Hash,
        signers: &[ReplicaIndex],
    ) -> Certificate {
        let votes = signers.iter().map(|i| (*i, self.vote(*i, kind, view, height, header).signature));
        let kind = kind.certificate_kind();
        Certificate::assemble(kind, self.configuration.members(), view, height, header, votes).unwrap()
    }

    pub fn pre_prepare(&self, view: View, height: Height, proposal: Proposal) -> PrePrepare {
        let cluster = *self.configuration.cluster();
        let digest = proposal.digest(&cluster, 0, height);
        let statement = PrePrepare::statement(cluster, 0, view, height, digest);
        let signature = self.signer(self.configuration.leader(view)).sign(&statement);
        PrePrepare { epoch: 0, view, height, proposal, signature }
    }

    pub fn view_change(
        &self,
        replica: ReplicaIndex,
        view: View,
        certificate: Option<Certificate>,
    ) -> ViewChange {
        let rank = certificate
            .as_ref()
            .map_or(Rank::default(), |known| Rank { view: known.view, height: known.height });
        let header =
            certificate.as_ref().map_or(self.configuration.genesis_hash(), |known| known.header_hash);
        let body = ViewChangeBody { epoch: 0, view, rank, header, committed: 0, replica };
        let signature = self.signer(replica).sign(&body.statement(*self.configuration.cluster()));
        ViewChange { claim: SignedClaim { body, signature }, certificate }
    }

    pub fn new_view(&self, view: View, claims: Vec<SignedClaim>, base: Option<Certificate>) -> NewView {
        let claims = claims.try_into().unwrap();
        let statement = NewView::statement(*self.configuration.cluster(), 0, view, &claims, &base);
        let signature = self.signer(self.configuration.leader(view)).sign(&statement);
        NewView { epoch: 0, view, claims, base, signature }
    }

    /// State and digest after a proposal on a state, as an honest replica would compute them.
    pub fn imagine(&self, parent: &State, proposal: &Proposal) -> (State, Hash) {
        let height = parent.header.height + 1;
        let digest = proposal.digest(self.configuration.cluster(), 0, height);
        (execute(parent, height, digest, proposal, false), digest)
    }

    /// A proposal of these envelopes on a parent.
    pub fn proposal(&self, parent: &State, envelopes: Vec<Envelope>) -> Proposal {
        let least = parent.header.time.plus(u64::from(parent.header.operation_count).max(1));
        let time = BatchTime(START + self.now).max(least);
        Proposal { parent: parent.header.proposal, time, envelopes: envelopes.try_into().unwrap() }
    }
}
