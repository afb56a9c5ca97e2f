//! `quorate audit verify`: all heights of a source, from the genesis or from an anchor on, and against what was seen
//! of the cluster before.
//!
//! Invariant: only what holds is remembered or kept.

use crate::args::{AuditVerifyArgs, HistoryArgs, Output};
use crate::commands::against::{self, Against};
use crate::commands::new_file::NewFile;
use crate::commands::{audit, connect, memory, replay, sources, trust};
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::{
    Anchor, Auditor, Fork, Head, HeadFault, Heads, Policy, Report, Signatures, Source, Verdict, follow,
};
use quorate_crypto::Ed25519Verifier;
use quorate_protocol::Genesis;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Exit status when something does not hold.
const BROKEN: u8 = 1;
/// Exit status when nothing can be said.
const CANNOT_TELL: u8 = 2;

/// What came of an audit.
struct Audited {
    report: Report,
    took: Duration,
    /// For the last height that holds.
    anchor: Anchor,
    /// The height at which the history is another one than what was seen.
    fork: Option<Fork>,
}

/// Verifies all that a source has, up to the height at which it is not what was seen.
fn verify_all(
    mut auditor: Auditor<'_>,
    source: Box<dyn Source + Send>,
    signatures: &Signatures<'_>,
    seen: Option<&Anchor>,
) -> Result<Audited, Failure> {
    let mut fork = None;
    let (report, took) = replay::check_with(&mut auditor, source, signatures, |auditor, heights| {
        Ok(follow(auditor, heights, &mut |_, committed| {
            let header = &committed.batch.header;
            let seen = seen.filter(|seen| seen.head.header.height == header.height);
            match seen.filter(|seen| seen.head.header != *header) {
                Some(seen) => {
                    let [lower, higher] = [seen.head.clone(), Head::of(committed)].map(Box::new);
                    fork = Some(Fork { lower, higher });
                    ControlFlow::Break(())
                }
                None => ControlFlow::Continue(()),
            }
        }))
    })?;
    Ok(Audited { report, took, anchor: auditor.anchor(), fork })
}

/// Audits.
pub fn run(args: &AuditVerifyArgs) -> CommandResult {
    let cluster = connect::read_cluster(&args.history.cluster)?;
    let genesis = cluster.genesis();
    let verifier = trust::verifier(genesis);
    let seen = memory::recall(genesis)?;
    let keep = args.keep.as_deref().map(|path| Ok::<_, Failure>((path, create(path)?))).transpose()?;
    let policy = if args.full { Policy::FULL } else { Policy::STANDARD };
    let (auditor, start) = match &args.from {
        Some(path) => {
            let anchor = memory::given(path, genesis)?;
            (Auditor::above(&anchor, genesis, &verifier, policy)?, Some(anchor))
        }
        None => (Auditor::new(genesis, &verifier, policy)?, None),
    };
    let source = sources::open_above(&cluster, &args.history, auditor.head().height)?;
    let signatures = Signatures::new(genesis.cluster(), &genesis.members, &verifier, policy);
    let mut audited = verify_all(auditor, source, &signatures, seen.as_ref())?;
    if let (Some(start), Some(seen)) = (&start, &seen) {
        audited.fork = audited.fork.or(conflict(genesis, &verifier, &seen.head, &start.head)?);
    }
    let relation = match (&start, &seen) {
        // A fork of above what was seen would be taken for it: the heights in between were not looked at.
        (Some(start), Some(seen)) if passes_over(start, seen) && audited.fork.is_none() => {
            let why =
                "the audit began above what was seen, and did not come by it: begin lower, or at genesis";
            Some(Seen::Told(Against::CannotTell(why.to_owned())))
        }
        _ => relation(&args.history, genesis, &audited, seen.as_ref())?,
    };
    let alarm = matches!(&relation, Some(Seen::Told(told)) if told.is_alarm());
    let undecided = matches!(&relation, Some(Seen::Told(Against::CannotTell(_))));
    if audited.report.verdict == Verdict::Holds && !alarm && !undecided {
        memory::remember(genesis, &audited.anchor);
    }
    print(&audited, relation.as_ref(), args.output);
    let code = match (&audited.report.verdict, &relation) {
        _ if alarm => BROKEN,
        (Verdict::Holds, Some(Seen::Told(Against::CannotTell(_)))) => CANNOT_TELL,
        (verdict, _) => verdict.exit_code(),
    };
    if let (0, Some((path, mut file))) = (code, keep) {
        let kept = file.write_all(&audited.anchor.to_file()).and_then(|()| file.put_in_place());
        kept.map_err(|error| cannot_write(path, &error))?;
    }
    Ok(ExitCode::from(code))
}

/// Whether an audit that begins at `start` never compares anything with what was seen.
fn passes_over(start: &Anchor, seen: &Anchor) -> bool {
    start.head.header.height > seen.head.header.height.saturating_add(1)
}

fn create(path: &Path) -> Result<NewFile, Failure> {
    NewFile::create(path).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {error}", path.display()))
}

/// Whether two certified heads conflict.
fn conflict(
    genesis: &Genesis,
    verifier: &Ed25519Verifier,
    one: &Head,
    other: &Head,
) -> Result<Option<Fork>, Failure> {
    let mut heads = Heads::new(genesis, verifier);
    match heads.add(one).and_then(|()| heads.add(other)) {
        Ok(()) => Ok(None),
        Err(HeadFault::Fork(fork)) => Ok(Some(fork)),
        Err(error @ HeadFault::NoHead(_)) => Err(error.into()),
    }
}

/// How a history stands to what was seen before.
enum Seen {
    /// It ends below, which is no fault of what is stored.
    Ends(Box<Head>),
    /// The rest.
    Told(Against),
}

/// `None` when nothing was seen, or the history does not hold as far as that.
fn relation(
    place: &HistoryArgs,
    genesis: &Genesis,
    audited: &Audited,
    seen: Option<&Anchor>,
) -> Result<Option<Seen>, Failure> {
    let Some(seen) = seen else { return Ok(None) };
    if let Some(fork) = &audited.fork {
        return Ok(Some(Seen::Told(Against::Forked(fork.clone()))));
    }
    if audited.anchor.head.header.height >= seen.head.header.height {
        return Ok(Some(Seen::Told(Against::Holds)));
    }
    match &place.key {
        _ if audited.report.verdict != Verdict::Holds => Ok(None),
        Some(key) if place.dir.is_none() && place.bundle.is_none() => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let told = runtime.block_on(async {
                let observer = connect::observe(&place.cluster, key).await?;
                let shown = against::certified(genesis, &observer.status().await);
                Ok::<_, Failure>(against::against(&observer, genesis, seen, &shown).await)
            })?;
            Ok(Some(Seen::Told(told)))
        }
        _ => Ok(Some(Seen::Ends(Box::new(seen.head.clone())))),
    }
}

fn print(audited: &Audited, seen: Option<&Seen>, output: Output) {
    let Audited { report, took, .. } = audited;
    if output == Output::Json {
        let mut json = audit::json(report, *took);
        json["seen"] = match seen {
            None => serde_json::Value::Null,
            Some(Seen::Ends(head)) => {
                serde_json::json!({ "verdict": "ends below", "seen": super::compare::head_json(head) })
            }
            Some(Seen::Told(told)) => told.json(),
        };
        if let Some(Seen::Told(told)) = seen.filter(|_| report.verdict == Verdict::Holds) {
            let verdict = match told {
                Against::Holds => "holds",
                Against::Forked(_) | Against::RolledBack { .. } => "broken",
                Against::CannotTell(_) => "cannot tell",
            };
            json["verdict"] = verdict.into();
        }
        say!("{json}");
        return;
    }
    audit::print(report, output, *took);
    match seen {
        None | Some(Seen::Told(Against::Holds)) => {}
        Some(Seen::Ends(head)) => say!("it ends below what was seen of the cluster before: {head}"),
        Some(Seen::Told(told)) => say!("{told}"),
    }
}
