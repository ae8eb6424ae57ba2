//! Agents that ask for their callbacks.

use std::process::Command;

use callgate::clock::Clock;
use serde_json::{Value, json};
use tempfile::tempdir;

use super::{FAST, config};
use crate::harness::{Agent, Callgate, PATIENCE, Response, eventually, send_to};

/// An agent that must never be called.
fn silent() -> Agent {
    Agent::start(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n")
}

fn pull(callgate: &Callgate, path: &str) -> Response {
    send_to(callgate.egress.unwrap(), "GET", path, &[], b"")
}

fn events(response: &Response) -> Vec<Value> {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["events"].as_array().unwrap().clone()
}

fn settle(callgate: &Callgate, path: &str) -> u16 {
    send_to(callgate.egress.unwrap(), "POST", path, &[], b"").status
}

#[test]
fn messages_are_leased_settled_and_freed() {
    let (folder, agent) = (tempdir().unwrap(), silent());
    let config =
        config(folder.path(), &agent.address.to_string(), "pull", &format!("lease: 300ms, {FAST}"), "");
    let callgate = Callgate::start(&config, Clock::System);
    let minted = callgate.mint("a");
    let path = format!("/callbacks/{}/events", minted.interaction);
    assert_eq!(pull(&callgate, &path).status, 204, "there is nothing yet");
    for n in 1..=3 {
        assert_eq!(callgate.call(&minted, &format!("e{n}"), &json!({ "n": n }).to_string()).status, 202);
    }
    let two = pull(&callgate, &format!("{path}?wait=5s&max=2"));
    assert_eq!(two.json()["ended"], Value::Null);
    let two = events(&two);
    let numbers: Vec<_> = two.iter().map(|event| event["n"].as_u64().unwrap()).collect();
    assert!(numbers.len() == 2 && numbers.is_sorted(), "{numbers:?}");
    let first = &two[0];
    assert_eq!(first["body"], r#"{"n":1}"#);
    assert_eq!((&first["attempt"], &first["headers"]["callgate-attempt"]), (&json!(1), &json!("1")));
    assert_eq!(first["headers"]["callgate-content"], "untrusted");
    assert_eq!(first["headers"]["webhook-id"], "e1");
    assert_eq!(first["interaction"], &*minted.interaction);
    assert!(first["assertion"].as_str().unwrap().matches('.').count() == 2);
    assert!(first["id"].as_str().unwrap().starts_with("msg_"));
    // A lease does not hold back later messages.
    let third = events(&pull(&callgate, &path))[0]["n"].as_u64().unwrap();
    assert!(third > numbers[1]);
    assert_eq!(settle(&callgate, &format!("{path}/{}/taken", numbers[0])), 204);
    assert_eq!(settle(&callgate, &format!("{path}/{}/taken", numbers[0])), 404, "it is gone");
    assert_eq!(settle(&callgate, &format!("{path}/{}/failed", numbers[1])), 204);
    // The second message was freed, and the lease of the third one ends.
    let mut again = Vec::new();
    eventually(|| {
        again.extend(pull(&callgate, &format!("{path}?wait=1s")).status.eq(&200).then_some(()));
        let text = callgate.admin_get("/inbox").json();
        let leased = text["messages"]
            .as_array()
            .unwrap()
            .iter()
            .all(|message| message["attempts"].as_u64().unwrap() >= 2);
        leased.then_some(())
    });
    for n in [numbers[1], third] {
        assert_eq!(settle(&callgate, &format!("/callbacks/events/{n}/taken")), 204);
    }
    assert_eq!(callgate.metric("callgate_inbox_waiting"), 0.0);
    assert!(agent.received().is_empty(), "the agent is never called");
}

#[test]
fn a_waiting_pull_hears_of_callbacks_and_of_the_end() {
    let (folder, agent) = (tempdir().unwrap(), silent());
    let config = config(folder.path(), &agent.address.to_string(), "pull", "", "");
    let callgate = Callgate::start(&config, Clock::System);
    let (minted, other) = (callgate.mint("a"), callgate.mint("b"));
    let egress = callgate.egress.unwrap();
    let path = format!("/callbacks/{}/events?wait=30s", minted.interaction);
    let waits = |path: String| std::thread::spawn(move || send_to(egress, "GET", &path, &[], b""));
    let waiting = waits(path.clone());
    let all = waits("/callbacks/events?wait=30s".to_owned());
    assert_eq!(callgate.call(&other, "e0", r#"{"status":"done"}"#).status, 202);
    let found = events(&all.join().unwrap());
    assert_eq!((found.len(), &found[0]["interaction"]), (1, &json!(other.interaction)));
    assert!(!waiting.is_finished());
    assert_eq!(callgate.call(&minted, "e1", r#"{"status":"done"}"#).status, 202);
    let response = waiting.join().unwrap();
    assert_eq!(response.json()["ended"], "done");
    let number = events(&response)[0]["n"].as_u64().unwrap();
    assert_eq!(settle(&callgate, &format!("/callbacks/{}/events/{number}/taken", minted.interaction)), 204);
    let end = pull(&callgate, &path);
    assert_eq!(end.json(), json!({ "events": [], "ended": "done" }));
    // Silence has an end, too.
    let revoked = callgate.mint("c");
    let waiting = waits(format!("/callbacks/{}/events?wait=30s", revoked.interaction));
    assert_eq!(callgate.admin_send("DELETE", &format!("/callbacks/{}", revoked.interaction), "").status, 204);
    assert_eq!(waiting.join().unwrap().json(), json!({ "events": [], "ended": "revoked" }));
}

#[test]
fn requests_below_callbacks_are_checked() {
    let (folder, agent) = (tempdir().unwrap(), silent());
    let config = config(folder.path(), &agent.address.to_string(), "pull", "", "");
    let callgate = Callgate::start(&config, Clock::System);
    let minted = callgate.mint("a");
    let own = format!("/callbacks/{}/events", minted.interaction);
    for (method, path, status, reason) in [
        ("GET", "/callbacks/int_unknown/events?wait=10s", 404, "message_unknown"),
        ("GET", "/callbacks", 404, "message_unknown"),
        ("POST", "/callbacks/events/7/taken", 404, "message_unknown"),
        ("POST", "/callbacks/events/7/eaten", 404, "message_unknown"),
        ("POST", &*own, 405, "method_not_allowed"),
        ("GET", &*format!("{own}/1/taken"), 405, "method_not_allowed"),
        ("GET", "/callbacks/events?agent=other", 400, "parameter_unusable"),
        ("GET", "/callbacks/events?max=0", 400, "parameter_unusable"),
        ("GET", "/callbacks/events?limit=1", 400, "parameter_unusable"),
    ] {
        let response = send_to(callgate.egress.unwrap(), method, path, &[], b"");
        assert_eq!(
            (response.status, &response.json()["reason"]),
            (status, &json!(reason)),
            "{method} {path}"
        );
    }
    let from_page = [("origin", "https://evil.example")];
    assert_eq!(send_to(callgate.egress.unwrap(), "GET", &own, &from_page, b"").status, 403);
}

#[test]
fn a_message_belongs_to_its_interaction_and_survives_a_kill() {
    let (folder, agent) = (tempdir().unwrap(), silent());
    let config = config(folder.path(), &agent.address.to_string(), "pull", "", "");
    let callgate = Callgate::start(&config, Clock::System);
    let (minted, other) = (callgate.mint("a"), callgate.mint("b"));
    assert_eq!(callgate.call(&minted, "e1", "{}").status, 202);
    assert_eq!(callgate.call(&minted, "e2", "{}").status, 202);
    let path = format!("/callbacks/{}/events", minted.interaction);
    let leased = events(&pull(&callgate, &format!("{path}?wait=5s&max=1")));
    let first = leased[0]["n"].as_u64().unwrap();
    assert_eq!(settle(&callgate, &format!("/callbacks/{}/events/{first}/taken", other.interaction)), 404);
    assert_eq!(settle(&callgate, &format!("{path}/{first}/taken")), 204);
    callgate.kill();
    let callgate = Callgate::start(&config, Clock::System);
    let again = events(&pull(&callgate, &format!("{path}?wait=5s")));
    let second = again[0]["n"].as_u64().unwrap();
    assert!(again.len() == 1 && second > first, "{leased:?}");
    // Numbers are never used twice.
    assert_eq!(settle(&callgate, &format!("{path}/{second}/taken")), 204);
    callgate.kill();
    let callgate = Callgate::start(&config, Clock::System);
    assert_eq!(callgate.call(&minted, "e3", "{}").status, 202);
    assert!(events(&pull(&callgate, &format!("{path}?wait=5s")))[0]["n"].as_u64().unwrap() > second);
}

#[test]
fn stopping_does_not_wait_for_a_pull() {
    let (folder, agent) = (tempdir().unwrap(), silent());
    let config = config(folder.path(), &agent.address.to_string(), "pull", "", "");
    let mut callgate = Callgate::start(&config, Clock::System);
    let egress = callgate.egress.unwrap();
    let waiting = std::thread::spawn(move || send_to(egress, "GET", "/callbacks/events?wait=60s", &[], b""));
    eventually(|| (callgate.metrics().contains("callgate_egress") && !waiting.is_finished()).then_some(()));
    let began = callgate::clock::instant();
    let stopped = callgate.stop_in_background();
    assert_eq!(waiting.join().unwrap().status, 204);
    assert_eq!(stopped.join().unwrap(), 0);
    assert!(began.elapsed() < PATIENCE / 2);
}

/// The client in docs/inbox.md receives callbacks with the standard library of Python alone.
#[test]
fn the_client_of_the_documentation_receives_callbacks() {
    let (folder, agent) = (tempdir().unwrap(), silent());
    let config = config(folder.path(), &agent.address.to_string(), "pull", "", "");
    let callgate = Callgate::start(&config, Clock::System);
    let minted = callgate.mint("a");
    let text = std::fs::read_to_string("docs/inbox.md").unwrap();
    let client = text.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(client.lines().count() <= 20, "{} lines", client.lines().count());
    let file = folder.path().join("client.py");
    std::fs::write(&file, client).unwrap();
    let mut child = Command::new("python3");
    let child = child.arg(&file).arg(format!("http://{}", callgate.egress.unwrap())).arg(&minted.interaction);
    let child = child.stdout(std::process::Stdio::piped()).spawn().unwrap();
    assert_eq!(callgate.call(&minted, "e1", r#"{"progress":1}"#).status, 202);
    assert_eq!(callgate.call(&minted, "e2", r#"{"status":"done"}"#).status, 202);
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.lines().collect::<Vec<_>>(), [r#"{"progress":1}"#, r#"{"status":"done"}"#, "done"]);
    assert_eq!(callgate.metric("callgate_inbox_waiting"), 0.0);
}

/// An answer has at most 4 MiB and one message. Whoever watches asks again, and does not miss the rest.
#[test]
fn a_watcher_receives_large_messages_in_parts() {
    let (folder, agent) = (tempdir().unwrap(), silent());
    let config = config(folder.path(), &agent.address.to_string(), "pull", "", "");
    let callgate = Callgate::start(&config, Clock::System);
    let minted = callgate.mint("a");
    let body = json!({ "progress": 1, "text": "x".repeat(1_000_000) }).to_string();
    for n in 1..=7 {
        assert_eq!(callgate.call(&minted, &format!("e{n}"), &body).status, 202);
    }
    assert_eq!(callgate.call(&minted, "e8", r#"{"status":"done"}"#).status, 202);
    let watch = |query: &str| {
        let path = format!("/callbacks/{}/events?watch=true&{query}", minted.interaction);
        let response = pull(&callgate, &path);
        let numbers: Vec<_> = events(&response).iter().map(|event| event["n"].as_u64().unwrap()).collect();
        (numbers, response.json()["ended"].clone())
    };
    assert_eq!(watch("max=100"), ((1..=5).collect(), Value::Null));
    assert_eq!(watch("max=100&after=5"), (vec![6, 7, 8], json!("done")));
    // The number of messages has the same effect as their size.
    assert_eq!(watch("max=2&after=4"), (vec![5, 6], Value::Null));
    assert_eq!(watch("max=2&after=6"), (vec![7, 8], json!("done")));
}

#[test]
fn only_messages_of_pull_routes_are_settled_and_only_in_the_attempt_that_was_worked_on() {
    let (folder, agent) = (tempdir().unwrap(), silent());
    let config = config(folder.path(), &agent.address.to_string(), "inbox", "", "");
    let callgate = Callgate::start(&config, Clock::System);
    let minted = callgate.mint("a");
    assert_eq!(callgate.call(&minted, "e1", "{}").status, 202);
    let message = callgate.admin_get("/inbox").json()["messages"][0]["id"].as_str().unwrap().to_owned();
    let n = message.split('_').nth(1).unwrap();
    for verb in ["taken", "failed"] {
        assert_eq!(settle(&callgate, &format!("/callbacks/events/{n}/{verb}")), 404);
        assert_eq!(settle(&callgate, &format!("/callbacks/{}/events/{n}/{verb}", minted.interaction)), 404);
    }
    callgate.kill();
    let folder = tempdir().unwrap();
    let config = self::config(folder.path(), &agent.address.to_string(), "pull", "", "");
    let callgate = Callgate::start(&config, Clock::System);
    let minted = callgate.mint("a");
    assert_eq!(callgate.call(&minted, "e1", "{}").status, 202);
    let leased = events(&pull(&callgate, "/callbacks/events?wait=5s"));
    assert_eq!(leased[0]["attempt"], 1);
    let path = format!("/callbacks/events/{}", leased[0]["n"]);
    assert_eq!(settle(&callgate, &format!("{path}/failed?attempt=1")), 204);
    let again = events(&pull(&callgate, "/callbacks/events?wait=10s"));
    assert_eq!(again[0]["attempt"], 2);
    assert_eq!(settle(&callgate, &format!("{path}/taken?attempt=1")), 404);
    assert_eq!(settle(&callgate, &format!("{path}/taken?agent=nobody")), 400);
    assert_eq!(settle(&callgate, &format!("{path}/taken?attempt=2")), 204);
}

/// A body that cannot be decrypted holds back neither the list for people nor other messages.
#[test]
fn a_message_that_cannot_be_read_is_listed_and_not_leased() {
    let (folder, agent) = (tempdir().unwrap(), silent());
    let settings = |secret: &str| format!("seal: {{ env: {secret} }}, lease: 1h");
    let config =
        |secret: &str| config(folder.path(), &agent.address.to_string(), "pull", &settings(secret), "");
    let callgate = Callgate::start(&config("JWT_KEY"), Clock::System);
    let minted = callgate.mint("a");
    assert_eq!(callgate.call(&minted, "e1", r#"{"n":1}"#).status, 202);
    callgate.kill();
    let callgate = Callgate::start(&config("FOREIGN_KEY"), Clock::System);
    let path = format!("/callbacks/{}/events", minted.interaction);
    assert_eq!(pull(&callgate, &format!("{path}?max=1")).status, 204);
    let message = callgate.admin_get("/inbox").json()["messages"][0].clone();
    assert_eq!((&message["state"], &message["error"]), (&json!("due"), &Value::Null), "{message}");
    assert_eq!((&message["event_id"], &message["interaction"]), (&json!("e1"), &json!(minted.interaction)));
    let shown = callgate.admin_get(&format!("/inbox/{}", message["id"].as_str().unwrap())).json();
    assert_eq!((&shown["target"], &shown["body"]), (&json!("/in/a"), &Value::Null));
    assert!(shown["error"].as_str().unwrap().contains("inbox.seal"), "{shown}");
    // The message is tried again later, and others are not held back.
    assert_eq!(callgate.call(&minted, "e2", r#"{"n":2}"#).status, 202);
    assert_eq!(events(&pull(&callgate, &format!("{path}?max=1&wait=5s")))[0]["n"], 2);
    // A watcher is not held up either.
    assert_eq!(callgate.call(&minted, "e3", r#"{"status":"done"}"#).status, 202);
    let watched = pull(&callgate, &format!("{path}?watch=true&wait=5s"));
    let numbers: Vec<_> = events(&watched).iter().map(|event| event["n"].clone()).collect();
    assert_eq!((numbers, &watched.json()["ended"]), (vec![json!(2), json!(3)], &json!("done")));
    // The lease is as long as ever, and the message is there once the secret is back.
    callgate.kill();
    let callgate = Callgate::start(&config("JWT_KEY"), Clock::System);
    assert_eq!(events(&pull(&callgate, &format!("{path}?max=1&wait=30s")))[0]["body"], r#"{"n":1}"#);
}
