//! TLS of listeners: certificates by name, TLS versions, client certificates, and the PROXY protocol of load balancers.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use callgate::clock::Clock;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore};

use crate::harness::{ANSWER, Agent, Callgate, Response, eventually, open_config};

/// Runs openssl in a folder.
pub fn openssl(folder: &Path, args: &str) {
    let out = Command::new("openssl").current_dir(folder).args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "{args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Creates a certificate authority, `name.crt`, and its key.
pub fn authority(folder: &Path, name: &str) {
    openssl(
        folder,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.crt"
        ),
    );
}

/// Creates a certificate `name.crt` that `ca` issued for these alternative names, and its key.
pub fn issued(folder: &Path, ca: &str, name: &str, names: &str) {
    openssl(
        folder,
        &format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ),
    );
    fs::write(folder.join(format!("{name}.ext")), format!("subjectAltName={names}\n")).unwrap();
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial -days 1 -extfile {name}.ext -out {name}.crt"
        ),
    );
}

/// Returns a configuration with more settings on its ingress listener.
fn listening(agent: &Agent, more: &str) -> String {
    let listener = format!("address: 127.0.0.1:0, {more} }}");
    open_config(&agent.address.to_string()).replacen("address: 127.0.0.1:0 }", &listener, 1)
}

/// Runs curl and returns its output.
fn curl(folder: &Path, args: &[&str]) -> String {
    let out = Command::new("curl").current_dir(folder).args(["-s", "-S"]).args(args).output().unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

#[test]
fn the_certificate_is_the_one_for_the_name_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "ca");
    issued(at, "ca", "one", "DNS:one.example,IP:127.0.0.1");
    issued(at, "ca", "wild", "DNS:*.wild.example,DNS:Two.example");
    let file = |name: &str| at.join(name).display().to_string();
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(
        &listening(
            &agent,
            &format!(
                "tls: {{ certificate: {}, key: {}, certificates: [ {{ certificate: {}, key: {} }} ] }}",
                file("one.crt"),
                file("one.key"),
                file("wild.crt"),
                file("wild.key")
            ),
        ),
        Clock::System,
    );
    let port = callgate.ingress.port();
    let ask = |name: &str| {
        let resolve = format!("{name}:{port}:127.0.0.1");
        curl(at, &["--cacert", "ca.crt", "--resolve", &resolve, &format!("https://{name}:{port}/open/x")])
    };
    for name in ["one.example", "127.0.0.1", "two.example", "a.wild.example"] {
        assert_eq!(ask(name), "hello", "{name}");
    }
    for name in ["other.example", "wild.example", "a.b.wild.example"] {
        assert!(ask(name).contains("SSL"), "{name}");
    }
    let metrics = callgate.metrics();
    for name in ["one.crt", "wild.crt"] {
        let series =
            format!("callgate_certificate_expiry_timestamp_seconds{{certificate=\"{}\"}}", file(name));
        let line = metrics.lines().find(|line| line.starts_with(&series)).unwrap();
        let end: i64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        let left = end - Clock::System.now().unix_secs();
        assert!((80_000..=86_400).contains(&left), "{left}");
    }
}

#[test]
fn without_a_public_url_the_agent_learns_the_scheme_of_the_listener() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "ca");
    issued(at, "ca", "one", "IP:127.0.0.1");
    let file = |name: &str| at.join(name).display().to_string();
    let agent = Agent::start(ANSWER);
    let tls = format!("tls: {{ certificate: {}, key: {} }}", file("one.crt"), file("one.key"));
    let callgate = Callgate::start(&listening(&agent, &tls), Clock::System);
    let url = format!("https://{}/open/x", callgate.ingress);
    for version in ["--http1.1", "--http2"] {
        assert_eq!(
            curl(at, &["--cacert", "ca.crt", version, "-H", "X-Forwarded-Proto: http", &url]),
            "hello"
        );
        let received = agent.received().pop().unwrap();
        assert_eq!(received.header("x-forwarded-proto"), ["https"], "{version}");
        assert_eq!(received.header("x-forwarded-for"), ["127.0.0.1"], "{version}");
        assert!(received.header("x-forwarded-host").is_empty(), "{version}");
    }
}

#[test]
fn versions_and_a_handshake_that_does_not_come() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "ca");
    issued(at, "ca", "one", "IP:127.0.0.1");
    let file = |name: &str| at.join(name).display().to_string();
    let agent = Agent::start(ANSWER);
    for (min, ok_1_2) in [("1.2", true), ("1.3", false)] {
        let tls = format!(
            "tls: {{ certificate: {}, key: {}, min_version: {min} }}",
            file("one.crt"),
            file("one.key")
        );
        let config = listening(&agent, &tls);
        let callgate = Callgate::start(&config, Clock::System);
        let url = format!("https://{}/open/x", callgate.ingress);
        let with = |args: &[&str]| curl(at, &[&["--cacert", "ca.crt", &*url][..], args].concat());
        assert_eq!(with(&["--tlsv1.3"]), "hello");
        assert_eq!(with(&["--tls-max", "1.2"]) == "hello", ok_1_2, "{min}");
        // A client that sends nothing, and clients that do not speak TLS.
        let hasty = config.replace("limits: { ", "limits: { head_deadline: 300ms, ");
        let callgate = Callgate::start(&hasty, Clock::System);
        for beginning in [b"".as_slice(), b"GET / HTTP/1.1\r\n\r\n", &[22, 3, 1]] {
            let mut stream = callgate.connect();
            stream.write_all(beginning).unwrap();
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
            assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
        }
        let metrics = callgate.metrics();
        for reason in ["slow", "tls"] {
            assert!(metrics.contains(&format!("refused_total{{reason=\"{reason}\"}}")), "{metrics}");
        }
    }
}

/// Performs a handshake with these key exchanges. Returns the one that was used, if the handshake succeeds.
fn key_exchange(folder: &Path, port: u16, groups: &[&'static dyn SupportedKxGroup]) -> Option<NamedGroup> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt")).unwrap()).unwrap();
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..default_provider() };
    let config = ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut client = ClientConnection::new(config.into(), name).unwrap();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut stream).ok()?;
    }
    client.negotiated_key_exchange_group().map(SupportedKxGroup::name)
}

#[test]
fn a_client_gets_the_hybrid_key_exchange_if_it_offers_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "ca");
    issued(at, "ca", "one", "IP:127.0.0.1");
    let file = |name: &str| at.join(name).display().to_string();
    let tls = format!("tls: {{ certificate: {}, key: {} }}", file("one.crt"), file("one.key"));
    let callgate = Callgate::start(&listening(&Agent::start(ANSWER), &tls), Clock::System);
    let [hybrid, x25519, p256, p384]: [&'static dyn SupportedKxGroup; 4] =
        [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    for (offered, used) in [
        (vec![hybrid], Some(NamedGroup::X25519MLKEM768)),
        (vec![hybrid, x25519], Some(NamedGroup::X25519MLKEM768)),
        // The client has sent a key only for its first one. Another one would need a further round trip.
        (vec![x25519, hybrid], Some(NamedGroup::X25519)),
        (vec![x25519], Some(NamedGroup::X25519)),
        (vec![p256], Some(NamedGroup::secp256r1)),
        (vec![p384], Some(NamedGroup::secp384r1)),
    ] {
        assert_eq!(key_exchange(at, callgate.ingress.port(), &offered), used, "{offered:?}");
    }
}

#[test]
fn certificates_and_keys_may_begin_with_a_byte_order_mark() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "ca");
    issued(at, "ca", "one", "IP:127.0.0.1");
    let marked = |name: &str| {
        let path = at.join(format!("marked-{name}"));
        fs::write(&path, [b"\xef\xbb\xbf".to_vec(), fs::read(at.join(name)).unwrap()].concat()).unwrap();
        path.display().to_string()
    };
    let agent = Agent::start(ANSWER);
    let tls = format!(
        "tls: {{ certificate: {}, key: {}, client_certificates: {{ authorities: {}, required: true }} }}",
        marked("one.crt"),
        marked("one.key"),
        marked("ca.crt")
    );
    let roots = format!("trusted_roots: {}\n", marked("ca.crt"));
    let callgate = Callgate::start(&(roots + &listening(&agent, &tls)), Clock::System);
    let url = format!("https://{}/open/x", callgate.ingress);
    let args = ["--cacert", "ca.crt", "--cert", "one.crt", "--key", "one.key", "-d", "{}", &url];
    assert_eq!(curl(at, &args), "hello");
}

#[test]
fn clients_prove_who_they_are_where_a_route_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "ca");
    authority(at, "clients");
    authority(at, "strangers");
    issued(at, "ca", "one", "IP:127.0.0.1");
    issued(at, "clients", "bank", "DNS:bank.example");
    issued(at, "clients", "shop", "DNS:shop.example");
    issued(at, "strangers", "stranger", "DNS:bank.example");
    let file = |name: &str| at.join(name).display().to_string();
    let agent = Agent::start(ANSWER);
    let tls = |more: &str| {
        format!(
            "tls: {{ certificate: {}, key: {}, client_certificates: {{ authorities: {}{more} }} }}",
            file("one.crt"),
            file("one.key"),
            file("clients.crt")
        )
    };
    let routes = "routes:
  - { name: named, path: /named, methods: [GET], client_certificate: { names: [bank.example] }, forward: /in/named }
  - { name: any, path: /any, methods: [GET], open: true, client_certificate: required, forward: /in/any }
";
    let start = |more: &str| {
        let config = listening(&agent, &tls(more)).replacen("routes:\n", routes, 1);
        Callgate::start(&format!("explain_denials: true\n{config}"), Clock::System)
    };
    let ask = |callgate: &Callgate, path: &str, client: Option<&str>, version: &str| {
        let url = format!("https://{}{path}", callgate.ingress);
        let (cert, key) = client.map_or_else(Default::default, |c| (format!("{c}.crt"), format!("{c}.key")));
        let with: &[&str] = if client.is_some() { &["--cert", &cert, "--key", &key] } else { &[] };
        curl(at, &[&["--cacert", "ca.crt", version, &url][..], with].concat())
    };
    let callgate = start("");
    for version in ["--http1.1", "--http2"] {
        let ask = |path, client| ask(&callgate, path, client, version);
        assert_eq!(ask("/named", Some("bank")), "hello");
        assert_eq!(ask("/any", Some("shop")), "hello");
        assert_eq!(ask("/open/x", None), "hello");
        assert!(ask("/named", Some("shop")).contains("client_certificate_other"));
        assert!(ask("/named", None).contains("client_certificate_missing"));
        assert!(ask("/any", None).contains("client_certificate_missing"));
        // A certificate with the right name from another authority is not accepted.
        let stranger = ask("/named", Some("stranger"));
        assert!(!stranger.contains("hello"), "{stranger}");
    }
    let callgate = start(", required: true");
    assert_eq!(ask(&callgate, "/open/x", Some("shop"), "--http1.1"), "hello");
    assert!(!ask(&callgate, "/open/x", None, "--http1.1").contains("hello"));
}

/// A kept connection with a client certificate.
struct Kept(Child);

impl Kept {
    fn open(at: &Path, callgate: &Callgate, client: &str) -> Self {
        let (cert, key) = (format!("{client}.crt"), format!("{client}.key"));
        let address = callgate.ingress.to_string();
        let child = Command::new("openssl")
            .current_dir(at)
            .args(["s_client", "-quiet", "-verify_quiet", "-CAfile", "ca.crt", "-connect", &address])
            .args(["-cert", &cert, "-key", &key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Sends another request and returns the status.
    fn ask(&mut self, path: &str) -> u16 {
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        self.0.stdin.as_mut().unwrap().write_all(request.as_bytes()).unwrap();
        Response::read(self.0.stdout.as_mut().unwrap()).status
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_kept_connection_is_held_against_the_authorities_of_the_moment() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    ["ca", "clients", "others"].iter().for_each(|name| authority(at, name));
    issued(at, "ca", "one", "IP:127.0.0.1");
    issued(at, "clients", "bank", "DNS:bank.example");
    let read = |name: &str| fs::read_to_string(at.join(name)).unwrap();
    fs::write(at.join("trusted.crt"), read("clients.crt")).unwrap();
    let file = |name: &str| at.join(name).display().to_string();
    let agent = Agent::start(ANSWER);
    let tls = format!(
        "tls: {{ certificate: {}, key: {}, client_certificates: {{ authorities: {} }} }}",
        file("one.crt"),
        file("one.key"),
        file("trusted.crt")
    );
    let routes = "routes:
  - { name: named, path: /named, methods: [GET], client_certificate: { names: [bank.example] }, forward: /in/named }
";
    let config = listening(&agent, &tls).replacen("routes:\n", routes, 1);
    let callgate = Callgate::start(&config, Clock::System);
    let mut kept = Kept::open(at, &callgate, "bank");
    assert_eq!(kept.ask("/named"), 200);
    fs::write(at.join("trusted.crt"), read("others.crt") + &read("clients.crt")).unwrap();
    callgate.reload(&config).unwrap();
    assert_eq!(kept.ask("/named"), 200, "one more authority takes nothing away");
    fs::write(at.join("trusted.crt"), read("others.crt")).unwrap();
    callgate.reload(&config).unwrap();
    assert_eq!([kept.ask("/named"), kept.ask("/open/x")], [403, 200]);
    fs::write(at.join("trusted.crt"), read("clients.crt")).unwrap();
    callgate.reload(&config).unwrap();
    assert_eq!(kept.ask("/named"), 200);
}

/// Returns a PROXY protocol header, version 2.
fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
    header.extend(addresses);
    header
}

#[test]
fn a_balancer_says_whom_it_passes_on() {
    let agent = Agent::start(ANSWER);
    let config = listening(&agent, "proxy_protocol: { trusted_proxies: [127.0.0.8/30] }")
        .replace("limits: { ", "limits: { head_deadline: 2s, ");
    let callgate = Callgate::start(&config, Clock::System);
    let ask = |peer: u8, header: &[u8], step: usize| {
        let mut stream = callgate.connect_from(IpAddr::from([127, 0, 0, peer]));
        stream.set_nodelay(true).unwrap();
        let request = [header, b"GET /open/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"].concat();
        for piece in request.chunks(step) {
            if stream.write_all(piece).is_err() {
                return None;
            }
        }
        let mut all = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut all);
        (!all.is_empty()).then(|| Response::read(&mut all.as_slice()))
    };
    let v4 = [203, 0, 113, 7, 127, 0, 0, 1, 0x1f, 0x90, 0, 80];
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    v6[15] = 7;
    let with_more = [&v4[..], &[4, 0, 3, 1, 2, 3]].concat();
    for (header, client) in [
        (b"PROXY TCP4 203.0.113.7 127.0.0.1 5 80\r\n".to_vec(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 5 80\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.9"),
        (version_2(1, 0x11, &v4), "203.0.113.7"),
        (version_2(1, 0x11, &with_more), "203.0.113.7"),
        (version_2(1, 0x21, &v6), "2001:db8::7"),
        (version_2(0, 0, &[]), "127.0.0.9"),
    ] {
        for step in [1, 7, 1000] {
            let response = ask(9, &header, step);
            assert_eq!(response.unwrap().status, 200, "{}", String::from_utf8_lossy(&header));
            let received = agent.received().pop().unwrap();
            assert_eq!(received.header("callgate-client-address"), [client], "{step}");
        }
    }
    let before = agent.received().len();
    for header in [
        b"".to_vec(),
        b"PROXY TCP4 203.0.113.7 127.0.0.1 5 80\n".to_vec(),
        b"PROXY TCP4 203.0.113.999 127.0.0.1 5 80\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::7 127.0.0.1 5 80\r\n".to_vec(),
        [b"PROXY ".as_slice(), &[b'x'; 200]].concat(),
        version_2(5, 0x11, &v4),
        version_2(1, 0x31, &[0; 216]),
        version_2(1, 0x11, &v4[..8]),
    ] {
        assert!(ask(9, &header, 1000).is_none(), "{}", String::from_utf8_lossy(&header));
    }
    // A connection that does not come from the load balancer is closed, with or without a header.
    assert!(ask(2, b"PROXY TCP4 203.0.113.7 127.0.0.1 5 80\r\n", 1000).is_none());
    assert!(ask(2, b"", 1000).is_none());
    assert_eq!(agent.received().len(), before);
    let metrics = eventually(|| Some(callgate.metrics()).filter(|text| text.contains("proxy_untrusted")));
    assert!(metrics.contains("refused_total{reason=\"proxy_header\"}"), "{metrics}");
}
