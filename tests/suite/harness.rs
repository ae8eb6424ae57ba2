//! The test harness: Callgate in this process, an agent that records its requests, and a client that sends exact bytes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callgate::cli::{Serving, serve};
use callgate::clock::Clock;
use callgate::observe::{AccessLogger, ConfigState, Metrics};
use serde_json::Value;
use tokio::runtime::Runtime;

pub use crate::environment::{env, parse};

/// Maximum time to wait for anything in a test. Reaching it fails the test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls `look` until it returns a value. Panics after [`PATIENCE`].
pub fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let began = callgate::clock::instant();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "it did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

// === The agent ===

/// A request that the agent received.
#[derive(Clone, Debug)]
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
}

impl Received {
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// Returns every value of a header. `name` is in lower case.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(n, _)| *n == name).map(|(_, value)| value).collect()
    }
}

pub const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";

/// An agent that records its requests and sends the configured response. With an empty response, it closes the
/// connection.
pub struct Agent {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<Mutex<usize>>,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Agent {
    pub fn start(answer: &[u8]) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// Starts an agent at this address.
    pub fn start_at(address: SocketAddr, answer: &[u8]) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let agent = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
            connections: Arc::default(),
            answer: Arc::new(Mutex::new(answer.to_vec())),
        };
        let (received, connections, answer) =
            (Arc::clone(&agent.received), Arc::clone(&agent.connections), Arc::clone(&agent.answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                *connections.lock().unwrap() += 1;
                let (received, answer) = (Arc::clone(&received), Arc::clone(&answer));
                std::thread::spawn(move || converse(stream, &received, || answer.lock().unwrap().clone()));
            }
        });
        agent
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Sets the response to all later requests.
    pub fn answers(&self, answer: &[u8]) {
        *self.answer.lock().unwrap() = answer.to_vec();
    }

    /// Waits for at least this number of requests, and returns all received requests.
    pub fn wait_for(&self, count: usize) -> Vec<Received> {
        eventually(|| {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

pub fn converse(
    mut stream: impl Read + Write,
    received: &Mutex<Vec<Received>>,
    answer: impl Fn() -> Vec<u8>,
) {
    let mut bytes = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut bytes) {
        let answer = answer();
        received.lock().unwrap().push(request);
        if answer.is_empty() || stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// Reads one request. `bytes` contains the data that was already read after the previous request.
pub fn read_request(stream: &mut impl Read, bytes: &mut Vec<u8>) -> Option<Received> {
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        more(stream, bytes)?;
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    if head.lines().any(|line| line == "transfer-encoding: chunked") {
        let mut at = head_end + 4;
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&line(stream, &mut at, bytes)?, 16).unwrap();
            if size == 0 {
                break;
            }
            let mut rest = size + 2;
            while rest > 0 {
                if bytes.len() == at {
                    more(stream, bytes)?;
                }
                let here = rest.min(bytes.len() - at);
                body.extend_from_slice(&bytes[at..at + here]);
                (at, rest) = (at + here, rest - here);
            }
            body.truncate(body.len() - 2);
        }
        while !line(stream, &mut at, bytes)?.is_empty() {}
        bytes.drain(..at);
        return Some(Received { head, body });
    }
    let length =
        head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |v| v.parse().unwrap());
    while bytes.len() < head_end + 4 + length {
        more(stream, bytes)?;
    }
    let body = bytes[head_end + 4..head_end + 4 + length].to_vec();
    bytes.drain(..head_end + 4 + length);
    Some(Received { head, body })
}

/// Reads the line that begins at `at`, and moves `at` behind it.
fn line(stream: &mut impl Read, at: &mut usize, bytes: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = bytes[*at..].windows(2).position(|w| w == b"\r\n") {
            let line = String::from_utf8(bytes[*at..*at + end].to_vec()).unwrap();
            *at += end + 2;
            return Some(line);
        }
        more(stream, bytes)?;
    }
}

fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 64 << 10];
    match stream.read(&mut buffer) {
        Ok(n) if n > 0 => {
            bytes.extend_from_slice(&buffer[..n]);
            Some(())
        }
        _ => None,
    }
}

// === Callgate ===

/// A running Callgate, which stops when this value is dropped.
pub struct Callgate {
    pub ingress: SocketAddr,
    /// The addresses of all ingress listeners.
    pub ingresses: Vec<SocketAddr>,
    pub egress: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub replicas: Option<SocketAddr>,
    lines: Receiver<Vec<u8>>,
    serving: Option<Serving>,
    runtime: Option<Runtime>,
    /// The section `store` of the environment.
    store: Option<String>,
}

/// A writer that sends the data of each write over a channel.
struct Wire(Sender<Vec<u8>>);

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns the section `store` for the server that the environment names, with a new ledger. With this, the tests of the
/// ledger also run on Redis: `make redis`.
#[allow(clippy::disallowed_methods, reason = "another store is asked for by the environment")]
fn store_of_environment() -> Option<String> {
    let address = std::env::var("CALLGATE_TEST_REDIS").ok()?;
    let prefix = callgate::random::new_id("t").unwrap();
    Some(format!(
        "\nstore: {{ kind: redis, redis: {{ nodes: [\"{address}\"], prefix: {prefix}, timeout: 5s }} }}\n"
    ))
}

/// Returns a configuration with a store, if it says nothing about it.
fn with_store(config: &str, store: Option<&str>) -> String {
    let store = store.filter(|_| !config.contains("store:")).unwrap_or_default();
    format!("{config}{store}")
}

impl Callgate {
    pub fn start(config: &str, clock: Clock) -> Self {
        let store = store_of_environment();
        let config = &*with_store(config, store.as_deref());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (sender, lines) = channel();
        let log = AccessLogger::start(Wire(sender)).unwrap();
        let serving = runtime
            .block_on(async {
                let state = Arc::new(ConfigState::new(config, clock.now()));
                serve(parse(config), clock, Some(log), Arc::new(Metrics::new().unwrap()), state).await
            })
            .map_err(|error| error.to_string())
            .unwrap();
        Self {
            ingress: serving.server.ingress[0],
            ingresses: serving.server.ingress.clone(),
            egress: serving.server.egress,
            admin: serving.server.admin,
            replicas: serving.server.replicas,
            lines,
            serving: Some(serving),
            runtime: Some(runtime),
            store,
        }
    }

    /// Returns the error with which a configuration does not start.
    pub fn refused(config: &str) -> String {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let state = Arc::new(ConfigState::new(config, Clock::System.now()));
        let metrics = Arc::new(Metrics::new().unwrap());
        let served = runtime.block_on(serve(parse(config), Clock::System, None, metrics, state));
        served.err().map(|error| error.to_string()).unwrap()
    }

    /// Applies another configuration.
    pub fn reload(&self, config: &str) -> Result<Vec<String>, String> {
        let serving = self.serving.as_ref().unwrap();
        let config = with_store(config, self.store.as_deref());
        self.runtime.as_ref().unwrap().block_on(serving.apply(parse(&config)))
    }

    pub fn connect(&self) -> TcpStream {
        self.connect_from(IpAddr::from([127, 0, 0, 1]))
    }

    /// Connects from another loopback address.
    pub fn connect_from(&self, peer: IpAddr) -> TcpStream {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(peer, 0).into()).unwrap();
        socket.connect_timeout(&self.ingress.into(), PATIENCE).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Starts an exchange and waits until Callgate asks for its body with `100 Continue`. The body of two bytes is not
    /// sent.
    pub fn begin_exchange(&self) -> TcpStream {
        let mut stream = self.connect();
        stream
            .write_all(
                b"POST /open/x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
            )
            .unwrap();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream
    }

    /// Sends one request on a new connection and reads the response.
    pub fn send(&self, request: &[u8]) -> Response {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        Response::read(&mut stream)
    }

    /// Waits for the next lines of the access log and parses them.
    pub fn log(&self) -> Vec<Value> {
        let bytes = self.lines.recv_timeout(PATIENCE).unwrap();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for this number of access-log lines and parses them.
    pub fn logged(&self, lines: usize) -> Vec<Value> {
        let mut all = Vec::new();
        while all.len() < lines {
            all.extend(self.log());
        }
        all
    }

    /// Ends all tasks of the server at once, as if its process was killed.
    pub fn kill(mut self) {
        let serving = self.serving.take();
        self.runtime.take().unwrap().shutdown_timeout(PATIENCE);
        drop(serving);
    }

    /// Stops the server with a generous grace period. Returns the number of exchanges that were cut off.
    pub fn stop_in_background(&mut self) -> std::thread::JoinHandle<usize> {
        let serving = self.serving.take().unwrap();
        let handle = self.runtime.as_ref().unwrap().handle().clone();
        std::thread::spawn(move || handle.block_on(serving.stop(Duration::ZERO, PATIENCE)))
    }

    /// Returns the metrics page.
    pub fn metrics(&self) -> String {
        self.admin_get("/metrics").text()
    }

    pub fn admin_get(&self, path: &str) -> Response {
        self.admin_send("GET", path, "")
    }

    /// Sends a request with a JSON body to the admin listener.
    pub fn admin_send(&self, method: &str, path: &str, body: &str) -> Response {
        send_to(self.admin.unwrap(), method, path, &[("content-type", "application/json")], body.as_bytes())
    }

    /// Sends a request to the egress listener, as the agent does.
    pub fn agent_sends(&self, path: &str, body: &str) -> Response {
        send_to(self.egress.unwrap(), "POST", path, &[("content-type", "application/json")], body.as_bytes())
    }
}

impl Drop for Callgate {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if let Some(serving) = self.serving.take() {
            runtime.block_on(serving.stop(Duration::ZERO, Duration::ZERO));
        }
        runtime.shutdown_timeout(Duration::from_millis(200));
    }
}

// === The client ===

/// Sends one request on a new connection and reads the response.
pub fn send_to(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut request = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if method != "GET" {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes).unwrap();
    Response::read(&mut stream)
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// Reads one response. Its body ends by length, by chunks, or with the connection.
    pub fn read(stream: &mut impl Read) -> Self {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            assert!(more(stream, &mut bytes).is_some(), "no answer: {:?}", String::from_utf8_lossy(&bytes));
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let status = head[9..12].parse().unwrap();
        let mut body = bytes[end + 4..].to_vec();
        let field = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
        if matches!(status, 204 | 304) {
            return Self { status, head, body };
        }
        if let Some(length) = field("content-length:") {
            while body.len() < length.parse().unwrap() && more(stream, &mut body).is_some() {}
        } else if field("transfer-encoding:").is_some() {
            while !body.ends_with(b"0\r\n\r\n") && more(stream, &mut body).is_some() {}
            body = dechunk(&body);
        } else if status >= 200 {
            while more(stream, &mut body).is_some() {}
        }
        Self { status, head, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..at]).unwrap(), 16).unwrap();
        body.extend_from_slice(&bytes[at + 2..at + 2 + size]);
        bytes = &bytes[at + 4 + size..];
    }
    body
}

// === A configuration for tests about bytes rather than decisions ===

/// Returns a configuration with one open route `/open/{id}`, limits of 2 MiB, and the address of the agent.
pub fn open_config(agent: &str) -> String {
    format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\", timeouts: {{ connect: 1s, response: 1s }} }}
limits: {{ body_deadline: 1s }}
routes:
  - name: open
    path: /open/{{id}}
    methods: [POST, GET, HEAD, PUT]
    open: true
    forward: /in/{{id}}
    body_max: 2MiB
"
    )
}
