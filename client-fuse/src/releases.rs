//! Grants that were given back here and of which the cluster does not know yet.
//!
//! Invariant: what is taken out to be sent is sent or put back, whatever becomes of whoever took it; and what
//! belongs to a session that is over, and ended with it, never takes a grant of the next one away.

use quorate_client::Step;
use quorate_protocol::operation::OpenMode;
use quorate_protocol::{Ino, OperationBody, SessionId};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Releases that travel with one operation.
const RELEASES_PER_ENVELOPE_MAX: usize = 64;

/// One grant that is given back.
type Release = (SessionId, Ino, OpenMode);

/// Those that wait: at most one for each grant that was taken.
#[derive(Default)]
pub struct Releases(Mutex<Vec<Release>>);

impl Releases {
    fn waiting(&self) -> MutexGuard<'_, Vec<Release>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the return of a grant of this session.
    pub fn push(&self, session: SessionId, ino: Ino, mode: OpenMode) {
        let mode = OpenMode { truncate: false, ..mode };
        self.waiting().push((session, ino, mode));
    }

    /// Takes out releases of the present session for one envelope, and forgets those of sessions before it.
    pub fn take(&self, session: SessionId) -> Taken<'_> {
        let mut waiting = self.waiting();
        if waiting.is_empty() {
            return Taken { releases: self, taken: Vec::new() };
        }
        waiting.retain(|(of, ..)| *of == session);
        let count = waiting.len().min(RELEASES_PER_ENVELOPE_MAX);
        let taken = waiting.drain(..count).collect();
        Taken { releases: self, taken }
    }
}

/// Releases that were taken out; dropped, they are put back.
pub struct Taken<'a> {
    releases: &'a Releases,
    taken: Vec<Release>,
}

impl Taken<'_> {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// As operations, those of one file and mode together. They last: a release that is given up at a
    /// deadline would keep the file's content until the mount ends.
    pub fn steps(&self) -> Vec<Step> {
        let mut counts: BTreeMap<(Ino, OpenMode), u32> = BTreeMap::new();
        for (_, ino, mode) in &self.taken {
            let count = counts.entry((*ino, *mode)).or_default();
            *count = count.saturating_add(1);
        }
        let release = |((ino, mode), count)| Step::lasting(OperationBody::Release { ino, mode, count });
        counts.into_iter().map(release).collect()
    }

    /// They are on their way.
    pub fn sent(mut self) {
        self.taken.clear();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.releases.waiting().append(&mut self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_crypto::Hash;

    const MODE: OpenMode = OpenMode { read: true, write: false, truncate: false };

    #[test]
    fn what_was_not_sent_is_put_back_and_what_is_over_is_forgotten() {
        let releases = Releases::default();
        let (old, new) = (Hash([1; 32]), Hash([2; 32]));
        releases.push(new, 7, OpenMode { truncate: true, ..MODE });
        releases.push(new, 7, MODE);
        drop(releases.take(new));
        let taken = releases.take(new);
        let wanted = OperationBody::Release { ino: 7, mode: MODE, count: 2 };
        assert_eq!(taken.steps(), [Step::lasting(wanted)]);
        taken.sent();
        assert!(releases.take(new).is_empty());
        releases.push(old, 7, MODE);
        assert!(releases.take(new).is_empty() && releases.take(old).is_empty());
    }

    #[test]
    fn an_envelope_takes_a_bounded_number() {
        let releases = Releases::default();
        (0..100).for_each(|ino| releases.push(Hash::ZERO, ino, MODE));
        let taken = releases.take(Hash::ZERO);
        assert_eq!(taken.steps().len(), RELEASES_PER_ENVELOPE_MAX);
        taken.sent();
        assert_eq!(releases.take(Hash::ZERO).steps().len(), 100 - RELEASES_PER_ENVELOPE_MAX);
    }
}
