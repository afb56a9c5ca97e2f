//! The log in good health: append, sync, reopen, segments, readers beside the writer, the archive.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_protocol::record::Record;
use quorate_store::segment::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use quorate_store::{Log, LogError, LogOptions, LogReader};
use support::{IDENTITY, SMALL, chain, contents, directory, long, vote};

#[test]
fn what_is_synced_is_there_after_reopening_over_many_segments() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let mut expected = Vec::new();
    for round in 0..20u64 {
        let mut log = Log::open(&directory, SMALL).unwrap();
        assert_eq!(log.count(), expected.len() as u64);
        for number in 0..5 {
            let records = [vote(round * 5 + number), long(number, round as usize)];
            log.append(&records).unwrap();
            expected.extend(records);
            if number % 2 == 0 {
                log.sync().unwrap();
                assert_eq!(log.durable(), expected.len() as u64);
            }
        }
        log.sync().unwrap();
        drop(log);
        assert_eq!(contents(&directory), expected);
    }
    let segments = fs::read_dir(directory.log_path()).unwrap().count();
    assert!(segments > 5, "{segments} segments are no test of rotation");
}

#[test]
fn what_is_not_synced_is_not_written() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let mut log = Log::open(&directory, SMALL).unwrap();
    log.append(&[vote(1)]).unwrap();
    assert_eq!((log.count(), log.durable()), (1, 0));
    drop(log);
    assert_eq!(contents(&directory), []);
}

#[test]
fn a_batch_and_a_record_larger_than_a_segment() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let mut log = Log::open(&directory, SMALL).unwrap();
    // Six hundred certificates' worth in one sync, and one record that alone needs a longer segment.
    let records: Vec<Record> = (0..60).map(|number| long(number, 32)).collect();
    log.append(&records).unwrap();
    log.sync().unwrap();
    drop(log);
    assert_eq!(contents(&directory), records);
    let tiny = LogOptions { segment_bytes: 1 };
    let mut log = Log::open(&directory, tiny).unwrap();
    log.append(&[vote(9)]).unwrap();
    log.sync().unwrap();
    drop(log);
    assert_eq!(contents(&directory).len(), 61);
}

#[test]
fn golden_segment() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let mut log = Log::open(&directory, SMALL).unwrap();
    log.append(&[Record::Entered { epoch: 1, view: 2 }]).unwrap();
    log.sync().unwrap();
    log.append(&[vote(3)]).unwrap();
    log.close().unwrap();
    let bytes = fs::read(directory.log_path().join("0000000000.log")).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert_eq!(bytes.len(), 4096);
    assert_eq!(hex::encode(&bytes[..end]), include_str!("golden/segment.hex").trim());
}

#[test]
fn a_reader_follows_the_writer_without_a_lock() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let path = place.path().to_owned();
    let done = AtomicBool::new(false);
    const RECORDS: u64 = 3000;
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut reader = LogReader::open(&path).unwrap();
            let mut read = 0;
            loop {
                let finished = done.load(Ordering::SeqCst);
                for found in reader.by_ref() {
                    let (_, record) = found.unwrap();
                    assert_eq!(record, vote(read));
                    read += 1;
                }
                if finished {
                    break read;
                }
            }
        });
        let mut log = Log::open(&directory, LogOptions { segment_bytes: 16384 }).unwrap();
        let mut next = 0;
        while next < RECORDS {
            let upto = RECORDS.min(next + 1 + next % 40);
            log.append(&(next..upto).map(vote).collect::<Vec<_>>()).unwrap();
            log.sync().unwrap();
            next = upto;
        }
        done.store(true, Ordering::SeqCst);
        assert_eq!(follower.join().unwrap(), RECORDS);
    });
    let mut reader = LogReader::open_segments(&directory.log_path()).unwrap();
    assert!(reader.identity().is_none());
    assert_eq!(reader.by_ref().count(), RECORDS as usize);
    assert_eq!((reader.identity(), reader.records_read()), (Some(IDENTITY), RECORDS));
}

#[test]
fn committed_batches_by_height_while_writing_and_after_reopening() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let (records, batches) = chain(40);
    let mut log = Log::open(&directory, SMALL).unwrap();
    let archive = log.archive();
    for (index, step) in records.chunks(3).enumerate() {
        let height = index as u64 + 1;
        log.append(step).unwrap();
        assert_eq!(archive.committed_height(), height - 1, "not before it is synced");
        assert!(archive.committed_batch(height).unwrap().is_none());
        log.sync().unwrap();
        assert_eq!(archive.committed_batch(height).unwrap().unwrap().batch, batches[index]);
    }
    drop(log);
    let archive = Log::open(&directory, SMALL).unwrap().archive();
    assert_eq!(archive.committed_height(), 40);
    for (index, batch) in batches.iter().enumerate() {
        let found = archive.committed_batch(index as u64 + 1).unwrap().unwrap();
        assert_eq!(found.batch, *batch);
        assert_eq!(found.certificate.header_hash, batch.header.hash());
    }
    assert!(archive.committed_batch(41).unwrap().is_none() && archive.committed_batch(0).unwrap().is_none());
}

#[test]
fn the_archive_finds_a_batch_that_changed_under_it() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let mut log = Log::open(&directory, SMALL).unwrap();
    log.append(&chain(1).0).unwrap();
    log.sync().unwrap();
    let path = directory.log_path().join("0000000000.log");
    let mut bytes = fs::read(&path).unwrap();
    bytes[(SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES) as usize + 30] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = log.archive().committed_batch(1);
    assert!(matches!(found, Err(LogError::Damaged { .. })));
}

#[test]
fn a_log_of_another_directory_is_foreign() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let mut log = Log::open(&directory, SMALL).unwrap();
    log.append(&[vote(1)]).unwrap();
    log.close().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = quorate_store::Directory::create(elsewhere.path(), IDENTITY).unwrap();
    let name = "0000000000.log";
    fs::copy(directory.log_path().join(name), other.log_path().join(name)).unwrap();
    assert!(matches!(Log::open(&other, SMALL), Err(LogError::Foreign { .. })));
    assert!(matches!(LogReader::open(elsewhere.path()).unwrap().next(), Some(Err(LogError::Foreign { .. }))));
}

#[test]
fn too_much_at_once_is_refused_whole() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let mut log = Log::open(&directory, LogOptions::default()).unwrap();
    let block = vec![vote(0); 60_000];
    let mut added = 0;
    while log.append(&block).is_ok() {
        added += block.len() as u64;
    }
    assert!(matches!(log.append(&block), Err(LogError::BufferFull)));
    assert_eq!(log.count(), added);
    log.sync().unwrap();
    log.append(&block).unwrap();
}

#[test]
fn a_damaged_record_still_names_its_height() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let (mut records, batches) = chain(3);
    records.push(Record::Prepared(support::certificate(
        quorate_crypto::CertificateKind::Prepare,
        7,
        batches[0].header.hash(),
        3,
    )));
    let mut log = Log::open(&directory, LogOptions::default()).unwrap();
    log.append(&records).unwrap();
    log.close().unwrap();
    let path = directory.log_path().join("0000000000.log");
    let good = fs::read(&path).unwrap();
    let positions: Vec<_> = LogReader::open(place.path()).unwrap().map(|found| found.unwrap().0).collect();
    let heights = [1, 1, 1, 2, 2, 2, 3, 3, 3, 7];
    for (position, height) in positions.into_iter().zip(heights) {
        let mut bytes = good.clone();
        bytes[position.offset as usize + FRAME_HEADER_BYTES as usize + 40] ^= 1;
        fs::write(&path, bytes).unwrap();
        let mut reader = LogReader::open(place.path()).unwrap();
        let failure = reader.find_map(Result::err).unwrap();
        assert!(matches!(failure, LogError::Damaged { position: found, .. } if found == position));
        assert_eq!(reader.claimed_height(position), Some(height));
    }
}
