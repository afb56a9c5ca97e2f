//! The checked history, height by height, under a progress bar.
//!
//! Invariant: what is shown to a command has been checked from genesis on, and executed again.

use crate::args::{HistoryArgs, Output};
use crate::commands::{audit, connect, sources, trust};
use crate::failure::Failure;
use indicatif::{ProgressBar, ProgressStyle};
use quorate_audit::{Auditor, Policy, Report, Subject, Verdict, follow};
use quorate_protocol::peer::CommittedBatch;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Instant;

/// A bar that counts heights.
pub fn bar() -> ProgressBar {
    ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} height {pos}, {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    )
}

/// As [`replay_with`], without following anything.
pub fn replay(
    history: &HistoryArgs,
    output: Output,
    visit: &mut dyn FnMut(&Auditor<'_>, &CommittedBatch) -> ControlFlow<()>,
) -> Result<Option<ExitCode>, Failure> {
    replay_with(history, output, None, visit)
}

/// Checks and executes the history until `visit` has enough of it. A history that does not hold, or cannot be had,
/// is reported as `audit verify` does, and gives that command's exit status; `None` is success. What `subject` is
/// touched by is in [`Auditor::touches`].
pub fn replay_with(
    history: &HistoryArgs,
    output: Output,
    subject: Option<Subject>,
    visit: &mut dyn FnMut(&Auditor<'_>, &CommittedBatch) -> ControlFlow<()>,
) -> Result<Option<ExitCode>, Failure> {
    let cluster = connect::read_cluster(&history.cluster)?;
    let verifier = trust::verifier(cluster.genesis());
    let mut source = sources::open(&cluster, history)?;
    let mut auditor = Auditor::new(cluster.genesis(), &verifier, Policy::FULL)?;
    if let Some(subject) = subject {
        auditor.trace(subject)?;
    }
    let bar = bar();
    let began = Instant::now();
    let verdict = follow(&mut auditor, source.as_mut(), &mut |auditor, committed| {
        let progress = auditor.progress();
        bar.set_position(progress.height);
        if progress.height.is_multiple_of(256) {
            bar.set_message(format!("{} operations", progress.operations));
        }
        visit(auditor, committed)
    });
    bar.finish_and_clear();
    if verdict == Verdict::Holds {
        return Ok(None);
    }
    let code = ExitCode::from(verdict.exit_code());
    let report = Report { verdict, progress: auditor.progress(), head: Some(auditor.head().clone()) };
    audit::print(&report, output, began.elapsed());
    Ok(Some(code))
}
