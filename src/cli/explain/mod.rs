//! `callgate explain`: shows the result of each check for a captured request, and the verdict.
//!
//! The decision is made by the same code that runs in production. The ledger is not consulted, so `explain` cannot
//! detect duplicates or interactions that have ended.
//!
//! A request that Callgate has captured contains no token and no signature. For the checks that need a token or a
//! signature, `explain` uses the verdicts that Callgate recorded in the captured request.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

mod not_fetched;
mod steps;

use self::not_fetched::NotFetched;
use self::steps::{Mark, Step, steps};
use super::common::{EXIT_DATA, moment, now_unless, print_json, printable};
use super::message::Message;
use super::read::ConfigArg;
use crate::agent::ONLY_AGENT;
use crate::denial::Denial;
use crate::fetch::with_cached;
use crate::ingress::{Carrier, Decided, Denied, Ingress, Route, TokenRule};
use crate::observe::capture::Verdicts;
use crate::policy::Policy;
use crate::request::RequestHead;
use crate::signature::HandshakeReply;
use crate::source::LOOPBACK;
use crate::time::Timestamp;
use crate::trail::Trail;

#[derive(Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// File with the request: a raw HTTP/1.1 message.
    #[arg(long, value_name = "FILE.http")]
    request: PathBuf,
    /// Time at which the request arrives: RFC 3339 or Unix seconds. Default: the time of a captured request, or now.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
    /// Source address of the connection. Default: the address of a captured request, or 127.0.0.1.
    #[arg(long, value_name = "IP")]
    peer: Option<IpAddr>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn explain(args: &ExplainArgs) -> u8 {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let message = match Message::read(&args.request) {
        Ok(message) => message,
        Err(error) => {
            eprintln!("error: {error}");
            return EXIT_DATA;
        }
    };
    // Uses the keys and address lists that the running Callgate has in its cache, because `explain` fetches nothing.
    let policy = match with_cached(config.policy) {
        Ok(policy) => policy,
        Err(error) => {
            eprintln!("error: {error}");
            return EXIT_DATA;
        }
    };
    let captured = Verdicts::read(message.headers());
    let peer = args.peer.or(captured.as_ref().map(|captured| captured.peer)).unwrap_or(LOOPBACK);
    let now = now_unless(args.at.or(captured.as_ref().map(|captured| captured.time)));
    let head = message.head(peer);
    let mut trail = Trail::verbose();
    let decided = match &captured {
        None => decide(&policy.ingress, &head, Some(&message.body), now, &mut trail),
        // A captured request is checked in observe mode, in which all checks run even if one fails. The verdicts of
        // some checks are replaced afterwards.
        Some(captured) => {
            let body = captured.has_body.then_some(&*message.body);
            decide(&policy.ingress.observing(None), &head, body, now, &mut trail)
        }
    };
    let explanation = Explanation::new(&policy, &decided, &trail, captured.as_ref());
    if args.json {
        print_json(&explanation.to_json());
    } else {
        explanation.print();
        explanation.print_capture();
    }
    u8::from(explanation.verdict != "allow")
}

/// Makes the decision about a request. If `body` is `None`, checks only the head, and returns `None` if the head
/// passes.
fn decide(
    ingress: &Ingress,
    head: &RequestHead<'_>,
    body: Option<&[u8]>,
    now: Timestamp,
    trail: &mut Trail,
) -> Result<Option<Decided>, Box<Denied>> {
    let admitted = ingress.decide_head(head, now, trail)?;
    body.map(|body| admitted.decide_body(head, body, trail)).transpose()
}

struct Explanation<'a> {
    verdict: &'static str,
    reason: Option<&'static str>,
    help: Option<&'static str>,
    status: Option<u16>,
    route: Option<String>,
    provider: Option<String>,
    /// The name of the agent to which the route forwards the request.
    agent: Option<String>,
    forward: Option<String>,
    /// Callgate's response to a handshake of the provider.
    answer: Option<HandshakeReply>,
    /// Whether the route is in observe mode, in which a request is delivered even if the verdict is a denial.
    observes: bool,
    /// Whether the route has `stream: true`, so that requests are forwarded while they arrive.
    streams: bool,
    steps: Vec<Step>,
    /// The key sets and address lists that a check needs and that `explain` does not have. `None` if every check could
    /// be decided.
    not_fetched: Option<NotFetched>,
    /// The verdicts that Callgate recorded when it captured the request. `None` if the request was not captured by
    /// Callgate.
    captured: Option<&'a Verdicts>,
}

impl<'a> Explanation<'a> {
    fn new(
        policy: &Policy,
        decided: &Result<Option<Decided>, Box<Denied>>,
        trail: &Trail,
        captured: Option<&'a Verdicts>,
    ) -> Self {
        let (denial, route) = match decided {
            Ok(Some(Decided::Callback(verified))) => (None, Some(verified.route())),
            Ok(Some(Decided::Handshake(shaken))) => (None, shaken.1.route.as_ref()),
            Ok(Some(Decided::Streamed(streamed))) => (None, Some(streamed.route())),
            Ok(Some(Decided::Observed(observed))) => {
                (observed.denials().first().copied(), Some(observed.route()))
            }
            Ok(None) => (None, None),
            Err(denied) => (Some(denied.denial), denied.seen.route.as_ref()),
        };
        let ingress = &policy.ingress;
        let steps = steps(trail, captured);
        let taken_over = |step: &Step| match step.mark {
            Mark::Deny(denial) | Mark::NotFetched(denial) => Some(denial),
            _ => None,
        };
        let denial: Option<Denial> = match captured {
            None => denial,
            Some(_) => steps.iter().find_map(taken_over),
        };
        // A captured request was checked with copies of the routes in observe mode. The explanation shows the
        // configured route, which has the same name.
        let route =
            route.map(|route| ingress.routes().iter().find(|one| one.name == route.name).unwrap_or(route));
        let provider = route.and_then(|route| route.provider.as_ref());
        Self {
            verdict: denial.map_or("allow", |denial| denial.verdict()),
            reason: denial.map(|denial| denial.code()),
            help: denial.map(|denial| denial.help()),
            status: denial.map(|denial| denial.status()),
            route: route.map(|route| route.name.to_string()),
            provider: provider.map(|provider| provider.name.to_string()),
            agent: route.map(|route| route.agent.name.to_string()),
            forward: match decided {
                Ok(Some(Decided::Callback(verified))) => Some(verified.target().to_owned()),
                Ok(Some(Decided::Observed(observed))) => Some(match captured {
                    Some(_) => {
                        without_secrets(route.map_or(observed.route(), |route| route), observed.target())
                    }
                    None => observed.target().to_owned(),
                }),
                Ok(Some(Decided::Streamed(streamed))) => Some(streamed.target().to_owned()),
                _ => None,
            },
            answer: match decided {
                Ok(Some(Decided::Handshake(shaken))) => Some(shaken.0.clone()),
                _ => None,
            },
            observes: route.is_some_and(|route| route.observes()),
            streams: route.is_some_and(|route| route.stream),
            not_fetched: steps
                .iter()
                .any(|step| matches!(step.mark, Mark::NotFetched(_)))
                .then(|| NotFetched::of(policy, route.map(|route| &**route))),
            steps,
            captured,
        }
    }

    fn to_json(&self) -> Value {
        let steps = self.steps.iter().map(Step::to_json);
        json!({
            "verdict": self.verdict,
            "reason": self.reason,
            "mode": if self.observes { "observe" } else { "enforce" },
            "status": self.status,
            "route": self.route,
            "provider": self.provider,
            "agent": self.agent,
            "forward": self.forward,
            "answer": self.answer.as_ref().map(|reply| json!({
                "handshake": *reply.name,
                "status": reply.status,
                "headers": reply
                    .headers
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().into()))
                    .collect::<serde_json::Map<_, _>>(),
                "body": reply.body,
            })),
            "trail": steps.collect::<Vec<_>>(),
            "not_fetched": self.not_fetched.as_ref().map_or(&[][..], |missing| &missing.feeds),
            "captured": self.captured.map(|captured| json!({
                "time": captured.time.to_string(),
                "peer": captured.peer.to_string(),
                "reason": captured.reason,
                "body": captured.has_body,
                "taken_over": self.taken_over(),
            })),
        })
    }

    fn print(&self) {
        for step in &self.steps {
            println!("  {:<18} {}  {}", printable(&step.check), step.mark.printed(), printable(&step.detail));
        }
        match (self.reason, &self.forward) {
            (Some(reason), _) => {
                println!("{}: {reason} (HTTP {})", self.verdict, self.status.unwrap_or_default());
                println!("  {}", self.help.unwrap_or_default());
                if let Some(missing) = &self.not_fetched {
                    println!("  {}", printable(&missing.text()));
                }
                if self.observes {
                    println!("  but the route has `mode: observe`: the request is counted and delivered");
                }
            }
            (None, None) if self.captured.is_some_and(|captured| !captured.has_body) => {
                println!("{}: as far as the head shows; the capture has no body", self.verdict);
            }
            (None, None) => {
                let answer = self.answer.as_ref();
                println!("{}: a handshake, answered by Callgate", self.verdict);
                if let Some(reply) = answer {
                    println!("  {} with HTTP {}", reply.name, reply.status);
                }
            }
            (None, forward) => {
                let agent = self.agent.as_deref().filter(|name| *name != ONLY_AGENT);
                let agent = agent.map_or_else(String::new, |name| format!(" of the agent {name}"));
                println!(
                    "{}: forwarded to {}{agent}",
                    self.verdict,
                    printable(forward.as_deref().unwrap_or("/"))
                );
                if self.streams {
                    return println!("  while it arrives, without a check of the body");
                }
                println!(
                    "  unless the ledger of the running Callgate has it as a duplicate, or its interaction is over"
                );
            }
        }
    }

    /// Prints when and why the captured request was denied, and the names of the checks whose verdicts were copied from
    /// the captured request.
    fn print_capture(&self) {
        let Some(captured) = self.captured else { return };
        println!(
            "captured at {} from {}, denied then: {}",
            captured.time,
            captured.peer,
            printable(&captured.reason)
        );
        let taken_over = self.taken_over();
        if !taken_over.is_empty() {
            println!(
                "  taken over from the capture, which has no secrets: {}",
                printable(&taken_over.join(", "))
            );
        }
    }

    /// Returns the names of the checks whose verdicts were copied from the captured request.
    fn taken_over(&self) -> Vec<&str> {
        self.steps.iter().filter(|step| step.is_taken_over).map(|step| &*step.check).collect()
    }
}

/// Removes from a request target the query parameters that Callgate removes in enforce mode, such as callback tokens.
/// This is needed for a captured request: `explain` checks it in observe mode, in which the agent receives the whole
/// query.
fn without_secrets(route: &Route, target: &str) -> String {
    let Some((path, query)) = target.split_once('?').filter(|_| !route.observes()) else {
        return target.to_owned();
    };
    let carriers = route.token.iter().flat_map(TokenRule::carriers);
    let mut names: Vec<&str> = route.secret_parameters().collect();
    names.extend(carriers.filter_map(|carrier| match carrier {
        Carrier::Query(name) => Some(&**name),
        _ => None,
    }));
    let is_kept = |pair: &&str| !names.contains(&pair.split('=').next().unwrap_or_default());
    let query: Vec<_> = query.split('&').filter(is_kept).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}
