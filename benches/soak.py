#!/usr/bin/env python3
"""Sends callbacks at a fixed rate to a default installation until its memory of events is full, and longer.

For each store, the callbacks belong to interactions, and then to none. Callgate must deliver every callback, and its
memory must not grow after the memory of events is full. Prints the resident memory after each part of the load.
Usage: soak.py [--seconds 1800] [--rate 5000] [--stores file,memory] [--events-max N]
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import peers
from process import resident_kib

PART_SECONDS = 20
# Memory may grow by this factor after the memory of events is full.
GROWTH_MAX = 1.1
INTERACTIONS = 100
CONFIG = """public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: "127.0.0.1:{port}" }} ], admin: {{ address: "127.0.0.1:{admin}" }} }}
agent: {{ address: "127.0.0.1:{upstream}" }}
access_log: "off"
store: {{ {store} }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: KEY }} }} ] }}
providers: {{ analysis: {{ signature: {{ scheme: github, secrets: [ {{ env: SECRET }} ], duplicates: signature }} }} }}
routes:
  - {{ name: status, path: "/webhooks/analysis-status/{{id}}", provider: analysis, {token}forward: "/in/{{id}}" }}
"""
PORT, ADMIN, UPSTREAM = 18900, 18901, 18902


def metrics():
    page = urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/metrics", timeout=10).read().decode()
    return dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))


def until_ready(callgate, upstream):
    """Waits for the agent and for Callgate."""
    for _ in range(1000):
        try:
            socket.create_connection(("127.0.0.1", UPSTREAM), timeout=5).close()
            return urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/readyz", timeout=5).close()
        except OSError:
            if callgate.poll() is not None or upstream.poll() is not None:
                raise SystemExit("Callgate or the agent did not start")
            time.sleep(0.05)
    raise SystemExit("Callgate is not ready")


def refusals(page):
    """Returns the reasons of refusals that occurred."""
    return {name: value for name, value in page.items() if name.startswith("callgate_ingress_refusals_total") and float(value)}


def soak(args, store, tied, folder):
    """Returns the faults of one run as text."""
    kind = f"kind: file, path: {folder}/ledger-{tied}, unknown: adopt" if store == "file" else "kind: memory"
    if args.events_max:
        kind += f", events_max: {args.events_max}"
    token = "token: { kind: callback, from: [bearer] }, interaction: { status: /status }, " if tied else ""
    path = pathlib.Path(folder) / "callgate.yaml"
    path.write_text(CONFIG.format(port=PORT, admin=ADMIN, upstream=UPSTREAM, store=kind, token=token))
    env = {**os.environ, "KEY": peers.KEY, "SECRET": peers.SECRET}
    upstream = subprocess.Popen([peers.RIG / "upstream", f"127.0.0.1:{UPSTREAM}"])
    process = subprocess.Popen([args.callgate, "run", "-c", path], env=env, stdout=subprocess.DEVNULL)
    faults, sent, delivered, full, began = [], 0, 0, None, time.monotonic()
    try:
        until_ready(process, upstream)
        while time.monotonic() - began < args.seconds:
            count = args.rate * min(PART_SECONDS, max(1, int(args.seconds - (time.monotonic() - began))))
            done = subprocess.run(
                [peers.RIG / "load", f"127.0.0.1:{PORT}", "--requests", str(count), "--rate", str(args.rate), "--first",
                 str(sent), "--interactions", str(INTERACTIONS)],
                check=True, capture_output=True, text=True)
            statuses = json.loads(done.stdout)["statuses"]
            sent += count
            delivered += statuses.get("200", 0)
            now, mib = metrics(), resident_kib(process.pid) / 1024
            if set(statuses) != {"200"}:
                faults.append(f"{sent} sent: {statuses}, {refusals(now)}")
            events, most = float(now["callgate_store_events"]), float(now["callgate_store_events_max"])
            forgotten = float(now["callgate_store_events_forgotten_total"])
            print(f"{store}, {'with' if tied else 'without'} interactions: {time.monotonic() - began:.0f} s, {sent} sent, "
                  f"{events:.0f} remembered, {forgotten:.0f} forgotten, {mib:.1f} MiB", flush=True)
            if events >= most:
                full = full or mib
                if mib > full * GROWTH_MAX:
                    faults.append(f"{sent} sent: {mib:.1f} MiB, {full:.1f} MiB when the memory of events was full")
        if not events:
            faults.append("no event is remembered")
        duplicates = sum(float(value) for name, value in now.items() if name.startswith("callgate_duplicates_total"))
        if duplicates:
            faults.append(f"{duplicates:.0f} callbacks were taken for duplicates")
    finally:
        peers.end(process)
        peers.end(upstream)
    seconds = time.monotonic() - began
    print(f"{store}, {'with' if tied else 'without'} interactions: {delivered} of {sent} delivered, {sent / seconds:.0f} per second")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--stores", default="file,memory")
    parser.add_argument("--events-max", type=int)
    parser.add_argument("--callgate", default=peers.CALLGATE)
    args = parser.parse_args()
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        for store in args.stores.split(","):
            for tied in (True, False):
                faults += soak(args, store, tied, folder)
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
