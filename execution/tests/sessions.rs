//! Sessions (rule R8): which envelopes are executed, which are skipped and why, and what numbers are consumed.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]

mod common;

use common::*;
use quorate_crypto::Bounded;
use quorate_execution::rows::{OUTCOMES_MAX, RECENT_MAX};
use quorate_execution::{Admission, BUDGET_ERRNO, Errno, REGISTRATION_VALIDITY_MAX};
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::{
    Credential, EnvelopeBody, Groups, Operation, OperationBody, OperationResult, Reply, SkipReason, Timestamp,
};

fn skipped(reason: SkipReason) -> OperationResult {
    OperationResult::Skipped(reason)
}

const EMPTY: OperationResult = OperationResult::Done(Reply::Empty);

#[test]
fn cl1_a_retry_is_a_duplicate_that_points_to_the_execution() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let envelope = client.envelope(vec![OperationBody::Null, mkdir(1, "d", 0o755)]);
    assert_eq!(chain.state().admission(&envelope), Admission::Executes);
    let first = chain.run(envelope.clone());
    assert!(matches!(first[..], [EMPTY, OperationResult::Done(Reply::Inode { .. })]));
    let executed = Some((chain.state().height(), 0));
    let root = chain.state().header().state_root;
    let again = chain.run(envelope.clone());
    assert_eq!(again, vec![skipped(SkipReason::Duplicate { executed }); 2]);
    assert_eq!(chain.state().header().state_root, root, "a duplicate changes nothing");
    assert_eq!(chain.state().session_next(&client.session), Some(3));
    assert_eq!(chain.state().admission(&envelope), Admission::Skipped(SkipReason::Duplicate { executed }));
    assert_eq!(chain.state().session_executed(&client.session, 2), executed);
    assert_eq!(chain.state().session_executed(&client.session, 3), None);
}

#[test]
fn cl2_different_envelopes_under_one_number_the_first_one_wins() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let one = client.envelope(vec![mkdir(1, "one", 0o755)]);
    let other = client.envelope_at(1, vec![operation(mkdir(1, "other", 0o755))]);
    let executed = chain.step(1000, vec![one, other]);
    let leaves = executed.receipts.leaves();
    assert!(matches!(leaves[0].result, OperationResult::Done(_)));
    let place = Some((executed.state.height(), 0));
    assert_eq!(leaves[1].result, skipped(SkipReason::Duplicate { executed: place }));
    assert_eq!(executed.advanced, vec![(client.session, 2)]);
    assert_eq!(executed.receipts.find(&client.session, 1), Some(0));
}

#[test]
fn cl3_gaps_overlaps_and_what_is_too_late_consume_nothing() {
    let mut chain = Chain::new();
    let client = chain.client(1);
    let null = || operation(OperationBody::Null);
    let gap = client.envelope_at(2, vec![null(), null()]);
    assert_eq!(chain.run(gap), vec![skipped(SkipReason::Gap { next: 1 }); 2]);
    assert_eq!(chain.run(client.envelope_at(1, vec![null(), null()])), vec![EMPTY; 2]);
    let overlap = client.envelope_at(2, vec![null(), null()]);
    assert_eq!(chain.run(overlap), vec![skipped(SkipReason::Overlap { next: 3 }); 2]);
    let mut late = client.envelope_at(3, vec![null()]);
    late.body.valid_until = chain.state().header().time;
    assert_eq!(chain.run(late.clone()), vec![skipped(SkipReason::Expired)]);
    late.body.valid_until = chain.state().header().time.plus(1000);
    assert_eq!(chain.run(late), vec![EMPTY], "valid until its very last nanosecond");
    assert_eq!(chain.state().session_next(&client.session), Some(4));
}

#[test]
fn unknown_sessions_foreign_keys_and_revoked_principals_are_skipped() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let stranger = Client::new(chain.cluster(), 0, 99);
    let null = || vec![operation(OperationBody::Null)];
    assert_eq!(chain.run(stranger.envelope_at(0, null())), vec![skipped(SkipReason::UnknownSession)]);
    let mut foreign = client.envelope_at(1, null());
    foreign.body.key = principal_secret(5).public();
    assert_eq!(chain.run(foreign), vec![skipped(SkipReason::WrongKey)]);
    let mut unknown = Client::new(chain.cluster(), 5, 1);
    let register = unknown.register(chain.state().header().time.plus(SECOND));
    assert_eq!(chain.run(register), vec![skipped(SkipReason::UnknownPrincipal)]);
    // Principal 5 comes, works, and is revoked.
    let key = principal_secret(5).public();
    let rights = PrincipalRights { administrator: false, ..anyone() };
    let put = client.envelope(vec![OperationBody::PutPrincipal { key, rights }]);
    assert_eq!(chain.run(put), vec![EMPTY]);
    let mut other = chain.client_of(5, 2);
    let envelope = other.envelope(vec![mkdir(1, "of5", 0o755)]);
    assert!(matches!(chain.run(envelope)[..], [OperationResult::Done(_)]));
    let remove = client.envelope(vec![OperationBody::RemovePrincipal { principal: 2 }]);
    assert_eq!(chain.run(remove), vec![EMPTY]);
    let late = other.envelope(vec![OperationBody::Null]);
    assert_eq!(chain.run(late), vec![skipped(SkipReason::UnknownPrincipal)]);
    assert_eq!(chain.state().principal_rights(&key), None);
}

#[test]
fn registrations_are_alone_their_own_and_bounded_in_time() {
    let mut chain = Chain::new();
    let now = chain.state().header().time;
    let registration = |nonce: u8| Client::new(chain.cluster(), 0, nonce).register(now.plus(SECOND));
    let bad = vec![skipped(SkipReason::BadRegistration)];
    let with = |change: &dyn Fn(&mut EnvelopeBody)| {
        let mut envelope = registration(1);
        change(&mut envelope.body);
        envelope
    };
    let candidates = [
        with(&|body| body.session = registration(2).body.session),
        with(&|body| body.first = 1),
        with(&|body| body.valid_until = now.plus(SECOND + REGISTRATION_VALIDITY_MAX)),
    ];
    let two = with(&|body| {
        let twice = [body.operations[0].clone(), operation(OperationBody::Null)];
        body.operations = Bounded::try_from(twice.to_vec()).unwrap();
    });
    let expired = with(&|body| body.valid_until = now);
    for candidate in candidates {
        assert_eq!(chain.run(candidate), bad);
    }
    assert_eq!(chain.run(two), vec![skipped(SkipReason::BadRegistration); 2]);
    assert_eq!(chain.run(expired), vec![skipped(SkipReason::Expired)]);
    // The first that is right has number 1; the next one 2.
    let mut client = Client::new(chain.cluster(), 0, 1);
    let register = client.register(chain.state().header().time.plus(SECOND));
    let registered = |session| vec![OperationResult::Done(Reply::Registered { session })];
    assert_eq!(chain.run(register.clone()), registered(1));
    let executed = Some((chain.state().height(), 0));
    assert_eq!(chain.run(register), vec![skipped(SkipReason::Duplicate { executed })]);
    let mut other = Client::new(chain.cluster(), 0, 2);
    let register = other.register(chain.state().header().time.plus(SECOND));
    assert_eq!(chain.run(register), registered(2));
    let misplaced = client.envelope(vec![OperationBody::Register { nonce: [1; 32] }]);
    assert_eq!(chain.run(misplaced), vec![OperationResult::Failed(Errno::EINVAL.number())]);
}

#[test]
fn a_session_remembers_its_last_envelopes_and_no_more() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let mut sent = Vec::new();
    for _ in 0..RECENT_MAX + 3 {
        let envelope = client.envelope(vec![OperationBody::Null]);
        assert_eq!(chain.run(envelope.clone()), vec![EMPTY]);
        sent.push((envelope, chain.state().height()));
    }
    let oldest = chain.run(sent[0].0.clone());
    assert_eq!(oldest, vec![skipped(SkipReason::Duplicate { executed: None })]);
    let (envelope, height) = &sent[3];
    let executed = Some((*height, 0));
    assert_eq!(chain.run(envelope.clone()), vec![skipped(SkipReason::Duplicate { executed })]);
}

#[test]
fn what_an_operation_requires_must_have_succeeded() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let requiring = |requires: u16, body: OperationBody| Operation { requires, ..operation(body) };
    let canceled = OperationResult::Failed(Errno::ECANCELED.number());
    // mkdir fails, so the rename that needs it is canceled, and so is what needs the rename.
    let envelope = client.operations(vec![
        operation(mkdir(1, "a", 0o755)),
        operation(mkdir(1, "a", 0o755)),
        requiring(1, mkdir(1, "b", 0o755)),
        requiring(1, OperationBody::Null),
        requiring(4, mkdir(1, "c", 0o755)),
    ]);
    let results = chain.run(envelope);
    assert_eq!(errno(&results[1]), Some(Errno::EEXIST.number()));
    assert_eq!(results[2..4], [canceled.clone(), canceled.clone()]);
    assert!(matches!(results[4], OperationResult::Done(_)));
    // Across envelopes, to the registration itself, before it, and beyond what is remembered.
    let envelope = client.operations(vec![
        requiring(1, OperationBody::Null),
        requiring(7, OperationBody::Null),
        requiring(9, OperationBody::Null),
        requiring(u16::MAX, OperationBody::Null),
    ]);
    assert_eq!(chain.run(envelope), vec![EMPTY, EMPTY, canceled.clone(), canceled.clone()]);
    let nulls = |count: usize| vec![OperationBody::Null; count];
    for _ in 0..3 {
        let envelope = client.envelope(nulls(512));
        assert_eq!(chain.run(envelope), vec![EMPTY; 512]);
    }
    let furthest = u16::try_from(OUTCOMES_MAX).unwrap();
    let envelope = client.operations(vec![
        requiring(furthest, OperationBody::Null),
        requiring(furthest + 1, OperationBody::Null),
    ]);
    assert_eq!(chain.run(envelope), vec![EMPTY, canceled]);
}

#[test]
fn times_of_the_client_are_refused_and_numbers_consumed() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let at = Some(Timestamp { seconds: 1, nanoseconds: 0 });
    let envelope = client.operations(vec![Operation { at, ..operation(OperationBody::Null) }]);
    assert_eq!(errno(&chain.run(envelope)[0]), Some(Errno::EOPNOTSUPP.number()));
    assert_eq!(chain.state().session_next(&client.session), Some(2));
}

#[test]
fn a_closed_session_answers_only_retries() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let close = client.envelope(vec![OperationBody::CloseSession, OperationBody::Null]);
    let results = chain.run(close.clone());
    assert_eq!(results[0], EMPTY);
    assert_eq!(errno(&results[1]), Some(Errno::EBADF.number()));
    assert_eq!(chain.state().session_next(&client.session), None);
    let executed = Some((chain.state().height(), 0));
    assert_eq!(chain.run(close), vec![skipped(SkipReason::Duplicate { executed }); 2]);
    let after = client.envelope(vec![OperationBody::Null]);
    assert_eq!(chain.run(after), vec![skipped(SkipReason::UnknownSession)]);
    let register = client.register(chain.state().header().time.plus(SECOND));
    assert!(matches!(chain.run(register)[..], [OperationResult::Skipped(SkipReason::Duplicate { .. })]));
}

#[test]
fn principals_act_only_as_whom_they_may() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let key = principal_secret(5).public();
    let rights = PrincipalRights {
        anyone: false,
        administrator: false,
        uids: Bounded::try_from(vec![10, 20]).unwrap(),
        gids: Bounded::try_from(vec![7, 8]).unwrap(),
        squash_root: Some((65534, 65534)),
        ..anyone()
    };
    let chmod = OperationBody::SetAttributes {
        ino: 1,
        mode: Some(0o777),
        uid: None,
        gid: None,
        size: None,
        atime: quorate_protocol::time::SetTime::Omit,
        mtime: quorate_protocol::time::SetTime::Omit,
        authority: quorate_protocol::operation::Authority::Check,
        token: None,
    };
    let put = OperationBody::PutPrincipal { key, rights: rights.clone() };
    let envelope = client.envelope(vec![put, chmod]);
    assert!(chain.run(envelope).iter().all(|result| matches!(result, OperationResult::Done(_))));
    let mut other = chain.client_of(5, 2);
    other.credentials = vec![
        user(10, 7, &[8]),
        user(30, 7, &[]),
        user(10, 9, &[]),
        user(10, 7, &[9]),
        Credential { uid: 20, gid: 8, groups: Groups::OfPrincipal },
        user(0, 0, &[1]),
        user(10, 7, &[8, 7]),
        user(u32::MAX, 7, &[]),
    ];
    let make =
        |index: u8| Operation { credential: index, ..operation(mkdir(1, &format!("d{index}"), 0o755)) };
    let mut operations: Vec<Operation> = (0..9).map(make).collect();
    operations.push(operation(OperationBody::PutPrincipal { key, rights }));
    operations.push(operation(OperationBody::RemovePrincipal { principal: 1 }));
    let results = chain.run(other.operations(operations));
    let owners: Vec<_> = results
        .iter()
        .map(|result| match result {
            OperationResult::Done(Reply::Inode { attributes, .. }) => Ok((attributes.uid, attributes.gid)),
            other => Err(errno(other).unwrap()),
        })
        .collect();
    let (eperm, einval) = (Err(Errno::EPERM.number()), Err(Errno::EINVAL.number()));
    let expected = [
        Ok((10, 7)),
        eperm,
        eperm,
        eperm,
        Ok((20, 8)),
        Ok((65534, 65534)),
        einval,
        einval,
        einval,
        eperm,
        eperm,
    ];
    assert_eq!(owners, expected);
}

#[test]
fn an_administrator_always_remains() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let own = client.key();
    let demoted = PrincipalRights { administrator: false, ..anyone() };
    let mut weak = [0_u8; 32];
    weak[0] = 1;
    let unsorted = PrincipalRights { uids: Bounded::try_from(vec![2, 1]).unwrap(), ..anyone() };
    let envelope = client.envelope(vec![
        OperationBody::PutPrincipal { key: own, rights: demoted },
        OperationBody::RemovePrincipal { principal: 1 },
        OperationBody::RemovePrincipal { principal: 77 },
        OperationBody::PutPrincipal { key: quorate_crypto::PublicKey(weak), rights: anyone() },
        OperationBody::PutPrincipal { key: principal_secret(3).public(), rights: unsorted },
        OperationBody::PutPrincipal { key: own, rights: anyone() },
    ]);
    let results: Vec<_> = chain.run(envelope).iter().map(errno).collect();
    let number = |errno: Errno| Some(errno.number());
    let expected = [
        number(Errno::EBUSY),
        number(Errno::EBUSY),
        number(Errno::ENOENT),
        number(Errno::EINVAL),
        number(Errno::EINVAL),
        None,
    ];
    assert_eq!(results, expected);
}

#[test]
fn operations_of_one_batch_have_ascending_times_and_numbers() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let before = chain.state().next_operation();
    let gap = client.envelope_at(50, vec![operation(OperationBody::Null); 3]);
    let envelope = client.envelope(vec![mkdir(1, "a", 0o755), OperationBody::Null, mkdir(1, "b", 0o755)]);
    let executed = chain.step(1000, vec![gap, envelope]);
    let inode = |index: usize| match &executed.receipts.leaves()[index].result {
        OperationResult::Done(Reply::Inode { attributes, .. }) => attributes.clone(),
        other => panic!("{other:?}"),
    };
    let header = executed.state.header();
    // The three skipped operations count.
    for (index, made) in [(3, inode(3)), (5, inode(5))] {
        assert_eq!(made.version, before + index);
        assert_eq!(made.ctime, header.time.plus(index).timestamp());
    }
    assert_eq!((header.first_operation, header.operation_count), (before, 6));
    assert_eq!(executed.state.minimum_time(), header.time.plus(6));
}

/// A chain of directories below the root, `d` in each; returns their inodes from the top.
fn nested(chain: &mut Chain, client: &mut Client, depth: usize) -> Vec<u64> {
    let mut inodes = vec![1];
    while inodes.len() <= depth {
        let first = chain.state().row(&quorate_metadata::keys::counter(quorate_metadata::keys::Counter::Ino));
        let value = first.unwrap();
        let next = u64::from_le_bytes(value[1..9].try_into().unwrap());
        let count = (depth + 1 - inodes.len()).min(512);
        let parent = *inodes.last().unwrap();
        let parents = std::iter::once(parent).chain(next..).take(count);
        let envelope = client.envelope(parents.map(|parent| mkdir(parent, "d", 0o755)).collect());
        assert!(chain.run(envelope).iter().all(|result| matches!(result, OperationResult::Done(_))));
        inodes.extend(next..next + count as u64);
    }
    inodes
}

/// Moves `x` between the two deepest directories, each time seeing that it is no ancestor of either.
fn moves(inodes: &[u64], count: usize) -> Vec<OperationBody> {
    let [.., one, other] = inodes else { unreachable!() };
    let ends = [(*one, *other), (*other, *one)];
    let rename = |(parent, new_parent)| OperationBody::Rename {
        parent,
        name: name("x"),
        new_parent,
        new_name: name("x"),
        mode: quorate_protocol::operation::RenameMode::Replace,
    };
    ends.into_iter().cycle().map(rename).take(count).collect()
}

/// A14: what executing may cost is bounded for operation, envelope and batch.
#[test]
fn the_budget_of_a_batch_skips_envelopes_and_keeps_their_numbers() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let inodes = nested(&mut chain, &mut client, 300);
    let envelope = client.envelope(vec![mkdir(inodes[299], "x", 0o755)]);
    chain.run(envelope);
    let clients: Vec<Client> = (2..10).map(|nonce| chain.client(nonce)).collect();
    let heavy =
        |client: &Client| client.envelope_at(1, moves(&inodes, 512).into_iter().map(operation).collect());
    let executed = chain.step(1000, clients.iter().map(heavy).collect());
    let done = executed.advanced.len();
    assert!((2..8).contains(&done), "{done} envelopes were executed");
    for (index, client) in clients.iter().enumerate() {
        let result = &executed.receipts.leaves()[index * 512].result;
        let expected = if index < done { 513 } else { 1 };
        assert_eq!(executed.state.session_next(&client.session), Some(expected));
        assert_eq!(*result == skipped(SkipReason::Budget), index >= done, "{result:?}");
    }
    // What was skipped is executed as soon as there is room.
    assert_eq!(chain.state().admission(&heavy(&clients[7])), Admission::Executes);
}

#[test]
fn the_budget_of_an_envelope_fails_operations_and_consumes_their_numbers() {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let inodes = nested(&mut chain, &mut client, 900);
    let envelope = client.envelope(vec![mkdir(inodes[899], "x", 0o755)]);
    chain.run(envelope);
    let envelope = client.envelope(moves(&inodes, 512));
    let results: Vec<_> = chain.run(envelope).iter().map(errno).collect();
    let done = results.iter().take_while(|errno| errno.is_none()).count();
    assert!((100..400).contains(&done), "{done} operations were done");
    assert_eq!(results[done], Some(BUDGET_ERRNO.number()));
    assert_eq!(chain.state().session_next(&client.session), Some(client.next));
    // Nothing of the failed one was kept: the next envelope finds `x` where the last good one put it.
    let [.., one, other] = inodes[..] else { unreachable!() };
    let place = if done % 2 == 0 { one } else { other };
    let envelope = client.envelope(vec![OperationBody::Rmdir { parent: place, name: name("x") }]);
    assert_eq!(chain.run(envelope).iter().map(errno).collect::<Vec<_>>(), vec![None]);
}
