//! The vectors under `merkle/tests/vectors/`, and what each must come to. Expectations are stated by hand, or
//! come from the naive reading in `common`, not from the crate's own verifier (but for the letters of `changes`).

use quorate_merkle::{Key, Touched};
use serde_json::{Value, json};

use super::common::{Model, naive_root, small_model, trie_of};
use super::proofs::proofs;
use super::respond::{hex, respond};

/// A request and its answer, as section 3.5 of the specification has them.
pub struct Vector {
    pub name: String,
    pub request: Value,
    pub answer: Value,
}

/// A file of vectors: its name, what it holds, and the vectors.
pub type File = (&'static str, &'static str, Vec<Vector>);

/// The files that are made here. `blake3.json` is not: its vectors are those of BLAKE3's authors.
pub fn files() -> Vec<File> {
    vec![
        ("maps.json", "maps and their roots", maps()),
        ("proofs.json", "pruned copies, good and bad, and what a reader must make of them", proofs()),
        (
            "changes.json",
            "pruned copies in which each byte in turn is changed, and what is noticed",
            changes(),
        ),
    ]
}

/// Where the keys of rule S1 have their kind, here of an entry in a directory.
pub const ENTRY: u8 = 0x20;

pub fn key(ino: u64, rest: &[u8]) -> Key {
    let mut key = Key::MIN;
    key.0[..8].copy_from_slice(&ino.to_be_bytes());
    key.0[8..8 + rest.len()].copy_from_slice(rest);
    key
}

/// The example map of the specification.
pub fn example() -> Model {
    Model::from([
        (key(1, &[0]), b"root".to_vec()),
        (key(1, &[1]), b"directory key".to_vec()),
        (key(2, &[0]), b"file".to_vec()),
        (key(2, &[8]), b"content".to_vec()),
        (Key::MAX, Vec::new()),
    ])
}

/// Four inodes: 5 is an empty directory, 6 a directory of six entries, 7 one of one entry, 8 a file.
pub fn directories() -> Model {
    let mut model = Model::new();
    for (ino, entries) in [(5, 0), (6, 6), (7, 1), (8, 0_u8)] {
        model.insert(key(ino, &[0]), vec![1, ino as u8]);
        for entry in 0..entries {
            let name_hash = [entry.wrapping_mul(0x2b), 0x5a ^ entry, entry];
            model.insert(key(ino, &[&[ENTRY], &name_hash[..]].concat()), vec![1, entry, 9]);
        }
    }
    model
}

fn map(name: &str, model: &Model) -> Vector {
    let pairs: Vec<_> = model.iter().map(|(key, value)| json!([key.to_string(), hex(value)])).collect();
    Vector { name: name.to_owned(), request: json!({ "map": pairs }), answer: json!(hex(&naive_root(model))) }
}

fn maps() -> Vec<Vector> {
    // As deep as a trie can be: each key leaves the lowest one at a bit of its own.
    let mut comb = Model::from([(Key::MIN, vec![0])]);
    for position in 0..256 {
        let mut key = Key::MIN;
        key.0[position / 8] = 0x80 >> (position % 8);
        comb.insert(key, vec![]);
    }
    let lengths = [0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3072, 3073, 5000];
    let values = lengths.map(|length: u16| {
        (key(u64::from(length), &[8]), (0..length).map(|at| (at % 251) as u8).collect::<Vec<u8>>())
    });
    vec![
        map("nothing", &Model::new()),
        map("one key", &Model::from([(key(1, &[0]), b"root".to_vec())])),
        map("one key without a value", &Model::from([(Key::MIN, vec![])])),
        map("two keys that differ in bit 0", &Model::from([(Key::MIN, vec![1]), (Key::MAX, vec![2])])),
        map("two keys that differ in bit 255", &Model::from([(Key::MIN, vec![1]), (bits(&[255]), vec![2])])),
        map("the example map", &example()),
        map("directories", &directories()),
        map("twelve keys", &small_model()),
        map("a path of 256 inner nodes", &comb),
        map("values of many lengths", &Model::from(values)),
    ]
}

fn changes() -> Vec<Vector> {
    let model = example();
    let letters = |copy: &[u8], mask: u8| {
        let request = json!({ "root": hex(&naive_root(&model)), "copy": hex(copy), "mask": hex(&[mask]) });
        // Which of the two it is, is for both sides to agree on; that it is one of them is stated here.
        let answer = respond(&request);
        assert!(answer.as_str().unwrap().bytes().all(|letter| matches!(letter, b'f' | b'w')));
        (request, answer)
    };
    let mut vectors = Vec::new();
    for (name, touched) in [("presence", present()), ("absence", absent()), ("page", page())] {
        let copy = trie_of(&model).prove(&touched).unwrap();
        for mask in [0x01, 0x80, 0xff] {
            let (request, answer) = letters(&copy, mask);
            vectors.push(Vector { name: format!("{name}, each byte with {mask:02x}"), request, answer });
        }
    }
    vectors
}

pub fn present() -> Touched {
    let mut touched = Touched::new();
    touched.key(key(1, &[0]));
    touched
}

pub fn absent() -> Touched {
    let mut touched = Touched::new();
    touched.key(key(3, &[0]));
    touched
}

pub fn page() -> Touched {
    let mut touched = Touched::new();
    touched.range(key(2, &[0]), Some(key(3, &[0])));
    touched
}

/// The key with these bits set.
pub fn bits(set: &[usize]) -> Key {
    let mut key = Key::MIN;
    for position in set {
        key.0[position / 8] |= 0x80 >> (position % 8);
    }
    key
}
