#!/usr/bin/env bash
# Counts instructions (callgrind) and allocations of one decision and of one delivered callback, and compares them with
# benches/baseline.txt: more than the margin is a failure. Neither depends on how busy the machine is. Two runs of
# different length are subtracted, so that starting does not count. Brings Debian's valgrind under TOOLS_FOLDER where none
# is installed. Usage: count.sh TOOLS_FOLDER [--write]
set -euo pipefail
tools=$1
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

bring() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    local folder="$tools/valgrind.new"
    rm -rf "$folder"
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/root"
    # What the system knows of the archive, or else what the archive says now, kept here.
    local here=(-o "Dir::State::lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o "APT::Sandbox::User=$(id -un)")
    (cd "$folder" && apt-get -qq -o "APT::Sandbox::User=$(id -un)" download valgrind 2>/dev/null) ||
        { apt-get -qq "${here[@]}" update 2>/dev/null && (cd "$folder" && apt-get -qq "${here[@]}" download valgrind 2>/dev/null); } ||
        return 1
    dpkg -x "$folder"/valgrind_*.deb "$folder/root"
    rm -rf "$folder/lists" "$folder/cache" "$folder"/*.deb "$tools/valgrind"
    mv "$folder" "$tools/valgrind"
}

valgrind=$(command -v valgrind || true)
if [ -z "$valgrind" ]; then
    [ -x "$tools/valgrind/root/usr/bin/valgrind" ] || bring || true
    valgrind="$tools/valgrind/root/usr/bin/valgrind"
    export VALGRIND_LIB="$tools/valgrind/root/usr/libexec/valgrind"
fi
if ! "$valgrind" --version >/dev/null 2>&1; then
    echo "INSTRUCTIONS WERE NOT COUNTED: there is no valgrind, and apt-get cannot bring it" >&2
    [ -z "${STRICT:-}" ] || exit 1
    exit 0
fi

binary=$(cargo bench --locked --bench count --no-run --message-format json-render-diagnostics |
    python3 -c 'import json, sys; print(*[m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "count"])')
exec python3 "$root/benches/count.py" "$valgrind" "$binary" "${@:2}"
