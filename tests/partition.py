#!/usr/bin/env python3
"""Separates three members of Callgate by taking network links down.

Each member runs with its agent in a network namespace. The namespaces are connected by a bridge in a fourth one. Needs
root. Usage: partition.py CALLGATE
"""

import json
import os
import subprocess
import sys
import tempfile
import time

PREFIX = f"cg{os.getpid()}"
CONFIG = """public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 0.0.0.0:8080 }} ], admin: {{ address: 127.0.0.1:9901 }} }}
agent: {{ address: 127.0.0.1:8000 }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
replicas:
  address: 0.0.0.0:8446
  advertise: 10.199.0.{number}
  secrets: [ {{ env: TOKEN_KEY }} ]
  mint: true
  discover: [10.199.0.1, 10.199.0.2, 10.199.0.3]
  patience: 1s
  gone_after: 8s
  timeout: 3s
routes:
  - {{ name: jobs, path: "/jobs/{{id}}", token: {{ kind: callback }}, forward: "/in/{{id}}", interaction: {{ status: /status, done: [done] }} }}
"""
AGENT = """
import http.server, sys
class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        with open(sys.argv[1], "a") as file:
            file.write(self.path + " " + self.headers.get("callgate-owner", "-") + "\\n")
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Agent).serve_forever()
"""


def run(*words, check=True):
    return subprocess.run(words, check=check, capture_output=True, text=True)


class Member:
    def __init__(self, number, folder, callgate):
        self.number, self.folder, self.name = number, folder, f"{PREFIX}m{number}"
        self.link, self.received = f"{PREFIX}p{number}", f"{folder}/agent{number}"
        open(self.received, "w").close()
        run("ip", "netns", "add", self.name)
        run("ip", "-n", f"{PREFIX}b", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "-n", f"{PREFIX}b", "link", "set", self.link, "master", "br0", "up")
        run("ip", "-n", self.name, "addr", "add", f"10.199.0.{number}/24", "dev", "eth0")
        run("ip", "-n", self.name, "link", "set", "eth0", "up")
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        config = f"{folder}/callgate{number}.yaml"
        with open(config, "w") as file:
            file.write(CONFIG.format(number=number))
        inside = ["ip", "netns", "exec", self.name]
        log = open(f"{folder}/log{number}", "w")
        env = {**os.environ, "TOKEN_KEY": "partition-partition-partition-partition"}
        self.agent = subprocess.Popen([*inside, sys.executable, "-c", AGENT, self.received])
        self.callgate = subprocess.Popen([*inside, callgate, "run", "-c", config], env=env, stdout=log, stderr=log)

    def curl(self, *words):
        out = run("ip", "netns", "exec", self.name, "curl", "-s", "-m", "20", "-w", "\n%{http_code}", *words, check=False)
        body, _, status = out.stdout.rpartition("\n")
        return int(status), body

    def mint(self, name):
        body = json.dumps({"route": "jobs", "params": {"id": name}})
        status, answer = self.curl("-H", "content-type: application/json", "-d", body, "http://127.0.0.1:9901/callbacks")
        assert status == 201, answer
        return json.loads(answer)["callback_token"]

    def callback(self, name, token):
        began = time.monotonic()
        status, _ = self.curl(
            "-H", f"authorization: Bearer {token}", "-H", "content-type: application/json",
            "-d", json.dumps({"status": "working", "at": time.time()}), f"http://127.0.0.1:8080/jobs/{name}",
        )
        return status, round(time.monotonic() - began, 2)

    def present(self):
        status, body = self.curl("http://127.0.0.1:9901/members")
        members = json.loads(body)["members"] if status == 200 else []
        return sum(member["presence"] == "present" for member in members)

    def set_link(self, state):
        run("ip", "-n", f"{PREFIX}b", "link", "set", self.link, state)

    def deliveries(self):
        with open(self.received) as file:
            return file.read().splitlines()


def until(what, look, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if look():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


def play(members):
    a, b, c = members
    for member in members:
        until("all members are present", lambda: member.present() == 2)
    token = a.mint("x")
    for member in members:
        assert member.callback("x", token)[0] == 200
    assert len(a.deliveries()) == 3 and not b.deliveries() and not c.deliveries()
    print("connected: every callback reached the agent of its owner")

    a.set_link("down")
    answers = [b.callback("x", token), c.callback("x", token)]
    assert [status for status, _ in answers] == [503, 503], answers
    assert a.callback("x", token)[0] == 200, "the owner itself is not affected"
    assert not b.deliveries() and not c.deliveries()
    print(f"link down: 503 after {answers[0][1]} s and {answers[1][1]} s, nothing delivered elsewhere")
    a.set_link("up")
    until("a callback after a short partition", lambda: b.callback("x", token)[0] == 200)
    assert not b.deliveries() and not c.deliveries()
    print("link up again: callbacks reach the owner")

    a.set_link("down")
    began = time.monotonic()
    until("the owner is gone", lambda: b.callback("x", token)[0] == 200, 60)
    print(f"link down for longer than gone_after: adopted after {time.monotonic() - began:.1f} s")
    assert b.deliveries() == ["/in/x gone"], b.deliveries()
    a.set_link("up")
    until("the member is back", lambda: b.present() == 2 and a.present() == 2)
    fresh = a.mint("y")
    assert b.callback("y", fresh)[0] == 200 and a.deliveries()[-1] == "/in/y -"
    print("link up again: the member is present, and callbacks reach it")


def main():
    callgate = os.path.abspath(sys.argv[1])
    members = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            run("ip", "netns", "add", f"{PREFIX}b")
            run("ip", "-n", f"{PREFIX}b", "link", "add", "br0", "type", "bridge")
            run("ip", "-n", f"{PREFIX}b", "link", "set", "br0", "up")
            for number in (1, 2, 3):
                members.append(Member(number, folder, callgate))
            play(members)
        except BaseException:
            for number in (1, 2, 3):
                if os.path.exists(f"{folder}/log{number}"):
                    print(f"--- log of member {number}", open(f"{folder}/log{number}").read(), sep="\n")
            raise
        finally:
            for member in members:
                member.callgate.terminate()
                member.agent.kill()
            for name in [f"{PREFIX}m{number}" for number in (1, 2, 3)] + [f"{PREFIX}b"]:
                run("ip", "netns", "del", name, check=False)


main()
