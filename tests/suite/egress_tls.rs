//! TLS of the egress listener: the handshake and its limits, the rotation of the certificate, and the local URLs at which
//! the agent answers questions.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use callgate::clock::Clock;
use serde_json::Value;

use crate::harness::{ANSWER, Agent, Callgate, Response, eventually, send_to};
use crate::process::binary;
use crate::tls::{authority, issued};

/// A folder with an authority `ca`, its certificate `one` for this host, and `two` for another host.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path(), "ca");
    issued(folder.path(), "ca", "one", "IP:127.0.0.1,DNS:gate.example");
    issued(folder.path(), "ca", "two", "DNS:two.example");
    folder
}

/// Returns a configuration whose egress listener has the certificate `name`, if it is not empty.
fn config(folder: &Path, name: &str, agent: SocketAddr, provider: SocketAddr) -> String {
    let file = |end: &str| folder.join(format!("{name}.{end}")).display().to_string();
    let tls = match name {
        "" => String::new(),
        _ => format!(", tls: {{ certificate: {}, key: {} }}", file("crt"), file("key")),
    };
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0, connections_max: 3, hosts: [gate.example]{tls} }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\" }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
limits: {{ head_deadline: 10s }}
routes:
  - name: ask
    path: /ask/{{id}}
    token: {{ kind: callback }}
    forward: /in/{{id}}
    actions: {{ pointer: /url, hosts: [127.0.0.1], rewrite: true }}
egress:
  - {{ name: plain, path: /plain, target: \"http://{provider}/plain\", methods: [GET, POST] }}
"
    )
}

struct World {
    folder: tempfile::TempDir,
    provider: Agent,
    agent: Agent,
    text: String,
    callgate: Callgate,
}

impl World {
    fn new(change: impl Fn(String) -> String) -> Self {
        let (folder, provider, agent) = (folder(), Agent::start(ANSWER), Agent::start(ANSWER));
        let text = change(config(folder.path(), "one", agent.address, provider.address));
        let callgate = Callgate::start(&text, Clock::System);
        Self { folder, provider, agent, text, callgate }
    }

    fn egress(&self) -> SocketAddr {
        self.callgate.egress.unwrap()
    }

    /// Runs curl with the authority of the certificate.
    fn curl(&self, args: &[&str]) -> String {
        let out = Command::new("curl")
            .current_dir(self.folder.path())
            .args(["-s", "-S", "--cacert", "ca.crt"])
            .args(args)
            .output()
            .unwrap();
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.egress())
    }

    fn client(&self) -> TlsClient {
        TlsClient::connect(self.folder.path(), self.egress())
    }
}

/// A TLS connection of openssl.
struct TlsClient(Child);

impl TlsClient {
    fn connect(folder: &Path, address: SocketAddr) -> Self {
        let child = Command::new("openssl")
            .current_dir(folder)
            .args(["s_client", "-quiet", "-verify_return_error", "-CAfile", "ca.crt", "-connect"])
            .arg(address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn send(&mut self, bytes: &str) {
        self.0.stdin.as_mut().unwrap().write_all(bytes.as_bytes()).unwrap();
    }

    fn response(&mut self) -> Response {
        Response::read(self.0.stdout.as_mut().unwrap())
    }

    fn get(&mut self) -> Response {
        self.send("GET /plain HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.response()
    }

    /// Waits until Callgate closes the connection. Returns the bytes that arrived before.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.stdout.as_mut().unwrap().read_to_end(&mut rest).unwrap();
        rest
    }
}

impl Drop for TlsClient {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_agent_speaks_https_and_every_check_remains() {
    let world = World::new(|text| text);
    let url = world.url("/plain");
    assert_eq!(world.curl(&[&url, &url, "-d", "{}"]), "hellohello");
    assert_eq!(world.curl(&["--tls-max", "1.2", &url]), "hello");
    let (name, to) = (format!("https://gate.example:{}/plain", world.egress().port()), "::127.0.0.1:");
    assert_eq!(world.curl(&["--connect-to", to, &name]), "hello");
    // The listener offers HTTP/1.1 only, also to a client that prefers HTTP/2.
    let version = world.curl(&["--http2", "-o", "/dev/null", "-w", "%{http_version}", &url]);
    assert_eq!(version, "1.1");
    let received = world.provider.received().len();
    for (more, reason) in [
        ("Origin: https://evil.example", "page_not_allowed"),
        ("Sec-Fetch-Site: cross-site", "page_not_allowed"),
        ("Host: evil.example", "host_not_allowed"),
    ] {
        let answer = world.curl(&["-H", more, &url]);
        assert!(answer.contains(reason), "{more}: {answer}");
    }
    assert_eq!(world.provider.received().len(), received);
    // A client that does not verify the certificate for this name does not send its request.
    assert!(world.curl(&["--connect-to", to, &name.replace("gate", "other")]).contains("SSL"));
    // Plain HTTP receives no HTTP response.
    let mut plain = TcpStream::connect(world.egress()).unwrap();
    plain.write_all(b"GET /plain HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(world.provider.received().len(), received);
}

#[test]
fn the_agent_answers_questions_at_an_https_url() {
    let world = World::new(|text| text);
    let minted =
        world.callgate.admin_send("POST", "/callbacks", r#"{"route":"ask","params":{"id":"a"}}"#).json();
    let bearer = format!("Bearer {}", minted["callback_token"].as_str().unwrap());
    let question = format!(r#"{{"url":"http://{}/answer"}}"#, world.provider.address);
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(send_to(world.callgate.ingress, "POST", "/ask/a", &headers, question.as_bytes()).status, 200);
    let asked: Value = serde_json::from_slice(&world.agent.received()[0].body).unwrap();
    let local = asked["url"].as_str().unwrap();
    assert!(local.starts_with(&world.url("/actions/")), "{local}");
    assert_eq!(world.curl(&[local, "-d", "{}"]), "hello");
    assert_eq!(world.provider.received()[0].target(), "/answer");
}

#[test]
fn the_certificate_is_replaced_by_a_reload_and_connections_stay_open() {
    let world = World::new(|text| text);
    let mut kept = world.client();
    assert_eq!(kept.get().status, 200);
    let at = world.folder.path();
    issued(at, "ca", "one", "IP:127.0.0.1,DNS:renewed.example");
    world.callgate.reload(&world.text).unwrap();
    let name = format!("https://renewed.example:{}/plain", world.egress().port());
    assert_eq!(world.curl(&["--connect-to", "::127.0.0.1:", "-H", "Host: localhost", &name]), "hello");
    assert_eq!(kept.get().status, 200);
    // A reload with an unusable file is not applied.
    let key = fs::read(at.join("one.key")).unwrap();
    fs::copy(at.join("two.key"), at.join("one.key")).unwrap();
    let error = world.callgate.reload(&world.text).unwrap_err();
    assert!(error.contains("does not go with"), "{error}");
    assert_eq!(world.client().get().status, 200);
    fs::write(at.join("one.key"), key).unwrap();
    // TLS itself can be switched on and off only by a restart, because delivered callbacks contain local URLs.
    let plain = config(at, "", world.agent.address, world.provider.address);
    let error = world.callgate.reload(&plain).unwrap_err();
    assert!(error.starts_with("listen.egress.tls can be changed only by a restart"), "{error}");
    let metrics = world.callgate.metrics();
    assert!(metrics.contains("callgate_certificate_expiry_timestamp_seconds{certificate=\""), "{metrics}");
}

#[test]
fn handshakes_have_a_deadline_and_count_as_connections() {
    let world = World::new(|text| text.replace("head_deadline: 10s", "head_deadline: 300ms"));
    for beginning in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[22, 3, 1]] {
        let mut stream = TcpStream::connect(world.egress()).unwrap();
        stream.write_all(beginning).unwrap();
        let mut answer = Vec::new();
        // The connection ends: with a TLS alert, with an end of the stream, or with a reset.
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    let slow = World::new(|text| text);
    let silent: Vec<_> = (0..3).map(|_| TcpStream::connect(slow.egress()).unwrap()).collect();
    // Three handshakes that do not come use all connections.
    eventually(|| slow.curl(&[&slow.url("/plain")]).contains("curl: (").then_some(()));
    drop(silent);
    eventually(|| (slow.curl(&[&slow.url("/plain")]) == "hello").then_some(()));
}

#[test]
fn idle_connections_are_closed_when_callgate_stops_and_requests_that_began_are_answered() {
    let mut world = World::new(|text| text);
    let (mut idle, mut busy) = (world.client(), world.client());
    assert_eq!((idle.get().status, busy.get().status), (200, 200));
    // An empty line after a request does not begin the next request.
    idle.send("\r\n");
    assert_eq!(idle.get().status, 200);
    busy.send("POST /plain HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(busy.response().status, 100);
    let stopped = world.callgate.stop_in_background();
    assert_eq!(idle.rest(), b"");
    busy.send("{}");
    assert_eq!(busy.response().status, 200);
    assert_eq!(busy.rest(), b"");
    assert_eq!(stopped.join().unwrap(), 0);
}

#[test]
fn an_unusable_certificate_is_an_error_before_any_port_is_open() {
    let folder = folder();
    let at = folder.path();
    fs::copy(at.join("two.key"), at.join("one.key")).unwrap();
    let text = config(at, "one", ([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 1).into())
        .replace("TOKEN_KEY", "CALLGATE_TEST_TOKEN_KEY");
    let path = at.join("callgate.yaml");
    fs::write(&path, &text).unwrap();
    for (command, place) in [("check", "listen.egress.tls: "), ("run", "")] {
        let out = Command::new(binary())
            .args([command, "-c"])
            .arg(&path)
            .env("CALLGATE_TEST_TOKEN_KEY", "0123456789abcdef0123456789abcdef")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(64), "{command}: {said}");
        assert!(said.contains(place) && said.contains("one.key does not go with"), "{command}: {said}");
        if command == "check" {
            let line = text.lines().position(|line| line.contains("egress: {")).unwrap() + 1;
            let begin = format!("line {line}: listen.egress.tls: ");
            assert!(said.contains(&begin) && said.contains("hint: "), "{said}");
        }
    }
    issued(at, "ca", "one", "IP:127.0.0.1");
    let out = Command::new(binary())
        .args(["check", "--print", "-c"])
        .arg(&path)
        .env("CALLGATE_TEST_TOKEN_KEY", "0123456789abcdef0123456789abcdef")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&out.stdout);
    assert!(printed.contains(at.join("one.crt").to_str().unwrap()), "{printed}");
}

#[test]
fn a_certificate_that_the_local_urls_cannot_use_is_reported() {
    let folder = folder();
    let at = folder.path();
    for (name, rewrites, warns) in [("one", true, false), ("two", true, true), ("two", false, false)] {
        let text = config(at, name, ([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 1).into())
            .replace("TOKEN_KEY", "CALLGATE_TEST_TOKEN_KEY")
            .replace("rewrite: true", &format!("rewrite: {rewrites}"));
        let path = at.join("callgate.yaml");
        fs::write(&path, &text).unwrap();
        let mut child = Command::new(binary())
            .args(["run", "-c"])
            .arg(&path)
            .env("CALLGATE_TEST_TOKEN_KEY", "0123456789abcdef0123456789abcdef")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let said: Vec<_> = lines.take_while(|line| !line.contains("admin on ")).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        let warning = "does not contain the IP address 127.0.0.1";
        assert_eq!(said.iter().any(|line| line.contains(warning)), warns, "{name} {rewrites}: {said:?}");
        assert!(
            said.iter().any(|line| line.contains("egress on ") && line.contains(" with TLS: ")),
            "{said:?}"
        );
    }
}
