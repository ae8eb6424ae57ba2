//! Interactions in a running Callgate: they are minted, updated, revoked and ended, and the agent receives notices of
//! missing callbacks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use callgate::clock::{Clock, instant};
use callgate::config::Config;
use callgate::interaction::{Ask, ClaimError, EventKey, Follow, Report, Scope};
use callgate::observe::Metrics;
use callgate::path::CanonicalPath;
use callgate::policy::MintRequest;
use callgate::request::RequestHead;
use callgate::signature::SignatureContext;
use callgate::source::LOOPBACK;
use callgate::store::Store;
use callgate::time::Timestamp;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::harness::{ANSWER, Agent, Callgate, Response, eventually, parse, send_to};

/// Returns a configuration with one route that follows its interactions. Its provider does not sign.
pub fn config(agent: &str, store: &str) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\" }}
store: {store}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
providers: {{ p: {{ preset: standard-webhooks, secrets: [ {{ env: WHSEC }} ] }} }}
routes:
  - name: doc
    path: /doc/{{id}}
    provider: p
    token: {{ kind: callback }}
    forward: /in/{{id}}
    interaction:
      status: /status
      progress: /progress
      done: [completed]
      failed: [failed]
      deadline: 1h
      stalled_after: 10m
      notify: /overdue/{{id}}
"
    )
}

/// A Callgate whose clock the test sets, and its agent.
pub struct World {
    pub agent: Agent,
    pub callgate: Callgate,
    now: Arc<AtomicI64>,
    config: Config,
    events: std::cell::Cell<u32>,
}

/// The id of an interaction that another replica minted.
const ELSEWHERE: &str = "int_aaaaaaaaaaaaaaaaaaaaaaaaaa";
const START: i64 = 1_767_225_600_000;
const MINUTE: i64 = 60_000;

impl World {
    pub fn new(store: &str) -> Self {
        Self::with(Agent::start(ANSWER), store, START)
    }

    fn with(agent: Agent, store: &str, at: i64) -> Self {
        let now = Arc::new(AtomicI64::new(at));
        let text = config(&agent.address.to_string(), store);
        let callgate = Callgate::start(&text, Clock::Set(Arc::clone(&now)));
        Self { agent, callgate, now, config: parse(&text), events: 0.into() }
    }

    pub fn at(&self, minutes: i64) {
        self.now.store(START + minutes * MINUTE, Ordering::SeqCst);
    }

    pub fn mint(&self, body: &Value) -> Value {
        let response = self.callgate.admin_send("POST", "/callbacks", &body.to_string());
        assert_eq!(response.status, 201, "{}", response.text());
        response.json()
    }

    pub fn read(&self, minted: &Value) -> Value {
        self.callgate.admin_get(&format!("/callbacks/{}", minted["interaction"].as_str().unwrap())).json()
    }

    /// Calls back with a new event id.
    fn call(&self, minted: &Value, body: &str) -> Response {
        self.events.set(self.events.get() + 1);
        self.call_as(minted, body, &format!("msg_{}", self.events.get()))
    }

    pub fn call_as(&self, minted: &Value, body: &str, event: &str) -> Response {
        call(self.callgate.ingress, &self.config, &self.now, minted, body, event)
    }

    pub fn metric(&self, line: &str) -> Option<f64> {
        let page = self.callgate.metrics();
        page.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
    }
}

#[test]
fn an_interaction_is_made_followed_and_over() {
    let world = World::new("{ kind: memory }");
    let minted = world.mint(&json!({ "route": "doc", "params": { "id": "a" } }));
    assert_eq!(minted["callback_url"], "https://agent.example.com/doc/a");
    assert_eq!(minted["expires_at"], "2026-01-01T02:00:00Z");
    let open = world.read(&minted);
    assert_eq!((open["state"].as_str(), open["captures"]["id"].as_str()), (Some("open"), Some("a")));
    assert_eq!(
        (open["provider"].as_str(), open["deadline_at"].as_str()),
        (Some("p"), Some("2026-01-01T01:00:00Z"))
    );
    world.at(1);
    assert_eq!(world.call(&minted, r#"{"status":"processing","progress":25}"#).status, 200);
    let progressing = world.read(&minted);
    assert_eq!(progressing["state"], "progressing");
    assert_eq!(progressing["status"], "processing");
    assert_eq!(progressing["progress"], 25.0);
    assert_eq!(progressing["event_ids"], json!(["msg_1"]));
    assert_eq!(progressing["last_event_at"], "2026-01-01T00:01:00Z");
    assert_eq!(world.call(&minted, r#"{"status":"completed"}"#).status, 200);
    assert_eq!(world.read(&minted)["state"], "done");
    assert_eq!(world.call(&minted, r#"{"status":"processing"}"#).status, 410);
    assert_eq!(world.agent.received().len(), 2);
    assert_eq!(world.metric("callgate_interactions_open{route=\"doc\"}"), Some(0.0));
    assert_eq!(world.metric("callgate_interactions_ended_total{outcome=\"done\",route=\"doc\"}"), Some(1.0));
    assert_eq!(world.metric("callgate_callbacks_minted_total{route=\"doc\"}"), Some(1.0));
    assert!(!world.read(&minted).to_string().contains("eyJ"), "no token is told twice");
}

#[test]
fn what_is_revoked_opens_nothing_also_when_it_was_made_elsewhere() {
    let world = World::new("{ kind: memory }");
    let minted = world.mint(&json!({ "route": "doc", "params": { "id": "a" } }));
    let path = format!("/callbacks/{}", minted["interaction"].as_str().unwrap());
    assert_eq!(world.callgate.admin_send("DELETE", &path, "").status, 204);
    let refused = world.call(&minted, "{}");
    assert_eq!(refused.status, 410);
    assert_eq!(world.callgate.log().remove(0)["reason"], "interaction_revoked");
    assert_eq!(world.read(&minted)["state"], "revoked");
    assert_eq!(
        world.metric("callgate_interactions_ended_total{outcome=\"revoked\",route=\"doc\"}"),
        Some(1.0)
    );
    // An interaction that another Callgate with the same key minted, and that was revoked before its first callback.
    let at = Timestamp::from_unix_ms(START);
    let request = MintRequest { route: "doc", parameters: &[("id", "b")], ttl: None, uses: None };
    let foreign = world.config.policy.mint(&request, ELSEWHERE, at).unwrap();
    assert_eq!(world.callgate.admin_send("DELETE", &format!("/callbacks/{ELSEWHERE}"), "").status, 204);
    let foreign = json!({
        "callback_url": foreign.callback_url,
        "callback_token": foreign.callback_token,
        "interaction": ELSEWHERE,
    });
    assert_eq!(world.call(&foreign, "{}").status, 410);
    for nobodys in
        ["int_elsewhere", "x", "int_AAAAAAAAAAAAAAAAAAAAAAAAAA", "int_aaaaaaaaaaaaaaaaaaaaaaaaa%61"]
    {
        assert_eq!(world.callgate.admin_send("DELETE", &format!("/callbacks/{nobodys}"), "").status, 404);
    }
    // An interaction that was not revoked is adopted.
    let other = world.config.policy.mint(&request, "int_other", at).unwrap();
    let other = json!({ "callback_url": other.callback_url, "callback_token": other.callback_token });
    assert_eq!(world.call(&other, "{}").status, 200);
    assert_eq!(world.metric("callgate_interactions_adopted_total{route=\"doc\"}"), Some(1.0));
    assert_eq!(world.callgate.admin_get("/callbacks/int_other").json()["captures"]["id"], "b");
}

#[test]
fn silence_is_told_once_for_each_cause() {
    let world = World::new("{ kind: memory }");
    let minted = world.mint(&json!({ "route": "doc", "params": { "id": "a" } }));
    world.at(9);
    assert_eq!(world.call(&minted, r#"{"status":"processing","progress":10}"#).status, 200);
    world.at(18);
    assert_eq!(world.agent.received().len(), 1);
    world.at(19);
    let told = world.agent.wait_for(2).pop().unwrap();
    assert_eq!((told.target(), told.header("callgate-notice")), ("/overdue/a", vec!["stalled"]));
    assert_eq!(told.header("callgate-interaction"), [minted["interaction"].as_str().unwrap()]);
    assert_eq!(told.header("x-forwarded-proto"), ["https"]);
    assert_eq!(told.header("x-forwarded-host"), ["agent.example.com"]);
    assert!(told.header("x-forwarded-for").is_empty(), "a notice has no caller");
    let body: Value = serde_json::from_slice(&told.body).unwrap();
    let expected = json!({
        "interaction": minted["interaction"], "route": "doc", "provider": "p", "captures": { "id": "a" },
        "outcome": "stalled", "status": "processing", "progress": 10.0,
        "created_at": "2026-01-01T00:00:00Z", "last_event_at": "2026-01-01T00:09:00Z",
        "deadline_at": "2026-01-01T01:00:00Z", "at": "2026-01-01T00:19:00Z",
    });
    assert_eq!(body, expected);
    // The interaction makes progress and stalls again. The agent receives another notice.
    assert_eq!(world.call(&minted, r#"{"status":"processing","progress":20}"#).status, 200);
    world.at(30);
    assert_eq!(world.agent.wait_for(4)[3].header("callgate-notice"), ["stalled"]);
    world.at(60);
    assert_eq!(world.agent.wait_for(5)[4].header("callgate-notice"), ["expired"]);
    assert_eq!(world.read(&minted)["state"], "expired");
    assert_eq!(world.call(&minted, r#"{"status":"completed"}"#).status, 410);
    eventually(|| {
        world.metric("callgate_notices_total{cause=\"expired\",outcome=\"answered\",route=\"doc\"}")
    });
    assert_eq!(
        world.metric("callgate_interactions_ended_total{outcome=\"expired\",route=\"doc\"}"),
        Some(1.0)
    );
    world.at(119);
    assert_eq!(world.agent.received().len(), 5);
    // An interaction is removed when its token has expired.
    world.at(121);
    eventually(|| (world.metric("callgate_store_interactions ") == Some(0.0)).then_some(()));
}

#[test]
fn an_agent_that_does_not_answer_is_told_again() {
    let world = World::new("{ kind: memory }");
    let minted = world.mint(&json!({ "route": "doc", "params": { "id": "a" } }));
    world.agent.answers(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
    world.at(60);
    world.agent.wait_for(1);
    let failed = "callgate_notices_total{cause=\"expired\",outcome=\"failed\",route=\"doc\"}";
    eventually(|| (world.metric(failed) == Some(1.0)).then_some(()));
    assert_eq!(world.read(&minted)["notice"], "expired");
    world.agent.answers(ANSWER);
    world.now.fetch_add(2_000, Ordering::SeqCst);
    world.agent.wait_for(2);
    eventually(|| world.read(&minted)["notice"].is_null().then_some(()));
}

#[test]
fn the_same_event_at_once_is_delivered_once() {
    let world = World::new("{ kind: memory }");
    let minted = world.mint(&json!({ "route": "doc", "params": { "id": "a" } }));
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let (ingress, config, now) = (world.callgate.ingress, &world.config, &world.now);
        let threads: Vec<_> = (0..16)
            .map(|_| {
                let minted = &minted;
                scope.spawn(move || call(ingress, config, now, minted, "{}", "msg_same").status)
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 16]);
    assert_eq!(world.agent.received().len(), 1);
    assert_eq!(world.metric("callgate_duplicates_total{route=\"doc\"}"), Some(15.0));
}

#[test]
fn the_last_use_goes_to_one_of_many() {
    let world = World::new("{ kind: memory }");
    let minted = world.mint(&json!({ "route": "doc", "params": { "id": "a" }, "uses": 1 }));
    let mut statuses: Vec<_> = std::thread::scope(|scope| {
        let (ingress, config, now) = (world.callgate.ingress, &world.config, &world.now);
        let threads: Vec<_> = (0..8)
            .map(|i| {
                let minted = &minted;
                scope.spawn(move || call(ingress, config, now, minted, "{}", &format!("msg_{i}")).status)
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 410, 410, 410, 410, 410, 410, 410]);
    assert_eq!(world.agent.received().len(), 1);
    assert_eq!(world.read(&minted)["state"], "done");
}

/// Calls back as the provider does.
fn call(
    ingress: SocketAddr,
    config: &Config,
    now: &AtomicI64,
    minted: &Value,
    body: &str,
    event: &str,
) -> Response {
    let target = minted["callback_url"].as_str().unwrap().strip_prefix("https://agent.example.com").unwrap();
    let headers = HeaderMap::new();
    let verifier = config.policy.provider("p").unwrap().verifier.as_ref().unwrap();
    let at = Timestamp::from_unix_ms(now.load(Ordering::SeqCst));
    let signed = SignatureContext::new(RequestHead::new("POST", target, &headers, LOOPBACK), "", at);
    let signature = verifier.sign(&signed, body.as_bytes(), event).unwrap().headers;
    let bearer = format!("Bearer {}", minted["callback_token"].as_str().unwrap());
    let mut headers: Vec<_> =
        signature.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    headers.push(("authorization", &bearer));
    send_to(ingress, "POST", target, &headers, body.as_bytes())
}

#[test]
fn interactions_are_searched_and_listed_from_the_newest() {
    let world = World::new("{ kind: memory }");
    for (minute, id) in ["Doc-A", "doc-b", "doc-c", "other", "doc-d"].into_iter().enumerate() {
        world.at(minute.try_into().unwrap());
        world.mint(&json!({ "route": "doc", "params": { "id": id } }));
    }
    let list = |query: &str| {
        let answer = world.callgate.admin_get(&format!("/callbacks?{query}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page = answer.json();
        let found = page["interactions"].as_array().unwrap().iter();
        let ids: Vec<_> = found.map(|one| one["captures"]["id"].as_str().unwrap().to_owned()).collect();
        (ids, page["next"].as_str().map(str::to_owned))
    };
    assert_eq!(list("sort=newest").0, ["doc-d", "other", "doc-c", "doc-b", "Doc-A"]);
    let (first, next) = list("sort=newest&limit=2");
    assert_eq!(first, ["doc-d", "other"]);
    let (second, next) = list(&format!("sort=newest&limit=2&before={}", next.unwrap()));
    assert_eq!(second, ["doc-c", "doc-b"]);
    let (third, next) = list(&format!("sort=newest&limit=2&before={}", next.unwrap()));
    assert_eq!((third, next), (vec!["Doc-A".to_owned()], None));
    assert_eq!(list("sort=newest&search=DOC-a").0, ["Doc-A"]);
    assert_eq!(list("sort=newest&search=doc-&limit=1").0, ["doc-d"]);
    assert_eq!(list("search=nothing").0, Vec::<String>::new());
    // Interactions that began at the same time are not lost between two pages.
    for id in ["x1", "x2", "x3"] {
        world.mint(&json!({ "route": "doc", "params": { "id": id } }));
    }
    let (first, next) = list("sort=newest&limit=2");
    assert_eq!(first.len(), 4, "{first:?}");
    assert_eq!(list(&format!("sort=newest&limit=2&before={}", next.unwrap())).0, ["other", "doc-c"]);
    // The largest page also has all interactions of the same time, so that none is lost.
    for number in 0..1100 {
        world.mint(&json!({ "route": "doc", "params": { "id": format!("y{number}") } }));
    }
    let (first, next) = list("sort=newest&limit=1000");
    assert_eq!(first.len(), 1104);
    assert_eq!(list(&format!("sort=newest&limit=2&before={}", next.unwrap())).0, ["other", "doc-c"]);
    for bad in ["sort=age", "before=2026-01-01T00:00:00Z", "sort=newest&before=soon", "serch=x"] {
        assert_eq!(world.callgate.admin_get(&format!("/callbacks?{bad}")).status, 400, "{bad}");
    }
    let page = world.callgate.admin_get("/ui/api/interactions?search=doc-b&state=all").json();
    let id = page["interactions"][0]["interaction"].as_str().unwrap().to_owned();
    let found = world.callgate.admin_get(&format!("/ui/api/interactions?search={id}")).json();
    assert_eq!(found["interactions"][0]["captures"]["id"], "doc-b");
    let details = world.callgate.admin_get(&format!("/ui/api/details/{id}")).json();
    assert_eq!((&details["notice_attempts"], &details["questions"]), (&json!(0), &json!([])));
    assert_eq!(world.callgate.admin_get("/ui/api/details/int_nope").status, 404);
}

#[test]
fn a_full_ledger_takes_nothing_new_and_forgets_nothing_open() {
    let world = World::new("{ kind: memory, interactions_max: 2 }");
    let first = world.mint(&json!({ "route": "doc", "params": { "id": "a" } }));
    world.mint(&json!({ "route": "doc", "params": { "id": "b" } }));
    let full = world.callgate.admin_send("POST", "/callbacks", r#"{"route":"doc","params":{"id":"c"}}"#);
    assert_eq!((full.status, full.json()["reason"].as_str()), (503, Some("store_full")));
    assert_eq!(world.call(&first, "{}").status, 200);
    let at = Timestamp::from_unix_ms(START);
    let request = MintRequest { route: "doc", parameters: &[("id", "d")], ttl: None, uses: None };
    let other = world.config.policy.mint(&request, "int_other", at).unwrap();
    let other = json!({ "callback_url": other.callback_url, "callback_token": other.callback_token });
    let refused = world.call(&other, "{}");
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    // When the tokens have expired, there is room for new interactions.
    world.at(121);
    eventually(|| (world.metric("callgate_store_interactions ") == Some(0.0)).then_some(()));
    world.mint(&json!({ "route": "doc", "params": { "id": "c" } }));
}

#[test]
fn ended_interactions_stay_visible_and_make_room_before_open_ones_are_refused() {
    let world = World::new("{ kind: memory, interactions_max: 3, keep_ended: 5h }");
    let mint = |id: &str| world.mint(&json!({ "route": "doc", "params": { "id": id } }));
    let ids = |world: &World| -> Vec<String> {
        let all = world.callgate.admin_get("/callbacks").json();
        let found = all["interactions"].as_array().unwrap().iter();
        found.map(|one| one["captures"]["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let done = mint("done");
    assert_eq!(world.call(&done, r#"{"status":"completed"}"#).status, 200);
    world.at(60);
    let later = mint("later");
    assert_eq!(world.read(&later)["ended_at"], Value::Null);
    // At minute 121, the token of the first interaction has expired. It is still visible, but not counted.
    world.at(121);
    eventually(|| (world.metric("callgate_store_interactions_kept ") == Some(1.0)).then_some(()));
    assert_eq!(world.metric("callgate_store_interactions "), Some(1.0));
    let record = world.read(&done);
    assert_eq!((&record["state"], &record["ended_at"]), (&json!("done"), &json!("2026-01-01T00:00:00Z")));
    assert_eq!(world.call(&done, r#"{"status":"completed"}"#).status, 401);
    mint("third");
    // The ledger is full. The ended interaction makes room, the open ones do not.
    mint("fourth");
    let mut left = ids(&world);
    left.sort();
    assert_eq!(left, ["fourth", "later", "third"]);
    let full = world.callgate.admin_send("POST", "/callbacks", r#"{"route":"doc","params":{"id":"x"}}"#);
    assert_eq!((full.status, full.json()["reason"].as_str()), (503, Some("store_full")));
    // Five hours after its end, an interaction is gone.
    world.at(60 + 60 + 5 * 60 - 1);
    eventually(|| (world.metric("callgate_store_interactions_kept ") == Some(3.0)).then_some(()));
    world.at(60 + 60 + 5 * 60 + 30);
    eventually(|| (ids(&world).len() == 2).then_some(()));
}

#[test]
fn a_callback_of_an_unknown_interaction_takes_the_place_of_an_ended_one() {
    let world = World::new("{ kind: memory, interactions_max: 1 }");
    let done = world.mint(&json!({ "route": "doc", "params": { "id": "a" } }));
    assert_eq!(world.call(&done, r#"{"status":"completed"}"#).status, 200);
    world.at(121);
    eventually(|| (world.metric("callgate_store_interactions_kept ") == Some(1.0)).then_some(()));
    let at = Timestamp::from_unix_ms(START + 121 * MINUTE);
    let request = MintRequest { route: "doc", parameters: &[("id", "d")], ttl: None, uses: None };
    let other = world.config.policy.mint(&request, ELSEWHERE, at).unwrap();
    let other = json!({ "callback_url": other.callback_url, "callback_token": other.callback_token });
    assert_eq!(world.call(&other, "{}").status, 200);
    assert_eq!(world.callgate.admin_get("/callbacks").json()["interactions"].as_array().unwrap().len(), 1);
}

#[test]
fn a_file_keeps_ended_interactions_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("{{ kind: file, path: {}/ledger }}", folder.path().display());
    let world = World::new(&store);
    let done = world.mint(&json!({ "route": "doc", "params": { "id": "a" } }));
    assert_eq!(world.call(&done, r#"{"status":"completed"}"#).status, 200);
    world.at(121);
    eventually(|| (world.metric("callgate_store_interactions_kept ") == Some(1.0)).then_some(()));
    let World { agent, callgate, .. } = world;
    drop(callgate);
    let world = World::with(agent, &store, START + 122 * MINUTE);
    eventually(|| (world.metric("callgate_store_interactions_kept ") == Some(1.0)).then_some(()));
    let record = world.read(&done);
    assert_eq!((&record["state"], &record["ended_at"]), (&json!("done"), &json!("2026-01-01T00:00:00Z")));
    world.at(24 * 60 + 1);
    eventually(|| (world.metric("callgate_store_interactions_kept ") == Some(0.0)).then_some(()));
    assert_eq!(world.read(&done)["status"], 404);
}

/// Returns the times of what the agent has accepted, and of the end among them.
fn informed(record: &Value) -> (Vec<String>, Option<String>) {
    let one = |one: &Value| {
        format!("{} {}", one["by"].as_str().unwrap(), one["at"].as_str().unwrap().get(11..16).unwrap())
    };
    let all = record["informed"].as_array().unwrap().iter().map(one).collect();
    (all, record["informed_at"].as_str().map(|at| at[11..16].to_owned()))
}

#[test]
fn a_record_says_when_the_agent_was_informed() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("{{ kind: file, path: {}/ledger }}", folder.path().display());
    for store in ["{ kind: memory }", &file] {
        let world = World::new(store);
        let mint = |id: &str| world.mint(&json!({ "route": "doc", "params": { "id": id } }));
        let (done, silent, rejected) = (mint("a"), mint("b"), mint("c"));
        assert_eq!(informed(&world.read(&done)), (vec![], None));
        assert_eq!(world.call(&done, r#"{"status":"working"}"#).status, 200);
        world.at(1);
        assert_eq!(world.call(&done, r#"{"status":"completed"}"#).status, 200);
        world.agent.answers(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(world.call(&rejected, r#"{"status":"completed"}"#).status, 500);
        world.agent.answers(ANSWER);
        world.at(12);
        eventually(|| (informed(&world.read(&silent)).0.len() == 1).then_some(()));
        world.at(65);
        eventually(|| informed(&world.read(&silent)).1);
        let read = |world: &World| [&done, &silent, &rejected].map(|minted| informed(&world.read(minted)));
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let [of_done, of_silent, of_rejected] =
            eventually(|| Some(read(&world)).filter(|[.., rejected]| rejected.1.is_some()));
        assert_eq!(of_done, (texts(&["callback 00:00", "final_callback 00:01"]), Some("00:01".into())));
        assert_eq!(of_silent, (texts(&["stalled 00:12", "expired 01:05"]), Some("01:05".into())));
        assert_eq!(of_rejected.0.last().map(|last| &**last), Some("expired 01:05"), "{of_rejected:?}");
        if store == file {
            let before = read(&world);
            let World { agent, callgate, .. } = world;
            drop(callgate);
            let world = World::with(agent, store, START + 66 * MINUTE);
            assert_eq!(read(&world), before);
        }
    }
}

#[test]
fn a_file_keeps_everything_over_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("{{ kind: file, path: {}/ledger }}", folder.path().display());
    let world = World::new(&store);
    let ids = ["a", "b", "c", "d"];
    let minted: Vec<_> = ids.map(|id| world.mint(&json!({ "route": "doc", "params": { "id": id } }))).into();
    assert_eq!(world.call_as(&minted[0], r#"{"status":"processing","progress":40}"#, "msg_kept").status, 200);
    assert_eq!(world.call(&minted[1], r#"{"status":"completed"}"#).status, 200);
    let path = format!("/callbacks/{}", minted[2]["interaction"].as_str().unwrap());
    assert_eq!(world.callgate.admin_send("DELETE", &path, "").status, 204);
    // The notices that were answered before the stop are not sent again.
    world.at(11);
    let told = world.agent.wait_for(4);
    assert_eq!(told.iter().filter(|told| told.header("callgate-notice") == ["stalled"]).count(), 2);
    let answered = "callgate_notices_total{cause=\"stalled\",outcome=\"answered\",route=\"doc\"}";
    eventually(|| (world.metric(answered) == Some(2.0)).then_some(()));
    let before: Vec<_> = minted.iter().map(|minted| world.read(minted)).collect();
    let World { agent, callgate, .. } = world;
    drop(callgate);

    // The deadline passed while Callgate was down. The agent receives the notice after the next start.
    let count = agent.received().len();
    let world = World::with(agent, &store, START + 30 * MINUTE);
    let after: Vec<_> = minted.iter().map(|minted| world.read(minted)).collect();
    let settled =
        |value: &Value| (value["state"].clone(), value["progress"].clone(), value["event_ids"].clone());
    assert_eq!(before.iter().map(settled).collect::<Vec<_>>(), after.iter().map(settled).collect::<Vec<_>>());
    assert_eq!(world.call_as(&minted[0], r#"{"status":"processing"}"#, "msg_kept").status, 200);
    assert_eq!(world.metric("callgate_duplicates_total{route=\"doc\"}"), Some(1.0));
    assert_eq!(world.call_as(&minted[1], "{}", "msg_after").status, 410);
    assert_eq!(world.call_as(&minted[2], "{}", "msg_after").status, 410);
    let told = |world: &World| {
        let received = world.agent.received().split_off(count);
        let notices: Vec<_> = received
            .iter()
            .filter_map(|told| Some((*told.header("callgate-notice").first()?, told.target())))
            .map(|(cause, target)| (cause.to_owned(), target.to_owned()))
            .collect();
        notices
    };
    world.at(61);
    let mut notices = eventually(|| Some(told(&world)).filter(|told| told.len() == 2));
    notices.sort();
    let expected = [("expired", "/overdue/a"), ("expired", "/overdue/d")];
    assert_eq!(notices, expected.map(|(cause, target)| (cause.to_owned(), target.to_owned())));
}

#[test]
fn a_file_is_for_one_process_and_refuses_what_it_never_made() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("{{ kind: file, path: {}/ledger }}", folder.path().display());
    let world = World::new(&store);
    let at = Timestamp::from_unix_ms(START);
    let request = MintRequest { route: "doc", parameters: &[("id", "b")], ttl: None, uses: None };
    let foreign = world.config.policy.mint(&request, ELSEWHERE, at).unwrap();
    let foreign = json!({ "callback_url": foreign.callback_url, "callback_token": foreign.callback_token });
    assert_eq!(world.call(&foreign, "{}").status, 410);
    assert_eq!(world.callgate.admin_send("DELETE", &format!("/callbacks/{ELSEWHERE}"), "").status, 404);
    let metrics = Arc::new(Metrics::new().unwrap());
    let settings = &world.config.startup.store;
    let second = Store::start(settings, metrics, instant, at);
    assert!(second.unwrap_err().to_string().contains("another process uses it"));
}

#[test]
fn the_callbacks_api_is_strict_and_for_callers_on_this_host() {
    let world = World::new("{ kind: memory }");
    let admin = world.callgate.admin.unwrap();
    let post = |body: &str| world.callgate.admin_send("POST", "/callbacks", body);
    for (body, status) in [
        ("", 400),
        ("{}", 400),
        (r#"{"route":"nope"}"#, 404),
        (r#"{"route":"doc"}"#, 400),
        (r#"{"route":"doc","params":{"id":"a/b"}}"#, 400),
        (r#"{"route":"doc","params":{"id":"a","x":"y"}}"#, 400),
        (r#"{"route":"doc","params":{"id":"a","id":"b"}}"#, 400),
        (r#"{"route":"doc","params":{"id":"a"},"ttl":"5"}"#, 400),
        (r#"{"route":"doc","params":{"id":"a"},"ttl":"400d"}"#, 400),
        (r#"{"route":"doc","params":{"id":"a"},"uses":0}"#, 400),
        (r#"{"route":"doc","params":{"id":"a"},"usess":1}"#, 400),
    ] {
        assert_eq!(post(body).status, status, "{body}");
    }
    assert_eq!(post(&"x".repeat(100_000)).status, 413);
    let good = r#"{"route":"doc","params":{"id":"a"}}"#;
    let json = ("content-type", "application/json");
    for (headers, status) in [
        (vec![json], 201),
        (vec![], 415),
        (vec![("content-type", "text/plain")], 415),
        (vec![json, ("origin", "http://localhost")], 403),
    ] {
        assert_eq!(
            send_to(admin, "POST", "/callbacks", &headers, good.as_bytes()).status,
            status,
            "{headers:?}"
        );
    }
    assert_eq!(world.callgate.admin_send("PUT", "/callbacks", "").header("allow"), Some("get, head, post"));
    assert_eq!(world.callgate.admin_get("/callbacks/int_none").status, 404);
    for bad in ["/callbacks?state=lost", "/callbacks?limit=0", "/callbacks?limit=x"] {
        assert_eq!(world.callgate.admin_get(bad).status, 400, "{bad}");
    }
    let mut stream = std::net::TcpStream::connect(admin).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /callbacks HTTP/1.1\r\nhost: evil.example:9901\r\n\r\n")
        .unwrap();
    assert_eq!(Response::read(&mut stream).status, 403, "a name that was made to point here");
}

#[test]
fn interactions_are_listed_page_by_page() {
    let world = World::new("{ kind: memory }");
    let mut minted: Vec<_> = (0..7)
        .map(|i| world.mint(&json!({ "route": "doc", "params": { "id": format!("d{i}") } })))
        .map(|minted| minted["interaction"].as_str().unwrap().to_owned())
        .collect();
    minted.sort();
    world.callgate.admin_send("DELETE", &format!("/callbacks/{}", minted[6]), "");
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = world
            .callgate
            .admin_get(&format!("/callbacks?route=doc&state=open&limit=2&after={after}"))
            .json();
        let ids = page["interactions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["interaction"].as_str().unwrap().to_owned());
        seen.extend(ids);
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, minted[..6]);
    let unknown = world.callgate.admin_get("/callbacks?route=other");
    assert!(unknown.status == 400 && unknown.text().contains("the routes are doc"), "{}", unknown.text());
}

#[test]
fn a_token_for_the_api_lets_callers_in_and_keeps_others_out() {
    let agent = Agent::start(ANSWER);
    let text = config(&agent.address.to_string(), "{ kind: memory }").replace(
        "admin: { address: 127.0.0.1:0 }",
        "admin: { address: 127.0.0.1:0, token: { env: TOKEN_KEY }, hosts: [callgate.svc] }",
    );
    let callgate = Callgate::start(&text, Clock::System);
    let admin = callgate.admin.unwrap();
    let get = |headers: &[(&str, &str)]| send_to(admin, "GET", "/callbacks", headers, b"").status;
    assert_eq!(get(&[]), 401);
    assert_eq!(get(&[("authorization", "Bearer wrong")]), 401);
    assert_eq!(get(&[("authorization", "Basic 0123456789abcdef0123456789abcdef")]), 401);
    assert_eq!(get(&[("authorization", "Bearer 0123456789abcdef0123456789abcdef")]), 200);
    assert_eq!(send_to(admin, "GET", "/metrics", &[], b"").status, 200);
    let mut stream = std::net::TcpStream::connect(admin).unwrap();
    let request = "GET /callbacks HTTP/1.1\r\nhost: callgate.svc\r\nauthorization: Bearer 0123456789abcdef0123456789abcdef\r\n\r\n";
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    assert_eq!(Response::read(&mut stream).status, 200);
}

#[test]
fn an_event_that_is_being_delivered_for_too_long_is_not_acknowledged() {
    let agent = Agent::start(ANSWER);
    let text = config(&agent.address.to_string(), "{ kind: memory }");
    let parsed = parse(&text);
    let metrics = Arc::new(Metrics::new().unwrap());
    let now = Timestamp::from_unix_ms(START);
    let store = Store::start(&parsed.startup.store, metrics, instant, now).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let route = Arc::clone(&parsed.policy.route("doc").unwrap().name);
    let path = CanonicalPath::parse("/doc/a").unwrap();
    let captures = parsed.policy.route("doc").unwrap().path.capture(&path);
    let follow = Follow::default();
    let report = Report::default();
    let scope = Scope::Captures(&captures);
    let events = [EventKey::of_id(&route, scope, b"msg_1")];
    let ask = Ask { events: &events, ..Ask::new(&route, &captures, &follow, &report) };
    runtime.block_on(async {
        let first = store.claim(&ask, now, Duration::ZERO).await.unwrap();
        let Err(ClaimError::Refused(refusal)) = store.claim(&ask, now, Duration::from_millis(5)).await else {
            panic!("delivered twice");
        };
        assert_eq!(refusal.denial.code(), "event_in_flight");
        drop(first);
        let second = store.claim(&ask, now, Duration::ZERO).await.unwrap();
        second.settle(&report, None, now).await.unwrap();
        let third = store.claim(&ask, now, Duration::ZERO).await;
        assert_eq!(third.unwrap_err(), ClaimError::Duplicate);
        // A delivered event is remembered for three days.
        store.pass(now.plus(Duration::from_secs(3 * 86_400 - 1))).await;
        assert_eq!(store.counts().1, 1);
        store.pass(now.plus(Duration::from_secs(3 * 86_400))).await;
        assert_eq!(store.counts().1, 0);
    });
}

#[test]
fn a_final_callback_that_is_being_delivered_at_the_deadline_counts() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let now = Arc::new(AtomicI64::new(START));
    let text = config(&listener.local_addr().unwrap().to_string(), "{ kind: memory }");
    let callgate = Callgate::start(&text, Clock::Set(Arc::clone(&now)));
    let minted = callgate.admin_send("POST", "/callbacks", r#"{"route":"doc","params":{"id":"a"}}"#).json();
    let (ingress, parsed) = (callgate.ingress, parse(&text));
    let answer = std::thread::scope(|scope| {
        let caller = scope
            .spawn(|| call(ingress, &parsed, &now, &minted, r#"{"status":"completed"}"#, "msg_1").status);
        let (mut stream, _) = listener.accept().unwrap();
        crate::harness::read_request(&mut stream, &mut Vec::new()).unwrap();
        // The deadline passes while the agent works. The gauge shows that the ledger has noticed the new time.
        now.store(START + 61 * MINUTE, Ordering::SeqCst);
        let age = "callgate_interactions_oldest_age_seconds{route=\"doc\"} 3660";
        eventually(|| callgate.metrics().contains(age).then_some(()));
        std::io::Write::write_all(&mut stream, ANSWER).unwrap();
        caller.join().unwrap()
    });
    assert_eq!(answer, 200);
    let path = format!("/callbacks/{}", minted["interaction"].as_str().unwrap());
    assert_eq!(callgate.admin_get(&path).json()["state"], "done");
}

#[test]
fn an_agent_that_hangs_on_its_notices_holds_up_nothing_else() {
    // An agent that accepts connections but never responds.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let now = Arc::new(AtomicI64::new(START));
    let text = config(&listener.local_addr().unwrap().to_string(), "{ kind: memory, interactions_max: 100 }");
    let callgate = Callgate::start(&text, Clock::Set(Arc::clone(&now)));
    let mint = || {
        let body = json!({ "route": "doc", "params": { "id": "a" }, "ttl": "30m" }).to_string();
        callgate.admin_send("POST", "/callbacks", &body).status
    };
    (0..100).for_each(|_| assert_eq!(mint(), 201));
    now.store(START + 31 * MINUTE, Ordering::SeqCst);
    let ended = "callgate_interactions_ended_total{outcome=\"expired\",route=\"doc\"} 100";
    eventually(|| callgate.metrics().contains(ended).then_some(()));
    let page = callgate.metrics();
    let mut notices = page.lines().filter(|line| line.starts_with("callgate_notices_total{"));
    assert!(notices.all(|line| line.ends_with("} 0")), "none is answered yet: {page}");
    assert_eq!(mint(), 503, "they are remembered until the agent was told");
}

#[test]
fn a_notice_that_was_overtaken_while_it_waited_is_not_sent() {
    // Sixteen notices are sent at the same time, and the agent does not answer them. The others wait, and their
    // interactions are revoked meanwhile.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let now = Arc::new(AtomicI64::new(START));
    let text = config(&listener.local_addr().unwrap().to_string(), "{ kind: memory }")
        .replace("agent: { address", "agent: { timeouts: { connect: 1s, response: 1s }, address");
    let callgate = Callgate::start(&text, Clock::Set(Arc::clone(&now)));
    let body = json!({ "route": "doc", "params": { "id": "a" } }).to_string();
    let ids: Vec<_> = (0..40)
        .map(|_| {
            callgate.admin_send("POST", "/callbacks", &body).json()["interaction"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    now.store(START + 11 * MINUTE, Ordering::SeqCst);
    let mut open: Vec<_> = (0..16).map(|_| listener.accept().unwrap().0).collect();
    let told = |stream: &mut std::net::TcpStream| {
        let notice = crate::harness::read_request(stream, &mut Vec::new()).unwrap();
        notice.header("callgate-interaction")[0].to_owned()
    };
    let under_way: Vec<_> = open.iter_mut().map(told).collect();
    for id in ids.iter().filter(|id| !under_way.contains(id)) {
        assert_eq!(callgate.admin_send("DELETE", &format!("/callbacks/{id}"), "").status, 204);
    }
    let failed = "callgate_notices_total{cause=\"stalled\",outcome=\"failed\",route=\"doc\"} 16";
    eventually(|| callgate.metrics().contains(failed).then_some(()));
    // All waiting notices would have been sent by now. None was sent for a revoked interaction.
    now.fetch_add(1000, Ordering::SeqCst);
    for _ in 0..16 {
        assert!(under_way.contains(&told(&mut listener.accept().unwrap().0)));
    }
}
