#!/usr/bin/env python3
"""Compares Callgate with other proxies in one run: CPU per request, throughput, latency, memory, start time.

Each proxy has one worker, pinned to one core. Load generator and agent share another core. The proxies take turns in
rounds, so that a slower phase of the machine affects all of them. A figure is the median of the rounds, and a ratio is
computed within each round. Before the measurement, each proxy must deliver genuine requests and deny all others. Writes
docs/performance/.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile

import peers
import plots
from redis_server import ENGINES, Server

ROOT = peers.ROOT
SIZES = {"200 B": (200, 30000), "4 KiB": (4096, 20000), "64 KiB": (65536, 4000), "1 MiB": (1 << 20, 300)}
KINDS = ["token", "foreign", "expired", "unsigned", "tokenless", "signature", "changed"]
ELSEWHERE = "127.0.1.0"  # addresses that no peer's list has
LISTED = "127.0.0.0"     # addresses of clients, of which the last byte changes
RATE = 5000
PARTS = ["checks", "full", "tls", "h2", "connections", "streams", "bodies", "stores", "hop", "refusals", "latency", "growth"]


class Rig:
    """The parts that all peers share: agent, certificate, cores."""

    def __init__(self, folder, workers=1, key="ecdsa"):
        """`workers`: of each proxy. Each has a core of its own, if the machine has enough cores. `key`: of the certificate."""
        cores = os.cpu_count() or 1
        self.folder, self.running, self.workers = folder, [], workers
        self.proxy_cores, self.load_core = f"0-{min(workers, cores) - 1}", min(workers, cores - 1)
        self.upstream_port, self.number = 18700, 0
        self.certificate, self.key, self.pem, self.authority = (f"{folder}/{name}" for name in ("c.pem", "k.pem", "both.pem", "ca.pem"))
        self.certify(key)
        self.running.append(subprocess.Popen(["taskset", "-c", str(self.load_core), peers.RIG / "upstream", f"127.0.0.1:{self.upstream_port}"]))

    def certify(self, key):
        def openssl(*args):
            subprocess.run(["openssl", *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *curve, "-keyout", f"{self.folder}/ca.key", "-out", self.authority, "-subj", "/CN=bench", "-days", "2")
        kind = {"ecdsa": curve, "rsa": ["-newkey", "rsa:2048", "-nodes"]}[key]
        openssl("req", *kind, "-keyout", self.key, "-out", f"{self.folder}/c.csr", "-subj", "/CN=agent.example.com")
        pathlib.Path(f"{self.folder}/ext").write_text("subjectAltName=DNS:agent.example.com\nbasicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-in", f"{self.folder}/c.csr", "-CA", self.authority, "-CAkey", f"{self.folder}/ca.key",
                "-CAcreateserial", "-out", self.certificate, "-days", "2", "-extfile", f"{self.folder}/ext")
        pathlib.Path(self.pem).write_text(pathlib.Path(self.certificate).read_text() + pathlib.Path(self.key).read_text())

    def load(self, peer, requests, size=200, protocol="h1", **options):
        """Sends requests, and returns the results of the load generator."""
        port = peer.port if protocol == "h1" else peer.tls_port
        options |= {"requests": requests, "size": size, "protocol": protocol, "ca": self.authority, "first": self.number}
        # Every request has a new event id. Otherwise it would be a duplicate.
        self.number += requests
        args = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        done = subprocess.run(["taskset", "-c", str(self.load_core), peers.RIG / "load", f"127.0.0.1:{port}", *args],
                              capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{peer.name}: {options}: {done.stderr[-2000:]}")
        return json.loads(done.stdout)

    def cost(self, peer, requests, statuses, **options):
        """Returns the CPU microseconds per request and the results of the load generator. Any other status is an error."""
        peer = peer.fit(options.get("size", 200))
        before = peer.cpu_nanos()
        seen = self.load(peer, requests, **options)
        peer.wait()
        micros = (peer.cpu_nanos() - before) / requests / 1000
        if not set(seen["statuses"]) <= statuses:
            raise SystemExit(f"{peer.name}: {options}: {seen['statuses']}")
        return {"cpu_us": micros, "rps": requests / seen["seconds"], **{key: seen[key] for key in ("p50", "p99", "p999")}}

    def stop(self):
        for process in self.running:
            peers.end(process)


GOOD, KEPT, REFUSED = {"200"}, {"202"}, {"401", "403"}


def prove(rig, peer):
    """Checks that the peer delivers genuine requests over every protocol, and denies all others."""
    for protocol in ("h1", "tls", "h2"):
        for size in (200, 65536):
            rig.cost(peer, 20, GOOD, size=size, protocol=protocol)
        if peer.name == peers.BARE:
            continue
        for kind in KINDS:
            rig.cost(peer, 20, REFUSED, kind=kind, protocol=protocol)
        rig.cost(peer, 20, REFUSED, protocol=protocol, **{"from": ELSEWHERE})


def rounds_of(rig, all_peers, rounds, statuses, requests, **options):
    """Returns the results of each peer in each round. Every round measures every peer; the first round is a warm-up."""
    rows = {peer.name: [] for peer in all_peers}
    for i in range(rounds + 1):
        # The order of the peers changes from round to round.
        for at in range(len(all_peers)):
            peer = all_peers[(at + i) % len(all_peers)]
            row = rig.cost(peer, requests, statuses(peer), **options)
            if i:
                rows[peer.name].append(row)
    return rows


def median(rows, key):
    return statistics.median(row[key] for row in rows)


def beside(rows, peer, other, key="cpu_us"):
    """Returns the ratio of two peers' figures, computed per round: median, minimum, maximum."""
    all = sorted(a[key] / b[key] for a, b in zip(rows[peer], rows[other]))
    return statistics.median(all), all[0], all[-1]


class Report:
    """Prints the tables during the run. Also writes the results into a file after each table, so that an interrupted run is
    not lost."""

    def __init__(self, file=None):
        self.lines, self.data, self.file = [], {}, file

    def say(self, line=""):
        self.lines.append(line)
        print(line, flush=True)

    def table(self, title, columns, rows):
        self.say(f"\n## {title}\n")
        self.say("| | " + " | ".join(columns) + " |")
        self.say("|---" * (len(columns) + 1) + "|")
        for name, cells in rows:
            self.say(f"| {name} | " + " | ".join(cells) + " |")
        self.say()
        self.save()

    def save(self):
        if self.file:
            text = "# One run, side by side\n\nMade by `make bench`; what the figures mean is in [performance.md](../performance.md).\n\n"
            self.file.parent.mkdir(exist_ok=True)
            self.file.write_text(text + "\n".join(self.lines).strip() + "\n")


def ratio(rows, name):
    middle, least, most = beside(rows, name, peers.BARE)
    return f"{median(rows[name], 'cpu_us'):.1f} us, **{middle:.2f}** ({least:.2f} to {most:.2f})"


def sizes(rig, report, group, args, title, key, protocol="h1", only=tuple(SIZES)):
    found = {}
    for label in only:
        size, count = SIZES[label]
        found[label] = rounds_of(rig, group, args.rounds, lambda _: GOOD, int(count * args.scale) or 1, size=size, protocol=protocol)
    names = [peer.name for peer in group]
    report.table(title, list(only), [(name, [ratio(found[label], name) for label in only]) for name in names])
    report.table(f"{title}: requests a second at a full core", list(only),
                 [(name, [f"{median(found[label][name], 'rps'):.0f}" for label in only]) for name in names])
    report.data[key] = {label: {name: median(rows[name], "cpu_us") for name in names} for label, rows in found.items()}
    report.data[f"{key}_ratio"] = {label: {name: beside(rows, name, peers.BARE)[0] for name in names} for label, rows in found.items()}


def connections(rig, report, group, args):
    """Measures one callback per connection, as most providers connect."""
    jobs = {"plain": {}, "TLS 1.3, new session": {"protocol": "tls", "resume": 0}, "TLS 1.3, resumed session": {"protocol": "tls"}}
    found = {}
    for label, options in jobs.items():
        # Each connection has a source port of its own, so the callers have 256 addresses.
        count = int(6000 * args.scale) or 1
        found[label] = rounds_of(rig, group, args.rounds, lambda _: GOOD, count, reconnect=1, **{"from": LISTED}, **options)
    names = [peer.name for peer in group]
    report.table("One callback of 200 B per connection", list(jobs), [(name, [ratio(found[label], name) for label in jobs]) for name in names])
    report.data["connections"] = {label: {name: median(rows[name], "cpu_us") for name in names} for label, rows in found.items()}


def streams(rig, report, group, args):
    rows = rounds_of(rig, group, args.rounds, lambda _: GOOD, int(20000 * args.scale) or 1, protocol="h2", streams=1, connections=128)
    names = [peer.name for peer in group]
    report.table("128 connections of HTTP/2 with one stream each, 200 B", ["CPU"], [(name, [ratio(rows, name)]) for name in names])
    report.data["streams"] = {name: median(rows[name], "cpu_us") for name in names}


def bodies(rig, report, group, args):
    """Measures bodies as providers send them."""
    jobs = {"form, 1 KiB": ("form", 1024, 20000), "answer of a language model, 30 KB": ("answer", 30_000, 6000),
            "push to a repository, 200 KB": ("push", 200_000, 1500)}
    found = {}
    for label, (shape, size, count) in jobs.items():
        found[label] = rounds_of(rig, group, args.rounds, lambda _: GOOD, int(count * args.scale) or 1, size=size, shape=shape)
    names = [peer.name for peer in group]
    report.table("Bodies as providers send them", list(jobs), [(name, [ratio(found[label], name) for label in jobs]) for name in names])
    report.data["bodies"] = {label: {name: median(rows[name], "cpu_us") for name in names} for label, rows in found.items()}


def stores(rig, report, group, args):
    rows = rounds_of(rig, group, args.rounds, lambda _: GOOD | KEPT, int(20000 * args.scale) or 1)
    names = [peer.name for peer in group]
    report.table("Stores, 200 B", ["CPU", "p50, us"],
                 [(name, [ratio(rows, name), f"{median(rows[name], 'p50'):.0f}"]) for name in names])
    report.data["stores"] = {name: median(rows[name], "cpu_us") for name in names}


def hop(report, args):
    """Measures the time that the hop to another replica adds. Client, agent and both replicas share all cores."""
    done = subprocess.run([sys.executable, ROOT / "benches/hop.py", "--callgate", peers.CALLGATE,
                           "--callbacks", str(int(3000 * args.scale) or 10)], capture_output=True, text=True, check=True)
    report.say("\n## The hop to another replica\n")
    for line in done.stdout.splitlines():
        report.say(f"- {line}")
    report.save()


def refusals(rig, report, group, args):
    jobs = {"accepted, 200 B": {}, "address": {"from": ELSEWHERE}, "token": {"kind": "token"}, "no token": {"kind": "tokenless"},
            "signature": {"kind": "signature"}, "accepted, 64 KiB": {"size": 65536},
            "signature, 64 KiB": {"kind": "signature", "size": 65536}, "token, 64 KiB": {"kind": "token", "size": 65536}}
    found = {}
    for label, options in jobs.items():
        statuses = GOOD if label.startswith("accepted") else REFUSED
        count = int((4000 if "64" in label else 20000) * args.scale) or 1
        found[label] = rounds_of(rig, group, args.rounds, lambda _: statuses, count, **options)
    def cell(name, label):
        base = "accepted, 64 KiB" if "64" in label else "accepted, 200 B"
        us, accepted = (median(found[at][name], "cpu_us") for at in (label, base))
        return f"{us:.1f} us" if label == base else f"{us:.1f} us, {us / accepted:.2f}"
    names = [peer.name for peer in group]
    report.table("A refusal, and its share of an accepted request", list(jobs), [(name, [cell(name, label) for label in jobs]) for name in names])
    report.data["refusals"] = {label: {name: median(rows[name], "cpu_us") for name in names} for label, rows in found.items()}


def latency(rig, report, group, args):
    """Measures latency at a fixed rate that each peer can handle. A late response does not delay the next request."""
    rows = rounds_of(rig, group, args.rounds, lambda _: GOOD, int(RATE * 3 * args.scale) or 1, rate=RATE, connections=64)
    names = [peer.name for peer in group]
    quantiles = ("p50", "p99", "p999")
    report.table(f"Latency at {RATE} requests a second of 200 B, microseconds, open loop", [*quantiles],
                 [(name, [f"{median(rows[name], q):.0f}" for q in quantiles]) for name in names])
    report.data["latency"] = {q: {name: median(rows[name], q) for name in names} for q in quantiles}


def growth(rig, report, args):
    """Measures the cost of a request with more routes, networks and open interactions. The peers of a row take turns."""
    count = int(20000 * args.scale) or 1
    def row(title, key, made):
        rows = rounds_of(rig, made, args.rounds, lambda _: GOOD, count)
        base = made[0].name
        report.table(title, ["CPU", "to the first"], [
            (peer.name, [f"{median(rows[peer.name], 'cpu_us'):.1f} us", "{:.3f} ({:.2f} to {:.2f})".format(*beside(rows, peer.name, base))]) for peer in made])
        report.data[key] = {peer.name: beside(rows, peer.name, base)[0] for peer in made}
        for peer in made:
            peer.stop()
    row("More routes", "routes", [peers.callgate(rig, f"{n} routes", routes=n) for n in (1, 10, 1000)])
    row("More networks", "networks", [peers.callgate(rig, f"{n} networks", network_count=n) for n in (100, 100_000)])
    made = []
    for open_ones in (1_000, 100_000, 1_000_000):
        store = "store: { kind: memory, interactions_max: 2000000, events_max: 2000000 }"
        peer = peers.callgate(rig, f"{open_ones:,} open interactions", more=store)
        for begin in range(0, open_ones, 100_000):
            some = min(100_000, open_ones - begin)
            rig.cost(peer, some, GOOD, interactions=some)
        made.append(peer)
    row("More open interactions", "interactions", made)


def versions():
    debian = peers.TOOLS / "debian/usr/sbin"
    def first(*command, pattern=r"(\d+\.\d+\.\d+)"):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env={**os.environ, **peers.libraries()})
        found = re.search(pattern, done.stdout + done.stderr)
        return found.group(1) if found else "?"
    envoy = next(peers.TOOLS.glob("envoy/**/_bin/envoy"), "envoy")
    return {"HAProxy": first(os.environ.get("HAPROXY") or debian / "haproxy", "-v"), "nginx": first(debian / "nginx", "-v"),
            "Envoy": first(envoy, "--version", pattern=r"/(\d+\.\d+\.\d+)/"), "pingora": "0.9.1",
            "Callgate": first(peers.CALLGATE, "--version"), "rustc": first("rustc", "--version")}


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return f"{cpu}, {os.cpu_count()} cores, Linux {platform.release()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the requests of a full run")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--workers", type=int, default=1, help="worker threads of each proxy except bare pingora, which has one; the machine should have more cores than that")
    parser.add_argument("--key", choices=["ecdsa", "rsa"], default="ecdsa", help="the key of the certificate: P-256 or 2048 bits")
    parser.add_argument("--other", type=pathlib.Path, help="another build of Callgate to compare with")
    parser.add_argument("--without", nargs="*", default=[], help="peers to leave out")
    parser.add_argument("--write", action="store_true", help="write docs/performance/")
    args = parser.parse_args()
    peers.bring()
    report = Report(ROOT / "docs/performance/results.md" if args.write else None)
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(folder, args.workers, args.key)
        try:
            run(rig, report, args)
        finally:
            rig.stop()
    if args.write:
        write(report)


def run(rig, report, args):
    versioned = ", ".join(f"{name} {version}" for name, version in versions().items())
    report.say(f"{datetime.date.today()}, {machine()}; {versioned}; {args.rounds} rounds; {args.workers} worker threads; certificate {args.key}.")
    bare = peers.bare(rig)
    makers = {"HAProxy": peers.haproxy, "nginx + Lua": peers.nginx, "Envoy": peers.envoy}
    makers = {name: make for name, make in makers.items() if name not in args.without}
    plain = [make(rig) for make in makers.values()]
    logging = [make(rig, f"{name}, log", log=True) for name, make in makers.items()]
    checks = peers.callgate(rig, "Callgate, checks alone", full=False)
    full, reading = peers.callgate(rig), peers.callgate(rig, "Callgate, reading the body", reads=True)
    others = [peers.callgate(rig, "Callgate, other build", binary=args.other)] if args.other else []
    everyone = [bare, *plain, *logging, checks, full, reading, *others]
    report.table("Start and rest", ["to the first answer, ms", "memory, MiB"],
                 [(peer.name, [f"{peer.started_ms:.0f}", f"{peer.memory_mib():.1f}"]) for peer in everyone])
    for peer in everyone:
        prove(rig, peer)
    report.say(f"Each was seen to deliver what is good and to refuse {', '.join(KINDS)} and another address, over HTTP/1.1, TLS and HTTP/2.")
    group = [bare, *plain, *others, full]
    if "checks" in args.parts:
        sizes(rig, report, [bare, *plain, checks], args, "Address, token, signature, rewrite", "checks")
    if "full" in args.parts:
        sizes(rig, report, [bare, *logging, *others, full, reading], args, "The same with access log and metrics; Callgate with ledger and duplicates, too", "full")
    if "tls" in args.parts:
        sizes(rig, report, [bare, *plain, *others, full], args, "Over TLS 1.3", "tls", "tls", ("200 B", "4 KiB", "64 KiB"))
    if "h2" in args.parts:
        sizes(rig, report, [bare, *plain, *others, full], args, "Over HTTP/2", "h2", "h2", ("200 B", "4 KiB", "64 KiB"))
    if "connections" in args.parts:
        connections(rig, report, group, args)
    if "streams" in args.parts:
        streams(rig, report, group, args)
    if "bodies" in args.parts:
        bodies(rig, report, [bare, *logging, *others, full, reading], args)
    if "stores" in args.parts:
        server = Server(ENGINES / "redis-server", rig.folder, core=rig.load_core)
        made = [peers.filed(rig), peers.with_inbox(rig), peers.on_redis(rig, server)]
        stores(rig, report, [bare, full, *made], args)
        for one in made:
            one.stop()
        server.kill()
    if "refusals" in args.parts:
        refusals(rig, report, [*plain, *logging, *others, checks, full], args)
    if "latency" in args.parts:
        latency(rig, report, group, args)
    report.table("Memory after all that, MiB", ["proportional set size"], [(peer.name, [f"{peer.memory_mib():.1f}"]) for peer in everyone])
    for peer in everyone:
        peer.stop()
    if "hop" in args.parts:
        hop(report, args)
    if "growth" in args.parts:
        growth(rig, report, args)


def write(report):
    folder = ROOT / "docs/performance"
    for name, picture in plots.draw(report.data).items():
        (folder / f"{name}.svg").write_text(picture)


if __name__ == "__main__":
    sys.exit(main())
