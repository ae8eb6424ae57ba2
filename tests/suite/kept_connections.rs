//! Kept connections are not reused if the peer has closed them or written to them, and are closed when the trust
//! settings under which they were made change.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callgate::clock::Clock;

use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, Response, eventually, open_config, read_request};
use crate::tls::{authority, issued, openssl};

const REQUEST: &[u8] = b"POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi";

/// An agent that numbers its connections and answers each request with the number. Afterwards it calls `after`, which
/// acts on the connection and returns whether the connection continues.
struct Peer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    fn start(after: impl Fn(&mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Self { address: listener.local_addr().unwrap(), connections: Arc::default() };
        let (connections, after) = (Arc::clone(&peer.connections), Arc::new(after));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (number, after) = (connections.fetch_add(1, Ordering::SeqCst), Arc::clone(&after));
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let mut bytes = Vec::new();
                    while read_request(&mut stream, &mut bytes).is_some() {
                        let body = format!("connection {number}");
                        let answer =
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                        if stream.write_all(answer.as_bytes()).is_err() || !after(&mut stream) {
                            return;
                        }
                    }
                });
            }
        });
        peer
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn callgate(address: SocketAddr) -> Callgate {
    Callgate::start(&open_config(&address.to_string()), Clock::System)
}

// === Bytes and closes on an idle connection ===

#[test]
fn an_answer_that_nobody_asked_for_is_never_passed_on() {
    for unasked in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL".as_slice(),
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n",
        b"\r\n",
        b"E",
    ] {
        let (written, wait) = std::sync::mpsc::channel();
        let written = Mutex::new(written);
        let peer = Peer::start(move |stream| {
            // The bytes are written after the response was read. Bytes together with the response are detected by its
            // framing.
            std::thread::sleep(Duration::from_millis(3));
            let sent = stream.write_all(unasked).is_ok();
            let _ = written.lock().unwrap().send(());
            sent
        });
        let callgate = callgate(peer.address);
        for number in 0..5 {
            let response = callgate.send(REQUEST);
            assert_eq!((response.status, response.text()), (200, format!("connection {number}")));
            wait.recv_timeout(PATIENCE).unwrap();
        }
    }
}

#[test]
fn an_answer_whose_framing_contradicts_itself_is_the_last_of_its_connection() {
    for (answer, connections) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", 1),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", 1),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\n", 2),
        ("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", 2),
        // Its framing is right, but the agent may not have read the body of a request that it did not accept.
        ("HTTP/1.1 304 Not Modified\r\n\r\n", 2),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\n", 2),
        ("HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n", 2),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokEVIL", 2),
        ("HTTP/1.1 204 No Content\r\n\r\nEVIL", 2),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nEVIL", 2),
    ] {
        let agent = Agent::start(answer.as_bytes());
        let callgate = callgate(agent.address);
        for _ in 0..2 {
            assert!(callgate.send(REQUEST).status < 400, "{answer:?}");
        }
        assert_eq!(agent.connections(), connections, "{answer:?}");
    }
}

#[test]
fn bytes_behind_the_answer_to_head_are_never_passed_on() {
    let agent = Agent::start(ANSWER);
    let callgate = callgate(agent.address);
    for _ in 0..3 {
        let mut stream = callgate.connect();
        stream.write_all(b"HEAD /open/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        assert!(all.starts_with("HTTP/1.1 200") && !all.contains("hello"), "{all}");
        assert_eq!(callgate.send(REQUEST).text(), "hello");
    }
}

#[test]
fn a_connection_that_the_agent_closes_while_idle_is_not_used_and_its_timeout_is_learned() {
    let peer = Peer::start(|stream| {
        // The idle timeout of the peer. A request within this time is answered.
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut byte = [0];
        let quiet = stream.peek(&mut byte).is_err();
        stream.set_read_timeout(None).unwrap();
        if quiet {
            let _ = stream.shutdown(Shutdown::Both);
        }
        !quiet
    });
    let callgate = callgate(peer.address);
    for pause in [0, 5, 19, 20, 21, 25, 50, 19, 20, 21, 30, 10, 20, 20, 20] {
        assert_eq!(callgate.send(REQUEST).status, 200);
        std::thread::sleep(Duration::from_millis(pause));
    }
}

#[test]
fn idle_connections_are_closed_when_their_time_is_over() {
    let (closed, wait) = std::sync::mpsc::channel();
    let closed = Mutex::new(closed);
    let peer = Peer::start(move |stream| {
        let ended = stream.read(&mut [0; 64]).is_ok_and(|bytes| bytes == 0);
        closed.lock().unwrap().send(ended).unwrap();
        false
    });
    let config = open_config(&peer.address.to_string()).replace("response: 1s }", "response: 1s, idle: 1s }");
    let callgate = Callgate::start(&config, Clock::System);
    assert_eq!(callgate.send(REQUEST).status, 200);
    assert!(wait.recv_timeout(PATIENCE).unwrap(), "closed without another request");
}

// === Early answers ===

/// An agent that responds after the head of a request, and does not read the body.
fn early(answer: &'static [u8], then_closes: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut bytes = [0; 64];
            let _ = stream.read(&mut bytes);
            let _ = stream.write_all(answer);
            if then_closes {
                let _ = stream.shutdown(Shutdown::Write);
            }
            held.push(stream);
        }
    });
    (address, connections)
}

#[test]
fn an_answer_before_the_body_was_sent_is_heard_and_ends_the_connection() {
    const REFUSAL: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nearly";
    const SUCCESS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
    // The body is larger than the socket buffers of both sides.
    let body = vec![b'x'; 60 << 20];
    let mut request =
        format!("POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend_from_slice(&body);
    for (answer, closes, status, reason) in [
        (REFUSAL, false, 413, "ok"),
        (REFUSAL, true, 413, "ok"),
        (SUCCESS, false, 502, "agent_garbled"),
        (SUCCESS, true, 502, "agent_garbled"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", false, 503, "ok"),
    ] {
        let (address, connections) = early(answer, closes);
        let config = open_config(&address.to_string())
            .replace("response: 1s", "response: 30s")
            .replace("body_deadline: 1s", "body_deadline: 30s, body_memory_max: 128MiB")
            .replace("body_max: 2MiB", "body_max: 64MiB");
        let callgate = Callgate::start(&config, Clock::System);
        for round in 1..=2 {
            let response = callgate.send(&request);
            assert_eq!(response.status, status, "{}", String::from_utf8_lossy(answer));
            assert_eq!(callgate.log()[0]["reason"], reason);
            assert_eq!(connections.load(Ordering::SeqCst), round, "not kept");
        }
    }
}

// === Trust settings across a reload ===

/// A TLS server in Python that answers every request with the address of the client, so that connections can be told
/// apart.
struct TlsServer {
    child: Child,
    port: u16,
}

impl TlsServer {
    fn start(at: &Path, certificate: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let script = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = ("%s:%d" % self.client_address).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2] + ".crt", sys.argv[2] + ".key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;
        let child = Command::new("python3")
            .current_dir(at)
            .args(["-c", script, &port.to_string(), certificate])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port };
        eventually(|| TcpStream::connect(("127.0.0.1", port)).ok());
        server
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn egress_config(agent: &str, roots: &Path, port: u16) -> String {
    format!(
        "public_url: https://agent.example.com
trusted_roots: {}
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\" }}
routes: [ {{ name: r, path: /r, open: true, forward: /in }} ]
egress:
  - {{ name: e, path: /e, target: \"https://127.0.0.1:{port}/e\" }}
",
        roots.display()
    )
}

#[test]
fn no_connection_to_a_provider_outlives_the_roots_that_vouched_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    ["a", "b"].iter().for_each(|name| authority(at, name));
    issued(at, "a", "server", "IP:127.0.0.1");
    let server = TlsServer::start(at, "server");
    let agent = Agent::start(ANSWER);
    let config = |roots: &str| egress_config(&agent.address.to_string(), &at.join(roots), server.port);
    let callgate = Callgate::start(&config("a.crt"), Clock::System);
    // A connection is returned to the pool shortly after the agent has its response.
    let kept = || {
        eventually(|| {
            let (one, other) = (callgate.agent_sends("/e", "{}"), callgate.agent_sends("/e", "{}"));
            assert_eq!((one.status, other.status), (200, 200));
            (one.text() == other.text()).then_some(one)
        })
    };
    let first = kept();
    // The same certificate authority, in another file and with an empty line, is no change.
    fs::write(at.join("same.crt"), [b"\n", &fs::read(at.join("a.crt")).unwrap()[..]].concat()).unwrap();
    callgate.reload(&config("same.crt")).unwrap();
    assert_eq!(callgate.agent_sends("/e", "{}").text(), first.text());
    // Requests keep the connections in use while the trusted roots change.
    let done = AtomicBool::new(false);
    let address = callgate.egress.unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                while !done.load(Ordering::Relaxed) {
                    stream
                        .write_all(b"POST /e HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
                        .unwrap();
                    Response::read(&mut stream);
                }
            });
        }
        callgate.reload(&config("b.crt")).unwrap();
        for _ in 0..20 {
            assert_eq!(callgate.agent_sends("/e", "{}").status, 502);
        }
        done.store(true, Ordering::Relaxed);
    });
    callgate.reload(&config("a.crt")).unwrap();
    let again = callgate.agent_sends("/e", "{}");
    assert_eq!(again.status, 200);
    assert_ne!(again.text(), first.text(), "a connection of its own");
}

#[test]
fn no_connection_to_the_agent_outlives_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = Vec::new();
            while read_request(&mut stream, &mut bytes).is_some() {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nunix").unwrap();
            }
        }
    });
    let peer = Peer::start(|_| true);
    let (tcp, unix) = (peer.address.to_string(), format!("unix:{}", path.display()));
    let callgate = Callgate::start(&open_config(&tcp), Clock::System);
    let number =
        || -> usize { callgate.send(REQUEST).text().strip_prefix("connection ").unwrap().parse().unwrap() };
    // A connection is returned to the pool shortly after the caller has its response.
    let kept = || eventually(|| Some(number()).filter(|number| number + 1 == peer.connections()));
    for _ in 0..3 {
        let known = peer.connections();
        assert!(number() >= known, "a new connection");
        assert!(kept() >= known);
        callgate.reload(&open_config(&unix)).unwrap();
        assert_eq!(callgate.send(REQUEST).text(), "unix");
        callgate.reload(&open_config(&tcp)).unwrap();
    }
    // A reload that does not change the agent's address keeps the connection.
    kept();
    let known = peer.connections();
    callgate.reload(&open_config(&tcp).replace("/in/{id}", "/in2/{id}")).unwrap();
    assert!(number() < known);
}

/// Returns a configuration with more settings on its ingress listener.
fn listening(agent: &str, more: &str) -> String {
    open_config(agent).replacen("address: 127.0.0.1:0 }", &format!("address: 127.0.0.1:0{more} }}"), 1)
}

/// A kept TLS connection by openssl, on which requests can be sent one by one.
struct TlsClient {
    child: Child,
}

impl TlsClient {
    fn connect(at: &Path, address: SocketAddr, more: &[&str]) -> Self {
        let child = Command::new("openssl")
            .current_dir(at)
            .args(["s_client", "-quiet", "-ign_eof", "-connect", &address.to_string(), "-CAfile", "ca.crt"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// Sends a request.
    fn write(&mut self) {
        let _ = self.child.stdin.as_mut().unwrap().write_all(REQUEST);
    }

    /// Returns the status of the next response. Returns `None` if the connection was closed instead.
    fn status(&mut self) -> Option<u16> {
        let mut status = [0; 12];
        self.child.stdout.as_mut()?.read_exact(&mut status).ok()?;
        std::str::from_utf8(&status).ok()?.strip_prefix("HTTP/1.1 ")?.parse().ok()
    }

    /// Sends a request and returns the status. Returns `None` if the connection was closed instead.
    fn send(&mut self) -> Option<u16> {
        self.child.stdin.as_mut()?.write_all(REQUEST).ok()?;
        let stdout = self.child.stdout.as_mut()?;
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"hello") {
            let mut buffer = [0; 4096];
            match stdout.read(&mut buffer) {
                Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
                _ => return None,
            }
        }
        std::str::from_utf8(&bytes).ok()?.split(' ').nth(1)?.parse().ok()
    }
}

impl Drop for TlsClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A reload closes the earlier connections or keeps them, depending on the change. One of them has sent a request
/// before, and the other has not.
#[test]
fn connections_from_outside_are_judged_anew_after_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    ["ca", "other"].iter().for_each(|name| authority(at, name));
    issued(at, "ca", "one", "IP:127.0.0.1");
    issued(at, "ca", "client", "DNS:client.example");
    let file = |name: &str| at.join(name).display().to_string();
    let agent = Agent::start(ANSWER);
    let address = agent.address.to_string();
    let tls =
        |more: &str| format!(", tls: {{ certificate: {}, key: {}{more} }}", file("one.crt"), file("one.key"));
    let clients = |ca: &str, required: bool| {
        tls(&format!(", client_certificates: {{ authorities: {}, required: {required} }}", file(ca)))
    };
    let with_certificate: &[&str] = &["-cert", "client.crt", "-key", "client.key"];
    for (name, before, after, arguments, goes_on) in [
        ("nothing changed", tls(""), tls(""), &[][..], true),
        (
            "TLS 1.2 is no longer accepted",
            tls(", min_version: 1.2"),
            tls(", min_version: 1.3"),
            &["-tls1_2"][..],
            false,
        ),
        ("TLS 1.3 still is", tls(", min_version: 1.2"), tls(", min_version: 1.3"), &["-tls1_3"][..], true),
        ("a client certificate is now required", tls(""), clients("ca.crt", true), &[][..], false),
        (
            "it is required, and there is one",
            clients("ca.crt", false),
            clients("ca.crt", true),
            with_certificate,
            true,
        ),
        (
            "its authority is no longer trusted",
            clients("ca.crt", true),
            clients("other.crt", true),
            with_certificate,
            false,
        ),
        ("TLS has ended elsewhere", tls(""), String::new(), &[][..], false),
    ] {
        let callgate = Callgate::start(&listening(&address, &before), Clock::System);
        let mut used = TlsClient::connect(at, callgate.ingress, arguments);
        let mut unused = TlsClient::connect(at, callgate.ingress, arguments);
        assert_eq!(used.send(), Some(200), "{name}");
        // The connection is counted when its handshake is complete.
        eventually(|| callgate.metrics().contains("callgate_ingress_connections 2").then_some(()));
        callgate.reload(&listening(&address, &after)).unwrap();
        for client in [&mut used, &mut unused] {
            assert_eq!(client.send().is_some(), goes_on, "{name}");
        }
    }
}

#[test]
fn plain_connections_are_judged_anew_after_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "ca");
    issued(at, "ca", "one", "IP:127.0.0.1");
    let agent = Agent::start(ANSWER);
    let address = agent.address.to_string();
    let tls = format!(
        ", tls: {{ certificate: {}, key: {} }}",
        at.join("one.crt").display(),
        at.join("one.key").display()
    );
    let proxied = |by: &str| format!(", proxy_protocol: {{ trusted_proxies: [{by}] }}");
    let header = b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n".as_slice();
    for (name, before, after, begins, goes_on) in [
        ("nothing changed", String::new(), String::new(), b"".as_slice(), true),
        ("TLS is required now", String::new(), tls, b"", false),
        ("the balancer is still trusted", proxied("127.0.0.1"), proxied("127.0.0.0/8"), header, true),
        ("the balancer is no longer trusted", proxied("127.0.0.1"), proxied("127.0.0.2"), header, false),
        ("there is no balancer any more", proxied("127.0.0.1"), String::new(), header, false),
        ("there is a balancer now", String::new(), proxied("127.0.0.1"), b"", false),
    ] {
        let callgate = Callgate::start(&listening(&address, &before), Clock::System);
        let (mut used, mut unused) = (callgate.connect(), callgate.connect());
        for stream in [&mut used, &mut unused] {
            stream.write_all(begins).unwrap();
        }
        used.write_all(REQUEST).unwrap();
        assert_eq!(Response::read(&mut used).status, 200, "{name}");
        eventually(|| callgate.metrics().contains("callgate_ingress_connections 2").then_some(()));
        callgate.reload(&listening(&address, &after)).unwrap();
        for stream in [&mut used, &mut unused] {
            let _ = stream.write_all(REQUEST);
            let mut byte = [0; 12];
            let answered = stream.read_exact(&mut byte).is_ok() && byte.starts_with(b"HTTP/1.1 200");
            assert_eq!(answered, goes_on, "{name}");
        }
    }
}

/// A client certificate is checked in the TLS handshake and again with each request, because it may expire in between.
/// So may the certificate of the authority that issued it.
#[test]
fn a_client_certificate_that_expires_on_a_kept_connection_counts_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    ["ca", "clients"].iter().for_each(|name| authority(at, name));
    issued(at, "ca", "one", "IP:127.0.0.1");
    issued(at, "clients", "short", "DNS:client.example");
    issued(at, "clients", "middle", "DNS:middle.example\nbasicConstraints=critical,CA:TRUE");
    issued(at, "middle", "long", "DNS:client.example");
    // This certificate outlives the one of its authority, which is valid for a day.
    openssl(
        at,
        "x509 -req -in long.csr -CA middle.crt -CAkey middle.key -CAcreateserial -days 9 -extfile long.ext -out long.crt",
    );
    let file = |name: &str| at.join(name).display().to_string();
    let agent = Agent::start(ANSWER);
    let config = |required: bool| {
        let tls = format!(
            ", tls: {{ certificate: {}, key: {}, client_certificates: {{ authorities: {}, required: {required} }} }}",
            file("one.crt"),
            file("one.key"),
            file("clients.crt")
        );
        let route = "    open: true\n";
        let asks = format!("{route}    client_certificate: required\n");
        listening(&agent.address.to_string(), &tls).replacen(route, &asks, 1)
    };
    let now = Clock::System.now().unix_ms();
    let (hour, day) = (3_600_000, 86_400_000);
    for arguments in [
        &["-cert", "short.crt", "-key", "short.key"][..],
        &["-cert", "long.crt", "-key", "long.key", "-cert_chain", "middle.crt"][..],
    ] {
        for required in [true, false] {
            let clock = Arc::new(AtomicI64::new(now));
            let callgate = Callgate::start(&config(required), Clock::Set(Arc::clone(&clock)));
            let mut client = TlsClient::connect(at, callgate.ingress, arguments);
            assert_eq!(client.send(), Some(200), "{arguments:?}");
            clock.store(now + day - hour, Ordering::SeqCst);
            assert_eq!(client.send(), Some(200), "{arguments:?}");
            clock.store(now + day + hour, Ordering::SeqCst);
            // Without `required`, the connection stays open, and the route denies the request.
            client.write();
            let status = client.status();
            assert_eq!(status, (!required).then_some(403), "{arguments:?}");
        }
    }
}

/// An agent that denies a request may leave its body unread. The body must not become the agent's next request.
#[test]
fn a_body_that_the_agent_did_not_read_is_never_a_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, requests) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let seen = seen.clone();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    bytes.extend_from_slice(&buffer[..read]);
                    // Reads heads only, as a handler does that answers without the body.
                    while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                        bytes.drain(..end + 4);
                        let _ = seen.send(head.lines().next().unwrap_or_default().to_owned());
                        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
                    }
                }
            });
        }
    });
    let callgate = callgate(address);
    let forged = "POST /in/forged HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n";
    let request =
        format!("POST /open/first HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{forged}", forged.len());
    for _ in 0..3 {
        assert_eq!(callgate.send(request.as_bytes()).status, 404);
        assert_eq!(callgate.send(REQUEST).status, 404);
    }
    drop(callgate);
    let seen: Vec<_> = requests.try_iter().collect();
    assert!(seen.len() >= 6 && seen.iter().all(|line| !line.contains("forged")), "{seen:?}");
}
