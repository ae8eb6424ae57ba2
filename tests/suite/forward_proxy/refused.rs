//! What the forward proxy refuses: other hosts, other addresses, ambiguous targets, and requests for another host than
//! that of their tunnel.

use std::io::Write;

use callgate::clock::Clock;
use data_encoding::BASE64;
use serde_json::Value;

use super::{World, assert_denied, read};
use crate::harness::{Callgate, Response};

#[test]
fn without_the_proxy_nothing_changes() {
    let world = World::new("", "");
    let text = world.text.replace("    proxied: true\n", "");
    let start = text.find(", proxy: {").unwrap();
    let end = start + text[start..].find('}').unwrap() + 1;
    let callgate = Callgate::start(&format!("{}{}", &text[..start], &text[end..]), Clock::System);
    let world = World { callgate, ..world };
    assert_denied(&world.connect("localhost:443"), 400, "request_malformed");
    let get = "GET http://other.example/jobs/a HTTP/1.1\r\nHost: other.example\r\n\r\n";
    assert_denied(&world.ask(get), 403, "host_not_allowed");
}

#[test]
fn hosts_and_ports_that_are_not_listed() {
    let world = World::new(", tunnel: [listed.invalid]", "");
    let port = world.provider.port;
    for target in
        ["other.example:443", "localhost:443", "listed.invalid:80", "x.listed.invalid:443", "192.0.2.1:443"]
    {
        assert_denied(&world.connect(target), 403, "proxy_host_refused");
    }
    // The host is allowed, and its name does not exist.
    assert_denied(&world.connect("listed.invalid:443"), 502, "provider_unreachable");
    for target in [
        format!("localhost:{port}/"),
        "localhost".to_owned(),
        "localhost:0".to_owned(),
        "u@localhost:443".to_owned(),
        "[fe80::1%25lo]:443".to_owned(),
        "localhost:99999".to_owned(),
        "127.1:443".to_owned(),
        "localhost.:443".to_owned(),
    ] {
        assert_denied(
            &world.ask(&format!("CONNECT {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")),
            400,
            "request_malformed",
        );
    }
    let other_host = format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: other.example:{port}\r\n\r\n");
    assert_denied(&world.ask(&other_host), 421, "proxy_misdirected");
    assert!(!world.provider.has_received());
}

/// Hosts of an agent, or of whoever reaches the listener, are no labels of metrics, and leave nothing behind.
#[test]
fn ten_thousand_hosts_are_no_labels() {
    let world = World::new("", "");
    let before = world.callgate.metrics().lines().count();
    let mut stream = world.send("");
    for i in 0..10_000 {
        let request = format!("CONNECT h{i}.example:443 HTTP/1.1\r\nHost: h{i}.example:443\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(Response::read(&mut stream).status, 403, "{i}");
    }
    let metrics = world.callgate.metrics();
    let more = metrics.lines().count() - before;
    assert!(more < 50 && !metrics.contains("h1.example"), "{more}");
}

/// No URL and no address of the corpus reaches a private address through a proxy that tunnels every public host.
#[test]
fn no_private_address_is_reached() {
    let world = World::new(", others: tunnel, ports: [80, 443, 22, 8000, 8080, PORT]", "");
    let own = [world.egress(), world.callgate.ingress, world.callgate.admin.unwrap(), world.agent.address];
    let listening = own.iter().map(ToString::to_string);
    let mut targets: Vec<String> = listening.chain(["localhost:443".to_owned()]).collect();
    for host in [
        "0.0.0.0",
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[fd00:ec2::254]",
        "[::]",
        "[64:ff9b::7f00:1]",
        "100.100.100.200",
        "192.168.1.1",
    ] {
        targets.push(format!("{host}:{}", world.provider.port));
        targets.push(format!("{host}:80"));
    }
    let file = "tests/vectors/ssrf/addresses.json";
    let corpus: Value = serde_json::from_str(&read(file.as_ref())).unwrap();
    for row in corpus["addresses"].as_array().unwrap().iter().filter(|row| row["expect"] == "block") {
        let ip = row["ip"].as_str().unwrap();
        targets.push(if ip.contains(':') { format!("[{ip}]:443") } else { format!("{ip}:443") });
    }
    for target in &targets {
        let response = world.connect(target);
        let reason = response.json()["reason"].as_str().unwrap_or_default().to_owned();
        let expected = ["proxy_address_refused", "proxy_host_refused", "request_malformed"];
        assert!(expected.contains(&&*reason), "{target}: {response:?}");
        let http = format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n");
        let status = world.ask(&http).status;
        let is_own_path = *target == world.egress().to_string();
        assert!(matches!(status, 400 | 403) || (is_own_path && status == 404), "{target}: {status}");
    }
    assert_denied(&world.connect("127.0.0.1:443"), 403, "proxy_address_refused");
    let metrics = world.callgate.metrics();
    assert!(metrics.contains("callgate_guard_refusals_total{class=\"metadata\"}"), "{metrics}");
    assert!(!world.provider.has_received());
    assert_eq!(world.agent.received().len(), 0);
}

/// URLs that parsers understand differently never reach this host.
#[test]
fn no_url_of_the_corpus_reaches_this_host() {
    let world = World::new(", others: tunnel, ports: [80, 443]", "");
    let urls = read("tests/vectors/ssrf/patt_urls.txt".as_ref());
    let mut count = 0;
    for url in urls.lines().filter(|url| url.starts_with("http") && url.bytes().all(|b| b.is_ascii_graphic()))
    {
        let rest = url.split_once("://").unwrap_or_default().1;
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        // A name outside this host is looked up, which is not what this test is about.
        if host.bytes().any(|b| b.is_ascii_alphabetic())
            && !host.contains("localhost")
            && !host.starts_with("0x")
        {
            continue;
        }
        for request in [
            format!("GET {url} HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
            format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
            format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ] {
            let response = world.ask(&request);
            // A name that this host does not know is looked up, and not found.
            let id = response.json()["request_id"].clone();
            let is_unknown = || {
                let mut entries = std::iter::repeat_with(|| world.callgate.log()).flatten();
                let entry = entries.find(|entry| entry["request_id"] == id).unwrap();
                entry["detail"].as_str().unwrap().contains("could not be resolved")
            };
            let is_refused =
                matches!(response.status, 400 | 403 | 421) || (response.status == 502 && is_unknown());
            assert!(is_refused, "{request}: {response:?}");
        }
        count += 1;
    }
    assert!(count > 20, "{count}");
}

#[test]
fn a_tunnel_is_for_one_host() {
    let world = World::new("", "");
    let host = format!("localhost:{}", world.provider.port);
    let get = |target: &str, host: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    let name = ["-servername", "localhost"];
    assert!(world.openssl(&name, &get("/x", &host)).contains("job-17"));
    assert!(world.openssl(&["-noservername"], &get("/x", &host)).contains("job-17"), "without SNI");
    assert!(world.openssl(&name, &get(&format!("https://{host}/x"), &host)).contains("job-17"));
    let before = 3;
    (0..before).for_each(|_| drop(world.provider.next()));
    for (args, request) in [
        (["-servername", "other.example"], get("/x", &host)),
        (name, get("/x", "other.example")),
        (name, get("/x", "localhost")),
        (name, get("/x", "localhost:443")),
        (name, get(&format!("http://{host}/x"), &host)),
        (name, get("https://other.example/x", "other.example")),
        (name, format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")),
        (name, "GET /x HTTP/1.0\r\n\r\n".to_owned()),
    ] {
        let said = world.openssl(&args, &request);
        assert!(said.contains("421") && said.contains("\"proxy_misdirected\""), "{request}: {said}");
    }
    assert!(!world.provider.has_received());
}

#[test]
fn smuggling_inside_a_tunnel_is_refused() {
    let world = World::new("", "");
    let host = format!("localhost:{}", world.provider.port);
    let request = format!(
        "POST /x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    let said = world.openssl(&["-servername", "localhost"], &request);
    assert!(said.contains("\"request_malformed\""), "{said}");
    assert!(!world.provider.has_received());
}

#[test]
fn the_password_is_required_for_the_proxy_only() {
    let world = World::new(", password: { env: TOKEN_KEY }", "");
    let port = world.provider.port;
    let ask = |line: &str| {
        world.ask(&format!("CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n{line}\r\n"))
    };
    let response = ask("");
    assert_denied(&response, 407, "proxy_authorization");
    assert_eq!(response.header("proxy-authenticate"), Some("basic realm=\"callgate\""));
    let basic = |text: &str| format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(text.as_bytes()));
    assert_denied(&ask(&basic("callgate:wrong")), 407, "proxy_authorization");
    let password = crate::harness::env("TOKEN_KEY").unwrap();
    assert_denied(&ask(&basic(&format!("any:{password}"))), 403, "proxy_host_refused");
    let get = format!("GET http://localhost:{port}/ HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
    assert_denied(&world.ask(&get), 407, "proxy_authorization");
    assert_eq!(world.callgate.agent_sends("/jobs/a", r#"{"id":"d"}"#).status, 200, "a path");
    let log = world.callgate.logged(4);
    assert!(!format!("{log:?}").contains(&password));
}
