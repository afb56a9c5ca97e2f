//! How long the versions of rows are kept, and their removal bit by bit (rule S10).
//!
//! Invariant: kept are the last heights, and all that were the newest one within the time that outlasts a paged
//! listing, whichever reaches further back; the store keeps what is pinned besides. A turn examines a bounded
//! number of changes, so that saving never waits for long; a crash between two turns leaves work, and nothing
//! else.

use quorate_protocol::{BatchTime, Height};
use quorate_store::state::{PruneCursor, State as Database, StateError};
use std::collections::VecDeque;
use std::time::Duration;

/// Heights that are kept unless the operator says otherwise: more than may be in flight, and so few that content
/// which was removed does not stay for hours where few heights are made.
pub const HEIGHTS_DEFAULT: u64 = 128;
/// Time for which heights are kept unless the operator says otherwise: no listing takes longer.
pub const TIME_DEFAULT: Duration = Duration::from_secs(300);
/// Heights of which the time is remembered, spread over the time for which they are kept.
const SAMPLES_MAX: u64 = 256;
/// A pass over the changes begins when so many heights may go, or a sixteenth of those that are kept if that is less.
const STEP_HEIGHTS_MAX: u64 = 64;
const STEPS_PER_HEIGHTS: u64 = 16;

/// Which heights of the past can be read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many of the last heights, at least.
    pub heights: u64,
    /// Those that were the newest within so much batch time, at least.
    pub time: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { heights: HEIGHTS_DEFAULT, time: TIME_DEFAULT }
    }
}

/// A pass that is not finished.
struct Pass {
    horizon: Height,
    next: Option<PruneCursor>,
    /// The first change that a pin or a snapshot still needs.
    kept: Option<PruneCursor>,
}

/// Removes what need not be kept.
pub struct Pruner {
    retention: Retention,
    newest: (Height, BatchTime),
    /// When heights were committed, ascending: all lower ones were replaced by then.
    samples: VecDeque<(BatchTime, Height)>,
    /// Everything below was examined.
    horizon: Height,
    /// Where the next pass begins.
    start: Option<PruneCursor>,
    pass: Option<Pass>,
}

impl Pruner {
    /// Starts at the height that is applied, of which only its own time is known.
    pub fn new(retention: Retention, height: Height, time: BatchTime) -> Self {
        let samples = VecDeque::from([(time, height)]);
        Self { retention, newest: (height, time), samples, horizon: 0, start: None, pass: None }
    }

    /// A height was saved.
    pub fn committed(&mut self, height: Height, time: BatchTime) {
        self.newest = (height, time);
        let kept = u64::try_from(self.retention.time.as_nanos()).unwrap_or(u64::MAX);
        let apart = kept.checked_div(SAMPLES_MAX).unwrap_or(0);
        if self.samples.back().is_none_or(|(last, _)| last.0.saturating_add(apart) <= time.0) {
            self.samples.push_back((time, height));
        }
        let since = time.0.saturating_sub(kept);
        // Of those that are old enough, the last one says it all.
        while self.samples.get(1).is_some_and(|(sample, _)| sample.0 <= since) {
            self.samples.pop_front();
        }
    }

    /// The lowest height that is kept now.
    fn lowest_kept(&self) -> Height {
        let (newest, time) = self.newest;
        let kept = u64::try_from(self.retention.time.as_nanos()).unwrap_or(u64::MAX);
        let old = self.samples.front().filter(|(sample, _)| sample.0.saturating_add(kept) <= time.0);
        let by_time = old.map_or(0, |(_, height)| *height);
        by_time.min(newest.saturating_sub(self.retention.heights.saturating_sub(1)))
    }

    /// Does a bounded amount of work, if there is any. Returns whether there is more.
    ///
    /// # Errors
    /// Those of the database.
    pub fn turn(&mut self, database: &Database) -> Result<bool, StateError> {
        if self.pass.is_none() {
            let lowest = self.lowest_kept();
            let step = (self.retention.heights / STEPS_PER_HEIGHTS).clamp(1, STEP_HEIGHTS_MAX);
            if lowest < self.horizon.saturating_add(step) {
                return Ok(false);
            }
            self.pass = Some(Pass { horizon: lowest, next: self.start.clone(), kept: None });
        }
        let Some(pass) = &mut self.pass else { return Ok(false) };
        let pruned = database.prune(pass.horizon, &[], pass.next.as_ref())?;
        pass.kept = pass.kept.take().or(pruned.kept);
        if pruned.next.is_some() {
            pass.next = pruned.next;
            return Ok(true);
        }
        self.horizon = pass.horizon;
        // What is behind need not be looked through again, but for what a pin holds.
        let beyond = PruneCursor::at(pass.horizon.saturating_add(1));
        self.start = Some(pass.kept.take().unwrap_or(beyond));
        self.pass = None;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_crypto::Hash;
    use quorate_store::directory::{Directory, Identity};
    use quorate_store::state::{Row, StateOptions};
    use std::collections::BTreeMap;

    const SECOND: u64 = 1_000_000_000;

    fn directory(place: &std::path::Path) -> Directory {
        Directory::create(place, Identity { cluster: Hash([1; 32]), replica: 0 }).unwrap()
    }

    fn open(directory: &Directory) -> Database {
        Database::open(directory, &StateOptions::default()).unwrap()
    }

    fn value(height: Height) -> Row {
        height.to_be_bytes().to_vec().into()
    }

    /// Commits a height that changes rows 0 and 1 + its number modulo 8.
    fn commit(database: &Database, height: Height) {
        let keys = [[0; 32], [1 + (height % 8) as u8; 32]];
        let changes = keys.map(|key| (key, Some(value(height)))).into_iter().collect();
        database.commit(height, &changes, b"h", b"f").unwrap();
    }

    fn work_off(pruner: &mut Pruner, database: &Database) {
        while pruner.turn(database).unwrap() {}
    }

    /// What the rows are at a height, by the rule of [`commit`].
    fn check(database: &Database, height: Height) {
        assert_eq!(database.get_at(&[0; 32], height).unwrap(), Some(value(height)));
        let expected: BTreeMap<_, _> =
            (height.saturating_sub(7)..=height).map(|at| ([1 + (at % 8) as u8; 32], value(at))).collect();
        let rows = database.scan_at(&[1; 32], None, height).unwrap().map(Result::unwrap);
        assert_eq!(rows.collect::<BTreeMap<_, _>>(), expected);
    }

    /// Versions of row 0 that are stored.
    fn versions(database: &Database, heights: Height) -> usize {
        (0..=heights).filter(|height| database.pin(*height).is_ok()).count()
    }

    #[test]
    fn old_versions_go_and_what_is_kept_or_pinned_stays_readable() {
        let place = tempfile::tempdir().unwrap();
        let directory = directory(place.path());
        let mut database = open(&directory);
        let retention = Retention { heights: 100, time: Duration::from_secs(10) };
        let mut pruner = Pruner::new(retention, 0, BatchTime(0));
        let mut pin = None;
        // Ten heights a second: the number of heights and the time say the same.
        for height in 0..2000 {
            commit(&database, height);
            pruner.committed(height, BatchTime(height * SECOND / 10));
            if height == 550 {
                pin = Some(database.pin(500).unwrap());
            }
            work_off(&mut pruner, &database);
            assert!(database.horizon() <= height.saturating_sub(99));
        }
        let horizon = database.horizon();
        assert!((1999 - 99 - STEP_HEIGHTS_MAX - 1..=1900).contains(&horizon), "{horizon}");
        for height in horizon.max(8)..2000 {
            check(&database, height);
        }
        check(&database, pin.as_ref().unwrap().height());
        assert!(database.pin(499).is_err() && database.pin(horizon - 1).is_err());
        // Without the pin the version goes as well, also after a restart.
        drop((pin, database));
        database = open(&directory);
        let mut pruner = Pruner::new(retention, 1999, BatchTime(200 * SECOND));
        for height in 2000..2300 {
            commit(&database, height);
            pruner.committed(height, BatchTime(height * SECOND / 10));
        }
        work_off(&mut pruner, &database);
        assert!(database.pin(500).is_err());
        assert_eq!(versions(&database, 2299), (2299 - database.horizon() + 1) as usize);
    }

    #[test]
    fn a_crash_between_two_turns_leaves_work_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let directory = directory(place.path());
        let mut database = open(&directory);
        for height in 0..4000 {
            commit(&database, height);
        }
        let retention = Retention { heights: 50, time: Duration::ZERO };
        let mut turns = 0;
        loop {
            // Each turn in a process of its own.
            let mut pruner = Pruner::new(retention, 3999, BatchTime(4000));
            let more = pruner.turn(&database).unwrap();
            turns += 1;
            drop(database);
            database = open(&directory);
            for height in [3950, 3970, 3999] {
                check(&database, height);
            }
            if !more {
                break;
            }
        }
        assert!(turns > 2, "a turn is bounded: {turns}");
        assert!(database.pin(3949).is_err());
        // Nothing is left to examine: removed is what can be removed.
        let removed = database.prune(3950, &[], None).unwrap();
        assert_eq!((removed.removed, removed.next), (0, None));
    }

    /// Rule S10: a listing of the height that was the newest one all the time is not cut off.
    #[test]
    fn a_height_that_was_the_newest_for_long_is_kept_after_it_is_replaced() {
        let retention = Retention { heights: 10, time: Duration::from_secs(300) };
        let mut pruner = Pruner::new(retention, 0, BatchTime(0));
        for height in 1..=1000 {
            pruner.committed(height, BatchTime(height));
        }
        // Nothing for a day; then much at once.
        let day = 86_400 * SECOND;
        for height in 1001..=3000 {
            pruner.committed(height, BatchTime(day + height));
            assert!(pruner.lowest_kept() <= 1000);
        }
        for second in 0..1000 {
            pruner.committed(3001 + second, BatchTime(day + second * SECOND));
            assert!(pruner.samples.len() as u64 <= SAMPLES_MAX + 2);
        }
        assert!(pruner.lowest_kept() > 3600);
    }
}
