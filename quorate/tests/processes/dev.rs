//! `quorate dev`: the contract of `--exec`, the layout of its directory, and acting on its replicas.

use crate::harness::{PATIENCE, Ran, mount_type, quorate, run, scratch, wait_until};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

#[track_caller]
fn exec(directory: Option<&Path>, script: &str) -> Ran {
    let mut command = quorate(["dev", "--exec", script]);
    if let Some(directory) = directory {
        command.arg("--dir").arg(directory);
    }
    run(&mut command, PATIENCE)
}

fn processes_of(directory: &Path) -> usize {
    let name = directory.to_str().unwrap().as_bytes().to_owned();
    let ours = |entry: std::io::Result<std::fs::DirEntry>| {
        let line = std::fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        line.windows(name.len()).any(|window| window == name)
    };
    std::fs::read_dir("/proc").unwrap().map(ours).filter(|ours| *ours).count()
}

#[test]
fn exec_gives_the_command_a_mount_and_passes_its_output_and_status() {
    let _scratch = scratch();
    let script = r#"
        pwd
        printf '%s\n' "$QUORATE_DIR" "$QUORATE_CLUSTER" "$QUORATE_KEY"
        stat -f -c %T . >/dev/null
        echo hello > greeting && cat greeting
        echo aside >&2
        test -d "$QUORATE_DIR/replica-3/log"
        quorate=$(tr '\0' '\n' < /proc/$PPID/cmdline | head -n 1)
        "$quorate" status | tail -n 1
        exit 7"#;
    let ran = exec(None, script).expect(7);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let [mount, directory, cluster, key, greeting, healthy] = lines[..] else {
        panic!("standard output is the command's alone: {}", ran.stdout)
    };
    assert_eq!(mount, format!("{directory}/mount"));
    assert_eq!(cluster, format!("{directory}/cluster.toml"));
    assert_eq!(key, format!("{directory}/admin.key"));
    assert_eq!(greeting, "hello");
    assert!(healthy.starts_with("healthy"), "{healthy}");
    assert!(ran.stderr.contains("aside"));
    // A temporary cluster is gone afterwards, with its processes and its mount.
    let directory = Path::new(directory);
    assert!(!directory.exists());
    assert_eq!(processes_of(directory), 0);
    assert_eq!(mount_type(Path::new(mount)), None);
}

/// Nothing answers in the mount while all replicas are down; whoever acts on them must not ask there, and replicas
/// that are started there must not stay there. Otherwise the outage outlasts the patience of the writer.
#[test]
fn all_replicas_are_killed_and_started_again_from_within_the_mount() {
    let script = r#"
        quorate=$(tr '\0' '\n' < /proc/$PPID/cmdline | head -n 1)
        for file in $(seq 1 1000); do echo "$file" > "file-$file" || exit 1; [ ! -e over ] || exit 0; done & writer=$!
        sleep 0.5
        for round in 1 2; do
          for replica in 0 1 2 3; do "$quorate" dev kill $replica || exit 1; done
          for replica in 0 1 2 3; do "$quorate" dev start $replica || exit 1; done
        done
        touch over && wait $writer"#;
    let _scratch = scratch();
    exec(None, script).expect(0);
}

#[test]
fn a_directory_has_the_layout_of_the_design_and_is_started_again_with_its_files() {
    let scratch = scratch();
    let directory = scratch.path().join("cluster");
    exec(Some(&directory), "mkdir kept && echo 1 > kept/file && ln -s kept/file link").expect(0);
    for name in [
        "cluster.toml",
        "admin.key",
        "replica-0/log",
        "replica-0/state",
        "replica-0/blocks",
        "replica-3/replica.log",
    ] {
        assert!(directory.join(name).exists(), "{name}");
    }
    assert_eq!(processes_of(&directory), 0);
    let ran = exec(Some(&directory), "cat link && echo 2 >> kept/file && kill -TERM $$").expect(128 + 15);
    assert_eq!(ran.stdout, "1\n");
    assert_eq!(exec(Some(&directory), "cat kept/file").expect(0).stdout, "1\n2\n");
}

#[test]
fn its_own_failures_are_125_and_leave_nothing_running() {
    let scratch = scratch();
    let busy = scratch.path().join("busy");
    std::fs::create_dir(&busy).unwrap();
    std::fs::write(busy.join("file"), "in the way").unwrap();
    let directory = scratch.path().join("cluster");
    let mut command = quorate(["dev", "--exec", "echo never", "--dir"]);
    let ran = run(command.arg(&directory).arg("--mount").arg(&busy), PATIENCE).expect(125);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("not empty"), "{}", ran.stderr);
    assert_eq!(processes_of(&directory), 0);
    let ran = run(&mut quorate(["dev", "--replicas", "3", "--exec", "true"]), PATIENCE);
    ran.expect_one_line(125, &["3 replicas", "4"]);
}

#[test]
fn it_runs_until_interrupted_and_replicas_are_acted_upon_meanwhile() {
    let scratch = scratch();
    let directory = scratch.path().join("cluster");
    let mut child = quorate(["dev", "--dir"])
        .arg(&directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mount = directory.join("mount");
    wait_until("the mount is there", PATIENCE, || mount_type(&mount).is_some());
    let act = |action: &str, replica: &str| {
        run(quorate(["dev", action, replica, "--dir"]).arg(&directory), PATIENCE)
    };
    let running = || (0..4).filter(|n| pid(&directory.join(format!("replica-{n}"))).is_some()).count();
    assert_eq!(running(), 4);
    act("kill", "0").expect(0);
    assert_eq!(running(), 3);
    act("kill", "0").expect_one_line(1, &["replica 0 does not run"]);
    std::fs::write(mount.join("with-three"), "x").unwrap();
    // Nobody restarts it but this.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(running(), 3);
    act("start", "0").expect(0);
    act("start", "0").expect_one_line(1, &["replica 0 runs already"]);
    act("pause", "1").expect(0);
    std::fs::write(mount.join("with-one-paused"), "x").unwrap();
    act("continue", "1").expect(0);
    act("stop", "2").expect(0);
    std::fs::write(mount.join("with-one-stopped"), "x").unwrap();
    act("start", "2").expect(0);
    act("stop", "9").expect_one_line(1, &["no replica 9", "0 to 3"]);
    assert_eq!(std::fs::read_dir(&mount).unwrap().count(), 3);

    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
    let mut status = None;
    wait_until("dev has ended", Duration::from_secs(20), || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
    assert_eq!(mount_type(&mount), None);
    assert_eq!(processes_of(&directory), 0);
}

/// The process of a replica, if one runs.
fn pid(directory: &Path) -> Option<u32> {
    let pid = std::fs::read_to_string(directory.join("replica.pid")).ok()?.trim().parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    (!stat.rsplit(')').next()?.trim_start().starts_with('Z')).then_some(pid)
}
