#!/usr/bin/env python3
"""Callgate signs assertions with every kind of key. The code in docs/assertion.md verifies them, with PyJWT and with jose.
That code must deny every changed message: another body, target, method, key or audience, an expired assertion, or a
callback token in its place."""

import argparse
import base64
import collections
import http.server
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

import run

HERE = pathlib.Path(__file__).resolve().parent
DOCS = HERE.parent.parent / "docs" / "assertion.md"
AUDIENCE = "https://agent.example.com"
KINDS = {
    "HS256": None,
    "HS512": None,
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
}
SECRET = base64.b64encode(os.urandom(48)).decode()
FOREIGN = base64.b64encode(os.urandom(48)).decode()
NODE = """
import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
const jobs = JSON.parse(readFileSync(0, "utf8"));
for (const job of jobs) {
  const KEY = job.key.startsWith("-----") ? createPublicKey(job.key) : new TextEncoder().encode(job.key);
  const { verifier } = await import("./assertion.mjs");
  const verify = verifier(KEY, job.algorithm, job.audience);
  let held = false;
  try { held = await verify(job.headers, job.method, job.target, Buffer.from(job.body, "base64")); } catch (error) { if (!error.code && job.headers["callgate-assertion"]) throw error; }
  console.log(held === true);
}
"""


def block(language):
    """Returns the example code of the documentation in one language."""
    return re.search(rf"```{language}\n(.*?)```", DOCS.read_text(), re.S).group(1)


class Agent(http.server.BaseHTTPRequestHandler):
    """An agent that records the requests it receives."""
    protocol_version = "HTTP/1.1"
    seen = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        Agent.seen.append(("POST", self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def pem(key, public):
    encoding = serialization.Encoding.PEM
    if public:
        return key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def delivered(callgate, folder, algorithm, generate, agent_port):
    """Returns a message as the agent received it, the callback token of its request, the agent's key and another key."""
    keys = (SECRET, FOREIGN)
    material = {"secret": {"env": "ASSERTION_KEY"}}
    if generate:
        private, foreign = generate(), generate()
        path = os.path.join(folder, "assertion.pem")
        pathlib.Path(path).write_bytes(pem(private, False))
        material = {"private_key": {"file": path}}
        keys = tuple(pem(key, True).decode() for key in (private, foreign))
    config = {"public_url": AUDIENCE, "listen": {"ingress": [{"address": "127.0.0.1:0"}]},
              "agent": {"address": f"127.0.0.1:{agent_port}"},
              "assertion": {"key": {"id": "a1", "algorithm": algorithm, **material}, "ttl": "1h"},
              "callback_tokens": {"keys": [{"id": "k1", "algorithm": "HS256", "secret": {"env": "TOKEN_KEY"}}]},
              "routes": [{"name": "r", "path": "/w/{id}", "forward": "/in/{id}", "token": {"kind": "callback"}}]}
    path = os.path.join(folder, "callgate.yaml")
    pathlib.Path(path).write_text(json.dumps(config))
    minted = json.loads(subprocess.run([callgate, "mint", "-c", path, "--route", "r", "--param", "id=1", "--offline", "--json"],
                                       capture_output=True, text=True, check=True).stdout)
    gate, port = run.start(callgate, path)
    try:
        token = minted["callback_token"]
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/w/1?a=b", data=b'{"status": "completed"}',
                                       headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        urllib.request.urlopen(asked, timeout=20).close()
    finally:
        gate.send_signal(signal.SIGINT)
        gate.wait()
    return Agent.seen.pop(), token, keys


def cases(message, token, keys, algorithm, other):
    """Yields the genuine message and changed ones: (name, whether it must be accepted, arguments)."""
    method, target, headers, body = message
    key, foreign = keys
    genuine = dict(key=key, algorithm=algorithm, audience=AUDIENCE, headers=headers, method=method, target=target, body=body)
    change = lambda name, **changed: (name, False, {**genuine, **changed})
    said = headers["callgate-assertion"]
    head, claims, signature = said.split(".")
    yield "as it was sent", True, genuine
    yield change("another body", body=body + b" ")
    yield change("no body", body=b"")
    yield change("another query", target="/in/1?a=c")
    yield change("no query", target="/in/1")
    yield change("another path", target="/in/2?a=b")
    yield change("another method", method="PUT")
    yield change("another key", key=foreign)
    yield change("another audience", audience="https://other.example.com")
    yield change("another algorithm", algorithm=other)
    yield change("no assertion", headers={})
    yield change("a changed signature", headers={"callgate-assertion": f"{head}.{claims}.{flipped(signature)}"})
    yield change("no signature", headers={"callgate-assertion": f"{head}.{claims}."})
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"assertion+jwt"}').decode().rstrip("=")
    yield change("alg none", headers={"callgate-assertion": f"{none}.{claims}."})
    yield change("a callback token", headers={"callgate-assertion": token}, key=os.environ["TOKEN_KEY"], algorithm="HS256")


def flipped(text):
    """Returns the token with one bit changed in the middle, where every bit is significant."""
    at = len(text) // 2
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1:]


def python(job):
    scope = {"KEY": job["key"], "ALGORITHM": job["algorithm"], "AUDIENCE": job["audience"]}
    exec(block("python"), scope)
    try:
        return scope["came_through_callgate"](job["headers"], job["method"], job["target"], job["body"]) is True
    except (KeyError, scope["jwt"].exceptions.PyJWTError):
        return False


def node(jobs, modules):
    imports, function = re.match(r"((?:import[^\n]*\n)+)(.*)", block("js"), re.S).groups()
    function = function.strip().removeprefix("export ")
    (modules / "assertion.mjs").write_text(
        f"{imports}export function verifier(KEY, ALGORITHM, AUDIENCE) {{\n{function}\nreturn cameThroughCallgate;\n}}\n")
    (modules / "assertions.mjs").write_text(NODE)
    plain = [{**job, "body": base64.b64encode(job["body"]).decode()} for job in jobs]
    out = subprocess.run(["node", "assertions.mjs"], cwd=modules, input=json.dumps(plain), capture_output=True, text=True)
    if out.returncode:
        sys.exit(out.stderr)
    return [line == "true" for line in out.stdout.split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callgate", required=True, type=pathlib.Path)
    parser.add_argument("--modules", type=pathlib.Path, help="a folder with node_modules; without it jose takes no part")
    args = parser.parse_args()
    os.environ.update(ASSERTION_KEY=SECRET, TOKEN_KEY=base64.b64encode(os.urandom(32)).decode())
    agent = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    threading.Thread(target=agent.serve_forever, daemon=True).start()
    checks = []
    with tempfile.TemporaryDirectory() as folder:
        for algorithm, generate in KINDS.items():
            message, token, keys = delivered(args.callgate.resolve(), folder, algorithm, generate, agent.server_port)
            other = "HS384" if generate is None else "HS256"
            checks += [(algorithm, *case) for case in cases(message, token, keys, algorithm, other)]
    verdicts = {"PyJWT": [python(job) for *_, job in checks]}
    if args.modules:
        verdicts["jose"] = node([job for *_, job in checks], args.modules.resolve())
    wrong = 0
    for library, held in verdicts.items():
        if len(held) != len(checks):
            sys.exit(f"{library} decided {len(held)} of {len(checks)}")
        for (algorithm, name, wanted, _), got in zip(checks, held):
            if got != wanted:
                wrong += 1
                print(f"{library}, {algorithm}, {name}: {'accepted' if got else 'refused'}")
    counted = collections.Counter(wanted for _, _, wanted, _ in checks)
    print(f"assertions: {', '.join(verdicts)} each verified {counted[True]} and refused {counted[False]}; {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
