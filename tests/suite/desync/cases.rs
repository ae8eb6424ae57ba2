//! The cases: every known way to write a framing header, in every place where two readers could come to differ about
//! it. Each holds a request in a place that one reader takes for a body and another for the next request.

use serde_json::Value;

/// What is sent on one connection.
pub struct Case {
    pub name: String,
    /// What the paths of the case begin with.
    pub id: String,
    pub bytes: Vec<u8>,
    /// Sent when the first answer has been seen.
    pub later: Vec<u8>,
}

impl Case {
    /// All that is sent, as one stream.
    pub fn stream(&self) -> Vec<u8> {
        [self.bytes.as_slice(), &self.later].concat()
    }
}

/// A way to write the case down, given the paths' beginning and the header in question.
type Shape = (&'static str, fn(&str, &[u8]) -> (Vec<u8>, Vec<u8>));

const CODINGS: &[Shape] = &[
    ("cl.te", |id, line| (post(id, "1.1", &[&length(&ended(id)), line], &ended(id)), Vec::new())),
    ("te.cl", |id, line| {
        let size = format!("{:x}\r\n", marker(id).len());
        (post(id, "1.1", &[line, &length(size.as_bytes())], &chunked(id)), Vec::new())
    }),
    ("te.te", |id, line| (post(id, "1.1", &[CHUNKED, line], &chunked(id)), Vec::new())),
    ("te.te reversed", |id, line| (post(id, "1.1", &[line, CHUNKED], &chunked(id)), Vec::new())),
    ("te alone", |id, line| (post(id, "1.1", &[line], &chunked(id)), Vec::new())),
    ("te for nothing", |id, line| (post(id, "1.1", &[line], &marker(id)), Vec::new())),
    ("HTTP/1.0 cl.te", |id, line| {
        (post(id, "1.0", &[KEEP, &length(&ended(id)), line], &ended(id)), Vec::new())
    }),
    ("HTTP/1.0 te", |id, line| (post(id, "1.0", &[KEEP, line], &chunked(id)), Vec::new())),
    ("HTTP/1.0 te for nothing", |id, line| (post(id, "1.0", &[KEEP, line], &marker(id)), Vec::new())),
    ("kept", |id, line| (post(id, "1.1", &[line, &length(END)], END), marker(id))),
    ("kept te", |id, line| (post(id, "1.1", &[line], END), marker(id))),
    ("pipelined", |id, line| {
        let ambiguous = post(id, "1.1", &[&length(&ended(id)), line], &ended(id));
        ([sound(id), ambiguous].concat(), Vec::new())
    }),
    ("refused", |id, line| {
        let denied = post(id, "1.1", &[line, &length(&ended(id))], &ended(id));
        (replace(&denied, b"POST /open/", b"POST /none/"), Vec::new())
    }),
];

const LENGTHS: &[Shape] = &[
    ("cl", |id, line| (post(id, "1.1", &[&sized(line, marker(id).len())], &marker(id)), Vec::new())),
    ("cl.cl", |id, line| {
        (post(id, "1.1", &[b"Content-Length: 0", &sized(line, marker(id).len())], &marker(id)), Vec::new())
    }),
    ("cl.cl reversed", |id, line| {
        (post(id, "1.1", &[&sized(line, marker(id).len()), b"Content-Length: 0"], &marker(id)), Vec::new())
    }),
    ("cl.te", |id, line| {
        (post(id, "1.1", &[&sized(line, ended(id).len()), CHUNKED], &ended(id)), Vec::new())
    }),
    ("te.cl", |id, line| (post(id, "1.1", &[CHUNKED, &sized(line, 4)], &chunked(id)), Vec::new())),
    ("HTTP/1.0", |id, line| {
        (post(id, "1.0", &[KEEP, &sized(line, marker(id).len())], &marker(id)), Vec::new())
    }),
    ("kept", |id, line| (post(id, "1.1", &[&sized(line, 4)], b"abcd"), marker(id))),
    ("kept, of nothing", |id, line| (post(id, "1.1", &[&sized(line, 0)], b""), marker(id))),
    ("short", |id, line| {
        (post(id, "1.1", &[&sized(line, 4)], &[b"abcd".as_slice(), &marker(id)].concat()), Vec::new())
    }),
];

/// Heads of our own, in which `{ID}` is the beginning of the paths and `{M}` the request in question.
const OTHERS: &[(&str, &str)] = &[
    (
        "upgrade before its time",
        "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n{M}",
    ),
    (
        "upgrade with a body",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\nabcd{M}",
    ),
    (
        "upgrade to HTTP/2",
        "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{M}",
    ),
    ("connect", "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n{M}"),
    ("connect with a body", "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\nContent-Length: 4\r\n\r\nabcd{M}"),
    ("close", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n{M}"),
    ("HTTP/1.0 without a length", "POST /open/{ID}-a HTTP/1.0\r\n\r\n{M}"),
    ("HTTP/1.0 kept", "POST /open/{ID}-a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n{M}"),
    ("HTTP/0.9", "GET /open/{ID}-a\r\n\r\n{M}"),
    ("HTTP/0.9 with fields", "GET /open/{ID}-a\r\nHost: h\r\n\r\n{M}"),
    ("HTTP/1.2", "GET /open/{ID}-a HTTP/1.2\r\nHost: h\r\n\r\n{M}"),
    ("HTTP/2.0", "GET /open/{ID}-a HTTP/2.0\r\nHost: h\r\n\r\n{M}"),
    ("lower-case version", "GET /open/{ID}-a http/1.1\r\nHost: h\r\n\r\n{M}"),
    ("no host", "GET /open/{ID}-a HTTP/1.1\r\n\r\n{M}"),
    ("two hosts", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n{M}"),
    ("two spaces", "GET  /open/{ID}-a HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("two spaces before the version", "GET /open/{ID}-a  HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("tab", "GET\t/open/{ID}-a HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("space behind the version", "GET /open/{ID}-a HTTP/1.1 \r\nHost: h\r\n\r\n{M}"),
    ("space before the method", " GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("target in two words", "GET /open/{ID}-a x HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("second request line in the target", "GET /open/{ID}-a HTTP/1.1 HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("carriage return in the target", "GET /open/{ID}-a\r?x HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("space in the query", "GET /open/{ID}-a?x y HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("a version in the query", "GET /open/{ID}-a?x HTTP/1.1 HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("tab in the query", "GET /open/{ID}-a?x\ty HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("carriage return in the query", "GET /open/{ID}-a?x\ry HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("line feed in the query", "GET /open/{ID}-a?x\ny HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("DEL in the query", "GET /open/{ID}-a?\u{7f} HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("quotes in the query", "GET /open/{ID}-a?a=\"b\" HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("angles in the query", "GET /open/{ID}-a?a=<b> HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("fragment", "GET /open/{ID}-a?x#y HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("NUL in the target", "GET /open/{ID}-a?\0 HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("NUL in a value", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\nX-A: a\0b\r\n\r\n{M}"),
    ("DEL in a value", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\nX-A: a\u{7f}b\r\n\r\n{M}"),
    ("ESC in a value", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\nX-A: a\u{1b}b\r\n\r\n{M}"),
    ("carriage return in a value", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\nX-A: a\rb\r\n\r\n{M}"),
    ("carriage return as the end of a line", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\rX-A: a\r\n\r\n{M}"),
    ("line feed as the end of a line", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\nX-A: a\r\n\r\n{M}"),
    ("line feed behind the request line", "GET /open/{ID}-a HTTP/1.1\nHost: h\r\n\r\n{M}"),
    ("line feed as the end of the head", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\n\n{M}"),
    ("line feeds alone", "GET /open/{ID}-a HTTP/1.1\nHost: h\n\n{M}"),
    ("line feeds before the request", "\n\nGET /open/{ID}-a HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    (
        "many empty lines before the request",
        "\r\n\r\n\r\n\r\nGET /open/{ID}-a HTTP/1.1\r\nHost: h\r\n\r\n{M}",
    ),
    ("NUL before the request", "\0GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\n\r\n{M}"),
    ("folded value", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\nX-A: a\r\n b\r\n\r\n{M}"),
    ("folded first field", "GET /open/{ID}-a HTTP/1.1\r\n Host: h\r\nHost: h\r\n\r\n{M}"),
    ("empty name", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n{M}"),
    ("no colon", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\nX-A\r\n\r\n{M}"),
    (
        "length in a field without a colon",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length 4\r\n\r\nabcd{M}",
    ),
    (
        "length and a body beyond it",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcdefgh{M}",
    ),
    ("body without a length", "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\n\r\nabcd{M}"),
    ("GET with a body", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd{M}"),
    ("HEAD with a body", "HEAD /open/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd{M}"),
    ("length of 2^32", "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: 4294967296\r\n\r\n{M}"),
    (
        "length of 2^64",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\n{M}",
    ),
    (
        "chunk of 2^64",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n0\r\n\r\n{M}",
    ),
    (
        "chunk size with a prefix",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x4\r\nabcd\r\n0\r\n\r\n{M}",
    ),
    (
        "chunk size with a sign",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+4\r\nabcd\r\n0\r\n\r\n{M}",
    ),
    (
        "chunk size behind a space",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n 4\r\nabcd\r\n0\r\n\r\n{M}",
    ),
    (
        "chunk size before a space",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4 \r\nabcd\r\n0\r\n\r\n{M}",
    ),
    (
        "chunk size with a line feed",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\nabcd\r\n0\r\n\r\n{M}",
    ),
    (
        "chunk data with a line feed",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\n0\r\n\r\n{M}",
    ),
    (
        "line feed in a chunk extension",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4;a\nabcd\r\n0\r\n\r\n{M}",
    ),
    (
        "carriage return in a chunk extension",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4;\ra\r\nabcd\r\n0\r\n\r\n{M}",
    ),
    (
        "chunk longer than it says",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcdef\r\n0\r\n\r\n{M}",
    ),
    (
        "two bytes that are no end of a chunk",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcdXX0\r\n\r\n{M}",
    ),
    (
        "last chunk with a line feed",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\n\n{M}",
    ),
    (
        "last chunk before two bytes",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nXX{M}",
    ),
    (
        "trailers",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nX-A: b\r\n\r\n{M}",
    ),
    (
        "trailers with a length",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nContent-Length: 9\r\n\r\n{M}",
    ),
    (
        "trailers that fold",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nX-A: b\r\n c\r\n\r\n{M}",
    ),
    (
        "a request for trailers",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n{M}",
    ),
    (
        "leading zeros of a chunk size",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0004\r\nabcd\r\n000\r\n\r\n{M}",
    ),
    (
        "length behind a connection option",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nConnection: content-length\r\nContent-Length: 4\r\n\r\nabcd{M}",
    ),
    (
        "expectation of something else",
        "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nExpect: something\r\nContent-Length: 4\r\n\r\nabcd{M}",
    ),
    ("long head", "GET /open/{ID}-a HTTP/1.1\r\nHost: h\r\nX-A: {LONG}\r\n\r\n{M}"),
];

/// Heads that are answered before their body has come: `{M}` comes when the answer has been seen. `{N}` is its length.
const LATE: &[(&str, &str)] = &[
    ("unknown path", "POST /none/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: {N}\r\n\r\n"),
    ("unknown path, long body", "POST /none/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n"),
    ("unknown path, chunks", "POST /none/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (
        "unknown path, one chunk",
        "POST /none/{ID}-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    ),
    (
        "unknown path, expectation",
        "POST /none/{ID}-a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {N}\r\n\r\n",
    ),
    (
        "unknown path, expectation of chunks",
        "POST /none/{ID}-a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "unknown path, HTTP/1.0",
        "POST /none/{ID}-a HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: {N}\r\n\r\n",
    ),
    ("another method", "DELETE /open/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: {N}\r\n\r\n"),
    (
        "another method without a body",
        "DELETE /open/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: {N}\r\nConnection: close\r\n\r\n",
    ),
    ("GET with a body", "GET /none/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: {N}\r\n\r\n"),
    ("HEAD with a body", "HEAD /none/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: {N}\r\n\r\n"),
    ("malformed path", "POST /open/../{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: {N}\r\n\r\n"),
    ("body too large", "POST /open/{ID}-a HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n"),
    (
        "upgrade refused",
        "POST /none/{ID}-a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: {N}\r\n\r\n",
    ),
    (
        "document",
        "GET /.well-known/mcp-webhook-receiver.json HTTP/1.1\r\nHost: h\r\nContent-Length: {N}\r\n\r\n",
    ),
    (
        "document, long body",
        "GET /.well-known/mcp-webhook-receiver.json HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n",
    ),
    (
        "document, chunks",
        "GET /.well-known/mcp-webhook-receiver.json HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "document, expectation",
        "GET /.well-known/mcp-webhook-receiver.json HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {N}\r\n\r\n",
    ),
    ("document, two requests", "GET /.well-known/mcp-webhook-receiver.json HTTP/1.1\r\nHost: h\r\n\r\n"),
];

/// All of them.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, line) in lines("te_mutations_smuggler.json", "items", "te_hex").into_iter().chain(lines(
        "mutations_portswigger.json",
        "items",
        "te_hex",
    )) {
        // The doubles combine two mutations that are cases of their own, so each has its turn in one shape only.
        let turn = name.starts_with("smuggler:doubles:").then_some(cases.len() % CODINGS.len());
        for (number, shape) in CODINGS.iter().enumerate() {
            if turn.is_none_or(|turn| turn == number) {
                shaped(&mut cases, &name, *shape, &line);
            }
        }
    }
    for (name, line) in lines("mutations_portswigger.json", "cl_items", "cl_hex") {
        LENGTHS.iter().for_each(|shape| shaped(&mut cases, &name, *shape, &line));
    }
    for (name, text) in OTHERS {
        push(&mut cases, (*name).to_owned(), |id| {
            let text = text.replace("{ID}", id).replace("{LONG}", &"x".repeat(70_000));
            let marker = String::from_utf8(marker(id)).unwrap();
            (text.replace("{M}", &marker).into_bytes(), Vec::new())
        });
        push(&mut cases, format!("{name}, kept"), |id| {
            let text = text.replace("{ID}", id).replace("{LONG}", &"x".repeat(70_000));
            (text.replace("{M}", "").into_bytes(), marker(id))
        });
    }
    for (name, text) in LATE {
        let head = |id: &str| {
            let length = marker(id).len().to_string();
            text.replace("{ID}", id).replace("{N}", &length).into_bytes()
        };
        push(&mut cases, format!("{name}, late"), |id| (head(id), marker(id)));
        push(&mut cases, format!("{name}, at once"), |id| ([head(id), marker(id)].concat(), Vec::new()));
        push(&mut cases, format!("{name}, and another"), |id| (head(id), marker(id).repeat(2)));
    }
    for (name, raw) in lines("llhttp.json", "items", "raw_hex") {
        push(&mut cases, format!("{name} as it is"), |id| ([&raw, &*marker(id)].concat(), Vec::new()));
        push(&mut cases, format!("{name} routed"), |id| {
            ([routed(&raw, id), marker(id)].concat(), Vec::new())
        });
        push(&mut cases, format!("{name} routed, kept"), |id| (routed(&raw, id), marker(id)));
        push(&mut cases, format!("{name} behind another"), |id| {
            ([sound(id), routed(&raw, id), marker(id)].concat(), Vec::new())
        });
    }
    cases
}

fn push(cases: &mut Vec<Case>, name: String, write: impl Fn(&str) -> (Vec<u8>, Vec<u8>)) {
    let id = format!("c{}", cases.len());
    let (bytes, later) = write(&id);
    cases.push(Case { name, id, bytes, later });
}

fn shaped(cases: &mut Vec<Case>, name: &str, (shape, write): Shape, line: &[u8]) {
    push(cases, format!("{name} {shape}"), |id| write(id, line));
}

/// The items of a corpus: their names, and their bytes.
fn lines(file: &str, list: &str, member: &str) -> Vec<(String, Vec<u8>)> {
    let items = corpus(file)[list].as_array().unwrap().clone();
    let bytes = |item: &Value| data_encoding::HEXLOWER.decode(item[member].as_str().unwrap().as_bytes());
    items.iter().map(|item| (item["id"].as_str().unwrap().to_owned(), bytes(item).unwrap())).collect()
}

pub fn corpus(file: &str) -> Value {
    let path = std::path::Path::new("tests/corpora/desync").join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

// === Parts ===

const CHUNKED: &[u8] = b"Transfer-Encoding: chunked";
const KEEP: &[u8] = b"Connection: keep-alive";
/// A chunked body of nothing.
const END: &[u8] = b"0\r\n\r\n";

/// The request that nobody sent.
fn marker(id: &str) -> Vec<u8> {
    format!("GET /open/{id}-m HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

/// A request before the one in question.
fn sound(id: &str) -> Vec<u8> {
    format!("POST /open/{id}-s HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok").into_bytes()
}

/// For one reader the request in question is behind the end of a chunked body.
fn ended(id: &str) -> Vec<u8> {
    [END, &marker(id)].concat()
}

/// For one reader the request in question is a chunk.
fn chunked(id: &str) -> Vec<u8> {
    let marker = marker(id);
    [format!("{:x}\r\n", marker.len()).as_bytes(), &marker, b"\r\n", END].concat()
}

fn length(body: &[u8]) -> Vec<u8> {
    format!("Content-Length: {}", body.len()).into_bytes()
}

/// A mutation of `Content-Length`, which leaves room for the number.
fn sized(line: &[u8], length: usize) -> Vec<u8> {
    replace(line, b"{N}", length.to_string().as_bytes())
}

fn post(id: &str, version: &str, lines: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("POST /open/{id}-a HTTP/{version}\r\nHost: h\r\n").into_bytes();
    for line in lines {
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// The same with the target of a route that exists, and with a host.
fn routed(raw: &[u8], id: &str) -> Vec<u8> {
    let start = raw.iter().position(|b| !b"\r\n".contains(b)).unwrap_or(0);
    let Some(space) = raw[start..].iter().position(|b| *b == b' ') else { return raw.to_vec() };
    let target = start + space + 1;
    let end = raw[target..].iter().position(|b| b" \r\n".contains(b)).map_or(raw.len(), |at| target + at);
    hosted(&[b"POST /open/", id.as_bytes(), b"-a", &raw[end..]].concat())
}

/// The same with a host, where there is none.
pub fn hosted(raw: &[u8]) -> Vec<u8> {
    let mut bytes = raw.to_vec();
    let has_host = raw.to_ascii_lowercase().windows(6).any(|w| w == b"\nhost:");
    let start = raw.iter().position(|b| !b"\r\n".contains(b)).unwrap_or(0);
    if !has_host && let Some(end) = raw[start..].iter().position(|b| *b == b'\n') {
        bytes.splice(start + end + 1..start + end + 1, *b"Host: h\r\n");
    }
    bytes
}

fn replace(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(what.len()).position(|w| w == what) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(with);
        rest = &rest[at + what.len()..];
    }
    [replaced.as_slice(), rest].concat()
}
