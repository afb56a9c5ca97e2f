//! What auditors use: all that the state holds, each operation of a batch as it is applied, states of the past, and
//! geneses and frontiers that are refused.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]

mod common;

use common::*;
use quorate_crypto::Bounded;
use quorate_execution::{
    Answer, Changes, Errno, GenesisError, RestoreError, State, StatelessFault, Watch, check_answer,
    execute_stateless,
};
use quorate_metadata::{View, keys};
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::query::Query;
use quorate_protocol::{BatchTime, Genesis, OperationResult};

/// A chain with one directory, and a batch that makes two more things in it.
fn work() -> (Chain, quorate_protocol::Proposal) {
    let mut chain = Chain::new();
    let mut client = chain.client(1);
    let envelope = client.envelope(vec![mkdir(1, "a", 0o700)]);
    assert!(matches!(chain.run(envelope)[..], [OperationResult::Done(_)]));
    let envelope = client.envelope(vec![mkdir(2, "b", 0o700), create(2, "c", 0o600), mkdir(2, "b", 0o700)]);
    let proposal = chain.proposal(1000, vec![envelope]);
    (chain, proposal)
}

#[test]
fn root_sees_all_that_is_there_and_nothing_else() {
    let (mut chain, proposal) = work();
    let executed = chain.execute_on(chain.state(), &proposal);
    chain.states.push(executed.state);
    let state = chain.state();
    let attributes = |ino| state.inspect(&Query::Attributes { ino }).unwrap();
    let Ok(Answer::Attributes(found)) = attributes(4) else { panic!("no file") };
    assert_eq!(found.mode, 0o600);
    assert_eq!(attributes(5), Err(Errno::ESTALE), "the third operation failed");
    // It is what is proven to a client that is root.
    let (key, query) = (principal_secret(0).public(), Query::Lookup { parent: 2, name: name("c") });
    let answered = state.answer(&key, &root(), &query).unwrap();
    assert_eq!(state.inspect(&query).unwrap(), answered.outcome);
    let checked = check_answer(state.header(), &answered.proof, &key, &root(), &query);
    assert_eq!(checked, Ok(answered.outcome));
    assert_eq!(state.totals().inodes, 4);
    assert_eq!(state.as_view().get(&keys::totals()).unwrap(), state.row(&keys::totals()));
}

#[derive(Default)]
struct Seen(Vec<(u32, Changes, u64)>);

impl Watch for Seen {
    fn applied(&mut self, index: u32, changes: &Changes, after: &dyn View) {
        let inodes = quorate_metadata::rows::get::<quorate_metadata::rows::Totals>(after, &keys::totals())
            .unwrap()
            .unwrap();
        self.0.push((index, changes.clone(), inodes.inodes));
    }
}

#[test]
fn who_looks_on_sees_every_operation_and_changes_nothing() {
    let (chain, proposal) = work();
    let (before, after) = (chain.state(), chain.execute_on(chain.state(), &proposal));
    let mut seen = Seen::default();
    let digest = after.state.header().proposal;
    let watched = before
        .execute_watched(&chain.environment(), before.height() + 1, &proposal, digest, &mut seen)
        .unwrap();
    assert_eq!(watched.state.header(), after.state.header());
    let seen = seen.0;
    let steps: Vec<_> = seen.iter().map(|(index, _, inodes)| (*index, *inodes)).collect();
    assert_eq!(steps, [(0, 3), (1, 4)], "those that were applied, with the state after each");
    assert!(seen[0].1.contains_key(&keys::inode(3)) && seen[1].1.contains_key(&keys::inode(4)));
}

#[test]
fn a_past_state_answers_as_it_did_then() {
    let (chain, proposal) = work();
    let (before, after) = (chain.state(), chain.execute_on(chain.state(), &proposal).state);
    let touched = after.rows().filter(|(key, value)| before.row(key).as_ref() != Some(value));
    let undo: Changes = touched.map(|(key, _)| (key, before.row(&key))).collect();
    let past = after.rewound(before.header().clone(), &undo).unwrap();
    assert_eq!(past.header(), before.header());
    let (key, query) = (principal_secret(0).public(), Query::Lookup { parent: 2, name: name("c") });
    let answered = past.answer(&key, &root(), &query).unwrap();
    assert_eq!(answered.outcome, Err(Errno::ENOENT));
    assert!(check_answer(past.header(), &answered.proof, &key, &root(), &query).is_ok());
    let text = format!("{past:?} {before:?}");
    assert!(text.contains(&format!("height {}", before.height())), "{text}");
    // One row short, or another cluster's header.
    let mut fewer = undo.clone();
    fewer.pop_first();
    assert!(matches!(after.rewound(before.header().clone(), &fewer), Err(RestoreError::Root { .. })));
    let mut foreign = before.header().clone();
    foreign.cluster = quorate_crypto::Hash([7; 32]);
    assert!(matches!(after.rewound(foreign, &undo), Err(RestoreError::ForeignCluster)));
}

#[test]
fn a_log_frontier_of_another_height_is_refused() {
    let (chain, proposal) = work();
    let (before, environment) = (chain.state(), chain.environment());
    let digest = proposal.digest(&chain.cluster(), chain.members.epoch(), before.height() + 1);
    let (copy, executed) = before.witness(&environment, before.height() + 1, &proposal, digest).unwrap();
    let again = |log| execute_stateless(&environment, before.header(), log, &copy, &proposal, digest);
    assert_eq!(again(before.log()).as_ref(), Ok(executed.state.header()));
    for state in [&chain.states[0], &executed.state] {
        assert_eq!(again(state.log()), Err(StatelessFault::Log));
    }
}

#[test]
fn a_genesis_out_of_bounds_is_refused_by_name() {
    let refused = |change: fn(&mut Genesis)| {
        let mut other = genesis();
        change(&mut other);
        State::genesis(&other).map(drop).unwrap_err()
    };
    assert_eq!(refused(|genesis| genesis.version += 1), GenesisError::Version(genesis().version + 1));
    let late = BatchTime(u64::MAX);
    assert_eq!(refused(|genesis| genesis.time = BatchTime(u64::MAX)), GenesisError::Time(late));
    let twice = |genesis: &mut Genesis| {
        let uids = Bounded::try_from(vec![7, 7]).unwrap();
        genesis.rights = PrincipalRights { anyone: false, uids, ..anyone() };
    };
    assert_eq!(refused(twice), GenesisError::Rights);
    type Change = fn(&mut Genesis);
    let parameters: [(&str, Change); 6] = [
        ("rules_version", |genesis| genesis.parameters.rules_version += 1),
        ("window", |genesis| genesis.parameters.window = 0),
        ("block_log2", |genesis| genesis.parameters.block_log2 = 63),
        ("inline_bytes_max", |genesis| genesis.parameters.inline_bytes_max = u32::MAX),
        ("session_lifetime", |genesis| genesis.parameters.session_lifetime = 0),
        ("reclaim_rows_per_batch", |genesis| genesis.parameters.reclaim_rows_per_batch = 0),
    ];
    for (parameter, change) in parameters {
        assert_eq!(refused(change), GenesisError::Parameter(parameter));
    }
}
