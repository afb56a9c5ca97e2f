//! The directory format: what is made, what is refused, and how the refusals are told apart.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::fs;

use quorate_crypto::{Hash, derive_hash};
use quorate_store::directory::{LOCK_NAME, MARKER_NAME};
use quorate_store::{Directory, DirectoryError, Fault, Identity, Log, LogError, LogOptions, read_marker};
use support::{IDENTITY, SEED, directory};

#[test]
fn a_new_directory_opens_again_beside_other_files() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("replica.key"), "secret").unwrap();
    let made = Directory::create(place.path(), IDENTITY).unwrap();
    let marker = *made.marker();
    assert_ne!(marker.seed, [0; 32]);
    drop(made);
    let opened = Directory::open(place.path(), IDENTITY).unwrap();
    assert!(*opened.marker() == marker && opened.identity() == IDENTITY);
    assert!(read_marker(place.path()).unwrap() == marker, "readable while it is locked");
}

#[test]
fn golden_marker() {
    let place = tempfile::tempdir().unwrap();
    drop(directory(place.path()));
    let bytes = fs::read(place.path().join(MARKER_NAME)).unwrap();
    assert_eq!(hex::encode(bytes), include_str!("golden/marker.hex").trim());
}

#[test]
fn two_processes_never_run_on_one_directory() {
    let place = tempfile::tempdir().unwrap();
    let held = directory(place.path());
    let second = Directory::open(place.path(), IDENTITY);
    assert!(matches!(second, Err(DirectoryError::Locked(_))));
    assert!(matches!(Directory::create(place.path(), IDENTITY), Err(DirectoryError::Locked(_))));
    drop(held);
    Directory::open(place.path(), IDENTITY).unwrap();
    assert!(place.path().join(LOCK_NAME).exists());
}

#[test]
fn missing_foreign_and_occupied_directories() {
    let place = tempfile::tempdir().unwrap();
    let missing = Directory::open(&place.path().join("nowhere"), IDENTITY).err().unwrap();
    assert!(matches!(missing, DirectoryError::Missing(_)) && missing.fault() == Fault::Caller);
    assert!(matches!(Directory::open(place.path(), IDENTITY), Err(DirectoryError::Missing(_))));
    drop(directory(place.path()));
    for other in [Identity { replica: 1, ..IDENTITY }, Identity { cluster: Hash([2; 32]), ..IDENTITY }] {
        let refused = Directory::open(place.path(), other).err().unwrap();
        assert!(matches!(refused, DirectoryError::Foreign { found: IDENTITY, .. }), "{refused}");
    }
    assert!(matches!(Directory::create(place.path(), IDENTITY), Err(DirectoryError::Occupied(_))));
    fs::write(place.path().join(MARKER_NAME), "something else entirely").unwrap();
    assert!(matches!(Directory::open(place.path(), IDENTITY), Err(DirectoryError::NotOurs(_))));
}

#[test]
fn every_damaged_byte_of_the_marker_is_found_and_a_newer_version_is_told_apart() {
    let place = tempfile::tempdir().unwrap();
    drop(directory(place.path()));
    let path = place.path().join(MARKER_NAME);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let refused = Directory::open(place.path(), IDENTITY).err().unwrap();
        let told = matches!(refused, DirectoryError::Damaged { .. } | DirectoryError::NotOurs(_));
        assert!(told && (at < 16 || refused.fault() == Fault::Disk), "byte {at}: {refused}");
        fs::write(&path, &good[..at]).unwrap();
        assert!(Directory::open(place.path(), IDENTITY).is_err(), "cut at {at}");
    }
    let mut newer = good[..96].to_vec();
    newer[16] = 9;
    let checksum = derive_hash("quorate directory marker v1", &[&newer]);
    newer.extend_from_slice(&checksum.0);
    fs::write(&path, &newer).unwrap();
    let refused = Directory::open(place.path(), IDENTITY).err().unwrap();
    assert!(matches!(refused, DirectoryError::Newer { found: 9, supported: 1, .. }), "{refused}");
}

#[test]
fn lost_parts_are_damage_except_the_state() {
    let place = tempfile::tempdir().unwrap();
    drop(directory(place.path()));
    fs::remove_dir(place.path().join("state")).unwrap();
    let opened = Directory::open(place.path(), IDENTITY).unwrap();
    assert!(opened.state_path().is_dir());
    drop(opened);
    for part in ["log", "blocks"] {
        let aside = place.path().join("aside");
        fs::rename(place.path().join(part), &aside).unwrap();
        let refused = Directory::open(place.path(), IDENTITY).err().unwrap();
        assert!(matches!(refused, DirectoryError::Damaged { .. }), "{part}: {refused}");
        fs::rename(&aside, place.path().join(part)).unwrap();
    }
    let opened = Directory::open(place.path(), IDENTITY).unwrap();
    fs::remove_file(opened.log_path().join("0000000000.log")).unwrap();
    let refused = Log::open(&opened, LogOptions::default()).err().unwrap();
    assert!(matches!(refused, LogError::Damaged { .. }), "an emptied log is no new log: {refused}");
}

#[test]
fn a_lost_marker_is_damage_once_anything_was_recorded() {
    let place = tempfile::tempdir().unwrap();
    let opened = directory(place.path());
    let mut log = Log::open(&opened, LogOptions::default()).unwrap();
    log.append(&[support::vote(1)]).unwrap();
    log.close().unwrap();
    drop(opened);
    fs::remove_file(place.path().join(MARKER_NAME)).unwrap();
    assert!(matches!(Directory::open(place.path(), IDENTITY), Err(DirectoryError::Damaged { .. })));
    assert!(matches!(Directory::create(place.path(), IDENTITY), Err(DirectoryError::Occupied(_))));
}

#[test]
fn a_creation_that_was_cut_short_is_done_again() {
    let place = tempfile::tempdir().unwrap();
    drop(directory(place.path()));
    fs::remove_file(place.path().join(MARKER_NAME)).unwrap();
    fs::write(place.path().join("log/0000000000.log"), [0; 77]).unwrap();
    fs::write(place.path().join("FORMAT.new"), [1; 50]).unwrap();
    assert!(matches!(Directory::open(place.path(), IDENTITY), Err(DirectoryError::Missing(_))));
    drop(Directory::create_with_seed(place.path(), IDENTITY, SEED).unwrap());
    let opened = Directory::open(place.path(), IDENTITY).unwrap();
    Log::open(&opened, LogOptions::default()).unwrap();
}
