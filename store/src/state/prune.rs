//! Removing versions that no readable height needs.
//!
//! Invariant: a version that holds from height a up to b (exclusive) is removed only if no height in it
//! is at or above the horizon, a snapshot, or pinned (rule S10). Each step is atomic, so that pruning may
//! stop anywhere.

use quorate_protocol::Height;
use rocksdb::{DBRawIterator, ReadOptions, WriteBatch};

use super::format::{
    CHANGES, META, META_RETAINED, ROWS, change_key, encode_retained, is_tombstone, split_change_key,
    split_version_key, version_key,
};
use super::{Key, State, StateError};

/// Changes that one call of [`State::prune`] examines at most.
pub const PRUNE_CHANGES_MAX: usize = 2048;

/// Where pruning goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PruneCursor([u8; 40]);

impl PruneCursor {
    /// At the first change of a height.
    #[must_use]
    pub fn at(height: Height) -> Self {
        Self(change_key(height, &[0; 32]))
    }
}

/// What one call of [`State::prune`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Versions removed.
    pub removed: u64,
    /// Where to go on; `None` when everything below the horizon was examined.
    pub next: Option<PruneCursor>,
    /// The first change that was left for a later pass, because a snapshot or a pin needs a version.
    pub kept: Option<PruneCursor>,
}

impl State {
    /// Removes versions that only heights below `below` can see, except for `snapshots`. The horizon
    /// never falls, and never passes the applied height. Examines a bounded number of changes: call again
    /// with the cursor until there is none, with the same arguments. A pass begins without a cursor, or where
    /// the one before it left something, or ended.
    ///
    /// # Errors
    /// [`StateError::Empty`], or an error of the database.
    pub fn prune(
        &self,
        below: Height,
        snapshots: &[Height],
        cursor: Option<&PruneCursor>,
    ) -> Result<Pruned, StateError> {
        let (horizon, held) = self.retention.raise(below, snapshots)?;
        let mut batch = WriteBatch::default();
        let retained = encode_retained(horizon, self.retention.snapshots());
        batch.put_cf(self.family(META)?, META_RETAINED, retained);
        let mut changes = self.db.raw_iterator_cf(self.family(CHANGES)?);
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        let mut rows = self.db.raw_iterator_cf_opt(self.family(ROWS)?, options);
        match cursor {
            Some(cursor) => changes.seek(cursor.0),
            None => changes.seek_to_first(),
        }
        let mut pruned = Pruned::default();
        let mut examined = 0;
        while let Some(found) = changes.key() {
            let (height, key) = split_change_key(found).ok_or(StateError::Damaged("a change's key"))?;
            if height > horizon {
                break;
            }
            if examined == PRUNE_CHANGES_MAX {
                pruned.next = Some(PruneCursor(change_key(height, &key)));
                break;
            }
            examined += 1;
            let (removed, more) = self.prune_row(&mut rows, (&key, height), horizon, &held, &mut batch)?;
            pruned.removed += removed;
            // What a pin holds is examined again by a later call.
            if more {
                pruned.kept.get_or_insert(PruneCursor(change_key(height, &key)));
            } else {
                batch.delete_cf(self.family(CHANGES)?, change_key(height, &key));
            }
            changes.next();
        }
        changes.status()?;
        self.db.write(batch)?;
        Ok(pruned)
    }

    /// Removes the versions of one row that nobody can see, if the given change is its last one up to the
    /// horizon; otherwise the last one does it for all. Returns how many, and whether some are kept only
    /// for held heights.
    fn prune_row(
        &self,
        rows: &mut DBRawIterator<'_>,
        (key, change): (&Key, Height),
        horizon: Height,
        held: &[Height],
        batch: &mut WriteBatch,
    ) -> Result<(u64, bool), StateError> {
        rows.seek(version_key(key, horizon));
        let mut newer = None;
        let (mut removed, mut more, mut tombstone) = (0, false, None);
        while let Some((found, height)) =
            rows.key().and_then(split_version_key).filter(|(found, _)| found == key)
        {
            match newer {
                None if height != change => return Ok((0, false)),
                // The version at the horizon: needed by it, unless it says that the row is absent.
                None => tombstone = rows.value().is_some_and(is_tombstone).then_some(height),
                Some(newer) if is_held(held, height, newer) => more = true,
                Some(_) => {
                    batch.delete_cf(self.family(ROWS)?, version_key(&found, height));
                    removed += 1;
                }
            }
            newer = Some(height);
            rows.next();
        }
        rows.status()?;
        // Absence needs no record once nothing older is left that it hides.
        if let Some(height) = tombstone.filter(|_| !more) {
            batch.delete_cf(self.family(ROWS)?, version_key(key, height));
            removed += 1;
        }
        Ok((removed, more))
    }
}

/// Whether one of the heights, which ascend, lies in `from..to`.
fn is_held(heights: &[Height], from: Height, to: Height) -> bool {
    let first = heights.partition_point(|height| *height < from);
    heights.get(first).is_some_and(|height| *height < to)
}
