#!/usr/bin/env python3
"""A toy provider: calls back over HTTP, signing as its real counterpart would, with no help from Callgate.

Reads one JSON command a line: {scheme, url, token?, body, signed_body?, from?, sent?}; prints {status, sent}.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import sys
import time
import urllib.parse


def standard_webhooks(body):
    event, now = f"msg_{os.urandom(8).hex()}", str(int(time.time()))
    key = base64.b64decode(os.environ["AI_ANALYSIS_SECRET"].removeprefix("whsec_"))
    mac = hmac.digest(key, f"{event}.{now}.".encode() + body, hashlib.sha256)
    return {"webhook-id": event, "webhook-timestamp": now, "webhook-signature": "v1," + base64.b64encode(mac).decode()}


def booking(body):
    now = str(int(time.time()))
    mac = hmac.new(os.environ["BOOKING_SECRET"].encode(), now.encode() + b"." + body, hashlib.sha256)
    return {"x-booking-signature": f"t={now},v1={mac.hexdigest()}"}


def wrong_signature(body):
    return {**standard_webhooks(body), "webhook-signature": "v1," + base64.b64encode(os.urandom(32)).decode()}


SCHEMES = {"standard-webhooks": standard_webhooks, "booking": booking, "wrong-signature": wrong_signature}


def call_back(command):
    body = json.dumps(command["body"]).encode()
    signed = json.dumps(command.get("signed_body", command["body"])).encode()
    headers = {"content-type": "application/json", **SCHEMES[command["scheme"]](signed)}
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
    return {"status": answer.status, "sent": sent}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(call_back(json.loads(line))), flush=True)
