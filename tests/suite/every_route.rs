//! Every kind of route against every store, on an instance that has nothing else to do: a first delivery, the same
//! again, and the same after a restart. A busy instance hides an answer that waits for somebody else's commit.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use callgate::clock::{Clock, instant};
use callgate::config::{Config, Unknown};
use callgate::ingress::{Route, TokenRule};
use callgate::request::RequestHead;
use callgate::signature::SignatureContext;
use callgate::source::LOOPBACK;
use callgate::time::Timestamp;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::harness::{ANSWER, Agent, Callgate, Response, parse, send_to};

/// Longest wait for an answer. No answer takes a hundredth of it, unless it waits for what never comes.
const PROMPT: Duration = Duration::from_secs(10);

/// A kind of route: what is asked of a caller, and what a repeat is told by.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Kind {
    Open,
    StaticToken,
    Jwt,
    BearerToken,
    QueryToken,
    TwoUses,
    SignedWithId,
    SignedWithoutId,
    SignedDeliveredAgain,
    SignedWithToken,
    SignedWithTokenDeliveredAgain,
    Followed,
    FollowedAndSigned,
    FollowedTwoUses,
    FollowedDeliveredAgain,
    Observed,
    ObservedFollowed,
    Handshake,
    Action,
    ActionFollowed,
}

const KINDS: [Kind; 20] = [
    Kind::Open,
    Kind::StaticToken,
    Kind::Jwt,
    Kind::BearerToken,
    Kind::QueryToken,
    Kind::TwoUses,
    Kind::SignedWithId,
    Kind::SignedWithoutId,
    Kind::SignedDeliveredAgain,
    Kind::SignedWithToken,
    Kind::SignedWithTokenDeliveredAgain,
    Kind::Followed,
    Kind::FollowedAndSigned,
    Kind::FollowedTwoUses,
    Kind::FollowedDeliveredAgain,
    Kind::Observed,
    Kind::ObservedFollowed,
    Kind::Handshake,
    Kind::Action,
    Kind::ActionFollowed,
];

/// What a repeat is recognized by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Repeat {
    /// By nothing: it is delivered again.
    Delivered,
    /// By its event: it is answered here.
    Answered,
    /// By the uses of its token: the second is the last.
    Counted,
    /// It never reaches the agent.
    NeverDelivered,
}

impl Kind {
    /// The route, less its name, path and target.
    fn route(self) -> &'static str {
        match self {
            Self::Open => "open: true",
            Self::StaticToken => {
                "token: { kind: static, header: x-gitlab-token, secrets: [ { env: STATIC } ] }"
            }
            Self::Jwt => {
                "token: { kind: jwt, keys: [ { algorithm: HS256, secret: { env: JWT_KEY } } ], audience: agent, bind: { id: sub } }"
            }
            Self::BearerToken | Self::TwoUses => "token: { kind: callback, from: [bearer] }",
            Self::QueryToken => "token: { kind: callback, from: [query] }",
            Self::SignedWithId => "provider: sw",
            Self::SignedWithoutId => "provider: plain",
            Self::SignedDeliveredAgain => "provider: plain, duplicates: deliver",
            Self::SignedWithToken => "provider: sw, token: { kind: callback }",
            Self::SignedWithTokenDeliveredAgain => {
                "provider: sw, token: { kind: callback }, duplicates: deliver"
            }
            Self::Followed | Self::FollowedTwoUses => {
                "token: { kind: callback }, interaction: { status: /status, done: [done] }"
            }
            Self::FollowedAndSigned => {
                "provider: sw, token: { kind: callback }, interaction: { status: /status, done: [done] }"
            }
            Self::FollowedDeliveredAgain => {
                "provider: sw, token: { kind: callback }, duplicates: deliver, interaction: { status: /status, done: [done] }"
            }
            Self::Observed => "mode: observe, provider: sw",
            Self::ObservedFollowed => {
                "mode: observe, provider: sw, token: { kind: callback }, interaction: { status: /status, done: [done] }"
            }
            Self::Handshake => "provider: slack",
            Self::Action => {
                "token: { kind: callback }, actions: { pointer: /ask/action_endpoint, hosts: [127.0.0.1] }"
            }
            Self::ActionFollowed => {
                "token: { kind: callback }, actions: { pointer: /ask/action_endpoint, hosts: [127.0.0.1] }, interaction: { status: /status, done: [done] }"
            }
        }
    }

    fn repeat(self) -> Repeat {
        match self {
            Self::Open
            | Self::StaticToken
            | Self::Jwt
            | Self::BearerToken
            | Self::QueryToken
            | Self::SignedDeliveredAgain
            | Self::SignedWithTokenDeliveredAgain
            | Self::Followed
            | Self::FollowedDeliveredAgain
            | Self::Observed
            | Self::ObservedFollowed
            | Self::Action
            | Self::ActionFollowed => Repeat::Delivered,
            Self::SignedWithId | Self::SignedWithoutId | Self::SignedWithToken | Self::FollowedAndSigned => {
                Repeat::Answered
            }
            Self::TwoUses | Self::FollowedTwoUses => Repeat::Counted,
            Self::Handshake => Repeat::NeverDelivered,
        }
    }

    fn uses(self) -> Option<u32> {
        (self.repeat() == Repeat::Counted).then_some(2)
    }

    fn asks(self) -> bool {
        matches!(self, Self::Action | Self::ActionFollowed)
    }

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// Where the ledger is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kept {
    InMemory,
    InAFile,
}

/// What the test knows of: a new kind of token, or a new policy for what the ledger does not know, has to be named
/// here, and gets its rows above.
fn is_of_a_known_kind(route: &Route) -> bool {
    match &route.token {
        None | Some(TokenRule::Callback { .. } | TokenRule::Jwt { .. } | TokenRule::Static { .. }) => true,
    }
}

const fn word(unknown: Unknown) -> &'static str {
    match unknown {
        Unknown::Adopt => "adopt",
        Unknown::Refuse => "refuse",
    }
}

fn text(kept: Kept, unknown: Unknown, folder: &Path, agent: &Agent) -> String {
    let store = match kept {
        Kept::InMemory => format!("{{ kind: memory, unknown: {} }}", word(unknown)),
        Kept::InAFile => {
            format!("{{ kind: file, path: {}/ledger, unknown: {} }}", folder.display(), word(unknown))
        }
    };
    let routes: String = KINDS
        .iter()
        .map(|kind| {
            let name = kind.name();
            let route = kind.route();
            format!("  - {{ name: {name}, path: \"/{name}/{{id}}\", forward: \"/in/{name}\", {route} }}\n")
        })
        .collect();
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
store: {store}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
providers:
  sw: {{ preset: standard-webhooks, secrets: [ {{ env: WHSEC }} ] }}
  slack: {{ preset: slack, secrets: [ {{ env: HMAC_SECRET }} ] }}
  plain: {{ signature: {{ scheme: hmac, algorithm: sha256, header: x-sig, content: \"{{body}}\", encoding: hex, duplicates: signature, secrets: [ {{ env: HMAC_SECRET }} ] }} }}
routes:
{routes}",
        agent.address
    )
}

/// A running Callgate with all routes, and what was minted for them.
struct World {
    agent: Agent,
    provider: Agent,
    config: Config,
    text: String,
    callgate: Callgate,
    minted: HashMap<Kind, Value>,
}

impl World {
    fn new(kept: Kept, unknown: Unknown, folder: &Path) -> Self {
        let (agent, provider) = (Agent::start(ANSWER), Agent::start(ANSWER));
        let text = text(kept, unknown, folder, &agent);
        let config = parse(&text);
        let callgate = Callgate::start(&text, Clock::System);
        let mut world = Self { agent, provider, config, text, callgate, minted: HashMap::new() };
        for kind in KINDS {
            let route = world.config.policy.route(&kind.name()).unwrap();
            assert!(is_of_a_known_kind(route));
            if matches!(route.token, Some(TokenRule::Callback { .. })) {
                let wanted = json!({ "route": kind.name(), "params": { "id": "a" }, "uses": kind.uses() });
                let mut wanted = wanted.as_object().unwrap().clone();
                wanted.retain(|_, value| !value.is_null());
                let minted =
                    world.callgate.admin_send("POST", "/callbacks", &Value::Object(wanted).to_string());
                assert_eq!(minted.status, 201, "{}", minted.text());
                world.minted.insert(kind, minted.json());
            }
        }
        world
    }

    fn restart(self) -> Self {
        let Self { agent, provider, config, text, callgate, minted } = self;
        drop(callgate);
        let callgate = Callgate::start(&text, Clock::System);
        Self { agent, provider, config, text, callgate, minted }
    }

    fn delivered(&self, kind: Kind) -> usize {
        let target = format!("/in/{}", kind.name());
        self.agent.received().iter().filter(|received| received.target() == target).count()
    }

    /// Calls back as the kind's caller would; the same message each time.
    fn call(&self, kind: Kind) -> Response {
        let name = kind.name();
        let route = self.config.policy.route(&name).unwrap();
        let body = match kind {
            Kind::Handshake => r#"{"token":"t","challenge":"c","type":"url_verification"}"#.to_owned(),
            _ if kind.asks() => {
                format!(r#"{{"ask":{{"action_endpoint":"http://{}/answer"}}}}"#, self.provider.address)
            }
            _ => format!(r#"{{"status":"working","kind":"{name}"}}"#),
        };
        let mut target = format!("/{name}/a");
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        match &route.token {
            None => {}
            Some(rule @ TokenRule::Static { .. }) => {
                let header = rule.headers().next().unwrap();
                headers.push((header.to_string(), "a static secret".to_owned()));
            }
            Some(TokenRule::Jwt { .. }) => {
                headers.push(("authorization".to_owned(), format!("Bearer {}", jwt())));
            }
            Some(TokenRule::Callback { .. }) => {
                let token = self.minted[&kind]["callback_token"].as_str().unwrap();
                match kind {
                    Kind::QueryToken => target = format!("{target}?callback_token={token}"),
                    _ => headers.push(("authorization".to_owned(), format!("Bearer {token}"))),
                }
            }
        }
        if let Some(verifier) = route.verifier() {
            let none = HeaderMap::new();
            let now = Timestamp::from_unix_ms(1000 * i64::try_from(seconds()).unwrap());
            let signed = SignatureContext::new(RequestHead::new("POST", &target, &none, LOOPBACK), "", now);
            let made = verifier.sign(&signed, body.as_bytes(), &format!("msg_{name}")).unwrap().headers;
            headers.extend(
                made.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())),
            );
        }
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let began = instant();
        let answer = send_to(self.callgate.ingress, "POST", &target, &headers, body.as_bytes());
        assert!(began.elapsed() < PROMPT, "{kind:?}: {} after {:?}", answer.status, began.elapsed());
        answer
    }

    /// Calls, and holds the answer and what reached the agent against what is promised.
    fn expect(&self, kind: Kind, status: u16, delivered: bool, when: &str) {
        let before = self.delivered(kind);
        let answer = self.call(kind);
        assert_eq!(answer.status, status, "{kind:?} {when}: {}", answer.text());
        assert_eq!(self.delivered(kind) - before, usize::from(delivered), "{kind:?} {when}");
        if kind.asks() && status == 200 {
            let id = self.minted[&kind]["interaction"].as_str().unwrap();
            let began = instant();
            let answered = self.callgate.agent_sends(&format!("/actions/{id}"), "{}");
            assert_eq!(answered.status, 200, "{kind:?} {when}: {}", answered.text());
            assert!(began.elapsed() < PROMPT, "{kind:?} {when}");
        }
    }
}

fn seconds() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "what is signed must be signed now")]
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn jwt() -> String {
    let claims = json!({ "aud": "agent", "sub": "a", "exp": seconds() + 600 });
    let key = jsonwebtoken::EncodingKey::from_secret(b"the key of somebody else's issuer");
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

#[test]
fn every_kind_of_route_works_with_every_store_when_nothing_else_happens() {
    let kept = [Kept::InMemory, Kept::InAFile];
    for (kept, unknown) in kept.into_iter().flat_map(|kept| [(kept, Unknown::Adopt), (kept, Unknown::Refuse)])
    {
        let folder = tempfile::tempdir().unwrap();
        let world = World::new(kept, unknown, folder.path());
        let at = format!("with {kept:?}, {unknown:?}");
        for kind in KINDS {
            world.expect(kind, 200, kind.repeat() != Repeat::NeverDelivered, &format!("first {at}"));
        }
        for kind in KINDS {
            let delivered = matches!(kind.repeat(), Repeat::Delivered | Repeat::Counted);
            world.expect(kind, 200, delivered, &format!("again {at}"));
        }
        for kind in KINDS.into_iter().filter(|kind| kind.repeat() == Repeat::Counted) {
            world.expect(kind, 410, false, &format!("a third time {at}"));
        }
        let world = world.restart();
        let forgotten = kept == Kept::InMemory;
        for kind in KINDS {
            let tied = world.minted.contains_key(&kind) && kind != Kind::ObservedFollowed;
            let (status, delivered) = match kind.repeat() {
                // Its interaction is not known any more.
                _ if forgotten && tied && unknown == Unknown::Refuse => (410, false),
                Repeat::Counted if !forgotten => (410, false),
                Repeat::Answered if !forgotten => (200, false),
                Repeat::NeverDelivered => (200, false),
                Repeat::Delivered | Repeat::Answered | Repeat::Counted => (200, true),
            };
            world.expect(kind, status, delivered, &format!("after a restart {at}"));
        }
    }
}
