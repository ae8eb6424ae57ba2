//! An entry of `no_proxy`: the hosts to which Callgate connects directly. An entry has the same meaning as in the
//! environment variable `NO_PROXY` of Go programs.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::guard::Url;

/// An entry of `no_proxy`: hosts to which Callgate connects without the outbound proxy, optionally limited to one port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exemption {
    hosts: Hosts,
    /// The port to which the entry is limited. `None` matches every port.
    port: Option<u16>,
}

/// The hosts that an entry of `no_proxy` matches.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Hosts {
    /// A domain name and all its subdomains.
    Domain(Box<str>),
    /// All subdomains of a domain name, but not the name itself.
    Below(Box<str>),
    /// The IP addresses of a network.
    Network(IpNet),
}

impl Exemption {
    /// Parses a `no_proxy` entry: `name`, `.name`, an IP address or a network. A port may follow a name or an address.
    /// Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(network) = text.parse::<IpNet>() {
            return (network.trunc() == network)
                .then_some(Self { hosts: Hosts::Network(network), port: None });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self { hosts: Hosts::Network(address.into()), port: None });
        }
        let (is_below, host) = match text.strip_prefix('.') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if host.contains(['/', '?']) {
            return None;
        }
        // The host is parsed as a part of a URL, so that names and addresses follow the same rules as in URLs.
        let url = Url::parse(&format!("http://{host}")).ok()?;
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let hosts = match url.address() {
            Some(_) if is_below => return None,
            Some(address) => Hosts::Network(address.into()),
            None if is_below => Hosts::Below(url.host().into()),
            None => Hosts::Domain(url.host().into()),
        };
        Some(Self { hosts, port: has_port.then(|| url.port()) })
    }

    /// Reports whether Callgate connects directly to the host of `url`. `resolved` is the address of the host, if
    /// Callgate has resolved the host name.
    pub fn matches(&self, url: &Url, resolved: Option<IpAddr>) -> bool {
        if self.port.is_some_and(|port| port != url.port()) {
            return false;
        }
        match &self.hosts {
            Hosts::Network(network) => {
                url.address().or(resolved).is_some_and(|address| network.contains(&address.to_canonical()))
            }
            Hosts::Domain(_) | Hosts::Below(_) if url.address().is_some() => false,
            Hosts::Domain(name) => url.host() == &**name || is_below(url.host(), name),
            Hosts::Below(name) => is_below(url.host(), name),
        }
    }
}

/// Reports whether `host` is a subdomain of `name`: `a.example.com` is a subdomain of `example.com`.
fn is_below(host: &str, name: &str) -> bool {
    host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// Formats the entry in the form that [`Exemption::parse`] accepts.
impl fmt::Display for Exemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_host = |network: &IpNet| network.prefix_len() == network.max_prefix_len();
        match &self.hosts {
            Hosts::Domain(name) => f.write_str(name)?,
            Hosts::Below(name) => write!(f, ".{name}")?,
            Hosts::Network(network) if !is_host(network) => network.fmt(f)?,
            Hosts::Network(network) => match network.addr() {
                IpAddr::V6(address) if self.port.is_some() => write!(f, "[{address}]")?,
                address => address.fmt(f)?,
            },
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(authority: &str) -> Url {
        Url::parse(&format!("https://{authority}/x")).unwrap()
    }

    #[test]
    fn entries_match_as_in_go_programs() {
        for (entry, matching, other) in [
            (
                "example.com",
                &["example.com", "a.example.com", "EXAMPLE.com:8443", "a.b.example.com"][..],
                &["notexample.com", "example.com.evil.example", "com"][..],
            ),
            ("Example.COM", &["example.com"], &["example.org"]),
            (".example.com", &["a.example.com", "a.b.example.com:1"], &["example.com", "aexample.com"]),
            (
                "example.com:8443",
                &["example.com:8443", "a.example.com:8443"],
                &["example.com", "example.com:444"],
            ),
            (".example.com:443", &["a.example.com"], &["a.example.com:444", "example.com"]),
            ("service", &["service", "a.service"], &["service.example.com"]),
            ("10.0.0.0/8", &["10.1.2.3", "10.255.255.255:1"], &["11.0.0.1", "10.example.com"]),
            ("10.1.2.3", &["10.1.2.3", "10.1.2.3:9"], &["10.1.2.4"]),
            ("10.1.2.3:9", &["10.1.2.3:9"], &["10.1.2.3"]),
            ("fd00::/8", &["[fd00::1]", "[fd12::1]:9"], &["[2001:db8::1]"]),
            ("fd00::1", &["[fd00::1]"], &["[fd00::2]"]),
            ("[fd00::1]", &["[fd00::1]:9"], &["[fd00::2]"]),
            ("[fd00::1]:9", &["[fd00::1]:9"], &["[fd00::1]"]),
            // An IPv4-mapped IPv6 address leads to the same host as the IPv4 address.
            ("10.0.0.0/8", &["[::ffff:10.1.2.3]"], &["[::ffff:11.1.2.3]"]),
        ] {
            let entry = Exemption::parse(entry).unwrap_or_else(|| panic!("{entry}"));
            for host in matching {
                assert!(entry.matches(&url(host), None), "{entry} {host}");
            }
            for host in other {
                assert!(!entry.matches(&url(host), None), "{entry} {host}");
            }
        }
    }

    #[test]
    fn networks_match_a_resolved_address_only_if_there_is_one() {
        let (network, resolved) = (Exemption::parse("10.0.0.0/8").unwrap(), "10.1.2.3".parse().ok());
        assert!(network.matches(&url("service.example"), resolved));
        assert!(!network.matches(&url("service.example"), None));
        assert!(!Exemption::parse("example.com").unwrap().matches(&url("service.example"), resolved));
    }

    #[test]
    fn entries_are_printed_as_they_are_parsed() {
        for entry in [
            "example.com",
            ".example.com",
            "example.com:80",
            ".example.com:8443",
            "10.0.0.0/8",
            "10.1.2.3",
            "10.1.2.3:9",
            "fd00::/8",
            "fd00::1",
            "[fd00::1]:9",
        ] {
            let parsed = Exemption::parse(entry).unwrap();
            assert_eq!(parsed.to_string(), entry);
            assert_eq!(Exemption::parse(&parsed.to_string()), Some(parsed));
        }
    }

    #[test]
    fn other_texts_are_no_entries() {
        for text in [
            "",
            "*",
            "*.example.com",
            ".",
            "..example.com",
            "example.com.",
            "example..com",
            "http://example.com",
            "example.com/path",
            "example.com?x",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:x",
            ":8080",
            "user@example.com",
            "10.0.0.1/8",
            "10.0.0.0/8:80",
            "10.0.0.0/33",
            "10.0.0",
            "127.1",
            "0x7f.1",
            ".10.0.0.1",
            "[10.0.0.1]",
            "[fd00::1",
            "fd00::1]",
            "a b",
            "a,b",
            "bücher.example",
        ] {
            assert_eq!(Exemption::parse(text), None, "{text}");
        }
    }
}
