//! What programs expect of a filesystem: a table of system calls and habits, and a compiler at work.

use crate::harness::{Cluster, shell_within};
use std::time::Duration;

/// The table: python, because it shows every system call as it is.
const TABLE: &str = include_str!("posix.py");

#[test]
fn calls_and_habits_behave_as_programs_expect() {
    let cluster = Cluster::start();
    let mount = cluster.mount_with("a", "dev");
    std::fs::write(cluster.home().join("posix.py"), TABLE).unwrap();
    let ran = shell_within(&mount.path, "python3 ../posix.py", Duration::from_secs(120));
    assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
}

#[test]
fn a_compiler_builds_in_a_mount() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    let script = "mkdir -p hello/src && cd hello
        printf '[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n' > Cargo.toml
        printf 'fn main() { println!(\"cargo:rustc-env=BUILT=by build.rs\"); }\n' > build.rs
        printf 'pub fn text() -> &'\\''static str { env!(\"BUILT\") }\n' > src/lib.rs
        printf 'fn main() { println!(\"{}\", hello::text()); }\n' > src/main.rs
        for name in $(env | grep -o '^\\(CARGO\\|RUST\\)[A-Z_]*'); do
            case $name in CARGO_HOME|RUSTUP_*) ;; *) unset $name ;; esac
        done
        cargo build --offline --quiet
        test \"$(target/debug/hello)\" = 'by build.rs'
        sed -i 's/{}/changed {}/' src/main.rs
        cargo build --offline --quiet
        test \"$(target/debug/hello)\" = 'changed by build.rs'
        cargo test --offline --quiet > /dev/null
        # Nothing has changed: nothing is built.
        test \"$(cargo build --offline 2>&1 | grep -c Compiling)\" = 0
        cargo clean --quiet && cd .. && rm -r hello && test -z \"$(ls -A)\"";
    shell_within(&mount.path, script, Duration::from_secs(140)).expect(0);
}
