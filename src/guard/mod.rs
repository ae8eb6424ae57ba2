//! Protects outgoing requests to URLs from outside against server-side request forgery. The guard checks that a URL is
//! unambiguous, that its host is in the list of allowed hosts, and that Callgate is allowed to connect to the address
//! of the host.
//!
//! This module does not resolve names. The caller must pass each resolved address to [`Guard::judge`] immediately
//! before it connects to this address.

mod address;
mod url;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

pub use address::{AddressClass, classify};
pub use url::{Scheme, Url, UrlFault};

/// The reason why an outgoing request is denied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// The address is not public, and no entry of the list of allowed hosts contains the address. The value is the
    /// class of the address.
    Address(AddressClass),
    /// The host of the URL is not in the list of allowed hosts.
    Host,
    /// The address belongs to Callgate itself or to its agent.
    Own,
    /// The URL is plain HTTP, which is not allowed for this host. Plain HTTP is allowed for `localhost`, for host names
    /// whose entry allows plain HTTP, and for listed IP addresses that are not public.
    PlainHttp,
    /// The URL is invalid or ambiguous.
    Url(UrlFault),
}

impl Refused {
    /// Returns the stable snake_case name of the reason. Metric labels and log fields contain this name.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Address(class) => class.name(),
            Self::Host => "host_not_listed",
            Self::Own => "own_address",
            Self::PlainHttp => "plain_http",
            Self::Url(fault) => fault.name(),
        }
    }

    /// Returns the names of all reasons for which an outgoing request can be denied, for the metrics.
    pub fn classes() -> impl Iterator<Item = &'static str> {
        let addresses = AddressClass::ALL.iter().map(|class| class.name());
        let urls = UrlFault::ALL.iter().map(|fault| fault.name());
        ["host_not_listed", "own_address", "plain_http"].into_iter().chain(addresses).chain(urls)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(class) => write!(f, "the address is not public and not listed: {}", class.name()),
            Self::Host => f.write_str("the host is not listed"),
            Self::Own => f.write_str("the address belongs to Callgate or to the agent"),
            Self::PlainHttp => f.write_str("plain HTTP is not allowed to this host"),
            Self::Url(fault) => write!(f, "the URL is invalid or ambiguous: {}", fault.name()),
        }
    }
}

/// An entry of a list of allowed hosts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// A host name that may be limited to one port.
    Name {
        /// The host name in lower case.
        host: Box<str>,
        /// The only allowed port. `None` allows every port.
        port: Option<u16>,
        /// True if plain HTTP to this host is allowed in addition to HTTPS.
        plain: bool,
    },
    /// A network that Callgate is allowed to connect to, even if it is not public.
    Network(IpNet),
}

impl Entry {
    /// Parses an entry of a list of allowed hosts: `host`, `host:port`, `http://host[:port]`, an address, or a
    /// network. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(network) = text.parse::<IpNet>() {
            return (network.trunc() == network).then_some(Self::Network(network));
        }
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(Self::Network(address.into()));
        }
        let (plain, rest) = match text.strip_prefix("http://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("https://").unwrap_or(text)),
        };
        let (host, port) = match rest.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port != 0)?)),
            None => (rest, None),
        };
        let host = host.to_ascii_lowercase();
        if let Ok(address) = host.parse::<IpAddr>() {
            return port.is_none().then_some(Self::Network(address.into()));
        }
        url::is_name(&host).then(|| Self::Name { host: host.into(), port, plain })
    }
}

/// Checks the URLs and the addresses of outgoing requests against the list of allowed hosts. The list contains host
/// names, and networks that are allowed although they are not public.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    entries: Vec<Entry>,
    /// True if every host with a public address is allowed.
    allows_public: bool,
}

impl Guard {
    /// Creates a guard that allows only the hosts and networks in `entries`.
    pub fn new(entries: Vec<Entry>) -> Self {
        Self { entries, allows_public: false }
    }

    /// Creates a guard that allows every public address, and the addresses in `networks`.
    pub fn public_and(networks: Vec<IpNet>) -> Self {
        Self { entries: networks.into_iter().map(Entry::Network).collect(), allows_public: true }
    }

    /// Returns the entries of the list of allowed hosts as text, in the format of [`Entry::parse`].
    pub fn entries(&self) -> impl Iterator<Item = String> {
        self.entries.iter().map(|entry| match entry {
            Entry::Name { host, port, plain } => {
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                format!("{}{host}{port}", if *plain { "http://" } else { "" })
            }
            Entry::Network(network) => network.to_string(),
        })
    }

    /// Parses a URL and checks its host against the list of allowed hosts. This check needs no name resolution.
    /// [`Guard::judge`] must check the resolved address afterwards.
    ///
    /// # Errors
    /// Returns a [`Refused`] if the URL is not allowed.
    pub fn admit(&self, text: &str) -> Result<Url, Refused> {
        let url = Url::parse(text).map_err(Refused::Url)?;
        match url.address() {
            Some(address) => self.judge(&url, address)?,
            None => match self.names(&url).reduce(|a, b| a || b) {
                None => return Err(Refused::Host),
                Some(plain) if url.scheme() == Scheme::Http && !plain => return Err(Refused::PlainHttp),
                Some(_) => {}
            },
        }
        Ok(url)
    }

    /// Checks whether Callgate may connect to `address`, to which the host of `url` resolved. Call this function
    /// immediately before connecting to the address.
    ///
    /// # Errors
    /// Returns a [`Refused`] if the connection is not allowed.
    pub fn judge(&self, url: &Url, address: IpAddr) -> Result<(), Refused> {
        let class = classify(address);
        if self.allows_public {
            // A connection to an IPv4-mapped IPv6 address reaches the IPv4 address, so the IPv4 address is looked up.
            let listed = self.lists(address.to_canonical());
            return class.filter(|_| !listed).map_or(Ok(()), |class| Err(Refused::Address(class)));
        }
        let listed = self.lists(address) || (url.host() == "localhost" && address.is_loopback());
        if let (Some(class), false) = (class, listed) {
            return Err(Refused::Address(class));
        }
        match url.address() {
            // The host name `localhost` must not resolve to a public address.
            None if url.host() == "localhost" && !listed => Err(Refused::Host),
            Some(_) if !listed => Err(Refused::Host),
            // Plain HTTP to an IP address in the URL is allowed only if a network in the list contains the address, and
            // the address is not public.
            Some(_) if url.scheme() == Scheme::Http && class.is_none() => Err(Refused::PlainHttp),
            _ => Ok(()),
        }
    }

    /// Finds the entries of the list of allowed hosts that match the host and port of the URL. For each of these
    /// entries, returns whether the entry allows plain HTTP. Plain HTTP is always allowed for `localhost`.
    fn names(&self, url: &Url) -> impl Iterator<Item = bool> {
        let (host, port) = (url.host().to_owned(), url.port());
        self.entries.iter().filter_map(move |entry| match entry {
            Entry::Name { host: name, port: only, plain } => {
                let plain = *plain || host == "localhost";
                (**name == *host && only.is_none_or(|only| only == port)).then_some(plain)
            }
            Entry::Network(_) => None,
        })
    }

    fn lists(&self, address: IpAddr) -> bool {
        self.entries
            .iter()
            .any(|entry| matches!(entry, Entry::Network(network) if network.contains(&address)))
    }
}

#[cfg(test)]
mod tests;
