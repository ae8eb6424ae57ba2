#!/usr/bin/env bash
# Runs the unit tests and the suite: with cargo-nextest if it is installed, else with cargo's own runner.
# Usage: unit.sh [compile]: compiles the tests and target/debug/callgate, and runs nothing.
#
# `cargo build` would compile most dependencies a second time, because tests enable further features of some of them.
set -euo pipefail
cd "$(dirname "$0")/.."
targets=(--lib --bins --tests)
if [ "${1:-}" = compile ]; then exec cargo test --locked "${targets[@]}" --no-run; fi
if cargo nextest --version >/dev/null 2>&1; then exec cargo nextest run --locked "${targets[@]}"; fi
exec cargo test --locked "${targets[@]}"
