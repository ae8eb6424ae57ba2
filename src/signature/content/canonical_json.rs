//! Converts JSON into its canonical form, which has sorted keys and no white space. A few providers sign the canonical
//! JSON instead of the bytes that they send. Numbers and string values stay as received. An object with two equal keys
//! has no canonical form.

use serde::de::IgnoredAny;

use crate::denial::{Denial, Refusal};

/// The maximum depth of nested values in JSON that is converted into canonical form.
const DEPTH_MAX: usize = 64;

/// Returns the canonical JSON of a body: with sorted keys and without white space.
///
/// # Errors
/// Returns `signature_malformed` if the body is not JSON, is nested too deeply, or has an object with two equal keys.
pub(in crate::signature) fn canonicalize(body: &[u8]) -> Result<String, Refusal> {
    let text = std::str::from_utf8(body).ok();
    // `serde_json` checks the syntax, so the scanner below only has to find the end of each value.
    let text = text.filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    match text.and_then(|text| Scan { rest: text }.value(0)) {
        Some(canonical) => Ok(canonical),
        None => Err(Refusal::new(Denial::SignatureMalformed, "the body has no canonical JSON form")),
    }
}

/// A scanner over a text that is known to be valid JSON.
struct Scan<'t> {
    rest: &'t str,
}

impl<'t> Scan<'t> {
    fn value(&mut self, depth: usize) -> Option<String> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.next()? {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(str::to_owned),
            _ => self.scalar().map(str::to_owned),
        }
    }

    fn object(&mut self, depth: usize) -> Option<String> {
        let mut members: Vec<(String, String)> = Vec::new();
        self.skip(1);
        while self.next()? != b'}' {
            if self.next()? == b',' {
                self.skip(1);
                continue;
            }
            let name: String =
                self.next().and_then(|_| self.string()).and_then(|raw| serde_json::from_str(raw).ok())?;
            self.next()?;
            self.skip(1);
            members.push((name, self.value(depth + 1)?));
        }
        self.skip(1);
        members.sort();
        if members.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
            return None;
        }
        let member =
            |(name, value): &(String, String)| Some(format!("{}:{value}", serde_json::to_string(name).ok()?));
        Some(format!("{{{}}}", members.iter().map(member).collect::<Option<Vec<_>>>()?.join(",")))
    }

    fn list(&mut self, depth: usize) -> Option<String> {
        let mut items = Vec::new();
        self.skip(1);
        while self.next()? != b']' {
            if self.next()? == b',' {
                self.skip(1);
                continue;
            }
            items.push(self.value(depth + 1)?);
        }
        self.skip(1);
        Some(format!("[{}]", items.join(",")))
    }

    /// Consumes the JSON string at the current position. Returns the string with its quotes, as received.
    fn string(&mut self) -> Option<&'t str> {
        let mut escaped = false;
        let inside = |c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        };
        let end = self.rest.get(1..)?.find(inside)? + 2;
        self.take(end)
    }

    fn scalar(&mut self) -> Option<&'t str> {
        let ends = |c: char| matches!(c, ',' | ']' | '}' | ' ' | '\t' | '\r' | '\n');
        self.take(self.rest.find(ends).unwrap_or(self.rest.len()))
    }

    /// Skips white space. Returns the first byte of the next JSON token without consuming it, or `None` at the end.
    fn next(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.rest.bytes().next()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn take(&mut self, bytes: usize) -> Option<&'t str> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_MAX, canonicalize};

    #[test]
    fn members_are_sorted_and_values_stay() {
        let body = r#" { "b" : [1.50, {"z": null, "a": "x y\u00e9"}], "a":{} } "#;
        assert_eq!(
            canonicalize(body.as_bytes()).unwrap(),
            r#"{"a":{},"b":[1.50,{"a":"x y\u00e9","z":null}]}"#
        );
        assert!(canonicalize(br#"{"a":1,"a":2}"#).is_err());
        assert_eq!(canonicalize(b" 1.0 ").unwrap(), "1.0");
        assert_eq!(canonicalize(br#"{"a\"\\":"\\\"}"}"#).unwrap(), r#"{"a\"\\":"\\\"}"}"#);
        assert!(canonicalize(b"{").is_err());
    }

    #[test]
    fn the_depth_of_nested_values_is_limited() {
        let nested = |depth: usize, open: &str, close: &str| {
            canonicalize(format!("{}0{}", open.repeat(depth), close.repeat(depth)).as_bytes()).is_ok()
        };
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":[", "]}]")] {
            let levels = open.matches(['[', '{']).count();
            let most = DEPTH_MAX / levels;
            assert!(nested(most, open, close), "{open}");
            assert!(!nested(most + 1, open, close), "{open}");
        }
    }
}
