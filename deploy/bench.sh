#!/usr/bin/env bash
# Measures what clusters with faulty replicas and killed leaders keep of their speed, and keeps the results in
# bench/results, named by date and commit, as a table in Markdown and as JSON; and how many files a second a mount
# makes, with the program of deploy/optimise.sh beside the ordinary one, as JSON lines. And, a line of JSON each: a
# history of a million heights audited, a state of up to ten million rows (some gigabytes of memory), the trie beside
# another one, and a directory of a million entries listed.
#
#   bash deploy/bench.sh [leader-crash | faults4 | faults7 | floors | audit | state | jmt | listing]...
#
# Default: all of them, an hour and a half.
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/setup.sh
if [ $# -eq 0 ]; then set -- leader-crash faults4 faults7 floors audit state jmt listing; fi
say "building (release)"
cargo build --quiet --release --locked -p quorate --features quorate/faults
release=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
place=$(mktemp -d "${TMPDIR:-/tmp}/quorate-bench.XXXXXX")
trap 'rm -rf "$place"' EXIT
program="$place/quorate"
cp "$release/quorate" "$program"
prefix="bench/results/$(date -u +%F)-$(git rev-parse --short HEAD)"
git diff --quiet HEAD -- . || prefix="$prefix-changed"
mkdir -p bench/results

# The two programs in turn, so that both meet the same machine; neither of them can inject faults.
floors() {
  bash deploy/optimise.sh
  cargo build --quiet --release --locked -p quorate
  local round work program optimised
  optimised=$(cd "${CARGO_TARGET_DIR:-target}/optimised" && pwd)/quorate
  for round in 1 2 3 4 5; do
    for work in 'meta --path . --threads 1' 'meta --path . --threads 16' consensus; do
      for program in "$1" "$optimised"; do
        "$program" --log error dev --exec "'$program' bench $work --seconds 4" 2>>"$place/floors.log" \
          | sed "s/^{/{\"build\":\"$(basename "$(dirname "$program")")\",\"round\":$round,/"
      done
    done
  done | tee "$place/floors.jsonl" || { cat "$place/floors.log" >&2; return 1; }
  mv "$place/floors.jsonl" "$2-floors.jsonl"
}

for part in "$@"; do
  say "$part"
  case "$part" in
    leader-crash) "$program" --log error bench leader-crash --kills 50 --out "$prefix-leader-crash" >/dev/null ;;
    faults4) "$program" --log error bench faults --replicas 4 --out "$prefix-faults-n4" ;;
    faults7) "$program" --log error bench faults --replicas 7 --kills 0 --out "$prefix-faults-n7" ;;
    floors) floors "$release/quorate" "$prefix" ;;
    audit)
      "$program" bench audit --heights 1000000 >"$place/json"
      mv "$place/json" "$prefix-audit.json"
      ;;
    state)
      "$program" bench state --rows 10000,100000,1000000,10000000 >"$place/json"
      mv "$place/json" "$prefix-state.json"
      ;;
    jmt)
      cargo run --quiet --release --locked -p quorate-bench --example jmt >"$place/json"
      mv "$place/json" "$prefix-jmt.json"
      ;;
    listing)
      "$program" --log error dev --exec "'$program' bench listing --path . --entries 1000000" >"$place/json"
      mv "$place/json" "$prefix-listing.json"
      ;;
    *) echo "usage: bash deploy/bench.sh [leader-crash | faults4 | faults7 | floors | audit | state | jmt | listing]..." >&2; exit 2 ;;
  esac
done
