#!/usr/bin/env bash
# The long versions of the tests, hours on two cores: 300,000 seeds of the simulator (SOAK_SEEDS names others),
# recorded in docs/simulator-ledger.md; the vendored sources of all dependencies (some 16,000 files) copied,
# compared, a part of them committed to git, and removed, once undisturbed and once while the leader is killed and
# another replica is paused; a tree of 2,000 files while replicas are faulty on purpose: every kind of fault at n = 4,
# and pairs of kinds at n = 7; a leader and a follower paused for a minute each, a disk that is full, wrong clocks;
# histories of what two mounts saw, under one fault after the other; and every fuzz target, guided by coverage, for
# SECONDS each (default 600: two hours on two cores).
#
#   bash deploy/soak.sh [seeds | tree | faults | attacks | pairs | pause | disk | clock | history | fuzz [SECONDS]]...
#   bash deploy/soak.sh attacks:KIND... pairs:KIND,KIND...            only these
#   bash deploy/soak.sh pairs:all                                     every pair, some hours
#
# Without arguments: all but pairs:all.
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/setup.sh
quorate_test_tools
if [ $# -eq 0 ]; then set -- seeds tree faults attacks pairs pause disk clock history fuzz; fi
fuzz_seconds=600
for part in "$@"; do
  case "$part" in
    seeds | tree | faults | fuzz | attacks | attacks:* | pairs | pairs:all | pairs:*,*) ;;
    pause | disk | clock | history) ;;
    [0-9]*) fuzz_seconds=$part ;;
    *) echo "usage: bash deploy/soak.sh [seeds | tree | faults | fuzz [SECONDS] | attacks[:KIND] | pairs[:KIND,KIND | :all] | pause | disk | clock | history]..." >&2; exit 2 ;;
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
    # Of a replica that does not answer there is no height and root, so it is not like the others.
    alike=$({ quorate status || true; } | awk '$1 ~ /^[0-9]+$/ { print $5, $11 }' | sort -u)
    [ "$(wc -l <<<"$alike")" = 1 ] && [[ $alike =~ ^[0-9]+\ [0-9a-f]+ ]] && return
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
step 'git, of at least 2,000 files'
cd vendor
git init -q . && git config user.name Soak && git config user.email soak@example.org
for crate in */; do
  git add -f "$crate"
  [ "$(git ls-files | wc -l)" -lt 2000 ] || break
done
git commit -q -m some && git fsck --full
test -z "$(git status --porcelain --untracked-files=no)"
git ls-files | wc -l
cd ..
settled
full=$(largest state_rows)
step removing
rm -rf vendor
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

cat >"$place/paused" <<'SCRIPT'
stand_still() { # REPLICA
  step "replica $1 stands still for a minute"
  quorate dev pause "$1"
  sleep 60
  quorate dev continue "$1"
  # Whoever stood still for a minute is back within one.
  for _ in {1..60}; do quorate status >/dev/null && return; sleep 1; done
  quorate status
  return 1
}
work() { # NAME
  while [ ! -e "$QUORATE_DIR/over" ]; do rm -rf "$1" && cp -a "$ATTACK_TREE" "$1" && diff -r "$ATTACK_TREE" "$1" || return; done
}
step 'copying, again and again'
work tree & work=$!
sleep 5
leader=$(quorate status | awk '$3 == "leader" { print $1; exit }')
stand_still "$leader"
leader=$(quorate status | awk '$3 == "leader" { print $1; exit }')
stand_still $(((leader + 2) % 4))
touch "$QUORATE_DIR/over"
wait "$work"
settled
audit
step done
SCRIPT

# Replica 3 has so little disk that it must stop in the middle; with more it catches up.
full_disk() {
  say "a full disk"
  local cluster="$place/full"
  quorate dev --dir "$cluster" --exec true
  cp -a "$cluster/replica-3" "$place/replica-3"
  mount -t tmpfs -o size=160m none "$cluster/replica-3"
  trap 'umount "$place/full/replica-3"; rm -rf "$place"' EXIT
  cp -a "$place/replica-3/." "$cluster/replica-3/"
  cat >"$place/filled" <<'SCRIPT'
step 'filling the disk of replica 3'
number=0
while quorate status --output json | grep -q '"replica": *3' && [ "$number" -lt 12 ] && [ -e "$QUORATE_DIR/replica-3/replica.pid" ]; do
  cp -a "$ATTACK_TREE" "tree-$number"
  number=$((number + 1))
done
tail -n 1 "$QUORATE_DIR/replica-3/replica.log"
df -h "$QUORATE_DIR/replica-3" | tail -n 1
for tree in tree-*; do diff -r "$ATTACK_TREE" "$tree"; done
step 'room again'
mount -o remount,size=4g "$QUORATE_DIR/replica-3"
quorate dev start 3 2>/dev/null || true
settled
audit
step done
SCRIPT
  cat "$place/common" "$place/filled" >"$place/script"
  quorate dev --dir "$cluster" --exec "exec bash '$place/script'"
  umount "$cluster/replica-3"
  trap 'rm -rf "$place"' EXIT
  rm -rf "$cluster"
}

process_tests() { # FILTER
  cargo nextest run --locked --cargo-profile release --workspace --features quorate/faults -E "binary(processes) & ($1)"
}

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
correct() { { quorate status || true; } | awk -v faulty=" $FAULTY " '$1 ~ /^[0-9]+$/ && !index(faulty, " " $1 " ") { print $5, $11 }'; }
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
step evidence
# Whoever is named is faulty, with the statements that show it; those whose lies can be proven are named.
culprits=""
for replica in $(seq 0 $((REPLICAS - 1))); do
  case " $FAULTY " in *" $replica "*) continue ;; esac
  quorate audit evidence list --output json --dir "$QUORATE_DIR/replica-$replica" >evidence || [ $? = 1 ]
  culprits="$culprits $(grep -oE '"culprit": *[0-9]+' evidence | grep -oE '[0-9]+$' | sort -u | paste -sd " " || true)"
done
rm -f evidence
culprits=$(tr ' ' '\n' <<<"$culprits" | grep . | sort -nu | paste -sd ' ' || true)
echo "proven faulty: ${culprits:-nobody}"
for culprit in $culprits; do
  case " $FAULTY " in *" $culprit "*) ;; *) echo "replica $culprit is correct" >&2; exit 1 ;; esac
done
for culprit in $PROVABLE; do
  case " $culprits " in *" $culprit "*) ;; *) echo "replica $culprit is not named" >&2; exit 1 ;; esac
done
step done
SCRIPT

# One run under these faults; what goes wrong is counted, so that the others are tried as well.
attack() { # REPLICAS ID=KIND...
  local replicas=$1 faults=() faulty="" provable="" leads=yes
  shift
  for fault in "$@"; do
    faults+=(--fault "$fault") faulty="$faulty ${fault%%=*}"
    # These tell as leaders what only a liar signs. The first leader leads for sure, the second one after a liar
    # that is replaced for it.
    case "${fault#*=}" in equivocate | time-liar) [ "$leads" = no ] || provable="$provable ${fault%%=*}" ;; *) leads=no ;; esac
  done
  say "attack at n = $replicas: $*"
  cat "$place/common" "$place/attacked" >"$place/script"
  local log="$place/attack.log" status=0
  REPLICAS=$replicas FAULTY="${faulty# }" PROVABLE="${provable# }" CORRECT=$((replicas - $#)) timeout -s TERM -k 60 900 \
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
  # Content of what was removed stays as long as a height that has it can be read.
  quorate dev --keep-heights 8 --keep-seconds 5 --exec "exec bash '$place/script'"
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
    tree) tree; in_a_mount undisturbed 'the tree: cp -a, diff -r, git, rm -r' ;;
    fuzz) bash deploy/fuzz.sh "$fuzz_seconds" ;;
    faults) tree; in_a_mount disturbed 'the tree again, with a leader killed and another replica paused, and all killed' ;;
    attacks)
      smaller_tree
      mapfile -t kinds < <(quorate_fault_kinds)
      for kind in "${kinds[@]}"; do attack 4 "0=$kind"; done
      ;;
    attacks:*) smaller_tree; attack 4 "0=${part#attacks:}" ;;
    pairs)
      smaller_tree
      mapfile -t pairs < <(quorate_fault_pairs)
      for pair in "${pairs[@]}"; do attack 7 "0=${pair%%,*}" "1=${pair#*,}"; done
      ;;
    pairs:all)
      smaller_tree
      mapfile -t kinds < <(quorate_fault_kinds)
      for first in "${!kinds[@]}"; do
        for second in "${!kinds[@]}"; do
          [ "$first" -gt "$second" ] || attack 7 "0=${kinds[first]}" "1=${kinds[second]}"
        done
      done
      ;;
    pairs:*)
      smaller_tree
      pair=${part#pairs:}
      attack 7 "0=${pair%%,*}" "1=${pair#*,}"
      ;;
    pause) smaller_tree; in_a_mount paused 'a leader and a follower stand still for a minute each' ;;
    disk) smaller_tree; full_disk ;;
    clock)
      say "wrong clocks, broken networks, more faulty ones than can be survived: three times each"
      for round in 1 2 3; do
        echo "round $round"
        process_tests 'test(attacks::clocks) | test(attacks::links) | test(attacks::beyond)'
      done
      ;;
    history)
      mapfile -t kinds < <(quorate_fault_kinds)
      for kind in none "${kinds[@]}"; do
        say "what two mounts see is linearizable: $kind, and leaders killed"
        QUORATE_HISTORY_FAULT=$kind QUORATE_HISTORY_SECONDS=60 process_tests 'test(linearizable::mounts)' ||
          failed+=("history: $kind")
      done
      ;;
  esac
done
if [ ${#failed[@]} -gt 0 ]; then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
say "done"
