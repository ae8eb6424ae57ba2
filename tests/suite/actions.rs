//! Questions of providers: which action endpoints are accepted, where the agent's answer is sent, and how often.

use callgate::clock::Clock;
use serde_json::{Value, json};

use crate::harness::{ANSWER, Agent, Callgate, Response, eventually, read_request, send_to};

struct World {
    provider: Agent,
    agent: Agent,
    callgate: Callgate,
    minted: Value,
}

impl World {
    fn new(actions: &str) -> Self {
        Self::with(actions, "")
    }

    /// Returns the world with the agent at this address.
    fn with(actions: &str, address: &str) -> Self {
        let (provider, agent) = (Agent::start(ANSWER), Agent::start(ANSWER));
        let address = if address.is_empty() { agent.address.to_string() } else { address.to_owned() };
        let text = format!(
            "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
routes:
  - name: ask
    path: /ask/{{id}}
    token: {{ kind: callback }}
    forward: /in/{{id}}
    interaction: {{ status: /status, done: [done] }}
    actions: {{ pointer: /ask/action_endpoint, {actions} }}
",
            address
        );
        let callgate = Callgate::start(&text, Clock::System);
        let minted =
            callgate.admin_send("POST", "/callbacks", r#"{"route":"ask","params":{"id":"a"}}"#).json();
        Self { provider, agent, callgate, minted }
    }

    fn id(&self) -> &str {
        self.minted["interaction"].as_str().unwrap()
    }

    /// Returns the provider's action endpoint.
    fn endpoint(&self, path: &str) -> String {
        format!("http://{}{path}", self.provider.address)
    }

    fn call(&self, body: &str) -> Response {
        let bearer = format!("Bearer {}", self.minted["callback_token"].as_str().unwrap());
        let headers =
            [("authorization", &*bearer), ("content-digest", "sha-256=:AA==:"), ("digest", "SHA-256=AA==")];
        send_to(self.callgate.ingress, "POST", "/ask/a", &headers, body.as_bytes())
    }

    fn ask(&self, endpoint: &str) -> Response {
        self.call(&format!("{{\"ask\": {{ \"action_endpoint\": \"{endpoint}\", \"n\": 1.0 }}}}"))
    }

    fn reply(&self, rest: &str, body: &str) -> Response {
        self.callgate.agent_sends(&format!("/actions/{}{rest}", self.id()), body)
    }

    fn state(&self) -> Value {
        self.callgate.admin_get(&format!("/callbacks/{}", self.id())).json()
    }
}

fn reason(response: &Response) -> (u16, String) {
    (response.status, response.json()["reason"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_question_is_answered_once_at_its_own_endpoint() {
    let world = World::new("hosts: [127.0.0.1], headers: { authorization: { env: STATIC } }");
    assert_eq!(reason(&world.reply("", "{}")), (404, "action_unknown".to_owned()));
    assert_eq!(world.ask(&world.endpoint("/answer/1?x=y")).status, 200);
    assert_eq!(world.state()["state"], "asking");
    let delivered = world.agent.received().remove(0);
    assert!(String::from_utf8_lossy(&delivered.body).contains("/answer/1"), "as it came");
    assert_eq!(delivered.header("content-digest"), ["sha-256=:AA==:"]);
    let answered = send_to(
        world.callgate.egress.unwrap(),
        "POST",
        &format!("/actions/{}", world.id()),
        &[("content-type", "application/json"), ("authorization", "the agent's"), ("x-kept", "1")],
        b"{ \"choice\": 1.0 }",
    );
    assert_eq!((answered.status, answered.text().as_str()), (200, "hello"));
    let sent = &world.provider.received()[0];
    assert_eq!((sent.target(), sent.body.as_slice()), ("/answer/1?x=y", b"{ \"choice\": 1.0 }".as_slice()));
    assert_eq!(sent.header("authorization"), ["a static secret"]);
    assert_eq!(sent.header("x-kept"), ["1"]);
    assert_eq!(sent.header("host"), [world.provider.address.to_string()]);
    assert_eq!(world.state()["state"], "progressing");
    assert_eq!(reason(&world.reply("", "{}")), (409, "action_already_answered".to_owned()));
    assert_eq!(world.provider.received().len(), 1);
}

#[test]
fn an_answer_that_was_not_taken_can_be_given_again() {
    let world = World::new("hosts: [127.0.0.1]");
    world.ask(&world.endpoint("/answer"));
    world.provider.answers(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(world.reply("", "{}").status, 503);
    world
        .provider
        .answers(b"HTTP/1.1 307 Moved\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n");
    let moved = world.reply("", "{}");
    assert_eq!(reason(&moved), (502, "provider_redirected".to_owned()));
    assert!(moved.header("location").is_none());
    // The agent would resolve a relative location against the egress listener.
    world.provider.answers(b"HTTP/1.1 202 Accepted\r\nlocation: /jobs/7\r\ncontent-length: 0\r\n\r\n");
    let accepted = world.reply("", "{}");
    assert_eq!((accepted.status, accepted.header("location")), (202, Some(&*world.endpoint("/jobs/7"))));
    assert_eq!(world.provider.received().len(), 3);
}

#[test]
fn an_unchanged_agent_answers_at_the_url_it_is_given() {
    let world = World::new("hosts: [127.0.0.1], rewrite: true");
    world.ask(&world.endpoint("/first"));
    world.ask(&world.endpoint("/second"));
    let egress = world.callgate.egress.unwrap();
    let urls: Vec<_> = world
        .agent
        .received()
        .iter()
        .map(|received| {
            let text = String::from_utf8(received.body.clone()).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            let url = value["ask"]["action_endpoint"].as_str().unwrap().to_owned();
            assert_eq!(text, format!("{{\"ask\": {{ \"action_endpoint\": \"{url}\", \"n\": 1.0 }}}}"));
            assert_eq!(received.header("content-length"), [text.len().to_string()]);
            // They are digests of the body with the provider's URL.
            assert!(received.header("content-digest").is_empty() && received.header("digest").is_empty());
            url
        })
        .collect();
    let first = format!("http://{egress}/actions/{}", world.id());
    assert_eq!(urls, [first.clone(), format!("{first}/2")]);
    assert_eq!(world.agent.received()[1].header("callgate-question"), ["2"]);
    assert_eq!(world.reply("/2", "{}").status, 200);
    assert_eq!(world.state()["state"], "asking", "the first is still open");
    assert_eq!(world.reply("", "{}").status, 200);
    assert_eq!(world.state()["state"], "progressing");
    world.ask(&world.endpoint("/third"));
    assert_eq!(reason(&world.reply("", "{}")), (409, "action_already_answered".to_owned()), "given again");
    assert_eq!(world.reply("/3", "{}").status, 200);
    let targets: Vec<_> = world.provider.received().iter().map(|sent| sent.target().to_owned()).collect();
    assert_eq!(targets, ["/second", "/first", "/third"]);
    for rest in ["/1", "/2", "/4", "/x", "/1/x"] {
        assert!([404, 409].contains(&world.reply(rest, "{}").status), "{rest}");
    }
}

#[test]
fn an_answer_that_could_be_to_either_question_is_refused() {
    let world = World::new("hosts: [127.0.0.1]");
    world.ask(&world.endpoint("/first"));
    world.ask(&world.endpoint("/second"));
    assert_eq!(reason(&world.reply("", "{}")), (409, "action_ambiguous".to_owned()));
    assert_eq!(world.reply("/1", "{}").status, 200);
    assert_eq!(world.reply("", "{}").status, 200);
    let targets: Vec<_> = world.provider.received().iter().map(|sent| sent.target().to_owned()).collect();
    assert_eq!(targets, ["/first", "/second"]);
}

#[test]
fn an_answer_is_signed_where_the_route_says_so() {
    let world = World::new("hosts: [127.0.0.1], sign: { secrets: [ { env: WHSEC } ] }");
    world.ask(&world.endpoint("/answer"));
    assert_eq!(world.reply("", "{\"a\":1}").status, 200);
    let sent = &world.provider.received()[0];
    let mut headers = http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let value = sent.header(name)[0].parse().unwrap();
        headers.insert(http::HeaderName::from_static(name), value);
    }
    let text = crate::harness::open_config("127.0.0.1:1")
        + "providers: { p: { preset: standard-webhooks, secrets: [ { env: WHSEC } ] } }\n";
    let config = crate::harness::parse(&text);
    let verifier = config.policy.provider("p").unwrap().verifier.as_ref().unwrap();
    let head = callgate::request::RequestHead::new("POST", "/answer", &headers, callgate::source::LOOPBACK);
    let signed = callgate::signature::SignatureContext::new(head, "", Clock::System.now());
    let presented = verifier.verify_head(&signed).unwrap();
    assert!(verifier.verify_body(&presented, &signed, b"{\"a\":1}").is_ok());
}

#[test]
fn names_are_judged_by_the_address_they_have() {
    // `localhost` is listed, and so are its loopback addresses. Another name for these addresses is not listed.
    let world = World::new("hosts: [localhost]");
    let port = world.provider.address.port();
    assert_eq!(world.ask(&format!("http://localhost:{port}/answer")).status, 200);
    assert_eq!(world.reply("", "{}").status, 200);
    for endpoint in
        [world.endpoint("/x"), "http://[::1]/x".to_owned(), "https://localhost.evil.example/".to_owned()]
    {
        assert_eq!(world.ask(&endpoint).status, 403, "{endpoint}");
    }
    // A listed name that resolves to a private address on this machine.
    let name = String::from_utf8(std::process::Command::new("hostname").output().unwrap().stdout).unwrap();
    let (name, port) = (name.trim().to_ascii_lowercase(), world.provider.address.port());
    let resolved = std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), port));
    let private = resolved.is_ok_and(|mut all| all.all(|a| callgate::guard::classify(a.ip()).is_some()));
    if private && callgate::guard::Entry::parse(&name).is_some() {
        let world = World::new(&format!("hosts: [\"http://{name}\"]"));
        assert_eq!(world.ask(&format!("http://{name}:{port}/answer")).status, 200);
        assert_eq!(reason(&world.reply("", "{}")), (403, "action_not_allowed".to_owned()));
        assert!(world.provider.received().is_empty());
        assert!(world.callgate.metrics().contains("callgate_guard_refusals_total"));
    }
}

#[test]
fn what_the_guard_refuses_does_not_reach_the_agent_and_is_counted_by_class() {
    let world = World::new("hosts: [booking-service.com, 10.1.0.0/16]");
    for (endpoint, class) in [
        ("http://169.254.169.254/latest/meta-data", "metadata"),
        ("https://[::ffff:10.0.0.1]/", "embedded"),
        ("https://[64:ff9b::a00:1]/", "nat64"),
        ("https://[2002:a00:1::]/", "six_to_four"),
        ("http://192.168.1.1/", "private"),
        ("https://evil.example/", "host_not_listed"),
        ("https://user@booking-service.com/", "url_userinfo"),
        ("file:///etc/passwd", "url_scheme"),
        ("https://booking-service.com/#x", "url_character"),
        ("https://0x7f.1/", "url_host"),
    ] {
        assert_eq!(world.ask(endpoint).status, 403, "{endpoint}");
        let line = format!("callgate_guard_refusals_total{{class=\"{class}\"}} 1");
        assert!(world.callgate.metrics().contains(&line), "{endpoint}");
    }
    assert!(world.agent.received().is_empty());
    assert_eq!(reason(&world.reply("", "{}")), (404, "action_unknown".to_owned()));
}

#[test]
fn questions_end_with_their_interaction() {
    let world = World::new("hosts: [127.0.0.1]");
    world.ask(&world.endpoint("/answer"));
    assert_eq!(
        reason(&world.callgate.agent_sends("/actions/int_other", "{}")),
        (404, "action_unknown".to_owned())
    );
    assert_eq!(world.callgate.admin_send("DELETE", &format!("/callbacks/{}", world.id()), "").status, 204);
    assert_eq!(reason(&world.reply("", "{}")), (410, "interaction_revoked".to_owned()));
    assert!(world.provider.received().is_empty());
    assert_eq!(
        world.state()["questions"],
        json!([{ "number": 1, "endpoint": world.endpoint("/answer"), "answered": false }])
    );
}

#[test]
fn an_agent_may_answer_before_it_has_taken_the_callback() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let world = World::with("hosts: [127.0.0.1], rewrite: true", &listener.local_addr().unwrap().to_string());
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let asked = read_request(&mut stream, &mut Vec::new()).unwrap();
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        let url = body["ask"]["action_endpoint"].as_str().unwrap().to_owned();
        let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let answered = send_to(address.parse().unwrap(), "POST", &format!("/{path}"), &[], b"{}");
        std::io::Write::write_all(&mut stream, ANSWER).unwrap();
        answered.status
    });
    assert_eq!(world.ask(&world.endpoint("/answer")).status, 200);
    assert_eq!(agent.join().unwrap(), 200);
    assert_eq!(world.state()["questions"][0]["answered"], true);
    assert_eq!(world.state()["state"], "progressing", "nothing is open any more");
}

#[test]
fn a_question_that_was_not_delivered_was_not_asked() {
    let world = World::new("hosts: [127.0.0.1]");
    world.agent.answers(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(world.ask(&world.endpoint("/answer")).status, 500);
    assert_eq!(world.state()["questions"], json!([]));
    assert_eq!(reason(&world.reply("", "{}")), (404, "action_unknown".to_owned()));
}

#[test]
fn as_many_questions_as_are_remembered() {
    let world = World::new("hosts: [127.0.0.1]");
    for i in 0..8 {
        assert_eq!(world.ask(&world.endpoint(&format!("/answer/{i}"))).status, 200);
    }
    assert_eq!(world.ask(&world.endpoint("/answer/8")).status, 429);
    eventually(|| world.callgate.log().iter().any(|l| l["reason"] == "questions_too_many").then_some(()));
    assert_eq!(world.reply("/3", "{}").status, 200);
    assert_eq!(world.ask(&world.endpoint("/answer/8")).status, 200);
    assert_eq!(world.reply("/9", "{}").status, 200);
}

#[test]
fn neither_callgate_nor_the_agent_can_be_named_as_an_endpoint() {
    let world = World::new("hosts: [127.0.0.0/8, localhost]");
    let (admin, egress, ingress) =
        (world.callgate.admin.unwrap(), world.callgate.egress.unwrap(), world.callgate.ingress);
    for (i, address) in [admin, egress, ingress, world.agent.address].into_iter().enumerate() {
        for (j, host) in ["127.0.0.1", "localhost"].into_iter().enumerate() {
            let endpoint = format!("http://{host}:{}/callbacks", address.port());
            assert_eq!(world.ask(&endpoint).status, 200);
            let refused =
                world.reply(&format!("/{}", 2 * i + j + 1), r#"{"route":"ask","params":{"id":"x"}}"#);
            assert_eq!(reason(&refused), (403, "action_not_allowed".to_owned()), "{endpoint}");
        }
    }
    assert!(world.callgate.metrics().contains("callgate_guard_refusals_total{class=\"own_address\"} 8"));
    assert_eq!(world.callgate.admin_get("/callbacks").json()["interactions"].as_array().unwrap().len(), 1);
}
