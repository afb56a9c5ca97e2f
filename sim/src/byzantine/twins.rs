//! Twins: two copies of one key, each a correct replica by itself, on two disks (hazard PR11).
//!
//! Invariant: the second copy of replica i is a node of its own beyond the n; everybody else knows one replica
//! i. A drawn partition says which of the others each copy talks with; the pair counts as one Byzantine
//! replica, and neither copy ever hears the other.

use std::collections::BTreeMap;

use quorate_crypto::Hash;
use quorate_protocol::{ReplicaIndex, View, Vote, VoteKind};

use super::{Behaviour, Deed};
use crate::network::Address;
use crate::node::Node;
use crate::oracle::Verdict;
use crate::plan::Plan;
use crate::world::World;

/// The partition is drawn anew once in so many plots.
const PARTITION_ONE_IN: u64 = 8;
/// A second copy begins anew with an old log of the first once in so many plots.
const RESTORE_ONE_IN: u64 = 24;

/// The second copies of a run.
#[derive(Debug, Default)]
pub(crate) struct Twins {
    n: usize,
    /// Member by second copy, which follow the n members in order.
    members: Vec<ReplicaIndex>,
    /// With which members a copy talks; a bit for each.
    sides: BTreeMap<ReplicaIndex, u64>,
    said: BTreeMap<(ReplicaIndex, VoteKind, View, u64), Hash>,
}

impl Twins {
    /// The second copies that a plan wants.
    pub(crate) fn new(plan: &Plan) -> Self {
        let twinned = |(index, behaviour): (&ReplicaIndex, &Behaviour)| {
            matches!(behaviour, Behaviour::Twinned { .. }).then_some(*index)
        };
        let members = plan.byzantine.iter().filter_map(twinned).collect();
        Self { n: plan.n, members, ..Self::default() }
    }

    /// The members that run twice.
    pub(crate) fn members(&self) -> &[ReplicaIndex] {
        &self.members
    }

    fn second(&self, index: ReplicaIndex) -> Option<ReplicaIndex> {
        let position = self.members.iter().position(|member| *member == index)?;
        Some((self.n + position) as ReplicaIndex)
    }

    /// Whether a copy talks with a member; whoever has no copy talks with all.
    fn talks(&self, copy: ReplicaIndex, member: ReplicaIndex) -> bool {
        self.sides.get(&copy).is_none_or(|side| side >> member & 1 == 1)
    }
}

impl World {
    /// The member that a node is a copy of: itself, but for second copies.
    pub(crate) fn member(&self, node: ReplicaIndex) -> ReplicaIndex {
        let second = usize::from(node).checked_sub(self.genesis.members.n());
        second.and_then(|position| self.conspiracy.twins.members.get(position)).copied().unwrap_or(node)
    }

    /// Where a packet goes: to the copies of its receiver that the sender talks with.
    pub(crate) fn routes(&mut self, from: Address, to: Address) -> Vec<Address> {
        let Address::Replica(receiver) = to else { return vec![to] };
        let twins = &self.conspiracy.twins;
        if usize::from(receiver) >= twins.n {
            return vec![to];
        }
        let copies = [Some(receiver), twins.second(receiver)].into_iter().flatten();
        let Address::Replica(sender) = from else { return copies.map(Address::Replica).collect() };
        let member = self.member(sender);
        let hears = |copy: &ReplicaIndex| twins.talks(sender, receiver) && twins.talks(*copy, member);
        let routes: Vec<Address> = copies.clone().filter(hears).map(Address::Replica).collect();
        if routes.len() < copies.count() {
            self.conspiracy.deeds.hit(Deed::Parted);
        }
        routes
    }

    /// The partition, or an old log, for a pair.
    pub(super) fn twins_move(&mut self, index: ReplicaIndex) -> Verdict {
        let Some(second) = self.conspiracy.twins.second(index) else { return Ok(()) };
        let n = self.genesis.members.n() as u64;
        let undivided = !self.conspiracy.twins.sides.contains_key(&index);
        if undivided || self.byzantine_random.one_in(PARTITION_ONE_IN) {
            // Everybody talks with one of them at least, some with both.
            let first = self.byzantine_random.between(1, (1 << n) - 2);
            let both = self.byzantine_random.below(1 << n) & self.byzantine_random.below(1 << n);
            self.conspiracy.twins.sides.insert(index, first | both);
            self.conspiracy.twins.sides.insert(second, !first | both);
        }
        let restored = self.behaviour(index) == Some(Behaviour::Twinned { restored: true });
        if restored && self.byzantine_random.one_in(RESTORE_ONE_IN) {
            return self.restore(index, second);
        }
        Ok(())
    }

    /// The second copy begins anew with what the first one had written at some time.
    fn restore(&mut self, first: ReplicaIndex, second: ReplicaIndex) -> Verdict {
        let written = self.nodes[usize::from(first)].disk.records();
        let kept = self.byzantine_random.below(written.len() as u64 + 1) as usize;
        let records = written[..kept].to_vec();
        let clock = self.plan.clocks[usize::from(first)];
        let life = self.nodes[usize::from(second)].life + 1;
        let mut node = Node::new(second, clock);
        node.life = life;
        node.disk.append_unwatched(records);
        if node.disk.sync_started() {
            node.disk.sync_ended();
        }
        self.nodes[usize::from(second)] = node;
        self.conspiracy.deeds.hit(Deed::Restored);
        self.trace.note(self.queue.now(), 20, [u64::from(second), kept as u64, 0, 0], || {
            format!("{second}: RESTORED from {kept} records of {first}")
        });
        self.restart(second)
    }

    /// A copy votes: whether the other one said something else.
    pub(crate) fn note_twin_vote(&mut self, vote: &Vote) {
        if self.conspiracy.twins.second(vote.replica).is_none() {
            return;
        }
        let place = (vote.replica, vote.kind, vote.view, vote.height);
        let known = *self.conspiracy.twins.said.entry(place).or_insert(vote.header);
        if known != vote.header {
            self.conspiracy.deeds.hit(Deed::Contradicted);
        }
    }
}
