//! What an endpoint must refuse, and how (h2spec `http2`), section by section.

use super::{
    CANCEL, CLOSED, Expect, FLOW_CONTROL, FRAME_SIZE, PROTOCOL, Simple, data, dummy, get, get_with, headers,
    ping, post, priority, request,
};
use crate::h2_wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, block, frame, reset, settings, window_update,
};

const BROKEN: Expect = Expect::Connection(&[PROTOCOL]);
const MALFORMED: Expect = Expect::Stream(&[PROTOCOL]);
const TOO_LATE: Expect = Expect::Stream(&[CLOSED]);

/// A header block that goes on.
fn begun(stream: u32, flags: u8) -> Vec<u8> {
    headers(stream, flags, &request(b"GET", &[]))
}

fn more(stream: u32, flags: u8) -> Vec<u8> {
    frame(CONTINUATION, flags, stream, &dummy())
}

/// A whole request of these fields alone.
fn only(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    headers(1, END_HEADERS | END_STREAM, &block(fields))
}

/// A request whose body is to come, with a length.
fn of_length(length: &[u8]) -> Vec<u8> {
    headers(1, END_HEADERS, &request(b"POST", &[(b"content-length", length)]))
}

const METHOD: (&[u8], &[u8]) = (b":method", b"GET");
const SCHEME: (&[u8], &[u8]) = (b":scheme", b"http");
const PATH: (&[u8], &[u8]) = (b":path", b"/open/x");
const AUTHORITY: (&[u8], &[u8]) = (b":authority", b"h");

pub(super) const CASES: &[Simple] = &[
    ("http2/4.1/1 unknown type", || [frame(0x16, 0, 0, &[0; 8]), ping(1)].concat(), Expect::Ping(1)),
    ("http2/4.1/2 undefined flag", || frame(PING, 0x16, 0, &[1; 8]), Expect::Ping(1)),
    ("http2/4.1/3 reserved bit", || frame(PING, 0, 1 << 31, &[1; 8]), Expect::Ping(1)),
    (
        "http2/4.2/1 DATA of 2^14",
        || [post(1), data(1, END_STREAM, &[b'x'; 1 << 14])].concat(),
        Expect::Headers,
    ),
    (
        "http2/4.2/2 DATA beyond the maximum",
        || [post(1), data(1, END_STREAM, &[b'x'; (1 << 14) + 1])].concat(),
        Expect::Stream(&[FRAME_SIZE]),
    ),
    (
        "http2/4.2/3 HEADERS beyond the maximum",
        || headers(1, END_HEADERS | END_STREAM, &[request(b"GET", &[]), dummy().repeat(5)].concat()),
        Expect::Connection(&[FRAME_SIZE]),
    ),
    (
        "http2/4.3/1 invalid block",
        || frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x40"),
        Expect::Connection(&[super::COMPRESSION]),
    ),
    (
        "http2/4.3/2 PRIORITY within a block",
        || [begun(1, 0), priority(1, 0, 255), more(1, END_HEADERS)].concat(),
        BROKEN,
    ),
    (
        "http2/4.3/3 HEADERS of another stream within a block",
        || [begun(1, 0), get(3), more(1, END_HEADERS)].concat(),
        BROKEN,
    ),
    ("http2/5.1/1 idle: DATA", || data(1, END_STREAM, b"test"), Expect::Stream(&[PROTOCOL, CLOSED])),
    ("http2/5.1/2 idle: RST_STREAM", || reset(1, CANCEL), BROKEN),
    ("http2/5.1/3 idle: WINDOW_UPDATE", || window_update(1, 100), BROKEN),
    ("http2/5.1/4 idle: CONTINUATION", || frame(CONTINUATION, END_HEADERS, 1, &request(b"GET", &[])), BROKEN),
    ("http2/5.1/5 half-closed: DATA", || [get(1), data(1, END_STREAM, b"test")].concat(), TOO_LATE),
    ("http2/5.1/6 half-closed: HEADERS", || [get(1), get(1)].concat(), TOO_LATE),
    (
        "http2/5.1/7 half-closed: CONTINUATION",
        || [get(1), more(1, END_HEADERS)].concat(),
        Expect::Stream(&[CLOSED, PROTOCOL]),
    ),
    (
        "http2/5.1/8 reset: DATA",
        || [post(1), reset(1, CANCEL), data(1, END_STREAM, b"test")].concat(),
        TOO_LATE,
    ),
    ("http2/5.1/9 reset: HEADERS", || [post(1), reset(1, CANCEL), get(1)].concat(), TOO_LATE),
    (
        "http2/5.1/10 reset: CONTINUATION",
        || [post(1), reset(1, CANCEL), more(1, END_HEADERS)].concat(),
        Expect::Stream(&[CLOSED, PROTOCOL]),
    ),
    ("http2/5.1.1/1 even stream", || get(2), BROKEN),
    ("http2/5.1.1/2 smaller stream", || [get(5), get(3)].concat(), BROKEN),
    (
        "http2/5.3.1/1 HEADERS that depend on themselves",
        || {
            let fields = [&[0, 0, 0, 1, 255], request(b"GET", &[]).as_slice()].concat();
            headers(1, END_HEADERS | END_STREAM | WITH_PRIORITY, &fields)
        },
        MALFORMED,
    ),
    ("http2/5.3.1/2 PRIORITY that depends on itself", || priority(1, 1, 255), MALFORMED),
    ("http2/5.4.1/1 invalid PING ends the connection", || frame(PING, 0, 3, &[0; 8]), Expect::End),
    ("http2/5.4.1/2 invalid PING has a GOAWAY", || frame(PING, 0, 3, &[0; 8]), Expect::GoAway(PROTOCOL)),
    ("http2/5.5/1 unknown extension", || [frame(0x16, 0, 0, &[0; 8]), ping(1)].concat(), Expect::Ping(1)),
    (
        "http2/5.5/2 unknown extension within a block",
        || [begun(1, END_STREAM), frame(0x16, 0, 0, &[0; 8])].concat(),
        BROKEN,
    ),
    ("http2/6.1/1 DATA on stream 0", || data(0, END_STREAM, b"test"), BROKEN),
    (
        "http2/6.1/2 DATA on a stream that is not open",
        || {
            let request = headers(1, END_HEADERS | END_STREAM, &request(b"POST", &[]));
            [request, data(1, END_STREAM, b"test")].concat()
        },
        TOO_LATE,
    ),
    (
        "http2/6.1/3 DATA with more padding than there is",
        || [of_length(b"4"), frame(DATA, PADDED | END_STREAM, 1, b"\x06Test")].concat(),
        BROKEN,
    ),
    (
        "http2/6.2/1 PRIORITY within a block",
        || [begun(1, 0), priority(1, 0, 255), more(1, END_HEADERS)].concat(),
        BROKEN,
    ),
    (
        "http2/6.2/2 HEADERS of another stream within a block",
        || [begun(1, 0), get(3), more(1, END_HEADERS)].concat(),
        BROKEN,
    ),
    ("http2/6.2/3 HEADERS on stream 0", || get(0), BROKEN),
    (
        "http2/6.2/4 HEADERS with more padding than there is",
        || {
            let fields = request(b"GET", &[]);
            let padding = u8::try_from(fields.len()).unwrap() + 2;
            headers(1, END_HEADERS | END_STREAM | PADDED, &[&[padding], fields.as_slice()].concat())
        },
        MALFORMED,
    ),
    ("http2/6.3/1 PRIORITY on stream 0", || priority(0, 0, 255), BROKEN),
    (
        "http2/6.3/2 PRIORITY of 4 bytes",
        || [get(1), frame(PRIORITY, 0, 1, b"\x80\0\0\x01")].concat(),
        Expect::Stream(&[FRAME_SIZE]),
    ),
    ("http2/6.4/1 RST_STREAM on stream 0", || reset(0, CANCEL), BROKEN),
    ("http2/6.4/2 RST_STREAM on idle", || reset(1, CANCEL), BROKEN),
    (
        "http2/6.4/3 RST_STREAM of 3 bytes",
        || [get(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
        Expect::Stream(&[FRAME_SIZE]),
    ),
    (
        "http2/6.5/1 SETTINGS ACK with a payload",
        || frame(SETTINGS, ACK, 0, b"\0"),
        Expect::Connection(&[FRAME_SIZE]),
    ),
    ("http2/6.5/2 SETTINGS on a stream", || frame(SETTINGS, 0, 1, b"\0\x03\0\0\0\x64"), BROKEN),
    (
        "http2/6.5/3 SETTINGS of 3 bytes",
        || frame(SETTINGS, 0, 0, b"\0\x03\0"),
        Expect::Stream(&[PROTOCOL, FRAME_SIZE]),
    ),
    ("http2/6.5.2/1 ENABLE_PUSH of 2", || settings(&[(2, 2)]), BROKEN),
    (
        "http2/6.5.2/2 INITIAL_WINDOW_SIZE of 2^31",
        || settings(&[(4, 1 << 31)]),
        Expect::Connection(&[FLOW_CONTROL]),
    ),
    ("http2/6.5.2/3 MAX_FRAME_SIZE below 2^14", || settings(&[(5, 16_383)]), BROKEN),
    ("http2/6.5.2/4 MAX_FRAME_SIZE of 2^24", || settings(&[(5, 1 << 24)]), BROKEN),
    ("http2/6.5.2/5 unknown setting", || [settings(&[(0xff, 1)]), ping(1)].concat(), Expect::Ping(1)),
    ("http2/6.5.3/2 SETTINGS are acknowledged", || settings(&[(2, 0)]), Expect::Acknowledged),
    ("http2/6.7/1 PING", || ping(2), Expect::Ping(2)),
    (
        "http2/6.7/2 PING ACK is not answered",
        || [frame(PING, ACK, 0, &[1; 8]), ping(2)].concat(),
        Expect::Ping(2),
    ),
    ("http2/6.7/3 PING on a stream", || frame(PING, 0, 1, &[0; 8]), BROKEN),
    ("http2/6.7/4 PING of 6 bytes", || frame(PING, 0, 0, &[0; 6]), Expect::Connection(&[FRAME_SIZE])),
    ("http2/6.8/1 GOAWAY on a stream", || frame(GOAWAY, 0, 1, &[0; 8]), BROKEN),
    ("http2/6.9/1 WINDOW_UPDATE of 0", || window_update(0, 0), BROKEN),
    ("http2/6.9/2 WINDOW_UPDATE of 0 on a stream", || [post(1), window_update(1, 0)].concat(), MALFORMED),
    (
        "http2/6.9/3 WINDOW_UPDATE of 3 bytes",
        || frame(WINDOW_UPDATE, 0, 0, b"\0\0\x01"),
        Expect::Connection(&[FRAME_SIZE]),
    ),
    (
        "http2/6.9.1/2 a window beyond 2^31-1",
        || window_update(0, i32::MAX as u32).repeat(2),
        Expect::GoAway(FLOW_CONTROL),
    ),
    (
        "http2/6.9.1/3 a stream's window beyond 2^31-1",
        || [post(1), window_update(1, i32::MAX as u32).repeat(2)].concat(),
        Expect::Reset(FLOW_CONTROL),
    ),
    (
        "http2/6.9.2/3 INITIAL_WINDOW_SIZE beyond 2^31-1",
        || frame(SETTINGS, 0, 0, b"\0\x04\x80\0\0\0"),
        Expect::Connection(&[FLOW_CONTROL]),
    ),
    (
        "http2/6.10/1 several CONTINUATION",
        || [begun(1, END_STREAM), more(1, 0), more(1, END_HEADERS)].concat(),
        Expect::Headers,
    ),
    (
        "http2/6.10/2 CONTINUATION before something else",
        || [begun(1, 0), more(1, 0), data(1, END_STREAM, b"test")].concat(),
        BROKEN,
    ),
    (
        "http2/6.10/3 CONTINUATION on stream 0",
        || [begun(1, END_STREAM), more(0, END_HEADERS)].concat(),
        BROKEN,
    ),
    ("http2/6.10/4 CONTINUATION behind END_HEADERS", || [get(1), more(1, END_HEADERS)].concat(), BROKEN),
    (
        "http2/6.10/5 CONTINUATION behind the last CONTINUATION",
        || [begun(1, END_STREAM), more(1, END_HEADERS), more(1, END_HEADERS)].concat(),
        BROKEN,
    ),
    (
        "http2/6.10/6 CONTINUATION behind DATA",
        || [begun(1, 0), data(1, END_STREAM, b"test"), more(1, 0), more(0, END_HEADERS)].concat(),
        BROKEN,
    ),
    (
        "http2/7/1 GOAWAY of an unknown code",
        || [frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]), ping(1)].concat(),
        Expect::PingOrEnd(1),
    ),
    (
        "http2/7/2 RST_STREAM of an unknown code",
        || [post(1), reset(1, 0xff), ping(1)].concat(),
        Expect::PingOrEnd(1),
    ),
    (
        "http2/8.1/1 second HEADERS without END_STREAM",
        || {
            let trailers = headers(1, END_HEADERS, &block(&[(b"x-test", b"ok")]));
            [post(1), data(1, 0, b"test"), trailers].concat()
        },
        MALFORMED,
    ),
    ("http2/8.1.2/1 upper-case name", || get_with(&[(b"X-TEST", b"ok")]), MALFORMED),
    ("http2/8.1.2.1/1 unknown pseudo-header", || get_with(&[(b":test", b"ok")]), MALFORMED),
    ("http2/8.1.2.1/2 pseudo-header of an answer", || get_with(&[(b":status", b"200")]), MALFORMED),
    (
        "http2/8.1.2.1/3 pseudo-header as a trailer",
        || {
            let trailers = headers(1, END_HEADERS | END_STREAM, &block(&[(b":method", b"POST")]));
            [post(1), data(1, 0, b"test"), trailers].concat()
        },
        MALFORMED,
    ),
    (
        "http2/8.1.2.1/4 pseudo-header behind a field",
        || only(&[(b"x-test", b"ok"), METHOD, SCHEME, PATH, AUTHORITY]),
        MALFORMED,
    ),
    ("http2/8.1.2.2/1 connection", || get_with(&[(b"connection", b"keep-alive")]), MALFORMED),
    (
        "http2/8.1.2.2/2 te of something else",
        || get_with(&[(b"trailers", b"test"), (b"te", b"trailers, deflate")]),
        MALFORMED,
    ),
    ("http2/8.1.2.3/1 empty path", || only(&[METHOD, SCHEME, (b":path", b""), AUTHORITY]), MALFORMED),
    ("http2/8.1.2.3/2 no method", || only(&[SCHEME, PATH, AUTHORITY]), MALFORMED),
    ("http2/8.1.2.3/3 no scheme", || only(&[METHOD, PATH, AUTHORITY]), MALFORMED),
    ("http2/8.1.2.3/4 no path", || only(&[METHOD, SCHEME, AUTHORITY]), MALFORMED),
    ("http2/8.1.2.3/5 two methods", || get_with(&[METHOD]), MALFORMED),
    ("http2/8.1.2.3/6 two schemes", || get_with(&[SCHEME]), MALFORMED),
    ("http2/8.1.2.3/7 two paths", || get_with(&[PATH]), MALFORMED),
    (
        "http2/8.1.2.6/1 length of another body",
        || [of_length(b"1"), data(1, END_STREAM, b"test")].concat(),
        MALFORMED,
    ),
    (
        "http2/8.1.2.6/2 length of another body in two frames",
        || [of_length(b"1"), data(1, 0, b"test"), data(1, END_STREAM, b"test")].concat(),
        MALFORMED,
    ),
    (
        "http2/8.2/1 PUSH_PROMISE",
        || frame(PUSH_PROMISE, END_HEADERS, 1, &[&3_u32.to_be_bytes()[..], &request(b"GET", &[])].concat()),
        BROKEN,
    ),
];
