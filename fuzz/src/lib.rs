//! Fuzz targets: every decoder, every proof verifier, execution, and one step of consensus after another.
//!
//! A target is a function of bytes that panics when a property does not hold. The same functions run over the
//! committed corpora in `tests/corpus.rs`, as ordinary tests, and under libFuzzer in `deploy/soak.sh fuzz`.
//! `docs/FUZZING.md` says which property each one holds. Invariant: a target is deterministic and keeps
//! nothing between two inputs but what it computed once from constants.
#![forbid(unsafe_code)]

#[path = "../../execution/tests/common/mod.rs"]
mod chain;
#[path = "../../metadata/tests/filesystem/check.rs"]
mod check;

mod answers;
mod copy;
mod decoders;
mod execution;
mod file_samples;
mod files;
mod generate;
mod memory;
mod paths;
mod samples;
mod segments;
mod source;
mod step;
mod support;
mod tlog;
mod trie;

use std::path::PathBuf;

/// One target.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its folder below `fuzz/corpus`.
    pub name: &'static str,
    /// Bytes of an input beyond which it looks at no more.
    pub bytes_max: usize,
    /// Inputs to begin with, made from golden bytes and by hand.
    pub seeds: fn() -> Vec<Vec<u8>>,
    target: fn(&[u8]),
}

impl Target {
    /// Runs it.
    ///
    /// # Panics
    /// When a property of the target does not hold: a defect.
    pub fn run(&self, data: &[u8]) {
        (self.target)(data.get(..self.bytes_max).unwrap_or(data));
    }
}

const KIB: usize = 1024;

/// All targets.
pub const TARGETS: &[Target] = &[
    target("crypto", 16 * KIB, decoders::crypto, samples::crypto),
    target("certificate", KIB, decoders::certificate, samples::noise),
    target("signed", 64 * KIB, decoders::signed, samples::signed),
    target("peer", 64 * KIB, decoders::peer, samples::peer),
    target("client_request", 64 * KIB, decoders::client_request, samples::client_request),
    target("client_reply", 64 * KIB, decoders::client_reply, samples::client_reply),
    target("notice", 16 * KIB, decoders::notice, samples::notice),
    target("record", 64 * KIB, decoders::record, samples::record),
    target("evidence", 64 * KIB, decoders::evidence, samples::evidence),
    target("contradiction", KIB, decoders::contradiction, samples::noise),
    target("rows", 16 * KIB, decoders::rows, samples::rows),
    target("frames", 128 * KIB, files::frames, samples::frames),
    target("cluster_file", 16 * KIB, files::cluster_file, file_samples::cluster_file),
    target("policy_file", 16 * KIB, files::policy_file, file_samples::policy_file),
    target("bundle", 64 * KIB, files::bundle, file_samples::bundle),
    target("proven", 64 * KIB, files::proven, file_samples::proven),
    target("tlog_note", 16 * KIB, tlog::note, tlog::note_seeds),
    target("tlog_policy", 16 * KIB, tlog::policy, tlog::policy_seeds),
    target("tlog_proof", 16 * KIB, tlog::proof, tlog::proof_seeds),
    target("tlog_tiles", 16 * KIB, tlog::tiles, tlog::tile_seeds),
    target("receipt", 64 * KIB, files::receipt, file_samples::receipt),
    target("transition", 64 * KIB, files::transition, file_samples::transition),
    target("anchor", 32 * KIB, files::anchor, file_samples::anchor),
    target("key_file", KIB, files::key_file, file_samples::key_file),
    target("segment", 4 * KIB, segments::segment, samples::noise),
    target("log_reader", KIB, segments::log_reader, samples::noise),
    target("store_values", 4 * KIB, segments::values, samples::noise),
    target("trie_bytes", 64 * KIB, trie::bytes, samples::trie_bytes),
    target("trie_proof", KIB, trie::proof, samples::noise),
    target("receipts_proof", KIB, paths::receipts, samples::noise),
    target("log_proof", KIB, paths::log, samples::noise),
    target("results", KIB, paths::results, samples::noise),
    target("answer", KIB, answers::answer, samples::noise),
    target("answer_garbage", 16 * KIB, answers::garbage, samples::answer_garbage),
    target("execution", 4 * KIB, execution::execution, samples::noise),
    target("step", 2 * KIB, step::step, step::seeds),
];

const fn target(
    name: &'static str,
    bytes_max: usize,
    target: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
) -> Target {
    Target { name, bytes_max, seeds, target }
}

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Where the corpus of a target lies.
#[must_use]
pub fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}
