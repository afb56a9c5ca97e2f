//! `quorate audit compare`: the heads of all replicas of a live cluster, and whether they lie on one chain.
//!
//! Invariant: only certified heads count, and only certified heights between them show that one is above the other.
//! Exit 0 they lie on one chain, 1 two certified heads conflict, 2 it cannot be told.

use crate::args::{CompareArgs, Output};
use crate::commands::against::{self, Against};
use crate::commands::{connect, memory, trust};
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::{Anchor, Fork, Head, HeadFault, Heads};
use quorate_client::{ClusterStatus, Observer};
use quorate_protocol::{Height, ReplicaIndex};
use std::process::ExitCode;

/// Exit status when the cluster has forked.
const FORKED: u8 = 1;
/// Exit status when it cannot be told.
const CANNOT_TELL: u8 = 2;
/// Heights between the lowest and the highest head that are fetched and checked; beyond that a replica is so far
/// behind that its whole log must be checked.
const HEIGHTS_MAX: u64 = 65_536;

/// What one replica shows.
pub struct Shown {
    replica: ReplicaIndex,
    /// Its head, or why it shows none that counts.
    head: Result<Head, String>,
}

/// What came of a comparison.
pub enum Outcome {
    /// All heads lie on one chain.
    Consistent,
    /// Two of them, or of the heights between them, do not.
    Forked(Fork),
    /// Why it cannot be told.
    CannotTell(String),
}

/// Compares.
pub fn run(args: &CompareArgs) -> CommandResult {
    let cluster = connect::read_cluster(&args.cluster.cluster)?;
    let verifier = trust::verifier(cluster.genesis());
    let mut heads = Heads::new(cluster.genesis(), &verifier);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = memory::recall(cluster.genesis())?;
    let (shown, outcome, told) = runtime.block_on(async {
        let observer = connect::observe(&args.cluster.cluster, &args.cluster.key).await?;
        let status = observer.status().await;
        let needed = cluster.members().f() + 1;
        let (shown, fork) = gather(&mut heads, &status);
        let outcome = match fork {
            Some(fork) => Outcome::Forked(fork),
            None => compare(&observer, &mut heads, &shown, needed).await,
        };
        let told = match &seen {
            Some(seen) => {
                let certified = against::certified(cluster.genesis(), &status);
                Some(against::against(&observer, cluster.genesis(), seen, &certified).await)
            }
            None => None,
        };
        Ok::<_, Failure>((shown, outcome, told))
    })?;
    let alarm = told.as_ref().is_some_and(Against::is_alarm);
    if let (Outcome::Consistent, false, Some(top)) = (&outcome, alarm, heads.highest()) {
        let (cluster_id, head) = (cluster.cluster(), top.clone());
        memory::remember(cluster.genesis(), &Anchor { cluster: cluster_id, head, log: None });
    }
    print(&shown, &outcome, told.as_ref(), &heads, args.output);
    Ok(ExitCode::from(match outcome {
        _ if alarm => FORKED,
        Outcome::Consistent => 0,
        Outcome::Forked(_) => FORKED,
        Outcome::CannotTell(_) => CANNOT_TELL,
    }))
}

/// The heads that replicas show, as far as they are certified, and the first two that conflict.
fn gather(heads: &mut Heads<'_>, status: &ClusterStatus) -> (Vec<Shown>, Option<Fork>) {
    let (mut all, mut first) = (Vec::new(), None);
    for state in &status.replicas {
        let head = match &state.status {
            Err(reason) => Err(format!("does not answer: {reason}")),
            Ok(status) => {
                let head = Head { header: status.header.clone(), certificate: status.certificate.clone() };
                match heads.add(&head) {
                    Ok(()) => Ok(head),
                    Err(HeadFault::NoHead(error)) => Err(format!("shows a head that is none: {error}")),
                    Err(HeadFault::Fork(fork)) => {
                        first.get_or_insert(fork);
                        Ok(head)
                    }
                }
            }
        };
        all.push(Shown { replica: state.replica, head });
    }
    (all, first)
}

/// Climbs from the lowest head to the highest one, by what those replicas tell that show the highest.
async fn compare(observer: &Observer, heads: &mut Heads<'_>, shown: &[Shown], needed: usize) -> Outcome {
    let certified: Vec<(ReplicaIndex, Height)> = shown
        .iter()
        .filter_map(|shown| Some((shown.replica, shown.head.as_ref().ok()?.header.height)))
        .collect();
    if certified.len() < needed {
        let few = certified.len();
        return Outcome::CannotTell(format!("{few} replicas show a certified head, {needed} are needed"));
    }
    let (Some(low), Some(top)) = (
        certified.iter().map(|(_, height)| *height).min(),
        certified.iter().map(|(_, height)| *height).max(),
    ) else {
        return Outcome::CannotTell("no replica shows a head".to_owned());
    };
    if top.saturating_sub(low) > HEIGHTS_MAX {
        return Outcome::CannotTell(format!(
            "height {low} is more than {HEIGHTS_MAX} below {top}; check that replica's log: `quorate audit verify --dir`"
        ));
    }
    let mut why = String::new();
    for (replica, _) in certified.iter().filter(|(_, height)| *height == top) {
        match climb(observer, heads, *replica, low).await {
            Ok(()) => return Outcome::Consistent,
            Err(Obstacle::Fork(fork)) => return Outcome::Forked(fork),
            Err(Obstacle::Withheld(text)) => {
                why = format!("replica {replica} does not show how it came there: {text}")
            }
        }
    }
    Outcome::CannotTell(why)
}

/// What keeps one replica from showing the chain below its head.
enum Obstacle {
    Fork(Fork),
    Withheld(String),
}

/// Fetches from a replica all heights above `from` that are not known yet, up to the highest head.
async fn climb(
    observer: &Observer,
    heads: &mut Heads<'_>,
    replica: ReplicaIndex,
    from: Height,
) -> Result<(), Obstacle> {
    while let Some(next) = heads.gap_above(from) {
        let batches = observer.history_of(replica, next).await.map_err(Obstacle::Withheld)?;
        for (height, committed) in (next..).zip(&batches) {
            if committed.batch.header.height != height {
                return Err(Obstacle::Withheld(format!("height {height} is not where it should be")));
            }
            match heads.add(&Head::of(committed)) {
                Ok(()) => {}
                Err(HeadFault::Fork(fork)) => return Err(Obstacle::Fork(fork)),
                Err(HeadFault::NoHead(error)) => return Err(Obstacle::Withheld(error.to_string())),
            }
        }
        if heads.gap_above(from) == Some(next) {
            return Err(Obstacle::Withheld(format!("height {next} is not among what it sends")));
        }
    }
    Ok(())
}

fn print(shown: &[Shown], outcome: &Outcome, told: Option<&Against>, heads: &Heads<'_>, output: Output) {
    let counted = shown.iter().filter(|shown| shown.head.is_ok()).count();
    let top = heads.highest().map_or(0, |head| head.header.height);
    let (verdict, text) = match outcome {
        Outcome::Consistent => (
            "consistent",
            format!(
                "consistent: {counted} of {} replicas show heads of one chain, up to height {top}",
                shown.len()
            ),
        ),
        Outcome::Forked(_) => ("forked", "forked: two certified headers are not of one history".to_owned()),
        Outcome::CannotTell(why) => ("cannot tell", format!("cannot tell: {why}")),
    };
    let fork = if let Outcome::Forked(fork) = outcome { Some(fork) } else { None };
    if output == Output::Json {
        let replicas: Vec<_> = shown
            .iter()
            .map(|shown| match &shown.head {
                Ok(head) => {
                    let mut json = head_json(head);
                    json["replica"] = shown.replica.into();
                    json
                }
                Err(error) => serde_json::json!({ "replica": shown.replica, "error": error }),
            })
            .collect();
        say!(
            "{}",
            serde_json::json!({
                "verdict": verdict, "text": text, "height": top, "replicas": replicas,
                "conflict": fork.map(fork_json), "seen": told.map(Against::json),
            })
        );
        return;
    }
    for Shown { replica, head } in shown {
        match head {
            Ok(head) => say!("replica {replica}  {head}"),
            Err(error) => say!("replica {replica}  {error}"),
        }
    }
    say!("{text}");
    if let Some(fork) = fork {
        say!("{}", fork_text(fork));
    }
    if let Some(told) = told.filter(|told| !matches!(told, Against::Holds)) {
        say!("{told}");
    }
}

/// Both heads, and who signed both.
pub fn fork_text(fork: &Fork) -> String {
    let mut text = format!("one:   {}\nother: {}", fork.lower, fork.higher);
    let both: Vec<String> = fork.signed_both().iter().map(ToString::to_string).collect();
    if !both.is_empty() {
        text.push_str(&format!(
            "\nsigned both: replicas {}; `quorate audit evidence list` shows of what each is proven guilty",
            both.join(", ")
        ));
    }
    text
}

/// Both heads, and who signed both, for programs.
pub fn fork_json(fork: &Fork) -> serde_json::Value {
    serde_json::json!({
        "heads": [head_json(&fork.lower), head_json(&fork.higher)],
        "signed_both": fork.signed_both(),
    })
}

/// A head for programs.
pub fn head_json(head: &Head) -> serde_json::Value {
    serde_json::json!({
        "height": head.header.height,
        "header": head.header.hash().to_string(),
        "previous": head.header.previous.to_string(),
        "state_root": head.header.state_root.to_string(),
        "time_ns": head.header.time.0,
        "view": head.certificate.as_ref().map(|certificate| certificate.view),
        "certified_by": head.signers(),
    })
}
