//! What rows were at earlier heights: as changes that take a later state back, and row by row.
//!
//! Invariant: an answer is complete for the height that was asked for, whatever is committed or pruned meanwhile,
//! or it is [`StateError::NotRetained`]. What is gathered has a bound.

use std::collections::BTreeMap;

use quorate_protocol::Height;
use rocksdb::ReadOptions;

use super::format::{
    CHANGES, ROWS, change_key, decode_value, split_change_key, split_version_key, version_key,
};
use super::{Key, Row, State, StateError};

/// Bytes that a row of a rewound state counts for, beside its value: key, nodes of a trie above it, and the
/// bookkeeping of all of them.
pub const REWOUND_ROW_BYTES: u64 = 1024;

impl State {
    /// What the rows were at `height` that were changed between it and `later`: as changes, they take the rows of
    /// `later` back to `height`. Costs as much as was changed in between, and no more memory than `bytes_max`,
    /// counted with [`REWOUND_ROW_BYTES`].
    ///
    /// # Errors
    /// [`StateError::NotRetained`] for a height below the horizon, be it a snapshot, or one that is not applied;
    /// [`StateError::TooFar`]; an error of the database.
    pub fn rewind(
        &self,
        later: Height,
        height: Height,
        bytes_max: u64,
    ) -> Result<BTreeMap<Key, Option<Row>>, StateError> {
        let _pin = self.pin(height)?;
        let mut changes = self.db.raw_iterator_cf(self.family(CHANGES)?);
        // The iterator sees one moment of the database. Entries go only after the horizon has passed them: if it
        // has not by now, that moment has them all.
        let (horizon, applied) = (self.horizon(), self.retention.applied().ok_or(StateError::Empty)?);
        if height < horizon || later > applied {
            return Err(StateError::NotRetained { height: height.max(later), horizon, applied });
        }
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        let mut versions = self.db.raw_iterator_cf_opt(self.family(ROWS)?, options);
        let mut rows = BTreeMap::new();
        let mut bytes = 0_u64;
        changes.seek(change_key(height.saturating_add(1), &[0; 32]));
        while let Some(found) = changes.key() {
            let (changed, key) = split_change_key(found).ok_or(StateError::Damaged("a change's key"))?;
            if changed > later {
                break;
            }
            if let std::collections::btree_map::Entry::Vacant(place) = rows.entry(key) {
                versions.seek(version_key(&key, height));
                let row = match versions.item() {
                    Some((found, value)) if split_version_key(found).is_some_and(|(row, _)| row == key) => {
                        decode_value(value).ok_or(StateError::Damaged("a row's value"))?
                    }
                    _ => None,
                };
                versions.status()?;
                let length = row.as_ref().map_or(0, |row| row.len()) as u64;
                bytes = bytes.saturating_add(REWOUND_ROW_BYTES).saturating_add(length);
                if bytes > bytes_max {
                    return Err(StateError::TooFar { height, bytes_max });
                }
                place.insert(row);
            }
            changes.next();
        }
        changes.status()?;
        Ok(rows)
    }

    /// The highest height that can be read, or that a reader holds, at which the row has a value that is `wanted`.
    ///
    /// # Errors
    /// An error of the database.
    pub fn last_with(&self, key: &Key, wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Height>, StateError> {
        let Some((horizon, applied, held)) = self.retention.readable() else { return Ok(None) };
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        let mut versions = self.db.raw_iterator_cf_opt(self.family(ROWS)?, options);
        versions.seek(version_key(key, applied));
        let mut last = applied;
        while let Some((found, value)) = versions.item() {
            let Some(height) =
                split_version_key(found).filter(|(row, _)| row == key).map(|(_, height)| height)
            else {
                break;
            };
            // This version is the row from its own height up to `last`.
            let readable = if last >= horizon {
                Some(last)
            } else {
                held.iter().rev().find(|held| (height..=last).contains(held)).copied()
            };
            let value = decode_value(value).ok_or(StateError::Damaged("a row's value"))?;
            if let (Some(readable), Some(value)) = (readable, value)
                && wanted(&value)
            {
                return Ok(Some(readable));
            }
            let Some(before) = height.checked_sub(1) else { break };
            last = before;
            versions.next();
        }
        versions.status()?;
        Ok(None)
    }
}
