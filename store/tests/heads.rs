//! Signed heads of the log on disk: what was saved is found again after every crash, and nothing else is.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

use quorate_crypto::{Hash, Signature};
use quorate_protocol::limits::LOG_HEADS_MAX;
use quorate_protocol::log_head::{LogHead, SignedLogHead, SignedLogHeads};
use quorate_store::heads::{HeadStore, HeadStoreError, heads_path, read_heads};
use quorate_store::{Directory, Identity};

const CLUSTER: Hash = Hash([1; 32]);

fn directory() -> (tempfile::TempDir, Directory) {
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::create(place.path(), Identity { cluster: CLUSTER, replica: 2 }).unwrap();
    (place, directory)
}

fn heads(sizes: std::ops::Range<u64>) -> SignedLogHeads {
    let head = |size| SignedLogHead {
        head: LogHead { size, root: Hash([7; 32]) },
        note: Signature([8; 64]),
        time: 9,
        cosignature: Signature([10; 64]),
    };
    SignedLogHeads::try_from(sizes.map(head).collect::<Vec<_>>()).unwrap()
}

fn sizes(heads: &[SignedLogHead]) -> Vec<u64> {
    heads.iter().map(|signed| signed.head.size).collect()
}

#[test]
fn what_was_saved_last_is_found_again() {
    let (place, directory) = directory();
    assert!(
        read_heads(place.path(), &CLUSTER).unwrap().is_empty(),
        "of an earlier release, without the file"
    );
    let (mut store, found) = HeadStore::open(&directory).unwrap();
    assert!(found.is_empty());
    for last in 2..40 {
        let first = 1.max(u64::saturating_sub(last, LOG_HEADS_MAX as u64));
        store.save(&heads(first..last)).unwrap();
        assert_eq!(read_heads(place.path(), &CLUSTER).unwrap(), heads(first..last).into_inner());
    }
    drop(store);
    let (mut store, found) = HeadStore::open(&directory).unwrap();
    assert_eq!(sizes(&found), (23..39).collect::<Vec<_>>());
    // The slots go on in turn after a restart: the last save does not lie where the next one goes.
    store.save(&heads(50..51)).unwrap();
    let bytes = std::fs::read(heads_path(place.path())).unwrap();
    assert_eq!(bytes.len(), 8192);
    assert!(read_heads(place.path(), &Hash([2; 32])).is_err(), "another cluster's");
}

#[test]
fn pr6_a_save_that_was_cut_short_leaves_the_one_before_it() {
    let (place, directory) = directory();
    let (mut store, _) = HeadStore::open(&directory).unwrap();
    let path = heads_path(place.path());
    let empty = std::fs::read(&path).unwrap();
    store.save(&heads(1..2)).unwrap();
    let one = std::fs::read(&path).unwrap();
    store.save(&heads(1..3)).unwrap();
    let two = std::fs::read(&path).unwrap();
    store.save(&heads(1..4)).unwrap();
    let three = std::fs::read(&path).unwrap();
    // Any subset of the sectors of a save; here its beginning or its end, byte by byte.
    for (before, after, old, new) in [(&empty, &one, 0, 1), (&one, &two, 1, 2), (&two, &three, 2, 3)] {
        for cut in (0..=8192).step_by(97) {
            for torn in [[&after[..cut], &before[cut..]].concat(), [&before[..cut], &after[cut..]].concat()] {
                std::fs::write(&path, &torn).unwrap();
                let found = read_heads(place.path(), &CLUSTER).unwrap().len();
                assert!(found == old || found == new, "cut at {cut}: {found} heads");
            }
        }
    }
}

#[test]
fn every_changed_byte_is_noticed_and_never_believed() {
    let (place, directory) = directory();
    let (mut store, _) = HeadStore::open(&directory).unwrap();
    store.save(&heads(1..2)).unwrap();
    store.save(&heads(1..4)).unwrap();
    let path = heads_path(place.path());
    let good = std::fs::read(&path).unwrap();
    let whole = 4096 + 64 + 4 + 3 * 176 + 32;
    for at in (4096..whole).step_by(7) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(sizes(&read_heads(place.path(), &CLUSTER).unwrap()), [1], "byte {at}: the slot before it");
        bytes[100] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(
            matches!(read_heads(place.path(), &CLUSTER), Err(HeadStoreError::Damaged { .. })),
            "byte {at}"
        );
    }
    for bytes in [&good[1..], &[good.as_slice(), &[0]].concat(), &[]] {
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(read_heads(place.path(), &CLUSTER), Err(HeadStoreError::Damaged { .. })));
    }
}
