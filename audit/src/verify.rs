//! An audit from the first height to the last one.
//!
//! Invariant: it stops at the first height that does not hold, and calls a history whole only when its
//! source has said that nothing follows.

use quorate_crypto::Verifier;
use quorate_protocol::Genesis;

use crate::chain::{Auditor, Policy};
use crate::report::{Breach, Progress, Report, Rule, Verdict};
use crate::source::{Source, SourceError};

/// Verifies all heights of a source against the genesis. `progress` is called after each height that holds.
pub fn verify(
    genesis: &Genesis,
    verifier: &dyn Verifier,
    source: &mut dyn Source,
    policy: Policy,
    progress: &mut dyn FnMut(&Progress),
) -> Report {
    let mut auditor = match Auditor::new(genesis, verifier, policy) {
        Ok(auditor) => auditor,
        Err(error) => {
            let verdict = Verdict::CannotTell { height: 0, text: format!("the genesis is refused: {error}") };
            return Report { verdict, progress: Progress::default(), head: None };
        }
    };
    let verdict = loop {
        let next = auditor.next_height();
        match source.next() {
            Ok(None) => break Verdict::Holds,
            Ok(Some(committed)) => match auditor.check(&committed) {
                Ok(()) => progress(&auditor.progress()),
                Err(breach) => break Verdict::Broken(breach),
            },
            Err(SourceError::Unavailable(text)) => break Verdict::CannotTell { height: next, text },
            Err(SourceError::Damaged { height, text }) => {
                let height = height.unwrap_or(next);
                break Verdict::Broken(Breach { height, replica: None, rule: Rule::Readable, text });
            }
        }
    };
    Report { verdict, progress: auditor.progress(), head: Some(auditor.head().clone()) }
}
