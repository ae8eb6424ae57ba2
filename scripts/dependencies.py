#!/usr/bin/env python3
"""Checks the dependencies against deny.toml without cargo-deny, which takes minutes to build.

Checks what cargo-deny checks for licences, sources, wildcards and duplicate versions. It does not check advisories.
`make deny` runs cargo-deny itself. Usage: dependencies.py MANIFEST...
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path


def packages(manifest, targets, edges="normal,build,dev"):
    """Returns name, version, source and licence of the packages that are compiled for any of the targets."""
    found = set()
    for target in targets:
        command = ["cargo", "tree", "--locked", "--all-features", "--prefix", "none", "--edges", edges]
        command += ["--target", target, "--format", "{p}|{l}", "--manifest-path", manifest]
        for line in subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
            package, _, licence = line.removesuffix(" (*)").partition("|")
            name, version, *source = package.replace(" (proc-macro)", "").split(" ", 2)
            found.add((name, version.removeprefix("v"), " ".join(source), licence))
    return sorted(found)


def satisfied(expression, allowed):
    """Reports whether the allowed licences satisfy an SPDX expression. `A/B` is an old spelling of `A OR B`."""

    def without_parentheses(text):
        return any(all(one.strip() in allowed for one in side.split(" AND ")) for side in text.split(" OR "))

    expression = expression.replace("/", " OR ")
    allowed = allowed | {"true"}
    while "(" in expression:
        inner = lambda match: "true" if without_parentheses(match[1]) else "false"
        expression = re.sub(r"\(([^()]*)\)", inner, expression)
    return without_parentheses(expression)


def skip_of(name, version, skips):
    """Returns the entry of `skip` for this version. `name@1` and `name@0.8` stand for their SemVer ranges."""
    for skip in skips:
        skipped, _, range_ = skip["crate"].partition("@")
        if skipped == name and (version + ".").startswith(range_ + "."):
            return skip["crate"]
    return None


def mistakes(manifest, deny):
    allowed = set(deny["licenses"]["allow"])
    exceptions = {entry["crate"]: set(entry["allow"]) for entry in deny["licenses"]["exceptions"]}
    root = str(Path.cwd())
    versions = {}
    for name, version, source, licence in packages(manifest, deny["graph"]["targets"]):
        if source.startswith(f"({root}"):
            continue
        if source:
            yield f"{name} {version} is not from crates.io, but from {source}"
        if not licence or not satisfied(licence, allowed | exceptions.get(name, set())):
            yield f"{name} {version} has the licence {licence or '(none)'}, which deny.toml does not allow"
    # Like cargo-deny, this allows several versions in tests.
    for name, version, *_ in packages(manifest, deny["graph"]["targets"], "normal,build"):
        if not skip_of(name, version, deny["bans"]["skip"]):
            versions.setdefault(name, []).append(version)
    for name, several in versions.items():
        if len(several) > 1:
            yield f"{name} has several versions: {', '.join(several)}"
    with open(manifest, "rb") as file:
        tables = tomllib.load(file)
    for table in ("dependencies", "dev-dependencies", "build-dependencies"):
        for name, wanted in tables.get(table, {}).items():
            if (wanted if isinstance(wanted, str) else wanted.get("version")) == "*":
                yield f"{name} is accepted in every version"


def main():
    with open("deny.toml", "rb") as file:
        deny = tomllib.load(file)
    found = [f"{manifest}: {mistake}" for manifest in sys.argv[1:] for mistake in mistakes(manifest, deny)]
    print(*found, sep="\n", end="\n" if found else "")
    if found:
        sys.exit(1)
    print("licences, sources and versions ok")


main()
