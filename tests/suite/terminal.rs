//! Text of others in the output of every command that prints it: it must not control the terminal of the reader.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;

use serde_json::{Value, json};

const CALLGATE: &str = env!("CARGO_BIN_EXE_callgate");
/// Escape sequences with one and two bytes, a bell, a forged line, and a reversed direction.
const HOSTILE: &str = "a\u{1b}[31mb\u{9b}2Jc\u{7}d\nforged \u{202e}f";
/// What a terminal may not receive. Line feeds are between the lines of the output.
const CONTROLS: [char; 4] = ['\u{1b}', '\u{9b}', '\u{7}', '\u{202e}'];

/// A server that answers every request with one response, as a faked or broken Callgate does. It runs until the test ends.
fn server(status: u16, body: &str) -> SocketAddr {
    let length = body.len();
    let response =
        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    serve(move |stream| {
        let _ = stream.read(&mut [0; 64 << 10])?;
        stream.write_all(response.as_bytes())
    })
}

/// A server that answers every command with an error, as a faked or broken Redis does.
fn engine() -> SocketAddr {
    let response = format!("-ERR {}\r\n", HOSTILE.replace('\n', " "));
    serve(move |stream| {
        let mut buffer = [0; 64 << 10];
        loop {
            let read = stream.read(&mut buffer)?;
            let commands = buffer[..read].split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"*"));
            let commands = commands.count();
            if read == 0 {
                return Ok(());
            }
            stream.write_all(response.repeat(commands).as_bytes())?;
        }
    })
}

/// Serves each connection on a thread of its own.
fn serve(one: impl Fn(&mut TcpStream) -> std::io::Result<()> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let one = one.clone();
            thread::spawn(move || one(&mut stream));
        }
    });
    address
}

struct Place(tempfile::TempDir);

impl Place {
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Writes a configuration whose admin listener is at `admin`.
    fn config(&self, name: &str, admin: SocketAddr, store: &str) -> String {
        self.file(
            name,
            &format!(
                "public_url: https://gate.example\nstore: {store}\nlisten: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: \"{admin}\" }} }}\nagent: {{ address: 127.0.0.1:1 }}\ncallback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: KEY }} }} ] }}\nroutes:\n  - {{ name: r, path: \"/r/{{id}}\", token: {{ kind: callback, from: [bearer] }}, forward: \"/r/{{id}}\", interaction: {{ status: /status, done: [done] }} }}\n  - {{ name: open, path: \"/open/{{id}}\", open: true, forward: \"/open/{{id}}\" }}\n"
            ),
        )
    }
}

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(CALLGATE);
    command.args(args).env("KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").output().unwrap()
}

/// Runs a command, and checks that its output has nothing that a terminal would interpret. Returns the output.
fn harmless(args: &[&str]) -> String {
    let out = run(args);
    let said = String::from_utf8([&out.stdout[..], &out.stderr[..]].concat()).unwrap();
    assert!(!said.contains(CONTROLS), "{args:?}: {said:?}");
    // A forged line would begin after the line feed of the text.
    assert!(!said.lines().any(|line| line.starts_with("forged")), "{args:?}: {said:?}");
    said
}

/// Like `harmless`. Also checks that the output contains the rest of the text.
fn shows(args: &[&str]) {
    let said = harmless(args);
    assert!(said.contains("[31mb"), "{args:?} does not show the text: {said:?}");
}

#[test]
fn no_answer_of_an_admin_listener_controls_the_terminal() {
    let place = Place(tempfile::tempdir().unwrap());
    let member = json!({ "address": HOSTILE, "incarnation": HOSTILE, "group": HOSTILE, "presence": HOSTILE,
        "started_at": HOSTILE, "inherits": [HOSTILE] });
    let message = json!({ "id": HOSTILE, "state": HOSTILE, "cause": HOSTILE, "received_at": HOSTILE,
        "interaction": HOSTILE, "route": HOSTILE, "attempts": 1 });
    let setting = json!({ "key": "threads", "value": HOSTILE });
    let everything = json!({
        "own": member, "members": [member], "messages": [message], "body": HOSTILE, "detail": HOSTILE,
        "interaction": HOSTILE, "callback_url": HOSTILE, "callback_token": HOSTILE, "expires_at": HOSTILE,
        "unreachable": [HOSTILE], "program": HOSTILE, "version": HOSTILE, "generation": 1, "restart": [setting],
        "environment": {},
    })
    .to_string();
    let ok = server(200, &everything);
    let config = place.config("ok.yaml", ok, "{ kind: memory }");
    let minted = place.config("minted.yaml", server(201, &everything), "{ kind: memory }");
    let partly = place.config("partly.yaml", server(202, &everything), "{ kind: memory }");
    let failed = server(400, &everything);
    let bad = place.config("bad.yaml", failed, "{ kind: memory }");
    let plain = server(500, HOSTILE).to_string();
    let (admin, url) = (ok.to_string(), format!("http://{ok}"));
    let (plain_url, id) = (format!("http://{plain}"), "int_1");
    let mint = ["--route", "r", "--param", "id=1"];
    let table: Vec<Vec<&str>> = vec![
        vec!["health", "--admin", &plain],
        vec!["health", "--admin", &plain, "--ready"],
        vec!["members", "--admin", &admin],
        vec!["members", "--admin", &admin, "--json"],
        vec!["members", "--admin", &plain],
        vec!["inbox", "list", "-c", &config],
        vec!["inbox", "list", "-c", &config, "--json"],
        vec!["inbox", "list", "-c", &bad],
        vec!["inbox", "show", "-c", &config, id],
        vec!["inbox", "show", "-c", &bad, id],
        vec!["inbox", "replay", "-c", &bad, id],
        vec!["inbox", "replay", "-c", &bad, "--all"],
        vec!["inbox", "drop", "-c", &bad, id],
        vec!["wait", "-c", &bad, id],
        vec!["revoke", "-c", &partly, id],
        vec!["revoke", "-c", &bad, id],
        [&["mint", "-c", &minted], &mint[..]].concat(),
        [&["mint", "-c", &minted, "--json"], &mint[..]].concat(),
        [&["mint", "-c", &bad], &mint[..]].concat(),
        vec!["check", "-c", &config, "--against", &url],
        vec!["check", "-c", &config, "--against", &url, "--json"],
        vec!["check", "-c", &config, "--against", &plain_url],
    ];
    for args in &table {
        shows(args);
    }
}

#[test]
fn no_request_log_engine_or_file_controls_the_terminal() {
    let place = Place(tempfile::tempdir().unwrap());
    let unused = server(404, "");
    let config = place.config("callgate.yaml", unused, "{ kind: memory }");
    let entry = json!({ "time": HOSTILE, "route": HOSTILE, "provider": HOSTILE, "verdict": "deny", "reason": HOSTILE,
        "client": HOSTILE, "observed": [HOSTILE] });
    let observed = json!({ "time": "2026-01-01T00:00:00Z", "route": "r", "verdict": "observe", "reason": HOSTILE,
        "mode": "observe", "observed": [HOSTILE], "peer": HOSTILE });
    let log = place.file("log", &format!("{entry}\n{observed}\n"));
    let request = |name: &str, path: &str, headers: &str, body: &Value| {
        let body = body.to_string();
        place.file(
            name,
            &format!(
                "POST {path} HTTP/1.1\r\nhost: h\r\n{headers}content-length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
    };
    let captured = request(
        "captured.http",
        "/r/1",
        "callgate-captured: time=2026-01-01T00:00:00Z; peer=127.0.0.1; reason=a[31mb\r\n",
        &json!({ "status": HOSTILE }),
    );
    let target = request("target.http", "/open/a\u{9b}[31mb\u{202e}", "", &json!({ "id": HOSTILE }));
    let redis = format!("{{ kind: redis, redis: {{ nodes: [\"{}\"] }} }}", engine());
    let with_engine = place.config("engine.yaml", unused, &redis);
    let broken = place.file("broken.yaml", r#""a\e[31mb\x9b\a\nforged\u202e": 1"#);
    let manifest = place.file(
        "manifest.yaml",
        "apiVersion: example.com/v1\nkind: \"a\\e[31mb\\x9b\\a\\nforged\\u202e\"\nmetadata: { name: \"a\\e[31mb\" }\nspec: { template: { spec: { containers: [ { name: c, image: i } ] } } }\n",
    );
    for args in [
        vec!["audit", &log],
        vec!["audit", &log, "--json"],
        vec!["store", "copy", "--from", &with_engine, "--to", &config],
        vec!["check", "-c", &broken],
        vec!["check", "-c", &broken, "--json"],
        vec!["inject", "-f", &manifest],
        vec!["explain", "-c", &config, "--request", &captured],
        vec!["explain", "-c", &config, "--request", &captured, "--json"],
    ] {
        shows(&args);
    }
    // The checks quote the request only after they have validated it.
    for args in [
        vec!["explain", "-c", &config, "--request", &target],
        vec!["explain", "-c", &config, "--request", &target, "--json"],
    ] {
        harmless(&args);
    }
}
