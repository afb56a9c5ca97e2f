//! The trie against `BTreeMap`, and its root against a computation from scratch.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use common::{Model, any_key, any_model, any_value, bytes, naive_root, rows_of, trie_of};
use proptest::prelude::*;
use quorate_merkle::{Change, Key, Trie, diff, empty_root, value_hash};

#[derive(Clone, Debug)]
enum Step {
    Insert(Key, Vec<u8>),
    Remove(Key),
    Get(Key),
    Scan(Key, Option<Key>, usize),
    LastBefore(Key),
    Root,
    /// Keeps a copy, which must not change from then on.
    Snapshot,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any_key(), any_value()).prop_map(|(key, value)| Step::Insert(key, value)),
        3 => any_key().prop_map(Step::Remove),
        2 => any_key().prop_map(Step::Get),
        2 => (any_key(), prop::option::of(any_key()), 0..20_usize)
            .prop_map(|(lo, hi, limit)| Step::Scan(lo, hi, limit)),
        1 => any_key().prop_map(Step::LastBefore),
        1 => Just(Step::Root),
        1 => Just(Step::Snapshot),
    ]
}

fn changes_of(old: &Model, new: &Model) -> Vec<Change> {
    let mut changes = BTreeMap::new();
    for key in old.keys().chain(new.keys()) {
        match (old.get(key), new.get(key)) {
            (None, _) => drop(changes.insert(*key, Change::Added(*key))),
            (_, None) => drop(changes.insert(*key, Change::Removed(*key))),
            (a, b) if a != b => drop(changes.insert(*key, Change::Replaced(*key))),
            _ => {}
        }
    }
    changes.into_values().collect()
}

fn assert_same(trie: &Trie, model: &Model) {
    assert_eq!(trie.root().0, naive_root(model));
    assert_eq!(trie.is_empty(), model.is_empty());
    let all: Vec<_> = trie.scan(&Key::MIN, None).map(|row| row.unwrap()).collect();
    assert!(
        all.iter()
            .map(|(key, value)| (key, &value[..]))
            .eq(model.iter().map(|(key, value)| (key, &value[..])))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn behaves_as_a_map_and_keeps_its_snapshots(steps in prop::collection::vec(any_step(), 0..120)) {
        let (mut trie, mut model) = (Trie::new(), Model::new());
        let mut snapshots = vec![(trie.clone(), model.clone())];
        for step in steps {
            match step {
                Step::Insert(key, value) => {
                    trie.insert(key, bytes(&value)).unwrap();
                    model.insert(key, value);
                }
                Step::Remove(key) => prop_assert_eq!(trie.remove(&key), Ok(model.remove(&key).is_some())),
                Step::Get(key) => {
                    let expected = model.get(&key);
                    prop_assert_eq!(trie.get(&key).unwrap().map(|value| value.to_vec()), expected.cloned());
                    prop_assert_eq!(trie.contains(&key), Ok(expected.is_some()));
                    prop_assert_eq!(trie.value_hash(&key), Ok(expected.map(|value| value_hash(value))));
                }
                Step::Scan(lo, hi, limit) => {
                    let rows: Vec<_> = trie.scan(&lo, hi.as_ref()).take(limit)
                        .map(|row| row.map(|(key, value)| (key, value.to_vec())).unwrap()).collect();
                    let mut expected = rows_of(&model, &lo, hi.as_ref());
                    expected.truncate(limit);
                    prop_assert_eq!(rows, expected);
                    let first = trie.first_at_or_after(&lo).unwrap().map(|(key, _)| key);
                    prop_assert_eq!(first, model.range(lo..).next().map(|(key, _)| *key));
                }
                Step::LastBefore(key) => {
                    let expected = model.range(..key).next_back().map(|(key, _)| *key);
                    prop_assert_eq!(trie.last_before(&key), Ok(expected));
                }
                Step::Root => prop_assert_eq!(trie.root().0, naive_root(&model)),
                Step::Snapshot => snapshots.push((trie.clone(), model.clone())),
            }
        }
        snapshots.push((trie, model));
        for (trie, model) in &snapshots {
            assert_same(trie, model);
        }
        for pair in snapshots.windows(2) {
            let changes: Vec<_> = diff(&pair[0].0, &pair[1].0).map(|change| change.unwrap()).collect();
            prop_assert_eq!(changes, changes_of(&pair[0].1, &pair[1].1));
        }
    }

    /// DT2: equal states have equal bytes, whatever led to them.
    #[test]
    fn the_root_knows_no_order_and_no_history(
        model in any_model(40),
        detours in any_model(20),
        seed in any::<u64>(),
    ) {
        let expected = trie_of(&model).root();
        prop_assert_eq!(expected.0, naive_root(&model));
        let mut rows: Vec<_> = model.iter().collect();
        rows.sort_by_key(|(key, _)| value_hash(&[&key.0[..], &seed.to_le_bytes()].concat()));
        let mut trie = trie_of(&detours);
        for (key, value) in &rows {
            trie.insert(**key, bytes(b"to be overwritten")).unwrap();
            prop_assert_ne!(trie.root(), expected);
            trie.insert(**key, bytes(value)).unwrap();
        }
        for key in detours.keys().filter(|key| !model.contains_key(key)) {
            prop_assert!(trie.remove(key).unwrap());
        }
        prop_assert_eq!(trie.root(), expected);
    }

    #[test]
    fn a_batch_applies_as_its_changes(
        model in any_model(40),
        batch in prop::collection::btree_map(any_key(), prop::option::of(any_value()), 0..30),
    ) {
        let changes: BTreeMap<_, _> =
            batch.iter().map(|(key, value)| (*key, value.as_deref().map(bytes))).collect();
        let mut trie = trie_of(&model);
        trie.apply(&changes).unwrap();
        let mut changed = model;
        for (key, value) in batch {
            match value {
                Some(value) => drop(changed.insert(key, value)),
                None => drop(changed.remove(&key)),
            }
        }
        assert_same(&trie, &changed);
    }

    #[test]
    fn differences_between_unrelated_maps(old in any_model(40), new in any_model(40)) {
        let (a, b) = (trie_of(&old), trie_of(&new));
        let changes: Vec<_> = diff(&a, &b).map(|change| change.unwrap()).collect();
        prop_assert_eq!(changes, changes_of(&old, &new));
    }
}

/// The longest path there is: 256 inner nodes, one for each bit.
#[test]
fn the_deepest_tree() {
    let mut model = Model::from([(Key::MIN, vec![])]);
    for position in 0..256 {
        let mut key = Key::MIN;
        key.0[position / 8] = 0x80 >> (position % 8);
        model.insert(key, vec![position as u8]);
    }
    let mut trie = trie_of(&model);
    assert_same(&trie, &model);
    for key in model.keys().copied().collect::<Vec<_>>() {
        model.remove(&key);
        assert_eq!(trie.remove(&key), Ok(true));
        assert_eq!(trie.remove(&key), Ok(false));
        assert_eq!(trie.root().0, naive_root(&model));
    }
    assert!(trie.is_empty());
    assert_eq!(trie.root(), empty_root());
}

#[test]
fn an_empty_value_is_not_absent() {
    let mut trie = Trie::new();
    assert_eq!(trie.get(&Key::MIN), Ok(None));
    trie.insert(Key::MIN, bytes(b"")).unwrap();
    assert_eq!(trie.get(&Key::MIN), Ok(Some(bytes(b""))));
    assert_eq!(trie.root().0, common::naive_leaf(&Key::MIN, b""));
}

/// Readers on other threads prove from snapshots while the owner goes on.
#[test]
fn snapshots_may_cross_threads() {
    fn assert_shareable<T: Send + Sync + 'static>(_: &T) {}
    assert_shareable(&Trie::new());
}
