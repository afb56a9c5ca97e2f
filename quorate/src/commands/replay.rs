//! The checked history, height by height, under a progress bar.
//!
//! Invariant: what is shown to a command has been checked from genesis on, and executed again.

use crate::args::{HistoryArgs, Output};
use crate::commands::{ahead, audit, connect, sources, trust};
use crate::failure::Failure;
use indicatif::{ProgressBar, ProgressStyle};
use quorate_audit::{
    Auditor, Policy, Report, Signatures, Signed, SignedSource, Source, SourceError, Subject, Verdict, follow,
};
use quorate_protocol::Genesis;
use quorate_protocol::peer::CommittedBatch;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A bar that counts heights.
pub fn bar() -> ProgressBar {
    ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} height {pos} ({per_sec}, {elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    )
}

/// As [`replay_with`], without following anything.
pub fn replay(history: &HistoryArgs, output: Output, visit: Visit<'_>) -> Result<Option<ExitCode>, Failure> {
    replay_with(history, output, None, visit)
}

/// Checks and executes the history until `visit` has enough of it. A history that does not hold, or cannot be had,
/// is reported as `audit verify` does, and gives that command's exit status; `None` is success. What `subject` is
/// touched by is in [`Auditor::touches`].
pub fn replay_with(
    history: &HistoryArgs,
    output: Output,
    subject: Option<Subject>,
    visit: Visit<'_>,
) -> Result<Option<ExitCode>, Failure> {
    let cluster = connect::read_cluster(&history.cluster)?;
    let source = sources::open(&cluster, history)?;
    let (report, took) = check(cluster.genesis(), source, Policy::FULL, |auditor, heights| {
        if let Some(subject) = subject {
            auditor.trace(subject)?;
        }
        Ok(follow(auditor, heights, visit))
    })?;
    if report.verdict == Verdict::Holds {
        return Ok(None);
    }
    audit::print(&report, output, took);
    Ok(Some(ExitCode::from(report.verdict.exit_code())))
}

/// Sees each height that holds, and may end the audit there.
pub type Visit<'v> = &'v mut dyn FnMut(&Auditor<'_>, &CommittedBatch) -> ControlFlow<()>;

/// Runs `audit` on the heights of a source from height 1 on, as [`check_with`].
pub fn check(
    genesis: &Genesis,
    source: Box<dyn Source + Send>,
    policy: Policy,
    audit: impl FnOnce(&mut Auditor<'_>, &mut dyn SignedSource) -> Result<Verdict, Failure>,
) -> Result<(Report, Duration), Failure> {
    let verifier = trust::verifier(genesis);
    let signatures = Signatures::new(genesis.cluster(), &genesis.members, &verifier, policy);
    let mut auditor = Auditor::new(genesis, &verifier, policy)?;
    check_with(&mut auditor, source, &signatures, audit)
}

/// Runs `audit` on the heights of a source that begins where the auditor is, with their signatures checked ahead,
/// under a progress bar.
pub fn check_with<'a>(
    auditor: &mut Auditor<'a>,
    source: Box<dyn Source + Send>,
    signatures: &Signatures<'_>,
    audit: impl FnOnce(&mut Auditor<'a>, &mut dyn SignedSource) -> Result<Verdict, Failure>,
) -> Result<(Report, Duration), Failure> {
    let bar = bar();
    let began = Instant::now();
    let passed = auditor.head().height;
    let verdict =
        ahead::run(source, signatures, |heights| audit(auditor, &mut Shown { heights, bar: &bar, passed }));
    bar.finish_and_clear();
    let report =
        Report { verdict: verdict?, progress: auditor.progress(), head: Some(auditor.head().clone()) };
    Ok((report, began.elapsed()))
}

/// Heights that move a bar on.
struct Shown<'s> {
    heights: &'s mut dyn SignedSource,
    bar: &'s ProgressBar,
    passed: u64,
}

impl SignedSource for Shown<'_> {
    fn next(&mut self) -> Result<Option<Signed>, SourceError> {
        let next = self.heights.next();
        if next.is_ok() {
            self.bar.set_position(self.passed);
            self.passed = self.passed.saturating_add(1);
        }
        next
    }
}
