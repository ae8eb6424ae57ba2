//! Going over JSON without taking it apart: a document is read from end to end before anything in it is believed, and
//! most of it is of no interest. What is JSON (RFC 8259) and what is not is told as `serde_json` tells it.

/// A place in a document. The document is known to be UTF-8.
#[derive(Debug)]
pub(super) struct Scan<'t> {
    text: &'t str,
    at: usize,
    /// Which kinds of values are open: objects, or lists. Kept so that the room for it is made once.
    open: Vec<Kind>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    List,
    Object,
}

/// What a value begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Begins {
    /// `{`
    Object,
    /// `[`
    List,
    /// Anything else.
    Other,
}

impl<'t> Scan<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0, open: Vec::new() }
    }

    /// What comes next; nothing is gone over but white space.
    pub(super) fn begins(&mut self) -> Begins {
        match self.peek() {
            Some(b'{') => Begins::Object,
            Some(b'[') => Begins::List,
            _ => Begins::Other,
        }
    }

    /// Goes over one byte, which is known to be there.
    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    /// Whether this byte comes next, after white space; goes over it if so.
    pub(super) fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Goes over a string. Returns its text without the quotes, escapes as they stand.
    pub(super) fn string(&mut self) -> Option<&'t str> {
        self.takes(b'"').then_some(())?;
        let start = self.at;
        self.rest_of_string()?;
        self.text.get(start..self.at - 1)
    }

    /// Goes over one value. Returns its text.
    pub(super) fn value(&mut self) -> Option<&'t str> {
        self.white();
        let start = self.at;
        self.open.clear();
        loop {
            self.simple_or_opening()?;
            if self.open.is_empty() {
                return self.text.get(start..self.at);
            }
            if !self.go_on()? {
                return self.text.get(start..self.at);
            }
        }
    }

    /// Goes over what is left, which is white space.
    pub(super) fn end(mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    /// Goes over a value that has no parts, or over the beginnings of those that have, as far as their first part: what
    /// is open then waits for a value, or, empty, was closed again.
    fn simple_or_opening(&mut self) -> Option<()> {
        loop {
            let first = self.peek()?;
            self.at += 1;
            match first {
                b'{' if self.takes(b'}') => return Some(()),
                b'{' => {
                    self.name()?;
                    self.open.push(Kind::Object);
                }
                b'[' if self.takes(b']') => return Some(()),
                b'[' => self.open.push(Kind::List),
                b'"' => return self.rest_of_string(),
                b'-' | b'0'..=b'9' => return self.rest_of_number(first),
                b't' => return self.word("rue"),
                b'f' => return self.word("alse"),
                b'n' => return self.word("ull"),
                _ => return None,
            }
        }
    }

    /// Goes on behind a value: over the ends of what it was the last part of, and over the comma to the next. Returns
    /// whether there is a next one.
    fn go_on(&mut self) -> Option<bool> {
        while let Some(kind) = self.open.last().copied() {
            let next = self.peek()?;
            self.at += 1;
            match (next, kind) {
                (b',', Kind::List) => return Some(true),
                (b',', Kind::Object) => return self.name().map(|()| true),
                (b']', Kind::List) | (b'}', Kind::Object) => self.open.pop(),
                _ => return None,
            };
        }
        Some(false)
    }

    fn name(&mut self) -> Option<()> {
        (self.takes(b'"') && self.rest_of_string().is_some() && self.takes(b':')).then_some(())
    }

    fn rest(&self) -> &'t [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn white(&mut self) {
        let rest = self.rest();
        self.at += rest.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r')).unwrap_or(rest.len());
    }

    fn peek(&mut self) -> Option<u8> {
        self.white();
        self.rest().first().copied()
    }

    fn word(&mut self, rest: &str) -> Option<()> {
        let is_it = self.rest().starts_with(rest.as_bytes());
        self.at += rest.len();
        is_it.then_some(())
    }

    /// Goes over a string whose first quote is behind, its last one included.
    fn rest_of_string(&mut self) -> Option<()> {
        loop {
            let rest = self.rest();
            let plain = plain(rest);
            self.at += plain + 1;
            match rest.get(plain)? {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let rest = self.rest();
        let length = match rest.first()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 1,
            b'u' if rest.get(1..5)?.iter().all(u8::is_ascii_hexdigit) => 5,
            _ => return None,
        };
        self.at += length;
        Some(())
    }

    /// Goes over a number of which the first character is behind.
    fn rest_of_number(&mut self, first: u8) -> Option<()> {
        let first = match first {
            b'-' => {
                let digit = self.rest().first().copied().filter(u8::is_ascii_digit)?;
                self.at += 1;
                digit
            }
            digit => digit,
        };
        if first != b'0' {
            self.digits();
        }
        if self.rest().first() == Some(&b'.') {
            self.at += 1;
            (self.digits() > 0).then_some(())?;
        }
        if matches!(self.rest().first(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.rest().first(), Some(b'+' | b'-')));
            (self.digits() > 0).then_some(())?;
        }
        // A digit behind a leading zero is caught here: it is neither a comma nor an end.
        Some(())
    }

    fn digits(&mut self) -> usize {
        let rest = self.rest();
        let count = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
        self.at += count;
        count
    }
}

/// How many bytes at the beginning stand for themselves in a string: they are no quote, backslash or control character.
fn plain(bytes: &[u8]) -> usize {
    // Most strings are short, and end within two words of the machine.
    for start in [0, 8] {
        match bytes.get(start..).and_then(|rest| rest.first_chunk()) {
            Some(word) => match special(u64::from_le_bytes(*word)) {
                0 => {}
                marks => return start + marks.trailing_zeros() as usize / 8,
            },
            None => return start + up_to_special(bytes.get(start..).unwrap_or_default()),
        }
    }
    let rest = bytes.get(16..).unwrap_or_default();
    let length = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
    let within = rest.get(..length).unwrap_or_default();
    // Without an early end, so that many are looked at at once.
    if within.iter().fold(false, |any, b| any | (*b < b' ')) {
        return 16 + up_to_special(within);
    }
    16 + length
}

fn up_to_special(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0..b' ')).unwrap_or(bytes.len())
}

/// Marks the highest bit of the bytes of a word that are a quote, a backslash or a control character. The first mark is
/// right; those behind it may not be.
const fn special(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const fn zero(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word
    }
    let quote = zero(word ^ (ONES * b'"' as u64));
    let backslash = zero(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * b' ' as u64) & !word;
    (quote | backslash | control) & (ONES << 7)
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
        fn strings_end_where_they_end_for_others(text in "[a-c\u{1}\"\\\\un0é]{0,60}") {
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
