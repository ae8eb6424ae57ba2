//! Cases of notices in the pure core: the request that the agent receives if a callback does not arrive in time.

use std::sync::Arc;

use callgate::ingress::Notice;
use callgate::interaction::{Interaction, Overdue, pairs};
use callgate::time::Timestamp;
use callgate::token::Stamp;
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use libtest_mimic::Trial;
use sha2::Sha256;

use super::environment::{env, parse};

const CONFIG: &str = r#"
public_url: https://agent.example.com
listen: { ingress: [ { address: "127.0.0.1:0" } ], egress: { address: "127.0.0.1:0" } }
agent: { address: "127.0.0.1:1" }
callback_tokens: { keys: [ { id: k1, algorithm: HS256, secret: { env: TOKEN_KEY } } ] }
providers: { gh: { preset: github, secrets: [ { env: HMAC_SECRET } ] } }
assertion: { key: { id: a1, algorithm: HS256, secret: { env: FOREIGN_KEY } }, ttl: 30s }
routes:
  - { name: asserted, path: "/asserted/{id}", provider: gh, token: { kind: callback }, forward: "/i/{id}", interaction: { status: /s, done: [ok], notify: "/late/{id}" } }
  - { name: r, assertion: false, path: "/w/{id}", token: { kind: callback, from: [bearer] }, forward: "/i/{id}", interaction: { status: /s, done: [ok], notify: "/late/{id}" } }
  - { name: signed, assertion: false, path: "/signed/{id}", provider: gh, token: { kind: callback }, forward: "/i/{id}", interaction: { status: /s, done: [ok], notify: /late } }
  - { name: silent, assertion: false, path: "/silent/{id}", token: { kind: callback, from: [bearer] }, forward: "/i/{id}", interaction: { status: /s, done: [ok] } }
"#;

/// An interaction, and the request about it.
struct Case {
    name: &'static str,
    route: &'static str,
    captures: &'static [(&'static str, &'static str)],
    cause: Overdue,
    /// The request with `|` for the ends of lines, or nothing if no request is sent.
    expect: &'static str,
}

const CASES: &[Case] = &[
    Case {
        name: "the final callback did not arrive",
        route: "r",
        captures: &[("id", "a")],
        cause: Overdue::Expired,
        expect: r#"POST /late/a HTTP/1.1|host: agent.example.com|x-forwarded-proto: https|x-forwarded-host: agent.example.com|content-type: application/json|callgate-route: r|callgate-interaction: int_1|callgate-notice: expired|content-length: 229||{"interaction":"int_1","route":"r","captures":{"id":"a"},"outcome":"expired","status":null,"progress":null,"created_at":"2026-01-01T00:00:00Z","last_event_at":null,"deadline_at":"2026-01-01T01:00:00Z","at":"2026-01-01T01:00:01Z"}"#,
    },
    Case {
        name: "no callback arrived for too long, on a route with a provider",
        route: "signed",
        captures: &[("id", "a")],
        cause: Overdue::Stalled,
        expect: r#"POST /late HTTP/1.1|host: agent.example.com|x-forwarded-proto: https|x-forwarded-host: agent.example.com|content-type: application/json|callgate-route: signed|callgate-provider: gh|callgate-interaction: int_1|callgate-notice: stalled|content-length: 272||{"interaction":"int_1","route":"signed","provider":"gh","captures":{"id":"a"},"outcome":"stalled","status":null,"progress":null,"provider_id":"job_1","created_at":"2026-01-01T00:00:00Z","last_event_at":null,"deadline_at":"2026-01-01T01:00:00Z","at":"2026-01-01T01:00:01Z"}"#,
    },
    Case {
        name: "the request has an assertion",
        route: "asserted",
        captures: &[("id", "a")],
        cause: Overdue::Expired,
        expect: r#"POST /late/a HTTP/1.1|host: agent.example.com|x-forwarded-proto: https|x-forwarded-host: agent.example.com|content-type: application/json|callgate-route: asserted|callgate-provider: gh|callgate-interaction: int_1|callgate-notice: expired|callgate-assertion: {"typ":"assertion+jwt","alg":"HS256","kid":"a1"} {"iss":"callgate","aud":"https://agent.example.com","jti":"msg_1","iat":1767229201,"exp":1767229231,"method":"POST","target":"/late/a","body_sha256":"9d520871a1594f88ccbeb3c7eea52d19757c5a3b5a0af339ca32a18366befb1b","route":"asserted","provider":"gh","sub":"int_1","notice":"expired"}|content-length: 274||{"interaction":"int_1","route":"asserted","provider":"gh","captures":{"id":"a"},"outcome":"expired","status":null,"progress":null,"provider_id":"job_1","created_at":"2026-01-01T00:00:00Z","last_event_at":null,"deadline_at":"2026-01-01T01:00:00Z","at":"2026-01-01T01:00:01Z"}"#,
    },
    Case {
        name: "the route has no path for notices",
        route: "silent",
        captures: &[("id", "a")],
        cause: Overdue::Expired,
        expect: "",
    },
    Case {
        name: "the interaction lacks a capture of the path for notices",
        route: "r",
        captures: &[("other", "a")],
        cause: Overdue::Expired,
        expect: "",
    },
];

/// Returns one test for each case.
pub fn trials() -> impl Iterator<Item = Trial> {
    CASES.iter().map(|case| {
        Trial::test(format!("notices::{}", case.name), || {
            assert_eq!(case.request(), case.expect);
            Ok(())
        })
    })
}

impl Case {
    fn request(&self) -> String {
        let config = parse(CONFIG);
        let at = |text: &str| Timestamp::parse(text).unwrap();
        let (created, expires) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T01:00:00Z"));
        let captures = pairs(self.captures.iter().copied());
        let route = config.policy.route(self.route).unwrap();
        let mut interaction = Interaction::new(Arc::from(self.route), captures, created, expires);
        if let Some(provider) = &route.provider {
            interaction.provider = Some(Arc::clone(&provider.name));
            interaction.bind("job_1");
        }
        let notice = Notice {
            route,
            id: "int_1",
            interaction: &interaction,
            cause: self.cause,
            edge: config.policy.ingress.edge(),
            stamp: Stamp { now: at("2026-01-01T01:00:01Z"), id: "msg_1" },
        };
        let Some((head, body)) = notice.write() else { return String::new() };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let text = format!("{}{}", text(head), text(body)).replace("\r\n", "|");
        match text.split_once("|callgate-assertion: ") {
            None => text,
            Some((before, rest)) => {
                let (token, after) = rest.split_once('|').unwrap();
                format!("{before}|callgate-assertion: {}|{after}", decoded(token))
            }
        }
    }
}

/// Verifies the MAC of an assertion. Returns its header and its claims as text.
fn decoded(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(env("FOREIGN_KEY").unwrap().as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    mac.verify_slice(&decode(signature)).unwrap();
    signed.split('.').map(|part| String::from_utf8(decode(part)).unwrap()).collect::<Vec<_>>().join(" ")
}
