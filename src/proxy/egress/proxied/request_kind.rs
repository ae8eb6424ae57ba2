//! What kind of request the egress listener received: for a path, for an absolute URL, or for a tunnel.

use data_encoding::BASE64;
use http::header::PROXY_AUTHORIZATION;
use http::{HeaderMap, Method};

use crate::browser::once;
use crate::denial::{Denial, Refusal};
use crate::egress::{target_origin, tunnel_target};
use crate::guard::Url;
use crate::http::Session;
use crate::secret::Secret;

/// What kind of target a request to the egress listener has.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Asked {
    /// A path on the egress listener.
    Path,
    /// An absolute URL. Contains its origin: scheme, host and port.
    Url(Url),
    /// A tunnel to the host and the port of this URL (CONNECT).
    Tunnel(Url),
}

/// Returns what kind of target a request has. `password` is the password of the forward proxy. `is_own` reports whether
/// a URL leads to the egress listener itself.
///
/// # Errors
/// Returns a [`Refusal`] if the target is ambiguous, or if the request requires the password and has no valid one.
pub(crate) fn asked(
    session: &Session,
    password: Option<&Secret>,
    is_own: impl Fn(&Url) -> bool,
) -> Result<Asked, Refusal> {
    let found = match *session.method() == Method::CONNECT {
        true => Asked::Tunnel(tunnel_target(session.target(), session.headers())?),
        false => match target_origin(session.target())? {
            Some(url) if !is_own(&url) => Asked::Url(url),
            _ => return Ok(Asked::Path),
        },
    };
    if password.is_some_and(|password| !is_authorized(session.headers(), password)) {
        return Err(Refusal::new(Denial::ProxyAuthorization, Denial::ProxyAuthorization.help()));
    }
    Ok(found)
}

/// Reports whether `Proxy-Authorization` contains the password of the forward proxy, with any user name (RFC 7617).
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
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
