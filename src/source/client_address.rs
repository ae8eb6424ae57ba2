//! Finds the client address of a request. If the peer of the connection is not a trusted proxy, the client address is
//! the address of the peer. Otherwise Callgate reads the address from the header of the proxy, which can contain
//! several addresses. The client address is then the right-most address that does not belong to a trusted proxy. An
//! unreadable address in the header is never skipped. It makes Callgate deny the request.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName};

use super::published_lists::{Allowlist, ListUnavailable, Lists};

/// The header in which a trusted proxy sends the address of its own client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AddressHeader {
    /// The header `Forwarded` (RFC 7239). Its `for` parameters form a list.
    Forwarded,
    /// A header such as `X-Forwarded-For`: a comma-separated list to which each proxy appends an address.
    List(HeaderName),
    /// A header such as `CF-Connecting-IP`, in which the edge proxy writes a single address. The header must not occur
    /// twice.
    Single(HeaderName),
}

impl AddressHeader {
    /// Returns the kind of header for this header name. `forwarded` and `x-forwarded-for` contain lists. All other
    /// headers contain a single address.
    pub fn from_name(name: HeaderName) -> Self {
        match name.as_str() {
            "forwarded" => Self::Forwarded,
            "x-forwarded-for" => Self::List(name),
            _ => Self::Single(name),
        }
    }

    /// Returns the name of the header.
    pub fn name(&self) -> HeaderName {
        match self {
            Self::Forwarded => http::header::FORWARDED,
            Self::List(name) | Self::Single(name) => name.clone(),
        }
    }
}

/// The rule for finding the client address of a request behind trusted proxies.
#[derive(Clone, Debug)]
pub struct ClientAddress {
    /// The proxies whose address header is trusted.
    pub trusted_proxies: Allowlist,
    /// The address header that the trusted proxies set.
    pub header: AddressHeader,
}

/// The reason why the client address cannot be determined.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SourceFault {
    /// A header that must contain a single address occurs more than once.
    Doubled,
    /// The published addresses of the trusted proxies have not been fetched yet.
    ListUnavailable,
    /// A part of the address header is not an IP address.
    Unreadable,
}

impl From<ListUnavailable> for SourceFault {
    fn from(_: ListUnavailable) -> Self {
        Self::ListUnavailable
    }
}

impl fmt::Display for SourceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Doubled => "the address header occurs more than once",
            Self::ListUnavailable => {
                "the published addresses of the trusted proxies have not been fetched yet"
            }
            Self::Unreadable => {
                "the address header of a trusted proxy contains something other than an address"
            }
        })
    }
}

impl ClientAddress {
    /// Returns the client address of a request whose connection comes from `peer`. IPv4-mapped IPv6 addresses become
    /// IPv4 addresses.
    ///
    /// # Errors
    /// Returns a [`SourceFault`] if the address header of a trusted proxy is invalid, or if a list of proxies is not
    /// available.
    pub fn resolve(&self, peer: IpAddr, headers: &HeaderMap, lists: &Lists) -> Result<IpAddr, SourceFault> {
        let peer = peer.to_canonical();
        if !self.trusted_proxies.contains(peer, lists)? {
            return Ok(peer);
        }
        match &self.header {
            AddressHeader::Single(name) => single(peer, headers, name),
            AddressHeader::List(name) => self.right_most(peer, headers, name, parse_hop, lists),
            AddressHeader::Forwarded => {
                self.right_most(peer, headers, &http::header::FORWARDED, parse_forwarded, lists)
            }
        }
    }

    /// Reads the addresses of a list from right to left, from the nearest hop to the farthest. Returns the first
    /// address that does not belong to a trusted proxy. If all addresses belong to trusted proxies, returns the
    /// left-most address.
    fn right_most(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        name: &HeaderName,
        parse: fn(&str) -> Option<IpAddr>,
        lists: &Lists,
    ) -> Result<IpAddr, SourceFault> {
        let mut client = peer;
        let lines: Vec<_> = headers.get_all(name).iter().collect();
        for line in lines.into_iter().rev() {
            let line = line.to_str().map_err(|_| SourceFault::Unreadable)?;
            for hop in split_unquoted(line, ',')?.into_iter().rev() {
                client = parse(hop.trim_matches([' ', '\t'])).ok_or(SourceFault::Unreadable)?;
                if !self.trusted_proxies.contains(client, lists)? {
                    return Ok(client);
                }
            }
        }
        Ok(client)
    }
}

fn single(peer: IpAddr, headers: &HeaderMap, name: &HeaderName) -> Result<IpAddr, SourceFault> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(peer),
        (Some(_), Some(_)) => Err(SourceFault::Doubled),
        (Some(value), None) => value.to_str().ok().and_then(parse_hop).ok_or(SourceFault::Unreadable),
    }
}

/// Splits a text at each separator outside quoted strings (RFC 9110 section 5.6.4). A separator inside a quoted string
/// does not count.
fn split_unquoted(text: &str, separator: char) -> Result<Vec<&str>, SourceFault> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == separator && !quoted => {
                parts.push(text.get(start..at).unwrap_or_default());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    if quoted {
        return Err(SourceFault::Unreadable);
    }
    parts.push(text.get(start..).unwrap_or_default());
    Ok(parts)
}

/// Parses the address of one hop in the form `v4`, `v6`, `v4:port`, `[v6]` or `[v6]:port`. Zone ids, host names and
/// leading zeros are invalid.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || match text.parse::<SocketAddr>().ok()? {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => None,
        socket => Some(socket.ip()),
    };
    let address = text.parse::<IpAddr>().ok().or_else(bracketed).or_else(with_port)?;
    if text.contains('%') { None } else { Some(address.to_canonical()) }
}

/// Parses one element of the header `Forwarded`. It must have exactly one `for` parameter, quoted or not. The value
/// `unknown` and obfuscated identifiers are invalid.
fn parse_forwarded(element: &str) -> Option<IpAddr> {
    let mut addresses = split_unquoted(element, ';').ok()?.into_iter().filter_map(|pair| {
        let (name, value) = pair.trim_matches([' ', '\t']).split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    });
    let (Some(value), None) = (addresses.next(), addresses.next()) else { return None };
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').filter(|inner| !inner.contains(['"', '\\'])).and_then(parse_hop),
        None => parse_hop(value).filter(|address| matches!(address, IpAddr::V4(_))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Networks, parse_network};

    fn networks(list: &[&str]) -> Allowlist {
        let fixed = Networks::new(list.iter().map(|text| parse_network(text).unwrap()));
        Allowlist { fixed, feeds: Vec::new() }
    }

    fn resolve(header: &str, peer: &str, values: &[&str]) -> Result<String, SourceFault> {
        let name = HeaderName::from_bytes(header.as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), value.parse().unwrap());
        }
        let client = ClientAddress {
            trusted_proxies: networks(&["10.0.0.0/8", "fd00::/8"]),
            header: AddressHeader::from_name(name),
        };
        client.resolve(peer.parse().unwrap(), &headers, &Lists::default()).map(|address| address.to_string())
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        assert_eq!(resolve("x-forwarded-for", "192.0.2.1", &["203.0.113.9"]).unwrap(), "192.0.2.1");
        assert_eq!(resolve("x-forwarded-for", "192.0.2.1", &["rubbish"]).unwrap(), "192.0.2.1");
        assert_eq!(resolve("x-forwarded-for", "::ffff:192.0.2.1", &[]).unwrap(), "192.0.2.1");
    }

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        let xff = |values: &[&str]| resolve("x-forwarded-for", "10.0.0.1", values);
        assert_eq!(xff(&[]).unwrap(), "10.0.0.1");
        assert_eq!(xff(&["203.0.113.9"]).unwrap(), "203.0.113.9");
        assert_eq!(xff(&["1.1.1.1, 203.0.113.9, 10.2.3.4"]).unwrap(), "203.0.113.9");
        assert_eq!(xff(&["1.1.1.1", "203.0.113.9,10.2.3.4"]).unwrap(), "203.0.113.9");
        assert_eq!(xff(&["10.9.9.9, 10.2.3.4"]).unwrap(), "10.9.9.9");
        assert_eq!(xff(&["::ffff:203.0.113.9"]).unwrap(), "203.0.113.9");
        assert_eq!(xff(&["203.0.113.9:4711"]).unwrap(), "203.0.113.9");
        assert_eq!(xff(&["[2001:db8::1]:4711"]).unwrap(), "2001:db8::1");
        assert_eq!(xff(&["[2001:db8::1]"]).unwrap(), "2001:db8::1");
        // The part of the header to the left of the client address is not read.
        assert_eq!(xff(&["rubbish, 203.0.113.9"]).unwrap(), "203.0.113.9");
        for bad in ["", " ", "203.0.113.9,", "203.0.113.9, ", "unknown", "010.1.1.1", "1.2.3", "fe80::1%eth0"]
        {
            assert_eq!(xff(&[bad]), Err(SourceFault::Unreadable), "{bad:?}");
        }
        for bad in ["[fe80::1%eth0]:80", "203.0.113.9:99999", "0x7f.1", "203.0.113.9 ,\u{a0}"] {
            assert_eq!(xff(&[bad]), Err(SourceFault::Unreadable), "{bad:?}");
        }
    }

    #[test]
    fn a_single_address_header_must_be_single() {
        let real = |values: &[&str]| resolve("cf-connecting-ip", "10.0.0.1", values);
        assert_eq!(real(&["203.0.113.9"]).unwrap(), "203.0.113.9");
        assert_eq!(real(&["203.0.113.9", "203.0.113.9"]), Err(SourceFault::Doubled));
        assert_eq!(real(&["203.0.113.9, 1.1.1.1"]), Err(SourceFault::Unreadable));
        assert_eq!(real(&[""]), Err(SourceFault::Unreadable));
        assert_eq!(real(&[]).unwrap(), "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let fwd = |values: &[&str]| resolve("forwarded", "10.0.0.1", values);
        assert_eq!(fwd(&["for=203.0.113.9;proto=https"]).unwrap(), "203.0.113.9");
        assert_eq!(fwd(&["for=1.1.1.1, For=\"[2001:db8::1]:4711\";by=x"]).unwrap(), "2001:db8::1");
        assert_eq!(fwd(&["for=203.0.113.9, for=10.2.3.4"]).unwrap(), "203.0.113.9");
        let smuggled = "for=198.51.100.66;host=\"a,for=203.0.113.9;b=\";proto=https";
        assert_eq!(fwd(&[smuggled]).unwrap(), "198.51.100.66", "a quoted parameter is one parameter");
        for bad in ["for=1.1.1.1;host=\"a,for=2.2.2.2", "for=1.1.1.1;host=\"a\\\",for=2.2.2.2"] {
            assert_eq!(fwd(&[bad]), Err(SourceFault::Unreadable), "{bad:?}");
        }
        for bad in
            ["for=unknown", "for=_hidden", "proto=https", "for=1.1.1.1;for=2.2.2.2", "for=\"1.1.1.1", ""]
        {
            assert_eq!(fwd(&[bad]), Err(SourceFault::Unreadable), "{bad:?}");
        }
    }
}
