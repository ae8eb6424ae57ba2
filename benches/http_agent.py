"""An agent for the benchmarks, and how they read its HTTP messages."""

import socket
import threading
import time

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def read_message(stream, pending):
    """Reads one HTTP message with a Content-Length. Returns its head and the bytes after it."""
    head, _, rest = read_whole(stream, pending)
    return head, rest


def read_whole(stream, pending):
    """Reads one HTTP message with a Content-Length. Returns its head, its body, and the bytes after it."""
    while b"\r\n\r\n" not in pending:
        more = stream.recv(65536)
        if not more:
            return None, b"", b""
        pending += more
    head, rest = pending.split(b"\r\n\r\n", 1)
    length = 0
    for line in head.lower().split(b"\r\n")[1:]:
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(rest) < length:
        rest += stream.recv(65536)
    return head, rest[:length], rest[length:]


def heads(stream):
    """Reads one HTTP message after the other, and returns their heads. Ends with the connection."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pending = b""
    while True:
        head, pending = read_message(stream, pending)
        if head is None:
            return
        yield head


def serve(listener, seconds=0):
    """Answers every request of every connection, each after a pause."""

    def answer(stream):
        for _ in heads(stream):
            if seconds:
                time.sleep(seconds)
            stream.sendall(ANSWER)

    while True:
        stream, _ = listener.accept()
        threading.Thread(target=answer, args=(stream,), daemon=True).start()
