//! The commands, run as a user runs them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const CALLGATE: &str = env!("CARGO_BIN_EXE_callgate");
const BODY: &str = r#"{"document_id":"doc-1","status":"processing","progress":25}"#;

/// A folder with a copy of `config/callgate.yaml`, with free ports and without TLS.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let text = fs::read_to_string("config/callgate.yaml").unwrap();
        let text = text
            .replace("0.0.0.0:8443\n", "127.0.0.1:0\n")
            .replace("127.0.0.1:8081", "127.0.0.1:0")
            .replace("127.0.0.1:9901", "127.0.0.1:0");
        let text: String =
            text.lines().filter(|line| !line.contains("tls:")).map(|line| format!("{line}\n")).collect();
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.write("callgate.yaml", text.as_bytes());
        place
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(CALLGATE);
        command.arg(name).arg("-c").arg(self.folder.path().join("callgate.yaml"));
        with_secrets(&mut command);
        command
    }

    fn run(&self, name: &str, args: &[&str]) -> Output {
        self.command(name).args(args).output().unwrap()
    }

    fn json(&self, name: &str, args: &[&str]) -> Value {
        let out = self.run(name, &[args, &["--json"]].concat());
        serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"))
    }

    fn mint(&self, at: &str) -> Value {
        self.json("mint", &["--route", "analysis-status", "--param", "document_id=doc-1", "--at", at])
    }
}

const WHSEC: &str = "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

fn with_secrets(command: &mut Command) {
    command
        .env_clear()
        .env("CALLGATE_TOKEN_KEY", "0123456789abcdef0123456789abcdef")
        .env("AI_ANALYSIS_SECRET", WHSEC)
        .env("BOOKING_SECRET", "a booking secret of some length")
        .envs(
            ["GITHUB_SECRET", "SLACK_SECRET", "TWILIO_SECRET"].map(|name| (name, "a secret of some length")),
        )
        .envs(["REPLICATE_SECRET", "STANDARD_WEBHOOKS_SECRET", "STRIPE_SECRET"].map(|name| (name, WHSEC)));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn every_configuration_in_the_project_loads() {
    for path in fs::read_dir("config").unwrap().map(|entry| entry.unwrap().path()) {
        let folder = tempfile::tempdir().unwrap();
        let config = fs::read_to_string(&path).unwrap();
        // The TLS settings are removed, because an example contains no certificates.
        let config: String =
            config.lines().filter(|l| !l.contains("tls:")).map(|l| format!("{l}\n")).collect();
        let copy = folder.path().join("callgate.yaml");
        fs::write(&copy, config).unwrap();
        let mut command = Command::new(CALLGATE);
        with_secrets(&mut command);
        let out = command.args(["check", "-c"]).arg(&copy).output().unwrap();
        assert!(out.status.success(), "{}: {}", path.display(), text(&out.stderr));
    }
}

#[test]
fn minted_signed_explained() {
    let place = Place::new();
    let minted = place.mint("2026-01-01T00:00:00Z");
    assert_eq!(minted["callback_url"], "https://my-agent-system.com/webhooks/analysis-status/doc-1");
    assert_eq!(minted["expires_at"], "2026-01-01T02:00:00Z");
    assert!(minted["interaction"].as_str().unwrap().starts_with("int_"));
    let request = format!(
        "POST /webhooks/analysis-status/doc-1 HTTP/1.1\nHost: my-agent-system.com\nAuthorization: Bearer {}\nContent-Length: {}\n\n{BODY}\n",
        minted["callback_token"].as_str().unwrap(),
        BODY.len()
    );
    let file = place.write("request.http", request.as_bytes());
    let file = file.to_str().unwrap();
    let signed = place.run("sign", &["--provider", "ai-analysis", "--request", file, "--at", "1767225600"]);
    assert!(signed.status.success(), "{signed:?}");
    let file = place.write("signed.http", &signed.stdout);
    let file = file.to_str().unwrap();
    let at = |time: &'static str| ["--request", file, "--at", time, "--peer", "203.0.113.7"];
    let allowed = place.json("explain", &at("2026-01-01T00:01:00Z"));
    assert_eq!(allowed["verdict"], "allow");
    assert_eq!(allowed["reason"], Value::Null);
    assert_eq!(allowed["route"], "analysis-status");
    assert_eq!(allowed["provider"], "ai-analysis");
    assert_eq!(allowed["forward"], "/internal/agents/analysis/doc-1/status");
    let checks: Vec<_> =
        allowed["trail"].as_array().unwrap().iter().map(|step| step["check"].as_str().unwrap()).collect();
    assert_eq!(
        checks,
        ["path", "route", "method", "size", "address", "token", "signature_headers", "body", "signature"]
    );
    assert_eq!(place.run("explain", &at("2026-01-01T00:01:00Z")).status.code(), Some(0));

    let stale = place.json("explain", &at("2026-01-01T00:06:00Z"));
    assert_eq!(
        (stale["verdict"].as_str(), stale["reason"].as_str()),
        (Some("deny"), Some("signature_too_old"))
    );
    let expired = place.run("explain", &at("2026-01-01T02:00:00Z"));
    assert_eq!(expired.status.code(), Some(1));
    assert!(text(&expired.stdout).contains("token_expired"), "{}", text(&expired.stdout));
    let elsewhere = place.run("explain", &["--request", file, "--at", "1767225600", "--peer", "192.0.2.1"]);
    assert!(text(&elsewhere.stdout).contains("address_not_allowed"));
    for out in [&expired, &elsewhere] {
        assert!(!text(&out.stdout).contains("eyJ"), "no token in what is printed");
    }
}

#[test]
fn a_query_token_rides_in_the_url() {
    let place = Place::new();
    let minted = place.json(
        "mint",
        &[
            "--route",
            "booking-interaction",
            "--param",
            "user_id=u1",
            "--param",
            "session_id=s1",
            "--ttl",
            "5m",
        ],
    );
    let url = minted["callback_url"].as_str().unwrap();
    let token = minted["callback_token"].as_str().unwrap();
    assert_eq!(
        url,
        format!("https://my-agent-system.com/webhooks/booking-interaction/u1/s1?callback_token={token}")
    );
}

#[test]
fn what_cannot_be_minted_is_said() {
    let place = Place::new();
    for (args, words) in [
        (["--route", "nope", "--param", "document_id=1"], "no such route"),
        (["--route", "analysis-status", "--param", "other=1"], "no capture other"),
        (["--route", "analysis-status", "--param", "document_id=a/b"], "document_id needs a value"),
        (["--route", "analysis-status", "--param", "document_id=.."], "document_id needs a value"),
    ] {
        let out = place.run("mint", &args);
        assert_eq!(out.status.code(), Some(65), "{args:?}");
        assert!(text(&out.stderr).contains(words), "{}", text(&out.stderr));
    }
    let out = place.run("mint", &["--route", "analysis-status", "--param", "document_id=1", "--ttl", "0s"]);
    assert!(text(&out.stderr).contains("lifetime"));
}

#[test]
fn bad_usage_and_bad_configurations_exit_with_64() {
    let place = Place::new();
    assert_eq!(Command::new(CALLGATE).arg("nonsense").output().unwrap().status.code(), Some(64));
    assert_eq!(Command::new(CALLGATE).output().unwrap().status.code(), Some(64));
    assert_eq!(place.run("explain", &["--request", "x", "--at", "yesterday"]).status.code(), Some(64));
    assert_eq!(place.run("explain", &["--request", "/nonexistent"]).status.code(), Some(65));
    assert_eq!(
        Command::new(CALLGATE).args(["check", "-c", "/nonexistent"]).output().unwrap().status.code(),
        Some(64)
    );
    place.write("callgate.yaml", b"listen: {}\nagnt: {}\nroutes: []\n");
    for command in ["check", "run", "mint"] {
        let args: &[&str] = if command == "mint" { &["--route", "r"] } else { &[] };
        let out = place.run(command, args);
        assert_eq!(out.status.code(), Some(64), "{command}");
        let said = text(&out.stderr);
        assert!(said.contains("line 2") && said.contains("agnt") && said.contains("hint:"), "{said}");
    }
    let errors = place.json("check", &[]);
    assert_eq!(errors["ok"], false);
    assert!(
        errors["errors"]
            .as_array()
            .unwrap()
            .iter()
            .any(|error| error["path"] == "agnt" && error["line"] == 2)
    );
}

#[test]
fn check_prints_the_policy_and_no_secret() {
    let place = Place::new();
    let out = place.run("check", &["--print"]);
    assert!(out.status.success(), "{out:?}");
    let shown = text(&out.stdout);
    assert!(shown.contains("body_bytes_max: 1048576") && shown.contains("kind: callback"), "{shown}");
    for secret in ["0123456789abcdef", "whsec_", "booking secret"] {
        assert!(!shown.contains(secret) && !text(&out.stderr).contains(secret), "{secret}");
    }
}

/// Waits for a line that contains `words`.
fn wait_for(lines: &mut impl Iterator<Item = std::io::Result<String>>, words: &str) -> String {
    lines.map(Result::unwrap).find(|line| line.contains(words)).unwrap()
}

#[test]
fn run_serves_and_stops_when_asked() {
    let place = Place::new();
    for signal in ["TERM", "INT"] {
        let mut child = place.command("run").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = wait_for(&mut lines, "ingress on ");
        let address =
            line.split("ingress on ").nth(1).unwrap().split(':').take(2).collect::<Vec<_>>().join(":");
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.write_all(b"GET /nope HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut status = String::new();
        BufReader::new(&stream).read_line(&mut status).unwrap();
        assert!(status.starts_with("HTTP/1.1 404"), "{status}");
        let killed = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{signal}");
        assert!(text(&out.stdout).contains("route_unknown"), "the access log is written to its end");
    }
}

/// Tests that the log shows the fingerprint that `check --print` shows, at the start and after a reload.
#[test]
fn the_log_shows_the_fingerprint_of_each_loaded_secret() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    let path = folder.path().join("callgate.yaml");
    let config = format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: 127.0.0.1:8000 }}
reload: signal
providers: {{ p: {{ preset: github, secrets: [ {{ file: {} }} ] }} }}
routes: [ {{ name: r, path: /r, provider: p, forward: /r }} ]
",
        secret.display()
    );
    fs::write(&path, config).unwrap();
    let shown = |value: &str| {
        fs::write(&secret, value).unwrap();
        let out =
            Command::new(CALLGATE).args(["check", "--print", "--json", "-c"]).arg(&path).output().unwrap();
        let policy: Value = serde_json::from_slice(&out.stdout).unwrap();
        let shown = policy["policy"]["secrets"][0]["fingerprint"].as_str().unwrap().to_owned();
        assert!(shown.len() == 8 && shown.bytes().all(|byte| byte.is_ascii_hexdigit()), "{shown}");
        format!("secret providers.p.secrets[0] from the file {}: fingerprint {shown}", secret.display())
    };
    let first = shown("the first secret of this provider");
    let mut command = Command::new(CALLGATE);
    let mut child =
        command.args(["run", "-c"]).arg(&path).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = wait_for(&mut lines, "fingerprint");
    assert!(line.ends_with(&first), "{line}");
    wait_for(&mut lines, "admin on ");
    let second = shown("the second secret of this provider");
    assert_ne!(first, second);
    let signal = |name: &str| {
        let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal("HUP");
    assert!(wait_for(&mut lines, "fingerprint").ends_with(&second));
    signal("TERM");
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert!(!rest.iter().any(|line| line.contains("secret of this provider")), "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_said_in_words() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let path = place.folder.path().join("callgate.yaml");
    let address = taken.local_addr().unwrap();
    let config = fs::read_to_string(&path).unwrap().replacen("127.0.0.1:0", &address.to_string(), 1);
    fs::write(&path, config).unwrap();
    let out = place.run("run", &[]);
    assert_eq!(out.status.code(), Some(69));
    assert!(text(&out.stderr).contains(&format!("cannot listen on {address}")), "{}", text(&out.stderr));
}

#[test]
fn certificates_that_do_not_fit_are_said_before_anything_is_bound() {
    let place = Place::new();
    let folder = place.folder.path();
    let key = |name: &str| {
        let args = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"];
        Command::new("openssl").args(args).arg(folder.join(name)).output().unwrap()
    };
    key("a.key");
    key("b.key");
    let args = ["req", "-x509", "-days", "1", "-subj", "/CN=x", "-key"];
    Command::new("openssl")
        .args(args)
        .arg(folder.join("a.key"))
        .arg("-out")
        .arg(folder.join("a.crt"))
        .output()
        .unwrap();
    let path = folder.join("callgate.yaml");
    let plain = fs::read_to_string(&path).unwrap();
    let with = |cert: &Path, key: &Path| {
        let tls = format!(
            "    - address: 127.0.0.1:0\n      tls: {{ certificate: {}, key: {} }}\n",
            cert.display(),
            key.display()
        );
        fs::write(&path, plain.replacen("    - address: 127.0.0.1:0\n", &tls, 1)).unwrap();
        place.run("check", &[])
    };
    assert_eq!(with(&folder.join("a.crt"), &folder.join("a.key")).status.code(), Some(0));
    let other = with(&folder.join("a.crt"), &folder.join("b.key"));
    assert_eq!(other.status.code(), Some(64), "{}", text(&other.stderr));
    let none = with(&folder.join("a.key"), &folder.join("a.key"));
    assert!(text(&none.stderr).contains("no PEM block `CERTIFICATE`"), "{}", text(&none.stderr));
}

#[test]
fn mint_asks_the_running_callgate_unless_told_not_to() {
    let place = Place::new();
    let mut child = place.command("run").stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let admin = wait_for(&mut lines, "admin on ").split("admin on ").nth(1).unwrap().to_owned();
    // A second configuration that contains the port which the first process received.
    let path = place.folder.path().join("callgate.yaml");
    let config = fs::read_to_string(&path).unwrap();
    let at = config.find("admin: {").unwrap();
    let (before, after) = config.split_at(at);
    fs::write(&path, before.to_owned() + &after.replacen("127.0.0.1:0", &admin, 1)).unwrap();
    let known = |minted: &Value| {
        let url = format!("http://{admin}/callbacks/{}", minted["interaction"].as_str().unwrap());
        let out = Command::new("curl").args(["-s", "-w", "%{http_code}", &url]).output().unwrap();
        text(&out.stdout)
    };
    let args = ["--route", "analysis-status", "--param", "document_id=doc-1", "--uses", "2", "--ttl", "90m"];
    let asked = place.json("mint", &args);
    let shown = known(&asked);
    assert!(shown.ends_with("200") && shown.contains("\"uses_left\":2"), "{shown}");
    assert_eq!(asked.as_object().unwrap().len(), 4);
    let offline = place.json("mint", &[&args[..], &["--offline"]].concat());
    assert!(known(&offline).ends_with("404"));
    let wrong = place.run("mint", &["--route", "analysis-status", "--param", "other=1"]);
    assert_eq!(wrong.status.code(), Some(65));
    assert!(text(&wrong.stderr).contains("no capture other"), "{}", text(&wrong.stderr));
    let twice = place.run("mint", &[&args[..4], &["--param", "document_id=doc-2"]].concat());
    assert_eq!(twice.status.code(), Some(65));
    child.kill().unwrap();
    child.wait().unwrap();
    // No Callgate is running now.
    let out = place.run("mint", &args);
    assert!(out.status.success() && text(&out.stderr).contains("configuration alone"), "{out:?}");
}
