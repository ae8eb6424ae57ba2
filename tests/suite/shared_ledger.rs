//! Several processes with one ledger on Redis or Valkey. Each behaviour is tested on both.

use std::net::SocketAddr;
use std::time::Duration;

use callgate::clock::{Clock, instant};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::engine::{ENGINES, Engine, free_port};
use crate::harness::{ANSWER, Agent, Callgate, Response, eventually, send_to};
use crate::tls::{authority, issued};

/// A process with its agent.
pub struct Process {
    pub callgate: Callgate,
    pub agent: Agent,
}

fn config(agent: SocketAddr, store: &str, replicas: &str, more: &str) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\", timeouts: {{ connect: 1s, response: 3s }} }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ]{more} }}
shutdown: {{ delay: 0s, grace: 5s }}
{store}{replicas}
providers: {{ hub: {{ preset: github, secrets: [ {{ env: HMAC_SECRET }} ] }} }}
routes:
  - {{ name: jobs, path: \"/jobs/{{id}}\", token: {{ kind: callback }}, forward: \"/in/{{id}}\", interaction: {{ status: /status, done: [done], failed: [failed], deadline: 1h, notify: /notice }} }}
  - {{ name: short, path: \"/short/{{id}}\", token: {{ kind: callback }}, forward: \"/in/{{id}}\", interaction: {{ status: /status, done: [done], deadline: 2s, notify: /notice }} }}
  - {{ name: hook, path: /hook, provider: hub, forward: /hook }}
"
    )
}

fn callback(to: SocketAddr, route: &str, token: &str, body: &str) -> Response {
    let token = format!("Bearer {token}");
    let headers = [("authorization", &*token), ("content-type", "application/json")];
    send_to(to, "POST", &format!("/{route}/a"), &headers, body.as_bytes())
}

/// Returns the signature of a message.
fn mac(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"hush").unwrap();
    mac.update(body);
    data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes())
}

impl Process {
    pub fn start(store: &str) -> Self {
        Self::start_with(store, "", "")
    }

    fn start_with(store: &str, replicas: &str, tokens: &str) -> Self {
        let agent = Agent::start(ANSWER);
        let callgate = Callgate::start(&config(agent.address, store, replicas, tokens), Clock::System);
        Self { callgate, agent }
    }

    pub fn mint(&self, route: &str, more: &str) -> (String, String) {
        let wanted = format!(r#"{{"route":"{route}","params":{{"id":"a"}}{more}}}"#);
        let minted = self.callgate.admin_send("POST", "/callbacks", &wanted);
        assert_eq!(minted.status, 201, "{}", minted.text());
        let minted = minted.json();
        let member = |name: &str| minted[name].as_str().unwrap().to_owned();
        (member("interaction"), member("callback_token"))
    }

    pub fn callback(&self, route: &str, token: &str, body: &str) -> Response {
        callback(self.callgate.ingress, route, token, body)
    }

    /// Sends a webhook that belongs to no interaction.
    pub fn hook(&self, delivery: &str, body: &str) -> Response {
        let signature = format!("sha256={}", mac(body.as_bytes()));
        let headers = [
            ("x-hub-signature-256", &*signature),
            ("x-github-delivery", delivery),
            ("x-github-event", "issues"),
            ("content-type", "application/json"),
        ];
        send_to(self.callgate.ingress, "POST", "/hook", &headers, body.as_bytes())
    }

    pub fn view(&self, interaction: &str) -> Value {
        let response = self.callgate.admin_get(&format!("/callbacks/{interaction}"));
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    }

    fn kill(self) -> Agent {
        let Self { callgate, agent } = self;
        callgate.kill();
        agent
    }
}

fn on_both(test: impl Fn(&Engine, &str)) {
    for name in ENGINES {
        let engine = Engine::start(name, &[]);
        let store = engine.store("");
        test(&engine, &store);
    }
}

#[test]
fn all_processes_know_the_same_interactions() {
    on_both(|_, store| {
        let (one, other) = (Process::start(store), Process::start(store));
        let (interaction, token) = one.mint("jobs", "");
        assert_eq!(other.view(&interaction)["state"], "open");
        assert_eq!(other.callback("jobs", &token, "{\"status\":\"working\"}").status, 200);
        assert_eq!(one.view(&interaction)["state"], "progressing");
        assert_eq!(one.callback("jobs", &token, "{\"status\":\"done\"}").status, 200);
        assert_eq!(other.view(&interaction)["state"], "done");
        assert_eq!(other.callback("jobs", &token, "{\"status\":\"more\"}").status, 410);
        let list = other.callgate.admin_get("/callbacks?state=done").json();
        assert_eq!(list["interactions"][0]["interaction"], *interaction);
        let (revoked, token) = one.mint("jobs", "");
        assert_eq!(other.callgate.admin_send("DELETE", &format!("/callbacks/{revoked}"), "").status, 204);
        assert_eq!(one.callback("jobs", &token, "{}").status, 410);
        assert_eq!((one.agent.received().len(), other.agent.received().len()), (1, 1));
    });
}

#[test]
fn a_record_says_when_the_agent_was_informed() {
    on_both(|_, store| {
        let one = Process::start(store);
        let ((done, token), (silent, _)) = (one.mint("jobs", ""), one.mint("short", ""));
        assert_eq!(one.callback("jobs", &token, "{\"status\":\"working\"}").status, 200);
        assert_eq!(one.view(&done)["informed_at"], Value::Null);
        assert_eq!(one.callback("jobs", &token, "{\"status\":\"done\"}").status, 200);
        eventually(|| one.view(&silent)["informed_at"].is_string().then_some(()));
        let by = |view: &Value| -> Vec<String> {
            let all = view["informed"].as_array().unwrap().iter();
            all.map(|one| one["by"].as_str().unwrap().to_owned()).collect()
        };
        let (of_done, of_silent) = (one.view(&done), one.view(&silent));
        assert_eq!(
            (by(&of_done), by(&of_silent)),
            (vec!["callback".to_owned(), "final_callback".to_owned()], vec!["expired".to_owned()])
        );
        drop(one);
        let again = Process::start(store);
        for before in [of_done, of_silent] {
            let after = again.view(before["interaction"].as_str().unwrap());
            assert_eq!(
                (&after["informed"], &after["informed_at"]),
                (&before["informed"], &before["informed_at"])
            );
        }
    });
}

#[test]
fn the_uses_of_a_token_are_counted_once_for_all_processes() {
    on_both(|_, store| {
        let (one, other) = (Process::start(store), Process::start(store));
        let (interaction, token) = one.mint("jobs", r#","uses":2"#);
        let statuses: Vec<_> = std::thread::scope(|scope| {
            let send = |number: usize| {
                let to = if number.is_multiple_of(2) { one.callgate.ingress } else { other.callgate.ingress };
                let body = format!("{{\"status\":\"working\",\"n\":{number}}}");
                let token = &token;
                scope.spawn(move || callback(to, "jobs", token, &body).status)
            };
            let sent: Vec<_> = (0..8).map(send).collect();
            sent.into_iter().map(|sent| sent.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 2, "{statuses:?}");
        assert_eq!(one.agent.received().len() + other.agent.received().len(), 2);
        assert_eq!(one.view(&interaction)["state"], "done");
    });
}

#[test]
fn an_event_without_an_interaction_is_delivered_once_by_all_processes_together() {
    on_both(|engine, store| {
        let (one, other) = (Process::start(store), Process::start(store));
        let send = |process: &Process, delivery: &str| process.hook(delivery, "{\"action\":\"opened\"}");
        assert_eq!(send(&one, "d1").status, 200);
        let again = send(&other, "d1");
        assert_eq!((again.status, other.callgate.logged(1)[0]["reason"].clone()), (200, "duplicate".into()));
        assert_eq!((one.agent.received().len(), other.agent.received().len()), (1, 0));
        assert_eq!((engine.keys("*l").len(), engine.keys("*c").len()), (1, 0), "nothing is under way");
    });
}

#[test]
fn the_interactions_of_a_killed_process_are_continued_and_reported() {
    on_both(|_, store| {
        let (one, other) = (Process::start(store), Process::start(store));
        let (interaction, token) = one.mint("jobs", "");
        let (silent, _) = one.mint("short", "");
        let agent = one.kill();
        assert_eq!(other.callback("jobs", &token, "{\"status\":\"working\"}").status, 200);
        assert_eq!(other.view(&interaction)["state"], "progressing");
        let notices = || other.agent.received().into_iter().filter(|request| request.target() == "/notice");
        let notice = eventually(|| notices().next());
        assert_eq!(notice.header("callgate-interaction"), [&*silent]);
        assert!(agent.received().is_empty());
        assert_eq!(other.view(&silent)["state"], "expired");
    });
}

#[test]
fn while_the_engine_is_away_nothing_is_accepted_and_afterwards_everything_goes_on() {
    for name in ENGINES {
        let mut engine = Engine::start(name, &[]);
        let store = format!(
            "store: {{ kind: redis, grace: 1s, redis: {{ nodes: [\"{}\"], timeout: 200ms }} }}\n",
            engine.address
        );
        let one = Process::start(&store);
        let (interaction, token) = one.mint("jobs", "");
        assert_eq!(one.callgate.admin_get("/readyz").status, 200);
        engine.kill();
        let away = one.callback("jobs", &token, "{\"status\":\"working\"}");
        assert_eq!(away.status, 503);
        let after: u64 = away.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=5).contains(&after), "{after}");
        let wanted = r#"{"route":"jobs","params":{"id":"a"}}"#;
        assert_eq!(one.callgate.admin_send("POST", "/callbacks", wanted).status, 503);
        assert_eq!(one.callgate.admin_get(&format!("/callbacks/{interaction}")).status, 503);
        eventually(|| (one.callgate.admin_get("/readyz").status == 503).then_some(()));
        assert_eq!(one.callgate.admin_get("/livez").status, 200);
        assert!(one.callgate.metrics().contains("\ncallgate_store_failed 1\n"));
        // The engine comes back empty, so the token adopts its interaction.
        engine.start_again();
        let body = "{\"status\":\"working\"}";
        eventually(|| (one.callback("jobs", &token, body).status == 200).then_some(()));
        eventually(|| (one.callgate.admin_get("/readyz").status == 200).then_some(()));
        assert_eq!(one.view(&interaction)["deliveries"], 1);
    }
}

#[test]
fn a_hung_engine_does_not_lose_an_acknowledged_callback_and_does_not_double_its_uses() {
    on_both(|engine, _| {
        let store = engine.store(", timeout: 300ms");
        let one = Process::start(&store);
        let (interaction, token) = one.mint("jobs", r#","uses":3"#);
        engine.signal("STOP");
        assert_eq!(one.callback("jobs", &token, "{\"status\":\"working\"}").status, 503);
        engine.signal("CONT");
        eventually(|| {
            let status = one.callback("jobs", &token, "{\"status\":\"working\"}").status;
            (status == 200).then_some(())
        });
        let view = one.view(&interaction);
        assert_eq!(view["deliveries"], one.agent.received().len());
        assert_eq!(view["uses_left"], 3 - one.agent.received().len());
    });
}

#[test]
fn what_cannot_keep_a_promise_is_refused_at_start() {
    for name in ENGINES {
        let engine = Engine::start(name, &["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
        let agent = Agent::start(ANSWER);
        let refused = Callgate::refused(&config(agent.address, &engine.store(""), "", ""));
        assert!(refused.contains("allkeys-lru") && refused.contains("noeviction"), "{refused}");
        let primary = Engine::start(name, &[]);
        let replica = Engine::start(name, &["--replicaof", "127.0.0.1", &primary.address.port().to_string()]);
        let refused = Callgate::refused(&config(agent.address, &replica.store(""), "", ""));
        assert!(refused.contains("replica"), "{refused}");
    }
}

#[test]
fn a_record_of_a_later_version_is_left_alone() {
    on_both(|engine, store| {
        let one = Process::start(store);
        let (interaction, token) = one.mint("jobs", "");
        let key = engine.keys(&format!("*i:{interaction}")).remove(0);
        assert!(engine.command(&["SETRANGE", &key, "8", "\u{2}"]).starts_with(':'));
        let before = engine.command(&["GET", &key]);
        assert_eq!(one.callback("jobs", &token, "{\"status\":\"working\"}").status, 503);
        assert_eq!(one.callgate.admin_send("DELETE", &format!("/callbacks/{interaction}"), "").status, 503);
        assert_eq!(engine.command(&["GET", &key]), before);
        assert!(one.agent.received().is_empty());
    });
}

#[test]
fn an_open_interaction_needs_little_memory() {
    on_both(|engine, store| {
        let one = Process::start(store);
        let used = || {
            let info = engine.command(&["INFO", "memory"]);
            let line = info.lines().find_map(|line| line.strip_prefix("used_memory_dataset:"));
            line.unwrap().trim().parse::<i64>().unwrap()
        };
        let minted: Vec<_> = (0..200).map(|_| one.mint("jobs", "")).collect();
        let before = used();
        let more: Vec<_> = (0..2000).map(|_| one.mint("jobs", "")).collect();
        let bytes = (used() - before) / i64::try_from(more.len()).unwrap();
        assert!(bytes <= 600, "{bytes} bytes for an interaction");
        assert_eq!(minted.len(), 200);
    });
}

#[test]
fn opaque_tokens_are_valid_at_all_processes_and_are_not_stored() {
    on_both(|engine, store| {
        let (one, other) = (
            Process::start_with(store, "", ", form: opaque"),
            Process::start_with(store, "", ", form: opaque"),
        );
        let (interaction, token) = one.mint("jobs", "");
        assert_eq!(other.callback("jobs", &token, "{\"status\":\"working\"}").status, 200);
        let key = engine.keys(&format!("*i:{interaction}")).remove(0);
        assert!(!engine.command(&["GET", &key]).contains(&token));
        let mut forged = token.into_bytes();
        let last = forged.last_mut().unwrap();
        *last = if *last == b'a' { b'b' } else { b'a' };
        let loads = |process: &Process| {
            let metrics = process.callgate.metrics();
            let line = "callgate_store_call_seconds_count{call=\"load\"} ";
            metrics.lines().find_map(|text| text.strip_prefix(line)).unwrap().parse::<u64>().unwrap()
        };
        let before = loads(&other);
        let forged = String::from_utf8(forged).unwrap();
        assert_eq!(other.callback("jobs", &forged, "{}").status, 401);
        assert_eq!(loads(&other), before, "a forged token does not reach the ledger");
    });
}

#[test]
fn with_replicas_a_callback_goes_to_its_owner_and_to_another_agent_when_the_owner_is_gone() {
    on_both(|_, store| {
        let section = |discover: &str| {
            format!(
                "replicas: {{ address: 127.0.0.1:0, advertise: 127.0.0.1, secrets: [ {{ env: TOKEN_KEY }} ], mint: true, patience: 300ms, gone_after: 60s{discover} }}\n"
            )
        };
        let one = Process::start_with(store, &section(""), "");
        let known = format!(", discover: [\"{}\"]", one.callgate.replicas.unwrap());
        let other = Process::start_with(store, &section(&known), "");
        let (interaction, token) = one.mint("jobs", "");
        assert_eq!(other.callback("jobs", &token, "{\"status\":\"working\",\"n\":1}").status, 200);
        assert_eq!((one.agent.received().len(), other.agent.received().len()), (1, 0));
        let address = one.callgate.replicas.unwrap().to_string();
        assert_eq!(other.view(&interaction)["member"], *address);
        let _agent = one.kill();
        // The engine's list of members knows that the owner is gone earlier than `gone_after`.
        let patience = Duration::from_secs(40);
        let began = instant();
        let body = "{\"status\":\"working\",\"n\":2}";
        while other.callback("jobs", &token, body).status != 200 {
            assert!(began.elapsed() < patience);
        }
        let received = other.agent.received();
        assert_eq!(received[0].header("callgate-owner"), ["gone"]);
        let own = other.callgate.replicas.unwrap().to_string();
        assert_eq!(other.view(&interaction)["member"], *own);
        assert_eq!(other.callback("jobs", &token, "{\"status\":\"done\"}").status, 200);
        assert!(other.agent.received()[1].header("callgate-owner").is_empty(), "it is its own now");
    });
}

#[test]
fn a_new_password_is_used_without_a_restart() {
    let engine = Engine::start("redis-server", &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "first-password").unwrap();
    assert!(engine.command(&["CONFIG", "SET", "requirepass", "first-password"]).starts_with("+OK"));
    let store = engine.store(&format!(", password: {{ file: \"{}\" }}", file.display()));
    let agent = Agent::start(ANSWER);
    let text = config(agent.address, &store, "", "");
    let callgate = Callgate::start(&text, Clock::System);
    let one = Process { callgate, agent };
    let (_, token) = one.mint("jobs", "");
    let set = |auth: &str, new: &str| {
        let mut stream = std::net::TcpStream::connect(engine.address).unwrap();
        let commands = format!(
            "AUTH {auth}\r\nCONFIG SET requirepass {new}\r\nCLIENT KILL TYPE normal SKIPME yes\r\nQUIT\r\n"
        );
        std::io::Write::write_all(&mut stream, commands.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        assert!(answer.starts_with("+OK\r\n+OK\r\n"), "{answer}");
    };
    set("first-password", "second-password");
    eventually(|| (one.callback("jobs", &token, "{\"status\":\"working\"}").status == 503).then_some(()));
    std::fs::write(&file, "second-password").unwrap();
    one.callgate.reload(&text).unwrap();
    eventually(|| (one.callback("jobs", &token, "{\"status\":\"working\"}").status == 200).then_some(()));
}

#[test]
fn connections_are_encrypted_and_both_sides_prove_who_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "ca");
    authority(at, "other");
    issued(at, "ca", "redis", "IP:127.0.0.1");
    issued(at, "ca", "client", "DNS:callgate.example");
    issued(at, "other", "stranger", "DNS:callgate.example");
    let file = |name: &str| at.join(name).display().to_string();
    let port = free_port();
    let (certificate, key, ca) = (file("redis.crt"), file("redis.key"), file("ca.crt"));
    let settings = ["--tls-port", &port.to_string(), "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let _engine = Engine::start(
        "redis-server",
        &[&settings[..], &["--tls-ca-cert-file", &ca, "--tls-auth-clients", "yes"]].concat(),
    );
    let store = |authorities: &str, client: &str| {
        format!(
            "store: {{ kind: redis, redis: {{ nodes: [\"127.0.0.1:{port}\"], timeout: 300ms, tls: {{ authorities: \"{}\", certificate: \"{}\", key: \"{}\" }} }} }}\n",
            file(&format!("{authorities}.crt")),
            file(&format!("{client}.crt")),
            file(&format!("{client}.key")),
        )
    };
    let one = Process::start(&store("ca", "client"));
    let (interaction, token) = one.mint("jobs", "");
    assert_eq!(one.callback("jobs", &token, "{\"status\":\"working\"}").status, 200);
    assert_eq!(one.view(&interaction)["state"], "progressing");
    for (authorities, client) in [("other", "client"), ("ca", "stranger")] {
        let other = Process::start(&store(authorities, client));
        assert_eq!(
            other.callback("jobs", &token, "{\"status\":\"working\"}").status,
            503,
            "{authorities} {client}"
        );
    }
}

#[test]
fn many_interactions_are_listed_with_few_calls() {
    on_both(|_, store| {
        let one = Process::start(store);
        let minted: Vec<_> = (0..300).map(|_| one.mint("jobs", "").0).collect();
        let calls = || {
            let metrics = one.callgate.metrics();
            let count = |call: &str| {
                let name = format!("callgate_store_call_seconds_count{{call=\"{call}\"}} ");
                metrics.lines().find_map(|line| line.strip_prefix(&*name)).map_or(0, |n| n.parse().unwrap())
            };
            count("load") + count("read")
        };
        let before: u64 = calls();
        let list = one.callgate.admin_get("/callbacks?sort=newest&limit=1000").json();
        let listed: Vec<_> = list["interactions"].as_array().unwrap().iter().collect();
        assert_eq!(listed.len(), minted.len());
        assert!(listed.iter().all(|one| minted.iter().any(|id| one["interaction"] == **id)));
        // Two passes, each with two reads of all 64 partitions.
        assert!(calls() - before <= 256, "{} calls", calls() - before);
        let page = one.callgate.admin_get("/callbacks?limit=100").json();
        assert_eq!(page["interactions"].as_array().unwrap().len(), 100);
    });
}
