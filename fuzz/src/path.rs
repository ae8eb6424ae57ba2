//! The canonical path and the query.

use callgate::path::{CanonicalPath, Parameter, check_query, parameter, with_parameter, without_parameter};

/// The input is a raw path, or a query.
pub fn run(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    query(text);
    canonical(text)
}

fn canonical(raw: &str) -> bool {
    let Ok(path) = CanonicalPath::parse(raw) else { return false };
    let text = path.as_str();
    let again = CanonicalPath::parse(text).expect("a canonical path is one");
    assert_eq!(again.as_str(), text, "the canonical form of itself");
    assert!(text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()));
    assert!(!text.contains([';', '\\', '?', '#', '"', '<', '>']), "{text}");
    let segments: Vec<_> = path.segments().collect();
    assert_eq!(format!("/{}", segments.join("/")), text);
    for (i, segment) in segments.iter().enumerate() {
        assert!(!segment.is_empty() || i + 1 == segments.len(), "an empty segment: {text}");
        // However a reader behind us decodes it, once or twice, it is no dot segment and has no separator.
        for decoded in [decode(segment.as_bytes()), decode(&decode(segment.as_bytes()))] {
            let decoded = String::from_utf8(decoded).expect("percent-encoded bytes are UTF-8");
            assert!(
                decoded != "." && decoded != ".." && !decoded.contains(['/', '\\', ';', '\0', '\r', '\n']),
                "{text}"
            );
        }
    }
    // Nothing but letters, digits and `-_~` was decoded.
    assert!(text.len() <= raw.len() && decode(raw.as_bytes()) == decode(text.as_bytes()), "{raw} {text}");
    true
}

fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match hex.filter(|_| *first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = &behind[2..];
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out
}

fn query(query: &str) {
    if check_query(query).is_err() {
        return;
    }
    let name = "callback_token";
    let rest = without_parameter(query, name);
    let left = rest.as_deref().unwrap_or_default();
    assert_eq!(parameter(left, name), Parameter::Missing, "taken out, and still there");
    if parameter(query, name) == Parameter::Missing {
        assert_eq!(left, query, "nothing to take out, and the query changed");
    }
    let kept = |pair: &&str| query.split('&').any(|before| before == *pair);
    assert!(left.split('&').filter(|pair| !pair.is_empty()).all(|pair| kept(&pair)), "{query} {left}");
    let url = with_parameter(&format!("https://h/p?{left}"), name, query);
    let (_, with) = url.split_once('?').expect("a query");
    assert_eq!(parameter(with, name), Parameter::One(query.into()));
}
