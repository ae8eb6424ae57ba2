//! From HTTP/2 to HTTP/1.1: what HTTP/2 can carry and HTTP/1.1 cannot never gets as far as the agent.

use std::time::Duration;

use super::run::{ByteAgent, find};
use super::verdict::dirt;
use super::{Callgate, Clock, config};
use crate::h2_wire::{DATA, END_HEADERS, END_STREAM, Event, GOAWAY, HEADERS, RST_STREAM, Wire, block, frame};

/// What is delivered although it should not be. A fault that is mended must leave this
/// list: the test tells.
const FAULTS: &[(&str, &str)] = &[
    (":path /open/{ID}-a#x", "the fragment is cut off; in HTTP/1.1 such a target is refused"),
    (":scheme ", "an empty scheme is taken"),
    ("trailer :path", "pseudo-headers in trailers are overlooked by the h2 crate"),
    ("trailer :status", "the same"),
];

const PATIENCE: Duration = Duration::from_secs(8);

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A request, and the bodies it may be delivered with: none where it must not be.
struct Case {
    name: String,
    fields: Fields,
    data: Vec<&'static [u8]>,
    trailers: Option<Fields>,
    may_be: Option<&'static [u8]>,
}

/// The pseudo-headers of a sound request; `{ID}` is the beginning of its path.
fn pseudo() -> Fields {
    owned(&[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/open/{ID}-a")])
}

fn owned(fields: &[(&[u8], &[u8])]) -> Fields {
    fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// A sound request with one more field.
fn with(name: &[u8], value: &[u8]) -> Fields {
    [pseudo(), owned(&[(name, value)])].concat()
}

/// A sound request with another value of a pseudo-header, or without it.
fn but(name: &[u8], value: Option<&[u8]>) -> Fields {
    let other = |(n, v): (Vec<u8>, Vec<u8>)| match value {
        Some(value) if n == name => Some((n, value.to_vec())),
        None if n == name => None,
        _ => Some((n, v)),
    };
    pseudo().into_iter().filter_map(other).collect()
}

const MARKER: &[u8] = b"GET /open/{ID}-m HTTP/1.1\r\nHost: h\r\n\r\n";

fn case(name: String, fields: Fields, data: &[&'static [u8]], may_be: Option<&'static [u8]>) -> Case {
    Case { name, fields, data: data.to_vec(), trailers: None, may_be }
}

const BODY: &[&[u8]] = &[b"body"];
const DELIVERED: Option<&[u8]> = Some(b"body");

fn cases() -> Vec<Case> {
    [characters(), targets(), of_one_hop(), lengths(), names(), hosts(), padded(), order(), trailers()]
        .into_iter()
        .flatten()
        .collect()
}

/// What a name or a value must not hold (RFC 9113 section 8.2.1).
fn characters() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, bytes) in [
        ("CR LF", &b"\r\n"[..]),
        ("LF", b"\n"),
        ("CR", b"\r"),
        ("NUL", b"\0"),
        ("space", b" "),
        ("colon", b":"),
        ("tab", b"\t"),
        ("DEL", b"\x7f"),
        ("vertical tab", b"\x0b"),
        ("0xff", b"\xff"),
        ("0x8a", b"\x8a"),
    ] {
        let between = |before: &[u8], after: &[u8]| [before, bytes, after].concat();
        let twice = |before: &[u8]| [before, bytes, bytes, MARKER].concat();
        let legal = matches!(what, "space" | "colon" | "tab" | "0xff" | "0x8a");
        let body = legal.then_some(&b"body"[..]);
        let end = legal.then_some(&b"0\r\n\r\n"[..]);
        // A colon is a character of a query.
        let query = (what == "colon").then_some(&b""[..]);
        let coding = between(b"a", b"transfer-encoding: chunked");
        let path = between(b"/open/{ID}-a?x=", b"y");
        let line = twice(&between(b"/open/{ID}-a HTTP/1.1", b"host: h"));
        let put = |name: &[u8], value: &[u8]| but(name, Some(value));
        cases.extend([
            case(format!("{what} in a name"), with(&between(b"x", b"a"), b"b"), BODY, None),
            case(format!("{what} in a value"), with(b"x-a", &between(b"x", b"b")), BODY, body),
            case(format!("{what} before a coding"), with(b"x-a", &coding), &[b"0\r\n\r\n"], end),
            case(format!("{what} before a request"), with(b"x-a", &twice(b"a")), &[], None),
            case(format!("{what} in the query"), put(b":path", &path), &[], query),
            case(format!("{what} and a request in the path"), put(b":path", &line), &[], None),
            case(format!("{what} in the method"), put(b":method", &between(b"x", b"T")), &[], None),
            case(format!("{what} in the authority"), put(b":authority", &between(b"h", b"x: y")), &[], None),
            case(format!("{what} in the scheme"), put(b":scheme", &between(b"http", b"x")), &[], None),
        ]);
    }
    cases
}

fn targets() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, value) in [
        (":path", &b""[..]),
        (":path", b"open/{ID}-a"),
        (":path", b"/open/{ID}-a#x"),
        (":path", b"http://other/open/{ID}-a"),
        (":path", b"*"),
        (":path", b"//open/{ID}-a"),
        (":path", b"/open/{ID}-a /open/{ID}-m"),
        (":method", b""),
        (":method", b"CONNECT"),
        (":method", b"POST /open/{ID}-m HTTP/1.1\r\nx: "),
        (":authority", b"h h"),
        (":authority", b"user@h"),
        (":authority", b"localhost:x"),
        (":authority", b"h:1:2"),
        (":authority", b"h:-1"),
        (":authority", b"[::1"),
        (":authority", b"[::1]x"),
        (":authority", b":80"),
        (":scheme", b""),
    ] {
        let shown = String::from_utf8_lossy(value);
        cases.push(case(format!("{name} {shown}"), but(name.as_bytes(), Some(value)), &[], None));
    }
    cases
}

/// RFC 9113 section 8.2.2.
fn of_one_hop() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, value) in [
        ("connection", "keep-alive"),
        ("connection", "close"),
        ("connection", "content-length"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "websocket"),
        ("te", "chunked"),
        ("te", "trailers, deflate"),
    ] {
        let fields = with(name.as_bytes(), value.as_bytes());
        cases.push(case(format!("{name}: {value}"), fields, &[b"0\r\n\r\n"], None));
    }
    cases.push(case("te: trailers".into(), with(b"te", b"trailers"), BODY, DELIVERED));
    cases
}

/// RFC 9113 section 8.1.1.
fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in ["4", "3", "5", "0", "+4", "-4", "4, 4", "4 ", "0x4", "", "18446744073709551620"] {
        let may_be = if value == "4" { DELIVERED } else { None };
        let fields = || with(b"content-length", value.as_bytes());
        cases.push(case(format!("length {value:?}"), fields(), BODY, may_be));
        cases.push(case(format!("length {value:?} in two frames"), fields(), &[b"bo", b"dy"], may_be));
    }
    for (first, second) in [("4", "4"), ("4", "5"), ("5", "4"), ("0", "4")] {
        let second_line = owned(&[(b"content-length", second.as_bytes())]);
        let fields = [with(b"content-length", first.as_bytes()), second_line].concat();
        cases.push(case(format!("lengths {first} and {second}"), fields, BODY, None));
    }
    cases.push(case("length of nothing".into(), with(b"content-length", b"4"), &[], None));
    cases
}

fn names() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in
        ["X-Upper", "Content-Length", "Transfer-Encoding", "", ":", ":x", ":status", ":protocol", "Host"]
    {
        cases.push(case(format!("name {name:?}"), with(name.as_bytes(), b"4"), BODY, None));
    }
    for name in ["transfer_encoding", "content_length", "callgate_route"] {
        cases.push(case(format!("name {name:?}"), with(name.as_bytes(), b"4"), BODY, DELIVERED));
    }
    cases
}

/// A request with `host` and without `:authority`.
fn hosted(host: &[u8]) -> Fields {
    [but(b":authority", None), owned(&[(b"host", host)])].concat()
}

/// RFC 9113 section 8.3.1.
fn hosts() -> Vec<Case> {
    let two = |first: &[u8], second: &[u8]| [with(b"host", first), owned(&[(b"host", second)])].concat();
    vec![
        case("the same host".into(), with(b"host", b"h"), BODY, DELIVERED),
        case("host with a bad port and no authority".into(), hosted(b"localhost:x"), BODY, None),
        case("host without authority".into(), hosted(b"localhost:80"), BODY, DELIVERED),
        case("another host".into(), with(b"host", b"other"), &[], None),
        case("host with a line feed".into(), with(b"host", b"h\nx: y"), &[], None),
        case("host doubled".into(), two(b"h", b"h"), &[], None),
        case("two hosts".into(), two(b"h", b"other"), &[], None),
        case("no authority and no host".into(), but(b":authority", None), &[], None),
    ]
}

/// RFC 9113 section 8.2.1: a value neither begins nor ends with white space.
fn padded() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in [&b" b"[..], b"b ", b"\tb", b"b\t", b" ", b"  b  "] {
        let shown = String::from_utf8_lossy(value);
        cases.push(case(format!("value {shown:?}"), with(b"x-a", value), BODY, None));
        cases.push(case(format!("length {shown:?}"), with(b"content-length", value), BODY, None));
    }
    cases.push(case("an empty value".into(), with(b"x-a", b""), BODY, DELIVERED));
    cases
}

fn order() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in [":method", ":scheme", ":path", ":authority"] {
        let (doubled, others): (Fields, Fields) =
            pseudo().into_iter().partition(|(n, _)| n == name.as_bytes());
        let behind = [others.clone(), owned(&[(b"x-a", b"b")]), doubled.clone()].concat();
        cases.push(case(format!("{name} doubled"), [pseudo(), doubled].concat(), &[], None));
        cases.push(case(format!("{name} behind a field"), behind, &[], None));
        if name != ":authority" {
            cases.push(case(format!("no {name}"), others, &[], None));
        }
    }
    cases
}

fn trailers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, value) in [
        (":path", &b"/open/{ID}-m"[..]),
        (":status", b"200"),
        ("transfer-encoding", b"chunked"),
        ("X-Up", b"x"),
        ("x-a", b"a\r\nb"),
    ] {
        let trailers = Some(owned(&[(name.as_bytes(), value)]));
        let name = format!("trailer {name}");
        cases.push(Case { name, fields: pseudo(), data: BODY.to_vec(), trailers, may_be: None });
    }
    cases
}

#[test]
fn nothing_ambiguous_comes_down_from_http_2() {
    let agent = ByteAgent::start();
    let callgate = Callgate::start(&config(agent.address), Clock::System);
    let cases = cases();
    let ends: Vec<_> =
        cases.iter().enumerate().map(|(number, case)| send(&callgate, &format!("h{number}"), case)).collect();
    // Whatever is under way still is over with when it has stopped.
    drop(callgate);
    let mut delivered = agent.delivered();
    let (mut bad, mut faults, mut accepted) = (Vec::new(), Vec::new(), 0);
    for (number, (case, end)) in cases.iter().zip(&ends).enumerate() {
        let got = delivered.remove(&format!("h{number}")).unwrap_or_default();
        let sound = match (got.as_slice(), case.may_be) {
            ([], _) => !matches!(end, Some(200..=299)),
            ([one], Some(body)) => {
                one.body == body && dirt(one).is_none() && find(one.target(), b"-a").is_some()
            }
            _ => false,
        };
        accepted += usize::from(!got.is_empty());
        if !sound && FAULTS.iter().any(|(name, ..)| *name == case.name) {
            // Even so what is delivered is clean.
            assert!(matches!(got.as_slice(), [one] if dirt(one).is_none()), "{}", case.name);
            faults.push(&*case.name);
        } else if !sound || (got.is_empty() && case.may_be.is_some()) {
            let heads: Vec<_> = got.iter().map(|one| String::from_utf8_lossy(&one.head)).collect();
            bad.push(format!("{}: ended with {end:?}, delivered {heads:?}", case.name));
        }
    }
    println!("{} cases, {accepted} accepted, known faults {faults:?}", cases.len());
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    let mended: Vec<_> = FAULTS.iter().filter(|(name, _)| !faults.contains(name)).collect();
    assert!(mended.is_empty(), "no fault any more: {mended:?}");
    assert!(delivered.is_empty(), "delivered without a case: {:?}", delivered.keys());
}

/// Sends a case, and waits until its stream has ended; the status, where there was one.
fn send(callgate: &Callgate, id: &str, case: &Case) -> Option<u16> {
    let mut wire = Wire::open(callgate.ingress, PATIENCE);
    let fill = |fields: &Fields| {
        let filled: Vec<_> = fields.iter().map(|(name, value)| (name.clone(), put(value, id))).collect();
        block(&filled.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>())
    };
    let ends = |last: bool| if last { END_STREAM } else { 0 };
    let has_trailers = case.trailers.is_some();
    let flags = END_HEADERS | ends(case.data.is_empty() && !has_trailers);
    let mut bytes = frame(HEADERS, flags, 1, &fill(&case.fields));
    for (number, data) in case.data.iter().enumerate() {
        let last = number + 1 == case.data.len() && !has_trailers;
        bytes.extend(frame(DATA, ends(last), 1, data));
    }
    if let Some(trailers) = &case.trailers {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fill(trailers)));
    }
    wire.send(&bytes);
    let mut status = None;
    loop {
        let event = wire.next(PATIENCE);
        status = status.or(event.status());
        match &event {
            Event::Nothing => panic!("{} hangs", case.name),
            Event::Closed => return status,
            _ if event.is(RST_STREAM) || event.is(GOAWAY) => return status,
            _ if (event.is(HEADERS) || event.is(DATA)) && event.has(END_STREAM) => return status,
            _ => {}
        }
    }
}

fn put(value: &[u8], id: &str) -> Vec<u8> {
    match find(value, b"{ID}") {
        Some(at) => [&value[..at], id.as_bytes(), &put(&value[at + 4..], id)].concat(),
        None => value.to_vec(),
    }
}
