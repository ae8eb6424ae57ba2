//! Account-wide webhooks: callbacks without a token find their interaction by the provider's task id.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use callgate::clock::{Clock, instant};
use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::environment::env;
use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, Response, eventually, read_request, send_to};

const PATH: &str = "/hooks/openai";
const START: i64 = 1_767_225_600_000;

/// A provider whose responses the test writes, Callgate, and the agent.
struct World {
    provider: TcpListener,
    callgate: Callgate,
    agent: Agent,
    now: Arc<AtomicI64>,
}

fn config(provider: &str, agent: &str, unmatched: &str, store: &str) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\" }}
store: {store}
providers: {{ openai: {{ preset: openai, secrets: [ {{ env: WHSEC }} ] }} }}
routes:
  - name: responses
    path: {PATH}
    provider: openai
    forward: /in/openai
    interaction:
      match: {{ provider_id: /data/id }}
      unmatched: {unmatched}
      status: /type
      done: [response.completed]
      failed: [response.failed]
      deadline: 1h
      notify: /overdue
egress:
  - {{ name: responses, path: /v1/responses, target: \"http://{provider}/v1/responses\", inject: {{ route: responses, response: /id }} }}
"
    )
}

impl World {
    fn new(unmatched: &str) -> Self {
        Self::with(unmatched, "{ kind: memory, unknown: adopt }", Agent::start(ANSWER))
    }

    fn with(unmatched: &str, store: &str, agent: Agent) -> Self {
        let provider = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = provider.local_addr().unwrap().to_string();
        let now = Arc::new(AtomicI64::new(START));
        let text = config(&address, &agent.address.to_string(), unmatched, store);
        Self { provider, callgate: Callgate::start(&text, Clock::Set(Arc::clone(&now))), agent, now }
    }

    /// Sends a request of the agent. Returns the connections of the agent and of the provider.
    fn ask(&self) -> (TcpStream, TcpStream) {
        let mut agent = TcpStream::connect(self.callgate.egress.unwrap()).unwrap();
        agent.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = "{\"model\":\"m\",\"background\":true}";
        write!(
            agent,
            "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let (mut provider, _) = self.provider.accept().unwrap();
        provider.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = read_request(&mut provider, &mut Vec::new()).unwrap();
        assert_eq!(request.body, body.as_bytes(), "the request is unchanged");
        (agent, provider)
    }

    /// Sends a request, and answers it with this id. Returns the interaction.
    fn started(&self, id: &str) -> String {
        let (agent, provider) = self.ask();
        Self::answer(agent, provider, id)
    }

    fn answer(mut agent: TcpStream, mut provider: TcpStream, id: &str) -> String {
        let body = format!("{{\"id\":\"{id}\",\"status\":\"queued\"}}");
        write!(
            provider,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let response = Response::read(&mut agent);
        assert_eq!((response.status, response.text()), (200, body));
        response.header("callgate-interaction").unwrap().to_owned()
    }

    /// Sends a signed webhook.
    fn webhook(&self, event: &str, kind: &str, id: &str) -> Response {
        webhook(self.callgate.ingress, event, kind, id)
    }

    fn state(&self, interaction: &str) -> Value {
        self.callgate.admin_get(&format!("/callbacks/{interaction}")).json()
    }
}

/// Sends a webhook that is signed at the start of the test's time.
fn webhook(ingress: SocketAddr, event: &str, kind: &str, id: &str) -> Response {
    let body = json!({ "id": event, "type": kind, "data": { "id": id } }).to_string();
    let now = (START / 1000).to_string();
    let signature = signature(&format!("{event}.{now}.{body}"));
    let headers = [
        ("webhook-id", event),
        ("webhook-timestamp", &*now),
        ("webhook-signature", &*signature),
        ("content-type", "application/json"),
    ];
    send_to(ingress, "POST", PATH, &headers, body.as_bytes())
}

/// Returns the signature of Standard Webhooks under the secret in WHSEC.
fn signature(content: &str) -> String {
    let secret = env("WHSEC").unwrap();
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(content.as_bytes());
    format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()))
}

#[test]
fn a_webhook_belongs_to_the_interaction_with_its_provider_id() {
    let world = World::new("refuse");
    let (first, second) = (world.started("resp_1"), world.started("resp_2"));
    assert_eq!(world.state(&first)["provider_id"], "resp_1");
    assert_eq!(world.webhook("evt_1", "response.in_progress", "resp_2").status, 200);
    assert_eq!(world.webhook("evt_2", "response.completed", "resp_1").status, 200);
    let received = world.agent.wait_for(2);
    assert_eq!(received[0].header("callgate-interaction"), [&*second]);
    assert_eq!(received[1].header("callgate-interaction"), [&*first]);
    assert_eq!(
        (world.state(&first)["state"].as_str(), world.state(&second)["state"].as_str()),
        (Some("done"), Some("progressing"))
    );
    // The ledger recognizes duplicates, and a callback after the end.
    assert_eq!(world.webhook("evt_2", "response.completed", "resp_1").json()["result"], "duplicate");
    assert_eq!(world.webhook("evt_3", "response.completed", "resp_1").status, 410);
    assert_eq!(world.agent.received().len(), 2);
    let log = world.callgate.logged(6);
    let delivered = log.iter().filter(|line| line["interaction"] == *first && line["route"] == "responses");
    assert_eq!(delivered.count(), 1, "{log:?}");
}

#[test]
fn a_webhook_of_no_interaction_is_delivered_or_refused() {
    for (unmatched, status) in [("deliver", 200), ("refuse", 410)] {
        let world = World::new(unmatched);
        world.started("resp_1");
        assert_eq!(world.webhook("evt_1", "response.completed", "resp_other").status, status);
        let received = world.agent.received();
        assert_eq!(received.len(), usize::from(status == 200));
        assert!(received.iter().all(|one| one.header("callgate-interaction").is_empty()));
        if status == 200 {
            assert_eq!(
                world.webhook("evt_1", "response.completed", "resp_other").json()["result"],
                "duplicate"
            );
        }
    }
}

#[test]
fn a_webhook_waits_for_the_response_that_has_its_id() {
    let world = World::new("refuse");
    let (agent, provider) = world.ask();
    std::thread::scope(|scope| {
        let ingress = world.callgate.ingress;
        let early = scope.spawn(move || webhook(ingress, "evt_1", "response.completed", "resp_1"));
        // Callgate holds the body of the webhook while it waits.
        eventually(|| (!world.callgate.metrics().contains("\ncallgate_body_bytes_held 0\n")).then_some(()));
        assert!(world.agent.received().is_empty());
        let interaction = World::answer(agent, provider, "resp_1");
        assert_eq!(early.join().unwrap().status, 200);
        assert_eq!(world.agent.received()[0].header("callgate-interaction"), [&*interaction]);
    });
    // Nothing else is pending now, so an unknown id is refused at once.
    assert_eq!(world.webhook("evt_2", "response.completed", "resp_2").status, 410);
}

#[test]
fn a_request_that_failed_keeps_no_webhook_waiting() {
    let world = World::new("refuse");
    let (mut agent, mut provider) = world.ask();
    std::thread::scope(|scope| {
        let ingress = world.callgate.ingress;
        let early = scope.spawn(move || webhook(ingress, "evt_1", "response.completed", "resp_1"));
        write!(provider, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").unwrap();
        assert_eq!(Response::read(&mut agent).status, 400);
        assert_eq!(early.join().unwrap().status, 410);
    });
}

/// After each of these responses, an unknown id is refused at once. A callback would wait for 10 s otherwise.
#[test]
fn a_response_without_an_id_keeps_no_webhook_waiting() {
    let events = "data: {\"x\":1}\n\n";
    let responses = [
        "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{\"id\":".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok".to_owned(),
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{events}",
            events.len()
        ),
        String::new(),
        "HTTP/1.1 ".to_owned(),
    ];
    let world = World::new("refuse");
    for (number, response) in responses.iter().enumerate() {
        let (mut agent, mut provider) = world.ask();
        provider.write_all(response.as_bytes()).unwrap();
        drop(provider);
        Response::read(&mut agent);
        let sent = instant();
        let id = format!("evt_{number}");
        assert_eq!(world.webhook(&id, "response.completed", "resp_1").status, 410);
        assert!(sent.elapsed() < Duration::from_secs(8), "it waited after {response:?}");
    }
}

/// A restart ends all requests, so that no response can contain an id any more.
#[test]
fn a_request_that_a_restart_ended_keeps_no_webhook_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("{{ kind: file, path: {}/ledger }}", folder.path().display());
    let World { callgate, agent, .. } = {
        let world = World::with("refuse", &store, Agent::start(ANSWER));
        let (_, mut provider) = world.ask();
        provider.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").unwrap();
        world
    };
    drop(callgate);
    let world = World::with("refuse", &store, agent);
    let sent = instant();
    assert_eq!(world.webhook("evt_1", "response.completed", "resp_1").status, 410);
    assert!(sent.elapsed() < Duration::from_secs(8));
}

#[test]
fn silence_is_reported_at_the_deadline() {
    let world = World::new("deliver");
    let interaction = world.started("resp_1");
    world.now.store(START + 61 * 60_000, Ordering::SeqCst);
    let notice = eventually(|| world.agent.received().pop());
    assert_eq!((notice.target(), notice.header("callgate-interaction")), ("/overdue", vec![&*interaction]));
    assert_eq!(world.state(&interaction)["state"], "expired");
}

#[test]
fn a_restart_with_a_file_keeps_what_belongs_together() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("{{ kind: file, path: {}/ledger }}", folder.path().display());
    let World { callgate, agent, .. } = {
        let world = World::with("refuse", &store, Agent::start(ANSWER));
        world.started("resp_1");
        world
    };
    drop(callgate);
    let world = World::with("refuse", &store, agent);
    assert_eq!(world.webhook("evt_1", "response.completed", "resp_1").status, 200);
    assert_eq!(world.agent.received()[0].header("callgate-interaction").len(), 1);
}

#[test]
fn the_callbacks_api_mints_nothing_for_such_a_route() {
    let world = World::new("deliver");
    let response = world.callgate.admin_send("POST", "/callbacks", r#"{"route":"responses"}"#);
    assert_eq!(response.status, 400, "{}", response.text());
}

/// With `when`, only requests that the provider calls back become interactions. All others are sent unchanged.
#[test]
fn requests_that_are_not_called_back_are_not_recorded() {
    const TAKEN: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{\"id\":\"resp_1\"}";
    let (provider, agent) = (Agent::start(TAKEN), Agent::start(ANSWER));
    let text =
        config(&provider.address.to_string(), &agent.address.to_string(), "deliver", "{ kind: memory }")
            .replace(
                "response: /id }",
                "response: /id, when: { body: { /background: true, /store: [true, later] } } }",
            )
            .replace("path: /v1/responses,", "path: /v1/responses, methods: [GET, POST],");
    let callgate = Callgate::start(&text, Clock::Set(Arc::new(AtomicI64::new(START))));
    let json = [("content-type", "application/json")];
    let mut count = 0;
    for (headers, body, is_recorded) in [
        (&json[..], r#"{"background":true,"store":true}"#, true),
        (&json, r#"{"background":true,"store":"later"}"#, true),
        (&json, r#"{"background":true, "background":false,"store":true}"#, true),
        (&json, r#"{"background":false,"store":true}"#, false),
        (&json, r#"{"background":true,"store":null}"#, false),
        (&json, r#"{"store":true}"#, false),
        (&json, r#"["background"]"#, false),
        (&json, r#"{"background":true,"#, false),
        (&[("content-type", "text/plain")], r#"{"background":true,"store":true}"#, false),
    ] {
        let response = send_to(callgate.egress.unwrap(), "POST", "/v1/responses", headers, body.as_bytes());
        assert_eq!(response.status, 200, "{body}: {response:?}");
        assert_eq!(response.header("callgate-interaction").is_some(), is_recorded, "{body}");
        count += 1;
        assert_eq!(provider.wait_for(count).last().unwrap().body, body.as_bytes());
    }
    let response = send_to(callgate.egress.unwrap(), "GET", "/v1/responses", &[], b"");
    assert_eq!((response.status, response.header("callgate-interaction")), (200, None));
    let recorded = callgate.admin_get("/callbacks").json();
    assert_eq!(recorded["interactions"].as_array().unwrap().len(), 3, "{recorded}");
}
