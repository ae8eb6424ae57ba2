//! HTTP/2: with prior knowledge on plain listeners, and with ALPN over TLS.

use std::process::Command;

use callgate::clock::Clock;

use crate::harness::{ANSWER, Agent, Callgate, open_config};

/// Creates a certificate for 127.0.0.1 and its key, as files.
pub fn certificate(folder: &std::path::Path) -> (String, String) {
    let (cert, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .expect("openssl is needed for this test");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (cert.display().to_string(), key.display().to_string())
}

#[test]
fn tls_with_http_1_1_and_http_2() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(folder.path());
    let agent = Agent::start(ANSWER);
    let config = open_config(&agent.address.to_string()).replacen(
        "address: 127.0.0.1:0 }",
        &format!("address: 127.0.0.1:0, tls: {{ certificate: {cert}, key: {key} }} }}"),
        1,
    );
    let callgate = Callgate::start(&config, Clock::System);
    let body = vec![b'x'; 1 << 20];
    let file = folder.path().join("body");
    std::fs::write(&file, &body).unwrap();
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let out = Command::new("curl")
            .args(["-s", "-w", " %{http_code} %{http_version}", flag, "--cacert", &cert, "--data-binary"])
            .arg(format!("@{}", file.display()))
            .arg(format!("https://{}/open/x", callgate.ingress))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), format!("hello 200 {version}"));
        assert!(agent.received().pop().unwrap().body == body);
    }
}

#[test]
fn http_2_is_refused_and_counted_like_http_1_1() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    for (path, status) in [("/open/..%2fx", "400"), ("/nope", "404")] {
        let out = Command::new("curl")
            .args([
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--http2-prior-knowledge",
                "--path-as-is",
                "-d",
                "x",
            ])
            .arg(format!("http://{}{path}", callgate.ingress))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), status);
    }
    assert!(agent.received().is_empty());
    assert!(callgate.metrics().contains("reason=\"path_malformed\""));
}

#[test]
fn split_cookies_are_one_header_for_the_agent() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    let out = Command::new("curl")
        .args(["-s", "--http2-prior-knowledge", "-H", "cookie: a=1", "-H", "cookie: b=2", "-d", "x"])
        .arg(format!("http://{}/open/x", callgate.ingress))
        .output()
        .unwrap();
    assert_eq!(out.stdout, b"hello");
    assert_eq!(agent.received()[0].header("cookie"), ["a=1; b=2"]);
}
