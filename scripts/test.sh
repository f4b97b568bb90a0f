#!/usr/bin/env bash
# `make test`: everything that proves the product, and a list of what was skipped here and why.
# Every step runs even when an earlier one failed, so that one run shows all that is wrong.
set -uo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
. "$ROOT/scripts/lib.sh"
cd "$ROOT" || exit 1
need_build_tools
CARGO_TARGET_DIR=$(target_dir)
export CARGO_TARGET_DIR
log=$(mktemp)
trap 'rm -f "$log"' EXIT
started=$(date +%s)
failed=()

# step NAME COMMAND...: its output goes to the screen and, for the list of skips, to a file.
step() {
    local name=$1 begin
    shift
    say "$name"
    begin=$(date +%s)
    if "$@" 2>&1 | tee -a "$log"; then
        printf -- '-- %s: ok in %s s\n' "$name" "$(($(date +%s) - begin))"
    else
        printf -- '-- %s: FAILED after %s s\n' "$name" "$(($(date +%s) - begin))"
        failed+=("$name")
    fi
}

page() {
    if ! need node nodejs "building and testing the page" || ! need npm npm "the page's packages"; then
        echo "SKIP page: node and npm are missing and could not be installed"
        return 0
    fi
    need chromium chromium "looking at the page" || true
    (cd unprivileged-gateway/ui && npm ci --no-audit --no-fund --loglevel=error && npm run check && npm test)
}

need_bpf_tools || fail "the probe's BPF program cannot be compiled: apt-get install clang libbpf-dev"
need python3 python3 "senders that are not ours" || true
need strace strace "the order of fdatasync and answer" || true
need patch patch "taking one rule away at a time" || fail "patch is missing: apt-get install patch"

promtool=$(unpacked prometheus usr/bin/promtool) && export BULKHEAD_PROMTOOL=$promtool
exporter=$(unpacked prometheus-node-exporter usr/bin/prometheus-node-exporter) && export BULKHEAD_NODE_EXPORTER=$exporter
journal_remote=$(unpacked systemd-journal-remote lib/systemd/systemd-journal-remote || unpacked systemd-journal-remote usr/lib/systemd/systemd-journal-remote) &&
    export BULKHEAD_JOURNAL_REMOTE=$journal_remote
journal_library=$(unpacked libmicrohttpd12 "usr/lib/$(uname -m)-linux-gnu/libmicrohttpd.so.12") && export BULKHEAD_JOURNAL_REMOTE_LIBS=${journal_library%/*}

step "format" cargo fmt --all --check
step "lint" cargo clippy --locked --workspace --all-targets --profile ci -- -D warnings
step "binaries" cargo build --locked --profile ci --workspace --bins
export BULKHEAD_BIN_DIR=$CARGO_TARGET_DIR/ci
step "tests" cargo test --locked --workspace --profile ci --no-fail-fast
step "sabotage: the log's tests turn red when a rule is taken away" unprivileged-gateway/wal/tests/sabotage/run.sh
# After the scenes, which unpack other people's SDKs under target/tools.
step "page" page

say "skipped here"
grep -h '^ *SKIP ' "$log" | sed 's/^ *//' | sort -u || true
grep -q '^ *SKIP ' "$log" || echo "nothing"
say "$(($(date +%s) - started)) s in all"
passed=$(grep -hoE '^test result: .* ([0-9]+) passed' "$log" | grep -oE '[0-9]+ passed' | awk '{n += $1} END {print n + 0}')
broken=$(grep -hoE '[0-9]+ failed' "$log" | awk '{n += $1} END {print n + 0}')
for name in "${failed[@]:-}"; do [ -z "$name" ] || printf 'failed step: %s\n' "$name"; done
[ ${#failed[@]} -eq 0 ] || [ "$broken" -gt 0 ] || broken=${#failed[@]}
printf '%s passed, %s failed\n' "$passed" "$broken"
[ ${#failed[@]} -eq 0 ]
