//! The table of votes seen, and their counting.
//!
//! Invariant: a replica has at most one vote per (view, height, kind), the first one seen (hazard AU9);
//! votes are counted by (view, height, kind, header hash) only, never across views (Fork C). Each replica's
//! share of the table is bounded, so none can crowd out another's.

use std::collections::BTreeMap;

use quorate_crypto::{Hash, Signature};
use quorate_protocol::{Height, ReplicaIndex, View, Vote, VoteKind};

/// Views of which votes of one replica are kept; the lowest gives way.
pub(crate) const VIEWS_PER_REPLICA_MAX: usize = 4;

/// What came of adding a vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It counts.
    New,
    /// It was there already, or there is no room for its view, or its contradiction was reported before.
    Ignored,
    /// It contradicts this one, which stays; said once per view, height and kind.
    Conflict(Vote),
}

/// The votes of one replica at one (view, height, kind).
#[derive(Clone, Debug)]
struct Ballot {
    vote: Vote,
    contradicted: bool,
}

type Ballots = BTreeMap<(Height, VoteKind), Ballot>;

/// The table. Whoever adds bounds the heights.
#[derive(Clone, Debug, Default)]
pub(crate) struct VoteTable {
    by_replica: BTreeMap<ReplicaIndex, BTreeMap<View, Ballots>>,
}

impl VoteTable {
    /// Adds a vote whose signature holds.
    pub(crate) fn add(&mut self, vote: Vote) -> Added {
        let views = self.by_replica.entry(vote.replica).or_default();
        if !views.contains_key(&vote.view) && views.len() >= VIEWS_PER_REPLICA_MAX {
            match views.first_entry() {
                Some(lowest) if *lowest.key() < vote.view => drop(lowest.remove()),
                _ => return Added::Ignored,
            }
        }
        let ballots = views.entry(vote.view).or_default();
        match ballots.get_mut(&(vote.height, vote.kind)) {
            None => {
                ballots.insert((vote.height, vote.kind), Ballot { vote, contradicted: false });
                Added::New
            }
            Some(ballot) if ballot.vote.header == vote.header || ballot.contradicted => Added::Ignored,
            Some(ballot) => {
                ballot.contradicted = true;
                Added::Conflict(ballot.vote.clone())
            }
        }
    }

    /// Whether adding this vote could change anything.
    pub(crate) fn is_wanted(&self, vote: &Vote) -> bool {
        let Some(views) = self.by_replica.get(&vote.replica) else { return true };
        let Some(ballots) = views.get(&vote.view) else {
            return views.len() < VIEWS_PER_REPLICA_MAX
                || views.first_key_value().is_some_and(|(lowest, _)| *lowest < vote.view);
        };
        ballots
            .get(&(vote.height, vote.kind))
            .is_none_or(|ballot| ballot.vote.header != vote.header && !ballot.contradicted)
    }

    /// The header hash that at least `quorum` replicas voted for, with their signatures. With Q being a
    /// majority there is at most one.
    pub(crate) fn quorum(
        &self,
        kind: VoteKind,
        view: View,
        height: Height,
        quorum: usize,
    ) -> Option<(Hash, Vec<(ReplicaIndex, Signature)>)> {
        let mut by_header: BTreeMap<Hash, Vec<(ReplicaIndex, Signature)>> = BTreeMap::new();
        for (replica, views) in &self.by_replica {
            let ballot = views.get(&view).and_then(|ballots| ballots.get(&(height, kind)));
            if let Some(Ballot { vote, .. }) = ballot {
                by_header.entry(vote.header).or_default().push((*replica, vote.signature));
            }
        }
        by_header.into_iter().find(|(_, votes)| votes.len() >= quorum)
    }

    /// Heights of a view at which anybody cast a vote of this kind, ascending.
    pub(crate) fn heights(&self, view: View, kind: VoteKind) -> Vec<Height> {
        let mut heights: Vec<Height> = self
            .by_replica
            .values()
            .filter_map(|views| views.get(&view))
            .flat_map(|ballots| ballots.keys().filter(|key| key.1 == kind).map(|key| key.0))
            .collect();
        heights.sort_unstable();
        heights.dedup();
        heights
    }

    /// All votes of a replica, by view, height and kind.
    pub(crate) fn of(&self, replica: ReplicaIndex) -> impl Iterator<Item = &Vote> {
        self.by_replica
            .get(&replica)
            .into_iter()
            .flat_map(|views| views.values().flat_map(|ballots| ballots.values().map(|ballot| &ballot.vote)))
    }

    /// Forgets the PREPAREs of a replica.
    pub(crate) fn forget_prepares(&mut self, replica: ReplicaIndex) {
        if let Some(views) = self.by_replica.get_mut(&replica) {
            for ballots in views.values_mut() {
                ballots.retain(|(_, kind), _| *kind == VoteKind::Commit);
            }
            views.retain(|_, ballots| !ballots.is_empty());
        }
    }

    /// Forgets votes at or below a height.
    pub(crate) fn prune(&mut self, committed: Height) {
        for views in self.by_replica.values_mut() {
            for ballots in views.values_mut() {
                ballots.retain(|(height, _), _| *height > committed);
            }
            views.retain(|_, ballots| !ballots.is_empty());
        }
    }
}
