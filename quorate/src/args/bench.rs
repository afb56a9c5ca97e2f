//! The options of `quorate bench`.

use super::ClusterArgs;
#[cfg(feature = "faults")]
use super::Output;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `quorate bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Which bench.
    #[command(subcommand)]
    pub action: BenchAction,
}

/// What may be measured.
#[derive(Subcommand, Debug)]
pub enum BenchAction {
    /// Create, write 1 KiB and close files through a mount.
    Meta(BenchMetaArgs),
    /// Null operations through consensus, without a mount.
    Consensus(BenchConsensusArgs),
    /// Make a directory of very many entries and list all of it, by verified pages and through a mount.
    Listing(BenchListingArgs),
    /// Proofs and updates of a state of many rows, in memory, and what it costs on disk.
    State(BenchStateArgs),
    /// How fast a long history is checked, against the signatures that this machine can verify at most.
    Audit(BenchAuditArgs),
    /// How long nothing is committed when a leader is killed, and when it hands over, in a cluster of its own.
    LeaderCrash(BenchLeaderCrashArgs),
    /// What is kept of throughput and latency under each attack, in clusters of its own.
    #[cfg(feature = "faults")]
    Faults(BenchFaultsArgs),
}

/// `quorate bench leader-crash`.
#[derive(Args, Debug)]
pub struct BenchLeaderCrashArgs {
    /// Leaders to kill, and as many to hand over.
    #[arg(long, default_value_t = 5)]
    pub kills: usize,
    /// Replicas.
    #[arg(long, default_value_t = 4)]
    pub replicas: usize,
    /// Operations in flight.
    #[arg(long, default_value_t = 64)]
    pub concurrency: usize,
    /// Client sessions that share them.
    #[arg(long, default_value_t = 4)]
    pub sessions: usize,
    /// Write PREFIX.md and PREFIX.json besides.
    #[arg(long, value_name = "PREFIX")]
    pub out: Option<PathBuf>,
}

/// `quorate bench faults`.
#[cfg(feature = "faults")]
#[derive(Args, Debug)]
pub struct BenchFaultsArgs {
    /// Kinds of attacks, separated by commas; those of replicas, and bad-client, flooding-client. Default: all.
    #[arg(long, value_delimiter = ',')]
    pub kinds: Vec<String>,
    /// Replicas: with 4 one is faulty, with 7 two are. Default: both.
    #[arg(long, value_delimiter = ',', default_values_t = [4, 7])]
    pub replicas: Vec<usize>,
    /// Runs with each attack; each stands between two without.
    #[arg(long, default_value_t = 2)]
    pub rounds: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 2)]
    pub seconds: u64,
    /// Leaders that are killed at the end for the time line of a crash; 0 leaves it out.
    #[arg(long, default_value_t = 5)]
    pub kills: usize,
    /// Operations in flight.
    #[arg(long, default_value_t = 512)]
    pub concurrency: usize,
    /// Client sessions that share them.
    #[arg(long, default_value_t = 4)]
    pub sessions: usize,
    /// Write PREFIX.md and PREFIX.json besides.
    #[arg(long, value_name = "PREFIX")]
    pub out: Option<PathBuf>,
    /// How to print it: a table in Markdown, or JSON.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate bench meta`.
#[derive(Args, Debug)]
pub struct BenchMetaArgs {
    /// A directory in a mount; the bench works in a new directory below it and removes that.
    #[arg(long)]
    pub path: PathBuf,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Seconds.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Bytes of each file.
    #[arg(long, default_value_t = 1024)]
    pub bytes: usize,
}

/// `quorate bench consensus`.
#[derive(Args, Debug)]
pub struct BenchConsensusArgs {
    /// Cluster and key.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Operations in flight.
    #[arg(long, default_value_t = 512)]
    pub concurrency: usize,
    /// Client sessions that share them.
    #[arg(long, default_value_t = 4)]
    pub sessions: usize,
    /// Seconds.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
}

/// `quorate bench audit`.
#[derive(Args, Debug)]
pub struct BenchAuditArgs {
    /// Heights of the history, which is made first.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub heights: u64,
    /// Files that each height makes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub files: u64,
}

/// `quorate bench listing`.
#[derive(Args, Debug)]
pub struct BenchListingArgs {
    /// Cluster and key.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// A directory in a mount; the entries are made in a new directory below it, and stay.
    #[arg(long)]
    pub path: PathBuf,
    /// Entries.
    #[arg(long, default_value_t = 10_000)]
    pub entries: u64,
    /// Operations in flight while they are made.
    #[arg(long, default_value_t = 512)]
    pub concurrency: usize,
    /// Client sessions that share them.
    #[arg(long, default_value_t = 4)]
    pub sessions: usize,
}

/// `quorate bench state`.
#[derive(Args, Debug)]
pub struct BenchStateArgs {
    /// Rows at which to measure, ascending, separated by commas; ten million need some gigabytes of memory.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000])]
    pub rows: Vec<u64>,
    /// Updates of each kind.
    #[arg(long, default_value_t = 50_000)]
    pub updates: u64,
}
