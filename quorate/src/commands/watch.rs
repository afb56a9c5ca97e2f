//! `quorate audit watch`: what was ordered, one JSON line for each operation, resumable by height.
//!
//! Invariant: a height is printed once the auditor has checked it and all below it; the lines of a height come
//! together. Exit 0 the source ended, or nobody reads any more; 1 a height does not hold; 2 it cannot be told.

use crate::args::AuditWatchArgs;
use crate::commands::receipt::json;
use crate::commands::{connect, memory, sources, trust};
use crate::failure::{CommandResult, Failure, complain};
use quorate_audit::{
    Auditor, OneByOne, Policy, Signatures, Verdict, follow, operation_details, operation_kind, result_details,
};
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Envelope, Operation, OperationResult};
use serde_json::{Value, json};
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

/// Prints what the history has after a height.
pub fn run(args: &AuditWatchArgs) -> CommandResult {
    let cluster = connect::read_cluster(&args.history.cluster)?;
    let verifier = trust::verifier(cluster.genesis());
    let policy = if args.results { Policy::FULL } else { Policy::STANDARD };
    let mut auditor = match &args.from {
        Some(path) => {
            let anchor = memory::given(path, cluster.genesis())?;
            Auditor::above(&anchor, cluster.genesis(), &verifier, policy)?
        }
        None => Auditor::new(cluster.genesis(), &verifier, policy)?,
    };
    let above = auditor.head().height;
    let mut source = if args.follow {
        sources::following(&args.history, above, Duration::from_millis(args.interval_ms))?
    } else {
        sources::open_above(&cluster, &args.history, above)?
    };
    // Not ahead: a height is printed when it comes, not when more have come.
    let signatures = Signatures::new(cluster.cluster(), &cluster.genesis().members, &verifier, policy);
    let mut heights = OneByOne { source: source.as_mut(), signatures };
    let mut written = Ok(());
    let verdict = follow(&mut auditor, &mut heights, &mut |auditor, committed| {
        if committed.batch.header.height <= args.after {
            return ControlFlow::Continue(());
        }
        written = print(&mut std::io::stdout().lock(), auditor, committed);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            return Err(Failure::new(format!("cannot write standard output: {error}")));
        }
        _ => {}
    }
    match &verdict {
        Verdict::Holds => {}
        Verdict::Broken(breach) => complain(&format!("broken: {breach}; everything below holds")),
        Verdict::CannotTell { height, text } => {
            complain(&format!("cannot tell from height {height} on: {text}"));
        }
    }
    Ok(ExitCode::from(verdict.exit_code()))
}

/// The lines of one height, at once.
fn print(to: &mut dyn Write, auditor: &Auditor<'_>, committed: &CommittedBatch) -> std::io::Result<()> {
    let envelopes = &committed.batch.proposal.envelopes;
    let operations = envelopes.iter().flat_map(|envelope| {
        (0_u64..).zip(&envelope.body.operations).map(move |(index, of)| (envelope, index, of))
    });
    let mut lines = String::new();
    for (position, (envelope, index, operation)) in (0_u32..).zip(operations) {
        let leaf = auditor.receipts().zip(usize::try_from(position).ok());
        let result = leaf.and_then(|(receipts, position)| receipts.leaves().get(position));
        let result = result.map(|leaf| &leaf.result);
        lines.push_str(&line(committed, position, (envelope, index, operation), result).to_string());
        lines.push('\n');
    }
    to.write_all(lines.as_bytes())?;
    to.flush()
}

/// The stable form of one operation: programs rely on these names.
fn line(
    committed: &CommittedBatch,
    position: u32,
    (envelope, index, operation): (&Envelope, u64, &Operation),
    result: Option<&OperationResult>,
) -> Value {
    let (header, body) = (&committed.batch.header, &envelope.body);
    let credential = body.credentials.get(usize::from(operation.credential));
    let mut line = json!({
        "height": header.height,
        "time_ns": header.time.plus(u64::from(position)).0,
        "operation": header.first_operation.saturating_add(u64::from(position)),
        "key": body.key.to_string(),
        "session": body.session.to_string(),
        "sequence": body.first.saturating_add(index),
        "uid": credential.map(|credential| credential.uid),
        "gid": credential.map(|credential| credential.gid),
        "kind": operation_kind(&operation.body),
        "arguments": json(&operation_details(&operation.body)),
    });
    if let (Some(result), Some(fields)) = (result, line.as_object_mut()) {
        let (outcome, about) = result_details(result);
        fields.insert("result".to_owned(), outcome.into());
        fields.insert("about".to_owned(), json(&about));
    }
    line
}
