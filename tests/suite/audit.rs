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
        { "address": "192.0.2.1", "requests": 2, "rejected": 2, "reasons": { "address_not_allowed": 2 } },
        { "address": "203.0.113.7", "requests": 1, "rejected": 0, "reasons": {} },
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
        "a request can fail several checks",
        "192.0.2.1  2, 2 rejected (address_not_allowed 2)",
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
    assert!(String::from_utf8(foreign.stderr).unwrap().contains("no line of Callgate's access log in "));
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

/// Returns the line of a request at a minute of the first day of 2026.
fn at_minute(minute: u32, line: &str) -> String {
    line.replace("00:00:00Z", &format!("{:02}:{:02}:00Z", minute / 60, minute % 60))
}

/// Writes files into a folder, and returns the report about all of them.
fn report_of(files: &[(&str, &[u8])], args: &[&str]) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
    for (path, (_, content)) in paths.iter().zip(files) {
        fs::write(path, content).unwrap();
    }
    let run = |more: &[&str]| {
        let out = Command::new(CALLGATE).arg("audit").args(&paths).args(args).args(more).output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    (serde_json::from_slice(&run(&["--json"])).unwrap(), String::from_utf8(run(&[])).unwrap())
}

#[test]
fn the_mode_is_that_of_the_newest_line_in_whatever_order_files_are_read() {
    let rejected = ",\"mode\":\"observe\",\"observed\":[\"token_missing\"]";
    let old = at_minute(0, &line("closed", "observe", "token_missing", "192.0.2.1", rejected)).repeat(9);
    let new = at_minute(60, &line("closed", "deny", "token_missing", "192.0.2.1", ""));
    let opened = at_minute(0, &line("opened", "allow", "ok", "192.0.2.1", "")).repeat(9)
        + &at_minute(60, &line("opened", "observe", "token_missing", "192.0.2.1", rejected));
    let first = old.clone() + &opened;
    let both = [("old", first.as_bytes()), ("new", new.as_bytes())];
    for files in [both, [both[1], both[0]]] {
        let (report, text) = report_of(&files, &[]);
        let modes: Vec<_> = report["routes"].as_array().unwrap().iter().map(|route| &route["mode"]).collect();
        assert_eq!(modes, ["enforce", "observe"], "{report:#}");
        assert_eq!(report["enforceable"], json!(["closed"]));
        assert_eq!(report["not_enforceable"], json!(["opened"]));
        assert!(text.contains("is closed") && text.contains("the last one 2026-01-01T01:00:00Z"), "{text}");
    }
}

#[test]
fn since_leaves_older_requests_out() {
    let rejected = ",\"mode\":\"observe\",\"observed\":[\"address_not_allowed\"]";
    let mut log = at_minute(0, &line("r", "observe", "address_not_allowed", "192.0.2.1", rejected));
    log += &at_minute(59, &line("r", "allow", "ok", "203.0.113.7", OBSERVE));
    log += &at_minute(90, &line("r", "allow", "ok", "203.0.113.7", OBSERVE));
    // A line of another process, which was written late.
    log += &at_minute(20, &line("r", "observe", "address_not_allowed", "192.0.2.1", rejected));
    let (all, text) = report_of(&[("log", log.as_bytes())], &[]);
    assert_eq!(all["not_enforceable"], json!(["r"]));
    assert!(text.contains("--since"), "{text}");
    for since in ["40m", "2026-01-01T00:50:00Z", "2026-01-01T01:50:00+01:00"] {
        let (report, text) = report_of(&[("log", log.as_bytes())], &["--since", since]);
        assert_eq!((&report["entries"], &report["older"]), (&json!(2), &json!(2)), "{since}");
        assert_eq!(report["enforceable"], json!(["r"]), "{since}");
        assert!(text.contains("skipped 2 requests before `--since`"), "{text}");
    }
    let (none, _) = report_of(&[("log", log.as_bytes())], &["--since", "2027-01-01T00:00:00Z"]);
    assert_eq!((&none["entries"], &none["older"]), (&json!(0), &json!(4)));
    assert_eq!(audit(&log, &["--since", "yesterday"]).status.code(), Some(64));
}

#[test]
fn compressed_files_are_read() {
    let text = line("r", "allow", "ok", "203.0.113.7", "");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, &text).unwrap();
    assert!(Command::new("gzip").arg(&path).status().unwrap().success());
    let compressed = fs::read(folder.path().join("log.gz")).unwrap();
    let (report, _) = report_of(&[("plain", text.as_bytes()), ("1.gz", &compressed), ("x", b"\x1f")], &[]);
    assert_eq!((&report["entries"], &report["skipped"]), (&json!(2), &json!(1)));
    let cut = compressed.get(..compressed.len() / 2).unwrap();
    fs::write(folder.path().join("cut.gz"), cut).unwrap();
    let out = Command::new(CALLGATE).arg("audit").arg(folder.path().join("cut.gz")).output().unwrap();
    assert_eq!(out.status.code(), Some(65));
}

#[test]
fn callbacks_that_the_agent_rejects_are_listed() {
    let with_status = |verdict, reason, status: u16, more: &str| {
        line("r", verdict, reason, "203.0.113.7", &format!(",\"status\":{status}{more}"))
    };
    let mut log = with_status("allow", "ok", 200, "") + &with_status("allow", "ok", 500, "").repeat(2);
    log += &with_status("allow", "ok", 404, "");
    log += &with_status("observe", "token_missing", 404, ",\"observed\":[\"token_missing\"]");
    // The provider closed the connection. The owner answered. The agent's own API. A duplicate. The agent did not answer.
    log += &with_status("allow", "ok", 0, "");
    log += &with_status("allow", "handed_over", 500, "");
    log += &with_status("allow", "stream", 404, "");
    log += &with_status("duplicate", "duplicate", 409, "");
    log += &with_status("fail", "agent_timeout", 504, "");
    let (report, text) = report_of(&[("log", log.as_bytes())], &[]);
    let route = &report["routes"][0];
    assert_eq!((&route["agent_rejected"], &route["accepted"]), (&json!(4), &json!(8)), "{report:#}");
    assert_eq!(route["agent_statuses"], json!({ "404": 2, "500": 2 }));
    assert!(text.contains("  agent         rejected 4 of 6 (404 2, 500 2)"), "{text}");
    assert!(text.contains("the agent answered 4 of 6 delivered requests with an error"), "{text}");
}

#[test]
fn text_of_others_is_bounded_and_harmless() {
    let long = "R".repeat(100_000);
    let mut log =
        line(&format!("a{long}"), &format!("b{long}"), &format!("c{long}"), &format!("d{long}"), "");
    for i in 0..1500 {
        log += &line("many", "deny", &format!("r{i}"), "203.0.113.7", "");
    }
    let hostile = "x\\u001b[31m\u{9b}2J\u{202e}\u{2028}";
    log += &line(hostile, hostile, hostile, hostile, "");
    let out = audit(&log, &["--json"]);
    assert!(out.stdout.len() < 1 << 20, "{}", out.stdout.len());
    let report = report(&log);
    let routes = report["routes"].as_array().unwrap();
    let route = |first: &str| {
        routes.iter().find(|route| route["route"].as_str().unwrap().starts_with(first)).unwrap().clone()
    };
    assert_eq!(route("a")["route"].as_str().unwrap().len(), 200);
    assert_eq!(route("a")["reasons"][0]["reason"].as_str().unwrap().len(), 200);
    assert_eq!(route("a")["callers"][0]["address"].as_str().unwrap().len(), 200);
    let reasons = route("many")["reasons"].as_array().unwrap().clone();
    assert!(reasons.len() == 1001, "{}", reasons.len());
    assert!(reasons.iter().any(|reason| reason["reason"] == "others" && reason["count"] == 500));
    assert_eq!(route("x")["route"], "x\u{1b}[31m\u{9b}2J\u{202e}\u{2028}", "JSON keeps the value");
    for args in [&["--json"][..], &[]] {
        let out = String::from_utf8(audit(&log, args).stdout).unwrap();
        assert!(!out.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\u{2028}']), "{args:?}");
    }
}
