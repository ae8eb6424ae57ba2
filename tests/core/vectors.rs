//! Published test vectors, and vectors that were made with the providers' own libraries. They are verified with a
//! configuration that a user would write. The test binary `decisions` verifies them, and the suite uses them in other
//! tests.

use std::collections::BTreeMap;
use std::fs;

use callgate::config::{Config, Surroundings};
use callgate::ingress::Decided;
use callgate::request::RequestHead;
use callgate::signature::{HandshakeReply, SignatureContext};
use callgate::source::LOOPBACK;
use callgate::time::Timestamp;
use callgate::trail::Trail;
use http::{HeaderMap, HeaderName, HeaderValue};
use libtest_mimic::Trial;
use serde::Deserialize;
use serde_json::Value;

#[derive(Clone, Deserialize)]
pub struct Vector {
    pub id: String,
    #[serde(default)]
    kind: Option<String>,
    pub provider: String,
    secret: String,
    #[serde(default)]
    cert_pem: Option<String>,
    #[serde(default)]
    expect: Option<Value>,
    #[serde(default)]
    expect_response: Option<Answer>,
    method: String,
    url: String,
    headers: BTreeMap<String, String>,
    pub body: String,
    valid: bool,
    #[serde(default)]
    needs_state: bool,
    now: i64,
}

#[derive(Clone, Deserialize)]
struct Answer {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<String>,
}

/// Vectors whose result depends on more than one request: a repeated nonce, which is a duplicate here, and keys that
/// the operator has removed.
const STATEFUL: [&str; 4] = [
    "adcp-neg-016-replayed-nonce",
    "adcp-neg-017-key-revoked",
    "adcp-neg-018-rate-abuse",
    "adcp-neg-019-revocation-stale",
];

/// Handshakes whose vectors contain no signature.
const UNSIGNED: [&str; 2] = ["hs-discord-interaction", "hs-discord-event"];

const BARE: &str = "signature: { scheme: message-signatures, algorithm: hmac-sha256, key: base64, \
     components: [date, '@authority', content-type], unsigned_body: accept, secrets: [ { env: SECRET } ] }";

/// A vector whose path no route here matches. Only its signature is verified.
const PATHLESS: &str = "adcp-pos-005-percent-encoded-path";

impl Vector {
    /// Splits the URL into the public URL and the path with its query.
    fn split(&self) -> (&str, &str) {
        let start = self.url.find("://").unwrap() + 3;
        let slash = self.url[start..].find('/').unwrap() + start;
        self.url.split_at(slash)
    }

    pub fn preset(&self) -> &str {
        match self.provider.as_str() {
            "hubspot" if self.id.starts_with("hubspot-v2") => "hubspot-v2",
            name => name,
        }
    }

    /// Reports whether the vector is a genuine message, not a handshake, and a route can be configured for it.
    pub fn is_plain_and_valid(&self) -> bool {
        self.valid && self.kind.is_none() && self.id != PATHLESS && self.provider != "http-message-signatures"
    }

    /// Returns a configuration for the vector. Keys that cannot be used are errors.
    pub fn config(&self) -> Result<Config, String> {
        let (public_url, target) = self.split();
        let path: Vec<_> = target.split('?').next().unwrap().split('/').skip(1).collect();
        let path: String = path
            .iter()
            .enumerate()
            .map(
                |(i, segment)| {
                    if segment.contains('%') { format!("/{{s{i}}}") } else { format!("/{segment}") }
                },
            )
            .collect();
        let expect = self.expect.as_ref().map_or_else(String::new, |expect| {
            format!(", expect: {{ audience: {}, email: {} }}", expect["aud"], expect["email"])
        });
        let certificates = self.cert_pem.as_ref().map_or("", |_| ", certificates: { env: CERTIFICATES }");
        let secrets = if self.secret.is_empty() { "" } else { ", secrets: [ { env: SECRET } ]" };
        let spare = ", secrets: [ { env: SPARE } ]";
        let subscriptions = "subscriptions: [eventemitter.example.com, 'https://pub.example/feed']";
        let extra = match self.provider.as_str() {
            "cloudevents" | "websub" if secrets.is_empty() => format!("{spare}, {subscriptions}"),
            "trello" | "dropbox" | "microsoft-graph" if secrets.is_empty() => spare.to_owned(),
            "asana" | "notion" if secrets.is_empty() => {
                ", registration: { file: /nowhere/secret }, allow: [127.0.0.1]".to_owned()
            }
            _ => String::new(),
        };
        let open = if self.provider == "azure-event-grid" { ", open: true" } else { "" };
        let provider = match self.provider.as_str() {
            // The plain RFC 9421, without a provider that says which components must be covered.
            "http-message-signatures" => BARE.to_owned(),
            _ => format!("preset: {}", self.preset()),
        };
        let secrets = if provider == BARE { "" } else { secrets };
        let text = format!(
            "public_url: {public_url}
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: 127.0.0.1:1 }}
providers: {{ p: {{ {provider}{secrets}{certificates}{expect}{extra} }} }}
routes: [ {{ name: r, path: \"{path}\", provider: p, forward: /in{open} }} ]
"
        );
        self.parse(&text)
    }

    fn parse(&self, text: &str) -> Result<Config, String> {
        let env = |name: &str| match name {
            "CERTIFICATES" => self.cert_pem.clone(),
            "SPARE" => Some("a spare secret, never used".to_owned()),
            _ => Some(self.secret.clone()),
        };
        let surroundings = Surroundings { env: &env, file: &|path| fs::read(path) };
        Config::parse(text, &surroundings).map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            format!("{}: {}\n{text}", self.id, errors.join("\n"))
        })
    }

    pub fn headers(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        map
    }

    /// Decides about the vector's request. Returns `None` if the callback would be delivered.
    pub fn decide(
        &self,
        config: &Config,
        body: &[u8],
        headers: &HeaderMap,
    ) -> Result<Option<HandshakeReply>, (u16, String)> {
        let target = self.split().1;
        let head = RequestHead {
            body_bytes_declared: None,
            ..RequestHead::new(&self.method, target, headers, LOOPBACK)
        };
        let mut trail = Trail::verbose();
        let ingress = &config.policy.ingress;
        let decided = ingress
            .decide_head(&head, Timestamp::from_unix_secs(self.now), &mut trail)
            .and_then(|admitted| admitted.decide_body(&head, body, &mut trail));
        match decided {
            Ok(Decided::Callback(_)) => Ok(None),
            Ok(Decided::Handshake(shaken)) => Ok(Some(shaken.0)),
            Ok(Decided::Observed(observed)) => panic!("{observed:?}"),
            Ok(Decided::Streamed(streamed)) => panic!("{streamed:?}"),
            Err(denied) => {
                let last = trail.details().last().map(|(_, detail)| detail.to_owned());
                Err((denied.denial.status(), format!("{}: {last:?}", denied.denial.code())))
            }
        }
    }
}

pub fn vectors() -> Vec<Vector> {
    let text = fs::read_to_string("tests/vectors/providers.json").unwrap();
    let vectors: Vec<Vector> = serde_json::from_str(&text).unwrap();
    assert_eq!(vectors.len(), 308);
    vectors
}

/// Returns the tests: one for each vector, and one for each vector whose bits are changed.
pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for vector in vectors() {
        if STATEFUL.contains(&vector.id.as_str()) {
            assert!(vector.needs_state);
            continue;
        }
        let plain = vector.valid && vector.kind.is_none();
        let name = format!("vectors::{}", vector.id);
        if plain && ["github", "slack", "stripe", "standard-webhooks"].contains(&vector.provider.as_str()) {
            let vector = vector.clone();
            trials.push(Trial::test(format!("{name}, with changed bits"), move || {
                vector.changed_bits_are_denied();
                Ok(())
            }));
        }
        if !UNSIGNED.contains(&vector.id.as_str()) {
            trials.push(Trial::test(name, move || {
                if vector.id == PATHLESS {
                    vector.signature_is_valid()
                } else {
                    vector.verdict_is_right()
                }
                Ok(())
            }));
        }
    }
    trials
}

impl Vector {
    fn verdict_is_right(&self) {
        let verdict = match self.config() {
            Ok(config) => self.decide(&config, self.body.as_bytes(), &self.headers()),
            Err(error) => Err((0, error)),
        };
        let is_right = match (&verdict, &self.expect_response) {
            (Ok(Some(reply)), Some(answer)) => {
                let header = |name: &String, value: &String| match name.as_str() {
                    "content-type" => reply.media_type.is_some_and(|media| media.starts_with(value.as_str())),
                    "x-content-type-options" => value == "nosniff",
                    name => reply.headers.iter().any(|(n, v)| n.as_str() == name && v == value.as_str()),
                };
                self.valid
                    && reply.status == answer.status
                    && answer.body.as_ref().is_none_or(|body| *body == reply.body)
                    && answer.headers.iter().all(|(name, value)| header(name, value))
            }
            (Err((status, _)), Some(answer)) => !self.valid && *status == answer.status,
            (Ok(None), Some(_)) => false,
            (Ok(None), None) => self.valid,
            (Ok(Some(_)), None) => false,
            (Err(_), None) => !self.valid,
        };
        assert!(is_right, "{} valid={}: {verdict:?}", self.id, self.valid);
    }

    /// Verifies only the signature. The path is signed in its normal form.
    fn signature_is_valid(&self) {
        let config = self.config().unwrap();
        let verifier = config.policy.providers[0].verifier.as_ref().unwrap();
        let headers = self.headers();
        let (public_url, target) = self.split();
        let head = RequestHead::new(&self.method, target, &headers, LOOPBACK);
        let signed = SignatureContext::new(head, public_url, Timestamp::from_unix_secs(self.now));
        let presented = verifier.verify_head(&signed).unwrap();
        assert!(verifier.verify_body(&presented, &signed, self.body.as_bytes()).is_ok());
    }

    /// Changes each bit of the body and of the signature headers, one at a time.
    fn changed_bits_are_denied(&self) {
        let config = self.config().unwrap();
        let headers = self.headers();
        for bit in 0..self.body.len() * 8 {
            let mut body = self.body.clone().into_bytes();
            body[bit / 8] ^= 1 << (bit % 8);
            let decided = self.decide(&config, &body, &headers);
            assert!(decided.is_err(), "{}: body bit {bit}", self.id);
        }
        for (name, value) in headers.iter().filter(|(name, _)| name.as_str().contains("signature")) {
            // A header with several signatures is valid if one of them matches.
            if value.as_bytes().contains(&b' ') || value.to_str().unwrap().matches("v1=").count() > 1 {
                continue;
            }
            for bit in 0..value.len() * 8 {
                let mut bytes = value.as_bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let Ok(flipped) = HeaderValue::from_bytes(&bytes) else { continue };
                let mut map = headers.clone();
                map.insert(name.clone(), flipped);
                let decided = self.decide(&config, self.body.as_bytes(), &map);
                let shown = String::from_utf8_lossy(&bytes);
                assert!(decided.is_err(), "{}: {name} bit {bit}: {shown:?}", self.id);
            }
        }
    }
}
