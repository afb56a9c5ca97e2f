//! `quorate audit log` and `audit who`: the signed operations of the past, all of them or those that touched a path.
//!
//! Invariant: an operation is listed with the result that the certified history has for it, after its height was
//! checked and executed again; each has a receipt, which proves it without the rest.

use crate::args::{At, AuditLogArgs, AuditWhoArgs, Output};
use crate::commands::new_file::NewFile;
use crate::commands::prove::{ROOT_INO, components, path_text};
use crate::commands::receipt::{acting, json_of, line_of};
use crate::commands::replay::replay_with;
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::{Aspect, Auditor, Receipt, Subject, Touch};
use quorate_protocol::Ino;
use quorate_protocol::file::Name;
use quorate_protocol::peer::CommittedBatch;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Puts receipts into a directory, named by the numbers of their operations.
struct Receipts {
    directory: Option<PathBuf>,
}

impl Receipts {
    fn into(directory: Option<&PathBuf>) -> Result<Self, Failure> {
        if let Some(directory) = directory {
            std::fs::create_dir_all(directory)
                .map_err(|error| Failure::new(format!("cannot make {}: {error}", directory.display())))?;
        }
        Ok(Self { directory: directory.cloned() })
    }

    /// One that is there already stays if it is of the same operation of the same height.
    fn put(&self, receipt: &Receipt) -> Result<(), Failure> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let path = directory.join(format!("operation-{}.receipt", receipt.number()));
        if let Ok(bytes) = std::fs::read(&path) {
            let there = Receipt::from_file(&bytes);
            let place = |of: &Receipt| (of.header.hash(), of.position);
            return match there {
                Ok(there) if place(&there) == place(receipt) => Ok(()),
                _ => {
                    Err(Failure::new(format!("{} is there, and is another receipt or none", path.display())))
                }
            };
        }
        let written = NewFile::create(&path).and_then(|mut file| {
            file.write_all(&receipt.to_file())?;
            file.put_in_place()
        });
        written.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
    }
}

/// The receipt of an operation of the height that was checked last.
fn receipt_of(auditor: &Auditor<'_>, committed: &CommittedBatch, index: u32) -> Result<Receipt, Failure> {
    let receipt = auditor.receipts().and_then(|receipts| Receipt::of(committed, receipts, index));
    receipt.ok_or_else(|| Failure::new("the history has an operation without a result"))
}

fn names_of(path: &Path) -> Result<Vec<Name>, Failure> {
    Ok(components(path)?.to_vec())
}

fn words(aspects: &BTreeSet<Aspect>) -> String {
    aspects.iter().map(|aspect| aspect.name()).collect::<Vec<_>>().join(", ")
}

/// Lists operations.
pub fn log(args: &AuditLogArgs) -> CommandResult {
    let subject = args.path.as_deref().map(names_of).transpose()?.map(Subject::Path);
    let traced = subject.is_some();
    let receipts = Receipts::into(args.receipts.as_ref())?;
    let mut failed = None;
    let ended = replay_with(&args.history, args.output, subject, &mut |auditor, committed| {
        if matches!(args.until, Some(At::Height(last)) if committed.batch.header.height > last) {
            return ControlFlow::Break(());
        }
        match list(args, traced, &receipts, auditor, committed) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    })?;
    match failed {
        Some(failure) => Err(failure),
        None => Ok(ended.unwrap_or(ExitCode::SUCCESS)),
    }
}

/// Lists the operations of one height.
fn list(
    args: &AuditLogArgs,
    traced: bool,
    receipts: &Receipts,
    auditor: &Auditor<'_>,
    committed: &CommittedBatch,
) -> Result<(), Failure> {
    let listed: Vec<(u32, BTreeSet<Aspect>)> = if traced {
        let wanted = |aspects: &BTreeSet<Aspect>| {
            args.only.is_empty() || args.only.iter().any(|aspect| aspects.contains(aspect))
        };
        let touches = auditor.touches().iter().filter(|touch| wanted(&touch.aspects));
        touches.map(|touch| (touch.index, touch.aspects.clone())).collect()
    } else {
        (0..committed.batch.header.operation_count).map(|index| (index, BTreeSet::new())).collect()
    };
    for (index, aspects) in listed {
        let receipt = receipt_of(auditor, committed, index)?;
        if is_wanted(args, &receipt) {
            receipts.put(&receipt)?;
            print(&receipt, &aspects, args.output);
        }
    }
    Ok(())
}

/// Whether it is by whom, and of when, the caller asks.
fn is_wanted(args: &AuditLogArgs, receipt: &Receipt) -> bool {
    let uid = receipt.credential().map(|credential| credential.uid);
    let since = args.since.is_none_or(|since| match since {
        At::Height(height) => receipt.header.height >= height,
        At::Time(time) => receipt.time() >= time,
    });
    let until = args.until.is_none_or(|until| match until {
        At::Height(height) => receipt.header.height <= height,
        At::Time(time) => receipt.time() <= time,
    });
    since
        && until
        && args.principal.is_none_or(|key| receipt.envelope.body.key == key)
        && args.uid.is_none_or(|wanted| uid == Some(wanted))
}

fn print(receipt: &Receipt, aspects: &BTreeSet<Aspect>, output: Output) {
    let Some(operation) = receipt.operation() else { return };
    if output == Output::Json {
        let mut members = json_of(receipt, operation);
        let aspects: Vec<&str> = aspects.iter().map(|aspect| aspect.name()).collect();
        members.insert("aspects".to_owned(), aspects.into());
        say!("{}", serde_json::Value::Object(members));
        return;
    }
    let what = if aspects.is_empty() { String::new() } else { format!(" ({})", words(aspects)) };
    say!(
        "height {}, {}, {}{what}; {}, {}",
        receipt.header.height,
        At::Time(receipt.time()),
        line_of(receipt, operation),
        receipt.envelope.body.key,
        acting(receipt)
    );
}

/// What became of a path.
#[derive(Default)]
struct Fate {
    /// What it names at the end, and what it named last.
    now: Option<Ino>,
    last: Option<Ino>,
    /// What put that there, and what took it away.
    appeared: Option<Receipt>,
    vanished: Option<Receipt>,
}

/// Says who made what a path names, and what it is.
pub fn who(args: &AuditWhoArgs) -> CommandResult {
    let names = names_of(&args.path)?;
    let shown = path_text(&names);
    let mut fate = Fate::default();
    if names.is_empty() {
        fate.now = Some(ROOT_INO);
        fate.last = fate.now;
    }
    let followed = follow(args, Subject::Path(names), &mut |touch, receipt| {
        fate.now = touch.after;
        fate.last = touch.after.or(touch.before);
        if touch.aspects.contains(&Aspect::Appeared) {
            fate.appeared = Some(receipt.clone());
            fate.vanished = None;
        }
        if touch.aspects.contains(&Aspect::Vanished) {
            fate.vanished = Some(receipt);
        }
    })?;
    if let Some(code) = followed {
        return Ok(code);
    }
    let Some(ino) = fate.last else {
        return Err(Failure::new(format!("{shown} has never been there, as far as this history goes")));
    };
    let mut made: Option<Receipt> = None;
    let mut latest: BTreeMap<Aspect, Receipt> = BTreeMap::new();
    let followed = follow(args, Subject::Inode(ino), &mut |touch, receipt| {
        for aspect in &touch.aspects {
            match aspect {
                Aspect::Appeared => made = Some(receipt.clone()),
                Aspect::Vanished => {}
                _ => {
                    latest.insert(*aspect, receipt.clone());
                }
            }
        }
    })?;
    if let Some(code) = followed {
        return Ok(code);
    }
    tell(args, &shown, ino, (fate, made, latest))
}

/// Shows each operation that touched the subject.
fn follow(
    args: &AuditWhoArgs,
    subject: Subject,
    see: &mut dyn FnMut(&Touch, Receipt),
) -> Result<Option<ExitCode>, Failure> {
    let mut failed = None;
    let ended = replay_with(&args.history, args.output, Some(subject), &mut |auditor, committed| {
        for touch in auditor.touches() {
            match receipt_of(auditor, committed, touch.index) {
                Ok(receipt) => see(touch, receipt),
                Err(failure) => {
                    failed = Some(failure);
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(ended), Err)
}

fn tell(
    args: &AuditWhoArgs,
    path: &str,
    ino: Ino,
    (fate, made, latest): (Fate, Option<Receipt>, BTreeMap<Aspect, Receipt>),
) -> CommandResult {
    let mut told: Vec<(&str, Receipt)> = Vec::new();
    told.extend(made.map(|receipt| ("made", receipt)));
    let first = told.first().map(|(_, receipt)| receipt.number());
    // A file that was made under this name came there by being made.
    told.extend(
        fate.appeared.filter(|receipt| Some(receipt.number()) != first).map(|receipt| ("put here", receipt)),
    );
    told.extend(latest.into_iter().map(|(aspect, receipt)| (aspect.name(), receipt)));
    told.extend(fate.vanished.map(|receipt| ("taken away", receipt)));
    let receipts = Receipts::into(args.receipts.as_ref())?;
    for (_, receipt) in &told {
        receipts.put(receipt)?;
    }
    if args.output == Output::Json {
        let operations: Vec<serde_json::Value> = told
            .iter()
            .filter_map(|(what, receipt)| {
                let mut members = json_of(receipt, receipt.operation()?);
                members.insert("what".to_owned(), (*what).into());
                Some(serde_json::Value::Object(members))
            })
            .collect();
        let there = fate.now.is_some();
        say!("{}", serde_json::json!({ "path": path, "ino": ino, "there": there, "operations": operations }));
        return Ok(ExitCode::SUCCESS);
    }
    match fate.now {
        Some(_) => say!("{path} is inode {ino}"),
        None => say!("{path} is not there any more; it was inode {ino}"),
    }
    if told.is_empty() {
        say!("no operation has touched it: it is as the genesis made it");
    }
    for (what, receipt) in &told {
        let Some(operation) = receipt.operation() else { continue };
        let when = At::Time(receipt.time());
        say!(
            "{what:<10} {when}, {}; {}, {}",
            line_of(receipt, operation),
            receipt.envelope.body.key,
            acting(receipt)
        );
    }
    Ok(ExitCode::SUCCESS)
}
