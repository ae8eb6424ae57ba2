//! Metrics, health checks and the access log.

use std::io::Write;
use std::net::TcpStream;

use callgate::clock::Clock;

use crate::harness::{ANSWER, Agent, Callgate, Response, open_config};

#[test]
fn metrics_tell_what_happened_and_why() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    callgate.send(b"GET /open/x HTTP/1.1\r\nHost: h\r\n\r\n");
    callgate.send(b"GET /nope HTTP/1.1\r\nHost: h\r\n\r\n");
    callgate.log();
    let page = callgate.metrics();
    for line in [
        "callgate_ingress_requests_total{provider=\"none\",reason=\"ok\",route=\"open\",verdict=\"allow\"} 1",
        "callgate_ingress_requests_total{provider=\"none\",reason=\"route_unknown\",route=\"none\",verdict=\"deny\"} 1",
        "callgate_ingress_decide_seconds_count 2",
        "callgate_deliver_seconds_count{route=\"open\"} 1",
        "callgate_build_info{version=",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
}

#[test]
fn the_time_of_a_caller_that_keeps_its_connection_open_is_no_time_of_a_check() {
    let callgate = Callgate::start(&open_config("127.0.0.1:1"), Clock::System);
    let mut caller = TcpStream::connect(callgate.ingress).unwrap();
    caller.write_all(b"no request\r\n\r\n").unwrap();
    assert_eq!(Response::read(&mut caller).status, 400);
    // Callgate waits two seconds for the caller to close the connection, and writes its log afterwards.
    assert_eq!(callgate.log()[0]["reason"], "request_malformed");
    let page = callgate.metrics();
    let sum =
        page.lines().find_map(|line| line.strip_prefix("callgate_ingress_decide_seconds_sum ")).unwrap();
    assert!(sum.parse::<f64>().unwrap() < 1.0, "{sum}");
    drop(caller);
}

#[test]
#[cfg(target_os = "linux")]
fn metrics_tell_what_the_process_uses() {
    let callgate = Callgate::start(&open_config("127.0.0.1:1"), Clock::System);
    let value = |page: &str, name: &str| -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {page}")).parse().unwrap()
    };
    let page = callgate.metrics();
    assert!(page.contains("# TYPE process_cpu_seconds_total counter"), "{page}");
    let files = value(&page, "process_open_fds");
    assert!(files > 3.0 && value(&page, "process_max_fds") >= files, "{page}");
    assert!(value(&page, "process_resident_memory_bytes") > 1e6, "{page}");
    assert!(value(&page, "process_virtual_memory_bytes") > 1e6 && value(&page, "process_threads") > 1.0);
    let started = value(&page, "process_start_time_seconds");
    let age = Clock::System.now().unix_secs() as f64 - started;
    assert!((-5.0..36_000.0).contains(&age), "{started}");
    let cpu = value(&page, "process_cpu_seconds_total");
    assert!(value(&callgate.metrics(), "process_cpu_seconds_total") >= cpu);
}

#[test]
fn metrics_name_the_routes_that_can_only_expire() {
    let interaction = |more: &str| format!("interaction: {{ status: /s{more} }}");
    let route = |name: &str, more: &str| {
        format!(
            "  - {{ name: {name}, path: \"/{name}/{{id}}\", provider: p, token: {{ kind: callback }}, forward: /in{more} }}\n"
        )
    };
    let rule = |route: &str, uses: &str| {
        format!(
            "  - {{ name: {route}, path: /{route}, target: \"https://example.com/\", inject: {{ route: {route}, params: {{ id: /id }}, url: /u, token: /t{uses} }} }}\n"
        )
    };
    let text = format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: 127.0.0.1:1 }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
providers: {{ p: {{ preset: standard-webhooks, secrets: [ {{ env: WHSEC }} ] }} }}
routes:
{}{}{}  - {{ name: plain, path: /plain, provider: p, forward: /in }}
egress:
{}{}{}",
        route("endless", ""),
        route("counted", ""),
        route("ending", &format!(", {}", interaction(", done: [ok]"))),
        rule("endless", ""),
        rule("counted", ", uses: 2"),
        rule("ending", ""),
    );
    let callgate = Callgate::start(&text, Clock::System);
    let page = callgate.metrics();
    let marked: Vec<_> =
        page.lines().filter(|line| line.starts_with("callgate_route_only_expires")).collect();
    assert_eq!(marked, ["callgate_route_only_expires{route=\"endless\"} 1"]);
}

#[test]
fn health_and_unknown_pages() {
    let callgate = Callgate::start(&open_config("127.0.0.1:1"), Clock::System);
    assert_eq!(callgate.admin_get("/livez").status, 200);
    assert_eq!(callgate.admin_get("/readyz").status, 200);
    assert_eq!(callgate.admin_get("/nope").status, 404);
    assert_eq!(
        callgate.admin_get("/metrics").header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
}

#[test]
fn the_log_has_a_line_for_each_request_and_no_secrets() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    callgate.send(b"GET /open/x?callback_token=eyJsecret&code=hunter2 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer eyJother\r\n\r\n");
    let line = callgate.log().remove(0);
    for (field, value) in [
        ("route", "open"),
        ("provider", "none"),
        ("verdict", "allow"),
        ("reason", "ok"),
        ("method", "GET"),
        ("path", "/open/x"),
        ("client", "127.0.0.1"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert!(line["trail_ns"]["route"].is_number() && line["duration_us"].is_number(), "{line}");
    let text = line.to_string();
    assert!(!text.contains("eyJ") && !text.contains("hunter2"), "{text}");
    callgate.send(b"GET /open/eyJhbGciOiJIUzI1NiJ9.e30.sig HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(callgate.log()[0]["path"], "/open/[token]");
    callgate.send(b"DELETE /open/x HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(callgate.log()[0]["detail"].as_str().unwrap().starts_with("the method is not one of"));
    callgate.send(b"GET /nope/eyJhbGciOiJIUzI1NiJ9.e30.sig/x HTTP/1.1\r\nHost: h\r\n\r\n");
    let line = callgate.log().remove(0);
    assert_eq!(line["path"], "/nope/[redacted]/x");
}

#[test]
fn readiness_ends_before_the_admin_listener_does() {
    let config =
        open_config("127.0.0.1:1").replace("limits: { body_deadline: 1s }", "limits: { body_deadline: 20s }");
    let mut callgate = Callgate::start(&config, Clock::System);
    // A request that has started: its body is not sent yet.
    let mut stream = callgate.begin_exchange();
    let stopping = callgate.stop_in_background();
    while callgate.admin_get("/readyz").status == 200 {
        std::thread::yield_now();
    }
    assert_eq!(callgate.admin_get("/livez").status, 200);
    stream.write_all(b"hi").unwrap();
    assert_eq!(Response::read(&mut stream).status, 503, "the exchange ends as it would have");
    assert_eq!(stopping.join().unwrap(), 0);
}
