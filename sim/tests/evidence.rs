//! Liars are convicted by what they sign, and what correct replicas sign convicts nobody.
//!
//! Invariant: the auditor's verifier judges every piece of evidence of every simulated run; a piece that
//! convinces it of a correct replica's guilt, or does not convince it, fails the run.

use std::collections::BTreeMap;

use quorate_protocol::EvidenceKind;
use quorate_sim::byzantine::Behaviour;
use quorate_sim::plan::Plan;
use quorate_sim::run::run_plan;
use quorate_sim::trace::Story;

/// What replicas show against one that behaves so, over some seeds.
fn shown(seeds: u64, behaviour: impl Fn(&Plan) -> Behaviour) -> BTreeMap<EvidenceKind, u64> {
    let mut all = BTreeMap::new();
    for seed in 0..seeds {
        let plan = Plan::new(seed);
        let byzantine = [(0, behaviour(&plan))].into();
        let outcome = run_plan(plan.with_liars(byzantine), Story::Silent);
        assert_eq!(outcome.failure, None, "seed {seed}");
        for (kind, count) in outcome.evidence {
            *all.entry(kind).or_default() += count;
        }
    }
    all
}

#[test]
fn a6_who_equivocates_is_named_although_nobody_is_told_both() {
    // Each replica is sent one of the faces only.
    let kinds = shown(40, |plan| Behaviour::Equivocating(((1 << plan.n) - 2) & 0b1010));
    assert!(kinds.get(&EvidenceKind::ConflictingPrePrepare).is_some_and(|count| *count > 20), "{kinds:?}");
}

#[test]
fn a10_who_forgets_its_votes_is_named() {
    let kinds = shown(60, |_| Behaviour::Forgetting);
    assert!(!kinds.is_empty(), "{kinds:?}");
}

#[test]
fn vc3_who_claims_less_than_it_signed_is_named() {
    let kinds = shown(40, |_| Behaviour::ClaimingNothing);
    assert!(kinds.get(&EvidenceKind::ViewChangeOmission).is_some_and(|count| *count > 20), "{kinds:?}");
}

#[test]
fn small_changes_to_signed_messages_are_named_by_kind() {
    let kinds = shown(80, |_| Behaviour::Mutating);
    for kind in [
        EvidenceKind::ConflictingPrePrepare,
        EvidenceKind::ConflictingPrepare,
        EvidenceKind::ConflictingCommit,
        EvidenceKind::TimeRegression,
        EvidenceKind::UnfoundedCommit,
    ] {
        assert!(kinds.contains_key(&kind), "{kind}: {kinds:?}");
    }
}

#[test]
fn forged_signatures_and_silence_are_no_evidence() {
    let kinds = shown(30, |plan| Behaviour::Forging((1 << plan.n) - 2));
    assert_eq!(kinds, BTreeMap::new());
    let kinds = shown(30, |plan| Behaviour::Withholding((1 << plan.n) - 2));
    assert_eq!(kinds, BTreeMap::new());
}

#[test]
fn nothing_that_correct_replicas_sign_convicts_one_of_them() {
    let mut tried = 0;
    for seed in (0..400).step_by(8) {
        let outcome = run_plan(Plan::new(seed), Story::Silent);
        assert_eq!(outcome.failure, None, "seed {seed}");
        tried += outcome.framings;
    }
    assert!(tried > 50_000, "only {tried} attempts");
}
