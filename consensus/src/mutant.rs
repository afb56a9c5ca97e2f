//! Deliberate breakages of the protocol, one at a time, to see that the simulator catches each.
//!
//! Invariant: without the feature `mutants` nothing is broken: [`broken`] is the constant `false` and what hangs
//! on it is not in the program. With it a thread chooses one breakage for all replicas that it steps. No build
//! of the `quorate` program has the feature (`quorate/tests/production.rs`).

use std::collections::BTreeMap;

use quorate_crypto::{
    Bitmap, Bounded, Certificate, CertificateError, CertificateKind, Hash, MemberSet, Signature, Verifier,
};
use quorate_protocol::{Height, ReplicaIndex, View, VoteKind};

use crate::replica::{Replica, ViewState};

/// A rule that is not kept.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// Q - 1 PREPAREs are a prepare certificate.
    PrepareQuorumLess,
    /// Q - 1 COMMITs are a commit certificate.
    CommitQuorumLess,
    /// Q - 1 claims open a view.
    NewViewQuorumLess,
    /// Votes for one header in different views are added up (Fork C).
    ViewsCombined,
    /// Votes for different headers are added up.
    HeadersCombined,
    /// A vote that comes twice counts twice.
    VoterCountedTwice,
    /// The signatures of votes are not checked.
    VotesUnchecked,
    /// PREPAREs leave before the record of entering their view is synced.
    EntryUnsynced,
    /// A COMMIT leaves without the record of its prepare certificate.
    CertificateUnlogged,
    /// A COMMIT leaves without the records of its batches.
    BatchesUnlogged,
    /// A restarted replica PREPAREs again in its view (second mutant of the rules).
    PreparesAgain,
    /// VIEW-CHANGE claims nothing, whatever is locked.
    CertificateDropped,
    /// The suffix below the base is PREPAREd upward again, the base not first (first mutant of the rules, Fork A).
    SuffixPreparedAgain,
    /// A certificate of a lower view pulls a replica back to that view (third mutant of the rules, Fork B).
    PulledBack,
    /// A replica votes on in a view though its claim proves that a later one has begun (ADR 7).
    SupersededVotes,
    /// NEW-VIEW is not compared with its claims: a base below a claim is accepted.
    BaseUnchecked,
    /// The claims in NEW-VIEW need not be signed by who is said to claim.
    ClaimsUnchecked,
    /// The certificate in VIEW-CHANGE is not verified.
    ClaimUncertified,
    /// The leader takes the lowest claim for the base.
    BaseLowest,
    /// The prepare certificate of a base releases no COMMITs for the heights below it.
    BelowUnreleased,
    /// A COMMIT for what others certified leaves before own execution agrees (ADR 11).
    CommitUnexecuted,
    /// NEW-VIEW is waited for without end.
    NewViewTimerOff,
    /// Waits are not doubled when views fail.
    BackOffOff,
    /// A suspicion is never taken back.
    SuspicionKept,
    /// One suspicion ends a view.
    SuspicionAlone,
    /// One VIEW-CHANGE pulls everybody along.
    JoinAlone,
    /// Times of proposals are not checked.
    TimeUnchecked,
    /// Parents of proposals are not checked.
    ParentUnchecked,
    /// Envelopes in proposals are not checked.
    EnvelopesUnchecked,
    /// A proposal for a height that is committed is kept.
    CommittedProposalKept,
    /// Heights beyond the window are proposed and PREPAREd.
    WindowIgnored,
    /// A proposal is executed before its parent.
    ExecutedAhead,
    /// A batch fetched in catching up is not compared with its certificate.
    CommittedUnchecked,
    /// A batch is not compared with the header that comes with it.
    BatchUnchecked,
    /// Nobody who is behind asks for committed heights.
    CatchUpOff,
    /// Nobody asks for batches that a certificate names.
    FetchOff,
    /// Nothing is sent again.
    RetriesOff,
    /// What waits is not forwarded to the leader.
    ForwardOff,
    /// Leaders are not measured.
    MonitorOff,
    /// No evidence is kept.
    EvidenceOff,
    /// The answer to the linearizable question leaves out what is COMMITted and not committed.
    ReadIndexLow,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Self; 41] = [
        Self::PrepareQuorumLess,
        Self::CommitQuorumLess,
        Self::NewViewQuorumLess,
        Self::ViewsCombined,
        Self::HeadersCombined,
        Self::VoterCountedTwice,
        Self::VotesUnchecked,
        Self::EntryUnsynced,
        Self::CertificateUnlogged,
        Self::BatchesUnlogged,
        Self::PreparesAgain,
        Self::CertificateDropped,
        Self::SuffixPreparedAgain,
        Self::PulledBack,
        Self::SupersededVotes,
        Self::BaseUnchecked,
        Self::ClaimsUnchecked,
        Self::ClaimUncertified,
        Self::BaseLowest,
        Self::BelowUnreleased,
        Self::CommitUnexecuted,
        Self::NewViewTimerOff,
        Self::BackOffOff,
        Self::SuspicionKept,
        Self::SuspicionAlone,
        Self::JoinAlone,
        Self::TimeUnchecked,
        Self::ParentUnchecked,
        Self::EnvelopesUnchecked,
        Self::CommittedProposalKept,
        Self::WindowIgnored,
        Self::ExecutedAhead,
        Self::CommittedUnchecked,
        Self::BatchUnchecked,
        Self::CatchUpOff,
        Self::FetchOff,
        Self::RetriesOff,
        Self::ForwardOff,
        Self::MonitorOff,
        Self::EvidenceOff,
        Self::ReadIndexLow,
    ];
}

#[cfg(feature = "mutants")]
mod chosen {
    use std::cell::Cell;

    use super::Mutant;

    /// What a program that can be broken on purpose contains.
    pub const MARKER: &str = "this consensus can be broken on purpose";

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Breaks this rule in all replicas that this thread steps from now on, or none.
    pub fn choose(mutant: Option<Mutant>) {
        // The marker stays in the program, wherever this is called.
        std::hint::black_box(MARKER);
        CHOSEN.set(mutant);
    }

    pub(crate) fn broken(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub(crate) use chosen::broken;
#[cfg(feature = "mutants")]
pub use chosen::{MARKER, choose};

/// Whether this rule is broken: never.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn broken(_: Mutant) -> bool {
    false
}

/// One less than a quorum, if this rule is broken.
pub(crate) fn less(mutant: Mutant, quorum: usize) -> usize {
    quorum.saturating_sub(usize::from(broken(mutant)))
}

/// The rule that the size of a certificate's quorum is.
pub(crate) const fn quorum_of(kind: CertificateKind) -> Mutant {
    match kind {
        CertificateKind::Prepare => Mutant::PrepareQuorumLess,
        CertificateKind::Commit => Mutant::CommitQuorumLess,
    }
}

/// The same for votes.
pub(crate) const fn quorum_of_votes(kind: VoteKind) -> Mutant {
    match kind {
        VoteKind::Prepare => Mutant::PrepareQuorumLess,
        VoteKind::Commit => Mutant::CommitQuorumLess,
    }
}

/// What a broken counting makes a certificate of, though it is none: a broken replica believes itself.
pub(crate) fn miscounted(
    (kind, view, height, header_hash): (CertificateKind, View, Height, Hash),
    members: &MemberSet,
    votes: &[(ReplicaIndex, Signature)],
) -> Option<Certificate> {
    let miscounts = broken(quorum_of(kind))
        || broken(Mutant::ViewsCombined)
        || broken(Mutant::HeadersCombined)
        || broken(Mutant::VoterCountedTwice);
    if !miscounts {
        return None;
    }
    let distinct: BTreeMap<ReplicaIndex, Signature> =
        votes.iter().map(|(replica, signature)| (replica & !TWICE, *signature)).collect();
    let (mut signers, mut signatures) = (Bitmap::empty(members.n()), Bounded::new());
    for (replica, signature) in distinct {
        if !signers.insert(replica) || signatures.push(signature).is_err() {
            return None;
        }
    }
    Some(Certificate { kind, epoch: members.epoch(), view, height, header_hash, signers, signatures })
}

/// Under which other index a voter is counted a second time.
pub(crate) const TWICE: ReplicaIndex = 0x80;

/// Whether a certificate that lacks one vote passes because a quorum is one less.
pub(crate) fn passes(
    certificate: &Certificate,
    (cluster, members, verifier): (&Hash, &MemberSet, &dyn Verifier),
    error: &CertificateError,
) -> bool {
    let lacks_one = matches!(error, CertificateError::NoQuorum { signers, quorum } if signers.saturating_add(1) == *quorum);
    let signed = |(index, signature): (ReplicaIndex, &Signature)| {
        let member = members.get(index);
        let statement = certificate.statement(cluster);
        member.is_some_and(|member| verifier.verify(&member.consensus, &statement, signature).is_ok())
    };
    broken(quorum_of(certificate.kind)) && lacks_one && certificate.votes().all(signed)
}

impl Replica {
    /// Goes back to the view that it has left, because a certificate of it has come.
    pub(crate) fn pull_back(&mut self, certificate: &Certificate) {
        let last = self.last_new_view.as_ref().map_or(0, |known| known.view);
        let fits = certificate.kind == CertificateKind::Commit && certificate.view == last;
        if self.view.entered || !fits || certificate.height <= self.committed.height {
            return;
        }
        let mut state = ViewState::new(last, self.now);
        state.entered = true;
        state.committed_at_entry = self.committed.height;
        let base = self.last_new_view.as_ref().and_then(|known| known.base.as_ref());
        state.base =
            base.map_or((0, self.configuration.genesis_hash()), |base| (base.height, base.header_hash));
        state.new_view = self.last_new_view.clone();
        self.view = state;
        self.view_changes.remove(&self.configuration.me());
        self.timers.view_changed(self.now, self.configuration.timeouts());
        self.changed = true;
    }
}
