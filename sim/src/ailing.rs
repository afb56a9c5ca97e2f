//! Ailing disks and flickering links: what strikes that is neither a crash nor a plain cut.
//!
//! Invariant: a replica whose log lost something that was synced never votes again, or is counted among the
//! f from the moment at which it starts without what it forgot; the plan leaves room for it there.

use quorate_protocol::ReplicaIndex;

use crate::disk::{Damage, Refusal};
use crate::marks::Mark;
use crate::strike::committed_height;
use crate::world::{Event, World};

impl World {
    /// Whether a replica counts among the f: it is Byzantine, or its disk has lost what was synced.
    pub(crate) fn is_faulty(&self, index: ReplicaIndex) -> bool {
        self.behaviour(index).is_some() || self.damaged.contains(&self.member(index))
    }

    /// The replica counts among the f from now on.
    fn excuse(&mut self, index: ReplicaIndex) {
        self.damaged.insert(index);
        self.oracle.excuse(index);
    }

    /// The replica crashes, and its disk is damaged before it starts again.
    pub(crate) fn damage(&mut self, index: ReplicaIndex, damage: Damage, down: u64) {
        self.crash(index, down);
        let node = &mut self.nodes[usize::from(index)];
        node.disk.damage(damage);
        if let Damage::AllRolledBack(_) = damage {
            let committed = committed_height(node.disk.records());
            node.saved.retain(|at, _| *at <= committed);
        }
    }

    /// Whether a replica that is to start can: there is space, and its log is whole as far as it can tell.
    pub(crate) fn may_start(&mut self, index: ReplicaIndex) -> bool {
        let now = self.queue.now();
        let node = &mut self.nodes[usize::from(index)];
        if node.refused.is_some() {
            return false;
        }
        if node.full_until > now {
            self.queue.push(node.full_until, Event::Restart(index, node.life));
            return false;
        }
        if let Err(refusal) = node.disk.recover() {
            self.refuse(index, refusal);
            return false;
        }
        if node.disk.has_forgotten() && !self.is_faulty(index) {
            self.marks.hit(Mark::Forgot);
            self.trace.note(now, 16, [u64::from(index), 0, 0, 0], || {
                format!("{index}: FORGOT what it had synced, and nothing tells: it counts as faulty")
            });
            self.excuse(index);
        }
        true
    }

    /// A replica refuses to start with what its disk holds, for ever.
    pub(crate) fn refuse(&mut self, index: ReplicaIndex, refusal: Refusal) {
        self.marks.hit(Mark::Refused);
        self.nodes[usize::from(index)].refused = Some(refusal);
        self.trace.note(self.queue.now(), 17, [u64::from(index), 0, 0, 0], || {
            format!("{index}: REFUSES to start: {refusal}")
        });
        self.excuse(index);
    }

    /// Whether appends fail now: then the process ends, and starts again when there is space.
    pub(crate) fn is_full(&mut self, index: ReplicaIndex) -> bool {
        let until = self.nodes[usize::from(index)].full_until;
        let full = until > self.queue.now();
        if full {
            self.marks.hit(Mark::DiskFull);
            self.crash(index, until - self.queue.now());
        }
        full
    }

    /// Whether the sync that ends now fails: then the process ends (hazard PR7).
    pub(crate) fn sync_fails(&mut self, index: ReplicaIndex) -> bool {
        let Some(down) = self.nodes[usize::from(index)].sync_fails else { return false };
        self.marks.hit(Mark::SyncFailed);
        self.crash(index, down);
        true
    }

    /// A series of short partitions begins.
    pub(crate) fn blips(&mut self, side: u64, (count, lasts, gap): (u64, u64, u64)) {
        for number in 0..count {
            self.queue.after(number * gap, Event::Blip { side, lasts });
        }
    }

    /// One of them.
    pub(crate) fn blip(&mut self, side: u64, lasts: u64) {
        if !self.is_calm {
            self.trace.note(self.queue.now(), 18, [side, lasts, 0, 0], || format!("BLIP of {lasts} ns"));
            self.cut(lasts, |from, to| (side >> from ^ side >> to) & 1 == 1);
        }
    }
}
