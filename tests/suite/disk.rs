//! A disk that fails, hangs and heals under the real process. `tests/store/disk.c` stands between it and the kernel.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use callgate::clock::{Clock, instant};
use callgate::observe::Metrics;
use callgate::policy::MintRequest;
use callgate::store::Store;

use crate::crash::{
    Acknowledged, EventState, Load, Running, call_in_full, config, deliveries, kill_again_and_again,
    try_send, try_send_in_full, verify,
};
use crate::harness::{ANSWER, Agent, eventually, parse};

/// An interaction that another replica minted.
const REVOKED: &str = "/callbacks/int_aaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Builds the disk that fails on demand.
pub fn build(folder: &Path) -> PathBuf {
    let library = folder.join("disk.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/store/disk.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).args([source, "-ldl", "-lpthread"]);
    assert!(cc.status().unwrap().success());
    library
}

/// A Callgate over a disk that does as it is told, and what was acknowledged so far.
struct World {
    folder: tempfile::TempDir,
    agent: Agent,
    path: PathBuf,
    running: Running,
    acknowledged: Mutex<Acknowledged>,
    known: EventState,
}

impl World {
    fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap(), Agent::start(ANSWER))
    }

    /// With what is in the folder already.
    fn over(folder: tempfile::TempDir, agent: Agent) -> Self {
        let path = config(folder.path(), &agent);
        Self::configured(folder, agent, path)
    }

    /// With a configuration of its own.
    fn configured(folder: tempfile::TempDir, agent: Agent, path: PathBuf) -> Self {
        let library = build(folder.path());
        let (control, undo) = (folder.path().join("control"), folder.path().join("undo"));
        fs::write(&control, "off").unwrap();
        let environment: [(&str, &Path); 3] =
            [("LD_PRELOAD", &library), ("DISK_CONTROL", &control), ("DISK_UNDO", &undo)];
        let running = Running::start_with(&path, &environment);
        let acknowledged = Mutex::default();
        let load = Load {
            running: &running,
            acknowledged: &acknowledged,
            operations: &AtomicUsize::new(0),
            round: 0,
        };
        let known = load.mint().unwrap();
        Self { folder, agent, path, running, acknowledged, known }
    }

    /// From now on the disk does this.
    fn disk(&self, word: &str) {
        // Whole or not at all: it is read at any moment.
        let new = self.folder.path().join("control.new");
        fs::write(&new, word).unwrap();
        fs::rename(new, self.folder.path().join("control")).unwrap();
    }

    /// Calls back with an event.
    fn call(&self, event: &str) -> u16 {
        let (head, body) = call_in_full(self.running.ingress, &self.known, event).unwrap();
        let status = head[9..12].parse().unwrap();
        if status == 200 {
            self.acknowledged.lock().unwrap().events.insert(event.to_owned(), self.known.clone());
        } else {
            assert!(status == 503 && body.contains("store_unavailable"), "{head} {body}");
            assert!(head.contains("\r\nretry-after: "), "{head}");
        }
        status
    }

    fn delivered(&self, event: &str) -> usize {
        deliveries(&self.agent).get(event).copied().unwrap_or_default()
    }

    fn status(&self, path: &str) -> u16 {
        try_send(self.running.admin, "GET", path, "", "").unwrap().0
    }

    fn failed(&self) -> bool {
        let (_, page) = try_send(self.running.admin, "GET", "/metrics", "", "").unwrap();
        page.contains("\ncallgate_store_failed 1\n")
    }

    fn mint(&self) -> u16 {
        let wanted = r#"{"route":"doc","params":{"id":"a"}}"#;
        let (head, body) = try_send_in_full(self.running.admin, "POST", "/callbacks", "", wanted).unwrap();
        let status = head[9..12].parse().unwrap();
        if status != 201 {
            assert!(status == 503 && body.contains("store_unavailable"), "{head} {body}");
            assert!(head.contains("\r\nretry-after: "), "{head}");
        }
        status
    }

    /// Nothing new is taken, and everybody is told.
    fn is_down(&self) {
        eventually(|| (self.status("/readyz") == 503).then_some(()));
        for (method, path) in [("GET", "/readyz"), ("GET", "/readyz?verbose"), ("DELETE", REVOKED)] {
            let (head, _) = try_send_in_full(self.running.admin, method, path, "", "").unwrap();
            assert!(
                head.starts_with("http/1.1 503 ") && head.contains("\r\nretry-after: "),
                "{path}: {head}"
            );
        }
        eventually(|| self.failed().then_some(()));
        for n in 0..3 {
            let event = format!("while-down-{n}");
            assert_eq!(self.call(&event), 503);
            assert_eq!(self.delivered(&event), 0);
            assert_eq!(self.mint(), 503);
        }
    }

    /// It is as it was before; what was delivered and not acknowledged is known.
    fn is_up_again(&self, delivered: &[&str]) {
        eventually(|| (self.status("/readyz") == 200).then_some(()));
        assert!(!self.failed());
        eventually(|| self.running.said.lock().unwrap().contains("is written again").then_some(()));
        for event in delivered {
            assert_eq!(self.call(event), 200);
            assert_eq!(self.delivered(event), 1, "{event}");
        }
        for n in 0..3 {
            let event = format!("while-down-{n}");
            assert_eq!(self.call(&event), 200);
            assert_eq!(self.delivered(&event), 1);
        }
        assert_eq!(self.mint(), 201);
    }

    /// Everything that was acknowledged is known to a process that is started anew.
    fn keeps_what_it_acknowledged(self) {
        self.running.kill();
        let running = Running::start(&self.path);
        assert!(verify(&running, &self.acknowledged.into_inner().unwrap(), &self.agent) > 0);
        running.kill();
        assert!(!self.folder.path().join("ledger.new").exists());
    }
}

#[test]
fn a_disk_that_fails_is_said_and_heals_without_a_restart() {
    for word in ["eio-write", "eio-sync", "enospc"] {
        let world = World::new();
        for n in 0..20 {
            assert_eq!(world.call(&format!("before-{n}")), 200);
        }
        // Twice: what healed once is no worse for it.
        for time in 0..2 {
            world.disk(word);
            let caught = format!("caught-{time}");
            assert_eq!(world.call(&caught), 503, "{word}");
            assert_eq!(world.delivered(&caught), 1, "the disk was well when it came");
            if time == 0 {
                world.is_down();
            }
            assert_eq!(world.status("/livez"), 200, "a restart does not mend a disk");
            world.disk("off");
            world.is_up_again(&[&caught]);
        }
        // The commit that failed is no sign of a damaged file.
        let said = world.running.said.lock().unwrap().clone();
        assert!(said.contains("cannot be written") && !said.contains("was discarded"), "{word}: {said}");
        world.keeps_what_it_acknowledged();
    }
}

#[test]
fn another_process_does_not_get_the_file_while_it_is_mended() {
    let world = World::new();
    for word in ["eio-sync", "enospc"] {
        world.disk(word);
        assert_eq!(world.call(&format!("caught-{word}")), 503);
        world.disk("off");
        world.is_up_again(&[]);
        let mut second = Command::new(env!("CARGO_BIN_EXE_callgate"));
        second.args(["run", "-c"]).arg(&world.path);
        second.env("TOKEN_KEY", "0123456789abcdef0123456789abcdef");
        second.env("SECRET", "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=");
        let second = second.output().unwrap();
        let said = String::from_utf8(second.stderr).unwrap();
        assert!(!second.status.success() && said.contains("another process uses it"), "{word}: {said}");
    }
    world.keeps_what_it_acknowledged();
}

#[test]
fn a_disk_that_hangs_is_said_and_holds_nobody_for_long() {
    let world = World::new();
    assert_eq!(world.call("before"), 200);
    world.disk("hang");
    assert_eq!(world.call("caught"), 503);
    world.is_down();
    assert_eq!(world.status("/livez"), 200);
    world.disk("off");
    world.is_up_again(&["caught"]);
    // Asked to stop, it waits for the disk no longer than for anything else.
    world.disk("hang");
    assert_eq!(world.call("caught again"), 503);
    let mut running = world.running;
    let pid = running.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    eventually(|| running.child.try_wait().unwrap());
}

/// Another file at the path, as another process or an operator would put there, is neither overwritten nor ignored.
#[test]
fn a_file_that_was_replaced_is_not_overwritten() {
    for word in ["eio-sync", "eio-write", "enospc"] {
        let world = World::new();
        assert_eq!(world.call("before"), 200);
        let (ledger, other) = (world.folder.path().join("ledger"), world.folder.path().join("other"));
        fs::write(&other, "the file of somebody else").unwrap();
        fs::rename(&other, &ledger).unwrap();
        world.disk(word);
        assert_eq!(world.call("caught"), 503, "{word}");
        eventually(|| (world.status("/livez") == 503).then_some(()));
        world.disk("off");
        world.is_down();
        assert!(world.running.said.lock().unwrap().contains("another process has replaced it"), "{word}");
        assert_eq!(fs::read(&ledger).unwrap(), b"the file of somebody else", "{word}");
        assert!(!world.folder.path().join("ledger.new").exists(), "{word}");
    }
}

#[test]
fn a_file_that_was_removed_is_written_again_from_memory() {
    for word in ["eio-sync", "enospc"] {
        let world = World::new();
        assert_eq!(world.call("before"), 200);
        fs::remove_file(world.folder.path().join("ledger")).unwrap();
        world.disk(word);
        assert_eq!(world.call("caught"), 503, "{word}");
        world.is_down();
        world.disk("off");
        world.is_up_again(&["caught"]);
        world.keeps_what_it_acknowledged();
    }
}

#[test]
fn a_symbolic_link_to_the_file_stays_and_its_target_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (volume, link) = (folder.path().join("volume"), folder.path().join("ledger"));
    fs::create_dir(&volume).unwrap();
    // The link dangles until the file is created.
    std::os::unix::fs::symlink("volume/ledger-1", &link).unwrap();
    let world = World::over(folder, Agent::start(ANSWER));
    for word in ["eio-sync", "enospc"] {
        let before = fs::metadata(volume.join("ledger-1")).unwrap().ino();
        world.disk(word);
        let caught = format!("caught-{word}");
        assert_eq!(world.call(&caught), 503);
        if word == "eio-sync" {
            world.is_down();
        }
        world.disk("off");
        world.is_up_again(&[&caught]);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("volume/ledger-1"));
        let after = fs::metadata(volume.join("ledger-1")).unwrap().ino();
        assert_eq!(before == after, word == "enospc", "a failed sync leads to a new file: {word}");
    }
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 1);
    world.keeps_what_it_acknowledged();
}

/// The ids of the notices that the agent received.
fn notices(agent: &Agent) -> Vec<String> {
    let received = agent.received();
    let notices = received.iter().filter(|request| !request.header("callgate-notice").is_empty());
    notices.map(|notice| notice.header("callgate-interaction")[0].to_owned()).collect()
}

#[test]
fn a_mint_that_the_disk_refused_leads_to_no_notice() {
    let (folder, agent) = (tempfile::tempdir().unwrap(), Agent::start(ANSWER));
    let path = config(folder.path(), &agent);
    let text = fs::read_to_string(&path).unwrap();
    let followed = text
        .replace("\"/in/{id}\"", "\"/in/{id}\", interaction: { deadline: 3s, notify: \"/overdue/{id}\" }");
    assert_ne!(text, followed);
    fs::write(&path, followed).unwrap();
    let world = World::configured(folder, agent, path);
    world.disk("hang");
    assert_eq!(world.mint(), 503);
    eventually(|| (world.status("/readyz") == 503).then_some(()));
    world.disk("off");
    eventually(|| (world.status("/readyz") == 200).then_some(()));
    let load = Load {
        running: &world.running,
        acknowledged: &world.acknowledged,
        operations: &AtomicUsize::new(0),
        round: 0,
    };
    let later = load.mint().unwrap();
    let states = || {
        let (_, body) = try_send(world.running.admin, "GET", "/callbacks", "", "").unwrap();
        let page: serde_json::Value = serde_json::from_str(&body).unwrap();
        let interactions = page["interactions"].as_array().unwrap().iter();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        interactions.map(|one| (text(&one["interaction"]), text(&one["state"]))).collect::<BTreeMap<_, _>>()
    };
    let is_refused = |id: &String| *id != world.known.id && *id != later.id;
    let refused: Vec<_> = states().into_iter().filter(|(id, _)| is_refused(id)).collect();
    assert!(!refused.is_empty() && refused.iter().all(|(_, state)| state == "not_sent"), "{refused:?}");
    // Deadlines pass in their order: the notice of the interaction that was minted last comes last.
    eventually(|| notices(&world.agent).contains(&later.id).then_some(()));
    let notices = notices(&world.agent);
    assert!(!notices.iter().any(is_refused), "{notices:?}");
}

/// Puts ones of a power cut's making in place of what was written since the last sync: each sector is as it was after
/// some write, or before them all. Returns whether that undid a write.
pub fn cut_the_power(ledger: &Path, undo: &Path, mut random: u64) -> bool {
    let (Ok(mut file), Ok(log)) = (OpenOptions::new().write(true).open(ledger), fs::read(undo)) else {
        return false;
    };
    let mut undid = false;
    let inode = file.metadata().unwrap().ino();
    let mut sectors: BTreeMap<u64, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
    let mut rest = log.as_slice();
    while rest.len() >= 24 {
        let number = |at: usize| u64::from_ne_bytes(rest[8 * at..8 * at + 8].try_into().unwrap());
        let (whose, mut offset, length) = (number(0), number(1), usize::try_from(number(2)).unwrap());
        // The last one may have been cut off by the kill: then its write did not happen.
        let Some(mut former) = rest.get(24..24 + length) else { break };
        rest = &rest[24 + length..];
        while whose == inode && !former.is_empty() {
            let left = usize::try_from(512 - offset % 512).unwrap().min(former.len());
            sectors.entry(offset / 512).or_default().push((offset, former[..left].to_vec()));
            former = &former[left..];
            offset += left as u64;
        }
    }
    for writes in sectors.into_values() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let kept = usize::try_from(random % (writes.len() as u64 + 1)).unwrap();
        for (offset, former) in writes[kept..].iter().rev() {
            file.seek(SeekFrom::Start(*offset)).unwrap();
            file.write_all(former).unwrap();
            undid = true;
        }
    }
    undid
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (library, undo) = (build(folder.path()), folder.path().join("undo"));
    let ledger = folder.path().join("ledger");
    let environment: [(&str, &Path); 2] = [("LD_PRELOAD", &library), ("DISK_UNDO", &undo)];
    let mut cut = 0;
    kill_again_and_again(&environment, folder.path(), |round| {
        cut += usize::from(cut_the_power(&ledger, &undo, 0x9e37_79b9_7f4a_7c15 ^ (round as u64 + 1)));
    });
    println!("{cut} power cuts undid writes that no sync had made durable");
    assert!(cut > 0, "no power cut undid a write, so this test has proved nothing");
}

/// Makes a ledger that is larger than what is kept in memory of its file. Returns the ids.
fn fill(path: &Path) -> Vec<String> {
    let text = crate::ledger::config("127.0.0.1:1", &format!("{{ kind: file, path: {} }}", path.display()));
    let config = parse(&text);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let now = Clock::System.now();
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Arc::new(Store::start(&config.startup.store, metrics, instant, now).unwrap());
    let wide = "a".repeat(255);
    let ids: Vec<_> = (0..50_000).map(|n| format!("int_{n:026}")).collect();
    runtime.block_on(async {
        let mut opening = tokio::task::JoinSet::new();
        for id in &ids {
            let request = MintRequest { route: "doc", parameters: &[("id", &wide)], ttl: None, uses: None };
            let minted = config.policy.mint(&request, id, now).unwrap();
            let store = Arc::clone(&store);
            opening.spawn(async move { store.open(&minted, now).await });
        }
        while let Some(opened) = opening.join_next().await {
            opened.unwrap().unwrap();
        }
    });
    store.close();
    ids
}

#[test]
fn a_file_that_is_damaged_while_it_is_used_is_written_again_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger");
    let ids = fill(&ledger);
    let world = World::over(folder, Agent::start(ANSWER));
    assert_eq!(world.status("/livez"), 200);
    // Somebody writes over the file.
    let bytes = fs::metadata(&ledger).unwrap().len();
    let mut file = OpenOptions::new().write(true).open(&ledger).unwrap();
    file.seek(SeekFrom::Start(4096)).unwrap();
    file.write_all(&vec![0; usize::try_from(bytes).unwrap() - 4096]).unwrap();
    // Sooner or later the writer reads a page that is not in memory. It then refuses until the file is complete again.
    let said = || world.running.said.lock().unwrap().contains("is written again");
    let mut revoked = Vec::new();
    for id in ids.iter().step_by(997) {
        if said() {
            break;
        }
        let path = format!("/callbacks/{id}");
        eventually(|| {
            (try_send(world.running.admin, "DELETE", &path, "", "").unwrap().0 == 204).then_some(())
        });
        revoked.push(id);
    }
    eventually(|| said().then_some(()));
    assert_eq!((world.status("/livez"), world.mint()), (200, 201));
    let (path, _folder) = (world.path.clone(), world.folder);
    world.running.kill();
    let running = Running::start(&path);
    for id in ids.iter().step_by(97).chain(revoked.clone()) {
        let (status, body) = try_send(running.admin, "GET", &format!("/callbacks/{id}"), "", "").unwrap();
        let is_revoked = body.contains("\"revoked\"");
        assert!(status == 200 && is_revoked == revoked.contains(&id), "{id}: {status} {body}");
    }
}
