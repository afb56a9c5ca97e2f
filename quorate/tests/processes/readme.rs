//! The README: its commands are run as they stand there.

use crate::harness::{PATIENCE, quorate, run, scratch, shell_within};
use std::path::Path;
use std::time::Duration;

/// The blocks of README.md that open with this line, joined.
fn blocks(opening: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let mut inside = false;
    let mut script = String::new();
    for line in text.lines() {
        match line {
            "```" if inside => inside = false,
            _ if inside => {
                script.push_str(line);
                script.push('\n');
            }
            _ => inside = line == opening,
        }
    }
    assert!(!script.is_empty(), "README.md has no block {opening}");
    script
}

#[test]
fn the_commands_of_the_readme_work_as_they_stand_there() {
    let scratch = scratch();
    let mut script = blocks("```sh");
    // The two long commands are what runs this test, and the demo.
    script = script.lines().filter(|line| !line.starts_with("bash deploy/")).collect::<Vec<_>>().join("\n");
    assert!(script.matches("\nquorate ").count() >= 8, "{script}");
    // Other ports than those of the text: a cluster may run here.
    for (number, free) in quorate_cluster::ports::free_addresses(4).unwrap().iter().enumerate() {
        script = script.replace(&format!("127.0.0.1:710{}", number + 1), free);
    }
    script = script.replace("127.0.0.1:8080", "127.0.0.1:0");
    assert!(!script.contains(":710"), "{script}");
    // The reader runs what goes to the background until it is stopped.
    let script = format!(
        "trap 'quorate umount mnt 2>/dev/null || umount -l mnt 2>/dev/null || true; kill $(jobs -p) 2>/dev/null || true; wait' EXIT\nexport QUORATE_STATE=$PWD/state\n{script}\nkill $(jobs -p); wait"
    );
    let ran = shell_within(scratch.path(), &script, Duration::from_secs(90));
    ran.expect(0);
}

#[test]
fn every_command_has_help() {
    for command in [
        "dev",
        "dev start",
        "dev stop",
        "dev kill",
        "dev pause",
        "dev continue",
        "init",
        "key",
        "key new",
        "key show",
        "replica",
        "mount",
        "umount",
        "status",
        "audit",
        "audit verify",
        "audit heights",
        "audit evidence",
        "audit evidence list",
        "audit evidence show",
        "audit evidence verify",
        "audit tlog",
        "audit tlog export",
        "audit tlog check",
        "audit tlog prove",
        "audit tlog conflict",
        "audit tlog serve",
        "bench",
        "bench meta",
        "bench listing",
        "bench audit",
        "bench state",
        "bench consensus",
    ] {
        let ran = run(quorate(command.split(' ')).arg("--help"), PATIENCE).expect(0);
        assert!(ran.stdout.contains("Usage: quorate"), "{command}: {}", ran.stdout);
    }
    assert!(run(&mut quorate(["--version"]), PATIENCE).expect(0).stdout.starts_with("quorate "));
}
