#!/usr/bin/env bash
# Runs the fuzz targets one after the other, and stops at the first finding. A finding is an input below fuzz/artifacts.
# After the fix it becomes a seed, which `make test` runs from then on. Usage: fuzz.sh [SECONDS [TARGET...]]
# The instrumentation is unstable in Rust. Without a nightly compiler, RUSTC_BOOTSTRAP lets the stable one do it.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true

command -v cargo-fuzz >/dev/null || {
    echo "missing: cargo-fuzz; cargo install cargo-fuzz --locked --root .tools (make fuzz does)" >&2
    exit 1
}
command -v c++ >/dev/null || { echo "missing: c++, which libFuzzer is built with; install Debian's g++" >&2; exit 1; }
if command -v rustup >/dev/null && rustup toolchain list | grep -q '^nightly'; then
    cargo=(cargo +nightly)
else
    cargo=(env RUSTC_BOOTSTRAP=1 cargo)
fi

# Maximum input of each target, in bytes: long enough for every kind of input, and short enough for many runs.
declare -A longest=(
    [config]=8192 [connect]=512 [decide]=4096 [forwarded]=512 [json_pointer]=1024 [ledger_file]=512
    [path]=512 [response_head]=4096 [signature_headers]=2048 [template]=512 [token]=2048
)
# These targets need the feature `proxy`. It takes much longer to compile.
declare -A proxy=([ledger_file]=1 [response_head]=1)
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(printf '%s\n' "${!longest[@]}" | sort)

for target in "${targets[@]}"; do
    [ -n "${longest[$target]:-}" ] || { echo "$target is not one of: ${!longest[*]}" >&2; exit 1; }
    features=()
    [ -z "${proxy[$target]:-}" ] || features=(--features proxy)
    corpus=fuzz/corpus/$target
    mkdir -p "$corpus"
    "${cargo[@]}" fuzz build "${features[@]}" "$target"
    echo "== $target: $seconds s"
    # An input that takes too long is a finding, because this code runs for every request or at startup.
    "${cargo[@]}" fuzz run "${features[@]}" "$target" "$corpus" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len="${longest[$target]}" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 2>&1 |
        grep -E --line-buffered 'panicked|^assertion|SUMMARY|Test unit written|left:|right:|stat::number_of_executed|stat::peak_rss|^Done|ERROR' ||
        { echo "$target: see above" >&2; exit 1; }
    [ -z "$(find "fuzz/artifacts/$target" -type f 2>/dev/null | head -1)" ] || {
        echo "$target: a finding in fuzz/artifacts/$target" >&2
        exit 1
    }
done
echo "no finding"
