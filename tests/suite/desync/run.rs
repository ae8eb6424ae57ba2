//! An agent that keeps what it gets byte by byte, and a client that sends a case and keeps what it hears.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::cases::Case;
use super::strict::{End, Request, chunked, read};
use crate::harness::ANSWER;

/// Longest time a case may take; whoever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(8);
const THREADS: usize = 8;

/// A request as it reached the agent.
#[derive(Clone)]
pub struct Delivered {
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    /// Whether it came through the egress listener, which passes on a body with its own framing, while it arrives.
    pub passed_on: bool,
    /// Whether the message came to its end.
    pub is_whole: bool,
}

impl Delivered {
    pub fn target(&self) -> &[u8] {
        self.head.split(|b| *b == b' ').nth(1).unwrap_or_default()
    }

    pub fn method(&self) -> &[u8] {
        self.head.split(|b| *b == b' ').next().unwrap_or_default()
    }
}

/// What came of a case.
#[derive(Default)]
pub struct Heard {
    pub answers: Vec<u8>,
    pub delivered: Vec<Delivered>,
    pub hangs: bool,
}

pub struct ByteAgent {
    pub address: SocketAddr,
    delivered: Arc<Mutex<Vec<Delivered>>>,
    /// Whether the egress listener sends the requests.
    passed_on: Arc<AtomicBool>,
}

impl ByteAgent {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let delivered = Arc::<Mutex<Vec<Delivered>>>::default();
        let kept = Arc::clone(&delivered);
        let passed_on = Arc::<AtomicBool>::default();
        let passes_on = Arc::clone(&passed_on);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&kept);
                let passed_on = passes_on.load(Ordering::Relaxed);
                std::thread::spawn(move || converse(stream, &kept, passed_on));
            }
        });
        Self { address, delivered, passed_on }
    }

    /// Sets whether the egress listener sends the requests from now on.
    pub fn passes_on(&self, passed_on: bool) {
        self.passed_on.store(passed_on, Ordering::Relaxed);
    }

    /// Forgets what was delivered so far.
    pub fn forget(&self) {
        self.delivered.lock().unwrap().clear();
    }

    /// What was delivered so far, by the beginning of the path's last segment up to the first `-`.
    pub fn delivered(&self) -> HashMap<String, Vec<Delivered>> {
        let mut by_id = HashMap::<String, Vec<Delivered>>::new();
        for one in self.delivered.lock().unwrap().iter() {
            let target = String::from_utf8_lossy(one.target());
            let id =
                target.strip_prefix("/open/").and_then(|rest| rest.split('-').next()).unwrap_or_default();
            by_id.entry(id.to_owned()).or_default().push(one.clone());
        }
        by_id
    }
}

fn converse(mut stream: TcpStream, kept: &Mutex<Vec<Delivered>>, passed_on: bool) {
    let mut bytes = Vec::new();
    while let Some(end) = until(&mut stream, &mut bytes, |b| find(b, b"\r\n\r\n")) {
        if passed_on && find(&bytes[..end], b"\r\ntransfer-encoding: chunked").is_some() {
            // The length of the message, if it is whole or will never be.
            let ended = |b: &[u8]| {
                let mut rest = &b[end + 4..];
                let read = chunked(&mut rest);
                (read != Err(End::Incomplete)).then(|| b.len() - rest.len())
            };
            let Some(length) = until(&mut stream, &mut bytes, ended) else { break };
            let Ok(body) = chunked(&mut &bytes[end + 4..]) else { break };
            let head = bytes[..end].to_vec();
            kept.lock().unwrap().push(Delivered { head, body, passed_on, is_whole: true });
            bytes.drain(..length);
            if stream.write_all(ANSWER).is_err() {
                break;
            }
            continue;
        }
        let length = length(&bytes[..end]);
        let Some(all) = until(&mut stream, &mut bytes, |b| (b.len() >= end + 4 + length).then_some(end))
        else {
            break;
        };
        let body = bytes[all + 4..all + 4 + length].to_vec();
        let head = bytes[..end].to_vec();
        kept.lock().unwrap().push(Delivered { head, body, passed_on, is_whole: true });
        bytes.drain(..end + 4 + length);
        if stream.write_all(ANSWER).is_err() {
            break;
        }
    }
    // What is no whole request was delivered nonetheless.
    if !bytes.is_empty() {
        let end = find(&bytes, b"\r\n\r\n").filter(|_| passed_on).unwrap_or(bytes.len());
        let body = bytes.split_off(end);
        let delivered = Delivered { head: bytes, body, passed_on, is_whole: !passed_on };
        kept.lock().unwrap().push(delivered);
    }
}

fn until(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    done: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(at) = done(bytes) {
            return Some(at);
        }
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    }
}

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

/// The content-length of a head, 0 without one.
pub fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0)
}

/// Runs every case, each on a connection of its own. Beside what came of them it tells the targets that were
/// delivered and are of no case.
pub fn run(listener: SocketAddr, agent: &ByteAgent, cases: &[&Case]) -> (Vec<Heard>, Vec<String>) {
    let next = AtomicUsize::new(0);
    let mut heard: Vec<(usize, Heard)> = std::thread::scope(|scope| {
        let work = || {
            let mut heard = Vec::new();
            while let number = next.fetch_add(1, Ordering::Relaxed)
                && let Some(case) = cases.get(number)
            {
                heard.push((number, send(listener, case)));
            }
            heard
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    heard.sort_by_key(|(number, _)| *number);
    // Only now, so that nothing that came late is overlooked.
    let mut delivered = agent.delivered();
    for (case, (_, heard)) in cases.iter().zip(&mut heard) {
        heard.delivered = delivered.remove(&case.id).unwrap_or_default();
    }
    (heard.into_iter().map(|(_, heard)| heard).collect(), delivered.into_keys().collect())
}

fn send(listener: SocketAddr, case: &Case) -> Heard {
    let mut stream = TcpStream::connect(listener).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut heard = Heard::default();
    // It may be gone before it has read everything.
    let _ = stream.write_all(&case.bytes);
    if !case.later.is_empty() {
        heard.hangs = listen(&mut stream, &mut heard.answers, has_answer);
        let _ = stream.write_all(&case.later);
    }
    // A client that closes its sending direction counts as one that has left. It closes this direction when all requests
    // are answered. If more bytes follow the last request, they are read before the end of the stream.
    let reading = read(&case.stream());
    if matches!(reading.end, End::Clean | End::Closed) {
        listen(&mut stream, &mut heard.answers, |answers| are_answered(&reading.requests, answers));
    }
    let _ = stream.shutdown(Shutdown::Write);
    heard.hangs |= listen(&mut stream, &mut heard.answers, |_| false);
    heard
}

/// Reports whether there is a complete answer to each request.
fn are_answered(requests: &[Request], mut answers: &[u8]) -> bool {
    requests.iter().all(|request| {
        while let Some(rest) = answers.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n") {
            answers = rest;
        }
        let Some(end) = find(answers, b"\r\n\r\n") else { return false };
        let body = if request.method == "HEAD" { 0 } else { length(&answers[..end]) };
        let rest = answers.get(end + 4 + body..);
        answers = rest.unwrap_or_default();
        rest.is_some()
    })
}

/// Reads to the end of the connection, or until there is enough; tells whether neither came.
fn listen(stream: &mut TcpStream, answers: &mut Vec<u8>, enough: impl Fn(&[u8]) -> bool) -> bool {
    let mut buffer = [0; 16 << 10];
    while !enough(answers) {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => answers.extend_from_slice(&buffer[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return true,
            // The end, or a reset, which is one as well.
            _ => return false,
        }
    }
    false
}

fn has_answer(bytes: &[u8]) -> bool {
    let rest = bytes.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(bytes);
    find(rest, b"\r\n\r\n").is_some_and(|end| rest.len() >= end + 4 + length(&rest[..end]))
}
