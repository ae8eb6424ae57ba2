//! Tunnels, streams, upgrades, uploads and the end of connections.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::{Command, Stdio};

use callgate::clock::Clock;

use super::{World, assert_denied, text};
use crate::harness::{ANSWER, Agent, Callgate, Response, eventually};

/// Tunnels to the provider, because no rule names its other name.
const TUNNELS: &str = ", others: tunnel, ports: [PORT], allow_private: [127.0.0.0/8, \"::1\"]";

/// Returns a world in which the connection to `localhost` is tunneled.
fn tunnelling(more: &str) -> World {
    World::new(&format!("{TUNNELS}{more}"), "").reloaded()
}

impl World {
    /// Removes `proxied` from the rule.
    fn reloaded(self) -> Self {
        let text = self.text.replace("    proxied: true\n", "");
        self.callgate.reload(&text).unwrap();
        Self { text, ..self }
    }
}

#[test]
fn a_tunnel_passes_bytes_and_is_logged() {
    let world = tunnelling("");
    // The client verifies the certificate of the provider itself.
    let out = world
        .curl("ca.crt", &["-d", "secret-body", "-H", "x-secret: secret-header", &world.url("/secret-path")]);
    assert_eq!(text(&out), r#"{"id":"job-17"}"#);
    let (head, body) = world.provider.next();
    assert!(head.starts_with("POST /secret-path HTTP/1.1\r\n") && body == "secret-body", "{head}");
    let entries = world.callgate.logged(1);
    let entry = entries.last().unwrap();
    let shown = entry.to_string();
    assert!(!shown.contains("secret"), "{shown}");
    assert_eq!(entry["host"], format!("localhost:{}", world.provider.port));
    assert_eq!(
        (&entry["egress"], &entry["method"], &entry["status"]),
        (&"tunnel".into(), &"CONNECT".into(), &200.into())
    );
    assert!(
        entry["body_bytes"].as_u64().unwrap() > 200 && entry["received_bytes"].as_u64().unwrap() > 200,
        "{shown}"
    );
    let metrics = world.callgate.metrics();
    for series in ["callgate_egress_tunnels_total 1\n", "callgate_egress_tunnels 0\n"] {
        assert!(metrics.contains(series), "{metrics}");
    }
    assert!(!metrics.contains("callgate_egress_tunnel_bytes_total{direction=\"sent\"} 0\n"), "{metrics}");
}

#[test]
fn the_number_of_tunnels_and_their_idle_time_are_limited() {
    let world = tunnelling(", tunnels_max: 1");
    let open = world.open();
    assert_denied(&world.connect(&format!("localhost:{}", world.provider.port)), 503, "proxy_full");
    drop(open);
    eventually(|| world.callgate.metrics().contains("callgate_egress_tunnels 0\n").then_some(()));
    world.open();
    let impatient = tunnelling(", idle: 1s");
    let mut open = impatient.open();
    assert_eq!(open.read(&mut [0]).unwrap(), 0, "closed");
}

#[test]
fn one_side_of_a_tunnel_may_end_first() {
    let world = tunnelling("");
    let echo = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = echo.local_addr().unwrap().port();
    let text = world.text.replace(&format!("ports: [{}]", world.provider.port), &format!("ports: [{port}]"));
    world.callgate.reload(&text).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = echo.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    // The first bytes of the tunnel arrive together with the request.
    let mut stream = world.send(&format!("CONNECT 127.0.0.1:{port} HTTP/1.0\r\n\r\nfirst "));
    stream.write_all(b"second").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all, "HTTP/1.1 200 Connection established\r\n\r\nfirst second");
}

#[test]
fn a_stop_waits_for_tunnels_that_are_in_use() {
    let mut world = tunnelling("");
    let mut idle = world.open();
    let stopped = world.callgate.stop_in_background();
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "an idle tunnel ends");
    assert_eq!(stopped.join().unwrap(), 0, "nothing is cut off");
}

#[test]
fn events_are_passed_on_while_they_arrive() {
    let world = World::new("", "");
    let mut child = Command::new("curl")
        .args(["-s", "-N", "--noproxy", "", "-x", &format!("http://{}", world.egress()), "--cacert"])
        .arg(world.file("trust/ca.pem"))
        .arg(world.url("/events"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut first = [0; 11];
    out.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"data: one\n\n", "before the provider has sent the second event");
    assert!(world.curl("trust/ca.pem", &[&world.url("/release")]).status.success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "data: two\n\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn websockets_and_uploads_work_on_intercepted_connections() {
    let world = World::new("", "");
    let host = format!("localhost:{}", world.provider.port);
    let script = "
import socket, ssl, sys
proxy, target, ca = sys.argv[1:]
raw = socket.create_connection(proxy.rsplit(':', 1))
raw.sendall(f'CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\n'.encode())
head = b''
while not head.endswith(b'\\r\\n\\r\\n'): head += raw.recv(1)
stream = ssl.create_default_context(cafile=ca).wrap_socket(raw, server_hostname='localhost')
stream.sendall(f'GET /ws HTTP/1.1\\r\\nHost: {target}\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n'.encode())
head = b''
while not head.endswith(b'\\r\\n\\r\\n'): head += stream.recv(1)
print(head.split(b'\\r\\n')[0].decode())
for text in [b'one', b'two' * 10000]:
    stream.sendall(text)
    got = b''
    while len(got) < len(text): got += stream.recv(65536)
    print(got == text)
";
    let ca = world.file("trust/ca.pem");
    let out =
        Command::new("python3").args(["-c", script, &world.egress().to_string(), &host]).arg(ca).output();
    assert_eq!(text(&out.unwrap()), "HTTP/1.1 101 Switching Protocols\nTrue\nTrue\n");
    world.provider.next();
    let upload = "x".repeat(3 << 20);
    std::fs::write(world.file("upload"), &upload).unwrap();
    let out = world.curl(
        "trust/ca.pem",
        &[
            "-T",
            world.file("upload").to_str().unwrap(),
            "-H",
            "transfer-encoding: chunked",
            "-H",
            "expect:",
            &world.url("/upload"),
        ],
    );
    assert_eq!(text(&out), r#"{"id":"job-17"}"#);
    let (head, body) = world.provider.next();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert!(body.len() > upload.len() && body.ends_with("0\r\n\r\n"));
}

#[test]
fn several_requests_share_an_intercepted_connection() {
    let world = World::new("", "");
    let url = world.url("/x");
    let out = world.curl("trust/ca.pem", &["-v", &url, &url, &url]);
    assert_eq!(text(&out).matches(r#"{"id":"job-17"}"#).count(), 3);
    let shaken = "callgate_egress_handshakes_total{host=\"localhost\",outcome=\"ok\"} 1\n";
    assert!(world.callgate.metrics().contains(shaken));
}

#[test]
fn the_listener_may_have_tls_itself() {
    let world = World::new("", "");
    let file = |name: &str| world.file(name).display().to_string();
    let tls =
        format!("tls: {{ certificate: {}, key: {} }}, proxy: {{", file("provider.crt"), file("provider.key"));
    let callgate = Callgate::start(&world.text.replacen("proxy: {", &tls, 1), Clock::System);
    let world = World { callgate, ..world };
    let out = Command::new("curl")
        .args(["-s", "-S", "--noproxy", "", "-x", &format!("https://localhost:{}", world.egress().port())])
        .arg("--proxy-cacert")
        .arg(world.file("ca.crt"))
        .arg("--cacert")
        .arg(world.file("trust/ca.pem"))
        .arg(world.url("/x"))
        .output();
    assert_eq!(text(&out.unwrap()), r#"{"id":"job-17"}"#);
}

#[test]
fn absolute_urls_follow_rules_and_others() {
    let plain = Agent::start(ANSWER);
    let rule = format!(
        "  - {{ name: plain, path: /plain, target: \"http://{}/plain\", methods: [GET], headers: {{ x-api-key: {{ env: STATIC }} }}, proxied: true }}\n",
        plain.address
    );
    let world = World::new(TUNNELS, &rule);
    let get = |url: &str, host: &str| {
        world.ask(&format!("GET {url} HTTP/1.1\r\nHost: {host}\r\nOrigin: x\r\n\r\n"))
    };
    let address = plain.address.to_string();
    assert_eq!(get(&format!("http://{address}/plain?a"), &address).status, 200);
    assert_eq!(get(&format!("http://{address}/other"), &address).status, 200);
    let received = plain.wait_for(2);
    assert_eq!((received[0].target(), received[0].header("x-api-key").len()), ("/plain?a", 1));
    assert_eq!((received[1].target(), received[1].header("x-api-key").len()), ("/other", 0));
    // Another host that no rule names, on a port of `ports`.
    let other = Agent::start(ANSWER);
    let address = other.address.to_string();
    assert_denied(&get(&format!("http://{address}/"), &address), 403, "proxy_host_refused");
    let text = world
        .text
        .replace(&format!("ports: [{}]", world.provider.port), &format!("ports: [{}]", other.address.port()));
    world.callgate.reload(&text).unwrap();
    assert_eq!(get(&format!("http://{address}/any//path?q"), &address).status, 200);
    assert_eq!(other.wait_for(1)[0].target(), "/any//path?q");
    let entry = world.callgate.logged(4).pop().unwrap();
    assert_eq!((&entry["egress"], &entry["host"]), (&"others".into(), &address.as_str().into()));
    // The listener's own address is not a proxied host: the path is looked up in the rules.
    let own = world.egress().to_string();
    let response = world.ask(&format!("GET http://{own}/plain HTTP/1.1\r\nHost: {own}\r\n\r\n"));
    assert_eq!(response.status, 200, "{response:?}");
    assert_denied(&get(&format!("http://{own}/plain"), &own), 403, "page_not_allowed");
    let mut twice = world.send(&format!("GET http://{address}/a HTTP/1.1\r\nHost: {address}\r\n\r\n"));
    assert_eq!(Response::read(&mut twice).status, 200);
    twice
        .write_all(format!("GET http://{address}/b HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
        .unwrap();
    assert_eq!(Response::read(&mut twice).status, 200);
}
