//! URLs read in one way only. What two readers could understand differently is refused: user names, fragments,
//! backslashes, white space, numbers that some readers take for addresses, names in other alphabets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// The scheme of a URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// With TLS.
    Https,
}

/// A URL of an outside service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Url {
    scheme: Scheme,
    /// In lower case; an IPv6 address without its brackets.
    host: Box<str>,
    address: Option<IpAddr>,
    port: u16,
    /// Path and query, beginning with a slash.
    target: Box<str>,
}

/// Why a text is no such URL. Alphabetical.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UrlFault {
    /// A character that URLs do not have, or a fragment.
    Character,
    /// No host, or one that is neither a name nor an address in its usual form.
    Host,
    /// A port that is none.
    Port,
    /// Neither `http` nor `https`, or not an absolute URL.
    Scheme,
    /// Longer than 2 KiB.
    TooLong,
    /// A user name or password.
    UserInfo,
}

impl UrlFault {
    /// Every fault.
    pub const ALL: &'static [Self] =
        &[Self::Character, Self::Host, Self::Port, Self::Scheme, Self::TooLong, Self::UserInfo];

    /// The stable snake_case name.
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
    /// Reads an absolute URL.
    ///
    /// # Errors
    /// [`UrlFault`].
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

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, in lower case; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host, where it is an address.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Whether the port is the scheme's own.
    fn has_own_port(&self) -> bool {
        matches!((self.scheme, self.port), (Scheme::Http, 80) | (Scheme::Https, 443))
    }

    /// What stands in the `Host` header: without the scheme's own port.
    pub fn authority(&self) -> String {
        let host = match self.address {
            Some(IpAddr::V6(_)) => format!("[{}]", self.host),
            _ => self.host.to_string(),
        };
        if self.has_own_port() { host } else { format!("{host}:{}", self.port) }
    }

    /// The same with another path and query, which begins with a slash.
    pub fn with_target(&self, target: &str) -> Self {
        Self { target: target.into(), ..self.clone() }
    }
}

/// As it would be written.
impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
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
    // `127.1`, `0x7f.1`, `2130706433`: some readers take them for addresses. Only the plain form is one.
    let last = text.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X") {
        let address: Ipv4Addr = text.parse().map_err(|_| UrlFault::Host)?;
        return Ok((address.to_string().into(), Some(address.into())));
    }
    let host = text.to_ascii_lowercase();
    if is_name(&host) { Ok((host.into(), None)) } else { Err(UrlFault::Host) }
}

/// Whether `host`, in lower case, is a name of the domain name system, without a dot at its end.
pub(super) fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    host.len() <= 253 && host.split('.').all(label)
}
