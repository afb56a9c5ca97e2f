//! `quorate audit`: checks the certified history.
//!
//! Invariant: only the cluster file is trusted; what a directory or a replica gives is verified from
//! genesis on. Exit 0 it holds, 1 it is broken, 2 it cannot be told.

use crate::args::{AuditAction, AuditArgs, AuditVerifyArgs, Output};
use crate::commands::{connect, evidence};
use crate::failure::{CommandResult, Failure};
use crate::say;
use indicatif::{ProgressBar, ProgressStyle};
use quorate_audit::{Policy, Report, Source, SourceError, Verdict, verify};
use quorate_client::Observer;
use quorate_crypto::{Ed25519Verifier, Hash};
use quorate_protocol::Height;
use quorate_protocol::peer::{Batch, CommittedBatch};
use quorate_protocol::record::Record;
use quorate_store::log::{LogError, LogReader};
use quorate_store::read_marker;
use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Exit status when nothing can be said.
const CANNOT_TELL: u8 = 2;
/// Batches above the last committed height that a log may hold; the protocol's window keeps below it.
const PENDING_MAX: usize = 4096;

/// Runs an audit.
pub fn run(args: &AuditArgs) -> CommandResult {
    let done = match &args.action {
        AuditAction::Verify(args) => audit(args),
        AuditAction::Evidence(args) => evidence::run(args),
    };
    done.map_err(|failure| failure.with_code(CANNOT_TELL))
}

fn audit(args: &AuditVerifyArgs) -> CommandResult {
    let cluster = connect::read_cluster(&args.cluster)?;
    let members = cluster.members().members();
    let verifier =
        Ed25519Verifier::with_keys(members.iter().flat_map(|member| [member.consensus, member.blocks]));
    let mut source: Box<dyn Source> = match (&args.dir, &args.key) {
        (Some(directory), _) => {
            let identity = read_marker(directory)?.identity;
            if identity.cluster != cluster.cluster() {
                return Err(Failure::new(format!(
                    "{} is of cluster {}, not of {}",
                    directory.display(),
                    identity.cluster,
                    cluster.cluster()
                )));
            }
            Box::new(LogSource::new(
                LogReader::open(directory)?,
                u64::from(cluster.genesis().parameters.window),
            ))
        }
        (None, Some(key)) => Box::new(LiveSource::start(args, key)?),
        (None, None) => {
            return Err(Failure::new(
                "a live cluster needs --key (or QUORATE_KEY); a stored one --dir DIRECTORY",
            ));
        }
    };
    let bar = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} height {pos}, {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    let policy = if args.full { Policy::FULL } else { Policy::STANDARD };
    let began = Instant::now();
    let report = verify(cluster.genesis(), &verifier, source.as_mut(), policy, &mut |progress| {
        bar.set_position(progress.height);
        if progress.height.is_multiple_of(256) {
            bar.set_message(format!("{} operations", progress.operations));
        }
    });
    bar.finish_and_clear();
    print(&report, args, began.elapsed());
    Ok(ExitCode::from(report.verdict.exit_code()))
}

fn print(report: &Report, args: &AuditVerifyArgs, took: Duration) {
    let progress = &report.progress;
    if args.output == Output::Json {
        say!("{}", json(report, took));
        return;
    }
    let so_far = format!(
        "{} heights, {} operations, {} replica signatures, {:.2} s",
        progress.height,
        progress.operations,
        progress.signatures,
        took.as_secs_f64()
    );
    match &report.verdict {
        Verdict::Holds => {
            say!("holds: {so_far}");
            if let Some(head) = &report.head {
                say!("head {} at height {}, state root {}", head.hash(), head.height, head.state_root);
            }
        }
        Verdict::Broken(breach) => say!("broken: {breach} (everything below holds: {so_far})"),
        Verdict::CannotTell { height, text } => {
            say!("cannot tell from height {height} on: {text} (everything below holds: {so_far})");
        }
    }
}

fn json(report: &Report, took: Duration) -> serde_json::Value {
    let (verdict, height, text, rule, replica) = match &report.verdict {
        Verdict::Holds => ("holds", None, None, None, None),
        Verdict::Broken(breach) => (
            "broken",
            Some(breach.height),
            Some(breach.text.clone()),
            Some(breach.rule.name()),
            breach.replica,
        ),
        Verdict::CannotTell { height, text } => {
            ("cannot tell", Some(*height), Some(text.clone()), None, None)
        }
    };
    serde_json::json!({
        "verdict": verdict,
        "height": height,
        "rule": rule,
        "replica": replica,
        "text": text,
        "verified_height": report.progress.height,
        "operations": report.progress.operations,
        "signatures": report.progress.signatures,
        "head": report.head.as_ref().map(|head| head.hash().to_string()),
        "state_root": report.head.as_ref().map(|head| head.state_root.to_string()),
        "seconds": took.as_secs_f64(),
    })
}

/// The committed heights of a replica's log, read as they lie on the disk.
struct LogSource {
    reader: LogReader,
    /// Batches whose certificate has not come yet, by header hash.
    pending: BTreeMap<Hash, Batch>,
    next: Height,
    /// How far a record may be above the next height to be committed.
    window: u64,
}

impl LogSource {
    fn new(reader: LogReader, window: u64) -> Self {
        Self { reader, pending: BTreeMap::new(), next: 1, window }
    }

    /// The height that a damaged record says it is of.
    fn height_of(&self, error: &LogError) -> Option<Height> {
        match error {
            // The damage may be in the height itself: a record is of a height in flight, or the claim is void.
            LogError::Damaged { position, .. } => self
                .reader
                .claimed_height(*position)
                .filter(|height| (self.next..=self.next.saturating_add(self.window)).contains(height)),
            _ => None,
        }
    }
}

impl Source for LogSource {
    fn next(&mut self) -> Result<Option<CommittedBatch>, SourceError> {
        loop {
            let record = self.reader.next_record().map_err(|error| SourceError::Damaged {
                height: self.height_of(&error),
                text: error.to_string(),
            })?;
            match record {
                None => return Ok(None),
                Some((_, Record::Proposed { batch, .. })) => {
                    if self.pending.len() >= PENDING_MAX {
                        let text = "too many batches without a certificate".to_owned();
                        return Err(SourceError::Damaged { height: None, text });
                    }
                    self.pending.insert(batch.header.hash(), batch);
                }
                Some((position, Record::Committed(certificate))) if certificate.height == self.next => {
                    let Some(batch) = self.pending.remove(&certificate.header_hash) else {
                        let text = format!("the certificate at {position} has no batch in the log");
                        return Err(SourceError::Damaged { height: Some(certificate.height), text });
                    };
                    let height = self.next;
                    self.pending.retain(|_, batch| batch.header.height > height);
                    self.next = height.saturating_add(1);
                    return Ok(Some(CommittedBatch { batch, certificate }));
                }
                Some(_) => {}
            }
        }
    }
}

/// The committed heights of a live cluster.
struct LiveSource {
    runtime: Runtime,
    observer: Observer,
    fetched: VecDeque<CommittedBatch>,
    next: Height,
}

impl LiveSource {
    fn start(args: &AuditVerifyArgs, key: &std::path::Path) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let observer = runtime.block_on(connect::observe(&args.cluster, key))?;
        Ok(Self { runtime, observer, fetched: VecDeque::new(), next: 1 })
    }
}

impl Source for LiveSource {
    fn next(&mut self) -> Result<Option<CommittedBatch>, SourceError> {
        if self.fetched.is_empty() {
            let batches = self
                .runtime
                .block_on(self.observer.history(self.next))
                .map_err(|error| SourceError::Unavailable(error.to_string()))?;
            self.fetched.extend(batches);
        }
        let batch = self.fetched.pop_front();
        if let Some(batch) = &batch {
            self.next = batch.batch.header.height.saturating_add(1);
        }
        Ok(batch)
    }
}
