//! The command line: one table of commands and options, from which help and parsing follow.
//!
//! Invariant: what a flag means is said here once; commands take the parsed structures.

mod at;
mod audit;
mod bench;
mod tlog;

pub use at::At;
pub use audit::*;
pub use bench::*;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
pub use tlog::*;

/// A Byzantine-fault-tolerant replicated metadata filesystem.
#[derive(Parser, Debug)]
#[command(name = "quorate", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// How much is logged: error, warn, info, debug, trace, or a filter such as `quorate_client=debug`.
    #[arg(long, global = true, env = "QUORATE_LOG", default_value = "warn", value_name = "LEVEL")]
    pub log: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a whole cluster on this machine and mount it; or start, stop, kill, pause one of its replicas.
    Dev(DevArgs),
    /// Make a cluster: cluster.toml, one directory per replica, the first principal's key.
    Init(InitArgs),
    /// Make or show keys.
    Key(KeyArgs),
    /// Run one replica.
    Replica(ReplicaArgs),
    /// Mount the filesystem.
    Mount(MountArgs),
    /// Unmount a filesystem.
    Umount(UmountArgs),
    /// Say how the cluster is. Exit 0 healthy, 1 degraded, 2 no quorum.
    Status(StatusArgs),
    /// Check the certified history. Exit 0 holds, 1 broken, 2 cannot tell.
    Audit(AuditArgs),
    /// Measure. One JSON line per run on standard output.
    Bench(BenchArgs),
}

/// Which cluster, and as whom.
#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    /// The cluster file.
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
    /// The principal's key file.
    #[arg(long, env = "QUORATE_KEY", value_name = "FILE")]
    pub key: PathBuf,
}

/// How a result is printed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: one JSON document.
    Json,
}

/// `quorate dev`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
#[cfg_attr(feature = "faults", command(after_help = dev_help()))]
pub struct DevArgs {
    /// Act on one replica of a running cluster.
    #[command(subcommand)]
    pub action: Option<DevAction>,
    /// Number of replicas of a new cluster: 4 survive 1 fault, 7 survive 2.
    #[arg(long, default_value_t = 4)]
    pub replicas: usize,
    /// The cluster's directory; one that holds a cluster is started again. Default: a temporary one,
    /// removed at the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Where to mount. Default: `mount` in the cluster's directory.
    #[arg(long, value_name = "PATH")]
    pub mount: Option<PathBuf>,
    /// Mount options, as for `quorate mount`.
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Option<String>,
    /// What the replicas keep of the past.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Run this shell command in the mount, then stop everything and exit with its status.
    #[arg(long, value_name = "SHELL COMMAND")]
    pub exec: Option<String>,
    /// Make a replica faulty on purpose; may be given several times. The kinds are listed below.
    #[cfg(feature = "faults")]
    #[arg(long = "fault", value_name = "ID=KIND", value_parser = parse_fault)]
    pub faults: Vec<(u8, quorate_replica::faults::Fault)>,
    /// Make the network between replicas, and to clients, worse on purpose; may be given several times. How
    /// rules are written is listed below.
    #[cfg(feature = "faults")]
    #[arg(long = "network", value_name = "RULE")]
    pub network: Vec<quorate_cluster::network::Rule>,
}

/// What `dev` can break, for its help.
#[cfg(feature = "faults")]
fn dev_help() -> String {
    // The kinds last: scripts read them from here.
    format!("Rules of the network:\n{}\n{}", quorate_cluster::network::RULE_HELP, fault_help())
}

/// The kinds of faults, for the help.
#[cfg(feature = "faults")]
fn fault_help() -> String {
    format!("Fault kinds:\n{}", quorate_replica::faults::help())
}

/// "ID=KIND".
#[cfg(feature = "faults")]
fn parse_fault(text: &str) -> Result<(u8, quorate_replica::faults::Fault), String> {
    let (replica, kind) = text.split_once('=').ok_or("neither ID=KIND nor ID=KIND=VALUE")?;
    let replica = replica.parse().map_err(|_| format!("`{replica}` is not the number of a replica"))?;
    let kind = kind.parse().map_err(|error: quorate_replica::faults::FaultError| error.to_string())?;
    Ok((replica, kind))
}

/// What may be done to one replica of a running cluster.
#[derive(Subcommand, Debug)]
pub enum DevAction {
    /// Start a replica that does not run.
    Start(DevTarget),
    /// Stop it in order.
    Stop(DevTarget),
    /// Kill it with SIGKILL.
    Kill(DevTarget),
    /// Pause it with SIGSTOP.
    Pause(DevTarget),
    /// Let a paused one go on.
    Continue(DevTarget),
}

/// One replica of a cluster's directory.
#[derive(Args, Debug)]
pub struct DevTarget {
    /// The replica's number.
    pub replica: u8,
    /// The cluster's directory.
    #[arg(long, env = "QUORATE_DIR")]
    pub dir: PathBuf,
}

/// `quorate init`.
#[derive(Args, Debug)]
pub struct InitArgs {
    /// Where the replicas will listen: HOST:PORT,HOST:PORT,...
    #[arg(long, value_delimiter = ',', required = true)]
    pub replicas: Vec<String>,
    /// The directory to make.
    #[arg(long)]
    pub out: PathBuf,
}

/// `quorate key`.
#[derive(Args, Debug)]
pub struct KeyArgs {
    /// Which.
    #[command(subcommand)]
    pub action: KeyAction,
}

/// What may be done with keys.
#[derive(Subcommand, Debug)]
pub enum KeyAction {
    /// Make a principal's key.
    New {
        /// The file to write; an existing one is never overwritten.
        file: PathBuf,
    },
    /// Show what a key file holds, without its secret.
    Show {
        /// The file.
        file: PathBuf,
    },
}

/// What a replica keeps of the past.
#[derive(Args, Clone, Debug)]
pub struct KeepArgs {
    /// Keep so many of the last heights readable, at least.
    #[arg(long, value_name = "COUNT", default_value_t = quorate_replica::retention::HEIGHTS_DEFAULT)]
    pub keep_heights: u64,
    /// Keep those readable that were the newest within so many seconds, at least.
    #[arg(long, value_name = "SECONDS", default_value_t = quorate_replica::retention::TIME_DEFAULT.as_secs())]
    pub keep_seconds: u64,
    /// Memory for past heights that clients read.
    #[arg(long, value_name = "BYTES", default_value_t = quorate_replica::past_states::MEMORY_DEFAULT)]
    pub past_memory: u64,
}

impl KeepArgs {
    /// As `quorate replica` takes them.
    pub fn arguments(&self) -> [std::ffi::OsString; 6] {
        let Self { keep_heights, keep_seconds, past_memory } = self;
        let [heights, seconds, memory] =
            [keep_heights, keep_seconds, past_memory].map(|value| value.to_string().into());
        ["--keep-heights".into(), heights, "--keep-seconds".into(), seconds, "--past-memory".into(), memory]
    }
}

/// `quorate replica`.
#[derive(Args, Debug)]
#[cfg_attr(feature = "faults", command(after_help = fault_help()))]
pub struct ReplicaArgs {
    /// The replica's directory, as `quorate init` made it.
    #[arg(long)]
    pub dir: PathBuf,
    /// Listen here instead of where the cluster file says.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddr>,
    /// What is kept of the past.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Refuse file content when less than this of the disk would be left for log and state.
    #[arg(long, value_name = "BYTES", default_value_t = quorate_replica::DISK_RESERVE_DEFAULT)]
    pub disk_reserve: u64,
    /// Be faulty on purpose.
    #[cfg(feature = "faults")]
    #[arg(long, value_name = "KIND")]
    pub fault: Option<quorate_replica::faults::Fault>,
}

/// `quorate mount`.
#[derive(Args, Debug)]
pub struct MountArgs {
    /// Where to mount: an empty directory.
    pub path: PathBuf,
    /// Cluster and key.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Mount the state of this height, or of the last one up to a time (2026-01-31T12:00:00Z, or @SECONDS since 1970),
    /// read-only. `quorate audit heights` says what can still be mounted.
    #[arg(long, value_name = "HEIGHT|TIME")]
    pub at: Option<At>,
    /// Options, separated by commas: ro, allow_other, nosuid, nodev, noexec, soft, hard, timeo=SECONDS.
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Option<String>,
    /// Stay in the foreground.
    #[arg(long)]
    pub foreground: bool,
}

/// `quorate umount`.
#[derive(Args, Debug)]
pub struct UmountArgs {
    /// The mount point.
    pub path: PathBuf,
}

/// `quorate status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Cluster and key.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}
