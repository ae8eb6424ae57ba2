//! Checks the hosts in a request to a forward proxy. The hosts in the request target, in the `Host` header, and in
//! requests inside a tunnel must be unambiguous and equal.

use http::header::HOST;
use http::{HeaderMap, Method};

use crate::browser::once;
use crate::denial::{Denial, Refusal};
use crate::guard::Url;

/// Returns the origin of a request target in absolute form (RFC 9112 section 3.2.2), or `None` if the target has
/// another form.
///
/// # Errors
/// Returns a [`Refusal`] if the URL is invalid or ambiguous.
pub fn target_origin(target: &str) -> Result<Option<Url>, Refusal> {
    if !target.starts_with("http://") && !target.starts_with("https://") {
        return Ok(None);
    }
    let start = target.find("://").map_or(0, |at| at + 3);
    let rest = target.get(start..).unwrap_or_default();
    let end = rest.find(['/', '?']).map_or(target.len(), |at| start + at);
    let url = Url::parse(target.get(..end).unwrap_or_default());
    url.map(Some).map_err(|fault| malformed(format!("the URL of the request is invalid: {}", fault.name())))
}

/// Returns a URL with the host and the port of a CONNECT request. Checks that the `Host` header does not contain
/// another host.
///
/// # Errors
/// Returns a [`Refusal`] if the target is not exactly one host with a port, or if `Host` differs from the target.
pub fn tunnel_target(target: &str, headers: &HeaderMap) -> Result<Url, Refusal> {
    let url = Url::parse(&format!("https://{target}"))
        .map_err(|fault| malformed(format!("the target of CONNECT is invalid: {}", fault.name())))?;
    if target.ends_with(']') || !target.contains(':') || target.contains(['/', '?']) {
        return Err(malformed("the target of CONNECT is not a host with a port".to_owned()));
    }
    match once(headers, &HOST) {
        Some(host) if !is_host_of(host, &url) && !host.eq_ignore_ascii_case(&bare_host(&url)) => {
            Err(Refusal::new(Denial::ProxyMisdirected, "`Host` differs from the target of CONNECT"))
        }
        _ => Ok(url),
    }
}

/// Reports whether the value of a `Host` header has the host and the port of a URL.
fn is_host_of(host: &str, url: &Url) -> bool {
    let named = Url::parse(&format!("{}://{host}", url.scheme().name()));
    !host.contains(['/', '?']) && named.is_ok_and(|named| named.has_origin_of(url))
}

/// Returns the host of a URL in the format of the `Host` header, without a port.
fn bare_host(url: &Url) -> String {
    match url.address() {
        Some(std::net::IpAddr::V6(_)) => format!("[{}]", url.host()),
        _ => url.host().to_owned(),
    }
}

/// Checks that a request on an intercepted connection has the origin `url`, which is the host and the port of the
/// CONNECT request.
///
/// # Errors
/// Returns a [`Refusal`] if the request is for another host or port, or if its method is CONNECT.
pub fn check_same_origin(
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    url: &Url,
) -> Result<(), Refusal> {
    let refused = |detail| Err(Refusal::new(Denial::ProxyMisdirected, detail));
    if *method == Method::CONNECT {
        return refused("a tunnel inside a tunnel");
    }
    if !once(headers, &HOST).is_some_and(|host| is_host_of(host, url)) {
        return refused("`Host` differs from the target of CONNECT");
    }
    match target_origin(target)? {
        Some(of_target) if !of_target.has_origin_of(url) => {
            refused("the URL of the request differs from the target of CONNECT")
        }
        _ => Ok(()),
    }
}

fn malformed(detail: String) -> Refusal {
    Refusal::new(Denial::RequestMalformed, detail)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_tunnel_has_one_unambiguous_host_and_a_port() {
        for (target, host, expected) in [
            ("API.example.com:443", "api.example.com:443", "https://api.example.com/"),
            ("api.example.com:8443", "api.example.com", "https://api.example.com:8443/"),
            ("[2001:DB8::1]:443", "[2001:db8::1]:443", "https://[2001:db8::1]/"),
            ("192.0.2.1:443", "192.0.2.1", "https://192.0.2.1/"),
        ] {
            let url = tunnel_target(target, &headers(&[(HOST, host)])).unwrap();
            assert_eq!(url.to_string(), expected, "{target}");
        }
        assert!(tunnel_target("a:443", &HeaderMap::new()).is_ok(), "HTTP/1.0 has no Host");
        for target in [
            "api.example.com",
            "api.example.com:",
            "api.example.com:0",
            "api.example.com:65536",
            "[::1]",
            "127.1:443",
            "0x7f.0.0.1:443",
            "2130706433:443",
            "017700000001:443",
            "api.example.com.:443",
            "a..b:443",
            "a%00b:443",
            "u@a:443",
            "[fe80::1%25lo]:443",
            "a:443/",
            "a:443?b",
        ] {
            let refused = tunnel_target(target, &HeaderMap::new()).unwrap_err();
            assert_eq!(refused.denial, Denial::RequestMalformed, "{target}");
        }
        for host in [
            "other.example:443",
            "api.example.com:444",
            "api.example.com.",
            "x.api.example.com",
            "api.example.com:443/",
            "api.example.com/",
            "api.example.com?",
        ] {
            let refused = tunnel_target("api.example.com:443", &headers(&[(HOST, host)])).unwrap_err();
            assert_eq!(refused.denial, Denial::ProxyMisdirected, "{host}");
        }
    }

    #[test]
    fn the_origin_of_a_url_ends_before_its_path() {
        for (target, expected) in [
            ("http://h", Some("http://h/")),
            ("http://h?q=http://x/", Some("http://h/")),
            ("https://H:8443/a//b?c", Some("https://h:8443/")),
            ("/a", None),
            ("*", None),
            ("HTTP://h/", None),
        ] {
            assert_eq!(
                target_origin(target).unwrap().map(|url| url.to_string()).as_deref(),
                expected,
                "{target}"
            );
        }
        let long = format!("http://h/{}", "a".repeat(9000));
        assert!(target_origin(&long).unwrap().is_some(), "the path has its own limit");
        for bad in ["http:///a", "http://127.1/", "http://u@h/", "http://h:0/"] {
            assert!(target_origin(bad).is_err(), "{bad}");
        }
    }
}
