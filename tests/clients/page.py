"""Writes docs/clients.md from the results, and compares the results with it."""

import re

from table import COLUMNS, STEPS

INTRODUCTION = """# Client libraries

This page shows which client libraries work through the [egress listener](egress.md) of Callgate, and how to configure the address of this listener in each library. `make clients` tests these libraries. `make clients CLIENTS="--write docs/clients.md"` also writes this page. `make test` tests some of the libraries and compares the results with this page.

Each library sends all of its requests to Callgate, because its base URL is an address of the egress listener. The egress rules are in [config/clients.yaml](../config/clients.yaml). A rule with `{*rest}` forwards all requests below a prefix. A rule with a more specific path inserts a callback URL into the requests that start long work.

| column | what the library does |
|---|---|
| plain | It sends GET, POST or PUT requests, and reads compressed responses. |
| stream | It reads a stream. The provider sends the second event only after the library has returned the first one. |
| upload | It uploads 3 MiB, as `multipart/form-data` or in chunks. |
| poll | It requests the state of a task repeatedly, until the state is final. |
| redirect | The provider responds with a redirect to its own host, and the library follows it. The second request must also go through Callgate. |
| websocket | It opens a WebSocket, sends messages, and receives messages. |
| callback | It starts long work, and Callgate inserts a callback URL. |
| proxied | It does all of this through the [forward proxy](egress.md#forward-proxy): the library uses its default URLs, and only the environment variables of `callgate env` are set. |

| result | meaning |
|---|---|
| yes | It works, and all requests go through Callgate. |
| direct | It works, but some requests go directly to the provider. |
| with a change | The client ignores the environment variables. It works after a change to the program, which the notes describe. |
| no | It does not work as it should. The notes say why. |
| not tried | The test does not cover this. |
| – | The library or the API does not have this function. |

## Results

"""
COMPARISON = """
## What the test compares

Each library runs twice, with the same input: directly against a provider on this host, and through a real Callgate with the rules of config/clients.yaml. The provider is a test server that answers as the real API does, as far as the library needs it. The real APIs were not called.

- Both runs must return the same result to the caller of the library.
- The provider must receive the same requests in the same order: method, path, query, headers and body, byte for byte. This includes the messages that are sent through a WebSocket.
- Callgate inserts the callback URL as one part of the body or of the query. All bytes before and after this part must be the same, and no other request may contain a callback URL.
- Not compared: the spelling and the order of header names, `Host`, `Referer` (which contains the address), `Connection`, `Keep-Alive`, `TE`, `Expect`, `Content-Length` and `Transfer-Encoding`, and `Accept-Encoding` of a request with a callback URL. A body without a callback URL must keep its framing: with a length, or in chunks.
- Values that a library draws at random are not compared: the boundaries of `multipart/form-data` and `Sec-WebSocket-Key`.
- `fal-client` uses `https` in both runs, with `listen.egress.tls`.

For the column `proxied`, each library runs once more, through a Callgate with `listen.egress.proxy` and the same rules with `proxied: true`. The results and the requests are compared with those of the run without Callgate, in the same way. The libraries use their default addresses, such as `https://api.openai.com`, and Callgate reaches the test server under the names of these hosts. A client that ignores the proxy cannot resolve these names. `Accept-Encoding` of the Node packages is not compared, because `fetch` sends another value over `https`.

## Time to the first event

The table shows the time from the call of the library until the library returns the first event of a stream, in milliseconds. Each value is the shortest of 20 measurements, because the machine had two cores and other work to do. The test server is on the same host. The times of curl include the start of the curl process.

| client | without Callgate | through Callgate |
|---|---|---|
"""


def cell(client, results, step):
    if step in results:
        return results[step].outcome
    return "not tried" if client.notes.get(step, "").startswith("Not tried") else "–"


def row(client, results, version):
    cells = [cell(client, results, step) for step in COLUMNS]
    return "| " + " | ".join([client.title, version, client.setting, *cells]) + " |"


def notes(client, results):
    """Returns the lines that explain the results that are not "yes"."""
    lines = []
    for step, text in client.notes.items():
        if step not in results or results[step].outcome != "yes":
            outcome = "" if step in COLUMNS else f" ({cell(client, results, step)})"
            lines.append(f"- {client.title}, {step}{outcome}: {text}")
    return lines


def write(clients, results, versions, times):
    lines = ["| client | version | address of Callgate | " + " | ".join(COLUMNS) + " |", "|---" * (3 + len(COLUMNS)) + "|"]
    lines += [row(client, results[client.name], versions[client.name]) for client in clients]
    lines += ["", "## Notes", ""]
    lines += [line for client in clients for line in notes(client, results[client.name])]
    measured = [f"| {client.title} | {times[client.name][0]:.1f} | {times[client.name][1]:.1f} |"
                for client in clients if client.name in times]
    return INTRODUCTION + "\n".join(lines) + "\n" + COMPARISON + "\n".join(measured) + "\n"


def differences(text, clients, results, versions):
    """Returns where the results differ from the page. The versions of curl and Node are those of the machine."""
    wrong, lines = [], text.splitlines()
    rest = ["| " + line.strip("| ") + " |" for line in lines]
    for client in clients:
        expected = row(client, results[client.name], versions[client.name])
        found = next((line for line in rest if line.startswith(f"| {client.title} | ") and line.count("|") > 5), None)
        if found and not client.package:
            found = re.sub(r"^(\| [^|]* \|) [^|]* ", rf"\1 {versions[client.name]} ", found)
        if found and "proxied" not in results[client.name]:
            found, expected = (line.rsplit(" | ", 1)[0] for line in (found, expected))
        if found != expected:
            wrong.append(f"docs/clients.md has\n    {found}\nbut the result is\n    {expected}")
        about = [line for line in lines if line.startswith(f"- {client.title}, ")]
        if about != notes(client, results[client.name]):
            wrong.append(f"the notes about {client.title} in docs/clients.md differ from tests/clients/table.py")
    if wrong:
        wrong.append('write the page again: make clients CLIENTS="--write docs/clients.md"')
    return wrong
