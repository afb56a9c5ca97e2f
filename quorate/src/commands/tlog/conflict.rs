//! `quorate audit tlog conflict`: evidence against replicas that signed two heads of one size.
//!
//! Invariant: what is written convicts; nothing that is there is written over.

use super::trusted;
use crate::args::TlogConflictArgs;
use crate::commands::new_file::NewFile;
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::tlog::{NOTE_BYTES_MAX, SignedNote};
use quorate_protocol::evidence::Proof;
use quorate_protocol::{Evidence, ReplicaIndex};
use quorate_transport::ClusterFile;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit status when nobody signed two heads.
const NOBODY: u8 = 1;

/// Compares two checkpoints.
pub fn run(args: &TlogConflictArgs) -> CommandResult {
    let (cluster, keys) = trusted(&args.cluster)?;
    let (one, other) = (read(&args.one)?, read(&args.other)?);
    let found = keys.conflicts(&one, &other)?;
    if found.is_empty() {
        say!("no replica signed two heads of one size in these checkpoints");
        return Ok(ExitCode::from(NOBODY));
    }
    for (replica, proof) in found {
        let path = write(&cluster, replica, proof, &args.out)?;
        say!("replica {replica} is proven faulty: ConflictingHead; the evidence is in {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the evidence against a replica as `replica-N.evidence` into a directory.
pub fn write(
    cluster: &ClusterFile,
    replica: ReplicaIndex,
    proof: Proof,
    directory: &Path,
) -> Result<PathBuf, Failure> {
    let path = directory.join(format!("replica-{replica}.evidence"));
    let cannot = |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    let evidence = Evidence::new(cluster.cluster(), cluster.members().epoch(), replica, proof);
    std::fs::create_dir_all(directory).map_err(cannot)?;
    let mut file = NewFile::create(&path).map_err(cannot)?;
    file.write_all(&evidence.to_file()).and_then(|()| file.put_in_place()).map_err(cannot)?;
    Ok(path)
}

fn read(path: &Path) -> Result<SignedNote, Failure> {
    let of = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| of(&error))?;
    file.take(NOTE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| of(&error))?;
    SignedNote::parse(&bytes).map_err(|error| of(&error))
}
