"""Redis and Valkey as the benchmarks start them."""

import pathlib
import socket
import subprocess
import sys
import time

from process import listens


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


# `make engines` brings the servers.
ENGINES = pathlib.Path(__file__).resolve().parent.parent / ".tools/engines/bin"


class Server:
    """Redis or Valkey with an append-only file, which is synced every second."""

    def __init__(self, program, folder, replica_of=None, core=None):
        self.port = free_port()
        directory = pathlib.Path(folder, f"server-{self.port}")
        directory.mkdir()
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir", directory]
        command += ["--replicaof", "127.0.0.1", str(replica_of.port)] if replica_of else []
        command = ["taskset", "-c", str(core), *command] if core is not None else command
        self.child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if not listens(self.port):
            sys.exit(f"{program} does not listen")
        while replica_of and "state=online" not in replica_of.facts().get("slave0", ""):
            time.sleep(0.05)

    def facts(self):
        """Returns what the server says about itself."""
        with socket.create_connection(("127.0.0.1", self.port)) as stream:
            stream.sendall(b"INFO\r\nQUIT\r\n")
            text = b"".join(iter(lambda: stream.recv(65536), b"")).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def memory(self):
        """Returns the bytes in use, without buffers, which do not grow with the data."""
        facts = self.facts()
        buffers = ("mem_total_replication_buffers", "mem_clients_normal", "mem_aof_buffer")
        return int(facts["used_memory"]) - sum(int(facts.get(name, 0)) for name in buffers)

    def version(self):
        facts = self.facts()
        return facts.get("valkey_version") or facts["redis_version"]

    def kill(self):
        self.child.kill()
        self.child.wait()
