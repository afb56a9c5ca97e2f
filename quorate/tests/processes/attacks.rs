//! Attacks by real replicas, on real processes: every kind of fault that `quorate dev --fault` knows.
//!
//! Invariant: whoever lies is named, nobody else is; what a client writes is there and right; and the correct
//! replicas end with one root and a log that can be audited.

mod beyond;
mod clocks;
mod demonstration;
mod links;
mod network;
mod one;

use crate::harness::{PATIENCE, Ran, quorate, run, run_dev, scratch, shell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// How long the work of a client may take while it is attacked; alone it takes some seconds.
const WORK_TIME_MAX: Duration = Duration::from_secs(110);

/// What a client does in the mount: a copy, compared, and a git repository, checked.
const WORK: &str = r#"
    cp -a "$SOURCE" tree
    diff -r "$SOURCE" tree
    cd tree
    git init -q . && git config user.name Tester && git config user.email tester@example.org
    git add -f . && git commit -q -m all
    git fsck --full --strict
    test -z "$(git status --porcelain)"
    cd .."#;

/// Waits until the correct replicas are at one height and root, and shows it.
const SETTLE: &str = r#"
    for attempt in {1..240}; do
        alike=$({ quorate status || true; } | awk -v faulty=" $FAULTY " \
            '$1 ~ /^[0-9]+$/ && !index(faulty, " " $1 " ") { print $5, $11 }' | sort | uniq -c)
        set -- $alike
        if [ $# = 3 ] && [ "$1" = "$CORRECT" ]; then echo "settled $2 $3"; break; fi
        sleep 0.25
    done
    if ! { [ $# = 3 ] && [ "$1" = "$CORRECT" ]; }; then quorate status >&2; echo 'no one root' >&2; exit 9; fi"#;

/// A cluster that was attacked, and what came of it.
struct Attacked {
    ran: Ran,
    directory: PathBuf,
    faulty: Vec<u8>,
    n: u8,
    _home: TempDir,
}

/// Runs `quorate dev` with these faults and a client at work, to a settled end.
#[track_caller]
fn attack(n: u8, faults: &[(u8, &str)], work: &str) -> Attacked {
    attack_over(n, faults, &[], work)
}

/// The same over a network with these rules.
#[track_caller]
fn attack_over(n: u8, faults: &[(u8, &str)], network: &[&str], work: &str) -> Attacked {
    let home = scratch();
    let source = home.path().join("source");
    small_tree(&source);
    let directory = home.path().join("cluster");
    let faulty: Vec<u8> = faults.iter().map(|(replica, _)| *replica).collect();
    let script = home.path().join("script");
    std::fs::write(&script, format!("set -euo pipefail\n{work}\n{SETTLE}\n")).unwrap();
    let mut command = quorate(["dev", "--replicas"]);
    command.arg(n.to_string()).arg("--dir").arg(&directory);
    for (replica, kind) in faults {
        command.args(["--fault", &format!("{replica}={kind}")]);
    }
    for rule in network {
        command.args(["--network", rule]);
    }
    command.arg("--exec").arg(format!("exec bash '{}'", script.display()));
    let names: Vec<String> = faulty.iter().map(u8::to_string).collect();
    let programs = Path::new(crate::harness::PROGRAM).parent().unwrap();
    command
        .env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()))
        .env("SOURCE", &source)
        .env("FAULTY", names.join(" "))
        .env("CORRECT", (usize::from(n) - faulty.len()).to_string())
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("LC_ALL", "C")]);
    let began = std::time::Instant::now();
    let ran = run_dev(&mut command, &directory, n, WORK_TIME_MAX);
    println!("{faults:?} of {n}: {} s\n{}", began.elapsed().as_secs(), ran.stderr);
    let attacked = Attacked { ran, directory, faulty, n, _home: home };
    if attacked.ran.code != 0 {
        for replica in 0..n {
            let log = attacked.log(replica);
            println!("-- replica {replica}\n{}", log.get(log.len().saturating_sub(3000)..).unwrap_or(&log));
        }
    }
    attacked
}

/// Some files of the workspace, in some directories: enough for views to change in the middle.
#[track_caller]
fn small_tree(to: &Path) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let script = format!(
        "mkdir -p {to} && cp -r {from}/crypto {from}/transport {from}/docs {from}/README.md {to} \
         && find {to} -type f | wc -l",
        from = workspace.display(),
        to = to.display()
    );
    let count: usize = shell(Path::new("/"), &script).expect(0).stdout.trim().parse().unwrap();
    assert!(count > 60, "only {count} files");
}

impl Attacked {
    fn log(&self, replica: u8) -> String {
        std::fs::read_to_string(self.directory.join(format!("replica-{replica}/replica.log")))
            .unwrap_or_default()
    }

    fn correct(&self) -> impl Iterator<Item = u8> + '_ {
        (0..self.n).filter(|replica| !self.faulty.contains(replica))
    }

    /// The work succeeded, all correct replicas settled, none of them is halted or called faulty, and the
    /// log of each holds from genesis on.
    #[track_caller]
    fn stood(&self) -> &Self {
        assert_eq!(self.ran.code, 0, "{}", self.ran.stderr);
        assert!(self.ran.stdout.contains("settled "), "{}", self.ran.stdout);
        assert!(!self.ran.stderr.contains("forked"), "{}", self.ran.stderr);
        for replica in self.correct() {
            let log = self.log(replica);
            for bad in ["does not vote any more", "panicked", "forked"] {
                assert!(!log.contains(bad), "replica {replica}: {log}");
            }
            let mut command = quorate(["audit", "verify", "--dir"]);
            command.arg(self.directory.join(format!("replica-{replica}")));
            command.arg("--cluster").arg(self.directory.join("cluster.toml"));
            run(&mut command, PATIENCE).expect(0);
        }
        for (culprit, kind) in self.evidence() {
            let guilty = self.faulty.iter().any(|faulty| u64::from(*faulty) == culprit);
            assert!(guilty, "evidence of {kind} against replica {culprit}");
        }
        let caught = self.caught();
        let innocent = caught.iter().find(|replica| !self.faulty.contains(replica));
        assert_eq!(innocent, None, "{}", self.ran.stderr);
        self
    }

    /// The replicas that the mount named as liars.
    #[track_caller]
    fn caught(&self) -> Vec<u8> {
        let lines = self.ran.stderr.lines().filter(|line| line.contains("replica caught"));
        lines
            .map(|line| {
                let words = line.split_whitespace();
                let number = words.filter_map(|word| word.strip_prefix("replica=")).next();
                number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"))
            })
            .collect()
    }

    /// What correct replicas hold in evidence: culprit and kind, of all of them.
    #[track_caller]
    fn evidence(&self) -> BTreeSet<(u64, String)> {
        let mut found = BTreeSet::new();
        for replica in self.correct() {
            let mut command = quorate(["audit", "evidence", "list", "--output", "json", "--dir"]);
            command.arg(self.directory.join(format!("replica-{replica}")));
            command.arg("--cluster").arg(self.directory.join("cluster.toml"));
            let ran = run(&mut command, PATIENCE);
            assert!(matches!(ran.code, 0 | 1), "{}", ran.stderr);
            let pieces: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            for piece in pieces.as_array().unwrap() {
                assert!(!piece["statements"].as_array().unwrap().is_empty(), "{piece}");
                found
                    .insert((piece["culprit"].as_u64().unwrap(), piece["kind"].as_str().unwrap().to_owned()));
            }
        }
        found
    }

    /// Whether a correct replica has logged this about somebody.
    fn is_logged(&self, words: &str) -> bool {
        self.correct().any(|replica| self.log(replica).contains(words))
    }
}
