//! Computes a JSON Patch (RFC 6902) from an object before and after a change.

use serde_json::{Map, Value, json};

/// Returns the JSON Patch operations (RFC 6902) that change `before` into `after`. A list that differs is replaced as a
/// whole.
pub(super) fn between(before: &Value, after: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    compare(before, after, "", &mut operations);
    operations
}

fn compare(before: &Value, after: &Value, path: &str, operations: &mut Vec<Value>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(before), Value::Object(after)) => compare_members(before, after, path, operations),
        _ => operations.push(json!({ "op": "replace", "path": path, "value": after })),
    }
}

fn compare_members(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    path: &str,
    operations: &mut Vec<Value>,
) {
    let inner = |key: &str| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        operations.push(json!({ "op": "remove", "path": inner(key) }));
    }
    for (key, value) in after {
        match before.get(key) {
            Some(old) => compare(old, value, &inner(key), operations),
            None => operations.push(json!({ "op": "add", "path": inner(key), "value": value })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_changed() {
        let before = json!({ "a": 1, "b": { "c/d": [1], "e~": 2, "same": {} }, "gone": null });
        let after = json!({ "a": 1, "b": { "c/d": [1, 2], "e~": 3, "same": {} }, "new": { "f": true } });
        let expected = [
            json!({ "op": "remove", "path": "/gone" }),
            json!({ "op": "replace", "path": "/b/c~1d", "value": [1, 2] }),
            json!({ "op": "replace", "path": "/b/e~0", "value": 3 }),
            json!({ "op": "add", "path": "/new", "value": { "f": true } }),
        ];
        assert_eq!(between(&before, &after), expected);
        assert!(between(&after, &after).is_empty());
    }
}
