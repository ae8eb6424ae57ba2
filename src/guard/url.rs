//! Parses URLs that every parser understands in the same way. All other URLs are errors, for example URLs with user
//! names, fragments, backslashes, white space, numbers that some parsers accept as addresses, or names outside ASCII.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The maximum length of a URL, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// The scheme of a URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// Returns the name of the scheme as written in a URL: `http` or `https`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// An absolute URL of an outside service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Url {
    scheme: Scheme,
    /// The host of the URL in lower case. An IPv6 address has no brackets.
    host: Box<str>,
    address: Option<IpAddr>,
    port: u16,
    /// The path and the query of the URL, beginning with a slash.
    target: Box<str>,
}

/// The reason why a URL is invalid. The variants are sorted alphabetically.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UrlFault {
    /// The URL contains a fragment, or a character that URLs must not contain.
    Character,
    /// The host is missing, or is neither a DNS name nor an address in its usual form.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
    /// The scheme is neither `http` nor `https`, or the URL is not absolute.
    Scheme,
    /// The URL is longer than 2 KiB.
    TooLong,
    /// The URL contains a user name or password.
    UserInfo,
}

impl UrlFault {
    /// All reasons why a URL can be invalid, sorted alphabetically.
    pub const ALL: &'static [Self] =
        &[Self::Character, Self::Host, Self::Port, Self::Scheme, Self::TooLong, Self::UserInfo];

    /// Returns the stable snake_case name of the reason. Metric labels and log fields contain this name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Character => "url_character",
            Self::Host => "url_host",
            Self::Port => "url_port",
            Self::Scheme => "url_scheme",
            Self::TooLong => "url_too_long",
            Self::UserInfo => "url_userinfo",
        }
    }
}

impl Url {
    /// Parses an absolute URL.
    ///
    /// # Errors
    /// Returns a [`UrlFault`] if the URL is invalid or ambiguous.
    pub fn parse(text: &str) -> Result<Self, UrlFault> {
        if text.len() > URL_BYTES_MAX {
            return Err(UrlFault::TooLong);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((name, rest)) if name.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((name, rest)) if name.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            _ => return Err(UrlFault::Scheme),
        };
        if !text.bytes().all(|b| b.is_ascii_graphic() && !b"#\\\"<>^`{|}".contains(&b)) {
            return Err(UrlFault::Character);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end).ok_or(UrlFault::Host)?;
        if authority.contains('@') {
            return Err(UrlFault::UserInfo);
        }
        let (host, port) = split_port(authority)?;
        let port = port.unwrap_or(match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        });
        let (host, address) = read_host(host)?;
        let target = match target {
            "" => "/".into(),
            query if query.starts_with('?') => format!("/{query}").into(),
            target => target.into(),
        };
        Ok(Self { scheme, host, address, port, target })
    }

    /// Returns the scheme of the URL.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the host of the URL in lower case. An IPv6 address has no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the host of the URL if it is an IP address, or `None` if it is a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Returns the port of the URL, or the default port of the scheme if the URL has no port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path and the query of the URL, beginning with a slash.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Reports whether the port of the URL is the default port of its scheme.
    fn has_default_port(&self) -> bool {
        matches!((self.scheme, self.port), (Scheme::Http, 80) | (Scheme::Https, 443))
    }

    /// Reports whether both URLs have the same scheme, host and port.
    pub fn has_origin_of(&self, other: &Self) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }

    /// Returns the host and port of the URL, as the value of the `Host` header. Omits the default port.
    pub fn authority(&self) -> String {
        let host = match self.address {
            Some(IpAddr::V6(_)) => format!("[{}]", self.host),
            _ => self.host.to_string(),
        };
        if self.has_default_port() { host } else { format!("{host}:{}", self.port) }
    }

    /// Returns this URL with the path and query `target`, which must begin with a slash.
    pub fn with_target(&self, target: &str) -> Self {
        Self { target: target.into(), ..self.clone() }
    }
}

/// Formats the URL in normalized form: with a lower-case scheme and host, and without the default port.
impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme.name(), self.authority(), self.target)
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), UrlFault> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let digits = |port: &str| !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    match port {
        None => Ok((host, None)),
        Some(port) if digits(port) => {
            let port = port.parse().ok().filter(|port| *port != 0).ok_or(UrlFault::Port)?;
            Ok((host, Some(port)))
        }
        Some(_) => Err(UrlFault::Port),
    }
}

fn read_host(text: &str) -> Result<(Box<str>, Option<IpAddr>), UrlFault> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| UrlFault::Host)?;
        return Ok((address.to_string().into(), Some(address.into())));
    }
    // Some parsers accept `127.1`, `0x7f.1` and `2130706433` as IPv4 addresses. Only the usual form with four decimal
    // numbers is valid here.
    let last = text.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X") {
        let address: Ipv4Addr = text.parse().map_err(|_| UrlFault::Host)?;
        return Ok((address.to_string().into(), Some(address.into())));
    }
    let host = text.to_ascii_lowercase();
    if is_name(&host) { Ok((host.into(), None)) } else { Err(UrlFault::Host) }
}

/// Reports whether `host` is a valid DNS name in lower case, without a trailing dot.
pub(super) fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    host.len() <= 253 && host.split('.').all(label)
}
