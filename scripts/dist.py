#!/usr/bin/env python3
"""Packs a release: an archive with the program, its man page, completions, schema and SBOM, and SHA256SUMS beside it.

The result depends only on the binary, the sources and SOURCE_DATE_EPOCH (default: the time of the last commit), so two
runs make the same bytes. Usage: dist.py CALLGATE FOLDER
"""

import gzip
import hashlib
import io
import json
import os
import pathlib
import platform
import subprocess
import sys
import tarfile
import time
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = ["LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md"]
COMPLETIONS = {"bash": "callgate.bash", "zsh": "_callgate", "fish": "callgate.fish"}
NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # for URLs (RFC 9562)


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout


def epoch():
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    try:
        return int(output("git", "log", "-1", "--format=%ct"))
    except (OSError, subprocess.CalledProcessError, ValueError):
        return int((ROOT / "Cargo.lock").stat().st_mtime)


def dependencies():
    """Returns the packages that are compiled into the program: the normal dependencies of the root, transitively."""
    metadata = json.loads(output("cargo", "metadata", "--format-version=1", "--locked", "--offline", f"--filter-platform={target()}"))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    found, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [dep["pkg"] for dep in nodes[node]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    found.discard(root)
    edges = {node: sorted(dep["pkg"] for dep in nodes[node]["deps"] if dep["pkg"] in found) for node in found | {root}}
    return packages, root, sorted(found, key=lambda node: (packages[node]["name"], packages[node]["version"])), edges


def target():
    said = output("rustc", "-vV").decode()
    return next(line.removeprefix("host: ") for line in said.splitlines() if line.startswith("host: "))


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    made = {"type": "library", "bom-ref": purl(package), "name": package["name"], "version": package["version"], "purl": purl(package)}
    if package["license"]:
        made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return made


def sbom(binary, when):
    """Returns the bill of materials (CycloneDX 1.5): each crate in the program, with its licence and its checksum."""
    packages, root, found, edges = dependencies()
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(each["name"], each["version"]): each.get("checksum") for each in lock["package"]}
    own = packages[root]
    digest = hashlib.sha256(binary).hexdigest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, digest)}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when)),
            "component": {
                "type": "application",
                "bom-ref": purl(own),
                "name": own["name"],
                "version": own["version"],
                "purl": purl(own),
                "licenses": [{"expression": own["license"]}],
                "hashes": [{"alg": "SHA-256", "content": digest}],
            },
        },
        "components": [component(packages[node], checksums) for node in found],
        "dependencies": [{"ref": purl(packages[node]), "dependsOn": [purl(packages[dep]) for dep in edges[node]]} for node in [root, *found]],
    }


def files(program, when):
    """Returns the files of the archive: path, content and mode."""
    binary = program.read_bytes()
    yield "callgate", binary, 0o755
    yield "callgate.1", output(program, "man"), 0o644
    yield "callgate.schema.json", output(program, "schema"), 0o644
    yield "callgate.cdx.json", (json.dumps(sbom(binary, when), indent=1, sort_keys=True) + "\n").encode(), 0o644
    for shell, name in COMPLETIONS.items():
        yield f"completions/{name}", output(program, "completions", shell), 0o644
    for name in DOCUMENTS:
        yield name, (ROOT / name).read_bytes(), 0o644
    for folder in ("config", "deploy", "docs"):
        tracked = output("git", "ls-files", "-z", folder).decode().split("\0")
        for name in sorted(filter(None, tracked)):
            yield name, (ROOT / name).read_bytes(), 0o644


def archive(name, members, when):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content, mode in members:
            info = tarfile.TarInfo(f"{name}/{path}")
            info.size, info.mode, info.mtime = len(content), mode, when
            info.uname = info.gname = "root"
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), compresslevel=9, mtime=0)


def main():
    program, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    version = output(program, "--version").decode().split()[1]
    stated = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    if version != stated:
        sys.exit(f"error: {program} has version {version}, and Cargo.toml {stated}")
    changes = (ROOT / "CHANGELOG.md").read_text()
    if f"\n## {version} (" not in changes:
        print(f"warning: CHANGELOG.md has no dated entry for {version}", file=sys.stderr)
    when = epoch()
    name = f"callgate-{version}-{platform.machine()}-{platform.system().lower()}"
    members = list(files(program, when))
    folder.mkdir(parents=True, exist_ok=True)
    made = {f"{name}.tar.gz": archive(name, members, when), f"{name}.cdx.json": dict((path, content) for path, content, _ in members)["callgate.cdx.json"]}
    sums = ""
    for file, content in sorted(made.items()):
        (folder / file).write_bytes(content)
        sums += f"{hashlib.sha256(content).hexdigest()}  {file}\n"
        print(f"{folder / file}: {len(content):,} bytes")
    (folder / "SHA256SUMS").write_text(sums)


if __name__ == "__main__":
    main()
