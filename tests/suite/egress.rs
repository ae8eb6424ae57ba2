//! The egress listener: what is injected into the agent's requests, what stays unchanged, and which requests are
//! denied.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use callgate::clock::Clock;
use serde_json::{Value, json};

use crate::harness::{ANSWER, Agent, Callgate, Received, Response, eventually, read_request, send_to};

const TAKEN: &[u8] =
    b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 23\r\nx-kept: yes\r\n\r\n{\"job\":{\"id\":\"job-17\"}}";

fn config(agent: SocketAddr, provider: &str, more: &str) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\" }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
{more}
routes:
  - {{ name: doc, path: \"/doc/{{id}}\", token: {{ kind: callback }}, forward: \"/in/{{id}}\" }}
  - {{ name: two, path: \"/two/{{a}}/{{b}}\", token: {{ kind: callback, from: [query] }}, forward: \"/in/{{a}}/{{b}}\" }}
egress:
  - name: body
    path: /body
    target: {provider}/analyze
    response: /job/id
    headers: {{ x-api-key: {{ env: STATIC }} }}
    body_max: 64KiB
    inject: {{ route: doc, params: {{ id: /document/id }}, url: /callback/url, token: /callback/token }}
  - name: keep
    path: /keep
    target: {provider}/keep
    timeouts: {{ connect: 1s, response: 5s }}
    inject: {{ route: doc, params: {{ id: /id }}, url: /callback_url, token: /callback_token, if_present: keep, ttl: 5m, uses: 1 }}
  - name: header
    path: /header/{{id}}
    target: {provider}/header/{{id}}
    methods: [POST, PUT]
    inject: {{ route: doc, params: {{ id: {{ path: id }} }}, url: {{ header: x-callback-url }}, token: {{ header: x-callback-token }} }}
  - name: query
    path: /query
    target: \"{provider}/query?fixed=1\"
    methods: [GET, POST]
    inject: {{ route: two, params: {{ a: {{ query: user }}, b: {{ new: uuid }} }}, url: {{ query: webhook }} }}
  - {{ name: plain, path: /plain, target: {provider}/plain, methods: [GET, HEAD, POST] }}
  - {{ name: nowhere, path: /nowhere, target: \"http://127.0.0.1:1/x\", inject: {{ route: doc, params: {{ id: /id }}, url: /callback_url, token: /callback_token }} }}
"
    )
}

struct World {
    provider: Agent,
    agent: Agent,
    callgate: Callgate,
}

impl World {
    fn new() -> Self {
        let (provider, agent) = (Agent::start(TAKEN), Agent::start(ANSWER));
        let text = config(agent.address, &format!("http://{}", provider.address), "");
        Self { callgate: Callgate::start(&text, Clock::System), provider, agent }
    }

    fn send(&self, path: &str, body: &str) -> Response {
        self.callgate.agent_sends(path, body)
    }

    fn interactions(&self) -> Vec<Value> {
        self.callgate.admin_get("/callbacks").json()["interactions"].as_array().unwrap().clone()
    }

    /// Calls back with the URL and token that the provider received.
    fn call_back(&self, url: &str, token: Option<&str>) -> Response {
        let target = url.strip_prefix("https://agent.example.com").unwrap();
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        send_to(self.callgate.ingress, "POST", target, &headers, b"{}")
    }

    fn last(&self) -> Received {
        self.provider.received().pop().unwrap()
    }
}

#[test]
fn the_body_gets_address_and_token_and_nothing_else_changes() {
    let world = World::new();
    let body = "{ \"document\": {\"id\":\"doc-1\", \"size\": 1.0e3},\n\t\"n\": 0.10, \"callback\" : {\"kept\":true } , \"é\": \"\\u00e9\" }\n";
    let answer = send_to(
        world.callgate.egress.unwrap(),
        "POST",
        "/body?a=1",
        &[
            ("content-type", "application/json"),
            ("x-api-key", "the agent's own"),
            ("x-custom", "kept"),
            ("callgate-route", "x"),
            // Callgate reads all options, not only the first ones.
            (
                "connection",
                "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,aa,bb,cc,dd,ee,ff,gg,hh,x-hop",
            ),
            ("x-hop", "1"),
            ("accept-encoding", "gzip"),
        ],
        body.as_bytes(),
    );
    assert_eq!((answer.status, answer.header("x-kept")), (202, Some("yes")));
    assert_eq!(answer.json()["job"]["id"], "job-17");
    let sent = world.last();
    assert!(sent.head.starts_with("POST /analyze?a=1 HTTP/1.1\r\n"), "{}", sent.head);
    assert_eq!(sent.header("host"), [world.provider.address.to_string()]);
    assert_eq!(sent.header("x-api-key"), ["a static secret"]);
    assert_eq!(sent.header("x-custom"), ["kept"]);
    for gone in ["callgate-route", "x-hop", "connection", "accept-encoding"] {
        assert!(sent.header(gone).is_empty(), "{gone}: {}", sent.head);
    }
    let text = String::from_utf8(sent.body.clone()).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let (url, token) =
        (value["callback"]["url"].as_str().unwrap(), value["callback"]["token"].as_str().unwrap());
    assert_eq!(url, "https://agent.example.com/doc/doc-1");
    assert_eq!(text.replace(&format!(",\"url\":\"{url}\",\"token\":\"{token}\""), ""), body);
    let known = &world.interactions()[0];
    assert_eq!((known["provider_id"].as_str(), known["state"].as_str()), (Some("job-17"), Some("open")));
    assert_eq!(world.call_back(url, Some(token)).status, 200);
    assert_eq!(world.agent.received()[0].target(), "/in/doc-1");
    // The line follows the answer, and the callback may be faster.
    let lines = world.callgate.logged(2);
    let log = lines.iter().find(|line| line["egress"] == "body").unwrap();
    assert_eq!(log["reason"], "ok");
    assert_eq!(log["interaction"], known["interaction"]);
    assert!(!log.to_string().contains("eyJ"));
}

#[test]
fn headers_and_query_parameters_can_be_the_place() {
    let world = World::new();
    assert_eq!(
        send_to(world.callgate.egress.unwrap(), "PUT", "/header/h1", &[], b"\xff not JSON").status,
        202
    );
    let sent = world.last();
    assert_eq!((sent.target(), sent.body.as_slice()), ("/header/h1", b"\xff not JSON".as_slice()));
    let (url, token) = (sent.header("x-callback-url")[0], sent.header("x-callback-token")[0]);
    assert_eq!(world.call_back(url, Some(token)).status, 200);

    assert_eq!(send_to(world.callgate.egress.unwrap(), "GET", "/query?user=u1&x=%20", &[], b"").status, 202);
    let sent = world.last();
    let (before, webhook) = sent.target().split_once("&webhook=").unwrap();
    assert_eq!(before, "/query?fixed=1&user=u1&x=%20");
    let url = percent_encoding::percent_decode_str(webhook).decode_utf8().unwrap();
    let session = url.split(['/', '?']).nth(5).unwrap();
    assert_eq!(session.len(), 36, "a UUID: {url}");
    assert_eq!(world.call_back(&url, None).status, 200);
    assert_eq!(world.agent.received().pop().unwrap().target(), format!("/in/u1/{session}"));
}

#[test]
fn what_is_there_already_is_refused_or_kept() {
    let world = World::new();
    let body = r#"{"document":{"id":"a"},"callback":{"url":"https://mine.example/"}}"#;
    let refused = world.send("/body", body);
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (409, Some("callback_present")));
    let refused =
        send_to(world.callgate.egress.unwrap(), "POST", "/header/h1", &[("X-Callback-Token", "x")], b"");
    assert_eq!(refused.status, 409);
    assert!(world.provider.received().is_empty() && world.interactions().is_empty());
    let mine = r#"{ "id": "a", "callback_url": "https://mine.example/" }"#;
    assert_eq!(world.send("/keep", mine).status, 202);
    assert_eq!(world.last().body, mine.as_bytes());
    assert!(world.interactions().is_empty(), "nothing was minted");
    // It is counted behind the answer.
    let counted = "reason=\"kept\",rule=\"keep\",verdict=\"allow\"} 1";
    eventually(|| world.callgate.metrics().contains(counted).then_some(()));
    assert_eq!(world.send("/keep", r#"{"id":"a"}"#).status, 202);
    assert_eq!(world.interactions()[0]["uses_left"], 1);
}

#[test]
fn another_spelling_of_the_place_is_not_sent() {
    let world = World::new();
    let evil = r#""https://evil.example/""#;
    for (path, fields) in [
        ("/keep", format!(r#""Callback_Url":{evil}"#)),
        ("/keep", format!(r#""callback_\u0055rl":{evil}"#)),
        ("/keep", format!(r#""callbac\u212a_url":{evil}"#)),
        ("/keep", format!(r#""callback_url":{evil},"CALLBACK_URL":{evil}"#)),
        ("/keep", format!(r#""callback_url":{evil},"callback_url":{evil}"#)),
        ("/keep", r#""callback_TOKEN":"x""#.to_owned()),
        ("/keep", format!(r#""callback_url":{evil},"callback_Token":"x""#)),
        ("/nowhere", format!(r#""Callback_Url":{evil}"#)),
        ("/nowhere", format!(r#""callback_\u0075RL":{evil}"#)),
        ("/nowhere", r#""Callback_token":null"#.to_owned()),
        ("/body", format!(r#""document":{{"id":"d"}},"callback":{{"URL":{evil}}}"#)),
        ("/body", format!(r#""document":{{"id":"d"}},"Callback":{{"url":{evil}}}"#)),
        ("/body", format!(r#""document":{{"id":"d"}},"\u0043allback":{{}},"callback":{{"x":{evil}}}"#)),
        ("/body", r#""document":{"id":"d"},"callback":{"x":1,"Token":"t"}"#.to_owned()),
    ] {
        let refused = world.send(path, &format!(r#"{{"id":"d",{fields}}}"#));
        let reason = refused.json()["reason"].as_str().map(str::to_owned);
        assert_eq!(
            (refused.status, reason.as_deref()),
            (400, Some("injection_impossible")),
            "{path} {fields}"
        );
    }
    let egress = world.callgate.egress.unwrap();
    for query in [
        "Webhook=x",
        "%57ebhook=x",
        "%77eb%68ook=x&webhook=y",
        "webhook[]=x",
        "a=1;webhook=x",
        "web%E2%84%AAhook=1&webhoo%E2%84%AA=x",
    ] {
        let refused = send_to(egress, "GET", &format!("/query?user=u1&{query}"), &[], b"");
        assert_eq!(refused.status, 400, "{query}");
    }
    assert_eq!(send_to(egress, "GET", "/query?user=u1&%77ebhook=x", &[], b"").status, 409, "the same name");
    for headers in [
        [("X_Callback_Url", "x"), ("x-a", "1")],
        [("x-callback_token", "x"), ("x-a", "1")],
        [("x.callback.token", "x"), ("x-a", "1")],
        [("x-callback-url", "x"), ("X-Callback-Url", "y")],
    ] {
        assert_eq!(send_to(egress, "POST", "/header/h1", &headers, b"").status, 400, "{headers:?}");
    }
    assert!(world.provider.received().is_empty() && world.interactions().is_empty());
    // Names that only resemble the places are no reason to deny.
    let near = r#"{"id":"a","callback_urls":1,"callbackurl":2,"nested":{"Callback_Url":3}}"#;
    assert_eq!(world.send("/keep", near).status, 202);
}

#[test]
fn what_cannot_be_injected_is_not_sent() {
    let world = World::new();
    for (path, body, status, reason) in [
        ("/body", "", 400, "request_not_json"),
        ("/body", "a=b", 400, "request_not_json"),
        ("/body", "{\"document\":{\"id\":\"a\"}", 400, "request_not_json"),
        ("/body", "{\"document\":{\"id\":\"a\"}} x", 400, "request_not_json"),
        ("/body", r#"{"document":{"id":"a"},"callback":"text"}"#, 400, "injection_impossible"),
        ("/body", r#"{"document":{"id":"a"},"callback":[]}"#, 400, "injection_impossible"),
        ("/body", r#"{"document":{"id":"a"},"callback":{},"callback":{}}"#, 400, "injection_impossible"),
        ("/body", r#"{"document":{}}"#, 400, "parameter_unusable"),
        ("/body", r#"{"document":{"id":"a/b"}}"#, 400, "parameter_unusable"),
        ("/body", r#"{"document":{"id":".."}}"#, 400, "parameter_unusable"),
        ("/body", r#"{"document":{"id":{"x":1}}}"#, 400, "parameter_unusable"),
        ("/body", r#"{"document":{"id":"a","id":"b"}}"#, 400, "parameter_unusable"),
        ("/query", "", 400, "parameter_unusable"),
        ("/nope", "{}", 404, "rule_unknown"),
        ("/body/..%2f", "{}", 400, "path_malformed"),
    ] {
        let refused = world.send(path, body);
        assert_eq!(
            (refused.status, refused.json()["reason"].as_str()),
            (status, Some(reason)),
            "{path} {body}"
        );
    }
    let deep = format!(r#"{{"document":{{"id":"a"}},"deep":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(world.send("/body", &deep).status, 202, "depth is nobody's stack");
    assert_eq!(world.send("/body", &"x".repeat(70_000)).status, 413);
    let method = send_to(world.callgate.egress.unwrap(), "DELETE", "/body", &[], b"");
    assert_eq!((method.status, method.header("allow")), (405, Some("post")));
    assert_eq!(world.provider.received().len(), 1);
    assert_eq!(world.interactions().len(), 1);
}

#[test]
fn a_request_that_does_not_arrive_ends_its_interaction() {
    let world = World::new();
    let refused = world.send("/nowhere", r#"{"id":"a"}"#);
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (502, Some("provider_unreachable")));
    let detail = eventually(|| world.callgate.log().pop())["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("did not accept a TCP connection: Connection refused"), "{detail}");
    assert_eq!(world.interactions()[0]["state"], "not_sent");
    // A client follows a redirect with another request, which gets an interaction of its own.
    for status in [301, 302, 307, 308, 400, 401, 403, 404, 409, 410, 413, 422] {
        world.provider.answers(format!("HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\nno").as_bytes());
        let answer = world.send("/keep", r#"{"id":"a"}"#);
        assert_eq!((answer.status, answer.text()), (status, "no".to_owned()), "the agent sees it");
        let value: Value = serde_json::from_slice(&world.last().body).unwrap();
        let late = world.call_back(value["callback_url"].as_str().unwrap(), value["callback_token"].as_str());
        assert_eq!(late.status, 410);
    }
    let page = world.callgate.metrics();
    assert!(
        page.contains("callgate_interactions_ended_total{outcome=\"not_sent\",route=\"doc\"} 13"),
        "{page}"
    );
    // A gateway answers for the provider, which works on the request nevertheless. After a 303, the provider has done
    // what the request asks for.
    for status in [303, 408, 425, 429, 500, 502, 503, 504] {
        world.provider.answers(format!("HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\nno").as_bytes());
        assert_eq!(world.send("/keep", r#"{"id":"a"}"#).status, status);
        let value: Value = serde_json::from_slice(&world.last().body).unwrap();
        let late = world.call_back(value["callback_url"].as_str().unwrap(), value["callback_token"].as_str());
        assert_eq!(late.status, 200, "{status}");
    }
    // The provider may have received the request, so the interaction stays open for its callbacks.
    world.provider.answers(b"");
    let reset = world.send("/keep", r#"{"id":"a"}"#);
    assert_eq!((reset.status, reset.json()["reason"].as_str()), (502, Some("provider_reset")));
    let value: Value = serde_json::from_slice(&world.last().body).unwrap();
    assert_eq!(
        world.call_back(value["callback_url"].as_str().unwrap(), value["callback_token"].as_str()).status,
        200
    );
    world.provider.answers(b"SSH-2.0-nothing\r\n\r\n");
    let garbled = world.send("/keep", r#"{"id":"a"}"#);
    assert_eq!((garbled.status, garbled.json()["reason"].as_str()), (502, Some("provider_garbled")));
}

/// Sends a request of the agent, and reads until Callgate closes the connection. The response may be incomplete.
fn read_to_end(callgate: &Callgate, path: &str, body: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(callgate.egress.unwrap()).unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received);
    received
}

/// Sends one request for each result of the provider, and lets the token expire. Returns the states and the notices.
fn states_after(results: &[&[u8]], calls_back: bool) -> (Vec<String>, usize) {
    let (provider, agent) = (Agent::start(TAKEN), Agent::start(ANSWER));
    let now = Arc::new(AtomicI64::new(1_767_225_600_000));
    let text = config(agent.address, &format!("http://{}", provider.address), "").replace(
        "forward: \"/in/{id}\" }",
        "forward: \"/in/{id}\", interaction: { status: /s, done: [x], deadline: 2m, stalled_after: 1m, notify: \"/late/{id}\" } }",
    );
    let text =
        text.replace("{ connect: 1s, response: 5s }", "{ connect: 1s, response: 5s }\n    response: /id");
    let callgate = Callgate::start(&text, Clock::Set(Arc::clone(&now)));
    for result in results {
        provider.answers(result);
        read_to_end(&callgate, "/keep", r#"{"id":"a"}"#);
        if calls_back {
            // The agent rejects the callback, so it is verified but not delivered.
            agent.answers(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
            let value: Value = serde_json::from_slice(&provider.received().pop().unwrap().body).unwrap();
            let target =
                value["callback_url"].as_str().unwrap().strip_prefix("https://agent.example.com").unwrap();
            let bearer = format!("Bearer {}", value["callback_token"].as_str().unwrap());
            let called =
                send_to(callgate.ingress, "POST", target, &[("authorization", bearer.as_str())], b"{}");
            assert_eq!(called.status, 503);
            agent.answers(ANSWER);
        }
    }
    now.fetch_add(180_000, Ordering::SeqCst);
    let ended = |callgate: &Callgate| {
        let page = callgate.admin_get("/callbacks").json();
        let states: Vec<_> =
            page["interactions"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
        states.iter().all(|state| state != "open").then_some(states)
    };
    let states =
        eventually(|| ended(&callgate)).iter().map(|state| state.as_str().unwrap().to_owned()).collect();
    let notices = || agent.received().iter().filter(|request| request.target() == "/late/a").count();
    if calls_back {
        eventually(|| (notices() == results.len()).then_some(()));
        let notice: Value = serde_json::from_slice(&agent.received().pop().unwrap().body).unwrap();
        assert_eq!(notice["undelivered"]["count"], 1, "{notice}");
        assert!(
            notice["undelivered"]["last_at"].as_str().unwrap().starts_with("2026-01-01T00:0"),
            "{notice}"
        );
    }
    (states, notices())
}

#[test]
fn an_error_of_the_provider_without_a_callback_ends_as_not_sent_without_a_notice() {
    let doubtful: [&[u8]; 10] = [
        b"HTTP/1.1 504 No\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        b"",
        b"SSH-2.0-nothing\r\n\r\n",
        // Callgate reads the beginning of the body for the provider's id, and answers with an error.
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"id\":",
        b"HTTP/1.1 202 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{\"id\":",
        // Callgate relays the beginning of the body, and the rest does not arrive.
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: {}\n\r\n",
    ];
    assert_eq!(states_after(&doubtful, false), (vec!["not_sent".to_owned(); 10], 0));
    assert_eq!(states_after(&doubtful, true), (vec!["expired".to_owned(); 10], 10), "a callback came");
    let (states, notices) = states_after(&[TAKEN, b"HTTP/1.1 303 No\r\ncontent-length: 0\r\n\r\n"], false);
    assert_eq!(states, ["expired", "expired"], "{notices}");
    let moved = b"HTTP/1.1 307 No\r\nlocation: /keep\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(states_after(&[moved], false), (vec!["not_sent".to_owned()], 0));
}

#[test]
fn the_answer_names_the_interaction() {
    let world = World::new();
    let forged = b"HTTP/1.1 202 Accepted\r\ncallgate-interaction: int_forged\r\ncontent-length: 0\r\n\r\n";
    for answer in [TAKEN, forged, b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"] {
        world.provider.answers(answer);
        let named = world.send("/keep", r#"{"id":"a"}"#);
        let id = named.header("callgate-interaction").unwrap().to_owned();
        assert!(world.interactions().iter().any(|one| one["interaction"] == id.as_str()), "{id}");
    }
    world.provider.answers(forged);
    let nothing_was_minted = send_to(world.callgate.egress.unwrap(), "GET", "/plain", &[], b"");
    assert_eq!(nothing_was_minted.header("callgate-interaction"), None, "the provider cannot set it");
}

#[test]
fn a_provider_that_does_not_answer_is_given_up_on_but_may_call_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let agent = Agent::start(ANSWER);
    let text = config(agent.address, &format!("http://{}", listener.local_addr().unwrap()), "")
        .replace("response: 5s", "response: 200ms");
    let callgate = Callgate::start(&text, Clock::System);
    let late = callgate.agent_sends("/keep", r#"{"id":"a"}"#);
    assert_eq!((late.status, late.json()["reason"].as_str()), (504, Some("provider_timeout")));
    assert_eq!(callgate.admin_get("/callbacks").json()["interactions"][0]["state"], "open");
}

#[test]
fn an_answer_with_a_bare_line_feed_is_not_relayed() {
    let world = World::new();
    for answer in [
        b"HTTP/1.1 202 Accepted\ncontent-length: 0\n\n".as_slice(),
        b"HTTP/1.1 202 Accepted\r\nx-name: a\ncontent-length: 0\r\n\r\n",
    ] {
        world.provider.answers(answer);
        let refused = world.send("/plain", "{}");
        assert_eq!((refused.status, refused.json()["reason"].as_str()), (502, Some("provider_garbled")));
    }
}

#[test]
fn a_callback_that_is_faster_than_the_answer_is_delivered() {
    let agent = Agent::start(ANSWER);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = config(agent.address, &format!("http://{}", listener.local_addr().unwrap()), "");
    let callgate = Callgate::start(&text, Clock::System);
    let ingress = callgate.ingress;
    let provider = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = read_request(&mut stream, &mut Vec::new()).unwrap();
        let value: Value = serde_json::from_slice(&request.body).unwrap();
        let bearer = format!("Bearer {}", value["callback_token"].as_str().unwrap());
        let called = send_to(ingress, "POST", "/doc/a", &[("authorization", &bearer)], b"{}");
        stream.write_all(TAKEN).unwrap();
        called.status
    });
    assert_eq!(callgate.agent_sends("/keep", r#"{"id":"a"}"#).status, 202);
    assert_eq!(provider.join().unwrap(), 200);
    assert_eq!(agent.received().len(), 1);
}

#[test]
fn large_answers_stream_and_heads_alone_are_heads() {
    let world = World::new();
    let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..64 {
        write!(answer, "{:x}\r\n", 64 << 10).unwrap();
        answer.extend_from_slice(&vec![b'y'; 64 << 10]);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    world.provider.answers(&answer);
    let got = send_to(world.callgate.egress.unwrap(), "GET", "/plain", &[], b"");
    assert_eq!((got.status, got.body.len()), (200, 4 << 20));
    world.provider.answers(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
    let coded = send_to(world.callgate.egress.unwrap(), "GET", "/plain", &[], b"");
    assert_eq!(coded.status, 502, "a coding that nobody here can undo");
    world.provider.answers(b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(send_to(world.callgate.egress.unwrap(), "POST", "/plain", &[], b"x").status, 204);
    world
        .provider
        .answers(b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere.example/\r\ncontent-length: 0\r\n\r\n");
    let moved = send_to(world.callgate.egress.unwrap(), "POST", "/plain", &[], b"x");
    assert_eq!((moved.status, moved.header("location")), (302, Some("http://elsewhere.example/")));
}

#[test]
fn a_refused_request_is_never_read_as_another_one() {
    let world = World::new();
    let smuggled = "POST /plain HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nxx";
    let mut stream = std::net::TcpStream::connect(world.callgate.egress.unwrap()).unwrap();
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    write!(
        stream,
        "POST /nope HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    )
    .unwrap();
    assert_eq!(Response::read(&mut stream).status, 404);
    write!(stream, "POST /plain HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\ny").unwrap();
    assert_eq!(Response::read(&mut stream).status, 202);
    let bodies: Vec<_> = world.provider.received().into_iter().map(|received| received.body).collect();
    assert_eq!(bodies, [b"y".to_vec()]);
}

#[test]
fn a_body_of_many_chunks_arrives_whole() {
    let world = World::new();
    let mut stream = std::net::TcpStream::connect(world.callgate.egress.unwrap()).unwrap();
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let chunks = "a\r\n0123456789\r\n".repeat(20_000);
    let request = format!(
        "POST /plain HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    );
    // Wherever a read ends, within a size, too.
    for (i, piece) in request.as_bytes().chunks(997).enumerate() {
        stream.write_all(piece).unwrap();
        if i % 16 == 0 {
            std::thread::yield_now();
        }
    }
    assert_eq!(Response::read(&mut stream).status, 202);
    assert_eq!(world.provider.received()[0].body.len(), 200_000);
}

#[test]
fn an_id_is_found_in_an_answer_that_comes_in_drops() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let provider = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.set_nodelay(true);
        let mut buffer = [0; 4096];
        let _ = std::io::Read::read(&mut stream, &mut buffer).unwrap();
        let body = r#"{"job": {"id": "job-1"}}"#;
        let head = "HTTP/1.1 202 Accepted\r\ncontent-type: application/json";
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n", body.len()).unwrap();
        body.bytes().for_each(|byte| stream.write_all(&[byte]).unwrap());
        let _ = std::io::Read::read(&mut stream, &mut buffer);
    });
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&config(agent.address, &provider, ""), Clock::System);
    let request = r#"{"document": {"id": "d"}, "callback": {}}"#;
    let mut stream = std::net::TcpStream::connect(callgate.egress.unwrap()).unwrap();
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    write!(stream, "POST /body HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{request}", request.len()).unwrap();
    let answer = Response::read(&mut stream);
    assert_eq!((answer.status, answer.text().as_str()), (202, r#"{"job": {"id": "job-1"}}"#));
}

#[test]
fn a_head_that_cannot_be_parsed_is_answered() {
    let world = World::new();
    let mut stream = std::net::TcpStream::connect(world.callgate.egress.unwrap()).unwrap();
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    stream.write_all(b"GET /plain` HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let refused = Response::read(&mut stream);
    assert_eq!((refused.status, refused.header("connection")), (400, Some("close")));
    assert!(world.provider.received().is_empty());
}

/// Creates a certificate authority, and a certificate that it issued for `localhost`.
pub fn certificates(folder: &std::path::Path) {
    let run = |args: &str| {
        let out = Command::new("openssl").current_dir(folder).args(args.split(' ')).output().unwrap();
        assert!(out.status.success(), "{args}: {}", String::from_utf8_lossy(&out.stderr));
    };
    let ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    run(&format!("req -x509 {ec} -days 1 -subj /CN=authority -keyout ca.key -out ca.crt"));
    run(&format!("req {ec} -subj /CN=localhost -keyout tls.key -out tls.csr"));
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    run("x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -extfile names -out tls.crt");
}

#[test]
fn tls_to_the_provider_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let (provider, agent) = (Agent::start(TAKEN), Agent::start(ANSWER));
    // A second Callgate terminates TLS for the provider.
    let file = |name: &str| folder.path().join(name).display().to_string();
    let front = crate::harness::open_config(&provider.address.to_string())
        .replace(
            "address: 127.0.0.1:0 } ]",
            &format!(
                "address: 127.0.0.1:0, tls: {{ certificate: {}, key: {} }} }} ]",
                file("tls.crt"),
                file("tls.key")
            ),
        )
        .replace("/open/{id}", "/analyze")
        .replace("/in/{id}", "/analyze");
    let front = Callgate::start(&front, Clock::System);
    let port = front.ingress.port();
    let send = |host: &str, roots: &str| {
        let text = config(agent.address, &format!("https://{host}:{port}"), roots);
        let callgate = Callgate::start(&text, Clock::System);
        let answer = callgate.agent_sends("/body", r#"{"document":{"id":"a"}}"#);
        (answer.status, callgate.admin_get("/callbacks").json()["interactions"][0]["state"].clone())
    };
    let ours = format!("trusted_roots: {}", file("ca.crt"));
    assert_eq!(send("localhost", &ours), (202, json!("open")));
    assert_eq!(send("127.0.0.1", &ours), (502, json!("not_sent")), "the certificate is for another name");
    assert_eq!(send("localhost", ""), (502, json!("not_sent")), "the platform does not know the authority");
    assert_eq!(provider.received().len(), 1);
    let body: Value = serde_json::from_slice(&provider.received()[0].body).unwrap();
    assert_eq!(body["callback"]["url"], "https://agent.example.com/doc/a");
}

#[test]
fn connections_to_the_provider_are_kept() {
    let world = World::new();
    for _ in 0..5 {
        assert_eq!(world.send("/keep", r#"{"id":"a"}"#).status, 202);
    }
    eventually(|| (world.provider.received().len() == 5).then_some(()));
    // A connection is returned to the pool after its response was forwarded completely. The next request can be faster
    // than that.
    assert!(world.provider.connections() < 5);
}

#[test]
fn a_full_ledger_sends_nothing() {
    let (provider, agent) = (Agent::start(TAKEN), Agent::start(ANSWER));
    let text = config(
        agent.address,
        &format!("http://{}", provider.address),
        "store: { kind: memory, interactions_max: 1 }",
    );
    let callgate = Callgate::start(&text, Clock::System);
    assert_eq!(callgate.agent_sends("/keep", r#"{"id":"a"}"#).status, 202);
    let full = callgate.agent_sends("/keep", r#"{"id":"b"}"#);
    assert_eq!((full.status, full.json()["reason"].as_str()), (503, Some("store_full")));
    assert_eq!(provider.received().len(), 1);
    // Interactions whose request was never sent are removed, because nobody has their tokens.
    let text = config(agent.address, "http://127.0.0.1:1", "store: { kind: memory, interactions_max: 2 }");
    let callgate = Callgate::start(&text, Clock::System);
    for _ in 0..5 {
        let refused = callgate.agent_sends("/keep", r#"{"id":"a"}"#);
        assert_eq!(refused.json()["reason"], "provider_unreachable");
    }
    assert_eq!(
        callgate.admin_send("POST", "/callbacks", r#"{"route":"doc","params":{"id":"c"}}"#).status,
        201
    );
}

/// Heads of requests that a page in a browser may be behind, and whether each of them is answered.
const ASKED_BY: &[(&str, bool)] = &[
    ("host: localhost", true),
    ("host: LocalHost:8081", true),
    ("host: 127.0.0.1:8081", true),
    ("host: [::1]:8081", true),
    ("host: 192.0.2.7", true),
    ("host: gate.example", true),
    ("host: GATE.example:1", true),
    ("host: localhost\r\nsec-fetch-site: none", true),
    ("host: evil.example", false),
    ("host: evil.example:8081", false),
    ("host: localhost.evil.example", false),
    ("host: 127.0.0.1.evil.example", false),
    ("host: a.gate.example", false),
    ("host: gate.example.", false),
    ("host: localhost.", false),
    ("host: localhost@evil.example", false),
    ("host: evil@localhost", false),
    ("host: [::1%25lo]", false),
    ("host: ::1", false),
    ("host: 2130706433", false),
    ("host: 127.1", false),
    ("host: 0x7f.1", false),
    ("host:", false),
    ("host: :8081", false),
    ("host: localhost\r\nhost: localhost", false),
    ("host: localhost\r\nhost: evil.example", false),
    ("host: localhost\r\norigin: http://evil.example", false),
    ("host: localhost\r\norigin: null", false),
    ("host: localhost\r\norigin:", false),
    ("host: localhost\r\nOrigin: http://localhost", false),
    ("host: localhost\r\norigin: http://localhost\r\norigin: http://localhost", false),
    ("host: localhost\r\nsec-fetch-site: cross-site", false),
    ("host: localhost\r\nSec-Fetch-Site: same-site", false),
    ("host: localhost\r\nsec-fetch-site: same-origin", false),
    ("host: localhost\r\nsec-fetch-site: NONE", false),
    ("host: localhost\r\nsec-fetch-site:", false),
    ("host: localhost\r\nsec-fetch-site: none\r\nsec-fetch-site: none", false),
    ("host: localhost\r\nsec-fetch-site: none\r\nsec-fetch-site: cross-site", false),
];

/// Sends a head of one's own and a JSON body, and returns the answer's status.
fn asked(address: SocketAddr, line: &str, head: &str, body: &str) -> Response {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    let more = format!("content-type: application/json\r\ncontent-length: {}", body.len());
    // In one piece: whoever is refused by a head does not get to send the rest.
    let request = format!("{line}\r\n{head}\r\n{more}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    Response::read(&mut stream)
}

#[test]
fn pages_get_nothing_from_the_listeners_of_this_host() {
    let (provider, agent) = (Agent::start(TAKEN), Agent::start(ANSWER));
    let text = config(agent.address, &format!("http://{}", provider.address), "")
        .replace(
            "egress: { address: 127.0.0.1:0 }",
            "egress: { address: 127.0.0.1:0, hosts: [Gate.example] }",
        )
        .replace("admin: { address: 127.0.0.1:0 }", "admin: { address: 127.0.0.1:0, hosts: [gate.example] }");
    let callgate = Callgate::start(&text, Clock::System);
    let (egress, admin) = (callgate.egress.unwrap(), callgate.admin.unwrap());
    // Where each is asked, and what whoever may ask is answered.
    let places = [
        (egress, "POST /keep", r#"{"id":"a"}"#, 202),
        (egress, "POST /actions/int_aaaaaaaaaaaaaaaaaaaaaaaaaa", "{}", 404),
        (egress, "POST /nowhere/at/all", "{}", 404),
        (egress, "OPTIONS /keep", "", 405),
        (admin, "POST /callbacks", r#"{"route":"doc","params":{"id":"a"}}"#, 201),
        (admin, "OPTIONS /callbacks", "", 405),
    ];
    let (mut sent, mut minted, mut logged) = (0, 0, Vec::new());
    for (address, line, body, status) in places {
        for (head, answered) in ASKED_BY {
            let answer = asked(address, &format!("{line} HTTP/1.1"), head, body);
            let case = format!("{line} {head:?}: {answer:?}");
            match answered {
                true => assert_eq!(answer.status, status, "{case}"),
                false => assert!(matches!(answer.status, 400 | 403), "{case}"),
            }
            assert_eq!(answer.header("access-control-allow-origin"), None, "{case}");
            sent += usize::from(answer.status == 202);
            minted += usize::from(matches!(answer.status, 201 | 202));
            if answer.status == 403 && address == egress {
                logged.push(answer.json()["reason"].as_str().unwrap().to_owned());
            }
        }
    }
    assert_eq!(provider.received().len(), sent, "what is refused is not sent");
    let all = callgate.admin_get("/callbacks?limit=1000").json();
    assert_eq!(all["interactions"].as_array().unwrap().len(), minted, "nor is anything minted for it");
    for reason in ["host_not_allowed", "page_not_allowed"] {
        assert!(logged.iter().any(|logged| logged == reason), "{reason}");
        let line = format!("reason=\"{reason}\",rule=\"none\",verdict=\"deny\"");
        assert!(callgate.metrics().contains(&line), "{line}");
    }
}

#[test]
fn whoever_names_no_host_is_refused() {
    let world = World::new();
    // A browser always names one; a proxy of HTTP/1.0 between a browser and us need not.
    for address in [world.callgate.egress.unwrap(), world.callgate.admin.unwrap()] {
        let answer = asked(address, "POST /callbacks HTTP/1.0", "accept: */*", "{}");
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    let answer =
        asked(world.callgate.egress.unwrap(), "POST /keep HTTP/1.0", "host: localhost", r#"{"id":"a"}"#);
    assert_eq!(answer.status, 202);
    assert_eq!(world.provider.received().len(), 1);
}

#[test]
fn a_reload_changes_under_which_names_the_egress_is_asked() {
    let world = World::new();
    let text = |hosts: &str| {
        let text = config(world.agent.address, &format!("http://{}", world.provider.address), "");
        text.replace("egress: { address: 127.0.0.1:0", &format!("egress: {{ address: 127.0.0.1:0{hosts}"))
    };
    let status = |line: &str| {
        let head = "host: gate.example\r\nconnection: close";
        asked(world.callgate.egress.unwrap(), line, head, r#"{"id":"a"}"#).status
    };
    assert_eq!(status("POST /keep HTTP/1.1"), 403);
    world.callgate.reload(&text(", hosts: [gate.example]")).unwrap();
    assert_eq!(status("POST /keep HTTP/1.1"), 202);
    world.callgate.reload(&text("")).unwrap();
    assert_eq!(status("POST /keep HTTP/1.1"), 403);
    let moved = text("").replace("egress: { address: 127.0.0.1:0", "egress: { address: 127.0.0.1:1");
    assert!(world.callgate.reload(&moved).unwrap_err().contains("listen.egress.address"));
}

/// A Callgate whose egress listener has more fields, its provider and its agent.
fn with_listener(fields: &str, provider: &str, more: &str) -> (Callgate, Agent) {
    let agent = Agent::start(ANSWER);
    let listener = "egress: { address: 127.0.0.1:0";
    let text = config(agent.address, provider, more).replace(listener, &format!("{listener}, {fields}"));
    (Callgate::start(&text, Clock::System), agent)
}

fn connect(address: SocketAddr) -> std::net::TcpStream {
    let stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    stream
}

/// A request to a rule that passes on, without its body.
fn head_of(length: usize, more: &str) -> String {
    format!("POST /plain HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{more}\r\n")
}

#[test]
fn the_egress_has_so_many_connections_of_its_own() {
    let provider = Agent::start(TAKEN);
    let (callgate, agent) = with_listener(
        "connections_max: 2",
        &format!("http://{}", provider.address),
        "limits: { connections_max: 1 }",
    );
    let egress = callgate.egress.unwrap();
    let kept = || {
        let mut stream = connect(egress);
        write!(stream, "{}x", head_of(1, "")).unwrap();
        assert_eq!(Response::read(&mut stream).status, 202);
        stream
    };
    let (first, _second) = (kept(), kept());
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut connect(egress), &mut rest);
    assert!(rest.is_empty(), "the third is closed without a word");
    // The ingress has room of its own, and the other way about.
    let mut outside = callgate.connect();
    outside.write_all(b"GET /nope HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(Response::read(&mut outside).status, 404);
    drop(first);
    eventually(|| {
        let mut stream = connect(egress);
        write!(stream, "{}x", head_of(1, "connection: close\r\n")).unwrap();
        let mut all = String::new();
        let _ = std::io::Read::read_to_string(&mut stream, &mut all);
        all.starts_with("HTTP/1.1 202 ").then_some(())
    });
    assert!(agent.received().is_empty());
}

#[test]
fn bodies_of_the_agent_have_so_much_memory_in_all_until_they_are_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let provider = format!("http://{}", listener.local_addr().unwrap());
    let (callgate, _agent) = with_listener("body_memory_max: 1MiB", &provider, "");
    let egress = callgate.egress.unwrap();
    // Only bodies into which something is inserted are kept in memory.
    let head_of = |length, more: &str| head_of(length, more).replace("/plain", "/query?user=u1");
    let mut first = connect(egress);
    first.write_all(head_of(900_000, "").as_bytes()).unwrap();
    first.write_all(&vec![b'x'; 900_000]).unwrap();
    // The provider has all of it, and does not answer.
    let (mut taken, _) = listener.accept().unwrap();
    let received = read_request(&mut taken, &mut Vec::new()).unwrap();
    assert_eq!(received.body.len(), 900_000);
    let mut second = connect(egress);
    second.write_all(head_of(300_000, "expect: 100-continue\r\n").as_bytes()).unwrap();
    let mut interim = [0; 25];
    std::io::Read::read_exact(&mut second, &mut interim).unwrap();
    let full = Response::read(&mut second);
    assert_eq!((full.status, full.json()["reason"].as_str()), (503, Some("overloaded")));
    taken.write_all(TAKEN).unwrap();
    assert_eq!(Response::read(&mut first).status, 202);
    let answering = std::thread::spawn(move || {
        for stream in std::iter::once(taken).chain(listener.incoming().map_while(Result::ok)) {
            let mut stream = stream;
            if read_request(&mut stream, &mut Vec::new()).is_some() {
                return stream.write_all(TAKEN).unwrap();
            }
        }
    });
    eventually(|| {
        let answer = send_to(egress, "POST", "/query?user=u1", &[], &vec![b'y'; 300_000]);
        (answer.status == 202).then_some(())
    });
    answering.join().unwrap();
}

#[test]
fn what_the_agent_sends_has_deadlines() {
    let provider = Agent::start(TAKEN);
    let limits =
        "limits: { head_deadline: 300ms, body_deadline: 300ms, idle_timeout: 300ms, head_max: 2KiB }";
    let (callgate, _agent) = with_listener("", &format!("http://{}", provider.address), limits);
    let egress = callgate.egress.unwrap();
    for (sent, reason) in [
        ("POST /plain HTTP/1.1\r\nhost: localh".to_owned(), "head_timeout"),
        (format!("{}half", head_of(8, "")), "body_timeout"),
        (head_of(1, &format!("x: {}\r\n", "x".repeat(3000))), "head_too_large"),
    ] {
        let mut stream = connect(egress);
        stream.write_all(sent.as_bytes()).unwrap();
        let refused = Response::read(&mut stream);
        assert_eq!(refused.json()["reason"], reason);
        assert_eq!(refused.header("connection"), Some("close"), "{reason}");
        drop(stream);
        assert_eq!(callgate.log()[0]["reason"], reason);
    }
    assert!(provider.received().is_empty());
    // A kept connection is closed without a word once it has idled.
    let mut stream = connect(egress);
    write!(stream, "{}x", head_of(1, "")).unwrap();
    assert_eq!(Response::read(&mut stream).status, 202);
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn the_egress_goes_on_until_callbacks_have_ended() {
    let provider = Agent::start(TAKEN);
    let route = "  - { name: open, path: \"/open/{id}\", open: true, forward: \"/in/{id}\" }\n";
    let agent = Agent::start(ANSWER);
    let text = config(agent.address, &format!("http://{}", provider.address), "")
        .replace("egress:\n", &format!("{route}egress:\n"));
    let mut callgate = Callgate::start(&text, Clock::System);
    let egress = callgate.egress.unwrap();
    // In two pieces, of which the second one fills whatever room was made for it.
    let send = |stream: &mut std::net::TcpStream| {
        write!(stream, "{}x", head_of(1, "")).unwrap();
        let answer = Response::read(stream);
        (answer.status, answer.header("connection").unwrap().to_owned())
    };
    let mut kept = connect(egress);
    assert_eq!(send(&mut kept), (202, "keep-alive".to_owned()));
    let mut callback = callgate.begin_exchange();
    let stopping = callgate.stop_in_background();
    eventually(|| (callgate.admin_get("/readyz").status == 503).then_some(()));
    eventually(|| std::net::TcpStream::connect(callgate.ingress).is_err().then_some(()));
    assert_eq!(send(&mut kept), (202, "keep-alive".to_owned()));
    assert_eq!(send(&mut connect(egress)), (202, "keep-alive".to_owned()));
    let mut begun = connect(egress);
    begun.write_all(head_of(1, "expect: 100-continue\r\n").as_bytes()).unwrap();
    let mut interim = [0; 25];
    std::io::Read::read_exact(&mut begun, &mut interim).unwrap();
    let mut half = connect(egress);
    half.write_all(b"POST /plain HTTP/1.1\r\nhost: localhost\r\n").unwrap();
    callback.write_all(b"hi").unwrap();
    assert_eq!(Response::read(&mut callback).status, 200);
    // Now that the last callback has ended, the egress ends: idle connections at once, requests with their answer.
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut kept, &mut rest).unwrap();
    assert!(rest.is_empty());
    half.write_all(b"content-length: 0\r\n\r\n").unwrap();
    let answer = Response::read(&mut half);
    assert_eq!((answer.status, answer.header("connection")), (202, Some("close")));
    begun.write_all(b"x").unwrap();
    assert_eq!(Response::read(&mut begun).status, 202);
    assert_eq!(stopping.join().unwrap(), 0);
}
