//! Accepting, delivering, and giving up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use callgate::clock::Clock;
use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;
use tempfile::tempdir;

use super::{FAST, answer, bodies, call_at, config, signature};
use crate::engine::free_port;
use crate::harness::{Agent, Callgate, env, eventually, send_to};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[test]
fn a_callback_is_kept_and_then_delivered() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(OK));
    let config = config(folder.path(), &agent.address.to_string(), "inbox", "", "");
    let callgate = Callgate::start(&config, Clock::System);
    let minted = callgate.mint("a");
    let response = callgate.call(&minted, "evt_1", r#"{"status":"done"}"#);
    assert_eq!((response.status, response.json()), (202, json!({ "result": "accepted" })));
    let view = callgate.admin_get(&format!("/callbacks/{}", minted.interaction)).json();
    assert_eq!(view["state"], "done", "{view}");
    let received = agent.wait_for(1).remove(0);
    assert_eq!((received.target(), &*received.body), ("/in/a", br#"{"status":"done"}"#.as_slice()));
    assert_eq!(received.header("callgate-attempt"), ["1"]);
    assert_eq!(received.header("callgate-content"), ["untrusted"]);
    assert_eq!(received.header("callgate-event-id"), ["evt_1"]);
    assert_eq!(received.header("callgate-interaction"), [&*minted.interaction]);
    assert!(received.header("callgate-received-at")[0].ends_with('Z'));
    assert_eq!(received.header("callgate-assertion").len(), 1);
    assert!(received.header("authorization").is_empty(), "the token is not kept");
    assert_eq!(received.header("webhook-id"), ["evt_1"]);
    let at = received.header("webhook-timestamp")[0];
    let signed = signature(&format!("evt_1.{at}.{}", String::from_utf8_lossy(&received.body)));
    assert_eq!(received.header("webhook-signature"), [&*signed]);
    // The same event again is answered, and not delivered.
    let again = callgate.call(&minted, "evt_1", r#"{"status":"done"}"#);
    assert_eq!((again.status, again.json()), (200, json!({ "result": "duplicate" })));
    eventually(|| (callgate.metric("callgate_inbox_waiting") == 0.0).then_some(()));
    assert_eq!(agent.received().len(), 1);
    let log = callgate.logged(2);
    let reasons: Vec<_> = log.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["accepted", "duplicate"]);
}

/// Returns the interaction as the callbacks API shows it.
fn view(callgate: &Callgate, interaction: &str) -> serde_json::Value {
    callgate.admin_get(&format!("/callbacks/{interaction}")).json()
}

/// Checks that an agent is informed when it receives the final callback, and not when Callgate keeps it.
pub fn is_informed_by_delivery(text: &str, agent: &Agent) {
    let callgate = Callgate::start(text, Clock::System);
    let minted = callgate.mint("a");
    let received = agent.received().len();
    assert_eq!(callgate.call(&minted, "evt_1", r#"{"status":"done"}"#).status, 202);
    agent.wait_for(received + 1);
    let kept = view(&callgate, &minted.interaction);
    assert_eq!((&kept["state"], &kept["informed_at"]), (&json!("done"), &json!(null)), "{kept}");
    assert!(kept["ended_at"].is_string() && kept["informed"] == json!([]), "{kept}");
    agent.answers(OK);
    let known = eventually(|| {
        Some(view(&callgate, &minted.interaction)).filter(|view| view["informed_at"].is_string())
    });
    assert_eq!(known["informed"], json!([{ "by": "final_callback", "at": known["informed_at"] }]));
    drop(callgate);
    let again = Callgate::start(text, Clock::System);
    assert_eq!(view(&again, &minted.interaction)["informed_at"], known["informed_at"]);
}

#[test]
fn the_agent_is_informed_when_it_receives_the_final_callback() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(&answer(500, "")));
    is_informed_by_delivery(&config(folder.path(), &agent.address.to_string(), "inbox", FAST, ""), &agent);
}

#[test]
fn an_agent_that_was_away_gets_everything_in_order() {
    let folder = tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = config(folder.path(), &address.to_string(), "inbox", FAST, "");
    let callgate = Callgate::start(&config, Clock::System);
    let interactions: Vec<_> = (0..4).map(|n| callgate.mint(&format!("i{n}"))).collect();
    let send = |callgate: &Callgate, range: std::ops::Range<usize>| {
        for event in range {
            for (n, minted) in interactions.iter().enumerate() {
                let body = json!({ "progress": event }).to_string();
                assert_eq!(callgate.call(minted, &format!("e{n}-{event}"), &body).status, 202);
            }
        }
    };
    send(&callgate, 0..5);
    eventually(|| (callgate.metric("callgate_inbox_circuit_open") == 1.0).then_some(()));
    assert_eq!(callgate.metric("callgate_inbox_waiting"), 20.0);
    let view = callgate.admin_get(&format!("/callbacks/{}", interactions[0].interaction)).json();
    assert_eq!(view["undelivered"]["count"], 5, "{view}");
    // The process dies, and the messages are there after the next start.
    callgate.kill();
    let callgate = Callgate::start(&config, Clock::System);
    send(&callgate, 5..8);
    let agent = Agent::start_at(address, OK);
    agent.wait_for(32);
    eventually(|| (callgate.metric("callgate_inbox_waiting") == 0.0).then_some(()));
    let bodies = bodies(&agent);
    for n in 0..4 {
        let progress: Vec<_> =
            bodies[&format!("/in/i{n}")].iter().map(|body| body["progress"].as_u64().unwrap()).collect();
        assert_eq!(progress, [0, 1, 2, 3, 4, 5, 6, 7], "interaction {n}");
    }
    for received in agent.received() {
        assert_eq!(received.header("callgate-attempt"), ["1"], "no attempt was used up");
    }
    assert_eq!(callgate.metric("callgate_inbox_dead"), 0.0);
}

/// `benches/inbox.py --night` does the same with 100,000 messages, and measures their memory.
#[test]
fn a_night_away_leaves_nothing_dead_and_everything_drains_in_order() {
    const INTERACTIONS: usize = 32;
    const EACH: usize = 25;
    let folder = tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let now = Arc::new(AtomicI64::new(Clock::System.now().unix_ms()));
    let text = config(folder.path(), &address.to_string(), "inbox", "", "");
    let callgate = Callgate::start(&text, Clock::Set(Arc::clone(&now)));
    let minted: Vec<_> = (0..INTERACTIONS).map(|n| callgate.mint(&format!("i{n}"))).collect();
    std::thread::scope(|scope| {
        for some in minted.chunks(INTERACTIONS / 8) {
            let ingress = callgate.ingress;
            scope.spawn(move || {
                for n in 0..EACH {
                    for one in some {
                        let (event, body) =
                            (format!("{}-{n}", one.interaction), json!({ "n": n }).to_string());
                        assert_eq!(call_at(ingress, one, &event, &body).status, 202);
                    }
                }
            });
        }
    });
    assert_eq!(callgate.metric("callgate_inbox_waiting"), (INTERACTIONS * EACH) as f64);
    eventually(|| (callgate.metric("callgate_inbox_circuit_open") == 1.0).then_some(()));
    // Eight hours, in which the agent is probed again and again.
    for _ in 0..8 {
        let before = callgate.metric("callgate_inbox_attempts_total");
        now.fetch_add(3_600_000, Ordering::SeqCst);
        eventually(|| (callgate.metric("callgate_inbox_attempts_total") > before).then_some(()));
    }
    let agent = Agent::start_at(address, OK);
    now.fetch_add(3_600_000, Ordering::SeqCst);
    eventually(|| (callgate.metric("callgate_inbox_waiting") == 0.0).then_some(()));
    assert_eq!(callgate.metric("callgate_inbox_dead"), 0.0);
    let bodies = bodies(&agent);
    for n in 0..INTERACTIONS {
        let numbers: Vec<_> =
            bodies[&format!("/in/i{n}")].iter().map(|body| body["n"].as_u64().unwrap()).collect();
        assert!(numbers.iter().copied().eq(0..EACH as u64), "interaction {n}: {numbers:?}");
    }
    let attempts = agent.received().into_iter().filter(|one| one.target().starts_with("/in/"));
    assert!(attempts.clone().count() == INTERACTIONS * EACH, "every message is delivered once");
    for received in attempts {
        assert_eq!(received.header("callgate-attempt"), ["1"], "no attempt was used up");
    }
}

#[test]
fn failures_are_tried_again_and_hold_back_only_their_interaction() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(&answer(500, "")));
    let config = config(folder.path(), &agent.address.to_string(), "inbox", FAST, "");
    let callgate = Callgate::start(&config, Clock::System);
    let minted = callgate.mint("a");
    for event in 0..3 {
        assert_eq!(
            callgate.call(&minted, &format!("e{event}"), &json!({ "n": event }).to_string()).status,
            202
        );
    }
    let failed = agent.wait_for(4);
    assert!(failed.iter().all(|received| received.header("webhook-id") == ["e0"]), "the first one blocks");
    agent.answers(OK);
    eventually(|| (callgate.metric("callgate_inbox_waiting") == 0.0).then_some(()));
    let received = agent.received();
    assert!(received.len() > 5, "{}", received.len());
    let numbers: Vec<_> = received
        .iter()
        .map(|received| received.header("callgate-attempt")[0].parse::<usize>().unwrap())
        .collect();
    let first = received.len() - 2;
    assert_eq!(numbers[..first], (1..=first).collect::<Vec<_>>(), "{numbers:?}");
    let last: Vec<_> =
        received[first..].iter().map(|received| received.header("webhook-id")[0].to_owned()).collect();
    assert_eq!(last, ["e1", "e2"]);
}

#[test]
fn messages_that_the_agent_does_not_want_are_dead_and_can_be_replayed() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(&answer(410, "")));
    let config = config(folder.path(), &agent.address.to_string(), "inbox", FAST, "");
    let callgate = Callgate::start(&config, Clock::System);
    let (gone, rejected) = (callgate.mint("gone"), callgate.mint("rejected"));
    assert_eq!(callgate.call(&gone, "e1", "{}").status, 202);
    eventually(|| (callgate.metric("callgate_inbox_dead") == 1.0).then_some(()));
    agent.answers(&answer(404, ""));
    assert_eq!(callgate.call(&rejected, "e2", "{}").status, 202);
    assert_eq!(callgate.call(&rejected, "e3", r#"{"status":"done"}"#).status, 202);
    eventually(|| (callgate.metric("callgate_inbox_dead") == 3.0).then_some(()));
    let of =
        |id: &str| agent.received().iter().filter(|received| received.header("webhook-id") == [id]).count();
    assert_eq!((of("e1"), of("e2"), of("e3")), (1, 3, 3));
    // The agent hears of it with its next answer.
    agent.answers(OK);
    let notices = || -> Vec<_> {
        agent.received().into_iter().filter(|received| received.target().starts_with("/overdue/")).collect()
    };
    let accepted = eventually(|| Some(notices()).filter(|notices| notices.len() >= 2));
    let body: serde_json::Value = serde_json::from_slice(&accepted.last().unwrap().body).unwrap();
    assert_eq!(
        (&body["outcome"], body["undelivered"]["count"].as_u64().unwrap() > 0),
        (&json!("undelivered"), true)
    );
    assert!(accepted.iter().all(|notice| notice.header("callgate-content").is_empty()));
}

#[test]
fn a_full_inbox_denies_and_loses_nothing() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(&answer(503, "retry-after: 1000000000\r\n")));
    let config = config(
        folder.path(),
        &agent.address.to_string(),
        "inbox",
        "messages_max: 2",
        "explain_denials: true\n",
    );
    let callgate = Callgate::start(&config, Clock::System);
    let minted = callgate.mint("a");
    assert_eq!(callgate.call(&minted, "e1", "{}").status, 202);
    assert_eq!(callgate.call(&minted, "e2", "{}").status, 202);
    let full = callgate.call(&minted, "e3", "{}");
    assert_eq!((full.status, full.header("retry-after")), (503, Some("5")), "{}", full.text());
    assert_eq!(full.json()["reason"], "inbox_full");
    // The event was not recorded, so that the provider's retry is kept once there is room.
    assert_eq!(callgate.call(&minted, "e3", "{}").status, 503);
    assert_eq!(callgate.call(&minted, "e1", "{}").status, 200);
}

#[test]
fn a_route_with_waiting_messages_is_not_removed_by_accident() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(&answer(503, "retry-after: 3600\r\n")));
    let text = config(folder.path(), &agent.address.to_string(), "inbox", FAST, "");
    let callgate = Callgate::start(&text, Clock::System);
    let minted = callgate.mint("a");
    assert_eq!(callgate.call(&minted, "e1", "{}").status, 202);
    agent.wait_for(1);
    let renamed = text.replace("name: doc", "name: other");
    let refused = callgate.reload(&renamed).unwrap_err();
    assert!(refused.contains("removed route doc"), "{refused}");
    callgate.reload(&renamed.replace("inbox: { backoff", "inbox: { removed_routes: drop, backoff")).unwrap();
    eventually(|| (callgate.metric("callgate_inbox_dead") == 1.0).then_some(()));
    let dead = callgate.admin_get("/inbox").json();
    assert_eq!(dead["messages"][0]["cause"], "route_removed", "it stays readable: {dead}");
}

#[test]
fn bodies_are_encrypted_and_headers_with_secrets_are_not_kept() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(&answer(503, "")));
    let settings = format!("seal: {{ env: JWT_KEY }}, {FAST}");
    let text = config(folder.path(), &agent.address.to_string(), "inbox", &settings, "");
    let callgate = Callgate::start(&text, Clock::System);
    let minted = callgate.mint("a");
    assert_eq!(callgate.call(&minted, "e1", r#"{"note":"very private"}"#).status, 202);
    agent.wait_for(1);
    callgate.kill();
    let file = std::fs::read(folder.path().join("ledger")).unwrap();
    let has = |text: &str| file.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!has("very private") && !has("Bearer") && has("/in/a"));
    agent.answers(OK);
    let callgate = Callgate::start(&text, Clock::System);
    eventually(|| (callgate.metric("callgate_inbox_waiting") == 0.0).then_some(()));
    assert_eq!(agent.received().last().unwrap().body, br#"{"note":"very private"}"#);
}

#[test]
fn progress_that_newer_progress_overtakes_is_dropped() {
    let folder = tempdir().unwrap();
    let agent = Agent::start(&answer(503, "retry-after: 1\r\n"));
    let text = config(folder.path(), &agent.address.to_string(), "inbox", "coalesce: progress", "");
    let callgate = Callgate::start(&text, Clock::System);
    let minted = callgate.mint("a");
    for progress in 1..=5 {
        assert_eq!(
            callgate
                .call(&minted, &format!("e{progress}"), &json!({ "progress": progress }).to_string())
                .status,
            202
        );
        if progress == 1 {
            agent.wait_for(1);
        }
    }
    assert_eq!(callgate.call(&minted, "e6", r#"{"status":"done"}"#).status, 202);
    let before = agent.wait_for(5).len();
    agent.answers(OK);
    eventually(|| (callgate.metric("callgate_inbox_waiting") == 0.0).then_some(()));
    let received = agent.received().into_iter().skip(before);
    let delivered: Vec<_> = received.map(|one| one.header("webhook-id")[0].to_owned()).collect();
    // Progress that was being delivered when newer progress arrived is not dropped.
    let is_right = delivered.ends_with(&["e5".to_owned(), "e6".to_owned()]) && delivered.len() <= 3;
    assert!(is_right, "only the latest progress waits, and the end is never dropped: {delivered:?}");
}

#[test]
fn a_route_paces_its_deliveries_and_denies_nothing() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(OK));
    let text = config(folder.path(), &agent.address.to_string(), "inbox", "order: none", "    rate: 10/s\n");
    let callgate = Callgate::start(&text, Clock::System);
    let began = callgate::clock::instant();
    let minted = callgate.mint("a");
    for event in 0..20 {
        assert_eq!(callgate.call(&minted, &format!("e{event}"), "{}").status, 202);
    }
    agent.wait_for(20);
    assert!(began.elapsed().as_millis() >= 900, "ten at once, and then ten in a second");
}

#[test]
fn time_ends_the_attempts_and_a_clock_that_jumps_back_delays_nothing() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(&answer(503, "retry-after: 600\r\n")));
    let now = Arc::new(AtomicI64::new(Clock::System.now().unix_ms()));
    let text = config(folder.path(), &agent.address.to_string(), "inbox", "for: 1h", "");
    let callgate = Callgate::start(&text, Clock::Set(Arc::clone(&now)));
    let minted = callgate.mint("a");
    assert_eq!(callgate.call(&minted, "e1", "{}").status, 202);
    agent.wait_for(1);
    // The next attempt is due in ten minutes, also after the clock is set back by 40 minutes.
    let due = || callgate.admin_get("/inbox").json()["messages"][0]["due_at"].as_str().map(str::to_owned);
    let before = eventually(due);
    now.fetch_sub(40 * 60_000, Ordering::SeqCst);
    eventually(|| due().filter(|due| *due != before));
    now.fetch_add(601_000, Ordering::SeqCst);
    agent.wait_for(2);
    now.fetch_add(3_600_000, Ordering::SeqCst);
    eventually(|| (callgate.metric("callgate_inbox_dead") == 1.0).then_some(()));
    let dead = callgate.admin_get("/inbox").json();
    assert_eq!(dead["messages"][0]["cause"], "given_up", "{dead}");
    // Retention ends, too.
    now.fetch_add(8 * 86_400_000, Ordering::SeqCst);
    eventually(|| {
        callgate.admin_get("/inbox").json()["messages"].as_array().unwrap().is_empty().then_some(())
    });
}

#[test]
fn an_agent_that_is_away_is_woken() {
    let folder = tempdir().unwrap();
    let scaler = Agent::start(OK);
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let text = config(folder.path(), &address.to_string(), "inbox", "", "");
    let wake = format!(
        "agent: {{ wake: {{ url: \"http://{}/wake\", headers: {{ x-key: {{ env: STATIC }} }} }}, ",
        scaler.address
    );
    let callgate = Callgate::start(&text.replace("agent: { ", &wake), Clock::System);
    let minted = callgate.mint("a");
    for event in 0..3 {
        assert_eq!(callgate.call(&minted, &format!("e{event}"), "{}").status, 202);
    }
    let woken = scaler.wait_for(1).remove(0);
    assert_eq!((woken.target(), woken.header("x-key")), ("/wake", vec!["a static secret"]));
    let agent = Agent::start_at(address, OK);
    agent.wait_for(3);
    assert_eq!(scaler.received().len(), 1, "at most once in thirty seconds");
}

#[test]
fn an_agent_that_hangs_or_closes_gets_the_message_again() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(b""));
    let text = config(folder.path(), &agent.address.to_string(), "inbox", FAST, "");
    let callgate = Callgate::start(&text, Clock::System);
    let minted = callgate.mint("a");
    assert_eq!(callgate.call(&minted, "e1", "{}").status, 202);
    agent.wait_for(2);
    // The agent does not answer within `timeouts.response`.
    agent.answers(b"HTTP/1.1 200 OK\r\n");
    eventually(|| callgate.metrics().contains("result=\"agent_timeout\"} 1").then_some(()));
    agent.answers(OK);
    eventually(|| (callgate.metric("callgate_inbox_waiting") == 0.0).then_some(()));
    assert_eq!(callgate.metric("callgate_inbox_dead"), 0.0);
}

#[test]
fn signatures_of_the_provider_are_kept_only_on_demand() {
    for (settings, kept) in [("", false), ("original_signature: keep", true)] {
        let (folder, agent) = (tempdir().unwrap(), Agent::start(OK));
        let text = config(
            folder.path(),
            &agent.address.to_string(),
            "inbox",
            settings,
            "  - { name: hook, path: /hook, provider: h, forward: /in/hook, deliver: inbox }\n",
        );
        let provider = "providers: { h: { preset: github, secrets: [ { env: JWT_KEY } ] }, ";
        let callgate = Callgate::start(&text.replace("providers: { ", provider), Clock::System);
        let mut mac = Hmac::<Sha256>::new_from_slice(env("JWT_KEY").unwrap().as_bytes()).unwrap();
        mac.update(b"{}");
        let signature = format!("sha256={}", HEXLOWER.encode(&mac.finalize().into_bytes()));
        let headers = [
            ("x-hub-signature-256", &*signature),
            ("x-github-delivery", "d1"),
            ("x-github-event", "push"),
            ("webhook-id", "forged"),
            ("webhook-signature", "v1,forged"),
        ];
        assert_eq!(send_to(callgate.ingress, "POST", "/hook", &headers, b"{}").status, 202);
        let received = agent.wait_for(1).remove(0);
        assert_eq!(received.header("x-github-event"), ["push"]);
        let signatures = if kept { vec![&*signature] } else { Vec::new() };
        assert_eq!(received.header("x-hub-signature-256"), signatures);
        assert!(received.header("webhook-id")[0].starts_with("msg_"), "{}", received.head);
        assert_eq!((received.header("webhook-id").len(), received.header("webhook-timestamp").len()), (1, 1));
        assert!(received.header("webhook-signature").is_empty(), "there is no key that the agent knows");
    }
}

#[test]
fn messages_beyond_the_rate_of_their_route_stay_where_they_are() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(OK));
    let other = "    rate: 2/h
  - { name: hook, path: /hook, provider: sw, forward: /in/hook, deliver: inbox }\n";
    let text = config(folder.path(), &agent.address.to_string(), "inbox", "", other);
    let callgate = Callgate::start(&text, Clock::System);
    for n in 0..10 {
        assert_eq!(callgate.call(&callgate.mint(&format!("i{n}")), &format!("e{n}"), "{}").status, 202);
    }
    agent.wait_for(2);
    // Each callback of the other route makes Callgate look at the messages again, and is not held back.
    for n in 0..5 {
        let event = format!("h{n}");
        let now = Clock::System.now().unix_secs().to_string();
        let signature = signature(&format!("{event}.{now}.{{}}"));
        let headers =
            [("webhook-id", &*event), ("webhook-timestamp", &now), ("webhook-signature", &signature)];
        assert_eq!(send_to(callgate.ingress, "POST", "/hook", &headers, b"{}").status, 202);
        agent.wait_for(3 + n);
    }
    let mut first: Vec<_> =
        agent.received()[..2].iter().map(|one| one.header("callgate-event-id")[0].to_owned()).collect();
    first.sort();
    assert_eq!(first, ["e0", "e1"]);
    let due = || callgate.admin_get("/inbox?state=due").json()["messages"].as_array().unwrap().clone();
    let due = eventually(|| Some(due()).filter(|due| due.len() == 8));
    assert!(due.iter().all(|message| message["due_at"] == message["received_at"]), "{due:?}");
}
