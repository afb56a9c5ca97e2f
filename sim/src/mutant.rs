//! Deliberate breakages, to see that the simulator's checks can fail: drivers that break a rule, and, with the
//! feature `mutants`, consensus that does.
//!
//! Invariant: a mutant breaks its rule in every replica of the run, so that more than f are faulty and a
//! fork is possible.

use quorate_protocol::View;
use quorate_protocol::record::Record;

/// A rule that is broken.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// What depends on records leaves before they are synced (hazard PR1).
    SyncSkipped,
    /// After a restart the last view counts as not entered and its votes as not given: a restarted replica
    /// PREPAREs again in its view.
    VotesForgotten,
    /// After a restart only view 0 is remembered: a replica falls back to a lower view than it has left.
    ViewsForgotten,
    /// After a restart prepare certificates are forgotten: claims shrink.
    ClaimsForgotten,
    /// A COMMIT leaves before its prepare certificate and batches are synced.
    CommitUnsynced,
    /// A VIEW-CHANGE leaves before its record is synced.
    ViewChangeUnsynced,
    /// Consensus is told that records are synced before they are: it votes in a view that a crash may undo.
    PersistedEarly,
    /// After a restart the last prepare certificate is lost, though a COMMIT may rest on it: claims shrink.
    ClaimLost,
    /// Two replicas execute differently at times: roots differ.
    ExecutionDiverges,
    /// Every replica executes an envelope again when it is ordered again (hazard CL1).
    DuplicatesExecuted,
    /// A replica answers the linearizable question with its last committed height.
    ReadsCommittedOnly,
    /// Consensus breaks one of its own.
    #[cfg(feature = "mutants")]
    Protocol(quorate_consensus::mutant::Mutant),
}

impl Mutant {
    /// Those of the drivers.
    pub const DRIVERS: [Self; 11] = [
        Self::SyncSkipped,
        Self::VotesForgotten,
        Self::ViewsForgotten,
        Self::ClaimsForgotten,
        Self::CommitUnsynced,
        Self::ViewChangeUnsynced,
        Self::PersistedEarly,
        Self::ClaimLost,
        Self::ExecutionDiverges,
        Self::DuplicatesExecuted,
        Self::ReadsCommittedOnly,
    ];

    /// Every mutant of this program.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let all = Self::DRIVERS.into_iter();
        #[cfg(feature = "mutants")]
        let all = all.chain(quorate_consensus::mutant::Mutant::ALL.into_iter().map(Self::Protocol));
        all.collect()
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        let words = match self {
            #[cfg(feature = "mutants")]
            Self::Protocol(mutant) => format!("{mutant:?}"),
            driver => format!("{driver:?}"),
        };
        let mut name = String::new();
        for letter in words.chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }

    /// The mutant of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|mutant| mutant.name() == name)
    }

    /// Breaks consensus, or mends it, for all runs of this thread from now on.
    pub(crate) fn choose(mutant: Option<Self>) {
        #[cfg(feature = "mutants")]
        quorate_consensus::mutant::choose(match mutant {
            Some(Self::Protocol(mutant)) => Some(mutant),
            _ => None,
        });
        #[cfg(not(feature = "mutants"))]
        let _ = mutant;
    }

    /// The records that a recovery reads out of those that the disk holds. What is left is a log that
    /// consensus accepts: the fault is in what it lacks.
    #[must_use]
    pub fn recovered(self, records: Vec<Record>) -> Vec<Record> {
        let entered = records.iter().filter_map(|record| match record {
            Record::Entered { view, .. } => Some(*view),
            _ => None,
        });
        let last = entered.max().unwrap_or(0);
        let prepared = |record: &Record| matches!(record, Record::Prepared(_));
        let last_prepared = records.iter().rposition(prepared);
        let kept = |(position, record): &(usize, Record)| match self {
            Self::VotesForgotten => last > 0 && !is_of_view(record, |view| view == last),
            Self::ViewsForgotten => {
                !is_of_view(record, |view| view > 0) && !matches!(record, Record::ViewChange(_))
            }
            Self::ClaimsForgotten => !prepared(record),
            Self::ClaimLost => Some(*position) != last_prepared,
            Self::SyncSkipped
            | Self::CommitUnsynced
            | Self::ViewChangeUnsynced
            | Self::PersistedEarly
            | Self::ExecutionDiverges
            | Self::DuplicatesExecuted
            | Self::ReadsCommittedOnly => true,
            #[cfg(feature = "mutants")]
            Self::Protocol(_) => true,
        };
        records.into_iter().enumerate().filter(kept).map(|(_, record)| record).collect()
    }
}

/// Whether a record says that such a view was entered, or is a vote in it.
fn is_of_view(record: &Record, wanted: impl Fn(View) -> bool) -> bool {
    match record {
        Record::Entered { view, .. } => wanted(*view),
        Record::NewView(new_view) => wanted(new_view.view),
        Record::Voted(vote) => wanted(vote.view),
        _ => false,
    }
}
