//! `quorate audit transition`: one height with what of the state before it its execution needs.
//!
//! Invariant: everything below the height is checked and executed again; the height itself may be a lie, which the
//! file then shows to whoever checks it.

use crate::args::{AuditTransitionArgs, Output};
use crate::commands::check::{BROKEN, Judged};
use crate::commands::prove::write;
use crate::commands::{audit, connect, replay, sources, trust};
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::{Judgement, NoTransition, Policy, Transition, Verdict, follow};
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Writes a transition and says what it shows.
pub fn write_transition(args: &AuditTransitionArgs) -> CommandResult {
    let none = || Failure::new(format!("the history has no height {}", args.height));
    let below = args.height.checked_sub(1).ok_or_else(none)?;
    let cluster = connect::read_cluster(&args.history.cluster)?;
    let verifier = trust::verifier(cluster.genesis());
    let source = sources::open(&cluster, &args.history)?;
    let mut made = None;
    let (report, took) = replay::check(cluster.genesis(), source, Policy::FULL, |auditor, heights| {
        let verdict = if below == 0 {
            Verdict::Holds
        } else {
            follow(auditor, heights, &mut |_, committed| {
                let height = committed.batch.header.height;
                if height == below { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        };
        if verdict == Verdict::Holds && auditor.head().height == below {
            let next = heights.next()?.ok_or_else(none)?;
            made = Transition::make(auditor, next.into_height())?;
        }
        Ok(verdict)
    })?;
    if report.verdict != Verdict::Holds {
        audit::print(&report, args.output, took);
        return Ok(ExitCode::from(report.verdict.exit_code()));
    }
    let made = made.ok_or_else(none)?;
    let judgement = made.judge(cluster.genesis(), &verifier);
    let judgement = judgement.map_err(|error| Failure::new(format!("height {}: {error}", args.height)))?;
    write(&args.out, &made.to_file())?;
    if args.out.as_os_str() == "-" {
        return Ok(ExitCode::from(if judgement == Judgement::Holds { 0 } else { BROKEN }));
    }
    Ok(print(&made, &judgement, args.output))
}

/// Checks a file.
pub fn check(judged: &Judged<'_>) -> CommandResult {
    let made = match Transition::from_file(judged.bytes) {
        Ok(made) => made,
        Err(error) => return Ok(judged.broken(&error)),
    };
    match made.judge(judged.genesis, &trust::verifier(judged.genesis)) {
        Ok(judgement) => Ok(print(&made, &judgement, judged.output)),
        Err(error @ NoTransition::Foreign(..)) => Err(judged.other_cluster(&error)),
        Err(error) => Ok(judged.broken(&error)),
    }
}

fn print(made: &Transition, judgement: &Judgement, output: Output) -> ExitCode {
    let header = &made.committed.batch.header;
    let (verdict, rule, text, signers, faulty) = match judgement {
        Judgement::Holds => ("holds", None, None, None, None),
        Judgement::Broken { breach, signers, faulty } => {
            ("broken", Some(breach.rule.name()), Some(breach.text.clone()), Some(signers), Some(faulty))
        }
    };
    if output == Output::Json {
        say!(
            "{}",
            serde_json::json!({
                "verdict": verdict, "type": "transition", "height": header.height, "header": header.hash().to_string(),
                "operations": header.operation_count, "state_bytes": made.copy.len(),
                "state_root_before": made.below.state_root.to_string(), "state_root": header.state_root.to_string(),
                "rule": rule, "text": text, "signers": signers, "faulty_at_least": faulty,
            })
        );
    } else {
        match judgement {
            Judgement::Holds => say!(
                "holds: executing the {} operations of height {} on {} bytes of the state below gives state root {}, as certified",
                header.operation_count,
                header.height,
                made.copy.len(),
                header.state_root
            ),
            Judgement::Broken { breach, signers, faulty } => {
                let by: Vec<String> = signers.iter().map(ToString::to_string).collect();
                say!("broken: {breach}");
                let which = match *faulty == signers.len() {
                    true => "all".to_owned(),
                    false => format!("at least {faulty}"),
                };
                say!("replicas {} have signed it; {which} of them are faulty", by.join(", "));
            }
        }
    }
    ExitCode::from(if *judgement == Judgement::Holds { 0 } else { BROKEN })
}
