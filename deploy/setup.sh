#!/usr/bin/env bash
# Installs what is missing on a Debian or Ubuntu machine with a Rust toolchain, says so, and sets the
# variables that a build needs. Sourced by the other scripts:
#
#   source deploy/setup.sh            # what building and running needs
#   quorate_test_tools                # what testing needs besides
set -euo pipefail

quorate_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
quorate_cache="${QUORATE_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/quorate}"
export PATH="$quorate_cache/tools/bin:$HOME/.cargo/bin:$PATH"

say() { printf '\n== %s\n' "$*"; }

# Installs Debian packages that are missing: pairs of "command-or-file package".
quorate_packages() {
  local missing=()
  while [ $# -gt 0 ]; do
    if ! command -v "$1" >/dev/null 2>&1 && ! compgen -G "$1" >/dev/null 2>&1; then missing+=("$2"); fi
    shift 2
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  say "installing Debian packages: ${missing[*]}"
  local sudo=""
  [ "$(id -u)" -eq 0 ] || sudo=sudo
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

if ! command -v cargo >/dev/null 2>&1; then
  echo "quorate: no Rust toolchain found: install one from https://rustup.rs (1.95 or newer), then run this again" >&2
  exit 1
fi
# udev lets everybody open /dev/fuse; a container or a bare virtual machine without udev may not, and then
# fusermount3, which opens it as its caller, mounts for root alone.
quorate_fuse_device() {
  [ "$(id -u)" -eq 0 ] && [ -c /dev/fuse ] && [ "$(stat -c %a /dev/fuse)" != 666 ] || return 0
  say "letting users open /dev/fuse, as udev does"
  chmod 0666 /dev/fuse
}

quorate_packages c++ g++ '/usr/lib/llvm-*/lib/libclang.so*' libclang-dev fusermount3 fuse3 git git ps procps

# What is built here runs here: with the vector units of this machine a signature is checked in 25
# instead of 40 microseconds, and checking signatures is most of what a replica computes (ADR 4).
export RUSTFLAGS="${RUSTFLAGS:--Ctarget-cpu=native}"

# RocksDB is built once into a cache outside the clone; every profile links that library.
quorate_rocksdb() {
  local settings
  settings=$(bash "$quorate_root/deploy/rocksdb.sh")
  eval "$settings"
}
quorate_rocksdb

# The kinds of faults that a build with the feature `faults` knows, as they are given to --fault.
quorate_fault_kinds() {
  "${CARGO_TARGET_DIR:-target}"/release/quorate dev --help \
    | sed -n '/^Fault kinds:/,$p' | awk 'NR > 1 && NF { print $1 }' | sed 's/=ID/=2/; s/=MS/=300/'
}

# Pairs of kinds for n = 7, the first for the first leader: each kind once, and those that might help each other.
quorate_fault_pairs() {
  printf '%s\n' equivocate,equivocate equivocate,withhold-from=2 wrong-root,wrong-root \
    view-change-storm,slow-leader=300 censor,unfair flood,junk stale-reply,corrupt-proof equivocate,hide-entry time-liar,silent \
    crash-loop,bad-signature
}

# What the tests need besides: test runner, licence checker, and the programs that use the mount.
quorate_test_tools() {
  quorate_fuse_device
  quorate_packages rsync rsync python3 python3 setpriv util-linux diff diffutils faketime faketime openssl openssl
  # Verifiers of the log that are not ours: Go's packages for signed notes and tiled logs.
  quorate_packages go golang-go '/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog/tlog.go' golang-golang-x-mod-dev
  local tool version
  for tool in cargo-nextest=0.9.143 cargo-deny=0.20.2; do
    version=${tool#*=} tool=${tool%=*}
    if ! command -v "$tool" >/dev/null 2>&1; then
      say "installing $tool $version (once, into $quorate_cache/tools)"
      # Unoptimised: they build four times faster, and their run time does not matter.
      cargo install "$tool" --version "$version" --locked --debug --quiet --root "$quorate_cache/tools"
    fi
  done
}
