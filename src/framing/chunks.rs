//! A strict parser for the chunked transfer coding (RFC 9112 section 7.1). It accepts only what the grammar allows. A
//! proxy in front of Callgate, or the agent behind it, may have a more lenient parser. Because this parser is strict,
//! every other parser finds the same chunk boundaries in an accepted body.

use super::bytes::{is_control, is_token};

/// The maximum size of a chunk, in bytes. This is sixteen times the size of the largest request body that Callgate
/// buffers.
const SIZE_MAX: u64 = 1 << 30;
/// The maximum length of a chunk size line with its extensions, or of a trailer line, in bytes.
const LINE_BYTES_MAX: u16 = 4 << 10;
/// The maximum number of trailers in a request.
const TRAILERS_MAX: u16 = 32;
/// The maximum number of trailers in a response.
const ANSWER_TRAILERS_MAX: u16 = 256;

/// The error for a body that violates the grammar of the chunked coding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChunkFault;

/// The state of the parser: the kind of bytes that come next in the chunked body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    /// The next byte belongs to a chunk size. The field is the number of hexadecimal digits that were read so far.
    Size(u8),
    /// The next byte belongs to the white space after a chunk size.
    Padding,
    /// The next byte belongs to a chunk extension of a response. Callgate ignores chunk extensions of responses.
    Extension,
    /// The next byte belongs to the name of a chunk extension. The field is true after the first character of the name.
    ExtensionName(bool),
    /// The next byte belongs to the unquoted value of a chunk extension. The field is true after the first character of
    /// the value.
    ExtensionValue(bool),
    /// The next byte belongs to the quoted value of a chunk extension.
    Quoted,
    /// The next byte follows a backslash in the quoted value of a chunk extension.
    QuotedPair,
    /// The next byte follows the quoted value of a chunk extension.
    QuotedEnd,
    /// The next byte must be the LF at the end of a chunk size line.
    SizeEnd,
    /// The next byte belongs to the data of a chunk.
    Data,
    /// The next byte must be the CR after the data of a chunk.
    DataCr,
    /// The next byte must be the LF after the data of a chunk.
    DataLf,
    /// The next byte begins a trailer line, or the final empty line.
    Trailer,
    /// The next byte belongs to the name of a trailer.
    Name,
    /// The next byte belongs to the value of a trailer.
    Value,
    /// The next byte must be the LF at the end of a trailer line.
    ValueEnd,
    /// The next byte must be the LF of the final empty line.
    End,
    /// The body has ended. The next byte does not belong to the body.
    Done,
}

/// The names of the headers that determine the framing and the host. A trailer must not have one of these names (RFC
/// 9110 section 6.5.1). Otherwise a program that merges trailers into the head would read a different request.
const FRAMING_NAMES: [&[u8]; 3] = [b"content-length", b"host", b"transfer-encoding"];

/// Compares the name of a trailer with all names in [`FRAMING_NAMES`], one byte at a time.
#[derive(Clone, Copy, Debug)]
struct TrailerName {
    /// The number of bytes of the trailer name that were read so far.
    length: u8,
    /// For each name in [`FRAMING_NAMES`], whether the name begins with the bytes of the trailer name that were read so
    /// far.
    begins: [bool; FRAMING_NAMES.len()],
}

impl Default for TrailerName {
    fn default() -> Self {
        Self { length: 0, begins: [true; FRAMING_NAMES.len()] }
    }
}

impl TrailerName {
    fn push(&mut self, b: u8) {
        // Some servers treat `_` in a name as `-`.
        let b = if b == b'_' { b'-' } else { b.to_ascii_lowercase() };
        for (begins, name) in self.begins.iter_mut().zip(FRAMING_NAMES) {
            *begins &= name.get(usize::from(self.length)) == Some(&b);
        }
        self.length = self.length.saturating_add(1);
    }

    fn is_framing(&self) -> bool {
        let mut names = self.begins.iter().zip(FRAMING_NAMES);
        names.any(|(begins, name)| *begins && name.len() == usize::from(self.length))
    }
}

/// Returns the state after the next byte of a chunk extension (RFC 9112 section 7.1.1). An extension has the form
/// `;name`, `;name=token` or `;name="text"`, without white space.
fn extension(at: At, b: u8) -> Result<At, ChunkFault> {
    Ok(match (at, b) {
        (At::ExtensionName(_), _) if is_token(b) => At::ExtensionName(true),
        (At::ExtensionName(true), b'=') => At::ExtensionValue(false),
        (At::ExtensionValue(_), _) if is_token(b) => At::ExtensionValue(true),
        (At::ExtensionValue(false), b'"') => At::Quoted,
        (At::Quoted, b'"') => At::QuotedEnd,
        (At::Quoted, b'\\') => At::QuotedPair,
        (At::Quoted | At::QuotedPair, _) if !is_control(b) => At::Quoted,
        (At::ExtensionName(true) | At::ExtensionValue(true) | At::QuotedEnd, b';') => {
            At::ExtensionName(false)
        }
        (At::ExtensionName(true) | At::ExtensionValue(true) | At::QuotedEnd, b'\r') => At::SizeEnd,
        _ => return Err(ChunkFault),
    })
}

/// A parser for one chunked body. It accepts the body in pieces of any size.
#[derive(Clone, Copy, Debug)]
pub struct Chunks {
    at: At,
    /// The number of data bytes of the current chunk that were not read yet.
    left: u64,
    line: u16,
    trailers: u16,
    /// The part of the current trailer name that was read so far.
    name: TrailerName,
    /// Whether the body belongs to a response. Otherwise it belongs to a request.
    of_an_answer: bool,
}

impl Default for Chunks {
    fn default() -> Self {
        Self {
            at: At::Size(0),
            left: 0,
            line: 0,
            trailers: 0,
            name: TrailerName::default(),
            of_an_answer: false,
        }
    }
}

impl Chunks {
    /// Creates a parser for the body of a response. It accepts white space after a chunk size, because some servers
    /// send it. In a request, white space after a chunk size is an error, because a proxy in front of Callgate may
    /// interpret the request differently.
    pub fn of_an_answer() -> Self {
        Self { of_an_answer: true, ..Self::default() }
    }

    /// Reports whether the parser has reached the end of the body.
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Parses the next bytes and passes the decoded data to `data`. Returns the number of bytes that belong to the
    /// body. Bytes after the end of the body are not parsed.
    ///
    /// # Errors
    /// Returns [`ChunkFault`] if the bytes violate the grammar of the chunked coding.
    pub fn read(&mut self, bytes: &[u8], data: impl FnMut(&[u8])) -> Result<usize, ChunkFault> {
        self.read_with_trailers(bytes, data, |_| {})
    }

    /// Parses the next bytes as [`Chunks::read`] does. Also passes each byte of the trailer lines to `trailer`,
    /// including the CRLF of each line.
    ///
    /// # Errors
    /// Returns [`ChunkFault`] if the bytes violate the grammar of the chunked coding.
    pub fn read_with_trailers(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
        mut trailer: impl FnMut(u8),
    ) -> Result<usize, ChunkFault> {
        let mut rest = bytes;
        while let Some((first, behind)) = rest.split_first() {
            if self.at == At::Data {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                let (piece, behind) = rest.split_at_checked(here).unwrap_or((rest, &[]));
                data(piece);
                self.left -= here as u64;
                rest = behind;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            if self.is_done() {
                break;
            }
            let before = self.at;
            self.byte(*first)?;
            let is_of_line = matches!(before, At::Trailer | At::Name | At::Value | At::ValueEnd);
            if is_of_line && self.at != At::End {
                trailer(*first);
            }
            rest = behind;
        }
        Ok(bytes.len() - rest.len())
    }

    fn byte(&mut self, b: u8) -> Result<(), ChunkFault> {
        self.line += 1;
        if self.line > LINE_BYTES_MAX {
            return Err(ChunkFault);
        }
        self.at = match (self.at, b) {
            (At::Size(digits), _) if b.is_ascii_hexdigit() => {
                let digit = char::from(b).to_digit(16).map_or(0, u64::from);
                self.left = self.left * 16 + digit;
                if self.left > SIZE_MAX || digits >= 16 {
                    return Err(ChunkFault);
                }
                At::Size(digits + 1)
            }
            (At::Size(1..) | At::Padding, b' ' | b'\t') if self.of_an_answer => At::Padding,
            (At::Size(1..) | At::Padding, b';') if self.of_an_answer => At::Extension,
            (At::Size(1..) | At::Padding | At::Extension, b'\r') => At::SizeEnd,
            (At::Extension, _) if !is_control(b) => At::Extension,
            (At::Size(1..), b';') => At::ExtensionName(false),
            (
                At::ExtensionName(_) | At::ExtensionValue(_) | At::Quoted | At::QuotedPair | At::QuotedEnd,
                _,
            ) => extension(self.at, b)?,
            (At::SizeEnd, b'\n') => self.next_line(if self.left == 0 { At::Trailer } else { At::Data }),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => self.next_line(At::Size(0)),
            (At::Trailer, b'\r') => At::End,
            (At::Trailer, _) if is_token(b) && self.trailers < self.trailers_max() => {
                self.name = TrailerName::default();
                self.name.push(b);
                At::Name
            }
            (At::Name, b':') if self.of_an_answer || !self.name.is_framing() => At::Value,
            (At::Name, _) if is_token(b) => {
                self.name.push(b);
                At::Name
            }
            (At::Value, b'\r') => At::ValueEnd,
            (At::Value, _) if !is_control(b) => At::Value,
            (At::ValueEnd, b'\n') => {
                self.trailers += 1;
                self.next_line(At::Trailer)
            }
            (At::End, b'\n') => At::Done,
            _ => return Err(ChunkFault),
        };
        Ok(())
    }

    fn trailers_max(&self) -> u16 {
        if self.of_an_answer { ANSWER_TRAILERS_MAX } else { TRAILERS_MAX }
    }

    fn next_line(&mut self, at: At) -> At {
        self.line = 0;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(body: &str, step: usize) -> Result<(bool, String, usize), ChunkFault> {
        let (mut chunks, mut data, mut taken) = (Chunks::default(), Vec::new(), 0);
        for piece in body.as_bytes().chunks(step) {
            taken += chunks.read(piece, |bytes| data.extend_from_slice(bytes))?;
        }
        Ok((chunks.is_done(), String::from_utf8(data).unwrap(), taken))
    }

    fn read(body: &str, step: usize) -> Result<bool, ChunkFault> {
        decoded(body, step).map(|(done, ..)| done)
    }

    #[test]
    fn what_is_data_and_where_it_ends() {
        let body = "3;a=b\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\n";
        let more = format!("{body}GET / HTTP/1.1\r\n");
        for step in 1..=more.len() {
            let whole = (true, "abc0123456789abcdef".to_owned(), body.len());
            assert_eq!(decoded(&more, step), Ok(whole), "by {step}");
        }
        assert_eq!(decoded("3\r\nab", 2), Ok((false, "ab".to_owned(), 5)));
    }

    #[test]
    fn chunks_however_they_come() {
        for (body, done) in [
            ("0\r\n\r\n", true),
            ("3\r\nabc\r\n0\r\n\r\n", true),
            ("0A;a=b;c=\"d\"\r\n0123456789\r\n000\r\n\r\n", true),
            ("1\r\na\r\n0\r\nX: y\r\nZ:\r\n\r\n", true),
            ("1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\n", true),
            ("1;a\r\na\r\n0;a=b;c\r\n\r\n", true),
            ("1;a=\"\"\r\na\r\n0;a=\"; \\\" \u{e9}\";b=c\r\n\r\n", true),
            (
                "0\r\nContent-Length-X: 1\r\nContent-Lengt: 1\r\nTransfer-Encoding2: x\r\nhosts: h\r\n\r\n",
                true,
            ),
            ("3\r\nab", false),
            ("3\r\nabc\r\n0\r\n", false),
        ] {
            for step in 1..body.len() {
                assert_eq!(read(body, step), Ok(done), "{body:?} by {step}");
            }
        }
    }

    #[test]
    fn blanks_behind_a_size_are_forgiven_in_answers() {
        for body in ["3  \r\nabc\r\n0 \t\r\n\r\n", "3 ;a\r\nabc\r\n0\r\n\r\n"] {
            assert_eq!(read(body, body.len()), Err(ChunkFault));
            let mut data = Vec::new();
            let taken = Chunks::of_an_answer().read(body.as_bytes(), |bytes| data.extend_from_slice(bytes));
            assert_eq!((taken, data.as_slice()), (Ok(body.len()), b"abc".as_slice()));
        }
        assert!(Chunks::of_an_answer().read(b" 3\r\n", |_| {}).is_err());
        assert!(Chunks::of_an_answer().read(b"3 a\r\n", |_| {}).is_err());
    }

    #[test]
    fn extensions_and_trailers_of_answers_are_ignored() {
        let body =
            b"3; a;;=\" b\r\nabc\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: gzip\r\nHost: h\r\n\r\n";
        let mut data = Vec::new();
        let taken = Chunks::of_an_answer().read(body, |bytes| data.extend_from_slice(bytes));
        assert_eq!((taken, data.as_slice()), (Ok(body.len()), b"abc".as_slice()));
    }

    #[test]
    fn what_is_no_chunk() {
        for body in [
            "\r\n",
            "g\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            " 3\r\nabc",
            "+3\r\n",
            "0x3\r\n",
            "3\nabc",
            "3\r\nabc\n0\r\n",
            "3\r\nabcd\r\n",
            "3\r\nfoo\r\n\r\nGET",
            "0\r\nXX\r\n\r\n",
            "0\r\nA: b\r\n c\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\nA: b\0\r\n\r\n",
            "3;a\n\r\nabc",
            "3;\r\nabc\r\n0\r\n\r\n",
            "3;;a\r\nabc\r\n0\r\n\r\n",
            "3;a;\r\nabc\r\n0\r\n\r\n",
            "3;a=\r\nabc\r\n0\r\n\r\n",
            "3;=b\r\nabc\r\n0\r\n\r\n",
            "3; a\r\nabc\r\n0\r\n\r\n",
            "3;a =b\r\nabc\r\n0\r\n\r\n",
            "3;a=b c\r\nabc\r\n0\r\n\r\n",
            "3;a=b\"c\"\r\nabc\r\n0\r\n\r\n",
            "3;a=\"b\"c\r\nabc\r\n0\r\n\r\n",
            "3;a=\"b\r\nabc\r\n0\r\n\r\n",
            "3;a=\"b\\\r\nabc\r\n0\r\n\r\n",
            "3;a,b\r\nabc\r\n0\r\n\r\n",
            "3;\u{e9}\r\nabc\r\n0\r\n\r\n",
            "0\r\nContent-Length: 3\r\n\r\n",
            "0\r\nA: b\r\ncontent_length: 3\r\n\r\n",
            "0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "0\r\ntransfer_encoding: chunked\r\n\r\n",
            "0\r\nHOST: h\r\n\r\n",
            "80000001\r\n",
            "10000000000000003\r\n",
            "00000000000000003\r\n",
        ] {
            for step in 1..=body.len() {
                assert_eq!(read(body, step), Err(ChunkFault), "{body:?} by {step}");
            }
        }
        assert_eq!(read(&format!("1;{}\r\n", "a".repeat(5000)), 100), Err(ChunkFault));
        assert_eq!(read(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(40)), 100), Err(ChunkFault));
    }
}
