//! The callbacks API finds interactions by what they are for.

use callgate::clock::Clock;
use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::{ANSWER, Agent, Callgate, env, send_to};
use crate::ledger::World;

#[test]
fn interactions_are_found_by_a_capture() {
    let world = World::new("{ kind: memory }");
    let wanted = world.mint(&json!({ "route": "doc", "params": { "id": "doc-7f3a" } }));
    world.mint(&json!({ "route": "doc", "params": { "id": "other" } }));
    let found = |query: &str| {
        let page = world.callgate.admin_get(&format!("/callbacks?{query}")).json();
        let found = page["interactions"].as_array().unwrap().iter();
        found.map(|one| one["interaction"].clone()).collect::<Vec<_>>()
    };
    for query in
        ["capture.id=doc-7f3a", "capture.id=doc%2D7f3a&route=doc&state=open", "capture%2Eid=doc-7f3a"]
    {
        assert_eq!(found(query), [wanted["interaction"].clone()], "{query}");
    }
    assert_eq!(found("capture.id=doc").len(), 0);
    assert_eq!(found("capture.id=doc-7f3a&route=doc&state=done").len(), 0);
    assert_eq!(found("provider_id=none").len(), 0);
    assert_eq!(found("").len(), 2);
}

#[test]
fn a_misspelt_or_repeated_filter_is_an_error() {
    let world = World::new("{ kind: memory }");
    for query in
        ["captures.id=a", "stat=open", "route=doc&route=doc", "capture.id=a&capture.id=b", "x", "%ff=1"]
    {
        let response = world.callgate.admin_get(&format!("/callbacks?{query}"));
        assert_eq!(response.status, 400, "{query} {}", response.text());
    }
}

#[test]
fn a_name_that_does_not_exist_is_an_error_that_lists_the_names() {
    let world = World::new("{ kind: memory }");
    world.mint(&json!({ "route": "doc", "params": { "id": "a" } }));
    for (query, words) in [
        ("capture.doc_id=a", "no route has the capture doc_id; the captures are id"),
        ("route=docs", "there is no route docs; the routes are doc"),
    ] {
        let response = world.callgate.admin_get(&format!("/callbacks?{query}"));
        assert_eq!(response.status, 400, "{query}");
        assert!(response.text().contains(words), "{}", response.text());
    }
    let inbox = world.callgate.admin_get("/inbox?route=docs");
    assert!(inbox.status == 400 && inbox.text().contains("the routes are doc"), "{}", inbox.text());
    assert_eq!(world.callgate.admin_get("/inbox?route=doc").status, 200);
}

#[test]
fn a_callback_is_found_by_its_event() {
    let world = World::new("{ kind: memory }");
    let minted = world.mint(&json!({ "route": "doc", "params": { "id": "a" } }));
    assert_eq!(world.call_as(&minted, "{}", "Evt_42").status, 200);
    let line = world.callgate.log().pop().unwrap();
    assert_eq!(
        (&line["event_id"], &line["interaction"]),
        (&json!("Evt_42"), &minted["interaction"]),
        "{line}"
    );
    assert!(line.get("secret").is_none(), "one secret is configured: {line}");
    let found = |text: &str| {
        let page = world.callgate.admin_get(&format!("/callbacks?search={text}")).json();
        page["interactions"].as_array().unwrap().len()
    };
    assert_eq!((found("evt_42"), found("Evt_43")), (1, 0));
    // The interaction of a token that was denied, because the signature of the token is valid.
    world.at(130);
    assert_eq!(world.call_as(&minted, "{}", "Evt_43").status, 401);
    let line = world.callgate.log().pop().unwrap();
    assert_eq!(
        (&line["reason"], &line["interaction"]),
        (&json!("token_expired"), &minted["interaction"]),
        "{line}"
    );
    assert!(line.get("event_id").is_none(), "the signature was not verified: {line}");
    let mut other = minted.clone();
    other["callback_url"] = minted["callback_url"].as_str().unwrap().replace("/doc/a", "/doc/b").into();
    world.at(0);
    assert_eq!(world.call_as(&other, "{}", "Evt_44").status, 401);
    let line = world.callgate.log().pop().unwrap();
    assert_eq!(
        (&line["reason"], &line["interaction"]),
        (&json!("token_binding"), &minted["interaction"]),
        "{line}"
    );
    let mut forged = minted.clone();
    let token = minted["callback_token"].as_str().unwrap();
    let forged_token =
        format!("{}{}", &token[..token.len() - 4], if token.ends_with("AAAA") { "BBBB" } else { "AAAA" });
    forged["callback_token"] = forged_token.into();
    assert_eq!(world.call_as(&forged, "{}", "Evt_45").status, 401);
    assert!(world.callgate.log().pop().unwrap().get("interaction").is_none());
}

#[test]
fn the_secret_that_matched_is_in_the_log_while_several_are_configured() {
    let agent = Agent::start(ANSWER);
    let hmac = |secrets: &str| {
        format!(
            "{{ scheme: hmac, algorithm: sha256, header: x-sig, content: \"{{body}}\", encoding: hex, secrets: [{secrets}] }}"
        )
    };
    let text = format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
providers:
  both: {{ signature: {} }}
  one: {{ signature: {} }}
routes:
  - {{ name: both, path: /both, provider: both, forward: /in, duplicates: deliver }}
  - {{ name: one, path: /one, provider: one, forward: /in, duplicates: deliver }}
  - {{ name: static, path: /static, forward: /in, token: {{ kind: static, header: x-key, secrets: [ {{ env: STATIC }}, {{ env: HMAC_SECRET }} ] }} }}
",
        agent.address,
        hmac("{ env: STATIC }, { env: HMAC_SECRET }"),
        hmac("{ env: HMAC_SECRET }"),
    );
    let callgate = Callgate::start(&text, Clock::System);
    let signed = |name: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(env(name).unwrap().as_bytes()).unwrap();
        mac.update(b"{}");
        HEXLOWER.encode(&mac.finalize().into_bytes())
    };
    for (path, header, value, secret) in [
        ("/both", "x-sig", signed("STATIC"), json!(1)),
        ("/both", "x-sig", signed("HMAC_SECRET"), json!(2)),
        ("/one", "x-sig", signed("HMAC_SECRET"), Value::Null),
        ("/static", "x-key", env("HMAC_SECRET").unwrap(), json!(2)),
        ("/static", "x-key", env("STATIC").unwrap(), json!(1)),
    ] {
        let response = send_to(callgate.ingress, "POST", path, &[(header, &value)], b"{}");
        assert_eq!(response.status, 200, "{path} {}", response.text());
        let line = callgate.log().pop().unwrap();
        assert_eq!(line["secret"], secret, "{path} {line}");
        assert!(!line.to_string().contains(&value), "{line}");
    }
}
