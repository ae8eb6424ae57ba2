//! Account-wide webhooks with two real processes that share a ledger on Redis: one sends the request, the other one
//! receives the webhook.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use callgate::clock::Clock;
use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::engine::{ENGINES, Engine, free_port};
use crate::environment::env;
use crate::harness::{ANSWER, Agent, PATIENCE, Response, eventually, read_request, send_to};
use crate::process::Process;

/// A process with its agent.
struct Running {
    process: Process,
    egress: SocketAddr,
    agent: Agent,
}

impl Running {
    fn start(store: &str, provider: SocketAddr) -> Self {
        let agent = Agent::start(ANSWER);
        let egress = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = format!(
            "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: \"{egress}\" }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
shutdown: {{ delay: 0s, grace: 1s }}
{store}
providers: {{ openai: {{ preset: openai, secrets: [ {{ env: WHSEC }} ] }} }}
routes:
  - name: responses
    path: /hooks
    provider: openai
    forward: /in
    interaction: {{ match: {{ provider_id: /data/id }}, unmatched: refuse, status: /type, done: [response.completed], deadline: 1h, notify: /overdue }}
egress:
  - {{ name: responses, path: /v1/responses, target: \"http://{provider}/v1/responses\", inject: {{ route: responses, response: /id }} }}
",
            agent.address
        );
        let secret = env("WHSEC").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start_with(folder, &config, &[("WHSEC", &secret)]);
        Self { process, egress, agent }
    }

    /// Sends a request of the agent. Returns the connections of the agent and of the provider.
    fn ask(&self, provider: &TcpListener) -> (TcpStream, TcpStream) {
        let mut agent = TcpStream::connect(self.egress).unwrap();
        agent.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(agent, "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{{}}")
            .unwrap();
        let (mut provider, _) = provider.accept().unwrap();
        read_request(&mut provider, &mut Vec::new()).unwrap();
        (agent, provider)
    }

    fn webhook(&self, event: &str, kind: &str, id: &str) -> Response {
        webhook(self.process.ingress[0], event, kind, id)
    }

    fn view(&self, interaction: &str) -> Value {
        send_to(self.process.admin, "GET", &format!("/callbacks/{interaction}"), &[], b"").json()
    }

    /// Returns how often the process has looked for a provider's id.
    fn looks(&self) -> u64 {
        let metrics = send_to(self.process.admin, "GET", "/metrics", &[], b"").text();
        let line = "callgate_store_call_seconds_count{call=\"find\"} ";
        metrics.lines().find_map(|text| text.strip_prefix(line)).map_or(0, |count| count.parse().unwrap())
    }
}

/// Answers a request of the agent with an id. Returns the interaction.
fn answer((mut agent, mut provider): (TcpStream, TcpStream), id: &str) -> String {
    let body = format!("{{\"id\":\"{id}\"}}");
    let length = body.len();
    write!(
        provider,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    Response::read(&mut agent).header("callgate-interaction").unwrap().to_owned()
}

fn webhook(ingress: SocketAddr, event: &str, kind: &str, id: &str) -> Response {
    let body = json!({ "id": event, "type": kind, "data": { "id": id } }).to_string();
    let now = Clock::System.now().unix_secs().to_string();
    let secret = env("WHSEC").unwrap();
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{event}.{now}.{body}").as_bytes());
    let signature = format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()));
    let headers = [
        ("webhook-id", event),
        ("webhook-timestamp", &*now),
        ("webhook-signature", &*signature),
        ("content-type", "application/json"),
    ];
    send_to(ingress, "POST", "/hooks", &headers, body.as_bytes())
}

#[test]
fn a_webhook_finds_the_interaction_of_another_process() {
    for name in ENGINES {
        let engine = Engine::start(name, &[]);
        let provider = TcpListener::bind("127.0.0.1:0").unwrap();
        let start = || Running::start(&engine.store(""), provider.local_addr().unwrap());
        let (one, other) = (start(), start());
        assert_eq!(other.webhook("evt_0", "response.in_progress", "unknown").status, 410);
        // The webhook arrives before the process that asked has read the id.
        let asked = one.ask(&provider);
        let looks = other.looks();
        let ingress = other.process.ingress[0];
        let early = std::thread::spawn(move || webhook(ingress, "evt_1", "response.in_progress", "resp_1"));
        eventually(|| (other.looks() >= looks + 2).then_some(()));
        let interaction = answer(asked, "resp_1");
        assert_eq!(early.join().unwrap().status, 200);
        let received = other.agent.wait_for(1);
        assert_eq!(received[0].header("callgate-interaction"), [&*interaction]);
        // Each process knows it afterwards, and the events of the other one.
        assert_eq!(one.webhook("evt_1", "response.in_progress", "resp_1").status, 200);
        assert!(one.agent.received().is_empty(), "a duplicate");
        assert_eq!(one.webhook("evt_2", "response.completed", "resp_1").status, 200);
        assert_eq!(one.agent.wait_for(1)[0].header("callgate-interaction"), [&*interaction]);
        assert_eq!(other.view(&interaction)["state"], "done");
        assert_eq!(other.webhook("evt_3", "response.in_progress", "resp_1").status, 410);
    }
}

#[test]
fn a_webhook_finds_the_interaction_of_a_process_that_was_killed() {
    let engine = Engine::start("redis-server", &[]);
    let provider = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = || Running::start(&engine.store(""), provider.local_addr().unwrap());
    let (one, other) = (start(), start());
    let interaction = answer(one.ask(&provider), "resp_1");
    eventually(|| (other.view(&interaction)["provider_id"] == "resp_1").then_some(()));
    one.process.signal("KILL");
    assert_eq!(other.webhook("evt_1", "response.completed", "resp_1").status, 200);
    assert_eq!(other.agent.wait_for(1)[0].header("callgate-interaction"), [&*interaction]);
    assert_eq!(other.view(&interaction)["state"], "done");
}

/// While Redis does not answer, nobody knows whether a webhook has an interaction. A final denial would make the provider
/// give up.
#[test]
fn a_webhook_is_not_denied_because_the_engine_is_slow() {
    let engine = Engine::start("redis-server", &[]);
    let provider = TcpListener::bind("127.0.0.1:0").unwrap();
    let running = Running::start(&engine.store(", timeout: 6s"), provider.local_addr().unwrap());
    let interaction = answer(running.ask(&provider), "resp_1");
    engine.signal("STOP");
    assert_eq!(running.webhook("evt_1", "response.completed", "resp_1").status, 503);
    engine.signal("CONT");
    eventually(|| (running.webhook("evt_1", "response.completed", "resp_1").status == 200).then_some(()));
    assert_eq!(running.view(&interaction)["state"], "done");
}
