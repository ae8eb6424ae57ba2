#!/usr/bin/env python3
"""Measures the inbox: how many callbacks per second are accepted while the agent is away, how long the inbox takes to
drain, and how much memory a waiting message needs. For comparison, inserts the same bodies into SQLite (WAL, FULL), one
transaction each. Usage: inbox.py --callgate BINARY [--messages 10000] [--clients 32] [--bytes 2048] [--folder FOLDER]

With --redis SERVER, the ledger is on Redis or Valkey with one replica, which confirms each message. The memory is then also
that of the server.

With --night, 100,000 messages of 500 interactions wait for an agent that is away. The script fails if one of them is lost,
dead, out of order or delivered twice, or if a waiting message needs more than 250 bytes of memory."""

import argparse
import json
import os
import pathlib
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import http_agent
from process import cpu_seconds, resident_kib
from redis_server import Server

CONFIG = """
public_url: http://127.0.0.1:1
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: 127.0.0.1:{agent} }}
access_log: off
{store}
shutdown: {{ delay: 0s, grace: 1s }}
routes:
  - name: bench
    path: /bench
    token: {{ kind: static, header: x-key, secrets: [ {{ env: KEY }} ] }}
    forward: /bench
    deliver: inbox
    body_max: 1MiB
"""


NIGHT = """
public_url: http://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: 127.0.0.1:{agent} }}
access_log: off
{store}
shutdown: {{ delay: 0s, grace: 1s }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: KEY }} }} ] }}
routes:
  - name: bench
    path: /bench/{{id}}
    token: {{ kind: callback, from: [bearer] }}
    forward: /bench/{{id}}
    deliver: inbox
    interaction: {{ status: /status, done: [done] }}
"""
INTERACTIONS, MEMORY_MAX = 500, 250


class CheckingAgent:
    """An agent that records the number of each message, by interaction."""

    def __init__(self, port):
        self.received, self.lock = {}, threading.Lock()
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=self.answer, args=(stream,), daemon=True).start()

    def answer(self, stream):
        for head in http_agent.heads(stream):
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            with self.lock:
                self.received.setdefault(head.split(b" ")[1], []).append(int(fields[b"x-number"]))
            stream.sendall(http_agent.ANSWER)


def mint(admin, number):
    body = json.dumps({"route": "bench", "params": {"id": str(number)}}).encode()
    request = urllib.request.Request(f"http://{admin}/callbacks", body, {"content-type": "application/json"})
    return json.loads(urllib.request.urlopen(request).read())["callback_token"]


def send_night(address, tokens, begin, end):
    """Sends the messages with these numbers to each interaction, from several connections."""

    def client(interactions):
        stream, pending = socket.create_connection(address), b""
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = b'{"note": "%s"}' % (b"x" * 200)
        for number in range(begin, end):
            for interaction in interactions:
                head = f"POST /bench/{interaction} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {tokens[interaction]}\r\nx-number: {number}\r\ncontent-length: {len(body)}\r\n\r\n"
                stream.sendall(head.encode() + body)
                head, pending = http_agent.read_message(stream, pending)
                if not head.startswith(b"HTTP/1.1 202"):
                    sys.exit(head.decode())

    threads = [threading.Thread(target=client, args=(range(first, len(tokens), 32),)) for first in range(32)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]


def night(callgate, addresses, port, messages):
    address, admin = addresses["ingress"].rsplit(":", 1), addresses["admin"]
    address, each = (address[0], int(address[1])), messages // INTERACTIONS
    tokens = [mint(admin, number) for number in range(INTERACTIONS)]
    # The first messages fill the page cache of the file and other buffers, so they are not a part of the memory of a message.
    figures = []
    for begin, end in ((0, each * 2 // 5), (each * 2 // 5, each)):
        send_night(address, tokens, begin, end)
        figures.append((metric(admin, "callgate_inbox_waiting"), resident(callgate.pid)))
    (few, before), (all_, after) = figures
    memory = (after - before) / (all_ - few)
    print(f"night: {all_:.0f} messages of {INTERACTIONS} interactions wait, {memory:.0f} bytes of memory for each, {after >> 20} MiB in all")
    dead, began = metric(admin, "callgate_inbox_dead"), time.perf_counter()
    agent = CheckingAgent(port)
    while metric(admin, "callgate_inbox_waiting") > 0:
        time.sleep(0.1)
    seconds = time.perf_counter() - began
    dead += metric(admin, "callgate_inbox_dead")
    wrong = sum(numbers != list(range(each)) for numbers in agent.received.values())
    count = sum(len(numbers) for numbers in agent.received.values())
    print(f"morning: {count} delivered in {seconds:.1f} s, {dead:.0f} dead, {wrong} of {len(agent.received)} interactions not complete and in order, {resident(callgate.pid) >> 20} MiB")
    if dead or wrong or len(agent.received) != INTERACTIONS or count != each * INTERACTIONS or memory > MEMORY_MAX:
        sys.exit("the night did not end as it should")


def serve_agent(port):
    """An agent that needs a millisecond for each callback."""
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    print("ready", flush=True)
    http_agent.serve(listener, 0.001)


def serve_clients(address, clients, messages, size):
    """Sends callbacks from several connections. Prints the latencies in seconds as JSON."""
    body = b"x" * size
    request = b"POST /bench HTTP/1.1\r\nhost: h\r\nx-key: 0123456789abcdef0123456789abcdef\r\ncontent-length: %d\r\n\r\n%s" % (size, body)
    latencies, lock = [], threading.Lock()

    def client(count):
        stream = socket.create_connection(address)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        mine, pending = [], b""
        for _ in range(count):
            began = time.perf_counter()
            stream.sendall(request)
            head, pending = http_agent.read_message(stream, pending)
            mine.append(time.perf_counter() - began)
            if not head.startswith(b"HTTP/1.1 202"):
                sys.exit(head.decode())
        with lock:
            latencies.extend(mine)

    threads = [threading.Thread(target=client, args=(messages // clients,)) for _ in range(clients)]
    began = time.perf_counter()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(json.dumps({"seconds": time.perf_counter() - began, "latencies": sorted(latencies)}))


def metric(admin, name):
    text = urllib.request.urlopen(f"http://{admin}/metrics").read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((name + " ", name + "{")))


def resident(pid):
    return resident_kib(pid) * 1024


def sqlite(folder, messages, size):
    database = sqlite3.connect(f"{folder}/compared.sqlite", isolation_level=None)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=full")
    database.execute("create table messages (n integer primary key, body blob)")
    body, began = b"x" * size, time.perf_counter()
    for _ in range(messages):
        database.execute("insert into messages (body) values (?)", (body,))
    return messages / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callgate", required=True)
    parser.add_argument("--messages", type=int, default=None)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--bytes", type=int, default=2048)
    parser.add_argument("--folder")
    parser.add_argument("--night", action="store_true")
    parser.add_argument("--redis")
    arguments = parser.parse_args()
    arguments.messages = arguments.messages or (100_000 if arguments.night else 10_000)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = pathlib.Path(folder, "callgate.yaml")
        servers = [Server(arguments.redis, folder)] if arguments.redis else []
        servers += [Server(arguments.redis, folder, replica_of=server) for server in servers]
        store = f"store: {{ kind: file, path: {folder}/ledger }}"
        if servers:
            store = f'store: {{ kind: redis, redis: {{ nodes: ["127.0.0.1:{servers[0].port}"], wait: {{ replicas: 1 }} }} }}'
        config.write_text((NIGHT if arguments.night else CONFIG).format(agent=port, store=store))
        environment = {**os.environ, "KEY": "0123456789abcdef0123456789abcdef"}
        command = [arguments.callgate, "run", "-c", str(config)]
        callgate = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        addresses = {}
        for line in callgate.stderr:
            for name in ("ingress", "admin"):
                if f"{name} on " in line:
                    addresses[name] = line.split(f"{name} on ")[1].split(": ")[0].strip()
            if len(addresses) == 2:
                break
        threading.Thread(target=lambda: [None for _ in callgate.stderr], daemon=True).start()
        if arguments.night:
            try:
                return night(callgate, addresses, port, arguments.messages)
            finally:
                callgate.kill()
                callgate.wait()
                [server.kill() for server in servers]
        empty, server_empty = resident(callgate.pid), servers[0].memory() if servers else 0
        server_cpu = cpu_seconds(servers[0].child.pid) if servers else 0
        command = [sys.executable, __file__, "--clients-of", addresses["ingress"], str(arguments.clients // arguments.processes)]
        command += [str(arguments.messages // arguments.processes), str(arguments.bytes)]
        children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(arguments.processes)]
        results = [json.loads(child.communicate()[0]) for child in children]
        latencies = sorted(one for result in results for one in result["latencies"])
        seconds = max(result["seconds"] for result in results)
        print(f"accepted: {len(latencies) / seconds:.0f}/s of {arguments.bytes} bytes, {arguments.clients} clients")
        print(f"  202 after {latencies[len(latencies) // 2] * 1000:.1f} ms (median), {latencies[len(latencies) * 99 // 100] * 1000:.1f} ms (p99)")
        waiting = metric(addresses["admin"], "callgate_inbox_waiting")
        if servers:
            memory, cpu = servers[0].memory() - server_empty, cpu_seconds(servers[0].child.pid) - server_cpu
            print(f"server: {memory / waiting:.0f} bytes for each waiting message, {memory / waiting - arguments.bytes:.0f} besides its body, {cpu / waiting * 1e6:.0f} us")
        else:
            commits = metric(addresses["admin"], "callgate_store_commit_seconds_count")
            spent = metric(addresses["admin"], "callgate_store_commit_seconds_sum")
            print(f"  {waiting:.0f} messages wait, {waiting / commits:.1f} in each commit, {spent / commits * 1000:.1f} ms for each commit")
        print(f"memory: {(resident(callgate.pid) - empty) / waiting:.0f} bytes for each waiting message, with caches and buffers")
        agent = subprocess.Popen([sys.executable, __file__, "--agent", str(port)], stdout=subprocess.PIPE, text=True)
        agent.stdout.readline()
        # The circuit is open, so the first message is a probe.
        while metric(addresses["admin"], "callgate_inbox_waiting") == waiting:
            time.sleep(0.01)
        began = time.perf_counter()
        while metric(addresses["admin"], "callgate_inbox_waiting") > 0:
            time.sleep(0.01)
        print(f"drained: {waiting:.0f} in {time.perf_counter() - began:.1f} s, with an agent that needs 1 ms")
        print(f"compared: {sqlite(folder, min(arguments.messages, 2000), arguments.bytes):.0f}/s inserted into SQLite (WAL, FULL)")
        agent.kill()
        callgate.terminate()
        callgate.wait()
        [server.kill() for server in servers]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--agent"]:
        serve_agent(int(sys.argv[2]))
    elif sys.argv[1:2] == ["--clients-of"]:
        host, port = sys.argv[2].rsplit(":", 1)
        serve_clients((host, int(port)), *map(int, sys.argv[3:6]))
    else:
        main()
