//! Resumption of TLS sessions with tickets: at the same listener, at another replica, and never without a check of the
//! client certificate.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use callgate::clock::Clock;

use crate::harness::{ANSWER, Agent, Callgate, open_config};
use crate::process::Process;
use crate::tls::{authority, issued};

/// What one connection of `openssl s_client` did.
#[derive(Debug)]
struct Connected {
    resumed: bool,
    /// The status of the response, or 0 if there was none.
    status: u16,
}

/// Sends a request on a new connection. `--save` and `--use` name files with a session.
fn connect(folder: &Path, address: SocketAddr, path: &str, args: &[&str]) -> Connected {
    let mut child = Command::new("openssl")
        .current_dir(folder)
        .args(["s_client", "-CAfile", "ca.crt", "-ign_eof", "-connect", &address.to_string()])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    // The peer may already have closed the connection.
    let _ = stdin.write_all(request.as_bytes());
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    let status = said.split_once("HTTP/1.1 ").map_or(0, |(_, rest)| rest[..3].parse().unwrap());
    assert!(said.contains("New, ") || said.contains("Reused, ") || status == 0, "{said}");
    Connected { resumed: said.contains("Reused, "), status }
}

/// A folder with the certificate of the server, and those of two clients of different authorities.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    ["ca", "clients", "others"].iter().for_each(|name| authority(at, name));
    issued(at, "ca", "one", "IP:127.0.0.1");
    issued(at, "clients", "bank", "DNS:bank.example");
    fs::copy(at.join("clients.crt"), at.join("trusted.crt")).unwrap();
    fs::write(at.join("tickets"), "0123456789abcdef0123456789abcdef").unwrap();
    fs::write(at.join("newer"), "fedcba9876543210fedcba9876543210").unwrap();
    folder
}

fn tls(at: &Path, more: &str) -> String {
    format!("tls: {{ certificate: {0}/one.crt, key: {0}/one.key{more} }}", at.display())
}

/// Returns a configuration with these listeners.
fn config(agent: &Agent, listeners: &[String]) -> String {
    let listeners: Vec<_> =
        listeners.iter().map(|tls| format!("{{ address: 127.0.0.1:0, {tls} }}")).collect();
    let asks_for_certificates = listeners.iter().any(|listener| listener.contains("client_certificates"));
    let named = "routes:
  - { name: named, path: /named, methods: [GET], client_certificate: { names: [bank.example] }, forward: /in/named }
";
    open_config(&agent.address.to_string())
        .replacen("{ address: 127.0.0.1:0 }", &listeners.join(", "), 1)
        .replacen("routes:\n", if asks_for_certificates { named } else { "routes:\n" }, 1)
}

#[test]
fn a_session_is_resumed_also_after_a_reload_and_never_with_early_data() {
    let folder = folder();
    let at = folder.path();
    let agent = Agent::start(ANSWER);
    let text = config(&agent, &[tls(at, "")]);
    let callgate = Callgate::start(&text, Clock::System);
    for version in ["-tls1_3", "-tls1_2"] {
        let ask = |args: &[&str]| {
            let asked = connect(at, callgate.ingress, "/open/x", &[&[version], args].concat());
            assert_eq!(asked.status, 200, "{version} {args:?}");
            asked.resumed
        };
        assert!(!ask(&["-sess_out", "session"]), "{version}");
        assert!(ask(&["-sess_in", "session", "-sess_out", "next"]), "{version}");
        // With TLS 1.2, openssl does not save the session of a resumed connection.
        assert!(version == "-tls1_2" || ask(&["-sess_in", "next"]), "{version}");
        callgate.reload(&text).unwrap();
        assert!(ask(&["-sess_in", "session"]), "{version}: after a reload");
        let session = Command::new("openssl")
            .current_dir(at)
            .args(["sess_id", "-in", "session", "-noout", "-text"])
            .output()
            .unwrap();
        let session = String::from_utf8(session.stdout).unwrap();
        assert!(!session.contains("Max Early Data") || session.contains("Max Early Data: 0"), "{session}");
        assert!(session.contains("43200"), "{session}");
    }
    let other = Callgate::start(&text, Clock::System);
    assert!(!connect(at, other.ingress, "/open/x", &["-sess_in", "session"]).resumed, "another process");
}

#[test]
fn processes_with_the_same_secret_resume_the_sessions_of_each_other() {
    let folder = folder();
    let at = folder.path();
    let agent = Agent::start(ANSWER);
    let start = |files: &str| {
        let listener = tls(at, &format!(", tickets: [ {files} ]"));
        Process::start(&config(&agent, &[listener]))
    };
    let file = |name: &str| format!("{{ file: {} }}", at.join(name).display());
    let (old, newer) = (file("tickets"), file("newer"));
    let (one, two) = (start(&old), start(&old));
    let rotated = start(&format!("{newer}, {old}"));
    for version in ["-tls1_3", "-tls1_2"] {
        let ask = |process: &Process, args: &[&str]| {
            let asked = connect(at, process.ingress[0], "/open/x", &[&[version], args].concat());
            assert_eq!(asked.status, 200, "{version} {args:?}");
            asked.resumed
        };
        assert!(!ask(&one, &["-sess_out", "session"]));
        assert!(ask(&two, &["-sess_in", "session"]), "{version}");
        assert!(ask(&rotated, &["-sess_in", "session"]), "{version}: an older secret decrypts");
        assert!(!ask(&rotated, &["-sess_out", "session"]));
        assert!(!ask(&one, &["-sess_in", "session"]), "{version}: the first secret encrypts");
    }
}

#[test]
fn a_session_does_not_outlive_the_trust_in_its_client_certificate() {
    let folder = folder();
    let at = folder.path();
    let agent = Agent::start(ANSWER);
    let clients = |file: &str, more: &str| {
        let tickets = format!("{{ file: {} }}", at.join("tickets").display());
        let file = at.join(file).display().to_string();
        tls(at, &format!(", tickets: [ {tickets} ], client_certificates: {{ authorities: {file}{more} }}"))
    };
    let listeners = [
        clients("trusted.crt", ""),
        clients("others.crt", ""),
        clients("trusted.crt", ", required: true"),
        tls(at, &format!(", tickets: [ {{ file: {} }} ]", at.join("tickets").display())),
    ];
    let text = config(&agent, &listeners);
    let callgate = Callgate::start(&text, Clock::System);
    let [one, other, required, plain] = callgate.ingresses[..] else { panic!("four listeners") };
    for version in ["-tls1_3", "-tls1_2"] {
        let ask = |address, args: &[&str]| {
            let asked = connect(at, address, "/named", &[&[version], args].concat());
            (asked.resumed, asked.status)
        };
        let own = ["-cert", "bank.crt", "-key", "bank.key"];
        assert_eq!(ask(one, &[&own[..], &["-sess_out", "session"]].concat()), (false, 200));
        assert_eq!(
            ask(one, &["-sess_in", "session"]),
            (true, 200),
            "{version}: the certificate is in the session"
        );
        // Listeners with other settings do not know the session, although they have the same secret.
        assert_eq!(ask(other, &["-sess_in", "session"]), (false, 403), "{version}");
        assert_eq!(ask(plain, &["-sess_in", "session"]), (false, 403), "{version}");
        assert_eq!(ask(required, &["-sess_in", "session"]).1, 0, "{version}: a certificate is required");
        assert_eq!(ask(plain, &["-sess_out", "anonymous"]), (false, 403));
        assert_eq!(ask(required, &["-sess_in", "anonymous"]).1, 0, "{version}");
        // A reload that takes the trust away.
        fs::copy(at.join("others.crt"), at.join("trusted.crt")).unwrap();
        callgate.reload(&text).unwrap();
        assert_eq!(ask(one, &["-sess_in", "session"]), (false, 403), "{version}");
        fs::copy(at.join("clients.crt"), at.join("trusted.crt")).unwrap();
        callgate.reload(&text).unwrap();
        assert_eq!(ask(one, &["-sess_in", "session"]), (true, 200), "{version}");
    }
}
