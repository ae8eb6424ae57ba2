//! What a request on the egress listener asks for, if the listener is a forward proxy.

use data_encoding::BASE64;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, Method};

use crate::browser::once;
use crate::denial::{Denial, Refusal};
use crate::guard::Url;
use crate::http::Session;
use crate::secret::Secret;

/// What a request asks for.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Asked {
    /// A path on the egress listener.
    Path,
    /// A URL. This is its origin: the URL without its path and its query.
    Url(Url),
    /// A tunnel to the host and the port of this URL.
    Tunnel(Url),
}

/// Returns what a request asks for. `password` is the password of the proxy. `is_own` reports whether a URL leads to the
/// egress listener itself.
///
/// # Errors
/// Returns a [`Refusal`] if the request is ambiguous, or has no valid password although it needs one.
pub(crate) fn asked(
    session: &Session,
    password: Option<&Secret>,
    is_own: impl Fn(&Url) -> bool,
) -> Result<Asked, Refusal> {
    let found = match *session.method() == Method::CONNECT {
        true => Asked::Tunnel(tunnel_target(session.target(), session.headers())?),
        false => match origin(session.target())? {
            Some(url) if !is_own(&url) => Asked::Url(url),
            _ => return Ok(Asked::Path),
        },
    };
    if password.is_some_and(|password| !is_authorized(session.headers(), password)) {
        return Err(Refusal::new(Denial::ProxyAuthorization, Denial::ProxyAuthorization.help()));
    }
    Ok(found)
}

/// Returns the origin of a target in absolute form (RFC 9112 section 3.2.2), or `None` for another target.
pub(super) fn origin(target: &str) -> Result<Option<Url>, Refusal> {
    if !target.starts_with("http://") && !target.starts_with("https://") {
        return Ok(None);
    }
    let start = target.find("://").map_or(0, |at| at + 3);
    let rest = target.get(start..).unwrap_or_default();
    let end = rest.find(['/', '?']).map_or(target.len(), |at| start + at);
    let url = Url::parse(target.get(..end).unwrap_or_default());
    url.map(Some).map_err(|fault| malformed(format!("the URL of the request is invalid: {}", fault.name())))
}

/// Returns the URL with the host and the port of a CONNECT request. Its `Host` must not name another host.
fn tunnel_target(target: &str, headers: &HeaderMap) -> Result<Url, Refusal> {
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

/// Reports whether the value of `Host` names the host and the port of a URL.
pub(super) fn is_host_of(host: &str, url: &Url) -> bool {
    let host = Url::parse(&format!("{}://{host}", url.scheme().name()));
    host.is_ok_and(|host| host.has_origin_of(url) && host.target() == "/")
}

/// Returns the host of a URL as `Host` contains it, without a port.
fn bare_host(url: &Url) -> String {
    match url.address() {
        Some(std::net::IpAddr::V6(_)) => format!("[{}]", url.host()),
        _ => url.host().to_owned(),
    }
}

/// Reports whether `Proxy-Authorization` contains the password, with any user name (RFC 7617).
fn is_authorized(headers: &HeaderMap, password: &Secret) -> bool {
    let given = once(headers, &PROXY_AUTHORIZATION).and_then(|value| {
        let (scheme, credentials) = value.split_once(' ')?;
        let credentials = BASE64.decode(credentials.trim().as_bytes()).ok()?;
        let colon = credentials.iter().position(|b| *b == b':')?;
        scheme
            .eq_ignore_ascii_case("basic")
            .then(|| credentials.get(colon + 1..).unwrap_or_default().to_vec())
    });
    given.is_some_and(|given| password.matches(&given))
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
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
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
        for host in ["other.example:443", "api.example.com:444", "api.example.com.", "x.api.example.com"] {
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
            assert_eq!(origin(target).unwrap().map(|url| url.to_string()).as_deref(), expected, "{target}");
        }
        let long = format!("http://h/{}", "a".repeat(9000));
        assert!(origin(&long).unwrap().is_some(), "the path has its own limit");
        for bad in ["http:///a", "http://127.1/", "http://u@h/", "http://h:0/"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_password_may_have_any_user_name() {
        let password = Secret::new(b"0123456789abcdef".to_vec());
        let basic = |text: &str| format!("Basic {}", BASE64.encode(text.as_bytes()));
        let with = |value: &str| is_authorized(&headers(&[(PROXY_AUTHORIZATION, value)]), &password);
        assert!(with(&basic("x:0123456789abcdef")) && with(&basic(":0123456789abcdef")));
        assert!(with(&basic("x:0123456789abcdef").replace("Basic", "basic")));
        for bad in
            ["", "Basic", "Basic !", &basic("0123456789abcdef"), &basic("x:"), &basic("x:0123456789abcdefg")]
        {
            assert!(!with(bad), "{bad}");
        }
        let both = basic("x:0123456789abcdef");
        let twice = headers(&[(PROXY_AUTHORIZATION, &both), (PROXY_AUTHORIZATION, &both)]);
        assert!(!is_authorized(&twice, &password));
    }
}
