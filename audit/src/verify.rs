//! An audit from the first height to the last one.
//!
//! Invariant: it stops at the first height that does not hold, and calls a history whole only when its
//! source has said that nothing follows.

use std::ops::ControlFlow;

use quorate_crypto::Verifier;
use quorate_protocol::Genesis;
use quorate_protocol::peer::CommittedBatch;

use crate::chain::{Auditor, Policy};
use crate::report::{Breach, Progress, Report, Rule, Verdict};
use crate::signatures::{Signatures, Signed};
use crate::source::{Source, SourceError};

/// Heights in order, each with its signatures checked; whether by whoever is asked for the next one, or ahead.
pub trait SignedSource {
    /// The next height; `None` after the last one.
    ///
    /// # Errors
    /// [`SourceError`]; the verifier asks no more after it.
    fn next(&mut self) -> Result<Option<Signed>, SourceError>;
}

/// A source whose signatures are checked one height after the other, each when it is asked for.
pub struct OneByOne<'a> {
    /// The heights.
    pub source: &'a mut dyn Source,
    /// Whose signatures count.
    pub signatures: Signatures<'a>,
}

impl SignedSource for OneByOne<'_> {
    fn next(&mut self) -> Result<Option<Signed>, SourceError> {
        Ok(self.source.next()?.map(|committed| self.signatures.check(committed)))
    }
}

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
    let signatures = Signatures::new(genesis.cluster(), &genesis.members, verifier, policy);
    let verdict = follow(&mut auditor, &mut OneByOne { source, signatures }, &mut |auditor, _| {
        progress(&auditor.progress());
        ControlFlow::Continue(())
    });
    Report { verdict, progress: auditor.progress(), head: Some(auditor.head().clone()) }
}

/// Lets an auditor check the heights of a source, from the one that it waits for on. `visit` sees each height that
/// holds, and the auditor after it, and may end the audit; then what was seen holds.
pub fn follow(
    auditor: &mut Auditor<'_>,
    source: &mut dyn SignedSource,
    visit: &mut dyn FnMut(&Auditor<'_>, &CommittedBatch) -> ControlFlow<()>,
) -> Verdict {
    loop {
        let next = auditor.next_height();
        match source.next() {
            Ok(None) => return Verdict::Holds,
            Ok(Some(signed)) => match auditor.check_signed(signed) {
                Ok(committed) if visit(auditor, &committed).is_break() => return Verdict::Holds,
                Ok(_) => {}
                Err(breach) => return Verdict::Broken(breach),
            },
            Err(SourceError::Unavailable(text)) => return Verdict::CannotTell { height: next, text },
            Err(SourceError::Damaged { height, text }) => {
                let height = height.unwrap_or(next);
                return Verdict::Broken(Breach { height, replica: None, rule: Rule::Readable, text });
            }
        }
    }
}
