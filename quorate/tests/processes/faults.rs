//! Crashes under load: what reaches the writer, and what is there afterwards.

use crate::harness::{Cluster, PATIENCE, copy_sources, noise, shell_within, wait_until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Every replica's log holds from genesis on, as does what the live cluster tells.
fn audit_all(cluster: &Cluster) {
    for replica in cluster.local.indices() {
        cluster.audit(&cluster.local.replica_directory(replica)).expect(0);
    }
    cluster.quorate(&["audit", "verify"]).expect(0);
}

/// PR12: a replica that stood still goes on and catches up.
#[test]
fn a_killed_leader_and_a_paused_follower_do_not_reach_the_writer() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    let source = cluster.home().join("source");
    copy_sources(&source);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // Copies again and again until both faults are over, so that each hits a copy at work.
            let mut round = 0;
            while !over.load(Ordering::Relaxed) || round == 0 {
                let script = format!("cp -a {} copy-{round}", source.display());
                let ran = shell_within(&mount.path, &script, Duration::from_secs(80));
                assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "no error reaches the writer");
                round += 1;
            }
            round
        });
        let entries = || fs::read_dir(&mount.path).map_or(0, Iterator::count);
        wait_until("the copy is at work", PATIENCE, || entries() > 0);
        std::thread::sleep(Duration::from_millis(700));
        let leader = cluster.leader();
        cluster.local.kill(leader).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        cluster.local.start(leader).unwrap();
        wait_until("the killed one votes again", PATIENCE, || cluster.status().0 == 0);
        let paused = (leader + 2) % 4;
        cluster.local.pause(paused).unwrap();
        std::thread::sleep(Duration::from_secs(10));
        cluster.local.resume(paused).unwrap();
        over.store(true, Ordering::Relaxed);
        let rounds = writer.join().unwrap();
        for round in 0..rounds {
            let script = format!("diff -r {} copy-{round}", source.display());
            shell_within(&mount.path, &script, PATIENCE).expect(0);
        }
    });
    cluster.settle();
    audit_all(&cluster);
}

/// Files that are copied again and again, with fsync: some are small, some go into blocks.
const CONTENTS: usize = 10;

fn content(number: usize) -> Vec<u8> {
    let number = number % CONTENTS;
    noise(number as u64, if number.is_multiple_of(5) { 200_000 } else { 1000 })
}

/// A process that writes files with fsync until it is told to stop, and notes each one that is synced.
///
/// It is a process of its own, because the start of a replica from one that has files open in the mount would
/// wait for them to be flushed.
struct Writer {
    child: Child,
    home: PathBuf,
}

impl Writer {
    fn start(home: &Path, mount: &Path) -> Self {
        for number in 0..CONTENTS {
            fs::write(home.join(format!("content-{number}")), content(number)).unwrap();
        }
        let script = format!(
            "number=0
             while [ ! -e {home}/over ]; do
                 dd if={home}/content-$((number % {CONTENTS})) of=file-$number bs=1M conv=fsync,excl status=none || exit 1
                 number=$((number + 1))
                 echo $number > {home}/synced.new && mv {home}/synced.new {home}/synced
             done",
            home = home.display()
        );
        let child = Command::new("sh").args(["-c", &script]).current_dir(mount).spawn().unwrap();
        Self { child, home: home.to_owned() }
    }

    /// How many files are synced.
    fn synced(&self) -> usize {
        fs::read_to_string(self.home.join("synced"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    fn wait_for(&mut self, count: usize) {
        wait_until("files are synced", PATIENCE, || {
            assert!(self.child.try_wait().unwrap().is_none(), "an error has reached the writer");
            self.synced() >= count
        });
    }

    fn stop(mut self) -> usize {
        fs::write(self.home.join("over"), "").unwrap();
        let child = &mut self.child;
        wait_until("the writer has ended", PATIENCE, || child.try_wait().unwrap().is_some());
        assert!(self.child.wait().unwrap().success(), "no error reaches the writer");
        self.synced()
    }
}

#[test]
fn all_replicas_killed_at_once_lose_nothing_that_was_synced() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    let mut writer = Writer::start(cluster.home(), &mount.path);
    let mut safe = 0;
    for _ in 0..2 {
        writer.wait_for(safe + 25);
        cluster.local.kill_all();
        safe = writer.synced();
        cluster.local.start_all().unwrap();
        // Through another mount: nothing that this one has in memory helps.
        let fresh = cluster.mount("fresh");
        for number in 0..safe {
            let found = fs::read(fresh.at(&format!("file-{number}")));
            assert!(found.unwrap() == content(number), "file-{number} of {safe}");
        }
        fresh.unmount();
    }
    // The first mount carries on, and no error has reached the writer.
    writer.wait_for(safe + 25);
    let count = writer.stop();
    for number in 0..count {
        assert!(fs::read(mount.at(&format!("file-{number}"))).unwrap() == content(number), "file-{number}");
    }
    assert_eq!(fs::read_dir(&mount.path).unwrap().count(), count);
    cluster.settle();
    audit_all(&cluster);
}

#[test]
fn a_replica_that_was_away_catches_up() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    cluster.local.kill(2).unwrap();
    mount.shell("for i in {1..400}; do echo $i > file-$i; done");
    fs::write(mount.at("large"), noise(1, 8 << 20)).unwrap();
    cluster.local.start(2).unwrap();
    cluster.settle();
    // With another one gone, everything rests on it: votes, state and blocks.
    cluster.local.kill(0).unwrap();
    mount.shell("[ $(cat file-* | sort -n | uniq | wc -l) = 400 ] && echo more > more");
    assert!(fs::read(mount.at("large")).unwrap() == noise(1, 8 << 20));
    cluster.local.start(0).unwrap();
    cluster.settle();
    audit_all(&cluster);
}

#[test]
fn replicas_stop_in_order_and_start_again() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    for round in 0..2 {
        fs::write(mount.at(&format!("round-{round}")), "x").unwrap();
        for replica in cluster.local.indices() {
            cluster.local.stop(replica).unwrap();
            fs::write(mount.at(&format!("without-{replica}-{round}")), "x").unwrap();
            cluster.local.start(replica).unwrap();
            wait_until("it votes again", PATIENCE, || cluster.status().0 == 0);
        }
    }
    assert_eq!(fs::read_dir(&mount.path).unwrap().count(), 10);
    cluster.settle();
}
