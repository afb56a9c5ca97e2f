#!/usr/bin/env bash
# Builds one static librocksdb (full optimisation, lz4 only) into a cache outside the clone, and
# prints the two variables that make every profile link it. Building takes some 14 minutes on two
# cores, once for each version of the crate and compiler; afterwards this script only prints.
#
#   eval "$(bash deploy/rocksdb.sh)"
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
sys_version=$(awk '$0 == "name = \"librocksdb-sys\"" { getline; gsub(/version = |"/, ""); print }' "$here/Cargo.lock" 2>/dev/null || true)
[ -n "$sys_version" ] || sys_version="0.19.0+11.8.1"
compiler=$(${CXX:-c++} -dumpfullversion -dumpversion | head -n 1)
cache="${QUORATE_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/quorate}"
key="rocksdb-${sys_version}-lz4-gxx${compiler}-$(uname -m)"
out="$cache/$key"

if [ ! -f "$out/librocksdb.a" ]; then
  mkdir -p "$cache"
  # One builder at a time: a second caller waits, then finds the library.
  exec 9>"$cache/$key.lock"
  flock 9
  if [ ! -f "$out/librocksdb.a" ]; then
    echo "quorate: building $key (some 14 minutes on two cores, once)" >&2
    scratch=$(mktemp -d "$cache/build.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/src"
    : >"$scratch/src/lib.rs"
    cat >"$scratch/Cargo.toml" <<TOML
[package]
name = "rocksdb-builder"
version = "0.0.0"
edition = "2021"
[dependencies]
librocksdb-sys = { version = "=${sys_version%%+*}", default-features = false, features = ["lz4", "bindgen-runtime"] }
[profile.release]
debug = false
[profile.release.build-override]
opt-level = 0
TOML
    flags=""
    # SSE 4.2 and PCLMUL are in every x86-64-v2 machine; without them checksums are slow.
    [ "$(uname -m)" = x86_64 ] && flags="-Ctarget-feature=+sse4.2,+pclmulqdq"
    (cd "$scratch" && env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC RUSTFLAGS="$flags" CARGO_TARGET_DIR="$scratch/target" \
      cargo build --release >&2)
    library=$(find "$scratch/target" -name librocksdb.a | head -n 1)
    [ -n "$library" ] || { echo "quorate: the RocksDB build left no librocksdb.a" >&2; exit 1; }
    mkdir -p "$out.partial"
    cp "$library" "$out.partial/librocksdb.a"
    rm -rf "$out"
    mv "$out.partial" "$out"
  fi
fi
echo "export ROCKSDB_LIB_DIR='$out' ROCKSDB_STATIC=1"
