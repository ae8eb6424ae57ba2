//! A ledger on Redis whose responses are delayed, cut or too late, whose slots move, and whose interactions are found by
//! the provider's id at another process.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use callgate::clock::Clock;
use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::engine::Engine;
use crate::engine_proxy::{EngineProxy, Harm};
use crate::environment::env;
use crate::harness::{ANSWER, Agent, Callgate, Response, eventually, send_to};
use crate::shared_failover::cluster;

/// The timeout of one call to Redis.
const TIMEOUT: Duration = Duration::from_millis(300);

fn config(agent: &Agent, store: &str) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\", timeouts: {{ connect: 100ms, response: 400ms }} }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
shutdown: {{ delay: 0s, grace: 5s }}
{store}
providers: {{ sw: {{ preset: standard-webhooks, secrets: [ {{ env: WHSEC }} ] }} }}
routes:
  - {{ name: jobs, path: \"/jobs/{{id}}\", provider: sw, token: {{ kind: callback }}, forward: \"/in/{{id}}\", interaction: {{ status: /status, done: [done], deadline: 1h, notify: /notice }} }}
  - {{ name: short, path: \"/short/{{id}}\", token: {{ kind: callback }}, forward: \"/in/{{id}}\", interaction: {{ status: /status, done: [done], deadline: 2s, notify: /notice }} }}
",
        agent.address
    )
}

fn start(agent: &Agent, store: &str) -> Callgate {
    Callgate::start(&config(agent, store), Clock::System)
}

/// Mints until the ledger is available.
fn mint(callgate: &Callgate, more: &str) -> (String, String) {
    let wanted = format!(r#"{{"route":"jobs","params":{{"id":"a"}}{more}}}"#);
    let minted = eventually(|| {
        let minted = callgate.admin_send("POST", "/callbacks", &wanted);
        (minted.status == 201).then(|| minted.json())
    });
    let member = |name: &str| minted[name].as_str().unwrap().to_owned();
    (member("interaction"), member("callback_token"))
}

/// Sends the callback with this event id.
fn send(ingress: SocketAddr, token: &str, event: &str) -> Response {
    let secret = env("WHSEC").unwrap();
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    let (now, body) = (Clock::System.now().unix_secs(), format!("{{\"status\":\"{event}\"}}"));
    mac.update(format!("{event}.{now}.{body}").as_bytes());
    let signature = format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()));
    let (token, now) = (format!("Bearer {token}"), now.to_string());
    let headers = [
        ("authorization", &*token),
        ("webhook-id", event),
        ("webhook-timestamp", &*now),
        ("webhook-signature", &*signature),
        ("content-type", "application/json"),
    ];
    send_to(ingress, "POST", "/jobs/a", &headers, body.as_bytes())
}

/// Reports whether the agent's response came back. A duplicate gets a response of Callgate.
fn was_settled(response: &Response) -> bool {
    response.status == 200 && response.text() == "hello"
}

fn view(callgate: &Callgate, interaction: &str) -> Value {
    callgate.admin_get(&format!("/callbacks/{interaction}")).json()
}

fn metric(callgate: &Callgate, name: &str) -> u64 {
    let metrics = callgate.metrics();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

// === Responses that are harmed ===

/// Sends events of several interactions at the same time while a share of the responses is harmed, and each event until it
/// is acknowledged. Then compares what the callers were told with what the ledger knows.
fn keeps_its_promises(harm: Harm, percent: u64) {
    const EVENTS: usize = 8;
    const USES: usize = 3;
    let engine = Engine::start("redis-server", &[]);
    let proxy = EngineProxy::start(engine.address, TIMEOUT);
    let agent = Agent::start(ANSWER);
    let store = |address| {
        format!(
            "store: {{ kind: redis, unknown: refuse, redis: {{ nodes: [\"{address}\"], timeout: 300ms }} }}"
        )
    };
    let (one, other) = (start(&agent, &store(proxy.address)), start(&agent, &store(proxy.address)));
    proxy.harm_share(harm, percent, 7);
    let unlimited: Vec<_> = (0..3).map(|_| mint(&one, "")).collect();
    let limited: Vec<_> = (0..3).map(|_| mint(&other, &format!(r#","uses":{USES}"#))).collect();
    // For each interaction: the events that were settled, each time that a caller was told so.
    let settled = Mutex::new(HashMap::<String, Vec<String>>::new());
    std::thread::scope(|scope| {
        for (number, (id, token)) in unlimited.iter().chain(&limited).enumerate() {
            let (settled, ingresses) = (&settled, [one.ingress, other.ingress]);
            scope.spawn(move || {
                for event in 0..EVENTS {
                    let event = format!("evt_{number}_{event}");
                    let mut attempt = number;
                    eventually(|| {
                        attempt += 1;
                        let response = send(ingresses[attempt % 2], token, &event);
                        assert!([200, 410, 503].contains(&response.status), "{}", response.text());
                        if was_settled(&response) {
                            settled.lock().unwrap().entry(id.clone()).or_default().push(event.clone());
                        }
                        (response.status != 503).then_some(())
                    });
                    // A repetition is a duplicate, or too late.
                    let again = eventually(|| {
                        Some(send(ingresses[event.len() % 2], token, &event))
                            .filter(|again| again.status != 503)
                    });
                    assert!(!was_settled(&again), "{event} was settled twice");
                }
            });
        }
    });
    assert!(proxy.stop_harming() > 0);
    let settled = settled.into_inner().unwrap();
    let direct = start(&agent, &store(engine.address));
    for (id, _) in &unlimited {
        let told = settled.get(id).map_or(&[][..], Vec::as_slice);
        let mut distinct = told.to_vec();
        distinct.dedup();
        assert_eq!(distinct.len(), told.len(), "at most one success for each event");
        assert_eq!(view(&direct, id)["deliveries"], EVENTS, "each acknowledged event is known once");
    }
    for (id, _) in &limited {
        let told = settled.get(id).map_or(0, Vec::len);
        assert!(told <= USES, "{told} of {USES} uses");
        let view = view(&direct, id);
        assert_eq!((&view["deliveries"], &view["uses_left"]), (&json!(USES), &json!(0)));
    }
    let unknown: u64 =
        [&one, &other].map(|one| metric(one, "callgate_store_unknown_outcomes_total")).iter().sum();
    assert_eq!(unknown > 0, harm != Harm::Delay, "{unknown} unknown outcomes");
}

#[test]
fn delayed_responses_harm_nothing() {
    keeps_its_promises(Harm::Delay, 20);
}

#[test]
fn connections_that_break_in_the_middle_of_a_response_harm_nothing() {
    keeps_its_promises(Harm::Cut, 10);
}

#[test]
fn responses_after_the_timeout_harm_nothing() {
    keeps_its_promises(Harm::Late, 10);
}

/// Each call of a callback is harmed in turn: the look at the record, the claim, and the settlement. The callback succeeds
/// at once, because the claim and the settlement are found again.
#[test]
fn a_claim_and_a_settlement_without_a_response_are_found_again() {
    let engine = Engine::start("redis-server", &[]);
    let proxy = EngineProxy::start(engine.address, Duration::from_secs(1));
    let agent = Agent::start(ANSWER);
    let store = format!(
        "store: {{ kind: redis, unknown: refuse, redis: {{ nodes: [\"{}\"], timeout: 1s }} }}",
        proxy.address
    );
    let callgate = start(&agent, &store);
    // The engine knows the scripts from now on, so that each call has one response.
    let (_, token) = mint(&callgate, "");
    assert!(was_settled(&send(callgate.ingress, &token, "evt_first")));
    for harm in [Harm::Delay, Harm::Cut, Harm::Late] {
        for others in 0..3 {
            let (id, token) = mint(&callgate, r#","uses":1"#);
            let before = agent.received().len();
            proxy.harm_one(harm, others);
            let response = send(callgate.ingress, &token, &format!("evt_{harm:?}_{others}"));
            assert!(was_settled(&response), "{harm:?} {others}: {} {}", response.status, response.text());
            proxy.stop_harming();
            assert_eq!(agent.received().len(), before + 1, "{harm:?} {others}: delivered once");
            let view = eventually(|| Some(view(&callgate, &id)).filter(|view| view["state"] == "done"));
            assert_eq!(
                (&view["deliveries"], &view["uses_left"]),
                (&json!(1), &json!(0)),
                "{harm:?} {others}"
            );
        }
    }
    let unknown = metric(&callgate, "callgate_store_unknown_outcomes_total");
    // A call that the process makes on its own can be the harmed one.
    assert!(unknown >= 2, "{unknown} of 4 responses to changes were lost");
}

/// A look at deadlines whose response is lost has hidden them, and a change whose response is lost may have leased the
/// notice. Both are found again soon.
#[test]
fn deadlines_pass_in_time_although_responses_are_lost() {
    const INTERACTIONS: usize = 40;
    let engine = Engine::start("redis-server", &[]);
    let proxy = EngineProxy::start(engine.address, TIMEOUT);
    let agent = Agent::start(ANSWER);
    let store = format!(
        "store: {{ kind: redis, unknown: refuse, redis: {{ nodes: [\"{}\"], timeout: 300ms }} }}",
        proxy.address
    );
    let callgate = start(&agent, &store);
    for _ in 0..INTERACTIONS {
        let minted = callgate.admin_send("POST", "/callbacks", r#"{"route":"short","params":{"id":"a"}}"#);
        assert_eq!(minted.status, 201, "{}", minted.text());
    }
    proxy.harm_share(Harm::Cut, 20, 7);
    let noticed = || -> HashSet<Value> {
        let notices = agent.received().into_iter().filter(|one| one.target() == "/notice");
        notices
            .map(|one| serde_json::from_slice::<Value>(&one.body).unwrap()["interaction"].clone())
            .collect()
    };
    // Once the harm ends, those whose response was lost are late by seconds only.
    eventually(|| (noticed().len() >= INTERACTIONS / 4).then_some(()));
    assert!(proxy.stop_harming() > 0);
    eventually(|| (noticed().len() == INTERACTIONS).then_some(()));
}

/// Records that only a later version can read do not hold up the deadlines of other interactions.
#[test]
fn unreadable_records_do_not_stop_the_other_deadlines() {
    let engine = Engine::start("redis-server", &[]);
    let agent = Agent::start(ANSWER);
    let callgate = start(&agent, &engine.store(""));
    let mint = || {
        let minted = callgate.admin_send("POST", "/callbacks", r#"{"route":"short","params":{"id":"a"}}"#);
        assert_eq!(minted.status, 201, "{}", minted.text());
        minted.json()["interaction"].as_str().unwrap().to_owned()
    };
    let notices = || agent.received().into_iter().filter(|one| one.target() == "/notice").count();
    for _ in 0..30 {
        let key = engine.keys(&format!("*i:{}", mint())).remove(0);
        // Eight bytes for the version of the record, and one for its format.
        assert_eq!(engine.command(&["SET", &key, "versions\u{7f}{}"]), "+OK\r\n");
    }
    mint();
    eventually(|| (notices() == 1).then_some(()));
    // By now, the unreadable records wait for another look.
    (0..10).for_each(|_| drop(mint()));
    eventually(|| (notices() == 11).then_some(()));
}

// === Adoption ===

/// The first callbacks of an unknown interaction arrive at two processes at the same time. One of them adopts it.
#[test]
fn an_adoption_is_counted_once() {
    const ROUNDS: usize = 25;
    let engine = Engine::start("redis-server", &[]);
    let agent = Agent::start(ANSWER);
    let store = engine.store("");
    let (one, other) = (start(&agent, &store), start(&agent, &store));
    for round in 0..ROUNDS {
        let (id, token) = mint(&one, "");
        assert_eq!(engine.command(&["DEL", &engine.keys(&format!("*i:{id}"))[0]]), ":1\r\n");
        std::thread::scope(|scope| {
            for (number, callgate) in [&one, &other, &one, &other].into_iter().enumerate() {
                let ingress = callgate.ingress;
                let token = &token;
                scope.spawn(move || {
                    let response = send(ingress, token, &format!("evt_{round}_{number}"));
                    assert!(was_settled(&response), "{}", response.text());
                });
            }
        });
        assert_eq!(view(&one, &id)["deliveries"], 4);
    }
    let name = "callgate_interactions_adopted_total{route=\"jobs\"}";
    assert_eq!(metric(&one, name) + metric(&other, name), ROUNDS as u64);
}

// === Slots that move ===

fn id_of(node: &Engine) -> String {
    node.command(&["CLUSTER", "MYID"]).lines().nth(1).unwrap().to_owned()
}

/// Returns the elements of a list of texts.
fn list(answer: &str) -> Vec<String> {
    answer.lines().filter(|line| !line.starts_with(['*', '$'])).map(str::to_owned).collect()
}

/// Moves a slot key by key. `between` is called while a part of the keys has moved.
pub fn move_slot(slot: &str, (from, to): (&Engine, &Engine), others: &Engine, mut between: impl FnMut()) {
    let (source, target) = (id_of(from), id_of(to));
    assert_eq!(to.command(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &source]), "+OK\r\n");
    assert_eq!(from.command(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &target]), "+OK\r\n");
    let port = to.address.port().to_string();
    loop {
        let keys = list(&from.command(&["CLUSTER", "GETKEYSINSLOT", slot, "1"]));
        let Some(key) = keys.first() else { break };
        let moved = from.command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        assert!(moved.starts_with("+OK") || moved.starts_with("+NOKEY"), "{moved}");
        between();
    }
    for node in [to, from, others] {
        assert_eq!(node.command(&["CLUSTER", "SETSLOT", slot, "NODE", &target]), "+OK\r\n");
    }
}

#[test]
fn slots_that_move_to_another_node_lose_nothing() {
    let nodes = cluster(0);
    let agent = Agent::start(ANSWER);
    let store = format!(
        "store: {{ kind: redis, unknown: refuse, redis: {{ mode: cluster, nodes: [\"{}\", \"{}\"], timeout: 300ms }} }}",
        nodes[0].address, nodes[1].address
    );
    let callgate = start(&agent, &store);
    let minted: Vec<_> = (0..48).map(|_| mint(&callgate, "")).collect();
    // The slots of the first node that have interactions.
    let mut slots: Vec<String> = nodes[0]
        .keys("*i:*")
        .iter()
        .map(|key| nodes[0].command(&["CLUSTER", "KEYSLOT", key]).trim().trim_start_matches(':').to_owned())
        .collect();
    slots.sort();
    slots.dedup();
    assert!(slots.len() >= 3, "{slots:?}");
    let (stopping, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let delivered = Mutex::new(HashMap::<String, u64>::new());
    std::thread::scope(|scope| {
        for share in minted.chunks(12) {
            let (ingress, stopping, delivered, sent) = (callgate.ingress, &stopping, &delivered, &sent);
            scope.spawn(move || {
                let mut round = 0;
                while !stopping.load(Ordering::SeqCst) {
                    round += 1;
                    for (id, token) in share {
                        let event = format!("evt_{id}_{round}");
                        // An event that was not acknowledged is sent again, until it is.
                        eventually(|| {
                            let status = send(ingress, token, &event).status;
                            assert!(status == 200 || status == 503, "{status}");
                            (status == 200).then_some(())
                        });
                        *delivered.lock().unwrap().entry(id.clone()).or_default() += 1;
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        for slot in &slots {
            // Callbacks arrive while the slot is being moved.
            let mut moved = 0;
            move_slot(slot, (&nodes[0], &nodes[1]), &nodes[2], || {
                moved += 1;
                let token = &minted[moved % minted.len()].1;
                let status = send(callgate.ingress, token, "evt_between").status;
                assert!(status == 200 || status == 503, "{status}");
            });
            let before = sent.load(Ordering::SeqCst);
            eventually(|| (sent.load(Ordering::SeqCst) > before + 8).then_some(()));
        }
        stopping.store(true, Ordering::SeqCst);
    });
    assert!(nodes[0].keys("*i:*").is_empty(), "all interactions have moved");
    let delivered = delivered.into_inner().unwrap();
    for (id, token) in &minted {
        let known = view(&callgate, id)["deliveries"].as_u64().unwrap();
        let told = delivered[id];
        // The event that was sent in between counts once, too.
        assert!(known == told || known == told + 1, "{id}: {known} instead of {told}");
        assert_eq!(send(callgate.ingress, token, &format!("evt_{id}_1")).status, 200);
        assert_eq!(view(&callgate, id)["deliveries"], known, "its events moved, too");
    }
}
