#!/usr/bin/env python3
"""Measures the cost of slow clients: idle connections, and clients that read a response a few bytes at a time.

Prints the memory of the process before, during and after, and the duration of normal requests meanwhile.
Usage: hold.py [--callgate target/release/callgate] [--idle 10000] [--slow 500]
"""

import argparse
import os
import resource
import socket
import socketserver
import subprocess
import tempfile
import threading
import time

from process import resident_kib

CONFIG = """
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
access_log: "off"
agent: {{ address: "127.0.0.1:{agent}" }}
limits: {{ idle_timeout: 10m, head_deadline: 10m, throughput_min: 1B }}
routes:
  - {{ name: open, path: "/open/{{id}}", methods: [POST, GET], open: true, forward: "/{{id}}" }}
"""
LARGE = b"x" * (4 << 20)


class Agent(socketserver.BaseRequestHandler):
    """An agent that answers `/large` with 4 MiB and all other paths with one word."""

    def handle(self):
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                try:
                    more = self.request.recv(65536)
                except OSError:
                    return
                if not more:
                    return
                data += more
            head, data = data.split(b"\r\n\r\n", 1)
            body = LARGE if b" /large " in head else b"ok"
            try:
                self.request.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            except OSError:
                return


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 2048


def start(callgate, folder, agent):
    path = os.path.join(folder, "callgate.yaml")
    with open(path, "w") as file:
        file.write(CONFIG.format(agent=agent))
    process = subprocess.Popen([callgate, "run", "-c", path], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "ingress on " in line:
            address = line.split("ingress on ")[1].split(": ")[0]
            host, port = address.rsplit(":", 1)
            threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()
            return process, (host, int(port))
    raise SystemExit("callgate did not start")


def connect(address, i):
    client = socket.socket()
    # The socket buffers are small, so that waiting data stays in the measured process.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.bind((f"127.0.0.{2 + i % 200}", 0))
    client.connect(address)
    return client


def clean(address, count):
    """Returns the durations of normal requests in milliseconds, sorted. Each request has a new connection."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        with socket.create_connection(address) as client:
            client.sendall(b"POST /open/x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi")
            assert client.recv(4096).startswith(b"HTTP/1.1 200"), "a clean request failed"
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times)


def report(what, pid, times):
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    print(f"{what:<28} {resident_kib(pid) / 1024:8.1f} MiB   clean requests: p50 {p50:.2f} ms, p99 {p99:.2f} ms", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--callgate", default="target/release/callgate")
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=500)
    args = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = Server(("127.0.0.1", 0), Agent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        process, address = start(args.callgate, folder, server.server_address[1])
        pid = process.pid
        try:
            report("alone", pid, clean(address, 1000))
            fresh = [connect(address, i) for i in range(args.idle // 2)]
            kept = []
            for i in range(args.idle - len(fresh)):
                client = connect(address, i)
                client.sendall(b"POST /open/x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi")
                kept.append(client)
            for client in kept:
                assert client.recv(4096).startswith(b"HTTP/1.1 200")
            report(f"{args.idle} idle connections", pid, clean(address, 1000))
            slow = [connect(address, i) for i in range(args.slow)]
            for client in slow:
                client.sendall(b"GET /open/large HTTP/1.1\r\nhost: h\r\n\r\n")
            done = threading.Event()

            def sip():
                while not done.is_set():
                    for client in slow:
                        client.recv(16)
                    done.wait(1)

            threading.Thread(target=sip, daemon=True).start()
            time.sleep(3)
            report(f"and {args.slow} slow readers", pid, clean(address, 1000))
            done.set()
            for client in fresh + kept + slow:
                client.close()
            time.sleep(2)
            report("when they are gone", pid, clean(address, 1000))
        finally:
            process.send_signal(2)
            process.wait()


if __name__ == "__main__":
    main()
