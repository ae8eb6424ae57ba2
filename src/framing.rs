//! What the head of an HTTP/1 request must be before anybody parses it. A head that two readers could take for two
//! different things is refused here, by its bytes: what is ambiguous to somebody behind us is not repaired.

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeadFault {
    /// It is not a head of HTTP/1.0 or HTTP/1.1 (RFC 9112), or its framing can be read in more than one way.
    Malformed(&'static str),
    /// It is larger, or has more header lines, than is allowed.
    TooLarge,
}

/// Looks for the end of a head in bytes that keep coming.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEnd {
    looked: usize,
}

impl HeadEnd {
    /// How long the head is, its empty line included; `None` while there is more of it to come. `bytes` is what was
    /// there the last time, and more.
    ///
    /// # Errors
    /// A line does not end in CR LF. Some readers take a bare LF for the end of a line and some do not.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadFault> {
        while let Some(found) = bytes.get(self.looked..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let end = self.looked + found + 1;
            let line = bytes.get(..end).unwrap_or_default();
            if !line.ends_with(b"\r\n") {
                return Err(HeadFault::Malformed("a line ends without CR"));
            }
            self.looked = end;
            if line.ends_with(b"\r\n\r\n") {
                return Ok(Some(end));
            }
        }
        self.looked = bytes.len();
        Ok(None)
    }
}

/// What a head says of its framing, as far as it was read.
#[derive(Default)]
struct Framing {
    length: bool,
    coding: bool,
    host: bool,
}

/// Checks a whole head: `bytes` ends with its empty line.
///
/// # Errors
/// What is wrong with it.
pub fn check_head(bytes: &[u8], headers_max: usize) -> Result<(), HeadFault> {
    let lines = bytes.strip_suffix(b"\r\n\r\n").ok_or(HeadFault::Malformed("no empty line"))?;
    let mut lines = Lines(Some(lines));
    let http_1_1 = request_line(lines.next().unwrap_or_default())?;
    let mut framing = Framing::default();
    for (count, line) in lines.enumerate() {
        if count >= headers_max {
            return Err(HeadFault::TooLarge);
        }
        header_line(line, http_1_1, &mut framing)?;
    }
    if framing.length && framing.coding {
        return Err(HeadFault::Malformed("a length and a transfer coding"));
    }
    if http_1_1 && !framing.host {
        return Err(HeadFault::Malformed("no host"));
    }
    Ok(())
}

/// The lines of a head, each without its CR LF.
struct Lines<'h>(Option<&'h [u8]>);

impl<'h> Iterator for Lines<'h> {
    type Item = &'h [u8];

    fn next(&mut self) -> Option<&'h [u8]> {
        let rest = self.0?;
        // Every LF has a CR before it, so a CR anywhere else is left in its line, and found there.
        let Some(at) = memchr::memchr(b'\n', rest) else { return self.0.take() };
        self.0 = rest.get(at + 1..);
        rest.get(..at.saturating_sub(1))
    }
}

/// `METHOD SP TARGET SP HTTP/1.x` (RFC 9112 section 3); whether the version is 1.1.
fn request_line(line: &[u8]) -> Result<bool, HeadFault> {
    let fault = HeadFault::Malformed("the first line is no request line");
    let (method, rest) = split(line, b' ').ok_or(fault)?;
    let (target, version) = split(rest, b' ').ok_or(fault)?;
    let visible = |target: &[u8]| target.iter().all(|b| *b > b' ' && *b != 0x7f);
    if method.is_empty() || !method.iter().all(|b| is_token(*b)) || target.is_empty() || !visible(target) {
        return Err(fault);
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(fault),
    }
}

fn header_line(line: &[u8], http_1_1: bool, framing: &mut Framing) -> Result<(), HeadFault> {
    // A line that goes on the one before begins with whitespace, which no name does (RFC 9112 section 5.2).
    let (name, value) = split(line, b':').ok_or(HeadFault::Malformed("a header line without a colon"))?;
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return Err(HeadFault::Malformed("a header name that is none"));
    }
    if value.iter().any(|b| (*b < b' ' && *b != b'\t') || *b == 0x7f) {
        return Err(HeadFault::Malformed("a control character in a header"));
    }
    let value = value.trim_ascii();
    // What some readers write with `_` where others write `-` must not be framing to anybody.
    let is = |known: &[u8]| {
        name.len() == known.len()
            && name.iter().zip(known).all(|(a, b)| a.eq_ignore_ascii_case(b) || (*a, *b) == (b'_', b'-'))
    };
    if is(b"content-length") {
        let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        if std::mem::replace(&mut framing.length, true) || !digits || name.contains(&b'_') {
            return Err(HeadFault::Malformed("the length is said twice, or is no length"));
        }
    } else if is(b"transfer-encoding") {
        let chunked = http_1_1 && value.eq_ignore_ascii_case(b"chunked");
        if std::mem::replace(&mut framing.coding, true) || !chunked || name.contains(&b'_') {
            return Err(HeadFault::Malformed("a transfer coding that is not `chunked`, once, in HTTP/1.1"));
        }
    } else if is(b"host") && std::mem::replace(&mut framing.host, true) {
        return Err(HeadFault::Malformed("more than one host"));
    }
    Ok(())
}

/// What is before the first `at`, and what is behind it.
fn split(line: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let found = memchr::memchr(at, line)?;
    Some((line.get(..found)?, line.get(found + 1..)?))
}

/// A character of a method or of a header name (RFC 9110 section 5.6.2).
const fn is_token(b: u8) -> bool {
    matches!(
        b,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || b.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(head: &str) -> Result<(), HeadFault> {
        match HeadEnd::default().find(head.as_bytes())? {
            Some(end) if end == head.len() => check_head(head.as_bytes(), 4),
            end => panic!("{head:?}: {end:?}"),
        }
    }

    #[test]
    fn an_end_is_found_however_the_bytes_come() {
        let head = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nbody\n";
        for step in 1..head.len() {
            let mut end = HeadEnd::default();
            let mut shown = 0;
            let found = loop {
                shown = (shown + step).min(head.len());
                if let Some(found) = end.find(&head[..shown]).unwrap() {
                    break found;
                }
            };
            assert_eq!(found, head.len() - 5, "{step}");
        }
        assert!(HeadEnd::default().find(b"GET / HTTP/1.1\nHost").is_err());
        assert!(HeadEnd::default().find(b"\n").is_err());
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
        ] {
            let refused = whole(&format!("{bad}\r\nHost: h\r\n\r\n"));
            assert!(matches!(refused, Err(HeadFault::Malformed(_))), "{bad:?}: {refused:?}");
        }
        assert!(whole("GET / HTTP/1.1\r\n\r\n").is_err());
        assert!(whole("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        let many = "A: b\r\n".repeat(4);
        assert_eq!(whole(&format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n")), Err(HeadFault::TooLarge));
    }
}
