#!/usr/bin/env python3
"""Generates from deploy/prometheus/rules.yaml the PrometheusRule in deploy/kustomize/prometheus-rule, for clusters with
the Prometheus operator, and the rules in the Helm chart. They contain the same text.

    scripts/prometheus_rule.py                          write the files
    scripts/prometheus_rule.py --check                  exit with 1 if a file is not what would be written
    scripts/prometheus_rule.py --print --runbooks URL   print the PrometheusRule with runbook_url below URL
    scripts/prometheus_rule.py --rules --runbooks URL   print the rules for rule_files, with runbook_url below URL
"""

import argparse
import pathlib
import sys

DEPLOY = pathlib.Path(__file__).resolve().parent.parent / "deploy"
# The beginning of every runbook_url in the rules.
RUNBOOKS = "https://callgate.dev/docs/"
MADE = "# Made by scripts/prometheus_rule.py from deploy/prometheus/rules.yaml; change that, not this.\n"
HEAD = """apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: callgate
  labels: { app.kubernetes.io/name: callgate }
spec:
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--print", action="store_true")
    parser.add_argument("--rules", action="store_true")
    parser.add_argument("--runbooks", metavar="URL", default=RUNBOOKS)
    args = parser.parse_args()
    rules = (DEPLOY / "prometheus/rules.yaml").read_text()
    rules = rules.replace(RUNBOOKS, args.runbooks.rstrip("/") + "/")
    groups = rules[rules.index("\ngroups:\n") + 1 :]
    rule = HEAD + "".join(f"  {line}\n" if line else "\n" for line in groups.splitlines())
    if args.print or args.rules:
        print(groups if args.rules else rule, end="")
        return 0
    if args.runbooks != RUNBOOKS:
        parser.error("--runbooks needs --print or --rules: the files in the repository keep the default")
    files = {
        DEPLOY / "kustomize/prometheus-rule/prometheus-rule.yaml": MADE + rule,
        DEPLOY / "helm/callgate/rules.yaml": MADE + groups,
    }
    outdated = [file for file, text in files.items() if not file.exists() or file.read_text() != text]
    for file in outdated:
        if args.check:
            print(f"{file} is out of date: run scripts/prometheus_rule.py", file=sys.stderr)
        else:
            file.write_text(files[file])
    return 1 if args.check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
