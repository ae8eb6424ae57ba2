//! Inserts members into a JSON text and replaces values in it.

use std::ops::Range;

use serde_json::value::RawValue;

use super::find::{Found, Walk, find_one};
use super::pointer::Pointer;

/// The reason why a value cannot be inserted at a pointer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InsertFault {
    /// An object on the path has two members with the same name.
    Doubled,
    /// The path leads through a value that has no members, or through an element that a list does not have.
    NoMembers,
    /// The document is not JSON (RFC 8259) in UTF-8.
    NotJson,
    /// A value already exists at the pointer.
    Present,
}

/// Returns `document` with the JSON text `value` inserted at `pointer`. Creates objects that are missing on the path.
/// Changes nothing else.
///
/// # Errors
/// Returns an [`InsertFault`] if the path cannot be followed or already has a value.
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

/// Looks up the member or list element of `raw` that `token` names.
fn child<'t>(raw: &'t RawValue, token: &str) -> Result<Found<'t>, InsertFault> {
    if !raw.get().starts_with(['{', '[']) {
        return Err(InsertFault::NoMembers);
    }
    let pointer = Pointer { text: "".into(), tokens: vec![token.into()] };
    let mut found = [Found::Missing];
    let walk = Walk { pointers: &[&pointer], depth: 0, wanted: 1, found: &mut found };
    walk.through(raw.get()).map(|()| found[0]).ok_or(InsertFault::NotJson)
}

/// Appends a member to `object`, which is a slice of `document`.
fn insert_member(document: &str, object: &str, name: &str, rest: &[Box<str>], value: &str) -> String {
    let start = span(document, object).start;
    let inner = object.strip_suffix('}').unwrap_or(object).trim_end_matches([' ', '\t', '\r', '\n']);
    let comma = if inner.ends_with('{') { "" } else { "," };
    let open: String = rest.iter().map(|token| format!(":{{{}", quoted(token))).collect();
    let close = "}".repeat(rest.len());
    let member = format!("{comma}{}{open}:{value}{close}", quoted(name));
    let (before, after) = document.split_at(start + inner.len());
    format!("{before}{member}{after}")
}

/// Returns `document` with `old` replaced by the JSON text `value`. `old` must be a slice of `document`.
pub fn replace(document: &str, old: &str, value: &str) -> String {
    let place = span(document, old);
    let (before, rest) = document.split_at(place.start);
    let (_, after) = rest.split_at(place.len());
    format!("{before}{value}{after}")
}

/// Returns `document` with the JSON text `value` at `pointer`. Replaces the existing value, if there is one.
///
/// # Errors
/// Returns an [`InsertFault`] if the path cannot be followed.
pub fn set(document: &str, pointer: &Pointer, value: &str) -> Result<String, InsertFault> {
    match find_one(document.as_bytes(), pointer) {
        Found::One(old) => Ok(replace(document, old.get(), value)),
        Found::Doubled => Err(InsertFault::Doubled),
        Found::Missing => insert(document, pointer, value),
    }
}

/// Returns `text` as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Returns the byte range of `part` in `whole`. `part` must be a slice of `whole`.
fn span(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).unwrap()
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
            assert_eq!(insert(text, &pointer(at), r#""v""#).as_deref(), Ok(expected), "{text} {at}");
        }
        assert_eq!(insert("{}", &pointer("/u"), "[1]").unwrap(), r#"{"u":[1]}"#);
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
            assert_eq!(insert(text, &pointer(at), r#""v""#), Err(fault), "{text} {at}");
        }
    }

    #[test]
    fn one_string_is_replaced() {
        let text = r#"{"a":"x", "b":"x"}"#;
        let found = find_one(text.as_bytes(), &pointer("/b"));
        assert_eq!(replace(text, found.raw().unwrap(), r#""y""#), r#"{"a":"x", "b":"y"}"#);
    }
}
