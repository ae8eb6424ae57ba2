#!/usr/bin/env bash
# Counts instructions (callgrind) and allocations of one decision and of one delivered callback, and compares them with
# benches/baseline.txt. An increase beyond the margin is a failure. The counts do not depend on the load of the machine.
# Two runs of different length are subtracted, so that the startup is not included. If valgrind is missing, unpacks
# Debian's package into TOOLS_FOLDER. Usage: count.sh TOOLS_FOLDER [--write]
set -euo pipefail
tools=$1
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

. "$root/scripts/debian.sh"

valgrind=$(command -v valgrind || true)
if [ -z "$valgrind" ]; then
    [ -x "$tools/valgrind/root/usr/bin/valgrind" ] || bring_debian valgrind "$tools" || true
    valgrind="$tools/valgrind/root/usr/bin/valgrind"
    export VALGRIND_LIB="$tools/valgrind/root/usr/libexec/valgrind"
fi
if ! "$valgrind" --version >/dev/null 2>&1; then
    echo "INSTRUCTIONS WERE NOT COUNTED: there is no valgrind, and apt-get cannot bring it" >&2
    [ -z "${STRICT:-}" ] || exit 1
    exit 0
fi

# COMPILE_ONLY=1 compiles the benchmark and counts nothing. The dependencies are those of the tests, because compiling
# them again for the release profile takes minutes. So the figures are higher than those of a release build.
binary=$(cargo build --locked --example count --config profile.dev.package.callgate.opt-level=1 \
    --config profile.dev.package.callgate.debug=0 --message-format json-render-diagnostics |
    python3 -c 'import json, sys; print(*[m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "count"])')
[ -z "${COMPILE_ONLY:-}" ] || exit 0
exec python3 "$root/benches/count.py" "$valgrind" "$binary" "${@:2}"
