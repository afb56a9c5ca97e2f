//! `quorate audit receipt`: finds an operation in the history and writes what proves it; and how a receipt is shown.
//!
//! Invariant: the history is checked and executed again from genesis on, wherever it comes from, so a receipt is one
//! of the batch that the certified header answers for; it is checked as `audit check` does before it is written.

use crate::args::{AuditReceiptArgs, Output};
use crate::commands::check::Judged;
use crate::commands::prove::{ROOT_INO, asker, components, write};
use crate::commands::{connect, replay, trust};
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::{
    Auditor, Details, NoHead, NoReceipt, Receipt, operation_details, operation_kind, result_details,
};
use quorate_crypto::Hash;
use quorate_execution::Answer;
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::query::Query;
use quorate_protocol::{Operation, OperationResult, ReceiptLeaf, SessionId};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

/// Which operation is wanted.
enum Wanted {
    /// By its number among all operations of the cluster.
    Number(u64),
    /// By session and number in it.
    OfSession(SessionId, u64),
}

/// Finds the operation and writes its receipt.
pub fn write_receipt(args: &AuditReceiptArgs) -> CommandResult {
    let cluster = connect::read_cluster(&args.history.cluster)?;
    let wanted = if args.of.as_bytes().first() == Some(&b'/') {
        match last_change(args, Path::new(&args.of))? {
            Ok(number) => Wanted::Number(number),
            Err(broken) => return Ok(broken),
        }
    } else {
        of_session(&args.of.to_string_lossy())?
    };
    let mut found: Option<Receipt> = None;
    let ended = replay::replay(&args.history, args.output, &mut |auditor, committed| {
        if let Some(receipt) = find(&wanted, auditor, committed) {
            let executed = !matches!(receipt.result, OperationResult::Skipped(_));
            found = Some(receipt);
            // A skipped one may come again, and be executed then.
            if executed || matches!(wanted, Wanted::Number(_)) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(code) = ended {
        return Ok(code);
    }
    let receipt = found
        .ok_or_else(|| Failure::new(format!("the history has no operation {}", args.of.to_string_lossy())))?;
    let verifier = trust::verifier(cluster.genesis());
    let operation = receipt
        .check(cluster.genesis(), &verifier)
        .map_err(|error| Failure::new(format!("the receipt is none: {error}")))?;
    write(&args.out, &receipt.to_file())?;
    if args.out.as_os_str() != "-" {
        print(&receipt, operation, args.output);
    }
    Ok(ExitCode::SUCCESS)
}

/// "SESSION:SEQUENCE".
fn of_session(text: &str) -> Result<Wanted, Failure> {
    let parsed = text.split_once(':').and_then(|(session, sequence)| {
        Some(Wanted::OfSession(Hash::from_hex(session).ok()?, sequence.parse().ok()?))
    });
    parsed.ok_or_else(|| {
        Failure::new(format!(
            "`{text}` is neither a path, which begins with /, nor SESSION:SEQUENCE, 64 hexadecimal digits and a number"
        ))
    })
}

/// The number of the last operation that changed what a path names, or the exit status of a history that does not
/// hold.
fn last_change(args: &AuditReceiptArgs, path: &Path) -> Result<Result<u64, ExitCode>, Failure> {
    let query = Query::Walk { start: ROOT_INO, components: components(path)? };
    let root = Query::Attributes { ino: ROOT_INO };
    let query = if path.components().count() > 1 { query } else { root };
    let mut state = None;
    let ended = replay::replay(&args.history, args.output, &mut |auditor, committed| {
        state = auditor.state().cloned();
        let enough = args.at == Some(committed.batch.header.height);
        if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(code) = ended {
        return Ok(Err(code));
    }
    let state = state.filter(|state| args.at.is_none_or(|at| at == state.height())).ok_or_else(|| {
        let height = args.at.map_or_else(|| "no height".to_owned(), |at| format!("no height {at}"));
        Failure::new(format!("the history has {height}"))
    })?;
    let nothing = |why: &str| {
        Failure::new(format!(
            "at height {}, {} {why}",
            state.height(),
            path.as_os_str().as_bytes().escape_ascii()
        ))
    };
    let attributes = match state.inspect(&query)? {
        Ok(Answer::Walk { found, stopped: None }) => found.last().cloned(),
        Ok(Answer::Attributes(attributes)) => Some(attributes),
        Ok(Answer::Walk { stopped: Some(errno), .. }) | Err(errno) => {
            return Err(nothing(&format!("cannot be reached: {}", errno.symbol())));
        }
        Ok(_) => None,
    };
    let attributes = attributes.ok_or_else(|| nothing("names nothing"))?;
    if attributes.version == 0 {
        return Err(nothing("is as the genesis made it: no operation has changed it"));
    }
    Ok(Ok(attributes.version))
}

/// The receipt of the wanted operation, if it is one of this height: of several the one that was executed.
fn find(wanted: &Wanted, auditor: &Auditor<'_>, committed: &CommittedBatch) -> Option<Receipt> {
    let receipts = auditor.receipts()?;
    let position = match wanted {
        Wanted::Number(number) => {
            let position = number.checked_sub(committed.batch.header.first_operation)?;
            u32::try_from(position).ok()?
        }
        Wanted::OfSession(session, sequence) => {
            let is = |leaf: &&ReceiptLeaf| leaf.session == *session && leaf.sequence == *sequence;
            let executed = |leaf: &ReceiptLeaf| !matches!(leaf.result, OperationResult::Skipped(_));
            let leaves = receipts.leaves();
            let position = leaves.iter().position(|leaf| is(&leaf) && executed(leaf));
            u32::try_from(position.or_else(|| leaves.iter().position(|leaf| is(&leaf)))?).ok()?
        }
    };
    Receipt::of(committed, receipts, position)
}

/// Checks a file.
pub fn check(judged: &Judged<'_>) -> CommandResult {
    let receipt = match Receipt::from_file(judged.bytes) {
        Ok(receipt) => receipt,
        Err(error) => return Ok(judged.broken(&error)),
    };
    match receipt.check(judged.genesis, &trust::verifier(judged.genesis)) {
        Ok(operation) => {
            print(&receipt, operation, judged.output);
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ NoReceipt::Header(NoHead::Genesis(_))) => Err(judged.cannot_tell(&error)),
        Err(error @ NoReceipt::Cluster(_)) => Err(judged.other_cluster(&error)),
        Err(error) => Ok(judged.broken(&error)),
    }
}

/// `name=value`, one after the other. Spaces in a value are escaped as well: it may be of a client's choosing, and must
/// not pass for what is said of it.
fn text(details: &Details) -> String {
    let escaped = |detail: &quorate_audit::Detail| detail.to_string().replace(' ', "\\x20");
    details.iter().map(|(name, detail)| format!(" {name}={}", escaped(detail))).collect()
}

/// An operation, who signed it and what came of it, as an object.
pub fn json_of(receipt: &Receipt, operation: &Operation) -> serde_json::Map<String, serde_json::Value> {
    let (header, body) = (&receipt.header, &receipt.envelope.body);
    let replicas: Vec<u8> = receipt.certificate.votes().map(|(index, _)| index).collect();
    let (outcome, about) = result_details(&receipt.result);
    let credential = receipt.credential();
    let members = serde_json::json!({
        "operation": receipt.number(),
        "kind": operation_kind(&operation.body),
        "arguments": json(&operation_details(&operation.body)),
        "result": outcome,
        "about": json(&about),
        "key": body.key.to_string(),
        "session": body.session.to_string(),
        "sequence": receipt.sequence().unwrap_or_default(),
        "uid": credential.map(|credential| credential.uid),
        "gid": credential.map(|credential| credential.gid),
        "acting_as": acting(receipt),
        "height": header.height,
        "index": receipt.position,
        "time_ns": receipt.time().0,
        "header": header.hash().to_string(),
        "replicas": replicas,
    });
    match members {
        serde_json::Value::Object(members) => members,
        _ => serde_json::Map::new(),
    }
}

/// As whom it acts.
pub fn acting(receipt: &Receipt) -> String {
    receipt.credential().map_or_else(|| "nobody: it names no credential".to_owned(), asker)
}

/// Number, kind, arguments and result in one line.
pub fn line_of(receipt: &Receipt, operation: &Operation) -> String {
    let (outcome, about) = result_details(&receipt.result);
    format!(
        "operation {}: {}{}: {outcome}{}",
        receipt.number(),
        operation_kind(&operation.body),
        text(&operation_details(&operation.body)),
        text(&about)
    )
}

fn print(receipt: &Receipt, operation: &Operation, output: Output) {
    let (header, body) = (&receipt.header, &receipt.envelope.body);
    if output == Output::Json {
        let mut members = json_of(receipt, operation);
        members.insert("verdict".to_owned(), "holds".into());
        members.insert("type".to_owned(), "receipt".into());
        say!("{}", serde_json::Value::Object(members));
        return;
    }
    let (outcome, about) = result_details(&receipt.result);
    say!(
        "operation {}: {}{}",
        receipt.number(),
        operation_kind(&operation.body),
        text(&operation_details(&operation.body))
    );
    say!("{outcome}{}", text(&about));
    say!("signed by {}, to act as {}", body.key, acting(receipt));
    say!("number {} of session {}", receipt.sequence().unwrap_or_default(), body.session);
    let by: Vec<String> = receipt.certificate.votes().map(|(index, _)| index.to_string()).collect();
    say!(
        "at height {}, time {} ns, header {}, vouched for by replicas {}",
        header.height,
        receipt.time().0,
        header.hash(),
        by.join(", ")
    );
}

/// Details as an object.
pub fn json(details: &Details) -> serde_json::Value {
    use quorate_audit::Detail;
    let value = |detail: &Detail| match detail {
        Detail::Number(number) => serde_json::Value::from(*number),
        Detail::Text(text) => serde_json::Value::from(text.as_str()),
        Detail::Flag(flag) => serde_json::Value::from(*flag),
    };
    details.iter().map(|(name, detail)| ((*name).to_owned(), value(detail))).collect()
}
