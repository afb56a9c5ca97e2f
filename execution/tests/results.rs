//! Results of an envelope with their paths: accepted as they are, refused in every altered form (hazard CL7).
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]

mod common;

use common::*;
use quorate_crypto::{Bounded, decode, encode};
use quorate_execution::{ResultsFault, verify_results, verify_results_of};
use quorate_protocol::client::EnvelopeResults;
use quorate_protocol::{OperationBody, OperationResult, Reply};

/// A batch of three envelopes; the middle one has three operations.
fn batch() -> (Chain, Vec<quorate_protocol::Envelope>, quorate_execution::Executed) {
    let mut chain = Chain::new();
    let mut clients: Vec<Client> = (1..4).map(|nonce| chain.client(nonce)).collect();
    let bodies = [
        vec![OperationBody::Null],
        vec![mkdir(1, "a", 0o755), mkdir(1, "a", 0o755), OperationBody::Null],
        vec![OperationBody::Null],
    ];
    let envelopes: Vec<_> =
        clients.iter_mut().zip(bodies).map(|(client, bodies)| client.envelope(bodies)).collect();
    let executed = chain.step(1000, envelopes.clone());
    (chain, envelopes, executed)
}

#[test]
fn the_results_of_each_envelope_are_accepted_for_it_alone() {
    let (_chain, envelopes, executed) = batch();
    let header = executed.state.header();
    let mut first = 0;
    for envelope in &envelopes {
        let found = executed.receipts.find(&envelope.body.session, envelope.body.first);
        assert_eq!(found, Some(first));
        let results = executed.receipts.results(header, first, None).unwrap();
        assert_eq!(results.results.len(), envelope.body.operations.len());
        for other in &envelopes {
            let expected = if other == envelope { Ok(()) } else { Err(ResultsFault::OtherEnvelope) };
            assert_eq!(verify_results(&results, other), expected);
        }
        let bytes = encode(&results);
        assert_eq!(decode::<EnvelopeResults>(&bytes), Ok(results));
        first += u32::try_from(envelope.body.operations.len()).unwrap();
    }
    for inside in [2, 3, 5, 6, u32::MAX] {
        assert!(executed.receipts.results(header, inside, None).is_none());
    }
    assert_eq!(executed.receipts.find(&envelopes[0].body.session, 7), None);
}

#[test]
fn altered_results_are_refused() {
    let (_chain, envelopes, executed) = batch();
    let envelope = &envelopes[1];
    let good = executed.receipts.results(executed.state.header(), 1, None).unwrap();
    let altered = |change: &dyn Fn(&mut EnvelopeResults)| {
        let mut results = good.clone();
        change(&mut results);
        verify_results(&results, envelope)
    };
    assert_eq!(altered(&|_| ()), Ok(()));
    assert!(
        altered(&|results| results.results.as_mut_slice()[1] = OperationResult::Done(Reply::Empty)).is_err()
    );
    assert!(altered(&|results| results.results.as_mut_slice().swap(0, 2)).is_err());
    assert!(altered(&|results| results.paths.as_mut_slice().swap(0, 2)).is_err());
    for index in [0, 2, 3, u32::MAX] {
        assert!(altered(&|results| results.first_index = index).is_err());
    }
    for count in [0, 3, 40, u32::MAX] {
        assert!(altered(&|results| results.header.operation_count = count).is_err());
    }
    assert!(altered(&|results| results.header.receipts_root.0[0] ^= 1).is_err());
    assert!(altered(&|results| results.results = Bounded::new()).is_err());
    assert!(altered(&|results| results.paths = Bounded::new()).is_err());
    assert!(altered(&|results| results.envelope.0[0] ^= 1).is_err());
    assert!(altered(&|results| results.paths.as_mut_slice()[0] = Bounded::new()).is_err());
    let (session, digest) = (envelope.body.session, envelope.body.digest());
    assert_eq!(verify_results_of(&good, &session, 1, 3, &digest), Ok(()));
    assert!(verify_results_of(&good, &session, 2, 3, &digest).is_err());
    assert!(verify_results_of(&good, &session, u64::MAX, 3, &digest).is_err());
    assert!(verify_results_of(&good, &[0; 32].into(), 1, 3, &digest).is_err());
}

#[test]
fn a_batch_of_one_operation_has_an_empty_path() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let envelope = client.envelope(vec![OperationBody::Null]);
    let executed = chain.step(1, vec![envelope.clone()]);
    let results = executed.receipts.results(executed.state.header(), 0, None).unwrap();
    assert_eq!(verify_results(&results, &envelope), Ok(()));
    let empty = chain.step(1, vec![]);
    assert_eq!(empty.receipts.leaves(), []);
    assert_eq!(empty.receipts.root(), quorate_merkle::rfc6962::empty_root());
    assert!(empty.receipts.results(empty.state.header(), 0, None).is_none());
}
