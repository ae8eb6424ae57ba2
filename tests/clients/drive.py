#!/usr/bin/env python3
"""Runs one client library against a provider, or against Callgate in front of it: `drive.py NAME [STEP]...`.

The environment points the library at the address, as a user would do it. BASE has the address, for libraries without a
variable of their own. CONTROL is the port of the provider for the test. Prints one line of JSON for each step."""

import asyncio
import http.client
import io
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import time
import uuid

# Two runs must send the same bytes: the boundaries of multipart bodies and the ids of requests are not random here.
_numbers = itertools.count()
os.urandom = lambda size: (next(_numbers) + 1).to_bytes(size, "big")
uuid.uuid4 = lambda: uuid.UUID(int=next(_numbers), version=4)
random.seed(0)

BASE = os.environ.get("BASE", "")
# Whether the program is changed so that it uses the proxy, because its library ignores the variables.
CHANGED = "CHANGED" in os.environ
CONTROL = os.environ["CONTROL"]
ROUNDS = int(os.environ.get("ROUNDS", "1"))
FILE = bytes(range(256)) * 12 * 1024         # 3 MiB: larger than the buffers between the client and the provider
QUERY = "page=2&name=a%20b+c&sign=%2F%3d"
MESSAGES = [{"role": "user", "content": "Grüße"}]
ASK = {"stream": True, "messages": MESSAGES}


def only_this_host(host, *arguments, _resolve=socket.getaddrinfo, **options):
    """Finds no name but that of this host, so that a library that ignores the proxy cannot reach a real API."""
    if host not in (None, "localhost", "127.0.0.1", b"127.0.0.1"):
        raise socket.gaierror(socket.EAI_NONAME, f"the library looked for {host}, and did not use the proxy")
    return _resolve(host, *arguments, **options)


if "PROXIED" in os.environ:
    socket.getaddrinfo = only_this_host


def control(path):
    connection = http.client.HTTPConnection("127.0.0.1", int(CONTROL), timeout=10)
    connection.request("GET", path)
    connection.getresponse().read()
    connection.close()


class Stopwatch:
    """Measures how long the first event takes, and tells the provider that it has arrived."""

    def __init__(self):
        self.seconds = []

    def read(self, start):
        """Reads the events that `start` returns, as often as ROUNDS says."""
        for _ in range(ROUNDS):
            began, got = time.perf_counter(), []
            for event in start():
                if not got:
                    self.first(began)
                got.append(event)
        return got

    async def read_async(self, start):
        for _ in range(ROUNDS):
            began, got = time.perf_counter(), []
            async for event in start():
                if not got:
                    self.first(began)
                got.append(event)
        return got

    def first(self, began):
        self.seconds.append(time.perf_counter() - began)
        control("/seen")


WATCH = Stopwatch()


def data(lines):
    """Yields the data of server-sent events."""
    for line in lines:
        line = line.decode() if isinstance(line, bytes) else line
        if line.startswith("data:"):
            yield line.removeprefix("data:").strip()


def until(done, ask):
    """Asks until the state is final."""
    while not done(ask()):
        pass
    return "done"


def socket_url():
    return BASE.replace("http", "ws", 1) + "/v1/socket?model=m"


def pieces():
    """Yields the file in pieces, for a body whose length the library does not know."""
    for at in range(0, len(FILE), 65536):
        yield FILE[at:at + 65536]


class Generic:
    """The steps of libraries without an API of their own. `send` returns the status and the body."""

    def plain(self):
        return [self.send("GET", f"/v1/models?{QUERY}"),
                self.send("POST", "/v1/echo", {"text": "Grüße", "number": 1.50, "list": [1, 2]}),
                self.send("PUT", "/v1/echo", {})]

    def poll(self):
        return until(lambda state: json.loads(state[1])["status"] == "succeeded", lambda: self.send("GET", "/v1/jobs/job1"))

    def redirect(self):
        return [self.send("GET", "/v1/moved"), self.send("POST", "/v1/moved", {"text": "again"})]

    def callback(self):
        return self.send("POST", "/v1/jobs", {"input": "Grüße"})


class Requests(Generic):
    def __init__(self):
        import requests
        self.session = requests.Session()

    def send(self, method, path, value=None):
        answer = self.session.request(method, BASE + path, json=value)
        return answer.status_code, answer.text

    def stream(self):
        def start():
            with self.session.post(f"{BASE}/v1/chat/completions", json=ASK, stream=True) as answer:
                yield from data(answer.iter_lines())
        return WATCH.read(start)

    def upload(self):
        whole = self.session.post(f"{BASE}/v1/upload", files={"file": ("f.bin", io.BytesIO(FILE))}, data={"name": "n"})
        return whole.text, self.session.post(f"{BASE}/v1/upload", data=pieces()).text


class Httpx(Generic):
    def __init__(self):
        import httpx
        self.client = httpx.Client(follow_redirects=True, timeout=30)

    def send(self, method, path, value=None):
        answer = self.client.request(method, BASE + path, json=value)
        return answer.status_code, answer.text

    def stream(self):
        def start():
            with self.client.stream("POST", f"{BASE}/v1/chat/completions", json=ASK) as answer:
                yield from data(answer.iter_lines())
        return WATCH.read(start)

    def upload(self):
        whole = self.client.post(f"{BASE}/v1/upload", files={"file": ("f.bin", io.BytesIO(FILE))}, data={"name": "n"})
        return whole.text, self.client.post(f"{BASE}/v1/upload", content=pieces()).text


class Urllib3(Generic):
    def __init__(self):
        import urllib3
        self.pool = urllib3.ProxyManager(os.environ["HTTPS_PROXY"]) if CHANGED else urllib3.PoolManager()

    def send(self, method, path, value=None):
        # `json=None` would send the body `null`.
        body = {} if value is None else {"json": value}
        answer = self.pool.request(method, BASE + path, **body)
        return answer.status, answer.data.decode()

    def stream(self):
        def start():
            answer = self.pool.request("POST", f"{BASE}/v1/chat/completions", json=ASK, preload_content=False)
            yield from data(answer)
            answer.release_conn()
        return WATCH.read(start)

    def upload(self):
        whole = self.pool.request("POST", f"{BASE}/v1/upload", fields={"file": ("f.bin", FILE), "name": "n"})
        return whole.data.decode(), self.pool.request("POST", f"{BASE}/v1/upload", body=pieces()).data.decode()


class Aiohttp(Generic):
    def __init__(self):
        import aiohttp
        self.aiohttp = aiohttp
        self.loop = asyncio.new_event_loop()
        self.session = self.loop.run_until_complete(self.open())

    async def open(self):
        return self.aiohttp.ClientSession(trust_env=CHANGED)

    def close(self):
        self.loop.run_until_complete(self.session.close())

    def send(self, method, path, value=None):
        async def ask():
            from yarl import URL
            async with self.session.request(method, URL(BASE + path, encoded=True), json=value) as answer:
                return answer.status, await answer.text()
        return self.loop.run_until_complete(ask())

    def stream(self):
        async def start():
            async with self.session.post(f"{BASE}/v1/chat/completions", json=ASK) as answer:
                async for line in answer.content:
                    for event in data([line]):
                        yield event
        return self.loop.run_until_complete(WATCH.read_async(start))

    def upload(self):
        async def parts():
            for piece in pieces():
                yield piece

        async def ask(body):
            async with self.session.post(f"{BASE}/v1/upload", data=body) as answer:
                return await answer.text()
        form = self.aiohttp.FormData({"name": "n"})
        form.add_field("file", io.BytesIO(FILE), filename="f.bin")
        return self.loop.run_until_complete(ask(form)), self.loop.run_until_complete(ask(parts()))


    def websocket(self):
        async def run():
            # For `wss`, the session reads WSS_PROXY, and not HTTPS_PROXY.
            proxy = {"proxy": os.environ["HTTPS_PROXY"]} if CHANGED else {}
            async with self.session.ws_connect(socket_url(), **proxy) as socket:
                await socket.send_str("Grüße")
                await socket.send_bytes(FILE[:100_000])
                return await socket.receive_str(), len(await socket.receive_bytes())
        return self.loop.run_until_complete(run())


class Websockets:
    def websocket(self):
        from websockets.sync.client import connect
        with connect(socket_url()) as socket:
            socket.send("Grüße")
            socket.send(FILE[:100_000])
            return socket.recv(), len(socket.recv())


class Curl(Generic):
    def run(self, *arguments, **options):
        return subprocess.run(["curl", "-sS", "--fail", *arguments], check=True, capture_output=True, **options).stdout.decode()

    def send(self, method, path, value=None):
        body = ["--json", json.dumps(value)] if value is not None else []
        follow = ["-L", "--compressed"]
        # -X would also change the method of the request after a redirect.
        method = ["-X", method] if method == "PUT" else []
        return 200, self.run(*follow, *method, *body, BASE + path)

    def stream(self):
        def start():
            body = json.dumps(ASK)
            command = ["curl", "-sSN", "--fail", "--json", body, f"{BASE}/v1/chat/completions"]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
                yield from data(running.stdout)
        return WATCH.read(start)

    def upload(self):
        whole = self.run("-F", "file=@-;filename=f.bin", "-F", "name=n", f"{BASE}/v1/upload", input=FILE)
        posted = self.run("--data-binary", "@-", f"{BASE}/v1/upload", input=FILE)      # sends Expect: 100-continue
        return whole, posted, self.run("-T", "-", f"{BASE}/v1/echo", input=FILE)


class Git:
    def plain(self):
        command = ["git", "ls-remote", f"{BASE}/v1/repository"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class OpenAi:
    def __init__(self):
        import openai
        self.client = openai.OpenAI(api_key="placeholder")

    def plain(self):
        models = [model.id for model in self.client.models.list()]
        return models, self.client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content

    def stream(self):
        def start():
            for chunk in self.client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
                yield chunk.choices[0].delta.content
        return WATCH.read(start)

    def upload(self):
        return self.client.files.create(file=("f.jsonl", io.BytesIO(FILE)), purpose="batch").bytes

    def poll(self):
        response = self.client.responses.create(model="m", input="words", background=True)
        return until(lambda state: state.status == "completed", lambda: self.client.responses.retrieve(response.id))

    def redirect(self):
        return self.client.files.content("file-1").text

    def websocket(self):
        with self.client.realtime.connect(model="m") as connection:
            connection.session.update(session={"type": "realtime", "instructions": "Grüße"})
            return connection.recv().type


class Anthropic:
    def __init__(self):
        import anthropic
        self.client = anthropic.Anthropic(api_key="placeholder")
        self.message = {"model": "m", "max_tokens": 10, "messages": MESSAGES}

    def plain(self):
        models = [model.id for model in self.client.models.list()]
        return models, self.client.messages.create(**self.message).content[0].text

    def stream(self):
        def start():
            for event in self.client.messages.create(**self.message, stream=True):
                yield event.type
        return WATCH.read(start)

    def upload(self):
        return self.client.beta.files.upload(file=("f.txt", io.BytesIO(FILE), "text/plain")).id

    def poll(self):
        batch = self.client.messages.batches.create(requests=[{"custom_id": "a", "params": self.message}])
        return until(lambda state: state.processing_status == "ended", lambda: self.client.messages.batches.retrieve(batch.id))

    def results(self):
        return [result.custom_id for result in self.client.messages.batches.results("ended")]

    def redirect(self):
        return self.client.beta.files.download("file_1").text()


class Replicate:
    def __init__(self):
        import replicate
        import httpx
        # The library has a transport of its own, so that its HTTP library does not read the variables.
        changed = {"transport": httpx.HTTPTransport(proxy=os.environ["HTTPS_PROXY"])} if CHANGED else {}
        self.client = replicate.Client(api_token="placeholder", **changed)
        self.client.poll_interval = 0.01

    def plain(self):
        return self.client.models.get("owner/model").name

    def stream(self):
        def start():
            for event in self.client.stream("owner/model", input={"prompt": "Grüße"}):
                yield str(event)
        return WATCH.read(start)

    def upload(self):
        return self.client.files.create(io.BytesIO(FILE)).id

    def poll(self):
        prediction = self.client.predictions.get("other")
        prediction.wait()
        return prediction.status

    def callback(self):
        first = self.client.predictions.create(version="v1", input={"prompt": "Grüße"})
        return first.id, self.client.models.predictions.create(model=("owner", "model"), input={"prompt": "Grüße"}).id


class Fal:
    def __init__(self):
        import fal_client
        self.fal = fal_client
        self.client = fal_client.SyncClient(key="placeholder")

    def plain(self):
        return self.client.run("fal-ai/runs", {"prompt": "Grüße"})

    def stream(self):
        return WATCH.read(lambda: self.client.stream("fal-ai/runs", {"prompt": "Grüße"}))

    def poll(self):
        handle = self.client.get_handle("fal-ai/model", "other")
        return handle.get(interval=0.01)

    def handle(self):
        return self.client.submit("fal-ai/model", {"prompt": "Grüße"}).get(interval=0.01)

    def callback(self):
        return self.client.submit("fal-ai/model", {"prompt": "Grüße"}).request_id


class AssemblyAi:
    def __init__(self):
        import assemblyai
        self.aai = assemblyai
        assemblyai.settings.api_key = "placeholder"
        assemblyai.settings.polling_interval = 0.01
        self.transcriber = assemblyai.Transcriber()

    def plain(self):
        return len(self.transcriber.list_transcripts().transcripts)

    def upload(self):
        return bool(self.transcriber.upload_file(io.BytesIO(FILE)))

    def poll(self):
        return self.aai.Transcript.get_by_id("other").status.value

    def callback(self):
        return self.transcriber.submit("https://example.com/a.mp3").id


class ElevenLabs:
    def __init__(self):
        from elevenlabs.client import ElevenLabs
        self.client = ElevenLabs(api_key="placeholder", base_url=BASE or None)

    def plain(self):
        models = [model.model_id for model in self.client.models.list()]
        return models, len(b"".join(self.client.text_to_speech.convert("voice", text="Grüße")))

    def stream(self):
        def start():
            for piece in self.client.text_to_speech.stream("voice", text="Grüße"):
                yield len(piece)
        return WATCH.read(start)

    def upload(self):
        return self.client.speech_to_text.convert(model_id="scribe_v1", file=io.BytesIO(FILE)).text

    def poll(self):
        return until(lambda state: state.status == "dubbed", lambda: self.client.dubbing.get("dubbing1"))

    def redirect(self):
        return b"".join(self.client.history.get_audio("item")).decode()


class A2a:
    binding, path = "HTTP+JSON", ""

    def __init__(self):
        import a2a.client as client
        import a2a.types as types
        import httpx
        self.library, self.types = client, types
        self.loop = asyncio.new_event_loop()
        self.http = httpx.AsyncClient(timeout=30)

    def close(self):
        self.loop.run_until_complete(self.http.aclose())

    async def connect(self, streaming):
        """Fetches the agent card. Callgate has replaced its URLs."""
        card = await self.library.A2ACardResolver(self.http, BASE).get_agent_card()
        config = self.library.ClientConfig(streaming=streaming, httpx_client=self.http,
                                           supported_protocol_bindings=[self.binding])
        return self.library.ClientFactory(config).create(card)

    def message(self):
        part = self.types.Part(text="Grüße")
        message = self.types.Message(message_id="message1", role=self.types.Role.ROLE_USER, parts=[part])
        return self.types.SendMessageRequest(message=message)

    async def send(self):
        client = await self.connect(False)
        return [str(answer.task.id) async for answer in client.send_message(self.message())]

    def plain(self):
        return self.loop.run_until_complete(self.name())

    async def name(self):
        card = await self.library.A2ACardResolver(self.http, BASE).get_agent_card()
        return card.name

    def callback(self):
        return self.loop.run_until_complete(self.send())

    def stream(self):
        async def run():
            client = await self.connect(True)
            async def start():
                async for answer in client.send_message(self.message()):
                    yield str(answer.WhichOneof("payload"))
            return await WATCH.read_async(start)
        return self.loop.run_until_complete(run())

    def poll(self):
        async def run():
            client = await self.connect(False)
            while True:
                task = await client.get_task(self.types.GetTaskRequest(id="task1"))
                if task.status.state == self.types.TaskState.TASK_STATE_COMPLETED:
                    return "done"
        return self.loop.run_until_complete(run())


class A2aRpc(A2a):
    binding = "JSONRPC"


CLIENTS = {"requests": Requests, "httpx": Httpx, "urllib3": Urllib3, "aiohttp": Aiohttp, "websockets": Websockets,
           "curl": Curl, "git": Git, "openai": OpenAi, "anthropic": Anthropic, "replicate": Replicate, "fal-client": Fal,
           "assemblyai": AssemblyAi, "elevenlabs": ElevenLabs, "a2a-sdk": A2a, "a2a-sdk-rpc": A2aRpc}


def main():
    name, *steps = sys.argv[1:]
    client = CLIENTS[name]()
    for step in steps:
        control(f"/step/{step}")
        WATCH.seconds = []
        try:
            outcome = {"got": getattr(client, step)()}
        except Exception as error:      # the test reports every error of a library
            outcome = {"error": f"{type(error).__name__}: {error}"[:400]}
        print(json.dumps({"step": step, "seconds": WATCH.seconds, **outcome}), flush=True)
    if hasattr(client, "close"):
        client.close()


if __name__ == "__main__":
    main()
