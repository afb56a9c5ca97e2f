//! What the tests of this package share: identities, records of any size, small chains of batches.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use quorate_crypto::{Bitmap, Bounded, Certificate, CertificateKind, Hash, Signature};
use quorate_protocol::header::HEADER_VERSION;
use quorate_protocol::peer::Batch;
use quorate_protocol::record::Record;
use quorate_protocol::{BatchTime, Header, Proposal, Vote, VoteKind};
use quorate_store::{Directory, Identity, Log, LogOptions};

pub const IDENTITY: Identity = Identity { cluster: Hash([0xc1; 32]), replica: 2 };
pub const SEED: [u8; 32] = [0x5e; 32];
pub const SMALL: LogOptions = LogOptions { segment_bytes: 4096 };

/// A short record that differs for each number.
pub fn vote(number: u64) -> Record {
    Record::Voted(Vote {
        kind: VoteKind::Prepare,
        epoch: 0,
        view: number / 7,
        height: number,
        header: Hash([(number % 251) as u8; 32]),
        replica: 2,
        signature: Signature([(number % 253) as u8; 64]),
    })
}

/// A record of about `bytes` bytes: a NEW-VIEW cannot be long, a certificate neither, so several hundred
/// votes' worth of signatures stand in for a batch.
pub fn long(number: u64, signatures: usize) -> Record {
    Record::Prepared(certificate(CertificateKind::Prepare, number, Hash([9; 32]), signatures.min(32)))
}

pub fn certificate(kind: CertificateKind, height: u64, header_hash: Hash, signatures: usize) -> Certificate {
    let signatures: Vec<Signature> = (0..signatures).map(|index| Signature([index as u8; 64])).collect();
    Certificate {
        kind,
        epoch: 0,
        view: 0,
        height,
        header_hash,
        signers: Bitmap::empty(4),
        signatures: Bounded::try_from(signatures).unwrap(),
    }
}

pub fn batch(height: u64, previous: Hash) -> Batch {
    let proposal = Proposal { parent: previous, time: BatchTime(height), envelopes: Bounded::new() };
    let header = Header {
        version: HEADER_VERSION,
        cluster: IDENTITY.cluster,
        epoch: 0,
        height,
        time: BatchTime(height),
        previous,
        proposal: proposal.digest(&IDENTITY.cluster, 0, height),
        state_root: Hash([1; 32]),
        receipts_root: Hash([2; 32]),
        first_operation: 0,
        operation_count: 0,
        log_root: Hash([3; 32]),
        members: Hash([4; 32]),
        touched_root: Hash([5; 32]),
        touched_count: 0,
    };
    Batch { header, proposal }
}

/// The records of heights 1 to `heights`, and the batches among them.
pub fn chain(heights: u64) -> (Vec<Record>, Vec<Batch>) {
    let (mut records, mut batches, mut previous) = (Vec::new(), Vec::new(), Hash::ZERO);
    for height in 1..=heights {
        let batch = batch(height, previous);
        previous = batch.header.hash();
        records.push(Record::Proposed { height, batch: batch.clone() });
        records.push(vote(height));
        records.push(Record::Committed(certificate(CertificateKind::Commit, height, previous, 3)));
        batches.push(batch);
    }
    (records, batches)
}

pub fn directory(path: &Path) -> Directory {
    match Directory::open(path, IDENTITY) {
        Ok(directory) => directory,
        Err(_) => Directory::create_with_seed(path, IDENTITY, SEED).unwrap(),
    }
}

/// Everything that the log of `directory` holds.
pub fn contents(directory: &Directory) -> Vec<Record> {
    let log = Log::open(directory, SMALL).unwrap();
    log.records().map(|record| record.unwrap().1).collect()
}

/// Copies a directory tree.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
