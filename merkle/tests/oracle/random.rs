//! Random maps, proofs and forgeries, as requests to both sides. What a seed gives is always the same.

use std::io::Read;

use quorate_merkle::{Key, PartialTrie, Touched, Trie};
use serde_json::{Value, json};

use super::common::{Model, Shown, naive_copy, trie_of};
use super::respond::hex;

/// Where keys branch: at the ends of bytes, words and the key, and where rule S1 has its fields.
const PLACES: [usize; 14] = [0, 1, 2, 7, 8, 9, 62, 63, 64, 66, 127, 128, 254, 255];

/// The bytes that BLAKE3 makes of a seed.
pub struct Source(blake3::OutputReader);

impl Source {
    pub fn new(seed: u64) -> Self {
        Source(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// A number below `bound`, at most 2^16; its slight bias does not matter.
    fn below(&mut self, bound: usize) -> usize {
        u32::from_le_bytes(self.array()) as usize % bound
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

fn flip(key: &mut Key, position: usize) {
    key.0[position / 8] ^= 0x80 >> (position % 8);
}

/// Keys with long prefixes in common, and now and then any key.
fn any_key(source: &mut Source) -> Key {
    if source.one_in(10) {
        return Key(source.array());
    }
    let mut key = source.pick(&[Key::MIN, Key::MAX]);
    for _ in 0..source.below(5) {
        flip(&mut key, source.pick(&PLACES));
    }
    key
}

fn any_value(source: &mut Source) -> Vec<u8> {
    let length = if source.one_in(100) { 1000 + source.below(3000) } else { source.below(40) };
    let mut value = vec![0; length];
    source.0.read_exact(&mut value).unwrap();
    value
}

fn any_model(source: &mut Source) -> Model {
    (0..source.below(24)).map(|_| (any_key(source), any_value(source))).collect()
}

/// A key of the list, one next to it, or any.
fn key_near(source: &mut Source, keys: &[Key]) -> Key {
    if keys.is_empty() || source.one_in(4) {
        return any_key(source);
    }
    let key = source.pick(keys);
    if source.one_in(3) { key.successor().unwrap_or(key) } else { key }
}

fn questions(source: &mut Source, keys: &[Key]) -> Vec<Value> {
    (0..6)
        .map(|_| {
            let key = key_near(source, keys);
            match source.below(4) {
                0 => json!(["get", key.to_string()]),
                1 => json!(["value hash", key.to_string()]),
                2 => json!(["last before", key.to_string()]),
                _ => {
                    let hi = (!source.one_in(4)).then(|| key_near(source, keys).to_string());
                    let limit = source.one_in(2).then(|| source.below(5) + 1);
                    json!(["scan", key.to_string(), hi, limit])
                }
            }
        })
        .collect()
}

/// The copy that answers some questions, or one that shows a random part.
fn any_copy(source: &mut Source, model: &Model, trie: &Trie, keys: &[Key]) -> Vec<u8> {
    let shown: Vec<Shown> =
        model.iter().map(|_| source.pick(&[Shown::Value, Shown::Key, Shown::Nothing])).collect();
    if source.one_in(2) && shown.iter().any(|shown| *shown != Shown::Nothing) {
        let place = |key: &Key| keys.binary_search(key).unwrap();
        return naive_copy(model, |key| shown[place(key)]);
    }
    let mut touched = Touched::new();
    for _ in 0..source.below(3) {
        touched.key(key_near(source, keys));
    }
    for _ in 0..source.below(2) {
        let (lo, hi) = (key_near(source, keys), key_near(source, keys));
        touched.range(lo, source.pick(&[Some(hi), None]));
    }
    trie.prove(&touched).unwrap()
}

/// One small piece of damage.
fn damage(source: &mut Source, copy: &mut Vec<u8>) {
    let position = source.below(copy.len());
    match source.below(5) {
        0 => copy.truncate(position),
        1 => copy.insert(position, source.array::<1>()[0]),
        2 => drop(copy.remove(position)),
        3 => copy.extend(source.array::<1>()),
        _ => copy[position] ^= source.array::<1>()[0] | 1,
    }
}

/// Inner nodes on a path of a forged copy.
const FORGED_DEPTH: usize = 5;

/// Nodes below `bit` in pre-order that have nothing to do with any map: mostly of the right form, with hashes
/// and bits of the liar's choice. Collects the keys that it reveals.
fn forge(source: &mut Source, depth: usize, bit: usize, prefix: Key, out: &mut Vec<u8>, keys: &mut Vec<Key>) {
    let next = bit + if source.one_in(3) { 1 + source.below(100) } else { source.below(3) };
    if next < 256 && depth < FORGED_DEPTH && !source.one_in(3) {
        out.extend([1, next as u8]);
        let mut right = prefix;
        flip(&mut right, next);
        forge(source, depth + 1, next + 1, prefix, out, keys);
        forge(source, depth + 1, next + 1, right, out, keys);
    } else if source.one_in(3) {
        out.push(4);
        out.extend(source.array::<32>());
    } else {
        let mut key = prefix;
        if next < 256 {
            flip(&mut key, next);
        }
        if source.one_in(30) {
            flip(&mut key, source.pick(&PLACES));
        }
        keys.push(key);
        out.push(source.pick(&[2, 3]));
        out.extend(key.0);
        if out[out.len() - 33] == 2 {
            out.extend([2, 0, 0, 0, 1, 2]);
        } else {
            out.extend(source.array::<32>());
        }
    }
}

fn proof(root: &str, copy: &[u8], questions: &[Value]) -> Value {
    json!({ "root": root, "copy": hex(copy), "questions": questions })
}

/// The requests about one random map.
fn requests_of_one(source: &mut Source) -> Vec<Value> {
    let model = any_model(source);
    let trie = trie_of(&model);
    let root = trie.root().to_string();
    let keys: Vec<Key> = model.keys().copied().collect();
    let pairs: Vec<_> = model.iter().map(|(key, value)| json!([key.to_string(), hex(value)])).collect();
    let mut requests = vec![json!({ "map": pairs })];
    for _ in 0..2 {
        let mut copy = any_copy(source, &model, &trie, &keys);
        requests.push(proof(&root, &copy, &questions(source, &keys)));
        damage(source, &mut copy);
        requests.push(proof(&root, &copy, &questions(source, &keys)));
    }
    for _ in 0..3 {
        let (mut copy, mut shown) = (vec![1], Vec::new());
        forge(source, 0, 0, Key::MIN, &mut copy, &mut shown);
        // Under its own root each side must say the same of it, though it is the copy of no map.
        let own = PartialTrie::decode(&copy).map_or_else(|_| root.clone(), |copy| copy.root().to_string());
        requests.push(proof(&own, &copy, &questions(source, &shown)));
    }
    requests
}

/// The requests about `maps` random maps.
pub fn requests(seed: u64, maps: usize) -> Vec<Value> {
    let mut source = Source::new(seed);
    (0..maps).flat_map(|_| requests_of_one(&mut source)).collect()
}
