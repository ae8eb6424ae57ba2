//! Egress rules for everything below a prefix: requests and responses are passed on while they arrive, with their
//! trailers, WebSocket connections and redirects.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use callgate::clock::Clock;
use serde_json::{Value, json};

use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, Response, eventually, send_to};

/// A provider whose connections the test serves itself.
struct Provider {
    listener: TcpListener,
    address: SocketAddr,
}

impl Provider {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    fn accept(&self) -> TcpStream {
        patient(self.listener.accept().unwrap().0)
    }
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn config(provider: SocketAddr, more: &str) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0, connections_max: 4 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"127.0.0.1:1\" }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
{more}
routes:
  - {{ name: jobs, path: \"/jobs/{{*rest}}\", token: {{ kind: callback }}, forward: \"/in/{{rest}}\" }}
egress:
  - name: api
    path: /api/{{*rest}}
    target: http://{provider}/base/{{rest}}
    methods: [GET, HEAD, POST, PUT, DELETE]
    headers: {{ x-api-key: {{ env: STATIC }} }}
    body_max: 8MiB
    timeouts: {{ connect: 2s, response: 10s }}
  - name: jobs
    path: /jobs/{{*rest}}
    target: http://{provider}/{{rest}}
    methods: [GET, POST]
    inject: {{ route: jobs, params: {{ rest: {{ path: rest }} }}, url: /callback_url, token: /callback_token }}
"
    )
}

struct World {
    provider: Provider,
    callgate: Callgate,
}

impl World {
    fn new(more: &str) -> Self {
        let provider = Provider::new();
        Self { callgate: Callgate::start(&config(provider.address, more), Clock::System), provider }
    }

    /// Connects to the egress listener and sends `request`.
    fn send(&self, request: &str) -> TcpStream {
        let mut stream = patient(TcpStream::connect(self.callgate.egress.unwrap()).unwrap());
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }
}

/// Reads until the bytes end with `end`, and returns all of them as text.
fn read_until(stream: &mut impl Read, end: &str) -> String {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(end.as_bytes()) {
        let count = stream.read(&mut byte).unwrap();
        assert!(count > 0, "the connection ended after {:?}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&byte);
    }
    String::from_utf8(read).unwrap()
}

#[test]
fn events_arrive_before_the_next_one_is_sent() {
    let world = World::new("");
    let mut agent = world
        .send("GET /api/v1/stream?a=%20b HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n");
    let mut provider = world.provider.accept();
    let request = read_until(&mut provider, "\r\n\r\n");
    assert!(request.starts_with("GET /base/v1/stream?a=%20b HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nx-api-key: a static secret\r\n") && !request.contains("content-length"));
    // The agent sees the head before the first event, and each event before the next one.
    provider
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .unwrap();
    let head = read_until(&mut agent, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("content-type: text/event-stream"));
    for number in 0..3 {
        let event = format!("9\r\ndata: {number}\n\n\r\n");
        provider.write_all(event.as_bytes()).unwrap();
        assert_eq!(read_until(&mut agent, "\n\n\r\n"), event);
    }
    provider.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(read_until(&mut agent, "0\r\n\r\n"), "0\r\n\r\n");
    assert_eq!(world.callgate.log()[0]["egress"], "api");
}

#[test]
fn a_body_without_a_length_is_relayed_while_it_arrives() {
    let world = World::new("");
    let mut agent = world.send("GET /api/x HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut provider = world.provider.accept();
    read_until(&mut provider, "\r\n\r\n");
    provider.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    read_until(&mut agent, "\r\n\r\n");
    provider.write_all(b"first").unwrap();
    assert_eq!(read_until(&mut agent, "first\r\n"), "5\r\nfirst\r\n");
    drop(provider);
    assert_eq!(read_until(&mut agent, "0\r\n\r\n"), "0\r\n\r\n");
}

#[test]
fn the_beginning_of_an_upload_arrives_before_its_end_is_sent() {
    let world = World::new("");
    for (number, framing) in ["content-length: 10", "transfer-encoding: chunked"].into_iter().enumerate() {
        let is_chunked = number == 1;
        let mut agent = world.send(&format!(
            "PUT /api/files/a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{framing}\r\n\r\n"
        ));
        agent.write_all(if is_chunked { b"5\r\nfirst\r\n" } else { b"first" }).unwrap();
        let mut provider = world.provider.accept();
        let head = read_until(&mut provider, "\r\n\r\n");
        assert!(head.contains(&format!("\r\n{framing}\r\n")), "{head}");
        assert!(read_until(&mut provider, "first").ends_with("first"));
        agent.write_all(if is_chunked { b"4\r\nlast\r\n1\r\n!\r\n0\r\n\r\n" } else { b"last!" }).unwrap();
        read_until(&mut provider, if is_chunked { "0\r\n\r\n" } else { "last!" });
        provider.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").unwrap();
        assert_eq!(Response::read(&mut agent).status, 201);
        let line = world.callgate.log().remove(0);
        assert_eq!((&line["status"], &line["body_bytes"]), (&json!(201), &json!(10)), "{line}");
    }
}

#[test]
fn an_agent_that_waits_for_100_continue_is_told_to_go_on() {
    let world = World::new("");
    let mut agent = world
        .send("POST /api/x HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    let mut provider = world.provider.accept();
    let head = read_until(&mut provider, "\r\n\r\n");
    assert!(!head.contains("expect"), "{head}");
    assert_eq!(read_until(&mut agent, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    agent.write_all(b"ok").unwrap();
    read_until(&mut provider, "ok");
    provider.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    assert_eq!(Response::read(&mut agent).status, 200);
}

#[test]
fn trailers_are_passed_on_in_both_directions() {
    let world = World::new("");
    let mut agent = world.send(
        "POST /api/x HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
         2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Api-Key: mine\r\nAuthorization: mine\r\nCallgate-Route: r\r\nx-more: 2\r\n\r\n",
    );
    let mut provider = world.provider.accept();
    let head = read_until(&mut provider, "\r\n\r\n");
    for line in ["te: trailers", "connection: te", "trailer: x-sum", "transfer-encoding: chunked"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    assert_eq!(read_until(&mut provider, "\r\n\r\n"), "2\r\nok\r\n0\r\nX-Sum: 1\r\nx-more: 2\r\n\r\n");
    for body in ["2\r\nok\r\n", ""] {
        provider
            .write_all(b"HTTP/1.1 200 OK\r\ntrailer: x-end\r\ntransfer-encoding: chunked\r\n\r\n")
            .unwrap();
        let head = read_until(&mut agent, "\r\n\r\n");
        assert!(head.contains("\r\ntrailer: x-end\r\n"), "{head}");
        let rest = format!("{body}0\r\nx-end: yes\r\nSet-Cookie: a=b\r\ncallgate-interaction: x\r\n\r\n");
        provider.write_all(rest.as_bytes()).unwrap();
        assert_eq!(read_until(&mut agent, "\r\n\r\n"), format!("{body}0\r\nx-end: yes\r\n\r\n"));
        agent.write_all(b"GET /api/x HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        read_until(&mut provider, "\r\n\r\n");
    }
}

/// Some servers read `x_api_key` and `x-api-key` as the same name.
#[test]
fn no_spelling_of_a_configured_header_is_passed_on() {
    for (ours, theirs) in [("x-api-key", "x_api_key"), ("x_api_key", "x-api-key"), ("x_api_key", "X_Api-Key")]
    {
        let provider = Provider::new();
        let text = config(provider.address, "").replace("x-api-key:", &format!("{ours}:"));
        let world = World { callgate: Callgate::start(&text, Clock::System), provider };
        let mut agent = world.send(&format!(
            "POST /api/x HTTP/1.1\r\nhost: localhost\r\n{theirs}: mine\r\nx.api.key: mine\r\ncallgate_route: mine\r\n\
             transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{theirs}: mine\r\nx-sum: 1\r\n\r\n"
        ));
        let mut provider = world.provider.accept();
        let head = read_until(&mut provider, "\r\n\r\n");
        assert!(!head.contains("mine") && head.contains(&format!("{ours}: a static secret")), "{head}");
        assert_eq!(read_until(&mut provider, "\r\n\r\n"), "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n");
        provider.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        assert_eq!(Response::read(&mut agent).status, 200);
    }
}

#[test]
fn trailers_of_a_response_to_a_request_with_a_callback_are_passed_on() {
    let world = World::new("");
    let mut agent = world.send(
        "POST /jobs/x HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    );
    let mut provider = world.provider.accept();
    read_until(&mut provider, "}");
    provider
        .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-end: yes\r\n\r\n")
        .unwrap();
    assert!(read_until(&mut agent, "\r\n\r\n").contains("callgate-interaction: int_"));
    assert_eq!(read_until(&mut agent, "\r\n\r\n"), "2\r\nok\r\n0\r\nx-end: yes\r\n\r\n");
}

#[test]
fn a_response_to_an_incomplete_upload_is_relayed_at_once_if_it_is_an_error() {
    let world = World::new("");
    let mut agent =
        world.send("POST /api/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000000\r\n\r\nbegin");
    let mut provider = world.provider.accept();
    read_until(&mut provider, "begin");
    provider.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 4\r\n\r\nwho?").unwrap();
    let response = Response::read(&mut agent);
    assert_eq!((response.status, response.text()), (401, "who?".to_owned()));
    assert_eq!(response.header("connection"), Some("close"));
    // A success is relayed when the whole request was sent.
    let mut agent = world.send("POST /api/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8\r\n\r\nbegi");
    let mut provider = world.provider.accept();
    read_until(&mut provider, "begi");
    provider.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    agent.write_all(b"nend").unwrap();
    read_until(&mut provider, "nend");
    assert_eq!(Response::read(&mut agent).status, 200);
}

#[test]
fn an_upload_that_breaks_off_does_not_look_complete() {
    let world = World::new("");
    for (head, bytes) in [
        ("content-length: 10", "half"),
        ("transfer-encoding: chunked", "4\r\nhalf\r\n"),
        ("transfer-encoding: chunked", "a\r\nhalf"),
    ] {
        let agent = world.send(&format!("POST /api/x HTTP/1.1\r\nhost: localhost\r\n{head}\r\n\r\n{bytes}"));
        let mut provider = world.provider.accept();
        read_until(&mut provider, "half");
        drop(agent);
        let mut rest = String::new();
        let _ = provider.read_to_string(&mut rest);
        assert!(rest.trim().is_empty(), "{head}: {rest:?}");
        assert_eq!(world.callgate.log()[0]["reason"], "body_incomplete");
    }
    // Malformed chunks, and a body that is larger than allowed.
    for (bytes, status, reason) in [
        ("4\r\nhalf\r\n".to_owned(), 400, "body_incomplete"),
        (format!("4\r\nhalf\r\n900000\r\n{}", "x".repeat(9 << 20)), 413, "body_too_large"),
    ] {
        let (first, later) = bytes.split_at(9);
        let mut agent = world.send(&format!(
            "POST /api/x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{first}"
        ));
        let mut provider = world.provider.accept();
        read_until(&mut provider, "half");
        let reading = std::thread::spawn(move || {
            let mut rest = Vec::new();
            let _ = provider.read_to_end(&mut rest);
            rest
        });
        let later = if later.is_empty() { "XX\r\n" } else { later };
        let _ = agent.write_all(later.as_bytes());
        let response = Response::read(&mut agent);
        assert_eq!((response.status, response.json()["reason"].as_str()), (status, Some(reason)));
        assert!(!reading.join().unwrap().ends_with(b"0\r\n\r\n"));
        assert_eq!(world.callgate.log()[0]["reason"], reason);
    }
}

const UPGRADE: &str = "GET /api/v1/live?m=1 HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n";
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\ncallgate-interaction: x\r\n\
                          Proxy-Authenticate: Basic\r\nProxy-Connection: close\r\nTE: trailers\r\nKeep-Alive: max=1\r\n\r\n";

/// Opens a WebSocket connection through the egress listener. Returns the agent's and the provider's end.
fn websocket(world: &World) -> (TcpStream, TcpStream) {
    let mut agent = world.send(&format!("{UPGRADE}\r\n"));
    let mut provider = world.provider.accept();
    let head = read_until(&mut provider, "\r\n\r\n");
    assert!(head.starts_with("GET /base/v1/live?m=1 HTTP/1.1\r\n"), "{head}");
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "x-api-key: a static secret",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    // The first bytes may arrive together with the head.
    provider.write_all(&[SWITCHED, b"hello"].concat()).unwrap();
    let head = read_until(&mut agent, "\r\n\r\n").to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 switching protocols\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: upgrade\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    for gone in ["callgate", "proxy-", "\r\nte:", "keep-alive"] {
        assert!(!head.contains(gone), "{gone}: {head}");
    }
    assert_eq!(read_until(&mut agent, "hello"), "hello");
    (agent, provider)
}

#[test]
fn websocket_connections_pass_bytes_in_both_directions() {
    let world = World::new("");
    let (mut agent, mut provider) = websocket(&world);
    for message in ["\u{1}ping".to_owned(), "x".repeat(200_000)] {
        let mut echoing = provider.try_clone().unwrap();
        let length = message.len();
        let echo = std::thread::spawn(move || {
            let mut bytes = vec![0; length];
            echoing.read_exact(&mut bytes).unwrap();
            echoing.write_all(&bytes).unwrap();
        });
        agent.write_all(message.as_bytes()).unwrap();
        let mut back = vec![0; length];
        agent.read_exact(&mut back).unwrap();
        assert!(back == message.as_bytes());
        echo.join().unwrap();
    }
    // The end of one direction is passed on, and the other direction stays open.
    agent.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(provider.read(&mut [0]).unwrap(), 0);
    provider.write_all(b"bye").unwrap();
    drop(provider);
    let mut rest = String::new();
    agent.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye");
    let line = world.callgate.log().remove(0);
    assert_eq!((&line["status"], &line["reason"]), (&json!(101), &json!("ok")), "{line}");
}

#[test]
fn only_a_requested_websocket_is_switched() {
    let world = World::new("");
    let without = |line: &str| UPGRADE.replacen(line, "", 1);
    for (request, switched) in [
        ("GET /api/x HTTP/1.1\r\nhost: localhost\r\n".to_owned(), SWITCHED.to_vec()),
        (without("connection: Upgrade\r\n"), SWITCHED.to_vec()),
        (without("upgrade: WebSocket\r\n"), SWITCHED.to_vec()),
        (UPGRADE.replace("WebSocket", "h2c"), SWITCHED.to_vec()),
        (UPGRADE.replace("GET", "POST"), SWITCHED.to_vec()),
        (UPGRADE.replace("HTTP/1.1", "HTTP/1.0"), SWITCHED.to_vec()),
        (format!("{UPGRADE}content-length: 1\r\n"), SWITCHED.to_vec()),
        (
            UPGRADE.to_owned(),
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n".to_vec(),
        ),
        (UPGRADE.to_owned(), b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec()),
    ] {
        // HTTP/1.0 has no upgrades.
        let asks = request == UPGRADE;
        let mut agent =
            world.send(&format!("{request}\r\n{}", if request.contains("length") { "x" } else { "" }));
        let mut provider = world.provider.accept();
        let head = read_until(&mut provider, "\r\n\r\n");
        assert_eq!(head.contains("\r\nupgrade: websocket\r\n"), asks, "{head}");
        assert_eq!(head.contains("\r\nconnection: upgrade\r\n"), asks, "{head}");
        provider.write_all(&switched).unwrap();
        let refused = Response::read(&mut agent);
        assert_eq!(
            (refused.status, refused.json()["reason"].as_str()),
            (502, Some("provider_garbled")),
            "{request}"
        );
    }
    // A provider that does not switch is relayed as usual.
    let mut agent = world.send(&format!("{UPGRADE}\r\n"));
    let mut provider = world.provider.accept();
    read_until(&mut provider, "\r\n\r\n");
    provider.write_all(b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno").unwrap();
    assert_eq!(Response::read(&mut agent).status, 426);
}

#[test]
fn an_idle_websocket_is_closed() {
    let world = World::new("limits: { idle_timeout: 300ms }");
    let (mut agent, mut provider) = websocket(&world);
    assert_eq!(agent.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(provider.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(world.callgate.log()[0]["status"], 101);
}

#[test]
fn websockets_count_as_connections_and_hold_up_a_stop() {
    let mut world = World::new("");
    let open: Vec<_> = (0..4).map(|_| websocket(&world)).collect();
    let mut rest = Vec::new();
    let mut fifth = TcpStream::connect(world.callgate.egress.unwrap()).unwrap();
    let _ = fifth.read_to_end(&mut rest);
    assert!(rest.is_empty(), "the connections are used up");
    let stopping = world.callgate.stop_in_background();
    // Bytes still pass while the listener stops.
    let (mut agent, mut provider) = open.into_iter().next().unwrap();
    for _ in 0..3 {
        agent.write_all(b"ping").unwrap();
        assert_eq!(read_until(&mut provider, "ping"), "ping");
    }
    assert!(!stopping.is_finished());
    drop((agent, provider));
    assert_eq!(stopping.join().unwrap(), 0, "every connection ended by itself");
}

/// A provider, and Callgate with an egress listener that has the name `gate.example`.
fn redirecting() -> (Agent, Callgate) {
    let provider = Agent::start(ANSWER);
    let text = config(provider.address, "").replace("connections_max: 4", "hosts: [gate.example]");
    let callgate = Callgate::start(&text, Clock::System);
    (provider, callgate)
}

/// Lets the provider answer with this status and these `Location` lines. Returns the locations that the agent receives.
fn relayed(provider: &Agent, callgate: &Callgate, status: u16, locations: &str) -> Vec<String> {
    provider.answers(format!("HTTP/1.1 {status} X\r\n{locations}\r\ncontent-length: 0\r\n\r\n").as_bytes());
    let mut stream = patient(TcpStream::connect(callgate.egress.unwrap()).unwrap());
    stream.write_all(b"GET /api/v1/x HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let head = read_until(&mut stream, "\r\n\r\n");
    head.lines().filter_map(|line| line.strip_prefix("location: ")).map(str::to_owned).collect()
}

#[test]
fn redirects_to_the_provider_stay_on_the_listener() {
    let (provider, callgate) = redirecting();
    let own = provider.address;
    for (status, location, expected) in [
        (302, format!("http://{own}/base/v2/x?a=%20b#c"), "/api/v2/x?a=%20b#c".to_owned()),
        (307, "/base/v2/x".to_owned(), "/api/v2/x".to_owned()),
        (308, "../v2/".to_owned(), "/api/v2/".to_owned()),
        (301, format!("//{own}/base/"), "/api/".to_owned()),
        (303, "https://elsewhere.example/base/x".to_owned(), "https://elsewhere.example/base/x".to_owned()),
        (302, format!("https://{own}/base/x"), format!("https://{own}/base/x")),
        (302, format!("http://{own}/other"), format!("http://{own}/other")),
        (201, format!("http://{own}/base/x"), "/api/x".to_owned()),
        (202, "../jobs/7".to_owned(), "/api/jobs/7".to_owned()),
        (202, "/jobs/7".to_owned(), format!("http://{own}/jobs/7")),
        (200, "/jobs/7".to_owned(), "/jobs/7".to_owned()),
        // A client would resolve these against the egress listener, where they belong to another rule or to none.
        (307, "/jobs/v1/jobs".to_owned(), format!("http://{own}/jobs/v1/jobs")),
        (302, "../../jobs/x?y#z".to_owned(), format!("http://{own}/jobs/x?y#z")),
        (302, "//elsewhere.example/x".to_owned(), "http://elsewhere.example/x".to_owned()),
    ] {
        let locations = relayed(&provider, &callgate, status, &format!("Location: {location}"));
        assert_eq!(locations, [expected], "{location}");
    }
    // The same with a callback in the request.
    provider.answers(
        format!("HTTP/1.1 307 X\r\nLocation: http://{own}/v2/jobs\r\ncontent-length: 0\r\n\r\n").as_bytes(),
    );
    let redirected = callgate.agent_sends("/jobs/v1/jobs", "{}");
    assert_eq!((redirected.status, redirected.header("location")), (307, Some("/jobs/v2/jobs")));
    let value: Value = serde_json::from_slice(&provider.received().pop().unwrap().body).unwrap();
    assert_eq!(value["callback_url"], "https://agent.example.com/jobs/v1/jobs");
}

/// A provider cannot redirect the agent to another rule with the address of the listener, in no spelling that a client
/// understands.
#[test]
fn no_location_leads_to_another_rule() {
    let (provider, callgate) = redirecting();
    let (own, egress) = (provider.address, callgate.egress.unwrap());
    let port = egress.port();
    for (status, location, expected) in [
        (307, format!("http://{egress}/jobs/v1/jobs"), format!("http://{own}/jobs/v1/jobs")),
        (307, format!("https://{egress}/base/x?y"), "/api/x?y".to_owned()),
        (307, format!("//{egress}/jobs/x"), format!("http://{own}/jobs/x")),
        (201, format!("http://{egress}/jobs/x"), format!("http://{own}/jobs/x")),
        (307, format!("HTTP://LocalHost:{port}/jobs/x"), format!("http://{own}/jobs/x")),
        (307, format!("http://localhost.:{port}/jobs/x"), format!("http://{own}/jobs/x")),
        (307, format!("http://127.1:{port}/jobs/x"), format!("http://{own}/jobs/x")),
        (307, format!("http://0x7f.0.0.1:{port}/jobs/x"), format!("http://{own}/jobs/x")),
        (307, format!("http://2130706433:{port}/jobs/x"), format!("http://{own}/jobs/x")),
        (307, format!("http://[::ffff:127.0.0.1]:{port}/jobs/x"), format!("http://{own}/jobs/x")),
        (307, format!("http://a:b@127.0.0.1:{port}/jobs/x"), format!("http://{own}/jobs/x")),
        (307, format!("http://127.0.0.1:0{port}/jobs/x"), format!("http://{own}/jobs/x")),
        (307, format!("http://127.0.0.%31:{port}/jobs/x"), format!("http://{own}/jobs/x")),
        (307, format!("http://Gate.Example:{port}/jobs/x"), format!("http://{own}/jobs/x")),
        (307, "http://localhost/jobs/x".to_owned(), format!("http://{own}/jobs/x")),
        (307, "http:/jobs/x".to_owned(), format!("http://{own}/jobs/x")),
        (307, format!("http:\\\\{egress}\\jobs\\x"), format!("http://{own}/jobs/x")),
        (307, format!("\\\\{egress}\\jobs\\x"), format!("http://{own}/jobs/x")),
        (307, format!("/\t/{egress}/jobs/x"), format!("http://{own}/jobs/x")),
        (307, "/jobs/\u{e9}".to_owned(), format!("http://{own}/jobs/%C3%A9")),
        (
            307,
            format!("http://elsewhere.example:{port}/jobs/x"),
            format!("http://elsewhere.example:{port}/jobs/x"),
        ),
        (307, format!("http://gate.example.com:{port}/x y"), format!("http://gate.example.com:{port}/x y")),
    ] {
        let locations = relayed(&provider, &callgate, status, &format!("Location: {location}"));
        assert_eq!(locations, [expected], "{location}");
    }
    // A client may use either of two values.
    let two = format!("Location: /jobs/x\r\nLocation: http://{egress}/jobs/y");
    let locations = relayed(&provider, &callgate, 307, &two);
    assert_eq!(locations, [format!("http://{own}/jobs/x"), format!("http://{own}/jobs/y")]);
}

#[test]
fn a_whole_api_with_callbacks_works_through_one_rule() {
    let (provider, agent) = (Agent::start(ANSWER), Agent::start(ANSWER));
    let text = config(provider.address, "").replace("127.0.0.1:1\"", &format!("{}\"", agent.address));
    let callgate = Callgate::start(&text, Clock::System);
    let egress = callgate.egress.unwrap();
    assert_eq!(send_to(egress, "GET", "/jobs/v1/models", &[], b"").status, 200);
    let multipart = [("content-type", "multipart/form-data; boundary=b")];
    assert_eq!(send_to(egress, "POST", "/jobs/v1/files", &multipart, b"--b").status, 200);
    let received = provider.received();
    assert_eq!((received[0].target(), received[1].target()), ("/v1/models", "/v1/files"));
    assert_eq!(received[1].body, b"--b");
    assert_eq!(callgate.admin_get("/callbacks").json()["interactions"], json!([]));
    // The capture of the route is the remainder, with characters that separate the captures of a record.
    assert_eq!(callgate.agent_sends("/jobs/v1/jobs/a&b=c/%c3%a9", "{\"n\":1}").status, 200);
    let sent = provider.received().pop().unwrap();
    assert_eq!(sent.target(), "/v1/jobs/a&b=c/%c3%a9");
    let value: Value = serde_json::from_slice(&sent.body).unwrap();
    let url = value["callback_url"].as_str().unwrap();
    assert_eq!(url, "https://agent.example.com/jobs/v1/jobs/a&b=c/%C3%A9");
    let known = callgate.admin_get("/callbacks").json();
    assert_eq!(known["interactions"][0]["captures"], json!({ "rest": "v1/jobs/a&b=c/%C3%A9" }), "{known}");
    let bearer = format!("Bearer {}", value["callback_token"].as_str().unwrap());
    let path = url.strip_prefix("https://agent.example.com").unwrap();
    let call =
        |path: &str| send_to(callgate.ingress, "POST", path, &[("authorization", &bearer)], b"{}").status;
    assert_eq!((call("/jobs/v1/jobs/a&b=c"), call(path)), (401, 200));
    let delivered = eventually(|| agent.received().pop());
    assert_eq!(delivered.target(), "/in/v1/jobs/a&b=c/%C3%A9");
}

#[test]
fn the_provider_sees_at_once_that_the_agent_has_left() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let get = "GET /api/x HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let post = "POST /api/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}";
    let callback = "POST /jobs/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}";
    for (request, parts) in [
        (get, &[][..]),
        (get, &[head]),
        (get, &[head, "data: 1\n\n"]),
        (post, &[]),
        (post, &[head]),
        (post, &[head, "data: 1\n\n"]),
        (callback, &[head]),
        (callback, &[head, "data: 1\n\n"]),
    ] {
        let world = World::new("");
        let mut agent = world.send(request);
        let mut provider = world.provider.accept();
        read_until(&mut provider, "\r\n\r\n");
        if request != get {
            read_until(&mut provider, "}");
        }
        for part in parts {
            provider.write_all(part.as_bytes()).unwrap();
            read_until(&mut agent, if part.starts_with("HTTP") { "\r\n\r\n" } else { "\n\n\r\n" });
        }
        drop(agent);
        let mut rest = Vec::new();
        let _ = provider.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{request} {parts:?}");
        let logged = &world.callgate.log()[0];
        assert_eq!((logged["verdict"].as_str(), logged["status"].as_u64()), (Some("allow"), Some(0)));
    }
}

#[test]
fn a_request_with_a_callback_is_completed_although_the_agent_has_left() {
    let world = World::new("");
    let agent = world.send("POST /jobs/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}");
    let mut provider = world.provider.accept();
    read_until(&mut provider, "}");
    drop(agent);
    // The provider has the callback, so its answer decides about the interaction.
    provider.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap();
    assert_eq!(world.callgate.log()[0]["egress"], "jobs");
}

/// Callgate cannot tell an agent that has left from one that has closed only its sending direction.
#[test]
fn an_agent_that_closes_its_sending_direction_counts_as_gone() {
    for (request, end) in [
        ("GET /api/x HTTP/1.1\r\nhost: localhost\r\n\r\n", "\r\n\r\n"),
        ("POST /api/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}", "{}"),
    ] {
        let world = World::new("");
        let mut agent = world.send(request);
        let mut provider = world.provider.accept();
        read_until(&mut provider, end);
        agent.shutdown(std::net::Shutdown::Write).unwrap();
        let (mut rest, mut response) = (Vec::new(), Vec::new());
        let _ = provider.read_to_end(&mut rest);
        let _ = agent.read_to_end(&mut response);
        assert!(rest.is_empty() && response.is_empty(), "{request}");
        assert_eq!(world.callgate.log()[0]["status"], 0);
    }
}

/// A provider can expect its secret in the path, such as `/bot<token>/sendMessage`.
#[test]
fn the_log_has_no_secret_of_the_remainder() {
    let provider = Agent::start(ANSWER);
    let callgate = Callgate::start(&config(provider.address, ""), Clock::System);
    for (path, logged) in [
        ("bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/sendMessage", "[redacted]/sendMessage"),
        ("services/T0A1B2C3D/B0A1B2C3D/XkXq7Zl0aBcDeFgHiJkLmNoP", "services/T0A1B2C3D/B0A1B2C3D/[redacted]"),
        ("v1/jobs/job-17", "v1/jobs/job-17"),
        ("v1beta/models/gemini-2.5-pro:generateContent", "v1beta/models/gemini-2.5-pro:generateContent"),
    ] {
        assert_eq!(send_to(callgate.egress.unwrap(), "GET", &format!("/api/{path}"), &[], b"").status, 200);
        assert_eq!(provider.received().pop().unwrap().target(), format!("/base/{path}"));
        assert_eq!(callgate.log()[0]["path"], format!("/api/{logged}"));
    }
    assert_eq!(
        send_to(callgate.egress.unwrap(), "GET", "/tg/bot110201543:AAHdqTcvCH1vGWJxf/x", &[], b"").status,
        404
    );
    assert_eq!(callgate.log()[0]["path"], "/tg/[redacted]/x");
}
