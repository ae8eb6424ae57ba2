#!/usr/bin/env bash
# Checks the dependencies with cargo-deny, which it installs where it is missing (a few minutes, once). Licences,
# sources and bans need no network; advisories need RustSec's database, and where that cannot be had, it says so.
# Usage: deny.sh TOOLS_FOLDER
set -euo pipefail
tools=$1
cd "$(dirname "$0")/.."
export PATH="$tools/bin:$PATH"

command -v cargo-deny >/dev/null || {
    echo "cargo-deny is missing; installing it into $tools"
    cargo install cargo-deny --locked --quiet --root "$tools"
}
for manifest in Cargo.toml fuzz/Cargo.toml; do
    cargo deny --locked --manifest-path "$manifest" check --config deny.toml --hide-inclusion-graph bans licenses sources
done
if timeout 120 cargo deny fetch db >/dev/null 2>&1; then
    for manifest in Cargo.toml fuzz/Cargo.toml; do
        cargo deny --locked --manifest-path "$manifest" check --config deny.toml advisories
    done
else
    echo "ADVISORIES WERE NOT CHECKED: the database at https://github.com/RustSec/advisory-db cannot be had from here." >&2
fi
