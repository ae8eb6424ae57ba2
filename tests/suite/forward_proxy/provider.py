"""A provider with TLS. Prints its port, and one line of JSON for each request: its head and its body."""
import json
import socket
import ssl
import sys
import threading

certificate, key = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
released = threading.Event()
lock = threading.Lock()


def answer(stream, content, kind="application/json"):
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n"
    stream.sendall(head.encode() + content)


def chunk(text):
    return f"{len(text):x}\r\n{text}\r\n".encode()


def serve(raw):
    try:
        stream = context.wrap_socket(raw, server_side=True)
    except OSError:
        return
    reader = stream.makefile("rb")
    while True:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = reader.readline()
            if not line:
                return
            head += line
        lines = head.decode("latin-1").lower().split("\r\n")
        body = b""
        if "transfer-encoding: chunked" in lines:
            while not body.endswith(b"0\r\n\r\n"):
                body += reader.readline()
        else:
            length = [line.split(":")[1] for line in lines if line.startswith("content-length:")]
            body = reader.read(int(length[0])) if length else b""
        with lock:
            print(json.dumps({"head": head.decode("latin-1"), "body": body.decode("latin-1")}), flush=True)
        path = head.split(b" ")[1]
        if path == b"/events":
            stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            stream.sendall(chunk("data: one\n\n"))
            released.wait(60)
            stream.sendall(chunk("data: two\n\n") + b"0\r\n\r\n")
        elif path == b"/release":
            released.set()
            answer(stream, b"{}")
        elif path == b"/ws":
            stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            while data := stream.recv(4096):
                stream.sendall(data)
            return
        elif path == b"/redirect":
            stream.sendall(b"HTTP/1.1 302 Found\r\nlocation: /v1/other\r\ncontent-length: 0\r\n\r\n")
        else:
            answer(stream, b'{"id":"job-17"}')


def guarded(raw):
    try:
        serve(raw)
    except OSError:
        pass
    finally:
        raw.close()


# The name `localhost` may have an address of each family.
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=guarded, args=(connection,), daemon=True).start()
