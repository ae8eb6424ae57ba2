//! Three processes that share a ledger behind sentinels or on a cluster, while members and the engine are killed and suspended
//! at random. Each call is recorded with its start, its end and its answer. A checker reads the history afterwards ([`crate::shared_history`]).
//!
//! Behind sentinels, the primary has two replicas, and both confirm each change: sentinels may promote either of them. A
//! cluster has three primaries with one replica each.
//!
//! `CALLGATE_PRIMARY_KILLS` and `CALLGATE_CHAOS_SEED` select a longer run and another history (`make chaos`).

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use callgate::clock::instant;
use serde_json::Value;

use crate::chaos::{Member, SECRET, number, signature, try_send};
use crate::engine::{Engine, Place};
use crate::harness::{eventually, read_request};
use crate::run_folder::{RunFolder, faults_of};
use crate::shared_failover::{cluster, fact, follows};
use crate::shared_history::{Call, Fault, History, Verdict, What, check, lines, unreported};
use crate::splitmix::Random;

pub const MEMBERS: usize = 3;
/// The replicas of the primary. All of them confirm each change.
pub const REPLICAS: usize = 2;
pub const CLIENTS: usize = 4;
/// The header of requests to the admin listeners.
const ADMIN: &str = "authorization: Bearer 0123456789abcdef0123456789abcdef\r\n";
/// How long a sender tries after the end of the trouble.
const LAST_ATTEMPTS: Duration = Duration::from_secs(40);
/// An agent whose answers are recorded.
fn agent(host: Ipv4Addr, history: Arc<History>) -> SocketAddr {
    let listener = TcpListener::bind((host, 0)).unwrap();
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

pub struct Minted {
    id: String,
    token: String,
}

/// Where an installation runs.
pub struct Places {
    /// Those of the nodes. Each has a sentinel, too.
    pub nodes: [Place; 1 + REPLICAS],
    pub members: [Place; MEMBERS],
    /// The address of the agents.
    pub agents: Ipv4Addr,
}

impl Default for Places {
    fn default() -> Self {
        Self { nodes: Default::default(), members: Default::default(), agents: Ipv4Addr::LOCALHOST }
    }
}

pub struct Installation {
    pub members: Vec<Member>,
    pub nodes: Mutex<Vec<Engine>>,
    sentinels: Vec<Engine>,
    pub history: Arc<History>,
    pub is_over: AtomicBool,
    /// Whether clients also mint interactions without callbacks.
    pub has_silent: bool,
}

/// Returns how much of the replication stream a node has.
fn offset(node: &Engine, name: &str) -> u64 {
    fact(node, name).parse().unwrap_or_default()
}

/// Reports whether a node of a cluster sees that all slots are served.
fn is_whole(node: &Engine) -> bool {
    node.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
}

/// Reports whether a replica has everything that its primary has.
fn is_synchronous(replica: &Engine, primary: &Engine) -> bool {
    follows(replica)
        && fact(replica, "master_sync_in_progress") == "0"
        && offset(replica, "slave_repl_offset") >= offset(primary, "master_repl_offset")
}

/// Returns a member that was not started yet.
fn member(folder: &Path, number: usize, places: &Places, store: &str, history: &Arc<History>) -> Member {
    let place = &places.members[number];
    let (ingress, admin) = (place.free_address(), place.free_address());
    let agent = agent(places.agents, Arc::clone(history));
    let config = folder.join(format!("member{number}.yaml"));
    let text = format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: \"{ingress}\" }} ], admin: {{ address: \"{admin}\", token: {{ env: TOKEN_KEY }} }} }}
agent: {{ address: \"{agent}\", timeouts: {{ connect: 1s, response: 2s }} }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
shutdown: {{ delay: 0s, grace: 5s }}
store: {{ kind: redis, unknown: refuse, grace: 1s, redis: {{ {store} }} }}
providers:
  p: {{ signature: {{ scheme: hmac, algorithm: sha256, header: x-sig, content: \"{{body}}\", encoding: hex, id: {{ body: /event }}, secrets: [ {{ env: SECRET }} ] }} }}
routes:
  - {{ name: doc, path: \"/doc/{{id}}\", provider: p, token: {{ kind: callback }}, forward: \"/in/{{id}}\", interaction: {{ status: /status, done: [done], deadline: 1h }} }}
  - {{ name: quiet, path: \"/quiet/{{id}}\", token: {{ kind: callback }}, forward: \"/in/{{id}}\", interaction: {{ deadline: 2s, notify: /overdue }} }}
",
    );
    fs::write(&config, text).unwrap();
    Member::new(ingress, admin, config, place.clone())
}

impl Installation {
    /// Starts three sentinels, a primary with two replicas, and the members. `wait` is the number of replicas that confirm
    /// a change. All write their logs into the folder.
    pub fn start(program: &str, wait: usize, folder: &Path, places: &Places) -> Self {
        let node = |number: usize, primary: Option<&Engine>| {
            let log = folder.join(format!("node{number}.log"));
            let settings = ["--repl-diskless-sync-delay", "0", "--logfile", log.to_str().unwrap()];
            let port = primary.map(|primary| primary.address.port().to_string());
            let host = places.nodes[0].host.to_string();
            let follow = port.as_ref().map(|port| ["--replicaof", &*host, port]);
            Engine::start_in(
                &places.nodes[number],
                program,
                &[&settings[..], follow.as_ref().map_or(&[], |words| words)].concat(),
            )
        };
        let primary = node(0, None);
        let (host, port) = (primary.address.ip(), primary.address.port());
        let replicas: Vec<_> = (1..=REPLICAS).map(|number| node(number, Some(&primary))).collect();
        let nodes: Vec<_> = std::iter::once(primary).chain(replicas).collect();
        eventually(|| (fact(&nodes[0], "connected_slaves") == REPLICAS.to_string()).then_some(()));
        let sentinel = |number: usize| {
            let file = folder.join(format!("sentinel{number}.conf"));
            let text = format!(
                "sentinel monitor cg {host} {port} 2\nsentinel down-after-milliseconds cg 1000\nsentinel failover-timeout cg 3000\nlogfile {}\n",
                file.with_extension("log").display()
            );
            fs::write(&file, text).unwrap();
            Engine::start_sentinel(&places.nodes[number], &file)
        };
        let sentinels: Vec<_> = (0..3).map(sentinel).collect();
        let names: Vec<_> = sentinels.iter().map(|node| format!("\"{}\"", node.address)).collect();
        let names = names.join(", ");
        let store = format!("mode: sentinel, master: cg, nodes: [{names}], wait: {{ replicas: {wait} }}");
        Self::with_engine(folder, places, nodes, sentinels, &|_| store.clone())
    }

    /// Starts a cluster of three primaries with one replica each, and the members.
    fn start_with_cluster(folder: &Path) -> Self {
        let nodes = cluster(3);
        let names: Vec<_> = nodes.iter().map(|node| format!("\"{}\"", node.address)).collect();
        let store = format!("mode: cluster, nodes: [{}], wait: {{ replicas: 1 }}", names.join(", "));
        Self::with_engine(folder, &Places::default(), nodes, Vec::new(), &|_| store.clone())
    }

    /// Starts one node, and the members.
    fn start_with_one_node(program: &str, folder: &Path) -> Self {
        let node = Engine::start(program, &[]);
        let store = format!("nodes: [\"{}\"]", node.address);
        Self::with_engine(folder, &Places::default(), vec![node], Vec::new(), &|_| store.clone())
    }

    /// Starts the members. `store` returns the section of each.
    pub fn with_engine(
        folder: &Path,
        places: &Places,
        nodes: Vec<Engine>,
        sentinels: Vec<Engine>,
        store: &dyn Fn(usize) -> String,
    ) -> Self {
        let history = Arc::<History>::default();
        let member = |number| member(folder, number, places, &store(number), &history);
        let members = (0..MEMBERS).map(member);
        let members: Vec<_> = members.collect();
        members.iter().for_each(Member::start);
        let (nodes, is_over) = (Mutex::new(nodes), AtomicBool::new(false));
        Self { members, nodes, sentinels, history, is_over, has_silent: true }
    }

    /// Returns the port of the primary that the sentinels know.
    fn primary(&self) -> Option<u16> {
        let text = self.sentinels[0].command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "cg"]);
        text.lines().nth(4)?.parse().ok()
    }

    /// Waits until all nodes of the cluster agree, and each replica has everything. Returns the primary that has run for the
    /// longest time.
    fn cluster_is_ready(&self) -> usize {
        eventually(|| {
            let nodes = self.nodes.lock().unwrap();
            let roles: Vec<_> = nodes.iter().map(|node| fact(node, "role")).collect();
            let (mut primaries, mut replicas) = (Vec::new(), 0);
            for (place, node) in nodes.iter().enumerate() {
                if roles[place] == "master" {
                    primaries.push(place);
                    continue;
                }
                let port = fact(node, "master_port");
                let primary = nodes.iter().find(|node| node.address.port().to_string() == port)?;
                replicas += usize::from(is_synchronous(node, primary));
            }
            let has_replica = |place: &usize| fact(&nodes[*place], "connected_slaves") == "1";
            let is_ready = primaries.len() == 3 && replicas == 3 && primaries.iter().all(has_replica);
            let oldest =
                primaries.into_iter().max_by_key(|place| offset(&nodes[*place], "uptime_in_seconds"));
            oldest.filter(|_| is_ready && nodes.iter().all(is_whole))
        })
    }

    /// Waits until the replica of a killed node of the cluster is a primary.
    fn cluster_has_replaced(&self, killed: usize) {
        eventually(|| {
            let nodes = self.nodes.lock().unwrap();
            let others: Vec<_> = nodes
                .iter()
                .enumerate()
                .filter(|(place, _)| *place != killed)
                .map(|(_, node)| node)
                .collect();
            let primaries = others.iter().filter(|node| fact(node, "role") == "master").count();
            (primaries == 3 && others.into_iter().all(is_whole)).then_some(())
        });
    }

    /// Waits until all sentinels know one primary, and both replicas have everything.
    pub fn ready_for_a_kill(&self) -> usize {
        if self.sentinels.is_empty() {
            return self.cluster_is_ready();
        }
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
            let has_everything = |(number, node): (usize, &Engine)| {
                number == place
                    || (fact(node, "role") == "slave"
                        && fact(node, "master_port") == port.to_string()
                        && is_synchronous(node, &nodes[place]))
            };
            let is_ready = self.sentinels.iter().all(knows) && nodes.iter().enumerate().all(has_everything);
            is_ready.then_some(place)
        })
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn member(&self, random: &mut Random) -> &Member {
        &self.members[random.below(MEMBERS as u64) as usize]
    }

    /// Mints an interaction, and sometimes limits its uses.
    fn mint_some(&self, random: &mut Random) -> Option<Minted> {
        let uses = (random.below(3) == 0).then(|| 1 + random.below(2));
        self.mint(random, uses, false)
    }

    fn mint(&self, random: &mut Random, uses: Option<u64>, is_silent: bool) -> Option<Minted> {
        self.mint_at(self.member(random), uses, is_silent)
    }

    pub fn mint_at(&self, member: &Member, uses: Option<u64>, is_silent: bool) -> Option<Minted> {
        let limit = uses.map_or(String::new(), |uses| format!(r#","uses":{uses}"#));
        let route = if is_silent { "quiet" } else { "doc" };
        let wanted = format!(r#"{{"route":"{route}","params":{{"id":"a"}}{limit}}}"#);
        let began = instant();
        let (status, body) = try_send(member.admin, "POST", "/callbacks", ADMIN, &wanted)?;
        let value: Value = serde_json::from_str(&body).ok().filter(|_| status == 201)?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let minted = Minted { id: text("interaction")?, token: text("callback_token")? };
        self.history.add(began, &minted.id, What::Mint { uses, is_silent }, Some(status));
        Some(minted)
    }

    fn attempt(&self, random: &mut Random, minted: &Minted, event: &str, is_final: bool) -> Option<u16> {
        self.attempt_at(self.member(random), minted, event, is_final)
    }

    /// Sends a callback once. Returns its status.
    pub fn attempt_at(&self, member: &Member, minted: &Minted, event: &str, is_final: bool) -> Option<u16> {
        let status = if is_final { r#","status":"done""# } else { "" };
        let body = format!(r#"{{"event":"{event}"{status}}}"#);
        let (token, signature, began) = (&minted.token, signature(SECRET, &body), instant());
        let headers = format!("authorization: Bearer {token}\r\nx-sig: {signature}\r\n");
        let answered = try_send(member.ingress, "POST", "/doc/a", &headers, &body);
        let status = answered.map(|(status, _)| status);
        self.history.add(began, &minted.id, What::Event { body, is_final }, status);
        status
    }

    /// Sends an event until it is accepted or denied finally, as providers do.
    fn send_event(&self, random: &mut Random, minted: &Minted, event: &str, is_final: bool) {
        let mut give_up = None;
        loop {
            let status = self.attempt(random, minted, event, is_final);
            if status.is_some_and(|status| status < 300 || (400..500).contains(&status)) {
                return;
            }
            if self.is_over() && instant() >= *give_up.get_or_insert_with(|| instant() + LAST_ATTEMPTS) {
                return;
            }
            sleep(random.millis(50, 300));
        }
    }

    /// Revokes an interaction. Returns whether this was acknowledged.
    fn revoke(&self, random: &mut Random, minted: &Minted) -> bool {
        let began = instant();
        let path = format!("/callbacks/{}", minted.id);
        let answered = try_send(self.member(random).admin, "DELETE", &path, ADMIN, "");
        let status = answered.map(|(status, _)| status);
        self.history.add(began, &minted.id, What::Revoke, status);
        status == Some(204)
    }

    pub fn client(&self, number: usize, seed: u64) {
        let mut random = Random(seed ^ ((number as u64 + 1) << 40));
        for round in 0.. {
            if self.is_over() {
                return;
            }
            if self.has_silent && random.below(4) == 0 {
                self.mint(&mut random, None, true);
            }
            let Some(minted) = self.mint_some(&mut random) else {
                sleep(Duration::from_millis(100));
                continue;
            };
            let count = 1 + random.below(3);
            for event in 0..count {
                let is_final = event + 1 == count && random.below(3) == 0;
                let event = format!("{number}-{round}-{event}");
                self.send_event(&mut random, &minted, &event, is_final);
                if random.below(4) == 0 {
                    self.send_event(&mut random, &minted, &event, is_final);
                }
            }
            if random.below(4) == 0 && self.revoke(&mut random, &minted) || random.below(8) == 0 {
                self.send_event(&mut random, &minted, &format!("late-{number}-{round}"), false);
            }
        }
    }

    /// Starts the clients.
    pub fn start_clients(self: &Arc<Self>, seed: u64) -> Vec<JoinHandle<()>> {
        let client = |number| {
            let installation = Arc::clone(self);
            std::thread::spawn(move || installation.client(number, seed))
        };
        (0..CLIENTS).map(client).collect()
    }

    /// Waits until the clients and the notices have come to their end, and reads all records.
    pub fn end(&self, clients: Vec<JoinHandle<()>>) {
        self.is_over.store(true, Ordering::SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
        // A notice whose sender was killed has a lease of two minutes.
        let began = instant();
        while unreported(&self.history.calls()) > 0 && began.elapsed() < Duration::from_secs(160) {
            sleep(Duration::from_millis(100));
        }
        self.read_all();
    }

    /// Reads the record of each interaction, which ends the history.
    pub fn read_all(&self) {
        for call in self.history.calls() {
            if !matches!(call.what, What::Mint { .. }) {
                continue;
            }
            let (path, began) = (format!("/callbacks/{}", call.interaction), instant());
            let (status, body) = eventually(|| {
                let answered = try_send(self.members[0].admin, "GET", &path, ADMIN, "");
                answered.filter(|(status, _)| *status != 503)
            });
            let view: Value = serde_json::from_str(&body).unwrap_or_default();
            let state = view["state"].as_str().unwrap_or_default().to_owned();
            let deliveries = view["deliveries"].as_u64().unwrap_or_default();
            self.history.add(began, &call.interaction, What::Read { state, deliveries }, Some(status));
        }
    }

    /// Kills or suspends a member or a node of the engine, and repairs it.
    fn trouble(&self, random: &mut Random) {
        let (began, number) = (instant(), random.below(MEMBERS as u64) as usize);
        let member = &self.members[number];
        let what = match random.below(4) {
            0 => {
                member.kill();
                sleep(random.millis(0, 1000));
                member.start();
                format!("member {number} was killed")
            }
            1 => {
                member.signal("STOP");
                sleep(random.millis(100, 3000));
                member.signal("CONT");
                format!("member {number} was suspended")
            }
            _ => {
                let place = random.below(self.nodes.lock().unwrap().len() as u64) as usize;
                let nodes = self.nodes.lock().unwrap();
                nodes[place].signal("STOP");
                sleep(random.millis(100, 900));
                nodes[place].signal("CONT");
                format!("node {place} was suspended")
            }
        };
        self.history.add(began, "", What::Trouble(what), None);
    }

    /// Kills the primary once its replicas have everything, and starts it again when another one was elected.
    fn kill_primary(&self) {
        let place = self.ready_for_a_kill();
        let began = instant();
        self.nodes.lock().unwrap()[place].kill();
        let port = self.nodes.lock().unwrap()[place].address.port();
        if self.sentinels.is_empty() {
            self.cluster_has_replaced(place);
        } else {
            eventually(|| self.primary().filter(|primary| *primary != port));
        }
        self.nodes.lock().unwrap()[place].start_again();
        self.history.add(began, "", What::Trouble(format!("the primary, node {place}, was killed")), None);
    }
}

/// Runs the clients while members and nodes fail, and reads all records at the end.
fn play(installation: &Arc<Installation>, kills: u64, seed: u64) {
    installation.ready_for_a_kill();
    let clients = installation.start_clients(seed);
    let mut random = Random(seed);
    for kill in 1..=kills {
        for _ in 0..2 {
            installation.trouble(&mut random);
            sleep(random.millis(100, 500));
        }
        installation.kill_primary();
        if kill % 10 == 0 {
            let mut said = std::io::stderr();
            writeln!(said, "{kill} of {kills} kills of the primary").unwrap();
        }
    }
    installation.ready_for_a_kill();
    installation.end(clients);
}

/// Runs something with an installation, and fails if its history has a fault. Then the folder stays.
pub fn run(folder: RunFolder, installation: &Arc<Installation>, name: &str, play: impl FnOnce()) {
    let mut summary = String::new();
    let faults = faults_of(|| {
        play();
        let calls = installation.history.calls();
        let Verdict { faults, acknowledged_events } = check(&calls);
        let (count, sum) = (faults.len(), calls.len());
        summary = format!("{sum} calls, {acknowledged_events} acknowledged events, {count} faults");
        explained(&faults, &calls)
    });
    installation.is_over.store(true, Ordering::SeqCst);
    let mut said = std::io::stderr();
    writeln!(said, "{name}: {summary}").unwrap();
    if !faults.is_empty() {
        installation.members.iter().for_each(Member::kill);
        folder.fail(&lines(&installation.history.calls()), &format!("{name}\n{faults}"));
    }
}

fn kill_primaries(program: &str, seed: u64) {
    kill_primaries_of(program, seed, |folder| {
        Installation::start(program, REPLICAS, folder, &Places::default())
    });
}

fn kill_primaries_of(program: &str, seed: u64, start: impl FnOnce(&Path) -> Installation) {
    let (kills, seed) = (number("CALLGATE_PRIMARY_KILLS", 1), number("CALLGATE_CHAOS_SEED", seed));
    let folder = RunFolder::new("shared-chaos-");
    let installation = Arc::new(start(folder.path()));
    let name = format!("{program}, seed {seed}, {kills} kills of the primary");
    run(folder, &installation, &name, || play(&installation, kills, seed));
}

/// Returns faults with the calls of their interactions.
fn explained(faults: &[(Fault, String)], calls: &[Call]) -> String {
    let of = |id: &str| calls.iter().filter(|call| call.interaction == id).cloned().collect::<Vec<_>>();
    faults.iter().map(|(fault, id)| format!("{fault:?} {id}\n{}", lines(&of(id)))).collect()
}

#[test]
fn chaos_of_members_and_primaries_of_redis_loses_nothing() {
    kill_primaries("redis-server", 3);
}

#[test]
fn chaos_of_members_and_primaries_of_valkey_loses_nothing() {
    kill_primaries("valkey-server", 4);
}

#[test]
fn chaos_of_members_and_primaries_of_a_cluster_loses_nothing() {
    kill_primaries_of("a cluster of redis-server", 5, Installation::start_with_cluster);
}

// === Engines that lose something ===

/// Promotes a replica that has not received the last changes, as a sentinel may do, and returns what the checker finds
/// of an interaction with a callback, of one that was revoked, and of one that was minted meanwhile. Each is `None` if the
/// change was not acknowledged.
fn faults_of_a_stale_replica(wait: usize) -> ([Option<String>; 3], Vec<(Fault, String)>) {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::start("redis-server", wait, folder.path(), &Places::default());
    installation.ready_for_a_kill();
    let mut random = Random(1);
    let [called, revoked] = [(); 2].map(|()| eventually(|| installation.mint(&mut random, None, false)));
    let place = installation.ready_for_a_kill();
    let (stale, other) = ((place + 1) % 3, (place + 2) % 3);
    {
        // What a stopped process has not read from its connection would still reach it later.
        let nodes = installation.nodes.lock().unwrap();
        nodes[stale].signal("STOP");
        nodes[place].command(&["CLIENT", "KILL", "TYPE", "replica"]);
        eventually(|| (fact(&nodes[place], "connected_slaves") == "1").then_some(()));
    }
    let mut repeat = |acknowledged: &mut dyn FnMut(&mut Random) -> Option<String>| {
        // With two confirmations, no repetition would succeed.
        (0..30).find_map(|number| (wait == 1 || number < 2).then(|| acknowledged(&mut random)).flatten())
    };
    let changes = [
        repeat(&mut |random| {
            let status = installation.attempt(random, &called, "1", false);
            (status == Some(200)).then(|| called.id.clone())
        }),
        repeat(&mut |random| installation.revoke(random, &revoked).then(|| revoked.id.clone())),
        repeat(&mut |random| installation.mint(random, None, false).map(|minted| minted.id)),
    ];
    {
        let mut nodes = installation.nodes.lock().unwrap();
        nodes[place].kill();
        nodes[other].kill();
        nodes[stale].signal("CONT");
        let port = nodes[stale].address.port();
        eventually(|| (installation.primary() == Some(port)).then_some(()));
        eventually(|| (fact(&nodes[stale], "role") == "master").then_some(()));
    }
    installation.read_all();
    (changes, check(&installation.history.calls()).faults)
}

#[test]
fn with_too_few_confirmations_the_checker_reports_what_a_stale_replica_lacks() {
    let ([called, revoked, minted], mut faults) = faults_of_a_stale_replica(1);
    let mut expected = [
        (Fault::DeliveriesForgotten, called.unwrap()),
        (Fault::StateChanged, revoked.unwrap()),
        (Fault::RecordMissing, minted.unwrap()),
    ];
    expected.sort_by(|one, other| one.1.cmp(&other.1));
    faults.sort_by(|one, other| one.1.cmp(&other.1));
    assert_eq!(faults, expected);
}

#[test]
fn with_the_confirmations_of_all_replicas_a_stale_replica_lacks_nothing() {
    let (changes, faults) = faults_of_a_stale_replica(REPLICAS);
    assert_eq!((changes, faults), ([None, None, None], vec![]));
}

#[test]
fn the_checker_reports_records_that_an_engine_loses_or_sets_back() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::start_with_one_node("redis-server", folder.path());
    let mut random = Random(1);
    let mut mint = |uses, is_silent| eventually(|| installation.mint(&mut random, uses, is_silent));
    let [repeated, revoked, lost] = [(); 3].map(|()| mint(None, false));
    let (limited, silent, kept) = (mint(Some(1), false), mint(None, true), mint(None, false));
    let nodes = installation.nodes.lock().unwrap();
    let key = |minted: &Minted| nodes[0].keys(&format!("cg*i:{}", minted.id)).remove(0);
    let set_back = [&repeated, &revoked, &limited].map(|minted| {
        let (key, copy) = (key(minted), format!("copy:{}", minted.id));
        assert_eq!(nodes[0].command(&["COPY", &key, &copy]), ":1\r\n");
        (key, copy)
    });
    for minted in [&repeated, &limited, &kept] {
        installation.send_event(&mut random, minted, &format!("first-{}", minted.id), false);
    }
    assert!(installation.revoke(&mut random, &revoked));
    // From here on, the engine has acknowledged changes that it loses.
    for (key, copy) in &set_back {
        assert_eq!(nodes[0].command(&["COPY", copy, key, "REPLACE"]), ":1\r\n");
    }
    for minted in [&lost, &silent] {
        assert_eq!(nodes[0].command(&["DEL", &key(minted)]), ":1\r\n");
    }
    installation.send_event(&mut random, &repeated, &format!("first-{}", repeated.id), false);
    installation.send_event(&mut random, &limited, "second", false);
    // The time in which a delivery may be under way, and the deadline of the silent interaction.
    sleep(Duration::from_secs(3));
    installation.send_event(&mut random, &revoked, "late", false);
    installation.send_event(&mut random, &kept, &format!("first-{}", kept.id), false);
    installation.read_all();
    let mut faults = check(&installation.history.calls()).faults;
    let mut expected = vec![
        (Fault::DeliveredAgain, repeated.id),
        (Fault::DeliveredAfterEnd, revoked.id.clone()),
        (Fault::StateChanged, revoked.id),
        (Fault::UsedTooOften, limited.id.clone()),
        (Fault::DeliveriesForgotten, limited.id),
        (Fault::RecordMissing, lost.id),
        (Fault::NotReported, silent.id.clone()),
        (Fault::RecordMissing, silent.id),
    ];
    let order = |(fault, id): &(Fault, String)| (id.clone(), *fault as u8);
    faults.sort_by_key(order);
    expected.sort_by_key(order);
    assert_eq!(faults, expected);
}
