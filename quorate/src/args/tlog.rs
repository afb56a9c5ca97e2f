//! The options of `quorate audit tlog`.
//!
//! Invariant: every command that believes anything names the cluster file that it trusts.

use super::{HistoryArgs, Output};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `quorate audit tlog`.
#[derive(Args, Debug)]
pub struct TlogArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: TlogAction,
}

/// What may be done with the log of headers in the open formats.
#[derive(Subcommand, Debug)]
pub enum TlogAction {
    /// Write the log as a directory of files that any web server can serve (C2SP tlog-tiles): entries, tiles, a
    /// checkpoint that Q replicas signed, a policy. An export that is there is brought up to date. Every height is
    /// checked on the way. Exit 0 written, 1 something does not hold, 2 cannot tell.
    Export(TlogExportArgs),
    /// Check an exported directory against the cluster file, offline: signatures, every entry, every tile. Exit 0 it
    /// holds, 1 it does not, 2 cannot tell.
    Check(TlogCheckArgs),
    /// Write the proof that a height is in the log (C2SP tlog-proof), out of an exported directory; `audit check`
    /// checks it. Exit 0 written, 1 the directory does not hold, 2 cannot tell.
    Prove(TlogProveArgs),
    /// Find who signed two different heads of one size, in two checkpoints, and write the evidence that convicts each
    /// of them; `audit check` judges it. Exit 0 written, 1 nobody did, 2 cannot tell.
    Conflict(TlogConflictArgs),
    /// Serve an exported directory over HTTP, until interrupted. Nothing else of the machine is served.
    Serve(TlogServeArgs),
}

/// `quorate audit tlog export`.
#[derive(Args, Debug)]
pub struct TlogExportArgs {
    /// The directory: an earlier export of this cluster, an empty one, or one to be made.
    pub out: PathBuf,
    /// Where the heights are.
    #[command(flatten)]
    pub history: HistoryArgs,
    /// Take the replicas' signatures out of this replica's directory; given once for each replica. Default: the live
    /// cluster is asked.
    #[arg(long = "heads", value_name = "DIR")]
    pub heads: Vec<PathBuf>,
    /// How to print what was written.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate audit tlog check`.
#[derive(Args, Debug)]
pub struct TlogCheckArgs {
    /// The directory.
    pub directory: PathBuf,
    /// The cluster file: what is trusted.
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
    /// How to print what holds.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate audit tlog prove`.
#[derive(Args, Debug)]
pub struct TlogProveArgs {
    /// The exported directory.
    pub directory: PathBuf,
    /// The height whose header is to be proven.
    pub height: u64,
    /// The file to write, which must not exist; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The cluster file: what is trusted.
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
}

/// `quorate audit tlog conflict`.
#[derive(Args, Debug)]
pub struct TlogConflictArgs {
    /// A checkpoint.
    pub one: PathBuf,
    /// Another one.
    pub other: PathBuf,
    /// The directory for the evidence, one file `replica-N.evidence` for each culprit; it is made if need be.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The cluster file: what is trusted.
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
}

/// `quorate audit tlog serve`.
#[derive(Args, Debug)]
pub struct TlogServeArgs {
    /// The exported directory.
    pub directory: PathBuf,
    /// Where to listen; port 0 takes a free one. The address is printed.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: std::net::SocketAddr,
}
