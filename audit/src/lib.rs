//! The verifier: header chain, certificates, commit log, replay and evidence, over an abstract source.
//!
//! [`verify`] takes the committed heights of a cluster from wherever they are kept, in order, and says
//! whether they hold, which height breaks which rule, or that it cannot tell. Invariant: nothing here reads a
//! disk, a network or a clock, and nothing that a source gives is trusted; silence is never evidence.
//! [`Court`] says whether evidence proves a replica faulty, for replicas, clients and auditors alike.
#![forbid(unsafe_code)]

mod anchor;
mod bundle;
mod chain;
mod described;
mod differences;
mod evidence;
mod head;
mod proven;
mod receipt;
mod report;
mod signatures;
mod source;
mod statements;
pub mod tlog;
mod trace;
mod transition;
mod verify;

pub use anchor::{ANCHOR_BYTES_MAX, ANCHOR_MAGIC, Anchor, NoAnchor};
pub use bundle::{BUNDLE_HEIGHT_BYTES_MAX, BUNDLE_MAGIC, BundleReader, BundleWriter, NoBundle};
pub use chain::{Auditor, Policy};
pub use described::{Detail, Details, operation_details, operation_kind, result_details};
pub use differences::{Difference, Differences, PathNames, differences};
pub use evidence::{Court, Guilt, NoProof, genesis_header, rule_of};
pub use head::{Fork, Head, HeadFault, Heads, NoHead, check_head};
pub use proven::{NoAnswer, PROVEN_MAGIC, ProvenAnswer};
pub use receipt::{NoReceipt, RECEIPT_MAGIC, Receipt};
pub use report::{Breach, Progress, Report, Rule, Verdict};
pub use signatures::{Signatures, Signed};
pub use source::{Source, SourceError};
pub use statements::{StatementText, statement_name, statements};
pub use trace::{Aspect, Subject, Touch, Trace};
pub use transition::{Judgement, NoTransition, TRANSITION_BYTES_MAX, TRANSITION_MAGIC, Transition};
pub use verify::{OneByOne, SignedSource, follow, verify};
