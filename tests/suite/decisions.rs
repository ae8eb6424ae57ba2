//! The decision cases: configuration, request and time give a verdict and a trail. Each case runs once in the pure core
//! with the real ledger, and once over a socket, and both results must agree. The test binary `decisions` runs the same
//! cases without sockets.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use callgate::clock::Clock;
use callgate::denial::Denial;
use callgate::ingress::{Permit, Verified};
use callgate::interaction::{ClaimError, Cleared};
use callgate::observe::Metrics;
use callgate::store::{Claimed, Store};
use callgate::time::Timestamp;
use tokio::runtime::Runtime;

use crate::case::{Case, File, Ledger, Prepared, Pure, Verdict, config_text, files, timestamp};
use crate::harness::{ANSWER, Agent, Callgate, Received, Response, parse};

/// The real ledger, in memory.
struct StoreLedger {
    store: Store,
    runtime: Runtime,
}

impl Ledger for StoreLedger {
    fn ask(
        &mut self,
        verified: Box<Verified>,
        at: Timestamp,
        delivers: bool,
        apply: impl FnOnce(Box<Verified>, Result<Cleared, ClaimError>) -> Result<Permit, Verdict>,
    ) -> Verdict {
        let claimed = self.runtime.block_on(self.store.claim(&verified.ask(), at, Duration::ZERO));
        let ruling = claimed.as_ref().map(Claimed::cleared).map_err(Clone::clone);
        let permit = match apply(verified, ruling) {
            Ok(permit) => permit,
            Err(verdict) => return verdict,
        };
        if delivers {
            let id = permit.event_id().map(|id| id.to_str().unwrap());
            self.runtime.block_on(claimed.unwrap().settle(permit.report(), id, at)).unwrap();
        }
        Verdict::allowed(permit)
    }
}

/// Returns the pure core with the real ledger.
fn pure(text: &str) -> Pure<StoreLedger> {
    let config = parse(&config_text(text, "127.0.0.1:1"));
    let metrics = Arc::new(Metrics::new().unwrap());
    let (clock, now) = (callgate::clock::instant, callgate::clock::Clock::System.now());
    let store = Store::start(&config.startup.store, metrics, clock, now).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Pure { config, ledger: StoreLedger { store, runtime } }
}

/// Returns a request as bytes.
fn bytes(prepared: &Prepared) -> Vec<u8> {
    let mut bytes =
        format!("{} {} HTTP/1.1\r\nHost: agent.example.com\r\n", prepared.method, prepared.path).into_bytes();
    for (name, value) in &prepared.headers {
        write!(bytes, "{name}: {value}\r\n").unwrap();
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&prepared.body);
    bytes
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
        stream.write_all(&bytes(prepared)).unwrap();
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
            secret: log["secret"].as_u64().map(|position| u8::try_from(position).unwrap()),
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
    let decoded = case.expect.agent_body.as_ref().map(|text| text.as_bytes());
    assert_eq!(received.body, decoded.unwrap_or(&prepared.body), "{}", case.name);
    // The agent may see the provider's signature headers, but never a callback token.
    let observed = case.expect.verdict == "observe";
    let ours = case.sign.is_none() && !observed && received.head.contains("eyJ");
    assert!(!ours, "{}: token at the agent: {}", case.name, received.head);
}

/// Runs a case and its later requests with one ledger, in the pure core and over a socket.
fn run(case: &Case, file: &File, tokens: &BTreeMap<String, String>) {
    let mut pure = pure(&file.config);
    let real = case.pure_only.is_none().then(|| Real::new(&file.config, timestamp(&case.at)));
    for step in std::iter::once(case).chain(&case.then) {
        run_step(step, tokens, &mut pure, real.as_ref());
    }
}

fn run_step(
    case: &Case,
    tokens: &BTreeMap<String, String>,
    pure: &mut Pure<StoreLedger>,
    real: Option<&Real>,
) {
    let prepared = case.prepare(&pure.config, tokens);
    let pure = pure.check(&prepared, case);
    let expect = &case.expect;
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
    for (path, file) in files() {
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
