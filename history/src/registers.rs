//! Keys of which some calls carry no height: judged by times alone.
//!
//! A key that is only put and read, each value once, is a register with known reads-from: the calls of one
//! value are a cluster, between the earliest end and the latest start of which the key must hold that value
//! if that is an interval (a forward zone). There is an order if and only if forward zones do not overlap
//! and no backward one lies within a forward one (Gibbons and Korach, "Testing shared memories", 1997).
//!
//! Invariant: keys are independent of each other, because linearizability is a local property.

use std::collections::BTreeMap;

use crate::check::{Report, Violation};
use crate::event::{Answer, Call, CallId, History, Key, Operation, Value};

/// The calls of one value of a key.
#[derive(Debug)]
struct Cluster {
    /// When the write began; at the beginning of time for what was there first.
    written: u64,
    /// The earliest end, and whose.
    end: (u64, CallId),
    /// The latest start, and whose.
    start: (u64, CallId),
    is_read: bool,
}

impl Cluster {
    fn add(&mut self, id: CallId, start: u64, end: u64) {
        self.end = self.end.min((end, id));
        self.start = self.start.max((start, id));
    }

    fn is_forward(&self) -> bool {
        self.end.0 < self.start.0
    }

    /// From where to where, in time.
    fn zone(&self) -> (u64, u64) {
        (self.end.0.min(self.start.0), self.end.0.max(self.start.0))
    }
}

/// Judges the keys that have an answered call without a place.
pub(crate) fn check(history: &History, report: &mut Report) -> Result<(), Violation> {
    let mut keys: BTreeMap<&Key, Vec<(CallId, &Call)>> = BTreeMap::new();
    let mut wanted: BTreeMap<&Key, u64> = BTreeMap::new();
    for (id, call) in history.calls() {
        for key in call.operation.keys() {
            keys.entry(key).or_default().push((*id, call));
            if call.outcome.is_some() && call.place().is_none() {
                *wanted.entry(key).or_default() += 1;
            }
        }
    }
    for (key, count) in wanted {
        let calls = keys.remove(key).unwrap_or_default();
        match clusters(key, &calls)? {
            Some(clusters) => {
                ordered(key, clusters)?;
                report.timed_keys += 1;
                report.compared += count;
            }
            None => report.undecided += count,
        }
    }
    Ok(())
}

/// Clusters by value; `None` if the key is not a register whose values are written once.
fn clusters(key: &Key, calls: &[(CallId, &Call)]) -> Result<Option<Vec<Cluster>>, Violation> {
    let first = Cluster { written: 0, end: (0, CallId::MAX), start: (0, CallId::MAX), is_read: false };
    let mut clusters: BTreeMap<Option<Value>, Cluster> = BTreeMap::from([(None, first)]);
    for (id, call) in calls {
        let value = match &call.operation {
            Operation::Put { value, .. } => value,
            Operation::Get { .. } => continue,
            _ => return Ok(None),
        };
        let end = call.outcome.as_ref().map_or(u64::MAX, |outcome| outcome.end);
        let cluster = Cluster {
            written: call.start,
            end: (end, *id),
            start: (call.start, *id),
            is_read: end < u64::MAX,
        };
        if clusters.insert(Some(value.clone()), cluster).is_some() {
            return Ok(None);
        }
    }
    for (id, call) in calls {
        let Some(outcome) = call.outcome.as_ref().filter(|_| call.operation.is_read()) else { continue };
        let value = match &outcome.answer {
            Answer::Value(value) => Some(value.clone()),
            Answer::Absent => None,
            _ => return Ok(None),
        };
        match clusters.get_mut(&value) {
            Some(cluster) if cluster.written <= outcome.end => {
                cluster.is_read = true;
                cluster.add(*id, call.start, outcome.end);
            }
            _ => return Err(Violation::Unwritten { read: *id, key: key.clone(), value }),
        }
    }
    // What was never answered and never seen need not have happened.
    Ok(Some(clusters.into_values().filter(|cluster| cluster.is_read).collect()))
}

/// Whether there is an order of the clusters.
fn ordered(key: &Key, clusters: Vec<Cluster>) -> Result<(), Violation> {
    let (mut forward, backward): (Vec<Cluster>, Vec<Cluster>) =
        clusters.into_iter().partition(Cluster::is_forward);
    forward.sort_unstable_by_key(Cluster::zone);
    let against = |one: &Cluster, other: &Cluster| Violation::NoOrder {
        key: key.clone(),
        first: one.start.1,
        second: other.end.1,
    };
    for pair in forward.windows(2) {
        if let [one, other] = pair
            && one.zone().1 > other.zone().0
        {
            return Err(against(one, other));
        }
    }
    for inner in &backward {
        let (from, to) = inner.zone();
        let before = forward.partition_point(|outer| outer.zone().0 < from);
        // Forward zones do not overlap, so only the last one that begins before it can hold it.
        if let Some(outer) = before.checked_sub(1).and_then(|last| forward.get(last))
            && outer.zone().1 > to
        {
            return Err(against(outer, inner));
        }
    }
    Ok(())
}
