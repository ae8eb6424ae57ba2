//! Cases of callbacks that the inbox stores: the request that the agent receives in a later attempt, and the headers that
//! an agent receives when it pulls the callback.

use std::net::{IpAddr, Ipv4Addr};

use callgate::config::Config;
use callgate::ingress::{Attempt, Decided, Kept};
use callgate::interaction::Cleared;
use callgate::request::RequestHead;
use callgate::signature::SignatureContext;
use callgate::time::Timestamp;
use callgate::token::Stamp;
use callgate::trail::Trail;
use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use libtest_mimic::Trial;
use serde_json::{Map, Value};
use sha2::Sha256;

use super::environment::{env, parse};

const CONFIG: &str = r#"
public_url: https://agent.example.com
listen: { ingress: [ { address: "127.0.0.1:0" } ] }
agent: { address: "127.0.0.1:1" }
providers:
  github: { preset: github, secrets: [ { env: HMAC_SECRET } ] }
  gitlab: { preset: gitlab, secrets: [ { env: STATIC } ] }
  sw: { preset: standard-webhooks, secrets: [ { env: WHSEC } ] }
  message: { signature: { scheme: message-signatures, algorithm: hmac-sha256, components: ["@method"], unsigned_body: accept, secrets: [ { env: HMAC_SECRET } ] } }
assertion: { key: { id: a1, algorithm: HS256, secret: { env: FOREIGN_KEY } }, ttl: 30s }
routes:
  - { name: open, assertion: false, path: /open, open: true, forward: /in }
  - { name: asserted, path: /asserted, open: true, forward: /in }
  - { name: github, assertion: false, path: /github, provider: github, forward: /in }
  - { name: gitlab, assertion: false, path: /gitlab, provider: gitlab, forward: /in }
  - { name: sw, assertion: false, path: /sw, provider: sw, forward: /in }
  - { name: message, assertion: false, path: /message, provider: message, forward: /in }
"#;

const BODY: &[u8] = br#"{"a":1}"#;

/// A callback, and what the agent receives from the inbox.
struct Case {
    name: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    /// Whether the inbox stores the signature of the provider.
    keeps_signature: bool,
    /// Whether the callback asks a question and belongs to an interaction whose owner is gone.
    asks: bool,
    /// The headers of the request to the agent that differ between the cases, with `|` for the ends of lines.
    expect: &'static str,
}

const CASE: Case = Case { name: "", path: "", headers: &[], keeps_signature: false, asks: false, expect: "" };

const CASES: &[Case] = &[
    Case {
        name: "a callback without a signature",
        path: "/open",
        expect: "callgate-route: open|callgate-content: untrusted|callgate-client-address: 127.0.0.1|callgate-attempt: 2|callgate-received-at: 2026-01-01T00:00:00Z|webhook-id: msg_1|webhook-timestamp: 1767229200",
        ..CASE
    },
    Case {
        name: "headers of the caller",
        path: "/open",
        headers: &[
            ("x-a", "1"),
            ("cookie", "a=1"),
            ("x-a", "2"),
            ("cookie", "b=2"),
            ("x-text", "caf\u{e9}"),
            ("via", "1.1 x"),
            ("webhook-id", "own"),
            ("webhook-timestamp", "1"),
            ("webhook-signature", "v1,own"),
        ],
        expect: "x-a: 1|x-a: 2|cookie: a=1|cookie: b=2|x-text: café|callgate-route: open|callgate-content: untrusted|callgate-client-address: 127.0.0.1|callgate-attempt: 2|callgate-received-at: 2026-01-01T00:00:00Z|webhook-id: msg_1|webhook-timestamp: 1767229200",
        ..CASE
    },
    Case {
        name: "a question of an interaction whose owner is gone",
        path: "/open",
        asks: true,
        expect: "callgate-route: open|callgate-content: untrusted|callgate-interaction: int_1|callgate-question: 3|callgate-owner: gone|callgate-client-address: 127.0.0.1|callgate-attempt: 2|callgate-received-at: 2026-01-01T00:00:00Z|webhook-id: msg_1|webhook-timestamp: 1767229200",
        ..CASE
    },
    Case {
        name: "an assertion",
        path: "/asserted",
        expect: "callgate-route: asserted|callgate-content: untrusted|callgate-client-address: 127.0.0.1|callgate-attempt: 2|callgate-received-at: 2026-01-01T00:00:00Z|webhook-id: msg_1|webhook-timestamp: 1767229200",
        ..CASE
    },
    Case {
        name: "a signature",
        path: "/github",
        expect: "x-github-delivery: evt_1|callgate-route: github|callgate-provider: github|callgate-content: untrusted|callgate-event-id: evt_1|callgate-client-address: 127.0.0.1|callgate-attempt: 2|callgate-received-at: 2026-01-01T00:00:00Z|webhook-id: msg_1|webhook-timestamp: 1767229200",
        ..CASE
    },
    Case {
        name: "a signature that is kept",
        path: "/github",
        keeps_signature: true,
        expect: "x-github-delivery: evt_1|x-hub-signature-256: sha256=dfe62afd3a708ea27b217b8cabc11f103edbfb2d176e892a38a2d475a803c4c2|callgate-route: github|callgate-provider: github|callgate-content: untrusted|callgate-event-id: evt_1|callgate-client-address: 127.0.0.1|callgate-attempt: 2|callgate-received-at: 2026-01-01T00:00:00Z|webhook-id: msg_1|webhook-timestamp: 1767229200",
        ..CASE
    },
    Case {
        name: "a shared secret is never kept",
        path: "/gitlab",
        keeps_signature: true,
        expect: "callgate-route: gitlab|callgate-provider: gitlab|callgate-content: untrusted|callgate-client-address: 127.0.0.1|callgate-attempt: 2|callgate-received-at: 2026-01-01T00:00:00Z|webhook-id: msg_1|webhook-timestamp: 1767229200",
        ..CASE
    },
    Case {
        name: "a signature of Standard Webhooks",
        path: "/sw",
        expect: "callgate-route: sw|callgate-provider: sw|callgate-content: untrusted|callgate-event-id: evt_1|callgate-client-address: 127.0.0.1|callgate-attempt: 2|callgate-received-at: 2026-01-01T00:00:00Z|webhook-timestamp: 1767229200|webhook-id: evt_1|webhook-signature: v1,64ar8chxgBLgM1EOQzbusjhy15txY2hpT8PbHwAUSj8=",
        ..CASE
    },
    Case {
        name: "a signature of Standard Webhooks that is kept",
        path: "/sw",
        keeps_signature: true,
        expect: "webhook-timestamp: 1767225600|webhook-id: evt_1|webhook-signature: v1,4Xj2jgyq0iCuzUeq/4r/v0R/IYNlCiOlttmzbFoqkq8=|callgate-route: sw|callgate-provider: sw|callgate-content: untrusted|callgate-event-id: evt_1|callgate-client-address: 127.0.0.1|callgate-attempt: 2|callgate-received-at: 2026-01-01T00:00:00Z",
        ..CASE
    },
    Case {
        name: "a message signature",
        path: "/message",
        expect: "callgate-route: message|callgate-provider: message|callgate-content: untrusted|callgate-client-address: 127.0.0.1|callgate-attempt: 2|callgate-received-at: 2026-01-01T00:00:00Z|webhook-id: msg_1|webhook-timestamp: 1767229200",
        ..CASE
    },
    Case {
        name: "a message signature that is kept",
        path: "/message",
        keeps_signature: true,
        expect: r#"signature-input: s=("@method");created=1767225600;keyid="k"|signature: s=:wQTVt93+5MZKCZoqTIzufP5knhZ5zq+HyUKVsnCdKmU=:|callgate-route: message|callgate-provider: message|callgate-content: untrusted|callgate-client-address: 127.0.0.1|callgate-attempt: 2|callgate-received-at: 2026-01-01T00:00:00Z|webhook-id: msg_1|webhook-timestamp: 1767229200"#,
        ..CASE
    },
];

/// Returns one test for each case.
pub fn trials() -> impl Iterator<Item = Trial> {
    CASES.iter().map(|case| {
        Trial::test(format!("kept::{}", case.name), || {
            let config = parse(CONFIG);
            let received = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
            let kept = case.kept(&config, received);
            assert_eq!(Kept::from_bytes(&kept.to_bytes()).as_ref(), Ok(&kept));
            let attempt = Attempt {
                route: config.policy.route(&kept.route).unwrap(),
                edge: config.policy.ingress.edge(),
                id: "msg_1",
                number: 2,
                stamp: Stamp { now: Timestamp::parse("2026-01-01T01:00:00Z").unwrap(), id: "req_1" },
            };
            let head = String::from_utf8(kept.write_head(&attempt, BODY)).unwrap();
            let pulled = kept.pulled(&attempt, BODY);
            let assertion = pulled.assertion.map(|token| format!("|callgate-assertion: {token}"));
            assert_eq!(assertion.is_some(), case.path == "/asserted");
            let expected = format!(
                "POST /in HTTP/1.1|host: agent.example.com|{}|x-forwarded-proto: https|x-forwarded-host: agent.example.com\
                 |x-forwarded-for: 127.0.0.1{}|content-length: 7||",
                case.expect,
                assertion.unwrap_or_default()
            );
            assert_eq!(head.replace("\r\n", "|"), expected);
            assert_eq!(pulled.headers, pulled_headers(case.expect));
            Ok(())
        })
    })
}

impl Case {
    /// Returns the head that the inbox stores for the callback.
    fn kept(&self, config: &Config, received: Timestamp) -> Kept {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let unsigned = headers.clone();
        let head = RequestHead::new("POST", self.path, &unsigned, client);
        let signed = match config.policy.route(&self.path[1..]).unwrap().verifier() {
            Some(_) if self.path == "/message" => message_signature(),
            Some(verifier) => {
                let context = SignatureContext::new(head, "https://agent.example.com", received);
                verifier.sign(&context, BODY, "evt_1").unwrap().headers
            }
            None => Vec::new(),
        };
        headers.extend(signed);
        let head = RequestHead::new("POST", self.path, &headers, client);
        let (ingress, mut trail) = (&config.policy.ingress, Trail::verbose());
        let decided = ingress
            .decide_head(&head, received, &mut trail)
            .and_then(|admitted| admitted.decide_body(&head, BODY, &mut trail));
        let Ok(Decided::Callback(mut verified)) = decided else {
            panic!("{:?}", decided.map_err(|denied| denied.denial))
        };
        if self.asks {
            verified.belongs_to(Some("int_1"));
            verified.adopt_without_owner();
        }
        let cleared = Cleared::by_the_ledger(self.asks.then_some(3), false);
        let permit = verified.permit(Ok(cleared), &mut trail).unwrap();
        permit.keep(&head, BODY, self.keeps_signature, received)
    }
}

/// Returns the headers of a message signature (RFC 9421) over the method.
fn message_signature() -> Vec<(HeaderName, HeaderValue)> {
    let input = r#"("@method");created=1767225600;keyid="k""#;
    let base = format!("\"@method\": POST\n\"@signature-params\": {input}");
    let mut mac = Hmac::<Sha256>::new_from_slice(env("HMAC_SECRET").unwrap().as_bytes()).unwrap();
    mac.update(base.as_bytes());
    let signature = format!("s=:{}:", BASE64.encode(&mac.finalize().into_bytes()));
    let value = |text: String| HeaderValue::from_str(&text).unwrap();
    vec![
        (HeaderName::from_static("signature-input"), value(format!("s={input}"))),
        (HeaderName::from_static("signature"), value(signature)),
    ]
}

/// Returns the headers for an agent that pulls the callback. The values of a repeated header are joined.
fn pulled_headers(lines: &str) -> Map<String, Value> {
    let mut headers = Map::new();
    for (name, value) in lines.split('|').map(|line| line.split_once(": ").unwrap()) {
        let separator = if name == "cookie" { "; " } else { ", " };
        let joined = match headers.get(name) {
            Some(Value::String(former)) => format!("{former}{separator}{value}"),
            _ => value.to_owned(),
        };
        headers.insert(name.to_owned(), joined.into());
    }
    headers
}
