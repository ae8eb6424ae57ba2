//! The callback conventions of every preset: how a request names its callback URL, and how the callback is read.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use callgate::clock::Clock;
use callgate::config::{CallbackConvention, PRESETS, PresetDefinition, TokenReturn};
use callgate::egress::{CallbackRequest, InsertionPlace};
use callgate::interaction::StatusAt;
use callgate::json::Pointer;
use callgate::request::RequestHead;
use callgate::signature::{SignatureContext, VerifierKeys};
use callgate::source::LOOPBACK;
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::harness::{ANSWER, Agent, Callgate, Received, Response, parse, send_to};

const PUBLIC_URL: &str = "https://agent.example.com";

/// For one preset: the agent, the provider, and Callgate between them.
pub struct World {
    name: &'static str,
    callback: CallbackConvention,
    /// The kind of request that the agent sends.
    request: CallbackRequest,
    pub provider: Agent,
    pub agent: Agent,
    pub callgate: Callgate,
    text: String,
    /// The path to which the agent sends its request.
    path: String,
    /// The path of the route before its capture.
    route: String,
    _folder: tempfile::TempDir,
}

/// The callback URL and token that the provider received.
pub struct Given {
    pub url: String,
    pub token: Option<String>,
}

/// The parts of a callback.
#[derive(Default)]
pub struct Message {
    pub body: Value,
    form: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

pub fn conventions() -> Vec<(&'static str, CallbackConvention)> {
    let read = |name: &'static str, entry: PresetDefinition| Some((name, entry.callback?));
    PRESETS.iter().filter_map(|preset| read(preset.name, preset.read().unwrap())).collect()
}

/// Returns a JSON document with `value` at this JSON pointer.
fn at(pointer: &str, value: Value) -> Value {
    pointer.rsplit('/').take(pointer.matches('/').count()).fold(value, |inner, name| json!({ name: inner }))
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Returns the kind of request whose body says nothing about its kind, or the first kind.
fn plain(callback: &CallbackConvention) -> CallbackRequest {
    let plain = callback.requests.iter().find(|request| request.condition.member.is_none());
    plain.or(callback.requests.first()).unwrap().clone()
}

impl World {
    fn new(name: &'static str, callback: CallbackConvention) -> Self {
        let from = match &callback.token {
            TokenReturn::Url => "[query]".to_owned(),
            TokenReturn::Bearer => "[bearer]".to_owned(),
            TokenReturn::Header(name) => format!("[{{ header: {name} }}]"),
        };
        let (providers, named) = match name {
            "mcp-events" => ("providers: { p: { preset: mcp-events, secrets: derived } }", "provider: p, "),
            _ => ("", ""),
        };
        let text = |provider: SocketAddr, agent: SocketAddr, _: &Path| {
            format!(
                "public_url: {PUBLIC_URL}
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\" }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
{providers}
routes:
  - {{ name: back, path: \"/back/{{id}}\", {named}token: {{ kind: callback, from: {from} }}, forward: \"/in/{{id}}\" }}
egress:
  - name: go
    path: /go
    target: http://{provider}/api
    inject: {{ preset: {name}, route: back, params: {{ id: {{ new: uuid }} }} }}
"
            )
        };
        let request = plain(&callback);
        Self::start((name, callback), request, ("/go", "/back/"), text)
    }

    /// Starts Callgate with the configuration that `text` returns for the addresses of the provider and the agent, and
    /// for a folder. `paths` are the path of the agent's request, and the path of the route before its capture.
    pub fn start(
        (name, callback): (&'static str, CallbackConvention),
        request: CallbackRequest,
        paths: (&str, &str),
        text: impl FnOnce(SocketAddr, SocketAddr, &Path) -> String,
    ) -> Self {
        let (provider, agent) = (Agent::start(ANSWER), Agent::start(ANSWER));
        let folder = tempfile::tempdir().unwrap();
        let text = text(provider.address, agent.address, folder.path());
        let callgate = Callgate::start(&text, Clock::System);
        let (path, route) = (paths.0.to_owned(), paths.1.to_owned());
        Self { name, callback, request, provider, agent, callgate, text, path, route, _folder: folder }
    }

    /// Returns the place of the provider's id in the response to the request.
    fn response(&self) -> Option<&Pointer> {
        self.request.response.first()
    }

    fn sends_form(&self) -> bool {
        self.callback.insertions().any(|insertion| matches!(insertion.place, InsertionPlace::Form(_)))
    }

    /// Sends a request without callback fields, as the agent does. The provider answers with its id of the work.
    pub fn ask(&self) -> Given {
        let answer = match self.response() {
            Some(pointer) => at(pointer.as_str(), json!("work-1")).to_string(),
            None => "{}".to_owned(),
        };
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}", answer.len());
        self.provider.answers(format!("{head}\r\n\r\n{answer}").as_bytes());
        let mut json = json!({ "input": "x" });
        if let Some((pointer, values)) = &self.request.condition.member {
            merge(&mut json, at(pointer.as_str(), json!(*values[0])));
        }
        let (kind, body) = match self.sends_form() {
            true => ("application/x-www-form-urlencoded", "To=%2B1".to_owned()),
            false => ("application/json", json.to_string()),
        };
        let headers = [("content-type", kind)];
        let egress = self.callgate.egress.unwrap();
        let response = send_to(egress, "POST", &self.path, &headers, body.as_bytes());
        assert_eq!(response.status, 200, "{}: {}", self.name, response.text());
        self.given(&self.provider.received().pop().unwrap())
    }

    /// Finds the callback URL and token in the request that the provider received.
    fn given(&self, sent: &Received) -> Given {
        let body = String::from_utf8(sent.body.clone()).unwrap();
        let mut seen = format!("{}\n{body}\n", sent.head);
        for text in [sent.target(), body.as_str()] {
            let decoded = percent_decode_str(text).decode_utf8().unwrap().into_owned();
            let values: Vec<_> = decoded.split(['?', '&']).filter_map(|pair| pair.split_once('=')).collect();
            for (_, value) in values {
                let value = data_encoding::BASE64.decode(value.as_bytes()).ok();
                seen.push_str(&value.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default());
            }
            seen.push_str(&decoded);
            seen.push('\n');
        }
        let end = |text: &str| text.find(['"', ' ', '\n', '\r', '\\', '&']).unwrap_or(text.len());
        let from = |start: &str| {
            let at = seen.find(start)?;
            Some(seen[at..at + end(&seen[at..])].to_owned())
        };
        let url =
            from(&format!("{PUBLIC_URL}{}", self.route)).unwrap_or_else(|| panic!("{}: {seen}", self.name));
        Given { url, token: (self.callback.token != TokenReturn::Url).then(|| from("eyJ").unwrap()) }
    }

    pub fn call_back(&self, given: &Given, message: Message) -> Response {
        let target = given.url.strip_prefix(PUBLIC_URL).unwrap();
        let mut headers = message.headers;
        let body = match message.form.is_empty() {
            true => {
                headers.push(("content-type".to_owned(), "application/json".to_owned()));
                message.body.to_string()
            }
            false => {
                headers.push(("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned()));
                let pairs = message.form.iter().map(|(name, value)| format!("{name}={value}"));
                pairs.collect::<Vec<_>>().join("&")
            }
        };
        match (&self.callback.token, &given.token) {
            (TokenReturn::Bearer, Some(token)) => {
                headers.push(("authorization".to_owned(), format!("Bearer {token}")));
            }
            (TokenReturn::Header(name), Some(token)) => headers.push((name.to_string(), token.clone())),
            _ => {}
        }
        let body = self.sign(target, &mut headers, body);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        send_to(self.callgate.ingress, "POST", target, &headers, &body)
    }

    /// Signs a callback, if the provider signs. The secret is the configured one, or the one that the provider received
    /// for this interaction.
    fn sign(&self, target: &str, headers: &mut Vec<(String, String)>, body: String) -> Vec<u8> {
        let policy = parse(&self.text).policy;
        let verifier = policy.providers.first().and_then(|provider| provider.verifier.as_ref());
        let Some(verifier) = verifier.filter(|verifier| verifier.scheme().has_proof()) else {
            return body.into_bytes();
        };
        let mut derived = Vec::new();
        if matches!(verifier.keys(), VerifierKeys::Derived) {
            let given = self.provider.received().pop().unwrap();
            let given: Value = serde_json::from_slice(&given.body).unwrap();
            let secret = given.pointer("/params/delivery/secret").unwrap().as_str().unwrap();
            assert!(secret.starts_with("whsec_"), "{secret}");
            derived.push(callgate::secret::Secret::new(secret.as_bytes().to_vec()));
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter() {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let head = RequestHead::new("POST", target, &map, LOOPBACK);
        let context = SignatureContext::new(head, PUBLIC_URL, Clock::System.now());
        let id = callgate::random::new_id("evt_").unwrap();
        let context = SignatureContext { derived: &derived, ..context };
        // Signatures with private keys cannot be made here. These callbacks are sent without one.
        let Some(signed) = verifier.sign(&context, body.as_bytes(), &id) else { return body.into_bytes() };
        let text = |(name, value): (HeaderName, http::HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        headers.extend(signed.headers.into_iter().map(text));
        signed.body.into_owned()
    }

    pub fn message(&self, status: Option<&str>, id: &str) -> Message {
        let mut message = Message { body: json!({ "seen": true }), ..Message::default() };
        for (place, value) in [(self.callback.status.first(), status), (self.callback.id.first(), Some(id))] {
            match (place, value) {
                (Some(StatusAt::Body(pointer)), Some(value)) => {
                    merge(&mut message.body, at(pointer.as_str(), json!(value)));
                }
                (Some(StatusAt::Form(name)), Some(value)) => {
                    message.form.push((name.to_string(), value.to_owned()));
                }
                (Some(StatusAt::Header(name)), Some(value)) => {
                    message.headers.push((name.to_string(), value.to_owned()));
                }
                _ => {}
            }
        }
        message
    }

    pub fn state(&self) -> String {
        let known = self.callgate.admin_get("/callbacks").json();
        known["interactions"][0]["state"].as_str().unwrap().to_owned()
    }
}

#[test]
fn callbacks_are_asked_for_and_read_as_each_provider_does_it() {
    let conventions = conventions();
    assert!(conventions.len() >= 25, "{}", conventions.len());
    let (mut asked, mut ended, mut mismatched) = (0, 0, 0);
    for (name, callback) in conventions {
        let world = World::new(name, callback);
        let given = world.ask();
        if world.response().is_some() && !world.callback.id.is_empty() {
            let other = world.call_back(&given, world.message(None, "work-2"));
            // The log line of the agent's own request may arrive before the line of the callback.
            let mut lines = std::iter::repeat_with(|| world.callgate.log()).flatten();
            let line = lines.find(|line| line.get("egress").is_none()).unwrap();
            let reason = line["reason"].as_str();
            assert_eq!((other.status, reason), (403, Some("interaction_mismatch")), "{name}");
            mismatched += 1;
        }
        if let Some(word) = world.callback.asking.first() {
            let asking = world.call_back(&given, world.message(Some(word), "work-1"));
            assert_eq!((asking.status, world.state().as_str()), (200, "asking"), "{name}");
            asked += 1;
        }
        let going = world.call_back(&given, world.message(Some("whatever else"), "work-1"));
        assert_eq!((going.status, world.state().as_str()), (200, "progressing"), "{name}");
        let end = world.callback.done.first().map(|word| (word, "done"));
        let end = end.or_else(|| world.callback.failed.first().map(|word| (word, "failed")));
        if let Some((word, state)) = end {
            let last = world.call_back(&given, world.message(Some(word), "work-1"));
            assert_eq!((last.status, world.state().as_str()), (200, state), "{name}");
            let late = world.call_back(&given, world.message(Some("more"), "work-1"));
            assert_eq!(late.status, 410, "{name}");
            ended += 1;
        }
        let without = Given { url: given.url.split('?').next().unwrap().to_owned(), token: None };
        assert_eq!(world.call_back(&without, world.message(None, "work-1")).status, 401, "{name}");
        assert!(!world.agent.received().is_empty(), "{name}");
    }
    assert!(asked >= 4 && ended >= 20 && mismatched >= 10, "{asked} {ended} {mismatched}");
}

#[test]
fn what_only_says_how_to_call_back_may_be_said_by_the_agent() {
    let callback = conventions().into_iter().find(|(name, _)| *name == "assemblyai").unwrap().1;
    let world = World::new("assemblyai", callback);
    let body = r#"{"webhook_auth_header_name": "x-mine"}"#;
    assert_eq!(world.callgate.agent_sends("/go", body).status, 200);
    let sent: Value = serde_json::from_slice(&world.provider.received().pop().unwrap().body).unwrap();
    assert_eq!(sent["webhook_auth_header_name"], "x-mine");
    let refused = world.callgate.agent_sends("/go", r#"{"webhook_url": "https://mine.example"}"#);
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (409, Some("callback_present")));
}

#[test]
fn a_form_that_is_none_is_refused() {
    let callback = conventions().into_iter().find(|(name, _)| *name == "twilio").unwrap().1;
    let world = World::new("twilio", callback);
    let refused = world.callgate.agent_sends("/go", "{}");
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (400, Some("request_not_form")));
    assert!(world.provider.received().is_empty());
}

#[test]
fn receivers_of_mcp_events_say_where_they_are_if_they_are_to() {
    let agent = Agent::start(ANSWER);
    let text = |publish: &str| {
        format!(
            "public_url: {PUBLIC_URL}
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: \"{}\" }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
providers: {{ p: {{ preset: mcp-events, secrets: derived{publish} }} }}
routes: [ {{ name: r, path: \"/mcp/{{id}}\", provider: p, token: {{ kind: callback, from: [query] }}, forward: /in }} ]
",
            agent.address
        )
    };
    let path = "/.well-known/mcp-webhook-receiver.json";
    let silent = Callgate::start(&text(""), Clock::System);
    assert_eq!(send_to(silent.ingress, "GET", path, &[], b"").status, 404);
    let public = Callgate::start(&text(", well_known: publish"), Clock::System);
    let document = send_to(public.ingress, "GET", path, &[], b"");
    assert_eq!((document.status, document.json()), (200, json!({ "receivers": ["/mcp/"] })));
    assert_eq!(send_to(public.ingress, "POST", path, &[], b"{}").status, 404);
    // An unread body, which the client sends only after `100 Continue`, is not parsed as the next request.
    let mut stream = public.connect();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .unwrap();
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all);
    assert!(all.starts_with("HTTP/1.1 200 ") && all.contains("connection: close\r\n"), "{all}");
}
