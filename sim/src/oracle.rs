//! The oracle sees everything that leaves a replica, and says when a rule is broken.
//!
//! Invariant: it forgets nothing over crashes and restarts: one header per height and one vote per
//! (replica, kind, epoch, view, height) for the whole run, whoever was told of it.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crypto::{CertificateKind, Hash};
use quorate_protocol::record::Record;
use quorate_protocol::view_change::{NewView, Rank, ViewChangeBody};
use quorate_protocol::{Epoch, Header, Height, PrePrepare, Proposal, ReplicaIndex, View, Vote, VoteKind};

use crate::durable::Durable;
use crate::ledger::Ledger;
use crate::node::Finished;
use crate::trace::short;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {detail}")]
pub struct Violation {
    /// The rule in a few words; equal for equal kinds of failure.
    pub rule: &'static str,
    /// Who, where, what.
    pub detail: String,
}

/// Nothing broken, or what was.
pub type Verdict = Result<(), Violation>;

/// A verdict of guilt.
pub(crate) fn broken(rule: &'static str, detail: String) -> Verdict {
    Err(Violation { rule, detail })
}

/// What one replica said in the course of the run.
#[derive(Debug, Default)]
struct Statements {
    votes: BTreeMap<(VoteKind, Epoch, View, Height), Hash>,
    proposals: BTreeMap<(Epoch, View, Height), Hash>,
    claims: BTreeMap<(Epoch, View), Rank>,
    /// Height and header of the base of each view that it entered.
    bases: BTreeMap<(Epoch, View), (Height, Hash)>,
    committed: Option<Height>,
    /// What its disk cannot lose any more.
    durable: Durable,
    /// Views in which it may not PREPARE or propose anything new, because it restarted in or after them.
    barred_below: View,
}

/// All that is known of the run.
#[derive(Debug)]
pub struct Oracle {
    quorum: u32,
    byzantine: BTreeSet<ReplicaIndex>,
    replicas: BTreeMap<ReplicaIndex, Statements>,
    tallies: BTreeMap<(VoteKind, Epoch, View, Height, Hash), u32>,
    prepared: BTreeMap<(Epoch, View, Height), Hash>,
    decided: BTreeMap<Height, Hash>,
    executed: BTreeMap<Hash, Hash>,
    ledger: Ledger,
}

impl Oracle {
    /// Nothing was said yet.
    #[must_use]
    pub fn new(quorum: usize, genesis: &Header, byzantine: BTreeSet<ReplicaIndex>) -> Self {
        Self {
            quorum: quorum as u32,
            byzantine,
            replicas: BTreeMap::new(),
            tallies: BTreeMap::new(),
            prepared: BTreeMap::new(),
            decided: BTreeMap::from([(0, genesis.hash())]),
            executed: BTreeMap::new(),
            ledger: Ledger::default(),
        }
    }

    /// This replica counts among the f from now on: its disk has lost what was synced.
    pub fn excuse(&mut self, replica: ReplicaIndex) {
        self.byzantine.insert(replica);
    }

    /// The committed operations.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The committed operations, to note what clients were told.
    pub const fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// The highest height that is known to be decided.
    #[must_use]
    pub fn decided_height(&self) -> Height {
        self.decided.last_key_value().map_or(0, |(height, _)| *height)
    }

    /// The header at a decided height; zeros if it is not decided.
    #[must_use]
    pub fn decided_header(&self, height: Height) -> Hash {
        self.decided.get(&height).copied().unwrap_or(Hash::ZERO)
    }

    /// A height is decided by whatever evidence: it never has another header.
    ///
    /// # Errors
    /// When it was decided differently before: a fork.
    pub fn decide(&mut self, height: Height, header: Hash, by: &str) -> Verdict {
        let known = *self.decided.entry(height).or_insert(header);
        if known == header {
            return Ok(());
        }
        let detail = format!("height {height} is {} and, by {by}, {}", short(&known), short(&header));
        broken("one header per height", detail)
    }

    /// A vote left its replica.
    ///
    /// # Errors
    /// When it contradicts an earlier vote, a VIEW-CHANGE, or makes a certificate that contradicts another.
    pub fn vote_sent(&mut self, vote: &Vote) -> Verdict {
        if !self.byzantine.contains(&vote.replica) {
            self.check_vote(vote)?;
        }
        self.count(vote)
    }

    fn check_vote(&mut self, vote: &Vote) -> Verdict {
        let said = self.replicas.entry(vote.replica).or_default();
        let who =
            || format!("replica {} {:?} view {} height {}", vote.replica, vote.kind, vote.view, vote.height);
        let place = (vote.kind, vote.epoch, vote.view, vote.height);
        if vote.kind == VoteKind::Prepare && vote.view < said.barred_below {
            return broken("no PREPARE in a view restarted in (R2)", who());
        }
        if let Some(known) = said.votes.get(&place) {
            return if *known == vote.header {
                Ok(())
            } else {
                broken(
                    "one vote per place",
                    format!("{}: {} and {}", who(), short(known), short(&vote.header)),
                )
            };
        }
        said.votes.insert(place, vote.header);
        if let Some(missing) = said.durable.vote_lacks(vote) {
            return broken("durable before a vote (R2)", format!("{} without {missing}", who()));
        }
        let left = said.claims.range((vote.epoch, vote.view + 1)..).next();
        match vote.kind {
            VoteKind::Prepare => {
                if vote.view > 0 {
                    base_first(said.bases.get(&(vote.epoch, vote.view)), vote, &who)?;
                }
                if let Some(((_, view), _)) = left {
                    return broken("no PREPARE below a VIEW-CHANGE", format!("{} after {view}", who()));
                }
                let above = (vote.kind, vote.epoch, vote.view, vote.height + 1);
                let end = (vote.kind, vote.epoch, vote.view, Height::MAX);
                if let Some(((_, _, _, higher), _)) = said.votes.range(above..=end).next() {
                    return broken("PREPAREs of a view ascend", format!("{} after {higher}", who()));
                }
            }
            VoteKind::Commit => {
                // A COMMIT that was durable but not sent before the VIEW-CHANGE is covered by its claim.
                let rank = Rank { view: vote.view, height: vote.height };
                if let Some(((_, view), claim)) = left.filter(|(_, claim)| **claim < rank) {
                    return broken(
                        "claims cover COMMITs",
                        format!("{} after claim {claim:?} in {view}", who()),
                    );
                }
            }
        }
        Ok(())
    }

    /// A NEW-VIEW left a replica that has entered its view.
    ///
    /// # Errors
    /// When its claims are fewer than a quorum, or its base is below one of them.
    pub fn view_opened(&mut self, replica: ReplicaIndex, message: &NewView) -> Verdict {
        let rank = message
            .base
            .as_ref()
            .map_or(Rank::default(), |base| Rank { view: base.view, height: base.height });
        let claimants: BTreeSet<ReplicaIndex> =
            message.claims.iter().map(|claim| claim.body.replica).collect();
        let covered = message.claims.iter().all(|claim| claim.body.rank <= rank);
        if !covered || claimants.len() < self.quorum as usize {
            let who = format!("replica {replica} view {} base {rank:?}", message.view);
            return broken("a view opens with a quorum of claims, none above its base (R1)", who);
        }
        let base = message.base.as_ref().map_or((0, Hash::ZERO), |base| (base.height, base.header_hash));
        let said = self.replicas.entry(replica).or_default();
        said.bases.entry((message.epoch, message.view)).or_insert(base);
        Ok(())
    }

    /// Counts a vote; a quorum of COMMITs decides, whether or not anybody puts the certificate together.
    fn count(&mut self, vote: &Vote) -> Verdict {
        let key = (vote.kind, vote.epoch, vote.view, vote.height, vote.header);
        let tally = self.tallies.entry(key).or_insert(0);
        *tally |= 1 << vote.replica;
        if tally.count_ones() < self.quorum {
            return Ok(());
        }
        if vote.kind == VoteKind::Commit {
            return self.decide(vote.height, vote.header, "a quorum of COMMITs on the wire");
        }
        let place = (vote.epoch, vote.view, vote.height);
        let known = *self.prepared.entry(place).or_insert(vote.header);
        if known == vote.header {
            return Ok(());
        }
        broken("one prepare certificate per view and height", format!("{place:?}"))
    }

    /// A proposal left its leader.
    ///
    /// # Errors
    /// When its leader proposed something else there before, or may not propose in this view.
    pub fn proposal_sent(&mut self, sender: ReplicaIndex, message: &PrePrepare, digest: Hash) -> Verdict {
        if self.byzantine.contains(&sender) {
            return Ok(());
        }
        let said = self.replicas.entry(sender).or_default();
        let place = (message.epoch, message.view, message.height);
        match said.proposals.get(&place) {
            Some(known) if *known == digest => Ok(()),
            Some(_) => broken("one proposal per place", format!("replica {sender} at {place:?}")),
            None if message.view < said.barred_below => {
                broken("no PRE-PREPARE in a view restarted in (R2)", format!("replica {sender} at {place:?}"))
            }
            None => {
                said.proposals.insert(place, digest);
                Ok(())
            }
        }
    }

    /// A VIEW-CHANGE left its replica.
    ///
    /// # Errors
    /// When its claim is below a COMMIT that the replica sent, or below an earlier claim.
    pub fn view_change_sent(&mut self, body: &ViewChangeBody) -> Verdict {
        if self.byzantine.contains(&body.replica) {
            return Ok(());
        }
        if body.view == View::MAX {
            return broken("the last view is nobody's", format!("replica {}", body.replica));
        }
        let said = self.replicas.entry(body.replica).or_default();
        let who = || format!("replica {} to view {} claims {:?}", body.replica, body.view, body.rank);
        let place = (body.epoch, body.view);
        if !said.durable.has_asked(body) {
            return broken("durable before a VIEW-CHANGE (R2)", who());
        }
        if let Some((_, rank)) = said.claims.range(..=place).next_back()
            && *rank > body.rank
        {
            return broken("claims never decrease", format!("{} after {rank:?}", who()));
        }
        if let Some((_, rank)) = said.claims.range((body.epoch, body.view + 1)..).next()
            && *rank < body.rank
        {
            return broken("claims never decrease", format!("{} before {rank:?}", who()));
        }
        let claimed = (VoteKind::Commit, body.epoch, body.rank.view, body.rank.height + 1);
        let entered = (VoteKind::Commit, body.epoch, body.view, 0);
        if claimed < entered
            && let Some((vote, _)) = said.votes.range(claimed..entered).next()
        {
            return broken("claims cover COMMITs", format!("{} below {vote:?}", who()));
        }
        said.claims.insert(place, body.rank);
        Ok(())
    }

    /// A replica restarted with these records in its log: own votes among them it may send whether or not it
    /// had sent them before, and in the views that it entered it may PREPARE nothing new.
    pub fn restarted(&mut self, replica: ReplicaIndex, records: &[Record]) {
        let said = self.replicas.entry(replica).or_default();
        said.committed = None;
        for record in records {
            said.durable.add(record);
            match record {
                Record::Voted(vote) => {
                    let place = (vote.kind, vote.epoch, vote.view, vote.height);
                    said.votes.entry(place).or_insert(vote.header);
                }
                Record::Entered { view, .. } => said.barred_below = said.barred_below.max(view + 1),
                _ => {}
            }
        }
    }

    /// Records of a replica were synced.
    pub fn synced(&mut self, replica: ReplicaIndex, records: &[Record]) {
        let said = self.replicas.entry(replica).or_default();
        records.iter().for_each(|record| said.durable.add(record));
    }

    /// A replica executed a proposal: every replica gets the same header.
    ///
    /// # Errors
    /// When another execution of it gave another header.
    pub fn executed(&mut self, replica: ReplicaIndex, digest: Hash, header: Hash) -> Verdict {
        let known = *self.executed.entry(digest).or_insert(header);
        if known == header {
            return Ok(());
        }
        broken("equal roots", format!("replica {replica} executed {} differently", short(&digest)))
    }

    /// A replica committed a height.
    ///
    /// # Errors
    /// When heights are not consecutive, the certificate is not the header's, the header does not continue
    /// the chain, another one was decided, or sessions advance in another way than rule R8 says.
    pub fn committed(
        &mut self,
        replica: ReplicaIndex,
        digest: Hash,
        proposal: &Proposal,
        finished: &Finished,
    ) -> Verdict {
        let Finished { header, certificate, receipts, .. } = finished;
        let (height, hash) = (header.height, header.hash());
        let who = || format!("replica {replica} height {height}");
        let said = self.replicas.entry(replica).or_default();
        if let Some(last) = said.committed.replace(height)
            && last + 1 != height
        {
            return broken("heights are committed one after the other", format!("{} after {last}", who()));
        }
        let fits = certificate.kind == CertificateKind::Commit
            && certificate.height == height
            && certificate.header_hash == hash
            && header.proposal == digest;
        if !fits {
            return broken("the certificate is the header's", who());
        }
        self.decide(height, hash, &who())?;
        if self.decided.get(&(height - 1)).is_some_and(|below| *below != header.previous) {
            return broken("headers are a chain", who());
        }
        self.ledger.committed(height, proposal, receipts)
    }
}

/// Rule R1: a view above 0 is voted in by its NEW-VIEW only, the base first, and nothing below it.
fn base_first(base: Option<&(Height, Hash)>, vote: &Vote, who: &dyn Fn() -> String) -> Verdict {
    match base {
        None => broken("a view is voted in after its NEW-VIEW", who()),
        Some((height, _)) if vote.height < *height => {
            broken("no PREPARE below the base (R1)", format!("{}, base {height}", who()))
        }
        Some((height, header)) if vote.height == *height && vote.header != *header => {
            broken("the base keeps its header (R1)", who())
        }
        Some(_) => Ok(()),
    }
}
