//! Sets of IP networks, with a strict parser and a fast lookup.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

/// A set of IP networks, stored as sorted ranges. A lookup is a binary search.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// Creates a set of IP networks. IPv4-mapped IPv6 networks become IPv4 networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match fold_network(network) {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()))),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()))),
            }
        }
        Self { v4: merge(v4, |end| end.checked_add(1)), v6: merge(v6, |end| end.checked_add(1)) }
    }

    /// Reports whether one of the networks contains `address`. An IPv4-mapped IPv6 address is treated as an IPv4
    /// address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => within(&self.v4, u32::from(v4)),
            IpAddr::V6(v6) => within(&self.v6, u128::from(v6)),
        }
    }

    /// Returns the number of address ranges. Adjacent and overlapping networks form one range.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Reports whether the set contains all IPv4 addresses or all IPv6 addresses.
    pub fn is_everything(&self) -> bool {
        self.v4 == [(0, u32::MAX)] || self.v6 == [(0, u128::MAX)]
    }

    /// Returns the address ranges of the set, each as its first and last address.
    pub fn ranges(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let v4 = self.v4.iter().map(|(a, b)| (Ipv4Addr::from(*a).into(), Ipv4Addr::from(*b).into()));
        let v6 = self.v6.iter().map(|(a, b)| (Ipv6Addr::from(*a).into(), Ipv6Addr::from(*b).into()));
        v4.chain(v6)
    }

    /// Returns the set as IP networks. Adjacent and overlapping networks are merged.
    pub fn nets(&self) -> Vec<IpNet> {
        let v4 =
            self.v4.iter().flat_map(|(a, b)| Ipv4Subnets::new(Ipv4Addr::from(*a), Ipv4Addr::from(*b), 0));
        let v6 =
            self.v6.iter().flat_map(|(a, b)| Ipv6Subnets::new(Ipv6Addr::from(*a), Ipv6Addr::from(*b), 0));
        v4.map(IpNet::V4).chain(v6.map(IpNet::V6)).collect()
    }

    /// Reports whether the set contains no address.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn merge<T: Copy + Ord>(mut ranges: Vec<(T, T)>, next: fn(T) -> Option<T>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if next(last.1).is_none_or(|next| start <= next) => last.1 = last.1.max(end),
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

/// The reason why a text is not a valid IP network.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NetworkFault {
    /// The address has bits set after the prefix. The field is the same network without these bits. This network was
    /// probably meant.
    HostBits(IpNet),
    /// The text is neither `address` nor `address/prefix`.
    Unreadable,
}

impl fmt::Display for NetworkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostBits(meant) => write!(f, "has bits set after its prefix; did you mean {meant}?"),
            Self::Unreadable => write!(f, "is not an address or network, such as 203.0.113.0/24"),
        }
    }
}

/// Parses an IP network in the form `address` or `address/prefix`. An address without a prefix is a network of one
/// address. Leading zeros, zone ids and signs are errors. The address is parsed by the standard library, because its
/// parser is strict.
///
/// # Errors
/// Returns a [`NetworkFault`] if the text is not a valid network. If bits after the prefix are set, the fault contains
/// the network that was probably meant.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        Networks::new(list.iter().map(|text| parse_network(text).unwrap()))
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
}
