//! Conversion of values in the responses of scripts.

use redis::Value;

/// Converts a bulk string to text. Returns `None` for any other value.
pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        _ => None,
    }
}
