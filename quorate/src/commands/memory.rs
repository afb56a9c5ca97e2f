//! What this user has seen of a cluster: its highest certified head, in one file for each cluster id.
//!
//! Invariants: what is remembered never falls; the file is whole or not there, and is believed only if it holds
//! against the trusted genesis. One that is damaged is an error, never nothing: it may be what a fork is noticed by.

use crate::args::{Output, SeenArgs};
use crate::commands::check::Judged;
use crate::commands::compare::head_json;
use crate::commands::{connect, trust};
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::{ANCHOR_BYTES_MAX, Anchor, NoAnchor, NoHead};
use quorate_crypto::Hash;
use quorate_protocol::Genesis;
use std::fs::File;
use std::io::{Error, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tempfile::NamedTempFile;

/// Names the directory in place of the usual one; empty: nothing is remembered.
pub const VARIABLE: &str = "QUORATE_STATE";
/// How often somebody else who is writing is waited for, and how long each time.
const TRIES: u32 = 50;
const WAIT: Duration = Duration::from_millis(20);

/// Where what was seen of clusters lies: `$QUORATE_STATE`, or `quorate` in `$XDG_STATE_HOME` or `~/.local/state`.
fn directory() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(own) = std::env::var_os(VARIABLE) {
        return if own.is_empty() { None } else { Some(PathBuf::from(own)) };
    }
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("quorate"))
}

/// The file of a cluster.
fn path(cluster: &Hash) -> Option<PathBuf> {
    directory().map(|directory| directory.join(format!("{cluster}.anchor")))
}

/// What was seen of the cluster with this genesis.
pub fn recall(genesis: &Genesis) -> Result<Option<Anchor>, Failure> {
    match path(&genesis.cluster()) {
        Some(path) => recall_from(&path, genesis),
        None => Ok(None),
    }
}

fn recall_from(path: &Path, genesis: &Genesis) -> Result<Option<Anchor>, Failure> {
    match read_anchor(path, genesis) {
        Ok(anchor) => Ok(Some(anchor)),
        Err(Unread::Io(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(format!(
            "what was seen of this cluster cannot be used: {}: {}; `quorate audit seen --forget` removes it",
            path.display(),
            error.text()
        ))),
    }
}

/// Why an anchor is not there.
enum Unread {
    Io(Error),
    Refused(String),
}

impl Unread {
    fn text(&self) -> String {
        match self {
            Self::Io(error) => error.to_string(),
            Self::Refused(text) => text.clone(),
        }
    }
}

fn read_anchor(path: &Path, genesis: &Genesis) -> Result<Anchor, Unread> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Unread::Io)?;
    file.take(2 * ANCHOR_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(Unread::Io)?;
    let anchor = Anchor::from_file(&bytes).map_err(|error| Unread::Refused(error.to_string()))?;
    let checked = anchor.check(genesis, &trust::verifier(genesis));
    checked.map_err(|error| Unread::Refused(error.to_string()))?;
    Ok(anchor)
}

/// Reads an anchor that somebody names, and checks it.
pub fn given(path: &Path, genesis: &Genesis) -> Result<Anchor, Failure> {
    read_anchor(path, genesis)
        .map_err(|error| Failure::new(format!("cannot use {}: {}", path.display(), error.text())))
}

/// Checks a file.
pub fn check(judged: &Judged<'_>) -> CommandResult {
    let anchor = match Anchor::from_file(judged.bytes) {
        Ok(anchor) => anchor,
        Err(error) => return Ok(judged.broken(&error)),
    };
    match anchor.check(judged.genesis, &trust::verifier(judged.genesis)) {
        Ok(()) if judged.output == Output::Json => {
            let mut json = head_json(&anchor.head);
            json["type"] = "anchor".into();
            json["verdict"] = "holds".into();
            json["log"] = anchor.log.is_some().into();
            say!("{json}");
            Ok(ExitCode::SUCCESS)
        }
        Ok(()) => {
            say!("certified head: {}", anchor.head);
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ NoAnchor::Cluster(_)) => Err(judged.other_cluster(&error)),
        Err(error @ NoAnchor::Head(NoHead::Genesis(_))) => Err(judged.cannot_tell(&error)),
        Err(error) => Ok(judged.broken(&error)),
    }
}

/// Remembers what was seen, if it is higher than what is remembered, or as high and more of it. That it cannot be is
/// said in the log and keeps nothing from being done.
pub fn remember(genesis: &Genesis, seen: &Anchor) {
    let Some(path) = path(&genesis.cluster()) else { return };
    if let Err(failure) = write(&path, genesis, seen) {
        tracing::warn!("what was seen of the cluster is not remembered: {}", failure.text);
    }
}

fn write(path: &Path, genesis: &Genesis, seen: &Anchor) -> Result<(), Failure> {
    let directory = path.parent().ok_or_else(|| Failure::new("it has no directory"))?;
    std::fs::create_dir_all(directory)?;
    let _lock = lock(directory)?;
    if let Some(known) = recall_from(path, genesis)? {
        let rank = |anchor: &Anchor| (anchor.head.header.height, anchor.log.is_some());
        if rank(&known) >= rank(seen) {
            return Ok(());
        }
    }
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(&seen.to_file())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory)?.sync_all()?;
    Ok(())
}

/// Keeps others from writing until it is dropped.
fn lock(directory: &Path) -> Result<File, Failure> {
    let file = File::options().create(true).append(true).open(directory.join("lock"))?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(WAIT),
            Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Err(Failure::new("somebody else holds its lock"))
}

/// `quorate audit seen`: shows what is remembered, or forgets it.
pub fn run(args: &SeenArgs) -> CommandResult {
    let cluster = connect::read_cluster(&args.cluster)?;
    let Some(path) = path(&cluster.cluster()) else {
        return Err(Failure::new(format!("nothing is remembered: {VARIABLE} is empty, or HOME is not set")));
    };
    if args.forget {
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::new(format!("cannot remove {}: {error}", path.display()))),
        }
        if args.output == Output::Json {
            say!("{}", serde_json::json!({ "seen": null, "file": path.to_string_lossy() }));
        } else {
            say!("nothing is remembered of cluster {}", cluster.cluster());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let seen = recall_from(&path, cluster.genesis())?;
    if args.output == Output::Json {
        let seen = seen.as_ref().map(|anchor| {
            let mut json = head_json(&anchor.head);
            json["log"] = anchor.log.is_some().into();
            json
        });
        say!("{}", serde_json::json!({ "seen": seen, "file": path.to_string_lossy() }));
        return Ok(ExitCode::SUCCESS);
    }
    match seen {
        Some(anchor) => say!("seen: {} ({})", anchor.head, path.display()),
        None => say!("nothing was seen of cluster {}", cluster.cluster()),
    }
    Ok(ExitCode::SUCCESS)
}
