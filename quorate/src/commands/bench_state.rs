//! `quorate bench state`: proofs and updates of a state of many rows, and what it costs in the database.
//!
//! Invariant: the rows are those of files that were made by execution, and the database takes each height as a
//! replica's does; every proof that is timed is checked to answer its question.

use crate::args::BenchStateArgs;
use crate::commands::replay;
use crate::failure::{CommandResult, Failure};
use indicatif::ProgressBar;
use quorate_bench::history::History;
use quorate_bench::report::Machine;
use quorate_crypto::encode;
use quorate_merkle::{Key, PartialTrie, Touched, Trie};
use quorate_metadata::keys;
use quorate_store::state::{State as Database, StateOptions};
use quorate_store::{Directory, Identity};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Files that each height makes while the state grows.
const FILES: u64 = 256;
/// Rows that are updated before the root is computed again, as in a batch.
const BATCH: u64 = 256;
/// Proofs that are made and checked of each kind.
const PROOFS: u64 = 2000;
/// Entries of a page.
const PAGE: usize = 128;
/// Bytes of the values that updates write: those of an inode row.
const VALUE_BYTES: usize = 150;

/// Proofs of one kind.
#[derive(serde::Serialize)]
struct Proofs {
    /// Median bytes.
    bytes: u64,
    /// Median microseconds to parse one, compute its root, and answer from it.
    verify_us: f64,
    /// Median microseconds to make one.
    make_us: f64,
}

/// What was measured at one size.
#[derive(serde::Serialize)]
struct Size {
    rows: u64,
    /// Creations executed in a second since the last size, roots and receipts included, without the database.
    creations_per_second: f64,
    point: Proofs,
    absence: Proofs,
    page: Proofs,
    /// Updates in a second, of neighbouring rows and of rows all over, a root for every 256.
    clustered_updates_per_second: f64,
    scattered_updates_per_second: f64,
    /// Creations that the database took in a second since the last size.
    database_creations_per_second: f64,
    /// Bytes that went to the disk for each creation since the last size, flushes and compactions included.
    written_bytes_per_creation: f64,
    disk_bytes_per_row: f64,
    resident_mib: u64,
}

/// Grows the state and measures at each size.
pub fn run(args: &BenchStateArgs) -> CommandResult {
    if args.rows.is_empty() || !args.rows.is_sorted() {
        return Err(Failure::new("--rows must ascend"));
    }
    let place = tempfile::tempdir()?;
    let mut history = History::new();
    let identity = Identity { cluster: history.genesis().cluster(), replica: 0 };
    let directory = Directory::create(&place.path().join("replica"), identity)?;
    let database = Database::open(&directory, &StateOptions::default())?;
    let genesis = history.state().rows().map(|(key, value)| (key, Some(value))).collect();
    database.commit(0, &genesis, &encode(history.state().header()), &encode(history.state().log()))?;
    let bar = replay::bar();
    let mut sizes = Vec::new();
    for rows in &args.rows {
        let size = grow(&mut history, &database, *rows, &bar)?;
        sizes.push(measure(&history, args.updates, size, &directory.state_path())?);
    }
    bar.finish_and_clear();
    println!("{}", serde_json::json!({ "workload": "state", "sizes": sizes, "machine": Machine::here() }));
    Ok(ExitCode::SUCCESS)
}

/// How the growth to a size went.
struct Growth {
    creations_per_second: f64,
    database_creations_per_second: f64,
    written_bytes_per_creation: f64,
}

fn grow(history: &mut History, database: &Database, rows: u64, bar: &ProgressBar) -> Result<Growth, Failure> {
    let (mut executing, mut storing, mut created) = (0.0, 0.0, 0_u64);
    let written = written_bytes();
    while history.state().row_count() < rows {
        let began = Instant::now();
        history.next_height(FILES);
        executing += began.elapsed().as_secs_f64();
        let began = Instant::now();
        let header = history.state().header();
        database.commit(header.height, history.changes(), &encode(header), &encode(history.state().log()))?;
        storing += began.elapsed().as_secs_f64();
        created += u64::from(header.operation_count);
        bar.set_position(history.state().row_count());
    }
    database.sync()?;
    let count = created.max(1) as f64;
    Ok(Growth {
        creations_per_second: count / executing,
        database_creations_per_second: count / storing,
        written_bytes_per_creation: written_bytes().saturating_sub(written) as f64 / count,
    })
}

fn measure(history: &History, updates: u64, growth: Growth, state: &Path) -> Result<Size, Failure> {
    let (trie, rows) = (history.state().trie(), history.state().row_count());
    // Directories and files are numbered from 2 on; every one of them has an inode row.
    let inodes = rows / 3;
    let mut random = Random(rows);
    let mut inode = || Key(keys::inode(2 + random.below(inodes)));
    let point = proofs(trie, &mut || {
        let key = inode();
        (one(key), Box::new(move |copy: &Trie| matches!(copy.get(&key), Ok(Some(_)))))
    })?;
    let mut random = Random(rows + 1);
    let absence = proofs(trie, &mut || {
        // A kind that no inode has.
        let key = Key(keys::symlink(2 + random.below(inodes)));
        (one(key), Box::new(move |copy: &Trie| copy.get(&key) == Ok(None)))
    })?;
    let mut random = Random(rows + 2);
    let page = proofs(trie, &mut || page_of(trie, &mut random))?;
    let scattered = |_: u64, random: &mut Random| 2 + random.below(inodes);
    let clustered = |index: u64, _: &mut Random| 2 + index % inodes;
    Ok(Size {
        rows,
        creations_per_second: growth.creations_per_second,
        point,
        absence,
        page,
        clustered_updates_per_second: update(trie, updates, &clustered),
        scattered_updates_per_second: update(trie, updates, &scattered),
        database_creations_per_second: growth.database_creations_per_second,
        written_bytes_per_creation: growth.written_bytes_per_creation,
        disk_bytes_per_row: bytes_below(state)? as f64 / rows as f64,
        resident_mib: resident_mib(),
    })
}

/// A question, and whether a copy of the trie answers it.
type Question = (Touched, Box<dyn Fn(&Trie) -> bool>);

fn one(key: Key) -> Touched {
    let mut touched = Touched::new();
    touched.key(key);
    touched
}

/// 128 entries that follow each other in a directory, from anywhere in the tree.
fn page_of(trie: &Trie, random: &mut Random) -> Question {
    let mut start = [0; 32];
    start.iter_mut().zip(keys::kind_start(2, keys::KIND_ENTRY)).for_each(|(byte, of)| *byte = of);
    start.iter_mut().skip(9).zip((random.next() >> 1).to_be_bytes()).for_each(|(byte, of)| *byte = of);
    let lo = Key(start);
    let found: Vec<Key> =
        trie.scan(&lo, None).take(PAGE).filter_map(Result::ok).map(|(key, _)| key).collect();
    let mut touched = Touched::new();
    if let Some(last) = found.last() {
        touched.range_through(lo, last);
    }
    let expected = found.len();
    let answers =
        move |copy: &Trie| copy.scan(&lo, None).take(expected).filter(Result::is_ok).count() == expected;
    (touched, Box::new(answers))
}

fn proofs(trie: &Trie, question: &mut dyn FnMut() -> Question) -> Result<Proofs, Failure> {
    let root = trie.root();
    let (mut bytes, mut verifying, mut making) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PROOFS {
        let (touched, answers) = question();
        let began = Instant::now();
        let proof = trie.prove(&touched)?;
        making.push(began.elapsed().as_secs_f64() * 1e6);
        let began = Instant::now();
        let copy = PartialTrie::verify(&proof, &root)?;
        let answered = answers(&copy);
        verifying.push(began.elapsed().as_secs_f64() * 1e6);
        if !answered {
            return Err(Failure::new("a proof does not answer its question"));
        }
        bytes.push(proof.len() as f64);
    }
    Ok(Proofs { bytes: median(bytes) as u64, verify_us: median(verifying), make_us: median(making) })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Writes rows anew, and computes the root after every batch; returns updates in a second.
fn update(trie: &Trie, updates: u64, choose: &dyn Fn(u64, &mut Random) -> u64) -> f64 {
    let (mut trie, mut random) = (trie.clone(), Random(updates));
    let began = Instant::now();
    for index in 0..updates {
        let mut value = vec![1; VALUE_BYTES];
        value.iter_mut().zip(index.to_le_bytes()).for_each(|(byte, of)| *byte = of);
        let key = Key(keys::inode(choose(index, &mut random)));
        // A full trie lacks nothing.
        let _full = trie.insert(key, Arc::from(value));
        if index % BATCH == BATCH - 1 {
            std::hint::black_box(trie.root());
        }
    }
    std::hint::black_box(trie.root());
    updates as f64 / began.elapsed().as_secs_f64()
}

/// SplitMix64: the same choices in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// A number in a file of /proc/self, after a label.
fn of_process(file: &str, label: &str) -> u64 {
    let text = std::fs::read_to_string(Path::new("/proc/self").join(file)).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Bytes that this process has sent to a disk.
fn written_bytes() -> u64 {
    of_process("io", "write_bytes:")
}

fn resident_mib() -> u64 {
    of_process("status", "VmRSS:") / 1024
}

fn bytes_below(directory: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}
