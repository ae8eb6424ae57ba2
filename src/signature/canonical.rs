//! JSON written anew with sorted members and without white space, for the few who sign that instead of the bytes
//! they send. Numbers and strings stay as they stand; a name that occurs twice has no canonical form.

use serde_json::value::RawValue;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::denial::{Denial, Refusal};

/// Deepest nesting that is written anew.
const DEPTH_MAX: usize = 64;

/// The canonical text of a body.
pub(super) fn json(body: &[u8]) -> Result<String, Refusal> {
    let mut out = String::with_capacity(body.len());
    let text = std::str::from_utf8(body).ok();
    let raw = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    match raw.and_then(|raw| write(raw, &mut out, 0)) {
        Some(()) => Ok(out),
        None => Err(Refusal::new(Denial::SignatureMalformed, "the body has no canonical form as JSON")),
    }
}

fn write(raw: &RawValue, out: &mut String, depth: usize) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    match raw.get().as_bytes().first()? {
        b'{' => {
            let Members(members) = serde_json::from_str(raw.get()).ok()?;
            out.push('{');
            for (i, (name, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::to_string(name).ok()?);
                out.push(':');
                write(value, out, depth + 1)?;
            }
            out.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out, depth + 1)?;
            }
            out.push(']');
        }
        _ => out.push_str(raw.get()),
    }
    Some(())
}

/// The members of an object, sorted by name, each once.
struct Members<'t>(BTreeMap<String, &'t RawValue>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with each member once")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if members.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a member occurs twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

#[cfg(test)]
mod tests {
    use super::json;

    #[test]
    fn members_are_sorted_and_values_stay() {
        let body = r#" { "b" : [1.50, {"z": null, "a": "x y\u00e9"}], "a":{} } "#;
        assert_eq!(json(body.as_bytes()).unwrap(), r#"{"a":{},"b":[1.50,{"a":"x y\u00e9","z":null}]}"#);
        assert!(json(br#"{"a":1,"a":2}"#).is_err());
        assert!(json(b"{").is_err());
    }
}
