//! `quorate bench`: measures, one JSON line per run.

use crate::args::{BenchAction, BenchArgs, BenchConsensusArgs};
use crate::commands::connect;
use crate::failure::{CommandResult, Failure};
use quorate_bench::meta::{self, Meta};
use quorate_bench::{Report, consensus};
use quorate_client::ClientOptions;
use std::process::ExitCode;
use std::time::Duration;

/// Runs the bench and prints its line.
pub fn run(args: &BenchArgs) -> CommandResult {
    let report = match &args.action {
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
