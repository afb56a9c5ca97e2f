//! The virtual disk of a replica: a log whose records are lost at a crash unless they were synced, and that
//! may rot, vanish or be rolled back.
//!
//! Invariant: short of damage, what [`Disk::synced`] counts is never lost; what was appended after it
//! survives a crash as a prefix of any length, as a log with checksums recovers it (the torn record at its
//! end is cut off). Damage is found as the real log finds it: by the synced marks of what lies behind it.

use std::collections::{BTreeSet, VecDeque};

use quorate_protocol::record::Record;

use crate::random::Random;

/// Places on a log are given in this many parts of its length.
pub const PARTS: u64 = 1000;

/// What happens to synced records. The replica that it happens to counts among the f.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The record at so many thousandths of the log becomes unreadable.
    Rot(u64),
    /// The last synced record becomes unreadable, together with the mark behind it.
    RotLast,
    /// The log is gone.
    Lost,
    /// An old copy of the log, of so many thousandths of it, is put in its place.
    RolledBack(u64),
    /// The same with an old copy of the state: nothing on this disk tells.
    AllRolledBack(u64),
}

/// Why a log is refused: the replica must not vote with it, nor ever again under its key (rule R2).
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A record is unreadable of which a later one says that it was synced.
    #[error("record {0} is damaged, and was synced")]
    Damaged(usize),
    /// There is no log, but there was one.
    #[error("the log is lost")]
    Lost,
    /// The saved state is of a height that the log does not reach.
    #[error("the state is ahead of the log")]
    Behind,
}

/// What waits for a sync: `value` once the first `end` records are durable.
#[derive(Debug)]
struct Waiting<T> {
    end: usize,
    value: T,
}

/// The log and what waits for it; `T` is what the driver does when records are durable.
#[derive(Debug)]
pub struct Disk<T> {
    records: Vec<Record>,
    /// For each record how many were durable when it was appended: the synced mark of its frame.
    marks: Vec<usize>,
    /// The mark behind the last record, written after a sync and without one.
    tail_mark: Option<usize>,
    rotten: BTreeSet<usize>,
    is_lost: bool,
    synced: usize,
    /// The most records that were ever durable.
    promised: usize,
    syncing: Option<usize>,
    waiting: VecDeque<Waiting<T>>,
}

impl<T> Default for Disk<T> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            marks: Vec::new(),
            tail_mark: None,
            rotten: BTreeSet::new(),
            is_lost: false,
            synced: 0,
            promised: 0,
            syncing: None,
            waiting: VecDeque::new(),
        }
    }
}

impl<T> Disk<T> {
    /// Appends records; `value` comes back from [`Disk::sync_ended`] when they are durable.
    pub fn append(&mut self, records: Vec<Record>, value: T) {
        self.append_unwatched(records);
        self.waiting.push_back(Waiting { end: self.records.len(), value });
    }

    /// Appends records that nothing waits for.
    pub fn append_unwatched(&mut self, records: Vec<Record>) {
        if !records.is_empty() {
            self.tail_mark = None;
        }
        self.records.extend(records);
        self.marks.resize(self.records.len(), self.synced);
    }

    /// Starts a sync of all that is appended, if there is something to sync and none is under way. The
    /// caller schedules [`Disk::sync_ended`].
    pub fn sync_started(&mut self) -> bool {
        if self.syncing.is_some() || self.synced == self.records.len() && self.waiting.is_empty() {
            return false;
        }
        self.syncing = Some(self.records.len());
        true
    }

    /// The sync under way has ended: what it covered is durable, and what waited for that comes back.
    pub fn sync_ended(&mut self) -> Vec<T> {
        if let Some(end) = self.syncing.take() {
            self.made_durable(end);
        }
        let ready = self.waiting.iter().take_while(|waiting| waiting.end <= self.synced).count();
        self.waiting.drain(..ready).map(|waiting| waiting.value).collect()
    }

    fn made_durable(&mut self, end: usize) {
        self.synced = end;
        self.promised = self.promised.max(end);
        if self.records.len() == end {
            self.tail_mark = Some(end);
        }
    }

    /// Power is lost, or the process ends because a write or a sync failed: a prefix of the records
    /// survives, and at least those that were synced.
    pub fn crash(&mut self, random: &mut Random) {
        let loose = (self.records.len() - self.synced) as u64;
        // Often nothing or everything that was not synced survives: both ends matter.
        let survive = if random.one_in(3) { 0 } else { random.between(0, loose) };
        self.truncate(self.synced + survive as usize);
        if self.tail_mark.is_some() && random.one_in(2) {
            self.tail_mark = None;
        }
        self.syncing = None;
        self.waiting.clear();
    }

    fn truncate(&mut self, end: usize) {
        self.records.truncate(end);
        self.marks.truncate(end);
        self.rotten = self.rotten.iter().copied().filter(|position| *position < end).collect();
        self.synced = self.synced.min(end);
    }

    /// Something happens to the synced records; the running process does not notice.
    pub fn damage(&mut self, damage: Damage) {
        let part = |parts: u64| (self.synced as u64 * parts.min(PARTS) / PARTS) as usize;
        match damage {
            Damage::Rot(parts) if self.synced > 0 => {
                self.rotten.insert(part(parts).min(self.synced - 1));
            }
            Damage::RotLast if self.synced > 0 => {
                self.rotten.insert(self.synced - 1);
                self.tail_mark = None;
            }
            Damage::Rot(_) | Damage::RotLast => {}
            Damage::Lost => self.is_lost = true,
            Damage::RolledBack(parts) | Damage::AllRolledBack(parts) => {
                let kept = part(parts);
                self.truncate(kept);
                // The copy was made of a log at rest: its last sync left a mark.
                self.tail_mark = Some(kept);
            }
        }
    }

    /// A recovery reads the log, cuts off what is torn at its end, and makes what it has read durable.
    ///
    /// # Errors
    /// [`Refusal`] if something is missing of which the log itself shows that it was synced.
    pub fn recover(&mut self) -> Result<(), Refusal> {
        if self.is_lost {
            return Err(Refusal::Lost);
        }
        if let Some(position) = self.rotten.first().copied() {
            let readable = |(place, _): &(usize, &usize)| *place > position && !self.rotten.contains(place);
            let later = self.marks.iter().enumerate().filter(readable).map(|(_, mark)| *mark);
            if later.chain(self.tail_mark).any(|mark| mark > position) {
                return Err(Refusal::Damaged(position));
            }
            self.truncate(position);
        }
        self.made_durable(self.records.len());
        Ok(())
    }

    /// Whether records are gone that were durable once.
    #[must_use]
    pub const fn has_forgotten(&self) -> bool {
        self.records.len() < self.promised
    }

    /// Everything is lost, synced or not, and nothing tells that there was something.
    pub fn wipe(&mut self) {
        *self = Self::default();
    }

    /// The records, as a recovery reads them.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// How many records are durable.
    #[must_use]
    pub const fn synced(&self) -> usize {
        self.synced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    fn entered(view: u64) -> Vec<Record> {
        vec![Record::Entered { epoch: 0, view }]
    }

    /// A disk with so many records, each synced before the next.
    fn written(count: u64) -> Disk<u64> {
        let mut disk = Disk::default();
        for view in 0..count {
            disk.append(entered(view), view);
            assert!(disk.sync_started());
            assert_eq!(disk.sync_ended(), [view]);
        }
        disk
    }

    #[test]
    fn a_sync_covers_what_was_appended_before_it_started() {
        let mut disk = Disk::default();
        disk.append(entered(1), 'a');
        assert!(disk.sync_started());
        disk.append(entered(2), 'b');
        assert!(!disk.sync_started(), "one sync at a time");
        assert_eq!(disk.sync_ended(), ['a']);
        assert_eq!(disk.synced(), 1);
        assert!(disk.sync_started());
        assert_eq!(disk.sync_ended(), ['b']);
        assert!(!disk.sync_started());
    }

    #[test]
    fn a_crash_keeps_the_synced_prefix_and_loses_what_waited() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let mut disk = written(1);
            disk.append(entered(2), 2);
            disk.append(entered(3), 3);
            disk.crash(&mut Random::new(seed, Stream::Disk));
            assert_eq!(disk.recover(), Ok(()));
            assert!(disk.records().starts_with(&entered(0)));
            lengths.insert(disk.records().len());
            assert!(!disk.sync_started(), "what survived is durable");
            assert!(!disk.has_forgotten());
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    /// PR6: a record in the middle that was synced is never cut off.
    #[test]
    fn pr6_rot_in_the_middle_is_refused() {
        for parts in [0, 250, 500, 700] {
            let mut disk = written(4);
            disk.damage(Damage::Rot(parts));
            assert!(matches!(disk.recover(), Err(Refusal::Damaged(_))), "{parts}");
        }
    }

    /// PR6: nothing behind the last record says that it was synced, unless the mark survives.
    #[test]
    fn pr6_rot_at_the_tail_is_refused_if_the_mark_is_there_and_forgotten_otherwise() {
        let mut disk = written(4);
        disk.damage(Damage::Rot(PARTS));
        assert_eq!(disk.recover(), Err(Refusal::Damaged(3)));
        let mut disk = written(4);
        disk.damage(Damage::RotLast);
        assert_eq!(disk.recover(), Ok(()));
        assert_eq!(disk.records().len(), 3);
        assert!(disk.has_forgotten());
    }

    #[test]
    fn a_lost_log_is_refused_and_one_rolled_back_is_not_noticed() {
        let mut disk = written(4);
        disk.damage(Damage::Lost);
        assert_eq!(disk.recover(), Err(Refusal::Lost));
        let mut disk = written(4);
        disk.damage(Damage::RolledBack(500));
        assert_eq!(disk.recover(), Ok(()));
        assert_eq!((disk.records().len(), disk.has_forgotten()), (2, true));
    }
}
