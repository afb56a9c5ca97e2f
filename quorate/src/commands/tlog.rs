//! `quorate audit tlog`: the log of headers in the open formats of C2SP (`docs/SPEC/log.md`).
//!
//! Invariant: what is published was checked from genesis on and is signed by a quorum; what is read is trusted
//! with nothing.

mod check;
mod conflict;
mod directory;
mod export;
mod heads;
mod prove;
mod serve;

pub use check::check_proof;

use crate::args::{TlogAction, TlogArgs};
use crate::commands::connect;
use crate::failure::{CommandResult, Failure};
use quorate_audit::tlog::LogKeys;
use quorate_transport::ClusterFile;
use std::path::Path;

/// Runs a command of the log.
pub fn run(args: &TlogArgs) -> CommandResult {
    match &args.action {
        TlogAction::Export(args) => export::run(args),
        TlogAction::Check(args) => check::run(args),
        TlogAction::Prove(args) => prove::run(args),
        TlogAction::Conflict(args) => conflict::run(args),
        TlogAction::Serve(args) => serve::run(args),
    }
}

/// The cluster that is trusted, and the keys of its log.
fn trusted(path: &Path) -> Result<(ClusterFile, LogKeys), Failure> {
    let cluster = connect::read_cluster(path)?;
    let keys = LogKeys::new(&cluster.cluster(), cluster.members())?;
    Ok((cluster, keys))
}
