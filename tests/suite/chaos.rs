//! Three members as real processes, with random crashes, pauses, drains and partitions, while clients mint, call back and
//! revoke through a round-robin balancer. A checker reads the history afterwards.
//!
//! `CALLGATE_CHAOS_SECONDS` and `CALLGATE_CHAOS_SEED` select a longer run and another history (`make chaos`).

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use callgate::clock::instant;
use serde_json::Value;

use crate::engine::Place;
use crate::harness::{eventually, read_request};
use crate::run_folder::{RunFolder, faults_of};
use crate::splitmix::Random;

const MEMBERS: usize = 3;
const CLIENTS: usize = 6;
pub const SECRET: &str = "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
/// The time after an answer of an agent in which a crash can prevent that the delivery is recorded.
const UNRECORDED: Duration = Duration::from_secs(1);
/// The longest time between the request to an agent and its answer, on a slow machine.
const AGENT_DELAY: Duration = Duration::from_millis(500);

/// A variable of the environment, for a longer run.
#[allow(clippy::disallowed_methods, reason = "a longer run is asked for by the environment")]
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

// === The network between the members ===

pub const OPEN: u8 = 0;
/// New and existing connections are closed.
pub const CUT: u8 = 1;
/// Bytes are kept back and arrive later.
pub const FROZEN: u8 = 2;
/// Only the bytes to the server are kept back, or only those from it.
pub const FROZEN_TO: u8 = 3;
pub const FROZEN_FROM: u8 = 4;

/// A TCP proxy in front of a server, such as a member's replica listener.
pub struct Link {
    pub address: SocketAddr,
    pub mode: Arc<AtomicU8>,
}

impl Link {
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Self { address: listener.local_addr().unwrap(), mode: Arc::default() };
        let mode = Arc::clone(&link.mode);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mode = Arc::clone(&mode);
                std::thread::spawn(move || {
                    while mode.load(Ordering::SeqCst) == FROZEN {
                        sleep(Duration::from_millis(10));
                    }
                    if mode.load(Ordering::SeqCst) == CUT {
                        return;
                    }
                    let Ok(upstream) = TcpStream::connect(to) else { return };
                    let back = (upstream.try_clone().unwrap(), stream.try_clone().unwrap());
                    let mode_back = Arc::clone(&mode);
                    std::thread::spawn(move || copy(back.0, back.1, &mode_back, FROZEN_FROM));
                    copy(stream, upstream, &mode, FROZEN_TO);
                });
            }
        });
        link
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8, one_way: u8) {
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                0
            }
            Err(_) => break,
        };
        while [FROZEN, one_way].contains(&mode.load(Ordering::SeqCst)) {
            sleep(Duration::from_millis(5));
        }
        if mode.load(Ordering::SeqCst) == CUT || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
}

// === The history ===

/// What an agent has answered with 200.
#[derive(Clone, Debug)]
struct Delivery {
    member: usize,
    at: Instant,
    interaction: String,
    /// `None` for a notice.
    event: Option<String>,
}

#[derive(Clone, Debug)]
struct Minted {
    id: String,
    token: String,
    member: usize,
    at: Instant,
    uses: Option<u64>,
    /// No callback is sent for it.
    is_silent: bool,
}

#[derive(Debug, Default)]
struct History {
    minted: Mutex<Vec<Minted>>,
    delivered: Mutex<Vec<Delivery>>,
    /// The last status that the sender of an event received, and whether the sender gave up.
    events: Mutex<HashMap<String, (Minted, Option<u16>)>>,
    revoked: Mutex<HashMap<String, Instant>>,
    /// Interactions that were in the memory of a process when it was killed.
    lost: Mutex<HashSet<String>>,
    kills: Mutex<Vec<(usize, Instant)>>,
}

/// An agent whose answers are recorded. Sometimes it is slow, sometimes it fails.
fn agent(member: usize, history: Arc<History>, seed: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counter = Arc::new(AtomicU64::new(seed));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (history, counter) = (Arc::clone(&history), Arc::clone(&counter));
            std::thread::spawn(move || {
                let (mut stream, mut bytes) = (stream, Vec::new());
                while let Some(request) = read_request(&mut stream, &mut bytes) {
                    let mut random = Random(counter.fetch_add(1, Ordering::SeqCst));
                    sleep(random.millis(0, 30));
                    let answer: &[u8] = if random.below(20) == 0 {
                        b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"
                    } else {
                        let first =
                            |name: &str| request.header(name).first().map(|value| (*value).to_owned());
                        let is_notice = first("callgate-notice").is_some();
                        let delivery = Delivery {
                            member,
                            at: instant(),
                            interaction: first("callgate-interaction").unwrap(),
                            event: if is_notice { None } else { first("callgate-event-id") },
                        };
                        history.delivered.lock().unwrap().push(delivery);
                        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
                    };
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

// === The members ===

/// How the members are operated.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The ledger is in memory. A member that stops hands it over, and the next process is a new member.
    Deployment,
    /// The ledger is in a file, and the member comes back with it.
    StatefulSet,
}

/// A member: a process that can end and start again with the same configuration.
pub struct Member {
    pub ingress: SocketAddr,
    pub admin: SocketAddr,
    config: PathBuf,
    place: Place,
    child: Mutex<Option<Child>>,
}

impl Member {
    /// Returns a member that was not started yet.
    pub fn new(ingress: SocketAddr, admin: SocketAddr, config: PathBuf, place: Place) -> Self {
        Self { ingress, admin, config, place, child: Mutex::default() }
    }

    pub fn start(&self) {
        let path = self.config.with_extension("log");
        let log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let child = self
            .place
            .command(crate::process::binary())
            .args(["run", "-c"])
            .arg(&self.config)
            .env("TOKEN_KEY", "0123456789abcdef0123456789abcdef")
            .env("SECRET", SECRET)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = Some(child);
        eventually(|| {
            let ended = self.child.lock().unwrap().as_mut().and_then(|child| child.try_wait().unwrap());
            if let Some(status) = ended {
                panic!("{status}: {}", std::fs::read_to_string(&path).unwrap());
            }
            TcpStream::connect(self.ingress).ok()
        });
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.lock().unwrap().as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    fn wait(&self) {
        let mut child = self.child.lock().unwrap().take().unwrap();
        child.wait().unwrap();
    }

    /// Kills the process, if it runs.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Cluster {
    kind: Kind,
    members: Vec<Member>,
    /// The network in front of each member.
    links: Vec<Link>,
    history: Arc<History>,
    next: AtomicUsize,
    is_over: AtomicBool,
}

/// Returns free addresses on a loopback address that no other test uses. The ports stay free while a member is down.
fn free_addresses(count: usize, kind: Kind) -> Vec<SocketAddr> {
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = std::net::Ipv4Addr::new(127, 64 + kind as u8, high, low.clamp(1, 254));
    let bound: Vec<_> = (0..count).map(|_| TcpListener::bind((host, 0)).unwrap()).collect();
    bound.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

impl Cluster {
    fn start(kind: Kind, seed: u64, folder: &Path) -> Self {
        let history = Arc::<History>::default();
        let ports = free_addresses(3 * MEMBERS, kind);
        let links: Vec<_> = ports.iter().skip(2).step_by(3).map(|address| Link::start(*address)).collect();
        let host = if kind == Kind::StatefulSet { "localhost" } else { "127.0.0.1" };
        let names: Vec<_> = links.iter().map(|link| format!("{host}:{}", link.address.port())).collect();
        let mut members = Vec::new();
        for (number, ports) in ports.chunks(3).enumerate() {
            let agent = agent(number, Arc::clone(&history), seed.wrapping_add(number as u64) << 32);
            let config = folder.join(format!("member{number}.yaml"));
            let (store, gone) = match kind {
                Kind::Deployment => ("kind: memory".to_owned(), "refuse"),
                Kind::StatefulSet => {
                    let path = folder.join(format!("ledger{number}"));
                    (format!("kind: file, path: {}", path.display()), "retry")
                }
            };
            let text = format!(
                "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: \"{}\" }} ], admin: {{ address: \"{}\" }} }}
agent: {{ address: \"{agent}\", timeouts: {{ connect: 1s, response: 5s }} }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
shutdown: {{ delay: 100ms, grace: 5s }}
store: {{ {store} }}
replicas:
  address: \"{}\"
  advertise: \"{}\"
  discover: [\"{}\"]
  secrets: [ {{ env: TOKEN_KEY }} ]
  mint: true
  patience: 300ms
  timeout: 4s
  gone: {gone}
providers:
  p: {{ signature: {{ scheme: hmac, algorithm: sha256, header: x-sig, content: \"{{body}}\", encoding: hex, id: {{ body: /event/id }}, secrets: [ {{ env: SECRET }} ] }} }}
routes:
  - {{ name: doc, path: \"/doc/{{id}}\", provider: p, token: {{ kind: callback }}, forward: \"/in/{{id}}\" }}
  - {{ name: quiet, path: \"/quiet/{{id}}\", provider: p, token: {{ kind: callback }}, forward: \"/in/{{id}}\", interaction: {{ deadline: 2s, notify: \"/overdue/{{id}}\" }} }}
",
                ports[0],
                ports[1],
                ports[2],
                names[number],
                names.join("\", \"")
            );
            std::fs::write(&config, text).unwrap();
            members.push(Member::new(ports[0], ports[1], config, Place::default()));
        }
        members.iter().for_each(Member::start);
        let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { kind, members, links, history, next, is_over }
    }

    /// Waits until every member regards all others as present.
    fn all_are_present(&self) {
        for member in &self.members {
            eventually(|| {
                let (_, body) = try_send(member.admin, "GET", "/members", "", "")?;
                let known: Value = serde_json::from_str(&body).ok()?;
                let present = known["members"].as_array()?.iter().filter(|one| one["presence"] == "present");
                (present.count() == MEMBERS - 1).then_some(())
            });
        }
    }

    fn round_robin(&self) -> &Member {
        &self.members[self.next.fetch_add(1, Ordering::SeqCst) % MEMBERS]
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn mint(&self, random: &mut Random, route: &str) -> Option<Minted> {
        let member = random.below(MEMBERS as u64) as usize;
        let uses = (random.below(3) == 0).then(|| 1 + random.below(3));
        let is_silent = route == "quiet";
        let limit = uses.filter(|_| !is_silent).map_or(String::new(), |uses| format!(r#","uses":{uses}"#));
        let wanted = format!(r#"{{"route":"{route}","params":{{"id":"a"}}{limit}}}"#);
        let (status, body) = try_send(self.members[member].admin, "POST", "/callbacks", "", &wanted)?;
        if status != 201 {
            return None;
        }
        let value: Value = serde_json::from_str(&body).ok()?;
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        let (id, token) = (text("interaction"), text("callback_token"));
        let minted = Minted { id, token, member, at: instant(), uses, is_silent };
        self.history.minted.lock().unwrap().push(minted.clone());
        Some(minted)
    }

    /// Sends an event until it is accepted or denied finally, as providers do. After the end of the chaos, it tries for
    /// 30 s at most.
    fn send_event(&self, random: &mut Random, minted: &Minted, event: &str) {
        let body = format!(r#"{{"event":{{"id":"{event}"}}}}"#);
        let signature = signature(SECRET, &body);
        let headers = format!("authorization: Bearer {}\r\nx-sig: {signature}\r\n", minted.token);
        let mut last = None;
        let mut give_up = None;
        loop {
            let answered = try_send(self.round_robin().ingress, "POST", "/doc/a", &headers, &body);
            if let Some((status, _)) = answered {
                last = Some(status);
                if status < 300 || status == 410 {
                    break;
                }
            }
            if self.is_over()
                && instant() >= *give_up.get_or_insert_with(|| instant() + Duration::from_secs(30))
            {
                break;
            }
            sleep(random.millis(50, 250));
        }
        self.history.events.lock().unwrap().insert(event.to_owned(), (minted.clone(), last));
    }

    fn client(&self, number: usize, seed: u64) {
        let mut random = Random(seed ^ ((number as u64 + 1) << 40));
        for round in 0.. {
            if self.is_over() {
                return;
            }
            if random.below(4) == 0 {
                self.mint(&mut random, "quiet");
            }
            let Some(minted) = self.mint(&mut random, "doc") else {
                sleep(Duration::from_millis(50));
                continue;
            };
            for event in 0..1 + random.below(4) {
                let event = format!("e-{number}-{round}-{event}");
                self.send_event(&mut random, &minted, &event);
                if random.below(4) == 0 {
                    self.send_event(&mut random, &minted, &event);
                }
            }
            if random.below(3) == 0 {
                let path = format!("/callbacks/{}", minted.id);
                let answered = try_send(self.round_robin().admin, "DELETE", &path, "", "");
                if answered.is_some_and(|(status, _)| status == 204) {
                    self.history.revoked.lock().unwrap().insert(minted.id.clone(), instant());
                    self.send_event(&mut random, &minted, &format!("late-{number}-{round}"));
                }
            }
        }
    }

    /// Returns the interactions of all members, with the position of the member that has each.
    fn ledger(&self, member: usize) -> Option<HashMap<String, usize>> {
        let (mut found, mut after) = (HashMap::new(), String::new());
        loop {
            let path = format!("/callbacks?limit=1000&after={after}");
            let (_, body) = try_send(self.members[member].admin, "GET", &path, "", "")?;
            let page: Value = serde_json::from_str(&body).ok()?;
            if page.get("unreachable").is_some() {
                return None;
            }
            for one in page["interactions"].as_array()? {
                let port = one["member"].as_str()?.rsplit(':').next()?.to_owned();
                let is_at = |link: &Link| link.address.port().to_string() == port;
                let position = self.links.iter().position(is_at)?;
                found.insert(one["interaction"].as_str()?.to_owned(), position);
            }
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => return Some(found),
            }
        }
    }

    /// Kills a member at once.
    fn kill(&self, number: usize) {
        let before = instant();
        let known = (self.kind == Kind::Deployment).then(|| eventually(|| self.ledger(number)));
        let member = &self.members[number];
        member.child.lock().unwrap().as_mut().unwrap().kill().unwrap();
        let at = instant();
        member.wait();
        self.history.kills.lock().unwrap().push((number, at));
        if let Some(known) = known {
            let mut lost = self.history.lost.lock().unwrap();
            lost.extend(known.into_iter().filter(|(_, place)| *place == number).map(|(id, _)| id));
            // A response to a request that began before the end may be recorded here a little later.
            sleep(Duration::from_millis(100));
            let minted = self.history.minted.lock().unwrap();
            let recent = minted.iter().filter(|one| one.member == number && one.at >= before);
            lost.extend(
                recent.filter(|one| one.at <= at + Duration::from_millis(100)).map(|one| one.id.clone()),
            );
        }
    }

    /// Stops a member, and kills another one, which may receive the ledger of the first one just then.
    fn kill_successor(&self, random: &mut Random, number: usize) {
        let (member, position) = (&self.members[number], (number + 1) % MEMBERS);
        let other = &self.members[position];
        let before = instant();
        let known = (self.kind == Kind::Deployment).then(|| eventually(|| self.ledger(number)));
        member.signal("TERM");
        sleep(random.millis(0, 500));
        other.child.lock().unwrap().as_mut().unwrap().kill().unwrap();
        self.history.kills.lock().unwrap().push((position, instant()));
        other.wait();
        member.wait();
        if let Some(known) = known {
            // Nobody knows which of them the killed member had.
            let at = [number, position];
            let mut lost = self.history.lost.lock().unwrap();
            lost.extend(known.into_iter().filter(|(_, place)| at.contains(place)).map(|(id, _)| id));
            sleep(Duration::from_millis(100));
            let minted = self.history.minted.lock().unwrap();
            let recent = minted.iter().filter(|one| at.contains(&one.member) && one.at >= before);
            lost.extend(recent.map(|one| one.id.clone()));
        }
        other.start();
        member.start();
    }

    /// Does something bad, and repairs it.
    fn trouble(&self, random: &mut Random) {
        let number = random.below(MEMBERS as u64) as usize;
        let member = &self.members[number];
        match random.below(7) {
            6 => self.kill_successor(random, number),
            0 => {
                self.kill(number);
                sleep(random.millis(0, 1500));
                member.start();
            }
            1 => {
                member.signal("STOP");
                sleep(random.millis(100, 3000));
                member.signal("CONT");
            }
            2 | 3 => {
                member.signal("TERM");
                // Sometimes, another one stops at the same time.
                let other = &self.members[(number + 1) % MEMBERS];
                let both = random.below(2) == 0;
                if both {
                    sleep(random.millis(0, 300));
                    other.signal("TERM");
                    other.wait();
                }
                member.wait();
                sleep(random.millis(0, 1000));
                member.start();
                if both {
                    other.start();
                }
            }
            mode => {
                let mode = if mode == 4 { CUT } else { FROZEN };
                self.links[number].mode.store(mode, Ordering::SeqCst);
                sleep(random.millis(200, 3000));
                self.links[number].mode.store(OPEN, Ordering::SeqCst);
            }
        }
        sleep(random.millis(100, 1000));
    }
}

/// Returns the signature of a callback.
pub fn signature(secret: &str, body: &str) -> String {
    let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::Mac>::new_from_slice(secret.as_bytes()).unwrap();
    hmac::Mac::update(&mut mac, body.as_bytes());
    data_encoding::HEXLOWER.encode(&hmac::Mac::finalize(mac).into_bytes())
}

/// An answer, unless the other side is gone or too slow.
pub fn try_send(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}

// === The checker ===

/// Returns what must not have happened.
fn faults(cluster: &Cluster) -> Vec<String> {
    let history = &cluster.history;
    let (minted, delivered) = (history.minted.lock().unwrap(), history.delivered.lock().unwrap());
    let (lost, kills) = (history.lost.lock().unwrap(), history.kills.lock().unwrap());
    let (events, revoked) = (history.events.lock().unwrap(), history.revoked.lock().unwrap());
    // Whether a crash can have prevented that the delivery was recorded. An agent may answer after the crash.
    let is_unrecorded = |one: &Delivery| {
        let can_prevent = |at: Instant| at + AGENT_DELAY >= one.at && at < one.at + UNRECORDED;
        kills.iter().any(|(member, at)| *member == one.member && can_prevent(*at))
    };
    let mut faults = Vec::new();
    let mut by_event: HashMap<&str, Vec<&Delivery>> = HashMap::new();
    let mut by_interaction: HashMap<&str, Vec<&Delivery>> = HashMap::new();
    for one in delivered.iter() {
        match &one.event {
            Some(event) => by_event.entry(event).or_default().push(one),
            None => by_interaction.entry(&one.interaction).or_default().push(one),
        }
    }
    for (event, deliveries) in &by_event {
        if deliveries.iter().filter(|one| !is_unrecorded(one)).count() > 1 {
            faults.push(format!("{event} was delivered more than once: {deliveries:?}"));
        }
    }
    for one in minted.iter().filter(|one| one.uses.is_some() && !one.is_silent) {
        let used =
            delivered.iter().filter(|delivery| delivery.interaction == one.id && !is_unrecorded(delivery));
        if used.count() as u64 > one.uses.unwrap() {
            faults.push(format!("{} was used more than {:?} times", one.id, one.uses));
        }
    }
    for (id, at) in revoked.iter() {
        let late = delivered.iter().filter(|one| one.interaction == *id && one.at > *at + UNRECORDED);
        for one in late {
            faults.push(format!("{id} was revoked, and then delivered: {one:?}"));
        }
    }
    for (event, (of, status)) in events.iter().filter(|(_, (of, _))| !lost.contains(&of.id)) {
        let may_be_denied = of.uses.is_some() || revoked.contains_key(&of.id);
        let is_delivered = by_event.contains_key(event.as_str());
        match status {
            Some(200) if is_delivered => {}
            Some(410) if may_be_denied => {}
            _ => faults.push(format!("{event} of {of:?} ended with {status:?}, delivered: {is_delivered}")),
        }
    }
    for one in minted.iter().filter(|one| one.is_silent && !lost.contains(&one.id)) {
        let notices = by_interaction.get(&*one.id).map(Vec::as_slice).unwrap_or_default();
        if notices.is_empty() || notices.iter().filter(|one| !is_unrecorded(one)).count() > 1 {
            faults.push(format!("{one:?} was reported as {notices:?}"));
        }
    }
    let ledgers: Vec<_> = (0..MEMBERS).map(|number| eventually(|| cluster.ledger(number))).collect();
    for ledger in &ledgers {
        let missing = minted.iter().filter(|one| !lost.contains(&one.id) && !ledger.contains_key(&one.id));
        faults.extend(missing.map(|one| format!("{one:?} is missing")));
    }
    faults
}

/// Runs the clients while something bad happens again and again. Returns what must not have happened.
fn play(cluster: &Arc<Cluster>, seconds: u64, seed: u64) -> Vec<String> {
    cluster.all_are_present();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let cluster = Arc::clone(cluster);
            std::thread::spawn(move || cluster.client(number, seed))
        })
        .collect();
    let (mut random, until) = (Random(seed), instant() + Duration::from_secs(seconds));
    while instant() < until {
        cluster.trouble(&mut random);
    }
    cluster.is_over.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    cluster.all_are_present();
    // The last silent interactions are reported.
    let reported = |id: &str| {
        let delivered = cluster.history.delivered.lock().unwrap();
        delivered.iter().any(|one| one.event.is_none() && one.interaction == id)
    };
    let silent: Vec<_> = {
        let (minted, lost) = (cluster.history.minted.lock().unwrap(), cluster.history.lost.lock().unwrap());
        minted
            .iter()
            .filter(|one| one.is_silent && !lost.contains(&one.id))
            .map(|one| one.id.clone())
            .collect()
    };
    let end = instant() + Duration::from_secs(10);
    while instant() < end && !silent.iter().all(|id| reported(id)) {
        sleep(Duration::from_millis(50));
    }
    faults(cluster)
}

fn run(kind: Kind, seconds: u64, seed: u64) {
    let folder = RunFolder::new("chaos-");
    let cluster = Arc::new(Cluster::start(kind, seed, folder.path()));
    let faults = faults_of(|| play(&cluster, seconds, seed).join("\n"));
    cluster.is_over.store(true, Ordering::SeqCst);
    let mut said = std::io::stderr();
    let mut count =
        |name: &str, count: usize| writeln!(said, "chaos with seed {seed}: {count} {name}").unwrap();
    count("interactions", cluster.history.minted.lock().unwrap().len());
    count("deliveries", cluster.history.delivered.lock().unwrap().len());
    count("revocations", cluster.history.revoked.lock().unwrap().len());
    count("interactions lost by kills", cluster.history.lost.lock().unwrap().len());
    if !faults.is_empty() {
        cluster.members.iter().for_each(Member::kill);
        folder.fail(&format!("{:#?}", cluster.history), &format!("seed {seed}\n{faults}"));
    }
}

/// The seconds of each run.
fn seconds() -> u64 {
    number("CALLGATE_CHAOS_SECONDS", 12)
}

#[test]
fn chaos_of_members_that_hand_their_ledger_over() {
    run(Kind::Deployment, seconds(), number("CALLGATE_CHAOS_SEED", 1));
}

#[test]
fn chaos_of_members_that_come_back_with_their_ledger() {
    run(Kind::StatefulSet, seconds(), number("CALLGATE_CHAOS_SEED", 2));
}
