//! Marks: rare paths that a long run must all have taken.
//!
//! Invariant: marks only count; nothing depends on them.

use std::fmt;

/// A path worth counting.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// A height was committed by a replica.
    Committed,
    /// An envelope was acknowledged to its client.
    Acknowledged,
    /// A VIEW-CHANGE left a replica for a view that it had not asked for before.
    ViewChange,
    /// A NEW-VIEW left its leader for the first time.
    NewView,
    /// A NEW-VIEW whose base is a prepare certificate.
    PreparedBase,
    /// A proposal was proposed again in a later view.
    ProposedAgain,
    /// A height was committed by a certificate of a view above the one that proposed it first.
    CommittedInLaterView,
    /// Committed heights were sent to a replica that is behind.
    CaughtUp,
    /// Batches below a certificate were sent.
    BatchesFetched,
    /// A NEW-VIEW was relayed by a replica that does not lead its view.
    NewViewRelayed,
    /// A replica crashed.
    Crash,
    /// Unsynced records were lost at a crash.
    RecordsLost,
    /// A crash struck in the middle of a turn's effects.
    CrashInTurn,
    /// All replicas were down at once.
    PowerLoss,
    /// A replica restarted.
    Restart,
    /// A SUSPECT because of a time-out.
    SuspectTimeout,
    /// A SUSPECT because of what was measured.
    SuspectMonitor,
    /// A SUSPECT because of a lost connection.
    SuspectDisconnected,
    /// A SUSPECT because of a restart.
    SuspectRestarted,
    /// A SUSPECT was taken back.
    SuspectRevoked,
    /// A leader resigned.
    Resign,
    /// An empty batch was proposed.
    EmptyBatch,
    /// An operation was skipped.
    Skipped,
    /// An envelope was forwarded by a replica.
    Forwarded,
    /// Envelopes of a dropped height were given back.
    Returned,
    /// A speculative state was dropped.
    Forgotten,
    /// A client sent an envelope again.
    Retry,
    /// A request was answered from history.
    AnsweredFromHistory,
    /// A reader waited for a height.
    Awaited,
    /// A linearizable question was answered by a quorum.
    ReadAnswered,
    /// A replica contradicted itself and another one noticed.
    Evidence,
    /// A message of a Byzantine replica was turned away at a door.
    Rejected,
    /// A vote was dropped because its signature does not hold.
    Forged,
    /// A replica refused to start, because its log is damaged.
    Refused,
    /// A replica started without what it had synced, and nothing told it.
    Forgot,
    /// A replica stopped because its disk was full.
    DiskFull,
    /// A replica stopped because a sync failed.
    SyncFailed,
    /// A client started anew under another session.
    ClientRestarted,
    /// The replicas forgot a client's connection.
    Reconnected,
    /// A hostile client's envelope was turned away at a door.
    HostileRejected,
    /// A hostile client's envelope was executed.
    HostileExecuted,
    /// A read was answered with a value.
    ValueRead,
    /// A run with Byzantine replicas.
    Byzantine,
    /// A run on real execution.
    RealExecution,
    /// A run with Ed25519.
    RealSignatures,
}

/// How many marks there are.
pub const MARKS: usize = Mark::RealSignatures as usize + 1;

/// Every mark, in order.
pub const ALL: [Mark; MARKS] = [
    Mark::Committed,
    Mark::Acknowledged,
    Mark::ViewChange,
    Mark::NewView,
    Mark::PreparedBase,
    Mark::ProposedAgain,
    Mark::CommittedInLaterView,
    Mark::CaughtUp,
    Mark::BatchesFetched,
    Mark::NewViewRelayed,
    Mark::Crash,
    Mark::RecordsLost,
    Mark::CrashInTurn,
    Mark::PowerLoss,
    Mark::Restart,
    Mark::SuspectTimeout,
    Mark::SuspectMonitor,
    Mark::SuspectDisconnected,
    Mark::SuspectRestarted,
    Mark::SuspectRevoked,
    Mark::Resign,
    Mark::EmptyBatch,
    Mark::Skipped,
    Mark::Forwarded,
    Mark::Returned,
    Mark::Forgotten,
    Mark::Retry,
    Mark::AnsweredFromHistory,
    Mark::Awaited,
    Mark::ReadAnswered,
    Mark::Evidence,
    Mark::Rejected,
    Mark::Forged,
    Mark::Refused,
    Mark::Forgot,
    Mark::DiskFull,
    Mark::SyncFailed,
    Mark::ClientRestarted,
    Mark::Reconnected,
    Mark::HostileRejected,
    Mark::HostileExecuted,
    Mark::ValueRead,
    Mark::Byzantine,
    Mark::RealExecution,
    Mark::RealSignatures,
];

/// How often each path was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks([u64; MARKS]);

impl Default for Marks {
    fn default() -> Self {
        Self([0; MARKS])
    }
}

impl Marks {
    /// Counts one.
    pub fn hit(&mut self, mark: Mark) {
        self.add(mark, 1);
    }

    /// Counts several.
    pub fn add(&mut self, mark: Mark, times: u64) {
        self.0[mark as usize] += times;
    }

    /// How often a path was taken.
    #[must_use]
    pub const fn count(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Adds the counts of another run.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// The paths that were never taken.
    #[must_use]
    pub fn missed(&self) -> Vec<Mark> {
        ALL.into_iter().filter(|mark| self.count(*mark) == 0).collect()
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, mark) in ALL.into_iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(formatter, "{separator}{mark:?} {}", self.count(mark))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_complete_and_in_order() {
        assert!(ALL.iter().enumerate().all(|(position, mark)| *mark as usize == position));
    }
}
