#!/bin/bash
# Measures the ledger. Its files are in a temporary folder, which is removed afterwards. Usage: bench-ledger.sh LEDGER
set -euo pipefail
ledger=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$ledger" memory 1000000
"$ledger" events 3000000
for round in 1 2 3; do
    mkdir "$folder/file$round" "$folder/sqlite$round"
    "$ledger" file "$folder/file$round" 4 128
    "$ledger" sqlite "$folder/sqlite$round" 4 128
done
mkdir "$folder/restart"
# `fill` aborts at its end, which simulates a crash.
"$ledger" fill "$folder/restart" 1000000 2>/dev/null || true
"$ledger" restart "$folder/restart"
