//! The blocks that this replica should have and has not, and which peer is asked for each.
//!
//! Invariant: a block leaves the table only when it is stored and whole, whatever becomes of single answers;
//! every one in it either waits or is under way, and few are under way at a time.

use quorate_crypto::Hash;
use quorate_protocol::ReplicaIndex;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Blocks that are known to be lacking here; more are found at the next start.
pub const LACKING_MAX: usize = 65_536;
/// Blocks that are asked for at a time.
pub const UNDER_WAY_MAX: usize = 16;
/// How long an upload that others have had already may take to arrive here, before a peer is asked.
const UPLOAD_PATIENCE: Duration = Duration::from_millis(300);
/// How long a peer may take to send a block, and we to store it, before the next one is asked.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Pause after a block could not be stored, which is mostly a full disk.
const STORE_AGAIN: Duration = Duration::from_secs(30);

/// A block that is lacking.
struct Wanted {
    next: ReplicaIndex,
    /// Something is stored under its identifier, and it is not the block any more.
    damaged: bool,
    /// While it waits, when it is asked for at the earliest; under way, when it is given up.
    due: Instant,
    under_way: bool,
}

/// The table.
pub struct Lacking {
    blocks: BTreeMap<Hash, Wanted>,
    waiting: VecDeque<Hash>,
    under_way: Vec<Hash>,
    me: ReplicaIndex,
    replicas: ReplicaIndex,
}

impl Lacking {
    /// Nothing lacks yet at replica `me` of `replicas`.
    pub fn new(me: ReplicaIndex, replicas: usize) -> Self {
        let replicas = ReplicaIndex::try_from(replicas).unwrap_or(ReplicaIndex::MAX);
        Self { blocks: BTreeMap::new(), waiting: VecDeque::new(), under_way: Vec::new(), me, replicas }
    }

    /// Notes a block; `damaged` when one is stored that cannot be read.
    pub fn need(&mut self, id: Hash, damaged: bool, now: Instant) {
        if let Some(wanted) = self.blocks.get_mut(&id) {
            wanted.damaged |= damaged;
        } else if self.blocks.len() < LACKING_MAX {
            let due = now + UPLOAD_PATIENCE;
            let wanted = Wanted { next: self.me.wrapping_add(1), damaged, due, under_way: false };
            self.blocks.insert(id, wanted);
            self.waiting.push_back(id);
        }
    }

    /// Whether a block that arrives is one that was asked for. It counts as under way until its fate is told.
    pub fn arrived(&mut self, id: &Hash, now: Instant) -> bool {
        match self.blocks.get_mut(id) {
            Some(wanted) if wanted.under_way => {
                wanted.due = now + ASK_AGAIN;
                true
            }
            _ => false,
        }
    }

    /// The block is stored.
    pub fn kept(&mut self, id: &Hash) {
        self.blocks.remove(id);
    }

    /// What a peer sent was not the block: the next one is asked at once.
    pub fn refused(&mut self, id: &Hash, now: Instant) {
        if let Some(wanted) = self.blocks.get_mut(id) {
            wanted.due = now;
        }
    }

    /// The block could not be stored.
    pub fn failed(&mut self, id: &Hash, now: Instant) {
        if let Some(wanted) = self.blocks.get_mut(id) {
            wanted.due = now + STORE_AGAIN;
        }
    }

    /// Whom to ask for what now; `stored` says what has come in another way meanwhile.
    pub fn ask(&mut self, now: Instant, stored: impl Fn(&Hash) -> bool) -> Vec<(ReplicaIndex, Hash)> {
        self.give_up(now);
        let mut questions = Vec::new();
        while self.under_way.len() < UNDER_WAY_MAX
            && let Some(id) = self.waiting.front().copied()
        {
            let Some(wanted) = self.blocks.get_mut(&id) else {
                self.waiting.pop_front();
                continue;
            };
            if !wanted.damaged && stored(&id) {
                self.blocks.remove(&id);
                self.waiting.pop_front();
                continue;
            }
            if wanted.due > now {
                break;
            }
            self.waiting.pop_front();
            self.under_way.push(id);
            let mut peer = wanted.next.checked_rem(self.replicas).unwrap_or(0);
            if peer == self.me {
                peer = peer.wrapping_add(1).checked_rem(self.replicas).unwrap_or(0);
            }
            wanted.next = peer.wrapping_add(1);
            wanted.due = now + ASK_AGAIN;
            wanted.under_way = true;
            questions.push((peer, id));
        }
        questions
    }

    /// The peer that is asked next.
    #[cfg(test)]
    pub fn next_peer(&self, id: &Hash) -> Option<ReplicaIndex> {
        self.blocks.get(id).map(|wanted| wanted.next)
    }

    /// Lets those wait again whose time is over, and forgets those that are stored.
    fn give_up(&mut self, now: Instant) {
        let (blocks, waiting) = (&mut self.blocks, &mut self.waiting);
        self.under_way.retain(|id| {
            let Some(wanted) = blocks.get_mut(id) else { return false };
            if wanted.due > now {
                return true;
            }
            wanted.under_way = false;
            waiting.push_back(*id);
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> Hash {
        Hash([number; 32])
    }

    #[test]
    fn a_block_is_asked_for_until_it_is_stored() {
        let (mut lacking, mut now) = (Lacking::new(1, 4), Instant::now());
        lacking.need(id(7), false, now);
        assert!(lacking.ask(now, |_| false).is_empty(), "its upload may still arrive");
        let mut asked = Vec::new();
        for _ in 0..4 {
            now += ASK_AGAIN;
            asked.extend(lacking.ask(now, |_| false).into_iter().map(|(peer, _)| peer));
            assert!(lacking.ask(now, |_| false).is_empty(), "once at a time");
        }
        assert_eq!(asked, [2, 3, 0, 2], "one peer after the other, and not this replica");
        // It arrives, and could not be queued for the disk: nobody tells of it any more.
        assert!(lacking.arrived(&id(7), now));
        now += ASK_AGAIN;
        assert_eq!(lacking.ask(now, |_| false), [(3, id(7))]);
        // It arrives, and the disk is full for a while.
        assert!(lacking.arrived(&id(7), now));
        lacking.failed(&id(7), now);
        assert!(lacking.ask(now + ASK_AGAIN, |_| false).is_empty());
        now += STORE_AGAIN;
        assert_eq!(lacking.ask(now, |_| false), [(0, id(7))]);
        // What arrives is another block.
        lacking.refused(&id(7), now);
        assert_eq!(lacking.ask(now, |_| false), [(2, id(7))]);
        lacking.kept(&id(7));
        assert!(lacking.ask(now + STORE_AGAIN, |_| false).is_empty());
        assert!(!lacking.arrived(&id(7), now));
    }

    #[test]
    fn a_damaged_block_is_fetched_although_something_is_stored() {
        let (mut lacking, now) = (Lacking::new(0, 4), Instant::now());
        lacking.need(id(1), false, now);
        lacking.need(id(2), true, now);
        let later = now + UPLOAD_PATIENCE;
        assert_eq!(lacking.ask(later, |_| true), [(1, id(2))]);
        lacking.kept(&id(2));
        assert!(lacking.ask(later + ASK_AGAIN, |_| true).is_empty() && lacking.blocks.is_empty());
    }

    #[test]
    fn few_are_under_way_and_all_get_their_turn() {
        let (mut lacking, mut now) = (Lacking::new(0, 4), Instant::now());
        for number in 0..100 {
            lacking.need(id(number), false, now);
        }
        now += UPLOAD_PATIENCE;
        let mut stored = Vec::new();
        while !lacking.blocks.is_empty() {
            let questions = lacking.ask(now, |_| false);
            assert!(!questions.is_empty() && questions.len() <= UNDER_WAY_MAX);
            for (_, id) in questions {
                assert!(lacking.arrived(&id, now));
                lacking.kept(&id);
                stored.push(id);
            }
        }
        assert_eq!(stored.len(), 100);
    }
}
