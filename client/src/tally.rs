//! Counting COMMITs until they are a certificate (rule R3).
//!
//! Invariants: votes are counted for one (epoch, view, height, header hash) only and once for each replica;
//! signatures are checked when Q votes are there, each at most once; what comes out is a certificate whose
//! every signature was checked. One replica can fill only its own share of the memory, so a liar cannot
//! crowd out the votes of others.

use std::collections::{BTreeMap, VecDeque};

use quorate_crypto::{Certificate, CertificateKind, Hash, MemberSet, Signature, Verifier};
use quorate_protocol::{Epoch, Height, ReplicaIndex, View, Vote, VoteKind};

/// Votes of one replica that are kept at once; beyond this its oldest is dropped.
pub const VOTES_PER_REPLICA_MAX: usize = 1024;

/// What votes must agree on to be added up.
pub type Key = (Epoch, View, Height, Hash);

/// Why a vote is not counted: the fault of the replica that sent it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoteFault {
    /// A PREPARE, which proves nothing to a client.
    #[error("a vote that is no COMMIT")]
    NotCommit,
    /// Of another epoch than the member set's.
    #[error("a COMMIT of another epoch")]
    Epoch,
    /// Of another replica than the one that sent it.
    #[error("a COMMIT in the name of another replica")]
    OtherReplica,
    /// The signature does not hold.
    #[error("a COMMIT whose signature does not hold")]
    Signature,
}

/// What came of a vote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The certificate, when this vote completed it.
    pub certificate: Option<Certificate>,
    /// Replicas whose votes were dropped, with the reason.
    pub faults: Vec<(ReplicaIndex, VoteFault)>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    signature: Signature,
    verified: bool,
}

/// The COMMITs of heights that are not certified yet.
#[derive(Debug)]
pub struct Tally {
    cluster: Hash,
    open: BTreeMap<Key, BTreeMap<ReplicaIndex, Held>>,
    /// For each replica its votes in order of arrival; may name votes that are gone already.
    arrivals: BTreeMap<ReplicaIndex, VecDeque<Key>>,
}

impl Tally {
    /// No votes.
    #[must_use]
    pub const fn new(cluster: Hash) -> Self {
        Self { cluster, open: BTreeMap::new(), arrivals: BTreeMap::new() }
    }

    /// Counts a vote that replica `from` sent.
    pub fn add(
        &mut self,
        from: ReplicaIndex,
        vote: &Vote,
        members: &MemberSet,
        verifier: &dyn Verifier,
    ) -> Counted {
        if let Err(fault) = check_shape(from, vote, members) {
            return Counted { certificate: None, faults: vec![(from, fault)] };
        }
        let key = (vote.epoch, vote.view, vote.height, vote.header);
        let votes = self.open.entry(key).or_default();
        if votes.contains_key(&from) {
            return Counted::default();
        }
        votes.insert(from, Held { signature: vote.signature, verified: false });
        self.bound(from, key);
        self.complete(key, members, verifier)
    }

    /// Votes that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.values().map(BTreeMap::len).sum()
    }

    /// Whether no votes are kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Notes the arrival and drops the replica's oldest vote beyond the bound.
    fn bound(&mut self, from: ReplicaIndex, key: Key) {
        let arrivals = self.arrivals.entry(from).or_default();
        arrivals.push_back(key);
        if arrivals.len() <= VOTES_PER_REPLICA_MAX {
            return;
        }
        if let Some(oldest) = arrivals.pop_front() {
            remove(&mut self.open, &oldest, from);
        }
    }

    /// Checks signatures once Q votes are there, and makes the certificate if Q of them hold.
    fn complete(&mut self, key: Key, members: &MemberSet, verifier: &dyn Verifier) -> Counted {
        let mut counted = Counted::default();
        let Some(votes) = self.open.get_mut(&key).filter(|votes| votes.len() >= members.quorum()) else {
            return counted;
        };
        let (epoch, view, height, header) = key;
        for (replica, held) in votes.iter_mut().filter(|(_, held)| !held.verified) {
            let vote = Vote {
                kind: VoteKind::Commit,
                epoch,
                view,
                height,
                header,
                replica: *replica,
                signature: held.signature,
            };
            let statement = vote.statement(self.cluster);
            let member = members.get(*replica);
            held.verified = member.is_some_and(|member| {
                verifier.verify(&member.consensus, &statement, &held.signature).is_ok()
            });
            if !held.verified {
                counted.faults.push((*replica, VoteFault::Signature));
            }
        }
        votes.retain(|_, held| held.verified);
        let signatures = votes.iter().map(|(replica, held)| (*replica, held.signature));
        counted.certificate =
            Certificate::assemble(CertificateKind::Commit, members, view, height, header, signatures).ok();
        if counted.certificate.is_some() || votes.is_empty() {
            self.open.remove(&key);
            for arrivals in self.arrivals.values_mut() {
                arrivals.retain(|arrival| *arrival != key);
            }
        }
        counted
    }
}

/// Everything but the signature.
fn check_shape(from: ReplicaIndex, vote: &Vote, members: &MemberSet) -> Result<(), VoteFault> {
    if vote.kind != VoteKind::Commit {
        return Err(VoteFault::NotCommit);
    }
    if vote.epoch != members.epoch() {
        return Err(VoteFault::Epoch);
    }
    if vote.replica != from || members.get(from).is_none() {
        return Err(VoteFault::OtherReplica);
    }
    Ok(())
}

fn remove(open: &mut BTreeMap<Key, BTreeMap<ReplicaIndex, Held>>, key: &Key, replica: ReplicaIndex) {
    if let Some(votes) = open.get_mut(key) {
        votes.remove(&replica);
        if votes.is_empty() {
            open.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
