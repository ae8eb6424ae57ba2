#!/usr/bin/env python3
"""Measures what the hop to another replica adds to a callback: the same callbacks are sent to their owner and to another
replica, alternately and in one run. Usage: hop.py --callgate BINARY [--callbacks 3000] [--clients 1]"""

import argparse
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import http_agent

SECRET = "0123456789abcdef0123456789abcdef"


def agent():
    """Starts an agent in a process of its own, and returns its port."""
    child = subprocess.Popen([sys.executable, __file__, "--agent"], stdout=subprocess.PIPE, text=True)
    return child, int(child.stdout.readline())


def serve_agent():
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    http_agent.serve(listener)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def config(agent_port, ports, other):
    ingress, admin, replica = ports
    return f"""
public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: "127.0.0.1:{ingress}" }} ], admin: {{ address: "127.0.0.1:{admin}" }} }}
agent: {{ address: "127.0.0.1:{agent_port}" }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
replicas:
  address: "127.0.0.1:{replica}"
  advertise: "127.0.0.1:{replica}"
  discover: ["127.0.0.1:{other}"]
  secrets: [ {{ env: TOKEN_KEY }} ]
  mint: true
routes:
  - {{ name: jobs, path: "/jobs/{{id}}", token: {{ kind: callback }}, forward: "/in/{{id}}" }}
"""


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def client(ports, token, callbacks, times):
    streams = []
    for port in ports:
        stream = socket.create_connection(("127.0.0.1", port))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        streams.append(stream)
    body = json.dumps({"status": "working", "text": "x" * 500}).encode()
    head = (f"POST /jobs/a HTTP/1.1\r\nhost: agent.example.com\r\nauthorization: Bearer {token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n").encode()
    for number in range(callbacks):
        for which, stream in enumerate(streams):
            began = time.perf_counter()
            stream.sendall(head + body)
            answer, _ = http_agent.read_message(stream, b"")
            took = time.perf_counter() - began
            assert answer.startswith(b"HTTP/1.1 200"), answer
            if number >= callbacks // 10:
                times[which].append(took)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--callgate")
    parser.add_argument("--callbacks", type=int, default=3000)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--agent", action="store_true")
    options = parser.parse_args()
    if options.agent:
        return serve_agent()
    children = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            agent_process, agent_port = agent()
            children.append(agent_process)
            ports = free_ports(6)
            members = [ports[:3], ports[3:]]
            for number, own in enumerate(members):
                path = pathlib.Path(folder) / f"{number}.yaml"
                path.write_text(config(agent_port, own, members[1 - number][2]))
                children.append(subprocess.Popen([options.callgate, "run", "-c", path], stdout=subprocess.DEVNULL,
                                                 stderr=subprocess.DEVNULL, env={"TOKEN_KEY": SECRET}))
            admin = f"http://127.0.0.1:{members[0][1]}"
            for _ in range(200):
                try:
                    known = json.load(urllib.request.urlopen(f"{admin}/members"))["members"]
                    if any(one["presence"] == "present" for one in known):
                        break
                except OSError:
                    pass
                time.sleep(0.05)
            wanted = json.dumps({"route": "jobs", "params": {"id": "a"}}).encode()
            request = urllib.request.Request(f"{admin}/callbacks", wanted, {"content-type": "application/json"})
            token = json.load(urllib.request.urlopen(request))["callback_token"]
            times = ([], [])
            clients = [threading.Thread(target=client, args=([own[0] for own in members], token, options.callbacks, times))
                       for _ in range(options.clients)]
            for one in clients:
                one.start()
            for one in clients:
                one.join()
            for name, values in zip(("without the hop", "with the hop"), times):
                figures = ", ".join(f"p{int(share * 100)} {percentile(values, share) * 1000:.3f} ms" for share in (0.5, 0.9, 0.99))
                print(f"{name}: {figures} ({len(values)} callbacks)")
            added = percentile(times[1], 0.5) - percentile(times[0], 0.5)
            ratio = percentile(times[1], 0.99) / percentile(times[0], 0.99)
            print(f"the hop adds p50 {added * 1000:.3f} ms; its p99 is {ratio:.2f} times the p99 without it")
        finally:
            for child in children:
                child.kill()


if __name__ == "__main__":
    main()
