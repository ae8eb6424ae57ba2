//! `callgate revoke`, and the lines that the event log has about actions of callers of the admin listener.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{Agent, Response, env, eventually, send_to};
use crate::inbox::{FAST, answer, call_at, config, mint_at};

const TOKEN: &str = "an admin token of some length";
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A real process whose event log is kept in a file.
struct Logged {
    child: std::process::Child,
    folder: tempfile::TempDir,
    ingress: std::net::SocketAddr,
    admin: std::net::SocketAddr,
}

impl Logged {
    fn start(admin: &str) -> Self {
        let text = format!(
            "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ {admin} address: 127.0.0.1:0 }} }}
agent: {{ address: 127.0.0.1:1 }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: KEY }} }} ] }}
routes: [ {{ name: r, path: /r, token: {{ kind: callback }}, forward: /in, interaction: {{ status: /s, done: [d] }} }} ]
"
        );
        Self::start_with(&text)
    }

    fn start_with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = text.replace("TOKEN_FILE", &folder.path().join("token").display().to_string());
        fs::write(folder.path().join("token"), TOKEN).unwrap();
        fs::write(folder.path().join("callgate.yaml"), text).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
        command.args(["run", "-c"]).arg(folder.path().join("callgate.yaml")).env("KEY", KEY);
        command.envs(["TOKEN_KEY", "FOREIGN_KEY", "WHSEC"].map(|name| (name, env(name).unwrap())));
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let address = |name: &str| {
            eventually(|| {
                let log = fs::read_to_string(folder.path().join("log")).unwrap();
                let rest = log.lines().find_map(|line| line.split_once(name))?.1.to_owned();
                rest.split(": ").next()?.parse().ok()
            })
        };
        let (ingress, admin) = (address("ingress on "), address("admin on "));
        Self { child, folder, ingress, admin }
    }

    /// Returns the objects of the lines about actions.
    fn actions(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
        assert!(!log.contains(TOKEN) && !log.contains(KEY), "{log}");
        let objects = log.lines().filter_map(|line| line.strip_prefix("info: admin {"));
        objects.map(|rest| serde_json::from_str(&format!("{{{rest}")).unwrap()).collect()
    }

    /// Sends a request as the admin page does.
    fn send(&self, method: &str, path: &str, body: &str) -> Response {
        let bearer = format!("Bearer {TOKEN}");
        let mut headers = vec![("authorization", &*bearer), ("content-type", "application/json")];
        if path.starts_with("/ui/") {
            // `send_to` sends `Host: localhost`.
            headers.push(("origin", "http://localhost"));
        }
        let response = send_to(self.admin, method, path, &headers, body.as_bytes());
        // The answer says which header is missing.
        let text = response.text();
        let missing = text.split_once("the header callgate-action: ").filter(|_| response.status == 403);
        let Some((_, rest)) = missing else { return response };
        headers.push(("callgate-action", rest.split(' ').next().unwrap()));
        send_to(self.admin, method, path, &headers, body.as_bytes())
    }

    fn callgate(&self, command: &str, args: &[&str]) -> Output {
        // The port was chosen at start, so the commands read a copy of the configuration with this port.
        let file = self.folder.path().join("client.yaml");
        let text = fs::read_to_string(self.folder.path().join("callgate.yaml")).unwrap();
        let (before, behind) = text.split_once("admin:").unwrap();
        let behind = behind.replacen("127.0.0.1:0", &self.admin.to_string(), 1);
        fs::write(&file, format!("{before}admin:{behind}")).unwrap();
        run(command, &file, args)
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &str, file: &Path, args: &[&str]) -> Output {
    let mut callgate = Command::new(env!("CARGO_BIN_EXE_callgate"));
    callgate.arg(command).arg("-c").arg(file).args(args).env("KEY", KEY).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn an_interaction_is_revoked_and_both_actions_are_logged() {
    for (listener, credential) in
        [("", "none, same host"), ("token: { file: TOKEN_FILE },", "listen.admin.token")]
    {
        let process = Logged::start(listener);
        let minted = process.callgate("mint", &["--route", "r", "--json"]);
        let minted: Value = serde_json::from_slice(&minted.stdout).unwrap_or_else(|_| panic!("{minted:?}"));
        let interaction = minted["interaction"].as_str().unwrap();
        let out = process.callgate("revoke", &[interaction]);
        assert_eq!((out.status.code(), text(&out.stdout)), (Some(0), format!("{interaction} revoked\n")));
        let bearer = format!("Bearer {TOKEN}");
        let path = format!("/callbacks/{interaction}");
        let read = send_to(process.admin, "GET", &path, &[("authorization", &bearer)], b"").json();
        assert_eq!(read["state"], "revoked");
        let again = process.callgate("revoke", &[interaction]);
        assert_eq!(again.status.code(), Some(0), "{again:?}");
        let unknown = process.callgate("revoke", &["int_unknown"]);
        assert_eq!(unknown.status.code(), Some(65), "{unknown:?}");
        assert!(text(&unknown.stderr).contains("no such interaction"), "{unknown:?}");

        let actions = process.actions();
        let field = |name: &str| actions.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
        assert_eq!(field("action"), ["mint", "revoke", "revoke", "revoke"]);
        assert_eq!(field("outcome"), ["ok", "ok", "already_revoked", "failed"]);
        assert_eq!(field("status"), [201, 204, 204, 404]);
        assert_eq!(field("interaction"), [interaction, interaction, interaction, "int_unknown"]);
        assert_eq!(actions[0]["route"], "r");
        for line in &actions {
            assert_eq!((&line["client"], &line["credential"]), (&"127.0.0.1".into(), &credential.into()));
            assert_eq!(line["via"], "api");
            assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
        }
        let token = minted["callback_token"].as_str().unwrap();
        assert!(!fs::read_to_string(process.folder.path().join("log")).unwrap().contains(token));
    }
}

#[test]
fn a_caller_without_access_fills_no_log_and_a_route_cannot_forge_a_line() {
    let process = Logged::start("token: { file: TOKEN_FILE },");
    let path = "/callbacks/int_aaaaaaaaaaaaaaaaaaaaaaaaaa";
    assert_eq!(send_to(process.admin, "DELETE", path, &[], b"").status, 401);
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let body = br#"{"route":"x\ninfo: admin {\"action\":\"revoke\"}\u2028\"}"}"#;
    assert_eq!(send_to(process.admin, "POST", "/callbacks", &headers, body).status, 404);
    let metrics = send_to(process.admin, "GET", "/metrics", &[], b"").text();
    for line in ["{status=\"401\"} 1\n", "{status=\"403\"} 0\n"] {
        assert!(metrics.contains(&format!("callgate_admin_requests_refused_total{line}")), "{line}");
    }
    let actions = eventually(|| Some(process.actions()).filter(|actions| !actions.is_empty()));
    assert_eq!(actions.len(), 1, "{actions:?}");
    assert_eq!((&actions[0]["action"], &actions[0]["status"]), (&"mint".into(), &404.into()));
}

#[test]
fn what_cannot_be_revoked_is_said() {
    let process = Logged::start("");
    let out = process.callgate("revoke", &["../config"]);
    assert_eq!(out.status.code(), Some(64), "{out:?}");
    assert!(text(&out.stderr).contains("expected the id of an interaction"), "{out:?}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let out = process.callgate("revoke", &["int_a", "--admin", &free]);
    assert_eq!(out.status.code(), Some(69), "{out:?}");
    // The address can be written as for `check --against`, too.
    for admin in [format!("http://{}", process.admin), format!("http://localhost:{}/", process.admin.port())]
    {
        let out = process.callgate("revoke", &["int_a", "--admin", &admin]);
        assert_eq!(out.status.code(), Some(65), "{out:?}");
        assert!(text(&out.stderr).contains("no such interaction"), "{out:?}");
    }
    let out = process.callgate("revoke", &["int_a", "--admin", "https://h:1"]);
    assert_eq!(out.status.code(), Some(64), "{out:?}");
    let file = process.folder.path().join("client.yaml");
    let text_of_it = fs::read_to_string(&file).unwrap();
    let (before, behind) = text_of_it.split_once(", admin: {").unwrap();
    let (_, behind) = behind.split_once(" }").unwrap();
    fs::write(&file, format!("{before}{behind}")).unwrap();
    let out = run("revoke", &file, &["int_a"]);
    assert_eq!(out.status.code(), Some(65), "{out:?}");
    assert!(text(&out.stderr).contains("has no `listen.admin`"), "{out:?}");
}

/// Finds every action by the methods that the listener allows for each path, and performs it. Only the paths come from a
/// list, which is the one that the listener answers with.
#[test]
fn every_action_is_logged_once_and_every_read_is_not() {
    let process = Logged::start("actions: true, token: { file: TOKEN_FILE },");
    let listed = |path: &str| {
        let text = process.send("GET", path, "").text();
        let (_, list) = text.split_once("not found: ").unwrap_or_else(|| panic!("{text}"));
        let list = list.split(['"', '\n']).next().unwrap().split(", ");
        list.map(|name| name.trim_start_matches('/').to_owned()).collect::<Vec<_>>()
    };
    let roots = listed("/nothing").into_iter().map(|name| format!("/{name}"));
    let roots = roots.chain(listed("/ui/api/nothing").into_iter().map(|name| format!("/ui/api/{name}")));
    let mut performed = BTreeSet::new();
    for path in roots.flat_map(|root| ["", "/x", "/replay", "/x/replay"].map(|rest| format!("{root}{rest}")))
    {
        let unknown = process.send("PATCH", &path, "");
        let allowed = unknown.header("allow").unwrap_or_default().to_uppercase();
        assert!(matches!(unknown.status, 404 | 405), "{path}: {}", unknown.text());
        assert_eq!(unknown.status == 405, !allowed.is_empty(), "{path}: {}", unknown.text());
        for method in allowed.split(", ").filter(|method| !matches!(*method, "" | "HEAD")) {
            let before = process.actions().len();
            let status = process.send(method, &path, "{}").status;
            let lines = process.actions().split_off(before);
            if method == "GET" {
                assert!(lines.is_empty(), "{method} {path}: {lines:?}");
                continue;
            }
            assert_eq!(lines.len(), 1, "{method} {path}: {lines:?}");
            let via = if path.starts_with("/ui/") { "page" } else { "api" };
            assert_eq!(
                (&lines[0]["via"], &lines[0]["status"]),
                (&via.into(), &status.into()),
                "{method} {path}"
            );
            let name = lines[0]["action"].as_str().unwrap();
            assert_ne!(name, "other", "{method} {path} needs a name in src/admin/action_log.rs");
            performed.insert(format!("{via} {name}"));
        }
    }
    let expected =
        ["capture_drop", "capture_start", "capture_stop", "inbox_drop", "inbox_replay", "mint", "revoke"];
    let of_api = expected.map(|name| format!("api {name}"));
    let of_page = expected.iter().filter(|name| **name != "mint").map(|name| format!("page {name}"));
    assert_eq!(performed, of_api.into_iter().chain(of_page).collect());
    // Callers without access have no line.
    let before = process.actions().len();
    for (method, path) in
        [("POST", "/capture"), ("DELETE", "/inbox/msg_1"), ("DELETE", "/ui/api/interactions/x")]
    {
        assert_eq!(send_to(process.admin, method, path, &[], b"").status, 401);
    }
    assert_eq!(process.actions().len(), before);
}

#[test]
fn what_people_do_with_messages_is_logged_without_their_contents() {
    let (folder, agent) = (tempfile::tempdir().unwrap(), Agent::start(&answer(410, "")));
    let text = config(folder.path(), &agent.address.to_string(), "inbox", FAST, "");
    let process = Logged::start_with(&text.replace("bodies: true", "bodies: true, actions: true"));
    let minted = mint_at(process.admin, "a");
    for n in 1..=3 {
        let body = format!(r#"{{"confidential":{n}}}"#);
        assert_eq!(call_at(process.ingress, &minted, &format!("e{n}"), &body).status, 202);
    }
    let dead = |count: usize| {
        eventually(|| {
            let found = process.send("GET", "/inbox?state=dead", "").json();
            Some(found["messages"].as_array()?.clone()).filter(|messages| messages.len() == count)
        })
    };
    let dead_id = dead(3)[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(process.send("POST", &format!("/inbox/{dead_id}/replay"), "").status, 200);
    dead(3);
    let all = r#"{"route":"doc","since":"1h","rate":"1000/s","state":"dead"}"#;
    assert_eq!(process.send("POST", "/inbox/replay", all).json()["replayed"], 3);
    dead(3);
    assert_eq!(process.send("DELETE", &format!("/inbox/{dead_id}"), "").status, 204);
    assert_eq!(process.send("DELETE", &format!("/inbox/{dead_id}"), "").status, 404);
    assert_eq!(
        process.send("POST", "/capture", r#"{"route":"doc","reason":"token_missing","for":"1m"}"#).status,
        201
    );
    let lines = process.actions();
    let shown: Vec<_> = lines[1..]
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {}", text("action"), text("outcome"), text("message"), text("route"))
        })
        .collect();
    let expected = [
        format!("inbox_replay ok {dead_id} -"),
        "inbox_replay ok - doc".to_owned(),
        format!("inbox_drop ok {dead_id} -"),
        format!("inbox_drop failed {dead_id} -"),
        "capture_start ok - doc".to_owned(),
    ];
    assert_eq!(shown, expected);
    let many = &lines[2];
    assert_eq!(
        (&many["replayed"], &many["since"], &many["rate"]),
        (&3.into(), &"1h".into(), &"1000/s".into())
    );
    assert_eq!((&lines[5]["reason"], &lines[5]["for"]), (&"token_missing".into(), &"1m".into()));
    let log = fs::read_to_string(process.folder.path().join("log")).unwrap();
    assert!(!log.contains("confidential"), "{log}");
}

#[test]
fn a_revocation_may_take_as_long_as_its_members_need() {
    let process = Logged::start("");
    // The file that the command reads.
    let _ = process.callgate("revoke", &["int_unknown"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = listener.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // A connection that is closed with unread bytes is reset.
        let _ = std::io::Read::read(&mut stream, &mut [0; 4096]).unwrap();
        // Callgate waits up to 5 seconds for each member, which is longer than a probe waits.
        std::thread::sleep(std::time::Duration::from_millis(2500));
        let _ =
            std::io::Write::write_all(&mut stream, b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
    });
    let out = process.callgate("revoke", &["int_a", "--admin", &slow]);
    answering.join().unwrap();
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(0), "int_a revoked\n".to_owned()), "{out:?}");
}
