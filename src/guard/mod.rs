//! The guard of outgoing requests whose URL came from outside: which URLs can be read in one way only, which
//! hosts are listed, and which addresses may be dialled. It judges addresses, not names: whoever dials must
//! ask it about the very address that is dialled.

mod address;
mod url;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

pub use address::{AddressClass, classify};
pub use url::{Scheme, Url, UrlFault};

/// Why an outgoing request is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// An address of this class, which nobody listed.
    Address(AddressClass),
    /// A host that nobody listed.
    Host,
    /// An address of this very Callgate, or of its agent.
    Own,
    /// Plain HTTP to a public address, or to a host that was not listed for it.
    PlainHttp,
    /// Not a URL that can be read in one way only.
    Url(UrlFault),
}

impl Refused {
    /// The stable snake_case class: metric label and log field.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Address(class) => class.name(),
            Self::Host => "host_not_listed",
            Self::Own => "own_address",
            Self::PlainHttp => "plain_http",
            Self::Url(fault) => fault.name(),
        }
    }

    /// Every class there is, for the metrics.
    pub fn classes() -> impl Iterator<Item = &'static str> {
        let addresses = AddressClass::ALL.iter().map(|class| class.name());
        let urls = UrlFault::ALL.iter().map(|fault| fault.name());
        ["host_not_listed", "own_address", "plain_http"].into_iter().chain(addresses).chain(urls)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(class) => write!(f, "the address is {}", class.name()),
            Self::Host => f.write_str("the host is not listed"),
            Self::Own => f.write_str("the address is Callgate's own, or the agent's"),
            Self::PlainHttp => f.write_str("plain HTTP to this host is not listed"),
            Self::Url(fault) => write!(f, "the URL is refused: {}", fault.name()),
        }
    }
}

/// One entry of a list of hosts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// A name, with the scheme and port it is limited to.
    Name {
        /// In lower case.
        host: Box<str>,
        /// `None`: any.
        port: Option<u16>,
        /// Plain HTTP is allowed, too.
        plain: bool,
    },
    /// Addresses, public or not.
    Network(IpNet),
}

impl Entry {
    /// Reads an entry: `host`, `host:port`, `http://host[:port]`, an address, or a network. `None` when it is
    /// none of them.
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

/// A list of hosts: names that may be asked for, and networks that may be dialled although they are not public.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    entries: Vec<Entry>,
}

impl Guard {
    /// A guard with these entries.
    pub fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// The entries, in words.
    pub fn entries(&self) -> impl Iterator<Item = String> {
        self.entries.iter().map(|entry| match entry {
            Entry::Name { host, port, plain } => {
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                format!("{}{host}{port}", if *plain { "http://" } else { "" })
            }
            Entry::Network(network) => network.to_string(),
        })
    }

    /// Reads a URL and holds its host against the list: the half that needs no resolver.
    ///
    /// # Errors
    /// [`Refused`].
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

    /// Judges an address that `url` resolved to and that is about to be dialled: the other half.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, url: &Url, address: IpAddr) -> Result<(), Refused> {
        let class = classify(address);
        let listed = self.lists(address) || (url.host() == "localhost" && address.is_loopback());
        if let (Some(class), false) = (class, listed) {
            return Err(Refused::Address(class));
        }
        match url.address() {
            // This host's own name for itself leads nowhere else.
            None if url.host() == "localhost" && !listed => Err(Refused::Host),
            Some(_) if !listed => Err(Refused::Host),
            // Plain HTTP to an address that was listed is within the house, or it is not.
            Some(_) if url.scheme() == Scheme::Http && class.is_none() => Err(Refused::PlainHttp),
            _ => Ok(()),
        }
    }

    /// The entries that name the URL's host and port; whether each allows plain HTTP. `localhost` is this host.
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
