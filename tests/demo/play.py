#!/usr/bin/env python3
"""Plays two interactions, a missing callback and six forgeries with a real Callgate, a toy agent and toy providers: three
processes with real sockets. The agent's requests contain no callback fields. Exits with 0 only if all results are as
expected."""

import argparse
import base64
import http.client
import json
import os
import pathlib
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
CONFIG = HERE / "callgate.yaml"
INGRESS, EGRESS, ADMIN, AGENT, PROVIDER = 18443, 18081, 19901, 18000, 18090
CREDENTIALS = "Bearer " + secrets.token_hex(16)
ENVIRONMENT = {
    **os.environ,
    "CALLGATE_TOKEN_KEY": secrets.token_hex(32),
    "AI_ANALYSIS_SECRET": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
    "BOOKING_SECRET": secrets.token_hex(24),
    "BOOKING_CREDENTIALS": CREDENTIALS,
}


class Process:
    """A toy process that reads JSON lines and prints JSON lines. Its output is sorted by the first member of each line."""

    def __init__(self, *command):
        self.process = subprocess.Popen(list(map(str, command)), env=ENVIRONMENT, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.said = {}
        self.lock = threading.Lock()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            said = json.loads(line)
            self.lines(next(iter(said))).put(said)

    def lines(self, kind):
        with self.lock:
            return self.said.setdefault(kind, queue.Queue())

    def tell(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def next(self, kind):
        return self.lines(kind).get(timeout=20)


class Demo:
    def __init__(self, callgate):
        self.callgate = callgate
        self.wrong = []
        self.folder = tempfile.TemporaryDirectory()
        self.log = open(os.path.join(self.folder.name, "access.log"), "w+")
        self.agent = Process(sys.executable, HERE / "agent.py", AGENT)
        self.provider = Process(sys.executable, HERE / "provider.py", PROVIDER)
        self.gate = subprocess.Popen([callgate, "run", "-c", CONFIG], env=ENVIRONMENT, stdout=self.log)
        for port in (AGENT, PROVIDER, INGRESS, EGRESS, ADMIN):
            self.wait(port)

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
        return subprocess.run([self.callgate, *args[:1], "-c", CONFIG, *args[1:]], env=ENVIRONMENT, text=True,
                              capture_output=True)

    def admin(self, path, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", ADMIN)
        connection.request(method, path)
        return connection.getresponse().read().decode()

    def interaction(self, id):
        return json.loads(self.admin(f"/callbacks/{id}"))

    def expect(self, what, got, wanted):
        right = got == wanted
        if not right:
            self.wrong.append(f"{what}: {got!r} instead of {wanted!r}")
        print(f"  {'ok ' if right else 'BAD'} {what}: {got}", flush=True)

    def call_back(self, **command):
        self.provider.tell(**command)
        return self.provider.next("called")

    def delivered(self, what, path, provider, **command):
        self.expect(what, self.call_back(**command)["called"], 200)
        seen = self.agent.next("got")
        self.expect("     the agent got it at", seen["got"], path)
        whole = {**seen["body"], "action_endpoint": None} == {**command["body"], "action_endpoint": None}
        self.expect("     whole, from", (whole, seen["identity"]["callgate-provider"]), (True, provider))
        return seen

    def refused(self, what, status, reason, **command):
        called = self.call_back(**command)
        self.expect(what, called["called"], status)
        file = os.path.join(self.folder.name, "request.http")
        with open(file, "wb") as out:
            out.write(called["sent"].encode())
        peer = command.get("from", "127.0.0.1")
        explained = self.command("explain", "--request", file, "--peer", peer, "--json")
        said = json.loads(explained.stdout)
        self.expect("     explain says", (said["verdict"], said["reason"], explained.returncode), ("deny", reason, 1))
        step = said["trail"][-1]
        print(f"         {step['check']}: {step['detail']}")

    def agent_sends(self, path, text):
        """Lets the agent send a request, and returns the request that the provider received."""
        self.agent.tell(url=f"http://127.0.0.1:{EGRESS}{path}", body=text)
        took = self.provider.next("took")
        self.expect("the agent's request is answered", self.agent.next("answer")["answer"], 202)
        return took

    def analysis(self):
        print("\n1. A long-running analysis reports progress")
        text = '{ "document_id": "doc-7f3a",\n  "priority": 1.0, "note": "as it was" }'
        took = self.agent_sends("/ai-analysis/analyze-document", text)
        body = json.loads(took["body"])
        print(f"  the provider got a callback_url: {body['callback_url']}")
        added = ',"callback_url":"%s","callback_token":"%s"' % (body["callback_url"], body["callback_token"])
        self.expect("nothing else was changed", took["body"].replace(added, ""), text)
        call = {"scheme": "standard-webhooks", "url": body["callback_url"], "token": body["callback_token"]}
        at = "/internal/agents/analysis/doc-7f3a/status"
        for progress in (25, 50, 100):
            report = {"document_id": "doc-7f3a", "status": "completed" if progress == 100 else "processing",
                      "progress": progress}
            seen = self.delivered(f"progress {progress} %", at, "ai-analysis", **call, body=report, event=f"msg_{progress}")
        known = self.interaction(seen["identity"]["callgate-interaction"])
        self.expect("the ledger says", (known["state"], known["progress"], known["provider_id"], known["deliveries"]),
                    ("done", 100.0, "job-1", 3))
        again = self.call_back(**call, body=report, event="msg_100")
        self.expect("the last one once more, told apart", (again["called"], self.agent.lines("got").empty()), (200, True))
        late = self.call_back(**call, body={**report, "progress": 101})
        self.expect("another one after the last", (late["called"], self.agent.lines("got").empty()), (410, True))

    def booking(self):
        print("\n2. A booking asks back; its token rides in the URL")
        took = self.agent_sends("/booking/initiate-booking", '{"user_id": "u-42", "destination": "Lisbon"}')
        url = json.loads(took["body"])["callback_url"]
        print(f"  the provider got a callback_url: {url.split('?')[0]}?callback_token=...")
        session = url.split("?")[0].rsplit("/", 1)[1]
        body = {"interaction_type": "clarification_needed", "message": "Which budget?",
                "options": ["budget", "mid-range", "luxury"], "action_endpoint": f"http://127.0.0.1:{PROVIDER}/answer/1"}
        at = f"/internal/agents/booking/u-42/{session}"
        seen = self.delivered("a clarification", at, "booking", scheme="booking", url=url, body=body)
        id = seen["identity"]["callgate-interaction"]
        replied = self.agent.next("replied")
        self.expect("the agent answers where it was told", (replied["replied"], replied["status"]),
                    (f"http://127.0.0.1:{EGRESS}/actions/{id}", 202))
        took = self.provider.next("took")
        self.expect("the provider gets the answer", (took["took"], json.loads(took["body"])),
                    ("/answer/1", {"choice": "mid-range"}))
        self.expect("     with the credentials of Callgate", took["headers"].get("authorization"), CREDENTIALS)
        self.expect("     once", self.interaction(id)["questions"][0]["answered"], True)
        self.agent.tell(url=replied["replied"], body='{"choice": "luxury"}')
        self.expect("a second answer", self.agent.next("answer")["answer"], 409)
        evil = {**body, "action_endpoint": "http://169.254.169.254/latest/meta-data"}
        called = self.call_back(scheme="booking", url=url, body=evil)
        self.expect("a question that points at the metadata service", (called["called"], self.agent.lines("got").empty()),
                    (403, True))
        self.delivered("the confirmation", at, "booking", scheme="booking", url=url, body={"status": "booked"})

    def silence(self):
        print("\n3. A provider that never calls back")
        self.agent_sends("/ai-analysis/analyze-document", '{"document_id": "doc-silent"}')
        for outcome in ("stalled", "expired"):
            told = self.agent.next("got")
            self.expect("the agent is told", (told["got"], told["body"]["outcome"], told["body"]["captures"]),
                        ("/internal/agents/analysis/doc-silent/overdue", outcome, {"document_id": "doc-silent"}))
        self.expect("the ledger says", self.interaction(told["body"]["interaction"])["state"], "expired")

    def forgeries(self):
        print("\n4. Six forgeries")
        minted = json.loads(self.command("mint", "--route", "analysis-status", "--param", "document_id=doc-1", "--json").stdout)
        body = {"document_id": "doc-1", "status": "completed", "progress": 100}
        good = {"scheme": "standard-webhooks", "url": minted["callback_url"], "token": minted["callback_token"],
                "body": body}
        header, claims, _ = minted["callback_token"].split(".")
        foreign = f"{header}.{claims}." + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
        other = self.command("mint", "--route", "analysis-status", "--param", "document_id=doc-other", "--json")
        other = json.loads(other.stdout)["callback_token"]
        self.refused("a foreign token", 401, "token_forged", **{**good, "token": foreign})
        self.refused("another document's token", 401, "token_binding", **{**good, "token": other})
        self.refused("a wrong signature", 401, "signature_mismatch", **{**good, "scheme": "wrong-signature"})
        self.refused("a changed body", 401, "signature_mismatch", **{**good, "signed_body": {**body, "progress": 99}})
        self.refused("an address outside the list", 403, "address_not_allowed", **{**good, "from": "127.0.0.2"})
        self.admin(f"/callbacks/{minted['interaction']}", "DELETE")
        self.expect("a revoked token", self.call_back(**good)["called"], 410)

    def metrics(self):
        print("\n5. What Prometheus sees")
        counted = {}
        for line in self.admin("/metrics").splitlines():
            if line.startswith(("callgate_ingress_requests_total", "callgate_interactions", "callgate_egress_requests",
                                "callgate_notices", "callgate_duplicates", "callgate_guard")):
                print(f"  {line}")
            if line.startswith("callgate_ingress_requests_total"):
                labels, value = line.rsplit(" ", 1)
                reason = labels.split('reason="')[1].split('"')[0]
                counted[reason] = counted.get(reason, 0) + int(value)
        wanted = {"ok": 5, "duplicate": 1, "interaction_over": 1, "interaction_revoked": 1, "action_not_allowed": 1,
                  "token_forged": 1, "token_binding": 1, "signature_mismatch": 2, "address_not_allowed": 1}
        self.expect("requests by reason", dict(sorted(counted.items())), dict(sorted(wanted.items())))

    def stop(self):
        print("\n6. Stopping")
        self.gate.terminate()
        self.expect("exit code after SIGTERM", self.gate.wait(20), 0)
        self.log.seek(0)
        lines = self.log.read().splitlines()
        self.expect("lines in the access log", len(lines), 14 + 5)
        self.expect("tokens in the access log", sum("eyJ" in line for line in lines), 0)
        self.expect("callbacks the agent got besides", self.agent.lines("got").empty(), True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callgate", required=True, type=pathlib.Path)
    demo = Demo(parser.parse_args().callgate.resolve())
    try:
        demo.analysis()
        demo.booking()
        demo.silence()
        demo.forgeries()
        demo.metrics()
        demo.stop()
    finally:
        for process in (demo.gate, demo.provider.process, demo.agent.process):
            process.kill()
    for mistake in demo.wrong:
        print(f"WRONG: {mistake}")
    print("\nall came out right" if not demo.wrong else "\nthat did not come out right")
    return 1 if demo.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
