#!/usr/bin/env bash
# Runs the POSIX test suite `pjdfstest` in a mount of a cluster of its own, with every feature that Linux
# has. What may fail is listed in deploy/pjdfstest-expected.txt with a reason; any other failure, and a
# listed test that passes, is an error. Needs root: the suite switches users.
#
#   bash deploy/pjdfstest.sh [PATTERN...]
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/setup.sh

version=0.2.2
expected=$PWD/deploy/pjdfstest-expected.txt
[ "$(id -u)" -eq 0 ] || { echo "quorate: pjdfstest must run as root, because it switches users" >&2; exit 1; }

# The list: "NAME  # REASON"; nothing of these families may be on it.
must_pass='chmod|chown|link|mkdir|open|rename|rmdir|symlink|truncate|unlink'
names=$(sed -E 's/[[:space:]]*#.*//; /^[[:space:]]*$/d; s/[[:space:]]+$//' "$expected")
if bad=$(grep -nvE '^[[:space:]]*(#|$)|^[A-Za-z0-9_:]+[[:space:]]+# .+' "$expected"); then
  echo "quorate: lines without a reason in $expected:"$'\n'"$bad" >&2
  exit 1
fi
if bad=$(grep -E "(^|::)($must_pass)::" <<<"$names"); then
  echo "quorate: these must pass and cannot be on the list of $expected:"$'\n'"$bad" >&2
  exit 1
fi

tool=$quorate_cache/tools/bin/pjdfstest
if ! "$tool" --version 2>/dev/null | grep -qF "$version"; then
  quorate_packages '/usr/include/sys/acl.h' libacl1-dev
  say "installing pjdfstest $version (once, into $quorate_cache/tools)"
  cargo install pjdfstest --version "$version" --locked --debug --quiet --force --root "$quorate_cache/tools"
fi
quorate=${QUORATE:-${CARGO_TARGET_DIR:-target}/release/quorate}
[ -x "$quorate" ] || cargo build --quiet --release --locked --workspace --features quorate/faults
quorate=$(realpath "$quorate")

place=$(mktemp -d "${TMPDIR:-/tmp}/quorate-pjdfstest.XXXXXX")
trap 'rm -rf "$place"' EXIT
{
  echo '[features]'
  echo "secondary_fs = \"$place/other\""
  for feature in posix_fallocate rename_ctime utime_now utimensat; do echo "[features.$feature]"; done
  echo '[settings]'
  echo 'naptime = 0.01'
  echo 'allow_remount = false'
  echo 'expected_failures = ['
  while read -r name; do [ -z "$name" ] || echo "  \"$name\","; done <<<"$names"
  echo ']'
  # Two users that every Debian machine has.
  echo '[dummy_auth]'
  echo 'entries = [["nobody", "nogroup"], ["daemon", "daemon"]]'
} >"$place/pjdfstest.toml"
mkdir "$place/other" "$place/mount"
chmod 755 "$place" # the suite's users must get in

# Others may enter it, and device nodes are made and opened.
status=0
NO_COLOR=1 "$quorate" dev --mount "$place/mount" -o allow_other,dev,suid \
  --exec "exec '$tool' --configuration-file '$place/pjdfstest.toml' --path . -- ${*:-}" >"$place/report" || status=$?
grep -aE 'FAILED|PASSED UNEXPECTEDLY' -A 3 "$place/report" || true
tail -n 1 "$place/report"
[ -n "${REPORT:-}" ] && cp "$place/report" "$REPORT"
exit "$status"
