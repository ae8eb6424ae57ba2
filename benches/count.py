#!/usr/bin/env python3
"""Compares the cost of decisions, callbacks and requests of the agent with benches/baseline.txt. scripts/count.sh runs this."""

import pathlib
import re
import subprocess
import sys
import tempfile

BASELINE = pathlib.Path(__file__).resolve().parent / "baseline.txt"
# The seeds of hash tables and the scheduling of threads differ between runs: six runs differed by at most 0.3 %. The
# CPU of callgrind has no SHA-256 instructions, so hashing has a larger share here than in production.
JOBS = ("decide", "deliver", "connect", "inbox", "deny-token", "deny-address", "egress", "hop")
MARGIN = 0.03
MARGINS = {"instructions": {"decide": 0.02}, "allocations": {"decide": 0.0}}
FEW, ROUNDS = {"decide": 100}, 1000


def instructions(valgrind, binary, job, times):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([valgrind, "--tool=callgrind", f"--callgrind-out-file={folder}/out", binary, job, str(times)],
                              capture_output=True, text=True, timeout=600)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise SystemExit(f"{job}: {done.stderr[-2000:]}")
    return int(found.group(1))


def measured(valgrind, binary):
    """Returns the figures. Without valgrind, only the allocations."""
    figures = {}
    for job in JOBS:
        if valgrind:
            begin = FEW.get(job, 200)
            few, many = (instructions(valgrind, binary, job, times) for times in (begin, begin + ROUNDS))
            figures[f"{job} instructions"] = (many - few) / ROUNDS
        done = subprocess.run([binary, job, "1000"], capture_output=True, text=True, check=True, timeout=120)
        figures[f"{job} allocations"] = float(done.stdout)
    return figures


def main():
    valgrind, binary, *options = sys.argv[1:]
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    figures = measured(valgrind, binary)
    if "--write" in options:
        lines = [f"compiler: {compiler}", *(f"{name}: {figure:.1f}" for name, figure in figures.items())]
        BASELINE.write_text("\n".join(lines) + "\n")
    baseline = dict(line.split(": ", 1) for line in BASELINE.read_text().splitlines())
    worse = False
    for name, figure in figures.items():
        job, what = name.split()
        if name not in baseline:
            print(f"{name}: {figure:.1f}, no baseline")
            continue
        margin, known = MARGINS[what].get(job, MARGIN), float(baseline[name])
        is_worse = figure > known * (1 + margin) + 0.5
        worse |= is_worse
        print(f"{name}: {figure:.1f}, baseline {known:.1f} ({figure / known - 1:+.1%}, margin {margin:.0%}){' TOO MUCH' if is_worse else ''}")
    if baseline["compiler"] != compiler:
        print(f"the baseline is of {baseline['compiler']}, this is {compiler}: nothing is refused")
        return 0
    if worse:
        print("more than the margin: find out why, or, where it is worth it, write a new baseline with `make count WRITE=--write`", file=sys.stderr)
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
