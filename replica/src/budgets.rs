//! Budgets of those who send: how much of this replica each of them may use.
//!
//! Invariant: every budget is of one sender, so that none can use up another one's; time is the loop's.

pub mod bucket;
pub mod clients;
pub mod peers;
