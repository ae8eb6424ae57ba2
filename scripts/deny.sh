#!/usr/bin/env bash
# Checks the dependencies with cargo-deny. If it is missing, builds it and keeps it in the user's cache folder for other
# clones. Licences, sources and bans need no network. Advisories need the database of RustSec. If it cannot be
# downloaded, the script prints a message. Usage: deny.sh TOOLS_FOLDER
set -euo pipefail
tools=$1
cd "$(dirname "$0")/.."
version=0.20.2
cache="${XDG_CACHE_HOME:-$HOME/.cache}/callgate/cargo-deny-$version"
export PATH="$tools/bin:$PATH:$cache/bin"

command -v cargo-deny >/dev/null || {
    echo "cargo-deny is missing; building it into $cache"
    cargo install cargo-deny --version "$version" --locked --quiet --root "$cache"
}
# deny.toml serves both packages, so entries that only one package needs are unused in the other.
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
