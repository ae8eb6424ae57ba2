//! The trailers of a chunked body (RFC 9110 section 6.5).

use super::header_name::{is_callgate_header, is_same_header};

/// The maximum size of all trailers of one body together, in bytes.
const BYTES_MAX: usize = 16 << 10;

/// The names of headers that must not be trailers (RFC 9110 section 6.5.1). These headers determine the framing, the
/// routing or the meaning of a message, or they contain credentials. If a program merges one of these trailers into the
/// head, it reads a different message than Callgate has checked.
const NOT_TRAILERS: [&str; 25] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "www-authenticate",
];

/// The trailer lines of one chunked body, collected byte by byte while
/// [`Chunks::read_with_trailers`](super::Chunks::read_with_trailers) parses the body.
#[derive(Clone, Debug, Default)]
pub struct Trailers {
    /// The trailer lines, each with its CRLF.
    lines: Vec<u8>,
    is_too_large: bool,
}

impl Trailers {
    /// Appends the next byte of the trailer lines.
    pub fn push(&mut self, b: u8) {
        if self.lines.len() < BYTES_MAX {
            self.lines.push(b);
        } else {
            self.is_too_large = true;
        }
    }

    /// Reports whether the trailers exceed 16 KiB. The stored trailers are then incomplete.
    pub fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    /// Removes each trailer whose name satisfies `is_removed`. The trailers must be complete.
    pub fn remove(&mut self, is_removed: impl Fn(&str) -> bool) {
        self.lines = self.selected(|name| !is_removed(name));
    }

    /// Returns the trailer lines that may be passed on, each with its CRLF. Leaves out the trailers in `NOT_TRAILERS`,
    /// `Callgate-*` trailers, and trailers whose name satisfies `skip`. `skip` must compare names with
    /// [`is_same_header`].
    pub fn sendable(&self, skip: impl Fn(&str) -> bool) -> Vec<u8> {
        let is_forbidden = |name: &str| NOT_TRAILERS.iter().any(|forbidden| is_same_header(forbidden, name));
        self.selected(|name| !is_forbidden(name) && !is_callgate_header(name) && !skip(name))
    }

    /// Returns the trailer lines whose name satisfies `is_selected`, each with its CRLF.
    fn selected(&self, is_selected: impl Fn(&str) -> bool) -> Vec<u8> {
        let lines = self.lines.split_inclusive(|b| *b == b'\n');
        let name = |line: &[u8]| {
            let name = line.split(|b| *b == b':').next().unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        };
        lines.filter(|line| is_selected(&name(line))).collect::<Vec<_>>().concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Chunks;

    fn trailers(body: &str, step: usize) -> Trailers {
        let (mut chunks, mut trailers) = (Chunks::default(), Trailers::default());
        for piece in body.as_bytes().chunks(step) {
            chunks.read_with_trailers(piece, |_| {}, |b| trailers.push(b)).unwrap();
        }
        assert!(chunks.is_done());
        trailers
    }

    #[test]
    fn trailers_are_kept_and_nothing_else() {
        let body = "1;a=b\r\n0\r\n0\r\nX-Sum: a: b\r\nx-mine: 1\r\nX-Empty:\r\n\r\n";
        for step in 1..=body.len() {
            let sendable = trailers(body, step).sendable(|name| name == "x-mine");
            assert_eq!(sendable, b"X-Sum: a: b\r\nX-Empty:\r\n", "by {step}");
        }
        assert!(trailers("0\r\n\r\n", 1).sendable(|_| false).is_empty());
    }

    #[test]
    fn headers_that_must_not_be_trailers_are_omitted() {
        for name in ["Authorization", "set_cookie", "Callgate-Interaction", "callgate_route", "TE"] {
            assert!(trailers(&format!("0\r\n{name}: x\r\n\r\n"), 3).sendable(|_| false).is_empty(), "{name}");
        }
    }

    #[test]
    fn the_size_is_limited() {
        let line = format!("x: {}\r\n", "a".repeat(4000));
        assert!(!trailers(&format!("0\r\n{}\r\n", line.repeat(4)), 100).is_too_large());
        assert!(trailers(&format!("0\r\n{}\r\n", line.repeat(5)), 100).is_too_large());
    }
}
