//! Proofs of the state trie against a map that a test can look into (ST11, RD4).
//!
//! Properties: a copy that leads to the true root answers each question as the map does, or says that it
//! lacks the answer; the honest copy for a question never lacks it; changes on a copy lead to the root to which
//! they lead on the full trie. Whatever parses is written again byte for byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_merkle::{Key, PartialTrie, Touched, Trie};

use crate::copy::Copy;
use crate::memory::decoding;
use crate::source::Source;

/// Keys in a map.
const KEYS_MAX: usize = 24;

type Map = BTreeMap<Key, Vec<u8>>;

/// Any bytes as a pruned copy.
pub fn bytes(data: &[u8]) {
    let Ok(trie) = decoding(data.len(), || PartialTrie::decode(data)) else { return };
    assert_eq!(PartialTrie::encode(&trie).as_deref(), Ok(data), "another encoding of one copy (CR4)");
    let root = trie.root();
    assert!(PartialTrie::verify(data, &root).is_ok());
    assert!(PartialTrie::decode(&[data, &[0]].concat()).is_err(), "trailing bytes are accepted");
    let mut key = Key::MIN;
    for step in data.chunks(32).take(16) {
        key.0[..step.len()].copy_from_slice(step);
        let _ = (trie.get(&key), trie.contains(&key), trie.last_before(&key), trie.value_hash(&key));
        let _ = trie.scan(&key, None).take(64).try_fold(key, |last, row| row.map(|(at, _)| at.max(last)));
        let mut changed = trie.clone();
        if changed.insert(key, Arc::from(step)).is_ok() {
            assert_eq!(changed.get(&key).ok().flatten().as_deref(), Some(step));
            if trie.contains(&key) == Ok(false) && changed.remove(&key).is_ok() {
                assert_eq!(changed.root(), root, "putting and removing leads back");
            }
        }
    }
}

/// A key out of few, which differ in few bits, at either end or in the middle.
fn key(source: &mut Source<'_>) -> Key {
    let mut key = Key::MIN;
    let place = source.choose(&[0, 0, 1, 7, 8, 15, 30, 31]);
    key.0[place] = source.byte();
    if source.flag() {
        key.0[31] ^= source.byte();
    }
    if source.below(16) == 0 {
        return if source.flag() { Key::MAX } else { Key::MIN };
    }
    key
}

fn full(map: &Map) -> Trie {
    let mut trie = Trie::new();
    for (key, value) in map {
        trie.insert(*key, Arc::from(value.as_slice())).expect("a full trie lacks nothing");
    }
    trie
}

struct Questions {
    keys: Vec<Key>,
    ranges: Vec<(Key, Option<Key>)>,
}

impl Questions {
    fn new(source: &mut Source<'_>, map: &Map) -> Self {
        let held: Vec<Key> = map.keys().copied().collect();
        let any = |source: &mut Source<'_>| match source.below(3) {
            0 if !held.is_empty() => held[usize::from(source.byte()) % held.len()],
            _ => key(source),
        };
        let keys = (0..source.below(4)).map(|_| any(source)).collect();
        let ranges = (0..source.below(3))
            .map(|_| (any(source), if source.below(4) == 0 { None } else { Some(any(source)) }))
            .collect();
        Self { keys, ranges }
    }

    fn touched(&self) -> Touched {
        let mut touched = Touched::new();
        self.keys.iter().for_each(|key| touched.key(*key));
        self.ranges.iter().for_each(|(lo, hi)| touched.range(*lo, *hi));
        touched
    }
}

/// The rows of a range as the map has them.
fn range<'m>(map: &'m Map, lo: &Key, hi: Option<&Key>) -> Vec<(Key, &'m [u8])> {
    let below = |key: &Key| hi.is_none_or(|hi| key < hi);
    map.range(*lo..).take_while(|(key, _)| below(key)).map(|(key, value)| (*key, value.as_slice())).collect()
}

/// Compares what a copy answers with the map; `complete` if it may lack nothing.
fn compare(copy: &Trie, map: &Map, questions: &Questions, complete: bool) {
    for key in &questions.keys {
        match copy.get(key) {
            Ok(found) => assert_eq!(found.as_deref(), map.get(key).map(Vec::as_slice), "a forged answer"),
            Err(_) => assert!(!complete, "the honest copy lacks {key}"),
        }
        if let Ok(found) = copy.contains(key) {
            assert_eq!(found, map.contains_key(key), "a forged absence or presence");
        }
        if let Ok(found) = copy.value_hash(key) {
            assert_eq!(found, map.get(key).map(|value| quorate_merkle::value_hash(value)));
        }
    }
    for (lo, hi) in &questions.ranges {
        let truth = range(map, lo, hi.as_ref());
        let mut rows = Vec::new();
        let mut lacks = false;
        for row in copy.scan(lo, hi.as_ref()) {
            match row {
                Ok(row) => rows.push(row),
                Err(_) => lacks = true,
            }
        }
        assert!(!(lacks && complete), "the honest copy lacks a part of a page");
        let found: Vec<(Key, &[u8])> = rows.iter().map(|(key, value)| (*key, &value[..])).collect();
        assert!(truth.starts_with(&found), "a row that is not there, or one left out");
        assert!(lacks || found.len() == truth.len(), "a page that ends too early");
        if let Ok(first) = copy.first_at_or_after(lo) {
            let truth = map.range(*lo..).next();
            assert_eq!(first.as_ref().map(|(key, value)| (key, &value[..])), truth.map(|(k, v)| (k, &v[..])));
        }
        if let Ok(last) = copy.last_before(lo) {
            assert_eq!(last.as_ref(), map.range(..*lo).next_back().map(|(key, _)| key));
        }
    }
}

/// Puts and removes on a copy lead to the true root, or the copy says that it lacks what they need.
fn change(source: &mut Source<'_>, copy: &Trie, map: &Map, questions: &Questions) {
    let (mut copy, mut map) = (copy.clone(), map.clone());
    for key in &questions.keys {
        let value = source.some(8);
        let done = if source.flag() {
            map.insert(*key, value.to_vec());
            copy.insert(*key, Arc::from(value))
        } else {
            map.remove(key);
            copy.remove(key).map(drop)
        };
        if done.is_err() {
            return;
        }
        assert_eq!(copy.root(), full(&map).root(), "a change leads to another root");
    }
}

/// A map, questions, and a copy that a liar made of the honest ones.
pub fn proof(data: &[u8]) {
    let mut source = Source::new(data);
    let map: Map =
        (0..source.below(KEYS_MAX + 1)).map(|_| (key(&mut source), source.some(8).to_vec())).collect();
    let trie = full(&map);
    let root = trie.root();
    let questions = Questions::new(&mut source, &map);
    let honest = trie.prove(&questions.touched()).expect("a small map");
    let answered = PartialTrie::verify(&honest, &root).expect("an honest copy");
    compare(&answered, &map, &questions, true);
    change(&mut source, &answered, &map, &questions);

    let others = Questions::new(&mut source, &map);
    let Some(whole) = Copy::read(&PartialTrie::encode(&trie).expect("a small map")) else { return };
    assert_eq!(whole.hash(), root);
    let mut lie = match source.below(3) {
        0 => whole.clone(),
        1 => Copy::read(&honest).expect("not the empty trie"),
        _ => Copy::read(&trie.prove(&others.touched()).expect("a small map")).expect("not the empty trie"),
    };
    if source.flag() {
        lie.prune(&mut source);
    }
    for _ in 0..source.below(4) {
        lie.lie(&mut source, &whole);
    }
    let mut bytes = lie.write();
    if source.below(4) == 0 {
        let place = usize::from(source.byte()) % bytes.len();
        bytes[place] ^= source.byte();
    }
    let Ok(copy) = decoding(bytes.len(), || PartialTrie::verify(&bytes, &root)) else { return };
    assert_eq!(PartialTrie::encode(&copy).as_deref(), Ok(&bytes[..]));
    compare(&copy, &map, &questions, false);
    compare(&copy, &map, &others, false);
    change(&mut source, &copy, &map, &others);
}
