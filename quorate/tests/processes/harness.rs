//! What every test with real processes stands on: clusters, mounts, commands with a time limit, and the
//! watchdog.
//!
//! Invariant: whatever ends a test, a panic and a hang included, its mounts are taken away and its
//! processes are killed; a killed mount fails what hangs in it.

use quorate_cluster::LocalCluster;
use quorate_protocol::genesis::Parameters;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");
/// How long an ordinary command may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a whole test may take before the watchdog ends it.
const TEST_TIME_MAX: Duration = Duration::from_secs(150);
/// Nanoseconds that released blocks are kept in the clusters of these tests.
const BLOCK_GRACE: u64 = 2_000_000_000;
/// How often waits look.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What the watchdog takes away.
static MOUNTS: Mutex<Vec<(PathBuf, u32)>> = Mutex::new(Vec::new());
static REPLICAS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static WATCHDOG: Once = Once::new();

fn start_watchdog() {
    WATCHDOG.call_once(|| {
        std::thread::spawn(|| {
            std::thread::sleep(TEST_TIME_MAX);
            eprintln!(
                "the test takes longer than {} s: its mounts and replicas are killed",
                TEST_TIME_MAX.as_secs()
            );
            for (path, pid) in MOUNTS.lock().unwrap().iter() {
                kill_process(*pid);
                detach(path);
            }
            for directory in REPLICAS.lock().unwrap().iter() {
                let pid = std::fs::read_to_string(directory.join("replica.pid")).unwrap_or_default();
                if let Ok(pid) = pid.trim().parse() {
                    kill_process(pid);
                }
            }
            // Gives the test's own failure a moment to be printed.
            std::thread::sleep(Duration::from_secs(2));
            std::process::exit(101);
        });
    });
}

fn kill_process(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

/// What replicas and mounts log, for a test that fails: the variable QUORATE_TEST_LOG.
fn log_level() -> String {
    std::env::var("QUORATE_TEST_LOG").unwrap_or_else(|_| "warn".to_owned())
}

/// Takes a mount away, busy or not, however its process is.
fn detach(path: &Path) {
    while mount_type(path).is_some_and(|kind| kind.starts_with("fuse")) {
        let done = Command::new("umount").arg("-l").arg(path).stderr(Stdio::null()).status();
        if !done.is_ok_and(|status| status.success()) {
            break;
        }
    }
}

/// The type of what is mounted at `path`, by the kernel's table; the mount itself is not touched.
pub fn mount_type(path: &Path) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let wanted = path.to_str().unwrap();
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(wanted))?;
    line.split(" - ").nth(1)?.split(' ').next().map(str::to_owned)
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < patience, "not within {} s: {what}", patience.as_secs());
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Exit status; 128 plus the signal for one that was killed.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The same, if the status is `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// A failure that is one clear line on standard error and holds these words.
    #[track_caller]
    pub fn expect_one_line(self, code: i32, words: &[&str]) -> Self {
        let this = self.expect(code);
        assert_eq!(this.stderr.trim_end().lines().count(), 1, "not one line:\n{}", this.stderr);
        assert!(this.stderr.starts_with("quorate: "), "{}", this.stderr);
        for word in words {
            assert!(this.stderr.contains(word), "`{word}` is not in: {}", this.stderr);
        }
        this
    }
}

/// Kills everybody who descends from a process, whatever group each is in: `quorate dev` starts its replicas
/// and its mount in groups of their own.
fn kill_tree(pid: u32) {
    let children = |pid: u32| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let pids = lists.flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        });
        pids.collect::<Vec<u32>>()
    };
    // All are looked for before the first is killed: who has lost its parent is found no more.
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(children(parent));
        next += 1;
    }
    found.into_iter().for_each(kill_process);
}

/// Runs a command to its end, with a time limit, after which it is killed with all that it has started.
#[track_caller]
pub fn run(command: &mut Command, patience: Duration) -> Ran {
    let began = Instant::now();
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > patience {
            kill_tree(child.id());
            let _ = child.wait();
            panic!("still running after {} s: {shown}", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or(signal.map(|signal| 128 + signal)).unwrap();
    Ran { code, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Runs `quorate dev` on a new cluster of `n` in `directory` to its end. When it takes too long it is told to
/// stop, which takes everything away, and the status is 124, as timeout(1) has it.
#[track_caller]
pub fn run_dev(command: &mut Command, directory: &Path, n: u8, patience: Duration) -> Ran {
    const STOP_PATIENCE: Duration = Duration::from_secs(25);
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    MOUNTS.lock().unwrap().push((directory.join("mount"), child.id()));
    REPLICAS.lock().unwrap().extend((0..n).map(|replica| directory.join(format!("replica-{replica}"))));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let mut ended = |patience: Duration| {
        let began = Instant::now();
        loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if began.elapsed() > patience => break None,
                None => std::thread::sleep(POLL_INTERVAL),
            }
        }
    };
    let status = ended(patience);
    let code = match status {
        Some(status) => status.code().unwrap_or(-1),
        None => {
            let id =
                nix::unistd::Pid::from_raw(i32::try_from(MOUNTS.lock().unwrap().last().unwrap().1).unwrap());
            nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
            assert!(ended(STOP_PATIENCE).is_some(), "it does not even stop: {shown}");
            124
        }
    };
    Ran { code, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn collect(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The program with these arguments, and nothing of ours in its environment.
pub fn quorate<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    for name in ["QUORATE_CLUSTER", "QUORATE_KEY", "QUORATE_DIR", "QUORATE_LOG"] {
        command.env_remove(name);
    }
    // Nothing is remembered of these clusters unless a test says where.
    command.env("QUORATE_STATE", "");
    command
}

/// A shell script that stops at the first command that fails, in a directory.
#[track_caller]
pub fn shell(directory: &Path, script: &str) -> Ran {
    shell_within(directory, script, PATIENCE)
}

/// The same with another time limit.
#[track_caller]
pub fn shell_within(directory: &Path, script: &str, patience: Duration) -> Ran {
    let program = Path::new(PROGRAM).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(directory).env("PATH", path);
    // Git must not look above the mount, nor at the configuration of whoever runs the tests.
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("LC_ALL", "C");
    command.env("QUORATE_STATE", "");
    run(&mut command, patience)
}

/// A directory that everybody may enter, removed at the end.
pub fn scratch() -> TempDir {
    assert!(
        Path::new("/dev/fuse").exists(),
        "these tests need FUSE: there is no /dev/fuse here (`modprobe fuse`)"
    );
    start_watchdog();
    let directory = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    directory
}

/// A cluster of real processes.
pub struct Cluster {
    pub local: LocalCluster,
    home: TempDir,
}

impl Cluster {
    /// Four replicas, running.
    pub fn start() -> Self {
        Self::start_with(Parameters::default())
    }

    /// The same with other parameters than the usual ones.
    pub fn start_with(parameters: Parameters) -> Self {
        let cluster = Self::create_with(parameters);
        cluster.local.start_all().unwrap();
        cluster
    }

    /// Four replicas that do not run yet.
    pub fn create() -> Self {
        Self::create_with(Parameters::default())
    }

    /// Four replicas, running, that keep so much of the past.
    pub fn start_keeping(heights: u64, seconds: u64) -> Self {
        let cluster = Self::create_keeping(heights, seconds);
        cluster.local.start_all().unwrap();
        cluster
    }

    /// The same, and they do not run yet.
    pub fn create_keeping(heights: u64, seconds: u64) -> Self {
        let mut cluster = Self::create();
        for replica in cluster.local.indices() {
            let keep = format!("--log {} --keep-heights {heights} --keep-seconds {seconds}", log_level());
            cluster.local.set_arguments(replica, keep.split(' ').map(Into::into).collect());
        }
        cluster
    }

    fn create_with(parameters: Parameters) -> Self {
        let home = scratch();
        let parameters = Parameters { block_grace: BLOCK_GRACE, ..parameters };
        let directory = home.path().join("cluster");
        let mut local = LocalCluster::create(&directory, Path::new(PROGRAM), 4, parameters, (0, 0)).unwrap();
        for replica in local.indices() {
            local.set_arguments(replica, vec!["--log".into(), log_level().into()]);
        }
        let mut replicas = REPLICAS.lock().unwrap();
        replicas.extend(local.indices().map(|replica| local.replica_directory(replica)));
        Self { local, home }
    }

    /// A directory for the test's own files, on the disk beside the cluster.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// `--cluster` and `--key` of this cluster.
    pub fn arguments(&self) -> [String; 4] {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        [
            "--cluster".to_owned(),
            text(self.local.cluster_path()),
            "--key".to_owned(),
            text(self.local.key_path()),
        ]
    }

    /// A command of the program on this cluster.
    #[track_caller]
    pub fn quorate(&self, arguments: &[&str]) -> Ran {
        run(quorate(arguments).args(self.arguments()), PATIENCE)
    }

    /// A command that needs no key.
    #[track_caller]
    pub fn quorate_alone(&self, arguments: &[&str]) -> Ran {
        run(quorate(arguments).arg("--cluster").arg(self.local.cluster_path()), PATIENCE)
    }

    /// Mounts at `mount-NAME`.
    #[track_caller]
    pub fn mount(&self, name: &str) -> Mount {
        self.mount_with(name, "")
    }

    /// The same with options.
    #[track_caller]
    pub fn mount_with(&self, name: &str, options: &str) -> Mount {
        let options = if options.is_empty() { Vec::new() } else { vec!["-o", options] };
        self.mount_by(name, &options)
    }

    /// The same with further arguments.
    #[track_caller]
    pub fn mount_by(&self, name: &str, arguments: &[&str]) -> Mount {
        let path = self.home().join(format!("mount-{name}"));
        std::fs::create_dir_all(&path).unwrap();
        let log = self.home().join(format!("mount-{name}.log"));
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = quorate(["--log", &log_level(), "mount", "--foreground"]);
        command.arg(&path).args(self.arguments()).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
        MOUNTS.lock().unwrap().push((path.clone(), child.id()));
        let mut mount = Mount { path, log, child };
        wait_until("the mount is there", Duration::from_secs(40), || {
            if let Some(status) = mount.child.try_wait().unwrap() {
                panic!("the mount ended ({status}): {}", std::fs::read_to_string(&mount.log).unwrap());
            }
            mount_type(&mount.path).is_some()
        });
        mount
    }

    /// What `quorate status` says, with its exit status.
    #[track_caller]
    pub fn status(&self) -> (i32, Value) {
        let ran = self.quorate(&["status", "--output", "json"]);
        let value = serde_json::from_str(&ran.stdout);
        (ran.code, value.unwrap_or_else(|error| panic!("{error}: {} {}", ran.stdout, ran.stderr)))
    }

    /// Waits until all replicas report the same certified height and root, and returns that status.
    #[track_caller]
    pub fn settle(&self) -> Value {
        let mut last = Value::Null;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(40) {
            let (code, status) = self.status();
            if code == 0 && self.agree(&status) {
                return status;
            }
            last = status;
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("the replicas do not come to one height and root: {last:#}");
    }

    fn agree(&self, status: &Value) -> bool {
        let replicas = status["replicas"].as_array().unwrap();
        let first = &replicas[0];
        replicas.len() == self.local.indices().count()
            && replicas.iter().all(|replica| {
                replica["certified"] == true
                    && replica["height"] == first["height"]
                    && replica["root"] == first["root"]
            })
    }

    /// The replica that leads.
    #[track_caller]
    pub fn leader(&self) -> u8 {
        let (_, status) = self.status();
        let replicas = status["replicas"].as_array().unwrap();
        let leader = replicas.iter().find(|replica| replica["leading"] == true);
        u8::try_from(
            leader.unwrap_or_else(|| panic!("nobody leads: {status:#}"))["replica"].as_u64().unwrap(),
        )
        .unwrap()
    }

    /// `quorate audit verify` of a replica's directory.
    #[track_caller]
    pub fn audit(&self, directory: &Path) -> Ran {
        let mut command = quorate(["audit", "verify", "--output", "json", "--dir"]);
        run(command.arg(directory).arg("--cluster").arg(self.local.cluster_path()), PATIENCE)
    }

    /// What replicas have logged, for a test that fails.
    pub fn log(&self, replica: u8) -> String {
        std::fs::read_to_string(self.local.replica_directory(replica).join("replica.log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for replica in self.local.indices() {
                let log = self.log(replica);
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("-- replica {replica}, last lines");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
            self.local.kill_all();
        } else {
            self.local.stop_all();
        }
    }
}

/// A mount in a process of its own.
pub struct Mount {
    pub path: PathBuf,
    pub child: Child,
    log: PathBuf,
}

impl Mount {
    /// Runs a shell script in the root of the mount.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        shell(&self.path, script).expect(0).stdout
    }

    /// A path in the mount.
    pub fn at(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    /// Unmounts in order; the process must end well.
    #[track_caller]
    pub fn unmount(mut self) {
        run(quorate(["umount"]).arg(&self.path), PATIENCE).expect(0);
        let child = &mut self.child;
        wait_until("the mount's process has ended", PATIENCE, || child.try_wait().unwrap().is_some());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            detach(&self.path);
            return;
        }
        if std::thread::panicking() {
            eprintln!(
                "-- {}:\n{}",
                self.log.display(),
                std::fs::read_to_string(&self.log).unwrap_or_default()
            );
        }
        detach(&self.path);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > Duration::from_secs(6) {
                let _ = self.child.kill();
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Bytes that do not compress and do not repeat, different for every `seed`.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The sources of this workspace, copied to `directory`: a real tree of some hundred files.
#[track_caller]
pub fn copy_sources(directory: &Path) -> usize {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let script = format!(
        "mkdir -p {to} && tar -C {from} --exclude=./target --exclude=./vendor --exclude=./.git -cf - . | tar -C {to} -xf - \
         && find {to} -type f | wc -l",
        from = workspace.display(),
        to = directory.display()
    );
    let count = shell(Path::new("/"), &script).expect(0).stdout.trim().parse().unwrap();
    assert!(count > 200, "only {count} files");
    count
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_all_that_it_has_started() {
    let home = tempfile::tempdir().unwrap();
    let script = "setsid sleep 60 & echo $! > pid; wait";
    let slow = std::panic::catch_unwind(|| {
        let mut command = Command::new("bash");
        run(command.args(["-c", script]).current_dir(home.path()), Duration::from_millis(500))
    });
    assert!(slow.is_err());
    let pid = std::fs::read_to_string(home.path().join("pid")).unwrap();
    let gone = || !Path::new("/proc").join(pid.trim()).join("cwd").exists();
    wait_until("its child is gone", Duration::from_secs(5), gone);
}
