//! `kill -9` at any time: acknowledged data exists after the restart, and no acknowledged event is delivered again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::harness::{ANSWER, Agent, PATIENCE};

/// How often it is killed, unless `CALLGATE_CALLBACKS` says how many callbacks are to be acknowledged.
const CRASHES: usize = 6;
const CLIENTS: usize = 8;

pub struct Running {
    pub child: Child,
    pub ingress: SocketAddr,
    pub admin: SocketAddr,
    /// What it has said since it was ready.
    pub said: Arc<Mutex<String>>,
}

impl Running {
    pub fn start(config: &Path) -> Self {
        Self::start_with(config, &[])
    }

    /// Starts it with more environment.
    pub fn start_with(config: &Path, environment: &[(&str, &Path)]) -> Self {
        let mut command = Command::new(crate::process::binary());
        command.args(["run", "-c"]).arg(config).envs(environment.iter().copied());
        Self::spawn(&mut command)
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
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
        let said = Arc::<Mutex<String>>::default();
        let hears = Arc::clone(&said);
        std::thread::spawn(move || lines.for_each(|line| hears.lock().unwrap().push_str(&(line + "\n"))));
        Self { child, ingress, admin, said }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer, unless the other side is gone: the last one of a process that is killed may never come.
pub fn try_send(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> Option<(u16, String)> {
    let (head, body) = try_send_in_full(address, method, target, headers, body)?;
    Some((head.get(9..12)?.parse().ok()?, body))
}

/// The same, with the head of the answer.
pub fn try_send_in_full(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> Option<(String, String)> {
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
    Some((head.to_ascii_lowercase(), body.to_owned()))
}

#[derive(Clone)]
pub struct EventState {
    pub id: String,
    pub token: String,
}

/// Everything that was acknowledged with a response.
#[derive(Default)]
pub struct Acknowledged {
    pub minted: Vec<EventState>,
    /// Event -> the interaction it belongs to.
    pub events: HashMap<String, EventState>,
    pub revoked: Vec<String>,
}

pub struct Load<'l> {
    pub running: &'l Running,
    pub acknowledged: &'l Mutex<Acknowledged>,
    pub operations: &'l AtomicUsize,
    pub round: usize,
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

    pub fn mint(&self) -> Option<EventState> {
        let wanted = r#"{"route":"doc","params":{"id":"a"}}"#;
        let (status, body) = try_send(self.running.admin, "POST", "/callbacks", "", wanted)?;
        assert_eq!(status, 201, "{body}");
        let value: Value = serde_json::from_str(&body).ok()?;
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        let known = EventState { id: text("interaction"), token: text("callback_token") };
        self.acknowledged.lock().unwrap().minted.push(known.clone());
        self.operations.fetch_add(1, Ordering::SeqCst);
        Some(known)
    }
}

pub fn call(ingress: SocketAddr, known: &EventState, event: &str) -> Option<u16> {
    let (head, _) = call_in_full(ingress, known, event)?;
    head.get(9..12)?.parse().ok()
}

/// The same, with head and body of the answer.
pub fn call_in_full(ingress: SocketAddr, known: &EventState, event: &str) -> Option<(String, String)> {
    let body = format!(r#"{{"event":{{"id":"{event}"}}}}"#);
    let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::Mac>::new_from_slice(
        b"whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
    )
    .unwrap();
    hmac::Mac::update(&mut mac, body.as_bytes());
    let signature = data_encoding::HEXLOWER.encode(&hmac::Mac::finalize(mac).into_bytes());
    let headers = format!("authorization: Bearer {}\r\nx-sig: {signature}\r\n", known.token);
    try_send_in_full(ingress, "POST", "/doc/a", &headers, &body)
}

pub fn deliveries(agent: &Agent) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for received in agent.received() {
        *counts.entry(received.header("callgate-event-id")[0].to_owned()).or_default() += 1;
    }
    counts
}

pub fn config(folder: &Path, agent: &Agent) -> PathBuf {
    let path = folder.join("callgate.yaml");
    std::fs::write(
        &path,
        format!(
            "public_url: https://agent.example.com
explain_denials: true
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
store: {{ kind: file, path: {}/ledger, grace: 1s }}
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

/// How many callbacks are to be acknowledged in all; a loop that looks for the rare asks for more than a test does.
fn callbacks_wanted() -> Option<usize> {
    #[allow(clippy::disallowed_methods, reason = "how long a test is to go on is not the product's business")]
    std::env::var("CALLGATE_CALLBACKS").ok().and_then(|n| n.parse().ok())
}

/// Kills it under load again and again, does to the file what `then` does, and looks after each start whether all that
/// was acknowledged is there.
pub fn kill_again_and_again(environment: &[(&str, &Path)], folder: &Path, mut then: impl FnMut(usize)) {
    let agent = Agent::start(ANSWER);
    let path = config(folder, &agent);
    let acknowledged = Mutex::new(Acknowledged::default());
    let (mut round, mut answered_again) = (0, 0);
    let go_on = |round: usize| match callbacks_wanted() {
        Some(wanted) => acknowledged.lock().unwrap().events.len() < wanted,
        None => round < CRASHES,
    };
    while go_on(round) {
        let mut running = Running::start_with(&path, environment);
        answered_again += verify(&running, &acknowledged.lock().unwrap(), &agent);
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
        then(round);
        round += 1;
    }
    let running = Running::start(&path);
    let acknowledged = acknowledged.into_inner().unwrap();
    answered_again += verify(&running, &acknowledged, &agent);
    running.kill();
    println!(
        "{round} times killed: {} callbacks, {} interactions and {} revocations acknowledged, none lost; \
         {answered_again} repeats answered, none delivered",
        acknowledged.events.len(),
        acknowledged.minted.len(),
        acknowledged.revoked.len()
    );
    assert!(acknowledged.revoked.len() > round);
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_acknowledged_comes_twice() {
    kill_again_and_again(&[], tempfile::tempdir().unwrap().path(), |_| {});
}

/// Everything acknowledged is known; every acknowledged event, sent again, is told apart and not delivered.
/// Returns how many were.
pub fn verify(running: &Running, acknowledged: &Acknowledged, agent: &Agent) -> usize {
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
    acknowledged.events.len()
}

#[test]
fn what_was_acknowledged_before_the_disk_was_full_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(ANSWER);
    let path = config(folder.path(), &agent);
    // Files of this process may not exceed 3 MiB. The initial ledger file has half of that size.
    let script = "trap '' XFSZ; ulimit -f 3072; exec \"$0\" run -c \"$1\"";
    let mut command = Command::new("bash");
    let running = Running::spawn(command.args(["-c", script, env!("CARGO_BIN_EXE_callgate")]).arg(&path));
    let wanted = r#"{"route":"doc","params":{"id":"a"}}"#;
    let mut minted = Vec::new();
    let (mut refused, mut unready) = (0, false);
    // Close to the end it makes room for a few more by putting the file in order.
    while refused < 5 || !unready {
        let (status, body) = try_send(running.admin, "POST", "/callbacks", "", wanted).unwrap();
        let value: Value = serde_json::from_str(&body).unwrap();
        if status == 201 {
            minted.push(value);
        } else {
            assert_eq!((status, value["reason"].as_str()), (503, Some("store_unavailable")));
            refused += 1;
            unready |= try_send(running.admin, "GET", "/readyz", "", "").unwrap().0 == 503;
        }
        assert!(minted.len() < 50_000, "the disk is never full");
    }
    assert_eq!(try_send(running.admin, "GET", "/livez", "", "").unwrap().0, 200);
    running.kill();
    // With room again, everything acknowledged is there.
    let running = Running::start(&path);
    for value in &minted {
        let id = value["interaction"].as_str().unwrap();
        let (status, _) = try_send(running.admin, "GET", &format!("/callbacks/{id}"), "", "").unwrap();
        assert_eq!(status, 200, "{id}");
    }
    let text = |name: &str| minted[0][name].as_str().unwrap().to_owned();
    let known = EventState { id: text("interaction"), token: text("callback_token") };
    assert_eq!(call(running.ingress, &known, "msg-1"), Some(200));
    running.kill();
}
