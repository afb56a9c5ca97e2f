#!/usr/bin/env bash
# Coverage-guided fuzzing of the targets in fuzz/ (docs/FUZZING.md), two or more at a time.
#
#   bash deploy/fuzz.sh [SECONDS] [TARGET]...     runs each target for SECONDS (default 600), all of them by default
#   bash deploy/fuzz.sh keep TARGET...            takes what covers more into the committed corpus
#
# Exit 1 and the input's path when a property did not hold.
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/setup.sh

# libFuzzer counts edges and compares by what LLVM inserts; all of it is in the stable compiler. Naming the
# target keeps it out of build scripts. Overflow checks and debug assertions are on.
host=$(rustc -vV | sed -n 's/^host: //p')
place="${CARGO_TARGET_DIR:-target}/fuzz"
RUSTFLAGS="$RUSTFLAGS -Cdebug-assertions -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
  cargo build --quiet --release --locked --package quorate-fuzz --features libfuzzer --bin quorate-fuzz \
  --target "$host" --target-dir "$place"
fuzzer="$place/$host/release/quorate-fuzz"
mkdir -p "$place/found" "$place/crashes"

one() { # TARGET SECONDS
  local name=$1 log="$place/$1.log"
  mkdir -p "$place/found/$name"
  if ! QUORATE_FUZZ_TARGET=$name "$fuzzer" -max_total_time="$2" -timeout=20 -rss_limit_mb=2048 -reload=0 \
    -print_final_stats=1 -artifact_prefix="$place/crashes/$name-" -verbosity=1 \
    "$place/found/$name" "fuzz/corpus/$name" >"$log" 2>&1; then
    echo "$name FAILED:"
    grep -aE 'panicked|Test unit written|^assertion|^  *(left|right):' -A 2 "$log" | head -n 20
    return 1
  fi
  local last
  last=$(grep -aE 'cov: [0-9]+ ft:' "$log" | tail -n 1 | sed -E 's/.*cov: ([0-9]+) ft: ([0-9]+) corp: ([0-9]+).*/\1 edges, \2 features, \3 inputs/')
  printf '%-16s %12d executions, %s\n' "$name" \
    "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" "$last"
}

if [ "${1:-}" = keep ]; then
  shift
  for name in "$@"; do
    QUORATE_FUZZ_TARGET=$name "$fuzzer" -set_cover_merge=1 -max_len=2048 "fuzz/corpus/$name" "$place/found/$name" 2>&1 |
      grep -aE 'MERGE-OUTER: (the control|[0-9]+ new)|SET_COVER_MERGE' | tail -n 1 || true
    echo "$name: $(find "fuzz/corpus/$name" -type f | wc -l) files"
  done
  exit
fi

seconds=600
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then seconds=$1; shift; fi
if [ $# -eq 0 ]; then
  mapfile -t names < <(find fuzz/corpus -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort)
  set -- "${names[@]}"
fi
export -f one
export place fuzzer
say "fuzzing $# targets, $seconds s each"
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'one {} '"$seconds"
