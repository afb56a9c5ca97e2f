//! `quorate audit tlog export`: the log of headers as files for any web server.
//!
//! Invariants: an entry is written once its height was checked; the checkpoint is written last, for a size that all
//! files are there for, and only if its root is the one that the checked headers have. An export never goes back.

use super::conflict;
use super::directory::{Added, LogDirectory};
use super::heads::{Found, QuorumHead, gather};
use super::trusted;
use crate::args::{Output, TlogExportArgs};
use crate::commands::{replay, sources};
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::tlog::{LogKeys, Resource, SignedNote, TileBuilder};
use quorate_audit::{Policy, Verdict, follow};
use quorate_crypto::encode;
use quorate_protocol::Header;
use quorate_protocol::log_head::LogHead;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit status when something does not hold.
const BROKEN: u8 = 1;

/// How an export ends before its end.
enum Stop {
    /// Something does not hold.
    Broken(String),
    /// It cannot be told.
    CannotTell(String),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::CannotTell(format!("cannot write the export: {error}"))
    }
}

/// What was done.
#[derive(Default)]
struct Done {
    written: u64,
    kept: u64,
}

/// Exports.
pub fn run(args: &TlogExportArgs) -> CommandResult {
    let (cluster, keys) = trusted(&args.history.cluster)?;
    let place = (args.history.cluster.as_path(), args.history.key.as_deref());
    // Before the history, which then goes as far as the heads do.
    let Found { heads, conflicts } = gather((&cluster, &keys), &args.heads, place)?;
    for (replica, proof) in conflicts {
        // Beside the export: it is not what a web server shall serve.
        let beside = PathBuf::from(format!("{}.evidence", args.out.display()));
        let written = conflict::write(&cluster, replica, proof, &beside);
        let place = written.map_or_else(|failure| failure.text, |path| path.display().to_string());
        eprintln!("quorate: replica {replica} signed two heads of one size and is proven faulty: {place}");
    }
    if heads.is_empty() {
        return Err(Failure::new(format!(
            "no head of the log is signed by {} replicas: a replica signs some seconds after its last height",
            keys.quorum()
        )));
    }
    let directory = LogDirectory::prepare(&args.out, &keys)?;
    let before = match earlier(&directory, &keys) {
        Ok(before) => before,
        Err(stop) => return end(stop, args.output),
    };
    let source = sources::open(&cluster, &args.history)?;
    let mut writing =
        Writing { directory, heads, before, builder: TileBuilder::new(), best: None, done: Done::default() };
    let mut stopped = None;
    let (report, _) = replay::check(cluster.genesis(), source, Policy::STANDARD, |auditor, heights| {
        stopped = writing.append(auditor.head()).err();
        if stopped.is_some() {
            return Ok(Verdict::Holds);
        }
        Ok(follow(auditor, heights, &mut |auditor, _| {
            if writing.is_complete() {
                return ControlFlow::Break(());
            }
            stopped = writing.append(auditor.head()).err();
            if stopped.is_some() || writing.is_complete() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }))
    })?;
    let outcome = match (stopped, report.verdict) {
        (Some(stop), _) => Err(stop),
        (None, Verdict::Broken(breach)) => Err(Stop::Broken(breach.to_string())),
        (None, Verdict::CannotTell { height, text }) => {
            Err(Stop::CannotTell(format!("from height {height} on: {text}")))
        }
        (None, Verdict::Holds) => writing.finish(&keys),
    };
    match outcome {
        Ok((found, done)) => {
            print(&found, &done, args);
            Ok(ExitCode::SUCCESS)
        }
        Err(stop) => end(stop, args.output),
    }
}

/// The head that the directory has already.
fn earlier(directory: &LogDirectory, keys: &LogKeys) -> Result<Option<LogHead>, Stop> {
    let Some(bytes) = directory.read_checkpoint()? else { return Ok(None) };
    let bad = |error: &dyn std::fmt::Display| {
        Stop::CannotTell(format!("the checkpoint that is there is none: {error}"))
    };
    let note = SignedNote::parse(&bytes).map_err(|error| bad(&error))?;
    Ok(Some(keys.check(&note).map_err(|error| bad(&error))?.head))
}

/// An export at work.
struct Writing {
    directory: LogDirectory,
    /// Those that a quorum signed, largest first.
    heads: Vec<QuorumHead>,
    /// What the directory had before.
    before: Option<LogHead>,
    builder: TileBuilder,
    /// The largest head of a quorum that was reached, by its place in `heads`, and the log as it was there.
    best: Option<(usize, TileBuilder)>,
    done: Done,
}

impl Writing {
    /// Whether nothing larger is signed by a quorum.
    fn is_complete(&self) -> bool {
        self.heads.first().is_none_or(|largest| largest.head.size <= self.builder.size())
    }

    /// Adds a header that was checked, and compares the roots of the sizes that were signed.
    fn append(&mut self, header: &Header) -> Result<(), Stop> {
        let full =
            self.builder.append(&encode(header)).map_err(|error| Stop::CannotTell(error.to_string()))?;
        self.write(&full)?;
        let size = self.builder.size();
        let signed = self.heads.iter().map(|signed| signed.head).filter(|head| head.size == size);
        let checked: Vec<LogHead> = signed.chain(self.before.filter(|before| before.size == size)).collect();
        if checked.is_empty() {
            return Ok(());
        }
        let root = self.builder.root();
        if let Some(other) = checked.iter().find(|head| head.root != root) {
            return Err(Stop::Broken(format!(
                "a quorum signed the log of size {size} with root {}, and the checked headers have {root}: the \
                 cluster was forked or rolled back",
                other.root
            )));
        }
        if let Some(place) = self.heads.iter().position(|signed| signed.head.size == size) {
            self.best = Some((place, self.builder.clone()));
        }
        Ok(())
    }

    fn write(&mut self, files: &[Resource]) -> Result<(), Stop> {
        for file in files {
            match self.directory.add(file)? {
                Added::Written => self.done.written += 1,
                Added::Kept => self.done.kept += 1,
                Added::Differs => {
                    return Err(Stop::Broken(format!(
                        "the file {} that is there is of another log",
                        file.path
                    )));
                }
            }
        }
        Ok(())
    }

    /// Writes the edge of the log at the largest head that was reached, and the checkpoint.
    fn finish(mut self, keys: &LogKeys) -> Result<(QuorumHead, Done), Stop> {
        let newest = self.builder.size().saturating_sub(1);
        let Some((place, reached)) = self.best.take() else {
            return Err(Stop::CannotTell(format!(
                "this history ends at height {newest}, and a quorum signed later heads only: take a newer one"
            )));
        };
        let found = self.heads.swap_remove(place);
        if let Some(before) = self.before.filter(|before| before.size > found.head.size) {
            return Err(Stop::CannotTell(format!(
                "the export has the log of size {} already, and this history gives one of size {}: an export never \
                 goes back",
                before.size, found.head.size
            )));
        }
        self.write(&reached.partial())?;
        self.directory.publish(&keys.note(found.head, &found.signed))?;
        Ok((found, self.done))
    }
}

fn end(stop: Stop, output: Output) -> CommandResult {
    match stop {
        Stop::CannotTell(text) => Err(Failure::new(format!("cannot tell: {text}"))),
        Stop::Broken(text) => {
            match output {
                Output::Json => say!("{}", serde_json::json!({ "verdict": "broken", "text": text })),
                Output::Text => say!("broken: {text}"),
            }
            Ok(ExitCode::from(BROKEN))
        }
    }
}

fn print(found: &QuorumHead, done: &Done, args: &TlogExportArgs) {
    let LogHead { size, root } = found.head;
    let signers: Vec<u8> = found.signed.iter().map(|(replica, _)| *replica).collect();
    match args.output {
        Output::Json => say!(
            "{}",
            serde_json::json!({
                "verdict": "holds",
                "size": size,
                "root": root.to_string(),
                "signers": signers,
                "written": done.written,
                "kept": done.kept,
            })
        ),
        Output::Text => {
            let all: Vec<String> = signers.iter().map(u8::to_string).collect();
            say!(
                "{}: the log of size {size} (heights 0 to {}), root {root}, signed by the replicas {}; {} files \
                 written, {} kept",
                args.out.display(),
                size.saturating_sub(1),
                all.join(", "),
                done.written,
                done.kept
            );
        }
    }
}
