//! Pruned copies: what they prove is right, they prove all that was asked, and they show nothing else.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use common::{Model, Shown, any_key, any_model, any_value, bytes, naive_copy, rows_of, small_model, trie_of};
use proptest::prelude::*;
use proptest::sample::Index;
use quorate_merkle::{Key, Missing, PartialTrie, ProofError, ProveError, Touched, Trie, diff};

/// Every answer of the copy is either the model's or [`Missing`]; returns how many were answered.
fn assert_sound(copy: &Trie, model: &Model, keys: &[Key]) -> usize {
    let mut answered = 0;
    for key in keys {
        if let Ok(value) = copy.get(key) {
            assert_eq!(value.as_deref(), model.get(key).map(Vec::as_slice));
            answered += 1;
        }
        if let Ok(present) = copy.contains(key) {
            assert_eq!(present, model.contains_key(key));
        }
        if let Ok(below) = copy.last_before(key) {
            assert_eq!(below, model.range(..key).next_back().map(|(key, _)| *key));
            answered += 1;
        }
        for hi in keys.iter().map(Some).chain([None]) {
            let mut expected = rows_of(model, key, hi).into_iter();
            let mut complete = true;
            for row in copy.scan(key, hi) {
                match row {
                    Ok((key, value)) => assert_eq!(Some((key, value.to_vec())), expected.next()),
                    Err(Missing(_)) => complete = false,
                }
            }
            if complete {
                assert_eq!(expected.next(), None);
                answered += 1;
            }
        }
    }
    answered
}

fn any_shown() -> impl Strategy<Value = Vec<Shown>> {
    let one = prop_oneof![2 => Just(Shown::Value), 2 => Just(Shown::Key), 3 => Just(Shown::Nothing)];
    prop::collection::vec(one, 40)
}

/// A copy that shows of each leaf what `shown` says, or `None` when that is nothing.
fn copy_showing(model: &Model, shown: &[Shown]) -> Option<Vec<u8>> {
    let choice: BTreeMap<Key, Shown> = model.keys().copied().zip(shown.iter().copied()).collect();
    let visible = choice.values().any(|shown| *shown != Shown::Nothing) || model.is_empty();
    visible.then(|| naive_copy(model, |key| choice[key]))
}

/// Rule S2 read literally: from the last leaf shown below `lo` to the first shown at or above `hi` nothing is
/// hidden, and what lies in the range is shown with its value.
fn is_provable(model: &Model, choice: &BTreeMap<Key, Shown>, lo: &Key, hi: Option<&Key>) -> bool {
    let visible = |key: &&Key| choice[*key] != Shown::Nothing;
    let first = model.range(..lo).map(|(key, _)| key).rfind(visible);
    let last = hi.and_then(|hi| model.range(hi..).map(|(key, _)| key).find(visible));
    hi.is_some_and(|hi| hi <= lo)
        || model
            .keys()
            .filter(|key| first.is_none_or(|first| *key > first) && last.is_none_or(|last| *key < last))
            .all(|key| match choice[key] {
                Shown::Value => true,
                Shown::Key => key < lo || hi.is_some_and(|hi| key >= hi),
                Shown::Nothing => false,
            })
}

/// Nothing is hidden between the last leaf shown below `key` and the first shown at or above it.
fn has_neighbours(model: &Model, choice: &BTreeMap<Key, Shown>, key: &Key) -> bool {
    let is_shown = |key: &Key| choice[key] != Shown::Nothing;
    let below = model.range(..key).next_back().is_none_or(|(key, _)| is_shown(key));
    below && model.range(key..).next().is_none_or(|(key, _)| is_shown(key))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    /// A copy answers a scan, and which leaf is the last before a key, exactly when rule S2 says that it can.
    #[test]
    fn scans_are_complete_exactly_by_the_rule(
        model in any_model(24),
        shown in any_shown(),
        others in prop::collection::vec(any_key(), 0..8),
    ) {
        let Some(encoded) = copy_showing(&model, &shown) else { return Ok(()) };
        let copy = PartialTrie::decode(&encoded).unwrap();
        let choice: BTreeMap<Key, Shown> = model.keys().copied().zip(shown).collect();
        let keys: Vec<Key> = model.keys().copied().chain(others).chain([Key::MIN, Key::MAX]).collect();
        for lo in &keys {
            for hi in keys.iter().map(Some).chain([None]) {
                let complete = copy.scan(lo, hi).all(|row| row.is_ok());
                prop_assert_eq!(complete, is_provable(&model, &choice, lo, hi));
            }
            prop_assert_eq!(copy.last_before(lo).is_ok(), has_neighbours(&model, &choice, lo));
        }
    }

    /// ST11, RD4: whatever part of a tree a liar shows, it answers no question wrongly.
    #[test]
    fn st11_any_valid_copy_is_sound(
        model in any_model(24),
        shown in any_shown(),
        others in prop::collection::vec(any_key(), 0..8),
    ) {
        let Some(encoded) = copy_showing(&model, &shown) else { return Ok(()) };
        let trie = trie_of(&model);
        let copy = PartialTrie::verify(&encoded, &trie.root()).unwrap();
        prop_assert_eq!(PartialTrie::encode(&copy).unwrap(), encoded);
        let keys: Vec<Key> = model.keys().copied().chain(others).chain([Key::MIN, Key::MAX]).collect();
        assert_sound(&copy, &model, &keys);
        // A comparison with the full trie finds no difference, and needs nothing that is hidden.
        prop_assert_eq!(diff(&copy, &trie).count(), 0);
    }

    /// A copy made for a question answers it completely, and shows no value but those asked for.
    #[test]
    fn a_proof_answers_its_question_and_hides_the_rest(
        model in any_model(40),
        present in prop::collection::vec(any::<Index>(), 0..4),
        keys in prop::collection::vec(any_key(), 0..4),
        ranges in prop::collection::vec((any_key(), prop::option::of(any_key())), 0..3),
    ) {
        let mut touched = Touched::new();
        let mut asked = keys;
        if !model.is_empty() {
            asked.extend(present.iter().map(|index| model.keys().nth(index.index(model.len())).unwrap()));
        }
        asked.iter().for_each(|key| touched.key(*key));
        ranges.iter().for_each(|(lo, hi)| touched.range(*lo, *hi));
        let trie = trie_of(&model);
        let encoded = trie.prove(&touched).unwrap();
        let copy = PartialTrie::verify(&encoded, &trie.root()).unwrap();
        prop_assert_eq!(&PartialTrie::encode(&copy).unwrap(), &encoded);
        // The copy itself can be asked the same again, as a client does that hands on what it holds.
        prop_assert_eq!(&copy.prove(&touched).unwrap(), &encoded);
        for key in &asked {
            prop_assert_eq!(copy.get(key).unwrap().map(|value| value.to_vec()), model.get(key).cloned());
        }
        for (lo, hi) in &ranges {
            let rows: Result<Vec<_>, Missing> = copy
                .scan(lo, hi.as_ref())
                .map(|row| row.map(|(key, value)| (key, value.to_vec())))
                .collect();
            prop_assert_eq!(rows.unwrap(), rows_of(&model, lo, hi.as_ref()));
            if hi.is_none_or(|hi| hi > *lo) {
                prop_assert_eq!(copy.last_before(lo), trie.last_before(lo));
            }
        }
        let in_question = |key: &Key| {
            let inside = |(lo, hi): &(Key, Option<Key>)| lo <= key && hi.is_none_or(|hi| *key < hi);
            asked.contains(key) || ranges.iter().any(inside)
        };
        for key in model.keys().filter(|key| !in_question(key)) {
            prop_assert_eq!(copy.get(key), Err(Missing(*key)));
        }
    }

    /// A page that stopped at its limit is proven up to there.
    #[test]
    fn a_page_is_proven_through_its_last_row(model in any_model(40), lo in any_key(), limit in 1..10_usize) {
        let trie = trie_of(&model);
        let page: Vec<_> = trie.scan(&lo, None).take(limit).map(|row| row.unwrap()).collect();
        let mut touched = Touched::new();
        match page.get(limit - 1) {
            Some((last, _)) => touched.range_through(lo, last),
            None => touched.range(lo, None),
        }
        let copy = PartialTrie::verify(&trie.prove(&touched).unwrap(), &trie.root()).unwrap();
        let again: Vec<_> = copy.scan(&lo, None).take(limit).map(|row| row.unwrap()).collect();
        prop_assert_eq!(again, page);
    }

    /// A stateless auditor applies a batch to the copy of what it touched, and reaches the same root.
    #[test]
    fn a_batch_is_applied_to_a_copy(
        model in any_model(40),
        batch in prop::collection::btree_map(any_key(), prop::option::of(any_value()), 0..20),
        removed in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let mut changes: BTreeMap<_, _> =
            batch.iter().map(|(key, value)| (*key, value.as_deref().map(bytes))).collect();
        for index in removed.iter().filter(|_| !model.is_empty()) {
            changes.insert(*model.keys().nth(index.index(model.len())).unwrap(), None);
        }
        let mut touched = Touched::new();
        changes.keys().for_each(|key| touched.key(*key));
        let mut trie = trie_of(&model);
        let mut copy = PartialTrie::verify(&trie.prove(&touched).unwrap(), &trie.root()).unwrap();
        let before = trie.clone();
        trie.apply(&changes).unwrap();
        copy.apply(&changes).unwrap();
        prop_assert_eq!(copy.root(), trie.root());
        let found: Vec<_> = diff(&before, &trie).map(|change| *change.unwrap().key()).collect();
        prop_assert!(found.iter().all(|key| changes.contains_key(key)));
    }

    /// What a copy answers after changes one by one is right too, and so is its root.
    #[test]
    fn changes_on_any_copy_are_sound(
        model in any_model(20),
        shown in any_shown(),
        steps in prop::collection::vec((any_key(), prop::option::of(any_value()), any::<Index>()), 0..20),
    ) {
        let Some(encoded) = copy_showing(&model, &shown) else { return Ok(()) };
        let mut copy = PartialTrie::decode(&encoded).unwrap();
        let mut model = model;
        for (other, value, index) in steps {
            let known = (!model.is_empty()).then(|| *model.keys().nth(index.index(model.len())).unwrap());
            let key = if value.is_some() { other } else { known.unwrap_or(other) };
            let root = copy.root();
            let done = match &value {
                Some(value) => {
                    copy.insert(key, bytes(value)).map(|()| drop(model.insert(key, value.clone())))
                }
                None => copy.remove(&key).map(|present| assert_eq!(present, model.remove(&key).is_some())),
            };
            match done {
                Ok(()) => prop_assert_eq!(copy.root().0, common::naive_root(&model)),
                Err(_) => prop_assert_eq!(copy.root(), root),
            }
            let keys: Vec<Key> = model.keys().copied().chain([key, other]).collect();
            assert_sound(&copy, &model, &keys);
        }
        // What is left is still in the one form, unless only a stub is left.
        match PartialTrie::encode(&copy) {
            Ok(encoded) => {
                let again = PartialTrie::verify(&encoded, &copy.root()).unwrap();
                prop_assert_eq!(PartialTrie::encode(&again).unwrap(), encoded);
            }
            Err(error) => prop_assert_eq!(error, ProveError::Missing(Missing(Key::MIN))),
        }
    }

    /// Bytes at random, with and without a right beginning, are refused or are the one encoding of something.
    #[test]
    fn whatever_is_accepted_is_canonical(
        start in any_model(6),
        cut in any::<Index>(),
        tail in prop::collection::vec(prop_oneof![3 => 0..6_u8, 1 => any::<u8>()], 0..80),
    ) {
        let mut encoded = naive_copy(&start, |_| Shown::Key);
        encoded.truncate(cut.index(encoded.len()) + 1);
        encoded.extend(tail);
        if let Ok(copy) = PartialTrie::decode(&encoded) {
            prop_assert_eq!(PartialTrie::encode(&copy).unwrap(), encoded);
        }
    }
}

/// RD4: the proof of another key, or under another root, is no answer.
#[test]
fn rd4_a_proof_answers_only_its_own_question() {
    let model = small_model();
    let trie = trie_of(&model);
    let mut other = trie.clone();
    other.insert(Key([0x77; 32]), bytes(b"x")).unwrap();
    let keys: Vec<Key> = model.keys().copied().collect();
    for asked in &keys {
        let mut touched = Touched::new();
        touched.key(*asked);
        let encoded = trie.prove(&touched).unwrap();
        assert_eq!(PartialTrie::verify(&encoded, &other.root()).unwrap_err(), ProofError::RootMismatch);
        let copy = PartialTrie::verify(&encoded, &trie.root()).unwrap();
        for key in &keys {
            assert_eq!(copy.get(key).is_ok(), key == asked);
        }
    }
}

/// RD4: a page from which a row was cut out does not lead to the root, and one whose row was hidden behind a
/// stub is not complete.
#[test]
fn rd4_a_truncated_page_is_noticed() {
    let model = small_model();
    let trie = trie_of(&model);
    let keys: Vec<Key> = model.keys().copied().collect();
    for hidden in &keys {
        let mut shorter = model.clone();
        shorter.remove(hidden);
        let cut = PartialTrie::encode(&trie_of(&shorter)).unwrap();
        assert_eq!(PartialTrie::verify(&cut, &trie.root()).unwrap_err(), ProofError::RootMismatch);
        let stub = naive_copy(&model, |key| if key == hidden { Shown::Nothing } else { Shown::Value });
        let copy = PartialTrie::verify(&stub, &trie.root()).unwrap();
        assert!(copy.scan(&Key::MIN, None).any(|row| row.is_err()));
        let pruned = naive_copy(&model, |key| if key == hidden { Shown::Key } else { Shown::Value });
        let copy = PartialTrie::verify(&pruned, &trie.root()).unwrap();
        assert_eq!(copy.scan(&Key::MIN, None).last(), Some(Err(Missing(*hidden))));
        assert_eq!(copy.scan(hidden, hidden.successor().as_ref()).next(), Some(Err(Missing(*hidden))));
    }
}

/// ST11: at the edges of the tree and in empty ranges, absence is proven by neighbours and by nothing less.
#[test]
fn st11_edges_and_empty_ranges() {
    let empty = Trie::new();
    let proof = empty.prove(&Touched::new()).unwrap();
    assert_eq!(proof, [1, 0]);
    let copy = PartialTrie::verify(&proof, &empty.root()).unwrap();
    assert_eq!(copy.get(&Key::MIN), Ok(None));
    assert_eq!(copy.scan(&Key::MIN, None).next(), None);

    let low = Key([0x40; 32]);
    let high = Key([0x4f; 32]);
    let model = Model::from([(low, vec![1]), (high, vec![2]), (Key([0x90; 32]), vec![3])]);
    let trie = trie_of(&model);
    let gap = (Key([0x44; 32]), Some(Key([0x45; 32])));
    let mut touched = Touched::new();
    touched.range(gap.0, gap.1);
    let copy = PartialTrie::verify(&trie.prove(&touched).unwrap(), &trie.root()).unwrap();
    assert_eq!(copy.scan(&gap.0, gap.1.as_ref()).next(), None);
    assert_eq!(copy.get(&low), Err(Missing(low)));
    assert_eq!(copy.last_before(&gap.0), Ok(Some(low)));
    // One neighbour alone proves nothing about the gap.
    for shown in [low, high] {
        let one = naive_copy(&model, |key| if *key == shown { Shown::Value } else { Shown::Nothing });
        let copy = PartialTrie::verify(&one, &trie.root()).unwrap();
        assert!(copy.scan(&gap.0, gap.1.as_ref()).any(|row| row.is_err()));
    }
    // Below the first and above the last leaf.
    for (lo, hi) in [(Key::MIN, Some(Key([0x3f; 32]))), (Key([0x91; 32]), None)] {
        let mut touched = Touched::new();
        touched.range(lo, hi);
        let copy = PartialTrie::verify(&trie.prove(&touched).unwrap(), &trie.root()).unwrap();
        assert_eq!(copy.scan(&lo, hi.as_ref()).next(), None);
        assert!(copy.scan(&low, None).any(|row| row.is_err()));
    }
}

/// Nothing asked: one pruned leaf shows that the copy belongs to the root.
#[test]
fn the_empty_question_has_an_answer() {
    let model = small_model();
    let trie = trie_of(&model);
    let copy = PartialTrie::verify(&trie.prove(&Touched::new()).unwrap(), &trie.root()).unwrap();
    assert!(model.keys().all(|key| copy.get(key).is_err()));
}

/// A copy cannot prove what it does not hold.
#[test]
fn a_copy_does_not_prove_what_is_hidden() {
    let trie = trie_of(&small_model());
    let first = *small_model().keys().next().unwrap();
    let last = *small_model().keys().next_back().unwrap();
    let mut touched = Touched::new();
    touched.key(first);
    let copy = PartialTrie::decode(&trie.prove(&touched).unwrap()).unwrap();
    let mut more = Touched::new();
    more.key(last);
    assert_eq!(copy.prove(&more), Err(ProveError::Missing(Missing(last))));
    let mut all = Touched::new();
    all.range(Key::MIN, None);
    assert!(matches!(copy.prove(&all), Err(ProveError::Missing(_))));
    // A comparison stops where it cannot see.
    let mut changed = trie.clone();
    changed.insert(last, bytes(b"other")).unwrap();
    assert!(diff(&copy, &changed).last().is_some_and(|change| change.is_err()));
}
