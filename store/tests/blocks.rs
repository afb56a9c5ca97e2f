//! The block store: what is stored is found again, promised, deleted; decay and crashes are told apart.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use quorate_crypto::Hash;
use quorate_protocol::BatchTime;
use quorate_protocol::blocks::BlockDescriptor;
use quorate_store::{BlockError, BlockOptions, Blocks, Directory, Fault, Identity, OpenReport, Upload};
use support::{IDENTITY, directory};

const SMALL: BlockOptions = BlockOptions { bytes_max: u64::MAX, pack_bytes: 64 << 10, reserve_bytes: 0 };

fn content(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn put(blocks: &Blocks, content: &[u8], expires: u64) -> Result<Hash, BlockError> {
    let descriptor = BlockDescriptor::copies(content);
    let ids = blocks.put(&[Upload { descriptor: &descriptor, content }], BatchTime(expires))?;
    assert_eq!(ids, [descriptor.id()]);
    Ok(ids[0])
}

fn open(directory: &Directory) -> Blocks {
    let (blocks, report) = Blocks::open(directory, SMALL).unwrap();
    assert_eq!(report, OpenReport::default());
    blocks
}

fn packs(directory: &Directory) -> Vec<PathBuf> {
    packs_in(&directory.blocks_path())
}

fn packs_in(path: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn blocks_and_promises_survive_reopening() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let lengths = [0, 1, 3583, 3584, 3585, 4096, 20_000, 1 << 20];
    let mut expected = Vec::new();
    let blocks = open(&directory);
    for (number, length) in lengths.into_iter().enumerate() {
        let bytes = content(number as u32, length);
        expected.push((put(&blocks, &bytes, number as u64).unwrap(), bytes));
    }
    let usage = blocks.usage();
    assert_eq!(usage.blocks, lengths.len() as u64);
    assert_eq!(usage.content_bytes, lengths.iter().sum::<usize>() as u64);
    drop(blocks);
    let blocks = open(&directory);
    assert_eq!(blocks.usage(), usage);
    assert!(packs(&directory).len() > 1);
    for (number, (id, bytes)) in expected.iter().enumerate() {
        assert_eq!(blocks.get(id).unwrap().unwrap(), (BlockDescriptor::copies(bytes), bytes.clone()));
        assert_eq!(blocks.promised_until(id), Some(BatchTime(number as u64)));
    }
    let mut ids: Vec<Hash> = expected.iter().map(|(id, _)| *id).collect();
    ids.sort();
    assert_eq!(blocks.ids(None), ids);
    assert_eq!(blocks.ids(Some(&ids[2])), ids[3..]);
    assert!(blocks.get(&Hash([1; 32])).unwrap().is_none() && !blocks.contains(&Hash([1; 32])));
}

#[test]
fn a_promise_grows_and_never_shrinks_and_is_durable() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let bytes = content(1, 5000);
    let blocks = open(&directory);
    let id = put(&blocks, &bytes, 100).unwrap();
    let usage = blocks.usage();
    for (given, held) in [(50, 100), (300, 300), (200, 300), (301, 301), (302, 302)] {
        put(&blocks, &bytes, given).unwrap();
        assert_eq!(blocks.promised_until(&id), Some(BatchTime(held)));
    }
    assert_eq!(blocks.usage(), usage, "no second copy");
    drop(blocks);
    assert_eq!(open(&directory).promised_until(&id), Some(BatchTime(302)));
    // A promise torn while it was being written leaves the one before.
    let path = &packs(&directory)[0];
    let mut pack = fs::read(path).unwrap();
    for slot in [256, 288] {
        let at = 4096 + slot;
        if pack[at..at + 8] == 302u64.to_le_bytes() {
            pack[at + 3] ^= 1;
        }
    }
    fs::write(path, pack).unwrap();
    assert_eq!(open(&directory).promised_until(&id), Some(BatchTime(301)));
}

#[test]
fn deletion_waits_for_the_promise_and_gives_the_space_back() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let blocks = open(&directory);
    let ids: Vec<Hash> = (0..20).map(|number| put(&blocks, &content(number, 30_000), 100).unwrap()).collect();
    let before = packs(&directory).len();
    assert!(before > 5);
    let kept = blocks.delete(&ids, BatchTime(100)).unwrap();
    assert_eq!((kept.deleted, kept.promised), (0, 20));
    let gone = blocks.delete(&ids[..10], BatchTime(101)).unwrap();
    assert_eq!((gone.deleted, gone.promised), (10, 0));
    assert_eq!(blocks.delete(&ids[..10], BatchTime(101)).unwrap().deleted, 0);
    assert!(packs(&directory).len() < before, "empty packs are removed");
    let usage = blocks.usage();
    drop(blocks);
    let blocks = open(&directory);
    assert_eq!(blocks.usage(), usage);
    assert!(ids[..10].iter().all(|id| blocks.get(id).unwrap().is_none()));
    assert!(ids[10..].iter().all(|id| blocks.get(id).unwrap().is_some()));
    assert_eq!(put(&blocks, &content(3, 30_000), 7).unwrap(), ids[3]);
    assert!(blocks.get(&ids[3]).unwrap().is_some());
    let all = blocks.ids(None);
    blocks.delete(&all, BatchTime(u64::MAX)).unwrap();
    let usage = blocks.usage();
    assert_eq!((usage.blocks, usage.content_bytes), (0, 0));
    assert!(usage.disk_bytes <= 8 * 4096, "{usage:?}");
}

#[test]
fn what_is_not_what_it_claims_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let blocks = open(&directory);
    let bytes = content(1, 100);
    let good = BlockDescriptor::copies(&bytes);
    let wrong = [
        BlockDescriptor { length: 99, ..good.clone() },
        BlockDescriptor { content_root: Hash([3; 32]), ..good.clone() },
        BlockDescriptor { k: 2, ..good.clone() },
        BlockDescriptor { n: 4, ..good.clone() },
        BlockDescriptor { shard_root: Hash([1; 32]), ..good.clone() },
        BlockDescriptor::copies(&content(1, 101)),
    ];
    for descriptor in &wrong {
        let refused = blocks.put(&[Upload { descriptor, content: &bytes }], BatchTime(1)).err().unwrap();
        assert!(matches!(refused, BlockError::Mismatch(_)) && refused.fault() == Fault::Peer);
    }
    let long = vec![0; (1 << 20) + 1];
    assert!(matches!(put(&blocks, &long, 1), Err(BlockError::Mismatch(_))));
    assert_eq!(blocks.usage().blocks, 0);
}

#[test]
fn the_limit_is_kept_and_space_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let (blocks, _) = Blocks::open(&directory, BlockOptions { bytes_max: 100_000, ..SMALL }).unwrap();
    let mut ids = Vec::new();
    let refused = loop {
        match put(&blocks, &content(ids.len() as u32, 10_000), 1) {
            Ok(id) => ids.push(id),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, BlockError::LimitReached { limit: 100_000, .. }) && refused.is_no_space());
    assert!(ids.len() >= 7 && blocks.usage().disk_bytes <= 100_000);
    blocks.delete(&ids[..5], BatchTime(2)).unwrap();
    put(&blocks, &content(99, 10_000), 1).unwrap();
}

#[test]
fn every_damaged_byte_of_a_block_is_found_and_a_new_upload_repairs_it() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let bytes = content(1, 700);
    let blocks = open(&directory);
    let id = put(&blocks, &bytes, 9).unwrap();
    put(&blocks, &content(2, 700), 9).unwrap();
    let path = packs(&directory)[0].clone();
    let good = fs::read(&path).unwrap();
    for at in (0..160).chain(512..1212) {
        let mut damaged = good.clone();
        damaged[4096 + at] ^= 0x40;
        fs::write(&path, &damaged).unwrap();
        assert!(matches!(blocks.get(&id), Err(BlockError::Damaged { .. })), "byte {at}");
    }
    assert_eq!(put(&blocks, &bytes, 10).unwrap(), id);
    assert_eq!(blocks.get(&id).unwrap().unwrap().1, bytes);
    assert_eq!(blocks.usage().blocks, 2);
    drop(blocks);
    let (blocks, _) = Blocks::open(&directory, SMALL).unwrap();
    assert_eq!(blocks.get(&id).unwrap().unwrap().1, bytes);
}

#[test]
fn a_crash_tears_only_what_nobody_was_promised() {
    let place = tempfile::tempdir().unwrap();
    let opened = directory(place.path());
    let blocks = open(&opened);
    let first: Vec<Hash> = (0..3).map(|number| put(&blocks, &content(number, 6000), 5).unwrap()).collect();
    let before = fs::read(&packs(&opened)[0]).unwrap();
    let contents: Vec<Vec<u8>> = (10..13).map(|number| content(number, 6000)).collect();
    let descriptors: Vec<BlockDescriptor> =
        contents.iter().map(|bytes| BlockDescriptor::copies(bytes)).collect();
    let uploads: Vec<Upload<'_>> = descriptors
        .iter()
        .zip(&contents)
        .map(|(descriptor, content)| Upload { descriptor, content })
        .collect();
    let last = blocks.put(&uploads, BatchTime(5)).unwrap();
    drop(blocks);
    let path = packs(&opened)[0].clone();
    let after = fs::read(&path).unwrap();
    drop(opened);
    // Any subset of the sectors that the last upload wrote, and any length of the file.
    for choice in 0u64..300 {
        let pattern = choice.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut torn = after.clone();
        for (index, sector) in torn[before.len()..].chunks_mut(512).enumerate() {
            if pattern >> (index % 64) & 1 == 0 {
                sector.fill(0);
            }
        }
        torn.truncate(after.len() - (choice as usize % 9) * 1000);
        for later in &packs_in(&place.path().join("blocks"))[1..] {
            fs::remove_file(later).unwrap();
        }
        fs::write(&path, &torn).unwrap();
        let opened = directory(place.path());
        let (blocks, report) = Blocks::open(&opened, SMALL).unwrap();
        assert_eq!(report.damaged, 0, "choice {choice}");
        for id in &first {
            assert!(blocks.get(id).unwrap().is_some());
        }
        // A block of the last upload is whole or absent, and can be stored again.
        let there = last.iter().filter(|id| blocks.get(id).unwrap().is_some()).count();
        assert_eq!(blocks.usage().blocks, 3 + there as u64);
        assert_eq!(blocks.put(&uploads, BatchTime(6)).unwrap(), last);
        drop(blocks);
        let blocks = open(&opened);
        assert!(last.iter().all(|id| blocks.get(id).unwrap().is_some()));
    }
}

#[test]
fn damage_before_the_synced_mark_is_counted_and_the_rest_is_kept() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let blocks = open(&directory);
    let ids: Vec<Hash> = (0..4).map(|number| put(&blocks, &content(number, 3000), 5).unwrap()).collect();
    drop(blocks);
    let path = packs(&directory)[0].clone();
    let mut pack = fs::read(&path).unwrap();
    pack[2 * 4096 + 20] ^= 1;
    fs::write(&path, pack).unwrap();
    let (blocks, report) = Blocks::open(&directory, SMALL).unwrap();
    assert_eq!(report, OpenReport { torn: 0, damaged: 1 });
    let there: Vec<bool> = ids.iter().map(|id| blocks.contains(id)).collect();
    assert_eq!(there, [true, false, true, true]);
}

#[test]
fn foreign_and_newer_packs_are_refused_and_an_unfinished_one_is_removed() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let blocks = open(&directory);
    put(&blocks, &content(1, 10), 5).unwrap();
    drop(blocks);
    let name = packs(&directory)[0].file_name().unwrap().to_owned();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Directory::create(elsewhere.path(), Identity { replica: 0, ..IDENTITY }).unwrap();
    fs::copy(&packs(&directory)[0], other.blocks_path().join(&name)).unwrap();
    assert!(matches!(Blocks::open(&other, SMALL), Err(BlockError::Foreign(_))));

    let mut header = fs::read(&packs(&directory)[0]).unwrap()[..80].to_vec();
    header[8] = 7;
    let checksum = quorate_crypto::derive_hash("quorate block pack v1", &[&header]);
    header.extend_from_slice(&checksum.0);
    let next = directory.blocks_path().join("0000000001.pack");
    fs::write(&next, &header).unwrap();
    assert!(matches!(Blocks::open(&directory, SMALL), Err(BlockError::Newer { version: 7, .. })));
    fs::write(&next, [0; 100]).unwrap();
    let blocks = open(&directory);
    assert!(!next.exists());
    put(&blocks, &content(2, 60_000), 5).unwrap();
}

#[test]
fn golden_pack() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let blocks = open(&directory);
    put(&blocks, b"content", 77).unwrap();
    put(&blocks, b"content", 78).unwrap();
    let bytes = fs::read(&packs(&directory)[0]).unwrap();
    assert_eq!(bytes.len(), 8192);
    let shown = [&bytes[..112], &bytes[4096..4096 + 519]].map(hex::encode).join("\n");
    assert_eq!(shown, include_str!("golden/pack.hex").trim());
}

#[test]
fn concurrent_uploads_reads_and_deletions() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let blocks = open(&directory);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let blocks = &blocks;
            scope.spawn(move || {
                for round in 0..30u32 {
                    let own = put(blocks, &content(1000 * thread + round, 9000), 1).unwrap();
                    // One that all threads store, and now and then delete.
                    let shared = content(round % 3, 5000);
                    let id = put(blocks, &shared, 1).unwrap();
                    if round % 5 == thread {
                        blocks.delete(&[own, id], BatchTime(2)).unwrap();
                    } else {
                        assert_eq!(blocks.get(&own).unwrap().unwrap().0.id(), own);
                    }
                    let found = blocks.get(&id).unwrap();
                    assert!(found.is_none_or(|(_, bytes)| bytes == shared));
                }
            });
        }
    });
    let usage = blocks.usage();
    drop(blocks);
    assert_eq!(open(&directory).usage(), usage);
}
