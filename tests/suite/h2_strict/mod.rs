//! HTTP/2 by the letter: the cases of h2spec (summerwind/h2spec at af83a65, MIT, generic, http2 and hpack, strict),
//! said in frames of our own; and floods.

mod floods;
mod generic;
mod stepwise;
mod streams;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callgate::clock::Clock;

use crate::h2_wire::{
    ACK, DATA, END_HEADERS, END_STREAM, Event, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, Wire,
    block, frame,
};
use crate::harness::{ANSWER, Agent, Callgate, open_config};

/// Longest wait for what a case expects. Only a failure takes that long.
const PATIENCE: Duration = Duration::from_secs(4);
const THREADS: usize = 8;
/// Of h2spec's 147.
const PASSED_MIN: usize = 140;

/// Cases that fail, and why. One that passes must leave this list.
const KNOWN: &[(&str, &str)] = &[(
    "http2/8.1.2.1/3 pseudo-header as a trailer",
    "the h2 crate looks at pseudo-headers in the first block of a stream only",
)];

// Error codes (RFC 9113 section 7).
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const REFUSED: u32 = 7;
const CANCEL: u32 = 8;
const COMPRESSION: u32 = 9;

/// What may come of a case. As in h2spec, the end of the connection is always as good as a GOAWAY.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// GOAWAY with one of these codes, or the end of the connection.
    Connection(&'static [u32]),
    /// The same, or RST_STREAM with one of these codes.
    Stream(&'static [u32]),
    /// GOAWAY with this code and nothing else.
    GoAway(u32),
    /// RST_STREAM with this code and nothing else.
    Reset(u32),
    End,
    /// An answer on stream 1.
    Headers,
    /// A piece of a body, of this length.
    Data(Option<usize>),
    /// The acknowledgement of a PING of this byte, eight times.
    Ping(u8),
    /// The same, or the end of the connection.
    PingOrEnd(u8),
    /// The acknowledgement of settings.
    Acknowledged,
    /// Settings, before anything else.
    SettingsFirst,
}

/// A case that is one write: its name, what is sent after the settings, what is expected.
type Simple = (&'static str, fn() -> Vec<u8>, Expect);

/// A case of several steps; `None` where one of them does not come.
type Stepwise = (&'static str, fn(&mut Wire) -> Option<()>, Expect);

#[derive(Clone, Copy)]
enum Case {
    Simple(Simple),
    Stepwise(Stepwise),
    /// Without any settings before it.
    Raw(Simple),
}

impl Case {
    fn name(&self) -> &'static str {
        match self {
            Self::Simple((name, ..)) | Self::Stepwise((name, ..)) | Self::Raw((name, ..)) => name,
        }
    }

    fn run(&self, ingress: SocketAddr) -> Result<(), String> {
        let (mut wire, expect) = match self {
            Self::Raw((_, bytes, expect)) => {
                let mut wire = Wire::connect(ingress);
                wire.send(&bytes());
                (wire, *expect)
            }
            Self::Simple((_, bytes, expect)) => {
                let mut wire = Wire::open(ingress, PATIENCE);
                wire.send(&bytes());
                (wire, *expect)
            }
            Self::Stepwise((_, steps, expect)) => {
                let mut wire = Wire::open(ingress, PATIENCE);
                steps(&mut wire).ok_or("a step did not come")?;
                (wire, *expect)
            }
        };
        verify(&mut wire, expect)
    }
}

fn verify(wire: &mut Wire, expect: Expect) -> Result<(), String> {
    let mut seen = Vec::new();
    loop {
        let event = wire.next(PATIENCE);
        let over = matches!(event, Event::Closed | Event::Nothing);
        match judge(&event, expect) {
            Some(true) => return Ok(()),
            None if !over => seen.push(event),
            _ => return Err(format!("{expect:?}, not {event:?} behind {seen:?}")),
        }
    }
}

/// Whether the event is what is expected; `None` where more may come.
fn judge(event: &Event, expect: Expect) -> Option<bool> {
    let closed = *event == Event::Closed;
    let pong = |byte: u8| matches!(event, Event::Frame { kind: PING, flags: ACK, payload, .. } if *payload == [byte; 8]);
    let yes = match expect {
        Expect::Connection(codes) => {
            closed || (event.is(GOAWAY) && event.code().is_some_and(|c| codes.contains(&c)))
        }
        Expect::Stream(codes) => closed || event.code().is_some_and(|code| codes.contains(&code)),
        Expect::GoAway(code) => event.is(GOAWAY) && event.code() == Some(code),
        Expect::Reset(code) => event.is(RST_STREAM) && event.code() == Some(code),
        Expect::End => closed,
        Expect::Headers => matches!(event, Event::Frame { kind: HEADERS, stream: 1, .. }),
        Expect::Data(length) => match event {
            Event::Frame { kind: DATA, payload, .. } => {
                return Some(length.is_none_or(|l| payload.len() == l));
            }
            _ => false,
        },
        Expect::Ping(byte) => match event.is(PING) {
            true => return Some(pong(byte)),
            false => false,
        },
        Expect::PingOrEnd(byte) => closed || pong(byte),
        Expect::Acknowledged => event.is(SETTINGS) && event.has(ACK),
        Expect::SettingsFirst => return Some(event.is(SETTINGS) && !event.has(ACK)),
    };
    yes.then_some(true)
}

#[test]
fn http_2_is_spoken_by_the_letter() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    let cases: Vec<Case> = generic::RAW
        .iter()
        .map(|case| Case::Raw(*case))
        .chain(generic::CASES.iter().chain(streams::CASES).map(|case| Case::Simple(*case)))
        .chain(stepwise::CASES.iter().map(|case| Case::Stepwise(*case)))
        .collect();
    let (next, ingress) = (AtomicUsize::new(0), callgate.ingress);
    let failed: Vec<(&str, String)> = std::thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(why) = case.run(ingress) {
                    failed.push((case.name(), why));
                }
            }
            failed
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let passed = cases.len() - failed.len();
    println!("{passed} of {} cases pass; these do not:", cases.len());
    failed.iter().for_each(|(name, why)| println!("  {name}: {why:.400}"));
    assert!(passed >= PASSED_MIN, "{passed} of {}", cases.len());
    let is_known = |name: &str| KNOWN.iter().any(|(known, _)| *known == name);
    let new: Vec<_> = failed.iter().filter(|(name, _)| !is_known(name)).collect();
    assert!(new.is_empty(), "{new:#?}");
    let mended: Vec<_> =
        KNOWN.iter().filter(|(known, _)| !failed.iter().any(|(name, _)| name == known)).collect();
    assert!(mended.is_empty(), "no failure any more: {mended:?}");
}

#[test]
fn an_answer_is_no_error() {
    let answer =
        |kind, flags, payload: &[u8]| Event::Frame { kind, flags, stream: 1, payload: payload.to_vec() };
    let reset = answer(RST_STREAM, 0, &CLOSED.to_be_bytes());
    assert_eq!(judge(&reset, Expect::Stream(&[CLOSED])), Some(true));
    assert_eq!(judge(&reset, Expect::Stream(&[PROTOCOL])), None);
    assert_eq!(judge(&reset, Expect::Connection(&[CLOSED])), None, "a stream is no connection");
    let ok = answer(HEADERS, END_HEADERS | END_STREAM, &[0x88]);
    assert_eq!(ok.status(), Some(200));
    assert_eq!(judge(&ok, Expect::Stream(&[PROTOCOL])), None);
    assert_eq!(judge(&ok, Expect::Headers), Some(true));
    assert_eq!(judge(&Event::Closed, Expect::Headers), None);
    assert_eq!(judge(&answer(PING, 0, &[7; 8]), Expect::Ping(7)), Some(false), "no acknowledgement");
    let compressed = answer(HEADERS, END_HEADERS, &[0x48, 0x82, 0x68, 0x01]);
    assert_eq!(compressed.status(), Some(401));
}

// === Frames that many cases send ===

/// The header block of a request.
fn request(method: &[u8], more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", method), (b":scheme", b"http"), (b":path", b"/open/x"), (b":authority", b"h")];
    block(&[&fields, more].concat())
}

fn headers(stream: u32, flags: u8, fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, fields)
}

/// A whole request.
fn get(stream: u32) -> Vec<u8> {
    headers(stream, END_HEADERS | END_STREAM, &request(b"GET", &[]))
}

/// A whole request with more fields.
fn get_with(more: &[(&[u8], &[u8])]) -> Vec<u8> {
    headers(1, END_HEADERS | END_STREAM, &request(b"GET", more))
}

/// The head of a request whose body is to come.
fn post(stream: u32) -> Vec<u8> {
    headers(stream, END_HEADERS, &request(b"POST", &[]))
}

fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, bytes)
}

fn ping(byte: u8) -> Vec<u8> {
    frame(PING, 0, 0, &[byte; 8])
}

fn priority(stream: u32, on: u32, weight: u8) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[weight]].concat())
}

/// A field as large as a header of h2spec.
fn dummy() -> Vec<u8> {
    block(&[(b"x-dummy0", &[b'x'; 4000])])
}
