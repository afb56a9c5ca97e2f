//! `quorate audit check`: judges one file, offline: a proof, a receipt, a transition, an anchor, a log proof, or
//! evidence.
//!
//! Invariant: what a file is is told by its first bytes; nothing is believed but what it proves against the trusted
//! genesis. Exit 0 it holds, 1 it proves nothing, 2 cannot tell.

use crate::args::{AuditCheckArgs, Output};
use crate::commands::{evidence, memory, prove, receipt, tlog, transition, trust};
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::tlog::LOG_PROOF_MAGIC;
use quorate_audit::{ANCHOR_MAGIC, PROVEN_MAGIC, RECEIPT_MAGIC, TRANSITION_BYTES_MAX, TRANSITION_MAGIC};
use quorate_protocol::Genesis;
use quorate_protocol::evidence::EVIDENCE_FILE_MAGIC;
use quorate_protocol::limits::{EVIDENCE_BYTES_MAX, PROOF_BYTES_MAX};
use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

/// Exit status when a file proves nothing.
pub const BROKEN: u8 = 1;
/// Most bytes of a file. The largest is a transition, which holds a part of the state; nothing else comes near it.
const FILE_BYTES_MAX: u64 = TRANSITION_BYTES_MAX as u64;
const _: () = assert!(TRANSITION_BYTES_MAX > EVIDENCE_BYTES_MAX + (1 << 20));
const _: () = assert!(TRANSITION_BYTES_MAX > PROOF_BYTES_MAX + (1 << 20));

/// A file to be judged.
pub struct Judged<'a> {
    /// What is trusted.
    pub genesis: &'a Genesis,
    /// Where it lies, for errors.
    pub path: &'a Path,
    /// All of it.
    pub bytes: &'a [u8],
    /// How to print what it proves.
    pub output: Output,
}

impl Judged<'_> {
    /// Why nothing can be told.
    pub fn cannot_tell(&self, why: &dyn Display) -> Failure {
        unreadable(self.path, why)
    }

    /// It is of a cluster that is not the trusted one.
    pub fn other_cluster(&self, error: &dyn Display) -> Failure {
        self.cannot_tell(&format!("{error}, and what is trusted is of {}", self.genesis.cluster()))
    }

    /// Says that it proves nothing.
    pub fn broken(&self, why: &dyn Display) -> ExitCode {
        match self.output {
            Output::Json => say!("{}", serde_json::json!({ "verdict": "broken", "text": why.to_string() })),
            Output::Text => say!("proves nothing: {why}"),
        }
        ExitCode::from(BROKEN)
    }
}

/// Checks a file.
pub fn run(args: &AuditCheckArgs) -> CommandResult {
    let genesis = trust::genesis(&args.trust)?;
    let bytes = read(&args.file)?;
    let judged = Judged { genesis: &genesis, path: &args.file, bytes: &bytes, output: args.output };
    if bytes.starts_with(&PROVEN_MAGIC) {
        prove::check(&judged)
    } else if bytes.starts_with(&RECEIPT_MAGIC) {
        receipt::check(&judged)
    } else if bytes.starts_with(&TRANSITION_MAGIC) {
        transition::check(&judged)
    } else if bytes.starts_with(LOG_PROOF_MAGIC.as_bytes()) {
        tlog::check_proof(&judged)
    } else if bytes.starts_with(&ANCHOR_MAGIC) {
        memory::check(&judged)
    } else if bytes.starts_with(EVIDENCE_FILE_MAGIC) {
        evidence::check(&judged)
    } else {
        Ok(judged.broken(
            &"it begins neither as a proof, nor as a receipt, a transition, an anchor, a log proof or evidence does",
        ))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(
            path,
            &format!("it has more than the {FILE_BYTES_MAX} bytes of any such file"),
        ));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, why: &dyn Display) -> Failure {
    Failure::new(format!("cannot read {}: {why}", path.display()))
}
