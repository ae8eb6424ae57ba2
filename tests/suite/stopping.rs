//! Stops the real process under load: every request that reached the agent is answered, and every response is complete.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::{ANSWER, Agent, PATIENCE, Received, eventually, open_config, send_to};
use crate::http2::certificate;
use crate::process::Process;

/// Number of stops. `CALLGATE_STOPS` sets another number.
const STOPS: usize = 10;

/// The result of one request.
enum Heard {
    /// A complete response, and whether the connection is kept.
    Whole(bool),
    /// No byte of a response.
    Nothing,
}

/// Sends a request and reads its response. An incomplete response fails the test.
fn ask(stream: &mut TcpStream, id: &str) -> Heard {
    let request = format!("POST /open/{id} HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi");
    if stream.write_all(request.as_bytes()).is_err() {
        return Heard::Nothing;
    }
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ if bytes.is_empty() => return Heard::Nothing,
            _ => panic!("half an answer: {}", String::from_utf8_lossy(&bytes)),
        }
        if bytes.ends_with(b"\r\n\r\nhello") {
            let head = String::from_utf8(bytes).unwrap().to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200 "), "{head}");
            return Heard::Whole(!head.contains("connection: close"));
        }
    }
}

/// Calls until the process no longer responds, on kept connections or on a new one each time. Returns the ids of the
/// answered requests.
fn call(address: SocketAddr, name: u32, stopped: &AtomicBool) -> BTreeSet<String> {
    let mut answered = BTreeSet::new();
    let mut kept = None;
    for number in 0.. {
        let id = format!("{name}-{number}");
        let Some(mut stream) = kept.take().or_else(|| TcpStream::connect(address).ok()) else { break };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match ask(&mut stream, &id) {
            Heard::Whole(goes_on) => {
                answered.insert(id);
                kept = (goes_on && name.is_multiple_of(2)).then_some(stream);
            }
            // Before the process is asked to stop, every request is answered.
            Heard::Nothing => assert!(stopped.load(Ordering::SeqCst), "{id} was not answered"),
        }
    }
    answered
}

/// Does the same with HTTP/2, with many streams on one connection.
fn call_http2(address: SocketAddr, certificate: &str) -> BTreeSet<String> {
    let out = Command::new("curl")
        .args(["-s", "-Z", "--parallel-max", "20", "--http2", "--cacert", certificate])
        .args(["-d", "hi", "-o", "/dev/null", "-w", "%{http_code} %{url}\n"])
        .arg(format!("https://{address}/open/h2-[0-9999]"))
        .output()
        .expect("curl is needed for this test");
    let text = String::from_utf8(out.stdout).unwrap();
    let ids = text.lines().filter_map(|line| line.strip_prefix("200 ")?.split("/open/").nth(1));
    ids.map(str::to_owned).collect()
}

#[test]
fn what_reached_the_agent_is_answered_also_when_it_stops() {
    #[allow(clippy::disallowed_methods, reason = "how long a test is to go on is not the product's business")]
    let stops = std::env::var("CALLGATE_STOPS").ok().and_then(|n| n.parse().ok()).unwrap_or(STOPS);
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(folder.path());
    let plain = "{ address: 127.0.0.1:0 }";
    let secure =
        format!("{plain}, {{ address: 127.0.0.1:0, tls: {{ certificate: {certificate}, key: {key} }} }}");
    for _ in 0..stops {
        let agent = Agent::start(ANSWER);
        let config = open_config(&agent.address.to_string()).replacen(plain, &secure, 1)
            + "shutdown: { delay: 20ms }\n";
        let process = Process::start(&config);
        let stopped = AtomicBool::new(false);
        let answered: Mutex<BTreeSet<String>> = Mutex::default();
        let &[address, secure] = process.ingress.as_slice() else { panic!("two listeners") };
        let certificate = certificate.as_str();
        let code = std::thread::scope(|scope| {
            let (stopped, answered) = (&stopped, &answered);
            let collect = |mut heard: BTreeSet<String>| answered.lock().unwrap().append(&mut heard);
            for name in 0..4 {
                scope.spawn(move || collect(call(address, name, stopped)));
            }
            scope.spawn(move || collect(call_http2(secure, certificate)));
            let by_http2 = |request: &Received| request.target().starts_with("/in/h2-");
            eventually(|| (agent.received().iter().filter(|r| by_http2(r)).count() > 100).then_some(()));
            stopped.store(true, Ordering::SeqCst);
            process.signal("TERM");
            process.ended()
        });
        assert_eq!(code, Some(0));
        let delivered: BTreeSet<String> = agent
            .received()
            .iter()
            .map(|request| request.target().strip_prefix("/in/").unwrap().to_owned())
            .collect();
        let answered = answered.into_inner().unwrap();
        let lost: Vec<_> = delivered.difference(&answered).collect();
        assert!(lost.is_empty(), "{} of {} were not answered: {lost:?}", lost.len(), delivered.len());
        assert!(answered.is_subset(&delivered));
    }
}

#[test]
fn it_is_not_ready_before_it_takes_no_more() {
    let agent = Agent::start(ANSWER);
    let process = Process::start(&(open_config(&agent.address.to_string()) + "shutdown: { delay: 1h }\n"));
    let mut kept = TcpStream::connect(process.ingress[0]).unwrap();
    assert!(matches!(ask(&mut kept, "a"), Heard::Whole(true)));
    process.signal("TERM");
    eventually(|| (send_to(process.admin, "GET", "/readyz", &[], b"").status == 503).then_some(()));
    assert_eq!(send_to(process.admin, "GET", "/livez", &[], b"").status, 200);
    // Kept and new connections are served, and the response asks the client to close them.
    assert!(matches!(ask(&mut kept, "b"), Heard::Whole(false)));
    let response = send_to(process.ingress[0], "POST", "/open/c", &[], b"hi");
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    process.signal("INT");
    assert_eq!(process.ended(), Some(0));
}

#[test]
fn every_connection_that_was_accepted_is_answered_also_when_it_stops() {
    const CALLERS: usize = 24;
    let agent = Agent::start(ANSWER);
    for _ in 0..STOPS {
        let config = open_config(&agent.address.to_string()) + "shutdown: { delay: 0ms }\n";
        let process = Process::start(&config);
        let address = process.ingress[0];
        let (answered, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (answered, stopped) = (&answered, &stopped);
        let code = std::thread::scope(|scope| {
            for caller in 0..CALLERS {
                scope.spawn(move || {
                    for number in 0.. {
                        // Each request has a connection of its own. Once connected, it is answered.
                        let Ok(mut stream) = TcpStream::connect(address) else { break };
                        stream.set_read_timeout(Some(PATIENCE)).unwrap();
                        let id = format!("{caller}-{number}");
                        let heard = ask(&mut stream, &id);
                        assert!(
                            matches!(heard, Heard::Whole(_)),
                            "{id} was connected and not answered, stopping: {}",
                            stopped.load(Ordering::SeqCst)
                        );
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            eventually(|| (answered.load(Ordering::SeqCst) > 20 * CALLERS).then_some(()));
            stopped.store(true, Ordering::SeqCst);
            process.signal("TERM");
            process.ended()
        });
        assert_eq!(code, Some(0));
    }
}
