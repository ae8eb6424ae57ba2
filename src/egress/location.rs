//! Interprets the `Location` header of a provider's response as the most lenient clients do (WHATWG URL). A client
//! resolves the value against the address of the egress listener. The result must not belong to another egress rule,
//! because Callgate would then send the credentials of that rule.

use std::borrow::Cow;
use std::fmt::Write;

use percent_encoding::percent_decode_str;

use super::redirect::{absolute_location, has_scheme};
use crate::guard::Url;

/// The destination of a `Location` header.
enum Destination<'l> {
    /// A relative reference, which has no host.
    Relative(Cow<'l, str>),
    /// A URL with a host. The fields are the whole URL and its parts.
    Absolute(Cow<'l, str>, Authority<'l>),
    /// A URL with a scheme other than `http` and `https`.
    Other,
}

/// The host and the port of a URL, and the rest of the URL after them.
struct Authority<'l> {
    host: String,
    port: Option<u16>,
    rest: &'l str,
}

/// Returns the value that replaces this `Location` for the agent, or `None` if the value stays as it is. `sent` is the
/// URL of the request. For a location that the egress rule covers, `local` returns the address on the egress listener.
/// `is_own` reports whether a host and a port belong to the egress listener. A `Location` with the address of the
/// egress listener means the same path at the provider.
pub fn relayed_location(
    location: &[u8],
    sent: &Url,
    local: impl Fn(&str) -> Option<String>,
    is_own: impl Fn(&str, u16) -> bool,
) -> Option<String> {
    let text = visible(location);
    let reference = match destination(&text) {
        Destination::Other => return None,
        Destination::Relative(reference) => reference,
        Destination::Absolute(url, Authority { host, port, rest }) => {
            let scheme = url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
            let is_own = match (port, scheme.as_deref()) {
                (Some(port), _) => is_own(&host, port),
                (None, Some("http")) => is_own(&host, 80),
                (None, Some("https")) => is_own(&host, 443),
                // A URL without a scheme has the scheme of the URL that the agent requested. This scheme is not known
                // here, so the default ports of both schemes are checked.
                (None, _) => is_own(&host, 80) || is_own(&host, 443),
            };
            if is_own { with_slash(rest) } else { url }
        }
    };
    local(&reference).or_else(|| absolute_location(&reference, sent))
}

/// Returns a header value as a client reads it: without tabs and surrounding whitespace, and with non-ASCII bytes
/// percent-encoded.
fn visible(location: &[u8]) -> String {
    let mut text = String::with_capacity(location.len());
    for b in location.trim_ascii() {
        match b {
            b'\t' => {}
            b if b.is_ascii() => text.push(char::from(*b)),
            // Writing to a string cannot fail.
            b => drop(write!(text, "%{b:02X}")),
        }
    }
    text
}

fn destination(text: &str) -> Destination<'_> {
    let is_slash = |c: char| matches!(c, '/' | '\\');
    let slashes = |text: &str| text.len() - text.trim_start_matches(is_slash).len();
    if !has_scheme(text) {
        return match slashes(text) {
            0 | 1 => Destination::Relative(forward(text)),
            _ => {
                let after = text.trim_start_matches(is_slash);
                Destination::Absolute(Cow::Owned(format!("//{after}")), authority(after))
            }
        };
    }
    let (scheme, after) = text.split_once(':').unwrap_or_default();
    if !(scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")) {
        return Destination::Other;
    }
    // A URL without a host, for example `http:a/b`, is relative if it has the scheme of the base URL (WHATWG URL).
    if slashes(after) < 2 {
        return Destination::Relative(forward(after));
    }
    Destination::Absolute(Cow::Borrowed(text), authority(after.trim_start_matches(is_slash)))
}

/// Parses the host and the port at the beginning of a text. The returned host is percent-decoded and in lower case,
/// without brackets and without a final dot.
fn authority(text: &str) -> Authority<'_> {
    let end = text.find(['/', '\\', '?', '#']).unwrap_or(text.len());
    let (authority, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (host, ""),
    };
    let host = percent_decode_str(host).decode_utf8_lossy().to_ascii_lowercase();
    let host = host.trim_start_matches('[').trim_end_matches(['.', ']']).to_owned();
    Authority { host, port: port.parse().ok(), rest }
}

/// Replaces backslashes in the path of a reference by slashes, because some clients treat both in the same way.
fn forward(reference: &str) -> Cow<'_, str> {
    let end = reference.find(['?', '#']).unwrap_or(reference.len());
    match reference.split_at_checked(end) {
        Some((path, rest)) if path.contains('\\') => Cow::Owned(format!("{}{rest}", path.replace('\\', "/"))),
        _ => Cow::Borrowed(reference),
    }
}

/// Returns the part of a URL after the host as a relative reference that begins with exactly one slash.
fn with_slash(rest: &str) -> Cow<'_, str> {
    let path = forward(rest);
    match path.strip_prefix('/') {
        // Two slashes at the beginning would introduce a host.
        Some(after) if after.starts_with('/') => Cow::Owned(format!("/.{path}")),
        Some(_) => path,
        None => Cow::Owned(format!("/{path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relayed(location: &[u8]) -> Option<String> {
        let sent = Url::parse("https://api.example/v1/x?q").unwrap();
        let is_own = |host: &str, port: u16| host == "127.0.0.1" && (port == 8081 || port == 443);
        relayed_location(location, &sent, |_| None, is_own)
    }

    #[test]
    fn no_location_leads_to_another_rule() {
        for (location, expected) in [
            ("http://127.0.0.1:8081/other/x?a#b", "https://api.example/other/x?a#b"),
            ("HTTPS://127.0.0.1/other", "https://api.example/other"),
            ("//127.0.0.1:8081/other", "https://api.example/other"),
            ("///127.0.0.1:8081/other", "https://api.example/other"),
            ("//127.0.0.1/other", "https://api.example/other"),
            ("http:///127.0.0.1:8081/other", "https://api.example/other"),
            ("http:\\\\127.0.0.1:8081\\other\\x?\\", "https://api.example/other/x?\\"),
            ("/\\127.0.0.1:8081/other", "https://api.example/other"),
            ("\\\\127.0.0.1:8081\\other", "https://api.example/other"),
            ("http://u:p@127.0.0.1:8081/other", "https://api.example/other"),
            ("http://a@b@127.0.0.1:8081/other", "https://api.example/other"),
            ("http://127.0.0.%31:8081/other", "https://api.example/other"),
            ("http://127.0.0.1.:08081/other", "https://api.example/other"),
            ("http://127.0.0.1:8081//host/x", "https://api.example/.//host/x"),
            ("http://127.0.0.1:8081?x", "https://api.example/?x"),
            ("http://127.0.0.1:8081", "https://api.example/"),
            (" ht\ttp://127.0.0.1:8081/o", "https://api.example/o"),
            ("http:/other", "https://api.example/other"),
            ("http:other", "https://api.example/v1/other"),
            ("\\other:x", "https://api.example/other:x"),
            ("/other/\u{e9}", "https://api.example/other/%C3%A9"),
            ("//elsewhere.example/x", "https://elsewhere.example/x"),
            ("\\\\elsewhere.example/x", "https://elsewhere.example/x"),
        ] {
            assert_eq!(relayed(location.as_bytes()).as_deref(), Some(expected), "{location}");
        }
        for unchanged in
            ["http://127.0.0.1:8082/x", "http://elsewhere.example/x y", "mailto:a@127.0.0.1:8081", "#x", ""]
        {
            assert_eq!(relayed(unchanged.as_bytes()), None, "{unchanged}");
        }
        assert_eq!(relayed(b"/\xff").as_deref(), Some("https://api.example/%FF"));
    }

    #[test]
    fn what_the_rule_covers_becomes_local() {
        let sent = Url::parse("http://api.example/v1/x").unwrap();
        let local = |text: &str| (text == "/v1/y").then(|| "/api/y".to_owned());
        let is_own = |host: &str, _: u16| host == "localhost";
        let relayed = relayed_location(b"http://localhost:8081/v1/y", &sent, local, is_own);
        assert_eq!(relayed.as_deref(), Some("/api/y"));
    }
}
