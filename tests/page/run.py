#!/usr/bin/env python3
"""Tests the admin page in a real browser, with a real Callgate, real requests, and a user who uses the keyboard. Exits
with 0 only if all checks pass. Saves screenshots in a folder, and prints its name."""

import argparse
import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time

from browser import Browser

ROWS = 10_000
FILTER_MS_MAX = 100
SECRET = secrets.token_bytes(32)
TOKEN = "the-token-of-the-page-" + secrets.token_hex(8)
MARKUP = "<img src=x onerror=window.hacked=1>"
ENVIRONMENT = {
    **os.environ,
    "TOKEN_KEY": secrets.token_hex(32),
    "WHSEC": "whsec_" + base64.b64encode(SECRET).decode(),
    "ADMIN_TOKEN": TOKEN,
    "STATIC": "the static secret of a route",
}
CONFIG = """
public_url: https://agent.example.com
listen:
  ingress:
    - {{ address: 127.0.0.1:{ingress} }}
    - {{ address: 127.0.0.1:0, tls: {{ certificate: {folder}/tls.crt, key: {folder}/tls.key }} }}
  admin: {{ address: 127.0.0.1:{admin}, recent: {rows}{more} }}
  egress: {{ address: 127.0.0.1:{egress} }}
agent: {{ address: 127.0.0.1:{agent} }}
client_address: {{ header: x-forwarded-for, trusted_proxies: [127.0.0.1] }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
providers:
  ai-analysis: {{ preset: standard-webhooks, secrets: [ {{ env: WHSEC }} ] }}
  camera: {{ allow: [203.0.113.0/24, {{ url: "file:{folder}/list" }}, {{ url: "http://127.0.0.1:1/list" }}] }}
routes:
  - name: analysis-status
    path: /webhooks/analysis-status/{{document_id}}
    provider: ai-analysis
    token: {{ kind: callback, from: [bearer] }}
    forward: /internal/agents/analysis/{{document_id}}/status
    deliver: {deliver}
    interaction: {{ status: /status, progress: /progress, done: [completed], deadline: 1h }}
  - name: open
    path: /open/{{id}}
    open: true
    methods: [GET, POST]
    forward: /in/{{id}}
  - name: new-camera
    path: /camera/{{id}}
    mode: observe
    provider: camera
    token: {{ kind: static, header: x-camera-key, secrets: [ {{ env: STATIC }} ] }}
    forward: /camera/{{id}}
egress:
  - name: analyze
    path: /ai/analyze
    target: http://127.0.0.1:{agent}/a/long/path/of/a/provider/with/many/segments/analyze
    inject: {{ route: analysis-status, params: {{ document_id: /document_id }}, url: /callback_url, token: /callback_token }}
  - {{ name: down, path: /down, methods: [GET], target: "http://127.0.0.1:1/" }}
"""


REPLICAS = """
shutdown: {{ delay: 0s, grace: 1s }}
replicas:
  address: 127.0.0.1:{port}
  advertise: 127.0.0.1
  secrets: [ {{ env: TOKEN_KEY }} ]
  mint: true
  discover: ["127.0.0.1:{other}"]
"""


INBOX = """
store: {{ kind: file, path: {folder}/inbox-{number} }}
inbox: {{ backoff: {{ first: 1h, most: 1h }} }}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        # No connection outlives the listener of an agent that goes away.
        self.send_header("connection", "close")
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


class Gate:
    """A Callgate with a toy agent, and methods that send requests to it."""

    def __init__(self, callgate, folder, rows=1000, more="", sections="", deliver="now"):
        self.ingress, self.admin, self.egress = free_port(), free_port(), free_port()
        self.agent = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agent)
        self.agent.status = 200
        threading.Thread(target=self.agent.serve_forever, daemon=True).start()
        path = pathlib.Path(folder) / f"callgate-{self.admin}.yaml"
        self.callgate = callgate
        self.config = CONFIG.format(ingress=self.ingress, admin=self.admin, egress=self.egress, folder=folder, agent=self.agent.server_port, rows=rows, more=more, deliver=deliver) + sections
        self.path = path
        path.write_text(self.config)
        self.process = subprocess.Popen([callgate, "run", "-c", path], env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                                        stderr=open(pathlib.Path(folder) / "callgate.log", "a"))
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.admin), timeout=1).close()
                break
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("Callgate did not start: " + (pathlib.Path(folder) / "callgate.log").read_text())
                time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.admin}/"

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.agent.shutdown()

    def send(self, bytes_):
        """Sends one raw request, and returns the status of the response."""
        with socket.create_connection(("127.0.0.1", self.ingress), timeout=20) as stream:
            stream.sendall(bytes_)
            return int(stream.recv(4096)[9:12])

    def get(self, path, *headers):
        lines = "".join(f"{header}\r\n" for header in headers)
        return self.send(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{lines}\r\n".encode())

    def mint(self, document):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=20)
        body = json.dumps({"route": "analysis-status", "params": {"document_id": document}})
        connection.request("POST", "/callbacks", body, {"content-type": "application/json"})
        return json.loads(connection.getresponse().read())

    def call_back(self, minted, event, report, key=SECRET):
        body, now = json.dumps(report), str(int(time.time()))
        digest = hmac.new(key, f"{event}.{now}.{body}".encode(), hashlib.sha256).digest()
        path = minted["callback_url"].removeprefix("https://agent.example.com")
        return self.send((
            f"POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {minted['callback_token']}\r\n"
            f"webhook-id: {event}\r\nwebhook-timestamp: {now}\r\nwebhook-signature: v1,{base64.b64encode(digest).decode()}\r\n"
            f"X-Forwarded-For: 203.0.113.{len(event)}\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode())

    def ask_provider(self, method, path, body=None):
        """Sends a request of the agent, and returns the status of the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.egress, timeout=20)
        connection.request(method, path, json.dumps(body) if body else None, {"content-type": "application/json"} if body else {})
        return connection.getresponse().status

    def flood(self, count):
        """Sends many requests over kept connections, one after the other."""
        with socket.create_connection(("127.0.0.1", self.ingress), timeout=60) as stream:
            reader = stream.makefile("rb")
            for number in range(count):
                stream.sendall(f"GET /open/{number} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                head = []
                while (line := reader.readline()) not in (b"\r\n", b""):
                    head.append(line.lower())
                length = [int(line.split(b":")[1]) for line in head if line.startswith(b"content-length")]
                reader.read(length[0] if length else 0)


ROW_TEXT = "[...document.querySelectorAll('#rows tr[data-n]')].map(tr => tr.innerText.replaceAll('\\n', ' ').replaceAll('\\t', ' '))"
FOCUSED = "document.activeElement.closest('tr') && document.activeElement.closest('tr').innerText"


class Look:
    def __init__(self, browser, pictures):
        self.browser, self.pictures, self.wrong = browser, pictures, []

    def check(self, what, right, seen=""):
        print(("ok    " if right else "WRONG ") + what + ("" if right else f": {seen}"), flush=True)
        if not right:
            self.wrong.append(what)

    def picture(self, name):
        for scheme in ("light", "dark"):
            self.browser.light(scheme)
            time.sleep(0.2)
            self.browser.picture(os.path.join(self.pictures, f"{name}-{scheme}.png"))

    def quiet(self, what, gates):
        """Checks that the page sent no request to another host and reported no error."""
        elsewhere = [url for _, url in self.browser.requests if not url.startswith((*(gate.url for gate in gates), "data:", "about:"))]
        self.check(f"{what}: nothing is asked for elsewhere", not elsewhere, elsewhere)
        self.check(f"{what}: no errors in the console", not self.browser.complaints, self.browser.complaints)
        self.browser.requests.clear()
        self.browser.complaints.clear()


def traffic(gate):
    """Sends requests with each verdict, and requests that try to insert markup into the page."""
    minted = gate.mint("doc-7f3a")
    odd = gate.mint("doc-odd")
    statuses = [
        gate.call_back(minted, "msg_1", {"status": "processing", "progress": 25}),
        gate.call_back(minted, "msg_1", {"status": "processing", "progress": 25}),
        gate.call_back(minted, "msg_forged", {"status": "completed"}, key=b"guessed"),
        gate.call_back(odd, "msg_odd", {"status": MARKUP, "progress": 50}),
        gate.call_back({**minted, "callback_url": "/webhooks/analysis-status/doc-else"}, "msg_2", {}),
        gate.get("/open/1?callback_token=eyJsecret&code=hunter2"),
        gate.get("/nope/" + "%3Cimg%20src=x%20onerror=window.hacked=1%3E"),
        gate.get("/nope/'\"><script>window.hacked=1</script>".replace("<", "%3C").replace(">", "%3E").replace('"', "%22")),
        gate.get("/open/2", f"X-Forwarded-For: {MARKUP}", f"User-Agent: {MARKUP}"),
        gate.get("/camera/7", f"X-Camera-Key: {MARKUP}", "X-Forwarded-For: 198.51.100.4"),
        gate.send(f"GET /{MARKUP} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()),
    ]
    assert statuses == [200, 200, 401, 200, 401, 200, 404, 404, 403, 200, 400], statuses
    return minted


def asks_again(look, gate):
    """Checks that the copied text works as input of `callgate sign` and `callgate explain`."""
    command, skeleton = look.browser.ask("[...document.querySelectorAll('#details pre')].map((pre) => pre.textContent)")
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "callgate.yaml").write_text(gate.config)
        pathlib.Path(folder, "callback.http").write_text(skeleton)
        path = f"{pathlib.Path(gate.callgate).resolve().parent}:{os.environ['PATH']}"
        done = subprocess.run(["sh", "-ec", command], cwd=folder, env={**ENVIRONMENT, "PATH": path}, capture_output=True, text=True)
        # The token is missing in the copied request. So the denial must be about the token, and not about an earlier
        # check.
        look.check("the command that is copied asks again", done.returncode == 1 and "deny: token_malformed" in done.stdout, done)


def requests(look, gate):
    browser = look.browser
    browser.open(gate.url)
    browser.until("document.querySelectorAll('#rows tr[data-n]').length >= 11", "eleven rows")
    rows = browser.ask(ROW_TEXT)
    look.check("a row says what happened", any("deny" in row and "signature_mismatch" in row and "401" in row for row in rows), rows)
    look.check("no token and no query is shown", "eyJ" not in browser.ask("document.body.innerText") and "hunter2" not in str(rows), rows)
    look.check("the observing route is loud", "new-camera" in browser.ask("document.querySelector('#notes').innerText"))
    look.picture("requests")

    gate.get("/open/live")
    browser.until("document.querySelector('#rows tr[data-n]').innerText.includes('/open/live')", "a row that appears by itself", 6)
    look.check("a row appears by itself", True)

    browser.press("/")
    look.check("the slash goes to the search", browser.ask("document.activeElement.id") == "text")
    browser.type("signature_mismatch")
    browser.until("document.querySelectorAll('#rows tr[data-n]').length === 1", "one row is left")
    look.check("the search filters", "signature_mismatch" in browser.ask(ROW_TEXT)[0])
    for _ in range(20):
        browser.press("Tab")
        if browser.ask("document.activeElement.id") == "scroller":
            break
    browser.press("ArrowDown")
    look.check("an arrow key goes to a row", "signature_mismatch" in (browser.ask(FOCUSED) or ""), browser.ask("document.activeElement.outerHTML"))
    browser.press("Enter")
    browser.until("!document.getElementById('details').hidden", "details")
    details = browser.ask("document.getElementById('details').innerText")
    for part in ("deny: signature_mismatch", "token", "pass", "callgate sign -c callgate.yaml --provider ai-analysis",
                 "callgate explain -c callgate.yaml --request signed.http --peer 127.0.0.1 --at 20", "Authorization: Bearer TOKEN-LEFT-OUT",
                 "POST /webhooks/analysis-status/doc-7f3a HTTP/1.1", "Host: agent.example.com"):
        look.check(f"the details say {part!r}", part in details, details)
    look.check("the details have the focus", browser.ask("document.activeElement.id") == "details-title")
    look.picture("details")
    asks_again(look, gate)
    browser.press("Escape")
    look.check("Escape closes them and goes back to the row", browser.ask("document.getElementById('details').hidden") and "signature_mismatch" in (browser.ask(FOCUSED) or ""))

    browser.ask("document.querySelector('#filters button[type=reset]').click()")
    browser.until("document.querySelectorAll('#rows tr[data-n]').length >= 12", "all rows again")
    browser.ask("document.getElementById('scroller').focus()")
    browser.press("ArrowDown", "ArrowDown", "ArrowDown")
    before = browser.ask(FOCUSED)
    gate.get("/open/while-reading")
    browser.until("document.getElementById('rows').innerText.includes('while-reading')", "another row", 6)
    look.check("who is at a row stays there when others come", browser.ask(FOCUSED) == before, (before, browser.ask(FOCUSED)))

    browser.ask("document.getElementById('pause').click()")
    gate.get("/open/unseen")
    time.sleep(3)
    look.check("paused, nothing changes", not browser.ask("document.getElementById('rows').innerText.includes('unseen')"))
    browser.ask("document.getElementById('pause').click()")
    browser.until("document.getElementById('rows').innerText.includes('unseen')", "a row after the pause")
    look.check("and what came meanwhile is there afterwards", True)


def empty(look, gate):
    """Checks what the page shows before the first request: a command that works."""
    browser = look.browser
    browser.open(gate.url)
    browser.until("document.getElementById('empty').innerText.includes('curl')", "a command to try")
    command = browser.ask("document.querySelector('#empty pre').textContent")
    look.check("the command to try names a route", command == "curl -i -X POST https://agent.example.com/webhooks/analysis-status/test", command)
    look.picture("empty")
    browser.ask("location.hash = '#interactions'")
    browser.until("document.getElementById('interactions-empty').innerText.includes('callgate mint')", "a command that begins an interaction")
    command = browser.ask("document.querySelector('#interactions-empty pre').textContent")
    folder = gate.path.parent
    (folder / "callgate.yaml").write_text(gate.config)
    path = f"{pathlib.Path(gate.callgate).resolve().parent}:{os.environ['PATH']}"
    done = subprocess.run(["sh", "-ec", command], cwd=folder, env={**ENVIRONMENT, "PATH": path}, capture_output=True, text=True)
    look.check("the command begins an interaction", done.returncode == 0 and "int_" in done.stdout, done)
    browser.until("document.querySelectorAll('#interactions tr').length === 1", "the interaction", 10)


def captures(look, gate):
    """Captures a request from the page, and asks again with it."""
    browser = look.browser
    browser.ask("location.hash = '#requests'")
    forged = "[...document.querySelectorAll('#rows tr[data-n]')].find((row) => row.innerText.includes('signature_mismatch'))"
    browser.until(f"!!{forged}", "the forged callback")
    browser.ask(f"{forged}.click()")
    browser.until("!!document.getElementById('capture')", "the button")
    browser.ask("document.getElementById('capture').click()")
    browser.until("document.getElementById('notes').innerText.includes('Capturing signature_mismatch on analysis-status: 0 of 5')", "the note about the capture")
    count = browser.ask("document.querySelectorAll('#rows tr[data-n]').length")
    minted = gate.mint("doc-captured")
    look.check("the forged callback is denied", gate.call_back(minted, "msg_again", {"status": "completed"}, key=b"guessed") == 401)
    browser.until(f"document.querySelectorAll('#rows tr[data-n]').length === {count + 1}", "the row of the captured request", 10)
    browser.until("document.getElementById('notes').innerText.includes('1 of 5')", "the captured request", 20)
    browser.ask("document.querySelector('#rows tr[data-n]').click()")
    browser.until("document.getElementById('again').dataset.captured === 'yes' && document.getElementById('again').innerText.includes('redacted')", "the captured request", 20)
    command, file = browser.ask("[...document.querySelectorAll('#details pre')].map((pre) => pre.textContent)")
    look.check("the captured request has no token", minted["callback_token"] not in file and "authorization: Bearer [redacted: pass]" in file, file)
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "callgate.yaml").write_text(gate.config)
        pathlib.Path(folder, command.split()[-1]).write_text(file)
        path = f"{pathlib.Path(gate.callgate).resolve().parent}:{os.environ['PATH']}"
        done = subprocess.run(["sh", "-ec", command], cwd=folder, env={**ENVIRONMENT, "PATH": path}, capture_output=True, text=True)
        look.check("the captured request asks again", done.returncode == 1 and "deny: signature_mismatch" in done.stdout and "taken over" in done.stdout, done)
    look.picture("captured")
    browser.press("Escape")


def reasons(look):
    """Selects a reason by its count."""
    browser = look.browser
    chip = "document.querySelector('#tally button[data-reason=signature_mismatch]')"
    before = browser.ask("document.querySelectorAll('#rows tr[data-n]').length")
    number = int(browser.ask(f"{chip}.querySelector('b').textContent"))
    browser.ask(f"{chip}.click()")
    browser.until(f"document.querySelectorAll('#rows tr[data-n]').length === {number}", "the rows of this reason")
    look.check("a count selects its reason", browser.ask(f"{chip}.ariaPressed") == "true" and browser.ask("document.getElementById('reason').value") == "signature_mismatch")
    browser.ask(f"{chip}.click()")
    browser.until(f"document.querySelectorAll('#rows tr[data-n]').length === {before}", "all rows again")
    look.check("a second click selects all", browser.ask(f"{chip}.ariaPressed") == "false")


def one_interaction(look, gate):
    """Searches, sorts, and opens an interaction with the keyboard."""
    browser = look.browser
    ids = "[...document.querySelectorAll('#interactions tr')].map((row) => row.cells[0].innerText)"
    older = gate.mint("doc-first")
    time.sleep(0.01)
    newer = gate.mint("doc-second")
    look.check("a callback arrives", gate.call_back(older, "msg_of_first", {"status": "processing", "progress": 10}) == 200)
    browser.ask("location.hash = '#interactions'")
    browser.until(f"{ids}.includes('{newer['interaction']}')", "the new interaction", 10)
    shown = browser.ask(ids)
    look.check("the newest interaction is the first", shown.index(newer["interaction"]) < shown.index(older["interaction"]), shown)
    browser.ask("{ const order = document.getElementById('order'); order.value = 'id'; order.dispatchEvent(new Event('input')); }")
    browser.until(f"JSON.stringify({ids}) === JSON.stringify({ids}.toSorted())", "the order of ids")
    browser.press("/")
    look.check("the slash goes to the search of interactions", browser.ask("document.activeElement.id") == "interaction-text")
    browser.type("DOC-FIRST")
    browser.until(f"document.querySelectorAll('#interactions tr').length === 1 && {ids}[0] === '{older['interaction']}'", "the one that matches", 10)
    browser.ask(f"document.querySelector('button[data-open=\"{older['interaction']}\"]').focus()")
    browser.press("Enter")
    browser.until("!document.getElementById('interaction-details').hidden", "its details")
    details = browser.ask("document.getElementById('interaction-details').innerText")
    for part in ("progressing", "document_id=doc-first", "msg_of_first", "1 callback", "began", "token expires", "Questions"):
        look.check(f"the details of an interaction say {part!r}", part in details, details)
    look.check("they have the focus", browser.ask("document.activeElement.id") == "interaction-title")
    look.picture("interaction")
    browser.press("Escape")
    look.check("Escape goes back to the interaction", browser.ask("document.getElementById('interaction-details').hidden && document.activeElement.dataset.open") == older["interaction"])
    browser.ask("document.getElementById('interaction-text').value = ''; document.getElementById('interaction-text').dispatchEvent(new Event('input'))")
    browser.until(f"{ids}.includes('{newer['interaction']}')", "all of them again", 10)
    for minted in (older, newer):
        connection = http.client.HTTPConnection("127.0.0.1", gate.admin, timeout=20)
        connection.request("DELETE", "/callbacks/" + minted["interaction"])
        connection.getresponse().read()


def egress(look, gate):
    browser = look.browser
    look.check("the agent reaches a provider", gate.ask_provider("POST", "/ai/analyze", {"document_id": "doc-e"}) == 200)
    look.check("and not the one that is down", gate.ask_provider("GET", "/down") == 502)
    browser.ask("location.hash = '#egress'")
    rules = "Object.fromEntries([...document.querySelectorAll('#rules tr')].map((row) => [row.cells[0].innerText, row.innerText]))"
    browser.until(f"({rules})['down'] && ({rules})['down'].includes('provider_unreachable 1')", "the request that failed", 10)
    shown = browser.ask(rules)
    look.check("a rule shows its callback and its requests", "analysis-status" in shown["analyze"] and "1" in shown["analyze"] and "ok" in shown["analyze"], shown)
    look.check("a rule whose provider is down is failing", "failing" in shown["down"], shown)
    look.check("a long URL is shortened in the middle", "…" in shown["analyze"] and "analyze" in shown["analyze"].split("…")[1], shown)
    health = browser.ask("document.getElementById('health').innerText")
    look.check("providers have counts per reason", "ai-analysis" in health and "signature_mismatch" in health and "method_not_allowed 1" in health, health)
    look.picture("egress")


def interactions(look, gate, minted):
    browser = look.browser
    browser.ask("location.hash = '#interactions'")
    browser.until("document.querySelectorAll('#interactions tr').length === 2", "two interactions")
    text = browser.ask("document.getElementById('interactions').innerText")
    look.check("an interaction is shown with its progress", minted["interaction"] in text and "25 %" in text, text)
    look.check("markup from outside is text", MARKUP in text and browser.ask("window.hacked") is None and browser.ask("document.images.length") == 0, text)
    look.picture("interactions")
    browser.ask(f"document.querySelector('button[data-id=\"{minted['interaction']}\"]').click()")
    browser.until("document.getElementById('ask').open", "the question")
    look.check("the safe answer has the focus", browser.ask("document.activeElement.id") == "ask-no")
    look.picture("revoke")
    browser.ask("document.getElementById('ask-yes').click()")
    browser.until("document.querySelectorAll('#interactions tr').length === 1", "it is gone from those that are not over")
    look.check("an interaction is revoked", gate.call_back(minted, "msg_9", {}) == 410)
    browser.ask("location.hash = '#setup'")
    browser.until("!document.getElementById('view-setup').hidden && document.querySelectorAll('#routes tr').length === 3", "the setup")
    gate.path.write_text(gate.config.replace("forward: /in/{id}", "frward: /in/{id}"))
    browser.until("document.getElementById('notes').innerText.includes('did you mean `forward`')", "the refused configuration")
    notes = browser.ask("document.getElementById('notes').innerText")
    look.check("a certificate that expires soon is reported", "tls.crt expires in 2 days" in notes, notes)
    look.check("a feed that was never fetched is reported", "Not fetched yet: http://127.0.0.1:1/list" in notes, notes)
    setup = browser.ask("document.getElementById('view-setup').innerText")
    for part in ("analysis-status", "standard-webhooks", "OBSERVES", "generation", "/camera/{id}", "2 addresses", "nothing yet", "tls.crt", "unknown key"):
        look.check(f"the setup says {part!r}", part in setup, setup)
    look.picture("setup")
    browser.size(700, 900)
    browser.ask("location.hash = '#requests'")
    time.sleep(0.5)
    look.picture("narrow")
    browser.size(400, 800)
    for view in ("requests", "interactions", "inbox", "egress", "setup"):
        browser.ask(f"location.hash = '#{view}'")
        time.sleep(0.5)
        fits = browser.ask("document.documentElement.scrollWidth <= 400")
        look.check(f"the {view} fit into 400 px", fits, browser.ask("document.documentElement.scrollWidth"))
        look.picture(f"400-{view}")
    browser.ask("location.hash = '#requests'")
    browser.size(1440, 900)


def accessible(look):
    """Checks accessibility: every control has a name, and text has enough contrast in both colour schemes."""
    names = look.browser.ask("""[...document.querySelectorAll('button, input, select, a, table, [role=region], [role=group]')]
        .filter((node) => !(node.ariaLabel || node.labels && node.labels.length || node.innerText && node.tagName !== 'TABLE' || node.getAttribute('aria-labelledby') || node.caption
            || node.closest('[hidden]'))).map((node) => node.outerHTML)""")
    look.check("everything has a name", not names, names)
    contrast = """(() => {
        const parse = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
        const ground = (node) => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
        const poor = new Set();
        for (const node of document.querySelectorAll('body *')) {
            const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
            if (!own || !node.checkVisibility() || node.disabled || node.className === 'skip') continue;
            const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
            const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
            if (ratio < 4.5) poor.add(`${node.tagName}.${node.className} ${node.textContent.trim().slice(0, 20)} ${ratio.toFixed(1)}`);
        }
        return [...poor];
    })()"""
    for view in ("requests", "interactions", "inbox", "egress", "setup"):
        look.browser.ask(f"location.hash = '#{view}'")
        time.sleep(0.4)
        for scheme in ("light", "dark"):
            look.browser.light(scheme)
            time.sleep(0.1)
            poor = look.browser.ask(contrast)
            look.check(f"contrast of {view}, {scheme}", not poor, poor)
    look.browser.ask("location.hash = '#requests'")


def many(look, gate):
    browser = look.browser
    threads = [threading.Thread(target=gate.flood, args=(ROWS // 4,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gate.get("/nope/needle")
    browser.open(gate.url)
    browser.until(f"document.getElementById('count').textContent === '{ROWS:,} requests'", f"{ROWS} requests", 60)
    drawn = browser.ask("document.querySelectorAll('#rows tr').length")
    look.check(f"{ROWS} requests, few of them drawn ({drawn})", drawn < 100, drawn)
    measure = """(() => {
        const text = document.getElementById('text'), times = [];
        for (const words of ['needle', 'open 99', 'nothing at all', '', 'allow 127', 'needle']) {
            const began = performance.now();
            text.value = words;
            text.dispatchEvent(new Event('input'));
            document.body.offsetHeight;
            times.push(performance.now() - began);
        }
        return times;
    })()"""
    times = browser.ask(measure)
    look.check(f"filtering {ROWS} takes {max(times):.1f} ms at most", max(times) < FILTER_MS_MAX, times)
    look.check("and finds the one", browser.ask("document.getElementById('count').textContent").startswith("1 of"))
    browser.ask("document.querySelector('#filters button[type=reset]').click()")
    time.sleep(0.3)
    browser.ask("document.getElementById('scroller').focus()")
    browser.press("End")
    look.check("the End key goes to the oldest", "/open/" in (browser.ask(FOCUSED) or ""), browser.ask(FOCUSED))
    look.check("which is the last row", browser.ask("document.activeElement.closest('tr').ariaRowIndex") == str(ROWS + 1))
    look.picture("many")


def with_token(look, gate):
    browser = look.browser
    browser.open(gate.url)
    browser.until("!document.getElementById('token-form').hidden", "the question for the token")
    look.picture("token")
    browser.complaints.clear()
    browser.type("wrong")
    browser.press("Enter")
    browser.until("document.getElementById('token-why').textContent.includes('is wrong')", "the message about a wrong token")
    browser.complaints.clear()
    browser.type(TOKEN)
    browser.press("Enter")
    browser.until("document.getElementById('link').textContent === 'live'", "live with the token")
    look.check("the token opens the page", browser.ask("document.getElementById('token-form').hidden"))
    kept = browser.ask("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, document.documentElement.outerHTML])")
    look.check("and is kept nowhere", TOKEN not in kept)


def inbox(look, callgate, folder, gates):
    """Checks the view of the inbox: counts, messages, their details, and what a user does with the keyboard and the mouse."""
    browser = look.browser
    sections = [INBOX.format(folder=folder, number=number) for number in range(2)]
    gates.append(gate := Gate(callgate, folder, more=", actions: true, bodies: true", sections=sections[0], deliver="inbox"))
    browser.size(1440, 900)
    browser.open(gate.url + "#inbox")
    browser.until("document.getElementById('inbox-empty').checkVisibility() && document.querySelectorAll('#inbox-routes tr').length === 1", "an empty inbox")
    text = browser.ask("document.getElementById('view-inbox').innerText")
    look.check("an empty inbox says so", "Every kept callback was delivered" in text and "circuit closed" in text, text)
    look.picture("inbox-empty")

    gate.agent.status = 410
    first = gate.mint("doc-a")
    look.check("a callback is kept", [gate.call_back(first, f"msg_{n}", {"status": MARKUP, "progress": n}) for n in range(3)] == [202] * 3)
    browser.until("document.querySelectorAll('#messages tr .danger').length === 3 && document.getElementById('messages').innerText.includes('dead: gone')", "three dead messages", 30)
    look.check("the navigation says how many are dead", browser.ask("document.getElementById('inbox-dead').innerText") == "3 dead")
    gate.agent.status = 500
    second = gate.mint("doc-b")
    gate.call_back(second, "msg_b", {"status": "processing"})
    browser.until("document.getElementById('messages').innerText.includes('due')", "a message that is due", 30)
    rows = browser.ask("[...document.querySelectorAll('#messages tr')].map((row) => row.innerText)")
    look.check("a row says what the agent answered", "410" in rows[0] and "500" in rows[3] and "in " in rows[3], rows)
    look.picture("inbox")

    browser.ask("document.querySelector('#inbox-routes button[data-count$=dead]').click()")
    browser.until("document.querySelectorAll('#messages tr').length === 3 && document.getElementById('inbox-state').value === 'dead'", "the dead ones")
    look.check("a count shows its messages", True)
    browser.press("/")
    look.check("the slash goes to the search of the inbox", browser.ask("document.activeElement.id") == "inbox-text")
    browser.ask("document.getElementById('inbox-state').value = ''")
    browser.type(second["interaction"])
    browser.until("document.querySelectorAll('#messages tr').length === 1", "the message of an interaction")
    browser.ask("document.getElementById('inbox-text').value = ''")
    browser.ask("document.getElementById('inbox-text').dispatchEvent(new Event('input'))")
    browser.until("document.querySelectorAll('#messages tr').length === 4", "all of them")
    browser.ask("document.querySelector('#messages button').focus()")
    browser.press("Enter")
    browser.until("!document.getElementById('message-details').hidden", "details of a message")
    details = browser.ask("document.getElementById('message-details').innerText")
    for part in ("gone: The agent answered 410.", "POST /internal/agents/analysis/doc-a/status", "msg_0", MARKUP, first["interaction"]):
        look.check(f"the details of a message say {part!r}", part in details, details)
    look.check("they contain no token and no signature", first["callback_token"] not in details and "webhook-signature" not in details, details)
    look.check("markup in a body is text", browser.ask("window.hacked") is None and browser.ask("document.images.length") == 0)
    look.check("the details have the focus", browser.ask("document.activeElement.id") == "message-title")
    look.picture("message")
    browser.ask("document.getElementById('message-interaction').click()")
    browser.until("document.querySelectorAll('#interactions tr').length === 1 && !document.getElementById('view-interactions').hidden", "its interaction")
    browser.ask("document.getElementById('interaction-text').value = ''")
    browser.ask("location.hash = '#inbox'")
    browser.until("!document.getElementById('view-inbox').hidden", "back")
    browser.press("Escape")
    look.check("Escape closes the details of a message", browser.ask("document.getElementById('message-details').hidden"))

    dead = browser.ask("document.querySelector('#messages tr').dataset.id")
    gate.agent.status = 200
    browser.ask(f"document.querySelector('button[data-key=\"Replay{dead}\"]').click()")
    browser.until("document.querySelectorAll('#messages tr').length === 3", "the replayed message is delivered", 30)
    look.check("a message is replayed", dead not in browser.ask("document.getElementById('messages').innerText"))
    dropped = browser.ask("document.querySelector('#messages tr').dataset.id")
    drop = f"document.querySelector('button[data-key=\"Drop{dropped}\"]')"
    browser.ask(f"{drop}.click()")
    browser.until("document.getElementById('ask').open", "the question")
    question = browser.ask("document.getElementById('ask').innerText")
    look.check("the question names the message", dropped in question and "Drop this message?" in question, question)
    look.check("the safe answer has the focus", browser.ask("document.activeElement.id") == "ask-no")
    look.picture("drop")
    browser.press("Escape")
    look.check("Escape drops nothing", browser.ask("document.querySelectorAll('#messages tr').length") == 3)
    browser.ask(f"{drop}.click()")
    browser.ask("document.getElementById('ask-yes').click()")
    browser.until("document.querySelectorAll('#messages tr').length === 2", "it is dropped")
    browser.ask("document.getElementById('inbox-replay').click()")
    browser.until("document.getElementById('ask').open", "the question")
    browser.ask("document.getElementById('ask-yes').click()")
    browser.until("document.querySelectorAll('#messages tr').length === 1 && document.getElementById('inbox-dead').hidden", "no dead message is left", 30)
    look.check("all dead messages are replayed", True)

    gate.agent.server_close()
    gate.agent.shutdown()
    gate.call_back(gate.mint("doc-c"), "msg_c", {"status": "processing"})
    browser.until("document.getElementById('notes').innerText.includes('Deliveries of the inbox pause')", "the open circuit", 30)
    look.check("an agent that is away is reported", "circuit open" in browser.ask("document.getElementById('inbox-routes').innerText"))
    look.picture("inbox-paused")
    browser.size(400, 800)
    time.sleep(0.3)
    look.check("the inbox with messages fits into 400 px", browser.ask("document.documentElement.scrollWidth <= 400"))
    look.picture("400-inbox-full")
    browser.size(1440, 900)
    accessible(look)

    gates.append(reader := Gate(callgate, folder, sections=sections[1], deliver="inbox"))
    reader.agent.status = 410
    reader.call_back(reader.mint("doc-r"), "msg_r", {"status": "hidden"})
    browser.open(reader.url + "#inbox")
    browser.until("document.querySelectorAll('#messages tr').length === 1", "one message")
    browser.ask("document.querySelector('#messages button').click()")
    browser.until("!document.getElementById('message-details').hidden", "its details")
    page = browser.ask("document.getElementById('view-inbox').innerText")
    look.check("without bodies, the body is not shown", "hidden" not in page and "listen.admin.bodies" in page, page)
    look.check("without actions, there are no buttons that change anything", browser.ask("!document.querySelector('#view-inbox .danger') && document.getElementById('inbox-replay').hidden"))


def replicas(look, callgate, folder, gates):
    """Checks what the page shows of two members: both of them, and the interactions of both."""
    browser, ports = look.browser, (free_port(), free_port())
    addresses = [f"127.0.0.1:{port}" for port in ports]
    one, two = (Gate(callgate, folder, more=", actions: true", sections=REPLICAS.format(port=port, other=other))
                for port, other in (ports, ports[::-1]))
    gates += [one, two]
    browser.open(one.url + "#setup")
    card = "document.getElementById('members-card').innerText"
    browser.until(f"document.querySelectorAll('#members tr').length === 2 && {card}.includes('present')", "two members")
    rows = browser.ask("[...document.querySelectorAll('#members tr')].map((row) => row.innerText)")
    look.check("this member is marked", addresses[0] in rows[0] and "this one" in rows[0] and "this one" not in rows[1], rows)
    look.check("the other member is present", addresses[1] in rows[1] and "present" in rows[1] and "20" in rows[1], rows)
    look.picture("members")

    ours, theirs = one.mint("doc-ours"), two.mint("doc-theirs")
    look.check("a callback is handed over", one.call_back(theirs, "msg_1", {"status": "processing", "progress": 40}) == 200)
    browser.ask("location.hash = '#interactions'")
    browser.until("document.querySelectorAll('#interactions tr').length === 2", "the interactions of both")
    shown = browser.ask("Object.fromEntries([...document.querySelectorAll('#interactions tr')].map((row) => [row.cells[0].innerText, row.innerText]))")
    look.check("an interaction of this member says so", f"{addresses[0]} (this one)" in shown[ours["interaction"]], shown)
    other = shown[theirs["interaction"]]
    look.check("an interaction of the other member names it", addresses[1] in other and "40 %" in other and "this one" not in other, shown)
    look.check("the table fits into the window", browser.ask("document.querySelector('#view-interactions .scroller').scrollWidth <= document.querySelector('#view-interactions .scroller').clientWidth"))
    look.picture("interactions-of-members")
    browser.ask("location.hash = '#requests'")
    row = "[...document.querySelectorAll('#rows tr[data-n]')].find((row) => row.innerText.includes('handed_over'))"
    browser.until(f"!!{row}", "the callback that was handed over")
    browser.ask(f"{row}.click()")
    browser.until("!document.getElementById('details').hidden", "its details")
    details = browser.ask("document.getElementById('details').innerText")
    look.check("the details name the owner", "handed over to" in details and addresses[1] in details, details)
    browser.press("Escape")
    accessible(look)

    browser.ask("location.hash = '#interactions'")
    browser.ask(f"document.querySelector('button[data-id=\"{theirs['interaction']}\"]').click()")
    browser.until("document.getElementById('ask').open", "the question")
    browser.ask("document.getElementById('ask-yes').click()")
    browser.until("document.querySelectorAll('#interactions tr').length === 1", "it is revoked")
    look.check("an interaction of the other member is revoked", two.call_back(theirs, "msg_2", {}) == 410)

    two.process.kill()
    browser.until("document.getElementById('interactions-missing').checkVisibility()", "what is missing", 60)
    missing = browser.ask("document.getElementById('interactions-missing').innerText")
    look.check("the page says whose interactions are missing", addresses[1] in missing, missing)
    browser.until("document.getElementById('notes').innerText.includes('did not answer')", "a warning", 60)
    notes = browser.ask("document.getElementById('notes').innerText")
    look.check("a warning names the member that does not answer", f"1 replica that did not answer: {addresses[1]}" in notes, notes)
    look.picture("member-missing")
    browser.ask(f"document.querySelector('button[data-id=\"{ours['interaction']}\"]').click()")
    browser.until("document.getElementById('ask').open", "the question")
    browser.ask("document.getElementById('ask-yes').click()")
    browser.until("document.getElementById('notes').innerText.includes('do not know of it yet')", "the incomplete revocation", 60)
    notes = browser.ask("document.getElementById('notes').innerText")
    look.check("an incomplete revocation is reported", f"do not know of it yet: {addresses[1]}. Send DELETE /callbacks/{ours['interaction']}" in notes, notes)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--callgate", required=True)
    parser.add_argument("--browser", required=True)
    parser.add_argument("--pictures", help="where pictures go; a temporary folder otherwise")
    args = parser.parse_args()
    pictures = args.pictures or tempfile.mkdtemp(prefix="callgate-page-pictures-")
    os.makedirs(pictures, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "list").write_text("198.51.100.0/25\n192.0.2.0/24\n")
        subprocess.run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=t -keyout tls.key -out tls.crt".split(),
                       cwd=folder, check=True, stderr=subprocess.DEVNULL)
        browser = Browser(args.browser)
        look = Look(browser, pictures)
        gates = []
        try:
            gates.append(gate := Gate(args.callgate, folder, more=", actions: true"))
            browser.size(1440, 900)
            gates.append(fresh := Gate(args.callgate, folder))
            empty(look, fresh)
            minted = traffic(gate)
            requests(look, gate)
            reasons(look)
            nothing = browser.ask("document.getElementById('members-card').hidden && document.getElementById('member-head').hidden")
            asked = [url for _, url in browser.requests if "/ui/api/members" in url]
            look.check("without the section, there is nothing about members", nothing and not asked, asked)
            interactions(look, gate, minted)
            egress(look, gate)
            captures(look, gate)
            one_interaction(look, gate)
            accessible(look)
            look.quiet("a page with everything", gates)
            gates.append(gate := Gate(args.callgate, folder, rows=ROWS))
            many(look, gate)
            look.quiet("a page with many", gates)
            gates.append(gate := Gate(args.callgate, folder, more=", token: { env: ADMIN_TOKEN }"))
            with_token(look, gate)
            look.quiet("a page with a token", gates)
            inbox(look, args.callgate, folder, gates)
            look.quiet("a page with an inbox", gates)
            replicas(look, args.callgate, folder, gates)
            look.quiet("a page of one of two members", gates)
        finally:
            browser.close()
            for gate in gates:
                gate.close()
    print(f"pictures: {pictures}")
    if look.wrong:
        sys.exit(f"{len(look.wrong)} wrong: " + "; ".join(look.wrong))


if __name__ == "__main__":
    main()
