//! The committed corpora, run through the targets as ordinary tests: one test for each target.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;

use quorate_fuzz::{TARGETS, corpus, find};

/// Bytes of a file in a corpus: they are kept in the repository.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// Files of a corpus.
const FILES_MAX: usize = 256;

fn replay(name: &str) {
    let target = find(name).unwrap();
    let mut files = 0;
    for entry in fs::read_dir(corpus(name)).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() as u64 <= FILE_BYTES_MAX, "{} is too long", path.display());
        println!("{}", path.display());
        target.run(&bytes);
        files += 1;
    }
    assert!((1..=FILES_MAX).contains(&files), "{files} files in the corpus of {name}");
    target.run(&[]);
    for seed in (target.seeds)() {
        target.run(&seed);
        for length in 0..seed.len().min(64) {
            target.run(&seed[..length]);
        }
    }
}

macro_rules! corpora {
    ($($name:ident),+ $(,)?) => {
        $(#[test] fn $name() { replay(stringify!($name)); })+

        #[test]
        fn every_target_has_a_test_and_every_corpus_a_target() {
            let tests = BTreeSet::from([$(stringify!($name).to_owned()),+]);
            let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
            let folders = fs::read_dir(corpus("")).unwrap();
            let folders: BTreeSet<String> =
                folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            assert_eq!(tests, targets);
            assert_eq!(folders, targets);
        }
    };
}

corpora![
    crypto,
    certificate,
    signed,
    peer,
    client_request,
    client_reply,
    notice,
    record,
    evidence,
    contradiction,
    rows,
    frames,
    cluster_file,
    policy_file,
    bundle,
    proven,
    tlog_note,
    tlog_policy,
    tlog_proof,
    tlog_tiles,
    receipt,
    anchor,
    transition,
    key_file,
    segment,
    log_reader,
    store_values,
    trie_bytes,
    trie_proof,
    receipts_proof,
    log_proof,
    results,
    answer,
    answer_garbage,
    execution,
    step,
];
