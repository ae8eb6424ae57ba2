//! Routes with `stream: true`: requests and responses are passed on while they arrive, within the limits for callers.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use callgate::clock::Clock;
use serde_json::Value;

use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, Response, eventually, send_to};

/// Returns a configuration with an open stream `/api/{id}` and a stream with a token.
fn config(agent: &str, more: &str) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\", timeouts: {{ connect: 1s, response: 20s }} }}
assertion: {{ key: {{ id: a1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} }}
{more}
routes:
  - {{ name: api, path: \"/api/{{id}}\", methods: [GET, POST, HEAD], stream: true, open: true, forward: \"/in/{{id}}\", body_max: 2MiB }}
  - {{ name: keyed, path: \"/keyed/{{id}}\", stream: true, token: {{ kind: static, header: x-key, secrets: [ {{ env: STATIC }} ] }}, forward: \"/in/{{id}}\" }}
"
    )
}

/// An agent that the test plays byte by byte.
struct Manual(TcpListener);

impl Manual {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn callgate(&self, more: &str) -> Callgate {
        Callgate::start(&config(&self.0.local_addr().unwrap().to_string(), more), Clock::System)
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// Reads until the bytes contain `end`, and returns them.
fn read_until(stream: &mut impl Read, end: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(end) {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{end:?} in {:?}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

/// Reads to the end, and returns whether the connection was closed or reset.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    rest.is_empty()
}

#[test]
fn bytes_are_passed_on_in_both_directions_while_they_arrive() {
    let manual = Manual::start();
    let callgate = manual.callgate("");
    let mut caller = callgate.connect();
    for round in 0..2 {
        write!(caller, "POST /api/1?a=b HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nfirst").unwrap();
        // The rest of the body is sent only after the agent has received the first part.
        let mut agent = manual.accept();
        let head = read_until(&mut agent, "\r\n\r\n").to_lowercase();
        assert!(head.starts_with("post /in/1?a=b http/1.1\r\nhost: agent.example.com\r\n"), "{head}");
        assert!(
            head.contains("\r\ncontent-length: 10\r\n") && head.contains("\r\ncallgate-route: api\r\n"),
            "{head}"
        );
        read_until(&mut agent, "first");
        caller.write_all(b"later").unwrap();
        read_until(&mut agent, "later");
        // The head of the response arrives before the first event, and each event before the next one.
        write!(agent, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").unwrap();
        let head = read_until(&mut caller, "\r\n\r\n").to_lowercase();
        assert!(head.contains("text/event-stream") && head.contains("transfer-encoding: chunked"), "{head}");
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            agent.write_all(event.as_bytes()).unwrap();
            read_until(&mut caller, event);
        }
        drop(agent);
        read_until(&mut caller, "\r\n0\r\n\r\n");
        let logged = &callgate.log()[0];
        assert_eq!(
            (logged["verdict"].as_str(), logged["reason"].as_str()),
            (Some("allow"), Some("stream")),
            "{round}"
        );
        assert_eq!((logged["status"].as_u64(), logged["body_bytes"].as_u64()), (Some(200), Some(10)));
    }
    let metrics = callgate.metrics();
    assert!(metrics.contains("\ncallgate_routes_streaming 2\n"), "{metrics}");
    assert!(
        metrics.contains("callgate_agent_requests_total{agent=\"agent\",result=\"accepted\"} 2\n"),
        "{metrics}"
    );
}

#[test]
fn a_body_without_a_length_is_passed_on_in_chunks() {
    let manual = Manual::start();
    let callgate = manual.callgate("");
    let mut caller = callgate.connect();
    write!(caller, "POST /api/1 HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .unwrap();
    let mut agent = manual.accept();
    let head = read_until(&mut agent, "\r\n\r\n").to_lowercase();
    assert!(
        head.contains("\r\ntransfer-encoding: chunked\r\n") && !head.contains("content-length"),
        "{head}"
    );
    assert_eq!(read_until(&mut agent, "first\r\n"), "5\r\nfirst\r\n");
    caller.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(read_until(&mut agent, "\r\n\r\n"), "0\r\n\r\n");
    agent.write_all(ANSWER).unwrap();
    assert_eq!(Response::read(&mut caller).text(), "hello");
    // The next request uses both connections again.
    write!(caller, "GET /api/2 HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
    let head = read_until(&mut agent, "\r\n\r\n").to_lowercase();
    assert!(head.starts_with("get /in/2 ") && !head.contains("content-length"), "{head}");
    write!(agent, "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n").unwrap();
    let redirected = Response::read(&mut caller);
    assert_eq!(
        (redirected.status, redirected.header("location")),
        (302, Some("/elsewhere")),
        "the API decides"
    );
}

#[test]
fn http_2_requests_are_passed_on() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&config(&agent.address.to_string(), ""), Clock::System);
    let url = format!("http://{}/api/1", callgate.ingress);
    let curl = |args: &[&str]| {
        let out = Command::new("curl")
            .args(["-s", "-S", "--http2-prior-knowledge"])
            .args(args)
            .arg(&url)
            .output()
            .unwrap();
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    };
    assert_eq!(curl(&[]), "hello");
    assert_eq!(curl(&["-d", "0123456789"]), "hello");
    let received = agent.wait_for(2);
    assert_eq!(
        (received[0].header("content-length").len(), received[1].body.as_slice()),
        (0, &b"0123456789"[..])
    );
}

#[test]
fn events_are_not_held_back_over_http_2() {
    let manual = Manual::start();
    let callgate = manual.callgate("");
    let mut curl = Command::new("curl")
        .args(["-s", "-N", "-v", "--http2-prior-knowledge", "-d", "{}"])
        .arg(format!("http://{}/api/1", callgate.ingress))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut output, mut log) = (curl.stdout.take().unwrap(), curl.stderr.take().unwrap());
    let mut agent = manual.accept();
    read_until(&mut agent, "{}");
    write!(agent, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").unwrap();
    read_until(&mut log, "< content-type: text/event-stream");
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        agent.write_all(event.as_bytes()).unwrap();
        read_until(&mut output, event);
    }
    drop(agent);
    assert!(curl.wait().unwrap().success());
}

#[test]
fn limits_for_callers_apply_to_streams() {
    let manual = Manual::start();
    let callgate = manual.callgate("limits: { body_memory_max: 64KiB }");
    let chunks = |caller: &mut TcpStream, count: usize| {
        for _ in 0..count {
            write!(caller, "10000\r\n").unwrap();
            caller.write_all(&[b'x'; 1 << 16]).unwrap();
            caller.write_all(b"\r\n").unwrap();
        }
    };
    // A body that is larger than the memory for bodies is passed on, because it is never in memory.
    let mut caller = callgate.connect();
    write!(caller, "POST /api/1 HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let agent = std::thread::spawn({
        let mut agent = manual.accept();
        move || {
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n0\r\n\r\n") {
                let mut piece = [0; 1 << 16];
                let count = agent.read(&mut piece).unwrap();
                bytes.extend_from_slice(&piece[..count]);
                if count == 0 {
                    return None;
                }
            }
            agent.write_all(ANSWER).unwrap();
            Some(bytes.iter().filter(|byte| **byte == b'x').count())
        }
    });
    chunks(&mut caller, 32);
    caller.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(Response::read(&mut caller).status, 200);
    assert!(agent.join().unwrap().unwrap() >= 2 << 20);
    let callgate = manual.callgate("limits: { body_deadline: 1s }");
    // A body that is too large or too slow, or that ends early, ends the request to the agent before its end.
    let mut caller = callgate.connect();
    write!(caller, "POST /api/2 HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .unwrap();
    let mut agent = manual.accept();
    read_until(&mut agent, "first\r\n");
    assert_eq!(Response::read(&mut caller).status, 408);
    assert!(is_closed(&mut agent), "no last chunk");
    let mut caller = callgate.connect();
    write!(caller, "POST /api/3 HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nfirst").unwrap();
    let mut agent = manual.accept();
    read_until(&mut agent, "first");
    drop(caller);
    assert!(is_closed(&mut agent));
    let declared = send_to(callgate.ingress, "POST", "/api/4", &[("content-length", "2097153")], b"");
    assert_eq!(declared.status, 400, "two lengths");
    let mut caller = callgate.connect();
    write!(caller, "POST /api/4 HTTP/1.1\r\nhost: h\r\ncontent-length: 2097153\r\n\r\n").unwrap();
    assert_eq!(Response::read(&mut caller).status, 413);
}

#[test]
fn a_body_above_the_limit_never_ends_at_the_agent() {
    let manual = Manual::start();
    let callgate = manual.callgate("");
    let mut caller = callgate.connect();
    write!(caller, "POST /api/1 HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let agent = std::thread::spawn({
        let mut agent = manual.accept();
        move || {
            let mut bytes = Vec::new();
            let _ = agent.read_to_end(&mut bytes);
            bytes.ends_with(b"0\r\n\r\n")
        }
    });
    let mut sender = caller.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        // Callgate stops reading, so that a write may fail.
        for _ in 0..40 {
            let mut bytes = b"10000\r\n".to_vec();
            bytes.extend_from_slice(&[b'x'; 1 << 16]);
            bytes.extend_from_slice(b"\r\n");
            if sender.write_all(&bytes).is_err() {
                break;
            }
        }
    });
    assert_eq!(Response::read(&mut caller).status, 413);
    assert!(!agent.join().unwrap(), "the agent sees an incomplete request");
    drop(caller);
    sending.join().unwrap();
}

/// Tests that a 2xx response to an incomplete request is passed on after the whole request was sent.
#[test]
fn an_early_success_of_the_agent_does_not_cut_off_the_request() {
    let manual = Manual::start();
    let callgate = manual.callgate("");
    let mut caller = callgate.connect();
    write!(caller, "POST /api/1 HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nfirst").unwrap();
    let mut agent = manual.accept();
    read_until(&mut agent, "first");
    agent.write_all(ANSWER).unwrap();
    write!(caller, "other").unwrap();
    read_until(&mut agent, "other");
    assert_eq!(Response::read(&mut caller).text(), "hello");
    assert_eq!(callgate.log()[0]["reason"], "stream");
}

#[test]
fn faults_of_the_agent_have_the_same_reasons_as_for_callbacks() {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let callgate = Callgate::start(&config(&nowhere.to_string(), ""), Clock::System);
    assert_eq!(send_to(callgate.ingress, "POST", "/api/1", &[], b"{}").status, 503);
    assert_eq!(callgate.log()[0]["reason"], "agent_unreachable");
    for (answer, status, reason) in [
        ("", 502, "agent_reset"),
        ("nonsense\r\n\r\n", 502, "agent_garbled"),
        // An agent may refuse a body without reading it. The caller receives the response.
        ("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno", 413, "stream"),
    ] {
        let manual = Manual::start();
        let callgate = manual.callgate("");
        let mut caller = callgate.connect();
        write!(caller, "POST /api/1 HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nfirst").unwrap();
        let mut agent = manual.accept();
        read_until(&mut agent, "first");
        agent.write_all(answer.as_bytes()).unwrap();
        drop(agent);
        let response = Response::read(&mut caller);
        assert_eq!(response.status, status, "{answer:?}");
        assert_eq!(callgate.log()[0]["reason"], reason, "{answer:?}");
        caller.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = caller.read_to_end(&mut rest);
        assert!(rest.is_empty(), "the connection ends after a body that was not read");
    }
}

#[test]
fn the_token_is_removed_and_the_assertion_has_no_hash_of_the_body() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&config(&agent.address.to_string(), ""), Clock::System);
    assert_eq!(send_to(callgate.ingress, "POST", "/keyed/1", &[("x-key", "wrong")], b"{}").status, 401);
    let key = [("x-key", "a static secret")];
    assert_eq!(send_to(callgate.ingress, "POST", "/keyed/1", &key, b"{}").status, 200);
    let received = eventually(|| agent.received().pop());
    assert_eq!(
        (received.header("x-key").len(), received.header("callgate-client-address")),
        (0, vec!["127.0.0.1"])
    );
    let assertion = received.header("callgate-assertion")[0];
    let claims =
        data_encoding::BASE64URL_NOPAD.decode(assertion.split('.').nth(1).unwrap().as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((claims["target"].as_str(), claims["route"].as_str()), (Some("/in/1"), Some("keyed")));
    assert!(claims.get("body_sha256").is_none(), "{claims}");
    assert_eq!(agent.received().len(), 1);
}

#[test]
fn the_agent_sees_at_once_that_the_caller_has_left() {
    // After these parts of the response, the caller leaves and the agent is silent.
    let parts = [
        &[][..],
        &["HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"],
        &["HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", "data: 1\n\n"],
    ];
    for (request, parts) in ["GET", "POST"].iter().flat_map(|request| parts.map(|parts| (request, parts))) {
        for http2 in [false, true] {
            let manual = Manual::start();
            let callgate = manual.callgate("");
            let version = if http2 { "--http2-prior-knowledge" } else { "--http1.1" };
            // The length is unknown, so that the agent receives the last chunk after the end of the request was read.
            let body: &[&str] =
                if *request == "POST" { &["-X", "POST", "-H", "expect:", "-T", "-"] } else { &[] };
            let mut caller = Command::new("curl")
                .args(["-s", "-N", version])
                .args(body)
                .arg(format!("http://{}/api/1", callgate.ingress))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            caller.stdin.take().unwrap().write_all(b"{}").unwrap();
            let mut agent = manual.accept();
            read_until(&mut agent, if body.is_empty() { "\r\n\r\n" } else { "\r\n0\r\n\r\n" });
            for part in parts {
                agent.write_all(part.as_bytes()).unwrap();
            }
            if let [_, event] = parts {
                read_until(caller.stdout.as_mut().unwrap(), event);
            }
            caller.kill().unwrap();
            caller.wait().unwrap();
            assert!(is_closed(&mut agent), "{request} {http2} {parts:?}");
            let logged = &callgate.log()[0];
            let logged = (logged["verdict"].as_str(), logged["reason"].as_str(), logged["status"].as_u64());
            assert_eq!(logged, (Some("allow"), Some("stream"), Some(0)), "{request} {http2} {parts:?}");
        }
    }
}

/// Callgate cannot tell a caller that has left from one that has closed only its sending direction.
#[test]
fn a_caller_that_closes_its_sending_direction_counts_as_gone() {
    for (request, end) in [
        ("GET /api/1 HTTP/1.1\r\nhost: h\r\n\r\n", "\r\n\r\n"),
        ("POST /api/1 HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}", "{}"),
    ] {
        let manual = Manual::start();
        let callgate = manual.callgate("");
        let mut caller = callgate.connect();
        caller.write_all(request.as_bytes()).unwrap();
        let mut agent = manual.accept();
        read_until(&mut agent, end);
        caller.shutdown(Shutdown::Write).unwrap();
        assert!(is_closed(&mut agent) && is_closed(&mut caller), "{request}");
        assert_eq!(callgate.log()[0]["status"], 0, "{request}");
    }
}
