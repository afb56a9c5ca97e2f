//! A cluster that does not answer: whoever is in a call gets away, and who looks at all mounts is not held up.

use crate::harness::{Cluster, PATIENCE, run, shell_within, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_protocol::genesis::Parameters;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

/// Also on a mount that waits for ever. fuser leaves it to us: the kernel does not interrupt a call that it has
/// handed out.
#[test]
fn a_process_in_a_call_that_gets_no_answer_can_be_killed() {
    let cluster = Cluster::start();
    let mount = cluster.mount_with("a", "hard");
    let go = cluster.home().join("go");
    let calls = [
        ("exec mkdir new", Signal::SIGKILL),
        ("exec mkdir new", Signal::SIGINT),
        ("exec cat file", Signal::SIGTERM),
        ("exec ls -l", Signal::SIGINT),
        // Killed in fsync with a file that is still dirty when the process ends.
        ("exec 3>>file && echo more >&3 && exec sync file", Signal::SIGKILL),
    ];
    let mut children = Vec::new();
    for (number, (call, _)) in calls.iter().enumerate() {
        // Each in a directory of its own: in one and the same, the kernel lets the second wait for the first.
        let directory = mount.at(&number.to_string());
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("file"), "x").unwrap();
        let script = format!("until test -e {}; do sleep 0.05; done; {call}", go.display());
        children.push(Command::new("bash").args(["-c", &script]).current_dir(&directory).spawn().unwrap());
    }
    std::thread::sleep(Duration::from_millis(300));
    [0, 1].iter().for_each(|replica| cluster.local.pause(*replica).unwrap());
    fs::write(&go, "").unwrap();
    std::thread::sleep(Duration::from_secs(2));
    for (child, (call, signal)) in children.iter_mut().zip(calls) {
        assert!(child.try_wait().unwrap().is_none(), "`{call}` has not waited");
        let began = Instant::now();
        send(child, signal);
        let mut status = None;
        wait_until(&format!("`{call}` goes at {signal}"), Duration::from_secs(5), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().signal(), Some(signal as i32), "`{call}` after {:?}", began.elapsed());
    }
    [0, 1].iter().for_each(|replica| cluster.local.resume(*replica).unwrap());
    wait_until("the mount goes on", PATIENCE, || fs::write(mount.at("after"), "x").is_ok());
}

#[test]
fn df_of_all_mounts_is_not_held_up() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    fs::write(mount.at("file"), "x").unwrap();
    [0, 1].iter().for_each(|replica| cluster.local.pause(*replica).unwrap());
    std::thread::sleep(Duration::from_millis(1500));
    let began = Instant::now();
    let listed = shell_within(cluster.home(), "df --output=target", Duration::from_secs(10));
    let asked = run(Command::new("df").arg(&mount.path), Duration::from_secs(10));
    let took = began.elapsed();
    [0, 1].iter().for_each(|replica| cluster.local.resume(*replica).unwrap());
    assert!(listed.stdout.contains("mount-a"), "{listed:?}");
    asked.expect(0);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// The mount is stopped, as in a laptop that sleeps, for longer than its session lives.
#[test]
fn a_mount_that_slept_for_longer_than_its_session_lives_goes_on() {
    let parameters = Parameters { session_lifetime: 1_000_000_000, ..Parameters::default() };
    let cluster = Cluster::start_with(parameters);
    let (sleeper, other) = (cluster.mount("a"), cluster.mount("b"));
    fs::write(sleeper.at("kept"), "kept").unwrap();
    let kept = OpenOptions::new().read(true).write(true).open(sleeper.at("kept")).unwrap();
    let mut dirty = File::create(sleeper.at("dirty")).unwrap();
    dirty.write_all(&crate::harness::noise(1, 100_000)).unwrap();
    send(&sleeper.child, Signal::SIGSTOP);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(27) {
        fs::write(other.at("tick"), "x").unwrap();
        std::thread::sleep(Duration::from_millis(500));
    }
    send(&sleeper.child, Signal::SIGCONT);
    // The first call of all works, and every kind of it does.
    fs::create_dir(sleeper.at("first")).unwrap();
    kept.set_len(2).unwrap();
    dirty.sync_all().unwrap();
    assert!(fs::read(other.at("dirty")).unwrap() == crate::harness::noise(1, 100_000));
    // What is open is held again.
    fs::remove_file(other.at("kept")).unwrap();
    let mut bytes = [0; 2];
    kept.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"ke");
}
