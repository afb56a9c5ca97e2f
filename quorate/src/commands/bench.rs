//! `quorate bench`: measures, one JSON line per run.

use crate::args::{BenchAction, BenchArgs, BenchConsensusArgs, BenchLeaderCrashArgs};
use crate::commands::connect;
use crate::failure::{CommandResult, Failure};
use quorate_bench::crash::{self, Crash};
use quorate_bench::meta::{self, Meta};
use quorate_bench::{Report, consensus};
use quorate_client::ClientOptions;
use std::process::ExitCode;
use std::time::Duration;

/// Runs the bench and prints its line.
pub fn run(args: &BenchArgs) -> CommandResult {
    let report = match &args.action {
        BenchAction::LeaderCrash(args) => return leader_crash(args),
        #[cfg(feature = "faults")]
        BenchAction::Faults(args) => return faults(args),
        BenchAction::Meta(args) => {
            let meta = Meta {
                threads: args.threads,
                duration: Duration::from_secs(args.seconds),
                bytes: args.bytes,
            };
            meta::run(&args.path, &meta)?
        }
        BenchAction::Consensus(args) => null_operations(args)?,
    };
    println!("{}", report.line());
    if report.errors > 0 {
        return Err(Failure::new(format!("{} operations failed", report.errors)));
    }
    Ok(ExitCode::SUCCESS)
}

fn own_program() -> Result<std::path::PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::new(format!("cannot find the quorate program: {error}")))
}

fn leader_crash(args: &BenchLeaderCrashArgs) -> CommandResult {
    let crash = Crash {
        replicas: args.replicas,
        kills: args.kills,
        concurrency: args.concurrency,
        sessions: args.sessions,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report =
        runtime.block_on(crash::run(&own_program()?, &crash, |line| eprintln!("quorate: {line}")))?;
    println!("{}", serde_json::to_string(&report)?);
    if report.errors > 0 {
        return Err(Failure::new(format!("{} operations failed", report.errors)));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "faults")]
fn faults(args: &crate::args::BenchFaultsArgs) -> CommandResult {
    use quorate_bench::attacks::{self, CLIENT_ATTACKS, Plan};
    let every = || {
        let kinds =
            quorate_replica::faults::KINDS.map(|(kind, _)| kind.replace("=ID", "=3").replace("=MS", "=300"));
        kinds.into_iter().chain(CLIENT_ATTACKS.map(str::to_owned)).collect()
    };
    let kinds: Vec<String> = if args.kinds.is_empty() { every() } else { args.kinds.clone() };
    for kind in kinds.iter().filter(|kind| !CLIENT_ATTACKS.contains(&kind.as_str())) {
        let _known: quorate_replica::faults::Fault = kind.parse()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let program = own_program()?;
    let mut tables = Vec::new();
    for replicas in &args.replicas {
        let plan = Plan {
            replicas: *replicas,
            kinds: kinds.clone(),
            rounds: args.rounds,
            duration: Duration::from_secs(args.seconds),
            concurrency: args.concurrency,
            sessions: args.sessions,
        };
        let table = runtime.block_on(attacks::run(&program, &plan, |row| eprintln!("{}", row.markdown())))?;
        tables.push(table);
    }
    match args.output {
        crate::args::Output::Text => tables.iter().for_each(|table| println!("{}", table.markdown())),
        crate::args::Output::Json => println!("{}", serde_json::to_string(&tables)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn null_operations(args: &BenchConsensusArgs) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut clients = Vec::with_capacity(args.sessions);
        for _ in 0..args.sessions {
            clients.push(connect::connect(&args.cluster, ClientOptions::default()).await?);
        }
        let duration = Duration::from_secs(args.seconds);
        let report = consensus::run(&clients, args.concurrency, duration).await?;
        for client in &clients {
            client.close().await;
        }
        Ok(report)
    })
}
