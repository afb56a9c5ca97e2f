//! Crashes under load: what reaches the writer, and what is there afterwards.

use crate::harness::{Cluster, PATIENCE, copy_sources, noise, shell_within, wait_until};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Every replica's log holds from genesis on, as does what the live cluster tells.
fn audit_all(cluster: &Cluster) {
    for replica in cluster.local.indices() {
        cluster.audit(&cluster.local.replica_directory(replica)).expect(0);
    }
    cluster.quorate(&["audit", "verify"]).expect(0);
}

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

/// Writes files with fsync until told to stop; counts those that are synced.
fn write_synced(directory: &Path, synced: &AtomicUsize, over: &AtomicBool) {
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        let mut file = File::create_new(directory.join(format!("file-{number}"))).unwrap();
        file.write_all(&content(number)).unwrap();
        file.sync_all().unwrap();
        drop(file);
        number += 1;
        synced.store(number, Ordering::Release);
    }
}

/// Some are small, some go into blocks.
fn content(number: usize) -> Vec<u8> {
    noise(number as u64, if number.is_multiple_of(5) { 200_000 } else { 1000 })
}

#[test]
fn all_replicas_killed_at_once_lose_nothing_that_was_synced() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    let (synced, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let wait_for = |count: usize| {
        wait_until("files are synced", PATIENCE, || synced.load(Ordering::Acquire) >= count);
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_synced(&mount.path, &synced, &over));
        let mut safe = 0;
        for _ in 0..3 {
            wait_for(safe + 25);
            cluster.local.kill_all();
            safe = synced.load(Ordering::Acquire);
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
        wait_for(safe + 25);
        over.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
    let count = synced.load(Ordering::Acquire);
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
