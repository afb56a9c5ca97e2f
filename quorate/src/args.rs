//! The command line: one table of commands and options, from which help and parsing follow.
//!
//! Invariant: what a flag means is said here once; commands take the parsed structures.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

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
    /// Keep so many of the last heights readable, at least.
    #[arg(long, value_name = "COUNT", default_value_t = quorate_replica::retention::HEIGHTS_DEFAULT)]
    pub keep_heights: u64,
    /// Keep those readable that were the newest within so many seconds, at least.
    #[arg(long, value_name = "SECONDS", default_value_t = quorate_replica::retention::TIME_DEFAULT.as_secs())]
    pub keep_seconds: u64,
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

/// `quorate audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// What to check.
    #[command(subcommand)]
    pub action: AuditAction,
}

/// What may be audited.
#[derive(Subcommand, Debug)]
pub enum AuditAction {
    /// Check the header chain and every certificate against genesis, from a directory or a live cluster.
    Verify(AuditVerifyArgs),
    /// Write the committed heights to one file, a bundle, that `verify --bundle` checks where there is no cluster.
    /// What does not hold is not written: it is checked on the way. Exit 0 written, 1 broken, 2 cannot tell.
    Export(AuditExportArgs),
    /// Ask what the tree says of a path, absence included, and write the answer with all that proves it: the
    /// certified header and the part of the state that answers. Exit 0 written, 2 no proven answer.
    Prove(AuditProveArgs),
    /// Check a file that `prove` wrote, offline. Exit 0 it holds, 1 it proves nothing, 2 cannot tell.
    Check(AuditCheckArgs),
    /// Evidence against replicas: signed statements that no correct one makes.
    Evidence(EvidenceArgs),
}

/// `quorate audit evidence`.
#[derive(Args, Debug)]
pub struct EvidenceArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: EvidenceAction,
}

/// What may be done with evidence.
#[derive(Subcommand, Debug)]
pub enum EvidenceAction {
    /// List what is held: who is proven faulty, and of what. Exit 0 all of it holds, 1 some does not, 2
    /// cannot tell.
    List(EvidenceSourceArgs),
    /// Show one piece: its signed statements and the rule that they break. Exit 0 it holds, 1 it does not, 2
    /// it is not there.
    Show {
        /// The digest that `list` prints, or a beginning of it.
        digest: String,
        /// Write the piece to this file, for `verify`; `-` is standard output.
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
        /// Where to look.
        #[command(flatten)]
        source: EvidenceSourceArgs,
    },
    /// Judge a file that `show --export` wrote, offline. Exit 0 it proves what it says, 1 it proves nothing,
    /// 2 cannot tell.
    Verify {
        /// The file.
        file: PathBuf,
        /// The cluster file: what is trusted.
        #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE")]
        cluster: PathBuf,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

/// Where evidence is looked for.
#[derive(Args, Clone, Debug)]
pub struct EvidenceSourceArgs {
    /// A replica's directory, running or not. Default: all replicas of the live cluster.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// The cluster file: what is trusted.
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
    /// The key file of a principal that may audit, for a live cluster.
    #[arg(long, env = "QUORATE_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate audit export`.
#[derive(Args, Debug)]
pub struct AuditExportArgs {
    /// The file, which must not exist.
    pub file: PathBuf,
    /// A replica's directory, running or not. Default: the live cluster.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// The cluster file: what is trusted.
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
    /// The principal's key file, for a live cluster.
    #[arg(long, env = "QUORATE_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// How to print what was checked.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate audit prove`.
#[derive(Args, Debug)]
pub struct AuditProveArgs {
    /// The path in the tree, from its root `/`, without following symbolic links.
    pub path: PathBuf,
    /// The file to write, which must not exist; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Ask as this user: what it may not search is no answer.
    #[arg(long, default_value_t = 0)]
    pub uid: u32,
    /// Ask as this group.
    #[arg(long, default_value_t = 0)]
    pub gid: u32,
    /// The cluster file: what is trusted.
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
    /// The principal's key file.
    #[arg(long, env = "QUORATE_KEY", value_name = "FILE")]
    pub key: PathBuf,
    /// How to print what is proven.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate audit check`.
#[derive(Args, Debug)]
pub struct AuditCheckArgs {
    /// The file.
    pub file: PathBuf,
    /// The cluster file: what is trusted.
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
    /// How to print what is proven.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate audit verify`.
#[derive(Args, Debug)]
pub struct AuditVerifyArgs {
    /// A replica's directory, running or not. Default: the live cluster.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// A bundle that `export` wrote, instead of a directory.
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    pub bundle: Option<PathBuf>,
    /// The cluster file: what is trusted.
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
    /// The principal's key file, for a live cluster.
    #[arg(long, env = "QUORATE_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Execute every operation again and recompute every root.
    #[arg(long)]
    pub full: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

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
