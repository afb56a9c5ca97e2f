//! What an audit says.
//!
//! Invariant: a breach names the first height at which something does not hold and the rule that it breaks,
//! and a replica only where a signature or a statement names it.

use std::fmt;

use quorate_protocol::{Header, Height, ReplicaIndex};

/// The rule that a height breaks.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// What is stored can be read.
    Readable,
    /// Heights follow each other without a gap.
    Continuity,
    /// The header has a known version.
    Version,
    /// The header is of this cluster.
    Cluster,
    /// The header is of the epoch of the members that sign it.
    Epoch,
    /// The header names the hash of the one below.
    Previous,
    /// The header names the digest of the proposal.
    ProposalDigest,
    /// The proposal is one that correct replicas vote for: parent, time, sizes (rules R5 and S8).
    Proposal,
    /// The header has the time of the proposal.
    Time,
    /// The numbers of operations follow each other and fit the proposal.
    Operations,
    /// The header has the root of the log of all headers below it (rule R6).
    LogRoot,
    /// The header names the member set.
    Members,
    /// A quorum of distinct members signed COMMIT for this header.
    Certificate,
    /// The envelopes are signed by the keys that they name.
    EnvelopeSignature,
    /// Executing the proposal gives this header.
    Execution,
}

impl Rule {
    /// The rule's name, as reports print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Readable => "readable",
            Self::Continuity => "continuity",
            Self::Version => "version",
            Self::Cluster => "cluster",
            Self::Epoch => "epoch",
            Self::Previous => "previous",
            Self::ProposalDigest => "proposal-digest",
            Self::Proposal => "proposal",
            Self::Time => "time",
            Self::Operations => "operations",
            Self::LogRoot => "log-root",
            Self::Members => "members",
            Self::Certificate => "certificate",
            Self::EnvelopeSignature => "envelope-signature",
            Self::Execution => "execution",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("height {height} breaks the rule {rule}: {text}")]
pub struct Breach {
    /// The first height at which something does not hold.
    pub height: Height,
    /// The replica whose signature does not hold, if it is about one.
    pub replica: Option<ReplicaIndex>,
    /// The rule.
    pub rule: Rule,
    /// What was found instead.
    pub text: String,
}

/// The verdict of an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every height that the source gave holds.
    Holds,
    /// One does not; those below it do.
    Broken(Breach),
    /// The source gave out before its end, or the audit cannot start; what was seen holds.
    CannotTell {
        /// The height that could not be had.
        height: Height,
        /// Why.
        text: String,
    },
}

impl Verdict {
    /// The exit code of a command that prints this verdict.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Holds => 0,
            Self::Broken(_) => 1,
            Self::CannotTell { .. } => 2,
        }
    }
}

/// How far an audit has come.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last height that holds.
    pub height: Height,
    /// Operations in all heights so far.
    pub operations: u64,
    /// Signatures of replicas that were checked, by this audit.
    pub signatures: u64,
}

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// How far it came: everything up to there holds.
    pub progress: Progress,
    /// The header of the last height that holds; that of genesis when there is none. `None` when the
    /// genesis itself is refused.
    pub head: Option<Header>,
}
