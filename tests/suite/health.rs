//! `callgate health` against listeners that answer well, answer badly, or do not answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::thread;

fn health(address: SocketAddr, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
    command.arg("health").arg("--admin").arg(address.to_string()).args(args).output().unwrap()
}

/// Starts a listener that answers one connection with these bytes. The thread returns the request that it received.
fn answering(bytes: &'static [u8]) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = vec![0; 4096];
        let n = stream.read(&mut asked).unwrap();
        stream.write_all(bytes).unwrap();
        String::from_utf8(asked[..n].to_vec()).unwrap()
    });
    (address, served)
}

fn told(out: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn it_asks_for_life_or_readiness() {
    for (args, path) in [(&[][..], "/livez"), (&["--ready"][..], "/readyz")] {
        let (address, served) = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        assert_eq!(told(&health(address, args)), (Some(0), "ok\n".to_owned(), String::new()));
        let asked = served.join().unwrap();
        assert!(asked.starts_with(&format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n")), "{asked}");
    }
}

#[test]
fn what_is_not_well_exits_with_69_and_says_why() {
    for (bytes, words) in [
        (&b"HTTP/1.1 503 Service Unavailable\r\n\r\nstopping\n"[..], "stopping (HTTP 503"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n\x1b[31mnot found", "[31mnot found (HTTP 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"", "not HTTP"),
    ] {
        let (address, served) = answering(bytes);
        let (code, out, error) = told(&health(address, &["--ready"]));
        assert_eq!((code, out.as_str()), (Some(69), ""));
        assert!(error.contains(words) && !error.contains('\x1b'), "{error}");
        served.join().unwrap();
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, _, error) = told(&health(free, &[]));
    assert_eq!(code, Some(69));
    assert!(error.contains("no answer from"), "{error}");
}

#[test]
fn one_that_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let out = health(silent.local_addr().unwrap(), &[]);
    assert_eq!(out.status.code(), Some(69));
}

#[test]
fn bad_usage_exits_with_64() {
    let out = Command::new(env!("CARGO_BIN_EXE_callgate")).args(["health", "--admin", "nowhere"]).output();
    assert_eq!(out.unwrap().status.code(), Some(64));
}
