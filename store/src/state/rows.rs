//! Rows in order, as they were at one height.
//!
//! Invariant: the iterator sees one moment of the database and holds a pin, so that what it yields is
//! complete whatever is committed or pruned meanwhile; a disk error is yielded, never taken for the end.

use quorate_protocol::Height;
use rocksdb::DBRawIterator;

use super::format::{VERSION_KEY_BYTES, decode_value, split_version_key, version_key};
use super::retention::Pin;
use super::{Key, Row, StateError};

/// Versions of one row that are stepped over one by one before a seek is the better way.
const STEPS_MAX: usize = 8;

/// Rows of a range at one height, ascending. After an error it ends.
pub struct Rows<'a> {
    iterator: DBRawIterator<'a>,
    pin: Pin,
    end: Option<Key>,
    done: bool,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(mut iterator: DBRawIterator<'a>, pin: Pin, from: &Key, end: Option<Key>) -> Self {
        // The newest version that can be has the smallest key.
        iterator.seek(version_key(from, Height::MAX));
        Self { iterator, pin, end, done: false }
    }

    /// The next row that is there at the height.
    fn advance(&mut self) -> Result<Option<(Key, Row)>, StateError> {
        while let Some(found) = self.iterator.key() {
            let (key, height) = split_version_key(found).ok_or(StateError::Damaged("a row's key"))?;
            if self.end.is_some_and(|end| key >= end) {
                return Ok(None);
            }
            if height > self.pin.height() {
                self.step_to(&version_key(&key, self.pin.height()));
                continue;
            }
            let value = self.iterator.value().and_then(decode_value);
            let value = value.ok_or(StateError::Damaged("a row's value"))?;
            self.leave(&key);
            if let Some(value) = value {
                return Ok(Some((key, value)));
            }
        }
        self.iterator.status()?;
        Ok(None)
    }

    /// Goes on to the first version at or after `target`.
    fn step_to(&mut self, target: &[u8; VERSION_KEY_BYTES]) {
        for _ in 0..STEPS_MAX {
            self.iterator.next();
            if self.iterator.key().is_none_or(|found| found >= target.as_slice()) {
                return;
            }
        }
        self.iterator.seek(target);
    }

    /// Goes on to the first version of another row.
    fn leave(&mut self, key: &Key) {
        // The oldest version that can be has the greatest key.
        let last = version_key(key, 0);
        for _ in 0..STEPS_MAX {
            self.iterator.next();
            if self.iterator.key().is_none_or(|found| found > last.as_slice()) {
                return;
            }
        }
        self.iterator.seek(last);
        if self.iterator.key() == Some(last.as_slice()) {
            self.iterator.next();
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<(Key, Row), StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let found = self.advance().transpose();
        self.done = !matches!(found, Some(Ok(_)));
        found
    }
}
