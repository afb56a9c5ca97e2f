//! What the tests compare with: a second, naive reading of `docs/SPEC/merkle.md` that shares no code with the
//! crate, and keys with prefixes in common.
#![allow(dead_code, clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use quorate_merkle::{Key, Trie};

pub type Model = BTreeMap<Key, Vec<u8>>;
/// A leaf of the naive copy: shown with its value, shown by its key only, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Value,
    Key,
    Nothing,
}

fn keyed(context: &str, input: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(&blake3::derive_key(context, b""), input).as_bytes()
}

pub fn naive_leaf(key: &Key, value: &[u8]) -> [u8; 32] {
    keyed("quorate merkle v1 leaf", &[key.0, keyed("quorate merkle v1 value", value)].concat())
}

pub fn naive_inner(bit: usize, left: [u8; 32], right: [u8; 32]) -> [u8; 32] {
    keyed(&format!("quorate merkle v1 inner {bit}"), &[left, right].concat())
}

pub fn bit(key: &Key, position: usize) -> bool {
    key.0[position / 8] >> (7 - position % 8) & 1 == 1
}

/// Where a sorted list of at least two leaves branches, and the number of leaves on the left.
fn branch<T>(rows: &[(Key, T)]) -> (usize, usize) {
    let (first, last) = (&rows[0].0, &rows[rows.len() - 1].0);
    let position = (0..256).find(|position| bit(first, *position) != bit(last, *position)).unwrap();
    (position, rows.iter().filter(|(key, _)| !bit(key, position)).count())
}

fn naive_hash(rows: &[(Key, &[u8])]) -> [u8; 32] {
    if let [(key, value)] = rows {
        return naive_leaf(key, value);
    }
    let (position, left) = branch(rows);
    naive_inner(position, naive_hash(&rows[..left]), naive_hash(&rows[left..]))
}

pub fn naive_root(model: &Model) -> [u8; 32] {
    let rows: Vec<_> = model.iter().map(|(key, value)| (*key, value.as_slice())).collect();
    if rows.is_empty() { blake3::derive_key("quorate merkle v1 empty", b"") } else { naive_hash(&rows) }
}

/// The encoding of the copy that shows of each leaf what is said; something must be shown.
pub fn naive_copy(model: &Model, shown: impl Fn(&Key) -> Shown) -> Vec<u8> {
    fn write(bytes: &mut Vec<u8>, rows: &[(Key, (&[u8], Shown))]) {
        if rows.iter().all(|(_, (_, shown))| *shown == Shown::Nothing) {
            let plain: Vec<_> = rows.iter().map(|(key, (value, _))| (*key, *value)).collect();
            bytes.push(4);
            bytes.extend(naive_hash(&plain));
        } else if let [(key, (value, shown))] = rows {
            bytes.push(if *shown == Shown::Value { 2 } else { 3 });
            bytes.extend(key.0);
            if *shown == Shown::Value {
                bytes.extend((value.len() as u32).to_le_bytes());
                bytes.extend(*value);
            } else {
                bytes.extend(keyed("quorate merkle v1 value", value));
            }
        } else {
            let (position, left) = branch(rows);
            bytes.extend([1, position as u8]);
            write(bytes, &rows[..left]);
            write(bytes, &rows[left..]);
        }
    }
    let rows: Vec<_> = model.iter().map(|(key, value)| (*key, (value.as_slice(), shown(key)))).collect();
    let mut bytes = vec![1];
    if rows.is_empty() {
        bytes.push(0);
    } else {
        write(&mut bytes, &rows);
    }
    bytes
}

pub fn bytes(value: &[u8]) -> Arc<[u8]> {
    Arc::from(value)
}

pub fn trie_of(model: &Model) -> Trie {
    let mut trie = Trie::new();
    for (key, value) in model {
        trie.insert(*key, bytes(value)).unwrap();
    }
    trie
}

pub fn rows_of(model: &Model, lo: &Key, hi: Option<&Key>) -> Vec<(Key, Vec<u8>)> {
    model
        .range(*lo..)
        .take_while(|(key, _)| hi.is_none_or(|hi| *key < hi))
        .map(|(key, value)| (*key, value.clone()))
        .collect()
}

/// Keys that share long prefixes: a few bits set at few places, on one of two backgrounds.
pub fn any_key() -> impl Strategy<Value = Key> {
    const PLACES: [usize; 14] = [0, 1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 200, 254, 255];
    let sparse = (any::<bool>(), prop::collection::vec(0..PLACES.len(), 0..5)).prop_map(|(ones, places)| {
        let mut key = if ones { Key::MAX } else { Key::MIN };
        for place in places {
            key.0[PLACES[place] / 8] ^= 0x80 >> (PLACES[place] % 8);
        }
        key
    });
    prop_oneof![9 => sparse, 1 => any::<[u8; 32]>().prop_map(Key)]
}

pub fn any_value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

pub fn any_model(leaves: usize) -> impl Strategy<Value = Model> {
    prop::collection::btree_map(any_key(), any_value(), 0..leaves)
}

/// A small tree with neighbours at several distances, for the tests that try every byte.
pub fn small_model() -> Model {
    (0..12_u8)
        .map(|index| {
            let mut key = Key([index & 3; 32]);
            key.0[8] = index.wrapping_mul(37);
            key.0[31] = index;
            (key, vec![1, index, index])
        })
        .collect()
}
