//! Limits per caller: time, size, memory, and rate.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callgate::clock::{Clock, instant};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::h2_wire::{END_HEADERS, END_STREAM, HEADERS, Wire, block, frame, reset};
use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, Response, eventually, open_config};

fn with_limits(limits: &str) -> (Agent, Callgate) {
    let agent = Agent::start(ANSWER);
    let config = open_config(&agent.address.to_string())
        .replace("limits: { body_deadline: 1s }", &format!("explain_denials: true\nlimits: {{ {limits} }}"));
    let callgate = Callgate::start(&config, Clock::System);
    (agent, callgate)
}

/// Sends a byte every 20 ms until the connection closes. Returns the response and the time until it arrived.
fn drip(callgate: &Callgate, beginning: &str) -> (Response, Duration) {
    let mut stream = callgate.connect();
    stream.write_all(beginning.as_bytes()).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let began = instant();
    let dripping = std::thread::spawn(move || {
        while began.elapsed() < PATIENCE && writer.write_all(b"a").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let response = Response::read(&mut stream);
    let took = began.elapsed();
    let _ = stream.shutdown(Shutdown::Both);
    dripping.join().unwrap();
    (response, took)
}

#[test]
fn a_dripping_caller_renews_no_deadline() {
    let (agent, callgate) = with_limits("head_deadline: 400ms, body_deadline: 500ms");
    let body = "POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n";
    let chunked = "POST /open/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n";
    for (beginning, reason) in [
        ("", "head_timeout"),
        ("GET /open/x HTTP/1.1\r\nHost: h\r\nX: ", "head_timeout"),
        (body, "body_timeout"),
        (chunked, "body_timeout"),
    ] {
        let (response, took) = drip(&callgate, beginning);
        assert_eq!((response.status, response.json()["reason"].as_str()), (408, Some(reason)), "{beginning}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
    // The deadline also applies to the head of a later request on the same connection.
    let first = "POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok";
    let mut stream = callgate.connect();
    stream.write_all(first.as_bytes()).unwrap();
    assert_eq!(Response::read(&mut stream).status, 200);
    stream.write_all(b"GET /open/x HTTP/1.1\r\nHo").unwrap();
    assert_eq!(Response::read(&mut stream).status, 408);
    assert_eq!(agent.received().len(), 1);
}

#[test]
fn what_comes_too_slowly_is_cut_long_before_the_deadline() {
    let (_agent, callgate) = with_limits("body_deadline: 10m, throughput_min: 100KiB");
    let (response, took) =
        drip(&callgate, "POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
    assert_eq!((response.status, response.json()["reason"].as_str()), (408, Some("body_timeout")));
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn heads_have_a_size_and_so_many_lines() {
    let (agent, callgate) = with_limits("head_max: 2KiB, headers_max: 10");
    let send = |headers: &str| {
        let response = callgate.send(format!("GET /open/x HTTP/1.1\r\nHost: h\r\n{headers}\r\n").as_bytes());
        (response.status, response.json()["reason"].as_str().map(str::to_owned))
    };
    let refused = (431, Some("head_too_large".to_owned()));
    assert_eq!(send(&format!("X: {}\r\n", "a".repeat(3000))), refused);
    assert_eq!(send(&"X: a\r\n".repeat(10)), refused);
    // The caller receives the response even if it is still sending the head, and not a reset.
    assert_eq!(send(&format!("X: {}\r\n", "a".repeat(1_000_000))), refused);
    assert!(agent.received().is_empty());
    let fits = "X: a\r\n".repeat(9);
    let request = format!("GET /open/x HTTP/1.1\r\nHost: h\r\n{fits}\r\n");
    assert_eq!(callgate.send(request.as_bytes()).status, 200);
}

#[test]
fn an_empty_line_may_come_first_however_it_is_cut() {
    let (agent, callgate) = with_limits("idle_timeout: 300ms");
    let request = b"\r\nGET /open/x HTTP/1.1\r\nHost: h\r\n\r\n";
    for at in 1..request.len() {
        let mut stream = callgate.connect();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&request[..at]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        stream.write_all(&request[at..]).unwrap();
        assert_eq!(Response::read(&mut stream).status, 200, "{at}");
    }
    assert_eq!(agent.received().len(), request.len() - 1);
    assert_eq!(callgate.send(b"\r\n\r\nGET /open/x HTTP/1.1\r\nHost: h\r\n\r\n").status, 400);
    // An idle kept connection is closed without a response.
    let mut stream = callgate.connect();
    stream.write_all(&request[2..]).unwrap();
    assert_eq!(Response::read(&mut stream).status, 200);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn so_many_connections_in_all_and_of_one_address() {
    let (_agent, callgate) =
        with_limits("connections_max: 4, connections_per_address_max: 2, idle_timeout: 10s");
    let ask = b"GET /open/x HTTP/1.1\r\nHost: h\r\n\r\n";
    let connect = |last: u8| {
        let mut stream = callgate.connect_from(IpAddr::from([127, 0, 0, last]));
        let _ = stream.write_all(ask);
        let mut byte = [0; 1];
        stream.peek(&mut byte).ok().filter(|n| *n > 0).map(|_| stream)
    };
    let mut held: Vec<_> = [1, 1, 2].map(connect).into_iter().map(Option::unwrap).collect();
    assert!(connect(1).is_none(), "a third one from the same address");
    // The slot of a closed connection is released shortly afterwards.
    held.push(eventually(|| connect(3)));
    assert!(connect(4).is_none(), "a fifth one in all");
    held.remove(0);
    let again = eventually(|| connect(1));
    let metrics = callgate.metrics();
    for reason in ["address_full", "full"] {
        let series = format!("callgate_ingress_connections_refused_total{{reason=\"{reason}\"}}");
        assert!(metrics.contains(&series), "{metrics}");
    }
    drop((again, held));
}

#[test]
fn bodies_have_so_much_memory_in_all() {
    let (agent, callgate) = with_limits("body_deadline: 20s, body_memory_max: 3MiB, throughput_min: 1");
    let head = |bytes: usize| {
        format!("POST /open/x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {bytes}\r\n\r\n")
    };
    let mut first = callgate.connect();
    first.write_all(head(2 << 20).as_bytes()).unwrap();
    let mut interim = [0; 25];
    first.read_exact(&mut interim).unwrap();
    // A declared length reserves no memory. Received bytes reserve memory for themselves and for as much again.
    eventually(|| callgate.metrics().contains("callgate_body_bytes_held 16384").then_some(()));
    let (most, rest) = (vec![b'x'; (2 << 20) - 10], [b'x'; 10]);
    first.write_all(&most).unwrap();
    eventually(|| callgate.metrics().contains("callgate_body_bytes_held 2097152").then_some(()));
    let plain = |framing: &str| {
        let request = format!("POST /open/x HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n");
        let mut stream = callgate.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let refused = Response::read(&mut plain("Content-Length: 1500000"));
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("overloaded")));
    assert!(refused.header("retry-after").is_some());
    // A body without a declared length is denied when it needs more memory than is left.
    let mut chunked = plain("Transfer-Encoding: chunked");
    write!(chunked, "{:x}\r\n", 1_600_000).unwrap();
    let _ = chunked.write_all(&vec![b'x'; 1_600_000]);
    assert_eq!(Response::read(&mut chunked).status, 503);
    let mut small = plain("Content-Length: 4");
    small.write_all(b"abcd").unwrap();
    assert_eq!(Response::read(&mut small).status, 200);
    first.write_all(&rest).unwrap();
    assert_eq!(Response::read(&mut first).status, 200);
    eventually(|| callgate.metrics().contains("callgate_body_bytes_held 0").then_some(()));
    let mut later = plain("Content-Length: 1500000");
    later.write_all(&vec![b'x'; 1_500_000]).unwrap();
    assert_eq!(Response::read(&mut later).status, 200);
    assert_eq!(agent.received().len(), 3);
}

#[test]
fn so_many_requests_of_an_address_and_on_a_route() {
    let (agent, callgate) = with_limits("rate_per_address: 3/h");
    let ask = |last: u8, path: &str| {
        let mut stream = callgate.connect_from(IpAddr::from([127, 0, 0, last]));
        write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        Response::read(&mut stream)
    };
    // Requests to unknown paths are counted as well, because the limit shall prevent guessing.
    let statuses: Vec<_> =
        ["/open/1", "/nope", "/open/2", "/open/3", "/nope"].iter().map(|path| ask(1, path).status).collect();
    assert_eq!(statuses, [200, 404, 200, 429, 429]);
    let refused = ask(1, "/open/4");
    assert_eq!(refused.json()["reason"], "rate_limited");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(ask(2, "/open/1").status, 200);
    assert_eq!(agent.received().len(), 3);

    let agent = Agent::start(ANSWER);
    let config = open_config(&agent.address.to_string())
        .replace("    open: true\n", "    open: true\n    rate: 2/h\n");
    let callgate = Callgate::start(&config, Clock::System);
    let ask = || callgate.send(b"GET /open/x HTTP/1.1\r\nHost: h\r\n\r\n").status;
    // A denied request does not use up the rate of the route.
    assert_eq!(callgate.send(b"DELETE /open/x HTTP/1.1\r\nHost: h\r\n\r\n").status, 405);
    assert_eq!([ask(), ask(), ask()], [200, 200, 503]);
    // The lines of two connections can be written in either order.
    assert!(callgate.logged(4).iter().any(|line| line["reason"] == "route_busy"));
    assert_eq!(agent.received().len(), 2);
}

#[test]
fn a_caller_that_does_not_read_its_answer_is_let_go() {
    let (agent, callgate) = with_limits("throughput_min: 1MiB");
    let body = vec![b'x'; 64 << 20];
    agent.answers(
        &[format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat(),
    );
    let mut stream = callgate.connect();
    stream.write_all(b"GET /open/x HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut some = [0; 1000];
    stream.read_exact(&mut some).unwrap();
    // The log shows a delivered request (`ok`) whose response nobody received (status 0).
    let log = callgate.log();
    assert_eq!((log[0]["status"].as_u64(), log[0]["reason"].as_str()), (Some(0), Some("ok")), "{log:?}");
}

#[test]
fn a_body_of_chunks_takes_no_more_memory_than_it_needs() {
    let (agent, callgate) = with_limits("body_memory_max: 2100KiB");
    let chunks = format!("4000\r\n{}\r\n", "x".repeat(0x4000)).repeat(119);
    let request =
        format!("POST /open/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
    assert_eq!(callgate.send(request.as_bytes()).status, 200);
    assert_eq!(agent.received()[0].body.len(), 119 * 0x4000);
}

#[test]
fn an_answer_that_broke_off_is_not_begun_again() {
    let (agent, callgate) = with_limits("throughput_min: 1MiB");
    let body = "x".repeat(15_000);
    agent.answers(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes());
    let mut stream = callgate.connect();
    stream.write_all("GET /open/x HTTP/1.1\r\nHost: h\r\n\r\n".repeat(2000).as_bytes()).unwrap();
    // The client reads nothing until Callgate has given up on one response.
    while callgate.log().iter().all(|line| line["status"] != 0) {}
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all);
    let mut rest = all.as_str();
    while let Some((head, behind)) = rest.split_once("\r\n\r\n") {
        assert!(head.starts_with("HTTP/1.1 200 ") && head.matches("HTTP/1.1").count() == 1, "{head}");
        let (this, next) = behind.split_at(behind.len().min(body.len()));
        assert!(this.bytes().all(|b| b == b'x'), "another answer within one");
        rest = next;
    }
    assert!(all.len() < 2000 * 15_000);
}

#[test]
fn what_was_delivered_before_takes_nothing_of_a_routes_rate() {
    let agent = Agent::start(ANSWER);
    let provider =
        "providers: { p: { preset: github, duplicates: signature, secrets: [ { env: HMAC_SECRET } ] } }
routes:
  - { name: r, path: /r, provider: p, rate: 2/h, forward: /in/r }
";
    let config = open_config(&agent.address.to_string()).replacen("routes:\n", provider, 1);
    let callgate = Callgate::start(&config, Clock::System);
    let call = |body: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"hush").unwrap();
        mac.update(body.as_bytes());
        let signature = data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes());
        let request = format!(
            "POST /r HTTP/1.1\r\nHost: h\r\nX-Hub-Signature-256: sha256={signature}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        callgate.send(request.as_bytes()).status
    };
    let again = [0; 4].map(|_| call("{}"));
    assert_eq!((again, call("[]"), call("[1]")), ([200; 4], 200, 503));
    assert_eq!(agent.received().len(), 2);
}

#[test]
fn streams_that_are_reset_count_until_their_work_is_done() {
    // An agent that accepts connections but does not respond.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (held, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (keep, count) = (Arc::clone(&held), Arc::clone(&asked));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::SeqCst);
            keep.lock().unwrap().push(stream);
        }
    });
    let config = open_config(&address.to_string())
        .replace("limits: { ", "limits: { streams_max: 10, ")
        .replace("response: 1s", "response: 20s");
    let callgate = Callgate::start(&config, Clock::System);
    let mut wire = Wire::open(callgate.ingress, PATIENCE);
    let get =
        block(&[(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/open/x")]);
    for stream in (1..400).step_by(2) {
        let asks = [frame(HEADERS, END_HEADERS | END_STREAM, stream, &get), reset(stream, 8)].concat();
        if !wire.send(&asks) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let asked = asked.load(Ordering::SeqCst);
    assert!((1..=20).contains(&asked), "{asked} requests at the agent");
}

#[test]
fn heads_of_http_2_have_so_many_lines_too() {
    let (agent, callgate) = with_limits("headers_max: 10");
    let ask = |lines: usize| {
        let headers: Vec<_> = (0..lines).flat_map(|i| ["-H".to_owned(), format!("x-{i}: 1")]).collect();
        let out = Command::new("curl")
            .args(["-s", "--http2-prior-knowledge"])
            .args(headers)
            .arg(format!("http://{}/open/x", callgate.ingress))
            .output()
            .unwrap();
        out.stdout == b"hello"
    };
    assert_eq!([ask(5), ask(20), ask(5)], [true, false, true]);
    assert_eq!(agent.received().len(), 2);
    // The response to HEAD must have no body. Some clients treat a body as a protocol error.
    let out = Command::new("curl")
        .args(["-s", "-I", "-w", "%{http_code}", "--http2-prior-knowledge"])
        .arg(format!("http://{}/nope", callgate.ingress))
        .output()
        .unwrap();
    assert!(out.status.success() && out.stdout.ends_with(b"404"), "{out:?}");
}

/// A reload changes the limits for the next request, also on a connection that was opened before.
#[test]
fn limits_after_a_reload_are_those_of_the_next_request_on_a_kept_connection() {
    let agent = Agent::start(ANSWER);
    let text = open_config(&agent.address.to_string());
    let limits = |more: &str| text.replace("limits: { ", &format!("limits: {{ {more}, "));
    let callgate = Callgate::start(&text, Clock::System);
    let request = |headers: &str, body: usize| {
        let head = format!("POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: {body}\r\n{headers}\r\n");
        [head.as_bytes(), &vec![b'x'; body]].concat()
    };
    let long = format!("X-Long: {}\r\n", "x".repeat(2 << 10));
    for (after, request, status) in [
        (text.replace("/in/{id}", "/in2/{id}"), request("", 2), 200),
        (limits("head_max: 1KiB"), request(&long, 2), 431),
        (limits("headers_max: 3"), request("X-A: 1\r\nX-B: 2\r\n", 2), 431),
        (text.replace("body_max: 2MiB", "body_max: 1KiB"), request("", 2 << 10), 413),
        (
            limits("body_memory_max: 2MiB").replace("body_max: 2MiB", "body_max: 1KiB"),
            request("", 2 << 10),
            413,
        ),
        (text.replace("methods: [POST, GET, HEAD, PUT]", "methods: [GET]"), request("", 2), 405),
        (text.replace("path: /open/", "path: /closed/"), request("", 2), 404),
    ] {
        callgate.reload(&text).unwrap();
        let mut stream = callgate.connect();
        stream.write_all(&request).unwrap();
        assert_eq!(Response::read(&mut stream).status, 200, "{after}");
        callgate.reload(&after).unwrap();
        stream.write_all(&request).unwrap();
        assert_eq!(Response::read(&mut stream).status, status, "{after}");
    }
}
