//! `callgate audit`: what it reads from an access log.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use callgate::clock::Clock;
use serde_json::{Value, json};

use crate::harness::{ANSWER, Agent, Callgate, open_config};

const CALLGATE: &str = env!("CARGO_BIN_EXE_callgate");

fn audit(log: &str, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    fs::write(&path, log).unwrap();
    Command::new(CALLGATE).arg("audit").arg(&path).args(args).output().unwrap()
}

fn report(log: &str) -> Value {
    let out = audit(log, &["--json"]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn line(route: &str, verdict: &str, reason: &str, client: &str, more: &str) -> String {
    format!(
        "{{\"time\":\"2026-01-01T00:00:00Z\",\"request_id\":\"r\",\"route\":\"{route}\",\"provider\":\"p\",\"verdict\":\"{verdict}\",\"reason\":\"{reason}\",\"client\":\"{client}\"{more}}}\n"
    )
}

const OBSERVE: &str = ",\"mode\":\"observe\"";

#[test]
fn a_log_of_observe_mode_says_which_routes_can_be_closed() {
    let rejected = ",\"mode\":\"observe\",\"observed\":[\"token_missing\",\"address_not_allowed\"]";
    let mut log = String::from("Starting up\n{\"broken\": \n\n");
    log += &line("ready", "allow", "ok", "203.0.113.7", OBSERVE).repeat(3);
    log += &format!("agent-1  | {}", line("ready", "duplicate", "duplicate", "203.0.113.8", OBSERVE));
    log += &line("open", "allow", "ok", "203.0.113.7", OBSERVE);
    log += &line("open", "observe", "address_not_allowed", "192.0.2.1", rejected).repeat(2);
    log += &line("shut", "allow", "ok", "203.0.113.7", "");
    log += &line("shut", "deny", "signature_invalid", "192.0.2.1", "");
    log += &line("dead", "deny", "token_missing", "192.0.2.1", "");
    log += &line("none", "deny", "route_unknown", "192.0.2.9", "");
    log += "{\"time\":\"2026-01-01T00:00:01Z\",\"egress\":\"e\",\"verdict\":\"allow\",\"reason\":\"ok\"}\n{\"level\":\"info\"}\n7\n";
    let report = report(&log);
    assert_eq!((&report["skipped"], &report["other_lines"]), (&json!(2), &json!(2)), "{report:#}");
    assert_eq!((&report["entries"], &report["egress_requests"]), (&json!(12), &json!(1)));
    assert_eq!(report["enforceable"], json!(["ready", "shut"]));
    assert_eq!((&report["not_enforceable"], &report["unused"]), (&json!(["open"]), &json!(["dead"])));
    assert_eq!(report["no_route"]["denied"], 1);
    assert_eq!(report["last"], "2026-01-01T00:00:01Z");
    let route = |name: &str| {
        report["routes"].as_array().unwrap().iter().find(|route| route["route"] == name).unwrap().clone()
    };
    let open = route("open");
    assert_eq!(
        (&open["mode"], &open["requests"], &open["would_reject"]),
        (&json!("observe"), &json!(3), &json!(2))
    );
    assert_eq!(open["would_reject_reasons"], json!({ "token_missing": 2, "address_not_allowed": 2 }));
    let callers = json!([
        { "address": "192.0.2.1", "requests": 2, "rejected": 2 },
        { "address": "203.0.113.7", "requests": 1, "rejected": 0 },
    ]);
    assert_eq!((&open["callers"], &open["providers"]), (&callers, &json!({ "p": 3 })));
    assert_eq!((&route("ready")["requests"], &route("ready")["enforceable"]), (&json!(4), &json!(true)));
    assert_eq!((&route("shut")["mode"], &route("shut")["denied"]), (&json!("enforce"), &json!(1)));
    let text = String::from_utf8(audit(&log, &[]).stdout).unwrap();
    for words in [
        "skipped 2 lines that are not JSON",
        "can be closed with `mode: enforce`: all 4 requests passed every check",
        "cannot be closed yet: `mode: enforce` would reject 2 of 3 requests",
        "2 of 3 (address_not_allowed 2, token_missing 2)",
        "192.0.2.1  2, 2 rejected",
        "requests to no route",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn standard_input_and_files_without_entries() {
    let mut child = Command::new(CALLGATE)
        .args(["audit", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A line that is too long, and one that is not UTF-8, are skipped. The last line has no end.
    let mut input = vec![b'x'; 3 << 20];
    input.extend(b"\n\xff\xfe\n");
    input.extend(line("r", "allow", "ok", "203.0.113.7", "").trim_end().as_bytes());
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let out = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&report["skipped"], &report["entries"]), (&json!(2), &json!(1)));
    assert_eq!(audit("", &[]).status.code(), Some(0));
    let foreign = audit("hello\n", &[]);
    assert_eq!(foreign.status.code(), Some(65));
    assert!(String::from_utf8(foreign.stderr).unwrap().contains("no line of Callgate's access log"));
    let missing = Command::new(CALLGATE).args(["audit", "/nonexistent"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(65));
}

#[test]
fn the_log_of_a_running_callgate_can_be_audited() {
    let agent = Agent::start(ANSWER);
    let config = open_config(&agent.address.to_string());
    let config = config.replace("methods: [POST, GET, HEAD, PUT]", "methods: [POST]\n    mode: observe");
    assert!(config.contains("observe"), "{config}");
    let callgate = Callgate::start(&config, Clock::System);
    callgate.send(b"POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    let mut log = callgate.log();
    callgate.send(b"GET /open/x HTTP/1.1\r\nHost: h\r\n\r\n");
    log.extend(callgate.log());
    let log: String = log.iter().map(|line| format!("{line}\n")).collect();
    let report = report(&log);
    let route = &report["routes"][0];
    assert_eq!(
        (&route["mode"], &route["requests"], &route["accepted"]),
        (&json!("observe"), &json!(2), &json!(1))
    );
    assert_eq!(route["would_reject_reasons"], json!({ "method_not_allowed": 1 }));
    assert_eq!(report["not_enforceable"], json!(["open"]));
}
