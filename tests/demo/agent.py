#!/usr/bin/env python3
"""A toy agent: answers every POST with what it saw, and knows nothing of Callgate."""

import http.server
import json
import sys


class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        identity = {name: value for name, value in self.headers.items() if name.startswith("callgate-")}
        seen = {"path": self.path, "body": json.loads(body), **identity}
        print(json.dumps(seen), flush=True)
        answer = json.dumps({"received": True}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Agent).serve_forever()
