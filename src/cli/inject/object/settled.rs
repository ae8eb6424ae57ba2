//! Compares a workload in the cluster with the workload that the webhook would make of it. The API server adds defaults
//! to a workload and removes empty lists from it. The comparison ignores these differences.

use serde_json::Value;

use crate::cli::inject::undo::{ANNOTATION, is_same_change};

/// The texts that the API server adds by default to containers, probes and volumes, each with its key.
const TEXTS: [(&str, &str); 7] = [
    ("apiVersion", "v1"),
    ("imagePullPolicy", "Always"),
    ("imagePullPolicy", "IfNotPresent"),
    ("protocol", "TCP"),
    ("scheme", "HTTP"),
    ("terminationMessagePath", "/dev/termination-log"),
    ("terminationMessagePolicy", "File"),
];
/// The numbers that the API server adds by default to probes and volumes, each with its key.
const NUMBERS: [(&str, u64); 5] = [
    ("defaultMode", 0o644),
    ("failureThreshold", 3),
    ("periodSeconds", 10),
    ("successThreshold", 1),
    ("timeoutSeconds", 1),
];

/// Reports whether a workload already has the sidecar with the same settings. `before` is the workload in the cluster,
/// and must have a valid record. `after` is the workload that the webhook made of `before`. The two may differ only by
/// defaults that the API server adds, and by empty values that the API server removes.
pub(super) fn is_settled(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let is_same = |(key, new): (&String, &Value)| match before.get(key) {
                Some(Value::String(old)) if key == ANNOTATION => {
                    new.as_str().is_some_and(|new| is_same_change(old, new))
                }
                Some(old) => is_settled(old, new),
                None => is_empty(new),
            };
            let is_extra = |(key, old): (&String, &Value)| {
                !after.contains_key(key) && !is_empty(old) && !is_default(key, old)
            };
            after.iter().all(is_same) && !before.iter().any(is_extra)
        }
        (Value::Array(before), Value::Array(after)) => {
            before.len() == after.len() && before.iter().zip(after).all(|(old, new)| is_settled(old, new))
        }
        _ => before == after,
    }
}

/// Reports whether the API server removes a key with this value.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn is_default(key: &str, value: &Value) -> bool {
    match value.as_str() {
        Some(text) => TEXTS.contains(&(key, text)),
        None => value.as_u64().is_some_and(|number| NUMBERS.contains(&(key, number))),
    }
}
