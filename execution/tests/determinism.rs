//! Random logs of hostile envelopes: the same headers everywhere, every number consumed once, no panic.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::*;
use proptest::prelude::*;
use quorate_crypto::Bounded;
use quorate_execution::{State, StatelessFault, StaticFault, check_static, execute_stateless};
use quorate_merkle::{Key, PartialTrie, Touched};
use quorate_protocol::file::Name;
use quorate_protocol::operation::{Authority, OpenMode, Piece, RenameMode, SetXattrMode, WriteAt};
use quorate_protocol::time::SetTime;
use quorate_protocol::{
    BatchTime, Envelope, Header, Operation, OperationBody, OperationResult, Proposal, SessionId, SkipReason,
    Timestamp,
};

fn name_of() -> impl Strategy<Value = Name> {
    prop_oneof![
        (0..4_u8).prop_map(|index| name(&format!("n{index}"))),
        prop::collection::vec(1..=255_u8, 1..8).prop_filter_map("a name", |bytes| Name::new(&bytes).ok()),
    ]
}

fn ino() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..8_u64, 1 => any::<u64>()]
}

fn body() -> impl Strategy<Value = OperationBody> {
    let write_at = prop_oneof![
        Just(WriteAt::Append),
        (0..100_000_u64).prop_map(WriteAt::Offset),
        any::<u64>().prop_map(WriteAt::Offset)
    ];
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Piece::Inline(bytes.try_into().unwrap())),
        any::<u64>().prop_map(Piece::Zero),
        (0..5000_u64).prop_map(Piece::Zero),
        (any::<[u8; 32]>(), any::<u32>(), any::<u32>()).prop_map(|(id, offset, length)| Piece::Block {
            id: id.into(),
            offset,
            length
        }),
    ];
    prop_oneof![
        Just(OperationBody::Null),
        Just(OperationBody::CloseSession),
        any::<u64>().prop_map(|until| OperationBody::Renew { until: BatchTime(until) }),
        any::<[u8; 32]>().prop_map(|nonce| OperationBody::Register { nonce }),
        any::<u32>().prop_map(|principal| OperationBody::RemovePrincipal { principal }),
        (ino(), name_of(), any::<u16>(), any::<[u8; 16]>()).prop_map(|(parent, name, mode, entropy)| {
            OperationBody::Mkdir { parent, name, mode, umask: 0o22, ino: None, entropy }
        }),
        (ino(), name_of(), any::<u16>(), any::<bool>(), any::<[bool; 3]>(), prop::option::of(ino()))
            .prop_map(|(parent, name, mode, exclusive, open, ino)| OperationBody::Create {
                parent,
                name,
                mode,
                umask: 0,
                exclusive,
                open: open[0].then_some(OpenMode { read: true, write: open[1], truncate: open[2] }),
                ino,
                entropy: [5; 16],
            }),
        (ino(), name_of()).prop_map(|(parent, name)| OperationBody::Unlink { parent, name }),
        (ino(), name_of()).prop_map(|(parent, name)| OperationBody::Rmdir { parent, name }),
        (ino(), ino(), name_of()).prop_map(|(ino, parent, name)| OperationBody::Link { ino, parent, name }),
        (ino(), name_of(), ino(), name_of(), 0..3_u8).prop_map(
            |(parent, name, new_parent, new_name, mode)| {
                let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
                OperationBody::Rename { parent, name, new_parent, new_name, mode: modes[usize::from(mode)] }
            }
        ),
        (ino(), prop::option::of(any::<u64>()), prop::option::of(any::<u16>())).prop_map(
            |(ino, size, mode)| {
                OperationBody::SetAttributes {
                    ino,
                    mode,
                    uid: None,
                    gid: None,
                    size: size.map(|size| size % (1 << 22)),
                    atime: SetTime::Now,
                    mtime: SetTime::To(Timestamp { seconds: i64::MIN, nanoseconds: 7 }),
                    authority: Authority::Check,
                    token: None,
                }
            }
        ),
        (ino(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(ino, bytes)| {
            OperationBody::SetXattr {
                ino,
                name: [b"user.".as_slice(), &bytes].concat().try_into().unwrap(),
                value: bytes.try_into().unwrap(),
                mode: SetXattrMode::Any,
                entropy: [6; 16],
            }
        }),
        (ino(), any::<bool>()).prop_map(|(ino, write)| OperationBody::Open {
            ino,
            mode: OpenMode { read: true, write, truncate: false }
        }),
        (ino(), any::<bool>(), any::<u32>()).prop_map(|(ino, write, count)| OperationBody::Release {
            ino,
            mode: OpenMode { read: true, write, truncate: false },
            count
        }),
        (ino(), write_at, prop::collection::vec(piece, 0..4)).prop_map(|(ino, at, pieces)| {
            OperationBody::Write {
                ino,
                at,
                pieces: Bounded::try_from(pieces).unwrap(),
                evidence: quorate_protocol::blocks::BlockEvidence::default(),
                authority: Authority::Check,
                token: None,
                entropy: [8; 16],
            }
        }),
    ]
}

/// What an envelope of the log is like, before the chain says which numbers are next.
#[derive(Clone, Debug)]
struct Sketch {
    client: u8,
    /// Added to the number that the model expects.
    shift: i8,
    register: bool,
    valid: bool,
    operations: Vec<(u8, u16, bool, OperationBody)>,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let operation = (
        0..3_u8,
        prop_oneof![3 => Just(0_u16), 1 => 0..4_u16, 1 => any::<u16>()],
        prop::bool::weighted(0.05),
        body(),
    );
    (
        0..4_u8,
        prop_oneof![6 => Just(0_i8), 1 => -2..3_i8],
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.95),
        prop::collection::vec(operation, 1..5),
    )
        .prop_map(|(client, shift, register, valid, operations)| Sketch {
            client,
            shift,
            register,
            valid,
            operations,
        })
}

fn envelope(chain: &Chain, next: &BTreeMap<SessionId, u64>, sketch: &Sketch) -> Envelope {
    let mut client = Client::new(chain.cluster(), 0, sketch.client);
    client.credentials = vec![root(), user(7, 8, &[9])];
    if sketch.register {
        return client.register(chain.genesis.time.plus(3600 * SECOND));
    }
    let expected = next.get(&client.session).copied().unwrap_or(1);
    let first = expected.saturating_add_signed(i64::from(sketch.shift));
    let make = |(credential, requires, at, body): &(u8, u16, bool, OperationBody)| Operation {
        credential: *credential,
        requires: *requires,
        at: at.then_some(Timestamp::default()),
        body: body.clone(),
    };
    let mut envelope = client.envelope_at(first, sketch.operations.iter().map(make).collect());
    if !sketch.valid {
        envelope.body.valid_until = BatchTime(0);
    }
    envelope
}

/// Every operation has one receipt; an envelope is executed whole exactly when it is the next of its session.
fn check_receipts(
    next: &mut BTreeMap<SessionId, u64>,
    envelopes: &[Envelope],
    executed: &quorate_execution::Executed,
) {
    let mut leaves = executed.receipts.leaves().iter();
    for envelope in envelopes {
        let body = &envelope.body;
        let mine: Vec<_> = leaves.by_ref().take(body.operations.len()).collect();
        let skipped = mine.iter().filter(|leaf| matches!(leaf.result, OperationResult::Skipped(_))).count();
        assert!(skipped == 0 || skipped == mine.len(), "an envelope is executed whole or not at all");
        for (index, leaf) in mine.iter().enumerate() {
            assert_eq!(leaf.sequence, body.first + index as u64);
            assert_eq!((leaf.session, leaf.envelope), (body.session, body.digest()));
        }
        let known = next.get(&body.session).copied();
        if skipped == 0 {
            assert_eq!(body.first, known.unwrap_or(0), "a number is consumed once, in order");
            next.insert(body.session, envelope.next());
        } else if known == Some(body.first) {
            let OperationResult::Skipped(reason) = &mine[0].result else { unreachable!() };
            // Only its validity, or the end of the session, keeps the next envelope from being executed.
            assert!(matches!(reason, SkipReason::Expired | SkipReason::UnknownSession), "{reason:?}");
        }
    }
    assert_eq!(leaves.count(), 0);
}

/// A pruned copy of the state gives the same header; one that holds less gives nothing, and none gives another.
fn check_stateless(chain: &Chain, before: &State, proposal: &Proposal, header: &Header) {
    let environment = chain.environment();
    let digest = header.proposal;
    let again =
        |copy: &[u8]| execute_stateless(&environment, before.header(), before.log(), copy, proposal, digest);
    let (copy, executed) = before.witness(&environment, header.height, proposal, digest).unwrap();
    assert_eq!(executed.state.header(), header);
    assert_eq!(again(&copy).as_ref(), Ok(header));
    let full = PartialTrie::decode(&copy).unwrap();
    let rows = before.rows().map(|(key, _)| Key(key));
    let rows: Vec<Key> = rows.filter(|key| matches!(full.get(key), Ok(Some(_)))).collect();
    for left_out in &rows {
        let mut touched = Touched::new();
        rows.iter().filter(|key| *key != left_out).for_each(|key| touched.key(*key));
        let fewer = full.prove(&touched).unwrap();
        let outcome = again(&fewer);
        assert!(
            outcome.as_ref() == Ok(header) || matches!(outcome, Err(StatelessFault::Incomplete(_))),
            "without {left_out:?}: {outcome:?}"
        );
    }
    for index in 0..copy.len() {
        let mut other = copy.clone();
        other[index] ^= 1;
        assert!(matches!(again(&other), Err(StatelessFault::Copy(_))), "byte {index}");
    }
}

/// The state again from its rows, as a replica that starts or was given the state would make it.
fn restored(state: &State, cluster: quorate_crypto::Hash) -> State {
    State::restore(cluster, state.header().clone(), state.log().clone(), state.rows()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn dt1_cl4_the_same_log_gives_the_same_headers_from_any_restored_height(
        batches in prop::collection::vec((0..30_u64, prop::collection::vec(sketch(), 0..6)), 1..12),
    ) {
        let mut chain = Chain::new();
        let mut other = Chain::new().state().clone();
        let mut next = BTreeMap::new();
        let mut rows: BTreeMap<_, _> = chain.state().rows().collect();
        for (seconds, sketches) in batches {
            let mut envelopes: Vec<Envelope> = Vec::new();
            for sketch in &sketches {
                let made = envelope(&chain, &next, sketch);
                if envelopes.iter().all(|known| known.body != made.body) {
                    envelopes.push(made);
                }
            }
            let proposal = chain.proposal(seconds * SECOND, envelopes.clone());
            let before = chain.state().clone();
            let executed = chain.step(seconds * SECOND, envelopes.clone());
            check_receipts(&mut next, &envelopes, &executed);
            check_stateless(&chain, &before, &proposal, executed.state.header());
            other = chain.execute_on(&restored(&other, chain.cluster()), &proposal).state;
            prop_assert_eq!(other.header(), executed.state.header());
            prop_assert_eq!(other.wake_at(), executed.wake_at);
            for (key, change) in &executed.changes {
                match change {
                    Some(value) => rows.insert(*key, value.clone()),
                    None => rows.remove(key),
                };
            }
            prop_assert!(executed.state.rows().eq(rows.clone()), "the changes are those of the rows");
            prop_assert_eq!(executed.state.row_count(), rows.len() as u64);
            for (session, moved) in &executed.advanced {
                prop_assert_eq!(next.get(session), Some(moved));
            }
        }
    }
}

#[test]
fn static_faults_are_found_without_the_state() {
    let mut chain = Chain::new();
    let client = chain.client(1);
    let null = || vec![operation(OperationBody::Null)];
    let envelope = client.envelope_at(1, null());
    let good = chain.proposal(1000, vec![envelope.clone()]);
    let height = chain.state().height() + 1;
    let check = |height: u64, proposal: &quorate_protocol::Proposal| {
        check_static(&chain.cluster(), chain.state().header(), height, proposal)
    };
    assert_eq!(check(height, &good), Ok(()));
    assert!(matches!(check(height + 1, &good), Err(StaticFault::Height { .. })));
    let changed = |change: &dyn Fn(&mut quorate_protocol::Proposal)| {
        let mut proposal = good.clone();
        change(&mut proposal);
        check(height, &proposal)
    };
    assert_eq!(changed(&|proposal| proposal.parent = [1; 32].into()), Err(StaticFault::Parent));
    let minimum = chain.state().minimum_time();
    assert_eq!(changed(&|proposal| proposal.time = minimum), Ok(()));
    let early = BatchTime(minimum.0 - 1);
    assert!(matches!(changed(&|proposal| proposal.time = early), Err(StaticFault::TimeTooEarly { .. })));
    let late = BatchTime(u64::MAX);
    assert_eq!(changed(&|proposal| proposal.time = late), Err(StaticFault::TimeTooLate(late)));
    let with = |envelopes: Vec<Envelope>| check(height, &chain.proposal(1000, envelopes));
    assert_eq!(with(vec![envelope.clone(), envelope.clone()]), Err(StaticFault::RepeatedEnvelope(1)));
    assert_eq!(with(vec![client.envelope_at(1, vec![])]), Err(StaticFault::EmptyEnvelope));
    let overflow = client.envelope_at(u64::MAX, null());
    assert_eq!(with(vec![overflow]), Err(StaticFault::SequenceOverflow(u64::MAX)));
    let mut foreign = envelope;
    foreign.body.cluster = [2; 32].into();
    assert_eq!(with(vec![foreign]), Err(StaticFault::ForeignCluster));
    let nulls = |first: u64| client.envelope_at(first, vec![operation(OperationBody::Null); 512]);
    let many = (0..17).map(|index| nulls(1 + index * 512)).collect();
    assert_eq!(with(many), Err(StaticFault::ProposalOperations(17 * 512)));
    let symlink = |index: u64| OperationBody::Symlink {
        parent: 1,
        name: name("s"),
        target: vec![b'x'; 4095].try_into().unwrap(),
        ino: Some(index),
        entropy: [0; 16],
    };
    let big = |count: u64| client.envelope_at(1, (0..count).map(|index| operation(symlink(index))).collect());
    assert!(matches!(with(vec![big(300)]), Err(StaticFault::EnvelopeBytes(bytes)) if bytes > 1 << 20));
    let five = (1..=5).map(|index| Envelope {
        body: quorate_protocol::EnvelopeBody { first: index, ..big(250).body },
        ..big(1)
    });
    assert!(matches!(with(five.collect()), Err(StaticFault::ProposalBytes(bytes)) if bytes > 4 << 20));
}

#[test]
fn what_is_not_the_certified_state_is_not_restored() {
    use quorate_execution::RestoreError;
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let envelope = client.envelope(vec![mkdir(1, "d", 0o755)]);
    chain.run(envelope);
    let state = chain.state().clone();
    let (header, log, cluster) = (state.header().clone(), state.log().clone(), chain.cluster());
    let rows = || state.rows();
    assert!(State::restore(cluster, header.clone(), log.clone(), rows()).is_ok());
    let refused = |result: Result<State, RestoreError>| result.err().unwrap();
    assert_eq!(
        refused(State::restore([0; 32].into(), header.clone(), log.clone(), rows())),
        RestoreError::ForeignCluster
    );
    let older = chain.states[chain.states.len() - 2].log().clone();
    assert_eq!(refused(State::restore(cluster, header.clone(), older, rows())), RestoreError::Log);
    let twice = rows().chain(rows().take(1));
    assert!(matches!(
        refused(State::restore(cluster, header.clone(), log.clone(), twice)),
        RestoreError::RepeatedRow(_)
    ));
    for skipped in 0..state.row_count() as usize {
        let fewer = rows().enumerate().filter(|(index, _)| *index != skipped).map(|(_, row)| row);
        assert!(matches!(
            refused(State::restore(cluster, header.clone(), log.clone(), fewer)),
            RestoreError::Root { .. }
        ));
    }
}
