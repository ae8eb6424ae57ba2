//! A JSON validator that returns slices of the text and builds no values. The whole document must be validated although
//! only a few values are used, so validation is the most expensive step for a large body.
//!
//! The validator accepts the same texts as `serde_json` (RFC 8259) in about three quarters of the time. The module
//! `find` uses it to look up values.
//!
//! Each free function below takes the unread text and returns the text that is left after one token or value. It
//! returns `None` if the text is not valid JSON.

/// The number of words of 8 bytes after which a string is scanned in blocks. Most strings are shorter.
const SHORT_WORDS: usize = 4;
/// The size of a block in a long string, in bytes.
const BLOCK_BYTES: usize = 32;

/// A scanner with its position in a JSON text.
#[derive(Debug)]
pub(super) struct Scan<'t> {
    text: &'t str,
    rest: &'t [u8],
    /// The objects and arrays that are open around the current position. The vector is reused for each value, so that
    /// it is allocated only once.
    open: Vec<Kind>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    List,
    Object,
}

/// The first token of a JSON value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Begins {
    /// The value is an object. The scanner has consumed its `{`.
    Object,
    /// The value is an array. The scanner has consumed its `[`.
    List,
    /// The next token is neither `{` nor `[`, or the text has ended. The scanner has consumed no token.
    Other,
}

impl<'t> Scan<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, rest: text.as_bytes(), open: Vec::new() }
    }

    /// Consumes the next token if it is `{` or `[`. Returns which token was consumed.
    pub(super) fn begins(&mut self) -> Begins {
        if self.takes(b'{') {
            Begins::Object
        } else if self.takes(b'[') {
            Begins::List
        } else {
            Begins::Other
        }
    }

    /// Skips white space, and consumes `byte` if it comes next. Returns whether `byte` was consumed.
    pub(super) fn takes(&mut self, byte: u8) -> bool {
        match white(self.rest) {
            [next, behind @ ..] if *next == byte => {
                self.rest = behind;
                true
            }
            _ => false,
        }
    }

    /// Consumes a JSON key and its colon. Returns the text between the quotes, without decoding escapes.
    pub(super) fn name(&mut self) -> Option<&'t str> {
        self.takes(b'"').then_some(())?;
        let start = self.at();
        let behind = string(self.rest)?;
        let end = self.text.len() - behind.len() - 1;
        self.rest = colon(behind)?;
        self.text.get(start..end)
    }

    /// Consumes one JSON value and returns its text.
    pub(super) fn value(&mut self) -> Option<&'t str> {
        self.rest = white(self.rest);
        let start = self.at();
        self.rest = value(self.rest, &mut self.open)?;
        self.text.get(start..self.at())
    }

    /// Checks that only white space is left. Returns `None` otherwise.
    pub(super) fn end(self) -> Option<()> {
        white(self.rest).is_empty().then_some(())
    }

    /// Returns the current position in the text, in bytes.
    pub(super) fn at(&self) -> usize {
        self.text.len() - self.rest.len()
    }
}

/// Returns the text after one JSON value. `open` is a buffer for the objects and arrays that are open during the scan.
fn value<'t>(mut rest: &'t [u8], open: &mut Vec<Kind>) -> Option<&'t [u8]> {
    open.clear();
    // The innermost open object or array. `open` contains the outer objects and arrays.
    let mut within = None;
    loop {
        let (first, behind) = white(rest).split_first()?;
        rest = match first {
            b'"' => string(behind)?,
            b'-' | b'0'..=b'9' => number(*first, behind)?,
            b'{' => match white(behind) {
                [b'}', behind @ ..] => behind,
                behind => {
                    open.extend(within.replace(Kind::Object));
                    rest = name(behind)?;
                    continue;
                }
            },
            b'[' => match white(behind) {
                [b']', behind @ ..] => behind,
                behind => {
                    open.extend(within.replace(Kind::List));
                    rest = behind;
                    continue;
                }
            },
            b't' => behind.strip_prefix(b"rue")?,
            b'f' => behind.strip_prefix(b"alse")?,
            b'n' => behind.strip_prefix(b"ull")?,
            _ => return None,
        };
        // A value has ended. This may also end the objects and arrays that contain the value.
        loop {
            let Some(kind) = within else { return Some(rest) };
            let (next, behind) = white(rest).split_first()?;
            match (next, kind) {
                (b',', Kind::List) => {
                    rest = behind;
                    break;
                }
                (b',', Kind::Object) => {
                    rest = name(white(behind))?;
                    break;
                }
                (b']', Kind::List) | (b'}', Kind::Object) => (rest, within) = (behind, open.pop()),
                _ => return None,
            }
        }
    }
}

/// Returns the text after a JSON key and its colon.
#[inline(always)]
fn name(rest: &[u8]) -> Option<&[u8]> {
    colon(string(rest.strip_prefix(b"\"")?)?)
}

#[inline(always)]
fn colon(rest: &[u8]) -> Option<&[u8]> {
    white(rest).strip_prefix(b":")
}

/// Returns the text after white space. Most calls find no white space or one space, so these two cases come first.
#[inline(always)]
fn white(rest: &[u8]) -> &[u8] {
    match rest {
        [b' ', behind @ ..] if !matches!(behind, [(..=b' '), ..]) => behind,
        [(..=b' '), ..] => much_white(rest),
        _ => rest,
    }
}

fn much_white(mut rest: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\n' | b'\r', behind @ ..] = rest {
        rest = behind;
    }
    rest
}

/// Returns the text after a JSON string. `rest` begins after the opening quote.
#[inline(always)]
fn string(mut rest: &[u8]) -> Option<&[u8]> {
    let mut words = 0;
    while let Some((word, behind)) = rest.split_first_chunk() {
        let marks = special(u64::from_le_bytes(*word));
        if marks == 0 {
            words += 1;
            rest = if words == SHORT_WORDS { plain_blocks(behind) } else { behind };
            continue;
        }
        words = 0;
        let (found, behind) = rest.get(marks.trailing_zeros() as usize / 8..)?.split_first()?;
        match found {
            b'"' => return Some(behind),
            b'\\' => rest = escape(behind)?,
            _ => return None,
        }
    }
    last_bytes(rest)
}

/// Skips blocks of a string until a block contains a quote, a backslash or a control character. Returns the rest of the
/// text. The loop over a block has no early exit, so that the compiler uses vector instructions.
#[inline(never)]
fn plain_blocks(mut rest: &[u8]) -> &[u8] {
    let is_special = |found, byte: &u8| found | (*byte < b' ') | (*byte == b'"') | (*byte == b'\\');
    while let Some((block, behind)) = rest.split_first_chunk::<BLOCK_BYTES>()
        && !block.iter().fold(false, is_special)
    {
        rest = behind;
    }
    rest
}

/// Does the same as [`string`] for the last bytes of the text, which are fewer than one word of 8 bytes.
fn last_bytes(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (found, behind) = rest.split_first()?;
        rest = match found {
            b'"' => return Some(behind),
            b'\\' => escape(behind)?,
            0..b' ' => return None,
            _ => behind,
        };
    }
}

/// Returns the text after an escape sequence. `rest` begins after the backslash.
fn escape(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', behind @ ..] => Some(behind),
        [b'u', a, b, c, d, behind @ ..] if [a, b, c, d].iter().all(|b| b.is_ascii_hexdigit()) => Some(behind),
        _ => None,
    }
}

/// Returns the text after a number. `first` is the first character of the number, and `rest` begins after it.
#[inline(always)]
fn number(first: u8, rest: &[u8]) -> Option<&[u8]> {
    let (first, mut rest) = match (first, rest) {
        (b'-', [digit @ b'0'..=b'9', behind @ ..]) => (*digit, behind),
        (b'-', _) => return None,
        (digit, rest) => (digit, rest),
    };
    // A digit after a leading zero is not skipped. The calling function then fails, because only a separator is allowed
    // there.
    if first != b'0' {
        rest = digits(rest);
    }
    if let [b'.', behind @ ..] = rest {
        rest = some_digits(behind)?;
    }
    match rest {
        [b'e' | b'E', b'+' | b'-', behind @ ..] | [b'e' | b'E', behind @ ..] => some_digits(behind),
        _ => Some(rest),
    }
}

#[inline(always)]
fn digits(mut rest: &[u8]) -> &[u8] {
    while let [b'0'..=b'9', behind @ ..] = rest {
        rest = behind;
    }
    rest
}

#[inline(always)]
fn some_digits(rest: &[u8]) -> Option<&[u8]> {
    matches!(rest, [b'0'..=b'9', ..]).then(|| digits(rest))
}

/// Returns a mask in which the highest bit of a byte is set if this byte of `word` is a quote, a backslash or a control
/// character. Only the lowest set bit is reliable, because the borrow of a subtraction can set higher bits by mistake.
#[inline(always)]
const fn special(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let quote = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    let control = word.wrapping_sub(ONES * b' ' as u64);
    (quote | backslash | control) & !word & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn is_json(text: &str) -> bool {
        let mut scan = Scan::new(text);
        scan.value().is_some() && scan.end().is_some()
    }

    fn agrees(text: &str) {
        assert_eq!(is_json(text), serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text:?}");
    }

    #[test]
    fn what_is_json() {
        for text in [
            "",
            " ",
            "1",
            "-",
            "-0",
            "01",
            "1.",
            "1.e1",
            "1e",
            "1e+",
            "1e+1",
            "-1.5E-9",
            "1 2",
            "nul",
            "null",
            "truex",
            "[",
            "[]",
            "[,]",
            "[1,]",
            "[1 2]",
            "[[]]",
            "[[],{}]",
            "[}",
            "{",
            "{}",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{\"a\":1,\"b\":[{}]}",
            "{1:2}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":[1}]",
            "\"",
            "\"a\"",
            "\"\\",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12G4\"",
            "\"\\ud800\"",
            "\"\u{1}\"",
            "\"a\u{7f}é\"",
            "\"0123456789abcdef\u{1f}0\"",
            "\"0123456789abcdef\\n0\"",
            "\"0123456789abcdefé\"",
            &format!("\"{}\"", "a".repeat(200)),
            &format!("\"{}\u{1f}{}\"", "a".repeat(100), "a".repeat(100)),
            &format!("\"{}\\n{}", "é".repeat(100), "a".repeat(100)),
            "\u{feff}1",
            "1\u{a0}",
        ] {
            agrees(text);
        }
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(is_json(&deep));
    }

    proptest! {
        #[test]
        fn what_is_json_to_others_is_json_here(text in "[\\[\\]{},:\"\\\\0-9eE.+ utfn\\-abé\u{1}\u{1f}]{0,40}") {
            agrees(&text);
        }

        #[test]
        fn strings_end_where_they_end_for_others(text in "([a-cé]{0,50}[a-c\u{1}\"\\\\un0é]{0,2}){0,6}") {
            agrees(&format!("\"{text}\""));
            agrees(&format!("[\"{text}\",1]"));
        }

        #[test]
        fn documents_stay_documents(value in arbitrary(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let text = serde_json::to_string_pretty(&value).unwrap();
            prop_assert!(is_json(&text));
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = with;
            if let Ok(text) = std::str::from_utf8(&bytes) {
                agrees(text);
            }
        }
    }

    fn arbitrary() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,40}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(".{0,20}", inner, 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }
}
