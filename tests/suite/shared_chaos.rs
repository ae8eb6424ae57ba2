//! Three processes that share a ledger behind sentinels, while members and the engine are killed and suspended at random. Each
//! call is recorded with its start, its end and its answer. A checker reads the history afterwards.
//!
//! The primary has two replicas, and both confirm each change: sentinels may promote either of them.
//!
//! `CALLGATE_PRIMARY_KILLS` and `CALLGATE_CHAOS_SEED` select a longer run and another history (`make chaos`).

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use callgate::clock::instant;
use serde_json::Value;

use crate::chaos::{Member, Random, SECRET, number, signature, try_send};
use crate::engine::{Engine, free_port};
use crate::harness::{eventually, read_request};
use crate::shared_failover::fact;

const MEMBERS: usize = 3;
const CLIENTS: usize = 4;
/// How long a sender tries after the end of the trouble.
const LAST_ATTEMPTS: Duration = Duration::from_secs(40);
/// The time after an answer of an agent in which the answer to the provider is sent.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// A call with its start, its end and its answer. `None` if there was no answer.
#[derive(Clone, Debug)]
struct Call {
    began: Instant,
    ended: Instant,
    interaction: String,
    what: What,
    status: Option<u16>,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Mint {
        uses: Option<u64>,
        is_silent: bool,
    },
    Event(String),
    Revoke,
    /// A request to an agent.
    Delivery(String),
    /// A notice to an agent.
    Notice,
}

#[derive(Default)]
struct History(Mutex<Vec<Call>>);

impl History {
    fn add(&self, began: Instant, interaction: &str, what: What, status: Option<u16>) {
        let call = Call { began, ended: instant(), interaction: interaction.to_owned(), what, status };
        self.0.lock().unwrap().push(call);
    }
}

/// An agent whose answers are recorded.
fn agent(history: Arc<History>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let history = Arc::clone(&history);
            std::thread::spawn(move || {
                let (mut stream, mut bytes) = (stream, Vec::new());
                while let Some(request) = read_request(&mut stream, &mut bytes) {
                    let began = instant();
                    let first = |name: &str| request.header(name).first().map(|value| (*value).to_owned());
                    let text = String::from_utf8_lossy(&request.body).into_owned();
                    let what = match first("callgate-notice") {
                        Some(_) => What::Notice,
                        None => What::Delivery(text),
                    };
                    history.add(began, &first("callgate-interaction").unwrap(), what, Some(200));
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

// === The processes ===

struct Installation {
    members: Vec<Member>,
    nodes: Mutex<Vec<Engine>>,
    sentinels: Vec<Engine>,
    history: Arc<History>,
    is_over: AtomicBool,
    _folder: tempfile::TempDir,
}

/// Returns how much of the replication stream a node has.
fn offset(node: &Engine, name: &str) -> u64 {
    fact(node, name).parse().unwrap_or_default()
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

impl Installation {
    fn start(program: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let primary = Engine::start(program, &["--repl-diskless-sync-delay", "0"]);
        let port = primary.address.port().to_string();
        let settings = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let nodes = vec![primary, Engine::start(program, &settings), Engine::start(program, &settings)];
        eventually(|| (fact(&nodes[0], "connected_slaves") == "2").then_some(()));
        let sentinel = |number: usize| {
            let file = folder.path().join(format!("sentinel{number}.conf"));
            let text = format!(
                "sentinel monitor cg 127.0.0.1 {port} 2\nsentinel down-after-milliseconds cg 1000\nsentinel failover-timeout cg 3000\n"
            );
            fs::write(&file, text).unwrap();
            Engine::start_sentinel(&file)
        };
        let sentinels: Vec<_> = (0..3).map(sentinel).collect();
        let names: Vec<_> = sentinels.iter().map(|node| format!("\"{}\"", node.address)).collect();
        let history = Arc::<History>::default();
        let members = (0..MEMBERS).map(|number| {
            let (ingress, admin) = (address(), address());
            let config = folder.path().join(format!("member{number}.yaml"));
            let text = format!(
                "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: \"{ingress}\" }} ], admin: {{ address: \"{admin}\" }} }}
agent: {{ address: \"{}\", timeouts: {{ connect: 1s, response: 2s }} }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
shutdown: {{ delay: 0s, grace: 5s }}
store: {{ kind: redis, unknown: refuse, redis: {{ mode: sentinel, master: cg, nodes: [{}], wait: {{ replicas: 2 }} }} }}
providers:
  p: {{ signature: {{ scheme: hmac, algorithm: sha256, header: x-sig, content: \"{{body}}\", encoding: hex, id: {{ body: /event }}, secrets: [ {{ env: SECRET }} ] }} }}
routes:
  - {{ name: doc, path: \"/doc/{{id}}\", provider: p, token: {{ kind: callback }}, forward: \"/in/{{id}}\", interaction: {{ deadline: 1h }} }}
  - {{ name: quiet, path: \"/quiet/{{id}}\", token: {{ kind: callback }}, forward: \"/in/{{id}}\", interaction: {{ deadline: 2s, notify: /overdue }} }}
",
                agent(Arc::clone(&history)),
                names.join(", ")
            );
            fs::write(&config, text).unwrap();
            Member::new(ingress, admin, config)
        });
        let members: Vec<_> = members.collect();
        members.iter().for_each(Member::start);
        let (nodes, is_over) = (Mutex::new(nodes), AtomicBool::new(false));
        let installation = Self { members, nodes, sentinels, history, is_over, _folder: folder };
        installation.ready_for_a_kill();
        installation
    }

    /// Returns the port of the primary that the sentinels know.
    fn primary(&self) -> Option<u16> {
        let text = self.sentinels[0].command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "cg"]);
        text.lines().nth(4)?.parse().ok()
    }

    /// Waits until all sentinels know one primary, and both replicas have everything.
    fn ready_for_a_kill(&self) -> usize {
        eventually(|| {
            let port = self.primary()?;
            let knows = |sentinel: &Engine| {
                let text = sentinel.command(&["SENTINEL", "MASTER", "cg"]);
                let value = |name: &str| {
                    let mut lines = text.lines().skip_while(|line| *line != name);
                    lines.nth(2).unwrap_or_default().to_owned()
                };
                value("port") == port.to_string()
                    && value("num-other-sentinels") == "2"
                    && value("flags") == "master"
            };
            let nodes = self.nodes.lock().unwrap();
            let place = nodes.iter().position(|node| node.address.port() == port)?;
            let is_synchronous = |(number, node): (usize, &Engine)| {
                number == place
                    || (fact(node, "role") == "slave"
                        && fact(node, "master_port") == port.to_string()
                        && fact(node, "master_link_status") == "up"
                        && fact(node, "master_sync_in_progress") == "0"
                        && offset(node, "slave_repl_offset") >= offset(&nodes[place], "master_repl_offset"))
            };
            let is_ready = self.sentinels.iter().all(knows) && nodes.iter().enumerate().all(is_synchronous);
            is_ready.then_some(place)
        })
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn member(&self, random: &mut Random) -> &Member {
        &self.members[random.below(MEMBERS as u64) as usize]
    }

    fn mint(&self, random: &mut Random, is_silent: bool) -> Option<(String, String)> {
        let uses = (!is_silent && random.below(3) == 0).then(|| 1 + random.below(2));
        let limit = uses.map_or(String::new(), |uses| format!(r#","uses":{uses}"#));
        let route = if is_silent { "quiet" } else { "doc" };
        let wanted = format!(r#"{{"route":"{route}","params":{{"id":"a"}}{limit}}}"#);
        let began = instant();
        let (status, body) = try_send(self.member(random).admin, "POST", "/callbacks", "", &wanted)?;
        let value: Value = serde_json::from_str(&body).ok().filter(|_| status == 201)?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let (id, token) = (text("interaction")?, text("callback_token")?);
        self.history.add(began, &id, What::Mint { uses, is_silent }, Some(status));
        Some((id, token))
    }

    /// Sends an event until it is accepted or denied finally, as providers do.
    fn send_event(&self, random: &mut Random, id: &str, token: &str, event: &str) {
        let signature = signature(SECRET, event);
        let headers = format!("authorization: Bearer {token}\r\nx-sig: {signature}\r\n");
        let mut give_up = None;
        loop {
            let began = instant();
            let answered = try_send(self.member(random).ingress, "POST", "/doc/a", &headers, event);
            let status = answered.map(|(status, _)| status);
            self.history.add(began, id, What::Event(event.to_owned()), status);
            if status.is_some_and(|status| status < 300 || (400..500).contains(&status)) {
                return;
            }
            if self.is_over() && instant() >= *give_up.get_or_insert_with(|| instant() + LAST_ATTEMPTS) {
                return;
            }
            sleep(random.millis(50, 300));
        }
    }

    fn client(&self, number: usize, seed: u64) {
        let mut random = Random(seed ^ ((number as u64 + 1) << 40));
        for round in 0.. {
            if self.is_over() {
                return;
            }
            if random.below(4) == 0 {
                self.mint(&mut random, true);
            }
            let Some((id, token)) = self.mint(&mut random, false) else {
                sleep(Duration::from_millis(100));
                continue;
            };
            for event in 0..1 + random.below(3) {
                let event = format!(r#"{{"event":"{number}-{round}-{event}"}}"#);
                self.send_event(&mut random, &id, &token, &event);
                if random.below(4) == 0 {
                    self.send_event(&mut random, &id, &token, &event);
                }
            }
            if random.below(4) == 0 {
                let began = instant();
                let path = format!("/callbacks/{id}");
                let answered = try_send(self.member(&mut random).admin, "DELETE", &path, "", "");
                let status = answered.map(|(status, _)| status);
                self.history.add(began, &id, What::Revoke, status);
                if status == Some(204) {
                    self.send_event(&mut random, &id, &token, r#"{"event":"late"}"#);
                }
            }
        }
    }

    /// Kills or suspends a member or a node of the engine, and repairs it.
    fn trouble(&self, random: &mut Random) {
        let member = self.member(random);
        match random.below(4) {
            0 => {
                member.kill();
                sleep(random.millis(0, 1000));
                member.start();
            }
            1 => {
                member.signal("STOP");
                sleep(random.millis(100, 3000));
                member.signal("CONT");
            }
            _ => {
                let place = random.below(3) as usize;
                let nodes = self.nodes.lock().unwrap();
                nodes[place].signal("STOP");
                sleep(random.millis(100, 900));
                nodes[place].signal("CONT");
            }
        }
    }

    /// Kills the primary once its replicas have everything, and starts it again when another one was elected.
    fn kill_primary(&self) {
        let place = self.ready_for_a_kill();
        self.nodes.lock().unwrap()[place].kill();
        let port = self.nodes.lock().unwrap()[place].address.port();
        eventually(|| self.primary().filter(|primary| *primary != port));
        self.nodes.lock().unwrap()[place].start_again();
    }
}

// === The checker ===

/// Returns what must not have happened, and the number of acknowledged events.
fn faults(installation: &Installation) -> (Vec<String>, usize) {
    let calls = installation.history.0.lock().unwrap().clone();
    let mut by_interaction: HashMap<&str, Vec<&Call>> = HashMap::new();
    for call in &calls {
        by_interaction.entry(&call.interaction).or_default().push(call);
    }
    let (mut faults, mut acknowledged_events) = (Vec::new(), 0);
    for (id, calls) in by_interaction {
        let Some(What::Mint { uses, is_silent }) =
            calls.iter().map(|call| &call.what).find(|what| matches!(what, What::Mint { .. }))
        else {
            continue;
        };
        let mut fault = |what: String| faults.push(format!("{id}: {what}: {calls:#?}"));
        let mut acknowledged: HashMap<&str, Instant> = HashMap::new();
        for call in &calls {
            if let (What::Event(event), Some(200)) = (&call.what, call.status) {
                let at = acknowledged.entry(event).or_insert(call.ended);
                *at = call.ended.min(*at);
            }
        }
        acknowledged_events += acknowledged.len();
        for (event, at) in &acknowledged {
            let deliveries = || calls.iter().filter(|call| call.what == What::Delivery((*event).to_owned()));
            if deliveries().next().is_none() {
                fault(format!("{event} was acknowledged, and not delivered"));
            }
            if deliveries().any(|delivery| delivery.began > *at) {
                fault(format!("{event} was delivered after it was acknowledged"));
            }
        }
        if uses.is_some_and(|uses| acknowledged.len() as u64 > uses) {
            fault("more uses than allowed".to_owned());
        }
        let revoked = calls.iter().find(|call| call.what == What::Revoke && call.status == Some(204));
        let is_late = |call: &&Call| {
            let is_delivery = matches!(call.what, What::Delivery(_));
            is_delivery && revoked.is_some_and(|revoked| call.began > revoked.ended + UNDER_WAY)
        };
        if calls.iter().any(is_late) {
            fault("it was revoked, and then delivered".to_owned());
        }
        if *is_silent && !calls.iter().any(|call| call.what == What::Notice) {
            fault("its deadline was not reported".to_owned());
        }
        let path = format!("/callbacks/{id}");
        let view = eventually(|| {
            let (status, body) = try_send(installation.members[0].admin, "GET", &path, "", "")?;
            (status != 503).then_some((status, body))
        });
        let view: Value = serde_json::from_str(&view.1).unwrap();
        let state = view["state"].as_str().unwrap_or("missing").to_owned();
        if view["deliveries"].as_u64().unwrap_or_default() < acknowledged.len() as u64 {
            fault(format!("acknowledged events are missing: {view}"));
        }
        if state == "missing" || (revoked.is_some() && state != "revoked") {
            fault(format!("its state is {state}"));
        }
    }
    (faults, acknowledged_events)
}

fn run(program: &str, kills: u64, seed: u64) {
    let installation = Arc::new(Installation::start(program));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let installation = Arc::clone(&installation);
            std::thread::spawn(move || installation.client(number, seed))
        })
        .collect();
    let mut random = Random(seed);
    for _ in 0..kills {
        for _ in 0..2 {
            installation.trouble(&mut random);
            sleep(random.millis(100, 500));
        }
        installation.kill_primary();
    }
    installation.ready_for_a_kill();
    installation.is_over.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let unreported = || {
        let calls = installation.history.0.lock().unwrap();
        let silent = calls.iter().filter(|call| matches!(call.what, What::Mint { is_silent: true, .. }));
        let is_reported =
            |id: &str| calls.iter().any(|call| call.what == What::Notice && call.interaction == id);
        silent.filter(|call| !is_reported(&call.interaction)).count()
    };
    // A notice whose sender was killed has a lease of two minutes.
    let began = instant();
    while unreported() > 0 && began.elapsed() < Duration::from_secs(160) {
        sleep(Duration::from_millis(100));
    }
    let (faults, acknowledged) = faults(&installation);
    let calls = installation.history.0.lock().unwrap().len();
    let mut said = std::io::stderr();
    writeln!(
        said,
        "{program}, seed {seed}: {kills} kills of the primary, {calls} calls, {acknowledged} acknowledged events, {} faults",
        faults.len()
    )
    .unwrap();
    assert!(faults.is_empty(), "seed {seed}: {}", faults.join("\n"));
}

#[test]
fn chaos_of_members_and_primaries_of_redis_loses_nothing() {
    run("redis-server", number("CALLGATE_PRIMARY_KILLS", 1), number("CALLGATE_CHAOS_SEED", 3));
}

#[test]
fn chaos_of_members_and_primaries_of_valkey_loses_nothing() {
    run("valkey-server", number("CALLGATE_PRIMARY_KILLS", 1), number("CALLGATE_CHAOS_SEED", 4));
}
