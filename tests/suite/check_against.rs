//! `callgate check --against` with a running process: what a reload of this process would do.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{ANSWER, Agent, open_config, send_to};
use crate::process::Process;

const TOKEN: &str = "an admin token of some length";

fn check(file: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
    command.args(["check", "-c"]).arg(file).args(args).output().unwrap()
}

fn told(out: &Output) -> (Option<i32>, String) {
    (out.status.code(), String::from_utf8([&out.stdout[..], &out.stderr[..]].concat()).unwrap())
}

#[test]
fn a_changed_route_needs_no_restart_and_a_changed_port_does() {
    let agent = Agent::start(ANSWER);
    let text = open_config(&agent.address.to_string());
    let process = Process::start(&text);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new.yaml");
    let url = format!("http://{}", process.admin);
    let against = |text: &str, args: &[&str]| {
        fs::write(&file, text).unwrap();
        told(&check(&file, &[&["--against", &url], args].concat()))
    };
    let (code, said) = against(&text, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("generation 1 uses this configuration already"), "{said}");
    let (code, said) = against(&text.replace("/open/", "/other/"), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("a reload would replace generation 1"), "{said}");
    let moved = text.replacen("127.0.0.1:0", "127.0.0.1:1", 1).replace("routes:", "threads: 1\nroutes:");
    let (code, said) = against(&moved, &[]);
    assert_eq!(code, Some(64), "{said}");
    for words in [
        "listen.ingress[].address: only a restart can change 127.0.0.1:0 to 127.0.0.1:1",
        "a reload would be rejected: only a restart can change listen.ingress[].address, threads",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let (code, said) = against(&moved, &["--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["ok"]), (Some(64), &Value::Bool(false)));
    assert_eq!(said["restart"], serde_json::json!(["listen.ingress[].address", "threads"]));
    assert_eq!(said["against"]["restart"][1]["new"], "1");
    // A mistake is reported as without the running process.
    let (code, said) = against(&text.replace("open: true", "opne: true"), &[]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("did you mean `open`?"), "{said}");
    // The running process has not changed.
    let state = send_to(process.admin, "GET", "/readyz?verbose", &[], b"").json();
    assert_eq!((&state["config"]["generation"], &state["config"]["refused"]), (&1.into(), &Value::Null));
}

#[test]
fn another_value_of_the_environment_is_another_configuration() {
    let agent = Agent::start(ANSWER);
    let text = format!("public_url: {{ env: PUBLIC_URL }}\n{}", open_config(&agent.address.to_string()));
    let folder = tempfile::tempdir().unwrap();
    let variables = [("PUBLIC_URL", "https://a.example.com")];
    let process = Process::start_with(tempfile::tempdir().unwrap(), &text, &variables);
    let file = folder.path().join("new.yaml");
    fs::write(&file, &text).unwrap();
    let url = format!("http://{}", process.admin);
    let against = |public_url: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
        command.env("PUBLIC_URL", public_url).args(["check", "--against", &url, "-c"]).arg(&file);
        told(&command.args(args).output().unwrap())
    };
    let (code, said) = against("https://a.example.com", &[]);
    assert!(code == Some(0) && said.contains("generation 1 uses this configuration already"), "{said}");
    let (code, said) = against("https://b.example.com", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("uses this configuration already"), "{said}");
    assert!(said.contains("warning: PUBLIC_URL has another value in http://"), "{said}");
    let (_, said) = against("https://b.example.com", &["--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["against"]["in_use"], false);
    assert_eq!(said["against"]["environment"], serde_json::json!(["PUBLIC_URL"]));
    // The values are not shown.
    let shown = send_to(process.admin, "GET", "/config", &[], b"").text();
    assert!(shown.contains("PUBLIC_URL") && !shown.contains("a.example.com"), "{shown}");
}

#[test]
fn the_admin_listener_shows_no_secret_and_wants_its_token() {
    let agent = Agent::start(ANSWER);
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    let with_token = format!("admin: {{ token: {{ file: {} }}, address", token.display());
    let text = open_config(&agent.address.to_string()).replace("admin: { address", &with_token);
    let secret = "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
    let text = format!(
        "{text}providers: {{ p: {{ preset: standard-webhooks, secrets: [ {{ env: PROVIDER }} ] }} }}\n"
    );
    // The test reads the address of the admin listener behind `admin on`.
    let process = Process::start_with(tempfile::tempdir().unwrap(), &text, &[("PROVIDER", secret)]);
    let bearer = format!("Bearer {TOKEN}");
    let shown = send_to(process.admin, "GET", "/config", &[("authorization", &bearer)], b"");
    assert_eq!(shown.status, 200, "{}", shown.text());
    for hidden in [TOKEN, secret, "PROVIDER", "whsec", &token.display().to_string()] {
        assert!(!shown.text().contains(hidden), "{}", shown.text());
    }
    assert_eq!(send_to(process.admin, "GET", "/config", &[], b"").status, 401);
    assert_eq!(send_to(process.admin, "POST", "/config", &[("authorization", &bearer)], b"").status, 405);
    let page = [("authorization", &*bearer), ("origin", "http://evil.example")];
    assert_eq!(send_to(process.admin, "GET", "/config", &page, b"").status, 403);

    let file = folder.path().join("new.yaml");
    let url = format!("http://{}", process.admin);
    fs::write(&file, open_config("127.0.0.1:1")).unwrap();
    let (code, said) = told(&check(&file, &["--against", &url]));
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("HTTP 401"), "{said}");
    let (code, said) = told(&check(&file, &["--against", &url, "--token", token.to_str().unwrap()]));
    assert_eq!(code, Some(0), "{said}");
    // The token in the checked configuration is used, too.
    fs::write(&file, text.replace("{ env: PROVIDER }", &format!("{{ file: {} }}", token.display()))).unwrap();
    let (code, said) = told(&check(&file, &["--against", &url]));
    assert!(code == Some(64) && said.contains("base64"), "{said}");
    fs::write(&file, text.split("providers:").next().unwrap()).unwrap();
    let (code, said) = told(&check(&file, &["--against", &url]));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn what_is_no_running_callgate_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new.yaml");
    fs::write(&file, open_config("127.0.0.1:1")).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, said) = told(&check(&file, &["--against", &format!("http://{free}")]));
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("no answer from"), "{said}");
    let (code, said) = told(&check(&file, &["--against", "127.0.0.1:9901"]));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("such as http://127.0.0.1:9901"), "{said}");
}
