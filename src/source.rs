//! Who is calling: the client address, and the networks it may come from.
//!
//! The peer of the connection counts, unless it is a trusted proxy; then the right-most address of the chosen
//! header that is not itself a trusted proxy. An address that cannot be read is never skipped: it refuses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

// === Networks ===

/// A set of networks, as sorted ranges: a look-up costs the same for ten as for ten thousand.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// Builds the set. IPv4-mapped IPv6 networks are folded to IPv4.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match fold_network(network) {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()))),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()))),
            }
        }
        Self { v4: merge(v4), v6: merge(v6) }
    }

    /// Whether `address` is in one of the networks. IPv4-mapped IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => within(&self.v4, u32::from(v4)),
            IpAddr::V6(v6) => within(&self.v6, u128::from(v6)),
        }
    }

    /// How many ranges are left once neighbours are merged.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether no address is in the set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn merge<T: Copy + Ord>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

fn within<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(start, _)| *start <= address);
    after.checked_sub(1).and_then(|i| ranges.get(i)).is_some_and(|(_, end)| address <= *end)
}

fn fold_network(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(net) if net.prefix_len() >= 96 => match net.network().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, net.prefix_len() - 96).map_or(network, IpNet::V4),
            None => network,
        },
        _ => network,
    }
}

/// Why a network cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NetworkFault {
    /// Bits are set beyond the prefix; the network that was probably meant is given.
    HostBits(IpNet),
    /// Not `address` or `address/prefix`.
    Unreadable,
}

impl fmt::Display for NetworkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostBits(meant) => write!(f, "has bits set beyond its prefix; did you mean {meant}?"),
            Self::Unreadable => write!(f, "is not an address or network, such as 203.0.113.0/24"),
        }
    }
}

/// Reads `address` or `address/prefix`; a bare address is a network of one. Leading zeros, zone ids and
/// signs are refused (the address is read by the standard library, not by a laxer parser).
///
/// # Errors
/// [`NetworkFault`], with the network that was probably meant where host bits are set.
pub fn parse_network(text: &str) -> Result<IpNet, NetworkFault> {
    let (address, prefix) = match text.split_once('/') {
        None => (text, None),
        Some((address, digits)) => {
            let plain = (1..=3).contains(&digits.len())
                && digits.bytes().all(|b| b.is_ascii_digit())
                && (digits == "0" || !digits.starts_with('0'));
            let prefix = digits.parse::<u8>().ok().filter(|_| plain).ok_or(NetworkFault::Unreadable)?;
            (address, Some(prefix))
        }
    };
    let address: IpAddr = address.parse().map_err(|_| NetworkFault::Unreadable)?;
    let network = match (address, prefix) {
        (IpAddr::V4(v4), prefix) => Ipv4Net::new(v4, prefix.unwrap_or(32)).map(IpNet::V4),
        (IpAddr::V6(v6), prefix) => Ipv6Net::new(v6, prefix.unwrap_or(128)).map(IpNet::V6),
    }
    .map_err(|_| NetworkFault::Unreadable)?;
    if network.trunc() == network { Ok(network) } else { Err(NetworkFault::HostBits(network.trunc())) }
}

// === ClientAddress ===

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
    pub trusted_proxies: Networks,
    /// The header they set.
    pub header: AddressHeader,
}

/// Why the client address cannot be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SourceFault {
    /// A header that may hold one address occurs more than once.
    Doubled,
    /// An element that is not an address.
    Unreadable,
}

impl fmt::Display for SourceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Doubled => "the address header occurs more than once",
            Self::Unreadable => "the address header of a trusted proxy holds something that is no address",
        })
    }
}

impl ClientAddress {
    /// The client address of a request that came from `peer`. IPv4-mapped IPv6 is folded to IPv4.
    ///
    /// # Errors
    /// [`SourceFault`] when a trusted proxy's header cannot be read as far as it has to be.
    pub fn resolve(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, SourceFault> {
        let peer = peer.to_canonical();
        if !self.trusted_proxies.contains(peer) {
            return Ok(peer);
        }
        match &self.header {
            AddressHeader::Single(name) => single(peer, headers, name),
            AddressHeader::List(name) => self.right_most(peer, headers, name, parse_hop),
            AddressHeader::Forwarded => {
                self.right_most(peer, headers, &http::header::FORWARDED, parse_forwarded)
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
    ) -> Result<IpAddr, SourceFault> {
        let mut client = peer;
        let lines: Vec<_> = headers.get_all(name).iter().collect();
        for line in lines.into_iter().rev() {
            let line = line.to_str().map_err(|_| SourceFault::Unreadable)?;
            for hop in line.rsplit(',') {
                client = parse(hop.trim_matches([' ', '\t'])).ok_or(SourceFault::Unreadable)?;
                if !self.trusted_proxies.contains(client) {
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
    let mut addresses = element.split(';').filter_map(|pair| {
        let (name, value) = pair.trim_matches([' ', '\t']).split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    });
    let (Some(value), None) = (addresses.next(), addresses.next()) else { return None };
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').filter(|inner| !inner.contains(['"', '\\'])).and_then(parse_hop),
        None => parse_hop(value).filter(|address| matches!(address, IpAddr::V4(_))),
    }
}

/// The address that counts as nobody's, for requests made up by `explain`.
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        Networks::new(list.iter().map(|text| parse_network(text).unwrap()))
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
        client.resolve(peer.parse().unwrap(), &headers).map(|address| address.to_string())
    }

    #[test]
    fn networks_contain_their_addresses_and_no_others() {
        let set = networks(&["203.0.113.0/24", "198.51.100.7", "2001:db8::/32", "::ffff:192.0.2.0/120"]);
        for inside in ["203.0.113.0", "203.0.113.255", "198.51.100.7", "2001:db8:1::1", "::ffff:203.0.113.9"]
        {
            assert!(set.contains(inside.parse().unwrap()), "{inside}");
        }
        assert!(set.contains("192.0.2.77".parse().unwrap()), "a mapped network is folded");
        for outside in ["203.0.112.255", "203.0.114.0", "198.51.100.6", "198.51.100.8", "2001:db9::", "::1"] {
            assert!(!set.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(networks(&["0.0.0.0/0"]).contains("255.255.255.255".parse().unwrap()));
        assert!(!networks(&["0.0.0.0/0"]).contains("::1".parse().unwrap()));
    }

    #[test]
    fn networks_are_read_strictly() {
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/+8", "010.0.0.0/8", "10.0.0/8"] {
            assert_eq!(parse_network(bad), Err(NetworkFault::Unreadable), "{bad}");
        }
        for bad in ["fe80::1%eth0", "::1/129", "example.com", "10.0.0.1-10.0.0.9", "0x7f.0.0.1", "2130706433"]
        {
            assert_eq!(parse_network(bad), Err(NetworkFault::Unreadable), "{bad}");
        }
        assert!(
            matches!(parse_network("10.0.0.5/8"), Err(NetworkFault::HostBits(net)) if net.to_string() == "10.0.0.0/8")
        );
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
        for bad in
            ["for=unknown", "for=_hidden", "proto=https", "for=1.1.1.1;for=2.2.2.2", "for=\"1.1.1.1", ""]
        {
            assert_eq!(fwd(&[bad]), Err(SourceFault::Unreadable), "{bad:?}");
        }
    }
}
