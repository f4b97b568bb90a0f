# Shared by run.sh, test.sh and bench.sh. Installs by package name only, and says what it installs and why.
# shellcheck shell=bash
say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need COMMAND PACKAGE WHY: Debian's PACKAGE when COMMAND is missing. Returns 1 when it cannot be had.
need() {
    command -v "$1" >/dev/null 2>&1 && return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        printf 'missing: %s (Debian package %s), needed for %s\n' "$1" "$2" "$3"
        return 1
    fi
    if [ -z "${APT_UPDATED:-}" ]; then
        apt-get update -qq >/dev/null 2>&1 || true
        APT_UPDATED=1
    fi
    printf 'installing %s for %s\n' "$2" "$3"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null 2>&1 || true
    command -v "$1" >/dev/null 2>&1
}

# The compiler, and the C compiler that two crates (ring, zstd-sys) call.
need_build_tools() {
    [ -x "$HOME/.cargo/bin/cargo" ] && PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null 2>&1 || fail "cargo is missing: install Rust 1.95 or newer (rustup, or your distribution), then run this again"
    need cc gcc "compiling ring and zstd" || fail "no C compiler: apt-get install gcc"
}

# What compiles the probe's BPF program: clang, and the kernel's helper declarations.
need_bpf_tools() {
    need clang clang "compiling the probe's BPF program" || return 1
    need llvm-strip llvm "making the BPF program small" || true
    [ -e /usr/include/bpf/bpf_helpers.h ] && return 0
    # A header, not a command: asked for by a name that is never found, so that it is installed.
    need bpf_helpers.h libbpf-dev "compiling the probe's BPF program" || true
    [ -e /usr/include/bpf/bpf_helpers.h ]
}

# Where cargo builds. CI keeps it outside the clone, so that dependencies are compiled once for many clones.
target_dir() {
    if [ -n "${CARGO_TARGET_DIR:-}" ]; then
        printf '%s' "$CARGO_TARGET_DIR"
    elif [ "${CI:-}" = true ]; then
        printf '%s/bulkhead/target' "${XDG_CACHE_HOME:-$HOME/.cache}"
    else
        printf '%s/target' "$ROOT"
    fi
}

# unpacked PACKAGE FILE: the path of FILE out of Debian's PACKAGE, unpacked under target/tools. Nothing is installed, so no service
# starts on this machine. Prints nothing when it cannot be had.
unpacked() {
    local folder=$ROOT/target/tools/$1
    if [ ! -e "$folder/$2" ] && command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1; then
        mkdir -p "$folder"
        (cd "$folder" && apt-get download -qq "$1" && dpkg-deb -x ./*.deb . && rm -f ./*.deb) >/dev/null 2>&1 || true
    fi
    [ -e "$folder/$2" ] && printf '%s' "$folder/$2"
}
