//! Prints how fast the trie takes batches, hashes them, proves and verifies, on one core of this machine.
//!
//! `cargo run --release -p quorate-merkle --example throughput -- [leaves]` (default 1,000,000). Measures
//! only; asserts nothing.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use quorate_merkle::{Key, PartialTrie, Touched, Trie, value_hash};

const BATCH: u64 = 1000;
const VALUE_BYTES: usize = 96;

/// Three rows of a new file: its inode, its entry in the directory, its first content row.
fn file_rows(ino: u64, directory: u64) -> [Key; 3] {
    let mut inode = [0_u8; 32];
    inode[..8].copy_from_slice(&ino.to_be_bytes());
    let mut content = inode;
    content[8] = 0x08;
    let mut entry = [0_u8; 32];
    entry[..8].copy_from_slice(&directory.to_be_bytes());
    entry[8] = 0x20;
    entry[9..].copy_from_slice(&value_hash(&ino.to_be_bytes()).0[..23]);
    [Key(inode), Key(entry), Key(content)]
}

fn scattered(index: u64) -> Key {
    Key(value_hash(&index.to_le_bytes()).0)
}

fn report(what: &str, count: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!("{what:<44} {count:>9} in {seconds:>7.3} s = {:>9.0}/s", count as f64 / seconds);
}

fn main() {
    let leaves: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let value: Arc<[u8]> = Arc::from(vec![7_u8; VALUE_BYTES]);
    let fresh = || Arc::<[u8]>::from(&value[..]);
    let mut trie = Trie::new();
    let files = leaves / 3;

    let started = Instant::now();
    for file in 0..files {
        for key in file_rows(file + 2, file / 1000 + (1 << 40)) {
            trie.insert(key, fresh()).unwrap();
        }
    }
    black_box(trie.root());
    report("rows inserted, one root at the end", files * 3, started);

    let batches = 200;
    let mut snapshots = Vec::new();
    let started = Instant::now();
    for batch in 0..batches {
        for file in files + batch * BATCH..files + (batch + 1) * BATCH {
            for key in file_rows(file + 2, file / 1000 + (1 << 40)) {
                trie.insert(key, fresh()).unwrap();
            }
        }
        black_box(trie.root());
        snapshots.push(trie.clone());
    }
    report("rows clustered, a root and a snapshot per 3000", batches * BATCH * 3, started);

    let started = Instant::now();
    for batch in 0..20 {
        for index in batch * BATCH..(batch + 1) * BATCH {
            trie.insert(scattered(index), fresh()).unwrap();
        }
        black_box(trie.root());
        snapshots.push(trie.clone());
    }
    report("rows scattered, a root and a snapshot per 1000", 20 * BATCH, started);

    let started = Instant::now();
    let changes = quorate_merkle::diff(&snapshots[10], &snapshots[20]).count();
    report("changes found between snapshots", changes as u64, started);

    let started = Instant::now();
    let mut bytes = 0_usize;
    let mut proofs = Vec::new();
    for file in 0..10_000 {
        let mut touched = Touched::new();
        touched.key(file_rows(file * 7 % files + 2, 0)[0]);
        let proof = trie.prove(&touched).unwrap();
        bytes += proof.len();
        proofs.push(proof);
    }
    report("proofs of one inode made", 10_000, started);
    println!("{:<44} {:>9} bytes on average", "their size", bytes / 10_000);
    let root = trie.root();
    let started = Instant::now();
    for proof in &proofs {
        PartialTrie::verify(proof, &root).unwrap();
    }
    report("proofs verified", 10_000, started);
}
