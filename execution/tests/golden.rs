//! The headers of a fixed log: what they hash to can never change, as certified history names it.
//!
//! A change here is a fork of every cluster; it needs a new version of the rules (rule S10).
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]

mod common;

use common::*;
use quorate_crypto::encode;
use quorate_protocol::{OperationBody, Proposal};

/// Genesis, a registration, some operations with a failure and a skip, and an outage with an empty batch.
fn log() -> Chain {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let envelope = client.envelope(vec![
        mkdir(1, "directory", 0o755),
        create(2, "file", 0o640),
        mkdir(1, "directory", 0o755),
        OperationBody::Null,
    ]);
    let gap = client.envelope_at(77, vec![operation(OperationBody::Null)]);
    chain.step(SECOND, vec![gap, envelope]);
    chain.step(3600 * SECOND, vec![]);
    chain
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_headers() {
    let chain = log();
    let lines: Vec<String> = chain
        .states
        .iter()
        .map(|state| {
            format!("{} {} {}\n", state.height(), state.hash(), hexadecimal(&encode(state.header())))
        })
        .collect();
    assert_eq!(lines.concat(), include_str!("golden/headers.txt"));
}

#[test]
fn golden_rows() {
    let chain = log();
    let system = chain.state().rows().filter(|(key, _)| key[0] == 0xff && key[8] >= 0x10);
    let lines: Vec<String> =
        system.map(|(key, value)| format!("{} {}\n", hexadecimal(&key), hexadecimal(&value))).collect();
    assert_eq!(lines.concat(), include_str!("golden/rows.txt"));
}

#[test]
fn golden_proposals_are_those_of_the_headers() {
    let chain = log();
    let digest = |(height, proposal): (u64, &Proposal)| proposal.digest(&chain.cluster(), 0, height);
    let digests: Vec<_> = (1..).zip(&chain.proposals).map(digest).collect();
    let named: Vec<_> = chain.states[1..].iter().map(|state| state.header().proposal).collect();
    assert_eq!(digests, named);
}
