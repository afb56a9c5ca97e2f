//! The trace of a run: a hash over every event, and on demand the story in words.
//!
//! Invariant: the hash covers time, kind and operands of every event in order, whether or not the story is
//! told, so two runs with equal hashes did the same.

use std::fmt;

use quorate_crypto::Hash;

/// Nanoseconds in a millisecond.
pub const MILLISECOND: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// What becomes of the story.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Story {
    /// Not told.
    Silent,
    /// Kept, to be printed or compared.
    Kept,
}

/// One event of a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: u64,
    /// Its kind, by the number under which it is hashed.
    pub kind: u8,
    /// What it is about, as hashed.
    pub operands: [u64; 4],
    /// In words.
    pub words: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", clock(self.at), self.words)
    }
}

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    hasher: blake3::Hasher,
    events: u64,
    story: Story,
    entries: Vec<Entry>,
}

impl Trace {
    /// Nothing happened yet.
    #[must_use]
    pub fn new(story: Story) -> Self {
        Self { hasher: blake3::Hasher::new(), events: 0, story, entries: Vec::new() }
    }

    /// Notes an event: into the hash always, in words only when the story is told.
    pub fn note(&mut self, at: u64, kind: u8, operands: [u64; 4], words: impl FnOnce() -> String) {
        let mut bytes = [0u8; 41];
        bytes[..8].copy_from_slice(&at.to_le_bytes());
        bytes[8] = kind;
        for (place, operand) in bytes[9..].chunks_exact_mut(8).zip(operands) {
            place.copy_from_slice(&operand.to_le_bytes());
        }
        self.hasher.update(&bytes);
        self.events += 1;
        if self.story == Story::Kept {
            self.entries.push(Entry { at, kind, operands, words: words() });
        }
    }

    /// Events so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The hash of all events so far.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash(*self.hasher.finalize().as_bytes())
    }

    /// The story so far; empty when it is not told.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

/// Virtual time as seconds with microseconds.
#[must_use]
pub fn clock(at: u64) -> String {
    format!("{:>4}.{:06}", at / SECOND, at % SECOND / 1000)
}

/// The first bytes of a hash: enough to tell two apart in a story.
#[must_use]
pub fn short(hash: &Hash) -> String {
    let mut text = hash.to_string();
    text.truncate(8);
    text
}

/// The first bytes of a hash as an operand.
#[must_use]
pub fn word(hash: &Hash) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.0[..8]);
    u64::from_le_bytes(bytes)
}
