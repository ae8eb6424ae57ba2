#!/usr/bin/env python3
"""Makes docs/admin-page.png, the screenshot of the admin page in README.md. It plays the quick start of README.md with one
more forged callback, and opens the row of that callback. Needs the ports of config/quickstart.yaml.

Usage: admin_page.py --callgate FILE --browser COMMAND [--picture FILE]
"""

import argparse
import base64
import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from browser import Browser

ROOT = pathlib.Path(__file__).resolve().parents[2]
INGRESS, EGRESS, ADMIN = "http://127.0.0.1:8080", "http://127.0.0.1:8081", "http://127.0.0.1:9901"
CALLBACK = "/webhooks/analysis-status/doc-7f3a"
ENVIRONMENT = {
    **os.environ,
    "CALLGATE_TOKEN_KEY": secrets.token_hex(32),
    "AI_ANALYSIS_SECRET": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
}


def wait_for(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def post(url, body, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()} | {"content-type": "application/json"}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=10).read()
    except urllib.error.HTTPError as error:
        return error.read()


def play():
    post(EGRESS + "/ai-analysis/analyze-document", {"document_id": "doc-7f3a"})
    post(INGRESS + CALLBACK, {"status": "completed"})
    minted = json.loads(post(ADMIN + "/callbacks", {"route": "analysis-status", "params": {"document_id": "doc-7f3a"}}))
    post(minted["callback_url"], {"status": "completed"}, authorization=f"Bearer {minted['callback_token']}", webhook_id="msg_1",
         webhook_timestamp=str(int(time.time())), webhook_signature="v1," + base64.b64encode(bytes(32)).decode())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--callgate", required=True)
    parser.add_argument("--browser", required=True)
    parser.add_argument("--picture", default=ROOT / "docs/admin-page.png")
    args = parser.parse_args()
    commands = ([sys.executable, ROOT / "tests/demo/quickstart.py", "127.0.0.1:8000", "127.0.0.1:8090"],
                [args.callgate, "run", "-c", ROOT / "config/quickstart.yaml"])
    processes = [subprocess.Popen(list(map(str, command)), env=ENVIRONMENT, stdout=subprocess.DEVNULL) for command in commands]
    browser = None
    try:
        for port in (8000, 8090, 8080, 8081, 9901):
            wait_for(port)
        play()
        browser = Browser(args.browser)
        browser.size(1280, 640)
        browser.light("light")
        browser.open(ADMIN)
        forged = "[...document.querySelectorAll('#rows tr[data-n]')].find((row) => row.innerText.includes('signature_mismatch'))"
        browser.until(f"!!{forged}", "the forged callback")
        browser.ask(f"{forged}.click()")
        browser.until("!document.getElementById('details').hidden", "its details")
        time.sleep(0.3)
        browser.picture(args.picture)
    finally:
        if browser:
            browser.close()
        for process in processes:
            process.terminate()


if __name__ == "__main__":
    main()
