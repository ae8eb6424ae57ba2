//! Floods: whatever comes on one connection, the next one is served, and memory stays where it was.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::{PATIENCE, data, get, headers, ping, post, priority, request};
use crate::h2_wire::{
    CONTINUATION, END_HEADERS, END_STREAM, Event, GOAWAY, Wire, frame, reset, settings, window_update,
};
use crate::harness::{ANSWER, Agent, Response, open_config};

/// Most that all floods together may add to the memory of the process.
const GROWTH_MAX_KIB: u64 = 64 << 10;
/// How many connections flood at once.
const CONNECTIONS: usize = 4;
/// How much is written at once.
const PIECE: usize = 32 << 10;

/// What a flood ends with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The connection was cut, with a GOAWAY of this code or without one.
    Cut(Option<u32>),
    /// It was taken to its end.
    Taken,
    /// Nothing more was read from it.
    Throttled,
}

/// A flood: its name, what is repeated and how often, and whether it must be cut. The number is a stream's.
struct Flood {
    name: &'static str,
    first: fn() -> Vec<u8>,
    repeated: fn(u32) -> Vec<u8>,
    times: u32,
    cut: bool,
}

const fn nothing() -> Vec<u8> {
    Vec::new()
}

const FLOODS: &[Flood] = &[
    Flood {
        name: "rapid reset (CVE-2023-44487)",
        first: nothing,
        repeated: |stream| [get(stream), reset(stream, super::CANCEL)].concat(),
        times: 10_000,
        cut: true,
    },
    Flood {
        name: "rapid reset of unfinished requests",
        first: nothing,
        repeated: |stream| [post(stream), reset(stream, super::CANCEL)].concat(),
        times: 10_000,
        cut: true,
    },
    Flood {
        name: "CONTINUATION (VU#421644)",
        first: || headers(1, END_STREAM, &request(b"GET", &[])),
        repeated: |_| frame(CONTINUATION, 0, 1, &super::dummy().repeat(4)),
        times: 2_000,
        cut: true,
    },
    Flood {
        name: "empty CONTINUATION",
        first: || headers(1, END_STREAM, &request(b"GET", &[])),
        repeated: |_| frame(CONTINUATION, 0, 1, &[]),
        times: 100_000,
        cut: true,
    },
    Flood {
        name: "empty SETTINGS (CVE-2019-9515)",
        first: nothing,
        repeated: |_| settings(&[]),
        times: 500_000,
        cut: false,
    },
    Flood {
        name: "window sizes in SETTINGS",
        first: || post(1),
        repeated: |stream| settings(&[(4, stream % 65_535), (1, stream % 4096)]),
        times: 100_000,
        cut: false,
    },
    Flood { name: "PING (CVE-2019-9512)", first: nothing, repeated: |_| ping(1), times: 100_000, cut: false },
    Flood {
        name: "PRIORITY (CVE-2019-9513)",
        first: nothing,
        repeated: |stream| priority(stream, stream + 2, 1),
        times: 100_000,
        cut: false,
    },
    Flood {
        name: "empty DATA (CVE-2019-9518)",
        first: || post(1),
        repeated: |_| data(1, 0, &[]),
        times: 200_000,
        cut: false,
    },
    Flood {
        name: "MadeYouReset (CVE-2025-8671), windows of 0",
        first: nothing,
        repeated: |stream| [post(stream), window_update(stream, 0)].concat(),
        times: 10_000,
        cut: true,
    },
    Flood {
        name: "MadeYouReset, windows beyond the maximum",
        first: nothing,
        repeated: |stream| [get(stream), window_update(stream, i32::MAX as u32).repeat(2)].concat(),
        times: 10_000,
        cut: true,
    },
    Flood {
        name: "MadeYouReset, dependency on itself",
        first: nothing,
        repeated: |stream| [post(stream), priority(stream, stream, 1)].concat(),
        times: 10_000,
        cut: true,
    },
    Flood {
        name: "malformed requests",
        first: nothing,
        repeated: |stream| headers(stream, END_HEADERS | END_STREAM, &request(b"GET", &[(b"X-UP", b"")])),
        times: 10_000,
        cut: true,
    },
    Flood {
        name: "streams beyond the limit",
        first: || settings(&[(4, 0)]),
        repeated: post,
        times: 10_000,
        cut: false,
    },
    Flood {
        name: "large header lists",
        first: nothing,
        repeated: |stream| {
            let begun = headers(stream, END_STREAM, &request(b"GET", &[]));
            let more = frame(CONTINUATION, 0, stream, &super::dummy().repeat(4)).repeat(16);
            [begun, more, frame(CONTINUATION, END_HEADERS, stream, &[])].concat()
        },
        times: 100,
        cut: false,
    },
    Flood {
        name: "header lists that unpack (CVE-2016-6581)",
        first: nothing,
        repeated: |stream| {
            // A field of 4,000 bytes enters the table; each further byte names it once more.
            let mut fields = request(b"GET", &[]);
            fields.extend_from_slice(b"\x40\x01x\x7f\xa1\x1e");
            fields.extend_from_slice(&[b'x'; 4000]);
            fields.extend_from_slice(&[0xbe; 8000]);
            headers(stream, END_HEADERS | END_STREAM, &fields)
        },
        times: 500,
        cut: false,
    },
];

/// Callgate in a process of its own: only so is its memory its own.
struct Process {
    child: Child,
    ingress: SocketAddr,
}

impl Process {
    fn start(config: &std::path::Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_callgate"))
            .args(["run", "-c"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let line = lines.find(|line| line.contains("ingress on ")).unwrap();
        let address = line.split("ingress on ").nth(1).unwrap().split(": ").next().unwrap();
        let ingress = address.trim().parse().unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, ingress }
    }

    /// How much memory is resident.
    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// A request of somebody else.
    fn serves(&self) -> bool {
        let mut stream = TcpStream::connect(self.ingress).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /open/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        Response::read(&mut stream).status == 200
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a flood without reading, as those who flood do.
fn send(ingress: SocketAddr, flood: &Flood) -> End {
    let mut wire = Wire::open(ingress, PATIENCE);
    let mut piece = (flood.first)();
    for number in 0..flood.times {
        piece.extend((flood.repeated)(number * 2 + 1));
        if piece.len() < PIECE && number + 1 < flood.times {
            continue;
        }
        if let Err(error) = wire.try_send(&piece) {
            let throttled =
                matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            if throttled {
                return End::Throttled;
            }
            break;
        }
        piece.clear();
    }
    // What was sent is read by now, or will be: a last PING is answered behind it.
    wire.send(&ping(0xaa));
    loop {
        match wire.next(PATIENCE) {
            Event::Closed => return End::Cut(None),
            event if event.is(GOAWAY) => return End::Cut(event.code()),
            Event::Nothing => return End::Throttled,
            Event::Frame { payload, .. } if payload == [0xaa; 8] => return End::Taken,
            Event::Frame { .. } => {}
        }
    }
}

#[test]
fn floods_hurt_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(ANSWER);
    let config = folder.path().join("callgate.yaml");
    std::fs::write(&config, open_config(&agent.address.to_string())).unwrap();
    let process = Process::start(&config);
    // Whatever is made once is made by now.
    (0..50).for_each(|_| assert!(process.serves()));
    let before = process.resident_kib();
    let mut most = before;
    for flood in FLOODS {
        let began = callgate::clock::instant();
        let ingress = process.ingress;
        let (ends, served) = std::thread::scope(|scope| {
            let flooding: Vec<_> =
                (0..CONNECTIONS).map(|_| scope.spawn(move || send(ingress, flood))).collect();
            let mut served = 0;
            while served == 0 || !flooding.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                assert!(process.serves(), "{}", flood.name);
                served += 1;
                most = most.max(process.resident_kib());
            }
            (flooding.into_iter().map(|flooding| flooding.join().unwrap()).collect::<Vec<_>>(), served)
        });
        most = most.max(process.resident_kib());
        println!("{}: {ends:?} in {:?}, {served} others served, {most} KiB", flood.name, began.elapsed());
        let cut = ends.iter().all(|end| matches!(end, End::Cut(_)));
        assert!(cut || !flood.cut, "{}: {ends:?}", flood.name);
    }
    println!("{before} KiB before, {most} KiB at most");
    assert!(most - before < GROWTH_MAX_KIB, "{before} KiB before, {most} KiB at most");
}
