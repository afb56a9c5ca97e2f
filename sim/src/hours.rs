//! Time: that batch times keep to the clocks of correct replicas (hazard A15), and how long the cluster needs
//! after links are mended (hazard A16).
//!
//! Invariant: nothing here changes what happens.

use quorate_protocol::{BatchTime, Header};

use crate::client::Client;
use crate::oracle::{Verdict, broken};
use crate::world::World;

/// Whether a header's time is at or above the lowest one allowed on top of its parent (rule S8), and not
/// above what the fastest clock of a correct replica lets in, unless it is that lowest one.
fn keeps_to_clocks(parent: &Header, header: &Header, fastest: BatchTime, window: u64) -> bool {
    let lowest = parent.time.plus(u64::from(parent.operation_count).max(1));
    header.time >= lowest && (header.time == lowest || header.time <= fastest.plus(window))
}

impl World {
    /// Takes note of what clocks show, before they are changed or something is judged by them.
    pub(crate) fn look_at_clocks(&mut self) {
        let now = self.queue.now();
        let correct = self.nodes.iter().filter(|node| !self.is_faulty(node.index));
        let fastest = correct.map(|node| node.wall(now)).max();
        self.fastest_clock = self.fastest_clock.max(fastest.unwrap_or_default());
    }

    /// A height is committed on top of its parent.
    pub(crate) fn check_time(&mut self, parent: &Header, header: &Header) -> Verdict {
        self.look_at_clocks();
        let window = self.plan.parameters.timeouts.clock_window;
        if keeps_to_clocks(parent, header, self.fastest_clock, window) {
            return Ok(());
        }
        let (time, below, fastest) = (header.time.0, parent.time.0, self.fastest_clock.0);
        let detail = format!("height {}: {time} on top of {below}, clocks show {fastest}", header.height);
        broken("batch times keep to clocks (A15)", detail)
    }

    /// Links are mended: from here on the hangover counts, if somebody waits.
    pub(crate) fn mended(&mut self) {
        let waits = |client: &Client| !client.missing().is_empty();
        if !self.is_calm && self.clients.iter().any(waits) {
            self.mended_at.get_or_insert(self.queue.now());
        }
    }

    /// A height is committed that was not before.
    pub(crate) fn moved(&mut self) {
        if let Some(mended_at) = self.mended_at.take() {
            self.hangover = self.hangover.max(self.queue.now() - mended_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast::{GENESIS_TIME, genesis};
    use crate::fake::FakeState;

    #[test]
    fn a15_times_outside_the_window_are_seen() {
        let parent = FakeState::genesis(&genesis(4, [0; 32]), false).header().clone();
        let at = |time| Header { time, height: 1, ..parent.clone() };
        let holds = |time, fastest| keeps_to_clocks(&parent, &at(time), fastest, 10);
        let later = GENESIS_TIME.plus(100);
        assert!(holds(later, later) && holds(later.plus(10), later));
        assert!(!holds(later.plus(11), later), "ahead of every clock");
        assert!(!holds(GENESIS_TIME, later), "not above the parent");
        assert!(holds(GENESIS_TIME.plus(1), BatchTime(0)), "the lowest one is always allowed");
    }
}
