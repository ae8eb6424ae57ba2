//! Requests that a web page makes in somebody's browser to a listener on this host. A browser tells of the page in headers
//! that no page can set or leave out (`Origin`, `Sec-Fetch-Site`). A page whose name was made to resolve to this host (DNS
//! rebinding) looks like the listener's own; it is told by the name that it asks for.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, HeaderName, ORIGIN};
use http::uri::Authority;

/// How the page that asks and the server that is asked are related (Fetch Metadata).
pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What makes a request one that no program on this host sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Foreign {
    /// It is for a host that is neither an address, nor `localhost`, nor listed; or for none, or for two.
    Host,
    /// A page asks.
    Page,
}

/// Refuses what a page asks for, and what is asked for under a name that is not in `hosts`, which are in lower case.
///
/// # Errors
/// What it was known by.
pub fn refuse_pages(headers: &HeaderMap, hosts: &[Box<str>]) -> Result<(), Foreign> {
    if is_from_page(headers) {
        return Err(Foreign::Page);
    }
    if names_this_host(headers, hosts) { Ok(()) } else { Err(Foreign::Host) }
}

/// Whether a page asks. Programs send neither header, and a browser says `none` where its user asks, without a page.
pub fn is_from_page(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || once(headers, &SEC_FETCH_SITE).is_some_and(|site| site != "none")
}

/// Whether `Host` is an IP address, `localhost`, or in `hosts`, each with any port; or in `hosts` with its port. An absent
/// `Host` is none of them.
pub fn names_this_host(headers: &HeaderMap, hosts: &[Box<str>]) -> bool {
    let host = host(headers);
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    !host.contains('@')
        && (name == "localhost"
            || literal.parse::<IpAddr>().is_ok()
            || hosts.iter().any(|listed| **listed == *name || **listed == *host))
}

/// `Host` in lower case; empty where there is none, or two.
pub fn host(headers: &HeaderMap) -> String {
    once(headers, &HOST).unwrap_or_default().to_ascii_lowercase()
}

/// A header that may occur once; `None` where it is absent. One that is doubled or is not text is empty: nobody can say
/// which of two somebody else would go by.
pub fn once<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(if values.next().is_some() { "" } else { first.to_str().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn judged(lines: &[(&'static str, &'static str)]) -> Result<(), Foreign> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        refuse_pages(&headers, &["gate.example".into(), "ported.example:81".into()])
    }

    #[test]
    fn hosts_of_this_host_and_others() {
        for host in [
            "localhost",
            "LOCALHOST:8081",
            "localhost:",
            "127.0.0.1",
            "127.0.0.1:8081",
            "10.1.2.3",
            "[::1]",
            "[::1]:8081",
            "gate.example",
            "Gate.Example:1",
            "ported.example:81",
        ] {
            assert_eq!(judged(&[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "",
            ":8081",
            "evil.example",
            "localhost.evil.example",
            "localhost.",
            "gate.example.",
            "a.gate.example",
            "ported.example",
            "127.0.0.1.evil.example",
            "127.1",
            "127.0.0.1.",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "[::1%25lo]",
            "[::1",
            "::1",
            "[localhost]",
            "user@localhost",
            "localhost@evil.example",
            "localhost, evil.example",
            "localhost evil.example",
            "localhost/",
            "löcalhost",
        ] {
            assert_eq!(judged(&[("host", host)]), Err(Foreign::Host), "{host}");
        }
        assert_eq!(judged(&[]), Err(Foreign::Host), "no host");
        assert_eq!(judged(&[("host", "localhost"), ("host", "localhost")]), Err(Foreign::Host), "two");
    }

    #[test]
    fn pages_and_programs() {
        let with = |more: &[(&'static str, &'static str)]| judged(&[&[("host", "localhost")], more].concat());
        assert_eq!(with(&[("sec-fetch-site", "none")]), Ok(()));
        for origin in ["http://evil.example", "null", "", "http://localhost", "löcalhost"] {
            assert_eq!(with(&[("origin", origin)]), Err(Foreign::Page), "{origin}");
        }
        for site in ["cross-site", "same-site", "same-origin", "None", "", "nöne"] {
            assert_eq!(with(&[("sec-fetch-site", site)]), Err(Foreign::Page), "{site}");
        }
        let doubled = [("sec-fetch-site", "none"), ("sec-fetch-site", "none")];
        assert_eq!(with(&doubled), Err(Foreign::Page));
    }
}
