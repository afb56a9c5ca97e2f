//! The options of `quorate audit`.
//!
//! Invariant: every command that verifies names the cluster file that it trusts, and has an output for programs.

use super::{At, ClusterArgs, Output};
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
    /// Check a file that `prove` wrote, offline. Exit 0 it holds, 1 it proves nothing, 2 cannot tell.
    Check(AuditCheckArgs),
    /// Evidence against replicas: signed statements that no correct one makes.
    Evidence(EvidenceArgs),
    /// List the heights whose state can still be read, with their certified times, as each replica says. Exit 0
    /// listed, 2 cannot tell.
    Heights(AuditHeightsArgs),
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
    /// Where the heights are.
    #[command(flatten)]
    pub history: HistoryArgs,
    /// Execute every operation again and recompute every root.
    #[arg(long)]
    pub full: bool,
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
