"""A provider that answers as the real APIs do, as far as the client libraries need it, and records every request with
the bytes that arrived. It has two ports: one for requests, and one that the clients do not know, for the test itself."""

import base64
import dataclasses
import gzip
import hashlib
import json
import re
import socket
import socketserver
import ssl
import threading

WAIT_MAX = 20           # seconds after which the second event is sent, although the client has not seen the first one
EVENTS = 3
AUDIO = [bytes([n]) * 4096 for n in range(EVENTS)]


@dataclasses.dataclass
class Request:
    """A request as it arrived."""
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    chunked: bool = False
    step: str = ""
    host: str = ""
    scheme: str = "http"

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def path(self):
        return self.target.split("?")[0]

    @property
    def own(self):
        """The address under which this request reached the provider. Its absolute URLs begin with it."""
        return f"{self.scheme}://{self.host}"

    def json(self):
        return json.loads(self.body)


class Provider:
    """A server for one client."""

    def __init__(self, api, tls=None, is_late=False):
        """`is_late`: the client returns an event only when the next one arrives, so that no stream waits for it."""
        self.answers, self.wait = APIS[api], 0 if is_late else WAIT_MAX
        self.step, self.seen, self.lock = "", threading.Event(), threading.Lock()
        self.forget()
        self.servers = []
        self.port = self.listen(self.serve)
        self.control_port = self.listen(self.serve_control)
        self.proxy_port = None
        self.tls_port = self.listen(self.serve, tls) if tls else None

    def open_proxy(self, tls):
        """Opens a port that is a proxy. It takes the names of all hosts for those of the provider."""
        self.proxy_port = self.listen(lambda stream, _: self.serve_proxy(stream, tls))

    def serve_proxy(self, stream, tls):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += (byte := stream.recv(1))
            if not byte:
                return
        if not head.startswith(b"CONNECT "):
            return stream.sendall(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n")
        stream.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        self.serve(tls.wrap_socket(stream, server_side=True), "https")

    def forget(self):
        """Begins a new run: forgets the requests, and the states that the clients asked for."""
        self.requests, self.polls = [], {}
        self.held_back = {}     # whether the client received the first event of a stream too late, for each step

    def listen(self, serve, tls=None):
        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                stream = self.request
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    if tls:
                        stream = tls.wrap_socket(stream, server_side=True)
                    serve(stream, "https" if tls else "http")
                except (OSError, ValueError, ssl.SSLError):
                    pass        # the client closed the connection

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads, allow_reuse_address, request_queue_size = True, True, 64

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.servers.append(server)
        return server.server_address[1]

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def serve(self, stream, scheme):
        reader = stream.makefile("rb")
        while (request := read(reader, stream)):
            request.step, request.scheme = self.step, scheme
            with self.lock:
                self.requests.append(request)
            if (request.header("upgrade") or "").lower() == "websocket":
                return echo_websocket(request, reader, stream)
            self.answer(request, stream)

    def serve_control(self, stream, _):
        """Answers the test: `/step/NAME` begins a step, and `/seen` says that the client has received the first event."""
        reader = stream.makefile("rb")
        while (request := read(reader, stream)):
            name = request.path.removeprefix("/step/")
            if request.path == "/seen":
                self.seen.set()
            else:
                self.step = name
            stream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def answer(self, request, stream):
        status, headers, body = self.respond(request)
        lines = [f"HTTP/1.1 {status} Answer"] + [f"{name}: {value}" for name, value in headers.items()]
        if isinstance(body, bytes):
            head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode()
            stream.sendall(head + (b"" if request.method == "HEAD" else body))
            return
        self.seen.clear()
        stream.sendall("\r\n".join([*lines, "transfer-encoding: chunked", "", ""]).encode())
        for number, piece in enumerate(body):
            if number == 1:
                # A stream that was late once is not waited for again.
                self.held_back[request.step] = self.held_back.get(request.step, False) or not self.seen.wait(self.wait)
            stream.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        stream.sendall(b"0\r\n\r\n")

    def polled(self, name):
        """Returns how often the state of `name` was asked for."""
        with self.lock:
            self.polls[name] = self.polls.get(name, 0) + 1
            return self.polls[name]

    def respond(self, request):
        for method, pattern, answer in self.answers:
            if request.method == method and (found := re.fullmatch(pattern, request.path)):
                return answer(self, request, *found.groups())
        return 404, {"content-type": "application/json"}, json.dumps({"error": {"message": f"no {request.target}"}}).encode()


def read(reader, stream):
    """Reads one request. Returns None at the end of the connection."""
    first = reader.readline()
    if not first.strip():
        return None
    method, target, _ = first.decode("latin-1").split()
    headers = []
    while (line := reader.readline().rstrip(b"\r\n")):
        name, value = line.decode("latin-1").split(":", 1)
        headers.append((name, value.strip()))
    request = Request(method, target, headers)
    request.host = request.header("host") or ""
    if (request.header("expect") or "").lower() == "100-continue":
        stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if (request.header("transfer-encoding") or "").lower() == "chunked":
        request.chunked = True
        while (size := int(reader.readline().split(b";")[0], 16)):
            request.body += reader.read(size)
            reader.readline()
        while reader.readline().strip():
            pass
    else:
        request.body = reader.read(int(request.header("content-length") or 0))
    return request


def echo_websocket(request, reader, stream):
    """Accepts a WebSocket (RFC 6455), and sends back each message until the client closes the connection."""
    key = request.header("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    head = ["HTTP/1.1 101 Switching Protocols", "connection: Upgrade", "upgrade: websocket", f"sec-websocket-accept: {accept}"]
    stream.sendall("\r\n".join([*head, "", ""]).encode())
    first = 0
    while first & 15 != 8:          # the opcode of a Close frame
        first, length = reader.read(2)
        longer = reader.read({126: 2, 127: 8}.get(length & 127, 0))
        size = int.from_bytes(longer, "big") if longer else length & 127
        mask = reader.read(4) * (size // 4 + 1)
        data = int.from_bytes(reader.read(size), "big") ^ int.from_bytes(mask[:size], "big")
        plain = data.to_bytes(size, "big")
        request.body += plain
        # The same frame without the mask.
        stream.sendall(bytes([first, length & 127]) + longer + plain)


# What the APIs answer.

def as_json(value, status=200, **headers):
    return status, {"content-type": "application/json", **headers}, json.dumps(value).encode()


def events(*data, names=()):
    def pieces():
        for number, value in enumerate(data):
            name = f"event: {names[number]}\n" if names else ""
            yield f"{name}data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode()
    return 200, {"content-type": "text/event-stream", "cache-control": "no-store"}, pieces()


def generic_models(_, request):
    body = json.dumps({"models": ["one", "two"], "query": request.target.partition("?")[2]}).encode()
    if "gzip" in (request.header("accept-encoding") or ""):
        return 200, {"content-type": "application/json", "content-encoding": "gzip"}, gzip.compress(body, mtime=0)
    return 200, {"content-type": "application/json"}, body


def generic_echo(_, request):
    return as_json({"method": request.method, "bytes": len(request.body)})


def generic_state(provider, _, name):
    return as_json({"id": name, "status": "succeeded" if provider.polled(name) % 3 == 0 else "processing"})


def git_references(_, request):
    """Answers `git ls-remote` (gitprotocol-http)."""
    lines = [b"# service=git-upload-pack\n", None, b"1" * 40 + b" HEAD\0agent=test\n", b"1" * 40 + b" refs/heads/main\n", None]
    body = b"".join(b"0000" if line is None else b"%04x" % (len(line) + 4) + line for line in lines)
    return 200, {"content-type": "application/x-git-upload-pack-advertisement"}, body


def moved(provider, request):
    return 302, {"location": f"{request.own}/v1/models?page=2"}, b""


def moved_relative(provider, request):
    return 307, {"location": "/v1/echo?moved=1"}, b""


def chat(_, request):
    def chunk(number):
        delta = {"role": "assistant", "content": f"word {number} "}
        return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    if request.json().get("stream"):
        return events(*(chunk(number) for number in range(EVENTS)), "[DONE]")
    message = {"role": "assistant", "content": "words"}
    return as_json({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def openai_models(_, request):
    return as_json({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "o"}]})


def openai_file(_, request):
    return as_json({"id": "file-1", "object": "file", "bytes": len(request.body), "created_at": 1, "filename": "f",
                    "purpose": "batch", "status": "processed"})


def openai_response(provider, _, name="resp_1"):
    done = name and provider.polled(name) % 3 == 0
    return as_json({"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "output": [], "tools": [],
                    "parallel_tool_calls": True, "tool_choice": "auto", "status": "completed" if done else "in_progress"})


def openai_content(_, request, name):
    return 302, {"location": f"{request.own}/v1/content/{name}"}, b""


def content(_, request, name):
    return 200, {"content-type": "application/octet-stream"}, b"content of " + name.encode()


def anthropic_models(_, request):
    return as_json({"data": [{"id": "m", "type": "model", "display_name": "M", "created_at": "2026-01-01T00:00:00Z"}],
                    "has_more": False, "first_id": "m", "last_id": "m"})


def anthropic_message(_, request):
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
               "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
    if not request.json().get("stream"):
        return as_json({**message, "content": [{"type": "text", "text": "words"}], "stop_reason": "end_turn"})
    data = [{"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "words"}},
            {"type": "content_block_stop", "index": 0}, {"type": "message_stop"}]
    return events(*data, names=[value["type"] for value in data])


def anthropic_batch(provider, request, name="msgbatch_1"):
    ended = name == "ended" or request.method == "GET" and provider.polled(name) % 3 == 0
    return as_json({"id": name, "type": "message_batch", "processing_status": "ended" if ended else "in_progress",
                    "request_counts": {"processing": 0, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 0},
                    "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z", "ended_at": None,
                    "archived_at": None, "cancel_initiated_at": None,
                    "results_url": f"{request.own}/v1/messages/batches/{name}/results" if ended else None})


def anthropic_results(_, request, name):
    return 200, {"content-type": "application/x-jsonl"}, b'{"custom_id":"a","result":{"type":"canceled"}}\n'


def anthropic_file(_, request):
    return as_json({"id": "file_1", "type": "file", "filename": "f", "mime_type": "text/plain", "size_bytes": 1,
                    "created_at": "2026-01-01T00:00:00Z", "downloadable": True})


def anthropic_content(_, request, name):
    return 302, {"location": f"{request.own}/v1/content/{name}"}, b""


def replicate_model(_, request, owner, name):
    return as_json({"url": "", "owner": owner, "name": name, "description": None, "visibility": "public",
                    "run_count": 1, "github_url": None, "paper_url": None, "license_url": None,
                    "cover_image_url": None, "default_example": None, "latest_version": None})


def replicate_prediction(provider, request, *parts):
    name = parts[-1] if request.method == "GET" else "prediction1"
    status = "starting"
    if request.method == "GET":
        status = "succeeded" if provider.polled(name) % 3 == 0 else "processing"
    urls = {"get": f"{request.own}/v1/predictions/{name}", "cancel": f"{request.own}/v1/predictions/{name}/cancel",
            "stream": f"{request.own}/streams/{name}"}
    return as_json({"id": name, "model": "owner/model", "version": "v1", "input": {}, "output": None, "logs": "",
                    "error": None, "status": status, "created_at": "2026-01-01T00:00:00Z", "urls": urls}, 201)


def replicate_stream(_, request, name):
    return events("words", "more words", "", names=["output", "output", "done"])


def replicate_file(_, request):
    return as_json({"id": "file1", "name": "f", "content_type": "text/plain", "size": 1, "etag": "e", "checksums": {},
                    "metadata": {}, "created_at": "2026-01-01T00:00:00Z", "expires_at": None, "urls": {}}, 201)


def fal_submit(provider, request, owner, app):
    base = f"{request.own}/{owner}/{app}/requests/request1"
    return as_json({"request_id": "request1", "response_url": base, "status_url": f"{base}/status",
                    "cancel_url": f"{base}/cancel", "queue_position": 0})


def fal_status(provider, request, name):
    if provider.polled(name) % 3:
        return as_json({"status": "IN_PROGRESS", "logs": []}, 202)
    return as_json({"status": "COMPLETED", "logs": [], "metrics": {}})


def fal_run(_, request):
    return as_json({"image": "words"})


def fal_stream(_, request):
    return events(*({"step": number} for number in range(EVENTS)))


def fal_result(_, request, name):
    return as_json({"image": "words"})


def assemblyai_transcript(provider, request, name="transcript1"):
    status = "queued"
    if request.method == "GET":
        status = "completed" if provider.polled(name) % 3 == 0 else "processing"
    return as_json({"id": name, "status": status, "audio_url": "https://example.com/a.mp3", "text": "words",
                    "language_model": "m", "acoustic_model": "m"})


def assemblyai_list(_, request):
    details = {"limit": 1, "result_count": 0, "current_url": "", "prev_url": None, "next_url": None}
    return as_json({"page_details": details, "transcripts": []})


def assemblyai_upload(_, request):
    return as_json({"upload_url": f"{request.own}/upload/1"})


def elevenlabs_models(_, request):
    return as_json([{"model_id": "m", "name": "M"}])


def elevenlabs_speech(_, request, voice):
    return 200, {"content-type": "audio/mpeg"}, b"".join(AUDIO)


def elevenlabs_stream(_, request, voice):
    return 200, {"content-type": "audio/mpeg"}, iter(AUDIO)


def elevenlabs_transcript(_, request):
    return as_json({"language_code": "en", "language_probability": 1.0, "text": "words", "words": []})


def elevenlabs_dubbing(provider, request, name):
    status = "dubbed" if provider.polled(name) % 3 == 0 else "dubbing"
    return as_json({"dubbing_id": name, "name": "n", "status": status, "target_languages": ["en"],
                    "created_at": "2026-01-01T00:00:00Z"})


def elevenlabs_audio(_, request, name):
    return 302, {"location": f"{request.own}/v1/content/{name}"}, b""


def a2a_card(_, request):
    def interface(binding, path):
        return {"url": f"{request.own}{path}", "protocolBinding": binding, "protocolVersion": "1.0"}
    return as_json({"name": "agent", "description": "an agent", "version": "1", "skills": [],
                    "supportedInterfaces": [interface("JSONRPC", "/rpc"), interface("HTTP+JSON", "")],
                    "capabilities": {"streaming": True, "pushNotifications": True},
                    "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"]})


def a2a_task(state):
    return {"id": "task1", "contextId": "context1", "status": {"state": state}}


def a2a_updates():
    states = ["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"]
    yield {"task": a2a_task(states[0])}
    for state in states[1:]:
        yield {"statusUpdate": {"taskId": "task1", "contextId": "context1", "status": {"state": state}}}


def a2a_state(provider):
    return a2a_task("TASK_STATE_COMPLETED" if provider.polled("task1") % 3 == 0 else "TASK_STATE_WORKING")


def a2a_rpc(provider, request):
    call = request.json()
    def result(value):
        return {"jsonrpc": "2.0", "id": call["id"], "result": value}
    if call["method"] == "SendStreamingMessage":
        return events(*(result(update) for update in a2a_updates()))
    if call["method"] == "GetTask":
        return as_json(result(a2a_state(provider)))
    return as_json(result({"task": a2a_task("TASK_STATE_SUBMITTED")}))


def a2a_send(_, request):
    return as_json({"task": a2a_task("TASK_STATE_SUBMITTED")})


def a2a_stream(_, request):
    return events(*a2a_updates())


def a2a_get(provider, request):
    return as_json(a2a_state(provider))


APIS = {
    "service": [
        ("GET", "/v1/models", generic_models),
        ("POST", "/v1/echo", generic_echo),
        ("PUT", "/v1/echo", generic_echo),
        ("POST", "/v1/upload", generic_echo),
        ("POST", "/v1/jobs", lambda provider, request: as_json({"id": "job1"}, 201)),
        ("GET", "/v1/jobs/([^/]+)", generic_state),
        ("GET", "/v1/repository/info/refs", git_references),
        ("GET", "/v1/moved", moved),
        ("POST", "/v1/moved", moved_relative),
        ("POST", "/v1/chat/completions", chat),
    ],
    "openai": [
        ("GET", "/v1/models", openai_models),
        ("POST", "/v1/chat/completions", chat),
        ("POST", "/v1/files", openai_file),
        ("POST", "/v1/responses", openai_response),
        ("GET", "/v1/responses/([^/]+)", openai_response),
        ("GET", "/v1/files/([^/]+)/content", openai_content),
        ("GET", "/v1/content/([^/]+)", content),
    ],
    "anthropic": [
        ("GET", "/v1/models", anthropic_models),
        ("POST", "/v1/messages", anthropic_message),
        ("POST", "/v1/messages/batches", anthropic_batch),
        ("GET", "/v1/messages/batches/([^/]+)", anthropic_batch),
        ("GET", "/v1/messages/batches/([^/]+)/results", anthropic_results),
        ("POST", "/v1/files", anthropic_file),
        ("GET", "/v1/files/([^/]+)/content", anthropic_content),
        ("GET", "/v1/content/([^/]+)", content),
    ],
    "replicate": [
        ("GET", "/v1/models/([^/]+)/([^/]+)", replicate_model),
        ("POST", "/v1/predictions", replicate_prediction),
        ("POST", "/v1/models/([^/]+)/([^/]+)/predictions", replicate_prediction),
        ("GET", "/v1/predictions/([^/]+)", replicate_prediction),
        ("GET", "/streams/([^/]+)", replicate_stream),
        ("POST", "/v1/files", replicate_file),
    ],
    "fal": [
        ("POST", "/fal-ai/runs", fal_run),
        ("POST", "/fal-ai/runs/stream", fal_stream),
        ("POST", "/([^/]+)/([^/]+)", fal_submit),
        ("GET", "/[^/]+/[^/]+/requests/([^/]+)/status", fal_status),
        ("GET", "/[^/]+/[^/]+/requests/([^/]+)", fal_result),
    ],
    "assemblyai": [
        ("GET", "/v2/transcript", assemblyai_list),
        ("POST", "/v2/transcript", assemblyai_transcript),
        ("GET", "/v2/transcript/([^/]+)", assemblyai_transcript),
        ("POST", "/v2/upload", assemblyai_upload),
    ],
    "elevenlabs": [
        ("GET", "/v1/models", elevenlabs_models),
        ("POST", "/v1/text-to-speech/([^/]+)", elevenlabs_speech),
        ("POST", "/v1/text-to-speech/([^/]+)/stream", elevenlabs_stream),
        ("POST", "/v1/speech-to-text", elevenlabs_transcript),
        ("GET", "/v1/dubbing/([^/]+)", elevenlabs_dubbing),
        ("GET", "/v1/history/([^/]+)/audio", elevenlabs_audio),
        ("GET", "/v1/content/([^/]+)", content),
    ],
    "a2a": [
        ("GET", "/.well-known/agent-card.json", a2a_card),
        ("POST", "/rpc", a2a_rpc),
        ("POST", "/message:send", a2a_send),
        ("POST", "/message:stream", a2a_stream),
        ("GET", "/tasks/task1", a2a_get),
    ],
}
