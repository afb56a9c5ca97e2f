//! `quorate dev`: a whole cluster on this machine, mounted, until interrupted or until a command ends.
//!
//! Invariant: whatever ends it, an error included, the mount is taken away and every replica is stopped;
//! with `--exec` standard output belongs to the command alone. Nobody restarts a killed replica but
//! `quorate dev start`.

use crate::args::{DevAction, DevArgs};
use crate::commands::memory;
use crate::commands::mount::{is_mounted, unmount_path};
use crate::failure::{CommandResult, Failure};
use quorate_cluster::LocalCluster;
use quorate_protocol::genesis::Parameters;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Exit status of `dev` for its own failures, as opposed to those of the command that it runs.
const OWN_FAILURE: u8 = 125;
/// How long the cluster and the mount may take to come up.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// How often waits look.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long released blocks are kept in a cluster on one machine, in nanoseconds.
const DEV_BLOCK_GRACE: u64 = 2_000_000_000;

/// Set by SIGINT and SIGTERM.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Runs a cluster, or acts on one of its replicas.
pub fn run(args: DevArgs, log: &str) -> CommandResult {
    match &args.action {
        Some(action) => act(action),
        None => run_cluster(&args, log).map_err(|failure| failure.with_code(OWN_FAILURE)),
    }
}

fn act(action: &DevAction) -> CommandResult {
    let (DevAction::Start(target)
    | DevAction::Stop(target)
    | DevAction::Kill(target)
    | DevAction::Pause(target)
    | DevAction::Continue(target)) = action;
    let cluster = LocalCluster::open(&target.dir, &own_program()?)?;
    let replica = target.replica;
    let done = match action {
        DevAction::Start(_) => cluster.start(replica).map(|()| "started"),
        DevAction::Stop(_) => cluster.stop(replica).map(|()| "stopped"),
        DevAction::Kill(_) => cluster.kill(replica).map(|()| "killed"),
        DevAction::Pause(_) => cluster.pause(replica).map(|()| "paused"),
        DevAction::Continue(_) => cluster.resume(replica).map(|()| "continued"),
    }?;
    eprintln!("replica {replica} {done}");
    Ok(ExitCode::SUCCESS)
}

fn own_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::new(format!("cannot find the quorate program: {error}")))
}

/// A running cluster with its mount; dropping it takes everything away.
struct Running {
    cluster: LocalCluster,
    mount: PathBuf,
    mounted: Option<Child>,
    #[cfg(feature = "faults")]
    network: Option<network::Worse>,
    // Removed last, when everything in it has stopped.
    _temporary: Option<tempfile::TempDir>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.mounted.take() {
            if let Err(failure) = unmount_path(&self.mount) {
                eprintln!("quorate: {}", failure.text);
            }
            wait_or_kill(&mut child, Duration::from_secs(10));
        }
        self.cluster.stop_all();
        #[cfg(feature = "faults")]
        if self.network.take().is_some()
            && let Err(error) = self.cluster.restore_addresses()
        {
            eprintln!("quorate: {error}");
        }
    }
}

fn wait_or_kill(child: &mut Child, patience: Duration) {
    let began = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if began.elapsed() > patience {
            let _ = child.kill();
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Lets nothing that is started from here on interrupt another process merely because it was woken
/// (SCHED_BATCH, sched(7)): five processes share few cores, and with fewer turns more messages wait for each.
/// Measured as a tenth more operations. By util-linux's chrt, since the system call has no safe binding that
/// leaves niceness alone; where it cannot be had the cluster is slower, and right.
fn take_turns() {
    let pid = std::process::id().to_string();
    let done = Command::new("chrt").args(["--batch", "--pid", "0", &pid]).stdin(Stdio::null()).output();
    match done {
        Ok(output) if output.status.success() => {}
        Ok(output) => tracing::debug!(status = %output.status, "the scheduling policy stays as it is"),
        Err(error) => tracing::debug!(%error, "the scheduling policy stays as it is"),
    }
}

fn run_cluster(args: &DevArgs, log: &str) -> CommandResult {
    catch_signals()?;
    take_turns();
    let program = own_program()?;
    let temporary = match args.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("quorate-dev-").tempdir()?),
    };
    let directory = match (&args.dir, &temporary) {
        (Some(directory), _) => std::path::absolute(directory)?,
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err(Failure::new("no directory")),
    };
    let mut cluster = open_or_create(args, &directory, &program)?;
    for replica in cluster.indices() {
        cluster.set_arguments(replica, args.keep.arguments().to_vec());
    }
    let mount = match &args.mount {
        Some(path) => std::path::absolute(path)?,
        None => directory.join("mount"),
    };
    std::fs::create_dir_all(&mount)
        .map_err(|error| Failure::new(format!("cannot make the mount point {}: {error}", mount.display())))?;
    let began = Instant::now();
    #[cfg(feature = "faults")]
    let (cluster, network) = network::worsen(with_faults(cluster, args)?, &args.network)?;
    let mut running = Running {
        cluster,
        mount,
        mounted: None,
        #[cfg(feature = "faults")]
        network,
        _temporary: temporary,
    };
    running.cluster.start_all()?;
    mount_cluster(&mut running, args, log, &program)?;
    describe(&running, began.elapsed());
    match &args.exec {
        Some(command) => execute(&running, command),
        None => wait_for_interrupt(&mut running),
    }
}

fn open_or_create(args: &DevArgs, directory: &Path, program: &Path) -> Result<LocalCluster, Failure> {
    if directory.join(quorate_replica::layout::CLUSTER_FILE).exists() {
        let mut cluster = LocalCluster::open(directory, program)?;
        // Of a run with a worse network that was killed.
        #[cfg(feature = "faults")]
        cluster.restore_addresses()?;
        cluster.refresh_ports()?;
        return Ok(cluster);
    }
    let parameters = Parameters { block_grace: DEV_BLOCK_GRACE, ..Parameters::default() };
    let owner = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    Ok(LocalCluster::create(directory, program, args.replicas, parameters, owner)?)
}

/// Has these replicas started as faulty ones, and says so.
#[cfg(feature = "faults")]
fn with_faults(mut cluster: LocalCluster, args: &DevArgs) -> Result<LocalCluster, Failure> {
    let n = cluster.indices().count();
    for (replica, fault) in &args.faults {
        if usize::from(*replica) >= n {
            let last = n.saturating_sub(1);
            return Err(Failure::new(format!(
                "there is no replica {replica}: this cluster has replicas 0 to {last}"
            )));
        }
        let mut arguments = args.keep.arguments().to_vec();
        arguments.extend(["--fault".into(), fault.to_string().into()]);
        cluster.set_arguments(*replica, arguments);
        eprintln!("quorate: replica {replica} is faulty on purpose: {fault}");
    }
    Ok(cluster)
}

/// A network that is worse on purpose.
#[cfg(feature = "faults")]
mod network {
    use super::{Failure, LocalCluster, POLL_INTERVAL};
    use quorate_cluster::network::{Network, Rule};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::JoinHandle;
    use std::time::Instant;

    /// Applies rules when their time has come, until it is dropped.
    pub(super) struct Worse {
        over: Arc<AtomicBool>,
        thread: Option<JoinHandle<()>>,
    }

    impl Drop for Worse {
        fn drop(&mut self) {
            self.over.store(true, Ordering::Relaxed);
            if let Some(thread) = self.thread.take() {
                // It says why itself if it panics.
                let _ = thread.join();
            }
        }
    }

    /// Puts relays into every link if there are rules.
    pub(super) fn worsen(
        mut cluster: LocalCluster,
        rules: &[Rule],
    ) -> Result<(LocalCluster, Option<Worse>), Failure> {
        if rules.is_empty() {
            return Ok((cluster, None));
        }
        let network = Network::between(&mut cluster)?;
        let over = Arc::new(AtomicBool::new(false));
        let (rules, stop, began) = (rules.to_vec(), Arc::clone(&over), Instant::now());
        let thread = std::thread::Builder::new().name("network".to_owned()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                network.apply(&rules, began.elapsed());
                std::thread::sleep(POLL_INTERVAL);
            }
        })?;
        eprintln!("quorate: the network is worse on purpose");
        Ok((cluster, Some(Worse { over, thread: Some(thread) })))
    }
}

/// Where it is remembered what was seen of this cluster: with it, because it may be gone in a moment.
fn seen_path(running: &Running) -> PathBuf {
    running.cluster.directory().join("seen")
}

/// Starts `quorate mount --foreground` and waits until the mount answers.
fn mount_cluster(running: &mut Running, args: &DevArgs, log: &str, program: &Path) -> Result<(), Failure> {
    let mut command = Command::new(program);
    command.args(["--log", log, "mount", "--foreground"]).arg(&running.mount);
    command.arg("--cluster").arg(running.cluster.cluster_path());
    command.arg("--key").arg(running.cluster.key_path()).env(memory::VARIABLE, seen_path(running));
    if let Some(options) = &args.options {
        command.arg("-o").arg(options);
    }
    // A group of its own: Ctrl-C is for `dev`, which unmounts in order.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let began = Instant::now();
    loop {
        if is_mounted(&running.mount) {
            running.mounted = Some(child);
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            running.cluster.check_alive()?;
            return Err(Failure::new(format!("the mount failed ({status}), see the line above")));
        }
        running.cluster.check_alive()?;
        if began.elapsed() > READY_PATIENCE || INTERRUPTED.load(Ordering::Relaxed) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::new("the cluster did not come up in time; see replica.log of each replica"));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn describe(running: &Running, took: Duration) {
    let members = running.cluster.file().members();
    let directory = running.cluster.directory().display();
    eprintln!(
        "quorate: {} replicas and a mount are up after {} ms; {} faulty replicas are survived",
        members.n(),
        took.as_millis(),
        members.f()
    );
    eprintln!("  mount    {}", running.mount.display());
    eprintln!("  cluster  {}", running.cluster.cluster_path().display());
    eprintln!("  key      {}", running.cluster.key_path().display());
    eprintln!("  try      quorate dev kill 0 --dir {directory}");
}

/// Runs the command in the mount; its status is ours.
fn execute(running: &Running, command: &str) -> CommandResult {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .current_dir(&running.mount)
        .env("QUORATE_DIR", running.cluster.directory())
        .env("QUORATE_CLUSTER", running.cluster.cluster_path())
        .env("QUORATE_KEY", running.cluster.key_path())
        .env(memory::VARIABLE, seen_path(running))
        .spawn()
        .map_err(|error| Failure::new(format!("cannot run the command: {error}")))?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(ExitCode::from(status_code(status)));
        }
        if INTERRUPTED.load(Ordering::Relaxed) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::new("interrupted"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As a shell reports it: 128 plus the signal for a command that was killed.
fn status_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

fn wait_for_interrupt(running: &mut Running) -> CommandResult {
    eprintln!("quorate: running until interrupted (Ctrl-C)");
    while !INTERRUPTED.load(Ordering::Relaxed) {
        if let Some(child) = &mut running.mounted
            && let Ok(Some(status)) = child.try_wait()
        {
            running.mounted = None;
            return Err(Failure::new(format!("the mount ended ({status})")));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    eprintln!("quorate: stopping");
    Ok(ExitCode::SUCCESS)
}

/// Turns SIGINT and SIGTERM into a flag that every wait looks at.
fn catch_signals() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        });
    })?;
    Ok(())
}
