//! The virtual disk of a replica: a log whose records are lost at a crash unless they were synced.
//!
//! Invariant: what [`Disk::synced`] counts is never lost; what was appended after it survives a crash as a
//! prefix of any length, as a log with checksums recovers it (the torn record at its end is cut off).

use std::collections::VecDeque;

use quorate_protocol::record::Record;

use crate::random::Random;

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
    synced: usize,
    syncing: Option<usize>,
    waiting: VecDeque<Waiting<T>>,
}

impl<T> Default for Disk<T> {
    fn default() -> Self {
        Self { records: Vec::new(), synced: 0, syncing: None, waiting: VecDeque::new() }
    }
}

impl<T> Disk<T> {
    /// Appends records; `value` comes back from [`Disk::sync_ended`] when they are durable.
    pub fn append(&mut self, records: Vec<Record>, value: T) {
        self.records.extend(records);
        self.waiting.push_back(Waiting { end: self.records.len(), value });
    }

    /// Appends records that nothing waits for.
    pub fn append_unwatched(&mut self, records: Vec<Record>) {
        self.records.extend(records);
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
            self.synced = end;
        }
        let ready = self.waiting.iter().take_while(|waiting| waiting.end <= self.synced).count();
        self.waiting.drain(..ready).map(|waiting| waiting.value).collect()
    }

    /// Power is lost: a prefix of the records survives, and at least those that were synced.
    pub fn crash(&mut self, random: &mut Random) {
        let loose = (self.records.len() - self.synced) as u64;
        // Often nothing or everything that was not synced survives: both ends matter.
        let survive = if random.one_in(3) { 0 } else { random.between(0, loose) };
        self.records.truncate(self.synced + survive as usize);
        self.synced = self.records.len();
        self.syncing = None;
        self.waiting.clear();
    }

    /// Everything is lost, synced or not.
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
            let mut disk = Disk::default();
            disk.append(entered(1), ());
            assert!(disk.sync_started());
            assert_eq!(disk.sync_ended().len(), 1);
            disk.append(entered(2), ());
            disk.append(entered(3), ());
            disk.crash(&mut Random::new(seed, Stream::Disk));
            assert!(disk.records().starts_with(&entered(1)));
            lengths.insert(disk.records().len());
            assert!(!disk.sync_started(), "what survived is durable");
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }
}
