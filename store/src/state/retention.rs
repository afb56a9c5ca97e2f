//! Which heights can be read: those from the horizon on, snapshots, and what a reader holds.
//!
//! Invariant: a height that was pinned stays readable until its pin is dropped, because pruning asks here
//! first and a pin is given only for a height that can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_protocol::Height;

use super::StateError;

/// Heights and pins of one state.
#[derive(Clone)]
pub(crate) struct Retention(Arc<Mutex<Heights>>);

struct Heights {
    applied: Option<Height>,
    horizon: Height,
    snapshots: BTreeSet<Height>,
    pins: BTreeMap<Height, usize>,
}

/// Keeps one height readable until it is dropped.
pub struct Pin {
    height: Height,
    retention: Retention,
}

impl Pin {
    /// The height.
    #[must_use]
    pub fn height(&self) -> Height {
        self.height
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut heights = self.retention.lock();
        if let Some(count) = heights.pins.get_mut(&self.height) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                heights.pins.remove(&self.height);
            }
        }
    }
}

impl Retention {
    pub(crate) fn new(applied: Option<Height>, horizon: Height, snapshots: Vec<Height>) -> Self {
        let snapshots = snapshots.into_iter().collect();
        Self(Arc::new(Mutex::new(Heights { applied, horizon, snapshots, pins: BTreeMap::new() })))
    }

    pub(crate) fn applied(&self) -> Option<Height> {
        self.lock().applied
    }

    pub(crate) fn horizon(&self) -> Height {
        self.lock().horizon
    }

    /// Makes a height readable, once it is written. The first height of a state is its horizon.
    pub(crate) fn publish(&self, height: Height) {
        let mut heights = self.lock();
        if heights.applied.is_none() {
            heights.horizon = height;
        }
        heights.applied = Some(height);
    }

    pub(crate) fn pin(&self, height: Height) -> Result<Pin, StateError> {
        let mut heights = self.lock();
        let applied = heights.applied.ok_or(StateError::Empty)?;
        let kept = height >= heights.horizon
            || heights.snapshots.contains(&height)
            || heights.pins.contains_key(&height);
        if height > applied || !kept {
            return Err(StateError::NotRetained { height, horizon: heights.horizon, applied });
        }
        *heights.pins.entry(height).or_insert(0) += 1;
        drop(heights);
        Ok(Pin { height, retention: self.clone() })
    }

    /// Raises the horizon and names the snapshots below it. Returns the horizon that now holds and every
    /// height below it that must stay readable, ascending.
    pub(crate) fn raise(
        &self,
        below: Height,
        snapshots: &[Height],
    ) -> Result<(Height, Vec<Height>), StateError> {
        let mut heights = self.lock();
        let applied = heights.applied.ok_or(StateError::Empty)?;
        let before = heights.horizon;
        let readable = |height: &&Height| **height >= before || heights.snapshots.contains(*height);
        let kept: BTreeSet<Height> = snapshots.iter().filter(readable).copied().collect();
        let horizon = below.min(applied).max(before);
        heights.horizon = horizon;
        heights.snapshots = kept.range(..horizon).copied().collect();
        let pinned = heights.pins.keys().filter(|height| **height < horizon);
        let held: BTreeSet<Height> = heights.snapshots.iter().chain(pinned).copied().collect();
        Ok((horizon, held.into_iter().collect()))
    }

    /// The horizon, the applied height, and all heights below the horizon that can still be read, ascending;
    /// `None` in an empty state.
    pub(crate) fn readable(&self) -> Option<(Height, Height, Vec<Height>)> {
        let heights = self.lock();
        let horizon = heights.horizon;
        let pinned = heights.pins.keys().filter(|height| **height < horizon);
        let held: BTreeSet<Height> = heights.snapshots.iter().chain(pinned).copied().collect();
        Some((horizon, heights.applied?, held.into_iter().collect()))
    }

    pub(crate) fn snapshots(&self) -> Vec<Height> {
        self.lock().snapshots.iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Heights> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
