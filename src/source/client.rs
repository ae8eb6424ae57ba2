//! The client address: the peer of the connection, unless it is a trusted proxy; then the right-most address
//! of the chosen header that is not itself a trusted proxy. An address that cannot be read is never skipped:
//! it refuses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName};

use super::lists::{Allowlist, ListUnavailable, Lists};

/// The header of a trusted proxy that tells who called it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AddressHeader {
    /// `Forwarded` (RFC 7239): the `for` parameters, right-most untrusted wins.
    Forwarded,
    /// A comma-separated list that each hop appends to, such as `X-Forwarded-For`.
    List(HeaderName),
    /// One address set by the edge, such as `CF-Connecting-IP`; must occur once.
    Single(HeaderName),
}

impl AddressHeader {
    /// The kind of header that goes by this name: `forwarded` and `x-forwarded-for` are lists, anything
    /// else holds one address.
    pub fn from_name(name: HeaderName) -> Self {
        match name.as_str() {
            "forwarded" => Self::Forwarded,
            "x-forwarded-for" => Self::List(name),
            _ => Self::Single(name),
        }
    }

    /// The header's name.
    pub fn name(&self) -> HeaderName {
        match self {
            Self::Forwarded => http::header::FORWARDED,
            Self::List(name) | Self::Single(name) => name.clone(),
        }
    }
}

/// How the client address is found.
#[derive(Clone, Debug)]
pub struct ClientAddress {
    /// Hops whose header is believed.
    pub trusted_proxies: Allowlist,
    /// The header they set.
    pub header: AddressHeader,
}

/// Why the client address cannot be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SourceFault {
    /// A header that may hold one address occurs more than once.
    Doubled,
    /// The published addresses of the trusted proxies were not to be had so far.
    ListUnavailable,
    /// An element that is not an address.
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
                "the published addresses of the trusted proxies could not be fetched so far"
            }
            Self::Unreadable => "the address header of a trusted proxy holds something that is no address",
        })
    }
}

impl ClientAddress {
    /// The client address of a request that came from `peer`. IPv4-mapped IPv6 is folded to IPv4.
    ///
    /// # Errors
    /// [`SourceFault`] when a trusted proxy's header cannot be read as far as it has to be.
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

    /// Walks the hops from the nearest to the farthest. A hop that is trusted vouches for the one before it;
    /// where all are trusted, the farthest is the client.
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

/// Splits at a separator that is not within a quoted string (RFC 9110 section 5.6.4): what a caller put into
/// a quoted parameter must not become an element of its own.
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

/// Reads one hop: an address, `v4:port`, `[v6]` or `[v6]:port`. No zone ids, no names, no leading zeros.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || match text.parse::<SocketAddr>().ok()? {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => None,
        socket => Some(socket.ip()),
    };
    let address = text.parse::<IpAddr>().ok().or_else(bracketed).or_else(with_port)?;
    if text.contains('%') { None } else { Some(address.to_canonical()) }
}

/// Reads one element of `Forwarded`: exactly one `for` parameter, quoted or not. `unknown` and obfuscated
/// names are no addresses.
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
        // What stands left of the client is its own claim and is not even read.
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
