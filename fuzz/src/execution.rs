//! Batches of operations out of an input, on a small filesystem with three clients.
//!
//! Properties: no batch panics; executing it twice gives one header; every operation has one receipt, and no
//! (session, sequence) is executed twice (CL1); sequence numbers advance by rule R8; the rows alone lead to the
//! certified root (DT1); after all, every count, link and mark in the rows adds up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use quorate_crypto::Bounded;
use quorate_execution::{Executed, State};
use quorate_metadata::keys;
use quorate_protocol::{BatchTime, Envelope, OperationResult, Proposal, SessionId};

use crate::chain::{self, Chain, Client, SECOND};
use crate::check;
use crate::generate::{Surroundings, operation};
use crate::memory::bounded;
use crate::source::Source;
use crate::support::{Rows, World};

/// Batches of one input.
const BATCHES_MAX: usize = 8;
/// What a run may hold: some batches of at most a few dozen operations, and what they leave in the state.
const BYTES_MAX: usize = 64 << 20;

/// The chain that every input begins with.
pub struct Base {
    pub chain: Chain,
    pub clients: [Client; 3],
}

/// A cluster with two sessions of the first principal, which may act as anyone, and one of a second principal,
/// which may act as 1000 and 1001.
pub fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let mut chain = Chain::new();
        let mut first = chain.client(1);
        let rights = quorate_protocol::operation::PrincipalRights {
            anyone: false,
            administrator: false,
            auditor: false,
            uids: Bounded::try_from(vec![1000, 1001]).expect("few identities"),
            gids: Bounded::try_from(vec![100, 1000]).expect("few identities"),
            squash_root: Some((65_534, 65_534)),
            realms: Bounded::new(),
        };
        let key = chain::principal_secret(1).public();
        let put = quorate_protocol::OperationBody::PutPrincipal { key, rights };
        let put = first.envelope(vec![put]);
        assert!(matches!(chain.run(put)[..], [OperationResult::Done(_)]));
        let mut clients = [first, chain.client(2), chain.client_of(1, 3)];
        for client in &mut clients {
            client.credentials = vec![
                chain::root(),
                chain::user(1000, 100, &[5]),
                chain::user(1001, 1000, &[]),
                chain::user(7, 7, &[]),
            ];
        }
        Base { chain, clients }
    })
}

fn envelope(source: &mut Source<'_>, state: &State, next: &BTreeMap<SessionId, u64>) -> Envelope {
    let base = base();
    let client = &base.clients[source.below(3)];
    let around =
        Surroundings { cluster: base.chain.cluster(), session: client.session, time: state.header().time };
    let operations = (0..1 + source.below(5)).map(|_| operation(source, &around)).collect();
    let expected = next.get(&client.session).copied().unwrap_or(client.next);
    let first = match source.below(12) {
        0 => expected.wrapping_sub(u64::from(source.byte())),
        1 => expected.saturating_add(u64::from(source.byte())),
        _ => expected,
    };
    let mut envelope = client.envelope_at(first, operations);
    if source.below(12) == 0 {
        envelope.body.valid_until = BatchTime(source.number());
    }
    if source.below(16) == 0 {
        envelope.body.key = chain::principal_secret(source.byte() % 3).public();
    }
    envelope
}

fn batch(source: &mut Source<'_>, state: &State, next: &mut BTreeMap<SessionId, u64>) -> Proposal {
    let after = source.choose(&[1, 1000, SECOND, 70 * SECOND, 7200 * SECOND]);
    let time = BatchTime(state.header().time.0.saturating_add(after)).max(state.minimum_time());
    let mut envelopes = Vec::new();
    for _ in 0..source.below(4) {
        let envelope = envelope(source, state, next);
        let expected = next.entry(envelope.body.session).or_insert(envelope.body.first);
        if *expected == envelope.body.first {
            *expected = envelope.next();
        }
        envelopes.push(envelope);
    }
    Proposal { parent: state.header().proposal, time, envelopes: Bounded::try_from(envelopes).expect("few") }
}

/// The receipts of one batch.
fn check_receipts(executed: &Executed, parent: &State, done: &mut BTreeSet<(SessionId, u64)>) {
    let leaves = executed.receipts.leaves();
    let header = executed.state.header();
    assert_eq!(leaves.len(), header.operation_count as usize, "one receipt for each operation");
    assert_eq!(executed.receipts.root(), header.receipts_root);
    assert_eq!(header.first_operation, parent.next_operation());
    assert_eq!(header.state_root, executed.state.trie().root());
    for leaf in leaves {
        if !matches!(leaf.result, OperationResult::Skipped(_)) {
            assert!(done.insert((leaf.session, leaf.sequence)), "executed twice (CL1): {leaf:?}");
        }
    }
    for (session, next) in &executed.advanced {
        assert!(executed.state.session_next(session).is_none_or(|known| known == *next));
        assert!(parent.session_next(session).is_none_or(|before| before < *next), "numbers go up");
    }
}

/// All rows of the filesystem, checked from scratch; those of sessions and principals are the executor's.
fn check_rows(state: &State) {
    let of_the_executor = [
        keys::TABLE_SESSIONS,
        keys::TABLE_SESSION_IDS,
        keys::TABLE_PRINCIPALS,
        keys::TABLE_PRINCIPAL_KEYS,
        keys::TABLE_DEADLINES,
        keys::TABLE_MEMBERS,
        quorate_execution::rows::TABLE_OUTAGE,
    ];
    let ours = |key: &quorate_metadata::Key| key[0] != 0xff || !of_the_executor.contains(&key[8]);
    let rows = state.rows().filter(|(key, _)| ours(key)).collect();
    check::consistent(&World { view: Rows { rows } });
}

pub fn execution(data: &[u8]) {
    let base = base();
    bounded(BYTES_MAX, || run(&mut Source::new(data), base));
}

fn run(source: &mut Source<'_>, base: &Base) {
    let mut state = base.chain.state().clone();
    let mut done = BTreeSet::new();
    let mut next: BTreeMap<SessionId, u64> =
        base.clients.iter().map(|client| (client.session, client.next)).collect();
    for _ in 0..BATCHES_MAX {
        if source.is_empty() {
            break;
        }
        let proposal = batch(source, &state, &mut next);
        let height = state.height() + 1;
        let digest = proposal.digest(&base.chain.cluster(), 0, height);
        let environment = base.chain.environment();
        let executed = state.execute(&environment, height, &proposal, digest);
        let again = state.execute(&environment, height, &proposal, digest);
        let (executed, again) = match (executed, again) {
            (Ok(executed), Ok(again)) => (executed, again),
            (first, second) => {
                assert_eq!(first.err(), second.err(), "one verdict");
                continue;
            }
        };
        assert_eq!(executed.state.hash(), again.state.hash(), "one batch, two headers (DT1)");
        assert_eq!(executed.receipts.leaves(), again.receipts.leaves());
        check_receipts(&executed, &state, &mut done);
        for (session, known) in &mut next {
            if let Some(number) = executed.state.session_next(session) {
                *known = number;
            }
        }
        state = executed.state;
    }
    let log = state.log().clone();
    let restored = State::restore(base.chain.cluster(), state.header().clone(), log, state.rows());
    assert_eq!(restored.map(|restored| restored.hash()), Ok(state.hash()), "the rows lead to the root");
    check_rows(&state);
}
