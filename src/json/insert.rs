//! Inserts values into a JSON text, and replaces values in a JSON text.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use super::find::{Found, Walk, find_one};
use super::pointer::{APPEND, Pointer, names_element};

/// The reason why a value cannot be inserted at a JSON pointer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InsertFault {
    /// An object on the path contains the same key twice.
    Doubled,
    /// A value on the path does not have the type that the next token needs (object or array), or an index on the path
    /// is greater than the length of the array.
    NoMembers,
    /// The document is not valid JSON (RFC 8259) in UTF-8.
    NotJson,
    /// The document already has a value at the pointer.
    Present,
}

/// The JSON values that count as missing. Client libraries write these values for unset settings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Absent {
    /// Only `null` counts as missing.
    Null,
    /// `null` and the empty string count as missing.
    NullOrEmpty,
}

impl Absent {
    /// Reports whether this JSON text counts as missing.
    pub fn includes(self, raw: &str) -> bool {
        raw == "null" || (self == Self::NullOrEmpty && raw == "\"\"")
    }
}

/// Returns `document` with the JSON text `value` inserted at `pointer`. All other parts of the document stay unchanged.
///
/// - An existing value at the pointer is replaced if `absent` includes it.
/// - Objects and arrays on the path that are missing or `null` are created.
/// - A token that is a number or `-` always refers to an array element. The token `-`, or an index that equals the
///   length of the array, appends an element.
///
/// # Errors
/// Returns an [`InsertFault`] if the pointer does not fit the document, or if `absent` does not include the existing
/// value at the pointer.
pub fn insert(document: &str, pointer: &Pointer, value: &str, absent: Absent) -> Result<String, InsertFault> {
    let raw: &RawValue = serde_json::from_str(document).map_err(|_| InsertFault::NotJson)?;
    let mut at = raw;
    let mut tokens = pointer.tokens.as_slice();
    while let Some((token, rest)) = tokens.split_first() {
        match child(at, token)? {
            Found::Doubled => return Err(InsertFault::Doubled),
            Found::One(old) if rest.is_empty() => {
                return if absent.includes(old.get()) {
                    Ok(replace(document, old.get(), value))
                } else {
                    Err(InsertFault::Present)
                };
            }
            Found::One(old) if old.get() == "null" => {
                return Ok(replace(document, old.get(), &nested(rest, value)?));
            }
            Found::One(next) => (at, tokens) = (next, rest),
            Found::Missing => {
                let value = nested(rest, value)?;
                return Ok(if at.get().starts_with('{') {
                    append(document, at.get(), &format!("{}:{value}", quoted(token)))
                } else {
                    append(document, at.get(), &value)
                });
            }
        }
    }
    Err(InsertFault::NoMembers)
}

/// Returns `pointer` with each `-` replaced by the index of the element that an insertion into `document` would append.
/// For example, `/list/-` becomes `/list/2` if the list has two elements. Likewise, `/list/-/a` becomes `/list/2/a`,
/// and `/list/-/b` becomes `/list/2/b`. Both then refer to the same new element.
///
/// # Errors
/// Returns an [`InsertFault`] if a `-` does not refer to an array, if an object on the path contains the same key
/// twice, or if the document is not JSON.
pub fn resolve_appends<'p>(document: &[u8], pointer: &'p Pointer) -> Result<Cow<'p, Pointer>, InsertFault> {
    if pointer.tokens.iter().all(|token| **token != *APPEND) {
        return Ok(Cow::Borrowed(pointer));
    }
    let text = simdutf8::basic::from_utf8(document).map_err(|_| InsertFault::NotJson)?;
    let mut at: Option<&RawValue> = Some(serde_json::from_str(text).map_err(|_| InsertFault::NotJson)?);
    let mut tokens = Vec::with_capacity(pointer.tokens.len());
    for token in &pointer.tokens {
        if **token == *APPEND {
            let index = at.map_or(Ok(0), list_length)?;
            tokens.push(index.to_string().into());
            at = None;
            continue;
        }
        at = match at.map_or(Ok(Found::Missing), |at| child(at, token))? {
            Found::Doubled => return Err(InsertFault::Doubled),
            Found::Missing => None,
            Found::One(value) => Some(value).filter(|value| value.get() != "null"),
        };
        tokens.push(token.clone());
    }
    Ok(Cow::Owned(Pointer { text: pointer.text.clone(), tokens }))
}

/// Looks up the value to which `token` refers in the object or array `raw`. Returns [`Found::Missing`] if the value
/// does not exist, but could be appended.
fn child<'t>(raw: &'t RawValue, token: &str) -> Result<Found<'t>, InsertFault> {
    let is_element = names_element(token);
    if !raw.get().starts_with(if is_element { '[' } else { '{' }) {
        return Err(InsertFault::NoMembers);
    }
    let pointer = Pointer { text: "".into(), tokens: vec![token.into()] };
    let mut found = [Found::Missing];
    let walk = Walk { pointers: &[&pointer], depth: 0, wanted: 1, found: &mut found };
    walk.through(raw.get()).ok_or(InsertFault::NotJson)?;
    let [found] = found;
    let is_next = || token == APPEND || list_length(raw).is_ok_and(|length| length.to_string() == token);
    match found {
        Found::Missing if is_element && !is_next() => Err(InsertFault::NoMembers),
        found => Ok(found),
    }
}

/// Returns the number of elements of a JSON array.
fn list_length(raw: &RawValue) -> Result<usize, InsertFault> {
    let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| InsertFault::NoMembers)?;
    Ok(items.len())
}

/// Returns the JSON text of nested objects and arrays in which the path `tokens` leads to `value`.
fn nested(tokens: &[Box<str>], value: &str) -> Result<String, InsertFault> {
    tokens.iter().rev().try_fold(value.to_owned(), |value, token| match &**token {
        APPEND | "0" => Ok(format!("[{value}]")),
        token if names_element(token) => Err(InsertFault::NoMembers),
        name => Ok(format!("{{{}:{value}}}", quoted(name))),
    })
}

/// Returns `document` with `item` appended to `container`. `item` is a name/value pair or an array element. `container`
/// is an object or an array, and must be a slice of `document`.
fn append(document: &str, container: &str, item: &str) -> String {
    let start = span(document, container).start;
    let inner = container.strip_suffix(['}', ']']).unwrap_or(container);
    let inner = inner.trim_end_matches([' ', '\t', '\r', '\n']);
    // No complete item ends with an opening bracket, so an opening bracket at the end means that the container is
    // empty.
    let comma = if inner.ends_with(['{', '[']) { "" } else { "," };
    let (before, after) = document.split_at(start + inner.len());
    format!("{before}{comma}{item}{after}")
}

/// Returns `document` with the part `old` replaced by the JSON text `value`. `old` must be a slice of `document`.
pub fn replace(document: &str, old: &str, value: &str) -> String {
    let place = span(document, old);
    let (before, rest) = document.split_at(place.start);
    let (_, after) = rest.split_at(place.len());
    format!("{before}{value}{after}")
}

/// Returns `document` with several parts replaced. Each item of `replacements` is a part and its new JSON text. The
/// parts must be slices of `document` and must not overlap.
pub fn replace_all(document: &str, mut replacements: Vec<(&str, String)>) -> String {
    replacements.sort_unstable_by_key(|(old, _)| span(document, old).start);
    let mut text = String::with_capacity(document.len());
    let mut copied = 0;
    for (old, value) in &replacements {
        let place = span(document, old);
        text.push_str(document.get(copied..place.start).unwrap_or_default());
        text.push_str(value);
        copied = place.end;
    }
    text.push_str(document.get(copied..).unwrap_or_default());
    text
}

/// Returns `document` with the JSON text `value` at `pointer`. An existing value is replaced.
///
/// # Errors
/// Returns an [`InsertFault`] if the pointer does not fit the document.
pub fn set(document: &str, pointer: &Pointer, value: &str) -> Result<String, InsertFault> {
    match find_one(document.as_bytes(), pointer) {
        Found::One(old) => Ok(replace(document, old.get(), value)),
        Found::Doubled => Err(InsertFault::Doubled),
        Found::Missing => insert(document, pointer, value, Absent::Null),
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

    fn inserted(text: &str, at: &str) -> Result<String, InsertFault> {
        insert(text, &pointer(at), r#""v""#, Absent::NullOrEmpty)
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
            assert_eq!(inserted(text, at).as_deref(), Ok(expected), "{text} {at}");
        }
        assert_eq!(insert("{}", &pointer("/u"), "[1]", Absent::Null).unwrap(), r#"{"u":[1]}"#);
    }

    #[test]
    fn indices_and_dashes_make_lists() {
        for (text, at, expected) in [
            (r#"{"a":1}"#, "/l/0/u", r#"{"a":1,"l":[{"u":"v"}]}"#),
            (r#"{"a":1}"#, "/l/-/u", r#"{"a":1,"l":[{"u":"v"}]}"#),
            (r#"{"a":1}"#, "/l/0", r#"{"a":1,"l":["v"]}"#),
            (r#"{}"#, "/l/0/m/-", r#"{"l":[{"m":["v"]}]}"#),
            (r#"{"l":[ ]}"#, "/l/0/u", r#"{"l":[{"u":"v"} ]}"#),
            (r#"{"l":[]}"#, "/l/-", r#"{"l":["v"]}"#),
            (r#"{"l":[{"x":1} ] }"#, "/l/0/u", r#"{"l":[{"x":1,"u":"v"} ] }"#),
            (r#"{"l":[{"x":1} ] }"#, "/l/1/u", r#"{"l":[{"x":1},{"u":"v"} ] }"#),
            (r#"{"l":[{"x":1} ] }"#, "/l/-/u", r#"{"l":[{"x":1},{"u":"v"} ] }"#),
            (r#"{"l":["["]}"#, "/l/-", r#"{"l":["[","v"]}"#),
            ("[1]", "/1", r#"[1,"v"]"#),
            ("[[]]", "/0/0", r#"[["v"]]"#),
            (r#"{"l":null}"#, "/l/0/u", r#"{"l":[{"u":"v"}]}"#),
            (r#"{"l":[null]}"#, "/l/0/u", r#"{"l":[{"u":"v"}]}"#),
            (r#"{"l":[null]}"#, "/l/-/u", r#"{"l":[null,{"u":"v"}]}"#),
        ] {
            assert_eq!(inserted(text, at).as_deref(), Ok(expected), "{text} {at}");
        }
    }

    #[test]
    fn null_and_the_empty_string_are_replaced() {
        for (text, at, expected) in [
            (r#"{"u": null, "x":1}"#, "/u", r#"{"u": "v", "x":1}"#),
            (r#"{"u":"" }"#, "/u", r#"{"u":"v" }"#),
            (r#"{"d": null }"#, "/d/u", r#"{"d": {"u":"v"} }"#),
            (r#"{"d":{"e":null}}"#, "/d/e/f/u", r#"{"d":{"e":{"f":{"u":"v"}}}}"#),
        ] {
            assert_eq!(inserted(text, at).as_deref(), Ok(expected), "{text} {at}");
        }
        let empty = insert(r#"{"u":""}"#, &pointer("/u"), "1", Absent::Null);
        assert_eq!(empty, Err(InsertFault::Present));
        assert_eq!(inserted(r#"{"d":""}"#, "/d/u"), Err(InsertFault::NoMembers));
    }

    #[test]
    fn every_dash_of_one_document_is_the_same_new_element() {
        for (text, at, expected) in [
            (r#"{"l":[1,2]}"#, "/l/-/u", r#"{"l":[1,2,{"u":"v","t":"v"}]}"#),
            (r#"{"l":null}"#, "/l/-/u", r#"{"l":[{"u":"v","t":"v"}]}"#),
            (r#"{}"#, "/l/-/m/-/u", r#"{"l":[{"m":[{"u":"v","t":"v"}]}]}"#),
            (r#"{"l":[{"m":[3]}]}"#, "/l/0/m/-/u", r#"{"l":[{"m":[3,{"u":"v","t":"v"}]}]}"#),
            (r#"[7]"#, "/-/u", r#"[7,{"u":"v","t":"v"}]"#),
        ] {
            let mut changed = text.to_owned();
            for at in [at.to_owned(), at.replace("/u", "/t")] {
                let (first, at) = (changed.clone(), pointer(&at));
                let at = resolve_appends(text.as_bytes(), &at).unwrap();
                changed = insert(&first, &at, r#""v""#, Absent::Null).unwrap();
            }
            assert_eq!(changed, expected, "{at}");
        }
        for (text, at) in [("{}", "/-"), (r#"{"l":{}}"#, "/l/-/u"), (r#"{"l":"x"}"#, "/l/-"), ("{", "/l/-")] {
            assert!(resolve_appends(text.as_bytes(), &pointer(at)).is_err(), "{text} {at}");
        }
    }

    #[test]
    fn what_cannot_be_put_in_is_refused() {
        for (text, at, fault) in [
            (r#"{"u":false}"#, "/u", InsertFault::Present),
            (r#"{"u":1,"\u0075":2}"#, "/u", InsertFault::Doubled),
            (r#"{"u":null,"u":null}"#, "/u", InsertFault::Doubled),
            (r#"{"d":1,"d":{}}"#, "/d/u", InsertFault::Doubled),
            (r#"{"d":"text"}"#, "/d/u", InsertFault::NoMembers),
            (r#"{"d":[1]}"#, "/d/u", InsertFault::NoMembers),
            (r#"{"d":[1]}"#, "/d/2", InsertFault::NoMembers),
            (r#"{"d":[1]}"#, "/d/01", InsertFault::NoMembers),
            (r#"{"d":[1]}"#, "/d/0/u", InsertFault::NoMembers),
            (r#"{"d":[1]}"#, "/d/99999999999999999999", InsertFault::NoMembers),
            (r#"{"d":{}}"#, "/d/0", InsertFault::NoMembers),
            (r#"{"d":{}}"#, "/d/-", InsertFault::NoMembers),
            ("{}", "/d/1", InsertFault::NoMembers),
            ("{}", "/d/00", InsertFault::NoMembers),
            ("{}", "/0", InsertFault::NoMembers),
            ("[1]", "/u", InsertFault::NoMembers),
            ("1", "/u", InsertFault::NoMembers),
            ("null", "/u", InsertFault::NoMembers),
            ("", "/u", InsertFault::NotJson),
            ("{} x", "/u", InsertFault::NotJson),
            ("{\"a\":01}", "/u", InsertFault::NotJson),
        ] {
            assert_eq!(inserted(text, at), Err(fault), "{text} {at}");
        }
    }

    #[test]
    fn one_string_is_replaced() {
        let text = r#"{"a":"x", "b":"x"}"#;
        let found = find_one(text.as_bytes(), &pointer("/b"));
        assert_eq!(replace(text, found.raw().unwrap(), r#""y""#), r#"{"a":"x", "b":"y"}"#);
    }
}
