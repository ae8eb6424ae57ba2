//! Compares header names in the way that lenient programs do.

/// Reports whether some programs treat two header names as the same name, for example `x-api-key` and `X_Api.Key`. CGI
/// gateways and WSGI servers treat `_` as `-`. Some of them treat every special character as `-`.
pub fn is_same_header(a: &str, b: &str) -> bool {
    let loose = |b: u8| if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' };
    a.len() == b.len() && a.bytes().map(loose).eq(b.bytes().map(loose))
}

/// Reports whether some programs treat a header name as `Callgate` or `Callgate-*`, for example `callgate_route`.
pub fn is_callgate_header(name: &str) -> bool {
    const PREFIX: &str = "callgate";
    let rest = name.get(..PREFIX.len()).filter(|prefix| prefix.eq_ignore_ascii_case(PREFIX));
    let after = rest.and_then(|_| name.get(PREFIX.len()..));
    after.is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_lenient_programs_read_them() {
        for (a, b, is_same) in [
            ("x-api-key", "X_Api.Key", true),
            ("x_api_key", "x-api-key", true),
            ("x-api-key", "x-api-keys", false),
            ("x-api-key", "xapikey", false),
            ("", "", true),
        ] {
            assert_eq!((is_same_header(a, b), is_same_header(b, a)), (is_same, is_same), "{a} {b}");
        }
        for (name, is_ours) in [
            ("callgate", true),
            ("Callgate-Route", true),
            ("callgate_route", true),
            ("callgate.x", true),
            ("callgates", false),
            ("x-callgate", false),
            ("call", false),
            ("callgat\u{e9}", false),
        ] {
            assert_eq!(is_callgate_header(name), is_ours, "{name}");
        }
    }
}
