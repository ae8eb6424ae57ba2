//! Finds the values of several JSON pointers in one pass over a JSON document.

use std::fmt;

use serde::de::{Deserializer as _, Visitor};
use serde_json::value::RawValue;

use super::pointer::{POINTERS_MAX, Pointer};
use super::scan::{Begins, Scan};

/// The result of looking up one JSON pointer.
#[derive(Clone, Copy, Debug)]
pub enum Found<'t> {
    /// More than one value matches, because an object on the path contains the same key twice. JSON parsers differ in
    /// which of the two values they use. A strict lookup treats keys that differ only in case as the same key.
    Doubled,
    /// The document has no value at the pointer.
    Missing,
    /// Exactly one value matches. The field is the JSON text of the value.
    One(&'t RawValue),
}

impl<'t> Found<'t> {
    /// Returns the JSON text of the value, exactly as in the document. Returns `None` unless exactly one value matches.
    pub fn raw(self) -> Option<&'t str> {
        match self {
            Self::One(raw) => Some(raw.get()),
            Self::Doubled | Self::Missing => None,
        }
    }

    /// Returns the decoded text of a string, or the JSON text of a number, `true` or `false`. Returns `None` for
    /// `null`, objects and arrays. Also returns `None` unless exactly one value matches.
    pub fn word(self) -> Option<Box<str>> {
        match self.raw()? {
            raw if raw.starts_with('"') && !raw.contains('\\') => raw.get(1..raw.len() - 1).map(Into::into),
            raw if raw.starts_with('"') => serde_json::from_str::<String>(raw).ok().map(Into::into),
            raw if raw.starts_with(['{', '[']) || raw == "null" => None,
            raw => Some(raw.into()),
        }
    }

    /// Returns the decoded text of a string, or the JSON text of a number. Returns `None` for every other value, because
    /// `true` cannot be the id of one thing. Also returns `None` unless exactly one value matches.
    pub fn id(self) -> Option<Box<str>> {
        self.word().filter(|_| self.raw().is_some_and(|raw| !matches!(raw, "true" | "false")))
    }
}

/// The error for a document that is not valid JSON (RFC 8259) in UTF-8.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotJson;

/// Looks up all `pointers` in a JSON document. The results are in the order of the pointers. One pass over the document
/// looks up at most [`POINTERS_MAX`] pointers.
///
/// # Errors
/// Returns [`NotJson`] if the document is not valid JSON in UTF-8. Some parsers accept invalid documents (`NaN`, a byte
/// order mark, UTF-16). A caller that checks the content of a document must therefore deny every document with this
/// error.
pub fn find<'t>(document: &'t [u8], pointers: &[&Pointer]) -> Result<Vec<Found<'t>>, NotJson> {
    let text = simdutf8::basic::from_utf8(document).map_err(|_| NotJson)?;
    let mut found = vec![Found::Missing; pointers.len()];
    if pointers.is_empty() {
        Walk { pointers, depth: 0, wanted: 0, found: &mut found }.through(text).ok_or(NotJson)?;
    }
    // A bit mask identifies the pointers of one pass. The number of its bits limits the number of pointers in a pass.
    for (pointers, found) in pointers.chunks(POINTERS_MAX).zip(found.chunks_mut(POINTERS_MAX)) {
        let wanted = pointers.iter().enumerate().fold(0, |mask, (i, _)| mask | 1 << i);
        Walk { pointers, depth: 0, wanted, found }.through(text).ok_or(NotJson)?;
    }
    Ok(found)
}

/// Looks up one JSON pointer. Returns [`Found::Missing`] if the document is not JSON.
pub fn find_one<'t>(document: &'t [u8], pointer: &Pointer) -> Found<'t> {
    find(document, &[pointer]).ok().and_then(|found| found.into_iter().next()).unwrap_or(Found::Missing)
}

/// A lookup of several JSON pointers in one object or array. `wanted` is a bit mask of the pointers to look up. The
/// values are stored in `found`.
pub(super) struct Walk<'w, 'p, 't> {
    pub(super) pointers: &'w [&'p Pointer],
    pub(super) depth: usize,
    pub(super) wanted: u32,
    pub(super) found: &'w mut [Found<'t>],
}

impl<'t> Walk<'_, '_, 't> {
    /// Looks up the pointers in the whole text. Returns `None` if the text is not JSON.
    pub(super) fn through(mut self, text: &'t str) -> Option<()> {
        let mut scan = Scan::new(text);
        match scan.begins() {
            Begins::Object => self.members(&mut scan)?,
            Begins::List => self.elements(&mut scan)?,
            Begins::Other => drop(scan.value()?),
        }
        scan.end()
    }

    fn members(&mut self, scan: &mut Scan<'t>) -> Option<()> {
        if scan.takes(b'}') {
            return Some(());
        }
        loop {
            let through = self.named(scan.name()?);
            let value = scan.value()?;
            self.take(through, value)?;
            if scan.takes(b'}') {
                return Some(());
            }
            scan.takes(b',').then_some(())?;
        }
    }

    fn elements(&mut self, scan: &mut Scan<'t>) -> Option<()> {
        if scan.takes(b']') {
            return Some(());
        }
        let wanted = self.indices();
        for index in 0_usize.. {
            let value = scan.value()?;
            let through = wanted.iter().filter(|(at, _)| *at == index).fold(0, |mask, (_, bit)| mask | bit);
            self.take(through, value)?;
            if scan.takes(b']') {
                break;
            }
            scan.takes(b',').then_some(())?;
        }
        Some(())
    }

    /// Returns the bit mask of the wanted pointers whose token at this depth equals the JSON key `name`.
    fn named(&self, name: &str) -> u32 {
        if !name.contains('\\') {
            return self.goes(name.as_bytes());
        }
        // The key is compared as bytes, because an escaped key may contain half of a surrogate pair. Such a key is
        // valid JSON, but not a valid Rust `str`.
        let quoted = format!("\"{name}\"");
        let mut deserializer = serde_json::Deserializer::from_str(&quoted);
        deserializer.deserialize_bytes(Unescaped(self)).unwrap_or(0)
    }

    fn goes(&self, name: &[u8]) -> u32 {
        let through =
            |pointer: &Pointer| pointer.tokens.get(self.depth).is_some_and(|token| token.as_bytes() == name);
        let wanted = self.pointers.iter().enumerate();
        let matching = wanted.filter(|(i, pointer)| self.wanted & (1 << i) != 0 && through(pointer));
        matching.fold(0, |mask, (i, _)| mask | 1 << i)
    }

    /// Returns the indices of the array elements to which the wanted pointers refer at this depth, each with the bit
    /// mask of its pointers. `01` is not an index (RFC 6901 section 4).
    fn indices(&self) -> Vec<(usize, u32)> {
        let wanted = self.pointers.iter().enumerate().filter(|(i, _)| self.wanted & (1 << i) != 0);
        let index = |(i, pointer): (usize, &&Pointer)| {
            let token = pointer.tokens.get(self.depth)?;
            let index: usize = token.parse().ok()?;
            (index.to_string() == **token).then_some((index, 1 << i))
        };
        wanted.filter_map(index).collect()
    }

    /// Processes the value of an object key or an array element. `through` is the bit mask of the pointers that lead to
    /// this value. If a pointer ends at this value, the value is recorded as its result. Otherwise the search for the
    /// pointer continues inside the value.
    fn take(&mut self, through: u32, value: &'t str) -> Option<()> {
        if through == 0 {
            return Some(());
        }
        let raw: &RawValue = serde_json::from_str(value).ok()?;
        let mut deeper = 0;
        for (i, (pointer, found)) in self.pointers.iter().zip(&mut *self.found).enumerate() {
            if through & (1 << i) == 0 {
                continue;
            }
            if pointer.tokens.len() > self.depth + 1 {
                deeper |= 1 << i;
            } else {
                *found = match found {
                    Found::Missing => Found::One(raw),
                    Found::One(_) | Found::Doubled => Found::Doubled,
                };
            }
        }
        // A scalar contains no values, so deeper pointers find nothing.
        if deeper == 0 || !value.starts_with(['{', '[']) {
            return Some(());
        }
        Walk { pointers: self.pointers, depth: self.depth + 1, wanted: deeper, found: self.found }
            .through(value)
    }
}

/// A serde visitor that decodes an escaped JSON key and returns the bit mask of the pointers that match the key.
struct Unescaped<'w, 'a, 'p, 't>(&'w Walk<'a, 'p, 't>);

impl Visitor<'_> for Unescaped<'_, '_, '_, '_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<u32, E> {
        Ok(self.0.goes(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<u32, E> {
        Ok(self.0.goes(name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).unwrap()
    }

    fn raw(document: &str, at: &str) -> Option<String> {
        find_one(document.as_bytes(), &pointer(at)).raw().map(str::to_owned)
    }

    #[test]
    fn values_are_found_as_they_stand() {
        let text = r#" {"a": 1e400, "b": {"c": [10, {"d": "x\ny"}], "": null}, "a~/b": 3, "é": true} "#;
        for (at, value) in [
            ("/a", Some("1e400")),
            ("/b/c/0", Some("10")),
            ("/b/c/1/d", Some(r#""x\ny""#)),
            ("/b/", Some("null")),
            ("/a~0~1b", Some("3")),
            ("/é", Some("true")),
            ("/b/c/2", None),
            ("/b/c/00", None),
            ("/b/c/-", None),
            ("/a/x", None),
            ("/x", None),
        ] {
            assert_eq!(raw(text, at).as_deref(), value, "{at}");
        }
        let pointers = [&pointer("/b/c/1/d"), &pointer("/b/c"), &pointer("/no")];
        let several = find(text.as_bytes(), &pointers).unwrap();
        assert_eq!(several[0].word().as_deref(), Some("x\ny"));
        assert!(several[1].raw().is_some_and(|raw| raw.starts_with('[')));
        assert!(several[1].word().is_none() && several[2].raw().is_none());
    }

    #[test]
    fn an_escaped_name_is_the_same_name_and_doubles_are_seen() {
        assert_eq!(raw(r#"{"\u0061": 1}"#, "/a").as_deref(), Some("1"));
        let doubled = find_one(br#"{"a": {"x": 1}, "\u0061": {"x": 2}}"#, &pointer("/a/x"));
        assert!(matches!(doubled, Found::Doubled));
        for text in ["", "{", "[1,]", "{\"a\": 1} x", "\u{feff}{\"a\": 1}", "nul"] {
            assert_eq!(find(text.as_bytes(), &[&pointer("/a")]).err(), Some(NotJson), "{text}");
        }
        for bytes in
            [b"{\"a\": \"\xff\"}".as_slice(), b"{\"x\":NaN}", b"{\x00\"\x00a\x00\"\x00:\x001\x00}\x00"]
        {
            assert_eq!(find(bytes, &[&pointer("/a")]).err(), Some(NotJson));
        }
        // Half of a surrogate pair and a number beyond the range of `f64` are valid JSON.
        for text in [r#"{"\ud800":1,"a":2}"#, r#"{"b":1e999,"a":2}"#, r#"{"a":2,"b":"\ud800"}"#] {
            assert_eq!(raw(text, "/a").as_deref(), Some("2"), "{text}");
        }
        assert_eq!(raw(r#"{"d":"\ud800","d":{"a":1}}"#, "/d/a").as_deref(), Some("1"));
        assert_eq!(raw("1e999", "/a"), None);
    }

    #[test]
    fn any_number_of_pointers_is_looked_up() {
        for count in [0, 1, 31, 32, 33, 64, 65, 200] {
            let members: Vec<_> = (0..count).map(|i| format!("\"m{i}\":[{i},{{\"x\":\"v{i}\"}}]")).collect();
            let text = format!("{{{}}}", members.join(","));
            let pointers: Vec<_> = (0..count).map(|i| pointer(&format!("/m{i}/1/x"))).collect();
            let found = find(text.as_bytes(), &pointers.iter().collect::<Vec<_>>()).unwrap();
            let words: Vec<_> = found.iter().map(|one| one.word().unwrap().into_string()).collect();
            assert_eq!(words, (0..count).map(|i| format!("v{i}")).collect::<Vec<_>>());
            assert_eq!(find(b"{", &pointers.iter().collect::<Vec<_>>()).err(), Some(NotJson), "{count}");
        }
    }

    #[test]
    fn pointers_are_strict() {
        for bad in ["", "a", "a/b", "/~", "/~2", "/a~"] {
            assert_eq!(Pointer::parse(bad), None, "{bad}");
        }
        assert!(pointer("/a").overlaps(&pointer("/a/b")) && !pointer("/a/b").overlaps(&pointer("/a/c")));
    }
}
