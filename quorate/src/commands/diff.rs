//! `quorate audit diff`: in what the trees of two heights differ.
//!
//! Invariant: both states come from the history, checked and executed again from genesis; between them only what
//! differs is looked at, and how many nodes that took is said.

use crate::args::{At, AuditDiffArgs, Output};
use crate::commands::prove::components;
use crate::commands::replay::replay;
use crate::commands::{connect, trust};
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::{Auditor, Difference, Differences, Policy, differences};
use quorate_execution::State;
use quorate_protocol::Header;
use quorate_protocol::file::Name;
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Whether a height is not after the one that is meant.
fn reaches(at: At, header: &Header) -> bool {
    match at {
        At::Height(height) => header.height <= height,
        At::Time(time) => header.time <= time,
    }
}

/// Lists the differences.
pub fn run(args: &AuditDiffArgs) -> CommandResult {
    let below = args.path.as_deref().map(components).transpose()?.map(|names| names.to_vec());
    let cluster = connect::read_cluster(&args.history.cluster)?;
    let verifier = trust::verifier(cluster.genesis());
    let genesis = Auditor::new(cluster.genesis(), &verifier, Policy::FULL)?;
    let genesis = genesis.state().cloned().ok_or_else(|| Failure::new("the genesis has no state"))?;
    let (mut old, mut new) = (genesis.clone(), genesis);
    let ended = replay(&args.history, args.output, &mut |auditor, committed| {
        let header = &committed.batch.header;
        let Some(state) = auditor.state() else { return ControlFlow::Break(()) };
        let (first, second) = (reaches(args.from, header), reaches(args.to, header));
        if first {
            old = state.clone();
        }
        if second {
            new = state.clone();
        }
        if first || second { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if let Some(code) = ended {
        return Ok(code);
    }
    for (at, state) in [(args.from, &old), (args.to, &new)] {
        match at {
            At::Height(height) if height != state.height() => {
                return Err(Failure::new(format!(
                    "the history has no height {height}: it ends at {}",
                    state.height()
                )));
            }
            At::Time(time) if state.header().time > time => {
                return Err(Failure::new(format!("the history begins after {at}")));
            }
            _ => {}
        }
    }
    let mut found = differences(&old, &new)?;
    if let Some(below) = below {
        found.found.retain(|difference| difference.is_within(&below));
    }
    print(&found, (&old, &new), args.output);
    Ok(ExitCode::SUCCESS)
}

fn text(path: &[Name]) -> String {
    if path.is_empty() {
        return "/".to_owned();
    }
    // Spaces as well, so that no name passes for what is said of one.
    path.iter().map(|name| format!("/{}", name.as_bytes().escape_ascii()).replace(' ', "\\x20")).collect()
}

fn print(found: &Differences, (old, new): (&State, &State), output: Output) {
    if output == Output::Json {
        let list: Vec<serde_json::Value> = found.found.iter().map(json).collect();
        say!(
            "{}",
            serde_json::json!({
                "from": old.height(), "to": new.height(), "differences": list,
                "rows": found.rows, "nodes": found.nodes,
            })
        );
        return;
    }
    for difference in &found.found {
        match difference {
            Difference::Added { path, .. } => say!("added     {}", text(path)),
            Difference::Removed { path, .. } => say!("removed   {}", text(path)),
            Difference::Moved { from, to, .. } => say!("moved     {} to {}", text(from), text(to)),
            Difference::Replaced { path, before, after } => {
                say!("replaced  {} (inode {before} by {after})", text(path));
            }
            Difference::Modified { path, aspects, .. } => {
                let aspects: Vec<&str> = aspects.iter().map(|aspect| aspect.name()).collect();
                say!("modified  {} ({})", text(path), aspects.join(", "));
            }
        }
    }
    say!(
        "{} differences between heights {} and {}; {} rows differ, {} nodes were looked at",
        found.found.len(),
        old.height(),
        new.height(),
        found.rows,
        found.nodes
    );
}

fn json(difference: &Difference) -> serde_json::Value {
    match difference {
        Difference::Added { path, ino } => {
            serde_json::json!({ "what": "added", "path": text(path), "ino": ino })
        }
        Difference::Removed { path, ino } => {
            serde_json::json!({ "what": "removed", "path": text(path), "ino": ino })
        }
        Difference::Moved { from, to, ino } => {
            serde_json::json!({ "what": "moved", "from": text(from), "path": text(to), "ino": ino })
        }
        Difference::Replaced { path, before, after } => {
            serde_json::json!({ "what": "replaced", "path": text(path), "was": before, "ino": after })
        }
        Difference::Modified { path, ino, aspects } => {
            let aspects: Vec<&str> = aspects.iter().map(|aspect| aspect.name()).collect();
            serde_json::json!({ "what": "modified", "path": text(path), "ino": ino, "aspects": aspects })
        }
    }
}
