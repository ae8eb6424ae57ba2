#!/usr/bin/env python3
"""The providers' own client libraries sign messages, and a real Callgate verifies them. Each message is accepted
unchanged, and denied after any single bit of a signed part was flipped. If a library can only verify, `callgate sign`
signs (or this test, for private keys and JWTs). The library must accept that message, and deny it with another body.

`signers.py sign` and `signers.mjs sign` print the messages, one line of JSON each:

    name                name of the provider in the configuration, and last segment of the route
    library, version    as in the registry
    signs, sends        the library signed this message; it can also send one itself
    complete            the message is complete; otherwise `callgate sign` signs it
    preset, settings    the preset, and further settings of the provider
    secret              the secret with which Callgate verifies
    public_url, method, target, headers, body_b64, at   the message, and the time of its signature (Unix seconds)
    signed_headers      the headers that the signature covers
    signed_body         true: it covers the whole body; a list: it covers these texts in the body; or false
    signed_query        true: it covers the query"""

import argparse
import base64
import collections
import concurrent.futures
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
PUBLIC_URL = "https://agent.example.com"
REFUSED = (400, 401)


class Agent(http.server.BaseHTTPRequestHandler):
    """The agent that receives the accepted messages."""
    protocol_version = "HTTP/1.1"
    seen = collections.defaultdict(list)

    def do_POST(self):
        name = urllib.parse.urlsplit(self.path).path.removeprefix("/in/")
        Agent.seen[name].append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Connection:
    """A kept HTTP/1.1 connection that sends header values unchanged."""

    def __init__(self, port):
        self.port, self.stream = port, None

    def status(self, target, headers, body):
        lines = [f"POST {target} HTTP/1.1".encode(), b"host: agent.example.com", b"content-length: %d" % len(body)]
        lines += [name.encode() + b": " + value for name, value in headers.items()]
        for _ in range(2):
            if not self.stream:
                self.stream = socket.create_connection(("127.0.0.1", self.port), timeout=10).makefile("rwb")
            try:
                self.stream.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
                self.stream.flush()
                status = self.answer()
            except ConnectionError:
                status = None
            if status:
                return status
            self.stream = None      # it was closed after the last answer
        return None

    def answer(self):
        first = self.stream.readline()
        if not first:
            return None
        fields = {}
        while (line := self.stream.readline().strip()):
            name, value = line.lower().split(b":", 1)
            fields[name] = value.strip()
        self.stream.read(int(fields.get(b"content-length", 0)))
        if fields.get(b"connection") == b"close":
            self.stream = None
        return int(first.split()[1])


class Check:
    """The message of one library, and the results for it."""

    def __init__(self, row):
        self.row, self.name, self.target = row, row["name"], row["target"]
        self.headers = {name: value.encode() for name, value in row["headers"].items()}
        self.body = base64.b64decode(row["body_b64"])
        self.refused, self.skipped, self.wrong = 0, 0, []

    def expect(self, holds, text):
        if not holds:
            self.wrong.append(text)

    @property
    def language(self):
        return self.name.split("-")[0]

    @property
    def env(self):
        return "SECRET_" + self.name.upper().replace("-", "_")

    @property
    def provider(self):
        return {"preset": self.row["preset"], "secrets": [{"env": self.env}], **self.row["settings"]}

    def sign(self, callgate, folder):
        """Signs the message with Callgate, for a library that only verifies."""
        lines = [f"{self.row['method']} {self.target} HTTP/1.1".encode(), b"host: agent.example.com"]
        lines += [name.encode() + b": " + value for name, value in self.headers.items()]
        request = folder / "request.http"
        request.write_bytes(b"\r\n".join(lines) + b"\r\ncontent-length: %d\r\n\r\n" % len(self.body) + self.body)
        arguments = ["-c", folder / "callgate.yaml", "--provider", self.name, "--request", request, "--json"]
        signed = subprocess.run([callgate, "sign", *arguments, "--at", str(self.row["at"])], capture_output=True, text=True)
        self.expect(signed.returncode == 0, f"`callgate sign` failed: {signed.stderr.strip()}")
        if signed.returncode == 0:
            self.headers |= {name.lower(): value.encode() for name, value in json.loads(signed.stdout)["headers"].items()}

    def given(self, body):
        """Returns the message in the form in which the library verifies it."""
        return {"name": self.name, "secret": self.row["secret"], "url": PUBLIC_URL + self.target,
                "headers": {name: value.decode() for name, value in self.headers.items()},
                "body_b64": base64.b64encode(body).decode()}

    def changes(self):
        """Yields the message after each single-bit change of a signed part. Yields None if the change has no meaning or
        is not valid in HTTP."""
        texts = self.row["signed_body"]
        parts = [text.encode() for text in texts] if isinstance(texts, list) else [self.body] if texts else []
        for body in flips(self.body, parts):
            yield None if self.is_same_form(body) else ("the body", self.target, self.headers, body)
        for name in self.row["signed_headers"]:
            genuine = self.headers.get(name)
            self.expect(genuine, f"there is no {name}")
            for value in flips(genuine, [genuine]) if genuine else []:
                carried = all(byte >= 32 and byte != 127 for byte in value)
                same = name == "authorization" and is_same_scheme(value, genuine)
                yield (name, self.target, {**self.headers, name: value}, self.body) if carried and not same else None
        path, _, query = self.target.encode().partition(b"?")
        for changed in flips(query, [query]) if self.row["signed_query"] else []:
            carried = all(32 < byte < 127 and byte != ord("#") for byte in changed)
            yield ("the query", (path + b"?" + changed).decode(), self.headers, self.body) if carried else None

    def is_same_form(self, body):
        if b"urlencoded" not in self.headers["content-type"]:
            return False
        parse = lambda text: urllib.parse.parse_qsl(text, keep_blank_values=True, encoding="latin-1")
        return parse(body.decode("latin-1")) == parse(self.body.decode("latin-1"))

    def run(self, port):
        """Sends the genuine message and all changed ones to the running Callgate."""
        connection, seen = Connection(port), Agent.seen[self.name]
        before = list(seen)
        genuine = lambda: connection.status(self.target, self.headers, self.body)
        status = genuine()
        self.expect(status == 204 and seen == before + [self.body], f"the genuine message got {status}")
        for change in self.changes():
            if change is None:
                self.skipped += 1
                continue
            part, *message = change
            status = connection.status(*message)
            self.expect(status in REFUSED, f"a change of {part} got {status}: {message}")
            self.refused += status in REFUSED
        self.expect(self.refused, "nothing was changed")
        self.expect(seen == before + [self.body], "something forged reached the agent")
        # The genuine message is still accepted, so each denial was caused by the change.
        status = genuine()
        self.expect(status in (200, 202, 204), f"the genuine message got {status} when it came again")
        return self

    def report(self):
        row = self.row
        who = "sends" if row["sends"] else "signs" if row["signs"] else "verifies"
        verdict = f"accepted, {self.refused:5} changes refused, {self.skipped:4} skipped" if not self.wrong else "WRONG"
        print(f"{row['library']:27} {row['version']:8} {who:9} {self.name:24} {verdict}")
        for text in self.wrong[:3]:
            print(f"    {text}")
        if len(self.wrong) > 3:
            print(f"    and {len(self.wrong) - 3} more")


def flips(data, parts):
    """Yields the data after flipping each single bit in these parts."""
    for part in parts:
        assert data.count(part) == 1, f"{part} is there {data.count(part)} times"
        start = data.index(part)
        for bit in range(start * 8, (start + len(part)) * 8):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << (bit % 8)
            yield bytes(changed)


def is_same_scheme(value, genuine):
    """Reports whether only the case of the scheme `Bearer` has changed."""
    (scheme, _, rest), (genuine_scheme, _, genuine_rest) = value.partition(b" "), genuine.partition(b" ")
    return bool(rest) and rest == genuine_rest and scheme.lower() == genuine_scheme.lower()


class Signers:
    """Runs `signers.py` and `signers.mjs`."""

    def __init__(self, modules):
        self.commands = {"pypi": ([sys.executable, HERE / "signers.py"], None)}
        if modules:
            self.commands["npm"] = (["node", "signers.mjs"], modules)

    def ask(self, language, command, lines=(), *arguments):
        """Returns the answers of a program. Its other output is shown only if it fails."""
        start, folder = self.commands[language]
        given = "".join(json.dumps(line) + "\n" for line in lines)
        done = subprocess.run([*start, command, *arguments], input=given, capture_output=True, text=True, cwd=folder)
        if done.returncode != 0:
            sys.exit(f"{language}: `{command}` failed:\n{done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def verify(self, checks):
        """Checks the libraries that only verify: they accept the message, and deny it with another body."""
        # The npm libraries signed last and verify first, because one of them accepts a message for one minute only.
        for language in reversed(self.commands):
            asked = [check for check in checks if not check.row["signs"] and check.language == language and not check.wrong]
            if not asked:
                continue
            # The change is in the middle of a word that all bodies contain.
            others = [check.body.replace(b"text", b"texu", 1) for check in asked]
            assert all(other != check.body for other, check in zip(others, asked))
            answers = self.ask(language, "verify", [check.given(check.body) for check in asked]
                               + [check.given(other) for check, other in zip(asked, others)])
            for check, answer in zip(asked, answers[:len(asked)]):
                check.expect(answer["accepted"], f"the library refused the genuine message: {answer['fault']}")
            for check, answer in zip(asked, answers[len(asked):]):
                check.expect(not answer["accepted"], "the library accepted another body")

    def send(self, checks, port):
        """Lets the libraries that can send send their message."""
        for language in self.commands:
            asked = [check for check in checks if check.row["sends"] and check.language == language]
            if not asked:
                continue
            self.ask(language, "send", [{"name": check.name, "secret": check.row["secret"],
                                         "url": f"http://127.0.0.1:{port}{check.target}"} for check in asked])
            for check in asked:
                check.expect(Agent.seen[check.name] == [check.body], "what the library sent did not arrive")


def config(checks, agent_port):
    routes = [{"name": check.name, "path": f"/hooks/{check.name}", "provider": check.name, "forward": f"/in/{check.name}"}
              for check in checks]
    return {"public_url": PUBLIC_URL, "listen": {"ingress": [{"address": "127.0.0.1:0"}]},
            "agent": {"address": f"127.0.0.1:{agent_port}"},
            "providers": {check.name: check.provider for check in checks}, "routes": routes}


def start(callgate, path):
    """Starts Callgate and returns the process and its port."""
    gate = subprocess.Popen([callgate, "run", "-c", path], text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = []
    for line in gate.stderr:
        said.append(line)
        if "ingress on" in line:
            threading.Thread(target=collections.deque, args=(gate.stderr, 0), daemon=True).start()
            return gate, int(line.split("ingress on 127.0.0.1:")[1].split(":")[0])
    sys.exit("Callgate did not start:\n" + "".join(said))


def count(checks, what, of):
    wrong = {(check.language, check.row["library"]) for check in checks if check.wrong}
    right = {(check.language, check.row["library"]) for check in checks if of(check)} - wrong
    print(f"{len(right):6} {what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--callgate", required=True, type=pathlib.Path)
    parser.add_argument("--modules", type=pathlib.Path,
                        help="a folder with node_modules and signers.mjs; without it no npm library takes part")
    parser.add_argument("--only", action="append", metavar="NAME",
                        help="a library, a preset, or a name as in pypi-stripe; can be repeated")
    args = parser.parse_args()
    callgate = args.callgate.resolve()

    signers = Signers(args.modules)
    checks = [Check(row) for language in signers.commands for row in signers.ask(language, "sign", [], PUBLIC_URL)]
    if args.only:
        checks = [check for check in checks if {check.name, check.row["library"], check.row["preset"]} & set(args.only)]
    if not checks:
        sys.exit("no such library")
    os.environ.update({check.env: check.row["secret"] for check in checks})

    agent = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    threading.Thread(target=agent.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        path = folder / "callgate.yaml"
        path.write_text(json.dumps(config(checks, agent.server_port), indent=1))
        checked = subprocess.run([callgate, "check", "-c", path], capture_output=True, text=True)
        if checked.returncode != 0:
            sys.exit(f"`callgate check` refuses the configuration:\n{checked.stdout}{checked.stderr}")
        for check in checks:
            if not check.row["complete"]:
                check.sign(callgate, folder)
        signers.verify(checks)
        gate, port = start(callgate, path)
        try:
            signers.send(checks, port)
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                for check in pool.map(lambda check: check.run(port), checks):
                    check.report()
        finally:
            gate.kill()
    count(checks, "libraries signed or sent, Callgate verified", lambda check: check.row["signs"])
    count(checks, "libraries verified what `callgate sign` signed", lambda check: not check.row["complete"])
    count(checks, "libraries and Callgate verified what this test signed",
          lambda check: check.row["complete"] and not check.row["signs"])
    print(f"{sum(check.refused for check in checks):6} changed messages refused")
    if not args.modules:
        print("no npm library: there is no npm on this machine")
    return int(any(check.wrong for check in checks))


if __name__ == "__main__":
    sys.exit(main())
