#!/usr/bin/env bash
# Installs sslyze into TOOLS_FOLDER, and scans the TLS of an ingress listener with it.
# Usage: tls-scan.sh TOOLS_FOLDER CALLGATE
set -euo pipefail
tools=$(cd "$1" && pwd)
callgate=$2
here=$(cd "$(dirname "$0")/../tests/tls_scan" && pwd)
site="$tools/tls-scan/site"
wanted=sslyze==6.3.1

if [ ! -d "$site/sslyze-${wanted#*==}.dist-info" ]; then
    rm -rf "$site"
    pip=(python3 -m pip)
    [ ! -x "$tools/venv/bin/pip" ] || pip=("$tools/venv/bin/pip")
    if ! "${pip[@]}" install --quiet --no-compile --target "$site" "$wanted"; then
        rm -rf "$site"
        echo "tls-scan: TLS WAS NOT SCANNED: pip cannot install sslyze" >&2
        [ -z "${STRICT:-}" ] || exit 1
        exit 0
    fi
fi
PYTHONPATH="$site" python3 -W ignore "$here/run.py" --callgate "$callgate"
