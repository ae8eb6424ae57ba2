#!/usr/bin/env bash
# Runs the unit tests and the suite: with cargo-nextest if it is installed, else with cargo's own runner.
# Usage: unit.sh [compile]: compiles the tests, and runs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
if cargo nextest --version >/dev/null 2>&1; then
    if [ "${1:-}" = compile ]; then exec cargo test --locked --no-run; fi
    exec cargo nextest run --locked
fi
if [ "${1:-}" = compile ]; then exec cargo test --locked --no-run; fi
exec cargo test --locked
