//! The callback conventions of every preset: how a request names its callback URL, and how the callback is read.

use std::io::{Read, Write};

use callgate::clock::Clock;
use callgate::config::{CallbackConvention, PRESETS, PresetDefinition, TokenReturn};
use callgate::egress::InsertionPlace;
use callgate::interaction::StatusAt;
use callgate::request::RequestHead;
use callgate::signature::SignatureContext;
use callgate::source::LOOPBACK;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::harness::{ANSWER, Agent, Callgate, Received, Response, parse, send_to};

const PUBLIC_URL: &str = "https://agent.example.com";

/// For one preset: the agent, the provider, and Callgate between them.
struct World {
    name: &'static str,
    callback: CallbackConvention,
    provider: Agent,
    agent: Agent,
    callgate: Callgate,
    text: String,
}

/// The callback URL and token that the provider received.
struct Given {
    url: String,
    token: Option<String>,
}

/// The parts of a callback.
#[derive(Default)]
struct Message {
    body: Value,
    form: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

fn conventions() -> Vec<(&'static str, CallbackConvention)> {
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

impl World {
    fn new(name: &'static str, callback: CallbackConvention) -> Self {
        let (provider, agent) = (Agent::start(ANSWER), Agent::start(ANSWER));
        let from = match &callback.token {
            TokenReturn::Url => "[query]".to_owned(),
            TokenReturn::Bearer => "[bearer]".to_owned(),
            TokenReturn::Header(name) => format!("[{{ header: {name} }}]"),
        };
        let (providers, named) = match name {
            "mcp-events" => ("providers: { p: { preset: mcp-events, secrets: derived } }", "provider: p, "),
            _ => ("", ""),
        };
        let text = format!(
            "public_url: {PUBLIC_URL}
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
{providers}
routes:
  - {{ name: back, path: \"/back/{{id}}\", {named}token: {{ kind: callback, from: {from} }}, forward: \"/in/{{id}}\" }}
egress:
  - name: go
    path: /go
    target: http://{}/api
    inject: {{ preset: {name}, route: back, params: {{ id: {{ new: uuid }} }} }}
",
            agent.address, provider.address
        );
        let callgate = Callgate::start(&text, Clock::System);
        Self { name, callback, provider, agent, callgate, text }
    }

    fn sends_form(&self) -> bool {
        self.callback.insertions.iter().any(|insertion| matches!(insertion.place, InsertionPlace::Form(_)))
    }

    /// Sends a request without callback fields, as the agent does. The provider answers with its id of the work.
    fn ask(&self) -> Given {
        let answer = match &self.callback.response {
            Some(pointer) => at(pointer.as_str(), json!("work-1")).to_string(),
            None => "{}".to_owned(),
        };
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}", answer.len());
        self.provider.answers(format!("{head}\r\n\r\n{answer}").as_bytes());
        let (kind, body): (&str, &[u8]) = match self.sends_form() {
            true => ("application/x-www-form-urlencoded", b"To=%2B1"),
            false => ("application/json", b"{\"input\": \"x\"}"),
        };
        let headers = [("content-type", kind)];
        let response = send_to(self.callgate.egress.unwrap(), "POST", "/go", &headers, body);
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
        let url = from(&format!("{PUBLIC_URL}/back/")).unwrap_or_else(|| panic!("{}: {seen}", self.name));
        Given { url, token: (self.callback.token != TokenReturn::Url).then(|| from("eyJ").unwrap()) }
    }

    fn call_back(&self, given: &Given, message: Message) -> Response {
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
        if self.name == "mcp-events" {
            headers.extend(self.signature(target, &body));
        }
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        send_to(self.callgate.ingress, "POST", target, &headers, body.as_bytes())
    }

    /// Signs with the secret that the provider received for this interaction.
    fn signature(&self, target: &str, body: &str) -> Vec<(String, String)> {
        let policy = parse(&self.text).policy;
        let given = self.provider.received().pop().unwrap();
        let given: Value = serde_json::from_slice(&given.body).unwrap();
        let secret = given.pointer("/params/delivery/secret").unwrap().as_str().unwrap();
        assert!(secret.starts_with("whsec_"), "{secret}");
        let derived = [callgate::secret::Secret::new(secret.as_bytes().to_vec())];
        let headers = HeaderMap::new();
        let head = RequestHead::new("POST", target, &headers, LOOPBACK);
        let alone = SignatureContext::new(head, "", Clock::System.now());
        let verifier = policy.providers[0].verifier.as_ref().unwrap();
        let id = callgate::random::new_id("evt_").unwrap();
        let signed =
            verifier.sign(&SignatureContext { derived: &derived, ..alone }, body.as_bytes(), &id).unwrap();
        let text = |(name, value): (http::HeaderName, http::HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        signed.headers.into_iter().map(text).collect()
    }

    fn message(&self, status: Option<&str>, id: &str) -> Message {
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

    fn state(&self) -> String {
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
        if world.callback.response.is_some() && !world.callback.id.is_empty() {
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
