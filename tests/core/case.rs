//! The decision cases of `tests/decisions`: their format, their tokens and signatures, and their verdict in the pure core.
//! The test binary `decisions` and the suite include this file.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use callgate::config::Config;
use callgate::denial::{Denial, Refusal};
use callgate::ingress::{BodyLength, Decided, Observed, Permit, Seen, Streamed, Turned, Verified};
use callgate::interaction::{ClaimError, Cleared};
use callgate::policy::MintRequest;
use callgate::request::{ClientCertificate, HOP_BY_HOP, RequestHead};
use callgate::signature::{HandshakeReply, SignatureContext};
use callgate::time::{Timestamp, parse_duration};
use callgate::token::Stamp;
use callgate::trail::Trail;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use hmac::{Hmac, Mac};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use sha2::Sha256;

use super::environment::{env, parse};

/// Returns the files of the cases, each with its path.
pub fn files() -> Vec<(PathBuf, File)> {
    let entries = fs::read_dir("tests/decisions").unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    let read = |path: PathBuf| {
        let file = serde_yaml::from_str(&fs::read_to_string(&path).unwrap());
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, file)
    };
    paths.into_iter().map(read).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub config: String,
    /// Callback tokens, which requests refer to as `<name>`.
    #[serde(default)]
    pub minted: BTreeMap<String, Minted>,
    /// Tokens of any form, which requests refer to as `<name>`.
    #[serde(default)]
    pub jwts: BTreeMap<String, Jwt>,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Minted {
    #[serde(default)]
    pub interaction: Option<String>,
    #[serde(default)]
    pub uses: Option<u32>,
    pub route: String,
    pub params: BTreeMap<String, String>,
    pub at: String,
    #[serde(default)]
    pub ttl: Option<String>,
    /// A text replacement in the configuration of the Callgate that mints the token.
    #[serde(default)]
    pub replace: Option<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    pub header: serde_json::Value,
    /// The claims as JSON, or any other text.
    pub claims: String,
    #[serde(default)]
    pub key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(default = "post")]
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    #[serde(default)]
    pub body: String,
    /// The body in base64, for a body that is not text. The signature covers `body`.
    #[serde(default)]
    pub body_base64: Option<String>,
    /// The Content-Length, if it differs from the length of the body.
    #[serde(default)]
    pub length: Option<String>,
    /// The provider that signs the request.
    #[serde(default)]
    pub sign: Option<Sign>,
    #[serde(default = "loopback")]
    pub peer: IpAddr,
    /// The names in the client certificate. The connections of the suite have none.
    #[serde(default)]
    pub certificate: Option<Vec<Box<str>>>,
    #[serde(default = "new_year")]
    pub at: String,
    pub expect: Expect,
    /// The reason why the case does not run over a socket.
    #[serde(default)]
    pub pure_only: Option<String>,
    /// The reason why the ledger denies the callback. The ledger is not asked then.
    #[serde(default)]
    pub ledger: Option<String>,
    /// Status of the agent's response.
    #[serde(default = "ok")]
    pub agent: u16,
    /// Later requests to the same ledger.
    #[serde(default)]
    pub then: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    pub provider: String,
    #[serde(default)]
    pub at: Option<String>,
    #[serde(default)]
    pub body: Option<String>,
    #[serde(default)]
    pub id: Option<String>,
    /// The interaction whose secret signs the request.
    #[serde(default)]
    pub interaction: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub verdict: String,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub route: Option<String>,
    #[serde(default)]
    pub forward: Option<String>,
    /// The last check that ran, which is the one that denied the request.
    #[serde(default)]
    pub check: Option<String>,
    /// A part of the sentence about the last check.
    #[serde(default)]
    pub detail: Option<String>,
    /// Expected outcomes: names of checks, each with `pass`, `skip`, `deny` or `hold`.
    #[serde(default)]
    pub trail: BTreeMap<String, String>,
    /// Expected headers at the agent: name and values.
    #[serde(default)]
    pub agent_sees: BTreeMap<String, Vec<String>>,
    /// The body that the agent receives, if it differs from the body of the request.
    #[serde(default)]
    pub agent_body: Option<String>,
    /// The position of the secret that verified the request, starting at 1, as the log names it.
    #[serde(default)]
    pub secret: Option<u8>,
    /// Expected response to a handshake.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// The reason over a socket, where the HTTP parser is stricter than the core.
    #[serde(default)]
    pub socket_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub status: u16,
    #[serde(default)]
    pub body: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The secret that the provider handed over. No response contains it, so only the core is asked for it.
    #[serde(default)]
    pub secret: Option<String>,
}

impl Answer {
    fn check(&self, reply: &HandshakeReply, name: &str) {
        assert_eq!((reply.status, &reply.body), (self.status, &self.body), "{name}");
        for (header, value) in &self.headers {
            let mut values = reply.headers.iter().filter(|(found, _)| found.as_str() == header);
            let found = match header.as_str() {
                "content-type" => reply.media_type,
                _ => values.next().map(|(_, value)| value.to_str().unwrap()),
            };
            assert_eq!(found, Some(value.as_str()), "{name}: {header}");
        }
        let secret = reply.secret.as_ref().map(|secret| str::from_utf8(secret.expose()).unwrap());
        assert_eq!(secret, self.secret.as_deref(), "{name}: the secret");
    }
}

fn ok() -> u16 {
    200
}

fn post() -> String {
    "POST".to_owned()
}

fn loopback() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

fn new_year() -> String {
    "2026-01-01T00:00:00Z".to_owned()
}

pub fn timestamp(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap_or_else(|| panic!("not a time: {text}"))
}

/// A case with its tokens and signatures filled in.
pub struct Prepared {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub at: Timestamp,
    certificate: Option<ClientCertificate>,
}

impl File {
    /// Returns the tokens by the text that stands for them in requests. In the token of `<name%>`, the dots are
    /// percent-encoded.
    pub fn tokens(&self) -> BTreeMap<String, String> {
        let minted =
            self.minted.iter().map(|(name, minted)| (format!("<{name}>"), mint(&self.config, minted)));
        let jwts = self.jwts.iter().map(|(name, jwt)| (format!("<{name}>"), jwt.encode()));
        let plain: Vec<_> = minted.chain(jwts).collect();
        let escaped = plain.iter().map(|(name, token)| (name.replace('>', "%>"), token.replace('.', "%2E")));
        escaped.chain(plain.iter().cloned()).collect()
    }
}

pub fn config_text(text: &str, agent: &str) -> String {
    text.replace("AGENT", agent)
}

fn mint(config: &str, minted: &Minted) -> String {
    let mut text = config_text(config, "127.0.0.1:1");
    if let Some((from, to)) = &minted.replace {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let params: Vec<_> = minted.params.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let ttl = minted.ttl.as_deref().map(|ttl| parse_duration(ttl).unwrap());
    let policy = parse(&text).policy;
    let request = MintRequest { route: &minted.route, parameters: &params, ttl, uses: minted.uses };
    let interaction = minted.interaction.as_deref().unwrap_or("int_case");
    policy.mint(&request, interaction, timestamp(&minted.at)).map(|m| m.callback_token).unwrap()
}

impl Jwt {
    fn encode(&self) -> String {
        let header = match &self.header {
            serde_json::Value::String(text) => text.clone(),
            header => header.to_string(),
        };
        let signed = format!(
            "{}.{}",
            BASE64URL_NOPAD.encode(header.as_bytes()),
            BASE64URL_NOPAD.encode(self.claims.as_bytes())
        );
        let key = env(self.key.as_deref().unwrap_or("JWT_KEY")).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&mac.finalize().into_bytes()))
    }
}

impl Case {
    /// Fills in tokens and signatures.
    pub fn prepare(&self, config: &Config, tokens: &BTreeMap<String, String>) -> Prepared {
        let fill =
            |text: &str| tokens.iter().fold(text.to_owned(), |text, (name, token)| text.replace(name, token));
        let mut prepared = Prepared {
            method: self.method.clone(),
            path: fill(&self.path),
            headers: self.headers.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            body: self.body.clone().into_bytes(),
            at: timestamp(&self.at),
            certificate: self.certificate.clone().map(|names| ClientCertificate { names }),
        };
        if let Some(sign) = &self.sign {
            let provider = config.policy.provider(&sign.provider).unwrap();
            let verifier = provider.verifier.as_ref().unwrap();
            let headers = prepared.header_map();
            let at = timestamp(sign.at.as_deref().unwrap_or(&self.at));
            let head = prepared.head(&headers, self.peer);
            let minting = config.policy.minting.as_ref();
            let derived: Vec<_> = sign
                .interaction
                .iter()
                .map(|interaction| minting.unwrap().minter.secret(interaction))
                .collect();
            let public_url = provider.public_url.as_deref().unwrap_or("https://agent.example.com");
            let alone = SignatureContext::new(head, public_url, at);
            let signed = SignatureContext { derived: &derived, ..alone };
            let body = sign.body.as_deref().unwrap_or(&self.body);
            let id = sign.id.as_deref().unwrap_or("evt_1");
            let signature = verifier.sign(&signed, body.as_bytes(), id).unwrap();
            if sign.body.is_none() {
                prepared.body = signature.body.to_vec();
            }
            if let Some(target) = signature.target {
                prepared.path = target;
            }
            for (name, value) in signature.headers {
                prepared.headers.push((name.to_string(), value.to_str().unwrap().to_owned()));
            }
        }
        if let Some(text) = &self.body_base64 {
            prepared.body = BASE64.decode(text.as_bytes()).unwrap();
        }
        let length = self
            .length
            .clone()
            .or_else(|| (!prepared.body.is_empty()).then(|| prepared.body.len().to_string()));
        prepared.headers.extend(length.map(|length| ("content-length".to_owned(), length)));
        prepared
    }
}

impl Prepared {
    pub fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    pub fn head<'a>(&'a self, headers: &'a HeaderMap, peer: IpAddr) -> RequestHead<'a> {
        let head = RequestHead::new(&self.method, &self.path, headers, peer);
        head.with_certificate(self.certificate.as_ref())
    }
}

#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    pub verdict: String,
    pub reason: Option<String>,
    pub route: Option<String>,
    pub forward: Option<String>,
    pub secret: Option<u8>,
    pub checks: Box<[String]>,
}

/// The ledger that a case is decided with. It lasts for all steps of the case.
pub trait Ledger {
    /// Asks whether a callback may be delivered, and applies the answer with `apply`. If the result is a permit and
    /// `delivers` is true, records the delivery.
    fn ask(
        &mut self,
        verified: Box<Verified>,
        at: Timestamp,
        delivers: bool,
        apply: impl FnOnce(Box<Verified>, Result<Cleared, ClaimError>) -> Result<Permit, Verdict>,
    ) -> Verdict;
}

/// The pure core, with a ledger.
pub struct Pure<L> {
    pub config: Config,
    pub ledger: L,
}

impl<L: Ledger> Pure<L> {
    /// Decides a request. Returns the verdict and the sentence about the last check.
    pub fn decide(&mut self, prepared: &Prepared, case: &Case) -> (Verdict, String) {
        let headers = prepared.header_map();
        let head = prepared.head(&headers, case.peer);
        let mut trail = Trail::verbose();
        let mut sent = Sent {
            head: &head,
            body: &prepared.body,
            at: prepared.at,
            handed_over: HeaderMap::new(),
            written: Vec::new(),
            decoded: None,
        };
        let decided = self
            .config
            .policy
            .ingress
            .decide_head(&head, prepared.at, &mut trail)
            .and_then(|admitted| admitted.decide_body(&head, &prepared.body, &mut trail));
        let mut verdict = match decided {
            Ok(Decided::Callback(verified)) => {
                sent.handed_over = self.hand_over(&verified, &head, &prepared.body, prepared.at);
                let route = Some(verified.route().name.to_string());
                let apply = |verified: Box<Verified>, ruling| permit(verified, ruling, &mut trail, &mut sent);
                let verdict = match &case.ledger {
                    None => self.ledger.ask(verified, prepared.at, case.agent == 200, apply),
                    Some(code) => denied_by_the_ledger(code, verified, apply),
                };
                assert_eq!(verdict.route, route);
                verdict
            }
            Ok(Decided::Handshake(shaken)) => {
                if let Some(answer) = &case.expect.answer {
                    answer.check(&shaken.0, &case.name);
                }
                Verdict::held("handshake", shaken.1)
            }
            Ok(Decided::Observed(observed)) => sent.observed(*observed),
            Ok(Decided::Streamed(streamed)) => sent.streamed(*streamed),
            Err(denied) => Verdict::denied(denied.denial, denied.seen),
        };
        sent.check(case);
        for (check, outcome) in &case.expect.trail {
            let found = trail.steps().find(|step| step.check.name() == check);
            let found = found.map(|step| step.outcome.name());
            assert_eq!(found, Some(outcome.as_str()), "{}: {check}", case.name);
        }
        verdict.checks = trail.steps().map(|step| step.check.name().to_owned()).collect();
        let detail = trail.details().last().map(|(_, detail)| detail.to_owned()).unwrap_or_default();
        (verdict, detail)
    }

    /// Hands a callback over to another replica, and checks that the other replica decides like this one. Returns the
    /// headers that the other replica receives from the caller.
    fn hand_over(
        &self,
        verified: &Verified,
        head: &RequestHead<'_>,
        body: &[u8],
        at: Timestamp,
    ) -> HeaderMap {
        let (first, headers) = parsed(&verified.write_for_member(head, body, "a proof"));
        assert_eq!(first, format!("{} {} HTTP/1.1", head.method, head.target));
        let of_member: [(HeaderName, &str); 2] = [
            (CONTENT_LENGTH, &body.len().to_string()),
            (HeaderName::from_static("callgate-replica"), "a proof"),
        ];
        for (name, expected) in &of_member {
            let is_needed = *name != CONTENT_LENGTH || !body.is_empty();
            let found: Vec<_> = headers.get_all(name).iter().collect();
            assert!(found == [expected] || (found.is_empty() && !is_needed), "{name}: {found:?}");
        }
        let others = HOP_BY_HOP.into_iter().filter(|name| ![CONTENT_LENGTH, HOST].contains(name));
        for name in others {
            assert!(!headers.contains_key(&name), "{name} is passed to another replica");
        }
        let kept = headers.iter().filter(|(name, _)| **name != of_member[1].0);
        let headers: HeaderMap = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        let handed_over = RequestHead::new(head.method, head.target, &headers, verified.client());
        let handed_over = handed_over.with_certificate(head.certificate);
        let (ingress, mut trail) = (&self.config.policy.ingress, Trail::verbose());
        let decided = ingress
            .decide_head(&handed_over, at, &mut trail)
            .and_then(|admitted| admitted.decide_body(&handed_over, body, &mut trail));
        let other = match decided {
            Ok(Decided::Callback(other)) => other,
            Ok(decided) => panic!("another replica decides {decided:?}"),
            Err(denied) => panic!("another replica denies the callback: {:?}", denied.denial),
        };
        let asked = |one: &Verified| {
            let (target, client, owner) = (one.target(), one.client(), one.owner());
            format!("{target} {client} {owner:?} {:?}", one.ask())
        };
        assert_eq!(asked(&other), asked(verified));
        let seen = other.into_seen();
        assert_eq!(
            (seen.client, seen.interaction.as_deref()),
            (Some(verified.client()), verified.ask().granted.map(|granted| &*granted.interaction))
        );
        assert!(seen.route.is_some_and(|route| Arc::ptr_eq(&route, verified.route())));
        headers
    }

    /// Decides a step of a case, and compares the verdict with the expected one.
    pub fn check(&mut self, prepared: &Prepared, case: &Case) -> Verdict {
        let (verdict, found) = self.decide(prepared, case);
        let (name, expect) = (&case.name, &case.expect);
        assert_eq!(
            (&verdict.verdict, &verdict.reason),
            (&expect.verdict, &expect.reason),
            "{name}: {verdict:?}"
        );
        if let Some(route) = &expect.route {
            assert_eq!(verdict.route.as_ref(), Some(route), "{name}");
        }
        if let Some(forward) = &expect.forward {
            assert_eq!(verdict.forward.as_ref(), Some(forward), "{name}");
        }
        if let Some(secret) = expect.secret {
            assert_eq!(verdict.secret, Some(secret), "{name}");
        }
        if let Some(check) = &expect.check {
            assert_eq!(verdict.checks.last(), Some(check), "{name}");
        }
        if let Some(detail) = &expect.detail {
            assert!(found.contains(detail), "{name}: {:?} lacks {detail:?}", found);
        }
        verdict
    }
}

/// The request to the agent that the core writes.
struct Sent<'a> {
    head: &'a RequestHead<'a>,
    body: &'a [u8],
    at: Timestamp,
    /// The headers that another replica receives if the callback is handed over to it.
    handed_over: HeaderMap,
    written: Vec<u8>,
    decoded: Option<Vec<u8>>,
}

impl Sent<'_> {
    fn observed(&mut self, observed: Observed) -> Verdict {
        observed.write_head(self.head, self.body, &mut self.written);
        Verdict::observed(observed)
    }

    fn streamed(&mut self, streamed: Streamed) -> Verdict {
        let length = BodyLength::Known(self.body.len() as u64);
        streamed.write_head(self.head, length, Stamp { now: self.at, id: "case" }, &mut self.written);
        Verdict {
            verdict: "allow".to_owned(),
            reason: Some("stream".to_owned()),
            forward: Some(streamed.target().to_owned()),
            ..Verdict::of(streamed.into_seen())
        }
    }

    fn permitted(&mut self, permit: &mut Permit) {
        self.decoded = permit.take_decoded_body();
        let body = self.decoded.as_deref().unwrap_or(self.body);
        let stamp = Stamp { now: self.at, id: "case" };
        permit.write_head(self.head, body, stamp, &mut self.written);
        let mut by_other = Vec::new();
        let handed_over = RequestHead { headers: &self.handed_over, ..*self.head };
        permit.write_head(&handed_over, body, stamp, &mut by_other);
        let text = |head: &[u8]| String::from_utf8_lossy(head).into_owned();
        assert_eq!(
            text(&by_other),
            text(&self.written),
            "the agent gets another request from another replica"
        );
    }

    /// Compares the headers with the expected ones. If nothing was written, there is nothing to compare.
    fn check(&self, case: &Case) {
        let text = String::from_utf8_lossy(&self.written);
        let decoded = self.decoded.as_deref().map(|body| String::from_utf8_lossy(body).into_owned());
        assert!(text.is_empty() || decoded == case.expect.agent_body, "{}: {decoded:?}", case.name);
        let Some(lines) = text.strip_suffix("\r\n\r\n") else { return };
        let lines: Vec<_> = lines.split("\r\n").skip(1).map(|line| line.split_once(": ").unwrap()).collect();
        for (name, values) in &case.expect.agent_sees {
            let named = lines.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
            let found: Vec<_> = named.map(|(_, value)| *value).collect();
            assert_eq!(&found, values, "{}: {name} at the agent: {text}", case.name);
        }
    }
}

/// Returns the first line and the headers of the head of a request.
fn parsed(head: &[u8]) -> (String, HeaderMap) {
    let head = head.strip_suffix(b"\r\n\r\n").unwrap();
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = String::from_utf8(lines.next().unwrap().to_vec()).unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let at = line.windows(2).position(|pair| pair == b": ").unwrap();
        let name = HeaderName::from_bytes(&line[..at]).unwrap();
        headers.append(name, HeaderValue::from_bytes(&line[at + 2..]).unwrap());
    }
    (first, headers)
}

/// Applies a denial of the ledger to a callback.
fn denied_by_the_ledger(
    code: &str,
    verified: Box<Verified>,
    apply: impl FnOnce(Box<Verified>, Result<Cleared, ClaimError>) -> Result<Permit, Verdict>,
) -> Verdict {
    let denial = Denial::ALL.iter().find(|denial| denial.code() == code).unwrap();
    let refusal = Refusal::new(*denial, "the case says so");
    apply(verified, Err(ClaimError::Refused(refusal))).unwrap_err()
}

/// Applies the verdict of the ledger.
fn permit(
    verified: Box<Verified>,
    ruling: Result<Cleared, ClaimError>,
    trail: &mut Trail,
    sent: &mut Sent<'_>,
) -> Result<Permit, Verdict> {
    let target = verified.target().to_owned();
    let mut permit = verified.permit(ruling, trail).map_err(|halted| match (halted.turned, halted.held) {
        (Turned::Observed(observed), _) => sent.observed(*observed),
        (Turned::Away(seen), ClaimError::Refused(refusal)) => Verdict::denied(refusal.denial, *seen),
        (Turned::Away(seen), ClaimError::Duplicate) => Verdict::held("duplicate", *seen),
        (Turned::Away(seen), ClaimError::Stale) => Verdict::held("stale", *seen),
    })?;
    assert_eq!(permit.target(), target);
    sent.permitted(&mut permit);
    Ok(permit)
}

impl Verdict {
    /// Returns the parts of a verdict that are in the data for the log.
    fn of(seen: Seen) -> Self {
        Self {
            route: seen.route.map(|route| route.name.to_string()),
            secret: seen.secret.map(|position| u8::try_from(position).unwrap()),
            ..Self::default()
        }
    }

    pub fn denied(denial: Denial, seen: Seen) -> Self {
        let (verdict, reason) = (denial.verdict().to_owned(), Some(denial.code().to_owned()));
        Self { verdict, reason, ..Self::of(seen) }
    }

    pub fn observed(observed: Observed) -> Self {
        Self {
            verdict: "observe".to_owned(),
            reason: Some(observed.instead().to_owned()),
            forward: Some(observed.target().to_owned()),
            ..Self::of(observed.into_seen())
        }
    }

    pub fn held(reason: &str, seen: Seen) -> Self {
        let verdict = if reason == "duplicate" { "duplicate" } else { "allow" }.to_owned();
        Self { verdict, reason: Some(reason.to_owned()), ..Self::of(seen) }
    }

    /// Returns the verdict for a permit.
    pub fn allowed(permit: Permit) -> Self {
        let forward = Some(permit.target().to_owned());
        Self { verdict: "allow".to_owned(), forward, ..Self::of(permit.into_seen()) }
    }
}
