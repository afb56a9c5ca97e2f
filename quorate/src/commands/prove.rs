//! `quorate audit prove` and `audit check`: what the tree says of a path, in a file that is checked offline.
//!
//! Invariant: both say what [`ProvenAnswer::check`] computes from the file and the cluster file, and nothing that
//! a replica or the file claims beside it; what does not hold is never written.

use crate::args::{AuditCheckArgs, AuditProveArgs, Output};
use crate::commands::connect;
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::{NoAnswer, ProvenAnswer};
use quorate_client::ClientOptions;
use quorate_client::Observer;
use quorate_crypto::{Bounded, Ed25519Signer, Ed25519Verifier, Signer as _};
use quorate_execution::{Answer, Errno};
use quorate_protocol::file::{Attributes, FileKind, Name};
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Groups};
use quorate_transport::{ClusterFile, KeyFile};
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

/// The inode of the tree's root.
const ROOT_INO: u64 = 1;
/// Exit status when a file proves nothing.
const BROKEN: u8 = 1;
/// Most bytes of a file: a pruned copy of 16 MiB and what belongs to it.
const FILE_BYTES_MAX: u64 = 20 << 20;

/// Asks the live cluster and writes its proof.
pub fn prove(args: &AuditProveArgs) -> CommandResult {
    let cluster = connect::read_cluster(&args.cluster)?;
    let key = KeyFile::read_principal(&args.key)?;
    let query = Query::Walk { start: ROOT_INO, components: components(&args.path)? };
    let credential = Credential { uid: args.uid, gid: args.gid, groups: Groups::OfPrincipal };
    let public = Ed25519Signer::new(key.clone()).public();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let observer = Observer::start(cluster.clone(), key, ClientOptions::default()).await?;
        observer.prove(&credential, query.clone()).await
    })?;
    let proven = ProvenAnswer { cluster: cluster.cluster(), key: public, credential, query, answer };
    let outcome =
        judge(&cluster, &proven).map_err(|error| Failure::new(format!("the answer is none: {error}")))?;
    write(&args.out, &proven.to_file())?;
    if args.out.as_os_str() != "-" {
        print(&proven, &outcome, args.output);
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks a file.
pub fn check(args: &AuditCheckArgs) -> CommandResult {
    let cluster = connect::read_cluster(&args.cluster)?;
    let unreadable =
        |error: &dyn std::fmt::Display| Failure::new(format!("cannot read {}: {error}", args.file.display()));
    let file = std::fs::File::open(&args.file).map_err(|error| unreadable(&error))?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, FILE_BYTES_MAX + 1), &mut bytes)
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(&format!("it has more than the {FILE_BYTES_MAX} bytes of any proof")));
    }
    let judged = ProvenAnswer::from_file(&bytes)
        .and_then(|proven| judge(&cluster, &proven).map(|outcome| (proven, outcome)));
    match judged {
        Ok((proven, outcome)) => {
            print(&proven, &outcome, args.output);
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ NoAnswer::Cluster(_)) => {
            Err(unreadable(&format!("{error}, and the cluster file is of {}", cluster.cluster())))
        }
        Err(error) => {
            match args.output {
                Output::Json => {
                    say!("{}", serde_json::json!({ "verdict": "broken", "text": error.to_string() }))
                }
                Output::Text => say!("proves nothing: {error}"),
            }
            Ok(ExitCode::from(BROKEN))
        }
    }
}

fn judge(cluster: &ClusterFile, proven: &ProvenAnswer) -> Result<Result<Answer, Errno>, NoAnswer> {
    let members = cluster.members().members();
    let verifier = Ed25519Verifier::with_keys(members.iter().map(|member| member.consensus));
    proven.check(cluster.genesis(), &verifier)
}

/// The names on a path from the root.
fn components(
    path: &Path,
) -> Result<Bounded<Name, { quorate_protocol::limits::WALK_COMPONENTS_MAX }>, Failure> {
    let bad = |why: &str| Failure::new(format!("the path {} {why}", path.display()));
    let bytes = path.as_os_str().as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(bad("must begin with /, the root of the tree, whatever it is mounted on"));
    }
    let names = bytes.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let names: Result<Vec<Name>, Failure> = names
        .map(|name| Name::new(name).map_err(|error| bad(&format!("has a name that is none: {error}"))))
        .collect();
    Bounded::try_from(names?).map_err(|_| bad("has more than 64 names: prove a part of it"))
}

fn write(out: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if out.as_os_str() == "-" {
        return Ok(std::io::stdout().write_all(bytes)?);
    }
    let cannot = |error| Failure::new(format!("cannot write {}: {error}", out.display()));
    let mut file = std::fs::File::create_new(out).map_err(cannot)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(cannot)
}

const fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "regular file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::Fifo => "FIFO",
        FileKind::Socket => "socket",
        FileKind::CharacterDevice => "character device",
        FileKind::BlockDevice => "block device",
    }
}

/// What a proof says of its path.
struct Said {
    /// The path that was asked for.
    path: String,
    /// What it names, if the walk came to its end.
    last: Option<Attributes>,
    /// Why it did not, and the part of the path up to which it did.
    stopped: Option<(Errno, String)>,
}

/// Of the root itself a walk of no names tells nothing: then `last` is `None` as well.
fn said(proven: &ProvenAnswer, outcome: &Result<Answer, Errno>) -> Option<Said> {
    let Query::Walk { components, .. } = &proven.query else { return None };
    let join = |count: usize| {
        let names = components
            .iter()
            .take(count)
            .map(|name| format!("/{}", OsStr::from_bytes(name.as_bytes()).display()));
        let path: String = names.collect();
        if path.is_empty() { "/".to_owned() } else { path }
    };
    let path = join(components.len());
    Some(match outcome {
        Err(errno) => Said { path, last: None, stopped: Some((*errno, join(0))) },
        Ok(Answer::Walk { found, stopped: Some(errno) }) => {
            Said { path, last: None, stopped: Some((*errno, join(found.len()))) }
        }
        Ok(Answer::Walk { found, stopped: None }) => {
            Said { path, last: found.last().cloned(), stopped: None }
        }
        Ok(_) => return None,
    })
}

fn print(proven: &ProvenAnswer, outcome: &Result<Answer, Errno>, output: Output) {
    let (header, certificate) = (proven.header(), proven.answer.certificate.as_ref());
    let replicas: Vec<u8> =
        certificate.iter().flat_map(|certificate| certificate.votes().map(|(index, _)| index)).collect();
    let said = said(proven, outcome);
    if output == Output::Json {
        let last = said.as_ref().and_then(|said| said.last.as_ref());
        let stopped = said.as_ref().and_then(|said| said.stopped.as_ref());
        say!(
            "{}",
            serde_json::json!({
                "verdict": "holds",
                "path": said.as_ref().map(|said| &said.path),
                "height": header.height,
                "time_ns": header.time.0,
                "state_root": header.state_root.to_string(),
                "replicas": replicas,
                "errno": stopped.map(|(errno, _)| errno.symbol()),
                "reached": stopped.map(|(_, reached)| reached),
                "found": last.map(|found| serde_json::json!({
                    "kind": kind(found.kind), "ino": found.ino, "mode": format!("{:04o}", found.mode),
                    "uid": found.uid, "gid": found.gid, "nlink": found.nlink, "size": found.size,
                    "version": found.version,
                })),
            })
        );
        return;
    }
    match &said {
        None => say!("{outcome:?}"),
        Some(Said { path, stopped: Some((Errno::ENOENT, reached)), .. }) => {
            say!("{path} does not exist: {reached} is the last that does");
        }
        Some(Said { path, stopped: Some((errno, reached)), .. }) => {
            say!("{path} cannot be reached beyond {reached}: {}", errno.symbol());
        }
        Some(Said { path, last: Some(found), .. }) => say!(
            "{path} is a {}, inode {}, mode {:04o}, owner {}:{}, {} links, size {}, last changed by operation {}",
            kind(found.kind),
            found.ino,
            found.mode,
            found.uid,
            found.gid,
            found.nlink,
            found.size,
            found.version
        ),
        Some(Said { path, last: None, stopped: None }) => say!("{path} is the root"),
    }
    let by: Vec<String> = replicas.iter().map(ToString::to_string).collect();
    say!(
        "at height {}, state root {}, committed by replicas {}",
        header.height,
        header.state_root,
        by.join(", ")
    );
}
