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
    timeout 1200 cargo install cargo-deny --locked --quiet --root "$tools" || {
        echo "DEPENDENCIES WERE NOT CHECKED: cargo-deny could not be installed." >&2
        exit 0
    }
}
# One file serves both packages: what only one of them needs is not there in the other.
deny() {
    cargo deny --locked --config deny.toml --manifest-path "$1" check --hide-inclusion-graph "${@:2}"
}
deny Cargo.toml -A license-exception-not-encountered bans licenses sources
deny fuzz/Cargo.toml -A license-exception-not-encountered -A unmatched-skip bans licenses sources
if timeout 120 cargo deny fetch db >/dev/null 2>&1; then
    deny Cargo.toml advisories
    deny fuzz/Cargo.toml -A advisory-not-detected advisories
else
    echo "ADVISORIES WERE NOT CHECKED: the database at https://github.com/RustSec/advisory-db cannot be had from here." >&2
fi
