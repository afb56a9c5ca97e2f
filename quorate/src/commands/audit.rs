//! `quorate audit`: checks the certified history.
//!
//! Invariant: only the cluster file is trusted; what a directory or a replica gives is verified from
//! genesis on. Exit 0 it holds, 1 it is broken, 2 it cannot be told.

use crate::args::{AuditAction, AuditArgs, AuditExportArgs, Output};
use crate::commands::new_file::NewFile;
use crate::commands::{
    check, compare, connect, diff, evidence, heights, memory, past, prove, receipt, replay, sources, tlog,
    transition, trust, verify, watch,
};
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::{BundleWriter, Policy, Report, Verdict, follow};
use std::io::BufWriter;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

/// Exit status when nothing can be said.
const CANNOT_TELL: u8 = 2;

/// Runs an audit.
pub fn run(args: &AuditArgs) -> CommandResult {
    let done = match &args.action {
        AuditAction::Verify(args) => verify::run(args),
        AuditAction::Export(args) => export(args),
        AuditAction::Prove(args) => prove::prove(args),
        AuditAction::Receipt(args) => receipt::write_receipt(args),
        AuditAction::Check(args) => check::run(args),
        AuditAction::Policy(args) => trust::print_policy(args),
        AuditAction::Watch(args) => watch::run(args),
        AuditAction::Compare(args) => compare::run(args),
        AuditAction::Seen(args) => memory::run(args),
        AuditAction::Evidence(args) => evidence::run(args),
        AuditAction::Heights(args) => heights::list(args),
        AuditAction::Who(args) => past::who(args),
        AuditAction::Log(args) => past::log(args),
        AuditAction::Diff(args) => diff::run(args),
        AuditAction::Transition(args) => transition::write_transition(args),
        AuditAction::Tlog(args) => tlog::run(args),
    };
    done.map_err(|failure| failure.with_code(CANNOT_TELL))
}

/// Checks, writes what holds, and puts the file in its place once all of it does.
fn export(args: &AuditExportArgs) -> CommandResult {
    let cluster = connect::read_cluster(&args.history.cluster)?;
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot write the bundle {}: {error}", args.file.display()))
    };
    let partial = NewFile::create(&args.file).map_err(|error| cannot(&error))?;
    let source = sources::open(&cluster, &args.history)?;
    let writer = BundleWriter::new(BufWriter::new(partial), &cluster.cluster());
    let mut writer = writer.map_err(|error| cannot(&error))?;
    let mut failed = None;
    let (report, took) = replay::check(cluster.genesis(), source, Policy::STANDARD, |auditor, heights| {
        Ok(follow(auditor, heights, &mut |_, holds| match writer.add(holds) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }))
    })?;
    if let Some(error) = failed {
        return Err(cannot(&error));
    }
    if report.verdict == Verdict::Holds {
        let written = writer.finish().and_then(|buffer| Ok(buffer.into_inner()?));
        written.and_then(NewFile::put_in_place).map_err(|error| cannot(&error))?;
    }
    print(&report, args.output, took);
    Ok(ExitCode::from(report.verdict.exit_code()))
}

/// Says what an audit found.
pub fn print(report: &Report, output: Output, took: Duration) {
    let progress = &report.progress;
    if output == Output::Json {
        say!("{}", json(report, took));
        return;
    }
    let so_far = format!(
        "{} heights, {} operations, {} replica signatures, {:.2} s",
        progress.height,
        progress.operations,
        progress.signatures,
        took.as_secs_f64()
    );
    match &report.verdict {
        Verdict::Holds => {
            say!("holds: {so_far}");
            if let Some(head) = &report.head {
                say!("head {} at height {}, state root {}", head.hash(), head.height, head.state_root);
            }
        }
        Verdict::Broken(breach) => say!("broken: {breach} (everything below holds: {so_far})"),
        Verdict::CannotTell { height, text } => {
            say!("cannot tell from height {height} on: {text} (everything below holds: {so_far})");
        }
    }
}

/// The same for programs: they rely on these names.
pub fn json(report: &Report, took: Duration) -> serde_json::Value {
    let (verdict, height, text, rule, replica) = match &report.verdict {
        Verdict::Holds => ("holds", None, None, None, None),
        Verdict::Broken(breach) => (
            "broken",
            Some(breach.height),
            Some(breach.text.clone()),
            Some(breach.rule.name()),
            breach.replica,
        ),
        Verdict::CannotTell { height, text } => {
            ("cannot tell", Some(*height), Some(text.clone()), None, None)
        }
    };
    serde_json::json!({
        "verdict": verdict,
        "height": height,
        "rule": rule,
        "replica": replica,
        "text": text,
        "verified_height": report.progress.height,
        "operations": report.progress.operations,
        "signatures": report.progress.signatures,
        "head": report.head.as_ref().map(|head| head.hash().to_string()),
        "state_root": report.head.as_ref().map(|head| head.state_root.to_string()),
        "seconds": took.as_secs_f64(),
    })
}
