#!/usr/bin/env bash
# `make run`: build, then show this machine. As root: the probe and the gateway, two identities, neither of them root.
# Otherwise: the gateway alone, and one line on what that leaves out.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
. "$ROOT/scripts/lib.sh"
cd "$ROOT"
need_build_tools
CARGO_TARGET_DIR=$(target_dir)
export CARGO_TARGET_DIR

build() { # build PROGRAM...
    say "building $* (the first time takes some minutes)"
    # shellcheck disable=SC2046 # one --bin each
    cargo build --locked --release $(printf -- '--bin %s ' "$@")
}

if [ "$(id -u)" -ne 0 ]; then
    build gateway
    printf 'not root: the gateway runs alone, as you. Profiles and the log files of others need the probe: sudo make run\n'
    exec "$CARGO_TARGET_DIR/release/gateway" "$@"
fi

need_bpf_tools || fail "the probe's BPF program cannot be compiled: apt-get install clang libbpf-dev"
need setpriv util-linux "giving each process its own identity" || fail "setpriv is missing: apt-get install util-linux"
build gateway probe

# A clone below /root is closed to others and /run is often mounted noexec, hence a copy that everybody can read and run.
bin=/var/cache/bulkhead/bin
install -d -m 0755 /var/cache/bulkhead "$bin"
install -m 0755 "$CARGO_TARGET_DIR/release/gateway" "$CARGO_TARGET_DIR/release/probe" "$bin/"

# The gateway: the person who called sudo, else an identity of its own; no capability. It reads the journal as that group.
uid=${SUDO_UID:-62473}
gid=${SUDO_GID:-$uid}
state=/var/lib/bulkhead
install -d -m 0700 -o "$uid" -g "$gid" "$state"
chown -R "$uid:$gid" "$state"
journal=$(getent group systemd-journal | cut -d: -f3 || true)

# The probe: its own identity; group 0 and adm for log files; the socket's folder is open to the gateway's group only.
probe_uid=62474
probe_state=/var/lib/bulkhead-probe
door=/run/bulkhead
adm=$(getent group adm | cut -d: -f3 || true)
install -d -m 0700 -o "$probe_uid" -g "$probe_uid" "$probe_state"
chown -R "$probe_uid:$probe_uid" "$probe_state"
install -d -m 0750 -o "$probe_uid" -g "$gid" "$door"

# Kernels of Debian and Ubuntu refuse perf events to everybody but SYS_ADMIN above 2; the old value comes back at the end.
paranoid=/proc/sys/kernel/perf_event_paranoid
paranoid_was=$(cat "$paranoid" 2>/dev/null || echo 2)
if [ "$paranoid_was" -gt 2 ] && echo 2 >"$paranoid" 2>/dev/null; then
    printf 'kernel.perf_event_paranoid is 2 while this runs (it was %s)\n' "$paranoid_was"
fi

files=()
for pattern in '/var/log/*.log' /var/log/syslog /var/log/messages; do
    compgen -G "$pattern" >/dev/null && files+=(--files "system=$pattern")
done

probe=
start_probe() {
    setpriv --reuid="$probe_uid" --regid="$probe_uid" --groups="0${adm:+,$adm}" --no-new-privs \
        --bounding-set=-all,+bpf,+perfmon,+sys_ptrace --inh-caps=-all,+bpf,+perfmon,+sys_ptrace \
        --ambient-caps=-all,+bpf,+perfmon,+sys_ptrace \
        "$bin/probe" --socket "$door/probe.sock" --state "$probe_state" --peer-uid "$uid" "${files[@]}" &
    probe=$!
}

ending=
gateway=
# Children are ended by pid, and only they. Ctrl-C reaches the whole process group anyway.
finish() {
    ending=yes
    for child in "$gateway" "$probe"; do
        [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true
    done
}
trap finish TERM INT

start_probe
export STATE_DIRECTORY=$state HOME=$state BULKHEAD_PROBE_SOCKET=$door/probe.sock
if [ -n "$journal" ]; then groups=(--groups="$journal"); else groups=(--clear-groups); fi
setpriv --reuid="$uid" --regid="$gid" "${groups[@]}" --bounding-set=-all --inh-caps=-all --no-new-privs "$bin/gateway" "$@" &
gateway=$!

# Until the gateway has ended. The probe asks with 75 to be started again (a processor came, its nursery went).
code=0
while kill -0 "$gateway" 2>/dev/null; do
    ended=
    wait -n -p ended "$gateway" ${probe:+"$probe"} && status=0 || status=$?
    case ${ended:-} in
    "$gateway") code=$status && gateway= && break ;;
    "$probe")
        probe=
        [ -n "$ending" ] && continue
        if [ "$status" -eq 75 ]; then
            start_probe
        else
            printf 'the probe ended with %s (%s doctor says why); the gateway goes on without it\n' "$status" "$bin/probe" >&2
        fi
        ;;
    esac
done
finish
wait || true
[ "$paranoid_was" -le 2 ] || echo "$paranoid_was" >"$paranoid" 2>/dev/null || true
exit "$code"
