//! `quorate audit prove`, and how `audit check` shows a proof: what the tree says of a path, in a file that is checked offline.
//!
//! Invariant: both say what [`ProvenAnswer::check`] computes from the file and the genesis, and nothing that
//! a replica or the file claims beside it; what does not hold is never written.

use crate::args::{AuditProveArgs, Output};
use crate::commands::check::Judged;
use crate::commands::new_file::NewFile;
use crate::commands::{connect, heights, trust};
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::{NoAnswer, NoHead, ProvenAnswer};
use quorate_client::ClientOptions;
use quorate_client::Observer;
use quorate_crypto::{Bounded, Ed25519Signer, Signer as _};
use quorate_execution::{Answer, Errno};
use quorate_protocol::file::{Attributes, FileKind, Name};
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Genesis, Groups};
use quorate_transport::KeyFile;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

/// The inode of the tree's root.
pub const ROOT_INO: u64 = 1;

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
        let height = match args.at {
            Some(at) => Some(heights::find(&observer, at).await?.height),
            None => None,
        };
        let proven = observer.prove(&credential, query.clone(), height).await;
        proven.map_err(|error| match height {
            Some(height) => heights::unreadable(height, error),
            None => error.into(),
        })
    })?;
    let proven = ProvenAnswer { cluster: cluster.cluster(), key: public, credential, query, answer };
    let outcome = judge(cluster.genesis(), &proven);
    let outcome = outcome.map_err(|error| Failure::new(format!("the answer is none: {error}")))?;
    let said =
        said(&proven.query, &outcome).ok_or_else(|| Failure::new("the answer is to another question"))?;
    write(&args.out, &proven.to_file())?;
    if args.out.as_os_str() != "-" {
        print(&proven, &said, args.output);
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks a file.
pub fn check(judged: &Judged<'_>) -> CommandResult {
    let outcome = ProvenAnswer::from_file(judged.bytes)
        .and_then(|proven| judge(judged.genesis, &proven).map(|outcome| (proven, outcome)));
    match outcome {
        Ok((proven, outcome)) => match said(&proven.query, &outcome) {
            Some(said) => {
                print(&proven, &said, judged.output);
                Ok(ExitCode::SUCCESS)
            }
            None => Err(judged.cannot_tell(&"it answers another question than that of a path from the root")),
        },
        Err(error @ NoAnswer::Header(NoHead::Genesis(_))) => Err(judged.cannot_tell(&error)),
        Err(error @ NoAnswer::Cluster(_)) => Err(judged.other_cluster(&error)),
        Err(error) => Ok(judged.broken(&error)),
    }
}

fn judge(genesis: &Genesis, proven: &ProvenAnswer) -> Result<Result<Answer, Errno>, NoAnswer> {
    proven.check(genesis, &trust::verifier(genesis))
}

/// The names on a path from the root.
pub fn components(
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

/// A path as it is printed. All but printable ASCII is escaped, and spaces too: names are of a client's choosing, and
/// none may pass for what is said of it.
pub fn path_text<'n>(names: impl IntoIterator<Item = &'n Name>) -> String {
    let escaped = |name: &Name| format!("/{}", name.as_bytes().escape_ascii()).replace(' ', "\\x20");
    let path: String = names.into_iter().map(escaped).collect();
    if path.is_empty() { "/".to_owned() } else { path }
}

/// Writes a file that is not there yet; `-` is standard output.
pub fn write(out: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if out.as_os_str() == "-" {
        let mut stdout = std::io::stdout();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        return written.map_err(|error| Failure::new(format!("cannot write standard output: {error}")));
    }
    let cannot =
        |error: &dyn std::fmt::Display| Failure::new(format!("cannot write {}: {error}", out.display()));
    let mut file = NewFile::create(out).map_err(|error| cannot(&error))?;
    file.write_all(bytes).and_then(|()| file.put_in_place()).map_err(|error| cannot(&error))
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

/// What a proof says of its path. Names are escaped: they may hold line ends, and bytes that are no text.
struct Said {
    /// The path that was asked for.
    path: String,
    /// What it names, if the walk came to its end; nothing for the root itself, of which no names tell nothing.
    last: Option<Attributes>,
    /// Why it did not, and the part of the path up to which it did; no part if the question itself is refused.
    stopped: Option<(Errno, Option<String>)>,
}

/// `None` for another question than that of a path from the root.
fn said(query: &Query, outcome: &Result<Answer, Errno>) -> Option<Said> {
    let Query::Walk { start: ROOT_INO, components } = query else { return None };
    let join = |count: usize| path_text(components.iter().take(count));
    let path = join(components.len());
    Some(match outcome {
        Err(errno) => Said { path, last: None, stopped: Some((*errno, None)) },
        Ok(Answer::Walk { found, stopped: Some(errno) }) => {
            Said { path, last: None, stopped: Some((*errno, Some(join(found.len())))) }
        }
        Ok(Answer::Walk { found, stopped: None }) => {
            Said { path, last: found.last().cloned(), stopped: None }
        }
        Ok(_) => return None,
    })
}

/// Who asked, which belongs to the answer: another user may be answered otherwise.
pub fn asker(credential: &Credential) -> String {
    let groups = match &credential.groups {
        Groups::OfPrincipal => "the principal's groups".to_owned(),
        Groups::Listed(groups) => format!("groups {:?}", groups.to_vec()),
    };
    format!("user {}, group {}, {groups}", credential.uid, credential.gid)
}

fn print(proven: &ProvenAnswer, said: &Said, output: Output) {
    let (header, certificate) = (proven.header(), proven.answer.certificate.as_ref());
    let replicas: Vec<u8> =
        certificate.iter().flat_map(|certificate| certificate.votes().map(|(index, _)| index)).collect();
    let Said { path, last, stopped } = said;
    if output == Output::Json {
        let found = last.as_ref().map(|found| {
            serde_json::json!({
                "kind": kind(found.kind), "ino": found.ino, "mode": format!("{:04o}", found.mode),
                "uid": found.uid, "gid": found.gid, "nlink": found.nlink, "size": found.size,
                "version": found.version,
            })
        });
        say!(
            "{}",
            serde_json::json!({
                "verdict": "holds",
                "type": "proof",
                "path": path,
                "asked_by": proven.key.to_string(),
                "asked_as": asker(&proven.credential),
                "height": header.height,
                "time_ns": header.time.0,
                "state_root": header.state_root.to_string(),
                "replicas": replicas,
                "errno": stopped.as_ref().map(|(errno, _)| errno.symbol()),
                "reached": stopped.as_ref().and_then(|(_, reached)| reached.as_ref()),
                "found": found,
            })
        );
        return;
    }
    match (stopped, last) {
        (Some((errno, None)), _) => say!("the question of {path} is refused: {}", errno.symbol()),
        (Some((Errno::ENOENT, Some(reached))), _) => {
            say!("{path} does not exist: {reached} is the last that does");
        }
        (Some((errno, Some(reached))), _) => {
            say!("{path} cannot be reached beyond {reached}: {}", errno.symbol());
        }
        (None, Some(found)) => say!(
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
        (None, None) => say!("{path} is the root of the tree"),
    }
    say!("asked by {}, as {}", proven.key, asker(&proven.credential));
    let by: Vec<String> = replicas.iter().map(ToString::to_string).collect();
    let by = if by.is_empty() { "the genesis".to_owned() } else { format!("replicas {}", by.join(", ")) };
    say!("at height {}, state root {}, vouched for by {by}", header.height, header.state_root);
}
