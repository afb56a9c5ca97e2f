//! The life of sessions by batch time: suspicion, grace, outages, release, and being forgotten.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]

mod common;

use common::*;
use quorate_execution::{DUE_PER_BATCH_MAX, GRACE, OUTAGE_GAP, SUSPICION_STEP};
use quorate_protocol::{BatchTime, OperationBody, OperationResult, SkipReason};

const LIFETIME: u64 = 60 * SECOND;

/// Proposes empty batches when the state asks for them, up to `until`.
fn idle(chain: &mut Chain, until: BatchTime) -> usize {
    let mut ticks = 0;
    while let Some(wake) = chain.state().wake_at().filter(|wake| *wake <= until) {
        let now = chain.state().header().time;
        chain.step(wake.0.saturating_sub(now.0), vec![]);
        ticks += 1;
        assert!(ticks < 1000, "the ticks do not end");
    }
    ticks
}

#[test]
fn an_idle_session_ends_after_its_lifetime_and_the_grace() {
    let mut chain = Chain::new();
    let client = chain.client(1);
    let registered = chain.state().header().time;
    assert_eq!(chain.state().wake_at(), Some(registered.plus(LIFETIME)));
    idle(&mut chain, registered.plus(LIFETIME + GRACE - 1));
    assert_eq!(chain.state().session_next(&client.session), Some(1));
    let ticks = idle(&mut chain, registered.plus(LIFETIME + GRACE));
    assert_eq!(ticks, 1);
    assert_eq!(chain.state().session_next(&client.session), None);
    let late = client.envelope_at(1, vec![operation(OperationBody::Null)]);
    assert_eq!(chain.run(late), vec![OperationResult::Skipped(SkipReason::UnknownSession)]);
    // Remembered for another lifetime, then gone without a trace but its number.
    let rows = chain.state().row_count();
    idle(&mut chain, registered.plus(10 * LIFETIME));
    assert_eq!(chain.state().row_count(), rows - 3);
    assert_eq!(chain.state().wake_at(), None);
    let number = chain.client(2);
    assert_eq!(chain.state().session_number(&number.session), Some(2));
}

#[test]
fn envelopes_and_renewals_keep_a_session() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    for round in 0..20 {
        let now = chain.state().header().time;
        idle(&mut chain, now.plus(LIFETIME + SECOND));
        let until = chain.state().header().time.plus(1000 * LIFETIME);
        let body = if round % 2 == 0 { OperationBody::Null } else { OperationBody::Renew { until } };
        let envelope = client.envelope(vec![body]);
        assert!(matches!(chain.run(envelope)[..], [OperationResult::Done(_)]), "round {round}");
        let due = chain.state().wake_at().unwrap();
        assert!(due <= chain.state().header().time.plus(LIFETIME), "a renewal is clamped");
    }
}

#[test]
fn an_outage_of_the_cluster_expires_nobody() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let dead = chain.client(2);
    // Every batch comes an hour after the last one, just before which the client had no chance.
    for _ in 0..5 {
        chain.step(3600 * SECOND, vec![]);
        assert_eq!(chain.state().session_next(&client.session), Some(client.next));
        // A short while later the client is back; the dead one is not, but the next outage comes first.
        let envelope = client.envelope(vec![OperationBody::Null]);
        let executed = chain.step(GRACE / 2, vec![envelope]);
        assert!(matches!(executed.receipts.leaves()[0].result, OperationResult::Done(_)));
        assert_eq!(chain.state().session_next(&dead.session), Some(1));
    }
    // Without an outage the dead one ends, the other one lives.
    for _ in 0..20 {
        chain.step(OUTAGE_GAP / 2, vec![]);
        let envelope = client.envelope(vec![OperationBody::Null]);
        chain.step(1000, vec![envelope]);
    }
    assert_eq!(chain.state().session_next(&dead.session), None);
    assert_eq!(chain.state().session_next(&client.session), Some(client.next));
}

#[test]
fn an_outage_during_the_grace_starts_it_anew() {
    let mut chain = Chain::new();
    let client = chain.client(1);
    let now = chain.state().header().time;
    idle(&mut chain, now.plus(LIFETIME + GRACE - SUSPICION_STEP));
    chain.step(OUTAGE_GAP + 1, vec![]);
    let back = chain.state().header().time;
    idle(&mut chain, back.plus(GRACE - 1));
    assert_eq!(chain.state().session_next(&client.session), Some(1));
    idle(&mut chain, back.plus(GRACE));
    assert_eq!(chain.state().session_next(&client.session), None);
}

#[test]
fn cl2_an_ended_session_cannot_be_registered_again_while_that_is_valid() {
    let mut chain = Chain::new();
    let mut client = Client::new(chain.cluster(), 0, 1);
    let valid_until = chain.state().header().time.plus(1000 * LIFETIME);
    let register = client.register(valid_until);
    assert!(matches!(chain.run(register.clone())[..], [OperationResult::Done(_)]));
    idle(&mut chain, valid_until.plus(0).min(BatchTime(valid_until.0 - 1)));
    assert_eq!(chain.state().session_next(&client.session), None);
    let again = chain.run(register.clone());
    assert!(matches!(again[..], [OperationResult::Skipped(SkipReason::Duplicate { .. })]), "{again:?}");
    let end = chain.state().wake_at().unwrap();
    assert_eq!(end, valid_until);
    idle(&mut chain, valid_until);
    chain.step(1, vec![]);
    assert_eq!(chain.run(register), vec![OperationResult::Skipped(SkipReason::Expired)]);
}

#[test]
fn many_sessions_are_worked_off_batch_by_batch() {
    let mut chain = Chain::new();
    let count = DUE_PER_BATCH_MAX + 10;
    let mut registrations = Vec::new();
    for nonce in 0..count {
        let mut client = Client::new(chain.cluster(), 0, 0);
        client.nonce[..4].copy_from_slice(&nonce.to_le_bytes());
        client.session =
            quorate_protocol::envelope::session_id(&client.cluster, &client.key(), &client.nonce);
        registrations.push(client.register(chain.state().header().time.plus(SECOND)));
    }
    let executed = chain.step(1000, registrations);
    assert_eq!(executed.advanced.len(), count as usize);
    let now = chain.state().header().time;
    idle(&mut chain, now.plus(2 * LIFETIME + 2 * GRACE));
    assert_eq!(chain.state().wake_at(), None);
    // What stays is the mark of the last outage: the gap before the first deadline.
    assert_eq!(chain.state().row_count(), Chain::new().state().row_count() + 1);
}
