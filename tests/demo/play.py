#!/usr/bin/env python3
"""Plays both founding interactions and five forgeries against a real Callgate between a toy agent and a toy
provider, three processes with real sockets. Exits with 0 only if all came out right."""

import argparse
import http.client
import json
import os
import pathlib
import secrets
import base64
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
CONFIG = HERE / "callgate.yaml"
INGRESS, ADMIN, AGENT = 18443, 19901, 18000
ENVIRONMENT = {
    **os.environ,
    "CALLGATE_TOKEN_KEY": secrets.token_hex(32),
    "AI_ANALYSIS_SECRET": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
    "BOOKING_SECRET": secrets.token_hex(24),
}


class Demo:
    def __init__(self, callgate):
        self.callgate = callgate
        self.wrong = []
        self.folder = tempfile.TemporaryDirectory()
        self.log = open(os.path.join(self.folder.name, "access.log"), "w+")
        self.agent = self.start([sys.executable, HERE / "agent.py", str(AGENT)], stdout=subprocess.PIPE)
        self.provider = self.start([sys.executable, HERE / "provider.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.gate = self.start([callgate, "run", "-c", CONFIG], stdout=self.log)
        for port in (AGENT, INGRESS, ADMIN):
            self.wait(port)

    def start(self, command, **pipes):
        return subprocess.Popen(list(map(str, command)), env=ENVIRONMENT, text=True, **pipes)

    def wait(self, port):
        for _ in range(500):
            try:
                http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
                return
            except OSError:
                if self.gate.poll() is not None:
                    sys.exit(f"Callgate ended with {self.gate.returncode}")
                time.sleep(0.01)
        sys.exit(f"nothing listens on port {port}")

    def command(self, *args):
        done = subprocess.run([self.callgate, *args[:1], "-c", CONFIG, *args[1:]], env=ENVIRONMENT, text=True,
                              capture_output=True)
        return done

    def mint(self, route, *params):
        args = [part for param in params for part in ("--param", param)]
        return json.loads(self.command("mint", "--route", route, *args, "--json").stdout)

    def call_back(self, **command):
        self.provider.stdin.write(json.dumps(command) + "\n")
        self.provider.stdin.flush()
        return json.loads(self.provider.stdout.readline())

    def expect(self, what, got, wanted):
        right = got == wanted
        if not right:
            self.wrong.append(f"{what}: {got!r} instead of {wanted!r}")
        print(f"  {'ok ' if right else 'BAD'} {what}: {got}")

    def delivered(self, what, path, provider, **command):
        self.expect(what, self.call_back(**command)["status"], 200)
        seen = json.loads(self.agent.stdout.readline())
        self.expect("     the agent got it at", seen["path"], path)
        self.expect("     whole, from", (seen["body"] == command["body"], seen["callgate-provider"]), (True, provider))

    def refused(self, what, status, reason, **command):
        answer = self.call_back(**command)
        self.expect(what, answer["status"], status)
        file = os.path.join(self.folder.name, "request.http")
        with open(file, "wb") as out:
            out.write(answer["sent"].encode())
        peer = command.get("from", "127.0.0.1")
        explained = self.command("explain", "--request", file, "--peer", peer, "--json")
        said = json.loads(explained.stdout)
        self.expect("     explain says", (said["verdict"], said["reason"], explained.returncode), ("deny", reason, 1))
        step = said["trail"][-1]
        print(f"         {step['check']}: {step['detail']}")

    def analysis(self):
        print("\n1. A long-running analysis reports progress")
        minted = self.mint("analysis-status", "document_id=doc-7f3a")
        print(f"  callback_url: {minted['callback_url']}")
        for progress in (25, 50, 100):
            body = {"document_id": "doc-7f3a", "status": "completed" if progress == 100 else "processing",
                    "progress": progress}
            self.delivered(f"progress {progress} %", "/internal/agents/analysis/doc-7f3a/status", "ai-analysis",
                           scheme="standard-webhooks", url=minted["callback_url"], token=minted["callback_token"],
                           body=body)
        return minted

    def booking(self):
        print("\n2. A booking asks back; its token rides in the URL")
        minted = self.mint("booking-interaction", "user_id=u-42", "session_id=s-9")
        print(f"  callback_url: {minted['callback_url'].split('?')[0]}?callback_token=...")
        body = {"interaction_type": "clarification_needed", "message": "Which budget?",
                "options": ["budget", "mid-range", "luxury"], "action_endpoint": "https://booking-service.com/answer/1"}
        self.delivered("a clarification", "/internal/agents/booking/u-42/s-9", "booking", scheme="booking",
                       url=minted["callback_url"], body=body)

    def forgeries(self, minted):
        print("\n3. Five forgeries")
        body = {"document_id": "doc-7f3a", "status": "completed", "progress": 100}
        good = {"scheme": "standard-webhooks", "url": minted["callback_url"], "token": minted["callback_token"],
                "body": body}
        header, claims, _ = minted["callback_token"].split(".")
        foreign = f"{header}.{claims}." + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
        other = self.mint("analysis-status", "document_id=doc-other")["callback_token"]
        self.refused("a foreign token", 401, "token_forged", **{**good, "token": foreign})
        self.refused("another document's token", 401, "token_binding", **{**good, "token": other})
        self.refused("a wrong signature", 401, "signature_mismatch", **{**good, "scheme": "wrong-signature"})
        self.refused("a changed body", 401, "signature_mismatch", **{**good, "signed_body": {**body, "progress": 99}})
        self.refused("an address outside the list", 403, "address_not_allowed", **{**good, "from": "127.0.0.2"})

    def metrics(self):
        print("\n4. What Prometheus sees")
        connection = http.client.HTTPConnection("127.0.0.1", ADMIN)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        counted = {}
        for line in page.splitlines():
            if line.startswith("callgate_ingress_requests_total"):
                print(f"  {line}")
                labels, value = line.rsplit(" ", 1)
                reason = labels.split('reason="')[1].split('"')[0]
                counted[reason] = counted.get(reason, 0) + int(value)
        wanted = {"ok": 4, "token_forged": 1, "token_binding": 1, "signature_mismatch": 2, "address_not_allowed": 1}
        self.expect("requests by reason", dict(sorted(counted.items())), dict(sorted(wanted.items())))

    def stop(self):
        print("\n5. Stopping")
        self.gate.terminate()
        self.expect("exit code after SIGTERM", self.gate.wait(20), 0)
        self.log.seek(0)
        lines = self.log.read().splitlines()
        self.expect("lines in the access log", len(lines), 9)
        self.expect("tokens in the access log", sum("eyJ" in line for line in lines), 0)
        for process in (self.provider, self.agent):
            process.kill()
        self.expect("callbacks the agent got besides", len(self.agent.stdout.readlines()), 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callgate", required=True, type=pathlib.Path)
    demo = Demo(parser.parse_args().callgate.resolve())
    try:
        minted = demo.analysis()
        demo.booking()
        demo.forgeries(minted)
        demo.metrics()
        demo.stop()
    finally:
        for process in (demo.gate, demo.provider, demo.agent):
            process.kill()
    for mistake in demo.wrong:
        print(f"WRONG: {mistake}")
    print("\nall came out right" if not demo.wrong else "\nthat did not come out right")
    return 1 if demo.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
