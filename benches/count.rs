//! Counts the allocations of one decision, of one callback (delivered, over a new connection, by another member, kept in the
//! inbox, denied), and of one request of the agent, and, under callgrind, their instructions. These counts do not depend on the load of the
//! machine. Usage: `count JOB TIMES`. scripts/count.sh subtracts two runs, so that the startup is not included, and compares
//! the result with benches/baseline.txt.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a measurement that cannot go on fails"
)]

use std::alloc::System;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use callgate::cli::{Serving, serve};
use callgate::clock::Clock;
use callgate::config::{Config, Surroundings};
use callgate::observe::{AccessLogger, ConfigState, Metrics};
use callgate::policy::{MintRequest, Policy};
use callgate::request::RequestHead;
use callgate::signature::SignatureContext;
use callgate::source::LOOPBACK;
use callgate::time::Timestamp;
use callgate::trail::Trail;
use http::HeaderMap;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Maximum of TIMES.
const TIMES_MAX: usize = 2000;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// A configuration with everything that a default installation switches on.
fn config(agent: SocketAddr) -> Config {
    read(&text(agent))
}

fn text(agent: SocketAddr) -> String {
    let networks: String = (0..99).map(|i| format!("10.{i}.0.0/24, ")).collect();
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: \"{agent}\" }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: KEY }} }} ] }}
providers:
  p: {{ signature: {{ scheme: github, secrets: [ {{ env: KEY }} ] }}, allow: [{networks} 127.0.0.0/8] }}
routes:
  - name: r
    path: /webhooks/kind/{{id}}
    provider: p
    token: {{ kind: callback, from: [bearer] }}
    forward: /in/{{id}}/status
    interaction: {{ status: /status, progress: /progress, done: [completed], failed: [failed] }}
"
    )
}

fn read(text: &str) -> Config {
    let env = |_: &str| Some("0123456789abcdef0123456789abcdef".to_owned());
    let surroundings = Surroundings { env: &env, file: &|path| std::fs::read(path) };
    Config::parse(text, &surroundings).unwrap()
}

/// Returns one callback with a new event id.
struct Callback {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Callback {
    fn new(policy: &Policy, event: usize, now: Timestamp) -> Self {
        let wanted = MintRequest { route: "r", parameters: &[("id", "doc-1")], ttl: None, uses: None };
        let token = policy.mint(&wanted, "int_1", now).unwrap().callback_token;
        let mut headers = HeaderMap::new();
        headers.insert("host", "agent.example.com".parse().unwrap());
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("user-agent", "count/1".parse().unwrap());
        let note = "x".repeat(110);
        let body =
            format!(r#"{{"status": "processing", "event": {event:08}, "progress": 1, "note": "{note}"}}"#);
        let mut callback = Self { headers, body: body.into_bytes() };
        let verifier = policy.providers[0].verifier.clone().unwrap();
        let signed = SignatureContext::new(callback.head(), "", now);
        for (name, value) in
            verifier.sign(&signed, &callback.body, &format!("delivery-{event}")).unwrap().headers
        {
            callback.headers.insert(name, value);
        }
        callback
    }

    fn head(&self) -> RequestHead<'_> {
        let head = RequestHead::new("POST", "/webhooks/kind/doc-1", &self.headers, LOOPBACK);
        RequestHead { body_bytes_declared: Some(self.body.len() as u64), ..head }
    }

    fn raw(&self) -> Vec<u8> {
        let mut raw = b"POST /webhooks/kind/doc-1 HTTP/1.1\r\n".to_vec();
        for (name, value) in &self.headers {
            write!(raw, "{name}: {}\r\n", value.to_str().unwrap()).unwrap();
        }
        write!(raw, "content-length: {}\r\n\r\n", self.body.len()).unwrap();
        raw.extend_from_slice(&self.body);
        raw
    }
}

fn decide(times: usize) -> usize {
    let policy = config("127.0.0.1:1".parse().unwrap()).policy;
    let now = Timestamp::from_unix_secs(1_767_225_600);
    let callback = Callback::new(&policy, 0, now);
    let region = Region::new(ALLOCATOR);
    for _ in 0..times {
        let mut trail = Trail::timed(callgate::clock::instant(), callgate::clock::instant);
        let head = callback.head();
        let admitted = policy.ingress.decide_head(&head, now, &mut trail).expect("admitted");
        black_box(admitted.decide_body(&head, &callback.body, &mut trail).expect("permitted"));
    }
    region.change().allocations
}

/// Starts an agent that answers every read. Each request must arrive as one segment.
fn agent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
            stream.write_all(ANSWER).unwrap();
        }
    });
    address
}

/// Serves a configuration with one worker thread, as the program does.
fn start(config: Config) -> (tokio::runtime::Runtime, Serving) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let serving = runtime.block_on(async {
        let state = Arc::new(ConfigState::new("", Clock::System.now()));
        let log = AccessLogger::start(std::io::sink()).unwrap();
        serve(config, Clock::System, Some(log), Arc::new(Metrics::new().unwrap()), state).await
    });
    (runtime, serving.map_err(|error| error.to_string()).unwrap())
}

/// Sends each request and expects this status. The first request is not counted, because it opens connections. With
/// `reconnects`, each request has a connection of its own.
fn exchange(address: SocketAddr, requests: &[Vec<u8>], status: &str, reconnects: bool) -> usize {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut buffer = [0; 4096];
    let mut call = |raw: &[u8]| {
        stream.write_all(raw).unwrap();
        let n = stream.read(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..n]);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        if reconnects {
            stream = TcpStream::connect(address).unwrap();
        }
    };
    let (first, rest) = requests.split_first().unwrap();
    call(first);
    let region = Region::new(ALLOCATOR);
    rest.iter().for_each(|raw| call(raw));
    region.change().allocations
}

/// Delivers callbacks. `change` changes the configuration and the requests, and `status` is that of the responses.
fn callbacks(times: usize, change: Change, status: &str) -> usize {
    let mut config = config(agent());
    let now = Clock::System.now();
    let request = |event| {
        let mut callback = Callback::new(&config.policy, event, now);
        if matches!(change, Change::NoToken) {
            callback.headers.remove("authorization");
        }
        callback.raw()
    };
    // A denied request may be sent again. Preparing each of them would be counted.
    let requests: Vec<_> = match change {
        Change::NoToken | Change::OtherAddress => vec![request(0); times + 1],
        Change::None | Change::NewConnections | Change::Kept => (0..=times).map(request).collect(),
    };
    if matches!(change, Change::OtherAddress) {
        config = Config { policy: read(&text(agent()).replace(" 127.0.0.0/8", "")).policy, ..config };
    }
    let folder = tempfile::tempdir().unwrap();
    if matches!(change, Change::Kept) {
        let store = format!(
            "store: {{ kind: file, path: {}, unknown: adopt }}\nroutes:",
            folder.path().join("ledger").display()
        );
        let text = text(agent()).replace("ingress:", "egress: { address: 127.0.0.1:0 }, ingress:");
        config = read(&text.replace("routes:", &store).replace("forward:", "deliver: pull\n    forward:"));
    }
    let (runtime, serving) = start(config);
    let allocations =
        exchange(serving.server.ingress[0], &requests, status, matches!(change, Change::NewConnections));
    // Ends the process at once, because background tasks would add instructions.
    std::mem::forget((runtime, serving));
    allocations
}

/// How the callbacks differ from those that are delivered over one connection.
enum Change {
    None,
    NoToken,
    OtherAddress,
    NewConnections,
    /// The callbacks are kept until the agent asks for them. Each needs a commit of the ledger's file.
    Kept,
}

/// Sends requests of the agent, each of which gets a callback.
fn egress(times: usize) -> usize {
    let provider = agent();
    let rule = format!(
        "egress:
  - name: e
    path: /jobs
    target: http://{provider}/v1/jobs
    response: /id
    inject: {{ route: r, params: {{ id: /document_id }}, url: /callback_url, token: /callback_token }}
"
    );
    let listener = "egress: { address: 127.0.0.1:0 }, ingress:";
    let (runtime, serving) = start(read(&(text(agent()).replace("ingress:", listener) + &rule)));
    let body = r#"{"document_id": "doc-1", "text": "summarize", "options": {"language": "en"}}"#;
    let length = body.len();
    let head = format!(
        "POST /jobs HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let requests = vec![head.into_bytes(); times + 1];
    let allocations = exchange(serving.server.egress.unwrap(), &requests, "200", false);
    std::mem::forget((runtime, serving));
    allocations
}

/// Delivers callbacks that another member owns: the first member verifies each of them and hands it over.
fn hop(times: usize) -> usize {
    let free: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<_> = free.iter().map(|one| one.local_addr().unwrap()).collect();
    drop(free);
    let member = |own: usize| {
        let section = format!(
            "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\" }}
public_url: https://agent.example.com
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: KEY }} }} ] }}
replicas: {{ address: \"{0}\", advertise: \"{0}\", discover: [\"{1}\"], secrets: [ {{ env: KEY }} ], mint: true }}
routes:
  - {{ name: r, path: \"/r/{{id}}\", token: {{ kind: callback, from: [bearer] }}, forward: \"/in/{{id}}\" }}
",
            ports[own],
            ports[1 - own],
            agent = agent(),
        );
        start(read(&section))
    };
    let (owner, first) = (member(0), member(1));
    let post = |address: SocketAddr, head: &str, body: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let length = body.len();
        write!(stream, "POST {head}\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let admin = owner.1.server.admin.unwrap();
    let minted = post(admin, "/callbacks HTTP/1.1", r#"{"route":"r","params":{"id":"doc-1"}}"#);
    let token = minted.split("\"callback_token\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let ingress = first.1.server.ingress[0];
    // The members need some time to find each other.
    let head = format!("/r/doc-1 HTTP/1.1\r\nauthorization: Bearer {token}");
    while !post(ingress, &head, "{}").starts_with("HTTP/1.1 200 ") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let request = format!(
        "POST {head}\r\nhost: agent.example.com\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    let allocations = exchange(ingress, &vec![request.into_bytes(); times + 1], "200", false);
    std::mem::forget((owner, first));
    allocations
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let times: usize = args.get(2).and_then(|times| times.parse().ok()).unwrap_or(100).min(TIMES_MAX);
    let allocations = match args.get(1).map(String::as_str) {
        Some("decide") => decide(times),
        Some("deliver") => callbacks(times, Change::None, "200"),
        Some("connect") => callbacks(times, Change::NewConnections, "200"),
        Some("inbox") => callbacks(times, Change::Kept, "202"),
        Some("deny-token") => callbacks(times, Change::NoToken, "401"),
        Some("deny-address") => callbacks(times, Change::OtherAddress, "403"),
        Some("egress") => egress(times),
        Some("hop") => hop(times),
        _ => {
            return println!(
                "usage: count decide|deliver|connect|inbox|deny-token|deny-address|egress|hop TIMES"
            );
        }
    };
    println!("{:.2}", allocations as f64 / times as f64);
}
