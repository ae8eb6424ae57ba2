//! A2A through the egress listener: agent cards name the address of the rule, and the id of a task is learned from a
//! stream of events.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use callgate::clock::Clock;
use serde_json::{Value, json};

use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, Response, eventually, send_to};

fn config(provider: SocketAddr) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"127.0.0.1:1\" }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
providers: {{ p: {{ preset: a2a }} }}
routes:
  - {{ name: a2a, path: \"/a2a/{{id}}\", provider: p, token: {{ kind: callback, from: [ {{ header: x-a2a-notification-token }} ] }}, forward: \"/in/{{id}}\" }}
egress:
  - name: a2a
    path: /peer/{{*rest}}
    methods: [GET, POST]
    target: http://{provider}/{{rest}}
    inject: {{ route: a2a, preset: a2a, params: {{ id: {{ new: uuid }} }} }}
  - name: custom
    path: /custom
    target: http://{provider}/rpc
    response: /result/name
    inject: {{ route: a2a, params: {{ id: {{ new: uuid }} }}, url: /params/push/url, token: /params/push/token }}
  - name: one
    path: /one/.well-known/agent.json
    methods: [GET]
    target: http://{provider}/.well-known/agent.json
"
    )
}

fn answer(headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes()
}

const JSON: &str = "content-type: application/json\r\n";

/// Callgate with a provider that answers every request with the same response.
fn world() -> (Agent, Callgate) {
    let provider = Agent::start(ANSWER);
    let callgate = Callgate::start(&config(provider.address), Clock::System);
    (provider, callgate)
}

fn get(callgate: &Callgate, path: &str) -> Response {
    send_to(callgate.egress.unwrap(), "GET", path, &[("accept-encoding", "gzip")], b"")
}

fn card(provider: SocketAddr) -> Value {
    json!({
        "name": "peer", "skills": [], "documentationUrl": format!("http://{provider}/docs"),
        "url": format!("http://{provider}"),
        "supportedInterfaces": [
            { "url": format!("http://{provider}/rpc"), "protocolBinding": "JSONRPC" },
            { "url": format!("http://{provider}/v1?x=y"), "protocolBinding": "HTTP+JSON" },
            { "url": "grpc.example.com:443", "protocolBinding": "GRPC" },
        ],
        "additionalInterfaces": [ { "url": "https://other.example.com/", "transport": "JSONRPC" } ],
    })
}

/// The card as the agent must see it. The harness sends `Host: localhost`.
fn local_card(provider: SocketAddr) -> Value {
    let mut card = card(provider);
    card["url"] = json!("http://localhost/peer/");
    card["supportedInterfaces"][0]["url"] = json!("http://localhost/peer/rpc");
    card["supportedInterfaces"][1]["url"] = json!("http://localhost/peer/v1?x=y");
    card
}

/// Reports whether the detail of a log line contains these words.
fn says(line: &Value, words: &str) -> bool {
    line["detail"].as_str().is_some_and(|detail| detail.contains(words))
}

#[test]
fn agent_cards_name_the_address_of_the_rule() {
    let (provider, callgate) = world();
    let text = card(provider.address).to_string();
    for headers in [JSON.to_owned(), format!("{JSON}content-digest: sha-256=:x:\r\netag: \"1\"\r\n")] {
        provider.answers(&answer(&headers, &text));
        for path in
            [".well-known/agent-card.json", ".well-known/agent.json", "extendedAgentCard", "a/v1/card"]
        {
            let response = get(&callgate, &format!("/peer/{path}"));
            assert_eq!((response.status, response.json()), (200, local_card(provider.address)), "{path}");
            assert_eq!(response.header("content-digest"), None);
            let sent = provider.received().pop().unwrap();
            assert!(!sent.head.contains("accept-encoding"), "{}", sent.head);
        }
    }
    // The extended card over JSON-RPC.
    let result = |card: Value| json!({ "jsonrpc": "2.0", "id": 1, "result": card });
    provider.answers(&answer(JSON, &result(card(provider.address)).to_string()));
    for method in ["GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"] {
        let response = callgate.agent_sends("/peer/rpc", &json!({ "method": method, "id": 1 }).to_string());
        assert_eq!(response.json(), result(local_card(provider.address)), "{method}");
    }
    let lines = callgate.logged(10);
    let names = |line: &Value| says(line, "grpc.example.com:443, https://other.example.com/");
    assert!(lines.iter().all(names), "{lines:?}");
}

#[test]
fn what_is_not_a_card_or_is_signed_is_passed_on_unchanged() {
    let (provider, callgate) = world();
    let mut signed = card(provider.address);
    signed["signatures"] = json!([{ "protected": "e30", "signature": "AA" }]);
    let text = card(provider.address).to_string();
    let large = format!("{}{text}", " ".repeat(300 << 10));
    for (headers, body, path) in [
        (JSON, signed.to_string(), "/peer/.well-known/agent-card.json"),
        (JSON, json!({ "url": format!("http://{}/", provider.address) }).to_string(), "/peer/v1/card"),
        (JSON, text.clone(), "/peer/other.json"),
        (JSON, large, "/peer/.well-known/agent-card.json"),
        ("content-type: text/html\r\n", text.clone(), "/peer/.well-known/agent-card.json"),
        ("content-type: application/json\r\ncontent-encoding: gzip\r\n", text.clone(), "/peer/v1/card"),
    ] {
        provider.answers(&answer(headers, &body));
        let response = get(&callgate, path);
        assert_eq!((response.status, response.text()), (200, body), "{path}");
    }
    let lines = callgate.logged(6);
    assert_eq!(lines.iter().filter(|line| says(line, "the agent card is signed")).count(), 1, "{lines:?}");
    // The rule for one path covers none of these URLs.
    provider.answers(&answer(JSON, &text));
    assert_eq!(get(&callgate, "/one/.well-known/agent.json").text(), text);
}

/// The response is read for the provider's id, and for the URLs of a card.
#[test]
fn a_card_with_an_id_is_relayed_whole() {
    let (provider, callgate) = world();
    let result = |card: Value| json!({ "jsonrpc": "2.0", "id": 1, "result": card });
    let (own, text) = (provider.address, result(card(provider.address)).to_string());
    let mut expected = card(own);
    expected["supportedInterfaces"][0]["url"] = json!("http://localhost/custom");
    let (start, end) = text.split_at(text.len() / 2);
    let chunks = format!("{:x}\r\n{start}\r\n{:x}\r\n{end}\r\n0\r\n", start.len(), end.len());
    let head = format!("HTTP/1.1 200 OK\r\n{JSON}transfer-encoding: chunked\r\n\r\n");
    for response in [
        answer(JSON, &text),
        format!("{head}{chunks}x-end: yes\r\nContent-Digest: sha-256=:x:\r\n\r\n").into_bytes(),
    ] {
        provider.answers(&response);
        let body = r#"{"method":"agent/getAuthenticatedExtendedCard","params":{}}"#;
        let is_chunked = response.starts_with(head.as_bytes());
        let mut agent = patient(TcpStream::connect(callgate.egress.unwrap()).unwrap());
        let length = body.len();
        let lines = "host: localhost\r\ncontent-type: application/json";
        write!(agent, "POST /custom HTTP/1.1\r\n{lines}\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        let read = if is_chunked {
            read_until(&mut agent, "\r\n\r\n");
            let size = read_until(&mut agent, "\r\n");
            let mut read = vec![0; usize::from_str_radix(size.trim(), 16).unwrap()];
            agent.read_exact(&mut read).unwrap();
            // The digest of the body was removed together with the header of the same name.
            assert_eq!(read_until(&mut agent, "\r\n\r\n"), "\r\n0\r\nx-end: yes\r\n\r\n");
            serde_json::from_slice(&read).unwrap()
        } else {
            Response::read(&mut agent).json()
        };
        assert_eq!(read, result(expected.clone()));
        let known = callgate.admin_get("/callbacks").json()["interactions"][0]["provider_id"].clone();
        assert_eq!(known, json!("peer"));
    }
}

/// A card at a path that only cards have needs no `skills`.
#[test]
fn a_card_without_skills_is_a_card() {
    let (provider, callgate) = world();
    let without = |mut card: Value| {
        card.as_object_mut().unwrap().remove("skills");
        card
    };
    let (sent, expected) = (without(card(provider.address)), without(local_card(provider.address)));
    provider.answers(&answer(JSON, &sent.to_string()));
    for path in [".well-known/agent-card.json", ".well-known/agent.json", "extendedAgentCard"] {
        assert_eq!(get(&callgate, &format!("/peer/{path}")).json(), expected, "{path}");
    }
    // Other APIs have this path, too.
    assert_eq!(get(&callgate, "/peer/v1/card").json(), sent);
    let result = |card: Value| json!({ "jsonrpc": "2.0", "id": 1, "result": card });
    provider.answers(&answer(JSON, &result(sent).to_string()));
    let response = callgate.agent_sends("/peer/rpc", r#"{"method":"GetExtendedAgentCard","id":1}"#);
    assert_eq!(response.json(), result(expected));
}

#[test]
fn the_text_of_a_card_cannot_forge_lines_of_the_log() {
    let (provider, callgate) = world();
    let mut urls = vec!["x\nerror: the ledger is damaged".to_owned(), "\u{1b}[2J\u{9b}".to_owned()];
    urls.extend((0..20).map(|i| format!("{i}{}", "\u{e9}".repeat(1000))));
    let interfaces: Vec<_> = urls.iter().map(|url| json!({ "url": url })).collect();
    let text = json!({ "skills": [], "supportedInterfaces": interfaces }).to_string();
    provider.answers(&answer(JSON, &text));
    assert_eq!(get(&callgate, "/peer/v1/card").text(), text);
    let line = callgate.log().remove(0);
    let detail = line["detail"].as_str().unwrap();
    assert!(!detail.contains(char::is_control) && detail.len() <= 300, "{detail}");
    assert!(detail.contains("x\\nerror: the ledger"), "{detail}");
}

#[test]
fn a_card_with_very_many_interfaces_is_not_changed() {
    let (provider, callgate) = world();
    for count in [64, 65, 120_000] {
        let interface = json!({ "url": format!("http://{}/x", provider.address) });
        let mut interfaces = vec![interface; 1];
        interfaces.resize(count, json!(0));
        let text = json!({ "skills": [], "supportedInterfaces": interfaces }).to_string();
        provider.answers(&answer(JSON, &text));
        let response = get(&callgate, "/peer/v1/card");
        assert_eq!(response.text() == text, count > 64, "{count}");
        assert_eq!(says(&callgate.log()[0], "more than 64 interfaces"), count > 64, "{count}");
    }
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn read_until(stream: &mut impl Read, end: &str) -> String {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(end.as_bytes()) {
        assert!(stream.read(&mut byte).unwrap() > 0, "ended after {:?}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&byte);
    }
    String::from_utf8(read).unwrap()
}

/// The agent receives each event before the provider sends the next one, and the interaction knows the task before the
/// stream ends.
#[test]
fn the_task_of_a_stream_is_known_before_the_stream_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let callgate = Callgate::start(&config(listener.local_addr().unwrap()), Clock::System);
    let body =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": {} }).to_string();
    let mut agent = patient(TcpStream::connect(callgate.egress.unwrap()).unwrap());
    let length = body.len();
    let head = format!(
        "POST /peer/rpc HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    agent.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut provider = patient(listener.accept().unwrap().0);
    read_until(&mut provider, "\"}}}}");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    provider.write_all(head.as_bytes()).unwrap();
    read_until(&mut agent, "\r\n\r\n");
    let known = || callgate.admin_get("/callbacks").json()["interactions"][0]["provider_id"].clone();
    assert_eq!(known(), Value::Null);
    for (event, id) in [
        (json!({ "result": { "task": { "id": "task-7" } } }), "task-7"),
        (json!({ "result": { "task": { "id": "task-8" } } }), "task-7"),
    ] {
        let event = format!("data: {event}\r\n\r\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        provider.write_all(chunk.as_bytes()).unwrap();
        assert_eq!(read_until(&mut agent, "\r\n\r\n\r\n"), chunk);
        eventually(|| (known() == json!(id)).then_some(()));
    }
    provider.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(read_until(&mut agent, "0\r\n\r\n"), "0\r\n\r\n");
    assert_eq!(callgate.log()[0]["reason"], "ok");
}
