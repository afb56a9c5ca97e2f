//! The benches that no attack needs, on small sizes: each measures, says so as one line of JSON, and refuses nonsense.

use crate::harness::{PATIENCE, PROGRAM, run};
use std::process::Command;

fn bench(arguments: &[&str]) -> serde_json::Value {
    let ran = run(Command::new(PROGRAM).arg("bench").args(arguments), PATIENCE).expect(0);
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn is_positive(value: &serde_json::Value) -> bool {
    value.as_f64().is_some_and(|number| number > 0.0)
}

#[test]
fn a_state_is_measured_at_each_size() {
    let said = bench(&["state", "--rows", "2000,6000", "--updates", "1000"]);
    let sizes = said["sizes"].as_array().unwrap();
    assert_eq!(sizes.len(), 2);
    for (size, least) in sizes.iter().zip([2000, 6000]) {
        assert!(size["rows"].as_u64().unwrap() >= least, "{size}");
        for kind in ["point", "absence", "page"] {
            for what in ["bytes", "verify_us", "make_us"] {
                assert!(is_positive(&size[kind][what]), "{kind} {what}: {size}");
            }
        }
        for what in ["clustered_updates_per_second", "scattered_updates_per_second", "disk_bytes_per_row"] {
            assert!(is_positive(&size[what]), "{what}: {size}");
        }
        // A page holds 128 entries, each with a key of 32 bytes.
        assert!(size["page"]["bytes"].as_u64() > size["point"]["bytes"].as_u64());
    }
    run(Command::new(PROGRAM).args(["bench", "state", "--rows", "20,10"]), PATIENCE).expect(1);
}

#[test]
fn a_history_is_audited_and_compared_with_the_pure_rate() {
    let said = bench(&["audit", "--heights", "300", "--files", "2"]);
    let text = said.to_string();
    assert_eq!(said["heights"].as_u64(), Some(300), "{text}");
    assert!(text.contains("ratio"), "{text}");
}

#[test]
fn a_directory_is_listed_through_the_mount_and_page_by_page() {
    let script = format!("'{PROGRAM}' bench listing --path . --entries 700 && ls | wc -l && ls * | wc -l");
    let ran = run(Command::new(PROGRAM).args(["dev", "--exec", &script]), PATIENCE).expect(0);
    let [line, directories, entries] = ran.stdout.lines().collect::<Vec<_>>()[..] else {
        panic!("{}", ran.stdout)
    };
    assert_eq!((directories, entries), ("1", "700"));
    let said: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (said["entries"].as_u64(), said["pages"]["operations"].as_u64()),
        (Some(700), Some(6)),
        "{said}"
    );
    assert!(is_positive(&said["mount_seconds"]));
}
