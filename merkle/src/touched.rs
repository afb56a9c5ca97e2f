//! What a computation asked of a trie: the question that a pruned copy answers.
//!
//! Invariant: keys are those that were got, put or taken out, ranges those that were scanned, up to where the
//! scan stopped. A copy made from them answers the same computation the same way, and shows no value of any
//! other leaf.

use std::collections::{BTreeMap, BTreeSet};

use crate::key::Key;

/// Keys and ranges that were touched. Grows with what the computation reads, which its own budget bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    keys: BTreeSet<Key>,
    /// From the inclusive lower to the exclusive upper end, `None` being above all keys.
    ranges: BTreeMap<Key, Option<Key>>,
}

impl Touched {
    /// Nothing touched.
    #[must_use]
    pub fn new() -> Self {
        Touched::default()
    }

    /// Records a get, a put or a removal of `key`, present or absent.
    pub fn key(&mut self, key: Key) {
        self.keys.insert(key);
    }

    /// Records a scan of `[lo, hi)` that went to its end; `hi` = `None` has no upper end.
    pub fn range(&mut self, lo: Key, hi: Option<Key>) {
        if hi.is_some_and(|hi| hi <= lo) {
            return;
        }
        let end = self.ranges.entry(lo).or_insert(hi);
        *end = later(*end, hi);
    }

    /// Records a scan from `lo` that stopped after it had seen the leaf of `last`.
    pub fn range_through(&mut self, lo: Key, last: &Key) {
        self.range(lo, last.successor());
    }

    /// Adds all that `other` touched.
    pub fn extend(&mut self, other: &Touched) {
        self.keys.extend(other.keys.iter().copied());
        for (lo, hi) in &other.ranges {
            self.range(*lo, *hi);
        }
    }

    /// Whether nothing was touched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }

    /// The touched keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// The touched ranges in order, those that meet or overlap being joined.
    #[must_use]
    pub fn ranges(&self) -> Vec<(Key, Option<Key>)> {
        let mut joined: Vec<(Key, Option<Key>)> = Vec::new();
        for (lo, hi) in &self.ranges {
            match joined.last_mut() {
                Some((_, end)) if end.is_none_or(|end| *lo <= end) => *end = later(*end, *hi),
                _ => joined.push((*lo, *hi)),
            }
        }
        joined
    }
}

/// The later of two ends, `None` being above all keys.
fn later(a: Option<Key>, b: Option<Key>) -> Option<Key> {
    Some(a?.max(b?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key([byte; 32])
    }

    #[test]
    fn ranges_are_joined() {
        let mut touched = Touched::new();
        touched.range(key(5), Some(key(7)));
        touched.range(key(1), Some(key(3)));
        touched.range(key(3), Some(key(4)));
        touched.range(key(6), Some(key(9)));
        touched.range(key(8), Some(key(8)));
        assert_eq!(touched.ranges(), vec![(key(1), Some(key(4))), (key(5), Some(key(9)))]);
        touched.range(key(9), None);
        touched.range(key(10), Some(key(11)));
        assert_eq!(touched.ranges(), vec![(key(1), Some(key(4))), (key(5), None)]);
        let mut more = Touched::new();
        more.range_through(key(2), &Key::MAX);
        touched.extend(&more);
        assert_eq!(touched.ranges(), vec![(key(1), None)]);
    }

    #[test]
    fn the_same_lower_end_keeps_the_later_upper_end() {
        let mut touched = Touched::new();
        touched.range(key(1), Some(key(5)));
        touched.range(key(1), Some(key(3)));
        assert_eq!(touched.ranges(), vec![(key(1), Some(key(5)))]);
        assert!(!touched.is_empty());
        assert_eq!(touched.keys().count(), 0);
    }
}
