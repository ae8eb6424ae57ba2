#!/usr/bin/env python3
"""Generates the PrometheusRule in deploy/kustomize/prometheus-rule from deploy/prometheus/rules.yaml, for clusters with
the Prometheus operator. It contains the same text, indented.

    scripts/prometheus_rule.py            write it
    scripts/prometheus_rule.py --check    exit with 1 if the file is not what would be written
"""

import pathlib
import sys

DEPLOY = pathlib.Path(__file__).resolve().parent.parent / "deploy"
FILE = DEPLOY / "kustomize/prometheus-rule/prometheus-rule.yaml"
HEAD = """# Made by scripts/prometheus_rule.py from deploy/prometheus/rules.yaml; change that, not this.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: callgate
  labels: { app.kubernetes.io/name: callgate }
spec:
"""


def main():
    rules = (DEPLOY / "prometheus/rules.yaml").read_text()
    groups = rules[rules.index("\ngroups:\n") + 1 :]
    text = HEAD + "".join(f"  {line}\n" if line else "\n" for line in groups.splitlines())
    if "--check" in sys.argv:
        same = FILE.exists() and FILE.read_text() == text
        if not same:
            print(f"{FILE} is out of date: run scripts/prometheus_rule.py", file=sys.stderr)
        return 0 if same else 1
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
