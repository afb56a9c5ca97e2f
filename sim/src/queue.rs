//! The event queue: virtual time moves from event to event.
//!
//! Invariant: events come out in order of time, and within one instant in the order in which they were
//! put in; nothing is ever scheduled in the past.

use std::collections::BTreeMap;

/// Events by (time in nanoseconds, number).
#[derive(Debug)]
pub struct Queue<E> {
    events: BTreeMap<(u64, u64), E>,
    now: u64,
    next: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), now: 0, next: 0 }
    }
}

impl<E> Queue<E> {
    /// The time of the event that came out last.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Puts an event in; a time in the past means now.
    pub fn push(&mut self, at: u64, event: E) {
        self.events.insert((at.max(self.now), self.next), event);
        self.next += 1;
    }

    /// Puts an event in that is due after a delay.
    pub fn after(&mut self, delay: u64, event: E) {
        self.push(self.now.saturating_add(delay), event);
    }

    /// Takes the next event out and moves the time on to it.
    pub fn pop(&mut self) -> Option<E> {
        let ((at, _), event) = self.events.pop_first()?;
        self.now = at;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_by_time_then_by_insertion() {
        let mut queue = Queue::default();
        for (at, name) in [(5, "c"), (1, "a"), (5, "d"), (2, "b")] {
            queue.push(at, name);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
        assert_eq!(queue.now(), 5);
        queue.push(1, "late");
        assert_eq!((queue.pop(), queue.now()), (Some("late"), 5));
    }
}
