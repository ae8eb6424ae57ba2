//! JSON as text: what is found is what a parser finds, and what is put in leaves every other byte as it was.

use std::sync::LazyLock;

use callgate::egress::{Callback, Plan, Rule};
use callgate::json::{
    Absent, Found, NotJson, Pointer, find, find_one, find_strict, insert, quoted, resolve_appends, set,
};
use callgate::policy::Policy;
use callgate::request::RequestHead;
use callgate::source::LOOPBACK;
use http::HeaderMap;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{NOW, first_line, read};

const VALUE: &str = r#"{"put":["in",1e400]}"#;

/// A line with a pointer, and a document.
pub fn run(data: &[u8]) -> bool {
    let Some((pointer, document)) = first_line(data) else { return false };
    inject(document);
    let Some(pointer) = Pointer::parse(pointer) else { return false };
    found(document, &pointer);
    assert_eq!(
        serde_json::from_str::<String>(&quoted(pointer.as_str())).expect("a string"),
        pointer.as_str()
    );
    std::str::from_utf8(document).is_ok_and(|text| inserted(text, &pointer))
}

fn found(document: &[u8], pointer: &Pointer) {
    let one = find_one(document, pointer);
    match find(document, &[pointer, pointer]) {
        Err(NotJson) => {
            // What is not JSON to us is not JSON to a parser that accepts as much as we do.
            let text = std::str::from_utf8(document);
            assert!(
                !text.is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_ok()),
                "JSON after all"
            );
            assert!(one.raw().is_none() && serde_json::from_slice::<Value>(document).is_err());
            return;
        }
        Ok(both) => assert!(both.iter().all(|found| found.raw() == one.raw())),
    }
    let Ok(strict) = find_strict(document, pointer) else { return };
    if let Some(raw) = strict.raw() {
        assert_eq!(Some(raw), one.raw(), "the strict reader finds something else");
    }
    // Half a surrogate pair, and a number beyond every machine, are JSON but no values. Of two members of one name on
    // the way, a parser takes the last one.
    let Ok(value) = serde_json::from_slice::<Value>(document) else { return };
    if matches!(strict, Found::Doubled) {
        return;
    }
    match one {
        Found::One(raw) => {
            let read: Value = serde_json::from_str(raw.get()).expect("JSON");
            assert_eq!(value.pointer(pointer.as_str()), Some(&read));
        }
        Found::Missing => assert_eq!(value.pointer(pointer.as_str()), None),
        Found::Doubled => {}
    }
}

fn inserted(document: &str, pointer: &Pointer) -> bool {
    let Ok(pointer) = &resolve_appends(document.as_bytes(), pointer) else { return false };
    if let Ok(new) = insert(document, pointer, VALUE, Absent::Null) {
        let old = find_one(document.as_bytes(), pointer);
        assert!(matches!(old, Found::Missing) || old.raw() == Some("null"), "something was there");
        only_added(document, &new);
        assert_eq!(find_one(new.as_bytes(), pointer).raw(), Some(VALUE));
    }
    let Ok(new) = set(document, pointer, VALUE) else { return false };
    assert_eq!(find_one(new.as_bytes(), pointer).raw(), Some(VALUE));
    match find_one(document.as_bytes(), pointer) {
        Found::One(old) => assert_eq!(new.len() - VALUE.len(), document.len() - old.get().len()),
        _ => only_added(document, &new),
    }
    // What was set is in the place of what stands there.
    assert_eq!(set(&new, pointer, VALUE).as_deref(), Ok(&*new));
    true
}

/// The old text is the new one with one piece taken out, or with a `null` in the place of one piece.
fn only_added(old: &str, new: &str) {
    let before = old.bytes().zip(new.bytes()).take_while(|(a, b)| a == b).count();
    let behind = old.bytes().rev().zip(new.bytes().rev()).take_while(|(a, b)| a == b).count();
    let replaced = old.len().checked_sub(behind).and_then(|end| old.get(before..end));
    assert!(new.len() > old.len(), "{old}\n{new}");
    assert!(before + behind >= old.len() || replaced == Some("null"), "{old}\n{new}");
    assert!(serde_json::from_str::<&RawValue>(new).is_ok(), "no JSON any more: {new}");
}

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let text = "public_url: https://agent.example.com
listen: { ingress: [ { address: 127.0.0.1:0 } ], egress: { address: 127.0.0.1:0 } }
agent: { address: 127.0.0.1:1 }
callback_tokens: { keys: [ { id: k, algorithm: HS256, secret: { env: KEY } } ] }
routes: [ { name: r, path: \"/r/{id}\", token: { kind: callback }, forward: \"/in/{id}\" } ]
egress:
  - { name: e, path: /e, target: \"https://p.example.com/e\", inject: { route: r, params: { id: /id }, url: /a/url, token: /a/token } }
";
    read(text).expect("a configuration").policy
});

/// A request of the agent's with a callback put in is the same request, with a callback in it.
fn inject(body: &[u8]) {
    let headers = HeaderMap::new();
    let head = RequestHead::new("POST", "/e", &headers, LOOPBACK);
    let (rule, captures) = POLICY.egress.find(&head).expect("the rule");
    let rule: &Rule = &rule;
    let Ok(Plan::Mint(parameters)) = rule.plan(&head, body, &captures, String::new) else { return };
    let callback =
        Callback { url: "https://agent.example.com/r/\"x\"", token: "eyJ.\n.x", secret: "", expires: NOW };
    let sent = rule.request(&head, body, &captures, Some(&callback)).expect("what was planned can be done");
    let (old, new) =
        (std::str::from_utf8(body).expect("text"), std::str::from_utf8(&sent.body).expect("text"));
    // Several values that count as absent may have been replaced.
    if !old.contains("null") && !old.contains("\"\"") {
        only_added(old, new);
    }
    let word = |at: &str| find_one(new.as_bytes(), &Pointer::parse(at).expect("a pointer")).word();
    assert_eq!(word("/a/url").as_deref(), Some(callback.url));
    assert_eq!(word("/a/token").as_deref(), Some(callback.token));
    assert_eq!(word("/id").as_deref(), parameters.first().map(|(_, value)| value.as_str()));
}
