//! A Redis or Valkey that is full: it takes nothing new, and what exists already goes on.

use callgate::clock::Clock;
use serde_json::json;

use crate::engine::{ENGINES, Engine};
use crate::harness::{Agent, Callgate, eventually};
use crate::inbox::shared::{OK, away, pull, settle, taken_over, with_store};
use crate::inbox::{FAST, bodies};
use crate::shared_ledger::Process;

/// Lets the server refuse each command that needs memory, or none.
fn limit(engine: &Engine, bytes: &str) {
    assert_eq!(engine.command(&["CONFIG", "SET", "maxmemory", bytes]), "+OK\r\n");
}

fn on_both(test: impl Fn(&Engine)) {
    ENGINES.iter().for_each(|name| test(&Engine::start(name, &["--maxmemory-policy", "noeviction"])));
}

fn inbox(engine: &Engine, agent: &str, deliver: &str) -> Callgate {
    let store = engine.store(", prefix: cg").replace('\n', "").replace("} }", "}, grace: 1s }");
    Callgate::start(
        &with_store(&store, agent, deliver, &format!("may_lose: true, body_store_max: 512KiB, {FAST}"), ""),
        Clock::System,
    )
}

/// Mints as [`Callgate::mint`] does, and returns the status.
fn mint(callgate: &Callgate, route: &str) -> u16 {
    let wanted = json!({ "route": route, "params": { "id": "x" } }).to_string();
    callgate.admin_send("POST", "/callbacks", &wanted).status
}

#[test]
fn waiting_messages_are_delivered_and_new_ones_are_refused() {
    on_both(|engine| {
        let address = away();
        let callgate = inbox(engine, &address.to_string(), "inbox");
        let minted = callgate.mint("a");
        for n in 0..3 {
            assert_eq!(callgate.call(&minted, &format!("e{n}"), &json!({ "n": n }).to_string()).status, 202);
        }
        limit(engine, "1");
        assert_eq!(callgate.call(&minted, "e3", "{}").status, 503);
        assert_eq!(mint(&callgate, "doc"), 503);
        let agent = Agent::start_at(address, OK);
        eventually(|| (callgate.metric("callgate_inbox_waiting") == 0.0).then_some(()));
        let numbers: Vec<_> = bodies(&agent)["/in/a"].iter().map(|body| body["n"].clone()).collect();
        assert_eq!(numbers, [0, 1, 2], "each is delivered once");
        for pattern in ["cg{*}x:*", "cg{*}w:*", "cg{*}d", "cg{*}h"] {
            eventually(|| engine.keys(pattern).is_empty().then_some(()));
        }
        limit(engine, "0");
        assert_eq!(callgate.call(&minted, "e3", r#"{"n":3}"#).status, 202, "the event was not recorded");
        agent.wait_for(4);
    });
}

/// A number for the message needs little memory, and the message itself needs much.
#[test]
fn the_claim_of_a_message_that_does_not_fit_is_released() {
    on_both(|engine| {
        let agent = Agent::start(OK);
        let callgate = inbox(engine, &agent.address.to_string(), "inbox");
        let minted = callgate.mint("a");
        let large = json!({ "note": "x".repeat(200_000) }).to_string();
        assert_eq!(callgate.call(&minted, "e0", &large).status, 202);
        eventually(|| (callgate.metric("callgate_inbox_waiting") == 0.0).then_some(()));
        let used = engine.command(&["INFO", "memory"]);
        let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        limit(engine, &(used.trim().parse::<u64>().unwrap() + 100_000).to_string());
        assert_eq!(callgate.call(&minted, "e1", &large).status, 503);
        limit(engine, "0");
        // A claim that is not released would hold this back until its lease ends.
        assert_eq!(callgate.call(&minted, "e1", &large).status, 202);
        agent.wait_for(2);
        assert_eq!(callgate.call(&minted, "e1", &large).status, 200, "the event is known");
    });
}

#[test]
fn messages_can_be_pulled_and_settled() {
    on_both(|engine| {
        let callgate = inbox(engine, "127.0.0.1:9", "pull");
        let minted = callgate.mint("a");
        for n in 0..2 {
            assert_eq!(callgate.call(&minted, &format!("e{n}"), &json!({ "n": n }).to_string()).status, 202);
        }
        limit(engine, "1");
        let events = pull(&callgate, &format!("/callbacks/{}/events?wait=1s", minted.interaction));
        assert_eq!(events.len(), 2);
        assert_eq!(settle(&callgate, &format!("/callbacks/events/{}/taken", events[0]["n"])), 204);
        assert_eq!(settle(&callgate, &format!("/callbacks/events/{}/failed", events[1]["n"])), 204);
        let again = eventually(|| pull(&callgate, "/callbacks/events?wait=1s").pop());
        assert_eq!(settle(&callgate, &format!("/callbacks/events/{}/taken", again["n"])), 204);
        assert_eq!(
            callgate.admin_send("DELETE", &format!("/callbacks/{}", minted.interaction), "").status,
            204
        );
    });
}

#[test]
fn existing_interactions_go_on_and_deadlines_are_reported() {
    on_both(|engine| {
        let process = Process::start(&engine.store(""));
        let (interaction, token) = process.mint("jobs", "");
        let (late, _) = process.mint("short", "");
        limit(engine, "1");
        assert_eq!(mint(&process.callgate, "jobs"), 503);
        assert_eq!(process.callback("jobs", &token, r#"{"status":"working"}"#).status, 200);
        assert_eq!(process.callback("jobs", &token, r#"{"status":"done"}"#).status, 200);
        assert_eq!(process.view(&interaction)["state"], "done");
        let notice =
            eventually(|| process.agent.received().into_iter().find(|request| request.target() == "/notice"));
        assert!(String::from_utf8_lossy(&notice.body).contains(&*late));
        assert_eq!(process.hook("d1", "{}").status, 503, "an event without an interaction is new");
        assert_eq!(process.callgate.admin_send("DELETE", &format!("/callbacks/{late}"), "").status, 204);
        limit(engine, "0");
        for (status, requests) in [(200, 1), (200, 1)] {
            assert_eq!(process.hook("d1", "{}").status, status);
            let received = process.agent.received();
            assert_eq!(received.iter().filter(|one| one.target() == "/hook").count(), requests);
        }
    });
}

/// While other processes would be full as well, each stays ready. Somebody must be told nevertheless.
#[test]
fn a_full_store_is_reported_until_it_has_room() {
    on_both(|engine| {
        let callgate = inbox(engine, "127.0.0.1:9", "pull");
        assert_eq!(mint(&callgate, "doc"), 201);
        limit(engine, "1");
        assert_eq!(mint(&callgate, "doc"), 503);
        let status = |path: &str| callgate.admin_get(path).status;
        eventually(|| (callgate.metric("callgate_store_failed") == 1.0).then_some(()));
        assert_eq!((status("/readyz"), status("/livez")), (200, 200));
        assert_eq!(mint(&callgate, "doc"), 503);
        limit(engine, "0");
        // It is full until it has refused nothing for 10 seconds, and is asked every 5 seconds.
        taken_over(|| (callgate.metric("callgate_store_failed") == 0.0).then_some(()));
        assert_eq!(mint(&callgate, "doc"), 201);
    });
}
