//! `quorate bench`: measures, one JSON line per run.

use crate::args::{BenchAction, BenchArgs, BenchConsensusArgs, BenchLeaderCrashArgs, BenchListingArgs};
use crate::commands::{bench_audit, bench_state, connect};
use crate::failure::{CommandResult, Failure};
use indicatif::{ProgressBar, ProgressStyle};
use quorate_bench::consensus::Work;
use quorate_bench::crash::{self, Crash, CrashReport};
use quorate_bench::meta::{self, Meta};
use quorate_bench::{BenchError, Report, consensus};
use quorate_client::ClientOptions;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Runs the bench and prints its line.
pub fn run(args: &BenchArgs) -> CommandResult {
    let report = match &args.action {
        BenchAction::LeaderCrash(args) => return leader_crash(args),
        BenchAction::Listing(args) => return listing(args),
        BenchAction::State(args) => return bench_state::run(args),
        BenchAction::Audit(args) => return bench_audit::run(args),
        #[cfg(feature = "faults")]
        BenchAction::Faults(args) => return faults::run(args),
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

fn own_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::new(format!("cannot find the quorate program: {error}")))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn leader_crash(args: &BenchLeaderCrashArgs) -> CommandResult {
    let crash = Crash {
        replicas: args.replicas,
        kills: args.kills,
        concurrency: args.concurrency,
        sessions: args.sessions,
    };
    let report = crash_leaders(&own_program()?, &crash)?;
    let json = serde_json::to_string(&report)?;
    if let Some(prefix) = &args.out {
        write_files(prefix, &report.markdown(), &json)?;
    }
    println!("{json}");
    if report.errors > 0 {
        return Err(Failure::new(format!("{} operations failed", report.errors)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Works to its end, or until SIGINT or SIGTERM; either way what it started is stopped.
async fn unless_interrupted<T>(work: impl Future<Output = Result<T, BenchError>>) -> Result<T, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        done = work => Ok(done?),
        _ = interrupt.recv() => Err(Failure::new("interrupted")),
        _ = terminate.recv() => Err(Failure::new("interrupted")),
    }
}

/// Kills leaders behind a bar that says how far it is.
fn crash_leaders(program: &Path, crash: &Crash) -> Result<CrashReport, Failure> {
    let bar = bar(crash.kills.saturating_mul(2));
    let work = crash::run(program, crash, |line| {
        bar.inc(1);
        tell(&bar, line);
    });
    let report = runtime()?.block_on(unless_interrupted(work))?;
    bar.finish_and_clear();
    Ok(report)
}

/// Steps of a long run, with the time that is left.
fn bar(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} ({elapsed}, {eta} left)");
    let bar =
        ProgressBar::new(steps as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A line above the bar, which is hidden where nobody can see it; then the line alone.
fn tell(bar: &ProgressBar, line: &str) {
    if bar.is_hidden() {
        eprintln!("quorate: {line}");
    } else {
        bar.println(line);
    }
}

/// The same for people and for programs.
fn write_files(prefix: &Path, markdown: &str, json: &str) -> Result<(), Failure> {
    for (extension, text) in [("md", markdown), ("json", json)] {
        // Not `with_extension`: what follows a dot in the prefix is part of it.
        let mut path = prefix.as_os_str().to_owned();
        path.push(format!(".{extension}"));
        let path = PathBuf::from(path);
        std::fs::write(&path, format!("{}\n", text.trim_end()))
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(())
}

#[cfg(feature = "faults")]
mod faults {
    use super::{CommandResult, ExitCode, Failure, Path, bar, crash_leaders, own_program, tell, write_files};
    use crate::args::{BenchFaultsArgs, Output};
    use quorate_bench::attacks::{self, CLIENT_ATTACKS, Plan, Progress, Table};
    use quorate_bench::crash::{Crash, CrashReport};
    use quorate_replica::faults::{Fault, KINDS};
    use std::time::Duration;

    /// Operations in flight while leaders are killed for the time line.
    const CRASH_CONCURRENCY: usize = 64;

    /// Measures every attack, then the time line of a crash.
    pub(super) fn run(args: &BenchFaultsArgs) -> CommandResult {
        let plans = plans(args)?;
        let program = own_program()?;
        let runs: usize = plans.iter().map(Plan::runs).sum();
        let estimate: Duration = plans.iter().map(Plan::estimate).sum();
        eprintln!("quorate: {runs} runs, about {} minutes", estimate.as_secs().div_ceil(60));
        let tables: Vec<Table> =
            plans.iter().map(|plan| measure(&program, plan)).collect::<Result<_, _>>()?;
        let crash = match (args.kills, plans.first()) {
            (0, _) | (_, None) => None,
            (kills, Some(Plan { replicas, sessions, .. })) => {
                let (replicas, sessions) = (*replicas, *sessions);
                let crash = Crash { replicas, kills, concurrency: CRASH_CONCURRENCY, sessions };
                Some(crash_leaders(&program, &crash)?)
            }
        };
        let markdown = markdown(&tables, crash.as_ref());
        let json = serde_json::json!({ "tables": tables, "leader_crash": crash }).to_string();
        if let Some(prefix) = &args.out {
            write_files(prefix, &markdown, &json)?;
        }
        match args.output {
            Output::Text => println!("{markdown}"),
            Output::Json => println!("{json}"),
        }
        let failed: u64 = tables.iter().flat_map(|table| &table.rows).map(|row| row.errors).sum();
        if failed > 0 {
            return Err(Failure::new(format!("{failed} operations failed")));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn plans(args: &BenchFaultsArgs) -> Result<Vec<Plan>, Failure> {
        let every = || {
            let kinds = KINDS.map(|(kind, _)| kind.replace("=ID", "=3").replace("=MS", "=300"));
            kinds.into_iter().chain(CLIENT_ATTACKS.map(str::to_owned)).collect()
        };
        let kinds: Vec<String> = if args.kinds.is_empty() { every() } else { args.kinds.clone() };
        for kind in kinds.iter().filter(|kind| !CLIENT_ATTACKS.contains(&kind.as_str())) {
            let _known: Fault = kind.parse()?;
        }
        let plan = |replicas: &usize| Plan {
            replicas: *replicas,
            kinds: kinds.clone(),
            rounds: args.rounds,
            duration: Duration::from_secs(args.seconds),
            concurrency: args.concurrency,
            sessions: args.sessions,
        };
        Ok(args.replicas.iter().map(plan).collect())
    }

    fn measure(program: &Path, plan: &Plan) -> Result<Table, Failure> {
        let bar = bar(plan.runs());
        let progress = |progress: Progress<'_>| match progress {
            Progress::Run { number, attack } => {
                bar.set_position(number.saturating_sub(1) as u64);
                bar.set_message(format!("n = {}, {attack}", plan.replicas));
            }
            Progress::Done(row) => tell(&bar, &row.markdown()),
        };
        let work = attacks::run(program, plan, progress);
        let table = super::runtime()?.block_on(super::unless_interrupted(work))?;
        bar.finish_and_clear();
        Ok(table)
    }

    fn markdown(tables: &[Table], crash: Option<&CrashReport>) -> String {
        let mut parts: Vec<String> = tables.iter().map(Table::markdown).collect();
        parts.extend(crash.map(CrashReport::markdown));
        parts.join("\n")
    }
}

fn listing(args: &BenchListingArgs) -> CommandResult {
    let figures = runtime()?.block_on(async {
        let mut clients = Vec::with_capacity(args.sessions);
        for _ in 0..args.sessions {
            clients.push(connect::connect(&args.cluster, ClientOptions::default()).await?);
        }
        let figures =
            quorate_bench::listing::run(&clients, &args.path, args.entries, args.concurrency).await?;
        for client in &clients {
            client.close().await;
        }
        Ok::<_, Failure>(figures)
    })?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(ExitCode::SUCCESS)
}

fn null_operations(args: &BenchConsensusArgs) -> Result<Report, Failure> {
    runtime()?.block_on(async {
        let mut clients = Vec::with_capacity(args.sessions);
        for _ in 0..args.sessions {
            clients.push(connect::connect(&args.cluster, ClientOptions::default()).await?);
        }
        let duration = Duration::from_secs(args.seconds);
        let report = consensus::run(&clients, args.concurrency, duration, Work::Null).await?;
        for client in &clients {
            client.close().await;
        }
        Ok(report)
    })
}
