//! Bytes of one file that are written here and not yet in the cluster.
//!
//! Invariant: ranges are disjoint and not adjacent, and every byte holds what was written last. What is
//! being written back stays readable until the cluster has it.

use quorate_client::DirtyRange;
use quorate_protocol::Timestamp;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// The dirty bytes of one file.
#[derive(Debug, Default)]
pub struct Dirty {
    ranges: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
    /// Being written back: older than everything in `ranges`.
    leaving: Vec<DirtyRange>,
    leaving_bytes: usize,
    /// When the oldest byte of `ranges` was written.
    since: Option<Instant>,
    /// When the last byte was written, as a stat shows it.
    changed_at: Option<SystemTime>,
}

impl Dirty {
    /// Takes a write. Returns by how many bytes the buffer grew.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> usize {
        if data.is_empty() {
            return 0;
        }
        let before = self.bytes;
        self.since.get_or_insert_with(Instant::now);
        self.changed_at = Some(SystemTime::now());
        self.merge(offset, data);
        self.bytes.saturating_sub(before)
    }

    fn merge(&mut self, offset: u64, data: &[u8]) {
        let end = offset.saturating_add(data.len() as u64);
        let before = self.ranges.range(..=offset).next_back();
        let start = match before {
            Some((start, bytes)) if start.saturating_add(bytes.len() as u64) >= offset => *start,
            _ => offset,
        };
        // The range that the write begins in, or touches; an empty one if there is none.
        let mut merged = self.ranges.remove(&start).unwrap_or_default();
        self.bytes -= merged.len();
        overlay(&mut merged, to_usize(offset - start), data);
        while let Some((next, bytes)) =
            self.ranges.range(start..=end).next().map(|(next, b)| (*next, b.len()))
        {
            let absorbed = self.ranges.remove(&next).unwrap_or_default();
            self.bytes -= bytes;
            let covered = to_usize((start + merged.len() as u64).saturating_sub(next));
            merged.extend_from_slice(absorbed.get(covered..).unwrap_or_default());
        }
        self.bytes += merged.len();
        self.ranges.insert(start, merged);
    }

    /// Bytes that are dirty and not being written back.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the cluster has everything.
    pub fn is_clean(&self) -> bool {
        self.ranges.is_empty() && self.leaving.is_empty()
    }

    /// The first byte after the last dirty one; 0 when clean.
    pub fn end(&self) -> u64 {
        let last = self.ranges.last_key_value().map_or(0, |(start, bytes)| start + bytes.len() as u64);
        self.leaving.iter().map(|range| range.offset + range.bytes.len() as u64).fold(last, u64::max)
    }

    /// Takes everything out for writing back; it stays readable until [`Dirty::written`].
    pub fn take(&mut self) -> Vec<DirtyRange> {
        let ranges = std::mem::take(&mut self.ranges);
        self.leaving_bytes = std::mem::take(&mut self.bytes);
        self.since = None;
        self.leaving = ranges.into_iter().map(|(offset, bytes)| DirtyRange { offset, bytes }).collect();
        self.leaving.clone()
    }

    /// What was taken out is in the cluster, or is lost and reported. Returns how many bytes it was.
    pub fn written(&mut self) -> usize {
        self.leaving.clear();
        std::mem::take(&mut self.leaving_bytes)
    }

    /// Whether bytes have waited for longer than `age`.
    pub fn is_older_than(&self, age: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= age)
    }

    /// When the last byte was written; `None` if none ever was.
    pub fn changed_at(&self) -> Option<Timestamp> {
        self.changed_at.map(crate::convert::timestamp)
    }

    /// Whether every byte of the range is dirty, so that nobody need be asked for it.
    pub fn covers(&self, offset: u64, length: usize) -> bool {
        let end = offset.saturating_add(length as u64);
        let newest = self.ranges.range(..=offset).next_back();
        newest.is_some_and(|(start, bytes)| start + bytes.len() as u64 >= end)
            || self
                .leaving
                .iter()
                .any(|range| range.offset <= offset && range.offset + range.bytes.len() as u64 >= end)
    }

    /// Lays the dirty bytes over those of the cluster, which begin at `offset`; grows `bytes` up to
    /// `length` where dirty bytes lie beyond them, with zeros between.
    pub fn apply(&self, offset: u64, length: usize, bytes: &mut Vec<u8>) {
        for range in &self.leaving {
            lay(offset, length, range.offset, &range.bytes, bytes);
        }
        for (start, range) in &self.ranges {
            lay(offset, length, *start, range, bytes);
        }
    }
}

/// Lays `data`, which begins at `start` of the file, over `bytes`, which begin at `offset`.
fn lay(offset: u64, length: usize, start: u64, data: &[u8], bytes: &mut Vec<u8>) {
    let end = offset.saturating_add(length as u64);
    let from = start.max(offset);
    let until = (start + data.len() as u64).min(end);
    if from >= until {
        return;
    }
    let part = data.get(to_usize(from - start)..to_usize(until - start)).unwrap_or_default();
    overlay(bytes, to_usize(from - offset), part);
}

/// Writes `data` at `at`, growing with zeros.
fn overlay(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if bytes.len() == at {
        bytes.extend_from_slice(data);
        return;
    }
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(place) = bytes.get_mut(at..end) {
        place.copy_from_slice(data);
    }
}

/// Distances within one file's buffer, which memory bounds far below this.
fn to_usize(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as plain bytes, and the same writes into a buffer that is taken out now and then.
    fn check(seed: u64) {
        let mut state = seed;
        let mut random = move |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let mut plain: Vec<u8> = Vec::new();
        let mut cluster: Vec<u8> = Vec::new();
        let mut dirty = Dirty::default();
        for step in 0..200_u64 {
            let (offset, length) = (random(300), random(60) as usize);
            let data = vec![step as u8; length];
            if length > 0 {
                overlay(&mut plain, offset as usize, &data);
            }
            dirty.write(offset, &data);
            if random(10) == 0 {
                let taken = dirty.take();
                if random(2) == 0 {
                    for range in taken {
                        overlay(&mut cluster, range.offset as usize, &range.bytes);
                    }
                    dirty.written();
                } else {
                    for range in taken {
                        overlay(&mut cluster, range.offset as usize, &range.bytes);
                    }
                }
            }
            let mut seen = cluster.clone();
            dirty.apply(0, 1000, &mut seen);
            assert_eq!(seen, plain, "seed {seed} step {step}");
            assert_eq!((cluster.len() as u64).max(dirty.end()), plain.len() as u64);
        }
    }

    #[test]
    fn a_buffer_over_a_cluster_reads_as_a_plain_file() {
        (0..50).for_each(check);
    }

    #[test]
    fn sequential_writes_are_one_range() {
        let mut dirty = Dirty::default();
        for block in 0..8_u64 {
            dirty.write(block * 10, &[1; 10]);
        }
        assert_eq!(dirty.bytes(), 80);
        assert!(dirty.covers(0, 80) && !dirty.covers(0, 81));
        assert_eq!(dirty.write(0, &[2; 80]), 0, "written over, not grown");
        assert!(dirty.is_older_than(Duration::ZERO) && !dirty.is_older_than(Duration::from_secs(60)));
        assert_eq!(dirty.take().len(), 1);
        assert!(!dirty.is_clean() && !dirty.is_older_than(Duration::ZERO));
        assert_eq!(dirty.write(80, &[3; 5]), 5);
        assert!(dirty.is_older_than(Duration::ZERO), "what comes during a write-back grows old as well");
        assert_eq!(dirty.written(), 80);
        dirty.take();
        assert_eq!(dirty.written(), 5);
        assert!(dirty.is_clean());
    }
}
