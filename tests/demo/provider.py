#!/usr/bin/env python3
"""Two toy providers in one process. They accept requests and call back over HTTP. They sign as real providers do, with
code that is independent of Callgate.

Reads one JSON command a line: {scheme, url, token?, body, signed_body?, from?, event?}; prints {called, sent} for it,
and {took, headers, body} for every request that they receive.
"""

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import sys
import threading
import time
import urllib.parse


def say(**line):
    print(json.dumps(line), flush=True)


def standard_webhooks(body, event):
    event, now = event or f"msg_{os.urandom(8).hex()}", str(int(time.time()))
    key = base64.b64decode(os.environ["AI_ANALYSIS_SECRET"].removeprefix("whsec_"))
    mac = hmac.digest(key, f"{event}.{now}.".encode() + body, hashlib.sha256)
    return {"webhook-id": event, "webhook-timestamp": now, "webhook-signature": "v1," + base64.b64encode(mac).decode()}


def booking(body, _):
    now = str(int(time.time()))
    mac = hmac.new(os.environ["BOOKING_SECRET"].encode(), now.encode() + b"." + body, hashlib.sha256)
    return {"x-booking-signature": f"t={now},v1={mac.hexdigest()}"}


def wrong_signature(body, event):
    return {**standard_webhooks(body, event), "webhook-signature": "v1," + base64.b64encode(os.urandom(32)).decode()}


SCHEMES = {"standard-webhooks": standard_webhooks, "booking": booking, "wrong-signature": wrong_signature}


def call_back(command):
    body = json.dumps(command["body"]).encode()
    signed = json.dumps(command.get("signed_body", command["body"])).encode()
    headers = {"content-type": "application/json", **SCHEMES[command["scheme"]](signed, command.get("event"))}
    if "token" in command:
        headers["authorization"] = f"Bearer {command['token']}"
    url = urllib.parse.urlsplit(command["url"])
    target = url.path + (f"?{url.query}" if url.query else "")
    connection = http.client.HTTPConnection(url.hostname, url.port, source_address=(command.get("from", "127.0.0.1"), 0))
    connection.request("POST", target, body, headers)
    answer = connection.getresponse()
    answer.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    sent = f"POST {target} HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-length: {len(body)}\r\n{head}\r\n{body.decode()}"
    say(called=answer.status, sent=sent)


class Provider(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        say(took=self.path, headers={name.lower(): value for name, value in self.headers.items()}, body=body)
        answer = json.dumps({"id": "job-1", "status": "accepted"}).encode()
        self.send_response(202)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for line in sys.stdin:
        call_back(json.loads(line))
