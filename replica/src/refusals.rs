//! What becomes of those whose messages are refused.
//!
//! Invariant: whoever sends what must be refused costs a bounded number of lines in the log, however much
//! it sends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorate_protocol::ReplicaIndex;

/// Least time between two lines about the same sender.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Who sent it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sender {
    /// This peer, under its own key.
    Peer(ReplicaIndex),
    /// Clients, or peers that forward for them.
    Clients,
}

/// Counts refusals by sender.
#[derive(Debug, Default)]
pub struct Refusals {
    silent: BTreeMap<Sender, Silent>,
}

#[derive(Debug)]
struct Silent {
    until: Instant,
    count: u64,
}

impl Refusals {
    /// Counts one. How many went unmentioned before it, if it is to be mentioned.
    pub fn mention(&mut self, sender: Sender, now: Instant) -> Option<u64> {
        match self.silent.get_mut(&sender) {
            Some(silent) if now < silent.until => {
                silent.count = silent.count.saturating_add(1);
                None
            }
            _ => {
                let silent = Silent { until: now + LINE_INTERVAL, count: 0 };
                Some(self.silent.insert(sender, silent).map_or(0, |before| before.count))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refused_messages_is_a_line_now_and_then() {
        let (mut refusals, began) = (Refusals::default(), Instant::now());
        let at = |millisecond| began + Duration::from_millis(millisecond);
        let mut lines = Vec::new();
        for millisecond in 0..25_000 {
            lines.extend(refusals.mention(Sender::Peer(2), at(millisecond)));
        }
        assert_eq!(lines, [0, 9999, 9999]);
        assert_eq!(refusals.mention(Sender::Clients, at(25_000)), Some(0), "others are heard");
    }
}
