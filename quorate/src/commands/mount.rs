//! `quorate mount` and `quorate umount`.
//!
//! Invariant: in the background, the command returns only when the mount answers or has failed, and shows
//! why; SIGTERM and SIGINT end a mount within seconds whether or not the cluster answers.

use crate::args::{At, MountArgs, UmountArgs};
use crate::commands::against::Against;
use crate::commands::{connect, heights, memory, trust};
use crate::failure::{CommandResult, Failure};
use quorate_audit::{Anchor, Head, HeadFault, Heads};
use quorate_client::{Client, ClientError, ClientOptions, Freshness};
use quorate_client_fuse::{MountError, MountOptions, Mounted, mount};
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Groups, Height};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

pub use quorate_client_fuse::is_mounted;

/// The inode of the tree's root.
const ROOT_INO: u64 = 1;
/// How long a mount in the background may take to come up.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// How long the last write-back may take before an unmount at a signal.
const WRITE_BACK_PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take together with the end of the session: a cluster that does not answer must not keep a
/// mount from ending within five seconds.
const END_PATIENCE: Duration = Duration::from_secs(4);
/// How often waits look.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Mounts.
pub fn run(args: &MountArgs, log: &str) -> CommandResult {
    let options = MountOptions::parse(args.options.as_deref().unwrap_or_default())?;
    if args.foreground { foreground(args, options) } else { background(args, log) }
}

/// Unmounts.
pub fn unmount(args: &UmountArgs) -> CommandResult {
    quorate_client_fuse::unmount(&args.path, false).map_err(|error| {
        Failure::new(format!("{error}; if it is busy, close what is open there (`fuser -vm PATH` shows it)"))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Unmounts, busy or not; no mount is no failure.
pub fn unmount_path(path: &Path) -> Result<(), Failure> {
    if is_mounted(path) {
        quorate_client_fuse::unmount(path, true)?;
    }
    Ok(())
}

fn foreground(args: &MountArgs, options: MountOptions) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Who reads the past changes nothing, which takes no session.
    let session = args.at.is_none();
    let mut client_options =
        ClientOptions { deadline: options.deadline, session, ..ClientOptions::default() };
    if let Some(deadline) = options.deadline {
        client_options.connect_timeout = client_options.connect_timeout.min(deadline);
    }
    let result = runtime.block_on(async {
        let mut client = connect::connect(&args.cluster, client_options).await?;
        check_seen(&client).await?;
        let mut options = options;
        if let Some(at) = args.at {
            let (height, at_height) = past(&client, at).await?;
            client = at_height;
            options = MountOptions { read_only: true, past: Some(height), ..options };
        }
        let mounted = mount(client.clone(), runtime.handle().clone(), &args.path, options)?;
        until_over(&mounted).await?;
        let end = tokio::time::Instant::now() + END_PATIENCE;
        let patience = tokio::time::timeout(WRITE_BACK_PATIENCE, mounted.write_back());
        if patience.await.is_err() {
            tracing::warn!("the cluster does not answer: what was written last and not synced is lost");
        }
        mounted.unmount()?;
        // What is not told to the cluster now, it finds out when the session expires.
        let _ = tokio::time::timeout_at(end, client.close()).await;
        Ok(ExitCode::SUCCESS)
    });
    // Tasks that still wait for the cluster are dropped; their callers get EIO.
    runtime.shutdown_background();
    result
}

/// Refuses a cluster that does not go on from what was seen of it before, and remembers what it shows now. Its session
/// was registered a moment ago, so its head is above whatever was seen of it.
async fn check_seen(client: &Client) -> Result<(), Failure> {
    let genesis = client.cluster().genesis();
    let seen = memory::recall(genesis)?;
    let credential = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
    let answer = client.prove(&credential, Query::Totals, None).await?;
    let head = Head { header: answer.header, certificate: answer.certificate };
    if let Some(seen) = &seen {
        let told = stands(client, &seen.head, &head).await?;
        if told.is_alarm() {
            return Err(Failure::new(format!(
                "{}; `quorate audit compare` looks closer, `quorate audit seen --forget` accepts it",
                told.to_string().replace('\n', "; ")
            )));
        }
        if let Against::CannotTell(why) = told {
            tracing::info!("it cannot be told whether the cluster has forked below what was seen: {why}");
        }
    }
    memory::remember(genesis, &Anchor { cluster: genesis.cluster(), head, log: None });
    Ok(())
}

/// How the head of a cluster stands to one that was seen.
async fn stands(client: &Client, seen: &Head, shown: &Head) -> Result<Against, Failure> {
    let genesis = client.cluster().genesis();
    let verifier = trust::verifier(genesis);
    let mut heads = Heads::new(genesis, &verifier);
    let height = seen.header.height;
    let mut known = vec![seen.clone(), shown.clone()];
    if height > shown.header.height {
        let [seen, shown] = [seen, shown].map(|head| Box::new(head.clone()));
        return Ok(Against::RolledBack { seen, shown });
    }
    if (1..shown.header.height).contains(&height) {
        // Who may not audit is not shown the history.
        match client.history(height).await {
            Ok(batches) => known.extend(batches.first().map(Head::of)),
            Err(error) => return Ok(Against::CannotTell(error.to_string())),
        }
    }
    for head in &known {
        match heads.add(head) {
            Ok(()) => {}
            Err(HeadFault::Fork(fork)) => return Ok(Against::Forked(fork)),
            Err(error @ HeadFault::NoHead(_)) => return Err(error.into()),
        }
    }
    Ok(Against::Holds)
}

/// The same client for one height, which some replica keeps.
async fn past(client: &Client, at: At) -> Result<(Height, Client), Failure> {
    let header = heights::find(&client.observer(), at).await?;
    tracing::info!(height = header.height, time = heights::text(header.time), "a past height is mounted");
    let past = client.at(header.height);
    let root = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
    // An errno is an answer: that user may not look at the root.
    match past.read(&root, Query::Attributes { ino: ROOT_INO }, Freshness::Floor).await {
        Ok(_) | Err(ClientError::Errno(_)) => Ok((header.height, past)),
        Err(error) => Err(heights::unreadable(header.height, error)),
    }
}

/// Returns when somebody unmounted it, or at SIGTERM or SIGINT.
async fn until_over(mounted: &Mounted) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut look = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = look.tick() => {
                if mounted.is_over() {
                    return Ok(());
                }
            }
        }
    }
}

/// Starts the same command in the foreground, in a session of its own, and waits until it is ready.
fn background(args: &MountArgs, log: &str) -> CommandResult {
    if is_mounted(&args.path) {
        // The table would show that mount, and not that ours has failed.
        return Err(MountError::Mounted(args.path.clone()).into());
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--log", log, "mount", "--foreground"]).arg(&args.path);
    command.arg("--cluster").arg(&args.cluster.cluster).arg("--key").arg(&args.cluster.key);
    if let Some(options) = &args.options {
        command.arg("-o").arg(options);
    }
    if let Some(at) = args.at {
        command.arg("--at").arg(at.to_string());
    }
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let began = Instant::now();
    loop {
        if is_mounted(&args.path) {
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(status) = child.try_wait()? {
            let mut words = String::new();
            if let Some(mut errors) = child.stderr.take() {
                let _ = errors.read_to_string(&mut words);
            }
            // Its last word; what it logged before is for those who look closer in the foreground.
            let last = words.lines().rev().find_map(|line| line.strip_prefix("quorate: "));
            return Err(Failure::new(
                last.map_or_else(|| format!("the mount failed ({status})"), str::to_owned),
            ));
        }
        if began.elapsed() > READY_PATIENCE {
            let _ = child.kill();
            return Err(Failure::new(
                "the mount did not come up in time; `quorate status` says how the cluster is",
            ));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}
