//! The certified history: every replica's log is checked from genesis, and one flipped byte is found.

use crate::harness::{Cluster, PATIENCE, noise, quorate, run};
use quorate_audit::ProvenAnswer;
use quorate_protocol::query::Query;
use quorate_protocol::record::Record;
use quorate_store::log::LogReader;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Heights that may be in flight at once: a batch may lie this far before the certificate of its height.
const WINDOW: u64 = 4;

fn report(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn some_history(cluster: &Cluster) {
    let mount = cluster.mount("a");
    mount.shell("mkdir d; for i in {1..30}; do echo $i > d/$i; done; mv d/1 d/one; rm d/2; ln d/3 d/three");
    std::fs::write(mount.at("large"), noise(1, 3_000_000)).unwrap();
    mount.unmount();
}

#[test]
fn every_replica_and_the_live_cluster_hold() {
    let cluster = Cluster::start();
    some_history(&cluster);
    let height = cluster.settle()["height"].as_u64().unwrap();
    let mut roots = std::collections::BTreeSet::new();
    for replica in cluster.local.indices() {
        // Beside the running replica.
        let ran = cluster.audit(&cluster.local.replica_directory(replica)).expect(0);
        let report = report(&ran.stdout);
        assert_eq!(report["verdict"], "holds");
        assert!(report["verified_height"].as_u64().unwrap() >= height);
        assert!(
            report["signatures"].as_u64().unwrap() >= 3 * height,
            "three signatures of every height: {report:#}"
        );
        roots.insert((report["verified_height"].as_u64(), report["state_root"].as_str().unwrap().to_owned()));
    }
    assert_eq!(roots.len(), 1, "{roots:?}");
    let ran = cluster.quorate(&["audit", "verify", "--output", "json"]).expect(0);
    assert!(report(&ran.stdout)["verified_height"].as_u64().unwrap() >= height);
    let text = cluster.quorate(&["audit", "verify", "--full"]).expect(0).stdout;
    assert!(text.starts_with("holds: "), "{text}");
    // Of a replica that has stopped.
    cluster.local.stop(1).unwrap();
    cluster.audit(&cluster.local.replica_directory(1)).expect(0);
    // Another cluster's file trusts none of this.
    let other = Cluster::create();
    let mut command = quorate(["audit", "verify", "--dir"]);
    command.arg(cluster.local.replica_directory(0)).arg("--cluster").arg(other.local.cluster_path());
    run(&mut command, PATIENCE).expect_one_line(2, &["cluster"]);
}

#[test]
fn a_bundle_is_checked_without_the_cluster() {
    let cluster = Cluster::start();
    some_history(&cluster);
    cluster.settle();
    let place = tempfile::tempdir().unwrap();
    let live = place.path().join("live.bundle");
    let live = live.to_str().unwrap();
    let exported = report(&cluster.quorate(&["audit", "export", "--output", "json", live]).expect(0).stdout);
    cluster.local.stop_all();
    // Of a replica that has stopped, and after it nothing of the cluster is needed but its file.
    let stored = place.path().join("stored.bundle");
    let directory = cluster.local.replica_directory(3);
    let from_directory = ["audit", "export", stored.to_str().unwrap(), "--dir", directory.to_str().unwrap()];
    cluster.quorate(&from_directory).expect(0);
    for full in [false, true] {
        let mut arguments = vec!["audit", "verify", "--output", "json", "--bundle", live];
        arguments.extend(full.then_some("--full"));
        let verified = report(&cluster.quorate(&arguments).expect(0).stdout);
        for field in ["verdict", "verified_height", "head", "state_root", "signatures"] {
            assert_eq!(verified[field], exported[field], "{field}");
        }
    }
    cluster.quorate(&["audit", "verify", "--bundle", stored.to_str().unwrap()]).expect(0);
    // A file that is there is never written over.
    cluster.quorate(&from_directory).expect_one_line(2, &["stored.bundle", "exists"]);
    let other = Cluster::create();
    other.quorate(&["audit", "verify", "--bundle", live]).expect_one_line(2, &["live.bundle", "cluster"]);

    let mut bytes = std::fs::read(live).unwrap();
    bytes.truncate(bytes.len() - 1);
    std::fs::write(live, &bytes).unwrap();
    let ran = cluster.quorate(&["audit", "verify", "--bundle", live]).expect(2);
    assert!(ran.stdout.contains("cut short"), "{}", ran.stdout);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(live, &bytes).unwrap();
    cluster.quorate(&["audit", "verify", "--bundle", live]).expect(1);
}

#[test]
fn a_path_is_proven_to_whoever_has_the_cluster_file() {
    let cluster = Cluster::start();
    some_history(&cluster);
    cluster.settle();
    let place = tempfile::tempdir().unwrap();
    let [there, absent, hidden] = ["there", "absent", "hidden"].map(|name| place.path().join(name));
    let [there, absent, hidden] = [&there, &absent, &hidden].map(|path| path.to_str().unwrap());
    let ran = cluster.quorate(&["audit", "prove", "/d/one", "--out", there]).expect(0);
    assert!(ran.stdout.starts_with("/d/one is a regular file, inode "), "{}", ran.stdout);
    cluster.quorate(&["audit", "prove", "/d/2", "--out", absent]).expect(0);
    let mount = cluster.mount("b");
    mount.shell("chmod 700 d");
    mount.unmount();
    cluster.quorate(&["audit", "prove", "/d/one", "--uid", "1000", "--out", hidden]).expect(0);
    // A name is shown so that it cannot pass for what is said of it.
    let odd = place.path().join("odd");
    let odd = odd.to_str().unwrap();
    let ran = cluster.quorate(&["audit", "prove", "/x is a directory\n", "--out", odd]).expect(0);
    assert!(
        ran.stdout.starts_with("/x\\x20is\\x20a\\x20directory\\n does not exist: / is"),
        "{}",
        ran.stdout
    );
    // Nothing is written over, and a path is one of the tree.
    cluster.quorate(&["audit", "prove", "/d", "--out", there]).expect_one_line(2, &["there", "exists"]);
    cluster.quorate(&["audit", "prove", "d", "--out", "x"]).expect_one_line(2, &["begin with /"]);
    cluster.local.stop_all();

    let cluster_file = cluster.local.cluster_path();
    let check = |file: &str| {
        let mut command = quorate(["audit", "check", "--output", "json", file, "--cluster"]);
        run(command.arg(&cluster_file), PATIENCE)
    };
    let found = report(&check(there).expect(0).stdout);
    assert_eq!((&found["found"]["kind"], &found["found"]["size"]), (&"regular file".into(), &2.into()));
    assert!(found["asked_as"].as_str().unwrap().starts_with("user 0, group 0"), "{found:#}");
    assert!(found["replicas"].as_array().unwrap().len() >= 3, "{found:#}");
    let found = report(&check(absent).expect(0).stdout);
    assert_eq!((&found["errno"], &found["reached"]), (&"ENOENT".into(), &"/d".into()));
    let found = report(&check(hidden).expect(0).stdout);
    assert_eq!(found["errno"], "EACCES");
    assert!(found["asked_as"].as_str().unwrap().starts_with("user 1000, group 0"), "{found:#}");
    // A walk from elsewhere is none of a path, however true it is.
    let mut proven = ProvenAnswer::from_file(&std::fs::read(there).unwrap()).unwrap();
    let Query::Walk { start, components } = &mut proven.query else { panic!("a walk") };
    *start = 2;
    *components = components.iter().skip(1).cloned().collect::<Vec<_>>().try_into().unwrap();
    std::fs::write(odd, proven.to_file()).unwrap();
    let ran = check(odd);
    assert_eq!(ran.code, 2, "{} {}", ran.stdout, ran.stderr);
    let mut bytes = std::fs::read(there).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(there, &bytes).unwrap();
    assert_eq!(report(&check(there).expect(1).stdout)["verdict"], "broken");
    let other = Cluster::create();
    let mut command = quorate(["audit", "check", absent, "--cluster"]);
    run(command.arg(other.local.cluster_path()), PATIENCE).expect_one_line(2, &["absent", "cluster"]);
}

/// Damage is not exported: nothing is left in the file's place.
#[test]
fn a_history_that_does_not_hold_is_not_exported() {
    let cluster = Cluster::start();
    some_history(&cluster);
    cluster.settle();
    cluster.local.stop_all();
    let directory = cluster.local.replica_directory(0);
    let flip = places(&directory).into_iter().find(|flip| flip.what == "batch").unwrap();
    let mut bytes = std::fs::read(&flip.segment).unwrap();
    bytes[usize::try_from(flip.offset).unwrap()] ^= 1;
    std::fs::write(&flip.segment, &bytes).unwrap();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("history.bundle");
    let arguments = ["audit", "export", file.to_str().unwrap(), "--dir", directory.to_str().unwrap()];
    cluster.quorate(&arguments).expect(1);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

/// A place in the log to flip a byte, and the heights of which one must be named.
struct Flip {
    what: &'static str,
    segment: PathBuf,
    offset: u64,
    heights: std::ops::RangeInclusive<u64>,
}

/// Places inside stored batches (header and proposal) and certificates, all over the log.
fn places(directory: &Path) -> Vec<Flip> {
    let mut segments: Vec<PathBuf> =
        std::fs::read_dir(directory.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let mut reader = LogReader::open(directory).unwrap();
    let mut flips = Vec::new();
    while let Some((position, record)) = reader.next_record().unwrap() {
        let (what, height) = match &record {
            Record::Proposed { height, .. } => ("batch", *height),
            Record::Committed(certificate) => ("certificate", certificate.height),
            Record::Prepared(certificate) => ("prepare certificate", certificate.height),
            _ => continue,
        };
        let length = quorate_crypto::encode(&record).len() as u64;
        // Header, first, middle and last bytes of the record behind its frame's header.
        let start = u64::from(position.offset) + u64::from(quorate_store::segment::FRAME_HEADER_BYTES);
        for within in [1, length / 3, length / 2, length - 1] {
            flips.push(Flip {
                what,
                segment: segments[position.segment as usize].clone(),
                offset: start + within,
                heights: height.saturating_sub(WINDOW).max(1)..=height,
            });
        }
    }
    flips
}

#[test]
fn one_flipped_byte_is_found_and_its_height_is_named() {
    let cluster = Cluster::start();
    some_history(&cluster);
    cluster.settle();
    cluster.local.stop_all();
    let directory = cluster.local.replica_directory(2);
    let flips = places(&directory);
    assert!(flips.len() > 100, "only {} places", flips.len());
    // All of them would take minutes: a spread of them, the last record included.
    let step = flips.len() / 48;
    let chosen = flips.iter().rev().step_by(step.max(1));
    for flip in chosen {
        let mut bytes = std::fs::read(&flip.segment).unwrap();
        let at = usize::try_from(flip.offset).unwrap();
        bytes[at] ^= 0x10;
        std::fs::write(&flip.segment, &bytes).unwrap();
        let ran = cluster.audit(&directory);
        let place = format!("{} at byte {at} of {}", flip.what, flip.segment.display());
        assert_eq!(ran.code, 1, "{place}: {} {}", ran.stdout, ran.stderr);
        let named = report(&ran.stdout)["height"].as_u64().unwrap();
        assert!(flip.heights.contains(&named), "{place}: named {named}, not one of {:?}", flip.heights);
        bytes[at] ^= 0x10;
        std::fs::write(&flip.segment, &bytes).unwrap();
    }
    cluster.audit(&directory).expect(0);
}
