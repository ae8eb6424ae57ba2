//! The inbox on a cluster, behind sentinels, and with replicas that confirm each change: nodes are killed and away, slots
//! move, and responses are lost. What was acknowledged is delivered, in its order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use callgate::clock::Clock;
use serde_json::json;

use super::crash::{received, try_call};
use super::shared::{OK, away, pull, start_two, with_store};
use super::{FAST, Minted, bodies, redis};
use crate::engine::Engine;
use crate::engine_proxy::{EngineProxy, Harm};
use crate::harness::{Agent, Callgate, eventually, send_to};
use crate::shared_failover::{Sentinels, cluster, fact, follows, with_replica};
use crate::shared_faults::move_slot;

/// An agent that does not accept messages, but does not pause its deliveries either.
const BUSY: &[u8] = b"HTTP/1.1 429 S\r\ncontent-length: 0\r\n\r\n";
/// The callbacks of each interaction while a primary is killed.
const EVENTS: usize = 15;
/// The most callbacks of each interaction while slots move.
const ROUNDS_MAX: usize = 100;
/// The deliveries to one agent at one time.
const CONCURRENCY: usize = 16;

/// Sends a callback until it is acknowledged. Returns the status.
fn call_until_acknowledged(ingress: SocketAddr, minted: &Minted, event: &str, body: &str) -> u16 {
    eventually(|| match try_call(ingress, minted, event, body) {
        Some(status @ (200 | 202)) => Some(status),
        Some(503) => None,
        other => panic!("{event}: {other:?}"),
    })
}

/// Sends the callbacks of an interaction one after another.
fn send_all(ingresses: [SocketAddr; 2], first: usize, minted: &Minted, acknowledged: &AtomicUsize) {
    for n in 0..EVENTS {
        let ingress = ingresses[(first + n) % 2];
        let (event, body) = (format!("{}/{n}", minted.interaction), json!({ "n": n }).to_string());
        call_until_acknowledged(ingress, minted, &event, &body);
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
}

fn waiting(members: &[Callgate]) -> f64 {
    members.iter().map(|member| member.metric("callgate_inbox_waiting")).sum()
}

/// Checks the order in which the agent received the messages of each interaction for the first time.
fn assert_in_order(agent: &Agent) {
    let mut last: HashMap<String, usize> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    for one in agent.received() {
        let event = one.header("callgate-event-id")[0];
        if seen.insert(event.to_owned()) {
            let (interaction, n) = event.rsplit_once('/').unwrap();
            let n: usize = n.parse().unwrap();
            let before = last.insert(interaction.to_owned(), n);
            assert!(before.is_none_or(|before| before < n), "{event} is out of order");
        }
    }
}

/// Sends callbacks to two processes while a node is harmed. `heal` brings it back.
fn survives(store: &str, harm: impl FnOnce(), heal: impl FnOnce() + Send) {
    let agent = Agent::start(OK);
    let members = start_two(&with_store(store, &agent.address.to_string(), "inbox", FAST, ""));
    let minted: Vec<_> = (0..8).map(|n| members[0].mint(&format!("i{n}"))).collect();
    let acknowledged = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (number, minted) in minted.iter().enumerate() {
            let (ingresses, acknowledged) = (members.each_ref().map(|one| one.ingress), &acknowledged);
            scope.spawn(move || send_all(ingresses, number, minted, acknowledged));
        }
        eventually(|| (acknowledged.load(Ordering::SeqCst) > 30).then_some(()));
        // The agent accepts nothing for a moment, so that messages wait.
        agent.answers(BUSY);
        eventually(|| (acknowledged.load(Ordering::SeqCst) > 50).then_some(()));
        agent.answers(OK);
        harm();
        scope.spawn(heal);
    });
    eventually(|| (waiting(&members) == 0.0).then_some(()));
    let counts = received(&agent);
    for minted in &minted {
        for n in 0..EVENTS {
            let event = format!("{}/{n}", minted.interaction);
            assert!(counts.contains_key(&event), "{event} is lost");
        }
    }
    assert_in_order(&agent);
}

#[test]
fn a_killed_primary_of_a_cluster_loses_no_message_and_keeps_the_order() {
    let mut nodes = cluster(3);
    let store = format!(
        "store: {{ kind: redis, redis: {{ mode: cluster, nodes: [\"{}\", \"{}\"], wait: {{ replicas: 1 }} }} }}",
        nodes[0].address, nodes[1].address
    );
    let (killed, others) = nodes.split_first_mut().unwrap();
    let killed = Mutex::new(killed);
    // The new primary has no replica until the old one is back, so nothing can be confirmed before.
    let heal = || {
        eventually(|| (fact(&others[2], "role") == "master").then_some(()));
        killed.lock().unwrap().start_again();
    };
    survives(&store, || killed.lock().unwrap().kill(), heal);
    // What the scripts have stored is gone, on all nodes.
    for pattern in ["cg{*}x:*", "cg{*}w:*", "cg{*}d", "cg{*}h"] {
        eventually(|| nodes.iter().all(|node| node.keys(pattern).is_empty()).then_some(()));
    }
}

#[test]
fn a_killed_primary_behind_sentinels_loses_no_message_and_keeps_the_order() {
    let mut sentinels = Sentinels::start();
    let store = format!(
        "store: {{ kind: redis, redis: {{ mode: sentinel, master: cg, nodes: {}, wait: {{ replicas: 1 }} }} }}",
        sentinels.nodes
    );
    survives(&store, || sentinels.primary.kill(), || {});
}

/// A callback that the replica does not confirm is not acknowledged. It may be stored, and is then known.
#[test]
fn a_callback_is_acknowledged_only_once_a_replica_has_it() {
    let (primary, mut replica) = with_replica();
    let store = primary.store(", timeout: 1s, wait: { replicas: 1, timeout: 200ms }");
    let (address, more) =
        (away(), "  - { name: hook, path: /hook, provider: sw, forward: /hook, deliver: inbox }\n");
    let text = with_store(store.trim_end(), &address.to_string(), "inbox", FAST, more);
    let callgate = Callgate::start(&text, Clock::System);
    let (minted, before) = eventually(|| Some((try_mint(&callgate, "a")?, try_mint(&callgate, "b")?)));
    let hook = minted.at("/hook");
    let call = |minted: &Minted, event: &str, body: &str| callgate.call(minted, event, body).status;
    eventually(|| (call(&before, "b0", r#"{"n":0}"#) == 202).then_some(()));
    replica.kill();
    eventually(|| (fact(&primary, "connected_slaves") == "0").then_some(()));
    for _ in 0..2 {
        assert_eq!(call(&minted, "a0", r#"{"n":0}"#), 503);
        assert_eq!(call(&before, "b1", r#"{"n":1}"#), 503);
        assert_eq!(call(&before, "b0", r#"{"n":0}"#), 503, "a duplicate is acknowledged, too");
        assert_eq!(call(&hook, "h0", "{}"), 503);
    }
    replica.start_again();
    eventually(|| follows(&replica).then_some(()));
    for (minted, event, body) in [
        (&minted, "a0", r#"{"n":0}"#),
        (&minted, "a1", r#"{"n":1}"#),
        (&before, "b1", r#"{"n":1}"#),
        (&before, "b2", r#"{"n":2}"#),
        (&hook, "h0", "{}"),
    ] {
        call_until_acknowledged(callgate.ingress, minted, event, body);
    }
    let agent = Agent::start_at(address, OK);
    agent.wait_for(6);
    eventually(|| primary.keys("cg{*}x:*").is_empty().then_some(()));
    let found = bodies(&agent);
    let numbers = |path: &str| found[path].iter().map(|body| body["n"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!((numbers("/in/a"), numbers("/in/b")), (vec![0, 1], vec![0, 1, 2]));
    assert_eq!(agent.received().len(), 6, "nothing is delivered twice");
}

fn try_mint(callgate: &Callgate, id: &str) -> Option<Minted> {
    let body = json!({ "route": "doc", "params": { "id": id } }).to_string();
    let is_minted = callgate.admin_send("POST", "/callbacks", &body).status == 201;
    is_minted.then(|| callgate.mint(id))
}

/// The engine stores a message, but its response and all further ones are lost. The provider sends the callback again.
#[test]
fn a_message_whose_acceptance_had_no_response_is_delivered_once_and_first() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let engine = Engine::start("redis-server", &[]);
    let proxy = EngineProxy::start(engine.address, TIMEOUT);
    let store = redis(&proxy.address.to_string(), "cg").replace("timeout: 5s", "timeout: 300ms");
    let more = "  - { name: hook, path: /hook, provider: sw, forward: /hook, deliver: inbox }\n";
    let agent = Agent::start(OK);
    let settings = format!("may_lose: true, {FAST}");
    let text = with_store(&store, &agent.address.to_string(), "inbox", &settings, more);
    let callgate = Callgate::start(&text, Clock::System);
    // The engine knows the scripts from now on, so that each call has one response.
    let first = callgate.mint("a");
    assert_eq!(callgate.call(&first, "first", "{}").status, 202);
    assert_eq!(callgate.call(&first.at("/hook"), "first-hook", "{}").status, 202);
    agent.wait_for(2);
    // A call that the process makes on its own can be one of the others. Then the engine has not stored the message.
    for (with_interaction, others) in [(true, 3), (false, 2)] {
        let (mut round, mut stored) = (0, false);
        while !stored {
            assert!(round < 8, "no response to an acceptance was lost");
            round += 1;
            let minted = eventually(|| try_mint(&callgate, "b"));
            let minted = if with_interaction { minted } else { minted.at("/hook") };
            let event = |n: usize| format!("{with_interaction}{round}/{n}");
            eventually(|| engine.keys("cg{*}x:*").is_empty().then_some(()));
            proxy.harm_all_after(Harm::Cut, others);
            let status = callgate.call(&minted, &event(0), "{}").status;
            stored = !engine.keys("cg{*}x:*").is_empty();
            proxy.stop_harming();
            assert_eq!(status, 503);
            let repeated = call_until_acknowledged(callgate.ingress, &minted, &event(0), "{}");
            assert_eq!(repeated, if stored { 200 } else { 202 });
            call_until_acknowledged(callgate.ingress, &minted, &event(1), "{}");
            eventually(|| received(&agent).contains_key(&event(1)).then_some(()));
            eventually(|| received(&agent).contains_key(&event(0)).then_some(()));
            eventually(|| engine.keys("cg{*}x:*").is_empty().then_some(()));
        }
    }
    assert!(received(&agent).values().all(|count| *count == 1), "{:?}", received(&agent));
    let ordered = agent.received();
    let events = ordered.iter().map(|one| one.header("callgate-event-id")[0]);
    let numbers: Vec<_> = events.filter_map(|event| event.strip_prefix("true")?.split_once('/')).collect();
    assert!(numbers.chunks(2).all(|pair| (pair[0].1, pair[1].1) == ("0", "1")), "{numbers:?}");
}

/// The agent pulls from another process than the one that has accepted the callbacks. The response to one of the calls of
/// this process is lost. The agent must never learn of the end without the messages.
#[test]
fn a_pull_whose_calls_had_no_response_does_not_end_before_its_messages() {
    let engine = Engine::start("redis-server", &[]);
    let proxy = EngineProxy::start(engine.address, Duration::from_secs(1));
    let text = |address: &str| {
        let store = redis(address, "cg").replace("timeout: 5s", "timeout: 1s");
        with_store(&store, "127.0.0.1:9", "pull", "may_lose: true", "")
    };
    let one = Callgate::start(&text(&engine.address.to_string()), Clock::System);
    let other = Callgate::start(&text(&proxy.address.to_string()), Clock::System);
    // The engine knows the scripts from now on, so that each call has one response.
    let first = one.mint("first");
    assert_eq!(one.call(&first, "first", "{}").status, 202);
    assert_eq!(pull(&other, &format!("/callbacks/{}/events?wait=5s", first.interaction)).len(), 1);
    for round in 0..12 {
        let minted = one.mint("a");
        for (event, body) in [("1", "{}"), ("2", r#"{"status":"done"}"#)] {
            assert_eq!(one.call(&minted, &format!("{round}/{event}"), body).status, 202);
        }
        let path = format!("/callbacks/{}/events?wait=10s", minted.interaction);
        proxy.harm_one(Harm::Cut, round % 4);
        let found = eventually(|| {
            let response = send_to(other.egress.unwrap(), "GET", &path, &[], b"");
            (response.status == 200).then(|| response.json())
        });
        proxy.stop_harming();
        assert_eq!(found["events"].as_array().unwrap().len(), 2, "round {round}: {found}");
    }
}

/// Slots move key by key while messages are accepted and delivered. A script that finds only a part of its keys has no
/// effect.
#[test]
fn slots_that_move_to_another_node_lose_no_message() {
    let nodes = cluster(0);
    let store = format!(
        "store: {{ kind: redis, redis: {{ mode: cluster, nodes: [\"{}\", \"{}\"], timeout: 300ms }} }}",
        nodes[0].address, nodes[1].address
    );
    let agent = Agent::start(BUSY);
    let settings = format!("may_lose: true, {FAST}");
    let text = with_store(&store, &agent.address.to_string(), "inbox", &settings, "");
    let members = start_two(&text);
    let minted: Vec<_> = (0..48).map(|n| members[0].mint(&format!("i{n}"))).collect();
    let slot = |key: &String| nodes[0].command(&["CLUSTER", "KEYSLOT", key])[1..].trim().to_owned();
    let mut slots: Vec<_> = nodes[0].keys("*i:*").iter().map(slot).collect();
    slots.sort();
    slots.dedup();
    let stopping = AtomicBool::new(false);
    let accepted = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for share in minted.chunks(12) {
            let (stopping, accepted) = (&stopping, &accepted);
            let ingresses = members.each_ref().map(|one| one.ingress);
            scope.spawn(move || {
                for n in 0..ROUNDS_MAX {
                    for minted in share {
                        let event = format!("{}/{n}", minted.interaction);
                        call_until_acknowledged(ingresses[n % 2], minted, &event, "{}");
                        accepted.lock().unwrap().push(event);
                    }
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
        }
        for (number, slot) in slots.iter().take(6).enumerate() {
            // The agent accepts nothing during every other move, so that messages wait meanwhile.
            if number % 2 == 0 {
                agent.answers(BUSY);
                std::thread::sleep(Duration::from_millis(100));
            } else {
                agent.answers(OK);
            }
            move_slot(slot, (&nodes[0], &nodes[1]), &nodes[2], || {
                std::thread::sleep(Duration::from_millis(20));
            });
        }
        stopping.store(true, Ordering::SeqCst);
        agent.answers(OK);
    });
    eventually(|| (waiting(&members) == 0.0).then_some(()));
    // The regular look finds what a process holds without knowing it.
    for pattern in ["cg{*}x:*", "cg{*}w:*", "cg{*}d", "cg{*}h"] {
        let left = || nodes.iter().flat_map(|node| node.keys(pattern)).collect::<Vec<_>>();
        super::shared::taken_over(|| left().is_empty().then_some(()));
    }
    let counts = received(&agent);
    for event in accepted.lock().unwrap().iter() {
        assert!(counts.contains_key(event), "{event} is lost");
    }
    assert_in_order(&agent);
}

/// The results of attempts whose records are on a silent node do not hold back those of other nodes.
#[test]
fn one_silent_node_of_a_cluster_does_not_stop_the_messages_of_the_others() {
    let mut nodes = cluster(0);
    let store = format!(
        "store: {{ kind: redis, redis: {{ mode: cluster, nodes: [\"{}\"], timeout: 200ms }} }}",
        nodes[1].address
    );
    let agent = Agent::start(BUSY);
    let settings = "may_lose: true, backoff: { first: 100ms, most: 200ms }";
    let text = with_store(&store, &agent.address.to_string(), "inbox", settings, "");
    let callgate = Callgate::start(&text, Clock::System);
    for n in 0..(2 * CONCURRENCY) {
        let minted = callgate.mint(&format!("i{n}"));
        assert_eq!(callgate.call(&minted, &format!("e{n}"), "{}").status, 202);
    }
    eventually(|| (received(&agent).len() == 2 * CONCURRENCY).then_some(()));
    nodes[0].kill();
    agent.answers(OK);
    for pattern in ["cg{*}x:*", "cg{*}w:*"] {
        let left = || nodes[1..].iter().flat_map(|node| node.keys(pattern)).count();
        eventually(|| (left() == 0).then_some(()));
    }
}
