#!/usr/bin/env bash
# Measures what clusters with faulty replicas and killed leaders keep of their speed, and keeps the results in
# bench/results, named by date and commit, as a table in Markdown and as JSON.
#
#   bash deploy/bench.sh [leader-crash | faults4 | faults7]...      default: all of them, some twenty minutes
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/setup.sh
if [ $# -eq 0 ]; then set -- leader-crash faults4 faults7; fi
say "building (release)"
cargo build --quiet --release --locked -p quorate --features quorate/faults
program=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)/quorate
prefix="bench/results/$(date -u +%F)-$(git rev-parse --short HEAD)"
git diff --quiet HEAD -- . || prefix="$prefix-changed"
mkdir -p bench/results
for part in "$@"; do
  say "$part"
  case "$part" in
    leader-crash) "$program" --log error bench leader-crash --kills 50 --out "$prefix-leader-crash" >/dev/null ;;
    faults4) "$program" --log error bench faults --replicas 4 --out "$prefix-faults-n4" ;;
    faults7) "$program" --log error bench faults --replicas 7 --kills 0 --out "$prefix-faults-n7" ;;
    *) echo "usage: bash deploy/bench.sh [leader-crash | faults4 | faults7]..." >&2; exit 2 ;;
  esac
done
