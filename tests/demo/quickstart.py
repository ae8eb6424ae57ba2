#!/usr/bin/env python3
"""The agent and the provider of the quick start in README.md, in one process.

The agent prints every request that it gets. The provider answers a request by calling back twice: first it reports
progress, then the result. It signs its callbacks itself, as Standard Webhooks describes, with AI_ANALYSIS_SECRET.

Usage: quickstart.py AGENT_ADDRESS PROVIDER_ADDRESS
"""

import base64
import hashlib
import hmac
import http.server
import json
import os
import sys
import threading
import time
import urllib.request


def sign(body):
    event, now = f"msg_{os.urandom(8).hex()}", str(int(time.time()))
    key = base64.b64decode(os.environ["AI_ANALYSIS_SECRET"].removeprefix("whsec_"))
    mac = hmac.digest(key, f"{event}.{now}.".encode() + body, hashlib.sha256)
    return {"webhook-id": event, "webhook-timestamp": now, "webhook-signature": "v1," + base64.b64encode(mac).decode()}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        answer = json.dumps(self.take(body)).encode() + b"\n"
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Agent(Handler):
    def take(self, body):
        print(f"agent: POST {self.path} {body.decode()}", flush=True)
        return {"received": True}


class Provider(Handler):
    def take(self, body):
        asked = json.loads(body)
        print(f"provider: callback_url is {asked['callback_url']}", flush=True)
        for report in ({"status": "processing", "progress": 50}, {"status": "completed", "progress": 100}):
            callback = json.dumps(report).encode()
            headers = {"content-type": "application/json", "authorization": f"Bearer {asked['callback_token']}", **sign(callback)}
            urllib.request.urlopen(urllib.request.Request(asked["callback_url"], callback, headers), timeout=10).read()
        return {"accepted": asked["document_id"]}


def serve(address, handler):
    host, port = address.rsplit(":", 1)
    server = http.server.ThreadingHTTPServer((host, int(port)), handler)
    threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    serve(sys.argv[1], Agent)
    serve(sys.argv[2], Provider)
