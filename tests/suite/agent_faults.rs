//! Agents that are down, slow, closed, or send malformed responses, and responses in every framing.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Mutex;

use callgate::clock::Clock;

use crate::harness::{ANSWER, Agent, Callgate, Received, Response, converse, open_config};

const REQUEST: &[u8] = b"POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi";

#[track_caller]
fn fails(callgate: &Callgate, status: u16, reason: &str) {
    let response = callgate.send(REQUEST);
    assert_eq!(response.status, status, "{reason}");
    assert_eq!(response.header("retry-after"), Some("5"), "{reason}");
    let log = callgate.log().remove(0);
    assert_eq!((log["verdict"].as_str(), log["reason"].as_str()), (Some("fail"), Some(reason)));
}

/// Returns an address on which nothing listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn an_agent_that_is_down() {
    let callgate = Callgate::start(&open_config(&nobody()), Clock::System);
    fails(&callgate, 503, "agent_unreachable");
}

#[test]
fn an_agent_that_never_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let callgate = Callgate::start(&open_config(&listener.local_addr().unwrap().to_string()), Clock::System);
    fails(&callgate, 504, "agent_timeout");
}

#[test]
fn an_agent_that_hangs_up_gets_the_request_once() {
    let agent = Agent::start(b"");
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    fails(&callgate, 502, "agent_reset");
    assert_eq!((agent.received().len(), agent.connections()), (1, 1), "never sent twice");
}

#[test]
fn an_agent_that_redirects_has_not_accepted_the_callback() {
    for status in [300, 301, 302, 303, 307, 308] {
        let answer = format!(
            "HTTP/1.1 {status} Elsewhere\r\nLocation: http://10.0.0.7/in/x\r\nContent-Length: 2\r\n\r\nno"
        );
        let agent = Agent::start(answer.as_bytes());
        let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
        let response = callgate.send(REQUEST);
        assert_eq!(
            (response.status, response.header("location"), response.header("retry-after")),
            (502, None, Some("5"))
        );
        assert!(!response.text().contains("10.0.0.7"));
        assert_eq!(callgate.log().remove(0)["reason"], "agent_redirected");
    }
    let agent = Agent::start(b"HTTP/1.1 304 Same\r\n\r\n");
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    assert_eq!(callgate.send(REQUEST).status, 304);
}

#[test]
fn an_agent_that_closes_a_kept_connection_gets_each_request_once() {
    // The agent answers the first request, and closes the kept connection when the second request arrives.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let first = stream.read(&mut buffer).unwrap();
        stream.write_all(ANSWER).unwrap();
        let second = stream.read(&mut buffer).unwrap();
        drop(stream);
        listener.set_nonblocking(true).unwrap();
        (first > 0, second > 0, listener)
    });
    let callgate = Callgate::start(&open_config(&address.to_string()), Clock::System);
    assert_eq!(callgate.send(REQUEST).status, 200);
    assert_eq!(callgate.send(REQUEST).status, 502);
    let (first, second, listener) = served.join().unwrap();
    assert!(first && second);
    assert!(listener.accept().is_err(), "no second connection was made for it");
}

#[test]
fn an_agent_that_closed_while_idle_is_connected_to_anew() {
    let agent = Agent::start(&[ANSWER, b""].concat());
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    assert_eq!(callgate.send(REQUEST).status, 200);
    let closing = Agent::start(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    let callgate = Callgate::start(&open_config(&closing.address.to_string()), Clock::System);
    for _ in 0..3 {
        assert_eq!(callgate.send(REQUEST).status, 200);
    }
    assert_eq!(closing.connections(), 3);
}

#[test]
fn an_agent_that_talks_nonsense() {
    for nonsense in [
        b"hello, who is there?\r\n\r\n".as_slice(),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: \x01\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nx-name: a\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\n",
        b"HTTP/1.1 103 Early Hints\nlink: </a>\n\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
    ] {
        let agent = Agent::start(nonsense);
        let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
        let response = callgate.send(REQUEST);
        assert_eq!(response.status, 502, "{:?}", String::from_utf8_lossy(nonsense));
        assert_eq!(callgate.log()[0]["reason"], "agent_garbled");
    }
}

#[test]
fn an_answer_that_breaks_off_breaks_off_for_the_caller_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").unwrap();
    });
    let callgate = Callgate::start(&open_config(&address), Clock::System);
    let mut stream = callgate.connect();
    stream.write_all(REQUEST).unwrap();
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all);
    assert!(all.contains("abc") && !all.ends_with("0\r\n\r\n"), "no proper end: {all}");
    let log = callgate.log().remove(0);
    assert_eq!((log["verdict"].as_str(), log["status"].as_u64()), (Some("fail"), Some(200)));
}

#[test]
fn answers_of_every_framing_are_passed_on() {
    for (answer, status, body) in [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".as_slice(), 200, "hello"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 200, "hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nx-why: agent\r\n\r\nno", 404, "no"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok", 201, "ok"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold", 200, "old"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\ncontent-length: 2\r\n\r\nok", 200, "ok"),
        (b"HTTP/1.1 200 OK\r\nx-words : one\r\n two\r\ncontent-length: 2\r\n\r\nok", 200, "ok"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n", 200, "ok"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2  \r\nok\r\n0\t\r\n\r\n", 200, "ok"),
    ] {
        let agent = Agent::start(answer);
        let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
        let response = callgate.send(REQUEST);
        assert_eq!((response.status, response.text().as_str()), (status, body));
        if status == 404 {
            assert_eq!(response.header("x-why"), Some("agent"));
        }
    }
}

/// Trailers and chunk extensions of a response are dropped, whatever they say: the next response on the connection
/// begins after them.
#[test]
fn trailers_and_extensions_of_an_answer_change_nothing() {
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2; a;;=\" b\r\nok\r\n0\r\n\
        Content-Length: 500\r\nTransfer-Encoding: gzip\r\nX-Trailer: x\r\n\r\n";
    let agent = Agent::start(chunked);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    for _ in 0..3 {
        let response = callgate.send(REQUEST);
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        for name in ["content-length", "x-trailer"] {
            assert_eq!(response.header(name), None, "{name}");
        }
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
    }
    assert_eq!(agent.connections(), 1, "the connection is kept");
}

#[test]
fn heads_before_the_one_that_counts() {
    let interim = b"HTTP/1.1 102 Processing\r\n\r\n";
    for (count, status) in [(1, 200), (32, 200), (33, 502)] {
        let agent = Agent::start(&[&interim.repeat(count), ANSWER].concat());
        let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
        assert_eq!(callgate.send(REQUEST).status, status, "{count}");
    }
    // The head of a response may arrive in pieces of any size, but within a time limit.
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "y".repeat(80_000));
    for (answer, status) in [(ANSWER, 200), (long.as_bytes(), 502)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let callgate =
            Callgate::start(&open_config(&listener.local_addr().unwrap().to_string()), Clock::System);
        let answer = answer.to_vec();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.set_nodelay(true);
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).unwrap();
            let step = answer.len().div_ceil(100);
            answer.chunks(step).all(|piece| stream.write_all(piece).is_ok());
            // The connection stays open, so the decision depends on the bytes that were read so far.
            let _ = stream.read(&mut buffer);
        });
        assert_eq!(callgate.send(REQUEST).status, status);
    }
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_is_the_last_of_its_connection() {
    for (answer, connections) in [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".as_slice(), 1),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 2),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 2),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nmore", 2),
    ] {
        let agent = Agent::start(answer);
        let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
        for _ in 0..2 {
            assert_eq!(callgate.send(REQUEST).status, 200);
        }
        assert_eq!(agent.connections(), connections, "{}", String::from_utf8_lossy(answer));
    }
}

#[test]
fn an_answer_until_the_end_of_the_connection_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let received = Mutex::new(Vec::<Received>::new());
            let mut once = Once { stream, written: false };
            converse(&mut once, &received, || {
                b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end".to_vec()
            });
        }
    });
    let callgate = Callgate::start(&open_config(&address), Clock::System);
    assert_eq!(callgate.send(REQUEST).text(), "until the end");
    let mut stream = callgate.connect();
    stream.write_all(b"POST /open/x HTTP/1.0\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(Response::read(&mut stream).text(), "until the end");
}

/// A connection that reports its end after the first write.
struct Once {
    stream: std::net::TcpStream,
    written: bool,
}

impl Read for Once {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.written { Ok(0) } else { self.stream.read(buffer) }
    }
}

impl Write for Once {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.written = true;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_answer_to_head_has_no_body() {
    let agent = Agent::start(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    let mut stream = callgate.connect();
    stream.write_all(b"HEAD /open/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.to_ascii_lowercase().contains("content-length: 5") && all.ends_with("\r\n\r\n"), "{all}");
}

#[test]
fn pieces_of_an_answer_are_passed_on_as_they_come() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (seen, wait) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
        wait.recv().unwrap();
        stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").unwrap();
    });
    let callgate = Callgate::start(&open_config(&address), Clock::System);
    let mut stream = callgate.connect();
    stream.write_all(REQUEST).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.windows(5).any(|w| w == b"first") {
        let n = stream.read(&mut buffer).unwrap();
        bytes.extend_from_slice(&buffer[..n]);
    }
    seen.send(()).unwrap();
    while !bytes.ends_with(b"0\r\n\r\n") {
        let n = stream.read(&mut buffer).unwrap();
        bytes.extend_from_slice(&buffer[..n]);
    }
    assert!(bytes.windows(6).any(|w| w == b"second"));
}

#[test]
fn an_agent_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            converse(stream, &Mutex::new(Vec::new()), || ANSWER.to_vec());
        }
    });
    let callgate = Callgate::start(&open_config(&format!("unix:{}", path.display())), Clock::System);
    for _ in 0..2 {
        assert_eq!(callgate.send(REQUEST).text(), "hello");
    }
}
