//! Detects requests that a web page causes in a browser on this host. A browser marks such requests with headers that
//! the page can neither set nor remove (`Origin`, `Sec-Fetch-Site`).
//!
//! In a DNS rebinding attack, the host name of an attacker's page resolves to this host, so the requests of the page
//! look same-origin. Callgate detects these requests by their `Host` header, which contains the attacker's host name.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, HeaderName, ORIGIN};
use http::uri::Authority;

/// The HTTP header `Sec-Fetch-Site` (W3C Fetch Metadata Request Headers). In this header, a browser states how the
/// server is related to the page that sends the request: `same-origin`, `same-site`, `cross-site` or `none`.
pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The reason why Callgate treats a request as one that a web page could have caused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Foreign {
    /// The `Host` header is missing, is duplicated, or names a host other than this one. Names of this host are IP
    /// addresses, `localhost`, and the configured host names.
    Host,
    /// The headers `Origin` or `Sec-Fetch-Site` show that a web page caused the request.
    Page,
}

/// Checks in the headers of a request that no web page caused the request. `hosts` are the configured host names in
/// lower case.
///
/// # Errors
/// Returns [`Foreign::Page`] if a web page caused the request, and [`Foreign::Host`] if `Host` does not name this host.
pub fn refuse_pages(headers: &HeaderMap, hosts: &[Box<str>]) -> Result<(), Foreign> {
    if is_from_page(headers) {
        return Err(Foreign::Page);
    }
    if names_this_host(headers, hosts) { Ok(()) } else { Err(Foreign::Host) }
}

/// Reports whether a web page caused the request. Browsers send `Origin` or `Sec-Fetch-Site`, other programs send
/// neither. `Sec-Fetch-Site: none` means that the user caused the request directly, for example with a bookmark.
pub fn is_from_page(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || once(headers, &SEC_FETCH_SITE).is_some_and(|site| site != "none")
}

/// Reports whether the header `Host` names an IP address, `localhost` or one of `hosts`, with or without a port. An
/// entry of `hosts` that contains a port matches only this port. Returns false if `Host` is missing.
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

/// Returns the value of the header `Host` in lower case. Returns an empty string if the header is missing or
/// duplicated.
pub fn host(headers: &HeaderMap) -> String {
    once(headers, &HOST).unwrap_or_default().to_ascii_lowercase()
}

/// Returns the value of a header that must not be repeated. Returns `None` if the header is missing. Returns an empty
/// text if the value is not ASCII text, or if the header is repeated, because programs differ in which of the values
/// they use.
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
    fn names_of_this_host_are_accepted() {
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
    fn requests_of_pages_are_detected() {
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
