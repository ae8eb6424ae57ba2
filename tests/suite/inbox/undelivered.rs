//! What an interaction says about callbacks that its agent has not received, with each store.

use callgate::clock::Clock;
use serde_json::Value;
use tempfile::tempdir;

use super::shared::{OK, pull, settle, with_store};
use super::{FAST, answer, redis};
use crate::engine::Engine;
use crate::harness::{Agent, Callgate, eventually};

/// Runs a test with a ledger in a file and one process, and with a ledger on Redis and two processes.
fn with_each_store(deliver: &str, inbox: &str, agent: &str, test: impl Fn(&[Callgate])) {
    let start = |text: &str| Callgate::start(text, Clock::System);
    let folder = tempdir().unwrap();
    let store = format!("store: {{ kind: file, path: {} }}", folder.path().join("ledger").display());
    test(&[start(&with_store(&store, agent, deliver, inbox, ""))]);
    let engine = Engine::start("redis-server", &[]);
    let store = redis(&engine.address.to_string(), "cg");
    let text = with_store(&store, agent, deliver, &format!("may_lose: true, {inbox}"), "");
    test(&[start(&text), start(&text)]);
    for pattern in ["cg{*}x:*", "cg{*}w:*", "cg{*}g:*", "cg{*}d", "cg{*}h"] {
        eventually(|| engine.keys(pattern).is_empty().then_some(()));
    }
}

fn undelivered(callgate: &Callgate, interaction: &str) -> Value {
    callgate.admin_get(&format!("/callbacks/{interaction}")).json()["undelivered"].clone()
}

/// Returns the ids of the dead messages once there are so many.
fn dead(callgate: &Callgate, count: usize) -> Vec<String> {
    eventually(|| {
        let list = callgate.admin_get("/inbox?state=dead").json()["messages"].clone();
        let ids = list.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
        Some(ids.collect::<Vec<_>>()).filter(|ids| ids.len() == count)
    })
}

fn replay(callgate: &Callgate, id: &str) {
    assert_eq!(callgate.admin_send("POST", &format!("/inbox/{id}/replay"), "").status, 200);
}

#[test]
fn the_last_replayed_message_that_is_delivered_ends_undelivered() {
    let agent = Agent::start(OK);
    with_each_store("inbox", FAST, &agent.address.to_string(), |members| {
        agent.answers(&answer(410, ""));
        let (one, last) = (&members[0], members.last().unwrap());
        let minted = one.mint("a");
        for event in ["e1", "e2"] {
            assert_eq!(one.call(&minted, event, "{}").status, 202);
        }
        let dead = dead(one, 2);
        eventually(|| (undelivered(last, &minted.interaction)["count"] == 2).then_some(()));
        agent.answers(OK);
        replay(one, &dead[0]);
        eventually(|| {
            (one.admin_get("/inbox").json()["messages"].as_array().unwrap().len() == 1).then_some(())
        });
        assert_ne!(undelivered(one, &minted.interaction), Value::Null, "the other one is still dead");
        replay(one, &dead[1]);
        for member in members {
            eventually(|| undelivered(member, &minted.interaction).is_null().then_some(()));
        }
    });
}

/// The agent settles a message with and without naming its interaction, and at another process than the one that held it.
#[test]
fn a_replayed_message_that_the_agent_has_taken_ends_undelivered() {
    with_each_store("pull", "for: 2s", "127.0.0.1:9", |members| {
        let (one, last) = (&members[0], members.last().unwrap());
        for names_interaction in [true, false] {
            let minted = one.mint("a");
            assert_eq!(one.call(&minted, "e1", "{}").status, 202);
            let id = dead(one, 1).remove(0);
            eventually(|| (undelivered(last, &minted.interaction)["count"] == 1).then_some(()));
            let path = format!("/callbacks/{}/events", minted.interaction);
            let event = eventually(|| {
                replay(one, &id);
                pull(last, &format!("{path}?wait=1s")).pop()
            });
            assert_eq!(event["body"], "{}");
            let path = if names_interaction { path } else { "/callbacks/events".to_owned() };
            assert_eq!(settle(last, &format!("{path}/{}/taken", event["n"])), 204);
            for member in members {
                eventually(|| undelivered(member, &minted.interaction).is_null().then_some(()));
            }
        }
    });
}
