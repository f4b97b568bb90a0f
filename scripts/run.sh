#!/usr/bin/env bash
# `make run`: build, then run the gateway with nothing configured. It never runs as root.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
. "$ROOT/scripts/lib.sh"
cd "$ROOT"
need_build_tools
CARGO_TARGET_DIR=$(target_dir)
export CARGO_TARGET_DIR
say "building (the first time takes some minutes)"
cargo build --locked --release --bin gateway

gateway=$CARGO_TARGET_DIR/release/gateway
if [ "$(id -u)" -ne 0 ]; then
    printf 'not root: the gateway runs as you, and shows what is sent to it; a probe (profiles, pod logs) would need root\n'
    exec "$gateway" "$@"
fi

# Root started us: the gateway gets an identity of its own, no capability, and folders it alone may write.
# A clone below /root is closed to others, hence the copy.
uid=${SUDO_UID:-62473}
gid=${SUDO_GID:-$uid}
bin=/run/bulkhead/bin
state=/var/lib/bulkhead
install -d -m 0755 /run/bulkhead "$bin"
install -m 0755 "$gateway" "$bin/gateway"
install -d -m 0700 -o "$uid" -g "$gid" "$state"
chown -R "$uid:$gid" "$state"

# The child is ended by pid, and only it: Ctrl-C reaches the whole process group, so the gateway drains by itself.
STATE_DIRECTORY=$state HOME=$state setpriv --reuid="$uid" --regid="$gid" --clear-groups \
    --bounding-set=-all --inh-caps=-all --no-new-privs "$bin/gateway" "$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
code=0
wait "$child" || code=$?
# The first wait returns when the signal comes; the second when the gateway has drained.
if kill -0 "$child" 2>/dev/null; then
    code=0
    wait "$child" || code=$?
fi
exit "$code"
