//! `callgate revoke`, and the lines that the event log has about actions of callers of the admin listener.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{eventually, send_to};

const TOKEN: &str = "an admin token of some length";
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A real process whose event log is kept in a file.
struct Logged {
    child: std::process::Child,
    folder: tempfile::TempDir,
    admin: std::net::SocketAddr,
}

impl Logged {
    fn start(admin: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ {admin} address: 127.0.0.1:0 }} }}
agent: {{ address: 127.0.0.1:1 }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: KEY }} }} ] }}
routes: [ {{ name: r, path: /r, token: {{ kind: callback }}, forward: /in, interaction: {{ status: /s, done: [d] }} }} ]
"
        )
        .replace("TOKEN_FILE", &folder.path().join("token").display().to_string());
        fs::write(folder.path().join("token"), TOKEN).unwrap();
        fs::write(folder.path().join("callgate.yaml"), text).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
        command.args(["run", "-c"]).arg(folder.path().join("callgate.yaml")).env("KEY", KEY);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let admin = eventually(|| {
            let log = fs::read_to_string(folder.path().join("log")).unwrap();
            log.lines().find_map(|line| line.split_once("admin on ")?.1.parse().ok())
        });
        Self { child, folder, admin }
    }

    /// Returns the objects of the lines about actions.
    fn actions(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
        assert!(!log.contains(TOKEN) && !log.contains(KEY), "{log}");
        let objects = log.lines().filter_map(|line| line.strip_prefix("info: admin {"));
        objects.map(|rest| serde_json::from_str(&format!("{{{rest}")).unwrap()).collect()
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
