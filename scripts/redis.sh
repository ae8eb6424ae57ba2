#!/usr/bin/env bash
# Runs the tests of the ledger again with the ledger on Redis, and then on Valkey. Left out are the tests that choose the
# time, because Redis has a clock of its own, those of members with separate ledgers, and those that look into the file.
# Of the tests of the inbox, those are left out that start Redis themselves, that expect the numbers of a file's messages,
# bodies above 64 KiB, or messages at once after a kill (docs/inbox.md, "On Redis").
# Usage: redis.sh TOOLS_FOLDER [redis-server|valkey-server ...]
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$1
shift
[ $# -gt 0 ] || set -- redis-server valkey-server
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
for name in "$@"; do
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "$tools/engines/bin/$name" --port "$port" --bind 127.0.0.1 --save "" --dir "$folder" >"$folder/log" 2>&1 &
    server=$!
    for _ in $(seq 100); do (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done
    echo "the ledger on $name:"
    CALLGATE_TEST_REDIS="127.0.0.1:$port" cargo test --locked --test suite -- actions ledger:: ledger_search notices \
        events matching opaque inbox:: \
        --skip event_log --skip egress_ --skip forward_proxy --skip replica --skip shared_ --skip streams \
        --skip inbox::crash --skip inbox::failover --skip inbox::members --skip inbox::shared --skip inbox::undelivered \
        --skip bodies_are_encrypted --skip the_page_counts_the_messages \
        --skip a_message_that_cannot_be_read_is_listed --skip a_watcher_receives_large_messages
    kill "$server"
    wait "$server" 2>/dev/null || true
done
