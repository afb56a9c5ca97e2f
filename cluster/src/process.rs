//! One replica's process: started in a session of its own, found again by its pid file.
//!
//! Invariant: a signal is sent only to a process that holds the replica's directory as an argument, so
//! that a stale pid file never hits a stranger.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_replica::layout::{LOG_FILE, PID_FILE};
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a wait for the end of a process looks.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Starts a replica of `directory` with `binary`, its output appended to its log file.
///
/// # Errors
/// The system's, when the log file cannot be opened or the program cannot be started.
pub fn spawn(
    binary: &Path,
    directory: &Path,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
) -> io::Result<Child> {
    let directory = &directory.canonicalize()?;
    let log = OpenOptions::new().create(true).append(true).open(directory.join(LOG_FILE))?;
    let errors = log.try_clone()?;
    Command::new(binary)
        .arg("replica")
        .arg("--dir")
        .arg(directory)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // A group of its own: Ctrl-C in a terminal reaches `quorate dev`, which stops replicas in order.
        .process_group(0)
        // Not where this process stands, which may be a mount of the cluster: nothing there would answer once the
        // replicas are down, and it could not be unmounted.
        .current_dir(directory)
        .spawn()
}

/// Gives the process of replica `index` of `n` its share of the processors that this process may use, as if
/// each replica had a machine of its own. Left alone, the scheduler wakes whoever receives a packet on the
/// processor of its sender, and all replicas end up on one.
pub fn share_processors(child: &Child, index: usize, n: usize) {
    let Ok(pid) = i32::try_from(child.id()).map(Pid::from_raw) else { return };
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else { return };
    let usable: Vec<usize> =
        (0..CpuSet::count()).filter(|processor| allowed.is_set(*processor).unwrap_or(false)).collect();
    let mut own = CpuSet::new();
    for processor in share(&usable, index, n) {
        // Fails only beyond the set's size.
        let _ = own.set(processor);
    }
    // Where it is forbidden, everything works as well, only slower.
    let _ = sched_setaffinity(pid, &own);
}

/// Every `n`-th processor from the `index`-th on; when there are fewer than replicas, some share one.
fn share(usable: &[usize], index: usize, n: usize) -> Vec<usize> {
    let first = index.checked_rem(usable.len().min(n)).unwrap_or_default();
    usable.iter().copied().skip(first).step_by(n.max(1)).collect()
}

/// The running process of `directory`, if there is one.
#[must_use]
pub fn running(directory: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(directory.join(PID_FILE)).ok()?;
    let number: i32 = text.trim().parse().ok().filter(|number| *number > 1)?;
    let process = Path::new("/proc").join(number.to_string());
    let arguments = std::fs::read(process.join("cmdline")).ok()?;
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // "pid (name) state": a zombie has ended, though nobody has waited for it yet.
    let ended = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']));
    (!ended && names(&process, &arguments, directory)).then(|| Pid::from_raw(number))
}

/// Whether a process was told `--dir` with this directory, by whatever path. No other argument is looked up: the
/// process may stand in a mount of this very cluster, where a look at a name waits for the replicas.
fn names(process: &Path, arguments: &[u8], directory: &Path) -> bool {
    let Ok(wanted) = directory.canonicalize() else { return false };
    let own = process.join("cwd");
    let mut arguments = arguments.split(|byte| *byte == 0);
    let named = arguments.find_map(|argument| match argument.strip_prefix(b"--dir") {
        Some([]) => Some(None),
        Some([b'=', path @ ..]) => Some(Some(path)),
        _ => None,
    });
    let Some(path) = named.and_then(|path| path.or_else(|| arguments.next())) else { return false };
    own.join(OsStr::from_bytes(path)).canonicalize().is_ok_and(|found| found == wanted)
}

/// Waits until a process that was just started can be found by its pid file, or has ended.
pub fn wait_found(child: &mut Child, directory: &Path, patience: Duration) {
    let began = Instant::now();
    while running(directory).is_none() && matches!(child.try_wait(), Ok(None)) && began.elapsed() < patience {
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Sends a signal to the process of `directory`; `false` if none runs.
///
/// # Errors
/// The system's, when the signal is not allowed.
pub fn signal(directory: &Path, signal: Signal) -> io::Result<bool> {
    match running(directory) {
        None => Ok(false),
        Some(pid) => match kill(pid, signal) {
            Ok(()) => Ok(true),
            Err(nix::errno::Errno::ESRCH) => Ok(false),
            Err(error) => Err(error.into()),
        },
    }
}

/// Waits until no process of `directory` runs; `false` if one still does after `patience`.
#[must_use]
pub fn wait_gone(directory: &Path, patience: Duration) -> bool {
    let began = Instant::now();
    while running(directory).is_some() {
        if began.elapsed() > patience {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_share_the_processors_evenly() {
        assert_eq!((0..4).map(|index| share(&[0, 1], index, 4)).collect::<Vec<_>>(), [[0], [1], [0], [1]]);
        assert_eq!(share(&[2, 5, 6, 7, 8, 9], 1, 4), [5, 9]);
        assert_eq!(share(&[2, 5, 6, 7, 8, 9], 3, 4), [7]);
        assert_eq!(share(&[3], 6, 7), [3]);
        assert!(share(&[], 0, 4).is_empty());
    }

    #[test]
    fn a_stale_pid_file_does_not_hit_the_replica_of_another_cluster() {
        let place = tempfile::tempdir().unwrap();
        let [mine, other] = ["mine", "other"].map(|cluster| place.path().join(cluster).join("replica-0"));
        for directory in [&mine, &other] {
            std::fs::create_dir_all(directory).unwrap();
        }
        // As a replica is started: by an absolute path, and by hand by a relative one.
        for argument in [other.clone(), "other/replica-0".into(), "./other/../other/replica-0/".into()] {
            let mut child = Command::new("sh")
                .args(["-c", "read line", "replica", "--dir"])
                .arg(&argument)
                .current_dir(place.path())
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            for directory in [&mine, &other] {
                std::fs::write(directory.join(PID_FILE), format!("{}\n", child.id())).unwrap();
            }
            // Until it has become a shell.
            let began = Instant::now();
            while running(&other).is_none() && began.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(POLL_INTERVAL);
            }
            let found = [running(&mine), running(&other)].map(|pid| pid.map(Pid::as_raw));
            drop(child.stdin.take());
            child.wait().unwrap();
            assert_eq!(found, [None, i32::try_from(child.id()).ok()], "{argument:?}");
            assert_eq!(running(&other), None, "it has ended");
        }
    }
}
