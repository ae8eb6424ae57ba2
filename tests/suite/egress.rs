//! The egress listener: what is injected into the agent's requests, what stays unchanged, and which requests are
//! denied.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use callgate::proxy::Clock;
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
            ("connection", "x-hop"),
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
    let log = world.callgate.log().remove(0);
    assert_eq!((log["egress"].as_str(), log["reason"].as_str()), (Some("body"), Some("ok")));
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
    assert!(world.callgate.metrics().contains("reason=\"kept\",rule=\"keep\",verdict=\"allow\"} 1"));
    assert_eq!(world.send("/keep", r#"{"id":"a"}"#).status, 202);
    assert_eq!(world.interactions()[0]["uses_left"], 1);
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
        ("/body", r#"{"document":{"id":"a"},"callback":null}"#, 400, "injection_impossible"),
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
    assert_eq!(world.interactions()[0]["state"], "not_sent");
    for status in [500, 503, 404] {
        world.provider.answers(format!("HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\nno").as_bytes());
        let answer = world.send("/keep", r#"{"id":"a"}"#);
        assert_eq!((answer.status, answer.text()), (status, "no".to_owned()), "the agent sees it");
        let value: Value = serde_json::from_slice(&world.last().body).unwrap();
        let late = world.call_back(value["callback_url"].as_str().unwrap(), value["callback_token"].as_str());
        assert_eq!(late.status, 410);
    }
    let page = world.callgate.metrics();
    assert!(
        page.contains("callgate_interactions_ended_total{outcome=\"not_sent\",route=\"doc\"} 4"),
        "{page}"
    );
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
    let smuggled = "POST /plain HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nxx";
    let mut stream = std::net::TcpStream::connect(world.callgate.egress.unwrap()).unwrap();
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    write!(stream, "POST /nope HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{smuggled}", smuggled.len())
        .unwrap();
    assert_eq!(Response::read(&mut stream).status, 404);
    write!(stream, "POST /plain HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\ny").unwrap();
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
    let request =
        format!("POST /plain HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
    // The pieces end anywhere, even within the size of a chunk.
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
    write!(stream, "POST /body HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{request}", request.len()).unwrap();
    let answer = Response::read(&mut stream);
    assert_eq!((answer.status, answer.text().as_str()), (202, r#"{"job": {"id": "job-1"}}"#));
}

#[test]
fn a_head_that_cannot_be_parsed_is_answered() {
    let world = World::new();
    let mut stream = std::net::TcpStream::connect(world.callgate.egress.unwrap()).unwrap();
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    stream.write_all(b"GET /plain` HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
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
