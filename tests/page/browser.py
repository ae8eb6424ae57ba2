"""Controls a headless Chromium over its debugging pipe, without a library and without a port."""

import base64
import fcntl
import json
import os
import shutil
import signal
import tempfile
import threading
import time

PATIENCE = 30
KEYS = {
    "ArrowDown": ("ArrowDown", 40), "ArrowUp": ("ArrowUp", 38), "End": ("End", 35), "Home": ("Home", 36),
    "Enter": ("Enter", 13), "Escape": ("Escape", 27), "Tab": ("Tab", 9), "/": ("Slash", 191),
    "PageDown": ("PageDown", 34),
}


class Browser:
    """One page of one browser. Its requests and error messages are recorded."""

    def __init__(self, command):
        self.profile = tempfile.mkdtemp(prefix="callgate-page-")
        commands_read, commands = os.pipe()
        answers, answers_write = os.pipe()
        # The browser reads from descriptor 3 and writes to 4, so the pipes must first have other numbers.
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (commands_read, answers_write)]
        arguments = [command, "--headless", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu",
                     "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
                     "--disable-component-update", "--disable-extensions", "--window-size=1440,900",
                     f"--user-data-dir={self.profile}", "about:blank"]
        quiet = os.open(os.path.join(self.profile, "stderr"), os.O_WRONLY | os.O_CREAT)
        self.pid = os.posix_spawn(command, arguments, os.environ, file_actions=[
            (os.POSIX_SPAWN_DUP2, theirs[0], 3), (os.POSIX_SPAWN_DUP2, theirs[1], 4),
            (os.POSIX_SPAWN_DUP2, quiet, 1), (os.POSIX_SPAWN_DUP2, quiet, 2)], setsid=True)
        for fd in (commands_read, answers_write, quiet, *theirs):
            os.close(fd)
        self.commands, self.answers = os.fdopen(commands, "wb", 0), os.fdopen(answers, "rb", 0)
        self.results, self.arrived, self.next = {}, threading.Condition(), 0
        self.requests, self.complaints, self.session, self.gone = [], [], None, False
        threading.Thread(target=self.listen, daemon=True).start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")

    def listen(self):
        bytes_ = b""
        while True:
            more = self.answers.read(1 << 16)
            if not more:
                with self.arrived:
                    self.gone = True
                    self.arrived.notify_all()
                return
            bytes_ += more
            *messages, bytes_ = bytes_.split(b"\0")
            for message in messages:
                self.hear(json.loads(message))

    def hear(self, message):
        if "id" in message:
            with self.arrived:
                self.results[message["id"]] = message
                self.arrived.notify_all()
            return
        method, said = message["method"], message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append((said["request"]["method"], said["request"]["url"]))
        elif method == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(said["entry"]["text"] + " " + said["entry"].get("url", ""))

    def call(self, method, **parameters):
        self.next += 1
        number = self.next
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        with self.arrived:
            if not self.arrived.wait_for(lambda: number in self.results or self.gone, PATIENCE) or self.gone:
                raise TimeoutError(f"the browser did not answer {method}")
            result = self.results.pop(number)
        if "error" in result:
            raise RuntimeError(f"{method}: {result['error']}")
        return result["result"]

    def open(self, url):
        self.call("Page.navigate", url=url)

    def ask(self, expression):
        """Evaluates an expression in the page and returns its value. Promises are awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression, what=None, patience=PATIENCE):
        ends = time.monotonic() + patience
        while True:
            try:
                value = self.ask(expression)
            except RuntimeError:
                # While the page loads, there is no document to ask.
                value = None
            if value:
                return value
            if time.monotonic() > ends:
                raise AssertionError(f"it did not come: {what or expression}")
            time.sleep(0.05)

    def press(self, *keys):
        for key in keys:
            code, number = KEYS.get(key, ("", ord(key.upper()) if len(key) == 1 else 0))
            text = "\r" if key == "Enter" else key if len(key) == 1 else ""
            common = {"key": key, "code": code, "windowsVirtualKeyCode": number}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
            self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text):
        self.press(*text)

    def light(self, scheme):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def picture(self, path):
        shot = self.call("Page.captureScreenshot", format="png")
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))

    def close(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)
        shutil.rmtree(self.profile, ignore_errors=True)
