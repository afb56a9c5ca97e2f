//! `quorate replica`: runs one replica in the foreground.

use crate::args::ReplicaArgs;
use crate::failure::{CommandResult, Failure};
use quorate_replica::{ReplicaOptions, run_replica};
use std::process::ExitCode;

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &ReplicaArgs) -> CommandResult {
    let options = ReplicaOptions {
        directory: args.dir.clone(),
        listen: args.listen,
        #[cfg(feature = "faults")]
        fault: args.fault,
    };
    run_replica(&options).map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}
