//! Limits the number of values in a Kubernetes object. Each value needs much more memory than its text. An object below
//! the maximum size of a request could otherwise use more memory than the pod of the webhook has.

use serde_json::Value;
use serde_json::value::RawValue;

/// The maximum number of values in a Kubernetes object. Real objects stay below it: etcd limits an object to 1.5 MiB,
/// and a value of a real object has about 30 bytes.
pub(super) const VALUES_MAX: usize = 50_000;

/// Parses a Kubernetes object or a part of it. Returns `None` if the object has more than [`VALUES_MAX`] values, or
/// more levels of nesting than the parser supports.
pub(super) fn limited(raw: &RawValue) -> Option<Value> {
    if values(raw.get()) > VALUES_MAX {
        return None;
    }
    serde_json::from_str(raw.get()).ok()
}

/// Returns an upper bound of the number of values in a JSON text, without parsing the text.
fn values(text: &str) -> usize {
    let (mut count, mut in_string, mut is_escaped) = (1, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' | b',' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_without_those_in_strings() {
        for (text, expected) in [
            ("1", 1),
            ("[]", 2),
            (r#"{"a":1,"b":[2,3]}"#, 5),
            (r#""{,\",{\\""#, 1),
            (r#"{"a\\":"\\","b":",,"}"#, 3),
        ] {
            assert_eq!(values(text), expected, "{text}");
        }
    }
}
