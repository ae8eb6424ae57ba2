//! What an endpoint must accept (h2spec `generic`), and what HPACK must not (h2spec `hpack`).

use super::{
    COMPRESSION, Expect, PROTOCOL, Simple, data, dummy, get, headers, ping, post, priority, request,
};
use crate::h2_wire::{
    CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PREFACE, WITH_PRIORITY, block, frame,
    reset, settings, window_update,
};

/// Without any settings before them.
pub(super) const RAW: &[Simple] = &[
    ("generic/1/1 client preface", || [PREFACE, &settings(&[])].concat(), Expect::SettingsFirst),
    ("http2/3.5/1 server preface", || [PREFACE, &settings(&[(4, 65_535)])].concat(), Expect::SettingsFirst),
    (
        "http2/3.5/2 invalid preface",
        || b"INVALID CONNECTION PREFACE\r\n\r\n".to_vec(),
        Expect::Connection(&[PROTOCOL]),
    ),
];

/// A request whose header block goes on with these bytes.
fn get_and(more: &[u8]) -> Vec<u8> {
    headers(1, END_HEADERS | END_STREAM, &[&request(b"GET", &[]), more].concat())
}

/// A request whose header block begins with these bytes.
fn first(bytes: &[u8]) -> Vec<u8> {
    headers(1, END_HEADERS | END_STREAM, &[bytes, &request(b"GET", &[])].concat())
}

/// A request whose first fields are followed by more.
fn begun(flags: u8) -> Vec<u8> {
    headers(1, flags, &request(b"GET", &[]))
}

const REFUSED: Expect = Expect::Connection(&[COMPRESSION]);

pub(super) const CASES: &[Simple] = &[
    ("generic/2/1 PRIORITY on idle", || [priority(1, 0, 0), ping(1)].concat(), Expect::Ping(1)),
    (
        "generic/2/4 RST_STREAM on half-closed",
        || [get(1), reset(1, super::CANCEL), ping(1)].concat(),
        Expect::PingOrEnd(1),
    ),
    ("generic/3.1/1 DATA", || [post(1), data(1, END_STREAM, b"test")].concat(), Expect::Headers),
    (
        "generic/3.1/2 several DATA",
        || [post(1), data(1, 0, b"te"), data(1, END_STREAM, b"st")].concat(),
        Expect::Headers,
    ),
    (
        "generic/3.1/3 DATA with padding",
        || [post(1), data(1, END_STREAM | PADDED, b"\x06test\0\0\0\0\0\0")].concat(),
        Expect::Headers,
    ),
    ("generic/3.2/1 HEADERS", || get(1), Expect::Headers),
    (
        "generic/3.2/2 HEADERS with padding",
        || {
            let fields = [b"\x06", request(b"GET", &[]).as_slice(), &[0; 6]].concat();
            headers(1, END_HEADERS | END_STREAM | PADDED, &fields)
        },
        Expect::Headers,
    ),
    (
        "generic/3.2/3 HEADERS with priority",
        || {
            let fields = [&[0, 0, 0, 0, 255], request(b"GET", &[]).as_slice()].concat();
            headers(1, END_HEADERS | END_STREAM | WITH_PRIORITY, &fields)
        },
        Expect::Headers,
    ),
    ("generic/3.3/1 PRIORITY 1", || [priority(1, 0, 0), get(1)].concat(), Expect::Headers),
    ("generic/3.3/2 PRIORITY 256", || [priority(1, 0, 255), get(1)].concat(), Expect::Headers),
    ("generic/3.3/3 PRIORITY with dependency", || [priority(3, 1, 0), get(1)].concat(), Expect::Headers),
    ("generic/3.3/4 PRIORITY exclusive", || [priority(1, 1 << 31, 0), get(1)].concat(), Expect::Headers),
    ("generic/3.3/5 PRIORITY of a later stream", || [priority(3, 0, 255), get(1)].concat(), Expect::Headers),
    (
        "generic/3.4/1 RST_STREAM",
        || [post(1), reset(1, super::CANCEL), ping(1)].concat(),
        Expect::PingOrEnd(1),
    ),
    ("generic/3.5/1 SETTINGS", || settings(&[(3, 100)]), Expect::Acknowledged),
    ("generic/3.7/1 PING", || ping(1), Expect::Ping(1)),
    (
        "generic/3.8/1 GOAWAY",
        || [frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0h2spec"), ping(1)].concat(),
        Expect::PingOrEnd(1),
    ),
    (
        "generic/3.9/1 WINDOW_UPDATE of the connection",
        || [window_update(0, 1), ping(1)].concat(),
        Expect::Ping(1),
    ),
    (
        "generic/3.9/2 WINDOW_UPDATE of a stream",
        || [settings(&[(4, 0)]), get(1), window_update(1, 1)].concat(),
        Expect::Data(Some(1)),
    ),
    (
        "generic/3.10/1 CONTINUATION",
        || [begun(END_STREAM), frame(CONTINUATION, END_HEADERS, 1, &dummy())].concat(),
        Expect::Headers,
    ),
    (
        "generic/3.10/2 several CONTINUATION",
        || {
            let more = [frame(CONTINUATION, 0, 1, &dummy()), frame(CONTINUATION, END_HEADERS, 1, &dummy())];
            [begun(END_STREAM), more.concat()].concat()
        },
        Expect::Headers,
    ),
    ("generic/4/1 GET", || get(1), Expect::Headers),
    ("generic/4/2 HEAD", || headers(1, END_HEADERS | END_STREAM, &request(b"HEAD", &[])), Expect::Headers),
    ("generic/4/3 POST", || [post(1), data(1, END_STREAM, b"test")].concat(), Expect::Headers),
    (
        "generic/4/4 POST with trailers",
        || {
            let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(b"x-test", b"ok")]));
            [post(1), data(1, 0, b"test"), trailers].concat()
        },
        Expect::Headers,
    ),
    // === HPACK, representations that must be understood ===
    ("generic/5/1 indexed", || get_and(b"\xba"), Expect::Headers),
    (
        "generic/5/2 incremental, compressed name of the table",
        || get_and(b"\x40\x87\xb5\x05\xb1\x61\xcc\x5a\x93\x84\x9c\x48\xac\xa4"),
        Expect::Headers,
    ),
    (
        "generic/5/3 incremental, name of the table",
        || get_and(b"\x40\x0auser-agent\x06h2spec"),
        Expect::Headers,
    ),
    ("generic/5/4 incremental, new name", || get_and(b"\x40\x06x-test\x06h2spec"), Expect::Headers),
    (
        "generic/5/5 incremental, compressed new name",
        || get_and(b"\x40\x85\xf2\xb2\x4a\x84\xff\x84\x9c\x48\xac\xa4"),
        Expect::Headers,
    ),
    ("generic/5/6 no index, name of the table", || get_and(b"\x00\x0auser-agent\x06h2spec"), Expect::Headers),
    (
        "generic/5/7 no index, compressed name of the table",
        || get_and(b"\x00\x87\xb5\x05\xb1\x61\xcc\x5a\x93\x84\x9c\x48\xac\xa4"),
        Expect::Headers,
    ),
    ("generic/5/8 no index, new name", || get_and(b"\x00\x06x-test\x06h2spec"), Expect::Headers),
    (
        "generic/5/9 no index, compressed new name",
        || get_and(b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x9c\x48\xac\xa4"),
        Expect::Headers,
    ),
    (
        "generic/5/10 never indexed, name of the table",
        || get_and(b"\x10\x0auser-agent\x06h2spec"),
        Expect::Headers,
    ),
    (
        "generic/5/11 never indexed, compressed name of the table",
        || get_and(b"\x10\x87\xb5\x05\xb1\x61\xcc\x5a\x93\x84\x9c\x48\xac\xa4"),
        Expect::Headers,
    ),
    ("generic/5/12 never indexed, new name", || get_and(b"\x10\x06x-test\x06h2spec"), Expect::Headers),
    (
        "generic/5/13 never indexed, compressed new name",
        || get_and(b"\x10\x85\xf2\xb2\x4a\x84\xff\x84\x9c\x48\xac\xa4"),
        Expect::Headers,
    ),
    ("generic/5/14 size of the table", || first(b"\x3f\xe1\x1f"), Expect::Headers),
    ("generic/5/15 sizes of the table", || first(b"\x3f\x61\x3f\xe1\x1f"), Expect::Headers),
    // === HPACK, blocks that must be refused ===
    ("hpack/2.3.3/1 index beyond the tables", || get_and(b"\xc6"), REFUSED),
    ("hpack/2.3.3/2 name beyond the tables", || get_and(b"\x7f\x07\x00"), REFUSED),
    ("hpack/4.2/1 size of the table at the end", || get_and(b"\x21"), REFUSED),
    (
        "hpack/5.2/1 padding of more than 7 bits",
        || get_and(b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
        REFUSED,
    ),
    ("hpack/5.2/2 padding of zeros", || get_and(b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"), REFUSED),
    (
        "hpack/5.2/3 end of string as a symbol",
        || get_and(b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f"),
        REFUSED,
    ),
    ("hpack/6.1/1 index 0", || get_and(b"\x80"), REFUSED),
    ("hpack/6.3/1 size of the table beyond the setting", || first(b"\x3f\xe2\x1f"), REFUSED),
];
