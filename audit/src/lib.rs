//! The verifier: header chain, certificates, commit log and replay, over an abstract source.
//!
//! [`verify`] takes the committed heights of a cluster from wherever they are kept, in order, and says
//! whether they hold, which height breaks which rule, or that it cannot tell. Invariant: nothing here reads a
//! disk, a network or a clock, and nothing that a source gives is trusted; silence is never evidence.
#![forbid(unsafe_code)]

mod chain;
mod report;
mod source;
mod verify;

pub use chain::{Auditor, Policy};
pub use report::{Breach, Progress, Report, Rule, Verdict};
pub use source::{Source, SourceError};
pub use verify::verify;
