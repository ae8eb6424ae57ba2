//! The outbound proxy: which connections go through it, what it is asked for, what its faults look like, and what a reload
//! does to kept connections.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use callgate::clock::Clock;
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::harness::{ANSWER, Agent, Callgate, Response, eventually, open_config, send_to};
use crate::process::Process;
use crate::tls::{authority, issued};

/// How the proxy of a test answers CONNECT.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    /// It opens a tunnel to this address, whatever target it is asked for.
    Tunnel(SocketAddr),
    /// It opens the same tunnel, but only with the credentials of `API_KEY_AND_SECRET`.
    TunnelForUsers(SocketAddr),
    /// It sends these bytes and closes the connection.
    Answer(&'static [u8]),
    /// It sends bytes without an end.
    Endless(&'static [u8]),
    /// It reads the request and sends nothing.
    Silent,
    /// It opens a tunnel to a host that sends nothing.
    TunnelToNothing,
}

const CREDENTIALS: &str = "APIkey:a secret of thirty-two bytes, more";
const OPEN: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// A forward proxy that records the requests that it receives.
struct ForwardProxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl ForwardProxy {
    fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            heads: Arc::default(),
            behaviour: Arc::new(Mutex::new(behaviour)),
        };
        let (heads, behaviour) = (Arc::clone(&proxy.heads), Arc::clone(&proxy.behaviour));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (heads, behaviour) = (Arc::clone(&heads), Arc::clone(&behaviour));
                std::thread::spawn(move || answer(stream, &heads, &behaviour));
            }
        });
        proxy
    }

    fn behaves(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Returns the targets of the CONNECT requests.
    fn targets(&self) -> Vec<String> {
        let target = |head: &String| {
            let rest = head.strip_prefix("CONNECT ").unwrap_or_else(|| panic!("{head}"));
            rest.split(' ').next().unwrap().to_owned()
        };
        self.heads().iter().map(target).collect()
    }
}

/// Reads a CONNECT request and answers it.
fn answer(mut stream: TcpStream, heads: &Mutex<Vec<String>>, behaviour: &Mutex<Behaviour>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8(head).unwrap();
    let authorization =
        format!("\r\nProxy-Authorization: Basic {}\r\n", BASE64.encode(CREDENTIALS.as_bytes()));
    let is_known = head.contains(&authorization);
    heads.lock().unwrap().push(head);
    let behaviour = *behaviour.lock().unwrap();
    match behaviour {
        Behaviour::TunnelForUsers(_) if !is_known => {
            stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n").ok()
        }
        Behaviour::Tunnel(to) | Behaviour::TunnelForUsers(to) => {
            let provider = TcpStream::connect(to).ok()?;
            stream.write_all(OPEN).ok()?;
            let back = (provider.try_clone().ok()?, stream.try_clone().ok()?);
            std::thread::spawn(move || pump(back.0, back.1));
            pump(stream, provider)
        }
        Behaviour::Answer(bytes) => {
            stream.write_all(bytes).ok()?;
            stream.shutdown(Shutdown::Write).ok()?;
            until_closed(stream)
        }
        Behaviour::Endless(bytes) => loop {
            stream.write_all(bytes).ok()?;
        },
        Behaviour::Silent => until_closed(stream),
        Behaviour::TunnelToNothing => {
            stream.write_all(OPEN).ok()?;
            until_closed(stream)
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) -> Option<()> {
    let _ = std::io::copy(&mut from, &mut to);
    to.shutdown(Shutdown::Both).ok()
}

fn until_closed(mut stream: TcpStream) -> Option<()> {
    std::io::copy(&mut stream, &mut std::io::sink()).ok().map(drop)
}

/// A provider behind the proxy. `tls` terminates TLS for it, under the names of the certificate `provider`.
struct World {
    folder: tempfile::TempDir,
    provider: Agent,
    tls: Callgate,
    agent: Agent,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        authority(at, "ca");
        issued(at, "ca", "provider", "DNS:provider.example,DNS:keys.example,IP:10.1.2.3");
        let provider = Agent::start(ANSWER);
        let tls = front(at, &provider);
        Self { folder, provider, tls, agent: Agent::start(ANSWER) }
    }

    /// Returns a configuration with this value of `outbound_proxy`, if it is not empty.
    fn config(&self, proxy: &str, connect: &str) -> String {
        let proxy = if proxy.is_empty() { String::new() } else { format!("outbound_proxy: {proxy}") };
        let timeouts = format!("timeouts: {{ connect: {connect}, response: 20s }}");
        format!(
            "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
trusted_roots: {}
{proxy}
routes:
  - name: ask
    path: /ask/{{id}}
    token: {{ kind: callback }}
    forward: /in/{{id}}
    actions: {{ pointer: /url, hosts: [10.0.0.0/8, 127.0.0.1, \"http://plain.example\"], {timeouts} }}
egress:
  - name: tls
    path: /tls
    target: https://provider.example/open/x
    {timeouts}
    inject: {{ route: ask, params: {{ id: /id }}, url: /callback_url, token: /callback_token }}
  - {{ name: other, path: /other, target: https://other.example/open/x, {timeouts} }}
  - {{ name: plain, path: /plain, target: http://plain.example/open/x, {timeouts} }}
  - {{ name: ported, path: /ported, target: http://plain.example:8080/open/x, {timeouts} }}
  - {{ name: address, path: /address, target: \"https://10.1.2.3:8443/open/x\", {timeouts} }}
  - {{ name: ipv6, path: /ipv6, target: \"http://[2001:db8::1]/open/x\", {timeouts} }}
  - {{ name: local, path: /local, target: \"http://{}/open/x\", {timeouts} }}
",
            self.agent.address,
            self.folder.path().join("ca.crt").display(),
            self.provider.address,
        )
    }

    fn start(&self, proxy: &ForwardProxy, more: &str) -> Callgate {
        let proxy = format!("{{ url: \"http://{}\"{more} }}", proxy.address);
        Callgate::start(&self.config(&proxy, "20s"), Clock::System)
    }
}

/// Starts a Callgate that terminates TLS for a server.
fn front(folder: &Path, behind: &Agent) -> Callgate {
    let file = |name: &str| folder.join(name).display().to_string();
    let (certificate, key) = (file("provider.crt"), file("provider.key"));
    let tls = format!("address: 127.0.0.1:0, tls: {{ certificate: {certificate}, key: {key} }} }} ]");
    let text = open_config(&behind.address.to_string()).replace("address: 127.0.0.1:0 } ]", &tls);
    Callgate::start(&text, Clock::System)
}

fn reason(response: &Response) -> (u16, String) {
    (response.status, response.json()["reason"].as_str().unwrap_or_default().to_owned())
}

fn failed() -> (u16, String) {
    (502, "outbound_proxy_failed".to_owned())
}

#[test]
fn providers_are_reached_through_tunnels_and_the_proxy_resolves_their_names() {
    let world = World::new();
    let proxy = ForwardProxy::start(Behaviour::Tunnel(world.tls.ingress));
    let callgate = world.start(&proxy, "");
    // The name does not exist for the resolver of this host.
    let answer = callgate.agent_sends("/tls", r#"{"id":"a"}"#);
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    let sent: Value = serde_json::from_slice(&world.provider.received()[0].body).unwrap();
    assert_eq!(sent["callback_url"], "https://agent.example.com/ask/a");
    assert_eq!(callgate.agent_sends("/address", "{}").status, 200);
    // TLS is end to end: the certificate is verified for the name of the provider.
    let other = callgate.agent_sends("/other", "{}");
    assert_eq!(reason(&other), (502, "provider_unreachable".to_owned()));
    assert_eq!(world.provider.received().len(), 2);
    // Plain HTTP goes through a tunnel as well, and the provider sees the request as without the proxy.
    proxy.behaves(Behaviour::Tunnel(world.provider.address));
    for path in ["/plain", "/ported", "/ipv6"] {
        assert_eq!(callgate.agent_sends(path, "{}").status, 200, "{path}");
        let received = world.provider.received().pop().unwrap();
        assert!(received.head.starts_with("POST /open/x HTTP/1.1\r\n"), "{}", received.head);
        assert!(!received.head.to_ascii_lowercase().contains("proxy"), "{}", received.head);
    }
    assert_eq!(callgate.agent_sends("/local", "{}").status, 200);
    let expected = [
        "provider.example:443",
        "10.1.2.3:8443",
        "other.example:443",
        "plain.example:80",
        "plain.example:8080",
        "[2001:db8::1]:80",
    ];
    assert_eq!(proxy.targets(), expected, "loopback addresses are reached directly");
    let head = &proxy.heads()[0];
    assert!(head.contains("\r\nHost: provider.example:443\r\n"), "{head}");
    assert!(!head.contains("callback") && !head.contains("Proxy-Authorization"), "{head}");
    // A callback reaches the agent directly.
    let bearer = format!("Bearer {}", sent["callback_token"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str())];
    let body = br#"{"url":"https://10.1.2.3/x"}"#;
    assert_eq!(send_to(callgate.ingress, "POST", "/ask/a", &headers, body).status, 200);
    assert_eq!(proxy.targets().len(), expected.len());
}

#[test]
fn credentials_are_sent_to_the_proxy_and_appear_nowhere_else() {
    let world = World::new();
    let proxy = ForwardProxy::start(Behaviour::TunnelForUsers(world.provider.address));
    let callgate = world.start(&proxy, ", credentials: { env: API_KEY_AND_SECRET }");
    assert_eq!(callgate.agent_sends("/plain", "{}").status, 200);
    let received = world.provider.received().pop().unwrap();
    assert!(!received.head.contains("uthorization"), "{}", received.head);
    let unknown = world.start(&proxy, "");
    let refused = unknown.agent_sends("/plain", "{}");
    assert_eq!(reason(&refused), failed());
    proxy.behaves(Behaviour::Answer(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"));
    assert_eq!(reason(&callgate.agent_sends("/ported", "{}")), failed());
    let lines = callgate.logged(2);
    let detail = lines[1]["detail"].as_str().unwrap();
    assert!(detail.contains("status 407") && detail.contains("outbound_proxy.credentials"), "{detail}");
    let encoded = BASE64.encode(CREDENTIALS.as_bytes());
    let status = callgate.admin_get("/status").text();
    let shown = [format!("{lines:?}"), callgate.metrics(), refused.text(), status];
    for text in &shown {
        assert!(!text.contains("thirty-two") && !text.contains(&encoded), "{text}");
    }
    assert!(shown[1].contains("reason=\"outbound_proxy_failed\""), "{}", shown[1]);
}

/// The faults of a proxy that it shows by what it sends, each with words of the detail in the log.
const FAULTS: &[(Behaviour, &str)] = &[
    (Behaviour::Answer(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno"), "status 403"),
    (Behaviour::Answer(b"HTTP/1.1 302 Found\r\nlocation: http://login.example/\r\n\r\n"), "status 302"),
    (Behaviour::Answer(b"HTTP/1.0 503 Service Unavailable\r\n\r\n"), "status 503"),
    (Behaviour::Answer(b"SSH-2.0-OpenSSH_9.6\r\n"), "not HTTP/1"),
    (Behaviour::Answer(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), "not HTTP/1"),
    (Behaviour::Answer(b""), "closed the connection"),
    (Behaviour::Answer(b"HTTP/1.1 200 OK\r\nvia: x"), "closed the connection"),
    (Behaviour::Endless(b"HTTP/1.1 200 OK\r\nvia: xxxxxxxxxxxxxxxx"), "not HTTP/1"),
    (Behaviour::Endless(b"HTTP/1.1 102 Processing\r\n\r\n"), "not HTTP/1"),
];

#[test]
fn a_proxy_that_opens_no_tunnel_is_a_fault_of_its_own_kind() {
    let world = World::new();
    let proxy = ForwardProxy::start(Behaviour::Silent);
    let callgate = world.start(&proxy, "");
    for (behaviour, words) in FAULTS {
        proxy.behaves(*behaviour);
        let refused = callgate.agent_sends("/tls", r#"{"id":"a"}"#);
        assert_eq!(reason(&refused), failed(), "{behaviour:?}");
        assert_eq!(refused.header("retry-after"), Some("5"));
        let line = callgate.log().remove(0);
        assert_eq!(
            (line["reason"].as_str(), line["verdict"].as_str()),
            (Some("outbound_proxy_failed"), Some("fail"))
        );
        let detail = line["detail"].as_str().unwrap();
        assert!(detail.contains("outbound proxy") && detail.contains(words), "{behaviour:?}: {detail}");
    }
    // The provider never learned the tokens.
    let interactions = callgate.admin_get("/callbacks").json();
    for interaction in interactions["interactions"].as_array().unwrap() {
        assert_eq!(interaction["state"], json!("not_sent"));
    }
    // Nothing listens at the address of the proxy.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = world.config(&format!("{{ url: \"http://{closed}\" }}"), "20s");
    let refused = Callgate::start(&config, Clock::System).agent_sends("/plain", "{}");
    assert_eq!(reason(&refused), failed());
    let config = world.config("{ url: \"http://no-such-proxy.invalid:3128\" }", "20s");
    let callgate = Callgate::start(&config, Clock::System);
    assert_eq!(reason(&callgate.agent_sends("/plain", "{}")), failed());
    assert!(callgate.log()[0]["detail"].as_str().unwrap().contains("its name could not be resolved"));
    assert!(world.provider.received().is_empty());
}

#[test]
fn a_proxy_that_does_not_answer_has_as_long_as_a_connection() {
    let world = World::new();
    let proxy = ForwardProxy::start(Behaviour::Silent);
    let config = world.config(&format!("{{ url: \"http://{}\" }}", proxy.address), "300ms");
    let callgate = Callgate::start(&config, Clock::System);
    let late = callgate.agent_sends("/tls", r#"{"id":"a"}"#);
    assert_eq!(reason(&late), (504, "outbound_proxy_timeout".to_owned()));
    assert_eq!(callgate.admin_get("/callbacks").json()["interactions"][0]["state"], "not_sent");
    let metrics = callgate.metrics();
    assert!(metrics.contains("reason=\"outbound_proxy_timeout\",rule=\"tls\""), "{metrics}");
    // With an open tunnel, it is the provider that does not answer the TLS handshake.
    proxy.behaves(Behaviour::TunnelToNothing);
    assert_eq!(
        reason(&callgate.agent_sends("/tls", r#"{"id":"a"}"#)),
        (502, "provider_unreachable".to_owned())
    );
}

#[test]
fn exempt_hosts_are_reached_directly() {
    let world = World::new();
    let proxy = ForwardProxy::start(Behaviour::Tunnel(world.provider.address));
    let exempt = format!("{{ url: \"http://{}\", no_proxy: [plain.example, 10.0.0.0/8] }}", proxy.address);
    let callgate = Callgate::start(&world.config(&exempt, "1s"), Clock::System);
    // Without the proxy, the name does not exist, and nothing answers at the address.
    for path in ["/plain", "/ported", "/address"] {
        assert_eq!(
            reason(&callgate.agent_sends(path, "{}")),
            (502, "provider_unreachable".to_owned()),
            "{path}"
        );
    }
    assert!(proxy.heads().is_empty());
    assert_eq!(callgate.agent_sends("/ipv6", "{}").status, 200);
    assert_eq!(proxy.targets(), ["[2001:db8::1]:80"]);
}

#[test]
fn tunnels_are_kept_for_their_target_and_not_beyond_a_reload() {
    let world = World::new();
    let proxy = ForwardProxy::start(Behaviour::Tunnel(world.provider.address));
    let text = world.config(&format!("{{ url: \"http://{}\" }}", proxy.address), "20s");
    let callgate = Callgate::start(&text, Clock::System);
    let send = |path: &str| callgate.agent_sends(path, "{}").status;
    // A connection is returned to the pool shortly after the agent has its response.
    let kept = |proxy: &ForwardProxy| {
        eventually(|| {
            let before = proxy.heads().len();
            assert_eq!((send("/plain"), send("/plain")), (200, 200));
            (proxy.heads().len() == before).then_some(before)
        })
    };
    let tunnels = kept(&proxy);
    assert!(proxy.targets().iter().all(|target| target == "plain.example:80"), "{:?}", proxy.targets());
    // Another port of the same host is another target.
    assert_eq!(send("/ported"), 200);
    assert_eq!(proxy.targets()[tunnels..], ["plain.example:8080"]);
    // A reload that does not change the proxy keeps the tunnels.
    callgate.reload(&text).unwrap();
    let before = kept(&proxy);
    // Another proxy.
    let second = ForwardProxy::start(Behaviour::Tunnel(world.provider.address));
    callgate.reload(&text.replace(&proxy.address.to_string(), &second.address.to_string())).unwrap();
    assert_eq!(send("/plain"), 200);
    assert_eq!((proxy.heads().len(), second.targets()), (before, vec!["plain.example:80".to_owned()]));
    // Other credentials.
    kept(&second);
    let with = format!("{}\", credentials: {{ env: API_KEY_AND_SECRET }}", second.address);
    let other = text.replace(&format!("{}\"", proxy.address), &with);
    callgate.reload(&other).unwrap();
    let before = second.heads().len();
    assert_eq!(send("/plain"), 200);
    assert_eq!(second.heads().len(), before + 1);
    assert!(second.heads()[before].contains("Proxy-Authorization: Basic "));
    // The host becomes exempt: the tunnel is not used for it any more.
    kept(&second);
    callgate.reload(&other.replace("credentials:", "no_proxy: [plain.example], credentials:")).unwrap();
    assert_eq!(send("/plain"), 502);
    // No proxy at all.
    callgate.reload(&other).unwrap();
    kept(&second);
    callgate.reload(&world.config("", "20s")).unwrap();
    assert_eq!(send("/plain"), 502);
    assert_eq!(send("/local"), 200);
}

#[test]
fn answers_go_through_tunnels_to_the_address_that_was_checked() {
    let world = World::new();
    let proxy = ForwardProxy::start(Behaviour::Tunnel(world.provider.address));
    let callgate = world.start(&proxy, "");
    let ask = |endpoint: &str| {
        let minted =
            callgate.admin_send("POST", "/callbacks", r#"{"route":"ask","params":{"id":"a"}}"#).json();
        let bearer = format!("Bearer {}", minted["callback_token"].as_str().unwrap());
        let headers = [("authorization", bearer.as_str())];
        let body = format!("{{\"url\":\"{endpoint}\"}}");
        let asked = send_to(callgate.ingress, "POST", "/ask/a", &headers, body.as_bytes()).status;
        assert_eq!(asked, 200, "{endpoint}");
        callgate.agent_sends(&format!("/actions/{}", minted["interaction"].as_str().unwrap()), "{}")
    };
    assert_eq!(ask("http://10.1.2.3:9/answer?x=y").status, 200);
    assert_eq!(proxy.targets(), ["10.1.2.3:9"]);
    assert_eq!(world.provider.received()[0].target(), "/answer?x=y");
    // Callgate resolves the name itself, so that it can check the addresses. The proxy is not asked to resolve it.
    assert_eq!(reason(&ask("http://plain.example/answer")), (502, "provider_unreachable".to_owned()));
    // An address of this host is reached directly.
    assert_eq!(ask(&format!("http://{}/local", world.provider.address)).status, 200);
    assert_eq!(proxy.heads().len(), 1);
    proxy.behaves(Behaviour::Answer(b"HTTP/1.1 403 Forbidden\r\n\r\n"));
    assert_eq!(reason(&ask("http://10.1.2.4:9/answer")), failed());
}

/// Returns a configuration that fetches a key set from `keys.example`.
fn fetching(world: &World, proxy: &ForwardProxy, fetch: &str, more: &str) -> String {
    format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
trusted_roots: {}
fetch: {{ every: 200ms, {fetch} }}
outbound_proxy: {{ url: \"http://{}\", credentials: {{ env: API_KEY_AND_SECRET }}{more} }}
providers: {{ p: {{ preset: fal, keys: {{ url: \"https://keys.example/open/jwks\" }} }} }}
routes: [ {{ name: r, path: /hook, provider: p, forward: /in, duplicates: deliver }} ]
",
        world.agent.address,
        world.folder.path().join("ca.crt").display(),
        proxy.address,
    )
}

/// Returns how many fetches failed.
fn failed_fetches(callgate: &Callgate) -> u64 {
    let metrics = callgate.metrics();
    let is_failed = |line: &&str| line.starts_with("callgate_feed_fetches_total{") && line.contains("failed");
    let line = metrics.lines().find(is_failed);
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

#[test]
fn a_fetch_fails_in_time_whatever_the_proxy_sends() {
    let world = World::new();
    let faults = FAULTS.iter().map(|(behaviour, _)| *behaviour);
    let fetches: Vec<_> = faults
        .chain([Behaviour::Silent, Behaviour::TunnelToNothing])
        .map(|behaviour| {
            let proxy = ForwardProxy::start(behaviour);
            let config = fetching(&world, &proxy, "timeout: 500ms", "");
            (Callgate::start(&config, Clock::System), proxy)
        })
        .collect();
    for (callgate, proxy) in &fetches {
        eventually(|| (failed_fetches(callgate) > 0).then_some(()));
        assert!(!proxy.heads().is_empty());
    }
    assert!(world.provider.received().is_empty());
}

#[test]
fn documents_are_fetched_through_the_proxy() {
    let world = World::new();
    let jwks = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"PtroYJ_1anP4GGP7sv_DVk9HQVYC-xLboxf98CI4tDM"}]}"#;
    world.provider.answers(
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{jwks}",
            jwks.len()
        )
        .as_bytes(),
    );
    let proxy = ForwardProxy::start(Behaviour::Answer(b"HTTP/1.1 403 Forbidden\r\n\r\n"));
    let config = |proxy: &ForwardProxy, more: &str| fetching(&world, proxy, "timeout: 2s", more);
    let callgate = Callgate::start(&config(&proxy, ""), Clock::System);
    eventually(|| (failed_fetches(&callgate) > 0).then_some(()));
    assert!(world.provider.received().is_empty());
    proxy.behaves(Behaviour::TunnelForUsers(world.tls.ingress));
    let received = world.provider.wait_for(1);
    assert_eq!(received[0].target(), "/in/jwks");
    assert!(!received[0].head.to_ascii_lowercase().contains("proxy"), "{}", received[0].head);
    eventually(|| callgate.metrics().contains("callgate_feed_age_seconds{").then_some(()));
    assert!(proxy.targets().iter().all(|target| target == "keys.example:443"), "{:?}", proxy.targets());
    // A reload that changes the proxy does not use the old connection.
    let second = ForwardProxy::start(Behaviour::TunnelForUsers(world.tls.ingress));
    callgate.reload(&config(&second, "")).unwrap();
    eventually(|| second.heads().first().cloned());
    let requests = world.provider.received().len();
    world.provider.wait_for(requests + 1);
    let before = proxy.heads().len();
    // An exempt host is not asked for any more.
    callgate.reload(&config(&second, ", no_proxy: [keys.example]")).unwrap();
    let failed = failed_fetches(&callgate);
    eventually(|| (failed_fetches(&callgate) > failed).then_some(()));
    assert_eq!(proxy.heads().len(), before);
}

#[test]
fn variables_of_the_environment_name_no_proxy() {
    let (provider, agent) = (Agent::start(ANSWER), Agent::start(ANSWER));
    let proxy = ForwardProxy::start(Behaviour::Tunnel(provider.address));
    let config = format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
fetch: {{ every: 200ms, timeout: 2s }}
providers: {{ p: {{ preset: fal, keys: {{ url: \"http://{}/jwks\" }} }} }}
routes: [ {{ name: r, path: /hook, provider: p, forward: /in, duplicates: deliver }} ]
",
        agent.address, provider.address
    );
    let url = format!("http://{}", proxy.address);
    let names = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"];
    let variables: Vec<_> = names.iter().map(|name| (*name, url.as_str())).collect();
    let _process = Process::start_with(tempfile::tempdir().unwrap(), &config, &variables);
    provider.wait_for(2);
    assert!(proxy.heads().is_empty());
}
