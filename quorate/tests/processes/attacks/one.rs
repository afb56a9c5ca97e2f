//! One faulty replica of four, the first leader. Each run of the tests tries some kinds; `deploy/soak.sh
//! attacks` tries all of them, and pairs of seven, on a larger tree.

use super::{WORK, attack};
use quorate_replica::faults::KINDS;
use std::time::SystemTime;

/// Kinds in one run of the tests.
const KINDS_PER_RUN: usize = 3;
const DAY_SECONDS: u64 = 86_400;

/// A kind as it is given to `--fault`.
fn with_value(kind: &str) -> String {
    kind.replace("=ID", "=2").replace("=MS", "=300")
}

/// The kinds of this run: those of the variable QUORATE_ATTACKS, separated by commas, or those of the day.
fn kinds() -> Vec<String> {
    if let Ok(listed) = std::env::var("QUORATE_ATTACKS") {
        return listed.split(',').map(str::to_owned).collect();
    }
    let day = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / DAY_SECONDS;
    let first = usize::try_from(day).unwrap() * KINDS_PER_RUN;
    (first..first + KINDS_PER_RUN).map(|number| with_value(KINDS[number % KINDS.len()].0)).collect()
}

/// Tries the kinds of this run whose place is one of those of this test.
fn try_kinds(place: usize) {
    for kind in kinds().iter().skip(place).step_by(KINDS_PER_RUN) {
        try_one(kind);
    }
}

/// The work of a client while replica 0 is faulty.
fn try_one(kind: &str) {
    let attacked = attack(4, &[(0, kind)], WORK);
    attacked.stood();
    println!("evidence: {:?}", attacked.evidence());
    let caught = !attacked.caught().is_empty();
    match kind {
        "corrupt-proof" | "hide-entry" | "stale-reply" | "bad-signature" | "junk" => {
            assert!(caught, "the liar is not named: {}", attacked.ran.stderr);
        }
        _ => {}
    }
    let proven =
        |words: &str| attacked.evidence().iter().any(|(culprit, kind)| *culprit == 0 && kind.contains(words));
    match kind {
        "bad-signature" => assert!(attacked.is_logged("whose signature does not hold")),
        "equivocate" => assert!(proven("Conflicting"), "{:?}", attacked.evidence()),
        "time-liar" => assert!(proven("TimeRegression"), "{:?}", attacked.evidence()),
        "junk" => assert!(attacked.is_logged("a peer breaks the protocol")),
        _ => {}
    }
}

#[test]
fn the_first_attack_of_this_run() {
    try_kinds(0);
}

#[test]
fn the_second_attack_of_this_run() {
    try_kinds(1);
}

#[test]
fn the_third_attack_of_this_run() {
    try_kinds(2);
}

/// Two liars of seven: the pair of the variable QUORATE_PAIR, "KIND,KIND".
#[test]
fn two_of_seven() {
    let pair = std::env::var("QUORATE_PAIR").unwrap_or_else(|_| "equivocate,corrupt-proof".to_owned());
    let (first, second) = pair.split_once(',').expect("KIND,KIND");
    let attacked = attack(7, &[(0, first), (1, second)], WORK);
    attacked.stood();
    // The first leader gets its chance for sure; the second one only if it is its turn.
    let proven = |words: &str| attacked.evidence().iter().any(|(_, kind)| kind.contains(words));
    match first {
        "equivocate" => assert!(proven("Conflicting"), "{:?}", attacked.evidence()),
        "time-liar" => assert!(proven("TimeRegression"), "{:?}", attacked.evidence()),
        "stale-reply" => assert!(!attacked.caught().is_empty(), "{}", attacked.ran.stderr),
        _ => {}
    }
}
