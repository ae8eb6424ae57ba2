#!/bin/bash
# The ledger, measured: bench-ledger.sh LEDGER. What it writes is in a folder of its own, and gone afterwards.
set -euo pipefail
ledger=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$ledger" memory 1000000
for round in 1 2 3; do
    mkdir "$folder/file$round" "$folder/sqlite$round"
    "$ledger" file "$folder/file$round" 4 128
    "$ledger" sqlite "$folder/sqlite$round" 4 128
done
mkdir "$folder/restart"
# It ends by aborting, as a crash would.
"$ledger" fill "$folder/restart" 1000000 2>/dev/null || true
"$ledger" restart "$folder/restart"
