//! The overlay against a plain map, and a recorded computation against its pruned copy.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use quorate_merkle::{Key as TrieKey, PartialTrie, Trie};
use quorate_metadata::{Key, Missing, View};

use super::{Base, COST_OF_ACCESS, Overlay, Recorder, Value};

/// Few keys, close together and at both ends, so that they meet.
fn key(number: u8) -> Key {
    let mut key = [if number & 1 == 0 { 0 } else { 0xff }; 32];
    key[31] ^= number >> 1;
    key
}

fn value(number: u8) -> Value {
    vec![number; usize::from(number) + 1].into()
}

fn trie(rows: &BTreeMap<Key, Value>) -> Trie {
    let mut trie = Trie::new();
    for (key, value) in rows {
        trie.insert(TrieKey(*key), value.clone()).unwrap();
    }
    trie
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Get(u8),
    Next(u8, Option<u8>),
    Keep,
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    let number = || 0..32_u8;
    prop_oneof![
        4 => (number(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        3 => number().prop_map(Step::Delete),
        3 => number().prop_map(Step::Get),
        6 => (number(), prop::option::of(number())).prop_map(|(from, end)| Step::Next(from, end)),
        1 => Just(Step::Keep),
        1 => Just(Step::Drop),
    ]
}

fn rows() -> impl Strategy<Value = BTreeMap<Key, Value>> {
    prop::collection::btree_map((0..32_u8).prop_map(key), any::<u8>().prop_map(value), 0..20)
}

fn model_next(rows: &BTreeMap<Key, Value>, from: &Key, end: Option<&Key>) -> Option<(Key, Value)> {
    let found = rows.range(*from..).next()?;
    end.is_none_or(|end| found.0 < end).then(|| (*found.0, found.1.clone()))
}

proptest! {
    #[test]
    fn an_overlay_is_the_map_that_the_steps_make(
        base in rows(),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let trie = trie(&base);
        let mut overlay = Overlay::new(&trie);
        overlay.begin(u64::MAX);
        let mut kept = base.clone();
        let mut rows = base.clone();
        for step in steps {
            match step {
                Step::Put(number, content) => {
                    overlay.put(key(number), value(content));
                    rows.insert(key(number), value(content));
                }
                Step::Delete(number) => {
                    overlay.delete(key(number));
                    rows.remove(&key(number));
                }
                Step::Get(number) => {
                    prop_assert_eq!(overlay.get(&key(number)), Ok(rows.get(&key(number)).cloned()));
                }
                Step::Next(from, end) => {
                    let end = end.map(key);
                    let expected = model_next(&rows, &key(from), end.as_ref());
                    prop_assert_eq!(overlay.next(&key(from), end.as_ref()), Ok(expected));
                }
                Step::Keep => {
                    overlay.keep();
                    kept = rows.clone();
                }
                Step::Drop => {
                    overlay.drop_operation();
                    rows = kept.clone();
                }
            }
        }
        let mut after = base;
        for (key, change) in overlay.into_changes() {
            match change {
                Some(value) => after.insert(key, value),
                None => after.remove(&key),
            };
        }
        prop_assert_eq!(after, kept, "only what was kept counts");
    }

    #[test]
    fn a_recorded_computation_runs_alike_on_its_pruned_copy(
        base in rows(),
        asks in prop::collection::vec((0..32_u8, prop::option::of(prop::option::of(0..32_u8))), 0..12),
    ) {
        let trie = trie(&base);
        let run = |view: &dyn View| -> Vec<Result<Option<(Key, Value)>, Missing>> {
            let ask = |(number, scan): &(u8, Option<Option<u8>>)| match scan {
                None => view.get(&key(*number)).map(|value| value.map(|value| (key(*number), value))),
                Some(end) => view.next(&key(*number), end.map(key).as_ref()),
            };
            asks.iter().map(ask).collect()
        };
        let recorder = Recorder::new(&trie);
        let expected = run(&Overlay::new(&recorder));
        prop_assert!(expected.iter().all(Result::is_ok));
        let proof = trie.prove(&recorder.into_touched()).unwrap();
        let pruned = PartialTrie::verify(&proof, &trie.root()).unwrap();
        prop_assert_eq!(run(&Overlay::new(&pruned)), expected);
    }
}

#[test]
fn a_budget_that_is_used_up_answers_nothing_more() {
    let rows: BTreeMap<Key, Value> = (0..8).map(|number| (key(number), value(number))).collect();
    let trie = trie(&rows);
    let mut overlay = Overlay::new(&trie);
    overlay.begin(3 * COST_OF_ACCESS);
    for number in 0..4 {
        assert_eq!(overlay.get(&key(number)), Ok(Some(value(number))), "the last one may overdraw it");
    }
    assert!(overlay.exhausted());
    assert_eq!(overlay.get(&key(0)), Err(Missing(key(0))));
    assert_eq!(overlay.next(&key(1), None), Err(Missing(key(1))));
    overlay.drop_operation();
    assert!(!overlay.exhausted());
    assert_eq!(overlay.get(&key(0)), Ok(Some(value(0))));
    let large: Value = Arc::from(vec![0; 10 * super::BYTES_PER_COST]);
    let before = overlay.spent();
    overlay.begin(5);
    overlay.put(key(9), large);
    assert_eq!(overlay.spent() - before, 11);
    assert!(overlay.exhausted());
}

/// A14: rows that come and go within a batch are passed over at a price, or a scan after the other would cost
/// their square.
#[test]
fn a14_rows_that_were_taken_out_are_charged_when_a_scan_passes_them() {
    let trie = Trie::new();
    let mut overlay = Overlay::new(&trie);
    for number in 0..100 {
        overlay.put(key(number), value(number));
    }
    overlay.keep();
    overlay.begin(u64::MAX);
    for number in 0..99 {
        overlay.delete(key(number));
    }
    overlay.keep();
    overlay.begin(500);
    let mut scans = 0;
    let (first, last) = ([0; 32], key(99));
    while overlay.next(&first, None).is_ok() {
        scans += 1;
        assert!(scans < 100, "they cost nothing");
    }
    assert!(overlay.exhausted());
    assert!(matches!(trie_first(&mut overlay), Ok(Some((found, _))) if found == last));
}

/// The first row, outside of any budget.
fn trie_first(overlay: &mut Overlay<'_, Trie>) -> Result<Option<(Key, Value)>, Missing> {
    overlay.begin(u64::MAX);
    overlay.next(&[0; 32], None)
}

#[test]
fn a_trie_skips_what_is_hidden() {
    let rows: BTreeMap<Key, Value> = (0..8).map(|number| (key(number), value(number))).collect();
    let trie = trie(&rows);
    let hidden = |candidate: &Key| *candidate != key(4);
    assert_eq!(Base::next(&trie, &key(0), None, &hidden), Ok(Some((key(4), value(4)))));
    assert_eq!(Base::next(&trie, &key(0), Some(&key(4)), &hidden), Ok(None));
}
