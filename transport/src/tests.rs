//! Tests of whole end points over 127.0.0.1.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod clients;
pub(crate) mod common;
mod hostile;
mod peers;
