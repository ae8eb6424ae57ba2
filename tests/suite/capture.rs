//! Captures of rejected requests: what is kept, what is never kept, and what `explain` makes of it.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use callgate::clock::Clock;
use callgate::config::Config;
use callgate::request::RequestHead;
use callgate::signature::SignatureContext;
use callgate::source::LOOPBACK;
use callgate::time::Timestamp;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::environment::env;
use crate::harness::{ANSWER, Agent, Callgate, Response, eventually, parse, send_to};

const START: i64 = 1_767_225_600_000;
const BODY: &str = r#"{"document_id":"doc-7f3a","status":"processing","note":"caf\u00e9"}"#;
const WHSEC: &str = "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

struct World {
    callgate: Callgate,
    config: Config,
    text: String,
    now: Arc<AtomicI64>,
    _agent: Agent,
}

fn text(agent: &str, more: &str) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0, actions: true }} }}
agent: {{ address: \"{agent}\" }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
providers:
  p: {{ preset: standard-webhooks, secrets: [ {{ env: WHSEC }} ], allow: [127.0.0.1] }}
  g: {{ preset: gitlab, secrets: [ {{ env: STATIC }} ] }}
  q: {{ signature: {{ scheme: hmac, algorithm: sha256, signature_at: {{ query: sig }}, content: \"{{body}}\", encoding: hex, secrets: [ {{ env: HMAC_SECRET }} ] }} }}
  b: {{ signature: {{ scheme: token, signature_at: {{ body: /credentials/value }}, secrets: [ {{ env: STATIC }} ] }} }}
routes:
  - {{ name: doc, path: \"/doc/{{id}}\", provider: p, token: {{ kind: callback }}, forward: \"/in/{{id}}\", body_max: 128KiB }}
  - {{ name: inpath, path: \"/path/{{callback_token}}\", provider: p, token: {{ kind: callback, from: [path] }}, forward: /in }}
  - {{ name: inquery, path: /query, provider: p, token: {{ kind: callback, from: [query] }}, forward: /in }}
  - {{ name: gitlab, path: /gitlab, provider: g, forward: /in }}
  - {{ name: sigquery, path: /sigquery, provider: q, forward: /in, duplicates: deliver }}
  - {{ name: inbody, path: /inbody, provider: b, forward: /in, duplicates: deliver }}
  - {{ name: watched, path: /watched, provider: p, forward: /in, mode: observe }}
{more}"
    )
}

impl World {
    fn new() -> Self {
        let agent = Agent::start(ANSWER);
        let text = text(&agent.address.to_string(), "");
        let now = Arc::new(AtomicI64::new(START));
        let callgate = Callgate::start(&text, Clock::Set(Arc::clone(&now)));
        Self { callgate, config: parse(&text), text, now, _agent: agent }
    }

    fn capture(&self, body: &Value) -> Response {
        self.callgate.admin_send("POST", "/capture", &body.to_string())
    }

    fn captured(&self) -> Value {
        self.callgate.admin_get("/capture").json()
    }

    /// Waits for this number of captured requests, and returns the file of the last one.
    fn file(&self, count: usize) -> String {
        let last = eventually(|| {
            let requests = self.captured()["requests"].as_array().unwrap().clone();
            (requests.len() == count).then(|| requests[count - 1].clone())
        });
        let response = self.callgate.admin_get(last["file"].as_str().unwrap());
        assert_eq!(response.status, 200);
        assert!(response.header("content-disposition").unwrap().contains(".http"));
        response.text()
    }

    fn mint(&self, route: &str, params: &Value) -> (String, String) {
        let body = json!({ "route": route, "params": params }).to_string();
        let minted = self.callgate.admin_send("POST", "/callbacks", &body).json();
        let url = minted["callback_url"].as_str().unwrap();
        let target = url.strip_prefix("https://agent.example.com").unwrap().to_owned();
        (target, minted["callback_token"].as_str().unwrap().to_owned())
    }

    /// Returns the headers with which the provider signs a body.
    fn sign(&self, target: &str, body: &str) -> Vec<(String, String)> {
        let headers = HeaderMap::new();
        let verifier = self.config.policy.provider("p").unwrap().verifier.as_ref().unwrap();
        let at = Timestamp::from_unix_ms(self.now.load(Ordering::SeqCst));
        let signed = SignatureContext::new(RequestHead::new("POST", target, &headers, LOOPBACK), "", at);
        let signed = verifier.sign(&signed, body.as_bytes(), "msg_1").unwrap().headers;
        signed.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    fn send(&self, target: &str, headers: &[(String, String)], body: &str) -> Response {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        send_to(self.callgate.ingress, "POST", target, &headers, body.as_bytes())
    }

    fn explain(&self, file: &str) -> Value {
        explain(&self.text, file)
    }
}

/// Runs `callgate explain` on a downloaded file.
fn explain(config: &str, file: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let (config_path, request) = (folder.path().join("callgate.yaml"), folder.path().join("request.http"));
    fs::write(&config_path, config).unwrap();
    fs::write(&request, file).unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
        command.env_clear();
        for name in ["TOKEN_KEY", "WHSEC", "STATIC", "HMAC_SECRET"] {
            command.env(name, env(name).unwrap());
        }
        command.arg("explain").arg("-c").arg(&config_path).arg("--request").arg(&request).args(more);
        command.output().unwrap()
    };
    let (plain, out) = (run(&[]), run(&["--json"]));
    let explained: Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|_| panic!("{}\n{file}", String::from_utf8_lossy(&out.stderr)));
    assert_eq!(out.status.code(), Some(i32::from(explained["verdict"] != "allow")));
    let plain = String::from_utf8(plain.stdout).unwrap();
    assert!(plain.contains("captured at 2026-01-01T00:"), "{plain}");
    if explained["captured"]["taken_over"].as_array().unwrap().is_empty() {
        assert!(!plain.contains("taken over"), "{plain}");
    } else {
        assert!(plain.contains("taken over from the capture"), "{plain}");
    }
    explained
}

fn step<'v>(explained: &'v Value, check: &str) -> &'v Value {
    explained["trail"].as_array().unwrap().iter().find(|step| step["check"] == check).unwrap()
}

fn bearer(token: &str) -> (String, String) {
    ("authorization".to_owned(), format!("Bearer {token}"))
}

#[test]
fn a_rejected_request_is_captured_without_its_secrets_and_explained() {
    let world = World::new();
    let (target, token) = world.mint("doc", &json!({ "id": "a" }));
    let begun = world
        .capture(&json!({ "route": "doc", "reason": "signature_mismatch", "requests": 1, "for": "10m" }));
    assert_eq!(begun.status, 201, "{}", begun.text());
    assert_eq!(begun.json()["until"], "2026-01-01T00:10:00Z");
    assert_eq!(world.captured()["active"]["requests"], 1);
    let mut headers = world.sign(&target, "another body");
    let signature = headers.iter().find(|(name, _)| name == "webhook-signature").unwrap().1.clone();
    headers.push(bearer(&token));
    headers.push(("content-type".to_owned(), "application/json".to_owned()));
    headers.push(("cookie".to_owned(), "sid=a-cookie-of-somebody".to_owned()));
    headers.push(("x-echo".to_owned(), format!("{token} {WHSEC}")));
    headers.push(("callgate-captured".to_owned(), "time=x".to_owned()));
    // A request that is denied for another reason is not captured.
    assert_eq!(world.send(&target, &[], BODY).status, 401);
    let body = format!("{{\"echo\":\"{token}\",\"api_key\":\"sk-live-1\",\"n\":1}}");
    assert_eq!(world.send(&target, &headers, &body).status, 401);
    let file = world.file(1);
    for secret in [&*token, &*signature, WHSEC, "eyJ", "a-cookie", "sk-live-1", "time=x", &signature[3..]] {
        assert!(!file.contains(secret), "{secret}: {file}");
    }
    for kept in [
        "POST /doc/a HTTP/1.1\r\n",
        "authorization: Bearer [redacted: pass]\r\n",
        "webhook-signature: [redacted: signature_mismatch]\r\n",
        "webhook-id: msg_1\r\n",
        "webhook-timestamp: 1767225600\r\n",
        "\"n\":1",
    ] {
        assert!(file.contains(kept), "{kept}: {file}");
    }
    // The capture has switched itself off.
    assert_eq!(world.captured()["active"], Value::Null);
    assert_eq!(world.send(&target, &headers, &body).status, 401);
    assert_eq!(world.captured()["requests"].as_array().unwrap().len(), 1);
    let row = &world.captured()["requests"][0];
    assert_eq!(
        (&row["reason"], &row["route"], &row["request"]),
        (&json!("signature_mismatch"), &json!("doc"), &json!("POST /doc/a"))
    );
    let explained = world.explain(&file);
    assert_eq!((&explained["reason"], &explained["route"]), (&json!("signature_mismatch"), &json!("doc")));
    assert_eq!(explained["captured"]["taken_over"], json!(["token", "signature_headers", "signature"]));
    assert_eq!(step(&explained, "token")["outcome"], "pass");
    assert_eq!(
        (&step(&explained, "signature")["taken_over"], &step(&explained, "address")["taken_over"]),
        (&json!(true), &Value::Null)
    );
}

#[test]
fn a_correction_of_the_configuration_can_be_tried_on_a_capture() {
    let agent = Agent::start(ANSWER);
    let world = World::new();
    let strict = text(&agent.address.to_string(), "").replace("allow: [127.0.0.1]", "allow: [203.0.113.7]");
    world.callgate.reload(&strict).unwrap();
    let (target, token) = world.mint("doc", &json!({ "id": "a" }));
    assert_eq!(world.capture(&json!({})).status, 201);
    let mut headers = world.sign(&target, BODY);
    headers.push(bearer(&token));
    assert_eq!(world.send(&target, &headers, BODY).status, 403);
    let file = world.file(1);
    // The address is denied before the body is needed. The capture has the body and the verdicts of the later checks.
    assert!(file.contains(BODY), "{file}");
    assert_eq!(explain(&strict, &file)["reason"], "address_not_allowed");
    let corrected = world.explain(&file);
    assert_eq!(
        (&corrected["verdict"], &corrected["forward"]),
        (&json!("allow"), &json!("/in/a")),
        "{corrected:#}"
    );
    // An expired token stays expired.
    world.now.fetch_add(3 * 3_600_000, Ordering::SeqCst);
    assert_eq!(world.capture(&json!({ "reason": "token_expired" })).status, 201);
    world.callgate.reload(&world.text).unwrap();
    let mut headers = world.sign(&target, BODY);
    headers.push(bearer(&token));
    assert_eq!(world.send(&target, &headers, BODY).status, 401);
    let file = world.file(1);
    assert!(file.contains("authorization: Bearer [redacted: token_expired]\r\n"), "{file}");
    let mut explained = world.text.clone();
    explained.push('\n');
    let folder = explain_at(&explained, &file);
    assert_eq!(folder["reason"], "token_expired");
    assert_eq!(step(&folder, "signature")["outcome"], "pass");
}

/// Explains a file whose time is not in the first hour.
fn explain_at(config: &str, file: &str) -> Value {
    explain(config, &file.replace("time=2026-01-01T03:", "time=2026-01-01T00:"))
}

#[test]
fn secrets_are_removed_wherever_a_route_expects_them() {
    let world = World::new();
    assert_eq!(world.capture(&json!({ "requests": 20 })).status, 201);
    let json_type = ("content-type".to_owned(), "application/json".to_owned());
    let mut count = 0;
    let mut next = |target: &str, headers: &[(String, String)], body: &str, status: u16| {
        assert_eq!(world.send(target, headers, body).status, status, "{target}");
        count += 1;
        world.file(count)
    };
    let (in_path, path_token) = world.mint("inpath", &json!({}));
    let file = next(&in_path, &[], "{}", 401);
    assert!(file.starts_with("POST /path/redacted HTTP/1.1") && !file.contains(&path_token), "{file}");
    assert_eq!(world.explain(&file)["reason"], "signature_missing");
    let (in_query, query_token) = world.mint("inquery", &json!({}));
    let file = next(&format!("{in_query}&code=c0de-of-somebody&page=2"), &[], "{}", 401);
    assert!(file.starts_with("POST /query?callback_token=redacted&code=redacted&page=2 HTTP/1.1"), "{file}");
    assert!(!file.contains(&query_token));
    assert_eq!(world.explain(&file)["reason"], "signature_missing");
    let wrong = [
        ("x-gitlab-token".to_owned(), "a wrong secret".to_owned()),
        ("x-other".to_owned(), "a static secret".to_owned()),
    ];
    let file = next("/gitlab", &wrong, "{\"see\":\"a static secret\"}", 401);
    assert!(!file.contains("a wrong secret") && !file.contains("a static secret"), "{file}");
    assert_eq!(world.explain(&file)["reason"], "signature_mismatch");
    let digest = "0".repeat(64);
    let file = next(&format!("/sigquery?sig={digest}"), &[], "{}", 401);
    assert!(!file.contains(&digest), "{file}");
    assert_eq!(world.explain(&file)["reason"], "signature_mismatch");
    let file = next("/inbody", &[json_type], "{\"credentials\":{\"value\":\"a wrong secret\"},\"a\":1}", 401);
    assert!(!file.contains("a wrong secret") && file.contains("\"a\":1"), "{file}");
    assert_eq!(world.explain(&file)["reason"], "signature_mismatch");
    // No route has this path.
    let strange = [("x-hub-signature-256".to_owned(), "sha256=feedfeedfeed".to_owned())];
    let file =
        next("/nope/eyJhbGciOiJIUzI1NiJ9.e30.sig?token=t0ken", &strange, "{\"a\":\"a static secret\"}", 404);
    assert!(!file.contains("a static secret"), "{file}");
    assert!(!file.contains("eyJ") && !file.contains("t0ken") && !file.contains("feedfeed"), "{file}");
    assert_eq!(world.explain(&file)["reason"], "route_unknown");
    // A request that observe mode delivers although it fails a check.
    let file = next("/watched", &[], "{}", 200);
    let explained = world.explain(&file);
    assert_eq!((&explained["reason"], &explained["mode"]), (&json!("signature_missing"), &json!("observe")));
    // Bodies that cannot be searched are left out.
    let gzip = [("content-encoding".to_owned(), "gzip".to_owned())];
    let file = next("/gitlab", &gzip, "not gzip", 401);
    assert!(file.contains("callgate-captured-body: left out: it is compressed"), "{file}");
    let (target, token) = world.mint("doc", &json!({ "id": "a" }));
    let large = "x".repeat(100 << 10);
    let file = next(&target, &[bearer(&token)], &large, 401);
    assert!(file.contains("callgate-captured-body: left out") && file.len() < 2000, "{}", file.len());
    let explained = world.explain(&file);
    assert_eq!(explained["reason"], "signature_missing");
}

#[test]
fn what_the_ledger_decided_is_taken_over() {
    let world = World::new();
    let body = json!({ "route": "doc", "params": { "id": "a" } }).to_string();
    let minted = world.callgate.admin_send("POST", "/callbacks", &body).json();
    let path = format!("/callbacks/{}", minted["interaction"].as_str().unwrap());
    assert_eq!(world.callgate.admin_send("DELETE", &path, "").status, 204);
    assert_eq!(world.capture(&json!({ "reason": "interaction_revoked" })).status, 201);
    let mut headers = world.sign("/doc/a", BODY);
    headers.push(bearer(minted["callback_token"].as_str().unwrap()));
    assert_eq!(world.send("/doc/a", &headers, BODY).status, 410);
    let file = world.file(1);
    let explained = world.explain(&file);
    assert_eq!(explained["reason"], "interaction_revoked", "{explained:#}");
    assert_eq!(step(&explained, "interaction")["taken_over"], true);
    assert_eq!(step(&explained, "signature")["outcome"], "pass");
}

#[test]
fn a_body_that_does_not_come_is_left_out() {
    let world = World::new();
    let impatient = format!("{}limits: {{ body_deadline: 300ms }}\n", world.text);
    world.callgate.reload(&impatient).unwrap();
    assert_eq!(world.capture(&json!({})).status, 201);
    let head = "POST /doc/a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer wrong\r\nContent-Length: 10\r\n\r\n";
    assert_eq!(world.callgate.send(head.as_bytes()).status, 401);
    let file = world.file(1);
    assert!(
        file.contains("callgate-captured-body: left out") && file.contains("content-length: 10\r\n"),
        "{file}"
    );
    assert_eq!(world.explain(&file)["reason"], "token_malformed");
    // The body comes only after `100 Continue`.
    let mut stream = world.callgate.connect();
    stream.write_all(head.replace("Host: h", "Host: h\r\nExpect: 100-continue").as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{\"a\": 123}").unwrap();
    assert_eq!(Response::read(&mut stream).status, 401);
    assert!(world.file(2).ends_with("\r\n\r\n{\"a\": 123}"));
}

#[test]
fn a_capture_is_for_operators_and_ends() {
    let world = World::new();
    for (body, status) in [
        (json!({ "route": "nope" }), 404),
        (json!({ "reason": "nope" }), 400),
        (json!({ "requests": 0 }), 400),
        (json!({ "requests": 101 }), 400),
        (json!({ "for": "0s" }), 400),
        (json!({ "for": "25h" }), 400),
        (json!({ "for": "soon" }), 400),
        (json!({ "rout": "doc" }), 400),
        (json!([]), 400),
    ] {
        assert_eq!(world.capture(&body).status, status, "{body}");
    }
    let admin = world.callgate.admin.unwrap();
    assert_eq!(send_to(admin, "POST", "/capture", &[], b"{}").status, 415);
    let of_a_page = [("content-type", "application/json"), ("origin", "https://evil.example")];
    assert_eq!(send_to(admin, "POST", "/capture", &of_a_page, b"{}").status, 403);
    assert_eq!(send_to(admin, "GET", "/capture", &of_a_page[1..], b"").status, 403);
    assert_eq!(send_to(admin, "PUT", "/capture", &[], b"").status, 405);
    assert_eq!(world.callgate.admin_get("/capture/nope.http").status, 404);
    assert_eq!(world.captured(), json!({ "active": null, "requests": [] }));
    assert_eq!(world.callgate.admin_send("DELETE", "/capture/nope", "").status, 404);
    // The time of a capture is limited.
    assert_eq!(world.capture(&json!({ "route": "none", "for": "10m" })).status, 201);
    assert_eq!(world.send("/nope", &[], "{}").status, 404);
    world.file(1);
    world.now.fetch_add(600_000, Ordering::SeqCst);
    assert_eq!(world.send("/nope", &[], "{}").status, 404);
    assert_eq!(world.captured()["active"], Value::Null);
    assert_eq!(world.captured()["requests"].as_array().unwrap().len(), 1);
    let file = world.captured()["requests"][0]["file"].as_str().unwrap().to_owned();
    assert_eq!(world.callgate.admin_send("DELETE", &file, "").status, 204);
    assert_eq!(world.callgate.admin_get(&file).status, 404);
    assert_eq!(world.callgate.admin_send("DELETE", "/capture", "").status, 204);
    assert_eq!(world.captured(), json!({ "active": null, "requests": [] }));
    // Without `actions`, nobody can begin a capture.
    let reader = Callgate::start(&world.text.replace(", actions: true", ""), Clock::System);
    assert_eq!(reader.admin_send("POST", "/capture", "{}").status, 403);
    assert_eq!(reader.admin_send("DELETE", "/capture", "").status, 403);
    assert_eq!(reader.admin_get("/capture").status, 200);
}

/// The rest of a body stays as the provider sent it, so that it can be compared with the provider's copy.
#[test]
fn only_the_secrets_of_a_body_are_replaced() {
    let world = World::new();
    world.capture(&json!({}));
    let body = "{ \"z\": 1.50, \"tokens\":[\"s3cr3t-a\"],\t\"a\": 98765432109876543210987, \"password\" : 12345678 }";
    let json_type = [("content-type".to_owned(), "application/json".to_owned())];
    assert_eq!(world.send("/doc/a", &json_type, body).status, 401);
    let file = world.file(1);
    let expected = body.replace("s3cr3t-a", "[redacted]").replace("12345678 }", "\"[redacted]\" }");
    assert!(file.ends_with(&format!("\r\n\r\n{expected}")), "{file}");
    for (number, body) in ["{\"access_token\":\"s3cr3t\",}", "[{\"x\":\"s3cr3t\"}"].into_iter().enumerate() {
        assert_eq!(world.send("/doc/a", &json_type, body).status, 401);
        let file = world.file(number + 2);
        assert!(!file.contains("s3cr3t") && file.contains("callgate-captured-body: left out"), "{file}");
    }
}
