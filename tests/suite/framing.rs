//! HTTP/1 framing between requests: the rest of a denied request is never parsed as a request, an ambiguous request is
//! never delivered, and every denial has the same form.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use callgate::clock::Clock;

use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, Response, eventually, open_config};

fn start() -> (Agent, Callgate) {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    (agent, callgate)
}

/// The same with an egress listener, whose rule for `/open/{id}` sends to the same agent.
fn open_both_ways(agent: &str) -> String {
    let admin = "admin: { address: 127.0.0.1:0 }";
    let config = open_config(agent);
    assert!(config.contains(admin));
    let rule = format!(
        "egress:
  - {{ name: open, path: \"/open/{{id}}\", target: \"http://{agent}/in/{{id}}\", methods: [POST, GET, HEAD, PUT], body_max: 2MiB }}
"
    );
    config.replace(admin, &format!("{admin}, egress: {{ address: 127.0.0.1:0, hosts: [h] }}")) + &rule
}

/// A listener that speaks HTTP/1.
struct Side {
    name: &'static str,
    address: SocketAddr,
    /// Whether it sends on what it takes. The admin listener knows none of the paths here.
    sends: bool,
}

impl Side {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends `requests` in one piece and reads until the connection ends.
    fn all_answers(&self, requests: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(requests.as_bytes()).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        all
    }
}

/// An agent, which is the provider as well, and every listener there is.
fn start_all() -> (Agent, Callgate, [Side; 3]) {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_both_ways(&agent.address.to_string()), Clock::System);
    let sides = [
        Side { name: "ingress", address: callgate.ingress, sends: true },
        Side { name: "egress", address: callgate.egress.unwrap(), sends: true },
        Side { name: "admin", address: callgate.admin.unwrap(), sends: false },
    ];
    (agent, callgate, sides)
}

/// Those of them that send on what they take.
fn start_both() -> (Agent, Callgate, Vec<Side>) {
    let (agent, callgate, sides) = start_all();
    (agent, callgate, sides.into_iter().filter(|side| side.sends).collect())
}

#[test]
fn a_refused_body_is_never_read_as_a_request() {
    let (agent, _callgate, sides) = start_both();
    let inner = "POST /open/smuggled HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    let framings = [
        format!("Content-Length: {}\r\n\r\n{inner}", inner.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()),
        format!("Content-Length: 70000\r\n\r\n{inner}"),
    ];
    for (side, framing) in sides.iter().flat_map(|side| framings.iter().map(move |framing| (side, framing))) {
        let mut stream = side.connect();
        stream.write_all(format!("POST /nope HTTP/1.1\r\nHost: h\r\n{framing}").as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = String::new();
        let _ = stream.read_to_string(&mut all);
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{}: {all}", side.name);
        assert!(all.starts_with("HTTP/1.1 404"), "{}: {all}", side.name);
    }
    assert!(agent.received().is_empty());
}

#[test]
fn a_short_refused_body_keeps_the_connection() {
    let (agent, _callgate, sides) = start_both();
    for (number, side) in sides.iter().enumerate() {
        let mut stream = side.connect();
        for _ in 0..3 {
            stream.write_all(b"POST /nope HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd").unwrap();
            let refused = Response::read(&mut stream);
            assert_eq!((refused.status, refused.header("connection")), (404, Some("keep-alive")));
        }
        stream.write_all(b"POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nefgh").unwrap();
        assert_eq!(Response::read(&mut stream).status, 200, "{}", side.name);
        assert_eq!(agent.received()[number].body, b"efgh", "{}", side.name);
    }
}

#[test]
fn a_large_refused_body_does_not_lose_the_answer() {
    let (_agent, _callgate, sides) = start_both();
    for side in sides {
        let mut stream = side.connect();
        stream.write_all(b"POST /nope HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").unwrap();
        stream.write_all(&vec![b'x'; 1_000_000]).unwrap();
        let refused = Response::read(&mut stream);
        assert_eq!((refused.status, refused.header("connection")), (404, Some("close")), "{}", side.name);
    }
}

/// Heads, with the beginning of a body, that can be read in more than one way.
const AMBIGUOUS: &[(&str, &str)] = &[
    ("Content-Length: 1\r\nContent-Length: 2\r\n\r\na", "two lengths"),
    ("Content-Length: 1\r\nContent-Length: 1\r\n\r\na", "two lengths that agree"),
    ("Content-Length: +1\r\n\r\na", "signed length"),
    ("Content-Length: 1, 2\r\n\r\na", "list of lengths"),
    ("Content-Length: 0x1\r\n\r\na", "hexadecimal length"),
    ("Transfer-Encoding: gzip\r\n\r\na", "unknown coding"),
    ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "a coding below the chunks"),
    ("Transfer-Encoding: chunked, identity\r\n\r\na", "chunked not last"),
    ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "a length and chunks"),
    ("Host: other\r\nContent-Length: 1\r\n\r\na", "two hosts"),
    ("Bad Header: x\r\nContent-Length: 1\r\n\r\na", "space in a name"),
    ("X: y\nContent-Length: 1\r\n\r\na", "a bare line feed"),
    ("X: y\r\n folded\r\n\r\n", "a folded line"),
];

/// Bodies of chunks that are not framed as they must be.
const BROKEN_CHUNKS: &[&str] = &[
    "zz\r\n",
    "-3\r\n",
    "10000000000000003\r\n",
    "\r\n5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "3\r\nabcXX",
    "3\r\nabc\r\nzz\r\n",
    "3\r\nabc\r\n0\r\nno colon\r\n\r\n",
    "3\r\nabc\r\n0\r\nX: y\n\r\n",
    "3\nabc\r\n0\r\n\r\n",
];

#[test]
fn ambiguous_heads_are_refused() {
    let (agent, callgate, sides) = start_all();
    for (side, (head, what)) in sides.iter().flat_map(|side| AMBIGUOUS.iter().map(move |case| (side, case))) {
        let mut stream = side.connect();
        stream.write_all(format!("POST /open/x HTTP/1.1\r\nHost: h\r\n{head}").as_bytes()).unwrap();
        let response = Response::read(&mut stream);
        // What was refused is told of once its caller is gone, or was waited for.
        drop(stream);
        let case = format!("{}: {what}", side.name);
        assert_eq!((response.status, response.header("connection")), (400, Some("close")), "{case}");
        if side.sends {
            assert_eq!(response.header("content-type"), Some("application/problem+json"), "{case}");
            let line = &callgate.log()[0];
            assert_eq!(
                (line["reason"].as_str(), line["status"].as_u64()),
                (Some("request_malformed"), Some(400))
            );
            assert_eq!(line["egress"].is_string(), side.name == "egress", "{case}: {line}");
            assert!(line["detail"].is_string() || side.name == "ingress", "{case}: {line}");
        }
    }
    for side in &sides {
        let mut stream = side.connect();
        stream.write_all(b"GET /open/x HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(Response::read(&mut stream).status, 400, "{}: no host", side.name);
    }
    assert!(agent.received().is_empty());
    let counted =
        "callgate_egress_requests_total{reason=\"request_malformed\",rule=\"none\",verdict=\"deny\"}";
    let wanted = format!("{counted} {}", AMBIGUOUS.len() + 1);
    // It is counted behind the answer.
    eventually(|| callgate.metrics().contains(&wanted).then_some(()));
}

#[test]
fn every_byte_in_a_target_is_answered_and_recorded() {
    let (_agent, callgate, sides) = start_all();
    let bytes = || (0..=u8::MAX).filter(|b| *b != b'\n');
    for side in sides {
        for byte in bytes() {
            let mut stream = side.connect();
            stream
                .write_all(&[b"GET /open/x", &[byte][..], b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat())
                .unwrap();
            let status = Response::read(&mut stream).status;
            assert!(matches!(status, 200 | 400 | 404), "{} {byte:#x}: {status}", side.name);
        }
        if side.sends {
            assert_eq!(callgate.logged(bytes().count()).len(), bytes().count(), "{}", side.name);
        }
    }
}

#[test]
fn bytes_behind_a_broken_body_are_never_a_request() {
    let (agent, _callgate, sides) = start_all();
    for (side, broken) in sides.iter().flat_map(|side| BROKEN_CHUNKS.iter().map(move |case| (side, case))) {
        let case = format!("{}: {broken:?}", side.name);
        let mut stream = side.connect();
        stream
            .write_all(
                format!("POST /open/1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{broken}")
                    .as_bytes(),
            )
            .unwrap();
        let refused = Response::read(&mut stream);
        assert_eq!((refused.status, refused.header("connection")), (400, Some("close")), "{case}");
        // The request comes in a later segment, when the first answer has been seen.
        let _ = stream.write_all(b"GET /open/smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{case}: {}", String::from_utf8_lossy(&rest));
    }
    assert!(agent.received().is_empty());
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_told_and_counted() {
    let config = open_both_ways("127.0.0.1:1").replace("limits: { ", "limits: { head_deadline: 300ms, ");
    let callgate = Callgate::start(&config, Clock::System);
    for address in [callgate.ingress, callgate.egress.unwrap()] {
        let side = Side { name: "", address, sends: true };
        let mut stream = side.connect();
        stream.write_all(b"GET /open/x HTTP/1.1\r\nHost").unwrap();
        assert_eq!(Response::read(&mut stream).status, 408);
        drop(stream);
        assert_eq!(callgate.log()[0]["reason"], "head_timeout");
        let mut stream = side.connect();
        stream
            .write_all(
                format!("GET /open/x HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(40_000)).as_bytes(),
            )
            .unwrap();
        assert_eq!(Response::read(&mut stream).status, 431);
        drop(stream);
        assert_eq!(callgate.log()[0]["reason"], "head_too_large");
        // A connection that only idles is closed without a word, whatever it meant to speak.
        for beginning in [b"".as_slice(), b"PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let mut stream = side.connect();
            stream.write_all(beginning).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            let speaks_http2 = address == callgate.ingress || beginning.is_empty();
            assert!(!speaks_http2 || !all.starts_with(b"HTTP/1.1"), "{beginning:?}");
        }
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
    let (agent, _callgate, sides) = start_both();
    for (number, side) in sides.iter().enumerate() {
        let send = |request: &[u8]| {
            let mut stream = side.connect();
            stream.write_all(request).unwrap();
            Response::read(&mut stream).status
        };
        assert_eq!(send(b"GET http://h/open/x?a=1 HTTP/1.1\r\nHost: h\r\n\r\n"), 200, "{}", side.name);
        assert_eq!(agent.received()[number].target(), "/in/x?a=1");
        assert_eq!(send(b"GET http://other/open/x HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
        assert_eq!(send(b"GET http://h HTTP/1.1\r\nHost: h\r\n\r\n"), 404);
        assert_eq!(send(b"GET http://h?x=/open/x HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
        assert_eq!(send(b"\r\nGET /open/x#y HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
        let connect = send(b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n");
        assert!((400..500).contains(&connect), "{connect}");
    }
}

#[test]
fn http_1_0_gets_its_answer_and_the_end_of_the_connection() {
    let (_agent, _callgate, sides) = start_both();
    for side in sides {
        let all = side.all_answers("GET /open/x HTTP/1.0\r\nHost: h\r\n\r\n");
        assert!(all.ends_with("hello"), "{}: {all}", side.name);
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let requests = [
        "POST /open/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na",
        "GET /open/2 HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /open/3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX: y\r\n\r\n",
        "POST /none/4 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nGET",
        "POST /open/5 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1\r\n\r\nc",
        "GET /open/6 HTTP/1.1\r\nHost: h\r\n\r\n",
    ];
    for number in 0..3 {
        let (agent, _callgate, sides) = start_all();
        let side = &sides[number];
        let all = side.all_answers(&requests.concat());
        let statuses: Vec<_> =
            all.match_indices("HTTP/1.1 ").filter_map(|(at, _)| all.get(at + 9..at + 12)).collect();
        let received: Vec<_> =
            agent.received().iter().map(|r| (r.target().to_owned(), r.body.clone())).collect();
        if !side.sends {
            assert_eq!((statuses.len(), received.len()), (5, 0), "{}: {all}", side.name);
            continue;
        }
        assert_eq!(statuses, ["200", "200", "200", "404", "200"], "{}: {all}", side.name);
        let expected = [("/in/1", "a"), ("/in/2", ""), ("/in/3", "b"), ("/in/5", "c")];
        let expected = expected.map(|(target, body)| (target.to_owned(), body.as_bytes().to_vec()));
        assert_eq!(received, expected, "{}", side.name);
    }
}

#[test]
fn a_connection_is_kept_as_long_as_both_want() {
    let (_agent, _callgate, sides) = start_all();
    let behind = "GET /open/2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let cases = [
        ("GET /open/1 HTTP/1.1\r\nHost: h\r\n\r\n", 2),
        ("GET /open/1 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", 2),
        ("GET /open/1 HTTP/1.1\r\nHost: h\r\nConnection: x, close\r\n\r\n", 1),
        ("GET /open/1 HTTP/1.1\r\nHost: h\r\nConnection: x\r\nConnection: Close\r\n\r\n", 1),
        ("GET /open/1 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, close\r\n\r\n", 1),
        ("GET /open/1 HTTP/1.0\r\nHost: h\r\n\r\n", 1),
        ("GET /open/1 HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", 2),
        ("HEAD /open/1 HTTP/1.1\r\nHost: h\r\n\r\n", 2),
        ("POST /none HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd\r\n", 2),
        // The body may follow or not, because the client waits for `100 Continue`.
        ("POST /none HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", 1),
    ];
    for (side, (first, answers)) in sides.iter().flat_map(|side| cases.iter().map(move |case| (side, case))) {
        // The admin listener reads every body.
        if !side.sends && first.contains("100-continue") {
            continue;
        }
        let all = side.all_answers(&format!("{first}{behind}"));
        assert_eq!(all.matches("HTTP/1.1 ").count(), *answers, "{}: {first}\n{all}", side.name);
        assert_eq!(all.matches("connection: close").count(), 1, "{}: {first}\n{all}", side.name);
    }
}

#[test]
fn every_answer_has_a_date() {
    let (_agent, _callgate, sides) = start_all();
    let requests = [
        "GET /open/1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /\r\n\r\n",
    ];
    for (side, request) in sides.iter().flat_map(|side| requests.map(move |request| (side, request))) {
        let all = side.all_answers(request);
        let date = all.lines().find_map(|line| line.strip_prefix("date: ")).unwrap_or_default();
        assert!(date.ends_with(" GMT") && date.len() == 29, "{}: {all}", side.name);
    }
}

#[test]
fn who_is_told_to_go_on() {
    let (_agent, _callgate, sides) = start_all();
    for side in sides {
        let expecting = |version: &str, length: usize, body: &str| {
            let head = format!(
                "POST /open/1 HTTP/{version}\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue"
            );
            side.all_answers(&format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}"))
        };
        let status = if side.sends { 200 } else { 405 };
        let told = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 {status} ");
        let untold = format!("HTTP/1.1 {status} ");
        assert!(expecting("1.1", 2, "hi").starts_with(&told), "{}", side.name);
        assert!(expecting("1.1", 0, "").starts_with(&untold), "{}", side.name);
        assert!(expecting("1.0", 2, "hi").starts_with(&untold), "{}", side.name);
    }
}

#[test]
fn chunks_that_break_in_a_later_piece() {
    let (agent, _callgate, sides) = start_all();
    for side in sides {
        let mut stream = side.connect();
        stream
            .write_all(b"POST /open/1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab")
            .unwrap();
        // The verdict on the head is out, and the body is waited for, before the rest comes.
        stream.flush().unwrap();
        std::thread::yield_now();
        stream.write_all(b"cX\r\n0\r\n\r\nGET /open/2 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut all = String::new();
        let _ = stream.read_to_string(&mut all);
        let once = all.matches("HTTP/1.1 ").count() == 1;
        assert!(all.starts_with("HTTP/1.1 400 ") && once, "{}: {all}", side.name);
    }
    assert!(agent.received().is_empty());
}

/// A program behind Callgate never sees trailers and extensions. These are denied because a program in front of it may
/// read them in another way.
#[test]
fn extensions_and_trailers_that_could_mean_something_are_refused() {
    let (agent, _callgate, sides) = start_both();
    let good = ["2;a=b;c=\"d;e\"\r\nok\r\n0\r\nX-Checksum: 1\r\n\r\n", "2;a\r\nok\r\n0;b\r\n\r\n"];
    let bad = [
        "2;\r\nok\r\n0\r\n\r\n",
        "2;;a\r\nok\r\n0\r\n\r\n",
        "2; a\r\nok\r\n0\r\n\r\n",
        "2;a=\r\nok\r\n0\r\n\r\n",
        "2;a=\"b\r\nok\r\n0\r\n\r\n",
        "2;a=b c\r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n0;a b\r\n\r\n",
        "2\r\nok\r\n0\r\nContent-Length: 2\r\n\r\n",
        "2\r\nok\r\n0\r\nX: y\r\nTRANSFER-ENCODING: chunked\r\n\r\n",
        "2\r\nok\r\n0\r\ncontent_length: 2\r\n\r\n",
        "2\r\nok\r\n0\r\nHost: other\r\n\r\n",
    ];
    for side in &sides {
        let ask = |body: &str| {
            let head =
                "POST /open/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
            side.all_answers(&format!("{head}{body}"))
        };
        for body in good {
            assert!(ask(body).starts_with("HTTP/1.1 200"), "{}: {body:?}", side.name);
            assert_eq!(agent.received().pop().unwrap().body, b"ok");
        }
        let delivered = agent.received().len();
        for body in bad {
            assert!(ask(body).starts_with("HTTP/1.1 400"), "{}: {body:?}", side.name);
        }
        assert_eq!(agent.received().len(), delivered, "{}", side.name);
    }
}
