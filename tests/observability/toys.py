"""The servers and clients around Callgate in the incidents: an agent that can be stopped, a provider, an address list that
can fail, and a client that calls back. All of them use free ports of the loopback network."""

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import threading
import time


class Served:
    """An HTTP server in this process, which can be stopped and come back on the same port."""

    def __init__(self, answer):
        self.answer, self.port, self.server = answer, 0, None
        self.start()

    def start(self):
        answer = self.answer

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                length = int(self.headers.get("content-length", 0))
                status, body = answer(self.path, self.rfile.read(length))
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                # A kept connection would stay open after the server has stopped.
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def request(port, method, path, body=b"", headers=None):
    """Sends one request on a new connection, and returns the status and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def signed(secret, body, event=None, at=None):
    """Returns the signature headers of Standard Webhooks."""
    event, at = event or f"msg_{os.urandom(8).hex()}", str(int(at or time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{event}.{at}.".encode() + body, hashlib.sha256)
    return {"webhook-id": event, "webhook-timestamp": at, "webhook-signature": "v1," + base64.b64encode(mac).decode()}


class Caller:
    """Sends callbacks as the provider does, or with a fault."""

    def __init__(self, ingress, secret):
        self.ingress, self.secret = ingress, secret

    def call(self, path, token, report, secret=None, event=None, at=None):
        body = report if isinstance(report, bytes) else json.dumps(report).encode()
        headers = {"content-type": "application/json", **signed(secret or self.secret, body, event, at)}
        if token:
            headers["authorization"] = f"Bearer {token}"
        return request(self.ingress, "POST", path, body, headers)[0]
