//! The trailers of a chunked body (RFC 9110 section 6.5).

use super::header_name::{is_callgate_header, is_same_header};

/// Maximum size of all trailers of a body together, in bytes.
const BYTES_MAX: usize = 16 << 10;

/// Names of headers that must not be trailers (RFC 9110 section 6.5.1): they determine the framing, the routing or the
/// meaning of a message, or they contain credentials. A program that merges trailers into the head would otherwise read
/// a different message than the one that was checked.
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

/// The trailers of one body, as [`Chunks::read_with_trailers`](super::Chunks::read_with_trailers) returns them.
#[derive(Clone, Debug, Default)]
pub struct Trailers {
    /// The lines, each with its CRLF.
    lines: Vec<u8>,
    is_too_large: bool,
}

impl Trailers {
    /// Adds the next byte.
    pub fn push(&mut self, b: u8) {
        if self.lines.len() < BYTES_MAX {
            self.lines.push(b);
        } else {
            self.is_too_large = true;
        }
    }

    /// Reports whether the trailers exceed 16 KiB. They are incomplete then.
    pub fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    /// Returns the lines that may be sent on, each with its CRLF. Omits headers that must not be trailers, `Callgate-*`
    /// headers, and trailers for whose name `skip` returns true. The comparison of names must be that of
    /// [`is_same_header`].
    pub fn sendable(&self, skip: impl Fn(&str) -> bool) -> Vec<u8> {
        let mut sendable = Vec::new();
        for line in self.lines.split_inclusive(|b| *b == b'\n') {
            let name = line.split(|b| *b == b':').next().unwrap_or_default();
            let name = String::from_utf8_lossy(name);
            let is_forbidden = NOT_TRAILERS.iter().any(|forbidden| is_same_header(forbidden, &name));
            if !is_forbidden && !is_callgate_header(&name) && !skip(&name) {
                sendable.extend_from_slice(line);
            }
        }
        sendable
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
