//! A strict parser for the head of an HTTP/1 request. It checks each line as soon as the line is complete.

use std::net::Ipv6Addr;

use super::bytes::{is_control, is_token};
use super::chunks::Chunks;
use super::framing::Framing;

/// The reason why the head of a request is invalid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeadFault {
    /// The head violates the grammar of HTTP/1.0 and HTTP/1.1 (RFC 9112), or its framing is ambiguous.
    Malformed(&'static str),
    /// The head is too large, or has too many header lines.
    TooLarge,
}

/// A parser for the head of one HTTP/1 request.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The number of bytes that were already searched for line endings.
    looked: usize,
    /// The offset of the first line that is not complete yet, in bytes.
    line: usize,
    /// The number of complete lines.
    lines: usize,
    /// Whether an empty line precedes the request line (RFC 9112 section 2.2). Some clients send an empty line after
    /// the body of the previous request.
    blank: bool,
    http_1_1: bool,
    length: Option<u64>,
    coding: bool,
    host: bool,
    /// Whether the parser accepts the method CONNECT.
    accepts_connect: bool,
    /// Whether the request has the method CONNECT.
    is_connect: bool,
    /// The authority (host and port) of a request target in absolute form (RFC 9112 section 3.2.2).
    authority: Option<Box<[u8]>>,
}

impl Head {
    /// Creates a parser that accepts the method CONNECT (RFC 9110 section 9.3.6).
    pub fn accepting_connect() -> Self {
        Self { accepts_connect: true, ..Self::default() }
    }

    /// Continues to parse the head. `bytes` are all bytes that were received so far, from the beginning of the head.
    /// Returns the length of the head in bytes, including its final empty line, or `None` if the head is incomplete.
    ///
    /// # Errors
    /// Returns a [`HeadFault`] if a line is invalid, or if the lines contradict each other.
    pub fn read(&mut self, bytes: &[u8], headers_max: usize) -> Result<Option<usize>, HeadFault> {
        while let Some(found) = bytes.get(self.looked..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let end = self.looked + found;
            let line = bytes.get(self.line..end).and_then(|line| line.strip_suffix(b"\r"));
            // Some parsers accept a bare LF as the end of a line, and other parsers do not. A head with a bare LF is
            // therefore denied.
            let line = line.ok_or(HeadFault::Malformed("a line does not end with CR LF"))?;
            (self.looked, self.line) = (end + 1, end + 1);
            if self.lines == 0 && line.is_empty() && !std::mem::replace(&mut self.blank, true) {
                continue;
            }
            self.lines += 1;
            match self.lines {
                1 => self.request_line(line)?,
                _ if line.is_empty() => return self.whole().map(|()| Some(end + 1)),
                // The request line is not a header line.
                lines if lines > headers_max + 1 => return Err(HeadFault::TooLarge),
                _ => self.header_line(line)?,
            }
        }
        self.looked = bytes.len();
        Ok(None)
    }

    /// Returns the framing of the request body. The result is valid only after the head is complete.
    pub fn framing(&self) -> Framing {
        match (self.coding, self.length) {
            (true, _) => Framing::Chunks(Chunks::default()),
            (false, length) => Framing::Length(length.unwrap_or(0)),
        }
    }

    /// Reports whether the HTTP version is 1.1. The result is valid only after the head is complete.
    pub fn is_http_1_1(&self) -> bool {
        self.http_1_1
    }

    /// Returns the number of header lines. The result is valid only after the head is complete.
    pub fn header_lines(&self) -> usize {
        // Neither the request line nor the final empty line is a header line.
        self.lines.saturating_sub(2)
    }

    /// Returns the offset of the request line in bytes: 2 if an empty line precedes the request line, and otherwise 0.
    pub fn begins_at(&self) -> usize {
        if self.blank { 2 } else { 0 }
    }

    fn whole(&self) -> Result<(), HeadFault> {
        if self.length.is_some() && self.coding {
            return Err(HeadFault::Malformed("the head has both Content-Length and Transfer-Encoding"));
        }
        if self.is_connect && (self.coding || self.length.is_some_and(|length| length > 0)) {
            return Err(HeadFault::Malformed("a CONNECT request has no body"));
        }
        if self.http_1_1 && !self.host {
            return Err(HeadFault::Malformed("the Host header is missing"));
        }
        Ok(())
    }

    /// Parses the request line `METHOD SP TARGET SP HTTP/1.x` (RFC 9112 section 3).
    fn request_line(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        let fault = HeadFault::Malformed("the first line is not a valid request line");
        let (method, rest) = split(line, b' ').ok_or(fault)?;
        let (target, version) = split(rest, b' ').ok_or(fault)?;
        if method.is_empty() || !method.iter().all(|b| is_token(*b)) || target.is_empty() {
            return Err(fault);
        }
        // Some parsers repair or truncate a target that contains one of these characters. They would then use a
        // different target than the caller has sent or signed.
        if target.iter().any(|b| !b.is_ascii_graphic() || matches!(b, b'"' | b'#' | b'<' | b'>' | b'`')) {
            return Err(HeadFault::Malformed("the request target contains a forbidden character"));
        }
        self.is_connect = method == b"CONNECT";
        if self.is_connect && !self.accepts_connect {
            return Err(HeadFault::Malformed("the method CONNECT is not supported"));
        }
        if self.is_connect && !is_authority(target) {
            return Err(HeadFault::Malformed("the target of CONNECT is not a host with a port"));
        }
        let absolute = target.strip_prefix(b"http://").or_else(|| target.strip_prefix(b"https://"));
        if let Some(rest) = absolute {
            let authority = rest.split(|b| matches!(b, b'/' | b'?')).next().unwrap_or_default();
            if !is_authority(authority) {
                return Err(HeadFault::Malformed("the host in the request target is invalid"));
            }
            self.authority = Some(authority.into());
        }
        self.http_1_1 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return Err(fault),
        };
        Ok(())
    }

    fn header_line(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        // The check below also denies a folded header line (obs-fold, RFC 9112 section 5.2). Such a line begins with
        // white space, but a header name cannot contain white space.
        let (name, value) = split(line, b':').ok_or(HeadFault::Malformed("a header line has no colon"))?;
        if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
            return Err(HeadFault::Malformed("a header name is invalid"));
        }
        // `fold` visits every byte without an early exit, so that the compiler can vectorize the loop.
        if value.iter().fold(false, |any, b| any | is_control(*b)) {
            return Err(HeadFault::Malformed("a header value contains a control character"));
        }
        let value = value.trim_ascii();
        // Some servers treat `_` in a header name as `-`, so they read `Content_Length` as the length of the body. This
        // header is therefore checked in the same way as `Content-Length`.
        let is = |known: &[u8]| {
            name.len() == known.len()
                && name.iter().zip(known).all(|(a, b)| a.eq_ignore_ascii_case(b) || (*a, *b) == (b'_', b'-'))
        };
        if is(b"content-length") {
            let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
            if self.length.is_some() || !digits || name.contains(&b'_') {
                return Err(HeadFault::Malformed("Content-Length occurs twice or is not a number"));
            }
            self.length = Some(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')));
        } else if is(b"transfer-encoding") {
            let chunked = self.http_1_1 && value.eq_ignore_ascii_case(b"chunked");
            if std::mem::replace(&mut self.coding, true) || !chunked || name.contains(&b'_') {
                return Err(HeadFault::Malformed(
                    "Transfer-Encoding is not exactly `chunked`, or the version is not HTTP/1.1",
                ));
            }
        } else if is(b"host") {
            if std::mem::replace(&mut self.host, true) {
                return Err(HeadFault::Malformed("the Host header occurs more than once"));
            }
            if !is_authority(value) {
                return Err(HeadFault::Malformed("the Host header is invalid"));
            }
            if self.authority.as_deref().is_some_and(|authority| authority != value) {
                return Err(HeadFault::Malformed(
                    "the Host header and the request target name different hosts",
                ));
            }
        }
        Ok(())
    }
}

/// Reports whether a value has the form `HOST` or `HOST:PORT` (RFC 9110 section 7.2, RFC 3986 section 3.2.2).
pub fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value.strip_prefix(b"[").and_then(|rest| split(rest, b']')) {
        Some((address, rest)) => {
            let address = std::str::from_utf8(address).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
            if address.is_none() {
                return false;
            }
            (&b"v6"[..], rest)
        }
        None => value.split_at(memchr::memchr(b':', value).unwrap_or(value.len())),
    };
    let of_a_name = |b: &u8| {
        b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'('..=b',' | b';' | b'='
            )
    };
    let port = port.is_empty()
        || port.strip_prefix(b":").is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
    !host.is_empty() && host.iter().all(of_a_name) && port
}

/// Splits a line at the first byte with the value `at`. Returns the parts before and after this byte, or `None` if the
/// line does not contain the byte.
fn split(line: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let found = memchr::memchr(at, line)?;
    Some((line.get(..found)?, line.get(found + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(head: &str) -> Result<(), HeadFault> {
        match Head::default().read(head.as_bytes(), 4)? {
            Some(end) if end == head.len() => Ok(()),
            end => panic!("{head:?}: {end:?}"),
        }
    }

    #[test]
    fn an_end_is_found_however_the_bytes_come() {
        let head = b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\nbody\n";
        for step in 1..head.len() {
            let mut end = Head::default();
            let mut shown = 0;
            let found = loop {
                shown = (shown + step).min(head.len());
                if let Some(found) = end.read(&head[..shown], 4).unwrap() {
                    break found;
                }
            };
            assert_eq!(found, head.len() - 5, "{step}");
        }
        assert!(Head::default().read(b"GET / HTTP/1.1\nHost", 4).is_err());
        assert!(Head::default().read(b"\n", 4).is_err());
        assert!(Head::default().read(b"\r\n\r\n", 4).is_err(), "one empty line is enough");
        assert!(Head::default().read(b"GET / HTTP/1.1\r\nA b\r\n", 4).is_err(), "before its end");
    }

    #[test]
    fn what_is_a_head_and_what_is_none() {
        for good in
            ["", "A: \r\n", "A:b\r\nC: \t d\t\r\n", "Content-Length: 0\r\n", "Transfer-Encoding: CHUNKED\r\n"]
        {
            assert_eq!(whole(&format!("POST /a?b HTTP/1.1\r\nHost: h\r\n{good}\r\n")), Ok(()), "{good:?}");
        }
        assert_eq!(whole("GET / HTTP/1.0\r\n\r\n"), Ok(()));
        for bad in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content_Length: 1\r\n",
            "Content-Length:\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1,1\r\n",
            "Content-Length: 0000000000000000001\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked;q\r\n",
            "Transfer_Encoding: chunked\r\n",
            "Host: h\r\n",
            " A: b\r\n",
            "A : b\r\n",
            ": b\r\n",
            "A\r\n",
            "A: b\rc\r\n",
            "A: b\0\r\n",
            "A: b\x7f\r\n",
        ] {
            let refused = whole(&format!("POST / HTTP/1.1\r\nHost: h\r\n{bad}\r\n"));
            assert!(matches!(refused, Err(HeadFault::Malformed(_))), "{bad:?}: {refused:?}");
        }
        for bad in [
            "",
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.2",
            "GET / HTTP/1.1 ",
            "G(T / HTTP/1.1",
            "GET /\x7f HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /a?\" HTTP/1.1",
            "CONNECT h:1 HTTP/1.1",
        ] {
            let refused = whole(&format!("{bad}\r\nHost: h\r\n\r\n"));
            assert!(matches!(refused, Err(HeadFault::Malformed(_))), "{bad:?}: {refused:?}");
        }
        assert!(whole("GET / HTTP/1.1\r\n\r\n").is_err());
        assert!(whole("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        let many = "A: b\r\n".repeat(4);
        assert_eq!(whole(&format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n")), Err(HeadFault::TooLarge));
    }

    #[test]
    fn connect_has_a_host_and_no_body() {
        let connect = |text: &str| Head::accepting_connect().read(text.as_bytes(), 4);
        for good in [
            "CONNECT h:1 HTTP/1.0\r\n\r\n",
            "CONNECT [::1]:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        ] {
            assert_eq!(connect(good), Ok(Some(good.len())), "{good:?}");
        }
        for bad in [
            "CONNECT / HTTP/1.0\r\n\r\n",
            "CONNECT http://h:1/ HTTP/1.0\r\n\r\n",
            "CONNECT u@h:1 HTTP/1.0\r\n\r\n",
            "CONNECT [fe80::1%25lo]:1 HTTP/1.0\r\n\r\n",
            "CONNECT h:1 HTTP/1.0\r\nContent-Length: 1\r\n\r\n",
            "CONNECT h:1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(matches!(connect(bad), Err(HeadFault::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn whose_a_target_is() {
        let said = |target: &str, host: &str| whole(&format!("GET {target} HTTP/1.1\r\n{host}\r\n"));
        for good in ["http://h:80/a", "https://h:80?b", "http://h:80"] {
            assert_eq!(said(good, "Host: h:80\r\n"), Ok(()), "{good}");
        }
        for bad in [
            "http://h/a",
            "http://other:80/a",
            "http://u@h:80/a",
            "http://h:80@x/a",
            "http:///a",
            "http://?h:80",
            "http://h:80\\x/a",
            "http://h:80:80/",
        ] {
            assert!(said(bad, "Host: h:80\r\n").is_err(), "{bad}");
        }
        assert_eq!(whole("GET http://h/ HTTP/1.0\r\n\r\n"), Ok(()));
        assert!(whole("GET http://a@h/ HTTP/1.0\r\n\r\n").is_err());
    }

    #[test]
    fn what_is_a_host() {
        for good in
            ["h", "h:", "a_b.example:8443", "1.2.3.4:80", "[::1]", "[2001:db8::1]:443", "\t h ", "a%20b"]
        {
            assert_eq!(whole(&format!("GET / HTTP/1.1\r\nHost: {good}\r\n\r\n")), Ok(()), "{good:?}");
        }
        for bad in [
            "", ":80", "a b", "a\tb", "a/b", "a?b", "a@b", "a:b", "a:1:2", "[::", "[::1", "[::1]x", "[v1.a]",
            "[]", "é", "a\\b", "a,b@c",
        ] {
            let refused = whole(&format!("GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n"));
            assert!(matches!(refused, Err(HeadFault::Malformed(_))), "{bad:?}: {refused:?}");
        }
    }
}
