#!/usr/bin/env bash
# Checks that the build tools exist: Rust, a C compiler, cmake. Installs a missing cmake from PyPI or from the packages
# of the system. Usage: setup.sh TOOLS_FOLDER
set -euo pipefail
tools=$1
export PATH="$tools/bin:$PATH"

need() {
    command -v "$1" >/dev/null || { echo "missing: $1 ($2)" >&2; exit 1; }
}

need cargo "install Rust from https://rustup.rs"
need cc "install a C compiler, such as Debian's gcc"
need python3 "install Python 3"
command -v cmake >/dev/null && exit 0

echo "cmake is missing; bringing it along"
mkdir -p "$tools/bin"
if python3 -m venv "$tools/venv" >/dev/null 2>&1 && "$tools/venv/bin/pip" install --quiet cmake 2>/dev/null; then
    ln -sf "$tools/venv/bin/cmake" "$tools/bin/cmake"
elif python3 -m pip --version >/dev/null 2>&1 && python3 -m pip install --quiet --target "$tools/pip" cmake 2>/dev/null; then
    printf '#!/bin/sh\nPYTHONPATH=%q exec python3 -c "import sys, cmake; sys.exit(cmake.cmake())" "$@"\n' "$tools/pip" > "$tools/bin/cmake"
    chmod +x "$tools/bin/cmake"
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq cmake >/dev/null
fi
command -v cmake >/dev/null && cmake --version >/dev/null || {
    echo "missing: cmake. Neither python3 with pip nor apt-get as root could bring it; install it by hand." >&2
    exit 1
}
