#!/usr/bin/env bash
# `make bench`: builds for people (release) and runs the lanes. Arguments go to bench.py; see docs/performance.md.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
. "$ROOT/scripts/lib.sh"
cd "$ROOT"
need_build_tools
need python3 python3 "driving the benchmark" || fail "python3 is missing"
CARGO_TARGET_DIR=$(target_dir)
export CARGO_TARGET_DIR
cargo build --locked --release -p gateway -p loadgen -p floor-twin
exec python3 unprivileged-gateway/benches/bench.py --bin-dir "$CARGO_TARGET_DIR/release" "$@"
