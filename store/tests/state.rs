//! The state against a plain model: versions, scans, pruning with snapshots and pins, reopening, refusals.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use proptest::prelude::*;
use quorate_store::state::{Key, Row};
use quorate_store::{Directory, Fault, Identity, State, StateError, StateOptions};
use support::{IDENTITY, directory};

type Rows = BTreeMap<Key, Row>;
type Changes = BTreeMap<Key, Option<Row>>;

fn key(number: u8) -> Key {
    let mut key = [0xaa; 32];
    key[31] = number;
    key
}

fn open(directory: &Directory) -> State {
    State::open(directory, &StateOptions::default()).unwrap()
}

fn apply(rows: &Rows, changes: &Changes) -> Rows {
    let mut rows = rows.clone();
    for (key, value) in changes {
        match value {
            Some(value) => drop(rows.insert(*key, Arc::clone(value))),
            None => drop(rows.remove(key)),
        }
    }
    rows
}

fn scan(state: &State, height: u64) -> Rows {
    state.scan_at(&[0; 32], None, height).unwrap().map(Result::unwrap).collect()
}

fn changes() -> impl Strategy<Value = Changes> {
    let value = proptest::option::weighted(0.7, proptest::collection::vec(any::<u8>(), 0..5));
    let value = value.prop_map(|value| value.map(Row::from));
    proptest::collection::btree_map((0u8..12).prop_map(key), value, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_retained_height_reads_as_the_model(
        history in proptest::collection::vec(changes(), 1..25),
        base in 0u64..3,
        below in 0u64..30,
        snapshots in proptest::collection::vec(0u64..30, 0..3),
        pinned in 0u64..30,
    ) {
        let place = tempfile::tempdir().unwrap();
        let directory = directory(place.path());
        let mut state = open(&directory);
        let mut model: BTreeMap<u64, Rows> = BTreeMap::new();
        let mut rows = Rows::new();
        for (index, changes) in history.iter().enumerate() {
            let height = base + index as u64;
            rows = apply(&rows, changes);
            state.commit(height, changes, &height.to_be_bytes(), b"frontier").unwrap();
            model.insert(height, rows.clone());
            if index % 7 == 6 {
                drop(state);
                state = open(&directory);
            }
        }
        let applied = base + history.len() as u64 - 1;
        for round in 0..2 {
            for (height, rows) in &model {
                prop_assert_eq!(&scan(&state, *height), rows, "height {} round {}", height, round);
                for number in 0..12 {
                    let found = state.get_at(&key(number), *height).unwrap();
                    prop_assert_eq!(found.as_ref(), rows.get(&key(number)));
                }
                let part: Rows = state.scan_at(&key(3), Some(key(8)), *height).unwrap().map(Result::unwrap).collect();
                let expected: Rows = rows.range(key(3)..key(8)).map(|(key, row)| (*key, Arc::clone(row))).collect();
                prop_assert_eq!(part, expected);
            }
            let horizon = state.horizon();
            for (height, rows) in &model {
                // S10: from the newest height back to any other, and from one to a lower one.
                for (later, above) in model.range(height..) {
                    let back = state.rewind(*later, *height, u64::MAX);
                    if *height < horizon {
                        let refused = matches!(back, Err(StateError::NotRetained { .. }));
                        prop_assert!(refused, "a snapshot lacks what was changed since");
                    } else {
                        prop_assert_eq!(&apply(above, &back.unwrap()), rows, "{} back to {}", later, height);
                    }
                }
            }
            for number in 0..12 {
                for wanted in 0..3 {
                    let is_wanted = |value: &[u8]| value.len() % 3 == wanted;
                    let with = |rows: &Rows| rows.get(&key(number)).is_some_and(|value| is_wanted(value));
                    let last = model.iter().rev().find(|(_, rows)| with(rows)).map(|(height, _)| *height);
                    prop_assert_eq!(state.last_with(&key(number), is_wanted).unwrap(), last);
                }
            }
            if round == 1 {
                break;
            }
            let pin = state.pin(pinned).ok();
            let mut cursor = None;
            loop {
                let pruned = state.prune(below, &snapshots, cursor.as_ref()).unwrap();
                cursor = pruned.next;
                if cursor.is_none() { break }
            }
            let horizon = below.min(applied).max(base);
            prop_assert_eq!(state.horizon(), horizon);
            let readable = |height: u64| height >= horizon || snapshots.contains(&height);
            if let Some(pin) = pin {
                prop_assert_eq!(&scan(&state, pin.height()), &model[&pin.height()]);
            }
            // What only the pin kept goes with it.
            state.prune(below, &snapshots, None).unwrap();
            prop_assert_eq!(state.prune(below, &snapshots, None).unwrap().removed, 0);
            model.retain(|height, _| readable(*height));
            for height in 0..applied + 2 {
                prop_assert_eq!(state.pin(height).is_ok(), model.contains_key(&height), "height {}", height);
            }
            drop(state);
            state = open(&directory);
        }
        let loaded = state.load().unwrap().unwrap();
        prop_assert_eq!(loaded.height, applied);
        prop_assert_eq!(loaded.header, applied.to_be_bytes().to_vec());
        prop_assert_eq!(loaded.frontier, b"frontier".to_vec());
        let newest: Rows = state.rows().unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(&newest, &model[&applied]);
    }
}

#[test]
fn heights_follow_each_other() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let state = open(&directory);
    assert!(state.load().unwrap().is_none() && state.applied_height().is_none());
    assert!(matches!(state.rows().err(), Some(StateError::Empty)));
    state.commit(5, &Changes::new(), b"h", b"f").unwrap();
    for wrong in [0, 4, 5, 7, u64::MAX] {
        let refused = state.commit(wrong, &Changes::new(), b"h", b"f").err().unwrap();
        assert!(matches!(refused, StateError::Gap { applied: 5, .. }) && refused.fault() == Fault::Ours);
    }
    state.commit(6, &Changes::new(), b"h", b"f").unwrap();
    assert!(matches!(state.get_at(&key(1), 4), Err(StateError::NotRetained { horizon: 5, applied: 6, .. })));
    assert!(matches!(state.get_at(&key(1), 7), Err(StateError::NotRetained { .. })));
}

#[test]
fn a_row_with_many_versions_is_skipped_in_both_directions() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let state = open(&directory);
    for height in 0..200u64 {
        let mut changes = Changes::from([(key(1), Some(Row::from(height.to_be_bytes().to_vec())))]);
        if height == 0 {
            changes.insert(key(2), Some(Row::from(vec![2])));
        }
        state.commit(height, &changes, b"h", b"f").unwrap();
    }
    for height in [0, 1, 100, 199] {
        let rows = scan(&state, height);
        assert_eq!(*rows[&key(1)], height.to_be_bytes());
        assert_eq!(rows.len(), 2);
    }
    assert_eq!(state.prune(199, &[50], None).unwrap().removed, 198);
    assert_eq!(*scan(&state, 50)[&key(1)], 50u64.to_be_bytes());
}

#[test]
fn a_foreign_state_is_refused_and_a_damaged_one_can_be_rebuilt() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let state = open(&directory);
    let changes = Changes::from([(key(1), Some(Row::from(vec![7; 4000])))]);
    state.commit(0, &changes, b"h", b"f").unwrap();
    state.sync().unwrap();
    drop(state);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Directory::create(elsewhere.path(), Identity { replica: 3, ..IDENTITY }).unwrap();
    support::copy(&directory.state_path(), &other.state_path());
    let refused = State::open(&other, &StateOptions::default()).err().unwrap();
    assert!(matches!(refused, StateError::Foreign) && refused.calls_for_rebuilding());

    for entry in fs::read_dir(directory.state_path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("MANIFEST") {
            fs::write(&path, [0x55; 300]).unwrap();
        }
    }
    let refused = State::open(&directory, &StateOptions::default()).err().unwrap();
    assert!(refused.calls_for_rebuilding() && refused.fault() == Fault::Disk, "{refused}");
    State::destroy(&directory).unwrap();
    let state = open(&directory);
    assert!(state.load().unwrap().is_none());
    state.commit(9, &changes, b"h", b"f").unwrap();
    drop(state);
    for entry in fs::read_dir(directory.state_path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("MANIFEST") {
            fs::remove_file(&path).unwrap();
        }
    }
    let refused = State::open(&directory, &StateOptions::default()).err().unwrap();
    assert!(refused.calls_for_rebuilding(), "{refused}");
}

/// PR8: whatever a crash leaves of the state opens again, at an older height at worst.
#[test]
fn what_was_committed_survives_the_end_of_the_process_and_a_torn_write_ahead_log_is_an_older_height() {
    let place = tempfile::tempdir().unwrap();
    let opened = directory(place.path());
    let state = open(&opened);
    for height in 0..50u64 {
        let changes =
            Changes::from([(key((height % 12) as u8), Some(Row::from(height.to_be_bytes().to_vec())))]);
        state.commit(height, &changes, &height.to_be_bytes(), b"f").unwrap();
    }
    // As after kill -9: a copy of the files while the database is open.
    let killed = tempfile::tempdir().unwrap();
    support::copy(place.path(), killed.path());
    drop(state);
    let copied = directory(killed.path());
    assert_eq!(open(&copied).applied_height(), Some(49));
    // As after a power failure: the end of the write-ahead log is gone.
    let torn = tempfile::tempdir().unwrap();
    support::copy(place.path(), torn.path());
    let copied = directory(torn.path());
    let mut cut = 0;
    for entry in fs::read_dir(copied.state_path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log")
            && fs::metadata(&path).unwrap().len() > 0
        {
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() * 2 / 3]).unwrap();
            cut += 1;
        }
    }
    assert!(cut > 0);
    let state = open(&copied);
    let applied = state.applied_height().unwrap();
    assert!(applied < 49);
    let rows = scan(&state, applied);
    let expected = (0..=applied).rev().take(12).count();
    assert_eq!(rows.len(), expected);
    for row in rows.values() {
        assert!(u64::from_be_bytes(row[..].try_into().unwrap()) <= applied);
    }
}

/// A5: what is gathered for one height has a bound.
#[test]
fn a_height_that_lies_too_far_back_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(place.path());
    let state = open(&directory);
    for height in 0..10 {
        let changes = Changes::from([(key(height), Some(Row::from(vec![height; 100])))]);
        state.commit(u64::from(height), &changes, b"h", b"f").unwrap();
    }
    let room = |rows: u64| rows * quorate_store::state::REWOUND_ROW_BYTES;
    assert_eq!(state.rewind(9, 4, room(5)).unwrap(), (5..10).map(|number| (key(number), None)).collect());
    assert!(matches!(state.rewind(9, 4, room(5) - 1), Err(StateError::TooFar { height: 4, .. })));
    let changes = Changes::from([(key(0), None)]);
    state.commit(10, &changes, b"h", b"f").unwrap();
    assert!(matches!(state.rewind(10, 9, room(1) + 99), Err(StateError::TooFar { .. })));
    assert_eq!(state.rewind(10, 9, room(1) + 100).unwrap()[&key(0)].as_deref(), Some(&[0; 100][..]));
    assert!(matches!(state.rewind(11, 9, u64::MAX), Err(StateError::NotRetained { .. })));
}
