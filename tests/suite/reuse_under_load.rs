//! Connections to the agent are reused while the workers are busy, by an agent that writes to idle connections or closes
//! them. What is told of time is the kernel's: when a request reached the agent's socket.
//!
//! `CALLGATE_REUSE_SECONDS` and `CALLGATE_REUSE_CALLBACKS` make longer runs of it, `CALLGATE_BINARY` names another build.

use std::io::{IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::cmsg_space;
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;

use crate::harness::{PATIENCE, Response, open_config};
use crate::process::Process;

/// Bytes that waited on a connection for longer than this could be seen by whoever looked.
const VISIBLE: Duration = Duration::from_micros(50);
/// The same in a short run on a machine that does other things, too.
const VISIBLE_BY_FAR: Duration = Duration::from_millis(5);

#[allow(clippy::disallowed_methods, reason = "a longer run is asked for by the environment")]
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[allow(clippy::disallowed_methods, reason = "the kernel's timestamps are of this clock")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// What the agent saw.
#[derive(Default)]
struct Seen {
    /// Requests on a connection that had been written to while it was idle.
    after_bytes: AtomicUsize,
    /// Those of them where the bytes had waited for longer than [`VISIBLE`].
    visible: AtomicUsize,
    /// The longest wait of such bytes, in microseconds.
    longest: AtomicU64,
}

/// Reads one request, which comes in one piece. Returns its head and when it reached the socket: the kernel does not know
/// of the first ones, which came while it began to take notes.
fn receive(stream: &TcpStream) -> Option<(String, Option<Duration>)> {
    let mut buffer = [0; 4096];
    let mut control = cmsg_space!(TimeSpec);
    let mut pieces = [IoSliceMut::new(&mut buffer)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut pieces, Some(&mut control), MsgFlags::empty()).ok()?;
    let at = message.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
        _ => None,
    });
    let bytes = message.bytes;
    (bytes > 0).then(|| (String::from_utf8_lossy(&buffer[..bytes]).into_owned(), at))
}

/// Serves one connection: whoever asks for `/in/evil` gets an answer without a body, and bytes behind it when no other
/// request has come for a while.
fn serve(stream: &mut TcpStream, seen: &Seen) {
    setsockopt(stream, ReceiveTimestampns, &true).unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut written_at, mut round) = (None, 0_u64);
    loop {
        stream.set_read_timeout(None).unwrap();
        let Some((head, received_at)) = receive(stream) else { return };
        if let Some(written_at) = written_at {
            let waited = received_at.unwrap_or_else(now).saturating_sub(written_at);
            seen.after_bytes.fetch_add(1, Ordering::Relaxed);
            seen.longest.fetch_max(u64::try_from(waited.as_micros()).unwrap(), Ordering::Relaxed);
            seen.visible.fetch_add(usize::from(waited > VISIBLE), Ordering::Relaxed);
        }
        let evil = head.starts_with("POST /in/evil");
        let answer: &[u8] = match evil {
            true => b"HTTP/1.1 204 No Content\r\n\r\n",
            false => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
        };
        if stream.write_all(answer).is_err() {
            return;
        }
        round += 1;
        if evil && written_at.is_none() {
            stream.set_read_timeout(Some(Duration::from_millis(1 + round % 5))).unwrap();
            if stream.peek(&mut [0]).is_err() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL");
                written_at = Some(now());
            }
        }
    }
}

/// Starts an agent whose connections are served by `serve`.
fn agent(serve: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, serve) = (listener.local_addr().unwrap(), Arc::new(serve));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(&mut stream));
        }
    });
    address
}

/// The real process with so many worker threads.
fn callgate(agent: SocketAddr, threads: usize) -> Process {
    let limits = "limits: { connections_per_address_max: 1000, ";
    let config = open_config(&agent.to_string()).replace("limits: { ", limits);
    Process::start(&format!("threads: {threads}\naccess_log: off\n{config}"))
}

fn connect(process: &Process) -> TcpStream {
    let stream = TcpStream::connect(process.ingress[0]).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Calls on one connection until it is done. Returns what the answers were.
fn call(process: &Process, path: &str, done: impl Fn() -> bool) -> Vec<(u16, String)> {
    let mut stream = connect(process);
    let request = format!("POST /open/{path} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    let mut answers = Vec::new();
    while !done() {
        stream.write_all(request.as_bytes()).unwrap();
        let response = Response::read(&mut stream);
        answers.push((response.status, response.text()));
    }
    answers
}

/// Keeps the workers busy with requests that are refused, 32 at once.
fn pipeline(process: &Process, done: &AtomicBool) {
    let mut stream = connect(process);
    let requests = b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n".repeat(32);
    let mut buffer = vec![0; 64 << 10];
    while !done.load(Ordering::Relaxed) {
        stream.write_all(&requests).unwrap();
        let mut answers = 0;
        while answers < 32 {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0);
            // Each answer is one piece for this purpose: the last byte of a body is its only brace.
            answers += buffer[..read].iter().filter(|byte| **byte == b'}').count();
        }
    }
}

/// Says that it is done, whatever happens.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn connections_with_visible_bytes_are_not_reused() {
    let seconds = setting("CALLGATE_REUSE_SECONDS", 1);
    // A debug build has no time left for anybody else where more of them call.
    let pipelines = if seconds > 1 { 20 } else { 2 };
    for threads in [1, 2] {
        let seen = Arc::new(Seen::default());
        let seen_by_agent = Arc::clone(&seen);
        let process = callgate(agent(move |stream| serve(stream, &seen_by_agent)), threads);
        let done = AtomicBool::new(false);
        let is_done = || done.load(Ordering::Relaxed);
        let (callbacks, foreign) = std::thread::scope(|scope| {
            let _done = Done(&done);
            let evil: Vec<_> = (0..4).map(|_| scope.spawn(|| call(&process, "evil", is_done))).collect();
            let good: Vec<_> = (0..16).map(|_| scope.spawn(|| call(&process, "x", is_done))).collect();
            for _ in 0..pipelines {
                scope.spawn(|| pipeline(&process, &done));
            }
            std::thread::sleep(Duration::from_secs(seconds as u64));
            done.store(true, Ordering::Relaxed);
            evil.into_iter().for_each(|caller| drop(caller.join().unwrap()));
            let answers: Vec<_> = good.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
            (answers.len(), answers.iter().filter(|answer| answer.1 == "EVIL").count())
        });
        let [reused, visible] = [&seen.after_bytes, &seen.visible].map(|count| count.load(Ordering::Relaxed));
        let longest = seen.longest.load(Ordering::Relaxed);
        println!(
            "{threads} threads, {seconds} s: {callbacks} callbacks, {foreign} foreign answers; requests behind bytes: {reused}, behind visible bytes: {visible}, longest wait {longest} us"
        );
        assert!(callbacks > 0);
        assert!(longest < u64::try_from(VISIBLE_BY_FAR.as_micros()).unwrap(), "{longest} us");
    }
}

#[test]
fn a_bystander_on_an_idle_machine_gets_its_own_answer() {
    let seen = Arc::new(Seen::default());
    let process = callgate(agent(move |stream| serve(stream, &seen)), 2);
    for pause in [10, 30] {
        for _ in 0..10 {
            call(&process, "evil", once());
            std::thread::sleep(Duration::from_millis(pause));
            assert_eq!(call(&process, "x", once()), [(200, "fine".to_owned())]);
        }
    }
}

/// Done when asked for the second time.
fn once() -> impl Fn() -> bool {
    let asked = AtomicBool::new(false);
    move || asked.swap(true, Ordering::Relaxed)
}

#[test]
fn callbacks_get_through_to_an_agent_that_closes_idle_connections_early() {
    let callbacks = setting("CALLGATE_REUSE_CALLBACKS", 300);
    let closing = agent(|stream| {
        stream.set_nodelay(true).unwrap();
        let mut buffer = [0; 4096];
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        while stream.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
            if stream.write_all(answer).is_err() {
                return;
            }
            stream.set_read_timeout(Some(Duration::from_millis(3))).unwrap();
        }
    });
    let process = callgate(closing, 2);
    let (done, left) = (AtomicBool::new(false), AtomicUsize::new(callbacks));
    let none_left =
        || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let _done = Done(&done);
        for _ in 0..32 {
            scope.spawn(|| pipeline(&process, &done));
        }
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| call(&process, "x", none_left))).collect();
        let answers = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        answers
    });
    let failed = answers.iter().filter(|answer| answer.0 != 200).count();
    println!("{} callbacks, {failed} of them not delivered", answers.len());
    assert_eq!(answers.len(), callbacks);
    // Of one that crosses the agent's close nobody knows whether it arrived: that is HTTP/1.1's own race.
    assert!(failed <= 1 + callbacks / 1_000, "{failed}");
}
