#!/usr/bin/env python3
"""CPU per request of Callgate with every check on, as a ratio to a bare pingora pass-through in the same run.

The proxies are pinned to one core, load generator and upstream to another; the peers take turns in rounds, so that
a machine that slows down slows all. Every request is an event of its own, ten of each interaction, so that no cache
helps and none is a duplicate; the first of the ten opens the interaction. Before it counts, Callgate is seen to refuse
what it must. `--other` takes another build of Callgate into the same rounds.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RIG = ROOT / "target/rig/release"
CALLGATE = ROOT / "target/release/callgate"
KEY, SECRET = b"0123456789abcdef0123456789abcdef", b"provider secret of the benchmark"
UPSTREAM, BARE, GATED, ADMIN, OTHER, OTHER_ADMIN = 18700, 18701, 18702, 18703, 18704, 18705
SIZES = {"200 B": 200, "4 KiB": 4096, "64 KiB": 65536, "1 MiB": 1 << 20}
COUNTS = {"200 B": 40000, "4 KiB": 30000, "64 KiB": 6000, "1 MiB": 400}

def config(ingress, admin):
    return f"""
public_url: https://agent.example.com
threads: 1
listen: {{ ingress: [ {{ address: 127.0.0.1:{ingress} }} ], admin: {{ address: 127.0.0.1:{admin} }} }}
agent: {{ address: 127.0.0.1:{UPSTREAM} }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: KEY }} }} ] }}
providers:
  analysis:
    allow: [{", ".join(f"10.{i}.0.0/24" for i in range(99))}, 127.0.0.0/8]
    signature: {{ scheme: github, secrets: [ {{ env: SECRET }} ] }}
routes:
  - name: status
    path: /webhooks/analysis-status/{{id}}
    provider: analysis
    token: {{ kind: callback, from: [bearer] }}
    forward: /internal/agents/analysis/{{id}}/status
    body_max: 2MiB
    interaction: {{ status: /status, progress: /progress, done: [completed], failed: [failed] }}
"""


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(capture, now, key=KEY):
    header = {"typ": "callback+jwt", "alg": "HS256", "kid": "k1"}
    claims = {"v": 1, "iss": "callgate", "aud": "https://agent.example.com", "sub": f"int_{capture}",
              "route": "status", "cap": {"id": capture}, "iat": now, "exp": now + 7200}
    signed = b64(json.dumps(header).encode()) + "." + b64(json.dumps(claims).encode())
    return signed + "." + b64(hmac.digest(key, signed.encode(), hashlib.sha256))


def request(capture, bearer, body, secret=SECRET):
    signature = hmac.digest(secret, body, hashlib.sha256).hex()
    head = (f"POST /webhooks/analysis-status/{capture} HTTP/1.1\r\nHost: agent.example.com\r\n"
            f"Authorization: Bearer {bearer}\r\nX-Hub-Signature-256: sha256={signature}\r\n"
            f"Content-Type: application/json\r\nUser-Agent: bench/1\r\nContent-Length: {len(body)}\r\n\r\n")
    return head.encode() + body


FINDING = {"page": 12, "kind": "term", "score": 0.75, "text": "Payment is due within thirty days of the invoice."}


def requests(size, count, now, first):
    """As many requests, each an event of its own, ten of each interaction, one interaction after another in turn."""
    captures = [f"doc-{first + i:x}" for i in range(max(count // 10, 1))]
    tokens = [token(capture, now) for capture in captures]
    findings = json.dumps([FINDING] * ((size - 200) // len(json.dumps([FINDING])))).encode()
    for i in range(count):
        capture, bearer = captures[i % len(captures)], tokens[i % len(captures)]
        body = json.dumps({"document_id": capture, "status": "processing", "event": first + i, "progress": 1}).encode()
        body = body[:-1] + b', "findings": ' + findings + b', "note": "'
        yield request(capture, bearer, body + b"." * (size - len(body) - 2) + b'"}')


def cpu_nanos(pid):
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            pass
    return total


def start(core, *command, env=None):
    return subprocess.Popen(["taskset", "-c", str(core), *map(str, command)], env={**os.environ, **(env or {})},
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait(port):
    for _ in range(200):
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"nothing listens on {port}")


def refuses(now):
    """Callgate answers each forgery with the status it should."""
    def status(capture, bearer, body, secret=SECRET, tamper=b""):
        import socket
        with socket.create_connection(("127.0.0.1", GATED)) as s:
            raw = request(capture, bearer, body, secret)
            s.sendall(raw[:-1] + tamper if tamper else raw)
            return int(s.recv(4096).split()[1])
    good = token("doc-1", now)
    expected = [(200, status("doc-1", good, b"{}")), (401, status("doc-2", good, b"{}")),
                (401, status("doc-1", token("doc-1", now, b"x" * 32), b"{}")),
                (401, status("doc-1", token("doc-1", now - 9000), b"{}")),
                (401, status("doc-1", good, b"{}", secret=b"other")),
                (401, status("doc-1", good, b"{}", tamper=b"]"))]
    if any(want != got for want, got in expected):
        sys.exit(f"Callgate does not decide as it should: {expected}")


def round_of(port, pid, file, count):
    before = cpu_nanos(pid)
    out = subprocess.run(["taskset", "-c", "1", str(RIG / "load"), f"127.0.0.1:{port}", file, "16", str(count)],
                         capture_output=True, text=True, check=True).stdout
    if not out.startswith(f"{{200: {count}}}"):
        sys.exit(f"not every request was answered with 200: {out}")
    return (cpu_nanos(pid) - before) / count / 1000, out.split("}")[1].strip()


class Peers:
    """What is measured, each by its name: port and process."""

    def __init__(self, folder, other):
        env = {"KEY": KEY.decode(), "SECRET": SECRET.decode()}
        self.running = [start(1, RIG / "upstream", f"127.0.0.1:{UPSTREAM}")]
        wait(UPSTREAM)
        self.peers = {"bare": (BARE, start(0, RIG / "passthrough", f"127.0.0.1:{BARE}", f"127.0.0.1:{UPSTREAM}"))}
        builds = {"callgate": (CALLGATE, GATED, ADMIN)} | ({"other": (other, OTHER, OTHER_ADMIN)} if other else {})
        for name, (binary, port, admin) in builds.items():
            path = pathlib.Path(folder) / f"{name}.yaml"
            path.write_text(config(port, admin))
            self.peers[name] = (port, start(0, binary, "run", "-c", path, env=env))
        self.running += [process for _, process in self.peers.values()]
        for port, _ in self.peers.values():
            wait(port)

    def stop(self):
        for process in self.running:
            process.kill()


def measure(peers, name, rounds, folder, now):
    """Microseconds of CPU per request, by peer, round by round."""
    rows, first = [], int(time.time() * 1000) << 20
    for i in range(rounds + 1):
        row = {}
        for peer, (port, process) in peers.peers.items():
            file = os.path.join(folder, "requests")
            with open(file, "wb") as out:
                for raw in requests(SIZES[name], COUNTS[name], now, first):
                    out.write(struct.pack("<I", len(raw)) + raw)
            first += COUNTS[name]
            row[peer] = round_of(port, process.pid, file, COUNTS[name])
        if i:  # the first round warms up
            rows.append(row)
    return rows


def report(name, rows, process):
    def ratios(a, b):
        all = sorted(row[a][0] / row[b][0] for row in rows)
        return f"{statistics.median(all):.3f} ({all[0]:.2f} to {all[-1]:.2f})"
    us = {peer: statistics.median(row[peer][0] for row in rows) for peer in rows[0]}
    rss = int(next(l for l in open(f"/proc/{process.pid}/status") if l.startswith("VmRSS")).split()[1]) / 1024
    figures = ", ".join(f"{peer} {value:.1f} us" for peer, value in us.items())
    quiet = min(row["callgate"][0] for row in rows) / min(row["bare"][0] for row in rows)
    print(f"{name:>7}: {figures}; callgate/bare {ratios('callgate', 'bare')}, quietest rounds {quiet:.2f}"
          + (f"; callgate/other {ratios('callgate', 'other')}" if "other" in us else "")
          + f"; callgate {rss:.0f} MiB; {rows[-1]['callgate'][1]}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--other", type=pathlib.Path, help="another build to compare with")
    args = parser.parse_args()
    now = int(time.time())
    with tempfile.TemporaryDirectory() as folder:
        peers = Peers(folder, args.other)
        try:
            refuses(now)
            for name in args.sizes:
                rows = measure(peers, name, args.rounds, folder, now)
                report(name, rows, peers.peers["callgate"][1])
        finally:
            peers.stop()


if __name__ == "__main__":
    main()
