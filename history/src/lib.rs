//! Histories of what clients did and saw, and whether one sequential execution explains them.
//!
//! A [`History`] is plain data: calls with a start, and for most of them an end, an answer and the height that
//! the answer stands at. It is built by [`Event`]s, which have a form in text, one JSON object per line, so
//! that simulated clients, real clients and mounts can be judged alike. [`check`] judges it. The room knows
//! no other room of the workspace: whoever has a history can depend on it.
//!
//! What a mount shows carries no heights. Such calls on one directory are judged by [`search()`], against
//! [`Directory`].
//!
//! Invariant: [`check`] takes time proportional to the calls, but for sorting; what it cannot decide it
//! counts in [`Report::undecided`] and never passes over in silence.
#![forbid(unsafe_code)]

mod check;
mod directory;
mod event;
mod registers;
mod search;
mod tree;

pub use check::{Report, Violation, WrongAnswer, check};
pub use directory::{Directory, File, Ino, Question, Reply};
pub use event::{
    Answer, CALLS_MAX, Call, CallId, Event, Guarantee, History, Key, LINE_BYTES_MAX, Malformed, Operation,
    Outcome, Place, Value,
};
pub use search::{Model, SECTION_CALLS_MAX, STEPS_MAX, Searched, Story, Timed, Unexplained, search};
