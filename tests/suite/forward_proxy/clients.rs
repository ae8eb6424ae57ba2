//! Real clients: curl, Python and Node.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use super::{World, read, text, unused_port, without_callback};
use callgate::clock::Clock;

use crate::harness::{Callgate, eventually};
use crate::tls::issued;

const BODY: &str = r#"{ "id":"d1" , "n": 1.00, "text":"\u00e9"}"#;

#[test]
fn curl_is_intercepted_and_only_the_callback_is_inserted() {
    let world = World::new("", "");
    let url = world.url("/v1/a.b/jobs?x=%2F&y");
    let out = world.curl(
        "trust/ca.pem",
        &[
            "-D",
            "-",
            "-H",
            "X-Own: 1",
            "-H",
            "x-api-key: mine",
            "-d",
            BODY,
            "-H",
            "content-type: application/json",
            &url,
        ],
    );
    let said = text(&out);
    assert!(said.contains("HTTP/1.1 200 OK") && said.contains("callgate-interaction: "), "{said}");
    let (head, body) = world.provider.next();
    assert!(head.starts_with("POST /v1/a.b/jobs?x=%2F&y HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("x-own: 1\r\n") && !head.contains("mine") && head.contains("x-api-key: "),
        "{head}"
    );
    assert!(!head.to_ascii_lowercase().contains("proxy"), "{head}");
    assert_eq!(without_callback(&body), BODY);
    let entries = world.callgate.logged(1);
    let entry = entries.last().unwrap();
    assert_eq!((entry["egress"].as_str(), entry["reason"].as_str()), (Some("jobs"), Some("ok")), "{entry}");
    let metrics = world.callgate.metrics();
    assert!(
        metrics.contains("callgate_egress_handshakes_total{host=\"localhost\",outcome=\"ok\"} 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("callgate_certificate_expiry_timestamp_seconds{certificate=\""), "{metrics}");
    assert_eq!(world.agent.received().len(), 0);
}

/// The test needs no package: `urllib` reads `HTTPS_PROXY` and `SSL_CERT_FILE`.
#[test]
fn python_is_intercepted() {
    let world = World::new("", "");
    let script = "
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {'content-type': 'application/json'})
print(urllib.request.urlopen(request).read().decode())";
    let out = agent_command(&world, "python3")
        .args(["-c", script, &world.url("/v1/a/jobs"), BODY])
        .output()
        .unwrap();
    assert_intercepted(&world, &out);
}

/// Node 20 ignores the variables for proxies, so the test opens the tunnel itself. Newer versions read them.
#[test]
fn node_is_intercepted() {
    let world = World::new("", "");
    let script = "
const http = require('http'), tls = require('tls')
const [url, body, proxy] = [new URL(process.argv[1]), process.argv[2], new URL(process.env.HTTPS_PROXY)]
const target = url.host
http.request({ host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: target, headers: { host: target } })
  .on('connect', (_, socket) => {
    const secure = tls.connect({ socket, servername: url.hostname, ALPNProtocols: ['h2', 'http/1.1'] }, () => {
      if (secure.alpnProtocol !== 'http/1.1') throw new Error(secure.alpnProtocol)
      const length = Buffer.byteLength(body)
      secure.write(`POST ${url.pathname} HTTP/1.1\\r\\nhost: ${target}\\r\\ncontent-type: application/json\\r\\ncontent-length: ${length}\\r\\nconnection: close\\r\\n\\r\\n${body}`)
    })
    secure.pipe(process.stdout)
  }).end()";
    let out =
        agent_command(&world, "node").args(["-e", script, &world.url("/v1/a/jobs"), BODY]).output().unwrap();
    assert_intercepted(&world, &out);
}

fn agent_command(world: &World, program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("HTTPS_PROXY", format!("http://{}", world.egress()))
        .env("NO_PROXY", "")
        .env("no_proxy", "")
        .env("SSL_CERT_FILE", world.file("trust/bundle.pem"))
        .env("NODE_EXTRA_CA_CERTS", world.file("trust/ca.pem"));
    command
}

#[track_caller]
fn assert_intercepted(world: &World, out: &Output) {
    assert!(text(out).contains(r#"{"id":"job-17"}"#), "{}", text(out));
    let (_, body) = world.provider.next();
    assert_eq!(without_callback(&body), BODY);
}

#[test]
fn requests_that_match_no_rule_are_passed_on_unchanged() {
    let world = World::new("", "");
    // A browser is not behind this request: the page check does not apply to intercepted connections.
    let page = ["-H", "Origin: https://x.example", "-H", "Sec-Fetch-Site: cross-site"];
    for (method, path) in
        [("GET", "/v1/a/jobs"), ("POST", "/v1//x/%2e%2e"), ("PUT", "/actions/x"), ("DELETE", "/")]
    {
        let url = world.url(path);
        let out = world.curl(
            "trust/bundle.pem",
            &[&page[..], &["--path-as-is", "-X", method, "-d", BODY, &url]].concat(),
        );
        assert_eq!(text(&out), r#"{"id":"job-17"}"#, "{method} {path}");
        let (head, body) = world.provider.next();
        assert!(head.starts_with(&format!("{method} {path} HTTP/1.1\r\n")), "{head}");
        assert!(head.contains("origin: https://x.example\r\n") && !head.contains("x-api-key"), "{head}");
        assert_eq!(body, BODY);
    }
    let out = world.curl("trust/ca.pem", &["-D", "-", &world.url("/redirect")]);
    assert!(text(&out).contains("location: /v1/other\r\n"), "{}", text(&out));
    let refusing = World::new("", "    unmatched: refuse\n");
    let out = refusing.curl("trust/ca.pem", &["-d", BODY, &refusing.url("/other")]);
    assert!(text(&out).contains(r#""reason":"rule_unknown""#), "{}", text(&out));
    let out = refusing.curl("trust/ca.pem", &[&refusing.url("/v1/a/jobs")]);
    assert!(text(&out).contains(r#""reason":"method_not_allowed""#), "{}", text(&out));
    assert!(!refusing.provider.has_received());
}

#[test]
fn the_doctor_says_which_clients_use_the_proxy() {
    let out = Command::new(env!("CARGO_BIN_EXE_callgate")).args(["doctor", "egress"]).output().unwrap();
    let said = text(&out);
    assert!(out.status.success(), "{said}");
    let result =
        |client: &str| said.lines().find(|line| line.starts_with(client)).unwrap_or_else(|| panic!("{said}"));
    assert!(
        result("curl ").ends_with("uses the proxy") && result("urllib ").ends_with("uses the proxy"),
        "{said}"
    );
    // Java reads `trust.p12`.
    let java = result("java ");
    assert!(java.ends_with("uses the proxy") || java.ends_with("not installed"), "{said}");
}

#[test]
fn the_rules_still_accept_requests_to_their_paths() {
    let world = World::new("", "");
    let body = BODY.to_owned();
    let response = world.callgate.agent_sends("/jobs/a", &body);
    assert_eq!(response.status, 200, "{response:?}");
    let (head, body) = world.provider.next();
    assert!(head.starts_with("POST /v1/a/jobs HTTP/1.1\r\n"), "{head}");
    assert_eq!(without_callback(&body), BODY);
}

#[test]
fn a_client_that_does_not_trust_the_authority_is_counted() {
    let world = World::new("", "");
    let out = world.curl("ca.crt", &[&world.url("/v1/a/jobs")]);
    assert!(!out.status.success());
    let counted = "callgate_egress_handshakes_total{host=\"localhost\",outcome=\"client_refused\"} 1\n";
    eventually(|| world.callgate.metrics().contains(counted).then_some(()));
    assert!(!world.provider.has_received());
}

/// OpenSSL (in curl, Python and Node), rustls (in Callgate itself) and GnuTLS (in wget) refuse a certificate that the
/// authority must not issue.
#[test]
fn a_certificate_outside_the_constraints_is_rejected() {
    let world = World::new(", others: tunnel", "");
    let run = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_callgate")).arg("ca").args(args).output().unwrap();
        (out.status.code(), text(&out))
    };
    for (folder, host) in [("narrow", "example.com"), ("right", "localhost")] {
        let at = world.file(folder);
        assert_eq!(run(&["--out", at.to_str().unwrap(), host]).0, Some(0), "the folder is created");
        assert_eq!(std::fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(run(&["--out", at.to_str().unwrap(), host]).0, Some(65), "files are not replaced");
        issued(&at, "ca", "name", "DNS:localhost");
        issued(&at, "ca", "address", "IP:127.0.0.1");
    }
    for bad in ["*.example.com", "192.0.2.1", "a b", "https://a"] {
        assert_eq!(run(&["--out", world.file("right").to_str().unwrap(), bad]).0, Some(64), "{bad}");
    }
    for (folder, leaf, host, accepted) in [
        ("right", "name", "localhost", true),
        ("narrow", "name", "localhost", false),
        ("right", "address", "127.0.0.1", false),
    ] {
        let at = world.file(folder);
        let provider =
            super::Provider::start(&at.join(format!("{leaf}.crt")), &at.join(format!("{leaf}.key")));
        let url = format!("https://{host}:{}/", provider.port);
        let ca = at.join("ca.crt");
        let python = "import sys, ssl, urllib.request as u
context = ssl.create_default_context(cafile=sys.argv[2])
u.build_opener(u.ProxyHandler({}), u.HTTPSHandler(context=context)).open(sys.argv[1]).read()";
        let node = "const https = require('https'), fs = require('fs')
https.get(process.argv[1], { ca: fs.readFileSync(process.argv[2]) }, (r) => r.resume()).on('error', (e) => { console.error(e.message); process.exit(1) })";
        let ca = ca.to_str().unwrap();
        for (program, args) in [
            ("curl", vec!["-s", "-S", "--noproxy", "*", "--cacert", ca, &url]),
            ("python3", vec!["-c", python, &url, ca]),
            ("node", vec!["-e", node, &url, ca]),
        ] {
            let out = Command::new(program).args(&args).output().unwrap();
            assert_eq!(out.status.success(), accepted, "{program} {folder} {leaf}: {}", text(&out));
        }
        let gnutls = Command::new("wget")
            .args(["-q", "--no-proxy", "--tries=1", "-O", "/dev/null", "--ca-directory=/nonexistent"])
            .args([&format!("--ca-certificate={ca}"), &url])
            .output();
        // A machine without wget does not try GnuTLS.
        if let Ok(out) = gnutls {
            assert_eq!(out.status.success(), accepted, "wget {folder} {leaf}: {}", text(&out));
        }
        let roots = format!("trusted_roots: {}", world.file("ca.crt").display());
        let own = world
            .text
            .replace(&roots, &format!("trusted_roots: {ca}"))
            .replace(&world.url("/v1/{account}"), &format!("{url}{{account}}"))
            .replace("    proxied: true\n", "");
        let response = Callgate::start(&own, Clock::System).agent_sends("/jobs/a", r#"{"id":"d"}"#);
        assert_eq!(response.status, if accepted { 200 } else { 502 }, "rustls {folder} {leaf}: {response:?}");
    }
}

#[test]
fn the_authority_may_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap().to_owned();
    let create = |hosts: &[&str], name: &str| {
        let out = folder.path().join(name);
        std::fs::create_dir(&out).unwrap();
        let out =
            Command::new(env!("CARGO_BIN_EXE_callgate")).arg("ca").arg("--out").arg(out).args(hosts).output();
        assert!(out.unwrap().status.success());
    };
    create(&["localhost"], "right");
    create(&["example.com"], "narrow");
    let ca = format!(", ca: {{ certificate: {at}/right/ca.crt, key: {at}/right/ca.key }}");
    let world = World::new(&ca, "");
    let out = world.curl("trust/ca.pem", &[&world.url("/x")]);
    assert_eq!(text(&out), r#"{"id":"job-17"}"#);
    assert_eq!(read(&world.file("trust/ca.pem")), read(&folder.path().join("right/ca.crt")));
    assert!(read(&world.file("trust/bundle.pem")).contains(&read(&folder.path().join("right/ca.crt"))));
    let metrics = world.callgate.metrics();
    assert!(
        metrics.contains(&format!("timestamp_seconds{{certificate=\"{at}/right/ca.crt\"}}")),
        "{metrics}"
    );
    let reload = |from: &str, to: &str| world.callgate.reload(&world.text.replace(from, to)).unwrap_err();
    let narrow = reload("/right/", "/narrow/");
    assert!(narrow.contains("its name constraints do not permit localhost"), "{narrow}");
    let mixed = reload("right/ca.key", "narrow/ca.key");
    assert!(mixed.contains("does not go with"), "{mixed}");
    let other = reload(&format!("{at}/right/ca.crt"), world.file("ca.crt").to_str().unwrap());
    assert!(other.contains("not limited to names"), "{other}");
    let path = world.file("callgate.yaml");
    std::fs::write(&path, world.text.replace("/right/", "/narrow/")).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_callgate"))
        .args(["check", "-c"])
        .arg(&path)
        .env("TOKEN_KEY", "k".repeat(32))
        .env("STATIC", "s".repeat(32))
        .output();
    let said = text(&out.unwrap());
    assert!(said.contains("listen.egress.proxy.ca") && said.contains("do not permit localhost"), "{said}");
}

/// Only the Secret has the key: no other file, no page of the admin listener, and no line of the log.
#[test]
fn nothing_but_the_secret_contains_the_key() {
    let secret = tempfile::tempdir().unwrap();
    let at = secret.path().to_str().unwrap().to_owned();
    let made = Command::new(env!("CARGO_BIN_EXE_callgate")).args(["ca", "--out", &at, "localhost"]).output();
    assert!(made.unwrap().status.success());
    let key = read(&secret.path().join("ca.key"));
    let lines: Vec<_> = key.lines().filter(|line| !line.starts_with('-')).collect();
    let der = data_encoding::BASE64.decode(lines.concat().as_bytes()).unwrap();
    // The private number of an EC key (RFC 5915) is an octet string of 32 bytes.
    let scalar = der.windows(34).find(|window| window.starts_with(&[4, 32])).unwrap()[2..].to_vec();
    let hexadecimal = data_encoding::HEXLOWER.encode(&scalar);
    let exposes = |bytes: &[u8]| {
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        holds(&scalar) || holds(hexadecimal.as_bytes()) || lines.iter().any(|line| holds(line.as_bytes()))
    };
    assert!(exposes(&std::fs::read(secret.path().join("ca.key")).unwrap()));
    let world = World::new(&format!(", ca: {{ certificate: {at}/ca.crt, key: {at}/ca.key }}"), "");
    assert_eq!(text(&world.curl("trust/ca.pem", &[&world.url("/x")])), r#"{"id":"job-17"}"#);
    let mut folders = vec![world.folder.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            assert!(!exposes(&std::fs::read(&path).unwrap()), "{}", path.display());
        }
    }
    assert!(files > 5, "{files}");
    for path in [
        "/",
        "/metrics",
        "/livez",
        "/readyz?verbose",
        "/callbacks",
        "/ui/api/recent",
        "/ui/api/state",
        "/members",
    ] {
        let page = world.callgate.admin_get(path).text();
        assert!(!exposes(page.as_bytes()) && !page.contains("PRIVATE KEY"), "{path}");
    }
    assert!(!exposes(format!("{:?}", world.callgate.logged(1)).as_bytes()));
    std::fs::write(world.file("printed.yaml"), &world.text).unwrap();
    let printed = Command::new(env!("CARGO_BIN_EXE_callgate"))
        .args(["check", "--print", "-c"])
        .arg(world.file("printed.yaml"))
        .env("TOKEN_KEY", "k".repeat(32))
        .env("STATIC", "s".repeat(32))
        .output()
        .unwrap();
    assert!(printed.status.success() && !exposes(&printed.stdout), "{}", text(&printed));
}

#[test]
fn a_reload_with_other_hosts_creates_another_authority() {
    let world = World::new("", "");
    let before = read(&world.file("trust/ca.pem"));
    world.callgate.reload(&world.text.replace("response: /id", "response: /id2")).unwrap();
    assert_eq!(read(&world.file("trust/ca.pem")), before);
    let more = format!(
        "  - {{ name: more, path: /more, target: \"https://other.example:{}/more\", proxied: true }}\n",
        unused_port()
    );
    world.callgate.reload(&(world.text.clone() + &more)).unwrap();
    assert_ne!(read(&world.file("trust/ca.pem")), before);
    let out = world.curl("trust/ca.pem", &[&world.url("/x")]);
    assert_eq!(text(&out), r#"{"id":"job-17"}"#);
}

#[test]
fn an_authority_is_replaced_while_agents_trust_both() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let create = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
        let out = command.arg("ca").args(args).output().unwrap();
        (out.status.code(), text(&out))
    };
    assert_eq!(create(&["--out", &at("old"), "localhost"]).0, Some(0));
    let previous = at("old/ca.crt");
    assert_eq!(create(&["--out", &at("new"), "--previous", &previous, "localhost"]).0, Some(0));
    assert!(read(&folder.path().join("new/ca.crt")).ends_with(&read(&folder.path().join("old/ca.crt"))));
    for wrong in [at("old/ca.key"), at("missing")] {
        let (code, said) = create(&["--out", &at("other"), "--previous", &wrong, "localhost"]);
        assert!(code == Some(65) && said.contains("--previous"), "{said}");
    }
    // An agent that trusts both reaches the provider through a proxy with any of the two.
    let both = folder.path().join("both.pem");
    std::fs::copy(folder.path().join("new/ca.crt"), &both).unwrap();
    for name in ["old", "new"] {
        let ca = format!(
            ", ca: {{ certificate: {}, key: {} }}",
            at(&format!("{name}/ca.crt")),
            at(&format!("{name}/ca.key"))
        );
        let world = World::new(&ca, "");
        let out = world.curl(both.to_str().unwrap(), &[&world.url("/x")]);
        assert_eq!(text(&out), r#"{"id":"job-17"}"#, "{name}");
        let trusted = read(&world.file("trust/ca.pem")).matches("BEGIN CERTIFICATE").count();
        assert_eq!(trusted, if name == "old" { 1 } else { 2 });
    }
}
