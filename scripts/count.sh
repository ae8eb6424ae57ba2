#!/usr/bin/env bash
# Counts instructions (callgrind) and allocations of one decision and of one delivered callback, and compares them with
# benches/baseline.txt. An increase beyond the margin is a failure. The counts do not depend on the load of the machine.
# Two runs of different length are subtracted, so that the startup is not included. If valgrind is missing, unpacks
# Debian's package into TOOLS_FOLDER. Usage: count.sh TOOLS_FOLDER [--write]
#
# SMALL=1 counts only allocations, with the dependencies and the library that the tests have compiled.
set -euo pipefail
tools=$1
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

# Compiles the benchmark with these settings of cargo, and prints the name of the program.
compile() {
    cargo build --locked --example count --message-format json-render-diagnostics "$@" |
        python3 -c 'import json, sys; print(*[m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "count"])'
}

if [ -n "${SMALL:-}" ]; then
    binary=$(compile)
    exec python3 "$root/benches/count.py" "" "$binary"
fi

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

# The development profile with optimized dependencies, because the release profile optimizes the whole program at once,
# which takes longer. So the figures are higher than those of a release build.
binary=$(compile --config 'profile.dev.package."*".opt-level=2' --config profile.dev.package.callgate.opt-level=2 \
    --config profile.dev.package.callgate.debug=0)
exec python3 "$root/benches/count.py" "$valgrind" "$binary" "${@:2}"
