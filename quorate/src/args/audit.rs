//! The options of `quorate audit`.
//!
//! Invariant: every command that verifies names the cluster file that it trusts, and has an output for programs.

use super::{At, ClusterArgs, Output, TlogArgs};
use clap::{Args, Subcommand};
use std::path::PathBuf;

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
    /// Write the receipt of one operation: what it was, who signed it, what came of it, and all that proves this.
    /// The history is checked and executed again up to there. Exit 0 written, 1 the history is broken, 2 there is
    /// no such operation, or it cannot be told.
    Receipt(AuditReceiptArgs),
    /// Check a proof, a receipt, a transition, an anchor, a log proof or evidence, offline. Exit 0 it holds, 1 it proves nothing, 2 cannot tell.
    Check(AuditCheckArgs),
    /// Print the policy of a cluster: what `check --policy` trusts in place of the cluster file.
    Policy(AuditPolicyArgs),
    /// Print what was ordered, one JSON line for each operation, each height once it is checked. Exit 0 at the end, 1
    /// at a height that does not hold, 2 cannot tell.
    Watch(AuditWatchArgs),
    /// Compare the heads of all replicas of the live cluster. Exit 0 they lie on one chain, 1 two certified heads
    /// conflict (both are shown), 2 cannot tell.
    Compare(CompareArgs),
    /// Show the highest certified head that was seen of the cluster, which is remembered for the user, or forget it.
    Seen(SeenArgs),
    /// Evidence against replicas: signed statements that no correct one makes.
    Evidence(EvidenceArgs),
    /// List the heights whose state can still be read, with their certified times, as each replica says. Exit 0
    /// listed, 2 cannot tell.
    Heights(AuditHeightsArgs),
    /// Say who made what a path names, who changed it last in each of its aspects, and who removed it. The history
    /// is checked and executed again, twice. Exit 0 said, 1 the history is broken, 2 there was never such a path, or
    /// it cannot be told.
    Who(AuditWhoArgs),
    /// List the signed operations of the history, with their results, or those alone that touched a path. The history
    /// is checked and executed again. Exit 0 it holds, 1 it is broken, 2 cannot tell.
    Log(AuditLogArgs),
    /// List in what the trees of two heights differ. The history is checked and executed again; of the two states
    /// only what differs is looked at. Exit 0 said, 1 the history is broken, 2 it cannot be told.
    Diff(AuditDiffArgs),
    /// Write one height with the part of the state before it that its execution needs: `check` executes it again
    /// without the rest. Exit 0 written and it holds, 1 it does not, or the history below is broken, 2 cannot tell.
    Transition(AuditTransitionArgs),
    /// The log of headers in the open formats of C2SP, for programs that nobody here wrote.
    Tlog(TlogArgs),
}

/// `quorate audit who`.
#[derive(Args, Debug)]
pub struct AuditWhoArgs {
    /// The path in the tree, from its root `/`.
    pub path: PathBuf,
    /// Write the receipts of what is listed into this directory, which is made if need be.
    #[arg(long, value_name = "DIR")]
    pub receipts: Option<PathBuf>,
    /// Where the heights are.
    #[command(flatten)]
    pub history: HistoryArgs,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate audit log`.
#[derive(Args, Debug)]
pub struct AuditLogArgs {
    /// A path in the tree, from its root `/`: only what touched it. Default: all operations.
    pub path: Option<PathBuf>,
    /// Only what did one of these to the path, separated by commas: appeared, vanished, name, mode, owner, content,
    /// entries, links, xattrs, times.
    #[arg(long, value_name = "ASPECTS", value_delimiter = ',', value_parser = parse_aspect, requires = "path")]
    pub only: Vec<quorate_audit::Aspect>,
    /// Only what the principal with this key signed.
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    pub principal: Option<quorate_crypto::PublicKey>,
    /// Only what acts as this user.
    #[arg(long)]
    pub uid: Option<u32>,
    /// Only what is at or after this height or time.
    #[arg(long, value_name = "HEIGHT|TIME")]
    pub since: Option<At>,
    /// Only what is at or before this height or time.
    #[arg(long, value_name = "HEIGHT|TIME")]
    pub until: Option<At>,
    /// Write the receipts of what is listed into this directory, which is made if need be.
    #[arg(long, value_name = "DIR")]
    pub receipts: Option<PathBuf>,
    /// Where the heights are.
    #[command(flatten)]
    pub history: HistoryArgs,
    /// How to print it; JSON is one document on each line.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

fn parse_aspect(text: &str) -> Result<quorate_audit::Aspect, String> {
    let found = quorate_audit::Aspect::ALL.into_iter().find(|aspect| aspect.name() == text);
    found.ok_or_else(|| format!("`{text}` is no aspect"))
}

fn parse_key(text: &str) -> Result<quorate_crypto::PublicKey, String> {
    quorate_crypto::PublicKey::from_hex(text).map_err(|error| error.to_string())
}

/// `quorate audit diff`.
#[derive(Args, Debug)]
pub struct AuditDiffArgs {
    /// The earlier height or time.
    #[arg(value_name = "HEIGHT|TIME")]
    pub from: At,
    /// The later height or time.
    #[arg(value_name = "HEIGHT|TIME")]
    pub to: At,
    /// Only what is at or below this path, in either tree.
    pub path: Option<PathBuf>,
    /// Where the heights are.
    #[command(flatten)]
    pub history: HistoryArgs,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate audit transition`.
#[derive(Args, Debug)]
pub struct AuditTransitionArgs {
    /// The height.
    pub height: u64,
    /// The file to write, which must not exist; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Where the heights are.
    #[command(flatten)]
    pub history: HistoryArgs,
    /// How to print what it shows.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate audit watch`.
#[derive(Args, Debug)]
pub struct AuditWatchArgs {
    /// Print heights above this one only; those below are checked all the same.
    #[arg(long, value_name = "HEIGHT", default_value_t = 0)]
    pub after: u64,
    /// Start above this anchor, which `verify --keep` wrote, instead of the genesis.
    #[arg(long, value_name = "FILE", conflicts_with = "results")]
    pub from: Option<PathBuf>,
    /// Say what came of each operation, too: executes all of them again, which holds the whole state in memory.
    #[arg(long)]
    pub results: bool,
    /// Go on when the end is reached, for as long as it takes; of a live cluster only.
    #[arg(long, conflicts_with_all = ["dir", "bundle"])]
    pub follow: bool,
    /// How long to wait before a live cluster is asked again, with `--follow`.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub interval_ms: u64,
    /// Where the heights are.
    #[command(flatten)]
    pub history: HistoryArgs,
}

/// `quorate audit seen`.
#[derive(Args, Debug)]
pub struct SeenArgs {
    /// Forget it: after the cluster was started again from an older copy on purpose.
    #[arg(long)]
    pub forget: bool,
    /// The cluster file.
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate audit compare`.
#[derive(Args, Debug)]
pub struct CompareArgs {
    /// Cluster, and the key of a principal that may audit.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
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
        /// What is trusted.
        #[command(flatten)]
        trust: TrustArgs,
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
    /// Where the heights are.
    #[command(flatten)]
    pub history: HistoryArgs,
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
    /// At this height instead of the highest one, or at the last one up to a time: 2026-01-31T12:00:00Z or @SECONDS.
    #[arg(long, value_name = "HEIGHT|TIME")]
    pub at: Option<At>,
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

/// `quorate audit receipt`.
#[derive(Args, Debug)]
pub struct AuditReceiptArgs {
    /// A path in the tree, from its root `/`: the last operation that changed what it names. Or SESSION:SEQUENCE, a
    /// session's id in hexadecimal and the operation's number in it.
    #[arg(value_name = "PATH|SESSION:SEQUENCE")]
    pub of: std::ffi::OsString,
    /// The file to write, which must not exist; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Look the path up at this height instead of the last one.
    #[arg(long, value_name = "HEIGHT")]
    pub at: Option<u64>,
    /// Where the heights are.
    #[command(flatten)]
    pub history: HistoryArgs,
    /// How to print what is proven.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate audit policy`.
#[derive(Args, Debug)]
pub struct AuditPolicyArgs {
    /// The cluster file, of which the policy trusts the genesis alone.
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
}

/// What is trusted where no cluster is needed.
#[derive(Args, Clone, Debug)]
pub struct TrustArgs {
    /// The cluster file: what is trusted.
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE", required_unless_present = "policy")]
    pub cluster: Option<PathBuf>,
    /// A policy that `audit policy` printed: what is trusted instead of the cluster file.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// `quorate audit check`.
#[derive(Args, Debug)]
pub struct AuditCheckArgs {
    /// The file: what it is is told by its first bytes.
    pub file: PathBuf,
    /// What is trusted.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// How to print what is proven.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `quorate audit verify`.
#[derive(Args, Debug)]
pub struct AuditVerifyArgs {
    /// Where the heights are.
    #[command(flatten)]
    pub history: HistoryArgs,
    /// Execute every operation again and recompute every root.
    #[arg(long, conflicts_with = "from")]
    pub full: bool,
    /// Start above this anchor, which `--keep` wrote: it must be certified, and what is below it is not read.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Write an anchor for the last height to this file, which must not exist, if all of it holds.
    #[arg(long, value_name = "FILE")]
    pub keep: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Where committed heights are read, and what is trusted.
#[derive(Args, Clone, Debug)]
pub struct HistoryArgs {
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
}

/// `quorate audit heights`.
#[derive(Args, Debug)]
pub struct AuditHeightsArgs {
    /// Cluster and key.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}
