//! `callgate explain`: shows the result of each check for a captured request, and the verdict.
//!
//! The decision is made by the same code that runs in production. The ledger is not consulted, so `explain` cannot
//! detect duplicates or interactions that are over.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::common::{EXIT_DATA, moment, now_unless, print_json};
use super::message::Message;
use super::read::ConfigArg;
use crate::agent::ONLY_AGENT;
use crate::fetch::with_cached;
use crate::ingress::{Decided, Denied};
use crate::policy::Policy;
use crate::request::RequestHead;
use crate::signature::HandshakeReply;
use crate::source::LOOPBACK;
use crate::time::Timestamp;
use crate::trail::{Outcome, Trail};

#[derive(Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// File with the request: a raw HTTP/1.1 message.
    #[arg(long, value_name = "FILE.http")]
    request: PathBuf,
    /// Time at which the request arrives: RFC 3339 or Unix seconds. Default: now.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
    /// Source address of the connection. Default: 127.0.0.1.
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
    // Uses the keys and address lists that the running Callgate has in its cache; `explain` fetches nothing itself.
    let policy = match with_cached(config.policy) {
        Ok(policy) => policy,
        Err(error) => {
            eprintln!("error: {error}");
            return EXIT_DATA;
        }
    };
    let head = message.head(args.peer.unwrap_or(LOOPBACK));
    let mut trail = Trail::verbose();
    let decided = decide(&policy, &head, &message.body, now_unless(args.at), &mut trail);
    let explanation = Explanation::new(&decided, &trail);
    if args.json {
        print_json(&explanation.to_json());
    } else {
        explanation.print();
    }
    u8::from(explanation.verdict != "allow")
}

fn decide(
    policy: &Policy,
    head: &RequestHead<'_>,
    body: &[u8],
    now: Timestamp,
    trail: &mut Trail,
) -> Result<Decided, Box<Denied>> {
    policy.ingress.decide_head(head, now, trail)?.decide_body(head, body, trail)
}

struct Explanation<'a> {
    verdict: &'static str,
    reason: Option<&'static str>,
    help: Option<&'static str>,
    status: Option<u16>,
    route: Option<String>,
    provider: Option<String>,
    /// The name of the agent of the route.
    agent: Option<String>,
    forward: Option<String>,
    /// Callgate's response to the provider's handshake.
    answer: Option<HandshakeReply>,
    /// True if the route is in observe mode. The request is then delivered even if the verdict is a denial.
    observes: bool,
    /// True if the route passes requests on while they arrive.
    streams: bool,
    trail: &'a Trail,
}

impl<'a> Explanation<'a> {
    fn new(decided: &Result<Decided, Box<Denied>>, trail: &'a Trail) -> Self {
        let (denial, route) = match decided {
            Ok(Decided::Callback(verified)) => (None, Some(verified.route())),
            Ok(Decided::Handshake(shaken)) => (None, shaken.1.route.as_ref()),
            Ok(Decided::Streamed(streamed)) => (None, Some(streamed.route())),
            Ok(Decided::Observed(observed)) => (observed.denials().first().copied(), Some(observed.route())),
            Err(denied) => (Some(denied.denial), denied.seen.route.as_ref()),
        };
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
                Ok(Decided::Callback(verified)) => Some(verified.target().to_owned()),
                Ok(Decided::Observed(observed)) => Some(observed.target().to_owned()),
                Ok(Decided::Streamed(streamed)) => Some(streamed.target().to_owned()),
                _ => None,
            },
            answer: match decided {
                Ok(Decided::Handshake(shaken)) => Some(shaken.0.clone()),
                _ => None,
            },
            observes: route.is_some_and(|route| route.observes()),
            streams: route.is_some_and(|route| route.stream),
            trail,
        }
    }

    fn to_json(&self) -> Value {
        let steps = self.trail.details().map(|(step, detail)| {
            json!({ "check": step.check.name(), "outcome": step.outcome.name(), "detail": detail })
        });
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
        })
    }

    fn print(&self) {
        for (step, detail) in self.trail.details() {
            let mark = match step.outcome {
                Outcome::Pass => "pass",
                Outcome::Skip => "  - ",
                Outcome::Deny(_) => "DENY",
                Outcome::Hold => "hold",
            };
            println!("  {:<18} {mark}  {}", step.check.name(), printable(detail));
        }
        match (self.reason, &self.forward) {
            (Some(reason), _) => {
                println!("{}: {reason} (HTTP {})", self.verdict, self.status.unwrap_or_default());
                println!("  {}", self.help.unwrap_or_default());
                if self.observes {
                    println!("  but the route has `mode: observe`: the request is counted and delivered");
                }
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
                println!("{}: forwarded to {}{agent}", self.verdict, forward.as_deref().unwrap_or("/"));
                if self.streams {
                    return println!("  while it arrives, without a check of the body");
                }
                println!(
                    "  unless the ledger of the running Callgate has it as a duplicate, or its interaction is over"
                );
            }
        }
    }
}

/// Replaces control characters, so that text from a request cannot send escape sequences to the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
