#!/usr/bin/env python3
"""Plays incidents on a real Callgate that a real Prometheus scrapes every second: forged signatures, a wrong clock, an
agent that is down, a provider that never calls back, a list that cannot be fetched, a configuration with an error, too
many connections, and finally a Callgate that is down. Before each incident, the expression of its alert must return
nothing, and afterwards the expected result. At the end, the state of all alerts is compared with the expected state, and
every query of the dashboard must return data. Exits with 0 on success."""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time

from prometheus import Prometheus, wait
from toys import Caller, Served, request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RULES = ROOT / "deploy/prometheus/rules.yaml"

# Queries of the dashboard that may return nothing, with the reason. All other queries must return data.
EMPTY = {
    'callgate_interactions_adopted_total': "only a token that another Callgate made is adopted",
    'callgate_ingress_refusals:rate5m_median1d': "there is no day before",
    'callgate_members{': "without the section `replicas`, there are no members",
    'callgate_replica_requests_total': "a single process hands no callback over",
    'callgate_owner_gone_total': "a single process has no other owners",
    'callgate_ledger_taken_over_total': "a single process takes no ledger over",
    'callgate_ledger_handed_over_total': "a single process hands no ledger over",
    'callgate_inbox_attempts_total': "no route keeps its callbacks",
    'callgate_replica_denied_total': "there is no replica listener",
    'callgate_store_clock_skew_seconds': "the ledger is in a file",
    'callgate_store_call_seconds': "the ledger is in a file",
}

# Every alert, and whether its expression returns something after the incidents, while Callgate is still running.
AFTERWARDS = {
    "CallgateDown": False, "CallgateAbsent": False, "CallgateRefusalsRising": True, "CallgateRotatedOnOneSide": True,
    "CallgateClockSkew": True, "CallgateObservingForLong": True, "CallgateActionsGuarded": True,
    "CallgateAgentFailing": True, "CallgateAgentRejecting": True, "CallgateAgentSlow": False, "CallgateInteractionsOverdue": True,
    "CallgateNoticesFailing": True, "CallgateEgressFailing": True, "CallgateReloadFailed": False,
    "CallgateCertificateEnding": True, "CallgateCertificateEndsToday": True, "CallgateFeedAgeing": False,
    "CallgateFeedFailing": True, "CallgateFeedMissing": True, "CallgateKeysUnavailable": True, "CallgateStoreFailed": False,
    "CallgateStoreFull": False, "CallgateStoreFilling": False, "CallgateEventsForgotten": False,
    "CallgateEventsFilling": False,
    "CallgateStoreReplaced": False, "CallgateStoreUnknownOutcomes": False, "CallgateStoreClockSkew": False,
    "CallgateConnectionsRefused": True, "CallgateHandshakesFailing": False, "CallgateBodyMemoryNearlyFull": False,
    "CallgateOverloaded": False, "CallgateAccessLogLinesLost": False, "CallgateJobGone": False,
    "CallgateNothingTaken": False, "CallgateTracesFailing": False,
    "CallgateInboxDead": False, "CallgateInboxOld": False, "CallgateInboxFilling": False,
    "CallgateMembersMissing": False, "CallgateOwnerUnreachable": False, "CallgateOwnerGone": False,
    "CallgateReplicaProofsDenied": False, "CallgateLedgerLost": False, "CallgateHandedOverRefused": False,
    # This alert depends on the speed of the disk.
    "CallgateStoreCommitSlow": None,
}


class Incident:
    def __init__(self, callgate, prometheus):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        self.callgate, self.binary, self.wrong, self.processes = callgate, prometheus, [], []
        self.secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.slack = secrets.token_hex(16)
        self.took = []
        self.agent = Served(lambda path, body: (500 if b"reject" in body else 200, b"{}"))
        self.provider = Served(self.take)
        self.lists = Served(lambda path, body: (200, b'{"hooks":["127.0.0.0/8"]}') if path == "/good" else (503, b"{}"))
        self.nowhere = socket.socket()
        # The port is bound but does not listen: no other process can use it, and connections to it fail.
        self.nowhere.bind(("127.0.0.1", 0))

    def take(self, _, body):
        self.took.append(json.loads(body))
        return 202, b'{"id":"job"}'

    # === Setup ===

    def begin(self):
        subprocess.run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost "
                       "-keyout tls.key -out tls.crt".split(), cwd=self.path, check=True, capture_output=True)
        text = (HERE / "callgate.yaml").read_text()
        for name, value in {"folder": self.path, "agent": self.agent.port, "provider": self.provider.port,
                            "lists": self.lists.port, "closed": self.nowhere.getsockname()[1]}.items():
            text = text.replace(f"@{name}@", str(value))
        self.config = self.path / "callgate.yaml"
        self.config.write_text(text)
        environment = {**os.environ, "CALLGATE_TOKEN_KEY": secrets.token_hex(32), "ANALYSIS_SECRET": self.secret,
                       "SLACK_SECRET": self.slack}
        self.said = self.path / "callgate.log"
        with self.said.open("w") as log, (self.path / "access.log").open("w") as access:
            self.gate = subprocess.Popen([self.callgate, "run", "-c", self.config], env=environment, stdout=access, stderr=log)
        self.processes.append(self.gate)
        self.admin = wait("Callgate listens", lambda: self.port("admin"))
        self.ingress, self.egress = self.port("ingress"), self.port("egress")
        self.prometheus = Prometheus(self.binary, self.path, RULES, self.admin)
        self.processes.append(self.prometheus.process)
        self.alerts = self.prometheus.alerts()
        self.caller = Caller(self.ingress, self.secret)

    def port(self, listener):
        if self.gate.poll() is not None:
            sys.exit(f"Callgate ended:\n{self.said.read_text()}")
        found = re.search(rf"{listener} on 127\.0\.0\.1:(\d+)", self.said.read_text())
        return found and int(found[1])

    def mint(self, route, id):
        body = json.dumps({"route": route, "params": {"id": id}}).encode()
        status, answer = request(self.admin, "POST", "/callbacks", body, {"content-type": "application/json"})
        assert status == 201, (status, answer)
        return json.loads(answer)["callback_token"]

    # === Checks ===

    def expect(self, what, got, wanted):
        right = got == wanted
        if not right:
            self.wrong.append(f"{what}: {got!r} instead of {wanted!r}")
        print(f"  {'ok ' if right else 'BAD'} {what}: {got}", flush=True)

    def scraped(self, selector, least):
        """Waits until Prometheus has scraped series whose sum is `least` or more."""
        def there():
            seen = self.prometheus.query(selector)
            return seen and sum(value for _, value in seen) >= least
        wait(f"{selector} >= {least}", there)

    def returned(self, alert, *labels):
        """Returns the current result of an alert's expression, by some labels."""
        return sorted(tuple(sample.get(label) for label in labels) for sample, _ in self.prometheus.query(self.alerts[alert]["query"]))

    def raised(self, alert, wanted, *labels):
        """Waits until the expression returns exactly this result."""
        end = time.monotonic() + 15
        while self.returned(alert, *labels) != wanted and time.monotonic() < end:
            time.sleep(0.1)
        self.expect(f"{alert} is due for", self.returned(alert, *labels), wanted)

    def quiet(self, *alerts):
        for alert in alerts:
            self.expect(f"{alert} is not", self.returned(alert), [])

    # === Incidents ===

    def healthy(self):
        print("\n1. All is well")
        for id in ("one", "two"):
            body = json.dumps({"id": id}).encode()
            status, _ = request(self.egress, "POST", "/analyze", body, {"content-type": "application/json"})
            self.expect("the agent's request is answered", status, 202)
        request(self.egress, "POST", "/analyze", b"no json", {"content-type": "application/json"})
        token = self.took[0]["callback_token"]
        call = lambda report, **how: self.caller.call("/hooks/analysis/one", token, report, **how)
        self.expect("progress", call({"status": "processing", "progress": 50}, event="half"), 200)
        self.expect("the same again", call({"status": "processing", "progress": 50}, event="half"), 200)
        self.expect("less progress", call({"status": "processing", "progress": 10}), 200)
        self.expect("no JSON, on a route that must read it", call(b"<done/>"), 400)
        self.expect("the end", call({"status": "completed", "progress": 100}), 200)
        token = self.mint("impatient", "first")
        self.expect("no JSON", self.caller.call("/hooks/impatient/first", token, b"<progress/>"), 200)
        # From now on, failures and expired interactions are increases of existing series.
        self.scraped('callgate_interactions_ended_total{route="impatient",outcome="expired"}', 0)
        self.scraped('callgate_notices_total{route="impatient",outcome="failed"}', 0)
        challenge = b'{"type":"url_verification","challenge":"c"}'
        at = str(int(time.time()))
        mac = hmac.new(self.slack.encode(), f"v0:{at}:".encode() + challenge, hashlib.sha256).hexdigest()
        self.expect("a handshake", request(self.ingress, "POST", "/hooks/asking", challenge, {
            "content-type": "application/json", "x-slack-request-timestamp": at, "x-slack-signature": f"v0={mac}"})[0], 200)
        self.expect("a forgery where nothing is refused", self.caller.call(
            "/hooks/watched", None, {}, secret="whsec_" + "A" * 44), 200)
        self.scraped('callgate_feed_age_seconds{feed=~".*/good"}', 0)
        self.expect("from an address that is listed", self.caller.call("/hooks/listed", None, {}), 200)
        self.scraped('callgate_ingress_requests_total{route="analysis",reason="ok"}', 2)
        self.quiet("CallgateRefusalsRising", "CallgateRotatedOnOneSide", "CallgateClockSkew", "CallgateActionsGuarded",
                   "CallgateAgentFailing", "CallgateAgentRejecting", "CallgateInteractionsOverdue", "CallgateNoticesFailing", "CallgateEgressFailing",
                   "CallgateReloadFailed", "CallgateConnectionsRefused", "CallgateKeysUnavailable", "CallgateDown", "CallgateAbsent")
        self.raised("CallgateObservingForLong", [("callgate",)], "job")
        self.raised("CallgateCertificateEndsToday", [(str(self.path / "tls.crt"),)], "certificate")
        self.raised("CallgateFeedFailing", [(f"http://127.0.0.1:{self.lists.port}/bad",)], "feed")

    def several(self, what, series, times, call):
        """Causes the event once and waits for a scrape, because a new series has no increase. Then causes it again."""
        self.expect(what, call(0), True)
        self.scraped(series, 1)
        self.expect(f"{what}, {times} times", all(call(i + 1) for i in range(times)), True)

    def forged(self):
        print("\n2. Forged signatures; a clock that is wrong; an endpoint that is not allowed")
        token = self.mint("analysis", "three")
        forge = lambda i: self.caller.call("/hooks/analysis/three", token, {"n": i}, secret="whsec_" + "A" * 44) == 401
        self.several("a forged signature", 'callgate_ingress_requests_total{route="analysis",reason="signature_mismatch"}', 20, forge)
        self.raised("CallgateRotatedOnOneSide", [("analysis", "analysis")], "route", "provider")
        self.raised("CallgateRefusalsRising", [("signature_mismatch",)], "reason")
        early = lambda i: self.caller.call("/hooks/analysis/three", token, {"n": i}, at=time.time() + 7200) == 401
        self.several("a signature of tomorrow", 'callgate_ingress_requests_total{reason="signature_too_new"}', 8, early)
        self.raised("CallgateClockSkew", [("analysis",)], "route")
        asks = {"action_endpoint": "http://169.254.169.254/latest/meta-data"}
        self.expect("a door into the network", self.caller.call("/hooks/analysis/three", token, asks), 403)
        wait("CallgateActionsGuarded", lambda: self.returned("CallgateActionsGuarded"))
        self.expect("a list that was never had", self.caller.call("/hooks/unlisted", None, {}), 503)
        self.raised("CallgateKeysUnavailable", [("list_unavailable",)], "reason")

    def agent_away(self):
        print("\n3. The agent is away, and interactions go past their deadline")
        token = self.mint("analysis", "four")
        self.agent.stop()
        self.mint("impatient", "unheard")
        call = lambda i: self.caller.call("/hooks/analysis/four", token, {"n": i}) in (502, 503)
        self.several("a callback", 'callgate_ingress_requests_total{route="analysis",verdict="fail"}', 6, call)
        self.raised("CallgateAgentFailing", [("analysis",)], "route")
        self.raised("CallgateNoticesFailing", [("impatient", "expired", "failed")], "route", "cause", "outcome")
        self.agent.start()
        self.expect("the agent is back", self.caller.call("/hooks/analysis/four", token, {"n": 99}), 200)
        reject = lambda i: self.caller.call("/hooks/listed", None, {"reject": i}) == 500
        self.several("a callback that the agent rejects", 'callgate_deliver_rejected_total{route="listed"}', 8, reject)
        self.raised("CallgateAgentRejecting", [("listed",)], "route")
        for id in ("five", "six", "seven"):
            self.mint("impatient", id)
        self.raised("CallgateInteractionsOverdue", [("impatient",)], "route")

    def provider_away(self):
        print("\n4. Nobody is where the agent's requests go")
        send = lambda i: request(self.egress, "POST", "/nowhere", b"{}")[0] == 502
        self.several("a request", 'callgate_egress_requests_total{rule="nowhere"}', 6, send)
        self.raised("CallgateEgressFailing", [("nowhere",)], "rule")

    def reload(self):
        print("\n5. A configuration that cannot be read")
        good = self.config.read_text()
        self.config.write_text(good + "roots: oops\n")
        self.gate.send_signal(signal.SIGHUP)
        self.raised("CallgateReloadFailed", [(f"127.0.0.1:{self.admin}",)], "instance")
        self.config.write_text(good)
        self.gate.send_signal(signal.SIGHUP)
        self.raised("CallgateReloadFailed", [])

    def crowded(self):
        print("\n6. More connections than there is room for")
        held = [socket.create_connection(("127.0.0.1", self.ingress)) for _ in range(45)]
        self.raised("CallgateConnectionsRefused", [("full",)], "reason")
        for one in held:
            one.close()
        wait("there is room again", self.has_room)

    def has_room(self):
        try:
            return self.caller.call("/hooks/listed", None, {}) == 200
        except (OSError, http.client.HTTPException):
            return False

    # === The whole run ===

    def everything(self):
        print("\n7. All alerts, and what they say")
        self.expect("every alert is held against something", sorted(AFTERWARDS), sorted(self.alerts))
        due = {alert: bool(self.returned(alert)) for alert in self.alerts}
        for alert, wanted in AFTERWARDS.items():
            if wanted is not None and due[alert] != wanted:
                self.expect(f"{alert} is due in the end", due[alert], wanted)
        broken = {rule["name"]: rule["lastError"] for rule in self.prometheus.rules() if rule.get("lastError")}
        self.expect("rules that cannot be evaluated", broken, {})
        wanted = sorted(alert for alert, is_due in due.items() if is_due)
        end, told = time.monotonic() + 15, {}
        # Prometheus evaluates the alerts itself, shortly after this query.
        while sorted(told) != wanted and time.monotonic() < end:
            told = {alert["labels"]["alertname"]: alert for alert in self.prometheus.get("alerts")["alerts"]}
            time.sleep(0.2)
        self.expect("pending or firing", sorted(told), wanted)
        for alert in told.values():
            words = " ".join(alert["annotations"].values())
            if "<no value>" in words or "error" in words.lower() or "{{" in words:
                self.expect(f"{alert['labels']['alertname']} says", words, "something that can be read")
            print(f"         {alert['annotations']['description']}")

    def labels(self):
        print("\n8. What is exposed is what is listed")
        known = {name: entry for entry in self.listed() for name in entry["exposed"]}
        strange = set()
        for line in request(self.admin, "GET", "/metrics")[1].decode().splitlines():
            found = re.fullmatch(r'(\w+)(?:\{(.*)\})? \S+', line)
            if line.startswith("#") or not found:
                continue
            entry = known.get(found[1])
            given = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or ""))
            given.pop("le", None)
            if entry is None or set(given) != {label["name"] for label in entry["labels"]}:
                strange.add(line)
                continue
            for label in entry["labels"]:
                if "values" in label and given[label["name"]] not in label["values"]:
                    strange.add(line)
        self.expect("series beside the list", sorted(strange), [])

    def listed(self):
        return json.loads(subprocess.run([self.callgate, "metrics", "--json"], check=True, capture_output=True).stdout)

    def dashboard(self):
        print("\n9. The dashboard")
        made = subprocess.run([sys.executable, ROOT / "scripts/dashboard.py", "--queries"], check=True, capture_output=True)
        count, empty = 0, 0
        for query in json.loads(made.stdout):
            expr = query["expr"].replace("$__rate_interval", "5m").replace("$__interval", "15s")
            expr = re.sub(r"\$(job|instance|route)", ".*", expr)
            count += 1
            if not self.prometheus.query(expr):
                if any(name in expr for name in EMPTY):
                    empty += 1
                else:
                    self.expect(f"{query['panel']}: {expr}", "nothing", "data")
        print(f"  ok  {count} queries, {count - empty} with data; {empty} may be empty:")
        for name, why in EMPTY.items():
            print(f"         {name}: {why}")

    def gone(self):
        print("\n10. Callgate is gone")
        self.gate.send_signal(signal.SIGINT)
        self.gate.wait(20)
        self.raised("CallgateDown", [(f"127.0.0.1:{self.admin}",)], "instance")

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.folder.cleanup()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callgate", required=True, type=pathlib.Path)
    parser.add_argument("--prometheus", required=True, type=pathlib.Path)
    args = parser.parse_args()
    began = time.monotonic()
    incident = Incident(args.callgate.resolve(), args.prometheus.resolve())
    try:
        incident.begin()
        for step in (incident.healthy, incident.forged, incident.agent_away, incident.provider_away, incident.reload,
                     incident.crowded, incident.everything, incident.labels, incident.dashboard, incident.gone):
            step()
    finally:
        incident.end()
    for mistake in incident.wrong:
        print(f"WRONG: {mistake}")
    print(f"\n{'all came out right' if not incident.wrong else 'that did not come out right'}, in {time.monotonic() - began:.0f} s")
    return 1 if incident.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
