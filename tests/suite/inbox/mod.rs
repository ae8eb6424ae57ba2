//! The inbox: callbacks that are kept until the agent has received them.

mod crash;
mod delivering;
mod failover;
mod members;
mod people;
mod pulling;
pub mod shared;
mod undelivered;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use callgate::clock::Clock;
use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::{Agent, Callgate, Response, env, send_to};

/// A short backoff, so that tests do not wait.
pub const FAST: &str = "backoff: { first: 20ms, most: 50ms }";

/// Returns a configuration with a route `doc` that keeps its callbacks as `deliver` says, with `inbox` settings and more
/// fields of the route.
pub fn config(folder: &Path, agent: &str, deliver: &str, inbox: &str, route: &str) -> String {
    let (store, may_lose) = store(folder, !inbox.is_empty());
    format!(
        "public_url: https://agent.example.com
listen:
  ingress: [ {{ address: 127.0.0.1:0 }} ]
  admin: {{ address: 127.0.0.1:0, bodies: true }}
  egress: {{ address: 127.0.0.1:0 }}
agent: {{ address: \"{agent}\", timeouts: {{ connect: 1s, response: 1s }} }}
{store}
shutdown: {{ delay: 0s, grace: 1s }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
assertion: {{ key: {{ id: a1, algorithm: HS256, secret: {{ env: FOREIGN_KEY }} }} }}
providers: {{ sw: {{ preset: standard-webhooks, secrets: [ {{ env: WHSEC }} ] }} }}
inbox: {{ {inbox}{may_lose} }}
routes:
  - name: doc
    path: \"/doc/{{id}}\"
    provider: sw
    token: {{ kind: callback, from: [bearer] }}
    forward: \"/in/{{id}}\"
    deliver: {deliver}
    interaction: {{ status: /status, progress: /progress, done: [done], failed: [failed], notify: \"/overdue/{{id}}\" }}
{route}"
    )
}

/// Returns the section `store` and the setting of the inbox that it needs. `make redis` runs these tests on Redis, too.
#[allow(clippy::disallowed_methods, reason = "another store is asked for by the environment")]
fn store(folder: &Path, has_settings: bool) -> (String, &'static str) {
    match std::env::var("CALLGATE_TEST_REDIS") {
        Ok(address) => (
            redis(&address, folder.file_name().unwrap().to_str().unwrap()),
            if has_settings { ", may_lose: true" } else { "may_lose: true" },
        ),
        Err(_) => (format!("store: {{ kind: file, path: {} }}", folder.join("ledger").display()), ""),
    }
}

/// Returns the section `store` for a ledger on Redis.
pub fn redis(address: &str, prefix: &str) -> String {
    let prefix = prefix.trim_start_matches('.');
    format!("store: {{ kind: redis, redis: {{ nodes: [\"{address}\"], prefix: {prefix}, timeout: 5s }} }}")
}

/// A minted callback.
#[derive(Clone)]
pub struct Minted {
    pub interaction: String,
    target: String,
    token: String,
}

pub fn mint_at(admin: SocketAddr, id: &str) -> Minted {
    let body = json!({ "route": "doc", "params": { "id": id } }).to_string();
    let headers = [("content-type", "application/json")];
    let minted = send_to(admin, "POST", "/callbacks", &headers, body.as_bytes()).json();
    let text = |name: &str| minted[name].as_str().unwrap_or_else(|| panic!("{minted}")).to_owned();
    let target = text("callback_url").strip_prefix("https://agent.example.com").unwrap().to_owned();
    Minted { interaction: text("interaction"), target, token: text("callback_token") }
}

pub fn signature(content: &str) -> String {
    let secret = env("WHSEC").unwrap();
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(content.as_bytes());
    format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()))
}

/// Sends a signed callback with this event id.
pub fn call_at(ingress: SocketAddr, minted: &Minted, event: &str, body: &str) -> Response {
    let now = Clock::System.now().unix_secs().to_string();
    let signature = signature(&format!("{event}.{now}.{body}"));
    let headers = [
        ("authorization", &*format!("Bearer {}", minted.token)),
        ("webhook-id", event),
        ("webhook-timestamp", &now),
        ("webhook-signature", &signature),
        ("content-type", "application/json"),
    ];
    send_to(ingress, "POST", &minted.target, &headers, body.as_bytes())
}

impl Minted {
    /// Returns a callback to another path.
    pub fn at(&self, target: &str) -> Self {
        Self { target: target.to_owned(), ..self.clone() }
    }
}

impl Callgate {
    pub fn mint(&self, id: &str) -> Minted {
        mint_at(self.admin.unwrap(), id)
    }

    pub fn call(&self, minted: &Minted, event: &str, body: &str) -> Response {
        call_at(self.ingress, minted, event, body)
    }

    /// Returns the value of a metric, or the sum of its series.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.metrics();
        let of_name = |line: &&str| {
            let rest = line.strip_prefix(name).unwrap_or("x");
            rest.starts_with(' ') || rest.starts_with('{')
        };
        let values =
            text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }
}

/// Returns an answer without a body.
pub fn answer(status: u16, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} S\r\n{headers}content-length: 0\r\n\r\n").into_bytes()
}

/// Returns the bodies that the agent received, by path.
pub fn bodies(agent: &Agent) -> HashMap<String, Vec<Value>> {
    let mut bodies: HashMap<String, Vec<Value>> = HashMap::new();
    for received in agent.received() {
        let body = serde_json::from_slice(&received.body).unwrap_or(Value::Null);
        bodies.entry(received.target().to_owned()).or_default().push(body);
    }
    bodies
}
