//! What people see and do: the admin API, and the command line.

use std::process::{Command, Output};

use callgate::clock::Clock;
use serde_json::{Value, json};
use tempfile::tempdir;

use super::{FAST, answer, config};
use crate::event_log;
use crate::harness::{Agent, Callgate, eventually, send_to};
use crate::process::binary;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn messages(callgate: &Callgate, query: &str) -> Vec<Value> {
    let response = callgate.admin_get(&format!("/inbox{query}"));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["messages"].as_array().unwrap().clone()
}

#[test]
fn messages_are_listed_shown_replayed_and_erased() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(&answer(410, "")));
    let text = config(
        folder.path(),
        &agent.address.to_string(),
        "inbox",
        &format!("keep: {{ delivered: 1h }}, {FAST}"),
        "",
    );
    let callgate = Callgate::start(&text, Clock::System);
    let minted = callgate.mint("a");
    for n in 1..=3 {
        assert_eq!(callgate.call(&minted, &format!("e{n}"), &json!({ "n": n }).to_string()).status, 202);
    }
    let dead =
        eventually(|| Some(messages(&callgate, "?state=dead&route=doc")).filter(|dead| dead.len() == 3));
    assert_eq!(
        (&dead[0]["cause"], &dead[0]["last_result"], &dead[0]["attempts"]),
        (&json!("gone"), &json!("410"), &json!(1))
    );
    assert_eq!(dead[0]["event_id"], "e1");
    let id = dead[0]["id"].as_str().unwrap();
    let shown = callgate.admin_get(&format!("/inbox/{id}")).json();
    assert_eq!((&shown["body"], &shown["target"]), (&json!(r#"{"n":1}"#), &json!("/in/a")));
    assert!(!shown.to_string().contains("Bearer"), "{shown}");
    // One is replayed under the same id, and is delivered.
    agent.answers(OK);
    assert_eq!(
        callgate.admin_send("POST", &format!("/inbox/{id}/replay"), "").json(),
        json!({ "replayed": 1 })
    );
    let delivered =
        eventually(|| Some(messages(&callgate, "?state=delivered")).filter(|found| found.len() == 1));
    assert_eq!(delivered[0]["id"], id);
    let of_first: Vec<_> =
        agent.received().into_iter().filter(|one| one.header("callgate-event-id") == ["e1"]).collect();
    assert_eq!(of_first.iter().map(|one| one.header("callgate-attempt")[0]).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(of_first[0].header("webhook-id"), of_first[1].header("webhook-id"));
    // All others are replayed together.
    let all = callgate.admin_send("POST", "/inbox/replay", r#"{"route":"doc","since":"1h","rate":1000}"#);
    assert_eq!(all.json(), json!({ "replayed": 2 }));
    eventually(|| (messages(&callgate, "?state=delivered").len() == 3).then_some(()));
    // Erasing is for good.
    assert_eq!(callgate.admin_send("DELETE", &format!("/inbox/{id}"), "").status, 204);
    assert_eq!(callgate.admin_send("DELETE", &format!("/inbox/{id}"), "").status, 404);
    assert_eq!(callgate.admin_get(&format!("/inbox/{id}")).status, 404);
    assert_eq!(messages(&callgate, "?limit=1&route=&state=").len(), 1);
    // The state survives a restart.
    callgate.kill();
    let without_bodies = text.replace(", bodies: true", "");
    let callgate = Callgate::start(&without_bodies, Clock::System);
    let kept = eventually(|| Some(messages(&callgate, "?state=delivered")).filter(|kept| kept.len() == 2));
    let shown = callgate.admin_get(&format!("/inbox/{}", kept[0]["id"].as_str().unwrap())).json();
    assert_eq!((&shown["body"], &shown["body_bytes"]), (&Value::Null, &json!(7)));
}

#[test]
fn requests_to_the_inbox_are_checked() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(OK));
    let text = config(folder.path(), &agent.address.to_string(), "inbox", "", "");
    let callgate = Callgate::start(&text, Clock::System);
    for (method, path, body, status) in [
        ("GET", "/inbox?state=lost", "", 400),
        ("GET", "/inbox?colour=red", "", 400),
        ("GET", "/inbox?limit=0", "", 400),
        ("GET", "/inbox/msg_1_0000000000000000", "", 404),
        ("GET", "/inbox/1", "", 404),
        ("PUT", "/inbox", "", 405),
        ("PUT", "/inbox/msg_1", "", 405),
        ("GET", "/inbox/replay", "", 405),
        ("GET", "/inbox/msg_1/replay", "", 405),
        ("POST", "/inbox/msg_1/replay", "", 404),
        ("POST", "/inbox/msg_1/again", "", 404),
        ("POST", "/inbox/replay", "{\"rate\":\"fast\"}", 400),
        ("POST", "/inbox/replay", "{\"since\":\"then\"}", 400),
        ("POST", "/inbox/replay", "{\"all\":true}", 400),
        ("POST", "/inbox/replay", "{\"route\":\"unknown\"}", 404),
    ] {
        assert_eq!(callgate.admin_send(method, path, body).status, status, "{method} {path} {body}");
    }
}

/// The admin page gets the counts of each route, and changes messages only with `listen.admin.actions` and with the header
/// that only its own script can send.
#[test]
fn the_page_counts_the_messages_of_each_state_and_changes_them_only_with_actions() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(OK));
    let text = config(folder.path(), &agent.address.to_string(), "pull", "keep: { delivered: 1h }", "");
    let callgate =
        Callgate::start(&text.replace("bodies: true", "bodies: true, actions: true"), Clock::System);
    let minted = callgate.mint("a");
    for n in 1..=4 {
        assert_eq!(callgate.call(&minted, &format!("e{n}"), "{}").status, 202);
    }
    let counts = || {
        let state = callgate.admin_get("/ui/api/state").json()["inbox"].clone();
        assert_eq!((&state["paused"], &state["bodies"]), (&json!([]), &json!(true)));
        let route = state["routes"][0].clone();
        assert_eq!((&route["name"], &route["deliver"]), (&json!("doc"), &json!("pull")));
        ["due", "leased", "dead", "delivered"].map(|name| route[name].as_u64().unwrap())
    };
    assert_eq!(counts(), [4, 0, 0, 0]);
    let pull = |path: &str, method: &str| send_to(callgate.egress.unwrap(), method, path, &[], b"");
    let events = pull(&format!("/callbacks/{}/events?max=2", minted.interaction), "GET").json();
    assert_eq!(counts(), [2, 2, 0, 0]);
    let taken = format!("/callbacks/events/{}/taken", events["events"][0]["n"]);
    assert_eq!(pull(&taken, "POST").status, 204);
    assert_eq!(counts(), [2, 1, 0, 1]);
    let failed = format!("/callbacks/events/{}/failed", events["events"][1]["n"]);
    assert_eq!(pull(&failed, "POST").status, 204);
    assert_eq!(counts(), [3, 0, 0, 1]);
    let delivered = messages(&callgate, "?state=delivered")[0]["id"].as_str().unwrap().to_owned();
    let (replay, drop) = (format!("/ui/api/inbox/{delivered}/replay"), format!("/ui/api/inbox/{delivered}"));
    let act = |method: &str, path: &str, headers: &[(&str, &str)]| {
        send_to(callgate.admin.unwrap(), method, path, headers, b"").status
    };
    let page = ("origin", "http://localhost");
    assert_eq!(act("POST", &replay, &[page]), 403, "without the header");
    assert_eq!(act("POST", &replay, &[page, ("callgate-action", "drop")]), 403, "with another header");
    assert_eq!(act("POST", &replay, &[("callgate-action", "replay")]), 403, "not from the page");
    assert_eq!(act("POST", &replay, &[page, ("callgate-action", "replay")]), 200);
    assert_eq!(counts(), [4, 0, 0, 0]);
    assert_eq!(act("DELETE", &drop, &[page, ("callgate-action", "drop")]), 204);
    assert_eq!(counts(), [3, 0, 0, 0]);
    callgate.kill();
    let callgate = Callgate::start(&text, Clock::System);
    let id = messages(&callgate, "")[0]["id"].as_str().unwrap().to_owned();
    let headers = [page, ("callgate-action", "drop")];
    let path = format!("/ui/api/inbox/{id}");
    assert_eq!(
        send_to(callgate.admin.unwrap(), "DELETE", &path, &headers, b"").status,
        403,
        "without actions"
    );
    assert_eq!(callgate.admin_get(&path).json()["body"], "{}");
}

fn run(config: &std::path::Path, arguments: &[&str]) -> Output {
    let variables =
        ["TOKEN_KEY", "FOREIGN_KEY", "WHSEC"].map(|name| (name, crate::harness::env(name).unwrap()));
    Command::new(binary()).args(arguments).arg("-c").arg(config).envs(variables).output().unwrap()
}

/// Writes the configuration with the addresses of the running Callgate.
fn with_addresses(text: &str, callgate: &Callgate, folder: &std::path::Path) -> std::path::PathBuf {
    let text = text.replace(
        "egress: { address: 127.0.0.1:0 }",
        &format!("egress: {{ address: {} }}", callgate.egress.unwrap()),
    );
    let text = text
        .replace("admin: { address: 127.0.0.1:0", &format!("admin: {{ address: {}", callgate.admin.unwrap()));
    let path = folder.join("callgate.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_command_line_lists_replays_and_drops() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(&answer(410, "")));
    let text = config(folder.path(), &agent.address.to_string(), "inbox", FAST, "");
    let callgate = Callgate::start(&text, Clock::System);
    let path = with_addresses(&text, &callgate, folder.path());
    let minted = callgate.mint("a");
    for n in 1..=3 {
        assert_eq!(callgate.call(&minted, &format!("e{n}"), "{}").status, 202);
    }
    eventually(|| (messages(&callgate, "?state=dead").len() == 3).then_some(()));
    let listed = run(&path, &["inbox", "list", "--state", "dead"]);
    let lines = String::from_utf8(listed.stdout).unwrap();
    assert_eq!((listed.status.code(), lines.lines().count()), (Some(0), 4), "{lines}");
    assert!(lines.contains(&minted.interaction), "{lines}");
    let json = run(&path, &["inbox", "list", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[0]["captures"], json!({ "id": "a" }), "{json}");
    let unknown = run(&path, &["inbox", "list", "--route", "nosuch"]);
    let error = String::from_utf8(unknown.stderr).unwrap();
    assert!(unknown.status.code() == Some(65) && error.contains("the routes are doc"), "{error}");
    let unsaid = run(&path, &["inbox", "replay"]);
    let error = String::from_utf8(unsaid.stderr).unwrap();
    assert!(
        unsaid.status.code() == Some(64) && error.contains("--route") && error.contains("--all"),
        "{error}"
    );
    let id = lines.lines().nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let shown = run(&path, &["inbox", "show", &id]);
    assert_eq!(serde_json::from_slice::<Value>(&shown.stdout).unwrap()["body"], "{}");
    assert_eq!(run(&path, &["inbox", "drop", &id]).status.code(), Some(0));
    assert_eq!(run(&path, &["inbox", "show", &id]).status.code(), Some(65));
    agent.answers(OK);
    let replayed = run(&path, &["inbox", "replay", "--all"]);
    assert_eq!(String::from_utf8(replayed.stdout).unwrap(), "2 messages due again\n");
    eventually(|| messages(&callgate, "").is_empty().then_some(()));
    let view = || callgate.admin_get(&format!("/callbacks/{}", minted.interaction)).json();
    eventually(|| view()["undelivered"].is_null().then_some(()));
    let json = run(&path, &["inbox", "list", "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&json.stdout).unwrap(), json!([]));
    drop(callgate);
    assert_eq!(run(&path, &["inbox", "list"]).status.code(), Some(69));
}

#[test]
fn waiting_prints_bodies_and_exits_by_outcome() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(OK));
    let text = config(folder.path(), &agent.address.to_string(), "pull", "", "");
    let callgate = Callgate::start(&text, Clock::System);
    let path = with_addresses(&text, &callgate, folder.path());
    for (status, code) in [("done", 0), ("failed", 1)] {
        let minted = callgate.mint(status);
        let (path, interaction) = (path.clone(), minted.interaction.clone());
        let waiting = std::thread::spawn(move || run(&path, &["wait", &interaction]));
        assert_eq!(callgate.call(&minted, "e1", r#"{"progress":1}"#).status, 202);
        assert_eq!(callgate.call(&minted, "e2", &json!({ "status": status }).to_string()).status, 202);
        let output = waiting.join().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{printed}");
        assert_eq!(printed, format!("{{\"progress\":1}}\n{{\"status\":\"{status}\"}}\n"));
    }
    // It only watches: the messages are still there for the agent.
    assert_eq!(messages(&callgate, "?state=due").len(), 4);
    let minted = callgate.mint("revoked");
    callgate.admin_send("DELETE", &format!("/callbacks/{}", minted.interaction), "");
    assert_eq!(run(&path, &["wait", &minted.interaction]).status.code(), Some(3));
    assert_eq!(run(&path, &["wait", "int_unknown"]).status.code(), Some(69));
}

/// Each message leaves lines in the event log, with which it can be followed.
#[test]
fn the_event_log_names_the_event_and_the_interaction_of_each_outcome() {
    event_log::record();
    let (folder, agent) = (tempdir().unwrap(), Agent::start(&answer(503, "")));
    let text = config(folder.path(), &agent.address.to_string(), "inbox", FAST, "");
    let callgate = Callgate::start(&text, Clock::System);
    let minted = callgate.mint("a");
    assert_eq!(callgate.call(&minted, "evt-traced", "{}").status, 202);
    let line = |words: &str| {
        eventually(|| event_log::lines("evt-traced").into_iter().find(|line| line.contains(words)))
    };
    let failed = line("not delivered, attempt 1, result 503, route doc");
    assert!(failed.starts_with("warn: msg_") && failed.contains(&minted.interaction), "{failed}");
    agent.answers(OK);
    let delivered = line(": delivered, attempt ");
    assert!(delivered.starts_with("info: msg_") && delivered.contains(&minted.interaction), "{delivered}");
}
