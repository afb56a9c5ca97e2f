//! The network between real processes, broken and healed while a client works.

use super::small_tree;
use crate::harness::{Cluster, PATIENCE, shell_within, wait_until};
use quorate_cluster::network::{Conditions, Network, Place};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// How long a network stays broken: several time-outs of consensus.
const OUTAGE: Duration = Duration::from_secs(4);
/// How long one copy may take on a network that is broken now and then.
const COPY_TIME_MAX: Duration = Duration::from_secs(60);

/// A cluster whose every link goes through a relay.
fn linked() -> (Cluster, Network) {
    let mut cluster = Cluster::create();
    let network = Network::between(&mut cluster.local).unwrap();
    cluster.local.start_all().unwrap();
    (cluster, network)
}

/// Copies a tree again and again while `breakage` happens; no copy sees an error, and all are right.
#[track_caller]
fn copies_go_on(cluster: &Cluster, breakage: impl FnOnce()) {
    let mount = cluster.mount("a");
    let source = cluster.home().join("source");
    small_tree(&source);
    let (over, copies) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let round = copies.load(Ordering::Relaxed);
                let script = format!("cp -a {} copy-{round}", source.display());
                let ran = shell_within(&mount.path, &script, COPY_TIME_MAX);
                assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "no error reaches the writer");
                copies.fetch_add(1, Ordering::Relaxed);
            }
        });
        wait_until("a copy is at work", PATIENCE, || std::fs::read_dir(mount.at("copy-0")).is_ok());
        breakage();
        // One more, begun when all is well again.
        let before = copies.load(Ordering::Relaxed);
        wait_until("copies go on", PATIENCE, || {
            assert!(!writer.is_finished(), "the writer has failed");
            copies.load(Ordering::Relaxed) > before
        });
        over.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
    for round in 0..copies.load(Ordering::Relaxed) {
        let script = format!("diff -r {} copy-{round}", source.display());
        shell_within(&mount.path, &script, PATIENCE).expect(0);
    }
    cluster.settle();
    for replica in cluster.local.indices() {
        cluster.audit(&cluster.local.replica_directory(replica)).expect(0);
        assert!(!cluster.log(replica).contains("panicked"), "{}", cluster.log(replica));
    }
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_comes_back() {
    let (cluster, network) = linked();
    copies_go_on(&cluster, || {
        let leader = cluster.leader();
        network.isolate(&[leader]);
        std::thread::sleep(OUTAGE);
        network.heal();
        wait_until("somebody leads", PATIENCE, || {
            let (_, status) = cluster.status();
            let replicas = status["replicas"].as_array().unwrap();
            replicas.iter().any(|replica| replica["leading"] == true && replica["replica"] != leader)
        });
    });
    assert!(network.lost() > 0);
}

#[test]
fn a_minority_that_is_cut_off_catches_up_and_halves_stop_without_a_fork() {
    let (cluster, network) = linked();
    copies_go_on(&cluster, || {
        network.isolate(&[(cluster.leader() + 2) % 4]);
        std::thread::sleep(OUTAGE);
        network.heal();
        std::thread::sleep(Duration::from_secs(1));
        // Two and two: nobody has a quorum, and the writer waits.
        network.isolate(&[1, 2]);
        std::thread::sleep(OUTAGE);
        network.heal();
    });
}

#[test]
fn links_that_are_cut_in_one_direction() {
    let (cluster, network) = linked();
    copies_go_on(&cluster, || {
        let leader = cluster.leader();
        let follower = (leader + 1) % 4;
        // The leader is heard by all but one.
        network.set(Place::Replica(leader), Place::Replica(follower), Conditions::CUT);
        std::thread::sleep(OUTAGE);
        network.heal();
        // The leader of the moment is heard and hears nobody.
        let leader = cluster.leader();
        for other in cluster.local.indices().filter(|other| *other != leader) {
            network.set(Place::Replica(other), Place::Replica(leader), Conditions::CUT);
        }
        std::thread::sleep(OUTAGE);
        network.heal();
        // What a client sends to a follower is lost, and so is what another one says to clients.
        network.set(Place::Clients, Place::Replica(follower), Conditions::CUT);
        network.set(Place::Replica((follower + 1) % 4), Place::Clients, Conditions::CUT);
        std::thread::sleep(OUTAGE);
        network.heal();
    });
}

/// Who learns of heights from others, because it does not hear the leader, tells clients by certificates.
#[test]
fn who_learns_a_certificate_first_passes_it_on_to_clients() {
    let (cluster, network) = linked();
    let leader = cluster.leader();
    let follower = (leader + 1) % 4;
    network.set(Place::Replica(leader), Place::Replica(follower), Conditions::CUT);
    let load =
        ["--log", "quorate_client=debug", "bench", "consensus", "--seconds", "4", "--concurrency", "4"];
    let said = cluster.quorate(&load).expect(0).stderr;
    let passed_on = format!("a certificate in place of a COMMIT replica={follower} ");
    assert!(said.contains(&passed_on) && !said.contains("replica caught"), "{said:.2000}");
    network.heal();
    cluster.settle();
}

#[test]
fn a_network_that_is_slow_and_loses_datagrams() {
    let (cluster, network) = linked();
    network.everywhere(Conditions {
        delay: Duration::from_millis(20),
        loss: 20_000,
        ..Conditions::default()
    });
    let mount = cluster.mount("a");
    let source = cluster.home().join("source");
    small_tree(&source);
    let script = format!("cp -a {0}/docs/adr copy && diff -r {0}/docs/adr copy", source.display());
    shell_within(&mount.path, &script, Duration::from_secs(90)).expect(0);
    assert!(network.lost() > 10, "{}", network.lost());
    network.heal();
    cluster.settle();
}
