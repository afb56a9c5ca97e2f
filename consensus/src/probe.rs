//! Probes: rare branches that the long runs of the simulator must all have taken.
//!
//! Invariant: a probe only counts; nothing depends on it, and without the feature `probes` it is nothing. Counts
//! belong to the thread that steps the replicas.

macro_rules! probes {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A branch worth counting.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Probe {
            $($(#[$doc])* $name,)*
        }

        impl Probe {
            /// Every probe, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

probes! {
    /// accept: a proposal too far ahead to be kept.
    ProposalTooHigh,
    /// accept: a proposal whose parent is another one than the chain's.
    ProposalOnOtherParent,
    /// accept: a proposal out of the clock window, which may be acceptable later.
    ProposalOutOfTime,
    /// accept: a proposal earlier than its parent allows.
    ProposalTooEarly,
    /// accept: a proposal that was held before, whatever its time.
    ProposalHeldBefore,
    /// accept: execution finds a static fault.
    StaticFault,
    /// bar: a replica is not listened to any more.
    Barred,
    /// bar: a vote of a watched replica is checked when it comes.
    WatchedVoteChecked,
    /// commit: a prepare certificate whose batches are missing.
    CertificateWithoutBatches,
    /// commit: one certificate releases COMMITs of several heights.
    SeveralCommitsReleased,
    /// commit: a certified height that is not executed yet, so that its COMMIT waits.
    CertifiedBeforeExecuted,
    /// commit: what was accepted does not rest on what is certified, and is dropped.
    ChainGivesWay,
    /// commit: a decided height whose batch is missing.
    DecidedWithoutBatch,
    /// commit: a decided height that is not executed yet.
    DecidedBeforeExecuted,
    /// commit: blocks that contradict what was committed.
    ContradictedDropped,
    /// commit: envelopes of dropped blocks go back.
    EnvelopesReturned,
    /// catch-up: committed heights are asked for.
    CommittedAsked,
    /// catch-up: they are asked of another peer, the first one being silent.
    CommittedAskedAgain,
    /// catch-up: an answer brings nothing that is not here already.
    CommittedFruitless,
    /// catch-up: nothing more is asked for until what is here is executed.
    CommittedNoRoom,
    /// catch-up: a NEW-VIEW that was sent a moment ago is not sent again.
    NewViewServedBefore,
    /// catch-up: an own NEW-VIEW is asked for before the record of it is synced.
    NewViewNotSynced,
    /// catch-up: a peer's announcement shows that it has not entered this view.
    AnnouncedBehind,
    /// catch-up: a height whose proposal there was no room for was committed by others meanwhile.
    DroppedCommitted,
    /// catch-up: proposals that there was no room for are asked for once there is.
    DroppedAsked,
    /// fetch: a batch beyond the horizon is not asked for.
    BatchBeyondHorizon,
    /// fetch: batches are served from memory.
    BatchesServed,
    /// fetch: a question for batches is answered from the log.
    BatchesFromLog,
    /// fetch: whose turn it is cannot be reached.
    HolderUnreachable,
    /// catch-up: a height above a missing one is decided.
    DecidedAboveGap,
    /// catch-up: what is served from the log is written first.
    ServedOnceSynced,
    /// fetch: the NEW-VIEW of a certificate's view is wanted.
    NewViewWanted,
    /// fetch: batches that nobody asked for.
    BatchesUnwanted,
    /// new view: a VIEW-CHANGE for a view that has begun is answered with its NEW-VIEW.
    ViewChangeAnswered,
    /// new view: its leader finds that the view or a later one has begun already.
    LeaderTooLate,
    /// new view: a claim whose batches have to be fetched first.
    ClaimWithoutBatches,
    /// new view: the base is a commit certificate.
    BaseCommitted,
    /// new view: the base is a prepare certificate, which is PREPAREd again.
    BasePrepared,
    /// new view: a view is entered that this replica had not asked for.
    EnteredUnasked,
    /// new view: the batches of the base have to be fetched.
    BaseWithoutBatches,
    /// new view: the base is committed here, which the others are told.
    BaseKnownCommitted,
    /// propose: an empty batch after views that committed nothing.
    CautiousEmpty,
    /// propose: one height at a time after views that committed nothing.
    CautiousOne,
    /// propose: an empty batch because a reader waits.
    EmptyForReader,
    /// pool: an envelope takes the place of its session's last one.
    PoolDisplaced,
    /// pool: no room, or a number that is taken.
    PoolRefused,
    /// pool: an envelope whose validity has ended.
    PoolExpired,
    /// pool: a proposal overtakes what was forwarded.
    Overtaken,
    /// monitor: a leader did badly in a window.
    Strike,
    /// monitor: a window without anything to judge by ends.
    IdleWindow,
    /// monitor: a view is left because of a verdict, and more is allowed.
    LeniencyRaised,
    /// monitor: a proposal has no room for more.
    Saturated,
    /// monitor: what was forwarded was not proposed.
    Censored,
    /// terms: a leader's term is over.
    TermOver,
    /// terms: a leader hands over though heights are in flight.
    TermCutShort,
    /// terms: another leader has outstayed its term.
    TermExceeded,
    /// terms: a leader whose connection is lost is suspected.
    LeaderGone,
    /// timers: this machine has stood still.
    StoodStill,
    /// timers: a wait is doubled.
    BackedOff,
    /// timers: a height needed more time than without back-off.
    BackOffKept,
    /// timers: a NEW-VIEW of an unreachable leader is waited for less.
    LessPatience,
    /// timers: records go to the disk though nothing depends on them.
    FlushedAlone,
    /// tally: a vote of a view gives way to that of a higher one.
    VoteGaveWay,
    /// tally: no room for a vote of a lower view.
    VoteWithoutRoom,
    /// tally: a badly signed vote in what looked like a quorum.
    ForgedInQuorum,
    /// tally: a badly signed vote that contradicts another one.
    ForgedContradiction,
    /// view change: a suspicion for good takes the place of one that may be taken back.
    SuspicionHardened,
    /// view change: a suspicion is taken back.
    SuspicionRevoked,
    /// view change: a suspicion of an earlier view than the last one.
    SuspicionStale,
    /// view change: a leader hands over because a peer has restarted or left.
    HandedOverForPeer,
    /// view change: f + 1 others want a later view.
    Joined,
    /// view change: the leader has resigned.
    LeftResigned,
    /// view change: f + 1 suspect the leader.
    LeftSuspected,
    /// view change: NEW-VIEW is overdue.
    NewViewOverdue,
    /// view change: the claim proves that a later view has begun.
    Superseded,
    /// vote: a late vote is answered with an announcement.
    LateVoteAnswered,
    /// vote: a certificate too far ahead to be kept.
    CertificateBeyondHorizon,
    /// vote: a prepare certificate of another view than that at hand.
    CertificateOfOtherView,
    /// recovery: a view that was entered is entered mutely.
    RecoveredMute,
    /// recovery: a VIEW-CHANGE was sent and no view entered since.
    RecoveredBetweenViews,
    /// recovery: a leader restarts and resigns.
    RecoveredLeader,
    /// recovery: a NEW-VIEW without its entry at the end of the log.
    RecoveredBeforeEntry,
    /// recovery: the claim is above the committed height.
    RecoveredLocked,
    /// recovery: batches that nothing refers to any more.
    RecoveredUnused,
    /// screen: the votes of who was caught are dropped unseen.
    ScreenedBarred,
    /// screen: a proposal of a later view counts as a hint.
    ScreenedHint,
    /// read: a reader waits for a height.
    ReaderWaits,
    /// witness: two PREPAREs of one replica at one place.
    TwoPrepares,
    /// witness: two COMMITs of one replica at one place.
    TwoCommits,
    /// witness: two proposals of one leader at one place.
    TwoProposals,
    /// witness: a COMMIT that a certificate rules out.
    CommitUnfounded,
    /// witness: a claim below a COMMIT.
    ClaimOmits,
    /// witness: a proposal earlier than its parent allows is kept as evidence.
    TimeWitnessed,
    /// witness: who voted for something unknown is asked what it is.
    Inquired,
    /// witness: whoever votes for another header is told what was proposed.
    ProposalTold,
}

#[cfg(feature = "probes")]
mod counted {
    use std::cell::RefCell;

    use super::Probe;

    thread_local! {
        static COUNTS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }

    pub(crate) fn reached(probe: Probe) {
        COUNTS.with_borrow_mut(|counts| {
            if counts.is_empty() {
                counts.resize(Probe::ALL.len(), 0);
            }
            if let Some(count) = counts.get_mut(probe as usize) {
                *count = count.saturating_add(1);
            }
        });
    }

    /// How often this thread reached each probe since the last call, in the order of [`Probe::ALL`]; empty if it
    /// reached none.
    pub fn take() -> Vec<u64> {
        COUNTS.with_borrow_mut(std::mem::take)
    }
}

#[cfg(feature = "probes")]
pub(crate) use counted::reached;
#[cfg(feature = "probes")]
pub use counted::take;

/// A branch is taken.
#[cfg(not(feature = "probes"))]
pub(crate) const fn reached(_: Probe) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order() {
        assert!(Probe::ALL.iter().enumerate().all(|(position, probe)| *probe as usize == position));
    }
}
