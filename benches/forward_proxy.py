#!/usr/bin/env python3
"""Measures the egress listener as a forward proxy: the throughput of a tunnel beside HAProxy, what interception adds to a
request and to the first byte of a stream, how long the certificate of a new host takes, and the memory of an intercepted
connection. Usage: forward_proxy.py [--callgate BINARY] [--mib 2048] [--requests 2000] [--rounds 5]"""

import argparse
import json
import os
import pathlib
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import http_agent
import peers
from process import cpu_seconds, listens, resident_kib

HOSTS = 60
CHUNK = bytes(1 << 20)
SECRET = "0123456789abcdef0123456789abcdef"

CONFIG = """
public_url: https://agent.example.com
listen:
  ingress: [ {{ address: 127.0.0.1:0 }} ]
  egress: {{ address: "127.0.0.1:{egress}", proxy: {{ bundle: {folder}/trust, others: tunnel, allow_private: [127.0.0.0/8], ports: [{tls}, {bulk}] }} }}
  admin: {{ address: 127.0.0.1:0 }}
agent: {{ address: 127.0.0.1:1 }}
access_log: off
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: KEY }} }} ] }}
trusted_roots: {folder}/ca.crt
routes:
  - {{ name: doc, path: "/doc/{{id}}", token: {{ kind: callback }}, forward: "/in/{{id}}" }}
egress:
  - name: jobs
    path: /jobs
    target: https://localhost:{tls}/jobs
    proxied: true
    unmatched: pass
    response: /id
    inject: {{ route: doc, params: {{ id: /id }}, url: /callback/url, token: /callback/token }}
{hosts}
"""


def openssl(folder, command):
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


def certificates(folder):
    """Creates an authority and the provider's certificate for `localhost`."""
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    openssl(folder, f"req -x509 {key} -days 2 -subj /CN=ca -keyout ca.key -out ca.crt")
    openssl(folder, f"req {key} -subj /CN=provider -keyout provider.key -out provider.csr")
    (folder / "provider.ext").write_text("subjectAltName=DNS:localhost\n")
    openssl(folder, "x509 -req -in provider.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -extfile provider.ext -out provider.crt")


# === The provider, in a process of its own ===

def serve_provider(folder):
    """Prints two ports: one with TLS that answers requests, and one without that sends as many MiB as it is told."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "provider.crt", folder / "provider.key")
    secure, bulk = socket.create_server(("127.0.0.1", 0), backlog=2048), socket.create_server(("127.0.0.1", 0))
    print(secure.getsockname()[1], bulk.getsockname()[1], flush=True)

    def answer(stream):
        try:
            with context.wrap_socket(stream, server_side=True) as stream:
                for head in http_agent.heads(stream):
                    if head.startswith(b"GET /stream"):
                        stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                                       b"9\r\ndata: 1\n\n\r\n0\r\n\r\n")
                    else:
                        stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{\"id\":\"job\"}")
        except OSError:
            pass

    def pour(stream):
        with stream:
            for _ in range(int(stream.recv(64) or 0)):
                stream.sendall(CHUNK)

    def accept(listener, work):
        while True:
            threading.Thread(target=work, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, args=(bulk, pour), daemon=True).start()
    accept(secure, answer)


# === The clients ===

def connect(port):
    stream = socket.create_connection(("127.0.0.1", port))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def tunnel(egress, target):
    """Opens a tunnel. Returns the connection after the response."""
    stream = connect(egress)
    stream.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += stream.recv(1)
    assert head.startswith(b"HTTP/1.1 200"), head
    return stream


def download(stream, mib):
    """Reads this many MiB. Returns the seconds."""
    stream.sendall(str(mib).encode())
    buffer, left, began = bytearray(1 << 20), mib << 20, time.perf_counter()
    while left:
        read = stream.recv_into(buffer)
        assert read, "the connection ended early"
        left -= read
    stream.close()
    return time.perf_counter() - began


def first_byte(stream, request, until):
    """Sends a request. Returns the seconds until the response contains `until`, and reads the rest."""
    began = time.perf_counter()
    stream.sendall(request)
    seen, took = b"", None
    while True:
        seen += stream.recv(65536)
        if took is None and until in seen:
            took = time.perf_counter() - began
        if seen.endswith(b"0\r\n\r\n") or b"content-length: 12\r\n" in seen.lower() and seen.endswith(b"}"):
            return took


def in_turns(requests, streams, request, until):
    """Sends requests over each connection in turn. Returns the median and the 99th percentile of each, in milliseconds."""
    took = {name: [] for name in streams}
    for number in range(requests):
        for name, stream in streams.items():
            seconds = first_byte(stream, request[name], until)
            if number >= requests // 10:
                took[name].append(seconds * 1000)
    return {name: (statistics.median(one), statistics.quantiles(one, n=100)[98]) for name, one in took.items()}


def haproxy(folder, bulk):
    """Starts HAProxy in TCP mode in front of the bulk port. Returns it and its port, or None if there is no HAProxy."""
    programs = [peers.TOOLS / "debian/usr/sbin/haproxy", pathlib.Path("/usr/sbin/haproxy")]
    program = next((one for one in programs if one.exists()), None)
    if program is None:
        return None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "haproxy.cfg"
    config.write_text(f"""global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server s 127.0.0.1:{bulk}
""")
    child = subprocess.Popen([program, "-f", config], env=os.environ | peers.libraries(), stderr=subprocess.DEVNULL)
    if not listens(port):
        raise SystemExit("HAProxy does not start")
    return child, port


def tunnels(args, callgate, egress, bulk, peer):
    rates, seconds = {}, {}

    def run(name, stream, pid):
        before = cpu_seconds(pid) if pid else 0
        rates.setdefault(name, []).append(args.mib / download(stream, args.mib))
        if pid:
            seconds.setdefault(name, []).append((cpu_seconds(pid) - before) * 1024 / args.mib)

    for _ in range(args.rounds):
        run("direct", connect(bulk), None)
        run("tunnel", tunnel(egress, f"127.0.0.1:{bulk}"), callgate.pid)
        if peer:
            run("HAProxy", connect(peer[1]), peer[0].pid)
    for name, one in rates.items():
        used = f", {statistics.median(seconds[name]):.2f} s of CPU per GiB" if name in seconds else ""
        print(f"one download, {name}: {statistics.median(one):.0f} MiB/s ({min(one):.0f} to {max(one):.0f}){used}")


def requests(args, egress, tls, folder):
    trust = ssl.create_default_context(cafile=folder / "trust/ca.pem")
    direct = ssl.create_default_context(cafile=folder / "ca.crt")

    def intercepted():
        return trust.wrap_socket(tunnel(egress, f"localhost:{tls}"), server_hostname="localhost")

    body = json.dumps({"id": "d1", "text": "x" * 500}).encode()
    post = (f"POST /jobs HTTP/1.1\r\nhost: localhost:{tls}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n").encode() + body
    names = {"mapped": connect(egress), "intercepted": intercepted()}
    result = in_turns(args.requests, names, dict.fromkeys(names, post), b"}")
    for name, (p50, p99) in result.items():
        print(f"a request with an injected callback, {name}: p50 {p50:.3f} ms, p99 {p99:.3f} ms")
    print(f"an intercepted request: {result['intercepted'][0] - result['mapped'][0]:+.3f} ms (p50)")
    get = f"GET /stream HTTP/1.1\r\nhost: localhost:{tls}\r\n\r\n".encode()
    streams = {"direct": direct.wrap_socket(connect(tls), server_hostname="localhost"), "intercepted": intercepted()}
    result = in_turns(args.requests, streams, dict.fromkeys(streams, get), b"data: 1\n\n")
    for name, (p50, p99) in result.items():
        print(f"the first event of a stream, {name}: p50 {p50:.3f} ms, p99 {p99:.3f} ms")
    print(f"the first event of an intercepted stream: {result['intercepted'][0] - result['direct'][0]:+.3f} ms (p50)")
    return intercepted


def leaves(egress, tls, folder):
    """Opens an intercepted connection to each host twice. The first one creates the certificate."""
    trust = ssl.create_default_context(cafile=folder / "trust/ca.pem")
    took = ([], [])
    for number in range(HOSTS):
        for which in took:
            began = time.perf_counter()
            stream = tunnel(egress, f"h{number}.localhost:{tls}")
            trust.wrap_socket(stream, server_hostname=f"h{number}.localhost").close()
            which.append((time.perf_counter() - began) * 1000)
    first, later = map(statistics.median, took)
    print(f"an intercepted connection to a new host: {first:.2f} ms, afterwards {later:.2f} ms: its certificate takes {first - later:.2f} ms (p50 of {HOSTS})")


def memory(callgate, intercepted, tls, count=1000):
    before = resident_kib(callgate.pid)
    kept = []
    for _ in range(count):
        stream = intercepted()
        first_byte(stream, f"GET /one HTTP/1.1\r\nhost: localhost:{tls}\r\n\r\n".encode(), b"}")
        kept.append(stream)
    print(f"{count} intercepted connections after a request: {(resident_kib(callgate.pid) - before) / count:.1f} KiB each")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--callgate", default=peers.CALLGATE)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--provider", type=pathlib.Path)
    args = parser.parse_args()
    if args.provider:
        return serve_provider(args.provider)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        certificates(folder)
        provider = subprocess.Popen([sys.executable, __file__, "--provider", folder], stdout=subprocess.PIPE, text=True)
        tls, bulk = map(int, provider.stdout.readline().split())
        with socket.create_server(("127.0.0.1", 0)) as free:
            egress = free.getsockname()[1]
        hosts = "".join(f"  - {{ name: h{n}, path: /h{n}, target: \"https://h{n}.localhost:{tls}/\", proxied: true, unmatched: pass, "
                        "inject: { route: doc, params: { id: /id }, url: /callback/url, token: /callback/token } }\n" for n in range(HOSTS))
        (folder / "callgate.yaml").write_text(CONFIG.format(egress=egress, folder=folder, tls=tls, bulk=bulk, hosts=hosts))
        log = open(folder / "log", "w")
        callgate = subprocess.Popen([args.callgate, "run", "-c", folder / "callgate.yaml"], stderr=log, stdout=log,
                                    env=os.environ | {"KEY": SECRET})
        peer = None
        try:
            if not listens(egress):
                raise SystemExit((folder / "log").read_text())
            peer = haproxy(folder, bulk)
            tunnels(args, callgate, egress, bulk, peer)
            intercepted = requests(args, egress, tls, folder)
            leaves(egress, tls, folder)
            memory(callgate, intercepted, tls)
        finally:
            for child in [callgate, provider, *([peer[0]] if peer else [])]:
                child.kill()


if __name__ == "__main__":
    main()
