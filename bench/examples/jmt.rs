//! Quorate's trie beside the Jellyfish Merkle Tree (the crate `jmt`), in memory, on the same rows and in one run.
//!
//!     cargo run --release -p quorate-bench --example jmt [-- ROWS [UPDATES]]
//!
//! Both hash with BLAKE3 and compute a root for every 256 updates. Quorate's trie takes keys as they are, so that rows
//! of one inode are neighbours; `jmt` wants keys that are spread evenly, so its keys are hashes of ours, and "clustered"
//! means nothing to it. Each proof that is timed is checked to answer its question. One line of JSON comes out.

use std::sync::Arc;
use std::time::Instant;

use jmt::mock::MockTreeStore;
use jmt::{JellyfishMerkleTree, KeyHash, RootHash, SimpleHasher};
use quorate_bench::report::Machine;
use quorate_merkle::{Key, PartialTrie, Touched, Trie};

/// Updates that share a root.
const BATCH: u64 = 256;
/// Bytes of a value: those of an inode row.
const VALUE_BYTES: usize = 150;
/// Proofs of each kind.
const PROOFS: u64 = 2000;

struct Blake3(blake3::Hasher);

impl SimpleHasher for Blake3 {
    fn new() -> Self {
        Self(blake3::Hasher::new())
    }
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
    fn finalize(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

type Jellyfish<'a> = JellyfishMerkleTree<'a, MockTreeStore, Blake3>;

/// What was measured of one of them.
#[derive(serde::Serialize)]
struct Measured {
    inserts_per_second: f64,
    clustered_updates_per_second: f64,
    scattered_updates_per_second: f64,
    point_proof_bytes: usize,
    point_verify_us: f64,
    absence_proof_bytes: usize,
    absence_verify_us: f64,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |otherwise: u64| {
        arguments.next().map_or(otherwise, |text| text.parse().expect("a number of rows or updates"))
    };
    let (rows, updates) = (number(1_000_000), number(200_000));
    let (ours, theirs) = (quorate(rows, updates), jellyfish(rows, updates));
    let line = serde_json::json!({
        "workload": "jmt", "rows": rows, "updates": updates, "quorate": ours, "jmt": theirs,
        "ratio": {
            "inserts": ours.inserts_per_second / theirs.inserts_per_second,
            "clustered_updates": ours.clustered_updates_per_second / theirs.clustered_updates_per_second,
            "scattered_updates": ours.scattered_updates_per_second / theirs.scattered_updates_per_second,
        },
        "machine": Machine::here(),
    });
    println!("{line}");
}

/// The key of a row: an inode row as the tree of files has it.
fn key(row: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(row + 2).to_be_bytes());
    key
}

fn value(row: u64, round: u64) -> Vec<u8> {
    let mut value = vec![1; VALUE_BYTES];
    value[..8].copy_from_slice(&row.to_le_bytes());
    value[8..16].copy_from_slice(&round.to_le_bytes());
    value
}

/// Rows all over the tree, the same in every run.
fn scattered(index: u64, rows: u64) -> u64 {
    let hash = blake3::hash(&index.to_le_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes")) % rows
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn rate(count: u64, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}

fn quorate(rows: u64, updates: u64) -> Measured {
    let mut trie = Trie::new();
    let mut write = |count: u64, round: u64, choose: &dyn Fn(u64) -> u64| {
        let began = Instant::now();
        for index in 0..count {
            let row = choose(index);
            trie.insert(Key(key(row)), Arc::from(value(row, round + index)))
                .expect("a full trie lacks nothing");
            if index % BATCH == BATCH - 1 {
                std::hint::black_box(trie.root());
            }
        }
        std::hint::black_box(trie.root());
        rate(count, began)
    };
    let inserts_per_second = write(rows, 0, &|index| index);
    let clustered_updates_per_second = write(updates, 1, &|index| index % rows);
    let scattered_updates_per_second = write(updates, 2, &|index| scattered(index, rows));
    let root = trie.root();
    let prove = |row: u64, present: bool| {
        let wanted = Key(key(row));
        let mut touched = Touched::new();
        touched.key(wanted);
        let proof = trie.prove(&touched).expect("a full trie proves all");
        let began = Instant::now();
        let copy = PartialTrie::verify(&proof, &root).expect("a proof of the root");
        let found = copy.get(&wanted).expect("a complete proof").is_some();
        let took = began.elapsed().as_secs_f64() * 1e6;
        assert_eq!(found, present, "the answer is right");
        (proof.len(), took)
    };
    let (point_proof_bytes, point_verify_us) = proofs(&|index| prove(scattered(index, rows), true));
    let (absence_proof_bytes, absence_verify_us) =
        proofs(&|index| prove(rows + scattered(index, rows), false));
    Measured {
        inserts_per_second,
        clustered_updates_per_second,
        scattered_updates_per_second,
        point_proof_bytes,
        point_verify_us,
        absence_proof_bytes,
        absence_verify_us,
    }
}

fn jellyfish(rows: u64, updates: u64) -> Measured {
    let store = MockTreeStore::default();
    let mut version = 0;
    let mut root = RootHash([0; 32]);
    let mut write = |count: u64, round: u64, choose: &dyn Fn(u64) -> u64| {
        let began = Instant::now();
        for first in (0..count).step_by(usize::try_from(BATCH).expect("a small number")) {
            let batch = first..count.min(first + BATCH);
            let changes = batch.map(|index| {
                let row = choose(index);
                (KeyHash::with::<Blake3>(key(row)), Some(value(row, round + index)))
            });
            let put = Jellyfish::new(&store).put_value_set(changes.collect::<Vec<_>>(), version);
            let (new, nodes) = put.expect("a store in memory");
            store.write_tree_update_batch(nodes).expect("a store in memory");
            (root, version) = (new, version + 1);
        }
        rate(count, began)
    };
    let inserts_per_second = write(rows, 0, &|index| index);
    let clustered_updates_per_second = write(updates, 1, &|index| index % rows);
    let scattered_updates_per_second = write(updates, 2, &|index| scattered(index, rows));
    let (tree, last) = (Jellyfish::new(&store), version - 1);
    let prove = |row: u64, present: bool| {
        let wanted = KeyHash::with::<Blake3>(key(row));
        let (value, proof) = tree.get_with_proof(wanted, last).expect("a store in memory");
        let bytes = borsh::to_vec(&proof).expect("it encodes").len() + value.as_ref().map_or(0, Vec::len);
        let began = Instant::now();
        proof.verify(root, wanted, value.as_deref()).expect("a proof of the root");
        let took = began.elapsed().as_secs_f64() * 1e6;
        assert_eq!(value.is_some(), present, "the answer is right");
        (bytes, took)
    };
    let (point_proof_bytes, point_verify_us) = proofs(&|index| prove(scattered(index, rows), true));
    let (absence_proof_bytes, absence_verify_us) =
        proofs(&|index| prove(rows + scattered(index, rows), false));
    Measured {
        inserts_per_second,
        clustered_updates_per_second,
        scattered_updates_per_second,
        point_proof_bytes,
        point_verify_us,
        absence_proof_bytes,
        absence_verify_us,
    }
}

/// Median bytes and microseconds to verify.
fn proofs(prove: &dyn Fn(u64) -> (usize, f64)) -> (usize, f64) {
    let (bytes, times): (Vec<f64>, Vec<f64>) =
        (0..PROOFS).map(prove).map(|(bytes, took)| (bytes as f64, took)).unzip();
    (median(bytes) as usize, median(times))
}
