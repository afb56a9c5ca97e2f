//! The table of votes seen, and their counting.
//!
//! Invariant: a replica has at most one vote per (view, height, kind), the first one seen (hazard AU9);
//! votes are counted by (view, height, kind, header hash) only, never across views (Fork C). Each replica's
//! share of the table is bounded, so none can crowd out another's. A signature is checked when its vote would
//! be part of a quorum, or contradicts another, and never twice; what leaves the table was checked. One that
//! does not hold closes its place, so that a liar costs one check per place at most (hazard A13).

use std::collections::BTreeMap;

use quorate_crypto::{Hash, Signature};
use quorate_protocol::{Height, ReplicaIndex, View, Vote, VoteKind};

use crate::mutant::{Mutant, TWICE, broken};
use crate::probe::{Probe, reached};

/// Views of which votes of one replica are kept; the lowest gives way.
pub(crate) const VIEWS_PER_REPLICA_MAX: usize = 4;

/// What came of adding a vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It may count.
    New,
    /// It was there already, or there is no room for its view, or its contradiction was reported before.
    Ignored,
    /// It contradicts this one, which stays; said once per view, height and kind. Both signatures hold.
    Conflict(Vote),
    /// Its signature, or that of the vote before it, does not hold.
    Forged(Vote),
}

/// What is known of a vote's signature.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing. Its connection vouches for its sender, so nobody else can have put it here.
    Unchecked,
    /// It holds.
    Valid,
    /// It does not hold.
    Bad,
}

/// The votes of one replica at one (view, height, kind).
#[derive(Clone, Debug)]
struct Ballot {
    vote: Vote,
    contradicted: bool,
    standing: Standing,
}

impl Ballot {
    /// Whether this vote can change nothing here.
    fn is_closed_to(&self, vote: &Vote) -> bool {
        self.vote.header == vote.header || self.contradicted || self.standing == Standing::Bad
    }

    /// Whether its signature holds; checks it if that is not known.
    fn holds(&mut self, check: &dyn Fn(&Vote) -> bool) -> bool {
        if self.standing == Standing::Unchecked {
            self.standing = if check(&self.vote) { Standing::Valid } else { Standing::Bad };
        }
        self.standing == Standing::Valid
    }
}

/// A quorum of one table, and who pretended to be part of it.
#[derive(Debug, Default)]
pub(crate) struct Tallied {
    /// Header hash and a quorum of signatures that hold, ascending by replica.
    pub quorum: Option<(Hash, Vec<(ReplicaIndex, Signature)>)>,
    /// Votes whose signatures were found not to hold.
    pub forged: Vec<Vote>,
}

type Ballots = BTreeMap<(Height, VoteKind), Ballot>;

/// The table. Whoever adds bounds the heights.
#[derive(Clone, Debug, Default)]
pub(crate) struct VoteTable {
    by_replica: BTreeMap<ReplicaIndex, BTreeMap<View, Ballots>>,
}

impl VoteTable {
    /// Adds a vote of which the standing is known or not; `check` says whether a signature holds.
    pub(crate) fn add(&mut self, vote: Vote, standing: Standing, check: &dyn Fn(&Vote) -> bool) -> Added {
        let views = self.by_replica.entry(vote.replica).or_default();
        if !views.contains_key(&vote.view) && views.len() >= VIEWS_PER_REPLICA_MAX {
            match views.first_entry() {
                Some(lowest) if *lowest.key() < vote.view => {
                    reached(Probe::VoteGaveWay);
                    drop(lowest.remove());
                }
                _ => return Added::Ignored,
            }
        }
        let ballots = views.entry(vote.view).or_default();
        match ballots.get_mut(&(vote.height, vote.kind)) {
            None => {
                ballots.insert((vote.height, vote.kind), Ballot { vote, contradicted: false, standing });
                Added::New
            }
            Some(ballot) if ballot.is_closed_to(&vote) => {
                if broken(Mutant::VoterCountedTwice) && vote.replica & TWICE == 0 {
                    let twice = Vote { replica: vote.replica | TWICE, ..vote };
                    return self.add(twice, standing, check);
                }
                Added::Ignored
            }
            Some(ballot) => {
                // Whatever comes of it, this place costs no further check.
                ballot.contradicted = true;
                if !ballot.holds(check) {
                    reached(Probe::ForgedContradiction);
                    return Added::Forged(ballot.vote.clone());
                }
                if standing == Standing::Unchecked && !check(&vote) {
                    return Added::Forged(vote);
                }
                Added::Conflict(ballot.vote.clone())
            }
        }
    }

    /// Whether adding this vote could change anything.
    pub(crate) fn is_wanted(&self, vote: &Vote) -> bool {
        if broken(Mutant::VoterCountedTwice) {
            return true;
        }
        let Some(views) = self.by_replica.get(&vote.replica) else { return true };
        let Some(ballots) = views.get(&vote.view) else {
            let room = views.len() < VIEWS_PER_REPLICA_MAX
                || views.first_key_value().is_some_and(|(lowest, _)| *lowest < vote.view);
            if !room {
                reached(Probe::VoteWithoutRoom);
            }
            return room;
        };
        ballots.get(&(vote.height, vote.kind)).is_none_or(|ballot| !ballot.is_closed_to(vote))
    }

    /// The header hash that `quorum` replicas voted for, with as many signatures, each of which holds; those
    /// known to hold first, then by index. With Q being a majority there is at most one. No signature is
    /// checked unless enough votes are there to make a quorum.
    pub(crate) fn quorum(
        &mut self,
        (kind, view, height): (VoteKind, View, Height),
        quorum: usize,
        check: &dyn Fn(&Vote) -> bool,
    ) -> Tallied {
        let mut by_header: BTreeMap<Hash, Vec<(bool, ReplicaIndex, &mut Ballot)>> = BTreeMap::new();
        for (replica, views) in &mut self.by_replica {
            let ballot = if broken(Mutant::ViewsCombined) {
                views.values_mut().find_map(|ballots| ballots.get_mut(&(height, kind)))
            } else {
                views.get_mut(&view).and_then(|ballots| ballots.get_mut(&(height, kind)))
            };
            if let Some(ballot) = ballot.filter(|ballot| ballot.standing != Standing::Bad) {
                let unknown = ballot.standing == Standing::Unchecked;
                let header = match by_header.first_key_value() {
                    Some((first, _)) if broken(Mutant::HeadersCombined) => *first,
                    _ => ballot.vote.header,
                };
                by_header.entry(header).or_default().push((unknown, *replica, ballot));
            }
        }
        let mut forged = Vec::new();
        for (header, mut ballots) in by_header {
            ballots.sort_by_key(|(unknown, replica, _)| (*unknown, *replica));
            let mut left = ballots.len();
            let mut votes = Vec::new();
            for (_, replica, ballot) in ballots {
                if votes.len() >= quorum || left < quorum {
                    break;
                }
                if ballot.holds(check) {
                    votes.push((replica, ballot.vote.signature));
                } else {
                    reached(Probe::ForgedInQuorum);
                    left = left.saturating_sub(1);
                    forged.push(ballot.vote.clone());
                }
            }
            if votes.len() >= quorum {
                votes.sort_by_key(|(replica, _)| *replica);
                return Tallied { quorum: Some((header, votes)), forged };
            }
        }
        Tallied { quorum: None, forged }
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

    /// Votes at a height for other headers than this one, of any kind and view, by replica.
    pub(crate) fn contrary(&self, height: Height, header: &Hash) -> Vec<Vote> {
        let kinds = [VoteKind::Prepare, VoteKind::Commit];
        let ballots = self.by_replica.values().flat_map(BTreeMap::values);
        let votes = ballots.flat_map(|ballots| kinds.map(|kind| ballots.get(&(height, kind)))).flatten();
        votes.map(|ballot| &ballot.vote).filter(|vote| vote.header != *header).cloned().collect()
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
