#!/usr/bin/env bash
# Installs the providers' own client libraries into TOOLS_FOLDER, and tests Callgate with the requests that they sign.
# Usage: interop.sh TOOLS_FOLDER CALLGATE [--only NAME]...
set -euo pipefail
tools=$1
callgate=$2
shift 2
here=$(cd "$(dirname "$0")/../tests/interop" && pwd)
mkdir -p "$tools/interop"

site="$tools/interop/site"
if ! cmp -s "$here/requirements.txt" "$site/requirements.txt"; then
    rm -rf "$site"
    if python3 -m venv "$tools/venv" >/dev/null 2>&1; then
        pip=("$tools/venv/bin/pip")
    elif python3 -m pip --version >/dev/null 2>&1; then
        pip=(python3 -m pip)
    else
        echo "interop: THE PROVIDERS' LIBRARIES WERE NOT TRIED: python3 has neither venv nor pip (on Debian: apt-get install python3-venv)" >&2
        # Some machines cannot install the libraries. This is a failure only if STRICT is set.
        [ -z "${STRICT:-}" ] || exit 1
        exit 0
    fi
    "${pip[@]}" install --quiet --no-deps --no-compile --target "$site" -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$site/"
fi

modules=()
if command -v npm >/dev/null && command -v node >/dev/null; then
    if ! cmp -s "$here/package.json" "$tools/interop/package.json" || [ ! -d "$tools/interop/node_modules" ]; then
        rm -rf "$tools/interop/node_modules"
        cp "$here/package.json" "$tools/interop/"
        (cd "$tools/interop" && npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts \
            --legacy-peer-deps >/dev/null) || { rm "$tools/interop/package.json"; exit 1; }
    fi
    cp "$here/signers.mjs" "$here/a2a_client.mjs" "$here/a2a_server.mjs" "$tools/interop/"
    modules=(--modules "$tools/interop")
fi
# FETCH_ONLY=1 installs the libraries and runs nothing.
[ -z "${FETCH_ONLY:-}" ] || exit 0
PYTHONPATH="$site" python3 "$here/run.py" --callgate "$callgate" "${modules[@]}" "$@"
PYTHONPATH="$site" python3 "$here/asymmetric.py" --callgate "$callgate"
PYTHONPATH="$site" python3 "$here/a2a_conversations.py" --callgate "$callgate" "${modules[@]}"
PYTHONPATH="$site" python3 "$here/assertions.py" --callgate "$callgate" "${modules[@]}"
