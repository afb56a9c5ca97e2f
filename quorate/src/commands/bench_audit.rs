//! `quorate bench audit`: how fast a long history is checked, against what the machine can verify at most.
//!
//! Invariant: the history is read from a bundle as `audit verify --bundle` reads it, and checked by the same code; the
//! pure rate is measured in the same run, before and after, on all processors, with the same verifier.

use crate::args::BenchAuditArgs;
use crate::commands::{replay, trust};
use crate::failure::{CommandResult, Failure};
use quorate_audit::{BundleReader, BundleWriter, Policy, Verdict, follow};
use quorate_bench::history::{History, commit};
use quorate_bench::report::Machine;
use quorate_crypto::{Ed25519Signer, NodeSeed, PublicKey, Role, Signature, Signer as _, Statement, Verifier};
use quorate_protocol::Genesis;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the pure rate is measured each time.
const PURE: Duration = Duration::from_secs(3);
/// Statements that are verified again and again for the pure rate.
const STATEMENTS: u64 = 3000;

/// One audit of the whole history.
#[derive(serde::Serialize)]
struct Pass {
    seconds: f64,
    heights_per_second: f64,
    operations_per_second: f64,
    /// Those of replicas and, if they are checked, of principals.
    signatures_per_second: f64,
    /// Of the pure rate.
    ratio: f64,
}

/// All of it: one JSON line.
#[derive(serde::Serialize)]
struct Figures {
    workload: &'static str,
    heights: u64,
    operations: u64,
    bundle_bytes: u64,
    making_seconds: f64,
    /// Signatures that all processors together verify in a second, before and after.
    pure_signatures_per_second: [f64; 2],
    /// Header chain, log and certificates.
    certificates: Pass,
    /// The signatures of principals as well.
    envelopes: Pass,
    /// Every operation executed again as well.
    full: Pass,
    machine: Machine,
}

/// Makes the history, audits it, prints the figures.
pub fn run(args: &BenchAuditArgs) -> CommandResult {
    let place = tempfile::tempdir()?;
    let path = place.path().join("history.bundle");
    let began = Instant::now();
    let (genesis, operations) = make(args, &path)?;
    let making_seconds = began.elapsed().as_secs_f64();
    let before = pure_rate(&genesis);
    let certificates = Policy { envelopes: false, replay: false };
    let passes = [certificates, Policy::STANDARD, Policy::FULL].map(|policy| time(&genesis, &path, policy));
    let after = pure_rate(&genesis);
    let pure = f64::midpoint(before, after);
    let pass = |took: Result<(f64, u64), Failure>, of_principals: u64| -> Result<Pass, Failure> {
        let (seconds, signatures) = took?;
        let rate = (signatures + of_principals) as f64 / seconds;
        Ok(Pass {
            seconds,
            heights_per_second: args.heights as f64 / seconds,
            operations_per_second: operations as f64 / seconds,
            signatures_per_second: rate,
            ratio: rate / pure,
        })
    };
    let [fast, standard, full] = passes;
    let figures = Figures {
        workload: "audit",
        heights: args.heights,
        operations,
        bundle_bytes: std::fs::metadata(&path)?.len(),
        making_seconds,
        pure_signatures_per_second: [before, after],
        certificates: pass(fast, 0)?,
        // Each height has one envelope.
        envelopes: pass(standard, args.heights)?,
        full: pass(full, args.heights)?,
        machine: Machine::here(),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(ExitCode::SUCCESS)
}

/// Writes the history; returns the genesis and the number of operations.
fn make(args: &BenchAuditArgs, path: &Path) -> Result<(Genesis, u64), Failure> {
    let mut history = History::new();
    let mut file = BundleWriter::new(BufWriter::new(File::create(path)?), &history.genesis().cluster())?;
    let bar = replay::bar();
    for height in 0..args.heights {
        file.add(&history.next_height(args.files))?;
        bar.set_position(height);
    }
    bar.finish_and_clear();
    file.finish()?.flush()?;
    Ok((history.genesis().clone(), history.state().next_operation()))
}

/// Seconds that an audit takes, and the signatures of replicas that it checked.
fn time(genesis: &Genesis, path: &Path, policy: Policy) -> Result<(f64, u64), Failure> {
    let source = Box::new(BundleReader::new(BufReader::new(File::open(path)?), &genesis.cluster())?);
    let (report, took) = replay::check(genesis, source, policy, |auditor, heights| {
        Ok(follow(auditor, heights, &mut |_, _| ControlFlow::Continue(())))
    })?;
    if report.verdict != Verdict::Holds {
        return Err(Failure::new(format!("the history does not hold: {:?}", report.verdict)));
    }
    Ok((took.as_secs_f64(), report.progress.signatures))
}

/// Signatures of members that all processors together verify in a second, and nothing else.
fn pure_rate(genesis: &Genesis) -> f64 {
    let signer = Ed25519Signer::new(NodeSeed::from_bytes([0; 32]).derive(Role::Consensus));
    let key = signer.public();
    let signed: Vec<(Statement, Signature)> = (0..STATEMENTS)
        .map(|height| {
            let statement = commit(genesis.cluster(), height, genesis.members.digest());
            let signature = signer.sign(&statement);
            (statement, signature)
        })
        .collect();
    let verifier = trust::verifier(genesis);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    let count: u64 = std::thread::scope(|scope| {
        let handles: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| verify_for(PURE, &verifier, &key, &signed))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap_or(0)).sum()
    });
    count as f64 / began.elapsed().as_secs_f64()
}

fn verify_for(
    time: Duration,
    verifier: &dyn Verifier,
    key: &PublicKey,
    signed: &[(Statement, Signature)],
) -> u64 {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < time {
        count += signed
            .iter()
            .filter(|(statement, signature)| verifier.verify(key, statement, signature).is_ok())
            .count() as u64;
    }
    count
}
