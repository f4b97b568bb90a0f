#!/usr/bin/env bash
# Takes one rule away at a time and demands that the test which guards it turns red.
#
#   tests/sabotage/run.sh [PATCH...]        all patches of this folder by default
#
# Works on a copy of the workspace under target/sabotage; the tree itself is never touched. Each patch names its test in
# its first line: "test: TARGET NAME". A patch that does not apply or does not compile is a failure, not a red test.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../../.." && pwd)
base=${CARGO_TARGET_DIR:-$root/target}/sabotage
copy=$base/tree
export CARGO_TARGET_DIR=$base/build RUST_BACKTRACE=0
mkdir -p "$copy"
patches=("$@")
[ ${#patches[@]} -gt 0 ] || patches=("$here"/*.patch)
failed=0

fresh_copy() {
    rm -rf "$copy" && mkdir -p "$copy"
    tar -C "$root" --exclude=./target --exclude=./.git --exclude=node_modules -cf - . | tar -C "$copy" -xf -
}

for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    read -r _ target test < <(head -n 1 "$patch")
    fresh_copy
    if ! patch -s -d "$copy" -p1 < "$patch"; then
        echo "BROKEN  $name: the patch does not apply"; failed=1; continue
    fi
    if ! (cd "$copy" && cargo test -q -p wal --test "$target" --no-run) > "$base/$name.build" 2>&1; then
        echo "BROKEN  $name: does not compile, see $base/$name.build"; failed=1; continue
    fi
    if (cd "$copy" && timeout 300 cargo test -q -p wal --test "$target" "$test") > "$base/$name.log" 2>&1; then
        echo "MISSED  $name: $target::$test is still green"; failed=1; continue
    fi
    if ! grep -q "^test result: FAILED\|panicked at" "$base/$name.log"; then
        echo "BROKEN  $name: the test did not run, see $base/$name.log"; failed=1; continue
    fi
    echo "caught  $name by $target::$test: $(grep -m1 -A1 'panicked at' "$base/$name.log" | tail -1 | cut -c1-160)"
done
exit $failed
