//! Whether a piece of evidence proves that a replica is faulty.
//!
//! Invariants: a correct replica is never found guilty, whatever others sign and however what it signed is put
//! together; a verdict depends on the bytes, the members and the genesis alone. Kinds that rest on a
//! certificate hold as long as at most f replicas are faulty, as certificates do; the others always.

use quorate_crypto::{
    Certificate, CertificateError, CertificateKind, Hash, MemberSet, Signature, SignatureError, Statement,
    StatementKind, Verifier,
};
use quorate_execution::{GenesisError, State, StaticFault, check_envelope, minimum_time};
use quorate_protocol::evidence::{Contradiction, EVIDENCE_VERSION, ParentWitness, Proof, SignedDigest};
use quorate_protocol::limits::EVIDENCE_BYTES_MAX;
use quorate_protocol::log_head::LogHead;
use quorate_protocol::view_change::{Rank, SignedClaim};
use quorate_protocol::{
    BatchTime, Epoch, Evidence, EvidenceKind, Genesis, Header, Height, PrePrepare, Proposal, ReplicaIndex,
    Vote, VoteKind,
};

use crate::tlog::{Checkpoint, origin};

/// What is known of a cluster by whoever judges.
#[derive(Copy, Clone)]
pub struct Court<'a> {
    /// The cluster's identifier.
    pub cluster: Hash,
    /// The members of the epoch that the evidence is of.
    pub members: &'a MemberSet,
    /// The header of height 0.
    pub genesis: &'a Header,
    /// Checks signatures.
    pub verifier: &'a dyn Verifier,
}

/// What evidence proves.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Guilt {
    /// Who is faulty.
    pub culprit: ReplicaIndex,
    /// How.
    pub kind: EvidenceKind,
    /// The rule that was broken, in words.
    pub rule: &'static str,
    /// Whether this holds only while at most f replicas are faulty.
    pub assumes_quorum: bool,
}

/// Why evidence proves nothing. The fault of whoever shows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProof {
    /// Of a later format.
    #[error("evidence of version {0}, this program knows version {EVIDENCE_VERSION}")]
    Version(u8),
    /// Larger than evidence may be.
    #[error("{0} bytes of evidence")]
    TooLarge(usize),
    /// Of another cluster.
    #[error("evidence of cluster {0}")]
    Cluster(Hash),
    /// Of an epoch of which the members are not known here.
    #[error("evidence of epoch {0}")]
    Epoch(Epoch),
    /// It accuses another replica than the one that signed.
    #[error("replica {accused} is accused of what replica {signer} is to have signed")]
    Culprit {
        /// Who is accused.
        accused: ReplicaIndex,
        /// Whose statements these are said to be.
        signer: ReplicaIndex,
    },
    /// The epoch has no such replica.
    #[error("no replica {0}")]
    UnknownReplica(ReplicaIndex),
    /// A statement is not signed.
    #[error("signature of replica {replica} on {statement:?}: {error}")]
    Signature {
        /// Who is to have signed.
        replica: ReplicaIndex,
        /// What.
        statement: StatementKind,
        /// What is wrong.
        error: SignatureError,
    },
    /// A head of the log is not signed.
    #[error("signature of replica {0} on a head of the log")]
    HeadSignature(ReplicaIndex),
    /// The two statements are one, or stand in the wrong order.
    #[error("the two statements are not different ones in ascending order")]
    NoContradiction,
    /// The vote is of another kind than the rule is about.
    #[error("the vote is no COMMIT")]
    NotACommit,
    /// The view change is not one away from the COMMIT's view.
    #[error("the VIEW-CHANGE does not leave the COMMIT's view")]
    NotLeft,
    /// The claim is high enough.
    #[error("the claim covers the COMMIT")]
    Covered,
    /// What is given as the parent is not the proposal's.
    #[error("the proposal rests on another parent")]
    Parent,
    /// The proposal's time is allowed.
    #[error("batch time {} is not below the minimum {}", .proposed.0, .minimum.0)]
    TimeAllowed {
        /// Lowest time allowed.
        minimum: BatchTime,
        /// Time of the proposal.
        proposed: BatchTime,
    },
    /// The proposal has no such envelope.
    #[error("the proposal has no envelope {0}")]
    NoEnvelope(u32),
    /// The envelope may be proposed.
    #[error("envelope {0} is well formed and signed")]
    GoodEnvelope(u32),
    /// A header is not what a vote or a certificate is for, or of another place.
    #[error("a header is not the one that is signed")]
    Header,
    /// Both headers are one.
    #[error("the vote is for the certified header")]
    SameHeader,
    /// The headers are of different proposals.
    #[error("the headers are of different proposals")]
    OtherProposal,
    /// A certificate does not hold.
    #[error("certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// The certificate is of another kind or view than the rule needs.
    #[error("the certificate does not rule the COMMIT out")]
    NotRuledOut,
}

/// The header of height 0, which [`Court`] needs.
///
/// # Errors
/// [`GenesisError`] when it is none that a cluster can start from.
pub fn genesis_header(genesis: &Genesis) -> Result<Header, GenesisError> {
    Ok(State::genesis(genesis)?.header().clone())
}

/// The rule that each kind breaks.
#[must_use]
pub const fn rule_of(kind: EvidenceKind) -> &'static str {
    match kind {
        EvidenceKind::ConflictingPrePrepare => {
            "a leader proposes one batch for each epoch, view and height (R1, R2)"
        }
        EvidenceKind::ConflictingPrepare => {
            "a replica PREPAREs one header for each epoch, view and height (R1, R2)"
        }
        EvidenceKind::ConflictingCommit => {
            "a replica COMMITs one header for each epoch, view and height (R1, R2)"
        }
        EvidenceKind::ViewChangeOmission => {
            "the claim of a VIEW-CHANGE is not lower than any COMMIT of an earlier view (R1)"
        }
        EvidenceKind::TimeRegression => {
            "a batch is later than its parent by at least one nanosecond for each operation of it (R5, S8)"
        }
        EvidenceKind::InvalidProposal => {
            "a leader proposes only envelopes that are well formed and signed by their key (R5)"
        }
        EvidenceKind::BadExecution => "a vote is for the header that execution of its proposal gives (R5)",
        EvidenceKind::ConflictingHead => "a replica signs one head of the log for each size (R6)",
        EvidenceKind::UnfoundedCommit => {
            "a COMMIT rests on a prepare certificate of its view, and those never contradict each other or \
             what is committed (R1)"
        }
    }
}

impl Court<'_> {
    /// Judges a piece of evidence.
    ///
    /// # Errors
    /// [`NoProof`] names the first reason for which it proves nothing.
    pub fn judge(&self, evidence: &Evidence) -> Result<Guilt, NoProof> {
        if evidence.version != EVIDENCE_VERSION {
            return Err(NoProof::Version(evidence.version));
        }
        let bytes = borsh::object_length(evidence).unwrap_or(usize::MAX);
        ensure(bytes <= EVIDENCE_BYTES_MAX, NoProof::TooLarge(bytes))?;
        ensure(evidence.cluster == self.cluster, NoProof::Cluster(evidence.cluster))?;
        let epoch = evidence.epoch;
        ensure(epoch == self.members.epoch(), NoProof::Epoch(epoch))?;
        let culprit = evidence.culprit;
        ensure(self.members.get(culprit).is_some(), NoProof::UnknownReplica(culprit))?;
        let assumes_quorum = self.check(culprit, epoch, &evidence.proof)?;
        let kind = evidence.kind();
        Ok(Guilt { culprit, kind, rule: rule_of(kind), assumes_quorum })
    }

    /// Whether the proof holds against `culprit`, and whether it rests on a certificate.
    fn check(&self, culprit: ReplicaIndex, epoch: Epoch, proof: &Proof) -> Result<bool, NoProof> {
        match proof {
            Proof::ConflictingPrePrepare(both) => {
                self.accused(culprit, self.members.leader(both.view))?;
                self.contradiction(culprit, epoch, StatementKind::PrePrepare, both)
            }
            Proof::ConflictingPrepare(both) => {
                self.contradiction(culprit, epoch, StatementKind::Prepare, both)
            }
            Proof::ConflictingCommit(both) => self.contradiction(culprit, epoch, StatementKind::Commit, both),
            Proof::ViewChangeOmission { claim, commit } => self.omission(culprit, epoch, claim, commit),
            Proof::TimeRegression { pre_prepare, parent } => {
                self.time_regression(culprit, epoch, pre_prepare, parent)
            }
            Proof::InvalidProposal { pre_prepare, envelope } => {
                self.invalid_proposal(culprit, epoch, pre_prepare, *envelope)
            }
            Proof::BadExecution { vote, header, certified, certificate } => {
                self.bad_execution(culprit, epoch, vote, (header, certified), certificate)
            }
            Proof::ConflictingHead { size, low, high } => self.conflicting_head(culprit, *size, [low, high]),
            Proof::UnfoundedCommit { commit, certificate } => {
                self.unfounded_commit(culprit, epoch, commit, certificate)
            }
        }
    }

    fn accused(&self, accused: ReplicaIndex, signer: ReplicaIndex) -> Result<(), NoProof> {
        ensure(accused == signer, NoProof::Culprit { accused, signer })
    }

    fn signature(
        &self,
        replica: ReplicaIndex,
        statement: &Statement,
        signature: &Signature,
    ) -> Result<(), NoProof> {
        let member = self.members.get(replica).ok_or(NoProof::UnknownReplica(replica))?;
        self.verifier.verify(&member.consensus, statement, signature).map_err(|error| NoProof::Signature {
            replica,
            statement: statement.kind,
            error,
        })
    }

    fn contradiction(
        &self,
        culprit: ReplicaIndex,
        epoch: Epoch,
        kind: StatementKind,
        both: &Contradiction,
    ) -> Result<bool, NoProof> {
        ensure(both.low.digest < both.high.digest, NoProof::NoContradiction)?;
        for signed in [&both.low, &both.high] {
            let (cluster, view, height) = (self.cluster, both.view, both.height);
            let statement = Statement { cluster, epoch, kind, view, height, digest: signed.digest };
            self.signature(culprit, &statement, &signed.signature)?;
        }
        Ok(false)
    }

    /// Heads are signed as notes, under a key of their own.
    fn conflicting_head(
        &self,
        culprit: ReplicaIndex,
        size: u64,
        both: [&SignedDigest; 2],
    ) -> Result<bool, NoProof> {
        let member = self.members.get(culprit).ok_or(NoProof::UnknownReplica(culprit))?;
        let [low, high] = both;
        ensure(low.digest < high.digest, NoProof::NoContradiction)?;
        let key = member.log_note.parse().map_err(|_| NoProof::HeadSignature(culprit))?;
        for signed in both {
            let head = LogHead { size, root: signed.digest };
            let text = Checkpoint { origin: origin(&self.cluster), head }.to_string();
            key.verify_bytes(text.as_bytes(), &signed.signature)
                .map_err(|_| NoProof::HeadSignature(culprit))?;
        }
        Ok(false)
    }

    /// A vote of the accused, of the epoch at hand.
    fn vote(&self, culprit: ReplicaIndex, epoch: Epoch, vote: &Vote) -> Result<(), NoProof> {
        self.accused(culprit, vote.replica)?;
        ensure(vote.epoch == epoch, NoProof::Epoch(vote.epoch))?;
        self.signature(culprit, &vote.statement(self.cluster), &vote.signature)
    }

    fn omission(
        &self,
        culprit: ReplicaIndex,
        epoch: Epoch,
        claim: &SignedClaim,
        commit: &Vote,
    ) -> Result<bool, NoProof> {
        let body = &claim.body;
        self.accused(culprit, body.replica)?;
        ensure(body.epoch == epoch, NoProof::Epoch(body.epoch))?;
        ensure(commit.kind == VoteKind::Commit, NoProof::NotACommit)?;
        ensure(commit.view < body.view, NoProof::NotLeft)?;
        let committed = Rank { view: commit.view, height: commit.height };
        ensure(body.rank < committed, NoProof::Covered)?;
        self.vote(culprit, epoch, commit)?;
        self.signature(culprit, &body.statement(self.cluster), &claim.signature)?;
        Ok(false)
    }

    /// A proposal that the accused signed as leader; its digest.
    fn proposal(&self, culprit: ReplicaIndex, epoch: Epoch, proposed: &PrePrepare) -> Result<(), NoProof> {
        self.accused(culprit, self.members.leader(proposed.view))?;
        ensure(proposed.epoch == epoch, NoProof::Epoch(proposed.epoch))?;
        let digest = proposed.proposal.digest(&self.cluster, epoch, proposed.height);
        let statement = PrePrepare::statement(self.cluster, epoch, proposed.view, proposed.height, digest);
        self.signature(culprit, &statement, &proposed.signature)
    }

    fn time_regression(
        &self,
        culprit: ReplicaIndex,
        epoch: Epoch,
        proposed: &PrePrepare,
        parent: &ParentWitness,
    ) -> Result<bool, NoProof> {
        let below = proposed.height.checked_sub(1).ok_or(NoProof::Parent)?;
        let (minimum, assumes_quorum) = match parent {
            ParentWitness::Genesis => {
                ensure(below == 0 && self.genesis.proposal == proposed.proposal.parent, NoProof::Parent)?;
                (minimum_time(self.genesis), false)
            }
            ParentWitness::Certified { header, certificate } => {
                let place = (header.cluster, header.epoch, header.height) == (self.cluster, epoch, below);
                ensure(place && header.proposal == proposed.proposal.parent, NoProof::Parent)?;
                self.certified(header, certificate)?;
                (minimum_time(header), true)
            }
            ParentWitness::Proposed(parent) => (self.minimum_over(proposed, epoch, below, parent)?, false),
        };
        let time = proposed.proposal.time;
        ensure(time < minimum, NoProof::TimeAllowed { minimum, proposed: time })?;
        self.proposal(culprit, epoch, proposed)?;
        Ok(assumes_quorum)
    }

    /// The lowest time over a parent that is shown whole.
    fn minimum_over(
        &self,
        proposed: &PrePrepare,
        epoch: Epoch,
        below: Height,
        parent: &Proposal,
    ) -> Result<BatchTime, NoProof> {
        let digest = parent.digest(&self.cluster, epoch, below);
        ensure(below > 0 && digest == proposed.proposal.parent, NoProof::Parent)?;
        Ok(parent.time.plus(parent.operation_count().max(1)))
    }

    fn invalid_proposal(
        &self,
        culprit: ReplicaIndex,
        epoch: Epoch,
        proposed: &PrePrepare,
        index: u32,
    ) -> Result<bool, NoProof> {
        let envelope = usize::try_from(index).ok().and_then(|index| proposed.proposal.envelopes.get(index));
        let envelope = envelope.ok_or(NoProof::NoEnvelope(index))?;
        // What the door turns away, and no more: sequence numbers are looked at by execution, so a correct
        // leader may propose again what an earlier one got past the doors.
        let formed = match check_envelope(&self.cluster, envelope) {
            Ok(()) | Err(StaticFault::SequenceOverflow(_)) => true,
            Err(_) => false,
        };
        let good = formed && envelope.verify(self.verifier).is_ok();
        ensure(!good, NoProof::GoodEnvelope(index))?;
        self.proposal(culprit, epoch, proposed)?;
        Ok(false)
    }

    /// A header under a certificate of either kind.
    fn certified(&self, header: &Header, certificate: &Certificate) -> Result<(), NoProof> {
        let same = certificate.height == header.height && certificate.header_hash == header.hash();
        ensure(same, NoProof::Header)?;
        Ok(certificate.verify(&self.cluster, self.members, self.verifier)?)
    }

    fn bad_execution(
        &self,
        culprit: ReplicaIndex,
        epoch: Epoch,
        vote: &Vote,
        (header, certified): (&Header, &Header),
        certificate: &Certificate,
    ) -> Result<bool, NoProof> {
        ensure(vote.height == header.height && vote.header == header.hash(), NoProof::Header)?;
        ensure(header != certified, NoProof::SameHeader)?;
        // The digest names cluster, epoch, height and parent, and so all that execution depends on.
        ensure(header.proposal == certified.proposal, NoProof::OtherProposal)?;
        ensure(certified.height == header.height, NoProof::Header)?;
        self.vote(culprit, epoch, vote)?;
        self.certified(certified, certificate)?;
        Ok(true)
    }

    fn unfounded_commit(
        &self,
        culprit: ReplicaIndex,
        epoch: Epoch,
        commit: &Vote,
        certificate: &Certificate,
    ) -> Result<bool, NoProof> {
        ensure(commit.kind == VoteKind::Commit, NoProof::NotACommit)?;
        ensure(commit.header != certificate.header_hash, NoProof::SameHeader)?;
        let in_force = match certificate.kind {
            // Two prepare certificates of one view share a correct replica, which PREPAREd one chain.
            CertificateKind::Prepare => certificate.view == commit.view,
            // What is committed is below the base of every later view.
            CertificateKind::Commit => certificate.view <= commit.view,
        };
        ensure(in_force && certificate.height == commit.height, NoProof::NotRuledOut)?;
        self.vote(culprit, epoch, commit)?;
        certificate.verify(&self.cluster, self.members, self.verifier)?;
        Ok(true)
    }
}

fn ensure(holds: bool, otherwise: NoProof) -> Result<(), NoProof> {
    if holds { Ok(()) } else { Err(otherwise) }
}
