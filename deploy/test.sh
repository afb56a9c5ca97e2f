#!/usr/bin/env bash
# The test command of the README: all set-up and all tests, on a fresh Debian machine with Rust.
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/setup.sh
quorate_test_tools
began=$SECONDS

step() { say "$* (at $((SECONDS - began)) s)"; }

# Kinds of faults, separated by commas: the next three for each commit, or for each day outside of git.
attacks_of_this_run() {
  local kinds number
  mapfile -t kinds < <(quorate_fault_kinds)
  number=$(git rev-list --count HEAD 2>/dev/null) || number=$(($(date +%s) / 86400))
  for place in 0 1 2; do echo "${kinds[$(((number * 3 + place) % ${#kinds[@]}))]}"; done | paste -sd ,
}

# The next pair of kinds for each commit, or for each day outside of git.
pair_of_this_run() {
  local pairs number
  mapfile -t pairs < <(quorate_fault_pairs)
  number=$(git rev-list --count HEAD 2>/dev/null) || number=$(($(date +%s) / 86400))
  echo "${pairs[$((number % ${#pairs[@]}))]}"
}

step "lint: format, clippy, dependencies"
cargo fmt --all --check
cargo clippy --quiet --workspace --all-targets --features quorate/faults -- -D warnings
cargo clippy --quiet -p quorate-consensus -p quorate-sim --all-targets --features quorate-sim/mutants,quorate-sim/probes -- -D warnings
cargo clippy --quiet -p quorate-transport -p quorate-replica -p quorate-cluster -p quorate-bench -p quorate -- -D warnings
cargo deny --log-level error check bans licenses sources

step "build and unit tests"
cargo nextest run --workspace --cargo-profile release --features quorate/faults --no-fail-fast -E 'not binary(processes)'

step "a production build, which has no fault injection in it"
cargo nextest run --workspace --cargo-profile release --no-fail-fast --test production

# A program of its own, because only the simulator is ever built with probes and with a consensus that can be broken.
step "the simulator with probes, and every breakage of the protocol"
programs="${CARGO_TARGET_DIR:-target}/release"
cargo nextest run -p quorate-sim --cargo-profile release --features mutants,probes --no-fail-fast --test mutants
cargo build --quiet --release --locked -p quorate-sim --features mutants,probes
cp "$programs/quorate-sim" "$programs/quorate-sim-probed"

# Three kinds of faults each time, others for each commit; deploy/soak.sh tries them all.
step "real processes: clusters, mounts, crashes, bad input, the commands of the README, attacks"
cargo build --quiet --release --locked --workspace --features quorate/faults
QUORATE_ATTACKS=$(attacks_of_this_run) QUORATE_PAIR=$(pair_of_this_run)
export QUORATE_ATTACKS QUORATE_PAIR
echo "attacks of this run: $QUORATE_ATTACKS; at n = 7: $QUORATE_PAIR"
cargo nextest run --workspace --cargo-profile release --features quorate/faults --no-fail-fast -E 'binary(processes)'

step "the POSIX test suite"
bash deploy/pjdfstest.sh

step "the simulator: 20,000 seeds, which reach every probe"
traces() { "$1" run --seeds 0..300 --jobs "$(nproc)" | sed -n 's/^commit .*, traces //p'; }
[ "$(traces "$programs/quorate-sim")" = "$(traces "$programs/quorate-sim-probed")" ]
"$programs/quorate-sim-probed" run --seeds 0..20000 --jobs "$(nproc)" --complete

step "the model: every state within its bounds, and every mutant"
"${CARGO_TARGET_DIR:-target}"/release/quorate-model check --all --jobs "$(nproc)"

step "the demonstration"
bash deploy/demo.sh

step "done"
