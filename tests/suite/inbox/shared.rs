//! The inbox in a ledger on Redis or Valkey that several processes share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callgate::clock::{Clock, instant};
use serde_json::{Value, json};
use tempfile::tempdir;

use super::crash::{received, start, try_call, waiting};
use super::{FAST, Minted, answer, bodies, call_at, config, mint_at, redis};
use crate::engine::{ENGINES, Engine, free_port};
use crate::harness::{Agent, Callgate, eventually, send_to};

pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// The time after which a silent member is taken for gone, and the time that a busy machine may add.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(60);
/// The deliveries to one agent at one time.
const CONCURRENCY: usize = 16;

/// Returns a configuration with the ledger on this engine.
fn shared(engine: &Engine, agent: &str, deliver: &str, inbox: &str, route: &str) -> String {
    let store = redis(&engine.address.to_string(), "cg").replace("timeout: 5s", "timeout: 1s");
    with_store(&store, agent, deliver, &format!("may_lose: true, {inbox}"), route)
}

/// Returns a configuration with this section `store`.
pub fn with_store(store: &str, agent: &str, deliver: &str, inbox: &str, route: &str) -> String {
    let folder = tempdir().unwrap();
    let text = config(folder.path(), agent, deliver, inbox.trim_end_matches(", "), route);
    let text = text.replace(", may_lose: true }", " }");
    let lines = text.lines().map(|line| if line.starts_with("store: ") { store } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

fn on_both(test: impl Fn(&Engine)) {
    ENGINES.iter().for_each(|name| test(&Engine::start(name, &[])));
}

/// Waits until another member has taken over what a dead one held.
pub fn taken_over<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let began = instant();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < TAKEN_OVER_WITHIN, "nobody has taken it over");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_agent_is_informed_when_it_receives_the_final_callback() {
    on_both(|engine| {
        let agent = Agent::start(&answer(500, ""));
        let text = shared(engine, &agent.address.to_string(), "inbox", FAST, "");
        super::delivering::is_informed_by_delivery(&text, &agent);
    });
}

pub fn start_two(text: &str) -> [Callgate; 2] {
    [Callgate::start(text, Clock::System), Callgate::start(text, Clock::System)]
}

pub fn away() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

pub fn pull(callgate: &Callgate, path: &str) -> Vec<Value> {
    let response = send_to(callgate.egress.unwrap(), "GET", path, &[], b"");
    if response.status == 204 { Vec::new() } else { response.json()["events"].as_array().unwrap().clone() }
}

pub fn settle(callgate: &Callgate, path: &str) -> u16 {
    send_to(callgate.egress.unwrap(), "POST", path, &[], b"").status
}

#[test]
fn a_message_has_its_keys_while_it_waits_and_none_afterwards() {
    on_both(|engine| {
        let address = away();
        let settings = format!("seal: {{ env: JWT_KEY }}, {FAST}");
        let callgate =
            Callgate::start(&shared(engine, &address.to_string(), "inbox", &settings, ""), Clock::System);
        let minted = callgate.mint("a");
        for n in 0..3 {
            let body = json!({ "note": "very private", "n": n }).to_string();
            assert_eq!(callgate.call(&minted, &format!("e{n}"), &body).status, 202);
        }
        assert_eq!(callgate.call(&minted, "e0", "{}").status, 200, "the event is known");
        let messages = engine.keys("cg{*}x:msg_*");
        let (lanes, due) = (engine.keys("cg{*}w:*"), engine.keys("cg{*}d"));
        assert_eq!((messages.len(), lanes.len(), due.len()), (3, 1, 1));
        assert!(lanes[0].ends_with(&format!("w:{}", minted.interaction)), "{lanes:?}");
        assert_eq!(engine.command(&["LLEN", &lanes[0]]), ":3\r\n");
        assert_eq!(engine.command(&["ZCARD", &due[0]]), ":3\r\n");
        // The bodies are encrypted, and the token is not kept.
        for message in &messages {
            let stored = engine.command(&["HGETALL", message]);
            assert!(!stored.contains("very private") && !stored.contains("Bearer"), "{stored}");
            assert!(stored.contains("/in/a"));
        }
        let agent = Agent::start_at(address, OK);
        eventually(|| (callgate.metric("callgate_inbox_waiting") == 0.0).then_some(()));
        let numbers: Vec<_> = bodies(&agent)["/in/a"].iter().map(|body| body["n"].clone()).collect();
        assert_eq!(numbers, [0, 1, 2]);
        for pattern in ["cg{*}x:*", "cg{*}w:*", "cg{*}d", "cg{*}h"] {
            eventually(|| engine.keys(pattern).is_empty().then_some(()));
        }
    });
}

#[test]
fn a_large_body_is_denied_and_its_event_is_not_known() {
    let (engine, agent) = (Engine::start("redis-server", &[]), Agent::start(OK));
    let more = "explain_denials: true\n";
    let text =
        shared(&engine, &agent.address.to_string(), "inbox", "body_store_max: 1KiB, order: none", more);
    let callgate = Callgate::start(&text, Clock::System);
    let minted = callgate.mint("a");
    let denied = callgate.call(&minted, "e1", &json!({ "x": "y".repeat(1100) }).to_string());
    assert_eq!((denied.status, &denied.json()["reason"]), (413, &json!("body_too_large")));
    assert_eq!(callgate.call(&minted, "e1", &json!({ "x": "y".repeat(900) }).to_string()).status, 202);
    agent.wait_for(1);
}

#[test]
fn callbacks_at_several_processes_are_delivered_in_their_order() {
    on_both(|engine| {
        let address = away();
        let members = start_two(&shared(engine, &address.to_string(), "inbox", FAST, ""));
        let minted: Vec<Minted> = (0..3).map(|n| members[0].mint(&format!("i{n}"))).collect();
        for n in 0..12 {
            for (i, minted) in minted.iter().enumerate() {
                let response = members[(n + i) % 2].call(
                    minted,
                    &format!("e{i}-{n}"),
                    &json!({ "progress": n }).to_string(),
                );
                assert_eq!(response.status, 202);
            }
        }
        let agent = Agent::start_at(address, OK);
        agent.wait_for(36);
        for (path, bodies) in bodies(&agent) {
            let progress: Vec<_> = bodies.iter().map(|body| body["progress"].as_u64().unwrap()).collect();
            assert_eq!(progress, (0..12).collect::<Vec<_>>(), "{path}");
        }
        eventually(|| engine.keys("cg{*}x:*").is_empty().then_some(()));
        assert_eq!(agent.received().len(), 36, "nothing is delivered twice");
    });
}

/// Sends callbacks to two processes, and kills one of them with SIGKILL in the middle.
#[test]
fn another_process_takes_over_what_a_killed_one_held() {
    let (engine, agent) = (Engine::start("redis-server", &[]), Agent::start(OK));
    let text = shared(&engine, &agent.address.to_string(), "inbox", FAST, "");
    let (doomed, survivor) = (start(&text, &[]), start(&text, &[]));
    let (accepted, count) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..6 {
            let (accepted, count, agent) = (&accepted, &count, &agent);
            let (ingress, admin) = (doomed.ingress[0], survivor.admin);
            scope.spawn(move || {
                let minted = mint_at(admin, &format!("c{client}"));
                for n in 0.. {
                    let event = format!("{}/{n}", minted.interaction);
                    let body = json!({ "n": n }).to_string();
                    let Some(status) = try_call(ingress, &minted, &event, &body) else { return };
                    assert_eq!(status, 202);
                    accepted.lock().unwrap().push((minted.clone(), event));
                    if count.fetch_add(1, Ordering::SeqCst) == 60 {
                        // From now on, messages wait.
                        agent.answers(&answer(503, "retry-after: 1\r\n"));
                    }
                }
            });
        }
        eventually(|| (count.load(Ordering::SeqCst) > 150).then_some(()));
        doomed.signal("KILL");
    });
    agent.answers(OK);
    let accepted = accepted.into_inner().unwrap();
    taken_over(|| engine.keys("cg{*}x:*").is_empty().then_some(()));
    let counts = received(&agent);
    for (_, event) in &accepted {
        assert!(counts.contains_key(event), "{event} is lost");
    }
    assert_eq!(waiting(survivor.admin), Some(0.0));
    // An event that was accepted is known to all processes.
    let (minted, event) = accepted.first().unwrap();
    assert_eq!(try_call(survivor.ingress[0], minted, event, "{}"), Some(200));
    // The order of each interaction: the last time that each message was sent, which is the time that it was accepted.
    let mut last: HashMap<String, (usize, usize)> = HashMap::new();
    for (at, one) in agent.received().iter().enumerate() {
        let event = one.header("callgate-event-id")[0];
        last.insert(event.to_owned(), (at, event.rsplit_once('/').unwrap().1.parse().unwrap()));
    }
    let mut order: Vec<_> = last.into_iter().map(|(event, (at, n))| (at, event, n)).collect();
    order.sort_unstable();
    let mut highest: HashMap<String, usize> = HashMap::new();
    for (_, event, n) in order {
        let interaction = event.rsplit_once('/').unwrap().0.to_owned();
        assert!(highest.insert(interaction, n).is_none_or(|before| before < n), "{event} is out of order");
    }
}

/// Kills a process while the agent works on its messages. The agent accepts all of them, and only these come again.
#[test]
fn at_most_what_was_in_flight_is_repeated() {
    let (engine, agent) = (Engine::start("redis-server", &[]), Agent::start(OK));
    let text = shared(&engine, &agent.address.to_string(), "inbox", "", "");
    let (doomed, survivor) = (start(&text, &[]), start(&text, &[]));
    let minted: Vec<_> = (0..200).map(|n| mint_at(survivor.admin, &format!("i{n}"))).collect();
    std::thread::scope(|scope| {
        for some in minted.chunks(50) {
            let ingress = doomed.ingress[0];
            scope.spawn(move || {
                for minted in some {
                    let event = format!("{}/0", minted.interaction);
                    if try_call(ingress, minted, &event, "{}").is_none() {
                        return;
                    }
                }
            });
        }
        eventually(|| (agent.received().len() > 60).then_some(()));
        doomed.signal("KILL");
    });
    taken_over(|| engine.keys("cg{*}x:*").is_empty().then_some(()));
    let repeats: usize = received(&agent).values().map(|count| count - 1).sum();
    assert!(repeats <= CONCURRENCY, "{repeats} were delivered twice");
}

#[test]
fn another_process_takes_over_at_once_what_a_stopped_one_held() {
    let (engine, address) = (Engine::start("redis-server", &[]), away());
    let more = "  - { name: hook, path: /hook, provider: sw, forward: /hook, deliver: inbox }\n";
    let text = shared(&engine, &address.to_string(), "inbox", FAST, more);
    let [leaving, staying] = start_two(&text);
    let minted = staying.mint("a");
    for n in 0..5 {
        assert_eq!(leaving.call(&minted, &format!("e{n}"), &json!({ "n": n }).to_string()).status, 202);
    }
    // One without an interaction belongs to the process that accepted it.
    let hook = minted.at("/hook");
    assert_eq!(leaving.call(&hook, "h1", "{}").status, 202);
    assert_eq!(staying.call(&hook, "h1", "{}").status, 200, "all processes know the event");
    assert_eq!(staying.metric("callgate_inbox_waiting"), 0.0);
    drop(leaving);
    let agent = Agent::start_at(address, OK);
    taken_over(|| engine.keys("cg{*}x:*").is_empty().then_some(()));
    let found = bodies(&agent);
    let numbers: Vec<_> = found["/in/a"].iter().map(|body| body["n"].clone()).collect();
    assert_eq!((numbers, found["/hook"].len()), (vec![json!(0), json!(1), json!(2), json!(3), json!(4)], 1));
}

#[test]
fn the_agent_of_any_process_pulls_the_messages_of_an_interaction() {
    on_both(|engine| {
        let text = shared(engine, "127.0.0.1:9", "pull", "lease: 30s", "");
        let [one, other] = start_two(&text);
        let minted = one.mint("a");
        let path = format!("/callbacks/{}/events", minted.interaction);
        let egress = other.egress.unwrap();
        let waits = path.clone();
        let waiting = std::thread::spawn(move || {
            send_to(egress, "GET", &format!("{waits}?wait=20s&max=1"), &[], b"").json()
        });
        for n in 0..3 {
            assert_eq!(one.call(&minted, &format!("e{n}"), &json!({ "n": n }).to_string()).status, 202);
        }
        let first = waiting.join().unwrap()["events"][0].clone();
        assert_eq!(first["body"], r#"{"n":0}"#);
        // What is leased at one process is not handed out by another.
        let rest = pull(&one, &format!("{path}?wait=5s"));
        let bodies: Vec<_> = rest.iter().map(|event| event["body"].as_str().unwrap()).collect();
        assert_eq!(bodies, [r#"{"n":1}"#, r#"{"n":2}"#]);
        assert!(pull(&other, &path).is_empty());
        // Any process records that a message was processed.
        for event in rest.iter().chain([&first]) {
            assert_eq!(settle(&one, &format!("{path}/{}/taken", event["n"])), 204);
        }
        assert_eq!(settle(&other, &format!("{path}/{}/taken", first["n"])), 404, "it is gone");
        assert_eq!(other.call(&minted, "e9", r#"{"status":"done"}"#).status, 202);
        let last = eventually(|| pull(&one, &format!("{path}?wait=5s")).pop());
        assert_eq!(settle(&one, &format!("{path}/{}/taken", last["n"])), 204);
        let end = send_to(other.egress.unwrap(), "GET", &path, &[], b"");
        assert_eq!(end.json(), json!({ "events": [], "ended": "done" }));
        for pattern in ["cg{*}x:*", "cg{*}w:*", "cg{*}d", "cg{*}h"] {
            eventually(|| engine.keys(pattern).is_empty().then_some(()));
        }
    });
}

#[test]
fn a_process_forgets_messages_that_were_pulled_elsewhere() {
    let engine = Engine::start("redis-server", &[]);
    let text = shared(&engine, "127.0.0.1:9", "pull", "lease: 30s", "");
    let [one, other] = start_two(&text);
    let minted = one.mint("a");
    let path = format!("/callbacks/{}/events", minted.interaction);
    for n in 0..3 {
        assert_eq!(other.call(&minted, &format!("e{n}"), &json!({ "n": n }).to_string()).status, 202);
    }
    let pulled = eventually(|| Some(pull(&one, &path)).filter(|pulled| pulled.len() == 3));
    for event in &pulled {
        assert_eq!(settle(&one, &format!("{path}/{}/taken", event["n"])), 204);
    }
    assert_eq!(one.metric("callgate_inbox_waiting"), 0.0);
    taken_over(|| (other.metric("callgate_inbox_waiting") == 0.0).then_some(()));
}

#[test]
fn a_lease_outlives_the_process_that_gave_it() {
    let engine = Engine::start("redis-server", &[]);
    let text = shared(&engine, "127.0.0.1:9", "pull", "lease: 1h", "");
    let [one, other] = start_two(&text);
    let minted = one.mint("a");
    let path = format!("/callbacks/{}/events", minted.interaction);
    for n in 0..2 {
        assert_eq!(one.call(&minted, &format!("e{n}"), "{}").status, 202);
    }
    let leased = pull(&one, &format!("{path}?wait=5s&max=1")).remove(0);
    one.kill();
    // The other message can be pulled at once. The agent may still work on the first one, and then settles it.
    let second = pull(&other, &format!("{path}?wait=5s"));
    assert_eq!(second.len(), 1);
    assert_ne!(second[0]["n"], leased["n"]);
    assert_eq!(settle(&other, &format!("{path}/{}/taken", leased["n"])), 204);
    assert_eq!(settle(&other, &format!("/callbacks/events/{}/taken", second[0]["n"])), 204);
    assert!(engine.keys("cg{*}x:*").is_empty());
}

#[test]
fn messages_of_a_revoked_interaction_are_dead_whoever_holds_them() {
    let (engine, agent) =
        (Engine::start("redis-server", &[]), Agent::start(&answer(503, "retry-after: 3600\r\n")));
    let [one, other] = start_two(&shared(&engine, &agent.address.to_string(), "inbox", "", ""));
    let minted = one.mint("a");
    for n in 0..3 {
        assert_eq!(one.call(&minted, &format!("e{n}"), "{}").status, 202);
    }
    agent.wait_for(1);
    // The first message is due again in an hour, once its attempt has ended.
    eventually(|| {
        let messages = one.admin_get("/inbox").json();
        (messages["messages"][0]["attempts"] == 1 && messages["messages"][0]["state"] == "due").then_some(())
    });
    assert_eq!(other.admin_send("DELETE", &format!("/callbacks/{}", minted.interaction), "").status, 204);
    let dead = other.admin_get("/inbox?state=dead").json();
    let causes: Vec<_> =
        dead["messages"].as_array().unwrap().iter().map(|one| one["cause"].clone()).collect();
    assert_eq!(causes, ["revoked", "revoked", "revoked"], "{dead}");
    // A replay is delivered by the process that holds the message now.
    agent.answers(OK);
    let id = dead["messages"][0]["id"].as_str().unwrap();
    assert_eq!(other.admin_send("POST", &format!("/inbox/{id}/replay"), "").status, 200);
    agent.wait_for(2);
}

#[test]
fn while_the_engine_is_away_callbacks_are_denied_and_nothing_is_lost() {
    let (engine, agent) = (Engine::start("redis-server", &[]), Agent::start(&answer(503, "")));
    let text = shared(&engine, &agent.address.to_string(), "inbox", FAST, "");
    let callgate = Callgate::start(&text, Clock::System);
    let minted = callgate.mint("a");
    for n in 0..10 {
        assert_eq!(callgate.call(&minted, &format!("e{n}"), &json!({ "n": n }).to_string()).status, 202);
    }
    engine.signal("STOP");
    let denied = callgate.call(&minted, "e10", r#"{"n":10}"#);
    let after: u64 = denied.header("retry-after").unwrap().parse().unwrap();
    assert_eq!((denied.status, (1..=5).contains(&after)), (503, true), "{}", denied.text());
    engine.signal("CONT");
    agent.answers(OK);
    // An attempt whose end could not be recorded is repeated after its lease.
    let within_the_lease = |look: &dyn Fn() -> bool| {
        let began = instant();
        while !look() {
            assert!(began.elapsed() < Duration::from_secs(90), "it did not come");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    within_the_lease(&|| callgate.call(&minted, "e10", r#"{"n":10}"#).status != 503);
    within_the_lease(&|| callgate.metric("callgate_inbox_waiting") == 0.0);
    let numbers: Vec<_> = bodies(&agent)["/in/a"].iter().map(|body| body["n"].as_u64().unwrap()).collect();
    let mut delivered = numbers.clone();
    delivered.dedup();
    assert!(delivered.is_sorted(), "{numbers:?}");
    delivered.dedup();
    assert_eq!(delivered, (0..=10).collect::<Vec<_>>());
}

/// Returns the number of calls of the engine that take over messages. Each look of a waiting pull is one.
fn looks(callgate: &Callgate) -> f64 {
    let text = callgate.metrics();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("callgate_store_call_seconds_count{call=\"message_take\"} "));
    line.map_or(0.0, |count| count.parse().unwrap())
}

/// Each look of a waiting pull asks the engine. Messages of other interactions must not cause one.
#[test]
fn a_waiting_pull_is_not_woken_by_other_interactions() {
    const WAITING: usize = 20;
    let engine = Engine::start("redis-server", &[]);
    let callgate = Callgate::start(&shared(&engine, "127.0.0.1:9", "pull", "", ""), Clock::System);
    let (egress, busy) = (callgate.egress.unwrap(), callgate.mint("busy"));
    let waiting: Vec<_> = (0..WAITING).map(|n| callgate.mint(&format!("i{n}"))).collect();
    let pulls: Vec<_> = waiting
        .iter()
        .map(|minted| format!("/callbacks/{}/events?wait=30s", minted.interaction))
        .map(|path| std::thread::spawn(move || send_to(egress, "GET", &path, &[], b"").status))
        .collect();
    eventually(|| (looks(&callgate) >= WAITING as f64).then_some(()));
    let (before, began) = (looks(&callgate), instant());
    for n in 0..40 {
        assert_eq!(callgate.call(&busy, &format!("e{n}"), "{}").status, 202);
    }
    // The pulls look about every second. A few of them may be in the same group as the other interaction, and are woken 40
    // times each.
    let seconds = began.elapsed().as_secs_f64();
    let most = WAITING as f64 * (seconds + 20.0);
    let made = looks(&callgate) - before;
    assert!(made < most, "{made} looks in {seconds} s, at most {most} are expected");
    for (n, minted) in waiting.iter().enumerate() {
        assert_eq!(callgate.call(minted, &format!("w{n}"), "{}").status, 202);
    }
    for pull in pulls {
        assert_eq!(pull.join().unwrap(), 200);
    }
}

/// Somebody who watches at another process than the one that holds the messages sees all of them, page by page.
#[test]
fn an_interaction_can_have_more_waiting_messages_than_one_call_returns() {
    const COUNT: u64 = 2_010;
    let engine = Engine::start("redis-server", &[]);
    let [one, other] = start_two(&shared(&engine, "127.0.0.1:9", "pull", "", ""));
    let minted = one.mint("a");
    std::thread::scope(|scope| {
        for part in 0..2 {
            let (ingress, minted) = (one.ingress, &minted);
            scope.spawn(move || {
                for n in (part..COUNT).step_by(2) {
                    let body = json!({ "n": n }).to_string();
                    // Two callbacks at a time change the same record, so that one of them may be denied for the moment.
                    eventually(|| {
                        let status = call_at(ingress, minted, &format!("e{n}"), &body).status;
                        assert!([202, 503].contains(&status), "{status}");
                        (status == 202).then_some(())
                    });
                }
            });
        }
    });
    let (mut seen, mut after) = (Vec::new(), 0);
    while (seen.len() as u64) < COUNT {
        let path = format!("/callbacks/{}/events?watch=true&max=700&after={after}", minted.interaction);
        let page = pull(&other, &path);
        assert!(!page.is_empty(), "{} of {COUNT} were seen", seen.len());
        after = page.last().unwrap()["n"].as_u64().unwrap();
        seen.extend(page.into_iter().map(|event| event["id"].as_str().unwrap().to_owned()));
    }
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!((seen.len() as u64, distinct.len() as u64), (COUNT, COUNT));
}

/// A process that has accepted no message yet can name the messages that other processes hold.
#[test]
fn an_agent_settles_a_message_at_a_process_that_has_just_started() {
    let engine = Engine::start("redis-server", &[]);
    let text = shared(&engine, "127.0.0.1:9", "pull", "", "");
    let one = Callgate::start(&text, Clock::System);
    let minted = one.mint("a");
    assert_eq!(one.call(&minted, "e1", "{}").status, 202);
    let path = format!("/callbacks/{}/events", minted.interaction);
    let event = pull(&one, &path).remove(0);
    let other = Callgate::start(&text, Clock::System);
    assert_eq!(pull(&other, &format!("{path}?watch=true")).len(), 1, "it is visible");
    assert_eq!(settle(&other, &format!("{path}/{}/taken", event["n"])), 204);
    assert!(engine.keys("cg{*}x:*").is_empty());
}
