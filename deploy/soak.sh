#!/usr/bin/env bash
# The long versions of the tests, an hour or more on two cores: 300,000 seeds of the simulator (SOAK_SEEDS
# names others), recorded in docs/simulator-ledger.md, and the
# vendored sources of all dependencies (some 20,000 files) copied, compared, some 2,000 of them committed to git, and all removed,
# once undisturbed and once while the leader is killed and another replica is paused; a tree of 2,000 files
# while replicas are faulty on purpose: every kind of fault at n = 4, and pairs of kinds at n = 7; and every fuzz
# target, guided by coverage, for SECONDS each (default 600: two hours on two cores).
#
#   bash deploy/soak.sh [seeds | tree | faults | attacks | fuzz [SECONDS]]...      default: all of them
#   bash deploy/soak.sh attacks:KIND... pairs:KIND,KIND...            only these
#   bash deploy/soak.sh pairs                                         every pair, some hours
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/setup.sh
quorate_test_tools
if [ $# -eq 0 ]; then set -- seeds tree faults attacks fuzz; fi
fuzz_seconds=600
for part in "$@"; do
  case "$part" in
    seeds | tree | faults | fuzz | attacks | attacks:* | pairs | pairs:*,*) ;;
    [0-9]*) fuzz_seconds=$part ;;
    *) echo "usage: bash deploy/soak.sh [seeds | tree | faults | fuzz [SECONDS] | attacks[:KIND] | pairs[:KIND,KIND]]..." >&2; exit 2 ;;
  esac
done

say "building (release)"
cargo build --quiet --release --locked --workspace --features quorate/faults
programs=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
place=$(mktemp -d "${TMPDIR:-/tmp}/quorate-soak.XXXXXX")
trap 'rm -rf "$place"' EXIT
export PATH="$programs:$PATH" SOAK_TREE="$place/vendor"
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null

tree() {
  [ -d "$SOAK_TREE" ] && return
  say "vendoring the sources of all dependencies"
  cargo vendor --quiet --locked --versioned-dirs "$SOAK_TREE" >/dev/null
  echo "$(find "$SOAK_TREE" -type f | wc -l) files, $(du -sm "$SOAK_TREE" | cut -f 1) MB"
}

# These scripts run inside the mount, by `quorate dev --exec`.
cat >"$place/common" <<'SCRIPT'
set -euo pipefail
began=$SECONDS
step() { printf '%6d s  %s\n' $((SECONDS - began)) "$*"; }
# The largest value of a number that every replica reports.
largest() { quorate status --output json | grep -oE "\"$1\": *[0-9]+" | grep -oE '[0-9]+$' | sort -n | tail -n 1; }
# All replicas at one height and root, within two minutes.
settled() {
  for _ in {1..120}; do
    alike=$(quorate status | awk '$1 ~ /^[0-9]+$/ { print $5, $9 }' | sort -u)
    [ "$(wc -l <<<"$alike")" = 1 ] && return
    sleep 1
  done
  quorate status
  echo 'the replicas do not come to one height and root' >&2
  return 1
}
audit() {
  for replica in 0 1 2 3; do quorate audit verify --dir "$QUORATE_DIR/replica-$replica"; done
  quorate audit verify
}
SCRIPT

cat >"$place/undisturbed" <<'SCRIPT'
step copying
cp -a "$SOAK_TREE" vendor
step comparing
diff -r "$SOAK_TREE" vendor
step 'git, on some 2,000 of the files'
cp -a "$ATTACK_TREE" repository
cd repository
git init -q . && git config user.name Soak && git config user.email soak@example.org
git add -f . && git commit -q -m all && git fsck --full
test -z "$(git status --porcelain)"
cd ..
settled
full=$(largest state_rows)
step removing
rm -rf vendor repository
test -z "$(ls -A)"
step 'waiting for the last orphan to go'
for attempt in {1..300}; do
  echo "$attempt" >tick && rm tick && sleep 1
  rows=$(largest state_rows) bytes=$(largest block_bytes)
  [ "$rows" -lt 100 ] && [ "$bytes" -eq 0 ] && break
done
step "$full rows when full; $rows rows and $bytes bytes of blocks are left"
[ "$rows" -lt 100 ] && [ "$bytes" -eq 0 ]
settled
audit
step done
SCRIPT

cat >"$place/disturbed" <<'SCRIPT'
faults() {
  for round in 1 2 3; do
    sleep 15
    leader=$(quorate status | awk '$3 == "leader" { print $1; exit }')
    step "round $round: killing the leader, replica $leader"
    quorate dev kill "$leader"
    sleep 5
    quorate dev start "$leader"
    until quorate status >/dev/null; do sleep 0.5; done
    other=$(((leader + 2) % 4))
    step "round $round: pausing replica $other for ten seconds"
    quorate dev pause "$other"
    sleep 10
    quorate dev continue "$other"
  done
}
faults & at_work=$!
step copying
cp -a "$SOAK_TREE" vendor
wait "$at_work"
step comparing
diff -r "$SOAK_TREE" vendor
settled
step 'killing all four in the middle of a copy, and starting them again'
cp -a vendor second & copy=$!
sleep 5
for replica in 0 1 2 3; do quorate dev kill $replica; done
for replica in 0 1 2 3; do quorate dev start $replica; done
wait "$copy"
diff -r vendor second
settled
audit
step done
SCRIPT

# A tree of some 2,000 files out of the vendored sources.
smaller_tree() {
  tree
  export ATTACK_TREE="$place/smaller"
  [ -d "$ATTACK_TREE" ] && return
  mkdir "$ATTACK_TREE"
  local crate
  for crate in "$SOAK_TREE"/*; do
    [ "$(find "$ATTACK_TREE" -type f | wc -l)" -lt 2000 ] || break
    # None that is half of the tree by itself.
    [ "$(find "$crate" -type f | wc -l)" -gt 400 ] || cp -a "$crate" "$ATTACK_TREE"
  done
  echo "$(find "$ATTACK_TREE" -type f | wc -l) files, $(du -sm "$ATTACK_TREE" | cut -f 1) MB"
}

cat >"$place/attacked" <<'SCRIPT'
step copying
cp -a "$ATTACK_TREE" tree
step comparing
diff -r "$ATTACK_TREE" tree
step git
cd tree
git init -q . && git config user.name Soak && git config user.email soak@example.org
git add -f . && git commit -q -m all && git fsck --full --strict
test -z "$(git status --porcelain)"
cd ..
step settling
correct() { { quorate status || true; } | awk -v faulty=" $FAULTY " '$1 ~ /^[0-9]+$/ && !index(faulty, " " $1 " ") { print $5, $9 $10 }'; }
for _ in {1..120}; do
  [ "$(correct | sort -u | wc -l)" = 1 ] && [ "$(correct | wc -l)" = "$CORRECT" ] && break
  sleep 1
done
correct
[ "$(correct | sort -u | wc -l)" = 1 ]
for replica in $(seq 0 $((REPLICAS - 1))); do
  case " $FAULTY " in *" $replica "*) continue ;; esac
  quorate audit verify --dir "$QUORATE_DIR/replica-$replica"
done
step done
SCRIPT

# One run under these faults; what goes wrong is counted, so that the others are tried as well.
attack() { # REPLICAS ID=KIND...
  local replicas=$1 faults=() faulty=""
  shift
  for fault in "$@"; do faults+=(--fault "$fault"); faulty="$faulty ${fault%%=*}"; done
  say "attack at n = $replicas: $*"
  cat "$place/common" "$place/attacked" >"$place/script"
  local log="$place/attack.log" status=0
  REPLICAS=$replicas FAULTY="${faulty# }" CORRECT=$((replicas - $#)) timeout -s TERM -k 60 900 \
    quorate dev --replicas "$replicas" "${faults[@]}" --exec "exec bash '$place/script'" 2>"$log" || status=$?
  grep -a 'replica caught' "$log" | sed -E 's/^[^ ]+ +//' | tail -n 3 || true
  if [ "$status" -ne 0 ]; then
    tail -n 20 "$log"
    failed+=("n = $replicas: $*")
    echo "FAILED ($status): n = $replicas: $*"
  fi
}
failed=()

in_a_mount() { # NAME WHAT
  say "$2"
  cat "$place/common" "$place/$1" >"$place/script"
  quorate dev --exec "exec bash '$place/script'"
}

for part in "$@"; do
  case "$part" in
    seeds)
      say "the same seeds in a debug build and in a release build"
      traces() { sed -n 's/^commit .*, traces //p'; }
      debug=$(cargo run --quiet --locked -p quorate-sim -- run --seeds 0..500 --jobs "$(nproc)" | traces)
      release=$(quorate-sim run --seeds 0..500 --jobs 1 | traces)
      echo "debug $debug, release $release"
      [ -n "$debug" ] && [ "$debug" = "$release" ]
      say "seeds ${SOAK_SEEDS:=0..300000} of the simulator"
      # A build that takes minutes, for hours that become shorter.
      cargo build --quiet --locked --profile dist -p quorate-sim --features probes
      "${programs%/release}/dist/quorate-sim" run --seeds "$SOAK_SEEDS" --jobs "$(nproc)" --complete \
        --ledger docs/simulator-ledger.md
      ;;
    tree) smaller_tree; in_a_mount undisturbed 'the tree: cp -a, diff -r, git, rm -r' ;;
    fuzz) bash deploy/fuzz.sh "$fuzz_seconds" ;;
    faults) tree; in_a_mount disturbed 'the tree again, with a leader killed and another replica paused, and all killed' ;;
    attacks)
      smaller_tree
      mapfile -t kinds < <(quorate_fault_kinds)
      for kind in "${kinds[@]}"; do attack 4 "0=$kind"; done
      # Each kind once as the first leader and once as the second.
      for number in "${!kinds[@]}"; do
        attack 7 "0=${kinds[number]}" "1=${kinds[$(((number + 4) % ${#kinds[@]}))]}"
      done
      ;;
    attacks:*) smaller_tree; attack 4 "0=${part#attacks:}" ;;
    pairs)
      smaller_tree
      mapfile -t kinds < <(quorate_fault_kinds)
      for first in "${!kinds[@]}"; do
        for second in "${!kinds[@]}"; do
          [ "$first" -ge "$second" ] || attack 7 "0=${kinds[first]}" "1=${kinds[second]}"
        done
      done
      ;;
    pairs:*)
      smaller_tree
      pair=${part#pairs:}
      attack 7 "0=${pair%%,*}" "1=${pair#*,}"
      ;;
  esac
done
if [ ${#failed[@]} -gt 0 ]; then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
say "done"
