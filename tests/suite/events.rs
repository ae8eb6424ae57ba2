//! The memory of delivered events: when it is full, the oldest events make room, and no callback is denied.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use callgate::clock::Clock;
use callgate::config::Config;
use callgate::request::RequestHead;
use callgate::signature::SignatureContext;
use callgate::source::LOOPBACK;
use callgate::time::Timestamp;
use http::HeaderMap;
use serde_json::json;

use crate::harness::{ANSWER, Agent, Callgate, parse, send_to};
use crate::ledger::World;

const START: i64 = 1_767_225_600_000;

/// Calls `test` with a memory store and with a file store that have room for this number of events.
fn for_both_stores(events_max: usize, test: impl Fn(&str)) {
    let folder = tempfile::tempdir().unwrap();
    test(&format!("{{ kind: memory, events_max: {events_max} }}"));
    test(&format!("{{ kind: file, path: {}/ledger, events_max: {events_max} }}", folder.path().display()));
}

/// A Callgate with three routes without interactions. Their signatures have a timestamp with a tolerance of five minutes,
/// one of half an hour, and no timestamp. The callbacks of a fourth route belong to interactions and have no timestamp.
struct Signed {
    agent: Agent,
    callgate: Callgate,
    config: Config,
    text: String,
    now: Arc<AtomicI64>,
}

impl Signed {
    fn start(store: &str) -> Self {
        let (agent, now) = (Agent::start(ANSWER), Arc::new(AtomicI64::new(START)));
        let text = format!(
            "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
store: {store}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
providers:
  short: {{ preset: standard-webhooks, secrets: [ {{ env: WHSEC }} ] }}
  long: {{ preset: standard-webhooks, secrets: [ {{ env: WHSEC }} ], tolerance: 30m }}
  timeless: {{ preset: github, secrets: [ {{ env: WHSEC }} ] }}
routes:
  - {{ name: short, path: /short, provider: short, forward: /in/short }}
  - {{ name: long, path: /long, provider: long, forward: /in/long }}
  - {{ name: timeless, path: /timeless, provider: timeless, forward: /in/timeless }}
  - {{ name: owned, path: /owned, provider: timeless, token: {{ kind: callback }}, forward: /in/owned }}
",
            agent.address
        );
        let callgate = Callgate::start(&text, Clock::Set(Arc::clone(&now)));
        Self { agent, callgate, config: parse(&text), text, now }
    }

    /// Sends an event as the provider does. Returns whether the agent received it.
    fn delivers(&self, provider: &str, event: &str) -> bool {
        let before = self.agent.received().len();
        self.sender().send(provider, event);
        self.agent.received().len() > before
    }

    /// Sends an event of the interaction with this token. Returns whether the agent received it.
    fn delivers_owned(&self, token: &str, event: &str) -> bool {
        let before = self.agent.received().len();
        self.sender().send_to("/owned", "timeless", Some(token), event);
        self.agent.received().len() > before
    }

    /// Stops Callgate and starts it with this configuration, at the same time of the test's clock.
    fn restart(&mut self, text: &str) {
        self.callgate.stop_in_background().join().unwrap();
        self.callgate = Callgate::start(text, Clock::Set(Arc::clone(&self.now)));
    }

    fn sender(&self) -> Sender<'_> {
        Sender { ingress: self.callgate.ingress, config: &self.config, at: self.now.load(Ordering::SeqCst) }
    }

    fn metric(&self, line: &str) -> Option<f64> {
        self.callgate.metrics().lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
    }
}

/// A provider, for several threads.
struct Sender<'a> {
    ingress: SocketAddr,
    config: &'a Config,
    at: i64,
}

impl Sender<'_> {
    fn send(&self, provider: &str, event: &str) {
        self.send_to(&format!("/{provider}"), provider, None, event);
    }

    fn send_to(&self, target: &str, provider: &str, token: Option<&str>, event: &str) {
        let headers = HeaderMap::new();
        let verifier = self.config.policy.provider(provider).unwrap().verifier.as_ref().unwrap();
        let at = Timestamp::from_unix_ms(self.at);
        let signed = SignatureContext::new(RequestHead::new("POST", target, &headers, LOOPBACK), "", at);
        let body = format!("{{\"event\":\"{event}\"}}");
        let headers = verifier.sign(&signed, body.as_bytes(), event).unwrap().headers;
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        let headers: Vec<_> =
            headers.chain(bearer.as_deref().map(|value| ("authorization", value))).collect();
        let response = send_to(self.ingress, "POST", target, &headers, body.as_bytes());
        assert_eq!(response.status, 200, "{target} {event}: {}", response.text());
    }
}

#[test]
fn a_full_memory_of_events_denies_no_callback_of_an_open_interaction() {
    for_both_stores(3, |store| {
        let world = World::new(store);
        let minted = world.mint(&json!({ "route": "doc", "params": { "id": "a" } }));
        for i in 0..10 {
            assert_eq!(world.call_as(&minted, "{}", &format!("msg_{i}")).status, 200, "{store}");
            assert_eq!(world.agent.received().len(), i + 1);
        }
        for i in 7..10 {
            assert_eq!(world.call_as(&minted, "{}", &format!("msg_{i}")).status, 200, "it is a duplicate");
        }
        assert_eq!(world.agent.received().len(), 10);
        assert_eq!(world.read(&minted)["deliveries"], 10);
        assert_eq!(world.metric("callgate_store_events "), Some(3.0));
        assert_eq!(world.metric("callgate_store_events_max "), Some(3.0));
        assert_eq!(world.metric("callgate_store_events_forgotten_total "), Some(7.0));
        // The oldest event of another interaction makes room, too.
        world.at(1);
        let other = world.mint(&json!({ "route": "doc", "params": { "id": "b" } }));
        assert_eq!(world.call_as(&other, "{}", "msg_0").status, 200);
        assert_eq!(world.call_as(&other, "{}", "msg_0").status, 200);
        assert_eq!(world.call_as(&minted, "{}", "msg_9").status, 200);
        assert_eq!(world.agent.received().len(), 11);
    });
}

#[test]
fn events_of_ended_interactions_make_room_first_and_are_not_delivered_again() {
    for_both_stores(4, |store| {
        let world = World::new(store);
        let open = world.mint(&json!({ "route": "doc", "params": { "id": "a" } }));
        assert_eq!(world.call_as(&open, "{}", "open_1").status, 200);
        let ended = world.mint(&json!({ "route": "doc", "params": { "id": "b" } }));
        assert_eq!(world.call_as(&ended, r#"{"status":"working"}"#, "ended_1").status, 200);
        assert_eq!(world.call_as(&ended, r#"{"status":"completed"}"#, "ended_2").status, 200);
        assert_eq!(world.call_as(&ended, r#"{"status":"completed"}"#, "ended_2").status, 200, "it is known");
        assert_eq!(world.call_as(&open, "{}", "open_2").status, 200);
        assert_eq!(world.agent.received().len(), 4);
        // The fifth event: those of the ended interaction go, although `open_1` is older.
        assert_eq!(world.call_as(&open, "{}", "open_3").status, 200);
        assert_eq!(world.metric("callgate_store_events "), Some(3.0), "{store}");
        assert_eq!(world.metric("callgate_store_events_forgotten_total "), Some(0.0));
        for event in ["open_1", "open_2", "open_3"] {
            assert_eq!(world.call_as(&open, "{}", event).status, 200);
        }
        for event in ["ended_1", "ended_2"] {
            assert_eq!(world.call_as(&ended, r#"{"status":"working"}"#, event).status, 410);
        }
        assert_eq!(world.agent.received().len(), 5);
    });
}

#[test]
fn the_oldest_events_without_an_interaction_make_room() {
    for_both_stores(3, |store| {
        let signed = Signed::start(store);
        for i in 0..10 {
            assert!(signed.delivers("short", &format!("msg_{i}")), "{store}");
        }
        for i in 7..10 {
            assert!(!signed.delivers("short", &format!("msg_{i}")), "it is a duplicate");
        }
        assert!(signed.delivers("short", "msg_0"));
        assert_eq!(signed.metric("callgate_store_events "), Some(3.0));
        assert_eq!(signed.metric("callgate_store_events_forgotten_total "), Some(8.0));
    });
}

#[test]
fn an_event_that_can_still_be_replayed_goes_last() {
    for_both_stores(4, |store| {
        let signed = Signed::start(store);
        let minutes = |minutes: i64| {
            signed.now.fetch_add(minutes * 60_000, Ordering::SeqCst);
        };
        assert!(signed.delivers("timeless", "t"));
        minutes(1);
        assert!(signed.delivers("long", "l"));
        for i in 0..2 {
            minutes(1);
            assert!(signed.delivers("short", &format!("s_{i}")), "{store}");
        }
        // After a quarter of an hour, no replay of `short` passes, but `t` and `l` could be replayed.
        minutes(15);
        assert!(signed.delivers("short", "s_2"));
        minutes(1);
        assert!(signed.delivers("short", "s_3"));
        assert!(!signed.delivers("timeless", "t"));
        assert!(!signed.delivers("long", "l"));
        assert!(!signed.delivers("short", "s_2"));
        assert!(!signed.delivers("short", "s_3"));
        // Now all of them could be replayed, and the oldest goes.
        assert!(signed.delivers("short", "s_4"));
        for (provider, event) in [("long", "l"), ("short", "s_2"), ("short", "s_3"), ("short", "s_4")] {
            assert!(!signed.delivers(provider, event), "{event} is remembered");
        }
        assert!(signed.delivers("timeless", "t"), "it was the oldest");
    });
}

#[test]
fn a_restart_keeps_the_remembered_events_and_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("{{ kind: file, path: {}/ledger, events_max: 4 }}", folder.path().display());
    let mut signed = Signed::start(&store);
    for event in ["a", "b", "c", "d", "e"] {
        assert!(signed.delivers("short", event));
    }
    signed.restart(&signed.text.clone());
    assert_eq!(signed.metric("callgate_store_events "), Some(4.0));
    for event in ["b", "c", "d", "e"] {
        assert!(!signed.delivers("short", event), "{event} was delivered before");
    }
    assert!(signed.delivers("short", "f"));
    assert!(!signed.delivers("short", "c"));
    assert!(signed.delivers("short", "b"), "it was the oldest");
    // With a smaller limit, the next start forgets the oldest events.
    signed.restart(&signed.text.replace("events_max: 4", "events_max: 2"));
    crate::harness::eventually(|| (signed.metric("callgate_store_events ") == Some(2.0)).then_some(()));
    assert!(!signed.delivers("short", "b"));
    assert!(signed.delivers("short", "d"));
}

#[test]
fn a_restart_keeps_the_events_of_an_interaction_without_timestamps_and_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("{{ kind: file, path: {}/ledger, events_max: 4 }}", folder.path().display());
    let mut signed = Signed::start(&store);
    let minted = signed.callgate.admin_send("POST", "/callbacks", r#"{"route":"owned"}"#).json();
    let token = minted["callback_token"].as_str().unwrap();
    let deliver = |signed: &Signed, event: &str| {
        signed.now.fetch_add(60_000, Ordering::SeqCst);
        assert!(signed.delivers_owned(token, event), "{event}");
        assert!(!signed.delivers_owned(token, event), "{event} was delivered before");
    };
    for event in ["a", "b", "c", "d", "e"] {
        deliver(&signed, event);
    }
    signed.restart(&signed.text.clone());
    for event in ["b", "c", "d", "e"] {
        assert!(!signed.delivers_owned(token, event), "{event} was delivered before");
    }
    deliver(&signed, "f");
    for event in ["c", "d", "e", "f"] {
        assert!(!signed.delivers_owned(token, event), "{event} is remembered");
    }
    deliver(&signed, "b");
}

#[test]
fn a_full_memory_of_events_under_load_denies_nothing_and_stays_bounded() {
    const CALLERS: usize = 4;
    const EACH: usize = 250;
    for_both_stores(50, |store| {
        let signed = Signed::start(store);
        std::thread::scope(|scope| {
            for caller in 0..CALLERS {
                let signed = signed.sender();
                scope.spawn(move || {
                    (0..EACH).for_each(|i| signed.send("short", &format!("msg_{caller}_{i}")))
                });
            }
        });
        assert_eq!(signed.agent.received().len(), CALLERS * EACH, "{store}");
        assert_eq!(signed.metric("callgate_store_events "), Some(50.0));
        assert_eq!(signed.metric("callgate_store_events_forgotten_total "), Some(950.0));
    });
}
