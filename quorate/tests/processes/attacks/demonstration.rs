//! The demonstration: four replicas, of which one hides directory entries from clients and another signs two COMMITs
//! for one height. The mount never shows a lie, and a stranger who has two files and no network convicts the second by
//! name.
//!
//! Two of four are faulty, one more than consensus survives; but the one that lies to clients votes as it should, and
//! the one that votes twice answers as it should.

use super::attack;
use crate::harness::{PATIENCE, PROGRAM, Ran, quorate, run};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Who hides entries, and who signs twice.
const HIDES: u8 = 2;
const SIGNS_TWICE: u8 = 1;

/// Directories are listed again and again while they grow and shrink: nothing that is there may be missing, and nothing
/// that is gone may be shown. Each listing is that of a process of its own.
const LISTINGS: &str = r#"
    mkdir many few
    touch few/only
    for number in {1..60}; do
        touch "many/$number"
        [ "$(ls many | wc -l)" = "$number" ] || { echo "many: $(ls many | wc -l) of $number" >&2; exit 8; }
        [ "$(ls few)" = only ] || { echo "few: $(ls few)" >&2; exit 8; }
        [ "$(ls)" = $'few\nmany' ] || { echo "root: $(ls)" >&2; exit 8; }
        [ -e few/only ] && [ ! -e few/other ] || { echo "few/only is hidden" >&2; exit 8; }
    done
    rm many/{1..30}
    [ "$(ls many | sort -n | tr '\n' ' ')" = "$(seq -s ' ' 31 60) " ]"#;

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", ran.stdout, ran.stderr))
}

/// `quorate audit check` in a network namespace of its own, in which there is nothing, and where no file of the cluster
/// can be named.
fn stranger(directory: &Path, output: &str) -> Ran {
    let mut command = Command::new("unshare");
    command.args([
        "--map-root-user",
        "--net",
        PROGRAM,
        "audit",
        "check",
        "piece",
        "--policy",
        "policy",
        "--output",
        output,
    ]);
    command.current_dir(directory).env_clear().env("PATH", "/usr/bin:/bin");
    run(&mut command, PATIENCE)
}

#[test]
fn a_hidden_entry_is_never_shown_and_who_signs_twice_is_convicted_by_a_stranger() {
    let attacked = attack(4, &[(SIGNS_TWICE, "equivocate"), (HIDES, "hide-entry")], LISTINGS);
    attacked.stood();
    assert!(attacked.caught().contains(&HIDES), "the liar is not named: {}", attacked.ran.stderr);

    // What a correct replica holds against the other one.
    let cluster = attacked.directory.join("cluster.toml");
    let held = |arguments: &[&str]| {
        let mut command = quorate(["audit", "evidence"]);
        command.args(arguments).arg("--dir").arg(attacked.directory.join("replica-0"));
        run(command.arg("--cluster").arg(&cluster), PATIENCE)
    };
    let all = json(&held(&["list", "--output", "json"]).expect(0));
    let all = all.as_array().unwrap();
    assert!(all.iter().all(|piece| piece["culprit"] == SIGNS_TWICE), "{all:#?}");
    let piece = all.iter().find(|piece| piece["kind"] == "ConflictingCommit");
    let piece = piece.unwrap_or_else(|| panic!("no two COMMITs: {all:#?}"));

    // Two files leave the cluster.
    let away = tempfile::tempdir().unwrap();
    let (file, policy) = (away.path().join("piece"), away.path().join("policy"));
    held(&["show", piece["digest"].as_str().unwrap(), "--export", file.to_str().unwrap()]).expect(0);
    let mut command = quorate(["audit", "policy", "--cluster"]);
    std::fs::write(&policy, run(command.arg(&cluster), PATIENCE).expect(0).stdout).unwrap();
    std::fs::rename(&attacked.directory, attacked.directory.with_extension("gone")).unwrap();

    let text = stranger(away.path(), "text").expect(0).stdout;
    for words in [
        "replica 1 is proven faulty: ConflictingCommit in epoch 0",
        "rule broken: ",
        "signed COMMIT in view ",
        "signature    ",
        "consensus key of replica 1: ",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let judged = json(&stranger(away.path(), "json").expect(0));
    assert_eq!((&judged["verdict"], &judged["culprit"]), (&"holds".into(), &SIGNS_TWICE.into()));
    assert_eq!(judged["assumes_quorum"], false, "its own two signatures are enough");
    let statements = judged["statements"].as_array().unwrap();
    assert_eq!(statements.len(), 2);
    assert_ne!(statements[0]["digest"], statements[1]["digest"]);
    for statement in statements {
        assert_eq!((&statement["type"], &statement["signer"]), (&"COMMIT".into(), &SIGNS_TWICE.into()));
        assert_eq!(statement["height"], judged["height"]);
        assert_eq!(statement["view"], judged["view"]);
    }
    // No other replica can be put in its place.
    let mut bytes = std::fs::read(&file).unwrap();
    for at in 16..bytes.len() {
        bytes[at] ^= 1;
        assert!(quorate_protocol::Evidence::from_file(&bytes).is_err(), "byte {at}");
        bytes[at] ^= 1;
    }
    let slander = quorate_protocol::Evidence {
        culprit: HIDES,
        ..quorate_protocol::Evidence::from_file(&bytes).unwrap()
    };
    std::fs::write(&file, slander.to_file()).unwrap();
    assert!(stranger(away.path(), "text").expect(1).stdout.starts_with("proves nothing: "));
}
