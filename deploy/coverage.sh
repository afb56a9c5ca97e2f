#!/usr/bin/env bash
# Line coverage of the crates `consensus` and `execution` by their tests and by the simulator, with the compiler's
# own instrumentation and Debian's LLVM of the compiler's version. Prints each file, writes the lines that nothing
# reached to target/coverage/missed.txt, and fails below the percentage that is wanted.
#
#   bash deploy/coverage.sh [SEEDS]            default: 3000 seeds of the simulator beside the tests
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/setup.sh
seeds=${1:-3000}
wanted=95
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
quorate_packages "llvm-cov-$llvm" "llvm-$llvm" "llvm-profdata-$llvm" "llvm-$llvm"

# A directory of its own, because instrumented crates are other crates.
export CARGO_TARGET_DIR="$PWD/target/coverage"
place="$CARGO_TARGET_DIR/profiles"
rm -rf "$place"
mkdir -p "$place"
export RUSTFLAGS="$RUSTFLAGS -Cinstrument-coverage" LLVM_PROFILE_FILE="$place/%p-%m.profraw"
packages=(-p quorate-consensus -p quorate-execution)

say "building the tests of consensus and execution, and the simulator"
programs() { sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'; }
mapfile -t tests < <(cargo test --locked --quiet --no-run "${packages[@]}" --message-format json | programs)
mapfile -t simulator < <(cargo build --locked --quiet -p quorate-sim --message-format json | programs)

# What build scripts wrote is not wanted.
find "$place" -name "*.profraw" -delete

say "running the tests"
for test in "${tests[@]}"; do "$test" --quiet; done

say "running $seeds seeds, and some of each attack"
"${simulator[@]}" run --seeds "0..$seeds" --jobs "$(nproc)" | sed -n '1p;/FAILED/p'
for attack in mutate misopen mislead mispropose mistime equivocate; do
  "${simulator[@]}" run --attack "$attack" --seeds 0..100 --jobs "$(nproc)" | sed -n '1p;/FAILED/p'
done

say "line coverage"
"llvm-profdata-$llvm" merge --sparse "$place"/*.profraw -o "$place/all.profdata"
objects=("${simulator[0]}")
for test in "${tests[@]}"; do objects+=(--object "$test"); done
report=(-instr-profile "$place/all.profdata" "${objects[@]}"
  --ignore-filename-regex '(/tests/|tests\.rs$)')
rooms=("$PWD/consensus/src" "$PWD/execution/src")
"llvm-cov-$llvm" report "${report[@]}" --show-region-summary=false --show-branch-summary=false "${rooms[@]}" \
  >"$CARGO_TARGET_DIR/report.txt"
"llvm-cov-$llvm" show "${report[@]}" --use-color=false "${rooms[@]}" \
  | grep -E '^/.*:$|^ *[0-9]+\| *0\|' >"$CARGO_TARGET_DIR/missed.txt" || true
# Columns: file, functions, missed, executed, lines, missed, cover.
awk -v wanted="$wanted" '
  $1 ~ /^(consensus|execution)\/src\// {
    split($1, part, "/"); lines[part[1]] += $5; missed[part[1]] += $6
    printf "%-40s %6d lines %5d missed %s\n", $1, $5, $6, $7
  }
  END {
    for (room in lines) {
      cover = 100 * (1 - missed[room] / lines[room]); known++
      printf "%s: %.2f %% of %d lines\n", room, cover, lines[room]
      if (cover < wanted) short = 1
    }
    if (known != 2) { print "no figures"; exit 1 }
    exit short
  }' "$CARGO_TARGET_DIR/report.txt"
