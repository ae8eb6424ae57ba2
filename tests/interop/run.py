#!/usr/bin/env python3
"""The providers' own client libraries sign, a real Callgate verifies: each request is accepted as it is, and
refused after any one bit of its body, and any one bit of its signature, is flipped."""

import argparse
import base64
import datetime
import http.client
import http.server
import json
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile
import threading
import time

import slack_sdk.signature
import standardwebhooks
import stripe

HERE = pathlib.Path(__file__).resolve().parent
BODY = json.dumps({"id": "evt_1", "object": "event", "type": "job.completed", "text": "grüße"}).encode()
SECRETS = {
    "STANDARD": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
    "STRIPE": "whsec_" + secrets.token_hex(16),
    "SLACK": secrets.token_hex(16),
    "GITHUB": secrets.token_hex(16),
}


def standard_webhooks():
    now = datetime.datetime.now(tz=datetime.timezone.utc)
    signature = standardwebhooks.Webhook(SECRETS["STANDARD"]).sign("msg_1", now, BODY.decode())
    return {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}


def stripe_library():
    now = int(time.time())
    signature = stripe.WebhookSignature._compute_signature(f"{now}.{BODY.decode()}", SECRETS["STRIPE"])
    header = f"t={now},v1={signature}"
    assert stripe.Webhook.construct_event(BODY, header, SECRETS["STRIPE"])["id"] == "evt_1"
    return {"stripe-signature": header}


def slack():
    now = str(int(time.time()))
    verifier = slack_sdk.signature.SignatureVerifier(SECRETS["SLACK"])
    signature = verifier.generate_signature(timestamp=now, body=BODY)
    return {"x-slack-request-timestamp": now, "x-slack-signature": signature}


def octokit(modules):
    signed = subprocess.run(["node", "octokit.mjs", SECRETS["GITHUB"]], input=BODY, capture_output=True,
                            check=True, cwd=modules)
    return {"x-hub-signature-256": signed.stdout.decode(), "x-github-delivery": "d-1"}


class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bodies = []

    def do_POST(self):
        Agent.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def config(agent_port):
    schemes = {"standard-webhooks": "STANDARD", "stripe": "STRIPE", "slack": "SLACK", "github": "GITHUB"}
    providers = {name: {"signature": {"scheme": name, "secrets": [{"env": env}]}} for name, env in schemes.items()}
    routes = [{"name": name, "path": f"/{name}", "provider": name, "forward": "/in"} for name in schemes]
    return {"listen": {"ingress": [{"address": "127.0.0.1:0"}]}, "agent": {"address": f"127.0.0.1:{agent_port}"},
            "providers": providers, "routes": routes}


def flips(data, step):
    """The data with one bit flipped, for every bit, or every `step`-th."""
    for bit in range(0, len(data) * 8, step):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << (bit % 8)
        yield bytes(changed)


def send(port, path, headers, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def is_header_value(value):
    return all(32 < b < 127 or b in b" \t" for b in value)


def check(name, port, headers):
    before = len(Agent.bodies)
    accepted = send(port, f"/{name}", headers, BODY)
    assert accepted == 204 and Agent.bodies[before:] == [BODY], f"{name}: {accepted}"
    refused = 0
    for body in flips(BODY, 1):
        assert send(port, f"/{name}", headers, body) == 401, f"{name}: a changed body was accepted: {body}"
        refused += 1
    for header in (h for h in headers if "signature" in h):
        for value in filter(is_header_value, flips(headers[header].encode(), 1)):
            if value.strip() == headers[header].encode():
                continue
            status = send(port, f"/{name}", {**headers, header: value.decode()}, BODY)
            assert status in (400, 401), f"{name}: a changed {header} got {status}: {value}"
            refused += 1
    assert len(Agent.bodies) == before + 1, f"{name}: something forged reached the agent"
    print(f"{name}: accepted, and refused after each of {refused} single-bit changes")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callgate", required=True, type=pathlib.Path)
    parser.add_argument("--modules", type=pathlib.Path, help="a folder with node_modules; without it no npm library signs")
    args = parser.parse_args()
    agent = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    threading.Thread(target=agent.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "callgate.yaml")
        with open(path, "w") as out:
            json.dump(config(agent.server_port), out)
        gate = subprocess.Popen([args.callgate.resolve(), "run", "-c", path], env={**os.environ, **SECRETS}, text=True,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            line = next(line for line in gate.stderr if "ingress on" in line)
            port = int(line.split("ingress on 127.0.0.1:")[1].split(":")[0])
            check("standard-webhooks", port, standard_webhooks())
            check("stripe", port, stripe_library())
            check("slack", port, slack())
            if args.modules:
                check("github", port, octokit(args.modules))
            else:
                print("github: skipped, no npm on this machine")
        finally:
            gate.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
