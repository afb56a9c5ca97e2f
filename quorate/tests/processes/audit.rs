//! The certified history: every replica's log is checked from genesis, and one flipped byte is found.

use crate::harness::{Cluster, PATIENCE, noise, quorate, run};
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
