//! How long clients wait for what they asked, and what they were promised.
//!
//! Invariant: a request is timed from its first sending to its acknowledgement, whatever lies between.

use std::collections::BTreeMap;

use crate::oracle::{Verdict, broken};

/// Requests under way and the bound on their time.
#[derive(Debug, Default)]
pub struct Promise {
    /// Nanoseconds; `None` if nothing is promised.
    bound: Option<u64>,
    asked: BTreeMap<(u8, u64), u64>,
    longest: u64,
}

impl Promise {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new(bound: Option<u64>) -> Self {
        Self { bound, ..Self::default() }
    }

    /// A client sends a request for the first time.
    pub fn given(&mut self, now: u64, client: u8, first: u64) {
        if self.bound.is_some() {
            self.asked.insert((client, first), now);
        }
    }

    /// A client knows that its request was executed.
    ///
    /// # Errors
    /// When that took longer than promised.
    pub fn kept(&mut self, now: u64, client: u8, first: u64) -> Verdict {
        let Some((bound, asked)) = self.bound.zip(self.asked.remove(&(client, first))) else {
            return Ok(());
        };
        let waited = now.saturating_sub(asked);
        self.longest = self.longest.max(waited);
        if waited <= bound {
            return Ok(());
        }
        let detail = format!("number {first} of client {client} took {waited} ns, promised were {bound} ns");
        broken("a request is answered in time while the attack goes on", detail)
    }

    /// The longest wait so far, in thousandths of the bound.
    #[must_use]
    pub fn longest(&self) -> u64 {
        self.bound.map_or(0, |bound| self.longest.saturating_mul(1000) / bound.max(1))
    }
}
