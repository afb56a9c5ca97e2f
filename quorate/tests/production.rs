//! A production build has no fault injection in it. The same check on a build with the feature `faults` must
//! find it, so that it is known to be able to fail.
#![allow(missing_docs)]

use std::process::Command;

/// What a program that can be faulty on purpose contains.
const MARKER: &[u8] = b"this program can be faulty on purpose";
/// What a program contains whose consensus can be broken on purpose. That the simulator's has it with its feature
/// `mutants`, and only then, is a test of the simulator.
const MUTANTS: &[u8] = b"this consensus can be broken on purpose";
/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");
/// Whether it was built to be faulty on purpose.
const FAULTS: bool = cfg!(feature = "faults");

fn quorate(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM).args(arguments).env_remove("QUORATE_DIR").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn contains(marker: &[u8]) -> bool {
    let program = std::fs::read(PROGRAM).unwrap();
    let first = marker[0];
    let starts = program.iter().enumerate().filter(|(_, byte)| **byte == first);
    let mut starts = starts.map(|(at, _)| at);
    starts.any(|at| program[at..].starts_with(marker))
}

#[test]
fn the_marker_of_fault_injection_is_in_no_production_binary() {
    assert_eq!(contains(MARKER), FAULTS);
}

#[test]
fn no_build_of_the_program_has_a_consensus_that_can_be_broken() {
    assert!(!contains(MUTANTS));
}

#[cfg(feature = "faults")]
#[test]
fn the_marker_is_the_one_of_the_faults() {
    assert_eq!(quorate_replica::faults::MARKER.as_bytes(), MARKER);
}

#[test]
fn no_option_of_a_production_program_makes_a_replica_faulty() {
    for command in ["dev", "replica"] {
        let (code, help) = quorate(&[command, "--help"]);
        assert_eq!((code, help.contains("--fault")), (Some(0), FAULTS), "{help}");
    }
    for arguments in [
        ["replica", "--dir", "nowhere", "--fault", "slient"],
        ["dev", "--exec", "true", "--fault", "0=slient"],
    ] {
        let (code, text) = quorate(&arguments);
        assert_eq!(code, Some(2), "{text}");
        let expected =
            if FAULTS { "there is no fault kind `slient`" } else { "unexpected argument '--fault' found" };
        assert!(text.contains(expected), "{text}");
    }
}

#[cfg(feature = "faults")]
#[test]
fn the_help_lists_every_kind_and_errors_are_clear() {
    for command in ["dev", "replica"] {
        let (_, help) = quorate(&[command, "--help"]);
        for (name, what) in quorate_replica::faults::KINDS {
            assert!(help.contains(name) && help.contains(what), "{name}: {help}");
        }
    }
    for (fault, words) in [
        ("0", "neither ID=KIND nor ID=KIND=VALUE"),
        ("x=silent", "`x` is not the number of a replica"),
        ("0=slow-leader", "needs a value: slow-leader=MS"),
    ] {
        let (code, text) = quorate(&["dev", "--exec", "true", "--fault", fault]);
        assert!(code == Some(2) && text.contains(words), "{text}");
    }
    let (code, text) = quorate(&["dev", "--exec", "true", "--fault", "9=silent"]);
    assert!(code == Some(125) && text.contains("there is no replica 9"), "{text}");
}
