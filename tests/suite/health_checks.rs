//! The path of an ingress listener at which load balancers check its health.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use callgate::clock::Clock;

use crate::harness::{ANSWER, Agent, Callgate, Response, eventually, open_config, send_to};
use crate::tls::{authority, issued};

/// Returns a configuration with more settings on its ingress listener.
fn listening(agent: &Agent, more: &str) -> String {
    let listener = format!("address: 127.0.0.1:0, {more} }}");
    open_config(&agent.address.to_string()).replacen("address: 127.0.0.1:0 }", &listener, 1)
}

#[test]
fn a_health_check_is_answered_without_a_route_and_without_the_agent() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&listening(&agent, "health: /healthz"), Clock::System);
    let send = |method: &str, path: &str| send_to(callgate.ingress, method, path, &[], b"");
    for path in ["/healthz", "/healthz?from=balancer"] {
        let healthy = send("GET", path);
        assert_eq!((healthy.status, healthy.text()), (200, "ok\n".to_owned()), "{path}");
        assert_eq!(healthy.header("content-type"), Some("text/plain"));
        assert_eq!(healthy.header("cache-control"), Some("no-store"));
    }
    let mut stream = callgate.connect();
    stream.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut head = String::new();
    stream.read_to_string(&mut head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let counted = "reason=\"health\",route=\"none\",verdict=\"allow\"} 3\n";
    eventually(|| callgate.metrics().contains(counted).then_some(()));
    for (method, path) in [
        ("POST", "/healthz"),
        ("GET", "/healthz/"),
        ("GET", "/healthz/x"),
        ("GET", "/Healthz"),
        ("GET", "/%68ealthz"),
        ("GET", "/open/../healthz"),
    ] {
        let status = send(method, path).status;
        assert!([400, 404].contains(&status), "{method} {path}: {status}");
    }
    assert!(agent.received().is_empty());
    // The access log has no lines of health checks.
    assert!(callgate.logged(6).iter().all(|line| line["verdict"] == "deny"));
}

#[test]
fn health_checks_over_tls_and_http2() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "ca");
    issued(at, "ca", "one", "IP:127.0.0.1");
    let file = |name: &str| at.join(name).display().to_string();
    let agent = Agent::start(ANSWER);
    let tls =
        format!("health: /healthz, tls: {{ certificate: {}, key: {} }}", file("one.crt"), file("one.key"));
    let callgate = Callgate::start(&listening(&agent, &tls), Clock::System);
    let url = format!("https://{}/healthz", callgate.ingress);
    for version in ["--http1.1", "--http2"] {
        for (method, body) in [("--get", "ok\n"), ("--head", "")] {
            let format = "%{stderr}%{http_code} %{http_version}";
            let args = ["-s", "--cacert", "ca.crt", version, method, "-o", "out", "-w", format, &url];
            let _ = fs::remove_file(at.join("out"));
            let out = Command::new("curl").current_dir(at).args(args).output().unwrap();
            let expected = if version == "--http2" { "200 2" } else { "200 1.1" };
            assert_eq!(String::from_utf8_lossy(&out.stderr), expected, "{method}");
            let written = fs::read_to_string(at.join("out")).unwrap_or_default();
            assert!(method == "--head" || written == body, "{version}: {written}");
        }
    }
    assert!(agent.received().is_empty());
}

#[test]
fn a_health_check_needs_the_proxy_header_of_the_listener() {
    let agent = Agent::start(ANSWER);
    let more = "health: /healthz, proxy_protocol: { trusted_proxies: [127.0.0.1] }";
    let callgate = Callgate::start(&listening(&agent, more), Clock::System);
    let request = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    let with = format!("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n{request}");
    assert_eq!(callgate.send(with.as_bytes()).status, 200);
    let mut stream = callgate.connect();
    stream.write_all(request.as_bytes()).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn a_stopping_listener_is_not_healthy() {
    let agent = Agent::start(ANSWER);
    let config = listening(&agent, "health: /healthz")
        .replace("limits: { body_deadline: 1s }", "limits: { body_deadline: 60s }");
    let mut callgate = Callgate::start(&config, Clock::System);
    // A request that has started keeps the server from ending.
    let mut begun = callgate.begin_exchange();
    let mut kept = callgate.connect();
    let mut check = || {
        kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        Response::read(&mut kept)
    };
    assert_eq!(check().status, 200);
    let stopping = callgate.stop_in_background();
    let last = loop {
        match check() {
            healthy if healthy.status == 200 => std::thread::yield_now(),
            stopped => break stopped,
        }
    };
    assert_eq!((last.status, last.text()), (503, "stopping\n".to_owned()));
    begun.write_all(b"hi").unwrap();
    assert_eq!(Response::read(&mut begun).status, 200);
    assert_eq!(stopping.join().unwrap(), 0);
}

#[test]
fn a_reload_changes_the_path_of_health_checks() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&listening(&agent, "health: /one"), Clock::System);
    let mut kept = callgate.connect();
    let mut status = |path: &str| {
        kept.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
        Response::read(&mut kept).status
    };
    assert_eq!((status("/one"), status("/two")), (200, 404));
    callgate.reload(&listening(&agent, "health: /two")).unwrap();
    assert_eq!((status("/one"), status("/two")), (404, 200));
    callgate.reload(&open_config(&agent.address.to_string())).unwrap();
    assert_eq!(status("/two"), 404);
}
