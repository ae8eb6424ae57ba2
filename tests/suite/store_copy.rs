//! `callgate store copy`: a ledger is copied between files and servers, and everything that it knew holds afterwards.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use callgate::clock::{Clock, instant};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::engine::Engine;
use crate::environment::env;
use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, Response, eventually, read_request, send_to};
use crate::process::binary;

/// A configuration with one of the stores, and the agent and the provider of all of them.
pub struct World {
    folder: tempfile::TempDir,
    pub agent: Agent,
    /// The server that receives answers to questions.
    asker: Agent,
    provider: TcpListener,
}

impl World {
    pub fn new() -> Self {
        let (folder, provider) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        Self { folder, agent: Agent::start(ANSWER), asker: Agent::start(ANSWER), provider }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the section `store` for a file.
    pub fn file(&self, name: &str) -> String {
        format!("store: {{ kind: file, path: \"{}\" }}\n", self.path(name).display())
    }

    fn config(&self, store: &str) -> String {
        // Only a ledger in a file keeps callbacks.
        let inbox = if store.contains("kind: file") { "deliver: inbox" } else { "" };
        format!(
            "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
callback_tokens: {{ form: opaque, ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
shutdown: {{ delay: 0s, grace: 5s }}
{store}
providers:
  hub: {{ preset: github, secrets: [ {{ env: HMAC_SECRET }} ] }}
routes:
  - {{ name: jobs, path: \"/jobs/{{id}}\", token: {{ kind: callback }}, forward: \"/in/{{id}}\", interaction: {{ status: /status, done: [done], failed: [failed], deadline: 1h, notify: /notice }}, actions: {{ pointer: /ask, hosts: [127.0.0.1] }} }}
  - {{ name: short, path: \"/short/{{id}}\", token: {{ kind: callback }}, forward: \"/in/{{id}}\", interaction: {{ status: /status, done: [done], deadline: 1s, notify: /notice }} }}
  - {{ name: kept, path: /kept, provider: hub, forward: /kept, {inbox} }}
  - {{ name: hook, path: /hook, provider: hub, forward: /hook }}
  - {{ name: account, path: /account, provider: hub, forward: /account, interaction: {{ match: {{ provider_id: /id }}, unmatched: refuse, status: /status, done: [done], deadline: 1h, notify: /notice }} }}
egress:
  - {{ name: account, path: /start, target: \"http://{}/start\", inject: {{ route: account, response: /id }} }}
",
            self.agent.address,
            self.provider.local_addr().unwrap()
        )
    }

    pub fn start(&self, store: &str) -> Callgate {
        Callgate::start(&self.config(store), Clock::System)
    }

    /// Writes the configuration of a store. Returns its path.
    pub fn written(&self, store: &str) -> PathBuf {
        let name = callgate::random::new_id("config_").unwrap();
        let path = self.path(&name);
        std::fs::write(&path, self.config(store)).unwrap();
        path
    }

    /// Runs `callgate store` with arguments.
    pub fn run(arguments: &[&str]) -> (i32, String) {
        let variables = ["TOKEN_KEY", "HMAC_SECRET"].map(|name| (name, env(name).unwrap()));
        let Output { status, stdout, stderr } =
            Command::new(binary()).arg("store").args(arguments).envs(variables).output().unwrap();
        let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
        (status.code().unwrap(), text)
    }

    pub fn copy(&self, from: &str, to: &str, more: &[&str]) -> (i32, String) {
        let (from, to) = (self.written(from), self.written(to));
        let arguments = ["copy", "--from", text(&from), "--to", text(&to)];
        Self::run(&[&arguments[..], more].concat())
    }

    /// Copies a ledger. Returns the report.
    fn copied(&self, from: &str, to: &str) -> Value {
        let (code, output) = self.copy(from, to, &["--json"]);
        assert_eq!(code, 0, "{output}");
        serde_json::from_str(&output).unwrap()
    }

    /// Sends a request of the agent whose response contains the provider's id. Returns the interaction.
    fn started(&self, callgate: &Callgate, id: &str) -> String {
        let mut agent = TcpStream::connect(callgate.egress.unwrap()).unwrap();
        agent.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(agent, "POST /start HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{{}}").unwrap();
        let (mut provider, _) = self.provider.accept().unwrap();
        read_request(&mut provider, &mut Vec::new()).unwrap();
        let body = format!("{{\"id\":\"{id}\"}}");
        let length = body.len();
        write!(
            provider,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let response = Response::read(&mut agent);
        response.header("callgate-interaction").unwrap().to_owned()
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn mint(callgate: &Callgate, route: &str, more: &str) -> (String, String) {
    let wanted = format!(r#"{{"route":"{route}","params":{{"id":"a"}}{more}}}"#);
    let minted = callgate.admin_send("POST", "/callbacks", &wanted);
    assert_eq!(minted.status, 201, "{}", minted.text());
    let minted = minted.json();
    let member = |name: &str| minted[name].as_str().unwrap().to_owned();
    (member("interaction"), member("callback_token"))
}

pub fn callback(callgate: &Callgate, token: &str, body: &str) -> u16 {
    let token = format!("Bearer {token}");
    let headers = [("authorization", &*token), ("content-type", "application/json")];
    send_to(callgate.ingress, "POST", "/jobs/a", &headers, body.as_bytes()).status
}

/// Sends a signed webhook. Returns its status, and the reason in the access log.
fn webhook(callgate: &Callgate, path: &str, event: &str, body: &str) -> u16 {
    let mut mac = Hmac::<Sha256>::new_from_slice(env("HMAC_SECRET").unwrap().as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = format!("sha256={}", data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes()));
    let headers = [
        ("x-hub-signature-256", &*signature),
        ("x-github-delivery", event),
        ("x-github-event", "issues"),
        ("content-type", "application/json"),
    ];
    send_to(callgate.ingress, "POST", path, &headers, body.as_bytes()).status
}

fn state(callgate: &Callgate, interaction: &str) -> Value {
    callgate.admin_get(&format!("/callbacks/{interaction}")).json()
}

/// What the ledger knows before it is copied.
struct Known {
    two_left: (String, String),
    done: (String, String),
    revoked: (String, String),
    asking: (String, String),
    matched: String,
    late: String,
}

impl Known {
    fn in_ledger(world: &World, callgate: &Callgate) -> Self {
        let two_left = mint(callgate, "jobs", r#","uses":3"#);
        assert_eq!(callback(callgate, &two_left.1, r#"{"status":"working"}"#), 200);
        let done = mint(callgate, "jobs", "");
        assert_eq!(callback(callgate, &done.1, r#"{"status":"done"}"#), 200);
        let revoked = mint(callgate, "jobs", "");
        assert_eq!(callgate.admin_send("DELETE", &format!("/callbacks/{}", revoked.0), "").status, 204);
        let asking = mint(callgate, "jobs", "");
        let ask = format!(r#"{{"status":"working","ask":"http://{}/answer"}}"#, world.asker.address);
        assert_eq!(callback(callgate, &asking.1, &ask), 200);
        let matched = world.started(callgate, "job-1");
        assert_eq!(webhook(callgate, "/account", "m1", r#"{"id":"job-1","status":"working"}"#), 200);
        assert_eq!(webhook(callgate, "/hook", "h1", "{}"), 200);
        let late = mint(callgate, "short", "").0;
        Self { two_left, done, revoked, asking, matched, late }
    }

    /// Checks that the ledger knows everything, and uses it up.
    fn holds(&self, world: &World, callgate: &Callgate) {
        let before = world.agent.received().len();
        let delivered = |target: &str| {
            let received = world.agent.received();
            received[before..].iter().filter(|request| request.target() == target).count()
        };
        // The opaque token is known, and so are its uses.
        let states: Vec<_> = (0..3)
            .map(|number| callback(callgate, &self.two_left.1, &format!(r#"{{"status":"n{number}"}}"#)))
            .collect();
        assert_eq!(states, [200, 200, 410]);
        assert_eq!(callback(callgate, &self.done.1, r#"{"status":"more"}"#), 410);
        assert_eq!(callback(callgate, &self.revoked.1, r#"{"status":"more"}"#), 410);
        assert_eq!(state(callgate, &self.done.0)["state"], "done");
        assert_eq!(state(callgate, &self.revoked.0)["state"], "revoked");
        assert_eq!(state(callgate, &self.asking.0)["state"], "asking");
        assert_eq!(callgate.agent_sends(&format!("/actions/{}", self.asking.0), "{}").status, 200);
        // The event of the matched interaction was delivered, and a new one is not.
        assert_eq!(state(callgate, &self.matched)["provider_id"], "job-1");
        let body = r#"{"id":"job-1","status":"working"}"#;
        assert_eq!(webhook(callgate, "/account", "m1", body), 200);
        assert_eq!(delivered("/account"), 0, "a duplicate");
        assert_eq!(webhook(callgate, "/account", "m2", body), 200);
        assert_eq!(delivered("/account"), 1);
        // So was the event without an interaction.
        assert_eq!(webhook(callgate, "/hook", "h1", "{}"), 200);
        assert_eq!(delivered("/hook"), 0, "a duplicate");
        assert_eq!(webhook(callgate, "/hook", "h2", "{}"), 200);
        assert_eq!(delivered("/hook"), 1);
        eventually(|| (delivered("/notice") == 1).then_some(()));
        assert_eq!(state(callgate, &self.late)["state"], "expired");
    }
}

/// Fills a ledger, copies it, and uses the copy.
fn moves(world: &World, stores: &[&str]) {
    let known = {
        let callgate = world.start(stores[0]);
        Known::in_ledger(world, &callgate)
    };
    for pair in stores.windows(2) {
        let report = world.copied(pair[0], pair[1]);
        assert_eq!(report["interactions"]["added"], 6, "{report}");
        assert_eq!(
            (&report["provider_ids"], &report["not_copied"]["events"]),
            (&json!(1), &json!(0)),
            "{report}"
        );
        let again = world.copied(pair[0], pair[1]);
        assert_eq!(again["interactions"]["unchanged"], 6, "{again}");
        assert_eq!(again["events"], report["events"], "{again}");
    }
    known.holds(world, &world.start(stores.last().unwrap()));
}

#[test]
fn a_ledger_moves_between_files_and_servers() {
    let (redis, valkey) = (Engine::start("redis-server", &[]), Engine::start("valkey-server", &[]));
    let prefixed = |engine: &Engine, prefix: &str| engine.store(&format!(", prefix: {prefix}"));
    let world = World::new();
    let (a, b) = (world.file("a"), world.file("b"));
    moves(&world, &[&a, &b]);
    let world = World::new();
    moves(&world, &[&world.file("a"), &redis.store("")]);
    let world = World::new();
    moves(&world, &[&valkey.store(""), &world.file("a")]);
    let world = World::new();
    moves(&world, &[&prefixed(&redis, "x"), &prefixed(&valkey, "y")]);
    // From a file over both servers to another file.
    let world = World::new();
    let (a, b) = (world.file("a"), world.file("b"));
    moves(&world, &[&a, &prefixed(&redis, "p"), &prefixed(&valkey, "q"), &b]);
}

/// Calls `check` for two targets of a copy: a ledger in a file, and a ledger on Redis. The source is in a file. The
/// arguments are the world, the section `store` of the source and of the target, and the kind of the target.
fn in_both_stores(check: impl Fn(&World, &str, &str, &str)) {
    let engine = Engine::start("redis-server", &[]);
    for (target, to) in [("file", None), ("redis", Some(engine.store("")))] {
        let world = World::new();
        check(&world, &world.file("a"), &to.unwrap_or_else(|| world.file("b")), target);
    }
}

#[test]
fn a_newer_record_is_not_overwritten() {
    in_both_stores(|world, from, to, target| {
        let (used_here, used_there, used_in_both) = {
            let callgate = world.start(from);
            let uses = r#","uses":5"#;
            (mint(&callgate, "jobs", uses), mint(&callgate, "jobs", uses), mint(&callgate, "jobs", uses))
        };
        world.copied(from, to);
        let working = r#"{"status":"working"}"#;
        {
            let callgate = world.start(to);
            assert_eq!(callback(&callgate, &used_there.1, r#"{"status":"done"}"#), 200);
            assert_eq!(callback(&callgate, &used_in_both.1, working), 200);
        }
        {
            let callgate = world.start(from);
            assert_eq!(callback(&callgate, &used_here.1, working), 200);
            let path = format!("/callbacks/{}", used_in_both.0);
            assert_eq!(callgate.admin_send("DELETE", &path, "").status, 204);
        }
        let report = world.copied(from, to);
        let expected = json!({ "added": 0, "updated": 1, "unchanged": 0, "newer": 1, "merged": 1 });
        assert_eq!(report["interactions"], expected, "{target}");
        let callgate = world.start(to);
        assert_eq!(state(&callgate, &used_there.0)["state"], "done");
        assert_eq!(state(&callgate, &used_here.0)["uses_left"], 4);
        let both = state(&callgate, &used_in_both.0);
        assert_eq!((&both["state"], &both["uses_left"]), (&json!("revoked"), &json!(4)));
    });
}

#[test]
fn events_of_both_ledgers_are_known_after_a_repeated_copy() {
    in_both_stores(|world, from, to, target| {
        let body = r#"{"id":"job-1","status":"working"}"#;
        let send = |callgate: &Callgate, event: &str| webhook(callgate, "/account", event, body);
        {
            let callgate = world.start(from);
            world.started(&callgate, "job-1");
        }
        world.copied(from, to);
        assert_eq!(send(&world.start(from), "m1"), 200);
        // The target delivers its event later, so its record counts as the newer one.
        assert_eq!(send(&world.start(to), "m2"), 200);
        for _ in 0..2 {
            assert_eq!(world.copied(from, to)["interactions"]["newer"], 1, "{target}");
        }
        let callgate = world.start(to);
        let before = world.agent.received().len();
        for event in ["m1", "m2"] {
            assert_eq!(send(&callgate, event), 200);
        }
        assert_eq!(world.agent.received().len(), before, "{target}: a repetition was delivered");
    });
}

#[test]
fn a_ledger_that_is_used_is_not_copied() {
    let engine = Engine::start("redis-server", &[]);
    let world = World::new();
    let (file, shared) = (world.file("a"), engine.store(""));
    drop(world.start(&file));
    for (from, to, used) in [(&file, &shared, &file), (&file, &shared, &shared), (&shared, &file, &shared)] {
        let callgate = world.start(used);
        let (code, output) = world.copy(from, to, &[]);
        assert_eq!(code, 69, "{output}");
        assert!(output.contains("stop"), "{output}");
        // The process still works.
        mint(&callgate, "jobs", "");
    }
    let (code, output) = world.copy(&file, &file, &[]);
    assert_eq!((code, output.contains("the same ledger")), (64, true), "{output}");
    let (code, output) = world.copy(&shared, &shared, &[]);
    assert_eq!((code, output.contains("the same ledger")), (64, true), "{output}");
    let (code, output) = world.copy("store: { kind: memory }", &file, &[]);
    assert_eq!((code, output.contains("in memory")), (64, true), "{output}");
    let (code, output) = world.copy(&world.file("missing"), &file, &[]);
    assert_eq!((code, output.contains("does not exist")), (64, true), "{output}");
    assert!(!world.path("missing").exists());
}

#[test]
fn kept_callbacks_are_copied_to_a_file_and_nothing_is_lost_silently() {
    let engine = Engine::start("redis-server", &[]);
    let world = World::new();
    let (from, to, shared) = (world.file("a"), world.file("b"), engine.store(""));
    let messages =
        |callgate: &Callgate| callgate.admin_get("/inbox").json()["messages"].as_array().unwrap().len();
    {
        let callgate = world.start(&from);
        world.agent.answers(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(webhook(&callgate, "/kept", "k1", "{}"), 202);
        assert_eq!(webhook(&callgate, "/kept", "k2", "{\"a\":1}"), 202);
        mint(&callgate, "jobs", "");
        assert_eq!(messages(&callgate), 2);
    }
    let (code, output) = world.copy(&from, &shared, &[]);
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("2 messages of the inbox") && output.contains("--allow-loss"), "{output}");
    assert!(engine.keys("*i:*").is_empty(), "nothing was copied");
    let (code, output) = world.copy(&from, &shared, &["--allow-loss"]);
    assert_eq!((code, output.contains("not copied: 2 messages of the inbox")), (0, true), "{output}");
    assert_eq!(engine.keys("*i:*").len(), 1);
    let report = world.copied(&from, &to);
    assert_eq!((&report["messages"], &report["interactions"]["added"]), (&json!(2), &json!(1)), "{report}");
    world.agent.answers(ANSWER);
    let kept = || {
        let received = world.agent.received().into_iter().filter(|request| request.target() == "/kept");
        received.map(|request| String::from_utf8(request.body).unwrap()).collect::<Vec<_>>()
    };
    let before = kept().len();
    {
        let callgate = world.start(&to);
        eventually(|| (kept().len() >= before + 2).then_some(()));
        eventually(|| {
            let all = callgate.admin_get("/inbox").json();
            all["messages"].as_array().unwrap().iter().all(|one| one["state"] == "delivered").then_some(())
        });
        assert_eq!(webhook(&callgate, "/kept", "k1", "{}"), 200, "a duplicate");
    }
    let after = kept();
    assert!(after.contains(&"{\"a\":1}".to_owned()), "the bodies were copied");
    // Another copy brings no message back that was delivered meanwhile.
    assert_eq!(world.copied(&from, &to)["messages"], 0);
    drop(world.start(&to));
    assert_eq!(kept().len(), after.len());
}

#[test]
fn a_process_that_was_killed_does_not_block_a_copy() {
    let engine = Engine::start("redis-server", &[]);
    let world = World::new();
    let shared = engine.store("");
    let callgate = world.start(&shared);
    let (_, token) = mint(&callgate, "jobs", "");
    callgate.kill();
    let began = instant();
    let report = world.copied(&shared, &world.file("a"));
    assert_eq!(report["interactions"]["added"], 1, "{report} after {:?}", began.elapsed());
    assert_eq!(callback(&world.start(&world.file("a")), &token, "{}"), 200);
}
