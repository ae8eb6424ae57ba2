//! Bodies of every size and framing reach the agent unchanged.

use std::io::Write;
use std::process::Command;

use callgate::clock::Clock;

use crate::harness::{ANSWER, Agent, Callgate, Response, open_config};

/// Returns bytes whose period is not a power of two, so that a misplaced block is detected.
fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i % 251) as u8).collect()
}

const SIZES: [usize; 8] = [0, 1, 65_535, 65_536, 65_537, 200_000, (1 << 20) + 1, 2 << 20];

#[test]
fn with_content_length() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    for size in SIZES {
        let sent = body(size);
        let mut request =
            format!("POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        request.extend_from_slice(&sent);
        let response = callgate.send(&request);
        assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{size}");
        assert!(agent.received().pop().unwrap().body == sent, "{size}");
    }
    assert_eq!(agent.connections(), 1, "the connection to the agent is kept");
}

#[test]
fn chunked() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    for size in SIZES {
        for chunk in [7_919, 65_536, usize::MAX] {
            let sent = body(size);
            let mut request =
                b"POST /open/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for piece in sent.chunks(chunk.min(size.max(1))) {
                write!(request, "{:x}\r\n", piece.len()).unwrap();
                request.extend_from_slice(piece);
                request.extend_from_slice(b"\r\n");
            }
            request.extend_from_slice(b"0\r\n\r\n");
            assert_eq!(callgate.send(&request).status, 200, "{size} by {chunk}");
            let received = agent.received().pop().unwrap();
            assert!(received.body == sent, "{size} by {chunk}");
            assert_eq!(received.header("content-length"), [size.to_string()]);
            assert!(received.header("transfer-encoding").is_empty());
        }
    }
}

#[test]
fn too_large_is_refused_before_the_rest_is_read() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    let declared = callgate.send(b"POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2097153\r\n\r\nx");
    assert_eq!((declared.status, declared.header("connection")), (413, Some("close")));
    // A chunked body without end: the response arrives when the limit is exceeded, while the client is still sending.
    let mut stream = callgate.connect();
    stream.write_all(b"POST /open/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = [b"10000\r\n".as_slice(), &body(65_536), b"\r\n"].concat();
    for _ in 0..33 {
        stream.write_all(&chunk).unwrap();
    }
    let refused = Response::read(&mut stream);
    assert_eq!((refused.status, refused.header("connection")), (413, Some("close")));
    assert!(agent.received().is_empty());
}

#[test]
fn expect_continue_is_answered_before_the_body_is_asked_for() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    let mut stream = callgate.begin_exchange();
    stream.write_all(b"hi").unwrap();
    assert_eq!(Response::read(&mut stream).status, 200);
    assert!(agent.received()[0].header("expect").is_empty());
    // If the head is denied, the response replaces `100 Continue`, and the connection closes because the body may
    // follow or not.
    let refused =
        callgate.send(b"POST /nope HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!((refused.status, refused.header("connection")), (404, Some("close")));
}

#[test]
fn a_body_that_breaks_off_or_drips_is_refused() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    let mut stream = callgate.connect();
    stream.write_all(b"POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(Response::read(&mut stream).status, 400);
    assert_eq!(callgate.log()[0]["reason"], "body_incomplete");
    let mut stream = callgate.connect();
    stream.write_all(b"POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc").unwrap();
    assert_eq!(Response::read(&mut stream).status, 408);
    assert_eq!(callgate.log()[0]["reason"], "body_timeout");
    let bad_chunk =
        b"POST /open/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n";
    assert_eq!(callgate.send(bad_chunk).status, 400);
    assert!(agent.received().is_empty());
}

#[test]
fn curl_with_every_framing() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    for size in [1, 65_536, 65_537, 1 << 20] {
        std::fs::write(&file, body(size)).unwrap();
        let data = format!("@{}", file.display());
        let url = format!("http://{}/open/x", callgate.ingress);
        let framings: [&[&str]; 5] = [
            &["--http1.1"],
            &["--http1.1", "-H", "Transfer-Encoding: chunked"],
            &["--http1.1", "-H", "Expect: 100-continue"],
            &["--http1.0"],
            &["--http2-prior-knowledge"],
        ];
        for framing in framings {
            let out = Command::new("curl")
                .args(["-s", "-w", "%{http_code}", "--data-binary", &data])
                .args(framing)
                .arg(&url)
                .output()
                .expect("curl is needed for this test");
            assert_eq!(String::from_utf8_lossy(&out.stdout), "hello200", "{framing:?} {size}");
            assert!(agent.received().pop().unwrap().body == body(size), "{framing:?} {size}");
        }
    }
}
