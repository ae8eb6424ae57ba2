//! Strict lookup of a JSON value that a check uses or a signature covers. A value is returned only if every JSON parser
//! would find the same value.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::find::{Found, NotJson};
use super::pointer::Pointer;

/// Reports whether some JSON library could treat two JSON keys as the same key. Some libraries ignore case. Some of
/// these libraries use the case folding of Unicode, in which `\u{17f}` equals `s` and `\u{212a}` equals `k`.
pub fn is_same_name(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    let folded = |text: &str| -> String {
        text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
    };
    folded(a) == folded(b)
}

/// Looks up one JSON pointer strictly. Returns [`Found::Doubled`] if JSON parsers could read different values:
///
/// - An object on the path has two keys that are equal or differ only in case, such as `id` and `Id`.
/// - An object on the path has only a key that differs from the pointer in case, such as `Id` for the pointer `/id`.
///
/// In the pointer, a token that consists of digits is an array index, never a key.
///
/// # Errors
/// Returns [`NotJson`] if the document is not valid JSON in UTF-8.
pub fn find_strict<'t>(document: &'t [u8], pointer: &Pointer) -> Result<Found<'t>, NotJson> {
    let text = simdutf8::basic::from_utf8(document).map_err(|_| NotJson)?;
    let mut at: &RawValue = serde_json::from_str(text).map_err(|_| NotJson)?;
    for token in &pointer.tokens {
        let digits = !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit());
        // `01` is not an index (RFC 6901 section 4). A number too large for `usize` is not an index either.
        let index = token.parse().ok().filter(|index: &usize| digits && index.to_string() == **token);
        let next = match (at.get().as_bytes().first(), index) {
            (Some(b'['), Some(index)) => {
                let items: Vec<&RawValue> = serde_json::from_str(at.get()).map_err(|_| NotJson)?;
                items.get(index).copied()
            }
            (Some(b'{'), None) if !digits => {
                let Members(members) = serde_json::from_str(at.get()).map_err(|_| NotJson)?;
                let mut named = members.iter().filter(|(name, _)| is_same_name(name, token));
                match (named.next(), named.next()) {
                    (Some(_), Some(_)) => return Ok(Found::Doubled),
                    (Some((name, value)), None) if **name == **token => Some(*value),
                    // The object has only a key that differs in case. Some parsers would accept this key.
                    (Some(_), None) => return Ok(Found::Doubled),
                    (None, _) => None,
                }
            }
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return Ok(Found::Missing),
        }
    }
    Ok(Found::One(at))
}

/// The name/value pairs of a JSON object in document order, including pairs with the same name.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    members.push(entry);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(document: &str, at: &str) -> String {
        match find_strict(document.as_bytes(), &Pointer::parse(at).unwrap()) {
            Ok(Found::One(raw)) => raw.get().to_owned(),
            Ok(other) => format!("{other:?}"),
            Err(NotJson) => "NotJson".to_owned(),
        }
    }

    #[test]
    fn every_reader_finds_the_same_or_nobody_does() {
        assert_eq!(found(r#"{"a":[{"b":1}]}"#, "/a/0/b"), "1");
        for (document, at, what) in [
            (r#"{"a":{"b":1},"a":{"b":2}}"#, "/a/b", "Doubled"),
            (r#"{"a":{"x":1},"a":{"b":2}}"#, "/a/b", "Doubled"),
            (r#"{"a":1,"A":2}"#, "/a", "Doubled"),
            (r#"{"A":2}"#, "/a", "Doubled"),
            (r#"{"a":1,"\u0061":2}"#, "/a", "Doubled"),
            (r#"{"\u0041":1}"#, "/a", "Doubled"),
            ("{\"\u{212a}ey\":1}", "/key", "Doubled"),
            (r#"{"key":1,"\u212aey":2}"#, "/key", "Doubled"),
            ("{\"u\u{17f}er\":1}", "/user", "Doubled"),
            ("{\"\u{c9}\":1}", "/\u{e9}", "Doubled"),
            (r#"{"0":1}"#, "/0", "Missing"),
            (r#"{"a":{"0":1}}"#, "/a/0", "Missing"),
            (r#"{"b":1}"#, "/a", "Missing"),
            ("[1]", "/1", "Missing"),
            ("[1,2]", "/01", "Missing"),
            (r#"{"99999999999999999999":1}"#, "/99999999999999999999", "Missing"),
            ("{", "/a", "NotJson"),
        ] {
            assert_eq!(found(document, at), what, "{document} {at}");
        }
    }
}
