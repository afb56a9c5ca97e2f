//! Files through a mount: create, write, close, by some threads for some seconds.
//!
//! Invariant: each thread works in a directory of its own and every file is new, so that no operation is
//! answered from anything that was there before.

use crate::{BenchError, Report};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Files per directory, after which a thread goes on in a new one.
const FILES_PER_DIRECTORY: u64 = 10_000;

/// What to do.
#[derive(Copy, Clone, Debug)]
pub struct Meta {
    /// Threads.
    pub threads: usize,
    /// How long.
    pub duration: Duration,
    /// Bytes of each file.
    pub bytes: usize,
}

/// Runs the workload in a new directory below `path`, which is removed at the end.
///
/// # Errors
/// [`BenchError`] when the directory cannot be made; failed operations of the workload are counted.
pub fn run(path: &Path, meta: &Meta) -> Result<Report, BenchError> {
    if meta.threads == 0 || meta.duration.is_zero() {
        return Err(BenchError::Parameters("threads and seconds must be at least 1"));
    }
    let root = path.join(format!("quorate-bench-{}", std::process::id()));
    std::fs::create_dir(&root)
        .map_err(|source| BenchError::Io { what: "create the bench's directory", source })?;
    let began = Instant::now();
    let workers: Vec<_> = (0..meta.threads)
        .map(|number| {
            let (root, meta) = (root.join(number.to_string()), *meta);
            std::thread::spawn(move || work(&root, &meta, began))
        })
        .collect();
    let mut latencies = Vec::new();
    let mut errors = 0;
    for worker in workers {
        let (mine, failed) = worker.join().map_err(|_| BenchError::Worker)??;
        latencies.extend(mine);
        errors += failed;
    }
    let took = began.elapsed();
    std::fs::remove_dir_all(&root)
        .map_err(|source| BenchError::Io { what: "remove the bench's files", source })?;
    Ok(Report::new("create-write-close", meta.threads, latencies, errors, took))
}

fn work(root: &Path, meta: &Meta, began: Instant) -> Result<(Vec<Duration>, u64), BenchError> {
    let content = vec![b'q'; meta.bytes];
    let mut latencies = Vec::new();
    let mut errors = 0;
    let mut number = 0_u64;
    let make = |path: &Path| {
        std::fs::create_dir(path)
            .map_err(|source| BenchError::Io { what: "create a worker's directory", source })
    };
    make(root)?;
    let mut directory = open_directory(root)?;
    while began.elapsed() < meta.duration {
        if number.is_multiple_of(FILES_PER_DIRECTORY) {
            let path = root.join(format!("d{number}"));
            make(&path)?;
            directory = open_directory(&path)?;
        }
        let start = Instant::now();
        match one(&directory, &number.to_string(), &content) {
            Ok(()) => latencies.push(start.elapsed()),
            Err(error) => {
                errors += 1;
                tracing::warn!(%error, "an operation of the bench failed");
            }
        }
        number += 1;
    }
    Ok((latencies, errors))
}

fn open_directory(path: &Path) -> Result<OwnedFd, BenchError> {
    std::fs::File::open(path)
        .map(OwnedFd::from)
        .map_err(|source| BenchError::Io { what: "open a worker's directory", source })
}

/// Creates, writes and closes one file. Its directory is open already, as it is in cp, tar and rsync, so that
/// the path to it is not walked again each time.
fn one(directory: &OwnedFd, name: &str, content: &[u8]) -> std::io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let file = openat(directory, name, flags, Mode::from_bits_truncate(0o644))?;
    let mut file = std::fs::File::from(file);
    file.write_all(content)?;
    // close(2) reports write-back errors; dropping a File would hide them.
    nix::unistd::close(OwnedFd::from(file)).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_files_and_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let meta = Meta { threads: 2, duration: Duration::from_millis(50), bytes: 10 };
        let report = run(directory.path(), &meta).expect("the bench runs");
        assert!(report.operations > 0 && report.errors == 0);
        assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0);
        let none = Meta { threads: 0, ..meta };
        assert!(matches!(run(directory.path(), &none), Err(BenchError::Parameters(_))));
    }
}
