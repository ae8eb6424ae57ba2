#!/usr/bin/env python3
"""A toy agent that knows nothing of Callgate. It sends requests to a configured URL, accepts POST requests, and answers
a question at the URL in the question.

Reads one JSON command a line: {url, body}; prints one JSON line per event: {answer}, {got}, {replied}.
"""

import http.client
import http.server
import json
import sys
import threading
import urllib.parse


def say(**line):
    print(json.dumps(line), flush=True)


def post(url, text):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("POST", parts.path, text.encode(), {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        identity = {name: value for name, value in self.headers.items() if name.startswith("callgate-")}
        say(got=self.path, body=body, identity=identity)
        answer = json.dumps({"received": True}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        if body.get("interaction_type") == "clarification_needed":
            threading.Thread(target=self.reply, args=(body["action_endpoint"],)).start()

    @staticmethod
    def reply(url):
        status, _ = post(url, json.dumps({"choice": "mid-range"}))
        say(replied=url, status=status)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Agent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for line in sys.stdin:
        command = json.loads(line)
        status, text = post(command["url"], command["body"])
        say(answer=status, text=text)
