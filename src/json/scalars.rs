//! Visits all scalar values of a JSON text.

use std::borrow::Cow;
use std::ops::Range;

use super::duplicate_members::is_same_name;
use super::pointer::Pointer;
use super::scan::{Begins, Scan};

/// A scalar JSON value: a string, a number, `true`, `false` or `null`.
#[derive(Debug)]
pub struct Scalar<'s, 't> {
    /// The JSON keys and the array indices that lead to the value.
    pub path: &'s [Cow<'t, str>],
    /// The JSON text of the value.
    pub raw: &'t str,
    /// The byte range of the value in the document.
    pub range: Range<usize>,
}

impl Scalar<'_, '_> {
    /// Returns the decoded text of a string. Returns `None` for other values, and for a string that contains half of a
    /// surrogate pair.
    pub fn text(&self) -> Option<String> {
        self.raw.starts_with('"').then(|| serde_json::from_str(self.raw).ok())?
    }

    /// Reports whether a pointer leads to the value, or to an object or array that contains the value.
    pub fn is_below(&self, pointer: &Pointer) -> bool {
        begins(self.path, pointer).is_some()
    }

    /// Reports whether the path of the value begins with `list`, the index of an array element, and `member`. For
    /// example, the value at `/items/3/id` is below `/id` of each element of `/items`.
    pub fn is_below_each(&self, list: &Pointer, member: &Pointer) -> bool {
        let element = begins(self.path, list).and_then(|rest| rest.split_first());
        element.is_some_and(|(_, rest)| begins(rest, member).is_some())
    }
}

/// Returns the rest of a path after the tokens of a pointer. Returns `None` if the path does not begin with these
/// tokens. Keys that differ only in case are equal.
fn begins<'p, 't>(path: &'p [Cow<'t, str>], pointer: &Pointer) -> Option<&'p [Cow<'t, str>]> {
    let (first, rest) = path.split_at_checked(pointer.tokens.len())?;
    first.iter().zip(&pointer.tokens).all(|(name, token)| is_same_name(name, token)).then_some(rest)
}

enum Around {
    Object,
    /// An array, with the index of its current element.
    List(usize),
}

/// Calls `visit` for each scalar value, in the order of the document. If an object contains a key twice, both values
/// are visited. Returns `None` if the text is not JSON. The depth of the document is not limited.
pub fn scalars<'t>(text: &'t str, visit: &mut dyn FnMut(&Scalar<'_, 't>)) -> Option<()> {
    let (mut scan, mut path, mut around) = (Scan::new(text), Vec::new(), Vec::new());
    loop {
        match scan.begins() {
            Begins::Object if !scan.takes(b'}') => {
                around.push(Around::Object);
                path.push(decoded(scan.name()?));
                continue;
            }
            Begins::List if !scan.takes(b']') => {
                around.push(Around::List(0));
                path.push(Cow::Borrowed("0"));
                continue;
            }
            Begins::Object | Begins::List => {}
            Begins::Other => {
                let raw = scan.value()?;
                let end = scan.at();
                visit(&Scalar { path: &path, raw, range: end - raw.len()..end });
            }
        }
        // A value has ended. This may also end the objects and arrays that contain the value.
        loop {
            let Some(innermost) = around.last_mut() else { return scan.end() };
            path.pop();
            let is_followed = scan.takes(b',');
            match innermost {
                Around::Object if is_followed => path.push(decoded(scan.name()?)),
                Around::List(index) if is_followed => {
                    *index += 1;
                    path.push(Cow::Owned(index.to_string()));
                }
                Around::Object => scan.takes(b'}').then_some(())?,
                Around::List(_) => scan.takes(b']').then_some(())?,
            }
            if is_followed {
                break;
            }
            around.pop();
        }
    }
}

/// Decodes the escapes of a JSON key. A key that contains half of a surrogate pair is returned as written.
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains('\\') {
        return Cow::Borrowed(name);
    }
    serde_json::from_str(&format!("\"{name}\"")).map_or(Cow::Borrowed(name), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visited(text: &str) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        scalars(text, &mut |scalar| {
            assert_eq!(&text[scalar.range.clone()], scalar.raw);
            found.push((scalar.path.join("/"), scalar.raw.to_owned()));
        })?;
        Some(found)
    }

    #[test]
    fn every_scalar_is_visited_with_its_path() {
        let text = r#" {"a": [1e400, {"b\u0063": "x\ny"}, [], {}], "d": null , "d":true} "#;
        let expected = [("a/0", "1e400"), ("a/1/bc", r#""x\ny""#), ("d", "null"), ("d", "true")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(visited(text).unwrap(), expected);
        assert_eq!(visited(" 7 ").unwrap(), [(String::new(), "7".to_owned())]);
        for text in
            ["", "{", "{\"a\":1,}", "[1,]", "[1 2]", "{\"a\":1}x", "[}", "{\"a\" 1}", "\u{feff}1", "[1}"]
        {
            assert_eq!(visited(text), None, "{text}");
        }
        let deep = "[".repeat(100_000) + "1" + &"]".repeat(100_000);
        assert_eq!(visited(&deep).unwrap().len(), 1);
    }
}
