//! `quorate status`: how every replica is, and in words how the cluster is.
//!
//! Invariant: what replicas say of themselves is shown as their words; only certified headers count for
//! the cluster's height, and only evidence that was judged here makes a replica proven faulty.

use crate::args::{Output, StatusArgs};
use crate::commands::against::Against;
use crate::commands::evidence::Faulty;
use crate::commands::{against, connect, evidence, memory};
use crate::failure::CommandResult;
use crate::say;
use quorate_audit::Anchor;
use quorate_client::ClusterStatus;
use quorate_client::status::ReplicaState;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Exit status when some replicas are not well, but the cluster works; or when it is not the one that was seen.
const DEGRADED: u8 = 1;
/// Exit status when nothing can be decided.
const NO_QUORUM: u8 = 2;

/// Asks all replicas and prints what they say.
pub fn run(args: &StatusArgs) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = connect::read_cluster(&args.cluster.cluster)?;
    let seen = memory::recall(cluster.genesis())?;
    let (status, shown, told) = runtime.block_on(async {
        let observer = connect::observe(&args.cluster.cluster, &args.cluster.key).await?;
        // Side by side: a replica that is silent costs its patience once.
        let (status, shown) = tokio::join!(observer.status(), observer.evidence());
        let heads = against::certified(cluster.genesis(), &status);
        let told = match &seen {
            Some(seen) => Some(against::against(&observer, cluster.genesis(), seen, &heads).await),
            None => None,
        };
        let highest = heads.into_iter().max_by_key(|(_, head)| head.header.height);
        let goes_on = told.as_ref().is_none_or(|told| matches!(told, Against::Holds));
        if let (true, Some((_, head))) = (goes_on, highest) {
            memory::remember(cluster.genesis(), &Anchor { cluster: cluster.cluster(), head, log: None });
        }
        Ok::<_, crate::failure::Failure>((status, shown, told))
    })?;
    let faulty = evidence::proven_faulty(&cluster, shown)?;
    let told = told.filter(|told| !matches!(told, Against::Holds));
    let verdict = match told.as_ref().filter(|told| told.is_alarm()) {
        Some(told) => Verdict { code: DEGRADED, word: "another history", text: told.to_string() },
        None => verdict(&status),
    };
    match args.output {
        Output::Json => {
            let mut json = json(&status, &verdict, &faulty);
            json["seen"] = told.as_ref().map(Against::json).into();
            say!("{json}");
        }
        Output::Text => print_text(&status, &verdict, &faulty),
    }
    Ok(ExitCode::from(verdict.code))
}

struct Verdict {
    code: u8,
    word: &'static str,
    text: String,
}

fn verdict(status: &ClusterStatus) -> Verdict {
    let n = status.replicas.len();
    let (voting, f) = (status.voting(), status.faults);
    let agreed = one_root(status);
    match status.spare() {
        None => Verdict {
            code: NO_QUORUM,
            word: "no quorum",
            text: format!(
                "no quorum: {voting} of {n} replicas vote, {} are needed; nothing can be changed until more come back",
                status.quorum
            ),
        },
        Some(_) if !agreed => Verdict {
            code: DEGRADED,
            word: "degraded",
            text: "degraded: replicas at one height show different roots; run `quorate audit verify`"
                .to_owned(),
        },
        Some(spare) if voting < n => Verdict {
            code: DEGRADED,
            word: "degraded",
            text: format!("degraded: {voting} of {n} replicas vote; {} more may fail", spare.min(f)),
        },
        Some(spare) => Verdict {
            code: 0,
            word: "healthy",
            text: format!("healthy: all {n} replicas vote; any {} may fail, lie or collude", spare.min(f)),
        },
    }
}

/// Whether replicas at one height show one header.
fn one_root(status: &ClusterStatus) -> bool {
    let mut seen = BTreeMap::new();
    status.replicas.iter().filter(|state| state.certified).filter_map(|state| state.status.as_ref().ok()).all(
        |status| {
            *seen.entry(status.committed).or_insert_with(|| status.header.hash()) == status.header.hash()
        },
    )
}

fn print_text(status: &ClusterStatus, verdict: &Verdict, faulty: &BTreeMap<u8, Faulty>) {
    let top = status.height().unwrap_or(0);
    say!(
        "{:<3} {:<22} {:<9} {:>6} {:>9} {:>5} {:<5} {:>9} {:>9} {:>6} state root",
        "id",
        "address",
        "role",
        "view",
        "height",
        "lag",
        "peers",
        "inodes",
        "blocks",
        "ms"
    );
    for state in &status.replicas {
        say!("{}", line(state, top));
    }
    faulty.values().for_each(|faulty| say!("{faulty}"));
    for status in status.replicas.iter().filter_map(|state| state.status.as_ref().ok()) {
        if status.log_heads_halted {
            say!("replica {} signs no heads of the log any more; its log says why", status.replica);
        }
    }
    say!("{}", verdict.text);
}

fn line(state: &ReplicaState, top: u64) -> String {
    match &state.status {
        Err(reason) => format!("{:<3} {:<22} does not answer: {reason}", state.replica, state.address),
        Ok(status) => {
            let role = match (status.voting, status.leading) {
                (false, _) => "silent",
                (true, true) => "leader",
                (true, false) => "follower",
            };
            let root = status.header.state_root.to_string();
            let ms = state.round_trip.map_or(0.0, |time| time.as_secs_f64() * 1e3);
            format!(
                "{:<3} {:<22} {role:<9} {:>6} {:>9} {:>5} {:<5} {:>9} {:>9} {ms:>6.1} {}{}",
                state.replica,
                state.address,
                status.view,
                status.committed,
                top.saturating_sub(status.committed),
                status.peers.len(),
                status.inodes,
                status.stored_blocks,
                root.get(..16).unwrap_or(&root),
                if state.certified { "" } else { " (not certified!)" }
            )
        }
    }
}

fn json(status: &ClusterStatus, verdict: &Verdict, faulty: &BTreeMap<u8, Faulty>) -> serde_json::Value {
    let replicas: Vec<_> = status
        .replicas
        .iter()
        .map(|state| match &state.status {
            Err(reason) => serde_json::json!({
                "replica": state.replica, "address": state.address, "error": reason,
            }),
            Ok(status) => serde_json::json!({
                "replica": state.replica,
                "address": state.address,
                "view": status.view,
                "leading": status.leading,
                "voting": status.voting,
                "height": status.committed,
                "header": status.header.hash().to_string(),
                "root": status.header.state_root.to_string(),
                "certified": state.certified,
                "peers": status.peers.iter().collect::<Vec<_>>(),
                "pending": status.pending,
                "stored_blocks": status.stored_blocks,
                "block_bytes": status.block_bytes,
                "state_rows": status.state_rows,
                "inodes": status.inodes,
                "blocks": status.blocks,
                "log_head": status.log_head,
                "log_heads_halted": status.log_heads_halted,
                "round_trip_us": state.round_trip.map(|time| time.as_micros() as u64),
            }),
        })
        .collect();
    serde_json::json!({
        "verdict": verdict.word,
        "text": verdict.text,
        "height": status.height(),
        "quorum": status.quorum,
        "survives": status.faults,
        "voting": status.voting(),
        "replicas": replicas,
        "proven_faulty": faulty.values().map(Faulty::json).collect::<Vec<_>>(),
    })
}
