//! The egress listener as a forward proxy: interception, tunnels, and what is refused.

mod clients;
mod connections;
mod refused;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use callgate::clock::Clock;
use serde_json::Value;

use crate::harness::{ANSWER, Agent, Callgate, Response};
use crate::tls::{authority, issued};

/// A provider with TLS and a certificate for `localhost`.
struct Provider {
    child: Child,
    port: u16,
    requests: Receiver<Value>,
}

impl Provider {
    fn start(certificate: &Path, key: &Path) -> Self {
        let mut child = Command::new("python3")
            .arg("tests/suite/forward_proxy/provider.py")
            .args([certificate, key])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.next().unwrap().parse().unwrap();
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for line in lines {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, port, requests }
    }

    /// Waits for the next request. Returns its head and its body.
    fn next(&self) -> (String, String) {
        let request = self.requests.recv_timeout(Duration::from_secs(60)).unwrap();
        (request["head"].as_str().unwrap().to_owned(), request["body"].as_str().unwrap().to_owned())
    }

    fn has_received(&self) -> bool {
        self.requests.try_recv().is_ok()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A provider, an agent, and Callgate between them.
struct World {
    folder: tempfile::TempDir,
    provider: Provider,
    agent: Agent,
    text: String,
    callgate: Callgate,
}

impl World {
    /// Starts with these settings of the proxy, besides `bundle`. In the settings, `PORT` stands for the port of the
    /// provider. `more` are more settings of the rule `jobs`.
    fn new(proxy: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        authority(folder.path(), "ca");
        issued(folder.path(), "ca", "provider", "DNS:localhost");
        let file = |name: &str| folder.path().join(name);
        let provider = Provider::start(&file("provider.crt"), &file("provider.key"));
        let agent = Agent::start(ANSWER);
        let text = format!(
            "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0, proxy: {{ bundle: {bundle}{proxy} }} }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\" }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
trusted_roots: {roots}
routes:
  - {{ name: doc, path: \"/doc/{{id}}\", token: {{ kind: callback }}, forward: \"/in/{{id}}\" }}
egress:
  - name: jobs
    path: /jobs/{{account}}
    target: https://localhost:PORT/v1/{{account}}/jobs
    proxied: true
    response: /id
    headers: {{ x-api-key: {{ env: STATIC }} }}
    inject: {{ route: doc, params: {{ id: /id }}, url: /callback/url, token: /callback/token }}
{more}",
            bundle = file("trust").display(),
            agent = agent.address,
            roots = file("ca.crt").display(),
        );
        let text = text.replace("PORT", &provider.port.to_string());
        let callgate = Callgate::start(&text, Clock::System);
        Self { folder, provider, agent, text, callgate }
    }

    fn egress(&self) -> SocketAddr {
        self.callgate.egress.unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.provider.port)
    }

    /// Runs curl with Callgate as its proxy, trusting the certificates in this file.
    fn curl(&self, trusted: &str, args: &[&str]) -> Output {
        Command::new("curl")
            .args(["-s", "-S", "--noproxy", "", "-x"])
            .arg(format!("http://{}", self.egress()))
            .arg("--cacert")
            .arg(self.file(trusted))
            .args(args)
            .output()
            .unwrap()
    }

    /// Opens a connection to the egress listener and sends these bytes.
    fn send(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.egress()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
    }

    /// Sends a request to the egress listener and reads the response.
    fn ask(&self, bytes: &str) -> Response {
        Response::read(&mut self.send(bytes))
    }

    fn connect(&self, target: &str) -> Response {
        self.ask(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"))
    }

    /// Opens a tunnel and leaves it open.
    fn open(&self) -> TcpStream {
        let target = format!("localhost:{}", self.provider.port);
        let mut stream = self.send(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
        stream
    }

    /// Sends a request on an intercepted connection with openssl. Returns the output.
    fn openssl(&self, args: &[&str], request: &str) -> String {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-proxy", &self.egress().to_string()])
            .args(["-connect", &format!("localhost:{}", self.provider.port)])
            .arg("-CAfile")
            .arg(self.file("trust/ca.pem"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(request.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        drop(stdin);
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    }
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned()
}

/// Asserts that a response has this status and this reason.
#[track_caller]
fn assert_denied(response: &Response, status: u16, reason: &str) {
    assert_eq!((response.status, response.json()["reason"].as_str()), (status, Some(reason)), "{response:?}");
}

/// Returns `body` without the callback that Callgate inserted.
#[track_caller]
fn without_callback(body: &str) -> String {
    let start = body.find(r#","callback":{"#).unwrap_or_else(|| panic!("{body}"));
    let end = start + body[start..].find('}').unwrap() + 1;
    assert!(body[start..end].contains(r#""url":"https://agent.example.com/doc/"#), "{body}");
    format!("{}{}", &body[..start], &body[end..])
}

/// A port on which nothing listens.
fn unused_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
