//! The canonical form of a request path. The checks, the router and the delivery all use the same canonical path. A
//! path that two parsers could interpret differently is an error, and is never repaired.
//!
//! A path is denied if it contains dot segments, empty segments, `;` parameters, backslashes, control characters, bytes
//! outside ASCII, the percent-encoded forms of `/ \ . ; % ? #`, or percent-encoded bytes that are not valid UTF-8
//! (including overlong forms).
//!
//! Two changes are made, because they do not change the meaning of a path (RFC 3986 section 6.2.2). Percent-encoded
//! unreserved characters are decoded. The hex digits of all other percent-encodings become upper case.

use std::borrow::Cow;
use std::fmt;

/// The maximum length of a path, in bytes. A path segment can contain a token of up to 8 KiB.
pub(super) const PATH_BYTES_MAX: usize = 12 * 1024;

/// A request path in canonical form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CanonicalPath<'a> {
    text: Cow<'a, str>,
}

/// The reason why a path has no canonical form. The number in a variant is the byte offset of the fault in the path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathFault {
    /// The path contains a forbidden byte.
    Character(usize),
    /// The path contains the segment `.` or `..`.
    DotSegment(usize),
    /// The path contains two slashes in a row.
    EmptySegment(usize),
    /// The path contains a percent-encoded character that would change the meaning of the path if it were decoded.
    Encoded(usize),
    /// The path contains percent-encoded bytes that are not valid UTF-8 (including overlong forms).
    NotUtf8(usize),
    /// The path does not begin with a slash.
    NotAPath,
    /// The path contains a `%` without two hexadecimal digits.
    Percent(usize),
    /// The path is longer than 12 KiB.
    TooLong,
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character(at) => write!(f, "forbidden character at byte {at}"),
            Self::DotSegment(at) => write!(f, "dot segment at byte {at}"),
            Self::EmptySegment(at) => write!(f, "empty segment at byte {at}"),
            Self::Encoded(at) => {
                write!(f, "percent-encoded separator, dot or control character at byte {at}")
            }
            Self::NotUtf8(at) => write!(f, "percent-encoded bytes at byte {at} are not UTF-8"),
            Self::NotAPath => write!(f, "the target does not begin with a slash"),
            Self::Percent(at) => write!(f, "percent sign without two hex digits at byte {at}"),
            Self::TooLong => write!(f, "longer than {PATH_BYTES_MAX} bytes"),
        }
    }
}

impl<'a> CanonicalPath<'a> {
    /// Parses a raw path, which is the part of the request target before the first `?`.
    ///
    /// # Errors
    /// Returns a [`PathFault`] if two parsers could interpret the path differently.
    pub fn parse(raw: &'a str) -> Result<Self, PathFault> {
        if !raw.starts_with('/') {
            return Err(PathFault::NotAPath);
        }
        if raw.len() > PATH_BYTES_MAX {
            return Err(PathFault::TooLong);
        }
        let text = if raw.contains('%') { Cow::Owned(normalise(raw)?) } else { Cow::Borrowed(raw) };
        if let Some(at) = text.bytes().position(|b| !is_path_byte(b)) {
            return Err(PathFault::Character(at));
        }
        check_segments(&text)?;
        Ok(Self { text })
    }

    /// Returns the segments of the path, first to last.
    pub fn segments(&self) -> Segments<'_> {
        Segments::of(&self.text)
    }

    /// Returns the canonical path as text, beginning with a slash.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// An iterator over the segments of a path. It searches for the next slash in a plain loop, which is faster than
/// `memchr` because segments are short.
#[derive(Clone, Debug)]
pub struct Segments<'p> {
    rest: Option<&'p str>,
}

impl<'p> Segments<'p> {
    fn of(path: &'p str) -> Self {
        Self { rest: path.get(1..) }
    }
}

impl<'p> Iterator for Segments<'p> {
    type Item = &'p str;

    fn next(&mut self) -> Option<&'p str> {
        let rest = self.rest?;
        match rest.bytes().position(|b| b == b'/') {
            None => {
                self.rest = None;
                Some(rest)
            }
            Some(at) => {
                self.rest = rest.get(at + 1..);
                rest.get(..at)
            }
        }
    }
}

/// Reports whether a byte is a slash or a `pchar` (RFC 3986 section 3.3) other than `;`. Some servers remove the part
/// of a segment after a `;`.
fn is_path_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@/%".contains(&b)
}

fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~".contains(&b)
}

fn check_segments(path: &str) -> Result<(), PathFault> {
    let mut at = 1;
    let mut segments = Segments::of(path).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => return Err(PathFault::DotSegment(at)),
            "" if segments.peek().is_some() => return Err(PathFault::EmptySegment(at)),
            _ => at += segment.len() + 1,
        }
    }
    Ok(())
}

fn normalise(raw: &str) -> Result<String, PathFault> {
    let mut out = String::with_capacity(raw.len());
    let mut beyond_ascii = Vec::new();
    let mut bytes = raw.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        let decoded = if byte == b'%' {
            let high = bytes.next().and_then(|(_, b)| hex_value(b)).ok_or(PathFault::Percent(at))?;
            let low = bytes.next().and_then(|(_, b)| hex_value(b)).ok_or(PathFault::Percent(at))?;
            Some(high << 4 | low)
        } else {
            None
        };
        match decoded {
            Some(b) if b >= 0x80 => {
                beyond_ascii.push(b);
                push_encoded(&mut out, b);
                continue;
            }
            _ if !beyond_ascii.is_empty() => {
                std::str::from_utf8(&beyond_ascii).map_err(|_| PathFault::NotUtf8(at))?;
                beyond_ascii.clear();
            }
            _ => {}
        }
        match decoded {
            Some(b) if b < 0x20 || b == 0x7f || b"/\\.;%?#".contains(&b) => {
                return Err(PathFault::Encoded(at));
            }
            Some(b) if is_unreserved(b) => out.push(char::from(b)),
            Some(b) => push_encoded(&mut out, b),
            None if byte.is_ascii() => out.push(char::from(byte)),
            None => return Err(PathFault::Character(at)),
        }
    }
    match std::str::from_utf8(&beyond_ascii) {
        Ok(_) => Ok(out),
        Err(_) => Err(PathFault::NotUtf8(raw.len())),
    }
}

fn hex_value(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn push_encoded(out: &mut String, b: u8) {
    out.push('%');
    for digit in [b >> 4, b & 15] {
        out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0').to_ascii_uppercase());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_borrowed_as_they_are() {
        for path in ["/", "/a", "/a/b-c_d.e~f", "/a/", "/a:b@c,d=e", "/...", "/a..b", "/.hidden"] {
            assert_eq!(CanonicalPath::parse(path).map(|p| p.as_str().to_owned()), Ok(path.to_owned()));
        }
    }

    #[test]
    fn unreserved_characters_are_decoded_once() {
        assert_eq!(CanonicalPath::parse("/%61%7e%2D%5f").unwrap().as_str(), "/a~-_");
        assert_eq!(CanonicalPath::parse("/%c3%a9%20x").unwrap().as_str(), "/%C3%A9%20x");
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        use PathFault as F;
        for (path, fault) in [
            ("", F::NotAPath),
            ("*", F::NotAPath),
            ("a/b", F::NotAPath),
            ("/a/../b", F::DotSegment(3)),
            ("/a/.", F::DotSegment(3)),
            ("/..", F::DotSegment(1)),
            ("//a", F::EmptySegment(1)),
            ("/a//", F::EmptySegment(3)),
            ("/a/%2e%2e/b", F::Encoded(3)),
            ("/a/%2E", F::Encoded(3)),
            ("/a%2fb", F::Encoded(2)),
            ("/a%5Cb", F::Encoded(2)),
            ("/a%00", F::Encoded(2)),
            ("/a%0d%0aX", F::Encoded(2)),
            ("/a%252e", F::Encoded(2)),
            ("/a%3bb", F::Encoded(2)),
            ("/a%3fb", F::Encoded(2)),
            ("/a;b", F::Character(2)),
            ("/a\\b", F::Character(2)),
            ("/a b", F::Character(2)),
            ("/a\0", F::Character(2)),
            ("/a#b", F::Character(2)),
            ("/é", F::Character(1)),
            ("/%61é", F::Character(4)),
            ("/a%", F::Percent(2)),
            ("/a%2", F::Percent(2)),
            ("/a%+1", F::Percent(2)),
            ("/%c0%ae", F::NotUtf8(7)),
            ("/%c0%af/b", F::NotUtf8(7)),
            ("/%e0%80%ae", F::NotUtf8(10)),
            ("/%ff/a", F::NotUtf8(4)),
        ] {
            assert_eq!(CanonicalPath::parse(path), Err(fault), "{path:?}");
        }
        assert_eq!(CanonicalPath::parse(&format!("/{}", "a".repeat(20_000))), Err(F::TooLong));
    }
}
