//! Tests of the filesystem through its public interface.
//!
//! `support` is a world of one in-memory state, `check` counts that state from scratch, `model` is a plain
//! POSIX filesystem written without a look at the rows; the other modules hold the tests, by subject.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs
)]

mod attributes;
mod check;
mod content;
mod differential;
mod generate;
mod golden;
mod grants;
mod model;
mod names;
mod permissions;
mod reads;
mod reclaim;
mod rename;
mod support;
mod xattrs;
