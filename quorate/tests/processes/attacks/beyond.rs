//! More faulty replicas than can be survived: nothing is decided until the surplus heals, and nothing forks.

use crate::harness::{Cluster, Mount, PATIENCE, wait_until};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long the surplus lasts: less than the time-out of the mount.
const OUTAGE: Duration = Duration::from_secs(8);

/// Writes numbered files until there are so many; each counts when its close has returned.
fn write_files(mount: &Mount, from: u64, to: u64, written: &AtomicU64) {
    for number in from..to {
        std::fs::write(mount.at(&format!("file-{number}")), format!("{number}\n")).unwrap();
        written.store(number + 1, Ordering::Relaxed);
    }
}

/// The heights that these replicas have committed.
fn heights(cluster: &Cluster, replicas: [usize; 2]) -> Vec<u64> {
    let (_, status) = cluster.status();
    replicas.iter().filter_map(|replica| status["replicas"][replica]["height"].as_u64()).collect()
}

/// While two of four take no part nothing is decided; afterwards the writer, which has noticed nothing but the
/// time, goes on.
#[track_caller]
fn stops_and_goes_on(
    cluster: &mut Cluster,
    alive: [usize; 2],
    take: impl FnOnce(&mut Cluster),
    heal: impl FnOnce(&mut Cluster),
) {
    let mount = cluster.mount("a");
    let written = AtomicU64::new(0);
    write_files(&mount, 0, 20, &written);
    take(cluster);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_files(&mount, 20, 60, &written));
        // What was under way when they stopped may still be decided.
        std::thread::sleep(Duration::from_secs(1));
        let (before, stood) = (heights(cluster, alive), written.load(Ordering::Relaxed));
        assert_eq!(before.len(), 2, "the correct ones answer");
        std::thread::sleep(OUTAGE);
        let after = (heights(cluster, alive), written.load(Ordering::Relaxed));
        assert_eq!(after, (before, stood), "nothing is decided");
        assert!(stood < 60 && !writer.is_finished());
        heal(cluster);
        wait_until("the writer goes on", PATIENCE, || writer.is_finished());
        writer.join().unwrap();
    });
    mount.shell("[ $(cat file-* | sort -n | uniq | wc -l) = 60 ]");
    cluster.settle();
    for replica in cluster.local.indices() {
        cluster.audit(&cluster.local.replica_directory(replica)).expect(0);
        let log = cluster.log(replica);
        assert!(!log.contains("faulty replicas") && !log.contains("panicked"), "{log}");
    }
}

#[test]
fn two_of_four_silent_stop_the_cluster_until_one_heals() {
    let mut cluster = Cluster::start();
    let restart = |cluster: &mut Cluster, replica: u8, arguments: &[&str]| {
        cluster.local.kill(replica).unwrap();
        let arguments = arguments.iter().map(Into::into).collect();
        cluster.local.set_arguments(replica, arguments);
        cluster.local.start(replica).unwrap();
    };
    stops_and_goes_on(
        &mut cluster,
        [0, 1],
        |cluster| (2..4).for_each(|replica| restart(cluster, replica, &["--fault", "silent"])),
        |cluster| {
            restart(cluster, 2, &[]);
            // All of them, so that the end can be looked at.
            restart(cluster, 3, &[]);
        },
    );
}

#[test]
fn two_of_four_paused_stop_the_cluster_until_they_go_on() {
    let mut cluster = Cluster::start();
    stops_and_goes_on(
        &mut cluster,
        [1, 2],
        // The leader is one of them.
        |cluster| [0, 3].into_iter().for_each(|replica| cluster.local.pause(replica).unwrap()),
        |cluster| [0, 3].into_iter().for_each(|replica| cluster.local.resume(replica).unwrap()),
    );
}
