//! HTTP/1 framing between requests: the rest of a denied request is never parsed as a request, an ambiguous request is
//! never delivered, and every denial has the same form.

use std::io::{Read, Write};

use callgate::proxy::Clock;

use crate::harness::{ANSWER, Agent, Callgate, Response, open_config};

fn start() -> (Agent, Callgate) {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    (agent, callgate)
}

#[test]
fn a_refused_body_is_never_read_as_a_request() {
    let (agent, callgate) = start();
    let inner = "POST /open/smuggled HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    for framing in [
        format!("Content-Length: {}\r\n\r\n{inner}", inner.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()),
        format!("Content-Length: 70000\r\n\r\n{inner}"),
    ] {
        let mut stream = callgate.connect();
        write!(stream, "POST /nope HTTP/1.1\r\nHost: h\r\n{framing}").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = String::new();
        let _ = stream.read_to_string(&mut all);
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
        assert!(all.starts_with("HTTP/1.1 404"), "{all}");
    }
    assert!(agent.received().is_empty());
}

#[test]
fn a_short_refused_body_keeps_the_connection() {
    let (agent, callgate) = start();
    let mut stream = callgate.connect();
    for _ in 0..3 {
        stream.write_all(b"POST /nope HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd").unwrap();
        let refused = Response::read(&mut stream);
        assert_eq!((refused.status, refused.header("connection")), (404, Some("keep-alive")));
    }
    stream.write_all(b"POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nefgh").unwrap();
    assert_eq!(Response::read(&mut stream).status, 200);
    assert_eq!(agent.received()[0].body, b"efgh");
}

#[test]
fn a_large_refused_body_does_not_lose_the_answer() {
    let (_agent, callgate) = start();
    let mut stream = callgate.connect();
    stream.write_all(b"POST /nope HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    stream.write_all(&vec![b'x'; 1_000_000]).unwrap();
    let refused = Response::read(&mut stream);
    assert_eq!((refused.status, refused.header("connection")), (404, Some("close")));
}

#[test]
fn ambiguous_heads_are_refused() {
    let (agent, callgate) = start();
    for (head, what) in [
        ("Content-Length: 1\r\nContent-Length: 2\r\n", "two lengths"),
        ("Content-Length: +1\r\n", "signed length"),
        ("Content-Length: 1, 2\r\n", "list of lengths"),
        ("Content-Length: 0x1\r\n", "hexadecimal length"),
        ("Transfer-Encoding: gzip\r\n", "unknown coding"),
        ("Transfer-Encoding: chunked, identity\r\n", "chunked not last"),
        ("Host: other\r\nContent-Length: 1\r\n", "two hosts"),
        ("Bad Header: x\r\nContent-Length: 1\r\n", "space in a name"),
    ] {
        let request = format!("POST /open/x HTTP/1.1\r\nHost: h\r\n{head}\r\na");
        let response = callgate.send(request.as_bytes());
        assert_eq!(response.status, 400, "{what}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{what}");
        assert_eq!(callgate.log()[0]["reason"], "request_malformed", "{what}");
    }
    assert_eq!(callgate.send(b"GET /open/x HTTP/1.1\r\n\r\n").status, 400, "no host");
    assert!(agent.received().is_empty());
}

#[test]
fn every_byte_in_a_target_is_answered_and_recorded() {
    let (_agent, callgate) = start();
    let bytes = || (0..=u8::MAX).filter(|b| *b != b'\n');
    for byte in bytes() {
        let request = [b"GET /open/x", &[byte][..], b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        let status = callgate.send(&request).status;
        assert!(matches!(status, 200 | 400 | 404), "{byte:#x}: {status}");
    }
    let mut logged = 0;
    while logged < bytes().count() {
        logged += callgate.log().len();
    }
    assert_eq!(logged, bytes().count());
}

#[test]
fn bytes_behind_a_broken_body_are_never_a_request() {
    let (agent, callgate) = start();
    for broken in ["zz\r\n", "-3\r\n", "10000000000000003\r\n", "3\r\nabcXX", "3\r\nabc\r\nzz\r\n"] {
        let mut stream = callgate.connect();
        write!(stream, "POST /open/1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{broken}")
            .unwrap();
        let refused = Response::read(&mut stream);
        assert_eq!((refused.status, refused.header("connection")), (400, Some("close")), "{broken:?}");
        // The next request arrives in a later segment, after the first response.
        let _ = stream.write_all(b"GET /open/smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{broken:?}: {}", String::from_utf8_lossy(&rest));
    }
    assert!(agent.received().is_empty());
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_told_and_counted() {
    let config = open_config("127.0.0.1:1").replace("limits: { ", "limits: { head_deadline: 300ms, ");
    let callgate = Callgate::start(&config, Clock::System);
    let mut stream = callgate.connect();
    stream.write_all(b"GET /open/x HTTP/1.1\r\nHost").unwrap();
    assert_eq!(Response::read(&mut stream).status, 408);
    assert_eq!(callgate.log()[0]["reason"], "head_timeout");
    // An idle connection is closed without a response, even if the client began to send HTTP/2.
    for beginning in [b"".as_slice(), b"PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = callgate.connect();
        stream.write_all(beginning).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(!all.starts_with(b"HTTP/1.1"), "{beginning:?}");
    }
}

#[test]
fn a_denial_is_a_problem_document_without_the_reason() {
    let (_agent, callgate) = start();
    let denied = callgate.send(b"DELETE /open/x HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(denied.status, 405);
    assert_eq!(denied.header("content-type"), Some("application/problem+json"));
    assert_eq!(denied.header("allow"), Some("post, get, head, put"));
    assert_eq!(denied.header("cache-control"), Some("no-store"));
    let problem = denied.json();
    assert_eq!(problem["status"], 405);
    assert_eq!(problem["title"], "Method Not Allowed");
    assert_eq!(problem["reason"], serde_json::Value::Null);
    assert_eq!(problem["request_id"], callgate.log()[0]["request_id"]);
}

#[test]
fn the_reason_is_told_where_that_is_configured() {
    let config = format!("explain_denials: true\n{}", open_config("127.0.0.1:1"));
    let callgate = Callgate::start(&config, Clock::System);
    assert_eq!(callgate.send(b"GET /nope HTTP/1.1\r\nHost: h\r\n\r\n").json()["reason"], "route_unknown");
}

#[test]
fn the_absolute_form_is_read_as_its_path() {
    let (agent, callgate) = start();
    assert_eq!(callgate.send(b"GET http://h/open/x?a=1 HTTP/1.1\r\nHost: h\r\n\r\n").status, 200);
    assert_eq!(agent.received()[0].target(), "/in/x?a=1");
    assert_eq!(callgate.send(b"GET http://other/open/x HTTP/1.1\r\nHost: h\r\n\r\n").status, 400);
    assert_eq!(callgate.send(b"GET http://h HTTP/1.1\r\nHost: h\r\n\r\n").status, 404);
    assert_eq!(callgate.send(b"GET http://h?x=/open/x HTTP/1.1\r\nHost: h\r\n\r\n").status, 400);
    assert_eq!(callgate.send(b"\r\nGET /open/x#y HTTP/1.1\r\nHost: h\r\n\r\n").status, 400);
    let connect = callgate.send(b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n");
    assert!((400..500).contains(&connect.status), "{connect:?}");
}

#[test]
fn http_1_0_gets_its_answer_and_the_end_of_the_connection() {
    let (_agent, callgate) = start();
    let mut stream = callgate.connect();
    stream.write_all(b"GET /open/x HTTP/1.0\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.ends_with("hello"), "{all}");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let (agent, callgate) = start();
    let mut stream = callgate.connect();
    let requests = [
        "POST /open/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na",
        "GET /open/2 HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /open/3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX: y\r\n\r\n",
        "POST /none/4 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nGET",
        "POST /open/5 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1\r\n\r\nc",
        "GET /open/6 HTTP/1.1\r\nHost: h\r\n\r\n",
    ];
    stream.write_all(requests.concat().as_bytes()).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    let statuses: Vec<_> =
        all.match_indices("HTTP/1.1 ").filter_map(|(at, _)| all.get(at + 9..at + 12)).collect();
    assert_eq!(statuses, ["200", "200", "200", "404", "200"], "{all}");
    let received: Vec<_> = agent.received().iter().map(|r| (r.target().to_owned(), r.body.clone())).collect();
    let expected = [("/in/1", "a"), ("/in/2", ""), ("/in/3", "b"), ("/in/5", "c")];
    assert_eq!(received, expected.map(|(target, body)| (target.to_owned(), body.as_bytes().to_vec())));
}

/// Sends `requests` at once, and reads until the connection ends.
fn all_answers(callgate: &Callgate, requests: &str) -> String {
    let mut stream = callgate.connect();
    stream.write_all(requests.as_bytes()).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    all
}

#[test]
fn a_connection_is_kept_as_long_as_both_want() {
    let (_agent, callgate) = start();
    let behind = "GET /open/2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    for (first, answers) in [
        ("GET /open/1 HTTP/1.1\r\nHost: h\r\n\r\n", 2),
        ("GET /open/1 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", 2),
        ("GET /open/1 HTTP/1.1\r\nHost: h\r\nConnection: x, close\r\n\r\n", 1),
        ("GET /open/1 HTTP/1.1\r\nHost: h\r\nConnection: x\r\nConnection: Close\r\n\r\n", 1),
        ("GET /open/1 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, close\r\n\r\n", 1),
        ("GET /open/1 HTTP/1.0\r\n\r\n", 1),
        ("GET /open/1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 2),
        ("HEAD /open/1 HTTP/1.1\r\nHost: h\r\n\r\n", 2),
        ("POST /none HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd\r\n", 2),
        // The body may follow or not, because the client waits for `100 Continue`.
        ("POST /none HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", 1),
    ] {
        let all = all_answers(&callgate, &format!("{first}{behind}"));
        assert_eq!(all.matches("HTTP/1.1 ").count(), answers, "{first}\n{all}");
        assert_eq!(all.matches("connection: close").count(), 1, "{first}\n{all}");
    }
}

#[test]
fn every_answer_has_a_date() {
    let (_agent, callgate) = start();
    for request in [
        "GET /open/1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /\r\n\r\n",
    ] {
        let all = all_answers(&callgate, request);
        let date = all.lines().find_map(|line| line.strip_prefix("date: ")).unwrap_or_default();
        assert!(date.ends_with(" GMT") && date.len() == 29, "{all}");
    }
    assert!(callgate.admin_get("/livez").header("date").is_some());
}

#[test]
fn who_is_told_to_go_on() {
    let (_agent, callgate) = start();
    let expecting = |version: &str, length: usize, body: &str| {
        let head =
            format!("POST /open/1 HTTP/{version}\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue");
        all_answers(&callgate, &format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}"))
    };
    assert!(expecting("1.1", 2, "hi").starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "));
    assert!(expecting("1.1", 0, "").starts_with("HTTP/1.1 200 "));
    assert!(expecting("1.0", 2, "hi").starts_with("HTTP/1.1 200 "));
}

#[test]
fn chunks_that_break_in_a_later_piece() {
    let (agent, callgate) = start();
    let mut stream = callgate.connect();
    stream
        .write_all(b"POST /open/1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab")
        .unwrap();
    // Before the rest is sent, the head was accepted and Callgate is waiting for the body.
    stream.flush().unwrap();
    std::thread::yield_now();
    stream.write_all(b"cX\r\n0\r\n\r\nGET /open/2 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all);
    assert!(all.starts_with("HTTP/1.1 400 ") && all.matches("HTTP/1.1 ").count() == 1, "{all}");
    assert!(agent.received().is_empty());
}
