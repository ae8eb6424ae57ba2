//! Counts the allocations of one decision and one delivered callback, and, under callgrind, their instructions. These
//! counts do not depend on the load of the machine. Usage: `count decide|deliver TIMES`. scripts/count.sh subtracts two
//! runs, so that the startup is not included, and compares the result with benches/baseline.txt.
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

use callgate::cli::serve;
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
    let networks: String = (0..99).map(|i| format!("10.{i}.0.0/24, ")).collect();
    let text = format!(
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
    );
    let env = |_: &str| Some("0123456789abcdef0123456789abcdef".to_owned());
    let surroundings = Surroundings { env: &env, file: &|path| std::fs::read(path) };
    Config::parse(&text, &surroundings).unwrap()
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
        let mut trail = Trail::timed(callgate::clock::instant);
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

fn deliver(times: usize) -> usize {
    let config = config(agent());
    let now = Clock::System.now();
    let callbacks: Vec<_> =
        (0..=times).map(|event| Callback::new(&config.policy, event, now).raw()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let serving = runtime.block_on(async {
        let state = Arc::new(ConfigState::new("", now));
        let log = AccessLogger::start(std::io::sink()).unwrap();
        serve(config, Clock::System, Some(log), Arc::new(Metrics::new().unwrap()), state).await
    });
    let serving = serving.map_err(|error| error.to_string()).unwrap();
    let mut stream = TcpStream::connect(serving.server.ingress[0]).unwrap();
    let mut buffer = [0; 4096];
    let mut call = |raw: &[u8]| {
        stream.write_all(raw).unwrap();
        let n = stream.read(&mut buffer).unwrap();
        assert!(buffer[..n].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..n]));
    };
    // The first callback opens the connection to the agent.
    call(&callbacks[0]);
    let region = Region::new(ALLOCATOR);
    callbacks[1..=times].iter().for_each(|raw| call(raw));
    let allocations = region.change().allocations;
    // Ends the process at once, because background tasks would add instructions.
    std::mem::forget(runtime);
    allocations
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let times: usize = args.get(2).and_then(|times| times.parse().ok()).unwrap_or(100).min(TIMES_MAX);
    let allocations = match args.get(1).map(String::as_str) {
        Some("decide") => decide(times),
        Some("deliver") => deliver(times),
        _ => return println!("usage: count decide|deliver TIMES"),
    };
    println!("{:.2}", allocations as f64 / times as f64);
}
