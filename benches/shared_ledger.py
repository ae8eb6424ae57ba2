#!/usr/bin/env python3
"""Measures a ledger on Redis or Valkey that two processes share: what an open interaction needs there, what a callback
costs the server, and how late the deadlines of a killed process are reported. For comparison, redis-benchmark sets values
of the same size in the same run. Usage: shared_ledger.py --callgate BINARY [--redis SERVER] [--interactions 10000]
[--clients 32]"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

import http_agent
from process import cpu_seconds
from redis_server import ENGINES, Server

SECRET = "0123456789abcdef0123456789abcdef"
CALLBACKS = [b'{"status":"working","progress":0.5}', b'{"status":"done"}']
DEADLINE, SHORT = 5, 200
CONFIG = """
public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: 127.0.0.1:{agent} }}
access_log: off
store: {{ kind: redis, redis: {{ nodes: ["127.0.0.1:{redis}"] }}, interactions_max: 1000000 }}
shutdown: {{ delay: 0s, grace: 1s }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: KEY }} }} ] }}
routes:
  - name: jobs
    path: "/jobs/{{id}}"
    token: {{ kind: callback }}
    forward: "/in/{{id}}"
    interaction: {{ status: /status, progress: /progress, done: [done], failed: [failed], deadline: 1h, notify: "/overdue/{{id}}" }}
  - name: short
    path: "/short/{{id}}"
    token: {{ kind: callback }}
    forward: "/in/{{id}}"
    interaction: {{ status: /status, done: [done], deadline: {deadline}s, notify: "/overdue/{{id}}" }}
"""


class Member:
    """A process with the ledger, and its agent."""

    def __init__(self, callgate, redis, folder, name):
        self.agent = subprocess.Popen([sys.executable, __file__, "--agent"], stdout=subprocess.PIPE, text=True)
        port = int(self.agent.stdout.readline())
        self.notices = {}
        threading.Thread(target=self.read_notices, daemon=True).start()
        config = pathlib.Path(folder, f"{name}.yaml")
        config.write_text(CONFIG.format(agent=port, redis=redis, deadline=DEADLINE))
        command = [callgate, "run", "-c", str(config)]
        self.child = subprocess.Popen(command, env={**os.environ, "KEY": SECRET}, stderr=subprocess.PIPE, text=True)
        self.addresses = {}
        for line in self.child.stderr:
            for one in ("ingress", "admin"):
                if f"{one} on " in line:
                    self.addresses[one] = line.split(f"{one} on ")[1].split(": ")[0].strip()
            if len(self.addresses) == 2:
                break
        threading.Thread(target=lambda: [None for _ in self.child.stderr], daemon=True).start()

    def read_notices(self):
        for line in self.agent.stdout:
            number, at = line.split()
            self.notices[int(number)] = float(at)

    def metric(self, name, **labels):
        stream = connect(self.addresses["admin"])
        stream.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        text = b"".join(iter(lambda: stream.recv(65536), b"")).decode()
        lines = [line for line in text.splitlines() if line.startswith((name + " ", name + "{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(f'{key}="{value}"' in line for key, value in labels.items()))

    def kill(self):
        for child in (self.child, self.agent):
            child.kill()
            child.wait()


def connect(address):
    host, port = address.rsplit(":", 1)
    stream = socket.create_connection((host, int(port)))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def serve_agent():
    """An agent that prints the time of each notice."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)

    def answer(stream):
        for head in http_agent.heads(stream):
            if b" /overdue" in head:
                # One call, so that the lines of several threads do not mix. The notice is for `/overdue/ID`.
                number = head.split(b" ")[1].rsplit(b"/", 1)[1].decode()
                os.write(1, f"{number} {time.time()}\n".encode())
            stream.sendall(http_agent.ANSWER)

    while True:
        stream, _ = listener.accept()
        threading.Thread(target=answer, args=(stream,), daemon=True).start()


def in_threads(count, work):
    def checked(first):
        try:
            work(first)
        except BaseException as error:
            print(f"a client has failed: {error}", file=sys.stderr)
            os._exit(1)

    threads = [threading.Thread(target=checked, args=(first,)) for first in range(count)]
    began = time.perf_counter()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return time.perf_counter() - began


def serve_clients(admin, ingress, clients, interactions):
    """Mints interactions when a line arrives, and sends their callbacks when the next one arrives. Prints the results as
    JSON."""
    tokens, latencies = [None] * interactions, []

    def post(stream, pending, path, headers, body):
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
        stream.sendall(head.encode() + body)
        return http_agent.read_whole(stream, pending)

    def mint(first):
        stream, pending = connect(admin), b""
        for number in range(first, interactions, clients):
            wanted = json.dumps({"route": "jobs", "params": {"id": str(number)}}).encode()
            head, body, pending = post(stream, pending, "/callbacks", "", wanted)
            if not head.startswith(b"HTTP/1.1 201"):
                sys.exit(body.decode())
            tokens[number] = json.loads(body)["callback_token"]

    def call(first):
        stream, pending, mine = connect(ingress), b"", []
        for body in CALLBACKS:
            for number in range(first, interactions, clients):
                began = time.perf_counter()
                head, text, pending = post(stream, pending, f"/jobs/{number}", f"authorization: Bearer {tokens[number]}\r\n", body)
                mine.append(time.perf_counter() - began)
                if not head.startswith(b"HTTP/1.1 200"):
                    sys.exit(text.decode())
        latencies.extend(mine)

    sys.stdin.readline()
    print(json.dumps({"seconds": in_threads(clients, mint)}), flush=True)
    sys.stdin.readline()
    print(json.dumps({"seconds": in_threads(clients, call), "latencies": sorted(latencies)}), flush=True)


def together(children):
    """Lets all clients do their next work, and returns the results."""
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    return [json.loads(child.stdout.readline()) for child in children]


def throughput(server, members, arguments):
    each = arguments.interactions // len(members)
    command = lambda member: [sys.executable, __file__, "--clients-of", member.addresses["admin"], member.addresses["ingress"], str(arguments.clients // len(members)), str(each)]
    children = [subprocess.Popen(command(member), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for member in members]
    count, empty = each * len(members), server.memory()
    together(children)
    print(f"memory: {(server.memory() - empty) / count:.0f} bytes for each of {count} open interactions")
    calls = lambda: sum(member.metric("callgate_store_call_seconds_count") for member in members)
    spent = lambda: [cpu_seconds(server.child.pid), sum(cpu_seconds(member.child.pid) for member in members), calls()]
    before = spent()
    results = together(children)
    count *= len(CALLBACKS)
    engine, own, made = ((after - old) / count for after, old in zip(spent(), before))
    latencies = sorted(one for result in results for one in result["latencies"])
    rate = count / max(result["seconds"] for result in results)
    print(f"callbacks: {count}, {rate:.0f}/s through {len(members)} processes, {arguments.clients} clients; all share this machine")
    print(f"  200 after {latencies[len(latencies) // 2] * 1000:.1f} ms (median), {latencies[len(latencies) * 99 // 100] * 1000:.1f} ms (p99)")
    print(f"  {engine * 1e6:.0f} us of the server for a callback, so that one core is enough for {1 / engine:.0f}/s; {own * 1e6:.0f} us of Callgate")
    print(f"  {made:.2f} calls for a callback")
    print(f"  memory afterwards: {(server.memory() - empty) / count * len(CALLBACKS):.0f} bytes for each ended interaction")


def compared(server):
    """Sets values of 500 bytes."""
    program = str(ENGINES / "redis-benchmark")
    if not pathlib.Path(program).exists():
        return print(f"compared: {program} is missing")
    before, count = cpu_seconds(server.child.pid), 100_000
    subprocess.run([program, "-p", str(server.port), "-t", "set", "-d", "500", "-n", str(count), "-c", "32", "-q"], stdout=subprocess.DEVNULL, check=True)
    print(f"compared: {(cpu_seconds(server.child.pid) - before) / count * 1e6:.0f} us of the server for a SET of 500 bytes (redis-benchmark)")


def deadlines(members):
    """Kills a process whose interactions have a deadline soon, and measures how late the other one reports them."""
    doomed, other = members
    stream, pending, minted = connect(doomed.addresses["admin"]), b"", []
    other.notices.clear()
    for number in range(SHORT):
        body = json.dumps({"route": "short", "params": {"id": str(number)}}).encode()
        stream.sendall(b"POST /callbacks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        head, pending = http_agent.read_message(stream, pending)
        if not head.startswith(b"HTTP/1.1 201"):
            sys.exit(head.decode())
        minted.append(time.time())
    doomed.kill()
    end = time.monotonic() + 60
    while len(other.notices) < SHORT and time.monotonic() < end:
        time.sleep(0.1)
    late = sorted(at - minted[number] - DEADLINE for number, at in other.notices.items())
    if not late:
        sys.exit("no deadline was reported")
    print(f"deadlines: {len(late)} of {SHORT} of a killed process were reported, {late[0]:.1f} to {late[-1]:.1f} s late")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callgate", required=True)
    parser.add_argument("--redis", default=str(ENGINES / "redis-server"))
    parser.add_argument("--interactions", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(arguments.redis, folder)
        members = [Member(arguments.callgate, server.port, folder, name) for name in ("one", "other")]
        try:
            print(f"server: {pathlib.Path(arguments.redis).name} {server.version()}, append-only file, synced every second")
            throughput(server, members, arguments)
            compared(server)
            deadlines(members)
        finally:
            [one.kill() for one in (*members, server)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--agent"]:
        serve_agent()
    elif sys.argv[1:2] == ["--clients-of"]:
        serve_clients(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
