#!/usr/bin/env bash
# The demonstration of the README: builds Quorate, runs a cluster of four replicas and a mount on this
# machine, unpacks a real source tree into it, kills the leader in the middle, starts it again, compares
# every byte, and checks every certificate. Exits 0 if all of that held.
#
#   bash deploy/demo.sh            # takes some seconds after the build
#   bash deploy/demo.sh --keep     # the same, then stays mounted until interrupted
set -euo pipefail
cd "$(dirname "$0")/.."
keep=""
case "${1:-}" in
  "") ;;
  --keep) keep=yes ;;
  *) echo "usage: bash deploy/demo.sh [--keep]" >&2; exit 2 ;;
esac
source deploy/setup.sh

say "building (release)"
cargo build --quiet --release --locked --workspace --features quorate/faults
target=${CARGO_TARGET_DIR:-target}
quorate=$(cd "$target/release" && pwd)/quorate
[ -e /dev/fuse ] || { echo "quorate: there is no /dev/fuse here: load the kernel module (modprobe fuse), or pass the device into the container" >&2; exit 1; }

place=$(mktemp -d "${TMPDIR:-/tmp}/quorate-demo.XXXXXX")
cluster=$place/cluster
mount=$cluster/mount
export QUORATE_CLUSTER=$cluster/cluster.toml QUORATE_KEY=$cluster/admin.key QUORATE_DIR=$cluster QUORATE_STATE=$cluster/seen
dev=""

# However this ends, `quorate dev` takes the mount away and stops the replicas.
finish() {
  local status=$?
  trap - EXIT INT TERM
  if [ -n "$dev" ] && kill -0 "$dev" 2>/dev/null; then
    kill -TERM "$dev" 2>/dev/null || true
    wait "$dev" 2>/dev/null || true
  fi
  if [ "$status" -ne 0 ]; then
    echo "quorate: the demonstration FAILED (status $status); logs are in $cluster/replica-*/replica.log" >&2
  else
    rm -rf "$place"
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

milliseconds() { date +%s%3N; }
began=$(milliseconds)
tell() { printf '%6.1f s  %s\n' "$(awk -v ms=$(($(milliseconds) - began)) 'BEGIN { print ms / 1000 }')" "$*"; }
# One field of `quorate status --output json` for each replica: "REPLICA VALUE" lines.
leader() { "$quorate" status | awk '$3 == "leader" { print $1; exit }'; }
wait_for() { # WHAT SECONDS COMMAND...
  local what=$1 until=$(($(milliseconds) + $2 * 1000))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ "$(milliseconds)" -gt "$until" ]; then
      echo "quorate: not in time: $what" >&2
      return 1
    fi
    sleep 0.1
  done
}
mounted() { grep -q " $mount fuse.quorate " /proc/mounts; }
alike() { # all replicas at one height and root
  [ "$("$quorate" status | awk '$1 ~ /^[0-9]+$/ { print $5, $11 }' | sort -u | wc -l)" = 1 ]
}

say "the demonstration"
# A real tree: the published sources of crates that this program is built from.
tree=$place/tree
mkdir "$tree"
archives=0
for name in tokio rustix nix clap_builder regex-automata serde_core; do
  for archive in "${CARGO_HOME:-$HOME/.cargo}"/registry/cache/*/"$name"-[0-9]*.crate; do
    [ -f "$archive" ] || continue
    tar -xzf "$archive" -C "$tree"
    archives=$((archives + 1))
    break
  done
done
if [ "$archives" -eq 0 ]; then
  tar --exclude=./target --exclude=./vendor --exclude=./.git -cf - . | tar -xf - -C "$tree"
fi
tar -C "$tree" -cf "$place/tree.tar" .
files=$(find "$tree" -type f | wc -l)
size=$(du -sk "$tree" | cut -f 1)

"$quorate" dev --dir "$cluster" 2>"$place/dev.log" &
dev=$!
up() { kill -0 "$dev" && mounted && "$quorate" status; }
wait_for "the cluster and its mount" 60 up || { cat "$place/dev.log" >&2; exit 1; }
tell "four replicas agree and the filesystem is mounted at $mount"

tell "unpacking a source tree of $files files ($((size / 1024)) MB) into it"
unpacking=$(milliseconds)
tar -C "$mount" -xf "$place/tree.tar" &
tar=$!
sleep 1
first=$(leader)
[ -n "$first" ] || { echo "quorate: nobody leads" >&2; exit 1; }
kill -0 "$tar" 2>/dev/null || { echo "quorate: the tree was unpacked before the leader could be killed" >&2; exit 1; }
"$quorate" dev kill "$first" 2>/dev/null
tell "killed the leader, replica $first, with SIGKILL in the middle of it"
another() { local now; now=$(leader); [ -n "$now" ] && [ "$now" != "$first" ]; }
killed=$(milliseconds)
wait_for "a new leader" 30 another
tell "replica $(leader) leads after $(($(milliseconds) - killed)) ms; tar has noticed nothing"
sleep 1
"$quorate" dev start "$first" 2>/dev/null
tell "started replica $first again, on what its disk holds"
wait "$tar"
took=$(($(milliseconds) - unpacking))
tell "tar is done, without an error: $files files in $((took / 1000)) s, $((files * 1000 / took)) files a second"

diff -r "$tree" "$mount"
tell "diff -r: every file and byte is the same"
wait_for "all replicas at one height and root" 60 alike
"$quorate" status | tail -n 1 | sed 's/^/          /'
tell "all four replicas are at height $("$quorate" status | awk '$1 == 0 { print $5 }') with one state root"
for replica in 0 1 2 3; do
  verdict=$("$quorate" audit verify --dir "$cluster/replica-$replica" | awk 'NR == 1')
  tell "audit of replica $replica's log: $verdict"
done
verdict=$("$quorate" audit verify | awk 'NR == 1')
tell "audit of the live cluster: $verdict"

if [ -n "$keep" ]; then
  say "it stays mounted until interrupted (Ctrl-C)"
  sed -n 's/^  /  /p' "$place/dev.log"
  wait "$dev"
  exit
fi
find "$mount" -mindepth 1 -delete
tell "removed everything again: $(ls -A "$mount" | wc -l) entries are left"
kill -TERM "$dev"
wait "$dev"
dev=""
! mounted
tell "unmounted and stopped; nothing is left running"
