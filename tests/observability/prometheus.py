"""A real Prometheus on the loopback network, which scrapes a Callgate every second."""

import json
import pathlib
import re
import subprocess
import time
import urllib.parse

from toys import request

CONFIG = """
global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: [ {rules} ]
scrape_configs:
  - job_name: callgate
    static_configs: [ {{ targets: [ "127.0.0.1:{admin}" ] }} ]
"""


def wait(what, probe, seconds=20):
    """Polls `probe` until it returns a true value. Exits after the time limit."""
    end = time.monotonic() + seconds
    while True:
        got = probe()
        if got:
            return got
        if time.monotonic() > end:
            raise SystemExit(f"after {seconds} s still not: {what}")
        time.sleep(0.05)


class Prometheus:
    def __init__(self, binary, folder, rules, admin):
        folder = pathlib.Path(folder)
        (folder / "prometheus.yaml").write_text(CONFIG.format(rules=rules, admin=admin))
        self.log = folder / "prometheus.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [binary, f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb",
                 "--web.listen-address=127.0.0.1:0", "--log.level=info"],
                stdout=log, stderr=log, cwd=folder)
        self.port = int(wait("Prometheus listens", self.listens))
        wait("Prometheus is ready", self.is_ready)

    def listens(self):
        if self.process.poll() is not None:
            raise SystemExit(f"Prometheus ended:\n{self.log.read_text()}")
        found = re.search(r'msg="Listening on" address=127\.0\.0\.1:(\d+)', self.log.read_text())
        return found and found[1]

    def is_ready(self):
        try:
            return request(self.port, "GET", "/-/ready")[0] == 200
        except OSError:
            return False

    def get(self, path, **query):
        status, body = request(self.port, "GET", f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
        answer = json.loads(body)
        if answer["status"] != "success":
            raise SystemExit(f"{status} {path} {query}: {answer}")
        return answer["data"]

    def query(self, expr):
        """Returns the current result of an expression: [(labels, value)]."""
        result = self.get("query", query=expr)
        if result["resultType"] == "scalar":
            return [({}, float(result["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in result["result"]]

    def alerts(self):
        """Returns every loaded alert, by name."""
        groups = self.get("rules")["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"] if rule["type"] == "alerting"}

    def rules(self):
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def stop(self):
        self.process.kill()
        self.process.wait()
