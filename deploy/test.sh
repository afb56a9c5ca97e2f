#!/usr/bin/env bash
# The test command of the README: all set-up and all tests, on a fresh Debian machine with Rust.
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/setup.sh
quorate_test_tools
began=$SECONDS

step() { say "$* (at $((SECONDS - began)) s)"; }

step "lint: format, clippy, dependencies"
cargo fmt --all --check
cargo clippy --quiet --workspace --all-targets -- -D warnings
cargo deny --log-level error check bans licenses sources

step "build and unit tests"
cargo nextest run --workspace --cargo-profile release --no-fail-fast -E 'not binary(processes)'

step "real processes: clusters, mounts, faults, bad input, the commands of the README"
cargo nextest run --workspace --cargo-profile release --no-fail-fast -E 'binary(processes)'

step "the POSIX test suite"
cargo build --quiet --release --locked --workspace
bash deploy/pjdfstest.sh

step "the simulator: 20,000 seeds"
"${CARGO_TARGET_DIR:-target}"/release/quorate-sim run --seeds 0..20000 --jobs "$(nproc)"

step "the model: every state within its bounds, and every mutant"
"${CARGO_TARGET_DIR:-target}"/release/quorate-model check --all --jobs "$(nproc)"

step "the demonstration"
bash deploy/demo.sh

step "done"
