//! `quorate replica`: runs one replica in the foreground.

use crate::args::{KeepArgs, ReplicaArgs};
use crate::failure::{CommandResult, Failure};
use quorate_replica::{ReplicaOptions, Retention, run_replica};
use std::process::ExitCode;
use std::time::Duration;

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &ReplicaArgs) -> CommandResult {
    let KeepArgs { keep_heights, keep_seconds, past_memory } = args.keep;
    let retention = Retention { heights: keep_heights, time: Duration::from_secs(keep_seconds) };
    let options = ReplicaOptions {
        directory: args.dir.clone(),
        listen: args.listen,
        retention,
        past_memory,
        disk_reserve: args.disk_reserve,
        #[cfg(feature = "faults")]
        fault: args.fault,
    };
    run_replica(&options).map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}
