#!/usr/bin/env python3
"""Compares the queries in deploy/ with the metrics of Callgate (`callgate metrics --json`): every metric in a rule or a
panel exists, every label in its selector is one of its labels, and every value of a closed label is one of its values.
Needs no Prometheus."""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Labels that Prometheus adds to every series, and series that it creates itself.
OF_PROMETHEUS = {"job", "instance"}
BESIDES = {"up": OF_PROMETHEUS, "ALERTS": OF_PROMETHEUS | {"alertname", "alertstate"}}


def expressions():
    """Yields (place, expression) for every rule and every query."""
    rules = (ROOT / "deploy/prometheus/rules.yaml").read_text()
    for rule in re.split(r"\n *- (?=alert: |record: )", rules)[1:]:
        inline = re.search(r"\n +expr: (?!\|)(.+)", rule)
        block = re.search(r"\n +expr: \|\n((?: {10}.*\n?)+)", rule)
        yield rule.split("\n")[0], (inline or block)[1]
    made = subprocess.run([sys.executable, ROOT / "scripts/dashboard.py", "--queries"], check=True, capture_output=True)
    for query in json.loads(made.stdout):
        yield query["panel"], query["expr"]


def compared(label, how, value):
    """Yields the values of closed labels in an expression that do not exist."""
    if value.startswith("$"):
        return []
    pieces = value.split("|") if how in ("=~", "!~") else [re.escape(value)]
    return [piece for piece in pieces if not any(re.fullmatch(piece, known) for known in label["values"])]


def mistakes(where, expr, metrics, records):
    labels = set(OF_PROMETHEUS) | {"le"}
    for name, picked in re.findall(r"([a-zA-Z_:][\w:]*)\b(?!\s*\()(?:\{([^}]*)\})?", re.sub(r'by \([^)]*\)|on \([^)]*\)|group_left \(\)', "", expr)):
        if name in BESIDES:
            labels |= BESIDES[name]
        elif name in records:
            labels |= {"route", "provider", "verdict", "reason", "rule"}
        elif name.startswith("callgate"):
            if name not in metrics:
                yield f"{where}: there is no {name}"
                continue
            mine = {label["name"]: label for label in metrics[name]["labels"]}
            labels |= set(mine)
            for label, how, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', picked or ""):
                if label in mine and "values" in mine[label]:
                    yield from (f"{where}: {name}: {label} is never {wrong}" for wrong in compared(mine[label], how, value))
                elif label not in mine and label not in OF_PROMETHEUS:
                    yield f"{where}: {name} has no label {label}"
    for by in re.findall(r"by \(([^)]*)\)", expr):
        yield from (f"{where}: nothing there has a label {label}" for label in re.split(r",\s*", by) if label and label not in labels)


def main():
    listed = subprocess.run([sys.argv[1], "metrics", "--json"], check=True, capture_output=True)
    metrics = {name: entry for entry in json.loads(listed.stdout) for name in entry["exposed"]}
    all_of_them = list(expressions())
    records = {where.removeprefix("record: ") for where, _ in all_of_them if where.startswith("record: ")}
    wrong = [mistake for where, expr in all_of_them for mistake in mistakes(where, expr, metrics, records)]
    for mistake in wrong:
        print(f"WRONG: {mistake}", file=sys.stderr)
    used = {name for _, expr in all_of_them for name in re.findall(r"(?:callgate|process)_\w+", expr)}
    unused = sorted(entry["name"] for entry in {id(e): e for e in metrics.values()}.values() if not used & set(entry["exposed"]))
    print(f"{len(all_of_them)} expressions, {len(metrics)} series; in neither a rule nor a panel: {', '.join(unused) or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
