//! `kill -9` at any time: acknowledged data exists after the restart, and no acknowledged event is delivered again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::{ANSWER, Agent, PATIENCE};

/// Number of kills. `CALLGATE_CRASHES` sets another number.
const CRASHES: usize = 6;
const CLIENTS: usize = 8;

struct Running {
    child: Child,
    ingress: SocketAddr,
    admin: SocketAddr,
}

impl Running {
    fn start(config: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
        command.args(["run", "-c"]).arg(config);
        Self::spawn(&mut command)
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .env("TOKEN_KEY", "0123456789abcdef0123456789abcdef")
            .env("SECRET", "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut address = |what: &str| -> SocketAddr {
            let line = lines.find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what}"));
            let rest = line.split(what).nth(1).unwrap();
            rest.split(": ").next().unwrap().trim().parse().unwrap()
        };
        let (ingress, admin) = (address("ingress on "), address("admin on "));
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, ingress, admin }
    }
}

/// Sends a request. Returns `None` if the connection fails, because the process may be killed before it responds.
fn try_send(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}

#[derive(Clone)]
struct Known {
    id: String,
    token: String,
}

/// Everything that was acknowledged with a response.
#[derive(Default)]
struct Acknowledged {
    minted: Vec<Known>,
    /// The interaction of each event.
    events: HashMap<String, Known>,
    revoked: Vec<String>,
}

struct Load<'l> {
    running: &'l Running,
    acknowledged: &'l Mutex<Acknowledged>,
    operations: &'l AtomicUsize,
    round: usize,
}

impl Load<'_> {
    /// Mints, calls back and revokes until the process no longer responds.
    fn run(&self, client: usize) {
        for i in 0.. {
            let Some(known) = self.mint() else { return };
            for n in 0..3 {
                let event = format!("msg-{}-{client}-{i}-{n}", self.round);
                match call(self.running.ingress, &known, &event) {
                    Some(200) => drop(self.acknowledged.lock().unwrap().events.insert(event, known.clone())),
                    Some(status) => panic!("{status}"),
                    None => return,
                }
                self.operations.fetch_add(1, Ordering::SeqCst);
            }
            if i % 3 == 0 {
                match try_send(self.running.admin, "DELETE", &format!("/callbacks/{}", known.id), "", "") {
                    Some((204, _)) => self.acknowledged.lock().unwrap().revoked.push(known.id),
                    Some((status, body)) => panic!("{status} {body}"),
                    None => return,
                }
            }
        }
    }

    fn mint(&self) -> Option<Known> {
        let wanted = r#"{"route":"doc","params":{"id":"a"}}"#;
        let (status, body) = try_send(self.running.admin, "POST", "/callbacks", "", wanted)?;
        assert_eq!(status, 201, "{body}");
        let value: Value = serde_json::from_str(&body).ok()?;
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        let known = Known { id: text("interaction"), token: text("callback_token") };
        self.acknowledged.lock().unwrap().minted.push(known.clone());
        self.operations.fetch_add(1, Ordering::SeqCst);
        Some(known)
    }
}

fn call(ingress: SocketAddr, known: &Known, event: &str) -> Option<u16> {
    let body = format!(r#"{{"event":{{"id":"{event}"}}}}"#);
    let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::Mac>::new_from_slice(
        b"whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
    )
    .unwrap();
    hmac::Mac::update(&mut mac, body.as_bytes());
    let signature = data_encoding::HEXLOWER.encode(&hmac::Mac::finalize(mac).into_bytes());
    let headers = format!("authorization: Bearer {}\r\nx-sig: {signature}\r\n", known.token);
    try_send(ingress, "POST", "/doc/a", &headers, &body).map(|(status, _)| status)
}

fn deliveries(agent: &Agent) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for received in agent.received() {
        *counts.entry(received.header("callgate-event-id")[0].to_owned()).or_default() += 1;
    }
    counts
}

fn config(folder: &Path, agent: &Agent) -> PathBuf {
    let path = folder.join("callgate.yaml");
    std::fs::write(
        &path,
        format!(
            "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
store: {{ kind: file, path: {}/ledger }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
providers:
  p: {{ signature: {{ scheme: hmac, algorithm: sha256, header: x-sig, content: \"{{body}}\", encoding: hex, id: {{ body: /event/id }}, secrets: [ {{ env: SECRET }} ] }} }}
routes:
  - {{ name: doc, path: \"/doc/{{id}}\", provider: p, token: {{ kind: callback }}, forward: \"/in/{{id}}\" }}
",
            agent.address,
            folder.display()
        ),
    )
    .unwrap();
    path
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_acknowledged_comes_twice() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(ANSWER);
    let path = config(folder.path(), &agent);
    #[allow(clippy::disallowed_methods, reason = "how long a test is to go on is not the product's business")]
    let crashes = std::env::var("CALLGATE_CRASHES").ok().and_then(|n| n.parse().ok()).unwrap_or(CRASHES);
    let acknowledged = Mutex::new(Acknowledged::default());
    for round in 0..crashes {
        let mut running = Running::start(&path);
        verify(&running, &acknowledged.lock().unwrap(), &agent);
        let operations = AtomicUsize::new(0);
        // The time of the kill depends on the number of acknowledgements, not on a clock.
        let enough = 40 + 61 * (round * 7 % 11);
        let load = Load { running: &running, acknowledged: &acknowledged, operations: &operations, round };
        std::thread::scope(|scope| {
            let load = &load;
            let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || load.run(client))).collect();
            while operations.load(Ordering::SeqCst) < enough
                && clients.iter().any(|client| !client.is_finished())
            {
                std::thread::yield_now();
            }
            let pid = running.child.id().to_string();
            assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        });
        running.child.wait().unwrap();
        assert!(operations.load(Ordering::SeqCst) >= enough);
    }
    let mut running = Running::start(&path);
    verify(&running, &acknowledged.lock().unwrap(), &agent);
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    assert!(acknowledged.lock().unwrap().revoked.len() > crashes);
}

/// Every acknowledged interaction exists. Every acknowledged event that is sent again is recognized as a duplicate.
fn verify(running: &Running, acknowledged: &Acknowledged, agent: &Agent) {
    for known in &acknowledged.minted {
        let (status, body) =
            try_send(running.admin, "GET", &format!("/callbacks/{}", known.id), "", "").unwrap();
        assert_eq!(status, 200, "{} is lost", known.id);
        let value: Value = serde_json::from_str(&body).unwrap();
        assert!(!acknowledged.revoked.contains(&known.id) || value["state"] == "revoked", "{body}");
    }
    let before = deliveries(agent);
    for (event, known) in &acknowledged.events {
        assert_eq!(call(running.ingress, known, event), Some(200), "{event}");
    }
    let after = deliveries(agent);
    for event in acknowledged.events.keys() {
        assert_eq!(before.get(event), after.get(event), "{event} was delivered again");
    }
}

#[test]
fn a_disk_that_is_full_is_said_and_nothing_is_acknowledged_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(ANSWER);
    let path = config(folder.path(), &agent);
    // Files of this process may not exceed 3 MiB. The initial ledger file has half of that size.
    let script = "trap '' XFSZ; ulimit -f 3072; exec \"$0\" run -c \"$1\"";
    let mut command = Command::new("bash");
    let mut running = Running::spawn(command.args(["-c", script, env!("CARGO_BIN_EXE_callgate")]).arg(&path));
    let wanted = r#"{"route":"doc","params":{"id":"a"}}"#;
    let mut minted = Vec::new();
    let refused = loop {
        let (status, body) = try_send(running.admin, "POST", "/callbacks", "", wanted).unwrap();
        let value: Value = serde_json::from_str(&body).unwrap();
        if status != 201 {
            break (status, value["reason"].clone());
        }
        minted.push(value);
        assert!(minted.len() < 50_000, "the disk is never full");
    };
    assert_eq!(refused, (503, Value::from("store_unavailable")));
    let text = |name: &str| minted[0][name].as_str().unwrap().to_owned();
    let known = Known { id: text("interaction"), token: text("callback_token") };
    assert_eq!(call(running.ingress, &known, "msg-1"), Some(503));
    assert!(agent.received().is_empty());
    assert_eq!(try_send(running.admin, "GET", "/readyz", "", "").unwrap().0, 503);
    let (_, page) = try_send(running.admin, "GET", "/metrics", "", "").unwrap();
    assert!(page.contains("callgate_store_failed 1"));
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    // When there is space again, all acknowledged data exists.
    let mut running = Running::start(&path);
    for value in &minted {
        let id = value["interaction"].as_str().unwrap();
        assert_eq!(
            try_send(running.admin, "GET", &format!("/callbacks/{id}"), "", "").unwrap().0,
            200,
            "{id}"
        );
    }
    assert_eq!(call(running.ingress, &known, "msg-1"), Some(200));
    running.child.kill().unwrap();
    running.child.wait().unwrap();
}
