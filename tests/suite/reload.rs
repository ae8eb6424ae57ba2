//! Reloads of the real process: a configuration is applied completely or not at all, no request receives a wrong
//! answer, and the result of the reload is visible.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::harness::{ANSWER, Agent, PATIENCE, Response, eventually, open_config, send_to};
use crate::process::Process;
use crate::tls::{authority, issued};

/// Number of reloads. `CALLGATE_RELOADS` sets another number.
const RELOADS: usize = 200;

/// Returns a configuration with one signed route. `secrets` are names of files in the folder.
fn config(agent: &str, folder: &Path, secrets: &[&str], more: &str) -> String {
    let secrets: Vec<_> =
        secrets.iter().map(|name| format!("{{ file: {} }}", folder.join(name).display())).collect();
    format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\" }}
providers:
  p: {{ signature: {{ scheme: hmac, algorithm: sha256, header: x-sig, content: \"{{body}}\", encoding: hex, secrets: [ {} ] }} }}
routes:
  - {{ name: r, path: /r, provider: p, duplicates: deliver, forward: /in/r }}
{more}",
        secrets.join(", ")
    )
}

/// Returns the state of the configuration as the process reports it.
fn told(process: &Process) -> Value {
    send_to(process.admin, "GET", "/readyz?verbose", &[], b"").json()["config"].clone()
}

fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes())
}

fn call(stream: &mut TcpStream, path: &str, secret: &str) -> u16 {
    let signature = sign(secret, b"{}");
    write!(stream, "POST {path} HTTP/1.1\r\nhost: h\r\nx-sig: {signature}\r\ncontent-length: 2\r\n\r\n{{}}")
        .unwrap();
    Response::read(stream).status
}

fn connect(process: &Process) -> TcpStream {
    let stream = TcpStream::connect(process.ingress[0]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Creates valid and invalid configurations for a series of reloads.
struct Series {
    agent: String,
    at: PathBuf,
}

impl Series {
    const ALWAYS: &str = "the secret that stays, always";

    fn new(agent: &Agent, at: &Path) -> Self {
        for (name, secret) in
            [("always", Self::ALWAYS), ("even", "even, sixteen bytes"), ("odd", "odd, sixteen bytes")]
        {
            fs::write(at.join(name), secret).unwrap();
        }
        Self { agent: agent.address.to_string(), at: at.to_owned() }
    }

    /// Returns a valid configuration. The permanent secret is first or second in turn, and a route is added and removed
    /// in turn.
    fn good(&self, i: usize) -> String {
        let secrets: &[&str] = if i.is_multiple_of(2) { &["even", "always"] } else { &["always", "odd"] };
        let extra =
            "  - { name: extra, path: /extra, provider: p, duplicates: deliver, forward: /in/extra }\n";
        let more = if i.is_multiple_of(2) { extra } else { "" };
        format!("reload: signal\n{}", config(&self.agent, &self.at, secrets, more))
    }

    fn bad(&self, i: usize) -> String {
        let text = self.good(i);
        match i % 8 {
            0 => text.replace("routes:", "ruotes:"),
            1 => text[..text.len() / 2].to_owned(),
            2 => String::new(),
            3 => text.replace("/always", "/missing"),
            4 => text.replace("127.0.0.1:0 } ]", "127.0.0.1:1 } ]"),
            5 => text.replace("scheme: hmac", "scheme: hmca"),
            6 => format!("store: {{ kind: file, path: {} }}\n{text}", self.at.join("new.db").display()),
            _ => text.replace("listen:", "listen:\u{0}"),
        }
    }

    /// Reloads with this text, waits for the result, and returns the state of the configuration.
    fn reload(&self, process: &Process, text: &str, is_bad: bool) -> Value {
        let before = told(process);
        fs::write(self.at.join("callgate.yaml"), text).unwrap();
        process.signal("HUP");
        let after = eventually(|| {
            let after = told(process);
            let key = if is_bad { "refused" } else { "generation" };
            (after[key] != before[key]).then_some(after)
        });
        assert_eq!(after["refused"].is_object(), is_bad, "{after}");
        if is_bad {
            assert_eq!(after["version"], before["version"], "the last good one goes on");
            assert!(!after["refused"]["errors"][0].as_str().unwrap().is_empty(), "{after}");
        }
        after
    }

    /// Verifies that the secrets and routes are those of the new configuration.
    fn look(&self, process: &Process, i: usize) {
        let mut stream = connect(process);
        let even = i.is_multiple_of(2);
        let (known, gone) = if even { ("even", "odd") } else { ("odd", "even") };
        let secret = |name: &str| fs::read_to_string(self.at.join(name)).unwrap();
        let statuses = [
            call(&mut stream, "/r", &secret(known)),
            call(&mut stream, "/r", &secret(gone)),
            call(&mut stream, "/extra", Self::ALWAYS),
        ];
        assert_eq!(statuses, [200, 401, if even { 200 } else { 404 }], "{i}");
    }
}

/// Sets the flag when it is dropped, so that the other threads end even if the test fails.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Clients that expect the same responses under every configuration.
#[derive(Default)]
struct Callers {
    done: AtomicBool,
    asked: AtomicUsize,
    wrong: AtomicUsize,
}

impl Callers {
    /// Calls until the flag is set. With `anew`, each call uses a new connection.
    fn call(&self, process: &Process, anew: bool) {
        let mut stream = connect(process);
        while !self.done.load(Ordering::Relaxed) {
            let forged = self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(3);
            let (secret, right) = if forged { ("guessed", 401) } else { (Series::ALWAYS, 200) };
            if anew {
                stream = connect(process);
            }
            if call(&mut stream, "/r", secret) != right {
                self.wrong.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a longer run is asked for by the environment")]
fn reloads_under_load_every_second_one_bad() {
    let reloads = std::env::var("CALLGATE_RELOADS").map_or(RELOADS, |text| text.parse().unwrap());
    let agent = Agent::start(ANSWER);
    let folder = tempfile::tempdir().unwrap();
    let series = Series::new(&agent, folder.path());
    let process = Process::start_in(folder, &series.good(1));
    let callers = Callers::default();
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (process, callers) = (&process, &callers);
            scope.spawn(move || callers.call(process, client == 0));
        }
        let _done = Done(&callers.done);
        for i in 0..reloads / 2 {
            series.reload(&process, &series.good(i), false);
            series.look(&process, i);
            series.reload(&process, &series.bad(i), true);
        }
    });
    let (asked, wrong) = (callers.asked.into_inner(), callers.wrong.into_inner());
    println!("{reloads} reloads, {asked} requests, {wrong} wrong answers");
    assert!(wrong == 0 && asked > reloads, "{wrong} of {asked}");
    let metrics = send_to(process.admin, "GET", "/metrics", &[], b"").text();
    for line in [
        format!("callgate_config_reloads_total{{outcome=\"ok\"}} {}", reloads / 2),
        format!("callgate_config_reloads_total{{outcome=\"refused\"}} {}", reloads / 2),
        format!("callgate_config_generation {}", reloads / 2 + 1),
        "callgate_config_reload_failed 1".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

/// Returns the fingerprints that the process reports, in the order of the paths in the configuration.
fn fingerprints(process: &Process, headers: &[(&str, &str)]) -> Vec<String> {
    let told = send_to(process.admin, "GET", "/readyz?verbose", headers, b"").json();
    let secrets = told["config"]["secrets"].as_array().cloned().unwrap_or_default();
    secrets.iter().map(|secret| secret["fingerprint"].as_str().unwrap_or("none").to_owned()).collect()
}

/// An operator compares the fingerprint with that of the secret that the provider has.
#[test]
fn fingerprints_of_secrets_follow_a_rotation_and_need_the_token() {
    let agent = Agent::start(ANSWER);
    let folder = tempfile::tempdir().unwrap();
    let (at, key) = (folder.path().to_owned(), "a token of sixteen bytes");
    fs::write(at.join("token"), key).unwrap();
    fs::write(at.join("one"), "the first secret of the provider").unwrap();
    let text = config(&agent.address.to_string(), &at, &["one"], "").replace(
        "admin: { address: 127.0.0.1:0",
        &format!("admin: {{ address: 127.0.0.1:0, token: {{ file: {} }}", at.join("token").display()),
    );
    let process = Process::start_in(folder, &text);
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    let expected = |secret: &str| {
        let fingerprint = |text: &str| callgate::secret::Secret::new(text.into()).fingerprint().unwrap();
        vec![fingerprint(key), fingerprint(secret)]
    };
    assert_eq!(fingerprints(&process, &headers), expected("the first secret of the provider"));
    assert_eq!(fingerprints(&process, &[]), Vec::<String>::new());
    fs::write(at.join("one"), "the second secret of the provider").unwrap();
    process.signal("HUP");
    eventually(|| {
        (fingerprints(&process, &headers) == expected("the second secret of the provider")).then_some(())
    });
}

/// The errors name files and routes. A client without the token only learns how many errors there are.
#[test]
fn mistakes_are_for_those_who_know_the_token() {
    let agent = Agent::start(ANSWER);
    let folder = tempfile::tempdir().unwrap();
    let (at, key) = (folder.path().to_owned(), "a token of sixteen bytes");
    fs::write(at.join("token"), key).unwrap();
    let open = open_config(&agent.address.to_string());
    let text = format!("reload: signal\n{open}").replace(
        "admin: { address: 127.0.0.1:0",
        &format!("admin: {{ address: 127.0.0.1:0, token: {{ file: {} }}", at.join("token").display()),
    );
    let process = Process::start_in(folder, &text);
    fs::write(at.join("callgate.yaml"), text.replace("forward:", "frward:")).unwrap();
    process.signal("HUP");
    let ask = |token: &str| {
        let headers = [("authorization", token)];
        send_to(process.admin, "GET", "/readyz?verbose", &headers, b"").json()["config"]["refused"].clone()
    };
    let (bearer, wrong) = (format!("Bearer {key}"), format!("Bearer {key}x"));
    let errors = |told: &Value| told["errors"].to_string();
    let told = eventually(|| Some(ask(&bearer)).filter(Value::is_object));
    assert!(errors(&told).contains("frward"), "{told}");
    let hidden = ask(&wrong);
    assert!(!errors(&hidden).contains("frward") && errors(&hidden).contains("errors: 2,"), "{hidden}");
    assert_eq!(hidden["version"], told["version"]);
}

/// Updates a volume as Kubernetes does: the files are links into a folder that is itself a link, and this link is
/// replaced.
fn swap(volume: &Path, version: usize, files: &[(&str, &[u8])]) {
    let data = volume.join(format!("..{version}"));
    fs::create_dir(&data).unwrap();
    for (name, content) in files {
        fs::write(data.join(name), content).unwrap();
        let link = volume.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    symlink(format!("..{version}"), volume.join("..new")).unwrap();
    fs::rename(volume.join("..new"), volume.join("..data")).unwrap();
}

#[test]
fn mounted_secrets_are_noticed_and_broken_ones_are_not_taken() {
    let agent = Agent::start(ANSWER);
    let folder = tempfile::tempdir().unwrap();
    let volume = folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    swap(&volume, 1, &[("new", b"the first secret of all"), ("old", b"one that nobody uses")]);
    let text = config(&agent.address.to_string(), &volume, &["new", "old"], "");
    let process = Process::start_in(folder, &text);
    let status = |secret: &str| call(&mut connect(&process), "/r", secret);
    assert_eq!(status("the first secret of all"), 200);
    // During a rotation, both secrets are valid.
    swap(&volume, 2, &[("new", b"the second secret of all"), ("old", b"the first secret of all")]);
    eventually(|| (told(&process)["generation"] == 2).then_some(()));
    assert_eq!([status("the first secret of all"), status("the second secret of all")], [200, 200]);
    // An empty secret would accept everybody, so it is an error.
    swap(&volume, 3, &[("new", b""), ("old", b"the second secret of all")]);
    let refused = eventually(|| Some(told(&process)["refused"].clone()).filter(Value::is_object));
    assert!(refused["errors"][0].as_str().unwrap().contains("empty"), "{refused}");
    assert_eq!([status("the first secret of all"), status("the second secret of all")], [200, 200]);
    swap(&volume, 4, &[("new", b"the third secret of all"), ("old", b"the second secret of all")]);
    eventually(|| (told(&process)["generation"] == 3).then_some(()));
    assert!(told(&process)["refused"].is_null());
    assert_eq!([status("the first secret of all"), status("the third secret of all")], [401, 200]);
}

/// Makes TLS connections until the flag is set. Returns the subjects of the certificates.
fn shake_hands(at: &Path, url: &str, done: &AtomicBool, shaken: &AtomicUsize) -> BTreeSet<String> {
    let mut subjects = BTreeSet::new();
    while !done.load(Ordering::Relaxed) {
        let out = Command::new("curl")
            .current_dir(at)
            .args(["-s", "-S", "-v", "--cacert", "ca.crt", url])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.stdout, b"hello", "{said}");
        subjects.insert(said.lines().find(|line| line.contains("subject:")).unwrap().to_owned());
        shaken.fetch_add(1, Ordering::Relaxed);
    }
    subjects
}

#[test]
fn certificates_rotate_without_a_dropped_handshake() {
    let agent = Agent::start(ANSWER);
    let folder = tempfile::tempdir().unwrap();
    let (at, volume) = (folder.path().to_owned(), folder.path().join("volume"));
    fs::create_dir(&volume).unwrap();
    authority(&at, "ca");
    ["one", "two"].iter().for_each(|name| issued(&at, "ca", name, "IP:127.0.0.1"));
    let mount = |version: usize, name: &str, key: &str| {
        let read = |name: String| fs::read(at.join(name)).unwrap();
        let (cert, key) = (read(format!("{name}.crt")), read(format!("{key}.key")));
        swap(&volume, version, &[("tls.crt", &cert), ("tls.key", &key)]);
    };
    mount(1, "one", "one");
    let mounted = volume.display();
    let tls = format!("tls: {{ certificate: {mounted}/tls.crt, key: {mounted}/tls.key }} }} ]");
    let text = open_config(&agent.address.to_string());
    let text = text.replacen("127.0.0.1:0 } ]", &format!("127.0.0.1:0, {tls}"), 1);
    let process = Process::start_in(folder, &text);
    let url = format!("https://{}/open/x", process.ingress[0]);
    let (done, shaken) = (AtomicBool::new(false), AtomicUsize::new(0));
    let subjects: BTreeSet<_> = std::thread::scope(|scope| {
        let clients = [0; 3].map(|_| scope.spawn(|| shake_hands(&at, &url, &done, &shaken)));
        let ended = Done(&done);
        let mut generation = 1;
        for version in 2..12 {
            if version % 3 == 0 {
                // The key belongs to another certificate, so the previous certificate stays in use.
                mount(version, "one", "two");
                process.signal("HUP");
                eventually(|| told(&process)["refused"].is_object().then_some(()));
                continue;
            }
            let name = if version % 2 == 0 { "two" } else { "one" };
            mount(version, name, name);
            generation += 1;
            eventually(|| (told(&process)["generation"].as_u64()? >= generation).then_some(()));
            let before = shaken.load(Ordering::Relaxed);
            eventually(|| (shaken.load(Ordering::Relaxed) > before + 3).then_some(()));
        }
        drop(ended);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    println!("{} handshakes", shaken.into_inner());
    assert_eq!(subjects.len(), 2, "{subjects:?}");
}

#[test]
fn what_only_a_restart_changes_is_said_and_nothing_else_is_taken() {
    let agent = Agent::start(ANSWER);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_owned();
    fs::write(at.join("secret"), "a secret of sixteen bytes").unwrap();
    let text = config(&agent.address.to_string(), &at, &["secret"], "");
    let process = Process::start_in(folder, &text);
    let other = text.replace("/in/r", "/in/other") + "threads: 1\nshutdown: { delay: 1s }\n";
    fs::write(at.join("callgate.yaml"), other).unwrap();
    process.signal("HUP");
    let refused = eventually(|| Some(told(&process)["refused"].clone()).filter(Value::is_object));
    assert_eq!(
        refused["errors"][0],
        "shutdown, threads can be changed only by a restart: restart, or undo the change of shutdown, threads. No part of the \
         new configuration was applied"
    );
    assert_eq!(call(&mut connect(&process), "/r", "a secret of sixteen bytes"), 200);
    assert_eq!(agent.received()[0].target(), "/in/r");
    // Meanwhile, changes in the files of the last good configuration are still applied.
    fs::write(at.join("secret"), "another of sixteen bytes").unwrap();
    eventually(|| (call(&mut connect(&process), "/r", "another of sixteen bytes") == 200).then_some(()));
    assert!(told(&process)["refused"].is_object());
    assert_eq!(call(&mut connect(&process), "/r", "a secret of sixteen bytes"), 401);
    fs::write(at.join("secret"), "a secret of sixteen bytes").unwrap();
    // The admin token is reloaded like any other secret.
    let token = "admin: { address: 127.0.0.1:0, token: { file: SECRET } }"
        .replace("SECRET", &at.join("secret").display().to_string());
    fs::write(at.join("callgate.yaml"), text.replace("admin: { address: 127.0.0.1:0 }", &token)).unwrap();
    eventually(|| (told(&process)["generation"] == 2).then_some(()));
    let status =
        |headers: &[(&str, &str)]| send_to(process.admin, "GET", "/callbacks/int_x", headers, b"").status;
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&[("authorization", "Bearer a secret of sixteen bytes")]), 404);
}

#[test]
fn files_that_are_none_do_not_hold_anything_up() {
    let agent = Agent::start(ANSWER);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_owned();
    fs::write(at.join("secret"), "a secret of sixteen bytes").unwrap();
    let text = format!("reload: signal\n{}", config(&agent.address.to_string(), &at, &["secret"], ""));
    let mut process = Process::start_in(folder, &text);
    let secret = at.join("secret");
    let refused = |what: &str| {
        let before = told(&process)["refused"].clone();
        process.signal("HUP");
        let refused = eventually(|| Some(told(&process)["refused"].clone()).filter(|now| *now != before));
        assert!(refused["errors"][0].as_str().unwrap().contains(what), "{refused}");
        assert_eq!(call(&mut connect(&process), "/r", "a secret of sixteen bytes"), 200);
        fs::remove_file(&secret).unwrap();
    };
    fs::remove_file(&secret).unwrap();
    assert!(Command::new("mkfifo").arg(&secret).status().unwrap().success());
    refused("not a regular file");
    symlink("/dev/zero", &secret).unwrap();
    refused("not a regular file");
    fs::File::create(&secret).unwrap().set_len(1 << 32).unwrap();
    refused("larger than");
    process.signal("TERM");
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
}
