//! HTTP/2: with prior knowledge on plain listeners, and with ALPN over TLS.

use std::process::Command;

use callgate::clock::Clock;

use crate::h2_wire::{END_HEADERS, END_STREAM, Event, GOAWAY, HEADERS, RST_STREAM, Wire, block, frame};
use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, open_config};

/// Creates a certificate for 127.0.0.1 and its key, as files.
pub fn certificate(folder: &std::path::Path) -> (String, String) {
    let (cert, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .expect("openssl is needed for this test");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (cert.display().to_string(), key.display().to_string())
}

#[test]
fn tls_with_http_1_1_and_http_2() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(folder.path());
    let agent = Agent::start(ANSWER);
    let config = open_config(&agent.address.to_string()).replacen(
        "address: 127.0.0.1:0 }",
        &format!("address: 127.0.0.1:0, tls: {{ certificate: {cert}, key: {key} }} }}"),
        1,
    );
    let callgate = Callgate::start(&config, Clock::System);
    let body = vec![b'x'; 1 << 20];
    let file = folder.path().join("body");
    std::fs::write(&file, &body).unwrap();
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let out = Command::new("curl")
            .args(["-s", "-w", " %{http_code} %{http_version}", flag, "--cacert", &cert, "--data-binary"])
            .arg(format!("@{}", file.display()))
            .arg(format!("https://{}/open/x", callgate.ingress))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), format!("hello 200 {version}"));
        assert!(agent.received().pop().unwrap().body == body);
    }
}

#[test]
fn http_2_is_refused_and_counted_like_http_1_1() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    for (path, status) in [("/open/..%2fx", "400"), ("/nope", "404")] {
        let out = Command::new("curl")
            .args([
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--http2-prior-knowledge",
                "--path-as-is",
                "-d",
                "x",
            ])
            .arg(format!("http://{}{path}", callgate.ingress))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), status);
    }
    assert!(agent.received().is_empty());
    assert!(callgate.metrics().contains("reason=\"path_malformed\""));
}

#[test]
fn split_cookies_are_one_header_for_the_agent() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    let out = Command::new("curl")
        .args(["-s", "--http2-prior-knowledge", "-H", "cookie: a=1", "-H", "cookie: b=2", "-d", "x"])
        .arg(format!("http://{}/open/x", callgate.ingress))
        .output()
        .unwrap();
    assert_eq!(out.stdout, b"hello");
    assert_eq!(agent.received()[0].header("cookie"), ["a=1; b=2"]);
}

/// Returns a GET request on this stream.
fn get(stream: u32, authority: &[u8], more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let pseudo: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", authority), (b":path", b"/open/x")];
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[&pseudo, more].concat()))
}

/// Returns the status or the error code of this stream.
fn end_of(wire: &mut Wire, wanted: u32) -> (Option<u16>, Option<u32>) {
    loop {
        match wire.next(PATIENCE) {
            event @ Event::Frame { kind: HEADERS | RST_STREAM, stream, .. } if stream == wanted => {
                return (event.status(), event.code());
            }
            Event::Frame { .. } => {}
            end => panic!("stream {wanted}: {end:?}"),
        }
    }
}

/// HTTP/2 heads are read as strictly as those of HTTP/1, and denied with the same status.
#[test]
fn hosts_and_padded_values_are_refused_as_in_http_1() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    let mut wire = Wire::open(callgate.ingress, PATIENCE);
    let mut stream = 1;
    let mut ask = |authority: &[u8], more: &[(&[u8], &[u8])]| {
        let http1 = format!("GET /open/x HTTP/1.1\r\nHost: {}\r\n\r\n", String::from_utf8_lossy(authority));
        let status = callgate.send(http1.as_bytes()).status;
        wire.send(&get(stream, authority, more));
        let ends = (status, end_of(&mut wire, stream));
        stream += 2;
        ends
    };
    assert_eq!(ask(b"localhost:80", &[]), (200, (Some(200), None)));
    assert_eq!(ask(b"localhost:", &[]), (200, (Some(200), None)));
    for authority in [&b"localhost:x"[..], b"localhost:8o", b"localhost:+1"] {
        assert_eq!(ask(authority, &[]), (400, (Some(400), None)), "{authority:?}");
    }
    for value in [&b" a"[..], b"a ", b"\ta", b"a\t"] {
        assert_eq!(ask(b"localhost", &[(b"x-a", value)]), (200, (Some(400), None)), "{value:?}");
    }
    assert_eq!(ask(b"localhost", &[(b"x-a", b"a b")]), (200, (Some(200), None)));
}

/// A client may send a refused request again on another connection, because it was not processed (RFC 9113 section
/// 8.7).
#[test]
fn a_stream_that_a_reload_no_longer_allows_is_refused_and_may_be_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(folder.path());
    let agent = Agent::start(ANSWER);
    let plain = open_config(&agent.address.to_string());
    let tls = plain.replacen(
        "address: 127.0.0.1:0 }",
        &format!("address: 127.0.0.1:0, tls: {{ certificate: {cert}, key: {key} }} }}"),
        1,
    );
    let callgate = Callgate::start(&plain, Clock::System);
    let mut wire = Wire::open(callgate.ingress, PATIENCE);
    wire.send(&get(1, b"h", &[]));
    assert_eq!(end_of(&mut wire, 1), (Some(200), None));
    callgate.reload(&tls).unwrap();
    wire.send(&get(3, b"h", &[]));
    let (mut refused, mut goes_away) = (None, false);
    while refused.is_none() || !goes_away {
        match wire.next(PATIENCE) {
            event @ Event::Frame { kind: RST_STREAM, stream: 3, .. } => refused = event.code(),
            Event::Frame { kind, .. } => goes_away |= kind == GOAWAY,
            end => panic!("{end:?}, refused: {refused:?}, GOAWAY: {goes_away}"),
        }
    }
    assert_eq!(refused, Some(7), "REFUSED_STREAM");
    assert_eq!(agent.received().len(), 1);
}

/// Sending a head with too many lines again would not help, so the client must not take it for a refused stream.
#[test]
fn a_head_with_too_many_lines_is_reset_and_the_connection_goes_on() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    let mut wire = Wire::open(callgate.ingress, PATIENCE);
    let lines = |count: usize| vec![(&b"x-a"[..], &b"1"[..]); count];
    wire.send(&get(1, b"h", &lines(101)));
    assert_eq!(end_of(&mut wire, 1), (None, Some(11)), "ENHANCE_YOUR_CALM");
    wire.send(&get(3, b"h", &lines(90)));
    assert_eq!(end_of(&mut wire, 3), (Some(200), None));
    assert_eq!(agent.received().len(), 1);
}
