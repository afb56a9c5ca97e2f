//! The signed statements of a piece of evidence, in words and in bytes, for people and programs.
//!
//! Invariant: what is said here repeats what is in the evidence and judges nothing; the preimage and the
//! signature are the bytes that anybody can check under the signer's key.

use quorate_crypto::{Certificate, Hash, Signature, Statement, StatementKind};
use quorate_protocol::evidence::{Contradiction, ParentWitness, Proof, SignedDigest};
use quorate_protocol::log_head::LogHead;
use quorate_protocol::{Evidence, PrePrepare, ReplicaIndex};

use crate::tlog::{Checkpoint, origin};

/// A statement of the culprit, or a certificate or witness that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementText {
    /// What it says, in one sentence.
    pub text: String,
    /// Who signed it; none for what needs no signature or has those of a quorum.
    pub signer: Option<ReplicaIndex>,
    /// What the signature covers.
    pub statement: Option<Statement>,
    /// What it covers where that is no statement: the text of a head of the log.
    pub note: Option<String>,
    /// The signature.
    pub signature: Option<Signature>,
}

impl StatementText {
    fn signed(text: String, signer: ReplicaIndex, statement: Statement, signature: Signature) -> Self {
        let (signer, statement, signature) = (Some(signer), Some(statement), Some(signature));
        Self { text, signer, statement, note: None, signature }
    }

    const fn witness(text: String) -> Self {
        Self { text, signer: None, statement: None, note: None, signature: None }
    }

    fn head(cluster: &Hash, signer: ReplicaIndex, size: u64, signed: &SignedDigest) -> Self {
        let text =
            format!("replica {signer} signed the head of the log of size {size} with root {}", signed.digest);
        let note =
            Checkpoint { origin: origin(cluster), head: LogHead { size, root: signed.digest } }.to_string();
        let signature = Some(signed.signature);
        Self { text, signer: Some(signer), statement: None, note: Some(note), signature }
    }

    /// The bytes that the signature covers.
    #[must_use]
    pub fn signed_bytes(&self) -> Option<Vec<u8>> {
        let note = || self.note.as_ref().map(|note| note.clone().into_bytes());
        self.statement.map(|statement| statement.preimage().to_vec()).or_else(note)
    }

    /// What it is called: the type of a statement, or LOG-HEAD.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        let note = self.note.as_ref().map(|_| "LOG-HEAD");
        self.statement.map(|statement| statement_name(statement.kind)).or(note)
    }
}

/// The type of a statement, as messages are called.
#[must_use]
pub const fn statement_name(kind: StatementKind) -> &'static str {
    match kind {
        StatementKind::PrePrepare => "PRE-PREPARE",
        StatementKind::Prepare => "PREPARE",
        StatementKind::Commit => "COMMIT",
        StatementKind::ViewChange => "VIEW-CHANGE",
        StatementKind::NewView => "NEW-VIEW",
        StatementKind::Resign => "RESIGN",
        StatementKind::Suspect => "SUSPECT",
        StatementKind::Envelope => "ENVELOPE",
        StatementKind::BlockReceipt => "BLOCK-RECEIPT",
        StatementKind::ConnectionProof => "CONNECTION-PROOF",
    }
}

/// What the evidence shows, statement by statement.
#[must_use]
pub fn statements(evidence: &Evidence) -> Vec<StatementText> {
    let (cluster, epoch, culprit) = (evidence.cluster, evidence.epoch, evidence.culprit);
    let said = |kind, view, height, digest, signature| {
        let statement = Statement { cluster, epoch, kind, view, height, digest };
        StatementText::signed(sentence(culprit, &statement), culprit, statement, signature)
    };
    let both = |kind, both: &Contradiction| {
        let sides = [both.low, both.high];
        sides.map(|side| said(kind, both.view, both.height, side.digest, side.signature)).to_vec()
    };
    match &evidence.proof {
        Proof::ConflictingPrePrepare(pair) => both(StatementKind::PrePrepare, pair),
        Proof::ConflictingPrepare(pair) => both(StatementKind::Prepare, pair),
        Proof::ConflictingCommit(pair) => both(StatementKind::Commit, pair),
        Proof::ViewChangeOmission { claim, commit } => {
            let kind = commit.kind.statement_kind();
            let rank = claim.body.rank;
            let text = format!(
                "replica {culprit} left for view {} claiming that the highest certificate it ever held is of \
                 view {} and height {}",
                claim.body.view, rank.view, rank.height
            );
            let statement = claim.body.statement(cluster);
            vec![
                said(kind, commit.view, commit.height, commit.header, commit.signature),
                StatementText::signed(text, culprit, statement, claim.signature),
            ]
        }
        Proof::TimeRegression { pre_prepare, parent } => {
            vec![proposed(evidence, pre_prepare), StatementText::witness(parent_text(parent))]
        }
        Proof::InvalidProposal { pre_prepare, envelope } => {
            let text = format!("envelope {envelope} of it is malformed, or not signed by the key it names");
            vec![proposed(evidence, pre_prepare), StatementText::witness(text)]
        }
        Proof::BadExecution { vote, header, certified, certificate } => {
            let kind = vote.kind.statement_kind();
            let text = format!(
                "that header has state root {} for the proposal {}",
                header.state_root, header.proposal
            );
            let correct =
                format!("the certified one has state root {} for the same proposal", certified.state_root);
            vec![
                said(kind, vote.view, vote.height, vote.header, vote.signature),
                StatementText::witness(text),
                StatementText::witness(format!("{}; {correct}", certificate_text(certificate))),
            ]
        }
        Proof::ConflictingHead { size, low, high } => {
            [low, high].map(|signed| StatementText::head(&cluster, culprit, *size, signed)).to_vec()
        }
        Proof::UnfoundedCommit { commit, certificate } => {
            let kind = commit.kind.statement_kind();
            vec![
                said(kind, commit.view, commit.height, commit.header, commit.signature),
                StatementText::witness(certificate_text(certificate)),
            ]
        }
    }
}

fn proposed(evidence: &Evidence, pre_prepare: &PrePrepare) -> StatementText {
    let PrePrepare { epoch, view, height, proposal, signature } = pre_prepare;
    let digest = proposal.digest(&evidence.cluster, *epoch, *height);
    let statement = PrePrepare::statement(evidence.cluster, *epoch, *view, *height, digest);
    let text = format!(
        "{}, with batch time {} and {} envelopes",
        sentence(evidence.culprit, &statement),
        proposal.time.0,
        proposal.envelopes.len()
    );
    StatementText::signed(text, evidence.culprit, statement, *signature)
}

fn sentence(signer: ReplicaIndex, statement: &Statement) -> String {
    let Statement { view, height, digest, .. } = statement;
    match statement.kind {
        StatementKind::PrePrepare => {
            format!("replica {signer}, as leader of view {view}, proposed {digest} for height {height}")
        }
        kind => {
            let name = statement_name(kind);
            format!(
                "replica {signer} signed {name} in view {view} for the header {digest} of height {height}"
            )
        }
    }
}

fn parent_text(parent: &ParentWitness) -> String {
    let text = |time: u64, operations: u64, digest: Option<Hash>| {
        let name = digest.map(|digest| format!(" {digest}")).unwrap_or_default();
        format!("its parent{name} has batch time {time} and {operations} operations")
    };
    match parent {
        ParentWitness::Genesis => "its parent is the genesis".to_owned(),
        ParentWitness::Certified { header, certificate } => {
            let says = text(header.time.0, u64::from(header.operation_count), Some(header.proposal));
            format!("{says}; {}", certificate_text(certificate))
        }
        ParentWitness::Proposed(proposal) => text(proposal.time.0, proposal.operation_count(), None),
    }
}

fn certificate_text(certificate: &Certificate) -> String {
    let signers: Vec<String> = certificate.signers.iter().map(|signer| signer.to_string()).collect();
    format!(
        "replicas {} signed {} in view {} for the header {} of height {}",
        signers.join(", "),
        statement_name(certificate.kind.statement_kind()),
        certificate.view,
        certificate.header_hash,
        certificate.height
    )
}
