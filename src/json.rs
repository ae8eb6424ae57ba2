//! JSON as text: members are found in a document, and put into one, without printing it anew. Whatever is
//! not touched stays byte for byte as it was: numbers, order, white space, members nobody knows.

use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Most pointers that are looked for in one pass.
pub const POINTERS_MAX: usize = 32;

/// A JSON pointer (RFC 6901) to a member, never to the whole document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pointer {
    text: Box<str>,
    tokens: Vec<Box<str>>,
}

impl Pointer {
    /// Reads a pointer. `None` when it does not begin with a slash, or has a `~` that escapes nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        let rest = text.strip_prefix('/').filter(|_| escapes)?;
        let tokens = rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~").into());
        Some(Self { text: text.into(), tokens: tokens.collect() })
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether one of two pointers goes through the place of the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.tokens.iter().zip(&other.tokens).all(|(a, b)| a == b)
    }
}

/// What stands at a pointer.
#[derive(Clone, Copy, Debug)]
pub enum Found<'t> {
    /// Two members of one name on the way: which one a reader would take is anyone's guess.
    Doubled,
    /// Nothing.
    Missing,
    /// A value, as text.
    One(&'t RawValue),
}

impl<'t> Found<'t> {
    /// The value's text as it stands in the document.
    pub fn raw(self) -> Option<&'t str> {
        match self {
            Self::One(raw) => Some(raw.get()),
            Self::Doubled | Self::Missing => None,
        }
    }

    /// The text of a string; of a number, `true` and `false` as they stand.
    pub fn word(self) -> Option<Box<str>> {
        match self.raw()? {
            raw if raw.starts_with('"') => serde_json::from_str::<String>(raw).ok().map(Into::into),
            raw if raw.starts_with(['{', '[']) || raw == "null" => None,
            raw => Some(raw.into()),
        }
    }
}

/// What stands at each of the pointers, found in one pass; all are missing where `document` is no JSON.
pub fn find<'t>(document: &'t [u8], pointers: &[&Pointer]) -> Vec<Found<'t>> {
    let nothing = || vec![Found::Missing; pointers.len()];
    let Ok(text) = std::str::from_utf8(document) else { return nothing() };
    let mut found = nothing();
    let wanted = pointers.iter().take(POINTERS_MAX).enumerate().fold(0, |mask, (i, _)| mask | 1 << i);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let walk = Walk { pointers, depth: 0, wanted, found: &mut found };
    match walk.deserialize(&mut deserializer).and_then(|()| deserializer.end()) {
        Ok(()) => found,
        Err(_) => nothing(),
    }
}

/// Goes through one value and takes note of what the pointers in `wanted` (one bit each) point at.
struct Walk<'w, 'p, 't> {
    pointers: &'w [&'p Pointer],
    depth: usize,
    wanted: u32,
    found: &'w mut [Found<'t>],
}

impl<'t> Walk<'_, '_, 't> {
    /// The elements of a list that the wanted pointers go through here: index and bit. `01` is no index.
    fn indices(&self) -> Vec<(usize, u32)> {
        let wanted = self.pointers.iter().enumerate().filter(|(i, _)| self.wanted & (1 << i) != 0);
        let index = |(i, pointer): (usize, &&Pointer)| {
            let token = pointer.tokens.get(self.depth)?;
            let index: usize = token.parse().ok()?;
            (index.to_string() == **token).then_some((index, 1 << i))
        };
        wanted.filter_map(index).collect()
    }

    fn take(&mut self, through: u32, raw: &'t RawValue) -> Result<(), serde_json::Error> {
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
        if deeper == 0 {
            return Ok(());
        }
        let walk = Walk { pointers: self.pointers, depth: self.depth + 1, wanted: deeper, found: self.found };
        walk.deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
    }
}

fn through(pointers: &[&Pointer], depth: usize, wanted: u32, name: &str) -> u32 {
    let goes = |pointer: &Pointer| pointer.tokens.get(depth).is_some_and(|token| **token == *name);
    let matching = pointers.iter().enumerate().filter(|(i, pointer)| wanted & (1 << i) != 0 && goes(pointer));
    matching.fold(0, |mask, (i, _)| mask | 1 << i)
}

impl<'t> DeserializeSeed<'t> for Walk<'_, '_, 't> {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Walk<'_, '_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'t>>(mut self, mut map: A) -> Result<(), A::Error> {
        loop {
            let name = Name { pointers: self.pointers, depth: self.depth, wanted: self.wanted };
            match map.next_key_seed(name)? {
                None => return Ok(()),
                Some(0) => drop(map.next_value::<IgnoredAny>()?),
                Some(through) => {
                    let raw = map.next_value()?;
                    self.take(through, raw).map_err(A::Error::custom)?;
                }
            }
        }
    }

    fn visit_seq<A: SeqAccess<'t>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let wanted = self.indices();
        for index in 0_usize.. {
            let through = wanted.iter().filter(|(at, _)| *at == index).fold(0, |mask, (_, bit)| mask | bit);
            if through == 0 {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
                continue;
            }
            let Some(raw) = seq.next_element()? else { break };
            self.take(through, raw).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// Tells by a member's name which pointers go through it.
struct Name<'w, 'p> {
    pointers: &'w [&'p Pointer],
    depth: usize,
    wanted: u32,
}

impl<'t> DeserializeSeed<'t> for Name<'_, '_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<u32, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_, '_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<u32, E> {
        Ok(through(self.pointers, self.depth, self.wanted, name))
    }
}

/// Why nothing can be put at a pointer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InsertFault {
    /// Two members of one name on the way.
    Doubled,
    /// The way leads through a value that has no members, or through an element that a list does not have.
    NoMembers,
    /// The document is not JSON (RFC 8259), or not UTF-8.
    NotJson,
    /// Something is there already.
    Present,
}

/// `document` with the string `value` at `pointer`. Objects that are missing on the way are made; nothing
/// that was there changes.
///
/// # Errors
/// [`InsertFault`].
pub fn insert(document: &str, pointer: &Pointer, value: &str) -> Result<String, InsertFault> {
    let raw: &RawValue = serde_json::from_str(document).map_err(|_| InsertFault::NotJson)?;
    let mut at = raw;
    let mut tokens = pointer.tokens.as_slice();
    while let Some((token, rest)) = tokens.split_first() {
        match child(at, token)? {
            Found::Doubled => return Err(InsertFault::Doubled),
            Found::One(_) if rest.is_empty() => return Err(InsertFault::Present),
            Found::One(next) => (at, tokens) = (next, rest),
            Found::Missing if at.get().starts_with('{') => {
                return Ok(insert_member(document, at.get(), token, rest, value));
            }
            Found::Missing => return Err(InsertFault::NoMembers),
        }
    }
    Err(InsertFault::NoMembers)
}

/// The member or element of `raw` that goes by this token.
fn child<'t>(raw: &'t RawValue, token: &str) -> Result<Found<'t>, InsertFault> {
    if !raw.get().starts_with(['{', '[']) {
        return Err(InsertFault::NoMembers);
    }
    let pointer = Pointer { text: "".into(), tokens: vec![token.into()] };
    let mut found = [Found::Missing];
    let walk = Walk { pointers: &[&pointer], depth: 0, wanted: 1, found: &mut found };
    let walked = walk.deserialize(&mut serde_json::Deserializer::from_str(raw.get()));
    walked.map(|()| found[0]).map_err(|_| InsertFault::NotJson)
}

/// Puts a member behind the last one of `object`, which is a part of `document`.
fn insert_member(document: &str, object: &str, name: &str, rest: &[Box<str>], value: &str) -> String {
    let start = span(document, object).start;
    let inner = object.strip_suffix('}').unwrap_or(object).trim_end_matches([' ', '\t', '\r', '\n']);
    let comma = if inner.ends_with('{') { "" } else { "," };
    let open: String = rest.iter().map(|token| format!(":{{{}", quoted(token))).collect();
    let close = "}".repeat(rest.len());
    let member = format!("{comma}{}{open}:{}{close}", quoted(name), quoted(value));
    let (before, after) = document.split_at(start + inner.len());
    format!("{before}{member}{after}")
}

/// `document` with the string `value` in place of `old`, which is a part of it.
pub fn replace(document: &str, old: &str, value: &str) -> String {
    let place = span(document, old);
    let (before, rest) = document.split_at(place.start);
    let (_, after) = rest.split_at(place.len());
    format!("{before}{}{after}", quoted(value))
}

/// Where `part` stands in `whole`, which it is a part of.
fn span(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).unwrap()
    }

    fn raw(document: &str, at: &str) -> Option<String> {
        find(document.as_bytes(), &[&pointer(at)])[0].raw().map(str::to_owned)
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
        let several = find(text.as_bytes(), &[&pointer("/b/c/1/d"), &pointer("/b/c"), &pointer("/no")]);
        assert_eq!(several[0].word().as_deref(), Some("x\ny"));
        assert!(several[1].raw().is_some_and(|raw| raw.starts_with('[')));
        assert!(several[1].word().is_none() && several[2].raw().is_none());
    }

    #[test]
    fn an_escaped_name_is_the_same_name_and_doubles_are_seen() {
        assert_eq!(raw(r#"{"\u0061": 1}"#, "/a").as_deref(), Some("1"));
        let doubled = find(br#"{"a": {"x": 1}, "\u0061": {"x": 2}}"#, &[&pointer("/a/x")]);
        assert!(matches!(doubled[0], Found::Doubled));
        for text in ["", "{", "[1,]", "{\"a\": 1} x", "\u{feff}{\"a\": 1}", "nul"] {
            assert_eq!(raw(text, "/a"), None, "{text}");
        }
        assert!(find(b"{\"a\": \"\xff\"}", &[&pointer("/a")])[0].raw().is_none());
    }

    #[test]
    fn pointers_are_strict() {
        for bad in ["", "a", "a/b", "/~", "/~2", "/a~"] {
            assert_eq!(Pointer::parse(bad), None, "{bad}");
        }
        assert!(pointer("/a").overlaps(&pointer("/a/b")) && !pointer("/a/b").overlaps(&pointer("/a/c")));
    }

    #[test]
    fn nothing_else_changes() {
        for (text, at, expected) in [
            ("{}", "/u", r#"{"u":"v"}"#),
            (" { } ", "/u", r#" {"u":"v" } "#),
            (
                "{\n  \"n\": 1.0e+02,\n  \"n2\": 0.10\n}\n",
                "/u",
                "{\n  \"n\": 1.0e+02,\n  \"n2\": 0.10,\"u\":\"v\"\n}\n",
            ),
            (r#"{"d":{"x":1},"e":2}"#, "/d/u", r#"{"d":{"x":1,"u":"v"},"e":2}"#),
            (r#"{"d":{}}"#, "/d/u", r#"{"d":{"u":"v"}}"#),
            (r#"{"a":1}"#, "/d/e/u", r#"{"a":1,"d":{"e":{"u":"v"}}}"#),
            (r#"{"l":[{"x":1},{}]}"#, "/l/1/u", r#"{"l":[{"x":1},{"u":"v"}]}"#),
            (r#"{"a":"}"}"#, "/b~1c", r#"{"a":"}","b/c":"v"}"#),
        ] {
            assert_eq!(insert(text, &pointer(at), "v").as_deref(), Ok(expected), "{text} {at}");
        }
        assert_eq!(insert("{}", &pointer("/u"), "a\"b\\\n").unwrap(), r#"{"u":"a\"b\\\n"}"#);
    }

    #[test]
    fn what_cannot_be_put_in_is_refused() {
        for (text, at, fault) in [
            (r#"{"u":null}"#, "/u", InsertFault::Present),
            (r#"{"u":1,"\u0075":2}"#, "/u", InsertFault::Doubled),
            (r#"{"d":1,"d":{}}"#, "/d/u", InsertFault::Doubled),
            (r#"{"d":"text"}"#, "/d/u", InsertFault::NoMembers),
            (r#"{"d":null}"#, "/d/u", InsertFault::NoMembers),
            (r#"{"d":[1]}"#, "/d/u", InsertFault::NoMembers),
            (r#"{"d":[1]}"#, "/d/1", InsertFault::NoMembers),
            ("[1]", "/u", InsertFault::NoMembers),
            ("1", "/u", InsertFault::NoMembers),
            ("", "/u", InsertFault::NotJson),
            ("{} x", "/u", InsertFault::NotJson),
            ("{\"a\":01}", "/u", InsertFault::NotJson),
        ] {
            assert_eq!(insert(text, &pointer(at), "v"), Err(fault), "{text} {at}");
        }
    }

    #[test]
    fn one_string_is_replaced() {
        let text = r#"{"a":"x", "b":"x"}"#;
        let found = find(text.as_bytes(), &[&pointer("/b")]);
        assert_eq!(replace(text, found[0].raw().unwrap(), "y"), r#"{"a":"x", "b":"y"}"#);
    }
}
