#!/usr/bin/env python3
"""The A2A libraries work through the configuration that `callgate init --provider a2a` writes.

Servers of a2a-sdk and of @a2a-js/sdk are the other agent. Clients of both libraries fetch its card through the egress
listener and send messages over each protocol binding, as streams and as single requests. The clients do not ask for push
notifications: Callgate does. The server's notifications must reach the agent, and end each interaction."""

import argparse
import asyncio
import contextlib
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import httpx
import uvicorn
from a2a.client import ClientConfig, create_client
from a2a.helpers import new_task_from_user_message, new_text_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import (BasePushNotificationSender, InMemoryPushNotificationConfigStore, InMemoryTaskStore,
                              TaskUpdater)
from a2a.types import (AgentCapabilities, AgentCard, AgentInterface, AgentSkill, GetTaskRequest, Role,
                       SendMessageRequest)
from starlette.applications import Starlette

HERE = pathlib.Path(__file__).resolve().parent
BINDINGS = ["JSONRPC", "HTTP+JSON"]
PATIENCE = 30


class Agent(http.server.BaseHTTPRequestHandler):
    """The agent behind Callgate. It records the notifications that it receives."""
    protocol_version = "HTTP/1.1"
    seen = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Agent.seen.append((self.headers["callgate-interaction"], dict(self.headers.items()), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Worker(AgentExecutor):
    """The other agent. It works on a task and completes it."""

    async def execute(self, context, event_queue):
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        await updater.complete()

    async def cancel(self, context, event_queue):
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def peer(port):
    """Returns the server of the other agent."""
    base = f"http://127.0.0.1:{port}"
    card = AgentCard(
        name="peer", description="works", version="1", default_input_modes=["text/plain"],
        default_output_modes=["text/plain"], skills=[AgentSkill(id="s", name="s", description="s", tags=["s"])],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True),
        supported_interfaces=[
            AgentInterface(url=f"{base}/rpc", protocol_binding="JSONRPC", protocol_version="1.0"),
            AgentInterface(url=f"{base}/rest", protocol_binding="HTTP+JSON", protocol_version="1.0")])
    store = InMemoryPushNotificationConfigStore()
    handler = DefaultRequestHandlerV2(
        agent_executor=Worker(), task_store=InMemoryTaskStore(), agent_card=card, push_config_store=store,
        push_sender=BasePushNotificationSender(httpx.AsyncClient(), store))
    routes = [*create_agent_card_routes(card), *create_jsonrpc_routes(handler, rpc_url="/rpc"),
              *create_rest_routes(handler, path_prefix="/rest")]
    return uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_level="warning"))


def configuration(callgate, folder, peer_port, agent_port):
    """Writes the first configuration with the addresses of this test. Returns its path, and the ports of egress and admin."""
    path = os.path.join(folder, "callgate.yaml")
    subprocess.run([callgate, "init", "--provider", "a2a", "-o", path], check=True, capture_output=True)
    ingress, egress, admin = (free_port() for _ in range(3))
    text = pathlib.Path(path).read_text()
    for before, after in [
            ("https://agent.example.com", f"http://127.0.0.1:{ingress}"), ("0.0.0.0:8080", f"127.0.0.1:{ingress}"),
            ("127.0.0.1:8081", f"127.0.0.1:{egress}"), ("127.0.0.1:9901", f"127.0.0.1:{admin}"),
            ("127.0.0.1:8000", f"127.0.0.1:{agent_port}"), ("https://CHANGE-ME.example.com", f"http://127.0.0.1:{peer_port}")]:
        assert before in text, (before, text)
        text = text.replace(before, after)
    pathlib.Path(path).write_text(text)
    return path, egress, admin


async def ask(base, binding, streaming):
    """Sends a message with the client of a2a-sdk. Returns the id of the task."""
    config = ClientConfig(streaming=streaming, supported_protocol_bindings=[binding], httpx_client=httpx.AsyncClient(timeout=PATIENCE))
    client = await create_client(base, client_config=config)
    request = SendMessageRequest(message=new_text_message("hello", role=Role.ROLE_USER))
    task = None
    async for event in client.send_message(request):
        task = task or event.task.id or event.status_update.task_id
    found = await client.get_task(GetTaskRequest(id=task))
    assert found.id == task, found
    await client.close()
    return task


def ask_js(modules, base, binding, streaming):
    """Sends a message with the client of @a2a-js/sdk. Returns the id of the task."""
    asked = subprocess.run(["node", "a2a_client.mjs", base + "/", binding, str(streaming).lower()], cwd=modules,
                           capture_output=True, text=True, timeout=4 * PATIENCE)
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.strip()


def interactions(admin):
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/callbacks", timeout=PATIENCE) as response:
        return json.load(response)["interactions"]


def ended(admin, task):
    """Waits until the interaction of a task has ended. Returns the interaction."""
    until = time.monotonic() + PATIENCE
    while True:
        all_of_them = interactions(admin)
        found = [one for one in all_of_them if one["provider_id"] == task]
        if found and found[0]["state"] == "done":
            return found[0]
        assert time.monotonic() < until, f"no finished interaction of {task}: {all_of_them}"
        time.sleep(0.05)


@contextlib.asynccontextmanager
async def python_peer():
    """Runs the server of a2a-sdk. Yields its port."""
    port = free_port()
    server = peer(port)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    yield port
    server.should_exit = True
    await serving


@contextlib.asynccontextmanager
async def js_peer(modules):
    """Runs the server of @a2a-js/sdk. Yields its port."""
    server = await asyncio.create_subprocess_exec("node", "a2a_server.mjs", cwd=modules, stdout=subprocess.PIPE)
    yield int(await server.stdout.readline())
    server.terminate()
    await server.wait()


async def talk(callgate, modules, agent_port, peer_port, bindings):
    """Lets each client talk to the other agent over each binding. Returns the number of conversations."""
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        path, egress, admin = configuration(callgate, folder, peer_port, agent_port)
        gate = subprocess.Popen([callgate, "run", "-c", path], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                env={**os.environ, "CALLGATE_TOKEN_KEY": "a key of the interop tests, 32 bytes"})
        try:
            await reached(admin)
            base = f"http://127.0.0.1:{egress}/a2a"
            clients = [lambda *how: ask(base, *how)]
            if modules:
                clients.append(lambda *how: asyncio.to_thread(ask_js, modules, base, *how))
            for client in clients:
                for binding in bindings:
                    for streaming in (False, True):
                        task = await client(binding, streaming)
                        interaction = await asyncio.to_thread(ended, admin, task)
                        seen = [headers for one, headers, _ in Agent.seen if one == interaction["interaction"]]
                        assert seen, f"{binding}: the agent received no notification"
                        assert all("x-a2a-notification-token" not in map(str.lower, headers) for headers in seen)
                        count += 1
        finally:
            gate.send_signal(signal.SIGINT)
            gate.wait()
    return count


async def run_all(callgate, modules):
    agent = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    threading.Thread(target=agent.serve_forever, daemon=True).start()
    count = 0
    async with python_peer() as port:
        count += await talk(callgate, modules, agent.server_port, port, BINDINGS)
    if modules:
        async with js_peer(modules) as port:
            count += await talk(callgate, modules, agent.server_port, port, BINDINGS[:1])
    agent.shutdown()
    libraries = "a2a-sdk and @a2a-js/sdk" if modules else "a2a-sdk"
    print(f"{count:6} conversations over A2A through `callgate init --provider a2a`, with {libraries}")


async def reached(admin):
    """Waits until Callgate answers."""
    until = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(interactions, admin)
            return
        assert time.monotonic() < until, "Callgate did not start"
        await asyncio.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--callgate", required=True, type=pathlib.Path)
    parser.add_argument("--modules", type=pathlib.Path,
                        help="a folder with node_modules, a2a_client.mjs and a2a_server.mjs; without it the npm library takes no part")
    args = parser.parse_args()
    asyncio.run(run_all(str(args.callgate.resolve()), args.modules))


if __name__ == "__main__":
    sys.exit(main())
