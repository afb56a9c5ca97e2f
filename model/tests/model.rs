//! Every configuration holds and every mutant is found: the same that `quorate-model check --all` says.
#![allow(missing_docs)]

use quorate_model::checks::{GOOD, MUTANTS, find};
use quorate_model::rules::{Configuration, Durability, Mutant};
use quorate_model::search::{after, search};
use quorate_model::state::State;
use quorate_model::step::{Action, Model};
use quorate_model::story;

/// All that the configuration should have met was met, so that "holds" says something.
fn holds(name: &str) {
    let configuration = find(name).unwrap();
    let report = search(&Model::new(configuration));
    if let Some(actions) = &report.fork {
        panic!("{name} forks:\n{}", story::tell(&Model::new(configuration), actions));
    }
    let marks = report.marks;
    assert!(marks.top_committed && marks.committed_in_last_view && marks.many_bases, "{name}: {marks:?}");
    assert!(marks.prepared_dropped, "{name}: {marks:?}");
    let restarts = configuration.durability == Durability::OneSync && configuration.crashes > 0;
    assert_eq!(marks.mute_committed, restarts, "{name}: {marks:?}");
    assert_eq!(marks.adopted, configuration.adoption, "{name}: {marks:?}");
}

/// A mutant forks, its run can be replayed, and the same bounds without it hold.
fn found(name: &str) {
    let configuration = find(name).unwrap();
    let model = Model::new(configuration);
    let report = search(&model);
    let actions = report.fork.as_deref().unwrap_or_else(|| panic!("{name} was not found"));
    let mut state = State::initial(&configuration);
    for action in actions {
        assert!(state.fork(&configuration).is_none());
        state = after(&model, &state, *action).expect("a step that is possible");
    }
    assert!(state.fork(&configuration).is_some());
    assert!(story::tell(&model, actions).contains("FORK at height"));
    let sound = search(&Model::new(Configuration { mutant: None, ..configuration }));
    assert!(sound.fork.is_none(), "{name} forks without its mutant");
}

macro_rules! checks {
    ($check:ident: $($test:ident $name:literal,)*) => { $(#[test] fn $test() { $check($name); })* };
}

checks!(holds:
    one_sync_2x4 "one-2x4",
    one_sync_2x3 "one-2x3",
    one_sync_3x2 "one-3x2",
    one_sync_1x6 "one-1x6",
    one_sync_learning_2x3 "one-learn-2x3",
    one_sync_learning_1x4 "one-learn-1x4",
    one_sync_plain_2x2 "one-plain-2x2",
    one_sync_plain_1x4 "one-plain-1x4",
    two_syncs_2x5 "two-2x5",
    two_syncs_learning_2x3 "two-learn-2x3",
    two_syncs_learning_1x4 "two-learn-1x4",
);

checks!(found:
    m1_fork_a "upward-again",
    m2 "prepares-again",
    m3_fork_b "pulled-back",
    fork_c "views-combined",
    quorum_minus_one "smaller-quorum",
    claim_dropped "claim-dropped",
    commit_before_sync "commit-before-sync",
    view_change_before_sync "view-change-before-sync",
    two_syncs_prepare_before_sync "two-prepare-before-sync",
    two_syncs_commit_before_sync "two-commit-before-sync",
    two_syncs_view_change_before_sync "two-view-change-before-sync",
);

/// Without reductions each mutant is found as well, in as few steps.
#[test]
fn reductions_hide_no_shorter_fork() {
    for configuration in MUTANTS {
        let steps = |plain| {
            let model = Model::new(Configuration { plain, ..configuration });
            search(&model).fork.map(|actions| actions.len())
        };
        assert!(steps(false).is_some());
        assert_eq!(steps(false), steps(true), "{}", configuration.name);
    }
}

#[test]
fn every_mutant_is_listed() {
    let all = [
        Mutant::UpwardAgain,
        Mutant::PreparesAgain,
        Mutant::PulledBack,
        Mutant::SmallerQuorum,
        Mutant::CommitBeforeSync,
        Mutant::ViewChangeBeforeSync,
        Mutant::ClaimDropped,
        Mutant::ViewsCombined,
    ];
    assert!(all.iter().all(|mutant| MUTANTS.iter().any(|known| known.mutant == Some(*mutant))));
    assert!(GOOD.iter().all(|known| known.mutant.is_none()));
}

/// Follows one schedule, step by step, to its fork.
fn follow(name: &str, schedule: &[Action]) {
    let configuration = find(name).unwrap();
    let model = Model::new(configuration);
    let mut state = State::initial(&configuration);
    for (index, action) in schedule.iter().enumerate() {
        assert!(state.fork(&configuration).is_none(), "forked before step {index}");
        state = after(&model, &state, *action).unwrap_or_else(|| panic!("step {index} is not possible"));
    }
    assert!(state.fork(&configuration).is_some(), "no fork");
    let sound = Model::new(Configuration { mutant: None, ..configuration });
    let mut state = State::initial(sound.configuration());
    let possible = schedule.iter().all(|action| match after(&sound, &state, *action) {
        Some(next) => {
            state = next;
            true
        }
        None => false,
    });
    let forks = possible && state.fork(sound.configuration()).is_some();
    assert!(!forks, "the schedule forks without the mutant");
}

const fn prepare(replica: usize, header: u8) -> Action {
    Action::Prepare { replica, header, base: None }
}

const fn enter(replica: usize, base: u8, header: u8) -> Action {
    Action::Prepare { replica, header, base: Some(base) }
}

const fn commit(replica: usize, header: u8) -> Action {
    Action::Commit { replica, header }
}

/// Fork B as docs/MODEL.md tells it: two replicas send VIEW-CHANGE, are taken back by a commit certificate
/// and commit the next height; the new leader uses their old VIEW-CHANGEs.
#[test]
fn fork_b_with_two_replicas_pulled_back() {
    let (a, aa, ab) = (1, 3, 4);
    follow(
        "pulled-back",
        &[
            enter(0, 0, a),
            enter(1, 0, a),
            commit(0, a),
            commit(1, a),
            Action::Leave { replica: 0 },
            Action::Leave { replica: 1 },
            Action::Return { replica: 0, header: a },
            Action::Return { replica: 1, header: a },
            prepare(0, aa),
            prepare(1, aa),
            commit(0, aa),
            commit(1, aa),
            Action::NextView,
            enter(0, a, a),
            enter(1, a, a),
            prepare(0, ab),
            prepare(1, ab),
            commit(0, ab),
            commit(1, ab),
        ],
    );
}
