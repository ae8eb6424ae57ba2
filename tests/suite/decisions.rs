//! The decision cases: configuration, request and time give a verdict and a trail. Each case runs once in the pure core
//! and once over a socket, and both results must agree.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use callgate::clock::Clock;
use callgate::config::Config;
use callgate::denial::Denial;
use callgate::ingress::{Decided, Observed, Turned, Verified};
use callgate::interaction::ClaimError;
use callgate::observe::Metrics;
use callgate::policy::MintRequest;
use callgate::request::RequestHead;
use callgate::signature::SignatureContext;
use callgate::store::{Claimed, Store};
use callgate::time::{Timestamp, parse_duration};
use callgate::trail::Trail;
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use sha2::Sha256;
use tokio::runtime::Runtime;

use crate::harness::{ANSWER, Agent, Callgate, Received, Response, env, parse};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    config: String,
    /// Callback tokens, which requests refer to as `<name>`.
    #[serde(default)]
    minted: BTreeMap<String, Minted>,
    /// Tokens of any form, which requests refer to as `<name>`.
    #[serde(default)]
    jwts: BTreeMap<String, Jwt>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Minted {
    #[serde(default)]
    interaction: Option<String>,
    #[serde(default)]
    uses: Option<u32>,
    route: String,
    params: BTreeMap<String, String>,
    at: String,
    #[serde(default)]
    ttl: Option<String>,
    /// A text replacement in the configuration of the Callgate that mints the token.
    #[serde(default)]
    replace: Option<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwt {
    header: serde_json::Value,
    /// The claims as JSON, or any other text.
    claims: String,
    #[serde(default)]
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default = "post")]
    method: String,
    path: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    /// The Content-Length, if it differs from the length of the body.
    #[serde(default)]
    length: Option<String>,
    /// The provider that signs the request.
    #[serde(default)]
    sign: Option<Sign>,
    #[serde(default = "loopback")]
    peer: IpAddr,
    #[serde(default = "new_year")]
    at: String,
    expect: Expect,
    /// The reason why the case does not run over a socket.
    #[serde(default)]
    pure_only: Option<String>,
    /// Status of the agent's response.
    #[serde(default = "ok")]
    agent: u16,
    /// Later requests to the same ledger.
    #[serde(default)]
    then: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sign {
    provider: String,
    #[serde(default)]
    at: Option<String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    id: Option<String>,
    /// The interaction whose secret signs the request.
    #[serde(default)]
    interaction: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    verdict: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    route: Option<String>,
    #[serde(default)]
    forward: Option<String>,
    /// The last check that ran, which is the one that denied the request.
    #[serde(default)]
    check: Option<String>,
    /// Expected headers at the agent: name and values.
    #[serde(default)]
    agent_sees: BTreeMap<String, Vec<String>>,
    /// Expected response to a handshake.
    #[serde(default)]
    answer: Option<Answer>,
    /// The reason over a socket, where the HTTP parser is stricter than the core.
    #[serde(default)]
    socket_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    status: u16,
    #[serde(default)]
    body: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
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

fn timestamp(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap_or_else(|| panic!("not a time: {text}"))
}

/// A case with its tokens and signatures filled in.
struct Prepared {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    at: Timestamp,
}

impl File {
    fn tokens(&self) -> BTreeMap<String, String> {
        let minted =
            self.minted.iter().map(|(name, minted)| (format!("<{name}>"), mint(&self.config, minted)));
        let jwts = self.jwts.iter().map(|(name, jwt)| (format!("<{name}>"), jwt.encode()));
        minted.chain(jwts).collect()
    }
}

fn config_text(text: &str, agent: &str) -> String {
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
    fn prepare(&self, config: &Config, tokens: &BTreeMap<String, String>) -> Prepared {
        let fill =
            |text: &str| tokens.iter().fold(text.to_owned(), |text, (name, token)| text.replace(name, token));
        let mut prepared = Prepared {
            method: self.method.clone(),
            path: fill(&self.path),
            headers: self.headers.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            body: self.body.clone().into_bytes(),
            at: timestamp(&self.at),
        };
        if let Some(sign) = &self.sign {
            let verifier = config.policy.provider(&sign.provider).unwrap().verifier.as_ref().unwrap();
            let headers = prepared.header_map();
            let at = timestamp(sign.at.as_deref().unwrap_or(&self.at));
            let head = prepared.head(&headers, self.peer);
            let minting = config.policy.minting.as_ref();
            let derived: Vec<_> = sign
                .interaction
                .iter()
                .map(|interaction| minting.unwrap().minter.secret(interaction))
                .collect();
            let alone = SignatureContext::new(head, "https://agent.example.com", at);
            let signed = SignatureContext { derived: &derived, ..alone };
            let body = sign.body.as_deref().unwrap_or(&self.body);
            let id = sign.id.as_deref().unwrap_or("evt_1");
            let signature = verifier.sign(&signed, body.as_bytes(), id).unwrap();
            if sign.body.is_none() {
                prepared.body = signature.body.to_vec();
            }
            for (name, value) in signature.headers {
                prepared.headers.push((name.to_string(), value.to_str().unwrap().to_owned()));
            }
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
    fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn head<'a>(&'a self, headers: &'a HeaderMap, peer: IpAddr) -> RequestHead<'a> {
        RequestHead::new(&self.method, &self.path, headers, peer)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("{} {} HTTP/1.1\r\nHost: agent.example.com\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            write!(bytes, "{name}: {value}\r\n").unwrap();
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

#[derive(Debug, Default, PartialEq)]
struct Verdict {
    verdict: String,
    reason: Option<String>,
    route: Option<String>,
    forward: Option<String>,
    checks: Vec<String>,
}

/// The pure core, with a ledger that lasts for several requests.
struct Pure {
    config: Config,
    store: Store,
    runtime: Runtime,
}

impl Pure {
    fn new(text: &str) -> Self {
        let config = parse(&config_text(text, "127.0.0.1:1"));
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = Store::start(&config.startup.store, metrics, callgate::clock::instant).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { config, store, runtime }
    }

    fn decide(&self, prepared: &Prepared, case: &Case) -> Verdict {
        let headers = prepared.header_map();
        let head = prepared.head(&headers, case.peer);
        let mut trail = Trail::verbose();
        let decided = self
            .config
            .policy
            .ingress
            .decide_head(&head, prepared.at, &mut trail)
            .and_then(|admitted| admitted.decide_body(&head, &prepared.body, &mut trail));
        let mut verdict = match decided {
            Ok(Decided::Callback(verified)) => {
                self.runtime.block_on(self.ask(verified, prepared, case, &mut trail))
            }
            Ok(Decided::Handshake(shaken)) => {
                Verdict::held("handshake", shaken.1.route.map(|route| route.name.to_string()))
            }
            Ok(Decided::Observed(observed)) => Verdict::observed(&observed),
            Err(denied) => {
                Verdict::denied(denied.denial, denied.seen.route.map(|route| route.name.to_string()))
            }
        };
        verdict.checks = trail.steps().map(|step| step.check.name().to_owned()).collect();
        verdict
    }

    async fn ask(
        &self,
        verified: Box<Verified>,
        prepared: &Prepared,
        case: &Case,
        trail: &mut Trail,
    ) -> Verdict {
        let route = Some(verified.route().name.to_string());
        let claimed = self.store.claim(&verified.ask(), prepared.at, Duration::ZERO).await;
        let ruling = claimed.as_ref().map(Claimed::cleared).map_err(Clone::clone);
        match verified.permit(ruling, trail) {
            Ok(permit) => {
                if case.agent == 200 {
                    let id = permit.event_id().map(|id| id.to_str().unwrap());
                    claimed.unwrap().settle(permit.report(), id, prepared.at).await.unwrap();
                }
                let forward = Some(permit.target().to_owned());
                Verdict { verdict: "allow".to_owned(), route, forward, ..Verdict::default() }
            }
            Err(halted) => match (halted.turned, halted.held) {
                (Turned::Observed(observed), _) => Verdict::observed(&observed),
                (_, ClaimError::Refused(refusal)) => Verdict::denied(refusal.denial, route),
                (_, ClaimError::Duplicate) => Verdict::held("duplicate", route),
                (_, ClaimError::Stale) => Verdict::held("stale", route),
            },
        }
    }
}

impl Verdict {
    fn denied(denial: Denial, route: Option<String>) -> Self {
        let (verdict, reason) = (denial.verdict().to_owned(), Some(denial.code().to_owned()));
        Self { verdict, reason, route, ..Self::default() }
    }

    fn observed(observed: &Observed) -> Self {
        Self {
            verdict: "observe".to_owned(),
            reason: Some(observed.instead().to_owned()),
            route: Some(observed.route().name.to_string()),
            forward: Some(observed.target().to_owned()),
            ..Self::default()
        }
    }

    fn held(reason: &str, route: Option<String>) -> Self {
        let verdict = if reason == "duplicate" { "duplicate" } else { "allow" }.to_owned();
        Self { verdict, reason: Some(reason.to_owned()), route, ..Self::default() }
    }
}

/// A Callgate with real sockets, and its agent.
struct Real {
    agent: Agent,
    callgate: Callgate,
    now: Arc<AtomicI64>,
}

impl Real {
    fn new(text: &str, at: Timestamp) -> Self {
        let agent = Agent::start(ANSWER);
        let now = Arc::new(AtomicI64::new(at.unix_ms()));
        let text = config_text(text, &agent.address.to_string());
        let callgate = Callgate::start(&text, Clock::Set(Arc::clone(&now)));
        Self { agent, callgate, now }
    }

    fn decide(&self, prepared: &Prepared, case: &Case) -> (Verdict, Response) {
        self.now.store(prepared.at.unix_ms(), Ordering::SeqCst);
        self.agent.answers(&match case.agent {
            200 => ANSWER.to_vec(),
            status => format!("HTTP/1.1 {status} Told\r\ncontent-length: 0\r\n\r\n").into_bytes(),
        });
        let before = self.agent.received().len();
        let mut stream = self.callgate.connect_from(case.peer);
        stream.write_all(&prepared.bytes()).unwrap();
        let response = Response::read(&mut stream);
        let log = self.callgate.log().remove(0);
        let mut received = self.agent.received().split_off(before);
        // Notices, which the clock of the ledger causes, are not part of the case.
        received.retain(|received| received.header("callgate-notice").is_empty());
        check_log(case, prepared, &log);
        if let Some(received) = received.first() {
            check_received(case, prepared, received);
        }
        let text = |name: &str| {
            log[name].as_str().filter(|text| *text != "none" && *text != "ok").map(str::to_owned)
        };
        let verdict = Verdict {
            verdict: text("verdict").unwrap(),
            reason: text("reason"),
            route: text("route"),
            forward: received.first().map(|received| received.target().to_owned()),
            checks: log["trail_ns"].as_object().unwrap().keys().cloned().collect(),
        };
        (verdict, response)
    }
}

fn check_log(case: &Case, prepared: &Prepared, log: &serde_json::Value) {
    let raw = log.to_string();
    for (name, value) in &prepared.headers {
        let secret = name.eq_ignore_ascii_case("authorization") && value.len() > 20;
        assert!(
            !secret || !raw.contains(value.trim_start_matches("Bearer ")),
            "{}: token in the log",
            case.name
        );
    }
    assert!(!raw.contains("eyJ"), "{}: token in the log: {raw}", case.name);
}

fn check_received(case: &Case, prepared: &Prepared, received: &Received) {
    for (name, values) in &case.expect.agent_sees {
        assert_eq!(&received.header(name), values, "{}: {name} at the agent: {}", case.name, received.head);
    }
    assert_eq!(received.body, prepared.body, "{}", case.name);
    // The agent may see the provider's signature headers, but never a callback token.
    let observed = case.expect.verdict == "observe";
    let ours = case.sign.is_none() && !observed && received.head.contains("eyJ");
    assert!(!ours, "{}: token at the agent: {}", case.name, received.head);
}

/// Runs a case and its later requests with one ledger, in the pure core and over a socket.
fn run(case: &Case, file: &File, tokens: &BTreeMap<String, String>) {
    let pure = Pure::new(&file.config);
    let real = case.pure_only.is_none().then(|| Real::new(&file.config, timestamp(&case.at)));
    for step in std::iter::once(case).chain(&case.then) {
        run_step(step, tokens, &pure, real.as_ref());
    }
}

fn run_step(case: &Case, tokens: &BTreeMap<String, String>, pure: &Pure, real: Option<&Real>) {
    let prepared = case.prepare(&pure.config, tokens);
    let pure = pure.decide(&prepared, case);
    let expect = &case.expect;
    assert_eq!((&pure.verdict, &pure.reason), (&expect.verdict, &expect.reason), "{}: {pure:?}", case.name);
    if let Some(route) = &expect.route {
        assert_eq!(pure.route.as_ref(), Some(route), "{}", case.name);
    }
    if let Some(forward) = &expect.forward {
        assert_eq!(pure.forward.as_ref(), Some(forward), "{}", case.name);
    }
    if let Some(check) = &expect.check {
        assert_eq!(pure.checks.last(), Some(check), "{}", case.name);
    }
    let Some(real) = real else { return };
    let (mut socket, response) = real.decide(&prepared, case);
    if let Some(reason) = &expect.socket_reason {
        assert_eq!(socket.reason.as_ref(), Some(reason), "{}", case.name);
        return;
    }
    // The log sorts the checks by name, so their order is verified only in the pure core.
    let mut checks = pure.checks.clone();
    checks.sort();
    socket.checks.sort();
    assert_eq!(socket, Verdict { checks, ..pure }, "{}: pure and socket differ", case.name);
    let denial = |code: &String| Denial::ALL.iter().find(|denial| denial.code() == code);
    if let Some(answer) = &expect.answer {
        assert_eq!((response.status, response.text()), (answer.status, answer.body.clone()), "{}", case.name);
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{}", case.name);
        for (name, value) in &answer.headers {
            assert_eq!(
                response.header(name).map(str::to_owned),
                Some(value.to_ascii_lowercase()),
                "{}: {name}",
                case.name
            );
        }
        return;
    }
    let refused = expect.reason.as_ref().and_then(denial).filter(|_| expect.verdict != "observe");
    let status = refused.map_or(case.agent, |denial| denial.status());
    assert_eq!(response.status, status, "{}", case.name);
}

#[test]
fn every_case_is_decided_as_it_says_pure_and_over_a_socket() {
    let mut count = 0;
    let mut failed = Vec::new();
    let mut files: Vec<_> =
        fs::read_dir("tests/decisions").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files {
        let file: File = serde_yaml::from_str(&fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let tokens = file.tokens();
        for case in &file.cases {
            let named = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(case, &file, &tokens)));
            if named.is_err() {
                failed.push(format!("{}: {}", path.display(), case.name));
            }
            count += 1;
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(count > 100, "only {count} cases");
}
