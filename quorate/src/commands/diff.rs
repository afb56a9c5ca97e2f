//! `quorate audit diff`: in what the trees of two heights differ.
//!
//! Invariant: both states come from the history, checked and executed again from genesis; between them only what
//! differs is looked at, and how many nodes that took is said.

use crate::args::{At, AuditDiffArgs, Output};
use crate::commands::prove::{components, path_text};
use crate::commands::replay::replay;
use crate::commands::{connect, trust};
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::{Auditor, Difference, Differences, Policy, differences};
use quorate_execution::State;
use quorate_protocol::Header;
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
            Difference::Added { path, .. } => say!("added     {}", path_text(path)),
            Difference::Removed { path, .. } => say!("removed   {}", path_text(path)),
            Difference::Moved { from, to, over, .. } => {
                let over = over.map_or_else(String::new, |ino| format!(" (in place of inode {ino})"));
                say!("moved     {} to {}{over}", path_text(from), path_text(to));
            }
            Difference::Replaced { path, before, after } => {
                say!("replaced  {} (inode {before} by {after})", path_text(path));
            }
            Difference::Modified { path, aspects, .. } => {
                let aspects: Vec<&str> = aspects.iter().map(|aspect| aspect.name()).collect();
                say!("modified  {} ({})", path_text(path), aspects.join(", "));
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
            serde_json::json!({ "what": "added", "path": path_text(path), "ino": ino })
        }
        Difference::Removed { path, ino } => {
            serde_json::json!({ "what": "removed", "path": path_text(path), "ino": ino })
        }
        Difference::Moved { from, to, ino, over } => serde_json::json!({
            "what": "moved", "from": path_text(from), "path": path_text(to), "ino": ino, "was": over,
        }),
        Difference::Replaced { path, before, after } => {
            serde_json::json!({ "what": "replaced", "path": path_text(path), "was": before, "ino": after })
        }
        Difference::Modified { path, ino, aspects } => {
            let aspects: Vec<&str> = aspects.iter().map(|aspect| aspect.name()).collect();
            serde_json::json!({ "what": "modified", "path": path_text(path), "ino": ino, "aspects": aspects })
        }
    }
}
