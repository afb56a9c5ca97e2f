//! A cluster by hand, as on four hosts: init, replica, mount, umount, status, key; and what each of them
//! does while replicas are missing.

use crate::harness::{Cluster, PATIENCE, mount_type, quorate, run, scratch, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Processes that are killed, and a mount that is taken away, when a test fails half-way.
struct Started {
    replicas: Vec<Child>,
    mount: PathBuf,
}

impl Drop for Started {
    fn drop(&mut self) {
        if mount_type(&self.mount).is_some() {
            let _ = run(std::process::Command::new("umount").arg("-l").arg(&self.mount), PATIENCE);
        }
        for replica in &mut self.replicas {
            let _ = replica.kill();
            let _ = replica.wait();
        }
    }
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn init_replica_mount_status_and_key_by_hand() {
    let scratch = scratch();
    let out = scratch.path().join("cluster");
    let addresses = quorate_cluster::ports::free_addresses(4).unwrap().join(",");
    let init = || run(quorate(["init", "--replicas", &addresses, "--out"]).arg(&out), PATIENCE);
    let ran = init().expect(0);
    assert!(ran.stdout.contains("survives 1 faulty"), "{}", ran.stdout);
    init().expect_one_line(1, &["holds a cluster already"]);
    let replicas = (0..4)
        .map(|number| {
            let log = std::fs::File::create(scratch.path().join(format!("{number}.log"))).unwrap();
            quorate(["replica", "--dir"])
                .arg(out.join(format!("replica-{number}")))
                .stderr(log)
                .spawn()
                .unwrap()
        })
        .collect();

    let mount = scratch.path().join("mnt");
    std::fs::create_dir(&mount).unwrap();
    let mut started = Started { replicas, mount: mount.clone() };
    let cluster = out.join("cluster.toml");
    let key = out.join("admin.key");
    let with_cluster = |arguments: &[&str]| {
        let mut command = quorate(arguments);
        command.env("QUORATE_CLUSTER", &cluster).env("QUORATE_KEY", &key);
        command
    };
    // In the background: the command returns when the mount answers.
    let ran = run(with_cluster(&["--log", "debug", "mount"]).arg(&mount), PATIENCE).expect(0);
    assert_eq!(ran.stdout, "");
    std::fs::write(mount.join("file"), "content").unwrap();
    assert_eq!(std::fs::read_to_string(mount.join("file")).unwrap(), "content");
    run(with_cluster(&["mount"]).arg(&mount), PATIENCE)
        .expect_one_line(1, &["mount point already", "umount"]);

    let text = run(&mut with_cluster(&["status"]), PATIENCE).expect(0).stdout;
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(text.contains("leader") && text.contains("follower"), "{text}");
    assert!(
        text.lines().last().unwrap().starts_with("healthy: all 4 replicas vote; any 1 may fail"),
        "{text}"
    );

    let fresh = scratch.path().join("new.key");
    let made = run(quorate(["key", "new"]).arg(&fresh), PATIENCE).expect(0).stdout;
    let shown = run(quorate(["key", "show"]).arg(&fresh), PATIENCE).expect(0).stdout;
    assert_eq!(made, shown);
    run(quorate(["key", "new"]).arg(&fresh), PATIENCE).expect_one_line(1, &["exist"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&fresh).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!shown.contains(std::fs::read_to_string(&fresh).unwrap().trim()));

    // The way there does not matter.
    std::os::unix::fs::symlink(scratch.path(), scratch.path().join("link")).unwrap();
    let around = scratch.path().join("link/link/../").join(scratch.path().file_name().unwrap()).join("mnt");
    run(quorate(["umount"]).arg(&around), PATIENCE).expect(0);
    assert_eq!(mount_type(&mount), None);
    run(with_cluster(&["mount"]).arg(scratch.path().join("link/mnt")), PATIENCE).expect(0);
    assert_eq!(std::fs::read_to_string(mount.join("file")).unwrap(), "content");

    // A busy mount says so; an idle one goes, and a second time there is nothing to unmount.
    let held = std::fs::File::open(mount.join("file")).unwrap();
    run(quorate(["umount"]).arg(&mount), PATIENCE).expect_one_line(1, &["busy"]);
    drop(held);
    run(quorate(["umount"]).arg(&mount), PATIENCE).expect(0);
    assert_eq!(mount_type(&mount), None);
    run(quorate(["umount"]).arg(&mount), PATIENCE).expect_one_line(1, &["nothing of quorate is mounted"]);

    for replica in &started.replicas {
        send(replica, Signal::SIGTERM);
    }
    for replica in &mut started.replicas {
        let mut status = None;
        wait_until("a replica ends at SIGTERM", Duration::from_secs(10), || {
            status = replica.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success());
    }
}

#[test]
fn mount_helper_name_is_understood() {
    let cluster = Cluster::start();
    let helper = cluster.home().join("mount.quorate");
    std::os::unix::fs::symlink(crate::harness::PROGRAM, &helper).unwrap();
    let path = cluster.home().join("fstab");
    std::fs::create_dir(&path).unwrap();
    // As mount(8) calls it for a line of fstab.
    let options = format!("rw,noatime,_netdev,timeo=20,key={}", cluster.local.key_path().display());
    let mut command = std::process::Command::new(&helper);
    command.arg(cluster.local.cluster_path()).arg(&path).args(["-o", &options]);
    run(&mut command, PATIENCE).expect(0);
    std::fs::write(path.join("x"), "x").unwrap();
    run(quorate(["umount"]).arg(&path), PATIENCE).expect(0);
}

#[test]
fn status_tells_degraded_from_no_quorum_and_mounts_survive_both() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount_with("soft", "soft,timeo=2");
    std::fs::write(mount.at("before"), "x").unwrap();
    let status = cluster.settle();
    assert_eq!(status["verdict"], "healthy");
    assert_eq!(status["survives"], 1);

    cluster.local.kill(3).unwrap();
    std::fs::write(mount.at("with-three"), "x").unwrap();
    let (code, status) = cluster.status();
    assert_eq!((code, &status["verdict"]), (1, &"degraded".into()), "{status:#}");
    assert!(status["replicas"][3]["error"].is_string());

    cluster.local.kill(2).unwrap();
    let (code, status) = cluster.status();
    assert_eq!((code, &status["verdict"]), (2, &"no quorum".into()), "{status:#}");
    // Changes and lookups fail after the deadline, not for ever, and with a clear errno.
    let began = Instant::now();
    let error = std::fs::write(mount.at("without"), "x").unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Other) || error.raw_os_error() == Some(5),
        "{error:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(nix::sys::statvfs::statvfs(&mount.path).is_ok(), "statfs never waits for a quorum");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    // Back with a quorum, the same mount goes on.
    cluster.local.start(2).unwrap();
    wait_until("writes work again", Duration::from_secs(20), || {
        std::fs::write(mount.at("again"), "x").is_ok()
    });
    assert_eq!(std::fs::read_to_string(mount.at("before")).unwrap(), "x");

    // Without one again: SIGTERM ends the mount at once, also with data that cannot be written back.
    let mut dirty = Vec::new();
    for number in 0..3 {
        dirty.push(std::fs::File::create(mount.at(&format!("dirty-{number}"))).unwrap());
    }
    cluster.local.kill(2).unwrap();
    for file in &mut dirty {
        std::io::Write::write_all(file, b"lost").unwrap();
    }
    let path = mount.at("pending");
    let pending = std::thread::spawn(move || std::fs::write(path, "x"));
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    send(&mount.child, Signal::SIGTERM);
    let child = &mut mount.child;
    wait_until("the mount ends at SIGTERM", Duration::from_secs(5), || child.try_wait().unwrap().is_some());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(pending.join().unwrap().is_err());
    assert_eq!(mount_type(&mount.path), None);
}

#[test]
fn umount_does_not_wait_for_a_quorum() {
    let cluster = Cluster::start();
    let mount = cluster.mount("plain");
    std::fs::write(mount.at("before"), "x").unwrap();
    cluster.local.kill_all();
    let began = Instant::now();
    mount.unmount();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_mount_without_a_quorum_says_so_and_status_needs_none() {
    let cluster = Cluster::create();
    cluster.local.start(0).unwrap();
    let (code, status) = cluster.status();
    assert_eq!(code, 2, "{status:#}");
    let path = cluster.home().join("mnt");
    std::fs::create_dir(&path).unwrap();
    let mut command = quorate(["mount"]);
    command.arg(&path).args(cluster.arguments()).args(["-o", "timeo=2"]).stdin(Stdio::null());
    run(&mut command, PATIENCE).expect_one_line(1, &[]);
    assert_eq!(mount_type(Path::new(&path)), None);
}
