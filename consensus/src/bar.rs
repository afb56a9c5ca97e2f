//! Replicas whose votes were found to be badly signed, and how little their votes may cost from then on.
//!
//! Invariant: a replica costs a bounded number of useless checks in any time, however many bad signatures it
//! sends (hazard A13). This is local: it decides whose signature is looked at, never what is true. A correct
//! replica never sends a vote that is badly signed over its own connection, so none is ever barred; and one that
//! behaves again is heard again, so that a fault of memory that passes takes no vote away for good.

use std::collections::BTreeMap;

use quorate_protocol::ReplicaIndex;

use crate::input::Monotonic;
use crate::probe::{Probe, reached};

/// Bad signatures after which a replica is watched: each of its votes is checked when it comes, so that it
/// spoils no quorum any more, and each further bad one bars it.
pub(crate) const FORGERIES_TOLERATED: u32 = 3;
/// How long a replica is barred for the first bad signature while it is watched; each doubles the time.
pub(crate) const BAR_FIRST: u64 = 1_000_000_000;
/// Longest time for which a replica is barred for one bad signature.
pub(crate) const BAR_MAX: u64 = 64 * BAR_FIRST;

#[derive(Copy, Clone, Debug, Default)]
struct Bar {
    forgeries: u32,
    until: Option<Monotonic>,
}

/// What is held against whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bars(BTreeMap<ReplicaIndex, Bar>);

impl Bars {
    /// A vote of this replica was found to be badly signed.
    pub(crate) fn note(&mut self, replica: ReplicaIndex, now: Monotonic) {
        let bar = self.0.entry(replica).or_default();
        bar.forgeries = bar.forgeries.saturating_add(1);
        if let Some(further) = bar.forgeries.checked_sub(FORGERIES_TOLERATED).filter(|count| *count > 0) {
            let doubled = 1_u64.checked_shl(further.saturating_sub(1)).unwrap_or(u64::MAX);
            reached(Probe::Barred);
            bar.until = Some(now.plus(BAR_FIRST.saturating_mul(doubled).min(BAR_MAX)));
        }
    }

    /// Whether the votes of this replica are checked when they come.
    pub(crate) fn is_watched(&self, replica: ReplicaIndex) -> bool {
        self.0.get(&replica).is_some_and(|bar| bar.forgeries >= FORGERIES_TOLERATED)
    }

    /// Whether the votes that this replica sends are not looked at now.
    pub(crate) fn is_barred(&self, replica: ReplicaIndex, now: Monotonic) -> bool {
        self.0.get(&replica).and_then(|bar| bar.until).is_some_and(|until| now < until)
    }

    /// Those that are barred now, ascending, with the number of bad signatures found.
    pub(crate) fn barred(&self, now: Monotonic) -> impl Iterator<Item = (ReplicaIndex, u32)> {
        let barred = move |bar: &Bar| bar.until.is_some_and(|until| now < until);
        self.0.iter().filter(move |(_, bar)| barred(bar)).map(|(replica, bar)| (*replica, bar.forgeries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    /// Hazard A13: over an hour in which a liar does nothing but lie.
    #[test]
    fn a13_bad_signatures_cost_a_bounded_number_of_checks() {
        let (mut bars, mut checks) = (Bars::default(), 0);
        for second in 0..3600 {
            for millisecond in 0..1000 {
                let now = Monotonic(0).plus((second * 1000 + millisecond) * MILLISECOND);
                if !bars.is_barred(2, now) {
                    checks += 1;
                    bars.note(2, now);
                }
                assert!(!bars.is_barred(1, now) && !bars.is_watched(1));
            }
        }
        assert!((10..70).contains(&checks), "{checks}");
        let end = Monotonic(0).plus(3600 * 1000 * MILLISECOND);
        assert_eq!(bars.barred(end).map(|(replica, _)| replica).collect::<Vec<_>>(), [2]);
        // It is heard again when it has been silent for long enough.
        assert!(bars.is_watched(2) && !bars.is_barred(2, end.plus(BAR_MAX)));
    }
}
