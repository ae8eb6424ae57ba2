//! Opaque callback tokens: short texts whose rights only the ledger knows.

use callgate::clock::Clock;
use serde_json::Value;

use crate::harness::{ANSWER, Agent, Callgate, Response, send_to};

/// Returns a configuration whose tokens have this form. `more` is added at the end.
fn config(agent: &Agent, form: &str, store: &str) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
store: {store}
callback_tokens: {{ form: {form}, ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
routes:
  - {{ name: doc, path: \"/callbacks/doc/{{id}}\", token: {{ kind: callback, from: [query, bearer] }}, forward: \"/in/{{id}}\" }}
  - {{ name: path, path: \"/p/{{id}}/{{callback_token}}\", token: {{ kind: callback, from: path }}, forward: \"/in/{{id}}\" }}
",
        agent.address
    )
}

fn start(agent: &Agent, store: &str) -> Callgate {
    Callgate::start(&config(agent, "opaque", store), Clock::System)
}

/// Mints a callback for the capture `id`.
fn mint(callgate: &Callgate, route: &str, id: &str, uses: &str) -> Value {
    let wanted = format!(r#"{{"route":"{route}","params":{{"id":"{id}"}}{uses}}}"#);
    let minted = callgate.admin_send("POST", "/callbacks", &wanted);
    assert_eq!(minted.status, 201, "{}", minted.text());
    minted.json()
}

fn text<'v>(minted: &'v Value, name: &str) -> &'v str {
    minted[name].as_str().unwrap()
}

fn send(callgate: &Callgate, target: &str) -> Response {
    send_to(callgate.ingress, "POST", target, &[], b"{}")
}

/// Returns the path and the query of a minted URL.
fn target(minted: &Value) -> &str {
    text(minted, "callback_url").strip_prefix("https://agent.example.com").unwrap()
}

const MEMORY: &str = "{ kind: memory, unknown: adopt }";

#[test]
fn a_short_url_is_delivered_and_its_token_is_stored_nowhere() {
    let agent = Agent::start(ANSWER);
    let callgate = start(&agent, MEMORY);
    for route in ["doc", "path"] {
        let minted = mint(&callgate, route, "doc-7f3a", "");
        let (url, token) = (text(&minted, "callback_url"), text(&minted, "callback_token"));
        assert_eq!(token.len(), 32, "{token}");
        assert!(url.len() < 160 && url.contains(token), "{} {url}", url.len());
        assert_eq!(send(&callgate, target(&minted)).status, 200);
        let log = callgate.log();
        assert!(!log[0].to_string().contains(token), "{log:?}");
        let state = callgate.admin_get(&format!("/callbacks/{}", text(&minted, "interaction")));
        assert_eq!(state.json()["deliveries"], 1);
        assert!(!state.text().contains(token));
        let received = agent.wait_for(1).pop().unwrap();
        assert!(!received.head.contains(token), "{}", received.head);
    }
}

#[test]
fn a_forged_token_or_one_for_another_path_is_denied_without_the_ledger() {
    let agent = Agent::start(ANSWER);
    let callgate = start(&agent, MEMORY);
    let minted = mint(&callgate, "doc", "a", "");
    let token = text(&minted, "callback_token");
    let other = mint(&callgate, "path", "a", "");
    let mut changed = token.to_owned().into_bytes();
    changed[20] = if changed[20] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    for (path, token) in [
        ("/callbacks/doc/a", changed.as_str()),
        ("/callbacks/doc/b", token),
        ("/callbacks/doc/a", text(&other, "callback_token")),
        ("/callbacks/doc/a", &"A".repeat(32)),
    ] {
        assert_eq!(send(&callgate, &format!("{path}?callback_token={token}")).status, 401, "{path} {token}");
        assert_eq!(callgate.log()[0]["reason"], "token_forged");
    }
    assert!(agent.received().is_empty());
}

#[test]
fn the_ledger_decides_about_uses_revocation_and_lifetime() {
    let agent = Agent::start(ANSWER);
    let callgate = start(&agent, MEMORY);
    let once = mint(&callgate, "doc", "a", r#","uses":1"#);
    assert_eq!([send(&callgate, target(&once)).status, send(&callgate, target(&once)).status], [200, 410]);
    let revoked = mint(&callgate, "doc", "b", "");
    let path = format!("/callbacks/{}", text(&revoked, "interaction"));
    assert_eq!(callgate.admin_send("DELETE", &path, "").status, 204);
    assert_eq!(send(&callgate, target(&revoked)).status, 410);
    let short = mint(&callgate, "doc", "c", r#","ttl":"1s""#);
    crate::harness::eventually(|| (send(&callgate, target(&short)).status == 410).then_some(()));
}

#[test]
fn an_opaque_token_is_never_adopted_and_survives_a_restart_with_a_file() {
    let (agent, folder) = (Agent::start(ANSWER), tempfile::tempdir().unwrap());
    let file = format!("{{ kind: file, path: {}/ledger, unknown: adopt }}", folder.path().display());
    let callgate = start(&agent, &file);
    let kept = mint(&callgate, "doc", "a", "");
    drop(callgate);
    let callgate = start(&agent, &file);
    assert_eq!(send(&callgate, target(&kept)).status, 200);
    drop(callgate);
    let callgate = start(&agent, MEMORY);
    assert_eq!(send(&callgate, target(&kept)).status, 410);
    assert_eq!(callgate.log()[0]["reason"], "interaction_unknown");
}

#[test]
fn tokens_of_both_forms_are_accepted_after_a_change_of_the_form() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&config(&agent, "jwt", MEMORY), Clock::System);
    let jwt = mint(&callgate, "doc", "a", "");
    callgate.reload(&config(&agent, "opaque", MEMORY)).unwrap();
    let opaque = mint(&callgate, "doc", "b", "");
    assert!(text(&jwt, "callback_token").len() > 200 && text(&opaque, "callback_token").len() == 32);
    callgate.reload(&config(&agent, "jwt", MEMORY)).unwrap();
    for minted in [&jwt, &opaque] {
        assert_eq!(send(&callgate, target(minted)).status, 200);
    }
}

#[test]
fn an_opaque_token_in_another_place_is_in_no_capture_and_no_log() {
    let agent = Agent::start(ANSWER);
    let text_of = config(&agent, "opaque", MEMORY);
    let admin = "admin: { address: 127.0.0.1:0, actions: true }";
    let text_of = text_of.replace("admin: { address: 127.0.0.1:0 }", admin);
    let callgate = Callgate::start(&text_of, Clock::System);
    assert_eq!(callgate.admin_send("POST", "/capture", r#"{"requests":50,"for":"10m"}"#).status, 201);
    let minted = mint(&callgate, "path", "a", "");
    let (url, token) = (text(&minted, "callback_url"), text(&minted, "callback_token"));
    let encoded = url.replace('/', "%2F").replace(':', "%3A");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let targets = [
        format!("{}/status", target(&minted)),
        format!("{}/", target(&minted)),
        format!("//p/a/{token}"),
        format!("/callbacks/doc/{token}"),
        format!("/other?cb={token}"),
        format!("/other?u={encoded}&t%6fken=s3cret-q1;sig=s3cret-q2&api-key=s3cret-q3"),
    ];
    let mut sent = 0;
    let mut send = |target: &str, headers: &[(&str, &str)], body: &str| {
        let response = send_to(callgate.ingress, "POST", target, headers, body.as_bytes());
        assert!(response.status >= 400, "{target}");
        sent += 1;
    };
    for target in &targets {
        send(target, &[], "{}");
    }
    let link = format!("<{url}?token=s3cret-h1>");
    let headers =
        [("referer", url), ("x-original-uri", target(&minted)), ("link", &link), ("x-pass", "s3cret-h2")];
    send("/other", &headers, "{}");
    let json = format!(
        r#"{{"webhook":{{"url":"{url}"}},"text":"see {url} or a?sig=s3cret-b1","api-key":"s3cret-b2"}}"#
    );
    send("/other", &[], &json);
    send("/other", &[form], &format!("u={encoded}&pass%77ord=s3cret-f1&x=1;token=s3cret-f2"));
    send("/other", &[("content-type", "text/plain")], &format!("token: s3cret-t1\n{url}"));
    let files = crate::harness::eventually(|| {
        let captured = callgate.admin_get("/capture").json()["requests"].as_array().unwrap().clone();
        (captured.len() == sent).then_some(captured)
    });
    for file in files {
        let file = callgate.admin_get(file["file"].as_str().unwrap()).text();
        assert!(!file.contains(token) && !file.contains("s3cret"), "{file}");
    }
    let recent = callgate.admin_get("/ui/api/recent").text();
    assert!(recent.contains("/callbacks/doc/[token]") && !recent.contains(token), "{recent}");
    assert!(!callgate.log().iter().any(|line| line.to_string().contains(token)));
}
