//! `kill -9` and disk faults under the real process: what was answered with 202 reaches the agent.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use callgate::clock::Clock;
use serde_json::json;
use tempfile::tempdir;

use super::{FAST, Minted, config, mint_at, signature};
use crate::crash::try_send;
use crate::disk::{build, cut_the_power};
use crate::engine::free_port;
use crate::harness::{Agent, env, eventually, send_to};
use crate::process::Process;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// How often the process is killed. `CALLGATE_KILLS` sets another number.
const KILLS: usize = 5;
const CLIENTS: usize = 6;
/// Deliveries at one time, which is the default of `inbox.concurrency`.
const CONCURRENCY: usize = 16;
const AWAY: &[u8] = b"HTTP/1.1 503 S\r\ncontent-length: 0\r\n\r\n";
/// Which write or sync of the file a kill interrupts in the suite: every how manyth. `CALLGATE_KILLS` tries all of them.
const STEP: usize = 6;

pub fn start(text: &str, more: &[(&str, &str)]) -> Process {
    let secrets = ["TOKEN_KEY", "FOREIGN_KEY", "WHSEC"].map(|name| (name, env(name).unwrap()));
    let mut variables: Vec<_> = secrets.iter().map(|(name, value)| (*name, value.as_str())).collect();
    variables.extend(more);
    Process::start_with(tempdir().unwrap(), text, &variables)
}

/// Sends a callback to a process that may be killed meanwhile.
pub fn try_call(ingress: SocketAddr, minted: &Minted, event: &str, body: &str) -> Option<u16> {
    let now = Clock::System.now().unix_secs().to_string();
    let signed = signature(&format!("{event}.{now}.{body}"));
    let headers = format!(
        "authorization: Bearer {}\r\nwebhook-id: {event}\r\nwebhook-timestamp: {now}\r\nwebhook-signature: {signed}\r\n",
        minted.token
    );
    Some(try_send(ingress, "POST", &minted.target, &headers, body)?.0)
}

pub fn waiting(admin: SocketAddr) -> Option<f64> {
    waiting_in(&send_to(admin, "GET", "/metrics", &[], b"").text())
}

fn waiting_in(metrics: &str) -> Option<f64> {
    let line = metrics.lines().find(|line| line.starts_with("callgate_inbox_waiting{"))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Returns how often a test that goes on for long kills the process.
fn kills_wanted() -> Option<usize> {
    #[allow(clippy::disallowed_methods, reason = "how long a test goes on is not the product's business")]
    std::env::var("CALLGATE_KILLS").ok().and_then(|n| n.parse().ok())
}

/// The events that the agent received, and how often.
pub fn received(agent: &Agent) -> HashMap<String, usize> {
    let mut received = HashMap::new();
    for one in agent.received() {
        *received.entry(one.header("callgate-event-id")[0].to_owned()).or_default() += 1;
    }
    received
}

#[test]
fn nothing_that_was_accepted_is_lost_by_kills_and_at_most_what_was_in_flight_is_repeated() {
    let (folder, agent) = (tempdir().unwrap(), Agent::start(OK));
    let text = config(folder.path(), &agent.address.to_string(), "inbox", FAST, "");
    let kills = kills_wanted().unwrap_or(KILLS);
    let accepted = Mutex::new(Vec::new());
    // The requests that the agent had received before each round.
    let mut began = Vec::new();
    for round in 0..kills {
        // The agent is sometimes away, so that messages wait when the process dies.
        agent.answers(if round % 2 == 0 { OK } else { AWAY });
        began.push(agent.received().len());
        let process = start(&text, &[]);
        let (ingress, admin) = (process.ingress[0], process.admin);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (accepted, count) = (&accepted, &count);
                scope.spawn(move || {
                    let minted = mint_at(admin, &format!("r{round}c{client}"));
                    for n in 0.. {
                        let event = format!("{}/{n}", minted.interaction);
                        let Some(status) = try_call(ingress, &minted, &event, &json!({ "n": n }).to_string())
                        else {
                            return;
                        };
                        assert_eq!(status, 202);
                        accepted.lock().unwrap().push((minted.interaction.clone(), n, event));
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            while count.load(Ordering::SeqCst) < 30 + 17 * (round % 5) {
                std::thread::yield_now();
            }
            process.signal("KILL");
        });
    }
    agent.answers(OK);
    let before = agent.received().len();
    began.push(before);
    let process = start(&text, &[]);
    eventually(|| (waiting(process.admin)? == 0.0).then_some(()));
    let (accepted, repeats) = (accepted.into_inner().unwrap(), repeats(&agent, &began));
    let received = received(&agent);
    println!(
        "{kills} kills, {} messages answered with 202, none lost, {} repeated, at most {} at one kill",
        accepted.len(),
        repeats.iter().sum::<usize>(),
        repeats.iter().max().unwrap()
    );
    assert!(repeats.iter().all(|repeated| *repeated <= CONCURRENCY), "{repeats:?}");
    for (_, _, event) in &accepted {
        assert!(received.contains_key(event), "{event} is lost");
    }
    assert_in_order(&agent, before);
    assert!(accepted.len() >= 30 * kills, "{}", accepted.len());
}

/// Checks the order of each interaction in the requests after the first `before`: the first time that the agent received
/// each message.
fn assert_in_order(agent: &Agent, before: usize) {
    let mut last: HashMap<String, usize> = HashMap::new();
    let mut seen = HashSet::new();
    for one in agent.received().iter().skip(before) {
        let event = one.header("callgate-event-id")[0];
        if seen.insert(event.to_owned()) {
            let (interaction, n) = event.rsplit_once('/').unwrap();
            let n: usize = n.parse().unwrap();
            assert!(
                last.insert(interaction.to_owned(), n).is_none_or(|last| last < n),
                "{event} is out of order"
            );
        }
    }
}

/// Returns, for each kill, how many messages the agent received again although it had accepted them before the kill.
fn repeats(agent: &Agent, began: &[usize]) -> Vec<usize> {
    let received = agent.received();
    let mut last_accepted: HashMap<String, usize> = HashMap::new();
    let mut repeats: Vec<usize> = vec![0; began.len()];
    for (at, one) in received.iter().enumerate() {
        let round = began.iter().rposition(|began| *began <= at).unwrap();
        let event = one.header("callgate-event-id")[0].to_owned();
        // A message is counted once for a kill, however often the agent denies it afterwards.
        if let Some(accepted) = last_accepted.remove(&event) {
            assert_ne!(accepted, round, "{event} was accepted twice without a kill");
            repeats[accepted] += 1;
        }
        // In odd rounds, the agent accepts nothing.
        if round % 2 == 0 || round + 1 == began.len() {
            last_accepted.insert(event, round);
        }
    }
    repeats
}

/// A disk on which the process is killed in the middle of a write, or before a sync.
struct Disk {
    folder: tempfile::TempDir,
    library: String,
}

impl Disk {
    fn new() -> Self {
        let folder = tempdir().unwrap();
        let library = build(folder.path()).to_str().unwrap().to_owned();
        Self { folder, library }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Starts a process. The disk does what the word says from `set` on.
    fn start(&self, text: &str) -> Process {
        self.set("off");
        let (control, undo) = (self.path("control"), self.path("undo"));
        start(text, &[("LD_PRELOAD", &self.library), ("DISK_CONTROL", &control), ("DISK_UNDO", &undo)])
    }

    fn set(&self, word: &str) {
        fs::write(self.path("control.new"), word).unwrap();
        fs::rename(self.path("control.new"), self.path("control")).unwrap();
    }

    /// Reports whether the process was killed by the disk.
    fn has_killed(&self) -> bool {
        !Path::new(&self.path("control")).exists()
    }
}

/// The process dies at each write and at each sync from the acceptance of a callback to the end of its delivery. With
/// `cuts_power`, what no sync has made durable may be lost, too.
fn killed_at_every_write(cuts_power: bool) {
    let (folder, agent, disk) = (tempdir().unwrap(), Agent::start(OK), Disk::new());
    let text = config(folder.path(), &agent.address.to_string(), "inbox", FAST, "");
    let step = if kills_wanted().is_some() { 1 } else { STEP };
    let (mut acknowledged, mut killed, mut undone) = (0, 0, 0);
    for at in (1..).step_by(step) {
        let process = disk.start(&text);
        let minted = mint_at(process.admin, &format!("n{at}"));
        let event = format!("e{at}");
        disk.set(&format!("kill {at}"));
        let status = try_call(process.ingress[0], &minted, &event, "{}");
        assert!(matches!(status, None | Some(202)), "{status:?}");
        acknowledged += usize::from(status.is_some());
        // The delivery and its record follow. If the disk has not killed by then, there is no such write.
        let is_over =
            || received(&agent).contains_key(&event) && waiting_unless_killed(process.admin) == Some(0.0);
        eventually(|| (disk.has_killed() || is_over()).then_some(()));
        if !disk.has_killed() {
            assert_eq!(received(&agent).get(&event), Some(&1), "{event}");
            break;
        }
        drop(process);
        killed += 1;
        if cuts_power {
            let (ledger, undo) = (folder.path().join("ledger"), disk.path("undo"));
            undone += usize::from(cut_the_power(&ledger, Path::new(&undo), 0x9e37_79b9 ^ (at as u64 + 1)));
        }
        let process = start(&text, &[]);
        if status.is_none() {
            // The provider received no answer, so it sends the callback again: it is new, or known and kept.
            assert!(
                matches!(try_call(process.ingress[0], &minted, &event, "{}"), Some(200 | 202)),
                "{event}"
            );
        }
        eventually(|| (waiting(process.admin)? == 0.0).then_some(()));
        let times = eventually(|| received(&agent).get(&event).copied());
        assert!((1..=2).contains(&times), "{event}, kill at {at}: {times} times");
        process.signal("KILL");
    }
    println!(
        "{killed} kills, each at another write; {acknowledged} answers were 202; {undone} power cuts undid writes"
    );
    assert!(killed >= 2 && acknowledged >= 2, "{killed} {acknowledged}");
    assert!(!cuts_power || undone > 0, "no power cut undid a write, so this test has proved nothing");
}

/// Returns the number of waiting messages, or `None` if the process does not answer any more.
fn waiting_unless_killed(admin: SocketAddr) -> Option<f64> {
    let (_, text) = try_send(admin, "GET", "/metrics", "", "")?;
    waiting_in(&text)
}

#[test]
fn a_kill_at_any_write_of_accept_and_settle_loses_nothing() {
    killed_at_every_write(false);
}

#[test]
fn a_power_cut_at_any_write_of_accept_and_settle_loses_nothing() {
    killed_at_every_write(true);
}

/// A disk that fails while messages wait: they are in the file only, and are there when it heals.
#[test]
fn nothing_that_was_accepted_is_lost_by_a_disk_that_fails() {
    for word in ["eio-sync", "eio-write", "enospc"] {
        let (folder, disk) = (tempdir().unwrap(), tempdir().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let text = config(folder.path(), &address.to_string(), "inbox", FAST, "");
        let text = text.replace("store: { kind: file,", "store: { kind: file, grace: 1s,");
        let library = build(disk.path());
        let (control, undo) = (disk.path().join("control"), disk.path().join("undo"));
        fs::write(&control, "off").unwrap();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (library, control_path, undo) = (path(&library), path(&control), path(&undo));
        let variables = [("LD_PRELOAD", &*library), ("DISK_CONTROL", &*control_path), ("DISK_UNDO", &*undo)];
        let set = |word: &str| {
            let new = disk.path().join("control.new");
            fs::write(&new, word).unwrap();
            fs::rename(&new, &control).unwrap();
        };
        let process = start(&text, &variables);
        let minted = mint_at(process.admin, "a");
        let call = |n: usize| {
            try_call(process.ingress[0], &minted, &format!("e{n}"), &json!({ "n": n }).to_string()).unwrap()
        };
        let mut accepted = Vec::new();
        for round in 0..2 {
            for n in 0..10 {
                assert_eq!(call(100 * round + n), 202, "{word}");
                accepted.push(100 * round + n);
            }
            set(word);
            assert_eq!(call(100 * round + 50), 503, "{word}");
            set("off");
            // The provider tries again: the message is kept now, or was kept when the disk healed.
            eventually(|| matches!(call(100 * round + 50), 200 | 202).then_some(()));
            accepted.push(100 * round + 50);
        }
        let agent = Agent::start_at(address, OK);
        eventually(|| (waiting(process.admin)? == 0.0).then_some(()));
        let received = received(&agent);
        for n in &accepted {
            assert_eq!(received.get(&format!("e{n}")), Some(&1), "{word}: {n}");
        }
        let numbers: Vec<u64> = agent
            .received()
            .iter()
            .map(|one| serde_json::from_slice::<serde_json::Value>(&one.body).unwrap()["n"].as_u64().unwrap())
            .collect();
        assert!(numbers.is_sorted(), "{word}: {numbers:?}");
        // And a restart finds nothing that is left over.
        process.signal("KILL");
        // Waits until the process has ended, because its file is locked until then.
        drop(process);
        let process = start(&text, &[]);
        assert_eq!(waiting(process.admin), Some(0.0), "{word}");
    }
}
